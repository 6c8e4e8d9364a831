// The frame: which view is shown, the keys, the theme, and what is being served.

import { dropKey, get, hasKey, onKeyNeeded } from "./api.js";
import { askForKey, forgetFailures, showShortcuts } from "./dialogs.js";
import { failure, h, show, whole } from "./dom.js";
import * as catalog from "./views/catalog.js";
import * as experiments from "./views/experiments.js";
import * as generations from "./views/generations.js";
import * as recommend from "./views/recommend.js";
import * as reviews from "./views/reviews.js";
import * as rules from "./views/rules.js";
import * as traffic from "./views/traffic.js";
import * as users from "./views/users.js";

const VIEWS = [
  { path: "recommend", name: "Recommend", letter: "r", render: recommend.render },
  { path: "catalog", name: "Catalog", letter: "c", render: catalog.render },
  { path: "traffic", name: "Traffic", letter: "t", render: traffic.render },
  { path: "generations", name: "Generations", letter: "g", render: generations.render },
  { path: "experiments", name: "Experiments", letter: "e", render: experiments.render },
  { path: "rules", name: "Rules", letter: "l", render: rules.render },
  { path: "reviews", name: "Review queue", letter: "q", render: reviews.render },
  { path: "users", name: "Users’ data", letter: "u", render: users.render },
];
const THEMES = ["auto", "light", "dark"];
const main = document.getElementById("main");
let leave = new AbortController(); // aborted when its view is left

/** The part after #/: path, its parts, and parameters. */
function readHash() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  try {
    const [name, ...parts] = path.split("/").map(decodeURIComponent);
    return { name, parts, params: new URLSearchParams(query) };
  } catch {
    return { name: "", parts: [], params: new URLSearchParams() }; // a broken %-sequence
  }
}

function navigate(byPerson = true) {
  const { name, parts, params } = readHash();
  const view = VIEWS.find((one) => one.path === name) ?? VIEWS[0];
  leave.abort();
  leave = new AbortController();
  forgetFailures();
  for (const link of document.querySelectorAll("#views a")) {
    const isHere = link.getAttribute("href") === `#/${view.path}`;
    if (isHere) {
      link.setAttribute("aria-current", "page");
      link.parentElement.parentElement.scrollTo({ left: link.offsetLeft - 40 });
    } else link.removeAttribute("aria-current");
  }
  document.title = `${view.name} · lmrec`;
  main.className = `view-${view.path}`;
  show(main);
  try {
    view.render(main, { parts, params, signal: leave.signal, served: lookAtService });
  } catch (error) {
    show(main, failure(error));
  }
  if (byPerson) {
    window.scrollTo(0, 0);
    main.querySelector("h1")?.focus({ preventScroll: true });
  }
  lookAtService();
}

// ---- what is served

async function lookAtService() {
  const served = document.getElementById("served");
  try {
    const ready = await get("/readyz");
    show(served, h("span", { class: "dot good", "aria-hidden": "true" }), h("span", null, `generation ${ready.generation}`), h("span", { class: "wide" }, `${whole(ready.items)} items`));
    sayProblems(ready.problems);
  } catch (error) {
    show(served, h("span", { class: "dot bad", "aria-hidden": "true" }), h("span", null, error.code === "offline" ? "no answer" : "not ready"));
    sayProblems([error.message]);
  }
  document.getElementById("key").hidden = !hasKey();
}

function sayProblems(problems) {
  show(document.getElementById("problems"), problems.map((problem) => h("p", { class: "problem" }, problem)));
}

// ---- theme

function setTheme(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  const button = document.getElementById("theme");
  const next = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  show(button, { auto: "◐", light: "☀", dark: "☾" }[theme], h("span", { class: "wide" }, ` ${theme}`));
  button.setAttribute("aria-label", `Theme: ${theme}. Change to ${next}`);
  button.onclick = () => {
    localStorage.setItem("lmrec-theme", next);
    setTheme(next);
  };
}

// ---- keys

const isTyping = (target) => target.matches("textarea, select, input:not([type=checkbox], [type=radio], [type=range])");
let pressedG = -Infinity; // when, in milliseconds

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target) || document.querySelector("dialog[open]")) return;
  const view = performance.now() - pressedG < 1500 && VIEWS.find(({ letter }) => letter === event.key);
  pressedG = -Infinity;
  if (view) {
    event.preventDefault();
    location.hash = `#/${view.path}`;
  } else if (event.key === "g") pressedG = performance.now();
  else if (event.key === "?") showShortcuts(VIEWS);
  else if (event.key === "/") {
    const search = main.querySelector("[data-search]");
    if (search) {
      event.preventDefault();
      search.focus();
      search.select();
    }
  }
}

function start() {
  onKeyNeeded(askForKey);
  const links = VIEWS.map(({ path, name, letter }) => h("li", null, h("a", { href: `#/${path}`, "aria-keyshortcuts": `g ${letter}` }, h("span", null, name), h("kbd", { "aria-hidden": "true" }, letter))));
  show(document.getElementById("views"), h("ul", null, links));
  setTheme(THEMES.find((theme) => theme === localStorage.getItem("lmrec-theme")) ?? "auto");
  document.getElementById("help").onclick = () => showShortcuts(VIEWS);
  document.getElementById("key").onclick = () => {
    dropKey();
    navigate();
  };
  document.getElementById("skip").onclick = (event) => {
    event.preventDefault(); // the hash names the view
    main.focus();
  };
  document.addEventListener("keydown", onKey);
  window.addEventListener("hashchange", () => navigate());
  navigate(false);
}

start();
