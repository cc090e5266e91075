"use strict";
// A chart of figures over the frames of a video: lines, a cursor at the frame that is shown, click or drag to go there.

const MARGIN = { top: 8, right: 8, bottom: 20, left: 34 };
const HEIGHT = 132;

/**
 * lines: [{id, colour: "r, g, b", values: [number or null, ...], label}], values in [0, 1].
 * seek: called with the index of the frame that was clicked.
 */
class Chart {
  constructor(title, lines, { count, names, seek, full = false }) {
    Object.assign(this, { lines, count, names, seek });
    const values = lines.flatMap((line) => line.values).filter((value) => value !== null);
    this.top = full ? 1 : roundUp(Math.max(...values, 0.001));
    this.svg = make("svg", { role: "img", height: HEIGHT, "aria-label": `${title} over the frames` });
    this.node = make("figure", { class: "chart" }, make("figcaption", {}, title), this.svg);
    this.index = 0;
    new ResizeObserver(() => this.draw()).observe(this.node);
    this.svg.addEventListener("pointerdown", (event) => {
      this.svg.setPointerCapture(event.pointerId);
      this.seekTo(event);
    });
    this.svg.addEventListener("pointermove", (event) => event.buttons && this.seekTo(event));
  }

  seekTo(event) {
    const share = (event.clientX - this.svg.getBoundingClientRect().left - MARGIN.left) / this.width;
    this.seek(Math.round(Math.min(Math.max(share, 0), 1) * (this.count - 1)));
  }

  x(index) { return MARGIN.left + (this.count > 1 ? index / (this.count - 1) : 0.5) * this.width; }
  y(value) { return MARGIN.top + (1 - value / this.top) * (HEIGHT - MARGIN.top - MARGIN.bottom); }

  draw() {
    const total = Math.floor(this.node.clientWidth);
    this.width = total - MARGIN.left - MARGIN.right;
    if (this.width <= 0) return;
    this.svg.setAttribute("viewBox", `0 0 ${total} ${HEIGHT}`);
    this.svg.setAttribute("width", total);
    const levels = [0, 0.5, 1].map((share) => share * this.top);
    const grid = levels.flatMap((level) => [
      make("line", { x1: MARGIN.left, x2: total - MARGIN.right, y1: this.y(level), y2: this.y(level), class: "grid" }),
      make("text", { x: MARGIN.left - 6, y: this.y(level) + 4, class: "end" }, formatLevel(100 * level)),
    ]);
    const places = this.count > 2 ? [0, Math.floor((this.count - 1) / 2), this.count - 1] : [0];
    const ticks = places.map((index, k) => make("text", {
      x: this.x(index), y: HEIGHT - 5, class: ["start", "middle", "end"][k],
    }, this.names[index]));
    this.paths = this.lines.map((line) => make("path", {
      d: this.trace(line.values), style: `stroke: rgb(${line.colour})`, "data-id": line.id,
    }));
    this.cursor = make("line", { y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom, class: "cursor" });
    this.svg.replaceChildren(...grid, ...ticks, ...this.paths, this.cursor);
    this.show(this.index);
    this.pick(this.visible);
  }

  /** The path of a line; it is interrupted where a value is null, and a value alone becomes a dot. */
  trace(values) {
    let path = "";
    values.forEach((value, index) => {
      if (value === null) return;
      const follows = index > 0 && values[index - 1] !== null;
      const place = `${this.x(index).toFixed(1)} ${this.y(value).toFixed(1)}`;
      path += follows ? `L${place}` : `M${place}h0.01`;
    });
    return path;
  }

  /** Move the cursor to a frame. */
  show(index) {
    this.index = index;
    if (!this.cursor) return;
    this.cursor.setAttribute("x1", this.x(index));
    this.cursor.setAttribute("x2", this.x(index));
  }

  /** Show the lines for which `visible(id)` is "full", "faint" or "none". */
  pick(visible) {
    this.visible = visible;
    if (!visible || !this.paths) return;
    for (const path of this.paths) path.setAttribute("class", visible(Number(path.dataset.id)));
  }
}

/** The next round number of 1, 2, 5, 10, ... percent. */
function roundUp(value) {
  const steps = [0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1];
  return steps.find((step) => value <= step) || 1;
}

const formatLevel = (percent) => (Number.isInteger(percent) ? `${percent}` : percent.toFixed(1));
