// Users' rights: all that is held of somebody, as a file, and its removal.

import { del, get, part } from "../api.js";
import { act, confirm, notify } from "../dialogs.js";
import { empty, fill, h, heading, many, moment, panel, show } from "../dom.js";
import { itemName } from "../items.js";
import { userPicker } from "../picker.js";

export function render(root, { params, signal }) {
  const body = h("div", null, empty("Choose a user", "Then see, export or delete all that is held of them."));
  const choose = (userId) => {
    window.history.replaceState(null, "", `#/users?user=${part(userId)}`);
    fill(body, () => get(`/v1/users/${part(userId)}`, null, signal), (held) => userPage(held, choose), "Collecting");
  };
  const find = userPicker((option) => choose(option.value), { first: true });
  const given = params.get("user");
  find.input.value = given ?? "";
  show(root, heading("Users’ data", "All that is held of a user: what they may ask for, and have deleted."), h("div", { class: "panel" }, h("div", { class: "field" }, h("label", { for: find.input.id }, "User"), find)), body);
  if (given) choose(given);
}

function userPage(held, again) {
  const isNothing = held.events.length + held.shown.length + held.training_log.length === 0;
  const save = h("button", { type: "button", class: "plain", onclick: () => download(held) }, "Export as JSON");
  const remove = h("button", { type: "button", class: "danger" }, "Delete all of it");
  remove.addEventListener("click", async () => {
    const text = `Events are removed, shown lists lose the user, and the training log is not used for them any more. This cannot be undone.`;
    if ((await confirm({ title: `Delete the data of user ${held.user_id}?`, text, action: "Delete for good", typed: held.user_id })) === null) return;
    const isGone = await act(remove, async () => {
      const done = await del(`/v1/users/${part(held.user_id)}`);
      notify(`${many(done.events_removed, "event")} of user ${held.user_id} removed.`);
    });
    if (isGone) again(held.user_id);
  });
  return [
    held.forgotten !== null && h("p", { class: "problem" }, "This user's data was deleted on ", moment(held.forgotten, true), "; what came before is not used."),
    panel(
      `User ${held.user_id}`,
      isNothing
        ? empty("Nothing is held", "Neither the training log nor the event store knows this user.")
        : [
            h("dl", { class: "numbers" }, fact("In the training log", held.training_log.length), fact("Events since", held.events.length), fact("Lists shown", held.shown.length), fact("Items the next list rests on", held.history.length)),
            h("div", { class: "actions" }, save, remove),
          ],
    ),
    held.events.length > 0 && panel("Events since", eventTable([...held.events].reverse())),
    held.training_log.length > 0 && panel("Training log", logTable([...held.training_log].reverse())),
  ];
}

const fact = (name, n) => h("div", null, h("dt", null, name), h("dd", null, String(n)));
const SHOWN = 50;

function eventTable(events) {
  const rows = events.slice(0, SHOWN).map((event) => h("tr", null, h("td", null, itemName(event.item_id)), h("td", null, event.kind, event.rating !== null && ` ${event.rating}`, event.weight !== null && ` × ${event.weight}`), h("td", { class: "nowrap" }, moment(event.time, true)), h("td", { class: "id" }, event.event_id), h("td", null, event.flags.map((flag) => h("span", { class: "tag minus" }, flag.replaceAll("_", " "))))));
  return table("Events, newest first", ["Item", "Kind", "When", "Event id", "Flags"], rows, events.length);
}

function logTable(log) {
  const rows = log.slice(0, SHOWN).map((entry) => h("tr", null, h("td", null, entry.title), h("td", { class: "nowrap" }, entry.time === null ? "–" : moment(entry.time)), h("td", { class: "id" }, entry.item_id)));
  return table("Training log, newest first", ["Item", "When", "Id"], rows, log.length);
}

function table(label, names, rows, total) {
  const head = h("thead", null, h("tr", null, names.map((name) => h("th", { scope: "col" }, name))));
  return [
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, h("table", null, head, h("tbody", null, rows))),
    total > SHOWN && h("p", { class: "hint" }, `The newest ${SHOWN} of ${total}; the export has all.`),
  ];
}

function download(held) {
  const file = URL.createObjectURL(new Blob([JSON.stringify(held, null, 2)], { type: "application/json" }));
  h("a", { href: file, download: `user-${held.user_id}.json` }).click();
  setTimeout(() => URL.revokeObjectURL(file), 10_000);
}
