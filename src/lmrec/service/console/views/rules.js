// Rules that stand above the model, in force as soon as they are saved.

import { del, get, part, put } from "../api.js";
import { act, confirm, notify } from "../dialogs.js";
import { empty, field, fill, h, heading, many, moment, panel, select, show } from "../dom.js";
import { filterForm, filterText } from "../filters.js";
import { lookUp } from "../items.js";
import { chips, itemPicker } from "../picker.js";

const KINDS = [
  ["must_not_show", "Must not show", "Items that are never shown. It beats pins and boosts."],
  ["boost", "Boost", "The odds of the items are multiplied by the factor."],
  ["demote", "Demote", "The odds of the items are divided by the factor."],
  ["pin", "Pin", "One item at a fixed place of every list."],
  ["age_rating", "Age rating", "Items rated higher than the limit, or not rated, are not shown."],
  ["in_stock", "In stock", "Only items whose column is true or above zero are shown."],
  ["block_words", "Block words", "Items whose texts hold one of these words are not shown."],
];
const nameOf = (kind) => KINDS.find(([one]) => one === kind)?.[1] ?? kind;

export function render(root, { signal }) {
  const list = h("div");
  const form = h("div");
  let taken = new Set();
  const load = () =>
    fill(list, () => get("/v1/rules", null, signal), ({ rules }) => {
      taken = new Set(rules.map((rule) => rule.rule_id));
      return rules.length ? h("ul", { class: "cards" }, rules.map((rule) => ruleCard(rule, load))) : empty("No rules", "The model alone decides. The form adds the first rule.");
    });
  fill(form, () => get("/v1/stats", null, signal), ({ columns }) => ruleForm(columns, () => taken, load));
  show(root, heading("Rules", "What must not be shown, is lifted, lowered or pinned, whatever the model says."), h("div", { class: "beside" }, panel("New rule", form), panel("In force", list)));
  load();
}

function ruleCard(entry, changed) {
  const sentence = h("p", null, ...sentenceOf(entry.rule));
  const remove = h("button", { type: "button", class: "plain small danger", "aria-label": `Delete the rule ${entry.rule_id}` }, "Delete");
  remove.addEventListener("click", async () => {
    if ((await confirm({ title: "Delete this rule?", text: `“${entry.rule_id}” is no longer in force from the next request on.`, action: "Delete it" })) === null) return;
    if (await act(remove, () => del(`/v1/rules/${part(entry.rule_id)}`))) {
      notify(`The rule ${entry.rule_id} is gone.`);
      changed();
    }
  });
  return h(
    "li",
    { class: "card" },
    h("div", { class: "card-top" }, h("span", { class: "tag" }, nameOf(entry.rule.kind)), h("h3", { class: "id" }, entry.rule_id), entry.created !== null && h("span", { class: "when" }, moment(entry.created, true))),
    sentence,
    entry.source === "file" ? h("small", { class: "hint" }, "From the rules file; change it there.") : h("div", { class: "actions" }, remove),
  );
}

/** A rule in words, with the titles of the items it names. */
function sentenceOf(rule) {
  const segment = rule.segment ? ` For users of the segment “${rule.segment}” only.` : "";
  const factor = rule.kind === "boost" ? ` — odds times ${rule.factor}.` : rule.kind === "demote" ? ` — odds divided by ${rule.factor}.` : ".";
  switch (rule.kind) {
    case "pin":
      return [titled(rule.item_id), ` at place ${rule.place}.`, segment];
    case "age_rating":
      return [`Only items whose ${rule.field} is at most ${rule.max}.`, segment];
    case "in_stock":
      return [`Only items whose ${rule.field} is true or above zero.`, segment];
    case "block_words":
      return [`No items with the words ${rule.words.join(", ")}${rule.review ? ", unless somebody approved them" : ""}.`, segment];
    default:
      return [targetOf(rule), factor, segment];
  }
}

function targetOf(rule) {
  const ids = rule.item_ids ?? [];
  const named = ids.slice(0, 5).map((id, i) => [i > 0 && ", ", titled(id)].filter(Boolean));
  const more = ids.length > 5 ? ` and ${many(ids.length - 5, "more", "more")}` : "";
  const where = rule.filter ? `${ids.length ? " where " : "Items where "}${filterText(rule.filter)}` : "";
  const words = h("span", null);
  words.append(...named.flat(), more, where);
  return words;
}

function titled(itemId) {
  const name = h("b", null, itemId);
  lookUp(itemId).then((item) => item && (name.textContent = item.title));
  return name;
}

// ---- the form

function ruleForm(columns, taken, changed) {
  const parts = h("div", { class: "stack" });
  const id = h("input", { type: "text", required: true, maxlength: 200 });
  const about = h("p", { class: "hint" });
  const save = h("button", { type: "submit" }, "Add the rule");
  const kind = select(KINDS.map(([value, name]) => [value, name]), "must_not_show", { onchange: () => draw() });
  let read = () => ({});

  function draw() {
    const built = PARTS[kind.value](columns);
    read = built.read;
    show(parts, built.fields);
    about.textContent = KINDS.find(([value]) => value === kind.value)[2];
    id.value = freeId(kind.value.replaceAll("_", "-"), taken());
  }

  async function keep(event) {
    event.preventDefault();
    const ruleId = id.value.trim();
    if (taken().has(ruleId) && (await confirm({ title: "Replace this rule?", text: `There is a rule “${ruleId}” already.`, action: "Replace it" })) === null) return;
    if (!(await act(save, () => put(`/v1/rules/${part(ruleId)}`, { kind: kind.value, ...read() })))) return;
    notify(`The rule ${ruleId} is in force.`);
    taken().add(ruleId);
    draw();
    changed();
  }

  draw();
  return h("form", { class: "stack", onsubmit: keep }, field("Kind", kind), about, parts, field("Name of the rule", id), h("div", { class: "actions" }, save));
}

function freeId(word, taken) {
  let n = 1;
  while (taken.has(`${word}-${n}`)) n += 1;
  return `${word}-${n}`;
}

const PARTS = {
  must_not_show: (columns) => combined(targetPart(columns), segmentPart()),
  boost: (columns) => combined(targetPart(columns), factorPart(), segmentPart()),
  demote: (columns) => combined(targetPart(columns), factorPart(), segmentPart()),
  pin: () => combined(pinPart(), segmentPart()),
  age_rating: (columns) => combined(columnPart(columns), limitPart(), segmentPart()),
  in_stock: (columns) => combined(columnPart(columns), segmentPart()),
  block_words: () => combined(wordsPart(), segmentPart()),
};

/** Each part has `fields` to show and `read()`, its share of the rule. */
const combined = (...parts) => ({ fields: parts.flatMap((one) => one.fields), read: () => Object.assign({}, ...parts.map((one) => one.read())) });

function targetPart(columns) {
  let items = [];
  const chosen = h("div");
  const draw = () => show(chosen, items.length > 0 && chips(items, (item) => ((items = items.filter((one) => one !== item)), draw())));
  const add = ({ item }) => {
    if (!items.some((one) => one.item_id === item.item_id)) items = [...items, item];
    draw();
  };
  const find = itemPicker(add, { first: true });
  const filter = filterForm(columns);
  return {
    fields: [h("div", { class: "field" }, h("label", { for: find.input.id }, "Items by name"), find, chosen), h("div", { class: "field" }, h("span", { class: "label" }, "and, or, items by condition"), filter)],
    read: () => ({ ...(items.length && { item_ids: items.map((item) => item.item_id) }), ...(filter.filter && { filter: filter.filter }) }),
  };
}

function segmentPart() {
  const input = h("input", { type: "text", maxlength: 200, placeholder: "everybody" });
  return { fields: [field("For users of the segment", input)], read: () => (input.value.trim() ? { segment: input.value.trim() } : {}) };
}

function factorPart() {
  const input = h("input", { type: "number", min: 1.01, max: 1000000, step: "any", value: 2, required: true });
  return { fields: [field("Factor", input, "2 doubles or halves the odds.")], read: () => ({ factor: Number(input.value) }) };
}

function pinPart() {
  const find = itemPicker(({ value }) => (chosen = value), { keep: true, first: true });
  const place = h("input", { type: "number", min: 1, max: 1000, value: 1, required: true });
  let chosen = "";
  return { fields: [h("div", { class: "field" }, h("label", { for: find.input.id }, "Item"), find), field("Place", place, "1 is the top.")], read: () => ({ item_id: chosen, place: Number(place.value) }) };
}

function columnPart(columns) {
  const names = Object.keys(columns).filter((name) => !["item_id", "title"].includes(name));
  const column = select(names.map((name) => [name, name]), names[0]);
  return { fields: [field("Column", column)], read: () => ({ field: column.value }) };
}

function limitPart() {
  const input = h("input", { type: "number", min: 0, max: 1000, step: "any", value: 12, required: true });
  return { fields: [field("At most", input)], read: () => ({ max: Number(input.value) }) };
}

function wordsPart() {
  const words = h("textarea", { rows: 3, required: true, placeholder: "one or more words, with commas between" });
  const review = h("input", { type: "checkbox" });
  return {
    fields: [field("Words", words), h("label", { class: "check" }, review, "Show an item all the same once somebody approved it")],
    read: () => ({ words: words.value.split(/[,\n]/).map((word) => word.trim()).filter(Boolean), ...(review.checked && { review: true }) }),
  };
}
