"use strict";
// The page around the plots: what is in it, the choice of series, the table.

const words = (status) => status.replace("_", " ");

const sizesOf = (side) => distinct(closed.flatMap((cell) => cell.shape ? [cell.shape[side]] : [])).length;
const isSwept = sizesOf(0) > 1 || sizesOf(1) > 1;
const SECTIONS = [
  { id: "batch", title: "Throughput against batch size", wanted: sizesOf(0) > 1,
    about: "A plot for each length of the rows. Bars behind the points reach from the least to the largest round.",
    figures: () => throughput(0, { axis: "rows of a batch", caption: (length) => `${length} tokens a row` }) },
  { id: "length", title: "Throughput against length", wanted: sizesOf(1) > 1,
    about: "The same numbers the other way round: a plot for each batch size.",
    figures: () => throughput(1, { axis: "tokens of a row", caption: (batch) => batch === 1 ? "1 row" : `${batch} rows` }) },
  { id: "throughput", title: isSwept ? "Throughput of texts" : "Throughput", wanted: closed.some((cell) => !cell.shape || !isSwept),
    about: "All texts of a file in one call, batched as usual, or a batch of one shape (rows × tokens). The dark line reaches from the least to the largest round.",
    figures: throughputBars },
  { id: "load", title: "Latency under load", wanted: open.length > 0,
    about: `Requests of one text come at a rate, whether the former are done or not; a request's time begins when it was due. Hollow points: fewer than ${100 * KEPT_UP} % of the requests that came in were answered in that time, so a queue grew.`,
    figures: underLoad },
  { id: "latency", title: "Latency of a call", wanted: closed.some((cell) => cell.p50_ms),
    about: "The point is the median (p50), the dark bar ends at p90, the light one at p99, the line reaches from the shortest to the longest call.",
    figures: latencies },
  { id: "quality", title: "Quality against speed", wanted: qualityWorkload !== undefined, choice: qualityChoice, wide: true,
    about: "Distance of the worst embedding from the known one, against throughput: the upper right corner is best.",
    figures: quality },
  { id: "peak", title: "Share of the matmul peak", wanted: closed.some((cell) => cell.share_of_peak), wide: true,
    about: "Operations of real tokens a second, over those of one matrix product of the same precision alone.",
    figures: () => share((cell) => cell.share_of_peak, "of the matmul peak (%)")(closed) },
  { id: "session", title: "Time outside ONNX Runtime", wanted: closed.some((cell) => cell.session_share), wide: true,
    about: "The share of a call's time in tokenizing, planning, padding and copying; the rest is inside the session.",
    figures: () => share(outside, "of a call's time, outside the session (%)")(closed) },
  { id: "padding", title: "Padding", wanted: closed.some((cell) => !cell.shape && cell.padding_waste), wide: true,
    about: "The share of computed positions that were padding, of texts of different lengths.",
    figures: () => share((cell) => cell.padding_waste, "of computed positions (%)")(closed.filter((cell) => !cell.shape)) },
];

// ---- The page

function header() {
  const [first, last] = summary.time_unix_s.map((seconds) => new Date(1000 * seconds).toISOString().slice(0, 10));
  document.getElementById("origin").textContent =
    `${distinct(series.map((each) => each.model)).join(", ")}. ${[...summary.machines, ...summary.gpus].join("; ")}. ${first === last ? first : `${first} to ${last}`}.`;
  document.getElementById("warnings").append(
    ...summary.warnings.map((warning) => element("li", {}, warning)),
    ...summary.problems.map(({ series: of, status, error, workloads }) => element("li", { className: "problem" },
      element("strong", {}, `${series[of].label}: ${words(status)}`), ` (${workloads.join(", ")}) ${error ?? ""}`)));
  document.getElementById("notes").append(...summary.notes.map((note) => element("li", {}, note)));

  const best = [
    ["Highest throughput", d3.greatest(measured, (cell) => cell.tokens_per_s.median), (cell) => `${number(cell.tokens_per_s.median)} tokens/s`],
    ["Shortest time for one text (p50)", d3.least(closed.filter((cell) => cell.rows === 1 && cell.p50_ms), (cell) => cell.p50_ms.median),
      (cell) => `${number(cell.p50_ms.median)} ms`],
    ["Highest share of the matmul peak", d3.greatest(closed.filter((cell) => cell.share_of_peak), (cell) => cell.share_of_peak.median),
      (cell) => percent(cell.share_of_peak.median)],
  ];
  document.getElementById("best").append(...best.filter(([, cell]) => cell).map(([title, cell, value]) => element("div", {},
    element("dt", {}, title), element("dd", { className: "value" }, value(cell)),
    element("dd", {}, `${cell.series.label}, ${workloadName(cell)}`))));
}

function legend() {
  const box = document.getElementById("series");
  for (const each of series.filter((one) => measured.some((cell) => cell.series === one))) {
    const input = element("input", { type: "checkbox", checked: true });
    input.addEventListener("change", () => { each.shown = input.checked; render(); });
    const sign = Plot.plot({ width: 16, height: 16, margin: 0, axis: null, x: { domain: [0, 1] }, y: { domain: [0, 1] },
      marks: [Plot.dot([0], { x: 0.5, y: 0.5, r: 5, symbol: each.symbol, fill: each.color })] });
    sign.setAttribute("aria-hidden", "true");
    box.append(element("label", {}, input, sign, element("span", {}, each.label)));
  }
  box.hidden = measured.length === 0;
}

function facts() {
  const list = document.querySelector("#facts dl");
  const times = summary.time_unix_s.map((seconds) => new Date(1000 * seconds).toISOString().replace(".000Z", " UTC").replace("T", " "));
  const folders = distinct(series.map((each) => each.folder));
  for (const [title, values, isCode] of [
    ["Machine", summary.machines], ["GPU", summary.gpus], ["Versions", summary.versions], ["ONNX Runtime", summary.builds], ["Measured", [distinct(times).join(" to ")]],
    ["Load", summary.load ? [`${summary.load.join(" to ")} (one minute's average when a row was written)`] : []],
    ["Models", folders, true], ["Verified against", distinct(cells.map((cell) => cell.verified_against).filter(Boolean))],
    ["Commands", summary.commands, true], ["Rows", [`${summary.rows} rows, ${cells.length} measurements after putting rounds together`]],
  ]) {
    for (const [index, value] of values.entries()) {
      list.append(element("dt", {}, index === 0 ? title : ""), element("dd", {}, isCode ? element("code", {}, value) : value));
    }
  }
}

const MEBIBYTE = 1024 ** 2;
const memory = (bytes) => number(bytes / MEBIBYTE);
const COLUMNS = [
  { title: "what", text: true, key: (cell) => cell.series.label },
  { title: "workload", text: true, key: (cell) => cell.shape ? cell.shape[1] * 1e7 + cell.shape[0] : cell.workload, show: workloadName },
  { title: "status", text: true, key: (cell) => words(cell.status) },
  ...[
    ["tokens/s", (cell) => cell.tokens_per_s, number, true], ["texts/s", (cell) => cell.texts_per_s],
    ["p50 ms", (cell) => cell.p50_ms, number, true], ["p90 ms", (cell) => cell.p90_ms], ["p99 ms", (cell) => cell.p99_ms],
    ["outside session", outside, percent], ["padding", (cell) => cell.padding_waste, percent],
    ["GFLOP/s", (cell) => cell.gflop_per_s], ["matmul peak", (cell) => cell.peak_gflop_per_s], ["of peak", (cell) => cell.share_of_peak, percent],
  ].map(([title, of, format = number, ranged = false]) => ({ title, of, format, ranged, key: (cell) => of(cell)?.median ?? null })),
  { title: "1 − cosine", key: distance, show: (cell) => distance(cell) === null ? "–" : distance(cell).toExponential(1) },
  { title: "open s", of: (cell) => cell.open_s, format: number, key: (cell) => cell.open_s?.median ?? null },
  { title: "memory MiB", of: (cell) => cell.peak_memory_bytes, format: memory, key: (cell) => cell.peak_memory_bytes?.median ?? null },
  { title: "GPU MiB", of: (cell) => cell.device_memory_bytes, format: memory, key: (cell) => cell.device_memory_bytes?.median ?? null },
  { title: "calls", key: (cell) => cell.calls }, { title: "rounds", key: (cell) => cell.rounds },
].filter(({ title }) => title !== "GPU MiB" || cells.some((cell) => cell.device_memory_bytes));

function tableCell({ of, format, ranged, key, show, text }, cell) {
  const made = element("td", { className: text ? "text" : "" });
  if (of) {
    const value = of(cell);
    made.append(value ? format(value.median) : "–");
    if (value && value.least < value.largest) {
      const range = `${format(value.least)} to ${format(value.largest)}`;
      if (ranged) made.append(element("small", {}, range));
      else made.title = range;
    }
  } else {
    made.append(show ? show(cell) : `${key(cell)}`);
  }
  return made;
}

function table() {
  const body = element("tbody");
  const fill = (list) => body.replaceChildren(...list.map((cell) => {
    const row = element("tr", { className: ["wrong", "failed"].includes(cell.status) ? "bad" : "" });
    const last = cell.error ? 3 : COLUMNS.length; // the reason takes the place of numbers
    row.append(...COLUMNS.slice(0, last).map((column) => tableCell(column, cell)));
    row.children[2].classList.add("status");
    if (cell.error) row.append(element("td", { className: "text long", colSpan: COLUMNS.length - last }, cell.error));
    return row;
  }));
  const titles = COLUMNS.map((column) => {
    const title = element("th", { scope: "col", className: column.text ? "text" : "" });
    const button = element("button", { type: "button" }, column.title);
    button.addEventListener("click", () => {
      // Names from the start of the alphabet, numbers from the largest; then the other way.
      const [first, then] = column.text ? ["ascending", "descending"] : ["descending", "ascending"];
      const sort = title.ariaSort === first ? then : first;
      for (const other of titles) other.ariaSort = null;
      title.ariaSort = sort;
      // What was not measured stays last, whichever way.
      const missing = (cell) => column.key(cell) === null ? 1 : 0;
      const order = sort === "descending" ? d3.descending : d3.ascending;
      fill(d3.sort(cells, (one, other) => missing(one) - missing(other) || order(column.key(one), column.key(other))));
    });
    title.append(button);
    return title;
  });
  fill(cells);
  document.querySelector("#numbers table").append(element("thead", {}, element("tr", {}, ...titles)), body);
}

function sections() {
  const main = document.getElementById("sections");
  const links = document.getElementById("contents");
  const link = (id, title) => links.append(element("li", {}, element("a", { href: `#${id}` }, title)));
  for (const section of SECTIONS.filter((one) => one.wanted)) {
    section.charts = element("div", { className: section.wide ? "charts wide" : "charts" });
    const made = element("section", { id: section.id }, element("h2", { id: `${section.id}-title` }, section.title), element("p", {}, section.about));
    made.setAttribute("aria-labelledby", `${section.id}-title`);
    section.choice?.(made);
    made.append(section.charts);
    main.append(made);
    link(section.id, section.title);
  }
  link("numbers", "All numbers");
  link("facts", "Where and how");
}

function render() {
  for (const section of SECTIONS.filter((one) => one.wanted)) {
    const figures = section.figures().map(({ caption, plot }) => {
      const figure = element("figure", {}, ...(caption ? [element("figcaption", {}, caption)] : []));
      return { figure, draw: () => {
        const style = getComputedStyle(figure);
        const width = Math.floor(figure.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight));
        figure.append(Plot.plot({ style: { fontSize: "12px" }, ariaLabel: `${section.title}${caption ? `, ${caption}` : ""}`,
          ariaDescription: "The numbers are in the table below.", ...plot(Math.max(width, 200)) }));
      } };
    });
    section.charts.replaceChildren(...figures.map(({ figure }) => figure));
    for (const { draw } of figures) draw();
  }
}

header();
legend();
sections();
table();
facts();
render();
let drawnWidth = document.body.clientWidth;
new ResizeObserver(() => {
  if (document.body.clientWidth === drawnWidth) return;
  drawnWidth = document.body.clientWidth;
  render();
}).observe(document.body);
