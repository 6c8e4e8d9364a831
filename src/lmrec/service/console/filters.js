// Conditions on the catalog's columns, as rows of a form.

import { h, select } from "./dom.js";

const TESTS = [
  ["contains", "contains"],
  ["is", "is"],
  ["not", "is not"],
  ["min", "at least"],
  ["max", "at most"],
];

export const isNumber = (type) => /^(U?Int|Float|Decimal)/.test(type);

/** columns: name -> type. changed(): something was written. The element's `filter` is the JSON, or null where nothing is asked. */
export function filterForm(columns, changed = () => {}) {
  const names = Object.keys(columns).filter((name) => name !== "item_id");
  const rows = h("div", { class: "conditions" });
  const add = h("button", { type: "button", class: "plain small", onclick: () => addRow(true) }, "Add a condition");

  function addRow(focus) {
    const name = select(names.map((one) => [one, one]), names[0], { "aria-label": "Column", onchange: changed });
    const test = select(TESTS, "contains", { "aria-label": "Condition", onchange: changed });
    const value = h("input", { type: "text", "aria-label": "Value", placeholder: "value", oninput: changed });
    const gone = () => {
      row.remove();
      add.focus();
      changed();
    };
    const row = h("div", { class: "condition" }, name, test, value, h("button", { type: "button", class: "quiet", "aria-label": "Remove this condition", onclick: gone }, "×"));
    row.read = () => ({ name: name.value, test: test.value, value: value.value.trim() });
    rows.append(row);
    if (focus) value.focus();
  }

  const box = h("div", { class: "filter" }, rows, add);
  Object.defineProperty(box, "filter", { get: () => filterOf([...rows.children].map((row) => row.read()), columns) });
  return box;
}

/** [{name, test, value}] as a filter; later rows of a column replace earlier ones, but for the two ends of a range. */
function filterOf(rows, columns) {
  const filter = {};
  for (const { name, test, value } of rows) {
    if (value === "") continue;
    const plain = typed(value, columns[name]);
    if (test === "is") filter[name] = plain;
    else if (test === "not") filter[name] = { not: plain };
    else if (test === "contains") filter[name] = { contains: value };
    else {
      const range = filter[name]?.min !== undefined || filter[name]?.max !== undefined ? filter[name] : {};
      filter[name] = { ...range, [test]: Number.isFinite(Number(value)) ? Number(value) : value };
    }
  }
  return Object.keys(filter).length ? filter : null;
}

function typed(value, type) {
  if (isNumber(type) && Number.isFinite(Number(value))) return Number(value);
  if (type === "Boolean" && ["true", "false"].includes(value.toLowerCase())) return value.toLowerCase() === "true";
  return value;
}

/** "genres contains Comedy, year at least 1990" */
export function filterText(filter) {
  return Object.entries(filter).map(([name, test]) => `${name} ${conditionText(test)}`).join(", and ");
}

function conditionText(test) {
  if (Array.isArray(test)) return `is one of ${test.join(", ")}`;
  if (test === null) return "is unknown";
  if (typeof test !== "object") return `is ${test}`;
  if ("contains" in test) return `contains “${test.contains}”`;
  if ("not" in test) return `not: ${conditionText(test.not)}`;
  const ends = [];
  if (test.min !== undefined && test.min !== null) ends.push(`at least ${test.min}`);
  if (test.max !== undefined && test.max !== null) ends.push(`at most ${test.max}`);
  return ends.join(" and ");
}
