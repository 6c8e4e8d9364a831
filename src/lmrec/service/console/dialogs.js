// What lies over the page: short notices, questions before something is lost, the key, and the list of shortcuts.

import { keepKey } from "./api.js";
import { field, h, show } from "./dom.js";

/** A notice that goes away by itself; a failed one stays until it is closed. */
export function notify(text, failed = false) {
  const close = h("button", { type: "button", class: "quiet", "aria-label": "Close", onclick: () => notice.remove() }, "×");
  const notice = h("div", { class: failed ? "toast failed" : "toast" }, h("span", null, text), close);
  document.getElementById("toasts").append(notice);
  if (!failed) setTimeout(() => notice.remove(), 5000);
}

/** What went wrong before is not said any more: somebody tries again, or does something else. */
export function forgetFailures() {
  for (const notice of document.querySelectorAll(".toast.failed")) notice.remove();
}

/** Do `work` while `button` waits; a failure is said. Promises whether it went well. */
export async function act(button, work) {
  const hadFocus = document.activeElement === button; // which a disabled button loses
  forgetFailures();
  button.disabled = true;
  try {
    await work();
    return true;
  } catch (error) {
    notify(error.message, true);
    return false;
  } finally {
    button.disabled = false;
    if (hadFocus && document.activeElement === document.body) button.focus();
  }
}

/** `wayOut` closes without an answer; it is no submit button, or Enter would press it as the first one. */
function open(title, body, wayOut, answer = null) {
  const out = h("button", { type: "button", class: "plain", autofocus: true, onclick: () => dialog.close("no") }, wayOut);
  const dialog = h(
    "dialog",
    { "aria-label": title },
    h("form", { method: "dialog" }, h("h2", null, title), body, h("div", { class: "actions end" }, out, answer)),
  );
  document.body.append(dialog);
  dialog.addEventListener("close", () => dialog.remove());
  dialog.showModal();
  return dialog;
}

const ended = (dialog) => new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue)));

/**
 * Ask before something that cannot simply be taken back. Promises null when it is called off, else what was written
 * (the empty text where nothing was asked for). `typed`: a text that must be written as it is.
 */
export async function confirm({ title, text, action, ask = null, typed = null }) {
  const input = (ask || typed) && h("input", { type: "text", autocomplete: "off", required: true });
  if (typed) {
    input.addEventListener("input", () => input.setCustomValidity(input.value === typed ? "" : `Write ${typed}`));
    input.setCustomValidity(`Write ${typed}`);
  }
  const body = [h("p", null, text), input && field(ask ?? `Write ${typed} to go on`, input)];
  const dialog = open(title, body, "Leave it", h("button", { value: "yes", type: "submit", class: "danger" }, action));
  input?.focus();
  return (await ended(dialog)) === "yes" ? (input?.value ?? "") : null;
}

let asking = null;

/** One question for a key, however many requests wait for it. */
export function askForKey(message) {
  asking ??= askOnce(message).finally(() => {
    asking = null;
  });
  return asking;
}

async function askOnce(message) {
  const only = { pattern: "\\s*[\\x21-\\x7e]+\\s*", title: "No blanks within, plain letters, digits and signs only" }; // a header takes no others
  const input = h("input", { type: "password", autocomplete: "off", required: true, spellcheck: "false", ...only });
  const hint = "Kept in this tab only, until it is closed. Deletes, rules and users' data need the scope admin.";
  const use = h("button", { value: "yes", type: "submit" }, "Use this key");
  const dialog = open("A key, please", [h("p", null, message), field("Key", input, hint)], "Not now", use);
  input.focus();
  if ((await ended(dialog)) !== "yes") return false;
  keepKey(input.value.trim());
  return true;
}

export function showShortcuts(views) {
  const rows = [
    ["/", "Go to the search field"],
    ...views.map(({ letter, name }) => [`g ${letter}`, name]),
    ["Esc", "Close what is open"],
    ["?", "This list"],
  ];
  const list = h("dl", { class: "keys" });
  show(list, rows.map(([keys, what]) => [h("dt", null, keys.split(" ").map((key) => h("kbd", null, key))), h("dd", null, what)]));
  open("Shortcuts", list, "Close");
}
