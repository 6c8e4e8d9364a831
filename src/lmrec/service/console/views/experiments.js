// Two generations side by side: the experiment that runs, those that ended, and how all lists did lately.

import { get, part, post } from "../api.js";
import { ranges } from "../charts.js";
import { act, confirm, notify } from "../dialogs.js";
import { decimal, empty, field, fill, h, heading, milliseconds, moment, panel, percent, select, show, signed, whole } from "../dom.js";

const DAYS = [["1", "the last day"], ["7", "the last 7 days"], ["30", "the last 30 days"], ["90", "the last 90 days"]];
const MODES = [["split", "Split the users"], ["shadow", "Ask in the shadow"]];
const ABOUT = {
  split: "The share of users is answered by the challenger, each always by the same generation.",
  shadow: "Nobody sees the challenger's lists; for the share of users it is asked too, and compared.",
};

export function render(root, { signal, served }) {
  const running = h("div");
  const ended = h("div");
  const lately = h("div");
  const days = select(DAYS, "7", { onchange: () => loadLately() });
  const changed = () => (load(), loadLately(), served());
  const loadLately = () => fill(lately, () => get("/v1/experiments", { days: days.value }, signal), drawLately);
  const load = () => {
    fill(running, readRunning, (found) => (found.read ? runningPanel(found.read, changed) : startPanel(found.generations, changed)));
    fill(ended, () => get("/v1/experiments", null, signal), ({ experiments }) => endedPanel(experiments.filter((one) => !one.running), signal));
  };

  async function readRunning() {
    const { experiments } = await get("/v1/experiments", null, signal);
    const one = experiments.find((experiment) => experiment.running);
    if (one) return { read: await get(`/v1/experiments/${part(one.name)}`, null, signal) };
    return { generations: await get("/v1/generations", null, signal) };
  }

  const about = "Two generations side by side, on real users or in their shadow, and what came of their lists.";
  const top = h("div", { class: "panel-top" }, h("p", { class: "hint" }, "Each generation had its own time and users here, so a difference may be theirs. An experiment tells."), h("div", { class: "field inline" }, field("Lists shown in", days)));
  show(root, heading("Experiments", about), running, panel("All lists lately, by generation", top, lately), ended);
  load();
  loadLately();
}

// ---- the one that runs

function startPanel({ generations, serving }, changed) {
  const others = generations.filter((one) => one.name !== serving);
  if (others.length === 0) return panel("Start an experiment", empty("One generation so far", "There is nothing to compare it with. An update makes another generation, also where it is not good enough to be promoted by itself.", h("pre", null, "lmrec update RUN")));
  const generation = select(others.map((one) => [one.name, `Generation ${one.name}`]).reverse(), others.at(-1).name);
  const name = h("input", { type: "text", required: true, maxlength: 100, pattern: "[A-Za-z0-9][A-Za-z0-9._\\-]*", autocomplete: "off", placeholder: "autumn", title: "Letters, digits, points, dashes" });
  const share = h("input", { type: "number", min: 1, max: 100, step: 1, value: 50, required: true });
  const hint = h("small", { class: "hint" }, ABOUT.split);
  const mode = select(MODES, "split", { onchange: () => (hint.textContent = ABOUT[mode.value]) });
  const start = h("button", { type: "submit" }, "Start it");
  const form = h("form", { class: "form" }, h("div", { class: "fields" }, field("Name", name), field("Challenger", generation), field("How", mode), field("Share of users, in %", share)), hint, h("div", { class: "actions" }, start));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const wanted = { name: name.value.trim(), generation: generation.value, mode: mode.value, share: Number(share.value) / 100 };
    const isOn = await act(start, async () => {
      await post("/v1/experiments", wanted);
      notify(`${wanted.name} runs: generation ${serving} against ${wanted.generation}.`);
    });
    if (isOn) changed();
  });
  return panel("Start an experiment", h("p", { class: "hint" }, `Generation ${serving} is served and will be the control.`), form);
}

function runningPanel(one, changed) {
  const again = h("button", { type: "button", class: "plain small", onclick: changed }, "Read again");
  const end = (promote) => async (event) => {
    const challenger = one.arms.at(-1).generation;
    const text = promote ? `Generation ${challenger} is served to everybody from then on. A rollback takes it back.` : "Everybody is answered by the control again.";
    const why = await confirm({ title: promote ? "End it and promote the challenger?" : "End the experiment?", text, action: promote ? "Promote" : "End it", ask: "Why (kept with it and in the audit table)" });
    if (why === null) return;
    const isOver = await act(event.target, async () => {
      await post(`/v1/experiments/${part(one.name)}/end`, { why, promote });
      notify(`${one.name} has ended.`);
    });
    if (isOver) changed();
  };
  return panel(
    `Running: ${one.name}`,
    h("div", { class: "panel-top" }, h("p", { class: "hint" }, armsOf(one), " Since ", moment(one.started, true), `, started by ${one.started_by}.`), again),
    !one.in_force && h("p", { class: "problem", role: "status" }, "Not in force here yet: its generations are loading, or one of them cannot be loaded."),
    readOut(one),
    h("div", { class: "actions" }, h("button", { type: "button", class: "plain", onclick: end(true) }, "End and promote"), h("button", { type: "button", class: "plain danger", onclick: end(false) }, "End it")),
  );
}

function armsOf(one) {
  const [control, challenger] = one.arms;
  const said = { split: `${percent(challenger.share)} of the users are answered by generation ${challenger.generation}, the others by ${control.generation}.`, shadow: `Everybody is answered by generation ${control.generation}; for ${percent(challenger.share)} of the users ${challenger.generation} is asked too.` };
  return said[one.mode];
}

// ---- what it says

const readOut = (one) => (one.split ? splitRead(one.split) : shadowRead(one.shadow));

function splitRead(found) {
  if (found.arms.length === 0) return empty("No lists yet", "They appear with the first answers to users.", howTo());
  const digits = Math.max(...found.arms.map((arm) => arm.high)) < 0.1 ? 1 : 0;
  const rows = found.arms.map((arm) => ({ label: arm.arm, low: arm.low, value: arm.rate, high: arm.high }));
  return [
    ranges({ title: "Lists that led to something, by arm, with 95 % intervals", rows, xLabel: "share of lists", format: (value) => percent(value, digits) }),
    ratesTable("Rates by arm", ["Arm", "Lists", "Users", "With success", "Rate", "95 % interval"], found.arms.map((arm) => [arm.arm, whole(arm.lists), whole(arm.users), whole(arm.successes), percent(arm.rate, 1), interval(arm)])),
    h("ul", { class: "verdicts" }, found.differences.map(verdict)),
    warningsOf(found),
  ];
}

function verdict(one) {
  const points = (share) => signed(100 * share, 1);
  const better = one.mean > 0 ? one.arm : one.against;
  const p = one.p_always < 0.001 ? "p below 0.001" : `p = ${decimal(one.p_always, 3)}`;
  const sentence = one.is_clear ? `the ${better} does better (${p}, however often one looks).` : `chance alone would do (${p}, however often one looks).`;
  return h("li", null, h("span", { class: one.is_clear ? "tag good" : "tag" }, one.is_clear ? "a difference" : "not shown"), h("p", null, h("b", null, `${one.arm} against ${one.against}: `), sentence), h("small", null, `Difference ${points(one.mean)} points, 95 % interval ${points(one.low)} to ${points(one.high)}.`));
}

function shadowRead(found) {
  if (found.compared === 0) return empty("Nothing compared yet", `${whole(found.lists)} lists were shown so far. The shadow is asked after each answer.`);
  const times = (one) => (one === null ? "–" : `${milliseconds(one.p50_ms)}, 95 % below ${milliseconds(one.p95_ms)}`);
  const facts = [
    ["Lists compared", `${whole(found.compared)} of ${whole(found.lists)}`],
    ["Items that both show", `${percent(found.overlap, 1)} (${interval({ low: found.overlap_low, high: found.overlap_high })})`],
    ["The same item first", percent(found.same_first, 1)],
    ["Followed, and kept", `${whole(found.kept)} of ${whole(found.followed)}`],
    ["Time of what is shown", times(found.shown_times)],
    ["Time of the shadow", times(found.shadow_times)],
  ];
  return [warningsOf(found), h("dl", { class: "numbers" }, facts.map(([name, value]) => h("div", null, h("dt", null, name), h("dd", null, value)))), h("p", { class: "hint" }, "“Kept”: of the items that something good came of, those that the shadow's list holds as well. It cannot win here, only lose little.")];
}

const warningsOf = (found) => found.warnings.length > 0 && h("ul", { class: "warnings", "aria-label": "What would mislead" }, found.warnings.map((warning) => h("li", null, `${warning}.`)));

const interval = (one) => `${percent(one.low, 1)} to ${percent(one.high, 1)}`;

function ratesTable(caption, names, rows) {
  return h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h(
      "table",
      null,
      h("thead", null, h("tr", null, names.map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", null, rows.map(([first, ...rest]) => h("tr", null, h("th", { scope: "row" }, first), rest.map((value) => h("td", { class: "nowrap" }, value))))),
    ),
  );
}

// ---- those that ended, and everything lately

function endedPanel(experiments, signal) {
  if (experiments.length === 0) return null;
  const row = (one) => {
    const body = h("div");
    const details = h("details", null, h("summary", null, "What it said"), body);
    details.addEventListener("toggle", () => details.open && fill(body, () => get(`/v1/experiments/${part(one.name)}`, null, signal), readOut, "Reading its lists"));
    return h("li", { class: "card" }, h("div", { class: "card-top" }, h("h3", null, one.name), h("span", { class: "tag" }, one.mode), h("span", { class: "when" }, moment(one.ended, true))), h("p", null, one.why || "No reason was kept.", h("small", { class: "hint" }, ` Ended by ${one.ended_by}. ${armsOf(one)}`)), details);
  };
  return panel("Ended", h("ol", { class: "cards", "aria-label": "Experiments that ended, newest first" }, experiments.map(row)));
}

function drawLately({ generations, since }) {
  if (generations.length === 0) return empty("No lists were shown in this time", "Each answer of /v1/recommendations is kept as a list that was shown.", howTo());
  const rows = generations.map((one) => ({ label: `Generation ${one.generation}`, low: one.low, value: one.rate, high: one.high }));
  const digits = Math.max(...generations.map((one) => one.high)) < 0.1 ? 1 : 0;
  const followed = generations.reduce((sum, one) => sum + one.lists_with_success, 0);
  return [
    h("p", { class: "hint" }, "Lists since ", moment(since, true), "."),
    followed === 0 && empty("No event names a list yet", "Rates stay at zero until events say which list they follow.", howTo()),
    ranges({ title: "Lists that led to something, by generation, with 95 % intervals", rows, xLabel: "share of lists", format: (value) => percent(value, digits) }),
    ratesTable("Rates by generation", ["Generation", "Lists", "With success", "Rate", "95 % interval"], generations.map((one) => [one.generation, whole(one.lists), whole(one.lists_with_success), percent(one.rate, 1), interval(one)])),
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
