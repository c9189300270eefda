// Alerts, on the page of all graphs and on that of one: what fires, what did, and what can be done about it.

import { getJson, send } from "./api.js";
import { announce, byId, has, make, makeAge, makeTable, showFault } from "./dom.js";
import { metricName, time } from "./format.js";

const POLL_MS = 5000;
const SILENCE = "8h";
const MANY = 200;

const { graph } = byId("alerts-section").dataset;
let said = "";

const counted = (count) => `${count} ${count === 1 ? "alert fires" : "alerts fire"}`;
const about = ({ graph: of, metric }) => [...(graph ? [] : [of]), ...(metric ? [metricName(metric)] : [])].join(", ");

/** Do something about an alert, then show how it stands now; the focus stays where it was. */
async function act(alert, path, options, done) {
  await send(`${alert.links.self}/${path}`, options);
  await look();
  announce(done);
  (byId(`alert-${path}-${alert.id}`) ?? byId("alerts-title")).focus();
}

function button(alert, path, text, options, done) {
  const element = make("button", { type: "button", id: `alert-${path}-${alert.id}`, "aria-describedby": `alert-says-${alert.id}` }, text);
  element.addEventListener("click", () => act(alert, path, options, done).catch(showFault));
  return element;
}

function actions(alert) {
  const body = JSON.stringify({ for: SILENCE });
  const silence = alert.silenced_until
    ? button(alert, "silence", "End the silence", { method: "DELETE" }, "The alert is delivered again")
    : button(alert, "silence", "Silence for 8 hours", { method: "POST", body }, "Nothing is delivered for 8 hours");
  if (alert.acknowledged) return [silence];
  return [button(alert, "acknowledge", "Acknowledge", { method: "POST" }, "The alert is acknowledged"), silence];
}

function item(alert) {
  const notes = [
    ...(alert.acknowledged ? [`acknowledged by ${alert.acknowledged_by}`] : []),
    ...(alert.silenced_until ? [`silenced until ${time(alert.silenced_until)}`] : []),
  ];
  const title = [make("strong", {}, alert.rule), about(alert) ? ` · ${about(alert)}` : ""];
  return make("li", {}, [
    make("p", {}, graph ? title : make("a", { href: `/graphs/${encodeURIComponent(alert.graph)}` }, title)),
    make("p", { id: `alert-says-${alert.id}` }, alert.summary ?? ""),
    make("p", { class: "muted small" }, [`Since ${time(alert.since)} (`, makeAge(alert.since), `)${notes.map((note) => `, ${note}`).join("")}.`]),
    make("div", { class: "segments" }, actions(alert)),
  ]);
}

function past(alerts) {
  const columns = [{ name: "Rule", text: true }, { name: "About", text: true }, { name: "Over since", text: true }, { name: "Last", text: true }];
  return makeTable("Alerts that are over", columns, alerts.map((alert) => [alert.rule, about(alert) || alert.graph, time(alert.since), alert.summary ?? ""]));
}

/** Say how many alerts fire, and in which graphs. */
function summary(firing) {
  if (!firing.length) return "None fires now.";
  const counts = new Map();
  for (const alert of firing) counts.set(alert.graph, (counts.get(alert.graph) ?? 0) + 1);
  const each = graph ? "" : `: ${[...counts].map(([name, count]) => `${count} in ${name}`).join(", ")}`;
  return `${counted(firing.length)}${each}.`;
}

function show(alerts) {
  const firing = alerts.filter(({ state }) => state === "firing");
  const over = alerts.filter(({ state }) => state === "resolved");
  const before = byId("alerts-summary").textContent;
  byId("alerts-summary").textContent = summary(firing);
  byId("alerts-firing").replaceChildren(...firing.map(item));
  byId("alerts-past").replaceChildren(...(over.length ? [past(over)] : []));
  byId("alerts-over").hidden = !over.length;
  byId("alerts-section").hidden = !alerts.length;
  if (before !== summary(firing) && (before || firing.length)) announce(`Alerts: ${summary(firing)}`);
}

async function look() {
  const query = new URLSearchParams({ limit: MANY, ...(graph ? { graph } : {}) });
  const { alerts } = await getJson(`/v1/alerts?${query}`);
  const now = JSON.stringify(alerts.map(({ judged, facts, ...shown }) => shown));
  // Drawn only where something is new: a button that has the focus keeps it.
  if (now !== said) show(alerts);
  said = now;
}

/** Look, and leave what is shown where the service cannot be asked: the page itself says so. */
const attempt = () => look().catch((error) => console.debug(error));

if (has("alerts")) {
  await attempt();
  setInterval(() => document.hidden || attempt(), POLL_MS);
}
