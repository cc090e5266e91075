"use strict";
// The section "Attention" of video.html: what a token attends to in the key frames, and how far its row of attention is
// from the centres of clusters and from other rows (docs/method.md, sections 4 and 5).
// Its data, which eval.py --explore keeps, are loaded when the section is opened.

const TINY = 2 ** -126; // probabilities are clipped here before their logarithm is taken
const LOG_STEP = Math.log(TINY) / 65535; // of the logarithms of centres
const KEPT_QUERIES = 24; // frames whose queries stay in memory
const KEPT_ROWS = 100e6; // bytes of rows that stay in memory
const MOST_PRODUCTS = 3e9; // multiplications to compare rows of a frame; about ten seconds
const SLICE = 20; // milliseconds of work before the page may react
const SHOWN_CENTRES = 6;
// Of heat maps: colours from no attention to the most, evenly spaced.
const HEAT = [[20, 12, 60], [92, 24, 128], [176, 42, 120], [240, 92, 72], [254, 178, 78], [252, 253, 191]];

// ------------------------------------------------------------------ data

let about = null; // what addClusters was given
const keysOf = new Map(); // key frame -> Float32Array (N, C)
const queriesOf = new Map(); // frame -> {tokens: Float32Array (N, C), labels: Uint16Array (N)}

/** The scripts in videos/<video>/attention/ call these three. */
function addClusters(clusters) { about = { ...clusters, centres: new Uint16Array(decodeBytes(clusters.centres)) }; }
function addKeys(position, values, scales) { keysOf.set(position, decodeTokens(values, scales)); }
function addQueries(position, values, scales, labels) {
  queriesOf.set(position, { tokens: decodeTokens(values, scales), labels: new Uint16Array(decodeBytes(labels)) });
}

function decodeBytes(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let k = 0; k < bytes.length; k += 1) bytes[k] = binary.charCodeAt(k);
  return bytes.buffer;
}

function decodeTokens(values, scales) {
  const [integers, scale] = [new Int16Array(decodeBytes(values)), new Float32Array(decodeBytes(scales))];
  const width = integers.length / scale.length;
  const tokens = new Float32Array(integers.length);
  for (let n = 0, k = 0; n < scale.length; n += 1) {
    for (let c = 0; c < width; c += 1, k += 1) tokens[k] = integers[k] * scale[n];
  }
  return tokens;
}

// ------------------------------------------------------------------ formulas

/** Rows of attention over the tokens of all key frames, S of them, and distances between rows. */
class Rows {
  constructor({ grid, heads, width, clusters, centres }, keys) {
    Object.assign(this, { heads, width, clusters, centres, keys });
    this.tokens = grid[0] * grid[1];
    this.columns = keys.length * this.tokens;
    this.scores = new Float64Array(heads * this.columns); // of each head in turn
    this.exponentials = Float64Array.from({ length: 65536 }, (_, k) => Math.exp(k * LOG_STEP)); // centres from logarithms
  }

  /** The row of a query (C): the mean over heads of softmax(q k / sqrt(d)), d channels a head. */
  attend(query) {
    const { heads, width, columns, scores, tokens } = this;
    const size = width / heads;
    const scaled = Float64Array.from(query, (value) => value / Math.sqrt(size));
    this.keys.forEach((keys, frame) => {
      for (let token = 0, place = 0; token < tokens; token += 1) {
        for (let head = 0, c = 0; head < heads; head += 1, c += size, place += size) {
          scores[head * columns + frame * tokens + token] = multiply(scaled, c, keys, place, size);
        }
      }
    });
    const row = new Float64Array(columns);
    for (let head = 0; head < heads; head += 1) addSoftmax(row, scores, head * columns, heads);
    return row;
  }

  /** The distance of two rows in nats: KL(p||r) + KL(r||p). */
  compare(first, logarithms, second) {
    let distance = 0;
    for (let k = 0; k < first.length; k += 1) {
      distance += (first[k] - second[k]) * (logarithms[k] - Math.log(Math.max(second[k], TINY)));
    }
    return distance;
  }

  /** The distance of a row to every centre. */
  compareToCentres(row) {
    const { columns, centres, exponentials } = this;
    const logarithms = takeLogarithms(row);
    return Float64Array.from({ length: this.clusters }, (_, cluster) => {
      let distance = 0;
      for (let k = 0, place = cluster * columns; k < columns; k += 1, place += 1) {
        const step = centres[place];
        distance += (row[k] - exponentials[step]) * (logarithms[k] - step * LOG_STEP);
      }
      return distance;
    });
  }
}

/** The product of two vectors, in four sums that do not wait for one another. */
function multiply(first, at, second, place, size) {
  let [a, b, c, d] = [0, 0, 0, 0];
  let k = 0;
  for (; k + 3 < size; k += 4) {
    a += first[at + k] * second[place + k];
    b += first[at + k + 1] * second[place + k + 1];
    c += first[at + k + 2] * second[place + k + 2];
    d += first[at + k + 3] * second[place + k + 3];
  }
  for (; k < size; k += 1) a += first[at + k] * second[place + k];
  return a + b + c + d;
}

/** Add to a row its share of one head: the softmax of the scores from `at` on, divided by the number of heads. */
function addSoftmax(row, scores, at, heads) {
  let largest = -Infinity;
  for (let k = 0; k < row.length; k += 1) if (scores[at + k] > largest) largest = scores[at + k];
  let sum = 0;
  for (let k = 0; k < row.length; k += 1) {
    scores[at + k] = Math.exp(scores[at + k] - largest);
    sum += scores[at + k];
  }
  for (let k = 0; k < row.length; k += 1) row[k] += scores[at + k] / (sum * heads);
}

const takeLogarithms = (row) => row.map((value) => Math.log(Math.max(value, TINY)));

// ------------------------------------------------------------------ section

class Explorer {
  constructor(run) {
    this.run = run;
    this.section = byId("attention");
    this.section.hidden = false;
    this.point = null; // {position, token} that was clicked
    this.job = 0; // comparisons of rows of an earlier point stop
    this.section.addEventListener("toggle", () => {
      byId("player").classList.toggle("explores", this.isOpen);
      if (this.isOpen) this.open().catch((error) => this.say(error.message));
      refresh();
    });
  }

  get isOpen() { return this.section.open; }
  get position() { return this.run.positions[state.index]; }

  say(text) { byId("attention-message").textContent = text; byId("attention-message").hidden = !text; }

  load(name) { return loadScript(`videos/${video.url}/attention/${name}.js`); }

  async open() {
    if (this.rows) return;
    this.loading ||= this.loadAll();
    await this.loading;
    if (!this.point) await this.pick(Math.floor(about.grid[0] / 2) * about.grid[1] + Math.floor(about.grid[1] / 2));
  }

  async loadAll() {
    this.say("Loading …");
    await this.load("clusters");
    for (const position of about.keyFrames) await this.load(nameOf("key", position));
    this.pictures = await Promise.all(about.keyFrames.map((_, k) =>
      (video.attention[k] ? loadImage(`videos/${video.url}/${video.attention[k]}`) : null)));
    this.rows = new Rows(about, about.keyFrames.map((position) => keysOf.get(position)));
    this.makeFigures();
    this.say("");
  }

  /** Load the queries of a frame; those of the frames that were used last are kept. */
  async loadQueries(position) {
    if (!queriesOf.has(position)) await this.load(nameOf("query", position));
    const queries = queriesOf.get(position);
    queriesOf.delete(position);
    queriesOf.set(position, queries);
    if (queriesOf.size > KEPT_QUERIES) queriesOf.delete(queriesOf.keys().next().value);
    return queries;
  }

  /** Compute what is told of a token: its row, cluster, distances to all centres, and the other centre that is nearest. */
  describe(queries, token) {
    const { width } = about;
    const row = this.rows.attend(queries.tokens.subarray(token * width, (token + 1) * width));
    const distances = this.rows.compareToCentres(row);
    const cluster = queries.labels[token];
    const order = [...distances.keys()].sort((a, b) => distances[a] - distances[b]);
    return { row, distances, cluster, order, next: order.find((other) => other !== cluster) };
  }

  /** The proposal that most tokens of each cluster belong to in a frame, by the pixel in their middle: cluster -> id or 0. */
  matchProposals(clusters, pixels) {
    const [[rows, columns], [height, width]] = [about.grid, this.run.size];
    const counts = new Map(); // cluster -> id -> tokens
    clusters.forEach((cluster, token) => {
      const y = Math.floor((Math.floor(token / columns) + 0.5) * height / rows);
      const x = Math.floor((token % columns + 0.5) * width / columns);
      const id = pixels[y * width + x];
      if (!counts.has(cluster)) counts.set(cluster, new Map());
      counts.get(cluster).set(id, (counts.get(cluster).get(id) || 0) + 1);
    });
    return new Map([...counts].map(([cluster, ids]) => [cluster, [...ids].reduce((a, b) => (b[1] > a[1] ? b : a))[0]]));
  }

  /** The token of the grid at a place of the frame, in shares of its width and height. */
  tokenAt(x, y) {
    const [height, width] = about.grid;
    return Math.min(Math.floor(y * height), height - 1) * width + Math.min(Math.floor(x * width), width - 1);
  }

  /** Lines for the tip at a place of the frame that is shown; "" while its queries load. */
  tell(x, y) {
    if (!this.rows || !this.isOpen) return "";
    const { position } = this;
    if (!queriesOf.has(position)) {
      if (!state.playing) this.loadQueries(position).catch((error) => this.say(error.message));
      return "";
    }
    const token = this.tokenAt(x, y);
    if (this.told?.position !== position || this.told.token !== token) {
      const { cluster, distances, next } = this.describe(queriesOf.get(position), token);
      const own = `cluster ${cluster}: ${formatNats(distances[cluster])} to its centre`;
      const other = next === undefined ? "" : `\ncluster ${next}: ${formatNats(distances[next])}, the next`;
      this.told = { position, token, text: `${own}${other}\nτ ${formatNats(about.tau)}` };
    }
    return this.told.text;
  }

  /** Explain a token of a frame, by default the one that is shown. */
  async pick(token, position = this.position) {
    if (!this.rows) return;
    const queries = await this.loadQueries(position);
    const proposals = this.matchProposals(queries.labels, (await loadFrame(this.run.positions.indexOf(position))).maps[0]);
    this.point = { position, token };
    const found = this.describe(queries, token);
    Object.assign(this.point, found);
    this.showMaps(found.row);
    this.showDistances(found, proposals);
    byId("attention-body").hidden = false;
    const [row, column] = [Math.floor(token / about.grid[1]), token % about.grid[1]];
    byId("attention-token").textContent = `Token in row ${row + 1}, column ${column + 1} of frame ${position + 1}`;
    refresh();
    await this.showNear(position, queries, token, found.row);
  }

  // ---------------------------------------------------------------- pictures

  makeFigures() {
    const [height, width] = this.run.size;
    const scale = Math.min(320 / width, 1);
    const size = { width: Math.max(Math.round(width * scale), 1), height: Math.max(Math.round(height * scale), 1), role: "img" };
    this.maps = about.keyFrames.map((position, k) => {
      const canvas = make("canvas", { ...size, "data-frame": position });
      const index = this.run.positions.indexOf(position);
      if (index >= 0) {
        canvas.addEventListener("click", (event) => {
          const box = canvas.getBoundingClientRect();
          const token = this.tokenAt((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
          setPlaying(false);
          go(index).then(() => this.pick(token, position)).catch(showError);
        });
      }
      return { canvas, picture: this.pictures[k], caption: make("figcaption") };
    });
    this.near = { canvas: make("canvas", size), caption: make("figcaption") };
    byId("attention-maps").append(...this.maps.map(({ canvas, caption }) => make("figure", {}, canvas, caption)));
    byId("attention-near").append(this.near.canvas, this.near.caption);
    byId("attention-scale").style.background = `linear-gradient(to right, ${HEAT.map((rgb) => `rgb(${rgb})`).join(", ")})`;
    byId("attention-note").textContent = about.clustering === "fast"
      ? "These clusters were found by --clustering fast. Distances are by the formulas, to the mean row of each cluster, so that "
        + "another centre can be nearer than a token's own, and its own farther than τ."
      : "Every token goes to the nearest centre, however far that is, so its own centre may lie farther than τ.";
  }

  /** Draw the attention to every key frame as a heat map, all in one scale. */
  showMaps(row) {
    const { tokens } = this.rows;
    const largest = row.reduce((a, b) => Math.max(a, b), 0);
    this.maps.forEach(({ canvas, picture, caption }, k) => {
      const part = row.subarray(k * tokens, (k + 1) * tokens);
      const share = part.reduce((sum, value) => sum + value, 0);
      const words = `Frame ${about.keyFrames[k] + 1}`;
      caption.replaceChildren(words, make("b", {}, formatShare(share)));
      canvas.dataset.share = share;
      canvas.setAttribute("aria-label", `${words}: ${formatShare(share)} of the attention`);
      drawTokens(canvas, picture, (token) => {
        const strength = Math.sqrt(part[token] / largest); // a root, else only the peak would be seen
        return [...colourOfHeat(strength), 150 + 90 * strength];
      }, "grayscale(1)");
    });
    byId("attention-most").textContent = `${formatShare(largest)} of the attention in a token`;
  }

  /** Bars of the distances to the nearest centres, with tau as a line. */
  showDistances({ distances, cluster, order }, proposals) {
    const shown = order.slice(0, SHOWN_CENTRES);
    if (!shown.includes(cluster)) shown.splice(-1, 1, cluster);
    const top = 1.08 * Math.max(about.tau, ...shown.map((other) => distances[other]));
    byId("attention-distances").style.setProperty("--tau", about.tau / top);
    byId("attention-distances").replaceChildren(...shown.map((other) => make("li", { class: other === cluster ? "own" : null },
      make("span", {}, `Cluster ${other}`, other === cluster ? make("small", {}, " own") : null, makeProposal(proposals.get(other))),
      make("i", { style: `--share: ${distances[other] / top}` }), make("b", {}, formatNats(distances[other])))));
    byId("attention-tau").textContent = `τ ${formatNats(about.tau)}`;
    byId("attention-tau").style.setProperty("--tau", about.tau / top);
  }

  /** Compare the row with those of all tokens of its frame, those with similar queries first, and draw the near ones. */
  async showNear(position, queries, token, row) {
    this.job += 1;
    const { job, rows } = this;
    const { width } = about;
    const index = this.run.positions.indexOf(position);
    const { image } = await loadFrame(index);
    const order = sortByQuery(queries.tokens, width, token);
    const count = Math.min(order.length, Math.max(Math.floor(MOST_PRODUCTS / (rows.columns * width)), 1));
    const distances = new Float64Array(order.length).fill(Infinity);
    const known = this.keepRows(position);
    const logarithms = takeLogarithms(row);
    let pause = performance.now() + SLICE;
    for (let k = 0; k < count; k += 1) {
      const other = order[k];
      const query = queries.tokens.subarray(other * width, (other + 1) * width);
      const compared = known.get(other) || Float32Array.from(rows.attend(query));
      if ((known.size + 1) * rows.columns * 4 <= KEPT_ROWS) known.set(other, compared);
      distances[other] = other === token ? 0 : rows.compare(row, logarithms, compared);
      if (performance.now() < pause && k + 1 < count) continue;
      this.drawNear(image, distances, k + 1, count);
      await new Promise((resolve) => setTimeout(resolve));
      if (job !== this.job || !this.isOpen) return;
      pause = performance.now() + SLICE;
    }
  }

  keepRows(position) {
    if (this.known?.position !== position) this.known = { position, rows: new Map() };
    return this.known.rows;
  }

  drawNear(image, distances, done, count) {
    const { canvas, caption } = this.near;
    const { tau } = about;
    const [height, width] = about.grid;
    drawTokens(canvas, image, (token) => [0, 0, 0, 190 * Math.min(distances[token] / (3 * tau), 1)]);
    const context = canvas.getContext("2d");
    const [x, y] = [canvas.width / width, canvas.height / height];
    const isNear = (row, column) => row >= 0 && column >= 0 && row < height && column < width
      && distances[row * width + column] <= tau;
    context.fillStyle = "#fff";
    for (let row = 0; row < height; row += 1) {
      for (let column = 0; column < width; column += 1) {
        if (!isNear(row, column)) continue;
        if (!isNear(row - 1, column)) context.fillRect(column * x, row * y, x, 1.5);
        if (!isNear(row + 1, column)) context.fillRect(column * x, (row + 1) * y - 1.5, x, 1.5);
        if (!isNear(row, column - 1)) context.fillRect(column * x, row * y, 1.5, y);
        if (!isNear(row, column + 1)) context.fillRect((column + 1) * x - 1.5, row * y, 1.5, y);
      }
    }
    this.markToken(context, canvas.width, canvas.height);
    const near = distances.filter((distance) => distance <= tau).length;
    const all = count < distances.length ? `the ${count} most similar` : `${count} tokens`;
    const words = done < count ? `${near}, compared ${formatShare(done / count)}` : `${near} of ${all}`;
    caption.replaceChildren("Within τ", make("b", { title: "tokens of this frame whose row is within τ of its row" }, words));
    canvas.dataset.near = near;
    canvas.dataset.done = done === count;
    canvas.setAttribute("aria-label", `${near} tokens of this frame have a row within tau`);
  }

  /** Outline the token that is explained, in the player, if its frame is shown. */
  mark(context) {
    if (!this.isOpen || !this.point || this.point.position !== this.position) return;
    this.markToken(context, this.run.size[1], this.run.size[0]);
  }

  markToken(context, width, height) {
    const [x, y] = [width / about.grid[1], height / about.grid[0]];
    const [left, top] = [(this.point.token % about.grid[1]) * x, Math.floor(this.point.token / about.grid[1]) * y];
    for (const [colour, line] of [["#000", 4], ["#ffe14d", 2]]) {
      context.strokeStyle = colour;
      context.lineWidth = line;
      context.strokeRect(left, top, x, y);
    }
  }
}

/** Name the proposal of a cluster in its colour; nothing for a cluster without one in this frame. */
const makeProposal = (id) => (id ? make("small", { class: "proposal" }, " · ",
  make("span", { class: "swatch", style: `--colour: ${colourOf(id)}` }), ` proposal ${id}`) : null);

const nameOf = (kind, position) => `${kind}_${String(position).padStart(5, "0")}`;
const formatNats = (value) => (value < 0.005 ? Math.max(value, 0).toFixed(3) : value < 100 ? value.toFixed(2) : value.toFixed(0));
const formatShare = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;

function colourOfHeat(strength) {
  const place = Math.min(strength, 1) * (HEAT.length - 1);
  const low = Math.min(Math.floor(place), HEAT.length - 2);
  return HEAT[low].map((value, k) => value + (place - low) * (HEAT[low + 1][k] - value));
}

/** Draw a picture, or grey, and over it a colour [red, green, blue, alpha] for every token. */
function drawTokens(canvas, picture, colourOf, filter = "none") {
  const [height, width] = about.grid;
  const layer = make("canvas", { width, height });
  const pixels = layer.getContext("2d").createImageData(width, height);
  for (let token = 0; token < width * height; token += 1) pixels.data.set(colourOf(token), 4 * token);
  layer.getContext("2d").putImageData(pixels, 0, 0);
  const context = canvas.getContext("2d");
  context.fillStyle = GREY;
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.filter = filter; // where the browser knows filters
  if (picture) context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  context.filter = "none";
  context.imageSmoothingEnabled = false; // attention is known by the token and not by the pixel
  context.drawImage(layer, 0, 0, canvas.width, canvas.height);
}

/** All tokens of a frame, those whose query is nearest to that of `token` first. */
function sortByQuery(tokens, width, token) {
  const differences = Float64Array.from({ length: tokens.length / width }, (_, other) => {
    let sum = 0;
    for (let c = 0; c < width; c += 1) sum += (tokens[other * width + c] - tokens[token * width + c]) ** 2;
    return sum;
  });
  return [...differences.keys()].sort((a, b) => differences[a] - differences[b]);
}
