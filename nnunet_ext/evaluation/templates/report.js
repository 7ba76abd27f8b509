"use strict";

// Sorting: undefined values stay last, whichever the order; the address remembers it (#sort=DSC, #sort=-DSC).
const table = document.querySelector("table.sortable");

function sortBy(key, descending) {
  const button = [...table.querySelectorAll("button")].find((b) => b.dataset.key === key);
  if (!button) return;
  const column = button.closest("th").cellIndex;
  const number = (row) => {
    const text = row.cells[column].dataset.value;
    return text === "inf" ? Infinity : text === "nan" ? NaN : Number(text);
  };
  const compare = (a, b) => {
    if (row0.cells[column].dataset.value === undefined)
      return a.cells[column].textContent.localeCompare(b.cells[column].textContent, "en", { numeric: true });
    const x = number(a), y = number(b);
    return x < y ? -1 : x > y ? 1 : 0;
  };
  const body = table.tBodies[0], row0 = body.rows[0], sign = descending ? -1 : 1;
  const undefinedRow = (row) => row.cells[column].dataset.value === "nan";
  const rows = [...body.rows].sort((a, b) => undefinedRow(a) - undefinedRow(b) || sign * compare(a, b));
  body.append(...rows);
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

// Outlines on and off.
for (const box of document.querySelectorAll("[data-outline]")) {
  box.addEventListener("change", () => document.body.classList.toggle("no-" + box.dataset.outline, !box.checked));
}
