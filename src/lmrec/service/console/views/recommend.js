// What would be shown to somebody: a user of the log, somebody made up of items, or words alone.

import { get, part, post } from "../api.js";
import { debounce, empty, field, fill, h, heading, many, milliseconds, moment, panel, select, show } from "../dom.js";
import { filterForm } from "../filters.js";
import { askReasons, itemName, lookUp, rankedList } from "../items.js";
import { chips, itemPicker, userPicker } from "../picker.js";

const MODES = [
  ["user", "A user"],
  ["items", "A made-up user"],
  ["text", "In words"],
];
const WISHES = ["something light for rainy days, no horror", "a heist that goes wrong", "space adventure for the whole family"];

export function render(root, { params, signal }) {
  const state = {
    mode: ["user", "items", "text"].find((mode) => params.has(mode)) ?? "user",
    user: params.get("user") ?? "",
    items: [],
    text: params.get("text") ?? "",
    anybody: false,
  };
  const who = h("div", { class: "who" });
  const past = h("div");
  const list = h("div");
  const pastPanel = panel("History", past);
  const options = optionsForm(() => later());
  const pick = (mode) => () => {
    state.mode = mode;
    state.anybody = false;
    drawWho(true);
    run();
  };
  const modes = h(
    "fieldset",
    { class: "segments" },
    h("legend", null, "Recommend for"),
    MODES.map(([mode, name]) =>
      h("label", null, h("input", { type: "radio", name: "mode", value: mode, checked: mode === state.mode, onchange: pick(mode) }), h("span", null, name)),
    ),
  );

  function drawWho(focus = false) {
    const wish = h("textarea", { rows: 2, maxlength: 2000, "data-search": state.mode === "text", placeholder: state.mode === "text" ? WISHES[0] : "anything", value: state.text });
    wish.addEventListener("input", () => {
      state.text = wish.value;
      slowly();
    });
    const label = { user: "In the mood for (optional)", items: "In the mood for (optional)", text: "What somebody says they want" }[state.mode];
    const main = {
      user: () => {
        const find = userPicker((option) => chooseUser(option.value), { first: true });
        find.input.value = state.user;
        return labelled("User", find);
      },
      items: () => h("div", { class: "field" }, labelled("What they liked, oldest first", itemPicker(({ item }) => addItem(item), { first: true })), chips(state.items, removeItem)),
      text: () => null,
    }[state.mode]();
    show(who, main, field(label, wish));
    if (focus) who.querySelector("[data-search]").focus();
  }

  function chooseUser(user) {
    Object.assign(state, { mode: "user", user, anybody: false });
    drawWho();
    run();
  }

  function addItem(item) {
    if (state.items.some((one) => one.item_id === item.item_id)) return;
    state.items = [...state.items, item];
    drawWho(true);
    run();
  }

  function removeItem(item) {
    state.items = state.items.filter((one) => one.item_id !== item.item_id);
    drawWho();
    run();
  }

  function makeUp(items) {
    Object.assign(state, { mode: "items", items });
    modes.querySelector("[value=items]").checked = true;
    drawWho();
    run();
  }

  function question() {
    const text = state.text.trim() ? { text: state.text.trim() } : {};
    if (state.anybody) return {};
    if (state.mode === "user") return state.user ? { user_id: state.user, ...text } : null;
    if (state.mode === "items") return state.items.length ? { history: state.items.map((item) => item.item_id), ...text } : null;
    return text.text ? text : null;
  }

  function run() {
    rememberIn(state);
    const asked = question();
    if (asked === null) {
      pastPanel.hidden = true;
      start();
      return;
    }
    pastPanel.hidden = !("user_id" in asked);
    if (!pastPanel.hidden) fill(past, () => get(`/v1/users/${part(state.user)}`, null, signal), (held) => history(held, makeUp), "Reading the history");
    const began = performance.now();
    const { k, diversity, ...among } = options.choices();
    const ask = async () => {
      const answer = await post("/v1/recommendations", { ...asked, ...among, k, diversity, fields: ["*"], context: { page: "console" } }, signal);
      return { answer, ms: performance.now() - began };
    };
    fill(list, ask, (found) => results(found, { ...asked, ...among }), "Asking the model");
  }

  function results({ answer, ms }, asked) {
    const reasons = answer.n_history > 0 || asked.text ? askReasons(asked, answer.items.length) : null;
    const add = (item) => state.mode === "items" && h("button", { type: "button", class: "quiet", "aria-label": `Add ${item.title} to the made-up history`, onclick: () => addItem(item) }, "Add");
    return [
      h("p", { class: "basis" }, basis(answer), answer.text_read === false && " Nothing that counts here reads words.", answer.not_wanted && ` Left out: what names ${answer.not_wanted.join(" or ")}.`, h("small", null, ` Generation ${answer.generation}${answer.arm ? ` (${answer.arm})` : ""}, ${milliseconds(ms)}.`)),
      answer.items.length > 0 ? rankedList(answer.items, { reasons, more: add }) : empty("Nothing is left to show", "The filter and the rules leave no item. Loosen the filter, or look at the rules."),
    ];
  }

  function start() {
    const nobody = h("button", { type: "button", class: "plain", onclick: () => ((state.anybody = true), run()) }, "Show what a stranger gets");
    if (state.mode === "text") {
      const take = (wish) => () => {
        state.text = wish;
        drawWho();
        run();
      };
      const wishes = WISHES.map((wish) => h("button", { type: "button", class: "plain", onclick: take(wish) }, wish));
      show(list, empty("Say what you would like", "A sentence will do. For example:", h("div", { class: "choices" }, wishes)));
    } else if (state.mode === "items") {
      show(list, empty("Nobody yet", "Pick a few items that somebody liked; the list follows with each.", nobody));
    } else {
      // Whose key may not see who there is can ask for somebody all the same.
      const some = () => get("/v1/users", { limit: 8 }, signal).catch((error) => (error.status === 403 ? null : Promise.reject(error)));
      const draw = (found) => {
        if (found === null) return empty("Choose a user", "Write an id above. To see who is known, this key lacks the scope admin.", nobody);
        const buttons = found.user_ids.map((user) => h("button", { type: "button", class: "plain", onclick: () => chooseUser(user) }, user));
        return empty("Choose a user", `The log knows ${many(found.total, "user")}. Look one up above, or take one of these:`, h("div", { class: "choices" }, buttons), nobody);
      };
      fill(list, some, draw);
    }
  }

  const later = debounce(() => !signal.aborted && run(), 250);
  const slowly = debounce(() => !signal.aborted && run(), 600);
  drawWho();
  show(root, heading("Recommend", "What the model would show, to whom, and why."), h("div", { class: "panel ask" }, modes, who, options), h("div", { class: "beside" }, pastPanel, panel("Recommendations", list)));
  const given = (params.get("items") ?? "").split(",").filter(Boolean);
  Promise.all(given.map(lookUp)).then((items) => {
    if (signal.aborted) return;
    state.items = items.filter((item) => item !== null);
    if (given.length) drawWho();
    run();
  });
}

function labelled(label, find) {
  return h("div", { class: "field" }, h("label", { for: find.input.id }, label), find);
}

/** So that the address can be shared, and going back comes back to this. */
function rememberIn(state) {
  const params = new URLSearchParams();
  if (state.mode === "user" && state.user) params.set("user", state.user);
  if (state.mode === "items") params.set("items", state.items.map((item) => item.item_id).join(","));
  if (state.text.trim() || state.mode === "text") params.set("text", state.text.trim());
  const query = params.toString();
  window.history.replaceState(null, "", `#/recommend${query ? `?${query}` : ""}`);
}

function optionsForm(changed) {
  const k = select([5, 10, 20, 50].map((n) => [String(n), `${n} items`]), "10", { onchange: changed });
  const diversity = h("input", { type: "range", min: 0, max: 1, step: 0.1, value: 0, oninput: changed });
  const segment = h("input", { type: "text", maxlength: 100, placeholder: "everybody", oninput: changed });
  const past = [
    ["", "As the run was judged"],
    ["true", "Left out"],
    ["false", "Among the others"],
  ];
  const seen = select(past, "", { onchange: changed });
  const conditions = h("div");
  let filter = null;
  const details = h(
    "details",
    { class: "options" },
    h("summary", null, "Options"),
    h("div", { class: "fields" }, field("Length", k), field("Diversity", diversity, "Towards the right, items that differ from one another."), field("Segment", segment, "A group of users that rules may speak of."), field("What they had already", seen)),
    conditions,
  );
  details.addEventListener("toggle", () => {
    if (filter !== null) return;
    fill(conditions, () => get("/v1/stats"), (stats) => (filter = filterForm(stats.columns, changed)));
  });
  details.choices = () => ({
    k: Number(k.value),
    diversity: Number(diversity.value),
    ...(seen.value && { exclude_seen: seen.value === "true" }),
    ...(segment.value.trim() && { segment: segment.value.trim() }),
    ...(filter?.filter && { filter: filter.filter }),
  });
  return details;
}

function basis(answer) {
  const past = many(answer.n_history, "item");
  return {
    history: `From ${past} of history.`,
    text: "From the words alone.",
    "history+text": `From ${past} of history, and the words.`,
    profile: "From what is known of them beside a history.",
    popular: "Nothing is known here, so this is what is popular now.",
  }[answer.basis];
}

const SHOWN = 15;

/** What a user did, newest first, from the log and from the store. */
function history(held, makeUp) {
  const logged = held.training_log.map((entry) => ({ ...entry, kind: null }));
  const heard = held.events.map((event) => ({ ...event, title: null }));
  const all = [...logged, ...heard].sort((a, b) => (b.time ?? -Infinity) - (a.time ?? -Infinity));
  if (all.length === 0) {
    const text = held.forgotten ? "This user's data was deleted, and nothing came since." : "Neither the log nor the store has heard of this user.";
    return empty("No history", text);
  }
  const rows = h("ul", { class: "past" }, all.slice(0, SHOWN).map(pastRow));
  const rest = all.length - SHOWN;
  const more = rest > 0 && h("button", { type: "button", class: "plain small", onclick: () => (rows.append(...all.slice(SHOWN).map(pastRow)), more.remove()) }, `Show ${rest} more`);
  const copy = async () => makeUp((await Promise.all(held.history.slice(-20).map(lookUp))).filter((item) => item !== null));
  return [
    h("div", { class: "panel-top" }, h("p", { class: "hint" }, `${many(all.length, "event")}, newest first`), h("button", { type: "button", class: "plain small", onclick: copy }, "Play with a copy")),
    rows,
    more,
  ];
}

function pastRow(entry) {
  return h(
    "li",
    null,
    itemName(entry.item_id, entry.title),
    h("span", { class: "when" }, entry.kind && h("span", { class: entry.kind === "dismiss" ? "tag minus" : "tag" }, entry.kind), entry.time !== null && moment(entry.time)),
  );
}
