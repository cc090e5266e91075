"use strict";
// video.html?<video>: plays a video with its masks. Two runs, in a comparison, are shown beside each other.

const runs = [];
const video = REPORT.videos.find((each) => each.url === location.search.slice(1));
const state = { index: 0, playing: false, opacity: 0.55, truth: false, foreground: false, background: false, picked: null, hovered: null };
const KEPT = 90; // decoded frames in memory, about a megabyte each
const AHEAD = 8; // frames that are loaded before they are shown
const MASK = 255; // label of the foreground
const FOREGROUND = [255, 255, 255]; // its colour: white, which no proposal has
const GREY = "rgb(120, 120, 120)"; // behind masks that are shown without frames

/** The data of a run, in videos/<video>/data.js, calls this. */
function addRun(run) {
  runs.push({ ...run, number: runs.length, byId: new Map(run.proposals.map((proposal) => [proposal.id, proposal])) });
}

// ------------------------------------------------------------------ loading

function loadScript(source) {
  return new Promise((resolve, reject) => {
    const script = make("script", { src: source });
    script.addEventListener("load", () => { script.remove(); resolve(); });
    script.addEventListener("error", () => reject(new Error(`${source}: cannot be read; make the report again`)));
    document.head.append(script);
  });
}

async function loadImage(source) {
  const image = new Image();
  image.src = source;
  await image.decode();
  return image;
}

/** Decode a label map: grey is the id, or 255 in a mask; if blue is 0, red is its low and green its high byte. */
async function decodeLabels(text, width, height) {
  const image = await loadImage(`data:image/png;base64,${text}`);
  const canvas = make("canvas", { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const pixels = context.getImageData(0, 0, width, height).data;
  const labels = new Uint16Array(width * height);
  for (let k = 0, place = 0; k < labels.length; k += 1, place += 4) {
    labels[k] = pixels[place + 2] ? pixels[place] : pixels[place] | (pixels[place + 1] << 8);
  }
  return labels;
}

const frames = new Map(); // index -> promise of {image, maps: [labels of each run], truth}

/** Load a frame with its masks; those of the frames seen last are kept. */
function loadFrame(index) {
  const kept = frames.get(index);
  frames.delete(index); // and put back at the end, so that the first is the one not seen for longest
  frames.set(index, kept || decodeFrame(index));
  if (frames.size > KEPT) frames.delete(frames.keys().next().value);
  return frames.get(index);
}

async function decodeFrame(index) {
  const [first] = runs;
  const [height, width] = first.size;
  const file = `videos/${video.url}/${String(index).padStart(5, "0")}.jpg`;
  const [image, truth, ...maps] = await Promise.all([
    first.frames ? loadImage(file) : null,
    first.truth && first.truth[index] ? decodeLabels(first.truth[index], width, height) : null,
    ...runs.map((run) => decodeLabels(run.masks[index], run.size[1], run.size[0])),
  ]);
  return { image, truth, maps };
}

/** Load a frame with what is shown over it: the foreground is decoded only if it is. */
async function loadShown(index) {
  const frame = await loadFrame(index);
  if (state.foreground) {
    frame.foregrounds ||= await Promise.all(
      runs.map((run) => decodeLabels(run.foreground[index], run.size[1], run.size[0])));
  }
  return frame;
}

// ------------------------------------------------------------------ drawing

/** Tell how a proposal is shown: "full", "faint" or "none". */
function visibility(run, id) {
  const proposal = run.byId.get(id);
  if (state.picked) {
    if (state.picked.run !== run.number) return proposal && proposal.background && !state.background ? "none" : "full";
    return state.picked.id === id ? "full" : "none";
  }
  if (proposal && proposal.background && !state.background) return "none";
  return isAside(run, id) ? "faint" : "full";
}

/** Tell whether another proposal of this run is picked, or pointed at in the list. */
function isAside(run, id) {
  const chosen = state.picked || (state.hovered && state.hovered.fade ? state.hovered : null);
  return Boolean(chosen) && chosen.run === run.number && chosen.id !== id;
}

/** List what is drawn over a frame of a run: id, colour and strength of each proposal, or of the foreground. */
function listDrawn(run) {
  if (state.foreground) return [{ id: MASK, colour: FOREGROUND, strength: 1 }];
  const strengths = { full: 1, faint: 0.35, none: 0 };
  const drawn = run.proposals.map(({ id }) => ({ id, colour: REPORT.palette[id % 256], strength: strengths[visibility(run, id)] }));
  return drawn.filter(({ strength }) => strength);
}

/** The colours of all ids of a run as they are drawn now, packed as pixels: [of the area, of the outline]. */
function makeTables(run) {
  const size = Math.max(...run.proposals.map((proposal) => proposal.id), MASK) + 1;
  const [area, outline] = [new Uint32Array(size), new Uint32Array(size)];
  for (const { id, colour: [red, green, blue], strength } of listDrawn(run)) {
    const colour = red | (green << 8) | (blue << 16);
    area[id] = colour | (Math.round(255 * strength * state.opacity) << 24);
    outline[id] = colour | (Math.round(255 * strength * Math.min(2.5 * state.opacity, 1)) << 24);
  }
  return [area, outline];
}

/** Draw label maps into pixels: tinted areas, outlines in the full colour, the outline of the truth in white and black. */
function paint(pixels, width, height, labels, truth, [area, outline]) {
  for (let y = 0, k = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1, k += 1) {
      const label = labels[k];
      const edge = (x > 0 && labels[k - 1] !== label) || (x + 1 < width && labels[k + 1] !== label)
        || (y > 0 && labels[k - width] !== label) || (y + 1 < height && labels[k + width] !== label);
      pixels[k] = edge ? outline[label] : area[label];
      if (truth === null) continue;
      const object = truth[k];
      if ((x > 0 && truth[k - 1] !== object) || (y > 0 && truth[k - width] !== object)
        || (x + 1 < width && truth[k + 1] !== object && object) || (y + 1 < height && truth[k + width] !== object && object)) {
        pixels[k] = ((x + y) >> 2) & 1 ? 0xffffffff : 0xff101010;
      }
    }
  }
}

class View {
  constructor(run) {
    const [height, width] = run.size;
    this.run = run;
    this.canvas = make("canvas", { width, height, role: "img", style: `--ratio: ${width / height}` });
    this.tip = make("span", { class: "tip", hidden: true });
    const label = REPORT.runs.length ? make("figcaption", {}, REPORT.runs[run.number]) : null;
    this.node = make("figure", { class: "view" }, label, make("div", { class: "screen" }, this.canvas, this.tip));
    this.context = this.canvas.getContext("2d");
    this.layer = make("canvas", { width, height });
    this.image = this.layer.getContext("2d").createImageData(width, height);
    this.pixels = new Uint32Array(this.image.data.buffer);
    this.canvas.addEventListener("pointermove", (event) => this.hover(event));
    this.canvas.addEventListener("pointerleave", () => { this.tip.hidden = true; hoverOver(null); });
    this.canvas.addEventListener("click", (event) => {
      if (explorer && explorer.isOpen) {
        setPlaying(false);
        explorer.pick(explorer.tokenAt(...this.shares(event))).catch(showError);
        return;
      }
      const id = this.idAt(event);
      if (id) pick(run.number, id);
    });
  }

  draw(frame) {
    const { context, layer } = this;
    const [height, width] = this.run.size;
    this.labels = (state.foreground ? frame.foregrounds : frame.maps)[this.run.number];
    const fits = frame.truth && frame.truth.length === this.labels.length;
    this.truth = fits ? frame.truth : null;
    if (frame.image) context.drawImage(frame.image, 0, 0, width, height);
    else {
      context.fillStyle = GREY;
      context.fillRect(0, 0, width, height);
    }
    paint(this.pixels, width, height, this.labels, state.truth ? this.truth : null, makeTables(this.run));
    layer.getContext("2d").putImageData(this.image, 0, 0);
    context.drawImage(layer, 0, 0);
    if (explorer) explorer.mark(context);
    this.canvas.setAttribute("aria-label", `Frame ${this.run.names[state.index]} of ${video.name} with masks`);
  }

  /** The place of the pointer, as shares of the frame's width and height. */
  shares(event) {
    const box = this.canvas.getBoundingClientRect();
    const share = (value, size) => Math.min(Math.max(value / size, 0), 1 - 1e-9);
    return [share(event.clientX - box.left, box.width), share(event.clientY - box.top, box.height)];
  }

  place(event) {
    const [height, width] = this.run.size;
    const [x, y] = this.shares(event);
    return Math.floor(y * height) * width + Math.floor(x * width);
  }

  /** The id of the proposal that is shown below the pointer, 0 for none. */
  idAt(event) {
    const id = this.labels && !state.foreground ? this.labels[this.place(event)] : 0;
    return id && visibility(this.run, id) !== "none" ? id : 0;
  }

  hover(event) {
    const id = this.idAt(event);
    const object = state.truth && this.truth ? this.truth[this.place(event)] : 0;
    const isForeground = state.foreground && this.labels[this.place(event)];
    const words = [id ? `proposal ${id}` : isForeground ? "foreground" : "", object === 255 ? "void" : object ? `object ${object}` : ""];
    const told = explorer ? explorer.tell(...this.shares(event)) : "";
    this.tip.textContent = [words.filter(Boolean).join(" · "), told].filter(Boolean).join("\n");
    this.tip.hidden = !this.tip.textContent;
    const box = this.canvas.getBoundingClientRect();
    const x = event.clientX - box.left;
    this.tip.style.left = `${x}px`;
    this.tip.style.top = `${event.clientY - box.top}px`;
    this.tip.classList.toggle("left", x > box.width - this.tip.offsetWidth - 20);
    hoverOver(id ? { run: this.run.number, id, fade: false } : null); // else all would flicker below the pointer
  }
}

// ------------------------------------------------------------------ proposals

const COMPONENTS = {
  size: "the larger the better", border: "1 if it touches no border of the frame", motion: "against the camera",
};

/** The table of a run's proposals; a click on a row shows it alone. */
class Panel {
  constructor(run) {
    this.run = run;
    const known = Object.keys(COMPONENTS).filter((name) => run.proposals.some((each) => name in each.components));
    const scored = run.proposals.some((each) => each.score !== null);
    const heads = [["#", "number; 1 is the best"], ...(scored ? [["Score", "product of the components to its right"]] : []),
      ...known.map((name) => [name[0].toUpperCase() + name.slice(1), COMPONENTS[name]]), ["Frames", "first to last frame in which it is visible"]];
    this.rows = new Map();
    const body = make("tbody");
    for (const proposal of run.proposals) body.append(this.makeRow(proposal, known, scored));
    const title = REPORT.runs.length ? `Proposals of ${"AB"[run.number]}` : "Proposals";
    this.node = make("div", { class: "panel" }, make("h2", {}, title, make("span", { class: "muted" }, ` ${run.proposals.length}`)),
      make("table", { class: "proposals" },
        make("thead", {}, make("tr", {}, ...heads.map(([text, hint]) => make("th", { scope: "col", title: hint }, text)))), body));
  }

  makeRow(proposal, known, scored) {
    const { run } = this;
    const { id } = proposal;
    const matches = describeMatches(run, id);
    const button = make("button", { type: "button", "aria-pressed": "false", "aria-label": `Show proposal ${id} alone` },
      make("span", { class: "swatch", style: `--colour: ${colourOf(id)}` }), String(id));
    const range = proposal.first === null ? "–" : `${run.names[proposal.first]}–${run.names[proposal.last]}`;
    const row = make("tr", { class: proposal.background ? "is-background" : null },
      make("th", { scope: "row" }, button),
      ...(scored ? [make("td", {}, formatScore(proposal.score))] : []),
      ...known.map((name) => make("td", {}, formatScore(proposal.components[name]))),
      make("td", { title: `visible in ${proposal.frames} of ${run.count} frames` }, shortenRange(range)));
    row.addEventListener("click", () => pick(run.number, id));
    row.addEventListener("pointerenter", () => hoverOver({ run: run.number, id, fade: true }));
    row.addEventListener("pointerleave", () => hoverOver(null));
    const notes = [...matches, ...(proposal.background ? ["background"] : [])];
    if (notes.length) row.firstChild.append(make("small", {}, notes.join(", ")));
    this.rows.set(id, row);
    return row;
  }

  update() {
    for (const [id, row] of this.rows) {
      const picked = Boolean(state.picked) && state.picked.run === this.run.number && state.picked.id === id;
      row.classList.toggle("is-picked", picked);
      row.classList.toggle("is-off", visibility(this.run, id) === "none");
      row.classList.toggle("is-hovered", Boolean(state.hovered) && state.hovered.run === this.run.number && state.hovered.id === id);
      row.querySelector("button").setAttribute("aria-pressed", String(picked));
    }
  }
}

/** The objects that a proposal was matched to when the results were scored, in words. */
function describeMatches(run, id) {
  if (!run.scores || run.scores.merged) return [];
  return run.scores.objects.filter((object) => object.matched.includes(id)).map((object) => {
    const scores = `J ${(100 * object.J).toFixed(1)}, F ${(100 * object.F).toFixed(1)}`;
    return run.scores.protocol === "davis" ? `object ${object.id}: ${scores}` : `object ${object.id} in some frames`;
  });
}

function formatScore(value) {
  if (value === undefined || value === null) return "–";
  if (value === 0) return "0";
  return value < 0.001 ? value.toExponential(0).replace("e-", "e−") : value < 10 ? value.toPrecision(2) : value.toFixed(0);
}

/** Shorten names of frames such as 00000–00049 to 0–49. */
const shortenRange = (range) => range.replace(/(^|–)0+(?=\d)/g, "$1");

// ------------------------------------------------------------------ charts

/** Area of every proposal over time; J of every object, in the colour of the proposal that is matched to it. */
function makeCharts(run) {
  const options = { count: run.count, names: run.names.map((name) => shortenRange(name)), seek: (index) => go(index) };
  const side = REPORT.runs.length ? ` of ${"AB"[run.number]}` : "";
  const charts = [new Chart(`Area${side}, % of the frame`, run.proposals.map(({ id, area }) => (
    { id, colour: colourOf(id), values: area })), options)];
  if (run.scores) {
    const lines = run.scores.objects.map((object) => {
      const match = object.matched.find((id) => id !== null) || 0;
      return { id: match, colour: match ? colourOf(match) : "128, 128, 128", values: object.j };
    });
    const each = run.scores.merged ? "all objects as one" : "a line an object";
    charts.unshift(new Chart(`J${side}, %: ${run.scores.protocol}, ${each}`, lines, { ...options, full: true }));
    charts[0].visibility = (id) => (isAside(run, id) ? "faint" : "full"); // scores count, whatever is hidden
  }
  const area = charts.at(-1);
  area.visibility = (id) => visibility(run, id);
  for (const chart of charts) chart.run = run;
  return charts;
}

// ------------------------------------------------------------------ state

let views = [];
let panels = [];
let charts = [];
let explorer = null; // of attention, where eval.py --explore kept its data
let loops = 0; // how often playing has begun; only the last loop goes on
let wanted = 0; // the last frame that was asked for; frames that load later than it are not drawn

async function go(index) {
  const last = runs[0].count - 1;
  const target = Math.min(Math.max(index, 0), last);
  wanted = target;
  const frame = await loadShown(target);
  if (wanted !== target) return;
  state.index = target;
  for (const view of views) view.draw(frame);
  for (const chart of charts) chart.show(target);
  byId("slider").value = target;
  byId("slider").setAttribute("aria-valuetext", `frame ${runs[0].names[target]}`);
  byId("frame").textContent = `${target + 1} / ${runs[0].count}`;
  byId("player").dataset.index = target;
  for (let k = 1; k <= AHEAD && target + k <= last; k += 1) loadShown(target + k).catch(() => {});
}

/** Draw the same frame again, after a change of how it is shown. */
function refresh() {
  for (const panel of panels) panel.update();
  for (const chart of charts) chart.pick((id) => chart.visibility(id));
  byId("all").disabled = !state.picked && !state.foreground;
  byId("truth").setAttribute("aria-pressed", String(state.truth));
  byId("foreground").setAttribute("aria-pressed", String(state.foreground));
  byId("background").setAttribute("aria-pressed", String(state.background));
  byId("background").disabled = state.foreground;
  go(wanted).catch(showError);
}

function pick(run, id) {
  const again = state.picked && state.picked.run === run && state.picked.id === id;
  state.picked = again || !id ? null : { run, id };
  if (state.picked) state.foreground = false;
  refresh();
}

function hoverOver(next) {
  const same = (next && next.id) === (state.hovered && state.hovered.id) && (next && next.run) === (state.hovered && state.hovered.run);
  if (same) return;
  state.hovered = next;
  refresh();
}

/** Show all proposals, in place of one alone or of the foreground. */
function showAll() {
  state.foreground = false;
  pick(0, 0);
}

function toggle(name) {
  if (byId(name).hidden || byId(name).disabled) return;
  state[name] = !state[name];
  if (state.foreground) state.picked = null; // the foreground is shown in place of all proposals
  refresh();
}

function setPlaying(playing) {
  state.playing = playing;
  byId("play").setAttribute("aria-label", playing ? "Pause" : "Play");
  byId("player").classList.toggle("is-playing", playing);
  if (playing) play().catch(showError);
}

/** Show frame after frame at the video's rate; a frame that is late is shown late, and none is left out. */
async function play() {
  loops += 1;
  const loop = loops;
  if (state.index === runs[0].count - 1) await go(0);
  let due = performance.now();
  const isOn = () => state.playing && loop === loops;
  while (isOn() && state.index < runs[0].count - 1) {
    due = Math.max(due + 1000 / (runs[0].rate * Number(byId("speed").value)), performance.now() - 50);
    await new Promise((resolve) => setTimeout(resolve, Math.max(due - performance.now(), 0)));
    await new Promise(requestAnimationFrame);
    if (isOn()) await go(state.index + 1);
  }
  if (isOn()) setPlaying(false);
}

function step(by) {
  setPlaying(false);
  go(wanted + by).catch(showError);
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const field = event.target.tagName;
  if (field === "SELECT" || (field === "INPUT" && event.key.startsWith("Arrow"))) return;
  if (event.key === " " && field === "BUTTON") return; // presses the button
  const actions = {
    " ": () => setPlaying(!state.playing), ArrowLeft: () => step(-1), ArrowRight: () => step(1),
    Home: () => step(-runs[0].count), End: () => step(runs[0].count), t: () => toggle("truth"), f: () => toggle("foreground"),
    b: () => toggle("background"),
    0: showAll, Escape: showAll,
  };
  const proposal = /^[1-9]$/.test(event.key) && runs[0].byId.get(Number(event.key));
  const action = proposal ? () => pick(0, proposal.id) : actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!action) return;
  event.preventDefault();
  action();
}

// ------------------------------------------------------------------ start

function showError(error) {
  byId("message").textContent = error.message || String(error);
  byId("message").hidden = false;
}

function showNames() {
  document.title = video.name;
  byId("title").textContent = video.name;
  const scores = REPORT.columns.filter((column) => video.values[column.key] !== undefined)
    .map((column) => `${column.label} ${formatValue(column.kind, video.values[column.key])}`);
  byId("summary").textContent = scores.join(" · ");
  const place = REPORT.videos.indexOf(video);
  const neighbours = { previous: [REPORT.videos[place - 1], "‹"], next: [REPORT.videos[place + 1], "›"] };
  for (const [id, [other, sign]] of Object.entries(neighbours)) {
    byId(id).hidden = !other;
    if (!other) continue;
    byId(id).href = `video.html?${other.url}`;
    byId(id).textContent = id === "next" ? `${other.name} ${sign}` : `${sign} ${other.name}`;
  }
}

function connectControls() {
  const [first] = runs;
  byId("slider").max = first.count - 1;
  byId("slider").addEventListener("input", (event) => { setPlaying(false); go(Number(event.target.value)).catch(showError); });
  byId("opacity").addEventListener("input", (event) => { state.opacity = event.target.value / 100; refresh(); });
  byId("play").addEventListener("click", () => setPlaying(!state.playing));
  byId("back").addEventListener("click", () => step(-1));
  byId("forward").addEventListener("click", () => step(1));
  byId("truth").addEventListener("click", () => toggle("truth"));
  byId("foreground").addEventListener("click", () => toggle("foreground"));
  byId("background").addEventListener("click", () => toggle("background"));
  byId("all").addEventListener("click", showAll);
  byId("truth").hidden = !first.truth;
  byId("foreground").hidden = !runs.every((run) => run.foreground);
  byId("background").hidden = !runs.some((run) => run.proposals.some((proposal) => proposal.background));
  document.addEventListener("keydown", onKey);
  byId("player").addEventListener("mousedown", (event) => { // a click does not move the focus: Space still plays
    if (event.target.closest("button")) event.preventDefault();
  });
}

async function start() {
  byId("report").textContent = REPORT.title;
  if (!video) throw new Error("There is no such video in this report.");
  showNames();
  for (const file of video.data) await loadScript(`videos/${video.url}/${file}`);
  views = runs.map((run) => new View(run));
  panels = runs.map((run) => new Panel(run));
  charts = runs.flatMap(makeCharts);
  byId("stage").append(...views.map((view) => view.node));
  byId("panels").append(...panels.map((panel) => panel.node));
  byId("charts").append(...runs.map((run) =>
    make("div", {}, ...charts.filter((chart) => chart.run === run).map((chart) => chart.node))));
  byId("player").classList.toggle("compares", runs.length > 1);
  if (video.attention) explorer = new Explorer(runs[0]);
  connectControls();
  byId("player").hidden = false;
  byId("message").hidden = true;
  refresh();
}

start().catch(showError);
