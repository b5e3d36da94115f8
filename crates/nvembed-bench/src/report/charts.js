"use strict";
// The plots. `nvembed bench report` computes the medians and ranges over rounds and puts them into the page.

const summary = JSON.parse(document.getElementById("results").textContent);
const SYMBOLS = ["circle", "square", "triangle", "diamond", "star", "cross", "wye"];
// Eight colours and seven shapes give 56 series a pair of their own.
const series = summary.series.map((each, index) => ({
  ...each, index, label: each.name.join(" · "), shown: true,
  color: `var(--series-${index % 8})`, symbol: SYMBOLS[index % SYMBOLS.length],
}));
const cells = summary.cells.map((cell) => ({ ...cell, series: series[cell.series] }));
const measured = cells.filter((cell) => cell.status === "ok" && cell.tokens_per_s);
// By length, then by batch size; texts last.
const closed = d3.sort(measured.filter((cell) => cell.rate === null),
  (cell) => cell.shape?.[1] ?? Infinity, (cell) => cell.shape?.[0] ?? Infinity);
const open = measured.filter((cell) => cell.rate !== null);

// A cosine nearer to 1 than this is rounding of 32-bit numbers.
const COSINE_FLOOR = 1e-8;
// A model that answers a smaller share of the incoming requests than this is falling behind.
const KEPT_UP = 0.95;

const number = (value) => value === null || value === undefined ? "–"
  : value === 0 ? "0" : Math.abs(value) >= 100 ? d3.format(",.0f")(value) : d3.format(".3~g")(value);
/** A tick of an axis: 0.5, 20, 800, 20k. */
const tick = (value) => value >= 1000 ? d3.format("~s")(value) : number(value);
const percent = (value) => value === null ? "–" : `${number(100 * value)} %`;
const distance = (cell) => cell.cosine_min === null ? null : Math.max(1 - cell.cosine_min, 0);
const spread = (value, show = number) => !value ? "–" : value.least === value.largest ? show(value.median)
  : `${show(value.median)} (${show(value.least)} to ${show(value.largest)})`;
const workloadName = (cell) => cell.workload.replace(/^(\d+)x(\d+)/, "$1 × $2");
const distinct = (values) => [...new Set(values)];
const shown = (list) => list.filter((cell) => cell.series.shown);

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function details(cell) {
  const lines = [
    cell.series.label, workloadName(cell),
    `${spread(cell.tokens_per_s)} tokens/s`, `${spread(cell.texts_per_s)} texts/s`,
    `p50 ${spread(cell.p50_ms)} ms`, `p90 ${number(cell.p90_ms?.median)} ms, p99 ${number(cell.p99_ms?.median)} ms`,
  ];
  if (cell.share_of_peak) lines.push(`${percent(cell.share_of_peak.median)} of the matmul peak`);
  if (distance(cell) !== null) lines.push(`1 − cosine ${distance(cell).toExponential(1)}`);
  lines.push(`${cell.calls} calls in ${cell.rounds} ${cell.rounds === 1 ? "round" : "rounds"}`);
  return lines.join("\n");
}

// ---- Which series share a plot

// Linear axes start at 0. A series whose values are all below a tenth of the axis looks flat, so it goes on another plot.
const FLAT = 10;

/**
 * Groups of series that can share plots: in no plot does one series exceed another more than FLAT times. `plotOf` names the
 * plot that a cell is on, `value` is compared, and `pick` takes one value per series and plot. A model stays whole if its
 * own series allow it; otherwise its providers are parted, and only then its single series. Two series that meet on no plot
 * are compared by their values on all plots. What the legend hides counts too, so that a click there moves nothing.
 */
function together(list, plotOf, value, pick = d3.max) {
  const values = (some) => d3.rollup(some, (of) => pick(of, value), (cell) => cell.series);
  const [all, plots] = [values(list), d3.groups(list, plotOf).map(([, of]) => values(of))];
  const apart = (one, other) => {
    const shared = plots.filter((plot) => plot.has(one) && plot.has(other));
    return (shared.length ? shared : [all]).some((plot) => {
      const [low, high] = d3.extent([plot.get(one), plot.get(other)]);
      return low > 0 && high > FLAT * low;
    });
  };
  const fit = (some) => d3.cross(some, some).every(([one, other]) => !apart(one, other));
  const part = (some, [key, ...finer]) => d3.groups(some, key).flatMap(([, of]) =>
    fit(of) || finer.length === 0 ? [of] : part(of, finer));
  const parts = part([...all.keys()], [(each) => each.model, (each) => each.name[0], (each) => each.index]);
  const groups = [];
  for (const of of d3.sort(parts, (some) => -d3.max(some, (each) => all.get(each)))) {
    const found = groups.find((group) => fit([...group, ...of]));
    if (found) found.push(...of);
    else groups.push(of);
  }
  return d3.sort(groups.map((group) => d3.sort(group, (each) => each.index)), ([first]) => first.index);
}

/** The models of a group, with their series where others of the same model are in another group. */
function groupName(group, all) {
  return d3.groups(group, (each) => each.model).map(([model, of]) => {
    if (all.filter((each) => each.model === model).length === of.length) return model;
    return `${model} (${of.map((each) => each.name.filter((part) => part !== model).join(" · ")).join(", ")})`;
  }).join(", ");
}

// ---- Marks that every plot is made of

/** The text of a point for screen readers. A point is a cell or holds one. */
const spoken = (point) => details(point.cell ?? point).replaceAll("\n", ", ");

const tip = (points, x, y) => Plot.tip(points, Plot.pointer({ x, y, title: (d) => details(d.cell), fontSize: 12 }));

/** The offset of one of several marks at the same place, so that none hides another. */
const beside = (index, count, step) => (index - (count - 1) / 2) * step;

/** Of values on a logarithmic axis, in rising order, those whose labels have room. */
function spaced(values, width) {
  const kept = [];
  const pixels = (low, high) => Math.log(high / low) / Math.log(values.at(-1) / values[0]) * (width - 100);
  for (const value of values) if (kept.length === 0 || pixels(kept.at(-1), value) >= 36) kept.push(value);
  return kept;
}

/** A line, its points and their spread over rounds, for each series. Points are {x, y, cell, spread, hollow}. */
function lines(points) {
  const groups = [...d3.group(points, (d) => d.cell.series).entries()];
  const marks = groups.flatMap(([{ color, symbol }, of], index) => [
    Plot.ruleX(of.filter((d) => d.spread.least < d.spread.largest), {
      x: "x", y1: (d) => d.spread.least, y2: (d) => d.spread.largest, dx: beside(index, groups.length, 4),
      stroke: color, strokeWidth: 2.5, strokeOpacity: 0.45, ariaLabel: () => "minimum to maximum",
    }),
    Plot.line(of, { x: "x", y: "y", sort: "x", stroke: color, strokeWidth: 2 }),
    Plot.dot(of, { x: "x", y: "y", symbol, r: 4, stroke: color, ariaLabel: spoken,
      fill: (d) => d.hollow ? "var(--card)" : color }),
  ]);
  return [...marks, tip(points, "x", "y")];
}

/** One band per series, with its name at the top; `marks` are drawn below the name. */
function bands(width, list, x, marks) {
  const order = list.map((cell) => cell.series.label);
  return {
    width, height: 34 + 44 * list.length, marginTop: 8, marginBottom: 34, marginLeft: 6, marginRight: 16,
    x: { grid: true, nice: true, zero: true, ticks: Math.min(6, width / 70), ...x },
    y: { axis: null, type: "band", domain: order, paddingInner: 0, paddingOuter: 0 },
    marks: [...list.map((cell) => Plot.text([cell], {
      frameAnchor: "left", y: (d) => d.series.label, dy: -12, text: (d) => d.series.label, textAnchor: "start",
      lineWidth: width / 13, textOverflow: "ellipsis", fontSize: 12, fill: "currentColor",
      stroke: "var(--card)", strokeWidth: 4,
    })), ...marks],
  };
}

/** One line per workload, one point per series. */
function dots(width, list, value, x) {
  const workloads = distinct(list.map(workloadName));
  const points = list.map((cell) => ({ cell, x: value(cell).median, y: workloadName(cell), spread: value(cell) }));
  const longest = d3.max(workloads, (name) => name.length);
  const room = Math.min(longest * 7 + 14, width * 0.42);
  const letters = Math.floor((room - 14) / 7);
  const groups = [...d3.group(points, (d) => d.cell.series).entries()];
  return {
    width, height: 48 + (16 + 9 * groups.length) * workloads.length, marginTop: 6, marginBottom: 40, marginLeft: room, marginRight: 20,
    x: { grid: true, zero: true, nice: true, ticks: Math.min(8, width / 70), ...x },
    y: { type: "point", domain: workloads, label: null, grid: true, tickSize: 0,
      tickFormat: (name) => name.length > letters ? `${name.slice(0, letters - 1)}…` : name },
    marks: [...groups.flatMap(([{ color, symbol }, of], index) => [
      Plot.ruleY(of.filter((d) => d.spread.least < d.spread.largest), {
        y: "y", x1: (d) => d.spread.least, x2: (d) => d.spread.largest, dy: beside(index, groups.length, 9),
        stroke: color, strokeWidth: 2.5, strokeOpacity: 0.45, ariaLabel: () => "minimum to maximum",
      }),
      Plot.dot(of, { x: "x", y: "y", symbol, r: 4.5, fill: color, dy: beside(index, groups.length, 9), ariaLabel: spoken }),
    ]), tip(points, "x", "y")],
  };
}

// ---- Plots. Each function takes the cells of one group of series, shown ones and all, and returns {caption, plot(width)}

/** Throughput against one side of the shape: a figure for each size of the other. */
const throughput = (side, names) => (list, all) => {
  const sizes = distinct(all.map((cell) => cell.shape[side])).sort(d3.ascending);
  const top = (of) => d3.max(of, (cell) => cell.tokens_per_s.largest);
  const highs = d3.rollups(all, (of) => d3.max(of, (cell) => cell.tokens_per_s.median), (cell) => cell.shape[1 - side], (cell) => cell.series);
  // One axis for all figures, unless a series would be flat in one of them.
  const common = highs.every(([, of]) => of.every(([, high]) => high * FLAT >= top(all)));
  return d3.sort(d3.groups(list, (cell) => cell.shape[1 - side]), ([fixed]) => fixed).map(([fixed, of]) => ({
    caption: names.caption(fixed),
    plot: (width) => ({
      width, height: 270, marginTop: 30, marginLeft: 56, marginRight: 18, marginBottom: 40, insetLeft: 8, insetRight: 8,
      x: { type: "log", base: 2, domain: d3.extent(sizes), ticks: spaced(sizes, width), tickFormat: (d) => `${d}`, label: names.axis },
      y: { domain: [0, top(common ? list : of)], nice: true, grid: true, label: "tokens/s", ticks: 6, tickFormat: tick },
      marks: [Plot.ruleY([0]), ...lines(of.map((cell) =>
        ({ cell, x: cell.shape[side], y: cell.tokens_per_s.median, spread: cell.tokens_per_s })))],
    }),
  }));
};

function throughputBars(shownCells) {
  return d3.groups(shownCells, workloadName).map(([caption, list]) => ({
    caption,
    plot: (width) => bands(width, list, { label: "tokens/s", tickFormat: tick }, [
      ...list.map((cell) => Plot.rect([cell], {
        x1: 0, x2: (d) => d.tokens_per_s.median, y: (d) => d.series.label, insetTop: 19, insetBottom: 8, fill: cell.series.color,
      })),
      Plot.ruleY(list.filter((cell) => cell.rounds > 1), { y: (d) => d.series.label, dy: 6, stroke: "currentColor", strokeWidth: 2,
        x1: (d) => d.tokens_per_s.least, x2: (d) => d.tokens_per_s.largest }),
      Plot.ruleX([0]),
      tip(list.map((cell) => ({ cell, x: cell.tokens_per_s.median, y: cell.series.label })), "x", "y"),
    ]),
  }));
}

function latencies(shownCells) {
  return d3.groups(shownCells, workloadName).map(([caption, list]) => {
    // One slow call among many must not flatten all bars: the axis ends where each p90 is at least a tenth of it.
    const [least, largest] = d3.extent(list, (cell) => cell.p90_ms.median);
    const end = Math.max(largest, Math.min(d3.max(list, (cell) => cell.range_ms[1]), FLAT * least));
    const beyond = list.filter((cell) => cell.range_ms[1] > end);
    const x = { label: "ms per call", domain: [0, end], clamp: true, nice: beyond.length === 0 };
    return { caption, plot: (width) => bands(width, list, x, [
      ...list.flatMap((cell) => {
        const [color, y] = [cell.series.color, { y: (d) => d.series.label, dy: 6 }];
        return [
          Plot.ruleY([cell], { ...y, x1: (d) => d.range_ms[0], x2: (d) => d.range_ms[1], stroke: color, strokeWidth: 1.5 }),
          Plot.ruleY([cell], { ...y, x1: (d) => d.p50_ms.median, x2: (d) => d.p99_ms.median, stroke: color, strokeWidth: 9, strokeOpacity: 0.35 }),
          Plot.ruleY([cell], { ...y, x1: (d) => d.p50_ms.median, x2: (d) => d.p90_ms.median, stroke: color, strokeWidth: 9, strokeOpacity: 0.55 }),
          Plot.dot([cell], { ...y, x: (d) => d.p50_ms.median, symbol: cell.series.symbol, r: 5, fill: color,
            stroke: "var(--card)", ariaLabel: spoken }),
        ];
      }),
      Plot.text(beyond, { y: (d) => d.series.label, dy: 17, frameAnchor: "right", textAnchor: "end", fontSize: 11, fill: "currentColor",
        text: (d) => `slowest ${number(d.range_ms[1])} ms →`, stroke: "var(--card)", strokeWidth: 4 }),
      tip(list.map((cell) => ({ cell, x: cell.p50_ms.median, y: cell.series.label })), "x", "y"),
    ]) };
  });
}

/** The workload of a rate, without the rate. */
const unrated = (cell) => cell.workload.replace(/ at [^ ]*\/s/, "");

function underLoad(list, all) {
  const rates = distinct(all.map((cell) => cell.rate)).sort(d3.ascending);
  const several = distinct(open.map(unrated)).length > 1;
  const [least, largest] = [d3.min(list, (cell) => cell.p50_ms.least), d3.max(list, (cell) => cell.p99_ms.largest)];
  return d3.groups(list, unrated).flatMap(([name, of]) => ["p50", "p90", "p99"].map((quantile) => ({
    caption: several ? `${quantile}, ${name}` : quantile,
    plot: (width) => ({
      width, height: 270, marginTop: 30, marginLeft: 56, marginRight: 18, marginBottom: 40, insetLeft: 12, insetRight: 12,
      x: { type: "log", domain: rates.length > 1 ? d3.extent(rates) : [rates[0] / 2, rates[0] * 2], ticks: spaced(rates, width),
        tickFormat: tick, label: "requests/s" },
      y: { type: "log", domain: [least, largest], nice: true, grid: true, label: "ms", ticks: 4, tickFormat: tick },
      marks: lines(of.map((cell) => ({
        cell, x: cell.rate, y: cell[`${quantile}_ms`].median, spread: cell[`${quantile}_ms`],
        hollow: cell.texts_per_s && cell.texts_per_s.median < KEPT_UP * cell.rate,
      }))),
    }),
  })));
}

const share = (value, label) => (list) =>
  list.length ? [{ caption: "", plot: (width) => dots(width, list, value, { label, percent: true }) }] : [];
const outside = (cell) => cell.session_share && {
  median: 1 - cell.session_share.median, least: 1 - cell.session_share.largest, largest: 1 - cell.session_share.least,
};

/** The workload that most series have, and of those the one with most tokens. */
function chosenWorkload() {
  const groups = d3.groups(measured.filter((cell) => cell.cosine_min !== null), (cell) => cell.workload);
  return d3.greatest(groups, ([, of]) => of.length * 1e9 + of[0].tokens)?.[0];
}
let qualityWorkload = chosenWorkload();

function quality(list) {
  const points = list.map((cell) => ({ cell, x: cell.tokens_per_s.median, y: Math.max(distance(cell), COSINE_FLOOR) }));
  if (!points.length) return [];
  const power = (value) => value <= COSINE_FLOOR ? "≤ 1e−8" : d3.format(".0e")(value).replace("-", "−");
  return [{
    caption: "",
    plot: (width) => ({
      width, height: 380, marginTop: 30, marginLeft: 56, marginRight: 24, marginBottom: 40, insetTop: 24, insetBottom: 12, insetRight: 12,
      x: { zero: true, nice: true, grid: true, label: "tokens/s", tickFormat: tick, ticks: Math.min(8, width / 70) },
      y: { type: "log", reverse: true, grid: true, label: "1 − cosine (up is better)", labelArrow: "none", tickFormat: power,
        domain: [COSINE_FLOOR, Math.max(1e-3, 10 ** Math.ceil(Math.log10(d3.max(points, (d) => d.y))))], ticks: 5 },
      marks: [
        ...points.flatMap((point) => [
          Plot.ruleY([point], { y: "y", x1: (d) => d.cell.tokens_per_s.least, x2: (d) => d.cell.tokens_per_s.largest,
            stroke: point.cell.series.color, strokeWidth: 3, strokeOpacity: 0.45 }),
          Plot.dot([point], { x: "x", y: "y", symbol: point.cell.series.symbol, r: 7, fill: point.cell.series.color,
            stroke: "var(--card)", ariaLabel: spoken }),
        ]),
        Plot.text(points, { x: "x", y: "y", dy: -14, text: (d) => d.cell.series.precision, fontSize: 12,
          stroke: "var(--card)", strokeWidth: 4, fill: "currentColor" }),
        tip(points, "x", "y"),
      ],
    }),
  }];
}

function qualityChoice(section) {
  const names = distinct(measured.filter((cell) => cell.cosine_min !== null).map((cell) => cell.workload));
  const select = element("select", {}, ...names.map((name) =>
    element("option", { value: name, selected: name === qualityWorkload }, name.replace(/^(\d+)x(\d+)/, "$1 × $2"))));
  select.addEventListener("change", () => { qualityWorkload = select.value; render(); });
  section.append(element("label", { className: "choice" }, "Workload ", select));
}
