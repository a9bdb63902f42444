"use strict";
document.documentElement.classList.add("js");

// Before and after: a click, Enter, the space bar or an arrow changes over; a box does it by itself.
for (const flicker of document.querySelectorAll(".flicker")) {
  const label = flicker.querySelector("b");
  const show = (state) => {
    flicker.dataset.state = state;
    flicker.setAttribute("aria-pressed", String(state === "after"));
    label.textContent = state;
  };
  const change = () => show(flicker.dataset.state === "after" ? "before" : "after");
  flicker.tabIndex = 0;
  flicker.setAttribute("role", "button");
  flicker.setAttribute("aria-label", "before and after the correction");
  show("before");
  flicker.addEventListener("click", change);
  flicker.addEventListener("keydown", (event) => {
    if (["Enter", " ", "ArrowLeft", "ArrowRight"].includes(event.key)) {
      event.preventDefault();
      change();
    }
  });
  let timer = null;
  const figure = flicker.closest("figure");
  const auto = figure.querySelector("input[name=auto]");
  auto.addEventListener("change", () => {
    clearInterval(timer);
    timer = auto.checked ? setInterval(change, 700) : null;
  });
  const level = figure.querySelector("input[name=level]");
  level?.addEventListener("change", () => {
    flicker.querySelector("img + img").style.filter =
      level.checked ? `brightness(${1 / Number(flicker.dataset.gain)})` : "";
  });
  const zoom = figure.querySelector("input[name=zoom]");
  zoom.addEventListener("change", () => {
    const frame = flicker.parentElement;
    frame.classList.toggle("zoomed", zoom.checked);
    frame.scrollTo((frame.scrollWidth - frame.clientWidth) / 2, 0);
  });
}

// A table that is sorted by a click on a column's head; what has no number comes last. Of very
// many rows the first are shown: to lay out all of them takes seconds.
const MOST_ROWS = 1000;
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  const filter = document.getElementById("filter");
  const note = document.getElementById("shown");
  const show = () => {
    const wanted = filter.value.trim().toLowerCase();
    let found = 0;
    for (const row of body.rows) {
      const fits = !wanted || row.textContent.toLowerCase().includes(wanted);
      row.hidden = !fits || found >= MOST_ROWS;
      found += fits;
    }
    note.textContent = found > MOST_ROWS ? `The first ${MOST_ROWS} of ${found} rows are shown.` : "";
  };
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const numeric = head.classList.contains("n");
      const order = new Intl.Collator("en", { numeric: true }).compare;
      const keyed = [...body.rows].map((row) => {
        const cell = row.cells[column];
        return [numeric ? parseFloat(cell.dataset.value) : cell.textContent.trim(), row];
      });
      keyed.sort(([a], [b]) => {
        if (!numeric) return up ? order(a, b) : order(b, a);
        if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
        return up ? a - b : b - a;
      });
      body.append(...keyed.map(([, row]) => row));
      show();
    });
  });
  filter.addEventListener("input", show);
  show();
}
