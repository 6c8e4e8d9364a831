// Items as the views show them: what is known of each, ranked lists, and why an item is on one.

import { get, part, post } from "./api.js";
import { decimal, fill, h, signed } from "./dom.js";
import { facts } from "./picker.js";

const known = new Map(); // item id -> promise of the item, or of null where the catalog has none
const AT_ONCE = 50; // ids in one request; they are in its address, which has a length
let wanted = new Map(); // item id -> resolve, of those that are asked for together in a moment

/** The item, asked for once; all that are looked up in one go are one request. */
export function lookUp(itemId) {
  if (!known.has(itemId)) {
    if (wanted.size === 0) setTimeout(askForWanted, 0);
    known.set(itemId, new Promise((resolve) => wanted.set(itemId, resolve)));
  }
  return known.get(itemId);
}

function askForWanted() {
  const asked = [...wanted];
  wanted = new Map();
  for (let start = 0; start < asked.length; start += AT_ONCE) askFor(asked.slice(start, start + AT_ONCE));
}

async function askFor(asked) {
  const found = new Map();
  try {
    const { items } = await get(`/v1/items?${new URLSearchParams(asked.map(([itemId]) => ["item_id", itemId]))}`);
    for (const item of items) found.set(item.item_id, item);
  } catch {
    for (const [itemId] of asked) known.delete(itemId); // to be asked for again
  }
  for (const [itemId, resolve] of asked) resolve(found.get(itemId) ?? null);
}

/** After a change: ask again. */
export const forget = (itemId) => known.delete(itemId);

export const itemLink = (itemId) => `#/catalog/${part(itemId)}`;

/** An item's title, a link to it, and its attributes: those given, or else once they are known. */
export function itemName(itemId, title = null, fields = null) {
  const name = h("a", { href: itemLink(itemId) }, title ?? itemId);
  const line = h("small", { class: "facts" }, fields === null ? null : facts(fields));
  if (fields === null) lookUp(itemId).then((item) => {
    if (item === null) line.textContent = title === null ? "not in the catalog" : "";
    else {
      if (title === null) name.textContent = item.title;
      line.textContent = facts(item.fields);
    }
  });
  return h("div", { class: "item-name" }, name, line);
}

/**
 * A ranked list. more(item): buttons of a row. reasons(item): promises an explanation; null where there is none to ask for.
 * among: the items whose scores the bars are drawn to.
 */
export function rankedList(items, { reasons = null, more = () => null, marked = null, first = 1, among = items } = {}) {
  const scores = among.map((item) => item.score);
  const [low, high] = [Math.min(...scores), Math.max(...scores)];
  const share = (score) => (high > low ? 0.12 + (0.88 * (score - low)) / (high - low) : 1);
  return h(
    "ol",
    { class: "ranked", start: first },
    items.map((item, i) => {
      const bar = h("span", { class: "score-bar", "aria-hidden": "true" });
      bar.style.setProperty("--share", share(item.score));
      const why = reasons && whyButton(item, reasons);
      return h(
        "li",
        { class: item.item_id === marked ? "marked" : null, "data-item": item.item_id },
        h("span", { class: "place", "aria-hidden": "true" }, first + i),
        itemName(item.item_id, item.title, item.fields ?? null),
        h("div", { class: "score", title: "Score of the model; only its order and differences mean something" }, h("span", null, decimal(item.score)), bar),
        h("div", { class: "row-actions" }, item.rule && h("a", { class: "tag rule", href: "#/rules", title: "A rule moved this item" }, item.rule), more(item), why?.button),
        why?.panel,
      );
    }),
  );
}

function whyButton(item, reasons) {
  const panel = h("div", { class: "why", hidden: true });
  const button = h("button", { type: "button", class: "quiet", "aria-expanded": "false", "aria-label": `Why ${item.title}` }, "Why?");
  button.addEventListener("click", () => {
    const opened = panel.hidden;
    panel.hidden = !opened;
    button.setAttribute("aria-expanded", String(opened));
    if (opened && !panel.hasChildNodes()) fill(panel, () => reasons(item), explanation, "Asking the model");
  });
  return { button, panel };
}

/** Who or what an item is explained for: {user_id}, {history} or {text}, or words beside one of the first two, and among which
 * items: {filter}, {segment}, {exclude_seen}. */
export const askReasons = (who, k) => (item) => post("/v1/explanations", { ...who, item_id: item.item_id, k });

const SHOWN = 8;

/** What moved a score: past items, what was asked for, words, and what would have kept the item off the list. */
function explanation(found) {
  const asked = found.text === null ? [] : [{ title: "The words asked with", contribution: found.text }];
  const strongest = [...asked, ...found.contributions].sort((a, b) => Math.abs(b.contribution) - Math.abs(a.contribution));
  const shown = strongest.slice(0, SHOWN);
  const rest = strongest.slice(SHOWN);
  const top = Math.max(1e-9, ...shown.map((entry) => Math.abs(entry.contribution)));
  return [
    h("p", { class: "because" }, found.because ? `${capital(found.because)}.` : "Nothing that is known of them speaks for it."),
    h("h3", null, asked.length === 0 ? "Past items" : "What was asked, and past items"),
    h(
      "ul",
      { class: "moved" },
      shown.map((entry) => contribution(entry.title, entry.contribution, top)),
      rest.length > 0 && contribution(`${rest.length} others together`, rest.reduce((sum, entry) => sum + entry.contribution, 0), top),
      h("li", { class: "sum" }, h("span", null, `Without all of this ${decimal(found.base)}, with it`), h("b", null, decimal(found.score))),
    ),
    found.text_words.length > 0 && [h("h3", null, "Words asked with"), wordLine(found.text_words)],
    found.words.length > 0 && [h("h3", null, "Words of its text"), wordLine(found.words)],
    h("h3", null, "What would take it off the list"),
    h("p", null, change(found)),
  ];
}

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

function contribution(title, value, top) {
  const bar = h("span", { class: value < 0 ? "bar minus" : "bar plus", "aria-hidden": "true" });
  bar.style.setProperty("--share", Math.min(1, Math.abs(value) / top));
  return h("li", null, h("span", { class: "what" }, title), h("span", { class: "track" }, bar), h("b", null, signed(value)));
}

function wordLine(words) {
  const top = Math.max(1e-9, ...words.map((word) => Math.abs(word.attribution)));
  const marks = words.map((word) => {
    const mark = h("span", { class: word.attribution < 0 ? "word minus" : "word plus", title: signed(word.attribution) }, word.word);
    mark.style.setProperty("--weight", `${Math.round((100 * Math.abs(word.attribution)) / top)}%`);
    return [mark, " "];
  });
  return h("p", { class: "words" }, marks);
}

function change(found) {
  if (found.place === null) return "It may not be shown at present: a rule or the review queue holds it back.";
  if (found.contributions.length === 0) return "There is no past item to take away.";
  if (found.smallest_change === null) return "No few items of the history: it would stay without any five of them.";
  const titles = found.smallest_change.map((entry) => entry.title);
  return `Without ${titles.join(" and ")} it would not be among the first.`;
}
