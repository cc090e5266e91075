"use strict";
// Helpers of both pages. REPORT is in data.js.

/** Make an element: make("a", {href: "x", class: "y"}, "text", child, ...). Text is never read as HTML. */
function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "path", "line", "text", "rect", "g"].includes(tag);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

const byId = (id) => document.getElementById(id);

/** The colour of a proposal, as "r, g, b" for CSS. */
const colourOf = (id) => REPORT.palette[id % 256].join(", ");

/** Format a value of a column; scores are kept in [0, 1] and shown in percent. */
function formatValue(kind, value) {
  if (value === undefined || value === null) return "–";
  if (kind === "percent" || kind === "points") return (100 * value).toFixed(1);
  if (kind === "difference") return (value >= 0 ? "+" : "−") + Math.abs(100 * value).toFixed(1);
  if (kind === "seconds") return value < 10 ? value.toFixed(1) : value.toFixed(0);
  return String(value);
}

/** A value as the filter compares it: as it is shown. */
function shownNumber(kind, value) {
  return ["percent", "points", "difference"].includes(kind) ? 100 * value : value;
}
