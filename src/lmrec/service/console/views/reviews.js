// Items that wait for a person, and the table of all decisions.

import { get, part, post } from "../api.js";
import { act, notify } from "../dialogs.js";
import { empty, fill, h, heading, many, moment, panel, show } from "../dom.js";
import { itemName } from "../items.js";

const TABS = [
  ["waiting", "Waiting"],
  ["approved", "Approved"],
  ["rejected", "Rejected"],
];
const NOTHING = {
  waiting: ["Nothing waits", "Items are held back from their page in the catalog, or by POST /v1/items/{id}/flag."],
  approved: ["Nothing was approved yet", "What is approved is shown again, and stays in this list."],
  rejected: ["Nothing was rejected yet", "What is rejected stays hidden, and can be decided anew here."],
};

export function render(root, { signal }) {
  const list = h("div");
  const audit = h("div");
  let status = "waiting";
  const load = () => {
    fill(list, () => get("/v1/reviews", { status }, signal), ({ reviews }) => (reviews.length ? [h("p", { class: "hint" }, many(reviews.length, "item")), h("ul", { class: "cards" }, reviews.map((review) => reviewCard(review, load)))] : empty(...NOTHING[status])));
    fill(audit, () => get("/v1/audit", { limit: 50 }, signal), auditTable);
  };
  const choose = (value) => () => {
    status = value;
    load();
  };
  const tabs = h("fieldset", { class: "segments" }, h("legend", null, "Items that are"), TABS.map(([value, name]) => h("label", null, h("input", { type: "radio", name: "status", checked: value === status, onchange: choose(value) }), h("span", null, name))));
  show(root, heading("Review queue", "Items that wait are not shown to anybody until they are approved."), h("div", { class: "panel" }, tabs, list), panel("Who decided what", audit));
  load();
}

function reviewCard(review, changed) {
  const note = h("input", { type: "text", maxlength: 2000, "aria-label": `Note on ${review.title ?? review.item_id}`, placeholder: "A note (optional)" });
  const decide = (approved) => async (event) => {
    const body = { approved, note: note.value.trim() };
    if (await act(event.currentTarget, () => post(`/v1/reviews/${part(review.item_id)}`, body))) {
      notify(`${review.title ?? review.item_id} is ${approved ? "approved and shown again" : "rejected and stays hidden"}.`);
      changed();
    }
  };
  const said = review.title ?? review.item_id;
  return h(
    "li",
    { class: "card" },
    h("div", { class: "card-top" }, itemName(review.item_id, review.title), h("span", { class: "when" }, moment(review.flagged, true))),
    h("p", null, review.reason, h("small", null, ` — flagged by ${review.flagged_by}`)),
    review.decided !== null && h("p", { class: "hint" }, `${review.status} by ${review.decided_by}`, review.note ? `: ${review.note}` : "", ", ", moment(review.decided, true)),
    h(
      "div",
      { class: "decide" },
      note,
      review.status !== "approved" && h("button", { type: "button", "aria-label": `Approve ${said}`, onclick: decide(true) }, "Approve"),
      review.status !== "rejected" && h("button", { type: "button", class: "plain danger", "aria-label": `Reject ${said}`, onclick: decide(false) }, "Reject"),
    ),
  );
}

function auditTable({ entries }) {
  if (entries.length === 0) return empty("No decisions yet", "Rules, reviews, deletes, keys and rollbacks are written down here.");
  const detail = (entry) => Object.entries(entry.detail).map(([name, value]) => `${name}: ${typeof value === "object" ? JSON.stringify(value) : value}`).join(", ");
  return h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": "Decisions, newest first" },
    h(
      "table",
      null,
      h("thead", null, h("tr", null, ["When", "Who", "What", "On", "Detail"].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", null, entries.map((entry) => h("tr", null, h("td", { class: "nowrap" }, moment(entry.time, true)), h("td", null, entry.actor), h("td", null, entry.action.replaceAll("_", " ")), h("td", { class: "id" }, entry.target), h("td", { class: "detail" }, detail(entry))))),
    ),
  );
}
