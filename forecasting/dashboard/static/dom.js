// Making elements, and the parts that every page has: theme, announcements, faults.

import { age } from "./format.js";

const AGE_EVERY_MS = 5000;

export const byId = (id) => document.getElementById(id);

/** Return an element; `content` is text, an element or a list of both, and never read as HTML. */
export function make(name, attributes = {}, content = []) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...[content].flat());
  return element;
}

/** Tell a screen reader. */
export function announce(text) {
  byId("said").textContent = text;
}

const waitingWords = (error) => `${error.message}. Asking again …`;

/** Show what is wrong, and whether it `isAskedAgain`; null where nothing is any more. */
export function showFault(error, isAskedAgain = false) {
  const place = byId("fault");
  place.textContent = error ? (isAskedAgain ? waitingWords(error) : error.message) : "";
  place.hidden = !error;
}

/**
 * Return `look` as a list does it that looks again and again: a failure is told, in the `place` of the list too as long as
 * it does not stand there (`isShown()`), and no more once it is over.
 */
export function patientLook(look, place, isShown, signal) {
  let hasFailed = false;
  return async () => {
    try {
      await look();
      if (hasFailed) showFault(null);
      hasFailed = false;
    } catch (error) {
      if (signal.aborted) return;
      hasFailed = true;
      showFault(error, true);
      if (!isShown()) place.replaceChildren(make("p", { class: "muted" }, waitingWords(error)));
    }
  };
}

/** Ask whether something is to be done; true where it is. Escape and the other button say no. */
export function confirmed(question, act) {
  const dialog = byId("confirm-dialog");
  byId("confirm-text").textContent = question;
  byId("confirm-yes").textContent = act;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}

/** Let `change` replace what is in `place`, and put the focus back to the element of the same id. */
export function keepFocus(place, change) {
  const { id } = place.contains(document.activeElement) ? document.activeElement : {};
  change();
  if (id) byId(id)?.focus();
}

/** Return how long ago a time was, ISO 8601, in words that stay true; also while nothing new comes, and most of all then. */
export function makeAge(when) {
  return make("span", { "data-age-of": when }, age(when));
}

setInterval(() => {
  for (const place of document.querySelectorAll("[data-age-of]")) place.textContent = age(place.dataset.ageOf);
}, AGE_EVERY_MS);

/** Tell whether the service has a part that not every service has. */
export function has(feature) {
  return document.documentElement.dataset.features.split(" ").includes(feature);
}

const dark = matchMedia("(prefers-color-scheme: dark)");

export function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : dark.matches;
}

/** Set up the switch between light and dark; `onChange` is told of each change. */
export function setUpTheme(onChange = () => {}) {
  const button = byId("theme-button");
  const say = () => {
    button.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-label", `Switch to ${isDark() ? "light" : "dark"} colours`);
  };
  const changed = () => {
    say();
    onChange();
  };
  button.addEventListener("click", () => {
    const next = isDark() ? "light" : "dark";
    document.documentElement.dataset.theme = next;
    localStorage.setItem("graphtide-theme", next);
    changed();
  });
  dark.addEventListener("change", changed);
  say();
}

/** Return a table that scrolls sideways where it has to; `columns` are {name, text?}, cells are texts. */
export function makeTable(caption, columns, rows) {
  const head = columns.map(({ name, text }) => make("th", { scope: "col", class: text ? "text" : null }, name));
  const body = rows.map((row) =>
    make("tr", {}, row.map((cell, at) => make(at ? "td" : "th", { scope: at ? null : "row", class: columns[at].text ? "text" : null }, cell))),
  );
  const table = make("table", {}, [make("caption", {}, caption), make("thead", {}, make("tr", {}, head)), make("tbody", {}, body)]);
  return make("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": caption }, table);
}

/** Return a list of facts; `facts` are [name, value, hint?]. */
export function makeFacts(facts) {
  return make("dl", { class: "facts" }, facts.map(([name, value, hint]) =>
    make("div", {}, [make("dt", {}, name), make("dd", {}, [value, ...(hint ? [make("small", {}, hint)] : [])])]),
  ));
}
