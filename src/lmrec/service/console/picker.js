// A field that finds things while one writes: a combobox after the ARIA pattern, and the two kinds we need.

import { get } from "./api.js";
import { debounce, freshId, h, many, show } from "./dom.js";

/**
 * find(words, signal): promises {options: [{value, label, note}], total}. choose(option): the person took one.
 * free: what is written may be taken as it is. keep: the text stays in the field.
 */
export function picker({ label, placeholder, find, choose, free = false, keep = false, first = false }) {
  const id = freshId("picker");
  const list = h("ul", { role: "listbox", id: `${id}-list`, "aria-label": label, tabindex: "-1", hidden: true }); // scrolls, but Tab passes it
  const input = h("input", {
    id,
    type: "text",
    role: "combobox",
    class: "finder",
    "aria-label": label,
    "aria-autocomplete": "list",
    "aria-expanded": "false",
    "aria-controls": list.id,
    autocomplete: "off",
    spellcheck: "false",
    placeholder,
    "data-search": first,
  });
  let options = [];
  let at = -1;
  let asked = null;

  function close() {
    lookSoon.cancel();
    asked?.abort();
    list.hidden = true;
    at = -1;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  }

  function take(option) {
    close();
    input.value = keep ? option.label : "";
    choose(option);
  }

  function mark(place) {
    at = place;
    [...list.querySelectorAll("[role=option]")].forEach((entry, i) => {
      entry.setAttribute("aria-selected", String(i === at));
      if (i === at) entry.scrollIntoView({ block: "nearest" });
    });
    if (at >= 0) input.setAttribute("aria-activedescendant", `${id}-${at}`);
    else input.removeAttribute("aria-activedescendant");
  }

  const draw = (found) => {
    options = found.options;
    const rows = options.map((option, i) =>
      h(
        "li",
        { role: "option", id: `${id}-${i}`, "aria-selected": "false", onpointerdown: (event) => event.preventDefault(), onclick: () => take(option) },
        h("span", null, option.label),
        option.note && h("small", null, option.note),
      ),
    );
    const rest = (found.total ?? options.length) - options.length;
    const note = options.length === 0 ? (free ? "None known; Enter takes what you wrote" : "Nothing like this") : rest > 0 && `and ${many(rest, "more", "more")}`;
    show(list, rows, note && h("li", { class: "note", role: "presentation" }, note));
    open();
  };

  function open() {
    list.hidden = false;
    input.setAttribute("aria-expanded", "true");
    mark(-1);
  }

  async function look() {
    asked?.abort();
    asked = new AbortController();
    try {
      const found = await find(input.value.trim(), asked.signal);
      if (document.activeElement === input) draw(found);
    } catch (error) {
      if (error.name === "AbortError") return;
      options = [];
      show(list, h("li", { class: "note", role: "presentation" }, error.message));
      open();
    }
  }

  const lookSoon = debounce(look, 120);
  const moves = { ArrowDown: 1, ArrowUp: -1 };
  input.addEventListener("input", lookSoon);
  input.addEventListener("focus", () => list.hidden && look());
  input.addEventListener("click", () => list.hidden && look());
  input.addEventListener("blur", close);
  input.addEventListener("keydown", (event) => {
    if (event.key in moves) {
      event.preventDefault();
      if (list.hidden) look();
      else if (options.length) mark((at + moves[event.key] + options.length) % options.length);
    } else if (event.key === "Enter") {
      event.preventDefault();
      const written = input.value.trim();
      if (at >= 0) take(options[at]);
      else if (free && written) take({ value: written, label: written });
      else if (!free && written && options.length) take(options[0]);
    } else if (event.key === "Escape" && !list.hidden) {
      event.preventDefault();
      close();
    }
  });
  const box = h("div", { class: "picker" }, input, list);
  box.input = input;
  return box;
}

export function userPicker(choose, more = {}) {
  const find = async (query, signal) => {
    const found = await get("/v1/users", { query, limit: 12 }, signal);
    return { options: found.user_ids.map((value) => ({ value, label: value })), total: found.total };
  };
  return picker({ label: "User id", placeholder: "User id", find, choose, free: true, keep: true, ...more });
}

export function itemPicker(choose, more = {}) {
  const find = async (query, signal) => {
    const found = await get("/v1/items", { query, limit: 12 }, signal);
    return { options: found.items.map((item) => ({ value: item.item_id, label: item.title, note: facts(item.fields), item })), total: found.total };
  };
  return picker({ label: "Add an item", placeholder: "Title of an item", find, choose, ...more });
}

/** The short attributes of an item in a line: "1995 · Animation, Comedy". */
export function facts(fields, n = 3) {
  const said = Object.entries(fields)
    .filter(([name, value]) => !["item_id", "title"].includes(name) && value !== null && value !== "")
    .map(([, value]) => String(value));
  const brief = said.filter((value) => value.length <= 60); // a whole description would push the rest out
  return (brief.length ? brief : said).slice(0, n).map((value) => (value.length > 80 ? `${value.slice(0, 78)}…` : value)).join(" · ");
}

/** Chosen items that can be taken away again. */
export function chips(items, remove) {
  return h(
    "ul",
    { class: "chips", "aria-label": "Chosen items" },
    items.map((item) =>
      h("li", null, item.title, h("button", { type: "button", "aria-label": `Remove ${item.title}`, onclick: () => remove(item) }, "×")),
    ),
  );
}
