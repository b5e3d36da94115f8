"use strict";
// The page around the plots: sections, legend, table.

const words = (status) => status.replace("_", " ");

const sizesOf = (side) => distinct(closed.flatMap((cell) => cell.shape ? [cell.shape[side]] : [])).length;
const isSwept = sizesOf(0) > 1 || sizesOf(1) > 1;
const shapes = closed.filter((cell) => cell.shape);
const tokensPerSecond = (cell) => cell.tokens_per_s.median;
const onePlot = () => 0;
const WORKLOADS = "One line per workload (batch size × tokens per text); faint bars span all rounds.";
/** A section with a plot of shares, for the cells that have them. */
const shareSection = (id, title, about, of, value, label) => {
  const list = of.filter(value);
  return { id, title, about: `${about} ${WORKLOADS}`, wide: true, cells: () => list, plotOf: onePlot, value: (cell) => value(cell).median, figures: share(value, label) };
};
// `cells` are drawn by `figures`; `plotOf`, `value` and `pick` say which series share a plot (see `together`).
const SECTIONS = [
  { id: "batch", title: "Throughput by batch size",
    about: "One plot per text length. The faint bar behind a point spans the slowest to the fastest round.",
    cells: () => sizesOf(0) > 1 ? shapes : [], plotOf: (cell) => cell.shape[1], value: tokensPerSecond,
    figures: throughput(0, { axis: "batch size", caption: (length) => `${length} tokens per text` }) },
  { id: "length", title: "Throughput by text length",
    about: "The same measurements with one plot per batch size.",
    cells: () => sizesOf(1) > 1 ? shapes : [], plotOf: (cell) => cell.shape[0], value: tokensPerSecond,
    figures: throughput(1, { axis: "tokens per text", caption: (batch) => `Batch size ${batch}` }) },
  { id: "throughput", title: isSwept ? "Throughput on texts from a file" : "Throughput",
    about: `${isSwept ? "All texts of a file in one call" : "One plot per workload: a batch (batch size × tokens per text), or all texts of a file in one call"}. The dark line spans the slowest to the fastest round.`,
    cells: () => closed.filter((cell) => !cell.shape || !isSwept), plotOf: workloadName, value: tokensPerSecond,
    figures: throughputBars },
  { id: "load", title: "Latency under load",
    about: `Requests with one text each arrive at a fixed rate, whether or not earlier ones are done. Latency counts from the moment a request was due. A hollow point means that fewer than ${100 * KEPT_UP} % of the incoming requests were answered in time, so a queue built up. Both axes are logarithmic.`,
    // A queue makes any model slow: models are compared by their latency before one builds up.
    cells: () => open.filter((cell) => cell.p50_ms), plotOf: unrated, value: (cell) => cell.p50_ms.median, pick: d3.min,
    figures: underLoad },
  { id: "latency", title: "Latency per call",
    about: "One plot per workload (batch size × tokens per text). The point is the median (p50), the dark bar ends at p90, the light bar at p99, and the line spans the fastest to the slowest call. An arrow marks a slowest call beyond the axis.",
    cells: () => closed.filter((cell) => cell.p50_ms && cell.range_ms), plotOf: workloadName, value: (cell) => cell.p90_ms.median,
    figures: latencies },
  { id: "quality", title: "Accuracy and throughput", choice: qualityChoice, wide: true,
    about: "The least accurate embedding's distance from its reference, by throughput. The upper right corner is best.",
    cells: () => measured.filter((cell) => cell.workload === qualityWorkload && cell.cosine_min !== null),
    plotOf: onePlot, value: tokensPerSecond, figures: quality },
  shareSection("peak", "Share of the matmul peak",
    "Arithmetic operations per second on real tokens, relative to a single matrix product of the same precision.",
    closed, (cell) => cell.share_of_peak, "% of the matmul peak"),
  shareSection("session", "Time outside ONNX Runtime",
    "The share of call time spent on tokenizing, planning, padding and copying. The rest is spent in ONNX Runtime.",
    closed, outside, "% of call time outside ONNX Runtime"),
  shareSection("padding", "Padding",
    "The share of computed positions that are padding, for texts of different lengths.",
    closed.filter((cell) => !cell.shape), (cell) => cell.padding_waste, "% of computed positions"),
];
const drawn = SECTIONS.filter((section) => section.cells().length > 0);
const models = distinct(series.map((each) => each.model));

// ---- The page

function header() {
  const [first, last] = summary.time_unix_s.map((seconds) => new Date(1000 * seconds).toISOString().slice(0, 10));
  document.getElementById("origin").textContent =
    `${models.join(", ")}. ${[...summary.machines, ...summary.gpus].join("; ")}. ${first === last ? first : `${first} to ${last}`}.`;
  document.getElementById("warnings").append(
    ...summary.warnings.map((warning) => element("li", {}, warning)),
    ...summary.problems.map(({ series: of, status, error, workloads }) => element("li", { className: "problem" },
      element("strong", {}, `${series[of].label}: ${words(status)}`), ` (${workloads.join(", ")}) ${error ?? ""}`)));
  document.getElementById("notes").append(...summary.notes.map((note) => element("li", {}, note)));

  // The best of each model: a small one is always faster than a large one.
  for (const model of models) {
    const [all, calls] = [measured, closed].map((list) => list.filter((cell) => cell.series.model === model));
    const best = [
      ["Highest throughput", d3.greatest(all, tokensPerSecond), (cell) => `${number(cell.tokens_per_s.median)} tokens/s`],
      ["Lowest latency for one text (p50)", d3.least(calls.filter((cell) => cell.rows === 1 && cell.p50_ms), (cell) => cell.p50_ms.median),
        (cell) => `${number(cell.p50_ms.median)} ms`],
      ["Highest share of the matmul peak", d3.greatest(calls.filter((cell) => cell.share_of_peak), (cell) => cell.share_of_peak.median),
        (cell) => percent(cell.share_of_peak.median)],
    ].filter(([, cell]) => cell);
    if (best.length) document.getElementById("best").append(element("dl", {}, ...best.map(([title, cell, value]) => element("div", {},
      element("dt", {}, models.length > 1 ? `${model}: ${title.toLowerCase()}` : title), element("dd", { className: "value" }, value(cell)),
      element("dd", {}, `${cell.series.label}, ${workloadName(cell)}`)))));
  }
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
    ["Machine", summary.machines], ["GPU", summary.gpus], ["Versions", summary.versions], ["ONNX Runtime", summary.builds], ["Date", [distinct(times).join(" to ")]],
    ["Load", summary.load ? [`${summary.load.join(" to ")} (one-minute load average at each result)`] : []],
    ["Models", folders, true], ["Verified against", distinct(cells.map((cell) => cell.verified_against).filter(Boolean))],
    ["Commands", summary.commands, true], ["Results", [`${summary.rows} results, combined over rounds into ${cells.length} measurements`]],
  ]) {
    for (const [index, value] of values.entries()) {
      list.append(element("dt", {}, index === 0 ? title : ""), element("dd", {}, isCode ? element("code", {}, value) : value));
    }
  }
}

const MEBIBYTE = 1024 ** 2;
const memory = (bytes) => number(bytes / MEBIBYTE);
const COLUMNS = [
  { title: "series", text: true, key: (cell) => cell.series.label },
  { title: "workload", text: true, key: (cell) => cell.shape ? cell.shape[1] * 1e7 + cell.shape[0] : cell.workload, show: workloadName },
  { title: "status", text: true, key: (cell) => words(cell.status) },
  ...[
    ["tokens/s", (cell) => cell.tokens_per_s, number, true], ["texts/s", (cell) => cell.texts_per_s],
    ["p50 ms", (cell) => cell.p50_ms, number, true], ["p90 ms", (cell) => cell.p90_ms], ["p99 ms", (cell) => cell.p99_ms],
    ["outside session", outside, percent], ["padding", (cell) => cell.padding_waste, percent],
    ["GFLOP/s", (cell) => cell.gflop_per_s], ["peak GFLOP/s", (cell) => cell.peak_gflop_per_s], ["of peak", (cell) => cell.share_of_peak, percent],
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
    const last = cell.error ? 3 : COLUMNS.length; // the reason replaces the numbers
    row.append(...COLUMNS.slice(0, last).map((column) => tableCell(column, cell)));
    row.children[2].classList.add("status");
    if (cell.error) row.append(element("td", { className: "text long", colSpan: COLUMNS.length - last }, cell.error));
    return row;
  }));
  const titles = COLUMNS.map((column) => {
    const title = element("th", { scope: "col", className: column.text ? "text" : "" });
    const button = element("button", { type: "button" }, column.title);
    button.addEventListener("click", () => {
      // Text ascends first, numbers descend first; another click reverses.
      const [first, then] = column.text ? ["ascending", "descending"] : ["descending", "ascending"];
      const sort = title.ariaSort === first ? then : first;
      for (const other of titles) other.ariaSort = null;
      title.ariaSort = sort;
      // What was not measured stays last in either order.
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
  for (const section of drawn) {
    section.plots = element("div");
    const made = element("section", { id: section.id }, element("h2", { id: `${section.id}-title` }, section.title), element("p", {}, section.about));
    made.setAttribute("aria-labelledby", `${section.id}-title`);
    section.choice?.(made);
    made.append(section.plots);
    main.append(made);
    link(section.id, section.title);
  }
  link("numbers", "All numbers");
  link("facts", "Environment and method");
}

/** A figure without its plot yet: the plot needs the figure's width on the page. */
function frame({ caption, plot }, name) {
  const figure = element("figure", {}, ...(caption ? [element("figcaption", {}, caption)] : []));
  return { figure, draw: () => {
    const style = getComputedStyle(figure);
    const width = Math.floor(figure.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight));
    figure.append(Plot.plot({ style: { fontSize: "12px" }, ariaLabel: [...name, caption].filter(Boolean).join(", "),
      ariaDescription: "All numbers are in the table below.", ...plot(Math.max(width, 200)) }));
  } };
}

function render() {
  for (const { title, wide, plots, cells: cellsOf, plotOf, value, pick, figures } of drawn) {
    const list = cellsOf();
    const groups = together(list, plotOf, value, pick);
    const frames = groups.map((group) => {
      const name = models.length > 1 || groups.length > 1 ? [groupName(group, groups.flat())] : [];
      const all = list.filter((cell) => group.includes(cell.series));
      return { name, frames: figures(shown(all), all).map((one) => frame(one, [title, ...name])) };
    }).filter((group) => group.frames.length > 0);
    const note = `Series that differ by a factor of more than ${FLAT} are on separate plots, each group with its own axes.`;
    plots.replaceChildren(...(groups.length > 1 ? [element("p", {}, note)] : []), ...frames.flatMap((group) => [
      ...group.name.map((name) => element("h3", {}, name)),
      element("div", { className: wide ? "charts wide" : "charts" }, ...group.frames.map(({ figure }) => figure)),
    ]));
    for (const { draw } of frames.flatMap((group) => group.frames)) draw();
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
