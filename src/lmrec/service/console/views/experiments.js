// Which generation's lists lead to something more often, and whether chance alone could do that.

import { get } from "../api.js";
import { ranges } from "../charts.js";
import { empty, field, fill, h, heading, many, panel, percent, select, show, whole } from "../dom.js";

const DAYS = [["1", "the last day"], ["7", "the last 7 days"], ["30", "the last 30 days"], ["90", "the last 90 days"]];

export function render(root, { signal }) {
  const body = h("div");
  const load = () => fill(body, () => get("/v1/experiments", { days: days.value }, signal), draw);
  const days = select(DAYS, "7", { onchange: load });
  show(root, heading("Experiments", "Of the lists that each generation showed, how many led to a click or better on one of their items."), h("div", { class: "field inline" }, field("Lists shown in", days)), body);
  load();
}

function draw({ generations }) {
  if (generations.length === 0) return empty("No lists were shown in this time", "Each answer of /v1/recommendations is kept as a list that was shown.", howTo());
  const rows = generations.map((one) => ({ label: `Generation ${one.generation}`, low: one.low, value: one.rate, high: one.high }));
  const digits = Math.max(...generations.map((one) => one.high)) < 0.1 ? 1 : 0;
  const clicked = generations.reduce((sum, one) => sum + one.lists_with_success, 0);
  return [
    clicked === 0 && empty("No event names a list yet", "Rates stay at zero until events say which list they follow.", howTo()),
    panel(
      "Success rate",
      ranges({ title: "Lists that led to something, with 95 % intervals", rows, xLabel: "share of lists", format: (value) => percent(value, digits) }),
      h(
        "div",
        { class: "scroll", tabindex: "0", role: "region", "aria-label": "Rates by generation" },
        h(
          "table",
          null,
          h("thead", null, h("tr", null, ["Generation", "Lists", "With success", "Rate", "95 % interval"].map((name) => h("th", { scope: "col" }, name)))),
          h("tbody", null, generations.map((one) => h("tr", null, h("th", { scope: "row" }, one.generation), h("td", null, whole(one.lists)), h("td", null, whole(one.lists_with_success)), h("td", null, percent(one.rate, 1)), h("td", { class: "nowrap" }, `${percent(one.low, 1)} to ${percent(one.high, 1)}`)))),
        ),
      ),
    ),
    generations.length > 1 ? panel("Is the difference real?", h("ul", { class: "verdicts" }, pairs(generations).map(verdict)), h("p", { class: "hint" }, "Lists are taken as independent, and this as the only look. ", h("code", null, "lmrec experiments RUN"), " redraws users instead, counts looks, and says how many lists are needed.")) : panel("One generation so far", h("p", null, "There is nothing to compare it with. ", h("code", null, "lmrec update RUN"), " makes another where it does better; it appears here with its first lists.")),
  ];
}

function howTo() {
  return h(
    "div",
    { class: "howto" },
    h("p", null, "To start: show what /v1/recommendations answers, and send its request_id with the events that follow."),
    h("pre", null, 'POST /v1/events\n{"events": [{"user_id": "42", "item_id": "50",\n  "kind": "click", "request_id": "…of the list…"}]}'),
  );
}

const pairs = (all) => all.slice(1).map((one) => [all[0], one]);

function verdict([first, second]) {
  const { difference, low, high, p } = compare(first, second);
  const isSure = p < 0.05;
  const better = difference > 0 ? second : first;
  const sentence = isSure
    ? `Generation ${better.generation} does better: chance alone would show such a difference in ${p < 0.001 ? "fewer than 0.1 %" : percent(p, 1)} of cases.`
    : `Chance alone would do (p = ${p.toFixed(2)}). ${moreLists(first, second)}`;
  const points = (share) => (100 * share).toFixed(1).replace("-", "−");
  return h("li", null, h("span", { class: isSure ? "tag good" : "tag" }, isSure ? "a difference" : "not shown"), h("p", null, h("b", null, `${first.generation} against ${second.generation}: `), sentence), h("small", null, `Difference ${points(difference)} points, 95 % interval ${points(low)} to ${points(high)}.`));
}

function moreLists(first, second) {
  const n = Math.min(first.lists, second.lists);
  return `Wait for more lists; the smaller side has ${many(n, "list")}.`;
}

/** Two rates: their difference with its 95 % interval (from both Wilson intervals, Newcombe 1998), and the pooled z test's p. */
export function compare(first, second) {
  const difference = second.rate - first.rate;
  const pooled = (first.lists_with_success + second.lists_with_success) / (first.lists + second.lists);
  const chance = Math.sqrt(pooled * (1 - pooled) * (1 / first.lists + 1 / second.lists));
  const low = difference - Math.hypot(second.rate - second.low, first.high - first.rate);
  const high = difference + Math.hypot(second.high - second.rate, first.rate - first.low);
  return { difference, low, high, p: chance === 0 ? 1 : 2 * upperTail(Math.abs(difference) / chance) };
}

/** Of the normal distribution; Abramowitz and Stegun 26.2.17, wrong by less than 1e-7. */
function upperTail(z) {
  const t = 1 / (1 + 0.2316419 * z);
  const sum = t * (0.31938153 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))));
  return (Math.exp((-z * z) / 2) / Math.sqrt(2 * Math.PI)) * sum;
}
