// What has been and is being served, why, and the way back.

import { get, post } from "../api.js";
import { ranges } from "../charts.js";
import { act, confirm, notify } from "../dialogs.js";
import { decimal, empty, fill, h, heading, moment, panel, show, signed } from "../dom.js";

export function render(root, { signal, served }) {
  const body = h("div");
  const back = h("button", { type: "button", class: "plain danger" }, "Roll back");
  const load = () => fill(body, () => get("/v1/generations", null, signal), draw);
  back.addEventListener("click", async () => {
    const text = "What was served before is served again, for everybody, within a moment. No request fails.";
    const why = await confirm({ title: "Roll back?", text, action: "Roll back", ask: "Why (kept beside the pointer and in the audit table)" });
    if (why === null) return;
    const isBack = await act(back, async () => {
      const done = await post("/v1/generations/rollback", { why });
      notify(`Generation ${done.generation} is served now, in place of ${done.before}.`);
    });
    if (isBack) served();
    load();
  });
  show(root, heading("Generations", "A generation is what can be served: the run as it was fitted, then each update. One that did better than what was served has taken its place; the others are kept and say why not.", back), body);
  load();
}

function draw(found) {
  const newest = [...found.generations].reverse();
  return [
    found.problem && h("p", { class: "problem", role: "alert" }, found.problem),
    gainsPanel(found.generations),
    h("ol", { class: "cards", "aria-label": "Generations, newest first" }, newest.map(card)),
  ];
}

function card(generation) {
  const metrics = flatten(generation.metrics);
  const created = Date.parse(generation.created) / 1000;
  return h(
    "li",
    { class: generation.serving ? "card serving" : "card" },
    h("div", { class: "card-top" }, h("h2", null, `Generation ${generation.name}`), generation.serving && h("span", { class: "tag good" }, "served"), driftTag(generation.metrics.drift), h("span", { class: "when" }, moment(created, true))),
    h("p", null, generation.why || "No reason was kept."),
    metrics.length > 0 &&
      h("details", null, h("summary", null, "As measured"), h("table", { class: "compact" }, h("tbody", null, metrics.map((one) => h("tr", null, h("th", { scope: "row" }, one.name), h("td", null, one.said)))))),
  );
}

/** How far the events that it learnt from had moved from those before. */
function driftTag(drift) {
  if (!drift) return null;
  const moved = Object.entries(drift).filter(([name, level]) => name !== "overall" && level !== "steady").map(([name, level]) => `${name} ${level}`);
  return h("span", { class: drift.overall === "steady" ? "tag" : "tag minus", title: moved.join(", ") || "nothing moved beyond chance" }, `drift: ${drift.overall}`);
}

/** What each update gained over what was served when it was made, on the newest events of that time. */
function gainsPanel(generations) {
  const measured = generations.filter(({ metrics }) => typeof metrics.difference === "number");
  if (measured.length === 0) return empty("No update yet", "An update learns from the events since, is measured against what is served on the newest of them, and is promoted only if it does better. Type lmrec update RUN.");
  const { metric } = measured.at(-1).metrics;
  const rows = measured
    .filter(({ metrics }) => metrics.metric === metric)
    .map(({ name, metrics, serving }) => ({ label: `Generation ${name}`, low: metrics.low, value: metrics.difference, high: metrics.high, marked: serving }));
  return panel("What each update gained", ranges({ title: `Gain in ${metric} over what was served then, with its interval`, rows, xLabel: `difference in ${metric}`, format: (value) => (value === 0 ? "0" : signed(value, 3)) }));
}

/** Nested numbers as rows of name and text; {value, low, high} is one number with its interval. */
function flatten(metrics, before = []) {
  return Object.entries(metrics).flatMap(([key, value]) => {
    const name = [...before, key].join(", ");
    if (value === null || Array.isArray(value)) return [];
    if (typeof value !== "object") return [{ name, said: written(value) }];
    if (typeof value.value === "number") return [{ name, said: `${written(value.value)} (${written(value.low)} to ${written(value.high)})` }];
    return flatten(value, [...before, key]);
  });
}

function written(value) {
  if (typeof value === "boolean") return value ? "yes" : "no";
  return typeof value === "number" ? decimal(value, Number.isInteger(value) ? 0 : 4) : String(value);
}
