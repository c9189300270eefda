// What a graph's page says beside its chart: ingestion health, the model, reports.

import { getFresh, getJson } from "./api.js";
import { byId, make, makeFacts, makeTable } from "./dom.js";
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
  validation_loss: "Validation loss", untrained_validation_loss: "The same before training", iterations: "Iterations", elapsed_s: "Trained for", stopped: "Ended by",
};

function architectureFacts({ name, digest, architecture: { d_model, n_layers, reach_steps } }) {
  return [
    ["Name", name, `weights ${digest.slice(0, 12)}`],
    ["Architecture", `${n_layers} layers, ${d_model} channels`, `trained up to ${number(reach_steps)} steps ahead`],
  ];
}

function scoreFacts({ scores }) {
  const shown = (name, value) => (name === "elapsed_s" ? duration(value * 1000) : typeof value === "number" ? number(value) : String(value));
  return Object.keys(scoreNames).filter((name) => name in scores).map((name) => [scoreNames[name], shown(name, scores[name])]);
}

/** Return what the general model is, and where its scores come from. */
function generalFacts(general) {
  const logs = general.data.filter((one) => one.events).map((one) => one.log);
  const networks = general.data.reduce((sum, one) => sum + (one.networks ?? 0), 0);
  return [
    makeFacts([...architectureFacts(general), ["Trained on", `${number(logs.length)} public logs`, `and ${number(networks)} simulated networks`], ...scoreFacts(general)]),
    make("p", { class: "muted small" }, `Its validation loss was measured at its training, on parts of ${logs.join(", ")} that it did not learn from; nothing of this graph is in it. How good it is on this graph: graphtide backtest.`),
  ];
}

/** Show the model card; `degraded` says why another answers in the model's place, `isFloor` whether a floor does. */
export async function showModel(graph, degraded, isFloor) {
  const { card, general } = await getJson(`${here(graph)}/model`);
  const parts = degraded ? [make("p", { class: "note" }, `${isFloor ? "A floor" : "The general model"} answers: ${degraded}.`)] : [];
  if (!card) {
    if (!degraded) parts.push(make("p", { class: "muted" }, `The general model answers; one of its own: graphtide train ${graph}`));
    if (general) parts.push(...generalFacts(general));
    byId("model").replaceChildren(...parts);
    return;
  }
  const [data] = card.data;
  parts.push(makeFacts([...architectureFacts(card), ...(data ? [["Trained on", `${number(data.steps)} steps`, `up to ${time(data.until)}`]] : []), ...scoreFacts(card)]));
  parts.push(make("p", { class: "muted small" }, "Validation loss: the quantile loss on the last part of this graph's history at the training, which was not learned from."));
  const rows = card.scores.backtest?.rows ?? [];
  if (rows.length) parts.push(make("details", {}, [make("summary", {}, "Backtest scores"), backtestTable(rows)]));
  if (general) parts.push(make("details", {}, [make("summary", {}, "The general model, which answers where a graph has none of its own"), ...generalFacts(general)]));
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
