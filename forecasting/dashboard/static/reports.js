// The reports of a graph: asked for, read, and deleted.

import { ApiError, download, getJson, hasKey, send } from "./api.js";
import { announce, byId, confirmed, has, keepFocus, make, patientLook } from "./dom.js";
import { number, time } from "./format.js";

const SHOWN = 20;
const POLL_MS = 5000;
const POLL_BUSY_MS = 1000;
const isBusy = ({ status }) => status === "queued" || status === "running";

/** Show the reports of a graph and keep them true until `signal` aborts; nothing where the service has none. */
export async function setUpReports(graph, signal) {
  if (!has("reports")) return;
  const path = `/v1/reports?graph=${encodeURIComponent(graph)}&limit=${SHOWN}`;
  let said = null;
  let timer = null;
  const againIn = (ms) => {
    clearTimeout(timer);
    timer = setTimeout(again, ms);
  };
  const look = async () => {
    let wait = POLL_MS;
    try {
      const { reports } = await getJson(path, { signal });
      const now = JSON.stringify(reports);
      if (now !== said) show(reports, look);
      said = now;
      if (reports.some(isBusy)) wait = POLL_BUSY_MS;
    } finally {
      againIn(wait);
    }
  };
  const attempt = patientLook(look, byId("reports"), () => said !== null, signal);
  const again = () => {
    if (signal.aborted) return;
    // A page that nobody sees asks for nothing.
    if (document.hidden) againIn(POLL_MS);
    else attempt();
  };
  byId("report-form").addEventListener("submit", (event) => {
    event.preventDefault();
    ask(graph).then(look).catch(sayFault);
  });
  byId("reports-section").hidden = false;
  await attempt();
}

async function ask(graph) {
  sayFault(null);
  const body = JSON.stringify({ horizon: Number(byId("report-horizon").value) });
  await send(`/v1/graphs/${encodeURIComponent(graph)}/reports`, { method: "POST", body });
  announce("The report waits for its turn.");
}

function sayFault(error) {
  const place = byId("report-fault");
  const advice = error instanceof ApiError && error.kind === "forbidden" ? " Ask for a key with scope write." : "";
  place.textContent = error ? `${error.message}.${advice}` : "";
  place.hidden = !error;
}

function show(reports, look) {
  const list = reports.map((report) => item(report, look));
  keepFocus(byId("reports"), () =>
    byId("reports").replaceChildren(list.length ? make("ul", { class: "items" }, list) : make("p", { class: "muted" }, "There is no report yet.")),
  );
}

function item(report, look) {
  const { id, status, summary, horizon, schedule, created, observed_until, progress, problem, links } = report;
  const name = `${number(horizon)} steps${observed_until ? ` from ${time(observed_until)}` : ""}`;
  const state = status === "running" ? `${Math.floor((100 * progress.steps_done) / Math.max(1, progress.steps))} % made` : status;
  const parts = [
    make("div", { class: "item-head" }, [
      make("h3", {}, name),
      make("span", { class: `state ${status}` }, state),
    ]),
    make("p", { class: "muted small" }, [created ? `Asked for ${time(created)} UTC` : "", schedule ? `, by the schedule ${schedule}` : ""]),
  ];
  if (summary.length) parts.push(make("p", { class: "small" }, summary[0]));
  if (problem) parts.push(make("p", { class: "fault small" }, problem));
  const acts = [];
  if (status === "done") {
    acts.push(
      pageOf(id, name, links.self),
      button(`pdf-${id}`, "PDF", `Save the report on ${name} as PDF`, () => download(links.self, "application/pdf", `report-${id.slice(0, 12)}.pdf`)),
      button(`data-${id}`, "Data", `Data of the report on ${name}`, () => download(links.self, "application/zip", `report-${id.slice(0, 12)}.zip`)),
    );
  }
  acts.push(button(`delete-${id}`, "Delete", `Delete the report on ${name}`, async () => {
    if (!(await confirmed(`Delete the report on ${name}? Its page, data and log are removed from the service; what was delivered stays.`, "Delete"))) return;
    await send(links.self, { method: "DELETE" });
    announce("The report is deleted.");
    await look();
    byId("reports-title").focus();
  }));
  return make("li", {}, [...parts, make("div", { class: "acts" }, acts)]);
}

/** A link to the page, which draws itself; a browser cannot send a key with a link, so with a key the page is saved. */
function pageOf(id, name, path) {
  if (hasKey()) return button(`page-${id}`, "Save the page", `Save the page of the report on ${name}`, () => download(path, "text/html", `report-${id.slice(0, 12)}.html`));
  return make("a", { class: "button", id: `page-${id}`, href: path, target: "_blank", rel: "noopener", "aria-label": `Open the report on ${name} in a new tab` }, "Open");
}

function button(id, text, label, act) {
  const element = make("button", { type: "button", id, "aria-label": label }, text);
  element.addEventListener("click", () => act().then(() => sayFault(null), sayFault));
  return element;
}
