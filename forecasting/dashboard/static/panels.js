// What a graph's page says beside its chart: ingestion health, the model, reports.

import { getFresh, getJson } from "./api.js";
import { byId, has, make, makeFacts, makeTable } from "./dom.js";
import { age, duration, metricName, number, time } from "./format.js";

const none = "not known";
const here = (graph) => `/v1/graphs/${encodeURIComponent(graph)}`;

export async function showQuality(graph) {
  const { body, isNew } = await getFresh(`${here(graph)}/quality`);
  if (!isNew) return;
  const { watermark, newest_event, observed_until, final_until, late, sources } = body;
  const behind = watermark && newest_event ? duration(Date.parse(newest_event) - Date.parse(watermark)) : null;
  const facts = [
    ["Observed until", observed_until ? time(observed_until) : "no step yet", observed_until && age(observed_until)],
    ["Watermark", watermark ? time(watermark) : none, behind === null ? null : `${behind} behind the newest event`],
    ["Final until", final_until ? time(final_until) : none],
    ["Late events", number(late), "came behind the watermark, not counted"],
  ];
  const parts = [];
  if (sources) {
    const { partitions, dead_letters: letters } = sources;
    const sum = (name) => partitions.reduce((total, one) => total + one[name], 0);
    facts.push(
      ["Rejected", number(sum("rejected")), "were no events"],
      ["Duplicates", number(sum("duplicates")), "counted once"],
      ["Dead letters", letters.has_more ? `more than ${number(letters.count)}` : number(letters.count),
        letters.count ? `${number(letters.delivered)} delivered, ${number(letters.replayed)} sent again` : null],
    );
    const columns = [{ name: "Partition", text: true }, { name: "Watermark" }, { name: "Events" }, { name: "Late" }, { name: "Rejected" }, { name: "State", text: true }];
    const rows = partitions.map((one, at) => [
      one.partition || `source ${at + 1}`, one.watermark ? time(one.watermark) : "–", number(one.events), number(one.late), number(one.rejected), one.idle ? "idle" : "read",
    ]);
    parts.push(make("details", {}, [make("summary", {}, `${partitions.length === 1 ? "1 partition feeds" : `${partitions.length} partitions feed`} this graph`), makeTable("Partitions", columns, rows)]));
  }
  byId("quality").replaceChildren(makeFacts(facts), ...parts);
}

const scoreNames = {
  validation_loss: "Validation loss", untrained_validation_loss: "Before training", iterations: "Iterations", elapsed_s: "Trained for", stopped: "Ended by",
};

/** Show the model card; `degraded` says why a floor answers in the model's place. */
export async function showModel(graph, degraded) {
  const { card } = await getJson(`${here(graph)}/model`);
  const parts = degraded ? [make("p", { class: "note" }, `A floor answers: ${degraded}.`)] : [];
  if (!card) {
    if (!degraded) parts.push(make("p", { class: "muted" }, `The general model answers; one of its own: graphtide train ${graph}`));
    byId("model").replaceChildren(...parts);
    return;
  }
  const [data] = card.data;
  const { d_model, n_layers } = card.architecture;
  const shown = (name, value) => (name === "elapsed_s" ? duration(value * 1000) : typeof value === "number" ? number(value) : String(value));
  const facts = [
    ["Name", card.name, `weights ${card.digest.slice(0, 12)}`],
    ["Architecture", `${n_layers} layers, ${d_model} channels`, `trained up to ${number(card.architecture.reach_steps)} steps ahead`],
    ...(data ? [["Trained on", `${number(data.steps)} steps`, `up to ${time(data.until)}`]] : []),
    ...Object.entries(card.scores).filter(([name]) => name in scoreNames).map(([name, value]) => [scoreNames[name], shown(name, value)]),
  ];
  parts.push(makeFacts(facts));
  const rows = card.scores.backtest?.rows ?? [];
  if (rows.length) parts.push(make("details", {}, [make("summary", {}, "Backtest scores"), backtestTable(rows)]));
  byId("model").replaceChildren(...parts);
}

function backtestTable(rows) {
  const columns = [{ name: "Metric", text: true }, { name: "Model", text: true }, { name: "Steps ahead" }, { name: "MASE" }, { name: "WQL" }, { name: "In 80 %" }, { name: "In 95 %" }];
  const score = (value) => (value === null ? "–" : number(value));
  const share = (value) => (value === null ? "–" : `${Math.round(value * 100)} %`);
  return makeTable("Scores by metric, model and distance", columns, rows.map((row) => [
    metricName(row.metric), row.model, row.bucket, score(row.mase), score(row.wql), share(row.coverage_80), share(row.coverage_95),
  ]));
}

/** Show the graph's reports and their schedules, where the service has them. */
export async function showReports(graph) {
  const wanted = [["reports", "/v1/reports", "Reports"], ["schedules", "/v1/report-schedules", "Schedules"]].filter(([feature]) => has(feature));
  if (!wanted.length) return;
  const tables = await Promise.all(wanted.map(async ([, path, caption]) => {
    const rows = Object.values(await getJson(path)).find(Array.isArray) ?? [];
    return anyTable(caption, rows.filter((row) => row.graph === undefined || row.graph === graph));
  }));
  byId("reports").replaceChildren(...tables);
  byId("reports-section").hidden = false;
}

/** Return a table of whatever plain members the rows have. */
function anyTable(caption, rows) {
  if (!rows.length) return make("p", { class: "muted" }, `${caption}: none yet.`);
  const names = Object.keys(rows[0]).filter((name) => name !== "graph" && (rows[0][name] === null || typeof rows[0][name] !== "object")).slice(0, 6);
  const cell = (value) => (value === null || value === undefined ? "–" : typeof value === "number" ? number(value) : /^\d{4}-\d\d-\d\dT/.test(value) ? time(value) : String(value));
  return makeTable(caption, names.map((name) => ({ name: metricName(name), text: true })), rows.map((row) => names.map((name) => cell(row[name]))));
}
