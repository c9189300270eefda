// Schedules of reports: set, paused and removed, and what became of their times.

import { ApiError, getJson, send } from "./api.js";
import { announce, byId, confirmed, has, keepFocus, make, makeTable, patientLook } from "./dom.js";
import { number, time } from "./format.js";

const POLL_MS = 5000;
const RUNS = 10;
const FIELDS = ["name", "cron", "timezone", "horizon", "deliver", "missed"];
const MEMBERS = ["graph", "cron", "timezone", "horizon", "seed", "deliver", "missed"];
const at = (name) => `/v1/report-schedules/${encodeURIComponent(name)}`;
const field = (name) => byId(`schedule-${name}`);

/** Show the schedules of a graph and keep them true until `signal` aborts; nothing where the service has none. */
export async function setUpSchedules(graph, signal) {
  if (!has("schedules")) return;
  let said = null;
  let mine = [];
  const look = async (isForced = false) => {
    if (said === null) await showTargets(graph, signal);
    const { schedules } = await getJson("/v1/report-schedules", { signal });
    mine = schedules.filter((one) => one.graph === graph);
    const now = JSON.stringify(mine);
    if (isForced || now !== said) show(mine, () => look(true));
    said = now;
    // A schedule that is set without the targets and what is known of it would lose what the form could not show.
    byId("schedule-more").hidden = false;
  };
  const attempt = patientLook(look, byId("schedules"), () => said !== null, signal);
  setUpForm(graph, () => look(true), (name) => mine.find((one) => one.name === name));
  byId("schedules-section").hidden = false;
  const timer = setInterval(() => document.hidden || attempt(), POLL_MS);
  signal.addEventListener("abort", () => clearInterval(timer));
  await attempt();
}

function setUpForm(graph, look, known) {
  field("timezone").value = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
  byId("schedule-zones").replaceChildren(...["UTC", ...Intl.supportedValuesOf("timeZone")].map((zone) => make("option", { value: zone })));
  byId("schedule-form").addEventListener("submit", (event) => {
    event.preventDefault();
    put(graph, known).then(look).catch(sayFaults);
  });
}

async function showTargets(graph, signal) {
  const { targets } = await getJson(`/v1/report-targets?graph=${encodeURIComponent(graph)}`, { signal });
  byId("schedule-targets").replaceChildren(
    ...(targets.length
      ? targets.map(({ name, kind }) => make("label", {}, [make("input", { type: "checkbox", value: name }), ` ${name} (${kind})`]))
      : [make("span", { class: "muted small" }, "The settings name no target; reports are kept here.")]),
  );
}

const chosenTargets = () => [...byId("schedule-targets").querySelectorAll("input")].filter((box) => box.checked).map((box) => box.value);

async function put(graph, known) {
  sayFaults(null);
  const name = field("name").value.trim();
  const body = {
    graph, cron: field("cron").value.trim(), timezone: field("timezone").value.trim(), horizon: Number(field("horizon").value),
    deliver: chosenTargets(), missed: field("missed").value,
  };
  // What the form does not ask stays as it is.
  const before = known(name);
  if (before) Object.assign(body, { seed: before.seed, paused: before.paused });
  const kept = await (await send(at(name), { method: "PUT", body: JSON.stringify(body) })).json();
  const due = kept.paused ? "when it is resumed" : kept.next ? `${time(kept.next)} UTC` : "never";
  announce(`The schedule ${kept.name} is set; the next report is due ${due}.`);
  byId("schedule-says").textContent = `${kept.name} is set: next ${due}.`;
}

/** Say beside each field what is wrong with it, and above the button what is wrong with none of them. */
function sayFaults(error) {
  const wrong = error instanceof ApiError ? error.errors : [];
  let first = null;
  for (const name of FIELDS) {
    const found = wrong.find((one) => one.field === name);
    const place = byId(`schedule-${name}-fault`);
    place.textContent = found ? error.message : "";
    place.hidden = !found;
    if (field(name).tagName !== "FIELDSET") field(name).setAttribute("aria-invalid", String(Boolean(found)));
    if (found) first ??= field(name);
  }
  const advice = error?.kind === "forbidden" ? " Ask for a key with scope write." : "";
  byId("schedule-says").textContent = error && !first ? `${error.message}.${advice}` : "";
  // A group of boxes is no place for the focus, its first box is.
  (first?.querySelector("input") ?? first)?.focus();
}

function show(schedules, look) {
  const opened = new Set([...byId("schedules").querySelectorAll("details[open]")].map((one) => one.dataset.name));
  const list = schedules.map((schedule) => item(schedule, look, opened.has(schedule.name)));
  keepFocus(byId("schedules"), () =>
    byId("schedules").replaceChildren(list.length ? make("ul", { class: "items" }, list) : make("p", { class: "muted" }, "No report of this graph is made by the calendar yet.")),
  );
}

function item(schedule, look, isOpen) {
  const { name, cron, timezone, horizon, deliver, paused, next, origin } = schedule;
  const state = paused ? "paused" : next ? `next ${time(next)} UTC` : "never due";
  const acts = [];
  if (origin !== "config") {
    acts.push(
      button(`pause-${name}`, paused ? "Resume" : "Pause", `${paused ? "Resume" : "Pause"} the schedule ${name}`, async () => {
        const body = Object.fromEntries(MEMBERS.map((member) => [member, schedule[member]]));
        await send(at(name), { method: "PUT", body: JSON.stringify({ ...body, paused: !paused }) });
        announce(`The schedule ${name} is ${paused ? "resumed" : "paused"}.`);
        await look();
      }),
      button(`change-${name}`, "Change", `Change the schedule ${name}`, async () => fill(schedule)),
      button(`remove-${name}`, "Delete", `Delete the schedule ${name}`, async () => {
        if (!(await confirmed(`Delete the schedule ${name}? Its reports stay.`, "Delete"))) return;
        await send(at(name), { method: "DELETE" });
        announce(`The schedule ${name} is deleted.`);
        await look();
        byId("schedules-title").focus();
      }),
    );
  }
  const where = deliver.length ? `to ${deliver.join(", ")}` : "kept here";
  const runs = make("div", {}, make("p", { class: "muted small" }, "Asking …"));
  const details = make("details", { "data-name": name, open: isOpen }, [make("summary", {}, "Runs"), runs]);
  const fillRuns = () => details.open && showRuns(name, runs).catch(sayFaults);
  details.addEventListener("toggle", fillRuns);
  return make("li", {}, [
    make("div", { class: "item-head" }, [make("h3", {}, name), make("span", { class: `state ${paused ? "paused" : "due"}` }, state)]),
    make("p", { class: "muted small" }, [make("code", {}, cron), ` in ${timezone}, ${number(horizon)} steps, ${where}${origin === "config" ? "; stands in the settings" : ""}`]),
    details,
    make("div", { class: "acts" }, acts),
  ]);
}

async function showRuns(name, place) {
  const { runs } = await getJson(`${at(name)}/runs?limit=${RUNS}`);
  if (!runs.length) {
    place.replaceChildren(make("p", { class: "muted small" }, "None of its times has come yet."));
    return;
  }
  const columns = [{ name: "Time (UTC)", text: true }, { name: "Report", text: true }, { name: "Deliveries", text: true }, { name: "Log", text: true }];
  place.replaceChildren(makeTable(`The latest runs of ${name}`, columns, runs.map((run) => [
    time(run.slot), run.problem ? `${run.status}: ${run.problem}` : run.status,
    run.deliveries.map(({ target, status, problem }) => `${target}: ${status}${problem ? ` (${problem})` : ""}`).join("; ") || "–",
    make("ul", { class: "log" }, run.log.map(({ time: when, line }) => make("li", {}, `${time(when)} ${line}`))),
  ])));
}

function fill(schedule) {
  for (const name of ["name", "cron", "timezone", "horizon", "missed"]) field(name).value = schedule[name];
  for (const box of byId("schedule-targets").querySelectorAll("input")) box.checked = schedule.deliver.includes(box.value);
  byId("schedule-more").open = true;
  sayFaults(null);
  field("cron").focus();
}

function button(id, text, label, act) {
  const element = make("button", { type: "button", id, "aria-label": label }, text);
  element.addEventListener("click", () => act().catch(sayFaults));
  return element;
}
