// The last hour of this process: how much, how fast, how well known the users were.

import { get } from "../api.js";
import { clock, lines, ranges, stackedBars } from "../charts.js";
import { duration, empty, fill, h, heading, milliseconds, percent, show, whole } from "../dom.js";

const EVERY_MS = 5000;
const KEPT = 720; // looks at the numbers: an hour
const GROUPS = [
  ["Recommendations", /\/v1\/recommendations/],
  ["Events", /\/v1\/events/],
  ["Search", /\/v1\/(search|similar)/],
  ["Reasons", /\/v1\/explanations/],
  ["Catalog and all else", /\/v1\/(?!stats)/],
];
const seen = []; // {time, cold, coverage} since the page was opened

const groupOf = (route) => GROUPS.findIndex(([, pattern]) => pattern.test(route)); // -1: the console itself

export function render(root, { signal }) {
  const body = h("div");
  show(root, heading("Traffic", "The last hour of this process, as it happens. The console’s own pages, and its looks at these numbers, are not counted."), body);
  const look = async () => {
    const stats = await get("/v1/stats", null, signal);
    seen.push({ time: Date.now() / 1000, cold: stats.cold_share, coverage: stats.coverage });
    seen.splice(0, seen.length - KEPT);
    return stats;
  };
  const again = () => document.visibilityState === "visible" && fill(body, look, draw, "Reading the numbers");
  again();
  const timer = setInterval(again, EVERY_MS);
  signal.addEventListener("abort", () => clearInterval(timer));
}

function draw(stats) {
  const counted = Object.keys(GROUPS).map((i) => stats.minutes.reduce((sum, minute) => sum + inGroup(minute, Number(i)), 0));
  const total = counted.reduce((sum, n) => sum + n, 0);
  const failed = stats.minutes.reduce((sum, minute) => sum + (minute.statuses["5xx"] ?? 0), 0);
  const quick = stats.times.find((entry) => entry.route === "POST /v1/recommendations");
  return [
    h(
      "dl",
      { class: "numbers" },
      number("Requests, last hour", whole(total)),
      number("Recommendations, p95", quick ? milliseconds(quick.p95_ms) : "none yet"),
      number("Failures (5xx)", whole(failed), failed > 0),
      number("Cold share", percent(stats.cold_share), false, "Of the newest lists, how many rest on nothing known of the user"),
      number("Coverage", percent(stats.coverage, 1), false, "Share of the catalog that the newest lists show"),
      number("Items", whole(stats.items)),
      number("Events kept", whole(stats.events)),
      number("In flight / waiting", `${stats.in_flight} / ${stats.waiting}`),
      number("Up for", duration(stats.uptime_s)),
    ),
    total === 0 && empty("No requests yet", "Ask for a recommendation, here or by the API, and the charts begin."),
    total > 0 && h("div", { class: "charts" }, requestsChart(stats), latencyChart(stats), knownChart()),
  ];
}

function number(name, value, isBad = false, about = null) {
  return h("div", { class: isBad ? "bad" : null, title: about }, h("dt", null, name), h("dd", null, value));
}

const inGroup = (minute, group) => Object.entries(minute.routes).reduce((sum, [route, n]) => sum + (groupOf(route) === group ? n : 0), 0);

function requestsChart(stats) {
  const found = new Map(stats.minutes.map((minute) => [minute.start, minute]));
  const now = Math.floor(Date.now() / 60000) * 60;
  const starts = Array.from({ length: 60 }, (_, i) => now - 60 * (59 - i));
  const columns = starts.map((start) => ({ label: clock(start), values: GROUPS.map((_, i) => inGroup(found.get(start) ?? { routes: {} }, i)) }));
  return stackedBars({ title: "Requests a minute", columns, series: GROUPS.map(([name]) => ({ name })), xLabel: "time of day", yLabel: "requests" });
}

function latencyChart(stats) {
  const rows = stats.times
    .filter((entry) => groupOf(entry.route) >= 0)
    .sort((a, b) => b.n - a.n)
    .slice(0, 8)
    .map((entry) => ({
      label: entry.route.replace("/v1", ""),
      low: entry.p50_ms,
      value: entry.p95_ms,
      high: entry.p99_ms,
      note: `${entry.route}, newest ${entry.n}: half within ${milliseconds(entry.p50_ms)}, 95 % within ${milliseconds(entry.p95_ms)}, 99 % within ${milliseconds(entry.p99_ms)}`,
    }));
  return ranges({ title: "Latency by route: p50 to p99, point at p95", rows, xLabel: "time, in steps of ten", format: milliseconds, log: true });
}

function knownChart() {
  const series = [
    { name: "Cold share", values: seen.map((one) => one.cold) },
    { name: "Coverage", values: seen.map((one) => one.coverage) },
  ];
  return lines({ title: "Cold share and coverage since this page was opened", times: seen.map((one) => one.time), series, xLabel: "time of day", yLabel: "share", format: (value) => percent(value), top: 1 });
}
