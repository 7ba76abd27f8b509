"use strict";

// Sorting: undefined values stay last, whichever the order; the address remembers it (#sort=DSC, #sort=-DSC).
const table = document.querySelector("table.sortable");

// What a cell shows is what it sorts by.
const amount = (text) => (text === "–" ? NaN : text === "inf" ? Infinity : Number(text));

function sortBy(key, descending) {
  const button = [...table.querySelectorAll("button")].find((b) => b.dataset.key === key);
  if (!button) return;
  const column = button.closest("th").cellIndex, body = table.tBodies[0], sign = descending ? -1 : 1;
  const isText = ["case", "method", "class"].includes(key);
  const compare = (a, b) =>
    isText ? sign * a.value.localeCompare(b.value, "en", { numeric: true })
      : isNaN(a.value) - isNaN(b.value) || sign * ((a.value > b.value) - (a.value < b.value));
  const rows = [...body.rows].map((row) => {
    const text = row.cells[column].textContent;
    return { row, value: isText ? text : amount(text) };
  });
  body.append(...rows.sort(compare).map((entry) => entry.row));
  table.querySelectorAll("[aria-sort]").forEach((th) => th.removeAttribute("aria-sort"));
  button.closest("th").setAttribute("aria-sort", descending ? "descending" : "ascending");
}

function sortFromAddress() {
  const match = /^#sort=(-?)(\w+)$/.exec(location.hash);
  if (table && match) sortBy(match[2], match[1] === "-");
}

if (table) {
  table.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const descending = button.closest("th").getAttribute("aria-sort") === "ascending";
    sortBy(button.dataset.key, descending);
    history.replaceState(null, "", "#sort=" + (descending ? "-" : "") + button.dataset.key);
  });
  window.addEventListener("hashchange", sortFromAddress);
  sortFromAddress();
}

// Columns by group, rows by method and class.
for (const box of document.querySelectorAll("[data-columns]")) {
  const show = () => table.classList.toggle("show-" + box.dataset.columns, box.checked);
  box.addEventListener("change", show);
  show(); // a browser may have kept the state over a reload
}
const filters = [...document.querySelectorAll("[data-filter]")];
const filterRows = () => {
  for (const row of table.tBodies[0].rows)
    row.hidden = filters.some((f) => f.value && row.cells[f.dataset.filter].textContent !== f.value);
};
filters.forEach((filter) => filter.addEventListener("change", filterRows));
if (filters.length) filterRows();

// Charts: the values of one epoch, by pointer or arrow keys.
for (const figure of document.querySelectorAll(".chart")) {
  const series = JSON.parse(figure.dataset.series), svg = figure.querySelector(":scope > svg");
  const cursor = figure.querySelector(".cursor"), outputs = [...figure.querySelectorAll("[data-last]")];
  const title = figure.querySelector(".epoch"), live = figure.querySelector("[aria-live]");
  const { left, right, top, bottom } = cursor.dataset, last = Math.max(...series.map((s) => s.length)) - 1;
  let epoch = last;
  const spell = (value) => (value === null ? "–" : String(Number(value.toPrecision(4))));
  const show = (wanted) => {
    epoch = Math.min(Math.max(wanted, 0), last);
    const x = Number(left) + ((right - left) * epoch) / Math.max(last, 1);
    cursor.setAttribute("d", `M${x} ${top}V${bottom}`);
    title.textContent = `Epoch ${epoch}`;
    outputs.forEach((output, i) => (output.textContent = spell(series[i][epoch])));
  };
  const hide = () => {
    cursor.setAttribute("d", "");
    title.textContent = "Last epoch";
    outputs.forEach((output) => (output.textContent = output.dataset.last));
  };
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect(), x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
    show(Math.round(((x - left) / (right - left)) * last));
  });
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("blur", hide);
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (!step) return;
    event.preventDefault();
    show(epoch + step);
    live.textContent = figure.querySelector(".key").textContent;
  });
}

// Distributions: the nearest case, by pointer, or one after the other, by arrow keys.
for (const figure of document.querySelectorAll(".strip")) {
  const svg = figure.querySelector("svg"), points = [...svg.querySelectorAll("circle")], output = figure.querySelector("output");
  let current = -1;
  const show = (wanted) => {
    if (points[current]) points[current].classList.remove("on");
    current = Math.min(Math.max(wanted, 0), points.length - 1);
    if (!points[current]) return;
    points[current].classList.add("on");
    output.textContent = points[current].querySelector("title").textContent;
  };
  const nearest = (event) => {
    const box = svg.getBoundingClientRect(), scale = svg.viewBox.baseVal.width / box.width;
    const x = (event.clientX - box.left) * scale, y = (event.clientY - box.top) * scale;
    const distances = points.map((p) => Math.hypot(p.getAttribute("cx") - x, p.getAttribute("cy") - y));
    show(distances.indexOf(Math.min(...distances)));
  };
  svg.addEventListener("pointermove", nearest);
  svg.addEventListener("pointerdown", nearest);
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (!step) return;
    event.preventDefault();
    show(current + step);
  });
}

// Slices: the slider shows one at a time.
for (const figure of document.querySelectorAll(".plane")) {
  const slider = figure.querySelector("input"), cuts = [...figure.querySelectorAll(".cut")];
  if (!slider) continue;
  const show = () => {
    cuts.forEach((cut, i) => cut.classList.toggle("off", i !== slider.valueAsNumber));
    const caption = cuts[slider.valueAsNumber].dataset.caption;
    figure.querySelector(".where").textContent = caption;
    slider.setAttribute("aria-valuetext", caption);
  };
  slider.addEventListener("input", show);
  show();
}

// Outlines on and off.
for (const box of document.querySelectorAll("[data-outline]")) {
  box.addEventListener("change", () => document.body.classList.toggle("no-" + box.dataset.outline, !box.checked));
}
