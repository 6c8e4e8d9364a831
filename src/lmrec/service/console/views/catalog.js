// The catalog as it is now: look, edit, add, delete, and see where an item ranks.

import { del, get, part, post, put } from "../api.js";
import { act, confirm, notify } from "../dialogs.js";
import { debounce, empty, field, fill, h, heading, many, milliseconds, panel, select, show, whole } from "../dom.js";
import { isNumber } from "../filters.js";
import { forget, itemLink, rankedList } from "../items.js";
import { userPicker } from "../picker.js";

const PAGE = 50;

export function render(root, context) {
  const [itemId] = context.parts;
  if (itemId === undefined) browse(root, context);
  else item(root, context, itemId);
}

// ---- the list

function browse(root, { params, signal }) {
  const list = h("div");
  const input = h("input", { type: "search", "aria-label": "Search the catalog", placeholder: "Search titles", "data-search": true, value: params.get("query") ?? "" });
  const by = select([["title", "in titles"], ["meaning", "by meaning"]], params.get("by") ?? "title", { "aria-label": "How to search", onchange: () => run(0) });

  function run(offset) {
    const query = input.value.trim();
    const kept = new URLSearchParams({ ...(query && { query }), ...(by.value !== "title" && { by: by.value }), ...(offset && { offset }) });
    window.history.replaceState(null, "", `#/catalog${kept.size ? `?${kept}` : ""}`);
    input.placeholder = by.value === "meaning" ? "Say what it is about" : "Search titles";
    if (by.value === "meaning" && query) fill(list, () => meant(query, signal), (found) => table(found.items, `The ${whole(found.items.length)} nearest in meaning`));
    else fill(list, () => get("/v1/items", { query, offset, limit: PAGE }, signal), (page) => titled(page, query));
  }

  function titled(page, query) {
    if (page.total === 0) return query ? empty("No title has these words", "Look by meaning instead, or add the item.") : empty("The catalog is empty", "Add the first item.");
    const turn = (label, offset, possible) => h("button", { type: "button", class: "plain", disabled: !possible, onclick: () => run(offset) }, label);
    const last = Math.min(page.total, page.offset + page.items.length);
    const pager = page.total > PAGE && h("nav", { class: "pager", "aria-label": "Pages" }, turn("Back", Math.max(0, page.offset - PAGE), page.offset > 0), h("span", null, `${whole(page.offset + 1)} to ${whole(last)}`), turn("Next", page.offset + PAGE, last < page.total));
    return [table(page.items, many(page.total, "item")), pager];
  }

  input.addEventListener("input", debounce(() => !signal.aborted && run(0), 200));
  const add = h("a", { class: "button", href: "#/catalog/" }, "New item");
  show(root, heading("Catalog", "Changes are in force as soon as they are saved.", add), h("div", { class: "panel" }, h("div", { class: "searchbar" }, input, by), list));
  run(Number(params.get("offset") ?? 0));
}

async function meant(words, signal) {
  const found = await post("/v1/search", { words, k: PAGE, fields: ["*"] }, signal);
  const items = await Promise.all(found.items.map((one) => get(`/v1/items/${part(one.item_id)}`, null, signal)));
  return { items };
}

function table(items, caption) {
  const names = Object.keys(items[0]?.fields ?? {}).filter((name) => !["item_id", "title"].includes(name)).slice(0, 3);
  const cell = (value) => h("td", null, value === null ? h("span", { class: "unknown" }, "–") : short(value));
  return h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h(
      "table",
      null,
      h("caption", null, caption),
      h("thead", null, h("tr", null, h("th", { scope: "col" }, "Title"), names.map((name) => h("th", { scope: "col" }, name)), h("th", { scope: "col" }, "Id"))),
      h("tbody", null, items.map((one) => h("tr", null, h("th", { scope: "row" }, h("a", { href: itemLink(one.item_id) }, one.title)), names.map((name) => cell(one.fields[name])), h("td", { class: "id" }, one.item_id)))),
    ),
  );
}

const short = (value) => (String(value).length > 90 ? `${String(value).slice(0, 88)}…` : String(value));

// ---- one item

function item(root, { signal, served }, itemId) {
  const isNew = itemId === "";
  const top = heading(isNew ? "New item" : itemId, isNew ? "It is encoded and can be recommended once this answers." : `Item ${itemId}`);
  const body = h("div");
  show(root, h("a", { class: "back", href: "#/catalog" }, "Catalog"), top, body);
  const read = async () => {
    const [stats, found] = await Promise.all([get("/v1/stats", null, signal), isNew ? null : get(`/v1/items/${part(itemId)}`, null, signal)]);
    return { columns: stats.columns, found };
  };
  const draw = ({ columns, found }) => {
    if (!isNew) {
      top.querySelector("h1").textContent = found.title;
      top.append(h("div", { class: "actions" }, holdButton(found), deleteButton(found, served)));
    }
    return itemPage(found, columns, signal, served);
  };
  fill(body, read, draw, "Reading the item");
}

function itemPage(found, columns, signal, served) {
  const isNew = found === null;
  const names = Object.keys(columns).filter((name) => name !== "item_id");
  const inputs = Object.fromEntries(names.map((name) => [name, control(name, columns[name], found?.fields[name] ?? null)]));
  const id = h("input", { type: "text", required: true, maxlength: 200, value: found?.item_id ?? `new-${Date.now().toString(36)}`, disabled: !isNew });
  const save = h("button", { type: "submit" }, isNew ? "Add the item" : "Save");

  async function keep(event) {
    event.preventDefault();
    const began = performance.now();
    const itemId = id.value.trim();
    const fields = Object.fromEntries(names.map((name) => [name, valueOf(inputs[name], columns[name])]));
    const isKept = await act(save, () => put(`/v1/items/${part(itemId)}`, fields));
    if (!isKept || signal.aborted) return;
    forget(itemId);
    notify(`Saved in ${milliseconds(performance.now() - began)}; it can be recommended now.`);
    served();
    if (isNew) location.hash = itemLink(itemId);
    else {
      document.querySelector("h1").textContent = fields.title ?? itemId;
      about.again();
    }
  }

  const fields = names.map((name) => field(name, inputs[name]));
  const form = h("form", { class: "stack", onsubmit: keep }, field("item_id", id, isNew ? "Yours to choose; it cannot be changed later." : null), fields, h("div", { class: "actions" }, save));
  if (isNew) return h("div", { class: "narrow" }, panel("What it is", form));
  const about = neighbours(found.item_id, signal);
  const rank = rankPanel(found, signal);
  about.again();
  return h("div", { class: "beside even" }, panel("What it is", form), h("div", null, rank, panel("Nearest in meaning", about)));
}

function control(name, type, value) {
  if (type === "Boolean") return select([["", "unknown"], ["true", "yes"], ["false", "no"]], value === null ? "" : String(value));
  if (isNumber(type)) return h("input", { type: "number", step: "any", value: value ?? "" });
  const isLong = /description|text|summary|plot|body/.test(name) || String(value ?? "").length > 80;
  const attributes = { value: value ?? "", maxlength: 20000, required: name === "title" };
  return isLong ? h("textarea", { rows: 5, ...attributes }) : h("input", { type: "text", ...attributes });
}

function valueOf(input, type) {
  if (input.value.trim() === "") return null;
  if (type === "Boolean") return input.value === "true";
  return isNumber(type) ? Number(input.value) : input.value;
}

function deleteButton(found, served) {
  const button = h("button", { type: "button", class: "plain danger" }, "Delete");
  button.addEventListener("click", async () => {
    const text = `“${found.title}” will not be shown again, not even after a restart. Adding an item with the same id brings it back.`;
    if ((await confirm({ title: "Delete this item?", text, action: "Delete it" })) === null) return;
    if (!(await act(button, () => del(`/v1/items/${part(found.item_id)}`)))) return;
    forget(found.item_id);
    served();
    notify(`${found.title} is deleted.`);
    location.hash = "#/catalog";
  });
  return button;
}

function holdButton(found) {
  const button = h("button", { type: "button", class: "plain" }, "Hold for review");
  button.addEventListener("click", async () => {
    const text = "It is not shown until somebody approves it in the review queue.";
    const reason = await confirm({ title: "Hold this item back?", text, action: "Hold it", ask: "Why" });
    if (reason === null) return;
    if (await act(button, () => post(`/v1/items/${part(found.item_id)}/flag`, { reason }))) notify(`${found.title} waits in the review queue.`);
  });
  return button;
}

function neighbours(itemId, signal) {
  const box = h("div");
  const find = () => post("/v1/similar", { item_id: itemId, k: 6, fields: ["*"] }, signal);
  box.again = () => fill(box, find, (found) => (found.items.length ? rankedList(found.items) : empty("Nothing else is here")));
  return box;
}

// ---- where it ranks

const LONGEST = 200;
const FIRST = 10;

function rankPanel(found, signal) {
  const result = h("div", null, h("p", { class: "hint" }, "Choose a user, or say what somebody wants."));
  const run = (work) => fill(result, work, (rank) => rankOf(rank, found), "Asking the model");
  const user = userPicker((option) => run(() => rankForUser(found.item_id, option.value, signal)));
  const words = h("input", { type: "text", maxlength: 2000, placeholder: "a heist that goes wrong" });
  const ask = (event) => {
    event.preventDefault();
    if (words.value.trim()) run(() => rankForWords(found.item_id, words.value.trim(), signal));
  };
  return panel(
    "Where it ranks",
    h("div", { class: "fields two" }, h("div", { class: "field" }, h("label", { for: user.input.id }, "For a user"), user), h("form", { onsubmit: ask }, field("For words, then Enter", words))),
    result,
  );
}

async function rankForUser(itemId, userId, signal) {
  const [why, list] = await Promise.all([
    post("/v1/explanations", { item_id: itemId, user_id: userId, k: FIRST, words: false, exclude_seen: false }, signal),
    post("/v1/recommendations", { user_id: userId, k: FIRST, exclude_seen: false, context: { page: "console" } }, signal),
  ]);
  return { who: `user ${userId}`, items: list.items, place: why.place, score: why.score };
}

async function rankForWords(itemId, text, signal) {
  const list = await post("/v1/recommendations", { text, k: LONGEST, context: { page: "console" } }, signal);
  const at = list.items.findIndex((item) => item.item_id === itemId);
  return { who: `“${text}”`, items: list.items.slice(0, FIRST), place: at < 0 ? null : at + 1, score: list.items[at]?.score, searched: list.items.length };
}

function rankOf({ who, items, place, score, searched }, found) {
  const none = searched ? `Not among the first ${searched} for ${who}.` : `It may not be shown to ${who} at present: a rule or the review queue holds it back.`;
  const isFurther = place !== null && !items.some((item) => item.item_id === found.item_id);
  const own = { ...found, score };
  const among = isFurther ? [...items, own] : items;
  return [
    h("p", { class: "rank" }, place === null ? none : [h("b", null, `Place ${whole(place)}`), ` for ${who}`]),
    rankedList(items, { marked: found.item_id, among }),
    isFurther && [h("p", { class: "gap", "aria-hidden": "true" }, "⋮"), rankedList([own], { marked: found.item_id, first: place, among })],
  ];
}
