// Small charts in SVG, drawn anew when their place changes its width, so that their letters keep their size.

import { h, show, svg } from "./dom.js";

const LEFT = 58;
const RIGHT = 14;
const TOP = 10;
const BOTTOM = 44;

function chart(title, height, draw, legend = null) {
  const holder = h("div", { class: "canvas" });
  let drawn = 0;
  new ResizeObserver(() => {
    const width = Math.round(holder.clientWidth);
    if (width > 0 && width !== drawn) {
      drawn = width;
      show(holder, svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": title }, draw(width, height)));
    }
  }).observe(holder);
  return h("figure", { class: "chart" }, h("figcaption", null, title, legend), holder);
}

const legendOf = (series) =>
  h("span", { class: "legend" }, series.map((one, i) => h("span", null, h("i", { class: `swatch s${i}`, "aria-hidden": "true" }), one.name)));

const text = (x, y, said, attributes = null) => svg("text", { x, y, ...attributes }, said);
const line = (x1, y1, x2, y2, name) => svg("line", { x1, y1, x2, y2, class: name });

/** Round steps from 0 to at least `top`. */
function niceSteps(top, n = 4) {
  const rough = Math.max(top, 1e-9) / n;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((one) => one >= rough * 0.999);
  const count = Math.max(1, Math.ceil(top / step - 1e-9));
  return Array.from({ length: count + 1 }, (_, i) => i * step);
}

function yAxis(width, height, steps, format, label) {
  const top = steps.at(-1);
  const y = (value) => height - BOTTOM - (value / top) * (height - BOTTOM - TOP);
  const marks = steps.map((step) => [line(LEFT, y(step), width - RIGHT, y(step), "grid"), text(LEFT - 7, y(step) + 4, format(step), { "text-anchor": "end" })]);
  const middle = (height - BOTTOM + TOP) / 2;
  return { y, marks: [marks, text(12, middle, label, { class: "axis", "text-anchor": "middle", transform: `rotate(-90 12 ${middle})` })] };
}

const xTitle = (width, height, label) => text((LEFT + width - RIGHT) / 2, height - 6, label, { class: "axis", "text-anchor": "middle" });

/** columns: [{label, values: [one of each series]}]; every few columns are labelled. */
export function stackedBars({ title, columns, series, xLabel, yLabel, height = 230 }) {
  const draw = (width) => {
    const total = (column) => column.values.reduce((sum, value) => sum + value, 0);
    const { y, marks } = yAxis(width, height, niceSteps(Math.max(4, ...columns.map(total))), String, yLabel);
    const step = (width - LEFT - RIGHT) / columns.length;
    const every = Math.ceil(columns.length / Math.max(1, Math.floor((width - LEFT) / 90)));
    const bars = columns.map((column, i) => {
      let below = 0;
      const said = series.map((one, s) => column.values[s] && `${one.name} ${column.values[s]}`).filter(Boolean).join(", ");
      const parts = column.values.map((value, s) => {
        const part = value > 0 && svg("rect", { x: LEFT + i * step + 0.5, width: Math.max(1, step - 1.5), y: y(below + value), height: y(below) - y(below + value), class: `s${s}` });
        below += value;
        return part;
      });
      const isLabelled = (columns.length - 1 - i) % every === 0;
      return svg("g", null, svg("title", null, `${column.label}: ${said || "nothing"}`), parts, isLabelled && text(LEFT + (i + 0.5) * step, height - BOTTOM + 17, column.label, { "text-anchor": columns.length - 1 - i < 2 ? "end" : "middle" }));
    });
    return [marks, bars, line(LEFT, y(0), width - RIGHT, y(0), "base"), xTitle(width, height, xLabel)];
  };
  return chart(title, height, draw, legendOf(series));
}

/** times: unix seconds of the points. series: [{name, values}]. */
export function lines({ title, times, series, xLabel, yLabel, format, top, height = 230 }) {
  const draw = (width) => {
    const highest = top ?? Math.max(...series.flatMap((one) => one.values));
    const { y, marks } = yAxis(width, height, niceSteps(highest), format, yLabel);
    const [start, end] = [times[0], times.at(-1)];
    const x = (time) => LEFT + (end > start ? (time - start) / (end - start) : 1) * (width - LEFT - RIGHT);
    const paths = series.map((one, s) => [
      svg("polyline", { points: one.values.map((value, i) => `${x(times[i]).toFixed(1)},${y(value).toFixed(1)}`).join(" "), class: `stroke s${s}` }),
      svg("circle", { cx: x(end), cy: y(one.values.at(-1)), r: 3.5, class: `s${s}` }, svg("title", null, `${one.name}: ${format(one.values.at(-1))}`)),
    ]);
    const ends = end > start ? [text(LEFT, height - BOTTOM + 17, clock(start)), text(width - RIGHT, height - BOTTOM + 17, clock(end), { "text-anchor": "end" })] : text(width - RIGHT, height - BOTTOM + 17, clock(end), { "text-anchor": "end" });
    return [marks, paths, ends, line(LEFT, y(0), width - RIGHT, y(0), "base"), xTitle(width, height, xLabel)];
  };
  return chart(title, height, draw, legendOf(series));
}

export const clock = (seconds) => new Date(1000 * seconds).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });

/**
 * Rows with a point each and a range around it. rows: [{label, low, value, high, marked, note}].
 * log: the axis has steps of ten, for values that differ by factors; else it holds zero.
 */
export function ranges({ title, rows, xLabel, format, log = false, top = null }) {
  const row = 34;
  const height = TOP + rows.length * row + BOTTOM;
  const draw = (width) => {
    const left = Math.min(190, Math.max(90, 7.7 * Math.max(...rows.map((one) => one.label.length)) + 16), 0.42 * width);
    const { x, steps } = xScale(rows, log, top, left, width - RIGHT - 52);
    const bottom = height - BOTTOM;
    const letters = Math.floor((left - 12) / 7.4);
    const room = 7.5 * Math.max(...steps.map((step) => format(step).length)) + 8;
    const every = Math.ceil(room / (x(steps[1]) - x(steps[0])));
    const zero = Math.max(0, steps.indexOf(0)); // always labelled
    const grid = steps.map((step, i) => [line(x(step), TOP, x(step), bottom, step === 0 ? "base" : "grid"), (i - zero) % every === 0 && text(x(step), bottom + 17, format(step), { "text-anchor": "middle" })]);
    const marks = rows.map((one, i) => {
      const y = TOP + (i + 0.5) * row;
      const label = one.label.length > letters ? `${one.label.slice(0, letters - 1)}…` : one.label;
      return svg(
        "g",
        { class: one.marked ? "marked" : null },
        svg("title", null, one.note ?? `${one.label}: ${format(one.value)}, from ${format(one.low)} to ${format(one.high)}`),
        text(left - 10, y + 4, label, { "text-anchor": "end" }),
        svg("line", { x1: x(one.low), x2: x(one.high), y1: y, y2: y, class: "range" }),
        svg("circle", { cx: x(one.value), cy: y, r: 5.5, class: "point" }),
        text(Math.max(x(one.high), x(one.value) + 5) + 8, y + 4, format(one.value), { class: "value" }),
      );
    });
    return [grid, marks, text((left + width - RIGHT - 52) / 2, height - 6, xLabel, { class: "axis", "text-anchor": "middle" })];
  };
  return chart(title, height, draw);
}

function xScale(rows, log, top, start, end) {
  const highest = top ?? Math.max(...rows.map((row) => row.high));
  const place = (first, last) => (value) => start + ((Math.min(last, Math.max(first, value)) - first) / (last - first)) * (end - start);
  if (!log) {
    const lowest = Math.min(0, ...rows.map((row) => row.low));
    const step = niceSteps(Math.max(highest, 0) - lowest)[1];
    const first = Math.floor(lowest / step + 1e-9);
    const last = Math.max(first + 1, Math.ceil(Math.max(highest, 0) / step - 1e-9)); // also where all is zero
    const steps = Array.from({ length: last - first + 1 }, (_, i) => (first + i) * step);
    return { steps, x: place(steps[0], steps.at(-1)) };
  }
  const power = (value) => Math.log10(Math.max(value, 0.01));
  const first = Math.floor(Math.min(...rows.map((row) => power(row.low))));
  const last = Math.max(first + 1, Math.ceil(power(highest)));
  const at = place(first, last);
  return { steps: Array.from({ length: last - first + 1 }, (_, i) => 10 ** (first + i)), x: (value) => at(power(value)) };
}
