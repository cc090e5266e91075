"use strict";
// index.html: the videos as a table that can be sorted and filtered.

const order = { ...REPORT.sort };
const NAME = { key: "name", label: "Video", hint: "name of the video", kind: "text" };
const columns = [NAME, ...REPORT.columns];

function showHeader() {
  document.title = REPORT.title;
  byId("title").textContent = REPORT.title;
  byId("facts").append(...REPORT.facts.map(([name, text, small]) =>
    make("div", {}, make("dt", {}, name), make("dd", {}, text), small ? make("dd", { class: "small" }, small) : null)));
  byId("notes").append(...REPORT.notes.map((note) => {
    const [name, ...rest] = note.split(": ");
    return make("li", {}, ...(rest.length ? [make("b", {}, name), " ", rest.join(": ")] : [note]));
  }));
  document.querySelector(".toolbar").hidden = REPORT.videos.length < 2;
  byId("settings").hidden = !REPORT.settings.length;
  if (REPORT.runs.length) byId("settings").firstElementChild.textContent = "Settings that differ";
  byId("settings-list").append(...REPORT.settings.map(([name, value]) =>
    make("div", {}, make("dt", {}, name), make("dd", {}, value))));
  const example = REPORT.columns.find((column) => column.kind === "percent");
  byId("filter").placeholder = "Filter by name" + (example ? `, or ${example.label}<40` : ", or frames>50");
}

function showHead() {
  const cells = columns.map((column) => {
    const button = make("button", { type: "button", title: column.hint }, column.label);
    button.addEventListener("click", () => sortBy(column.key));
    return make("th", { scope: "col", class: column.kind, "data-key": column.key }, button);
  });
  byId("head").append(make("th", { scope: "col", class: "pictures" }, ...pictureHeads()), ...cells);
  byId("sort").append(...columns.map((column) => make("option", { value: column.key }, column.label)));
  byId("sort").addEventListener("change", (event) => sortBy(event.target.value));
  byId("direction").addEventListener("click", () => sortBy(order.key));
}

/** A head above each picture, or one for all if videos have different ones. */
function pictureHeads() {
  const [first, ...others] = REPORT.videos.map((video) => video.pictures.map(({ label }) => label).join("|"));
  if (!first || others.some((labels) => labels !== first)) return ["Middle frame"];
  return [make("div", {}, ...first.split("|").map((label) => make("span", {}, label)))];
}

/** Sort by a column, numbers from the largest down at first; again: the other way round. */
function sortBy(key) {
  order.descending = order.key === key ? !order.descending : key !== "name";
  order.key = key;
  showRows();
}

function makeRow(video) {
  const page = `report/video.html?${video.url}`;
  const pictures = video.pictures.map(({ label, file }) => make("figure", {},
    make("img", { src: `report/videos/${video.url}/${file}`, alt: `${label} of ${video.name}`, loading: "lazy" }),
    make("figcaption", {}, label)));
  const values = REPORT.columns.map((column) => {
    const value = video.values[column.key];
    const cell = make("td", { class: column.kind, "data-label": column.label }, formatValue(column.kind, value));
    if (column.kind === "percent" && value !== undefined) cell.append(make("i", { style: `--share: ${value}` }));
    if (column.kind === "difference") cell.classList.add(value < 0 ? "worse" : "better");
    return cell;
  });
  return make("tr", {},
    make("td", { class: "pictures" }, make("div", {}, ...pictures)),
    make("th", { scope: "row", class: "text" }, make("a", { href: page }, video.name)), ...values);
}

/** Read the filter into a test of videos: words of the name, and conditions such as J&F<40. */
function readFilter(text) {
  const tests = text.trim().split(/\s+/).filter(Boolean).map((word) => {
    const [, label, sign, number] = word.match(/^(.+?)([<>])(-?[\d.]+)$/) || [];
    const column = label && REPORT.columns.find((each) =>
      each.label.toLowerCase() === label.toLowerCase() || each.key.toLowerCase() === label.toLowerCase());
    if (!column) return (video) => video.name.toLowerCase().includes(word.toLowerCase());
    return (video) => {
      const value = shownNumber(column.kind, video.values[column.key]);
      return sign === "<" ? value < Number(number) : value > Number(number);
    };
  });
  return (video) => tests.every((test) => test(video));
}

function compareVideos(a, b) {
  if (order.key === "name") return a.place - b.place;
  const [first, second] = [a, b].map((video) => video.values[order.key]);
  if (first === undefined || second === undefined) return (first === undefined) - (second === undefined) || a.place - b.place;
  const kind = columns.find((column) => column.key === order.key).kind;
  const size = kind === "difference" ? Math.abs : Number; // the largest differences first, of either sign
  return (order.descending ? size(second) - size(first) : size(first) - size(second)) || a.place - b.place;
}

function showRows() {
  const shown = REPORT.videos.filter(readFilter(byId("filter").value)).sort(compareVideos);
  if (order.key === "name" && order.descending) shown.reverse();
  byId("rows").replaceChildren(...shown.map((video) => video.row));
  byId("count").textContent = `${shown.length} of ${REPORT.videos.length}`;
  byId("nothing").hidden = shown.length > 0;
  for (const cell of byId("head").querySelectorAll("[data-key]")) {
    const state = cell.dataset.key === order.key && (order.descending ? "descending" : "ascending");
    if (state) cell.setAttribute("aria-sort", state);
    else cell.removeAttribute("aria-sort");
  }
  byId("sort").value = order.key;
  byId("direction").textContent = order.descending ? "↓" : "↑";
  byId("direction").setAttribute("aria-label", order.descending ? "Descending; sort ascending" : "Ascending; sort descending");
}

function start() {
  showHeader();
  showHead();
  const byName = [...REPORT.videos].sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
  byName.forEach((video, place) => { video.place = place; video.row = makeRow(video); });
  byId("filter").addEventListener("input", showRows);
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && event.target.tagName !== "INPUT") {
      event.preventDefault();
      byId("filter").focus();
    }
  });
  showRows();
}

start();
