"use strict";
// The section "Attention" of video.html: what a token attends to in the key frames, and how far its row of attention is
// from the centres of clusters and from other rows (docs/method.md, sections 4 and 5).
// Its data, which eval.py --explore keeps, are loaded when the section is opened.

const TINY = 2 ** -126; // probabilities are clipped here before their logarithm is taken
const LOG_STEP = Math.log(TINY) / 65535; // of the logarithms of centres
const KEPT_QUERIES = 24; // frames whose queries stay in memory
const BLOCK = 1e7; // multiplications between two looks at the clock
const SLICE = 60; // milliseconds of work before the page may react
const SHOWN_CENTRES = 6;
// Of heat maps: colours from no attention to the most, evenly spaced.
const HEAT = [[20, 12, 60], [92, 24, 128], [176, 42, 120], [240, 92, 72], [254, 178, 78], [252, 253, 191]];

// ------------------------------------------------------------------ data

let about = null; // what addClusters was given
const keysOf = new Map(); // key frame -> Float32Array (N, C)
const queriesOf = new Map(); // frame -> {tokens: Float32Array (N, C), labels: Uint16Array (N), sums: Float32Array (N, M)}

/** The scripts in videos/<video>/attention/ call these three. */
function addClusters(clusters) { about = { ...clusters, centres: new Uint16Array(decodeBytes(clusters.centres)) }; }
function addKeys(position, values, scales) { keysOf.set(position, decodeTokens(values, scales)); }
function addQueries(position, values, scales, labels, sums) {
  queriesOf.set(position, {
    tokens: decodeTokens(values, scales), labels: new Uint16Array(decodeBytes(labels)), sums: new Float32Array(decodeBytes(sums)),
  });
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

/** The keys of all key frames one after another, (S, C); those of single frames are dropped. */
function joinKeys() {
  const parts = about.keyFrames.map((position) => keysOf.get(position));
  const joined = new Float32Array(parts.length * parts[0].length);
  parts.forEach((keys, k) => joined.set(keys, k * keys.length));
  keysOf.clear();
  return joined;
}

// ------------------------------------------------------------------ formulas

/** Rows of attention over the tokens of all key frames, S of them, and distances between rows. */
class Rows {
  constructor({ grid, heads, width, clusters, centres }, keys) {
    Object.assign(this, { heads, width, clusters, centres, keys });
    this.tokens = grid[0] * grid[1];
    this.columns = keys.length / width;
    this.scores = new Float64Array(heads * this.columns); // of each head in turn
    this.exponentials = Float64Array.from({ length: 65536 }, (_, k) => Math.exp(k * LOG_STEP)); // centres from logarithms
  }

  /** The row of a query (C): the mean over heads of softmax(q k / sqrt(d)), d channels a head. */
  attend(query) {
    const { heads, width, columns, scores, keys } = this;
    const [size, scale] = [width / heads, 1 / Math.sqrt(width / heads)];
    for (let column = 0, place = 0; column < columns; column += 1) {
      for (let head = 0, at = 0; head < heads; head += 1) {
        let product = 0;
        for (let c = 0; c < size; c += 1, at += 1, place += 1) product += query[at] * keys[place];
        scores[head * columns + column] = product * scale;
      }
    }
    const row = new Float64Array(columns);
    for (let head = 0; head < heads; head += 1) addSoftmax(row, scores, head * columns, heads);
    return row;
  }

  /** Entries of the rows of some tokens of a frame in some columns: (columns, tokens), without the other columns. */
  attendTo(columns, tokens, queries) {
    const { heads, width, keys } = this;
    const [size, scale] = [width / heads, 1 / Math.sqrt(width / heads)];
    const entries = new Float64Array(columns.length * tokens.length);
    const products = new Float64Array(8);
    for (let j = 0; j < columns.length; j += 2) {
      const next = Math.min(j + 1, columns.length - 1);
      for (let n = 0; n < tokens.length; n += 4) {
        const last = tokens.length - 1;
        const a = tokens[n] * width;
        const b = tokens[Math.min(n + 1, last)] * width;
        const c = tokens[Math.min(n + 2, last)] * width;
        const d = tokens[Math.min(n + 3, last)] * width;
        for (let head = 0, at = 0; head < heads; head += 1, at += size) {
          multiplyTile(products, queries.tokens, a + at, b + at, c + at, d + at, keys, columns[j] * width + at,
            columns[next] * width + at, size);
          for (let k = 0; k < 4 && n + k < tokens.length; k += 1) {
            const sum = queries.sums[tokens[n + k] * heads + head]; // the logarithm of the sum of all exponentials
            entries[j * tokens.length + n + k] += Math.exp(products[k] * scale - sum) / heads;
            if (next > j) entries[next * tokens.length + n + k] += Math.exp(products[4 + k] * scale - sum) / heads;
          }
        }
      }
    }
    return entries;
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

/** The products of four queries with two keys, (2, 4). Together they take an eighth of the time of one after the other. */
function multiplyTile(products, queries, a, b, c, d, keys, first, second, size) {
  let a1 = 0, b1 = 0, c1 = 0, d1 = 0, a2 = 0, b2 = 0, c2 = 0, d2 = 0;
  for (let k = 0; k < size; k += 1) {
    const one = keys[first + k];
    const two = keys[second + k];
    a1 += queries[a + k] * one;
    b1 += queries[b + k] * one;
    c1 += queries[c + k] * one;
    d1 += queries[d + k] * one;
    a2 += queries[a + k] * two;
    b2 += queries[b + k] * two;
    c2 += queries[c + k] * two;
    d2 += queries[d + k] * two;
  }
  products[0] = a1; products[1] = b1; products[2] = c1; products[3] = d1; // faster than a list
  products[4] = a2; products[5] = b2; products[6] = c2; products[7] = d2;
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

/**
 * Finds the tokens of a frame whose row is within a limit of a given row, some columns at a time.
 * A distance is a sum of terms (p - r) (log p - log r), which are at least 0. Those of the columns that are left make at least
 * the same term of the sums of p and r there. So most rows are known to be far after the columns where p is largest.
 */
class NearRows {
  constructor(rows, queries, row, limit) {
    const tokens = rows.tokens;
    Object.assign(this, { rows, queries, row, limit, count: row.length, done: 0, left: 1 });
    this.logarithms = takeLogarithms(row);
    this.order = Uint32Array.from(row.keys()).sort((a, b) => row[b] - row[a]);
    this.open = Array.from({ length: tokens }, (_, token) => token); // may be within the limit
    this.distances = new Float64Array(tokens); // over the columns that are done
    this.lefts = new Float64Array(tokens).fill(1); // of each row, the sum of the columns that are left
  }

  get isDone() { return this.done === this.count; }

  /** Compare the next columns of all rows that may be near. */
  advance() {
    const { rows, queries, row, limit, count, logarithms, distances, lefts } = this;
    const step = Math.max(Math.floor(BLOCK / ((this.open.length || 1) * rows.width)), 1);
    const columns = this.order.subarray(this.done, this.done + step);
    this.done = Math.min(this.done + step, count);
    for (const column of columns) this.left -= row[column];
    const tokens = this.open;
    const entries = rows.attendTo(columns, tokens, queries);
    for (let k = 0, place = 0; k < columns.length; k += 1) {
      const share = row[columns[k]];
      const logarithm = logarithms[columns[k]];
      for (let n = 0; n < tokens.length; n += 1, place += 1) {
        const entry = entries[place];
        distances[tokens[n]] += (share - entry) * (logarithm - Math.log(Math.max(entry, TINY)));
        lefts[tokens[n]] -= entry;
      }
    }
    const isNear = (token) => distances[token] + (this.isDone ? 0 : boundRest(this.left, lefts[token])) <= limit;
    this.open = tokens.filter(isNear);
  }
}

/** The least that columns add to a distance in which two rows have these sums; 0 for sums that are known too coarsely. */
const boundRest = (first, second) => (Math.min(first, second) < 1e-3 ? 0 : (first - second) * Math.log(first / second));

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
    this.rows = new Rows(about, joinKeys());
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
    await this.showNear(position, queries, found.row);
  }

  // ---------------------------------------------------------------- pictures

  makeFigures() {
    const [height, width] = this.run.size;
    this.section.style.setProperty("--ratio", width / height);
    this.section.style.setProperty("--count", about.keyFrames.length);
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

  /** Find the tokens of the frame whose row is within tau of this row, and draw them; pauses let the page react. */
  async showNear(position, queries, row) {
    this.job += 1;
    const { job } = this;
    const { image } = await loadFrame(this.run.positions.indexOf(position));
    const search = new NearRows(this.rows, queries, row, about.tau);
    for (;;) {
      const pause = performance.now() + SLICE;
      while (!search.isDone && performance.now() < pause) search.advance();
      this.drawNear(image, search);
      if (search.isDone) return;
      await new Promise((resolve) => setTimeout(resolve));
      if (job !== this.job || !this.isOpen) return;
    }
  }

  drawNear(image, { distances, open, isDone, done, count }) {
    const { canvas, caption } = this.near;
    const [height, width] = about.grid;
    const near = new Set(open);
    drawTokens(canvas, image, (token) => [0, 0, 0, near.has(token) ? 100 * Math.min(distances[token] / about.tau, 1) : 190]);
    const context = canvas.getContext("2d");
    const [x, y] = [canvas.width / width, canvas.height / height];
    const isNear = (row, column) => row >= 0 && column >= 0 && row < height && column < width
      && near.has(row * width + column);
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
    const words = isDone ? `${near.size} of ${distances.length} tokens` : `compared ${formatShare(done / count)}`;
    caption.replaceChildren("Within τ", make("b", { title: "tokens of this frame whose row is within τ of its row" }, words));
    canvas.dataset.near = near.size;
    canvas.dataset.done = isDone;
    canvas.setAttribute("aria-label", `${near.size} tokens of this frame have a row within tau`);
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
