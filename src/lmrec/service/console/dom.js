// Builds elements, and the states that every view has: loading, empty, failed. Data only ever becomes text.

import { ApiError } from "./api.js";

const SVG = "http://www.w3.org/2000/svg";
const PROPERTIES = new Set(["value", "checked", "disabled", "hidden", "selected"]);

/** An element. `onclick` and the like are listeners; false and null leave an attribute or a child out. */
export function h(tag, attributes = null, ...children) {
  return build(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = null, ...children) {
  return build(document.createElementNS(SVG, tag), attributes, children);
}

function build(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (PROPERTIES.has(name)) element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...present(children));
  return element;
}

const present = (children) => children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);

/** Put `children` in place of what is there. */
export function show(box, ...children) {
  box.replaceChildren(...present(children));
}

let count = 0;
export const freshId = (word) => `${word}-${++count}`;

/** A label over its control, and a hint under it. */
export function field(label, control, hint = null) {
  control.id ||= freshId("field");
  const note = hint && h("small", { id: `${control.id}-hint`, class: "hint" }, hint);
  if (note) control.setAttribute("aria-describedby", note.id);
  return h("div", { class: "field" }, h("label", { for: control.id }, label), control, note);
}

export function select(choices, chosen, attributes = null) {
  const options = choices.map(([value, label]) => h("option", { value, selected: value === chosen }, label));
  return h("select", attributes, options);
}

/** A view's top: its heading, what it is for, and what can be done. */
export function heading(title, about, ...actions) {
  return h(
    "div",
    { class: "heading" },
    h("div", null, h("h1", { tabindex: "-1" }, title), about && h("p", { class: "about" }, about)),
    actions.length > 0 && h("div", { class: "actions" }, actions),
  );
}

export function panel(title, ...children) {
  const id = freshId("panel");
  return h("section", { class: "panel", "aria-labelledby": id }, h("h2", { id }, title), children);
}

const loading = (what = "Loading") =>
  h("div", { class: "state loading", role: "status" }, h("span", { class: "spinner", "aria-hidden": "true" }), `${what} …`);

export const empty = (title, text, ...more) =>
  h("div", { class: "state empty" }, h("strong", null, title), text && h("p", null, text), more);

/** What went wrong, in the service's words. */
export function failure(error, again = null) {
  if (!(error instanceof ApiError)) console.error(error);
  const titles = { 0: "No answer", 401: "A key is needed", 403: "Not allowed", 404: "Not found", 503: "Not now" };
  const title = error instanceof ApiError ? (titles[error.status] ?? "The service refused this") : "This page stumbled";
  return h(
    "div",
    { class: "state failed", role: "alert" },
    h("strong", null, title),
    h("p", null, error.message),
    again && h("button", { type: "button", onclick: again }, "Try again"),
  );
}

const turns = new WeakMap();

/**
 * Show in `box` what `work` promises: a spinner if it takes a moment, then `draw(value)`, or the failure.
 * Of several fills of one box the last one begun wins.
 */
export async function fill(box, work, draw, what) {
  const turn = (turns.get(box) ?? 0) + 1;
  turns.set(box, turn);
  const current = () => turns.get(box) === turn;
  const timer = setTimeout(() => current() && show(box, loading(what)), 150);
  box.setAttribute("aria-busy", "true");
  try {
    const value = await work();
    if (current()) show(box, draw(value));
  } catch (error) {
    if (error.name !== "AbortError" && current()) show(box, failure(error, () => fill(box, work, draw, what)));
  } finally {
    clearTimeout(timer);
    if (current()) box.removeAttribute("aria-busy");
  }
}

/** Wait until `ms` after the last call; `cancel()` forgets it. */
export function debounce(act, ms = 200) {
  let timer;
  const later = (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => act(...values), ms);
  };
  later.cancel = () => clearTimeout(timer);
  return later;
}

// ---- numbers and times as people read them

const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export const whole = (value) => WHOLE.format(value);
export const many = (n, one, more = `${one}s`) => `${whole(n)} ${n === 1 ? one : more}`;
export const percent = (share, digits = 0) => `${(100 * share).toFixed(digits)}\u00a0%`;
export const signed = (value, digits = 2) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(digits);
export const decimal = (value, digits = 2) => value.toFixed(digits).replace("-", "−");

/** 0.8 ms, 12 ms, 1.4 s */
export function milliseconds(ms) {
  if (ms >= 1000) return `${Number((ms / 1000).toFixed(1))} s`;
  return ms >= 10 ? `${Math.round(ms)} ms` : `${Number(ms.toFixed(1))} ms`;
}

export function duration(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

/** An element with the day (and the time of day, where that matters) of unix seconds. */
export function moment(seconds, withTime = false) {
  const date = new Date(1000 * seconds);
  if (Number.isNaN(date.getTime())) return h("time", null, "no date");
  const options = { day: "numeric", month: "short", year: "numeric", ...(withTime && { hour: "2-digit", minute: "2-digit" }) };
  const text = date.toLocaleString("en-GB", options);
  return h("time", { datetime: date.toISOString(), title: date.toLocaleString() }, text);
}
