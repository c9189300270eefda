// The page of one graph: it asks for what the chart shows, and keeps it true as the graph grows.

import { getFresh, getJson, setUpKey, untilAnswered } from "./api.js";
import { Chart } from "./chart.js";
import { dataTables } from "./datatable.js";
import { announce, byId, make, makeAge, setUpTheme, showFault } from "./dom.js";
import { groundWords, metricName, number, stepMs, stepName, time } from "./format.js";
import { follow } from "./live.js";
import { LongRun } from "./longrun.js";
import { showModel, showQuality } from "./panels.js";
import { setUpReports } from "./reports.js";
import { scenarios, setUpScenarios } from "./scenarios.js";
import { setUpSchedules } from "./schedules.js";
import { Forecast, historyColumns, LEVELS } from "./series.js";

const POINTS_A_SCREEN = 900;
// One screen to either side of the one looked at is there already when one pans.
const MARGIN_SCREENS = 1;
const SETTLE_MS = 120;
const FIRST_LOOK_STEPS = 336;
const HORIZONS = [24, 72, 168];
const RANGES_MS = [["1 d", 8.64e7], ["1 w", 6.048e8], ["1 m", 2.6298e9], ["1 y", 3.15576e10]];
const FEWEST_STEPS = 12;

const graph = byId("graph").dataset.graph;
const here = `/v1/graphs/${encodeURIComponent(graph)}`;
const lifetime = new AbortController();
const state = { info: null, followed: null, looked: null, metric: "events", history: null, loaded: null, short: null, long: null, longEnd: null, model: null };
let chart = null;
let longRun = null;
let settling = null;
let historyAsked = 0;
let forecastAsked = 0;

const step = () => stepMs(state.info.step);
const observedUntil = () => Date.parse(state.info.last_step) + step();
const forecast = () => state.long ?? state.short;
const limits = () => [Date.parse(state.info.first_step), Math.max(observedUntil(), forecast()?.end ?? 0) + step()];
const metricOf = (name) => state.info.metrics.find((metric) => metric.name === name);

/** Ask for the history around the window, unless it is there at this resolution or a finer one. */
async function loadHistory(force = false) {
  const [begin, end] = chart.window;
  const width = end - begin;
  const { loaded } = state;
  if (!force && loaded && begin >= loaded.begin && end <= loaded.end && (loaded.exact || width > loaded.width * 0.7)) return;
  const asked = (historyAsked += 1);
  const [first, last] = [Date.parse(state.info.first_step), observedUntil()];
  const from = Math.max(first, begin - width * MARGIN_SCREENS);
  const to = Math.min(last, end + width * MARGIN_SCREENS);
  const points = Math.max(2, Math.min(5000, Math.ceil((POINTS_A_SCREEN * (to - from)) / width)));
  const query = new URLSearchParams({ metrics: state.metric, points, start: new Date(from).toISOString(), end: new Date(to).toISOString() });
  const body = await getJson(`${here}/history?${query}`, { signal: lifetime.signal });
  if (asked !== historyAsked) return;
  state.history = historyColumns(body);
  // What lies beyond the history is not there to be loaded.
  state.loaded = { begin: from <= first ? -Infinity : from, end: to >= last ? Infinity : to, width, exact: body.exact };
  chart.setHistory(state.history);
}

async function loadForecast() {
  const horizon = Number(byId("horizon").value);
  const asked = (forecastAsked += 1);
  if (!horizon) {
    state.short = null;
    byId("resting").textContent = "";
  } else {
    const query = new URLSearchParams({ horizon, metrics: state.metric, quantiles: LEVELS.join(","), ...scenarios() });
    const { body } = await getFresh(`${here}/forecast?${query}`, { signal: lifetime.signal });
    if (asked !== forecastAsked) return;
    const [output] = body.outputs;
    state.short = new Forecast(Date.parse(output.start_timestamp), state.info.step);
    state.short.add(output, 0, body.paths?.[output.name]);
    sayGround(body.provenance);
  }
  drawForecast();
}

function sayGround(provenance) {
  const { model, model_digest, degraded_reason } = provenance;
  byId("resting").textContent = groundWords(provenance);
  if (state.model !== `${model} ${degraded_reason}`) {
    state.model = `${model} ${degraded_reason}`;
    const asked = state.model;
    patiently(() => asked === state.model && showModel(graph, degraded_reason, model_digest === null));
  }
}

function drawForecast() {
  const [begin, end] = chart.window;
  const width = end - begin;
  chart.setForecast(forecast()?.window(begin - width, end + width, POINTS_A_SCREEN * 3) ?? null);
  chart.setLimits(limits());
}

/** Take a new window: draw what is there at once, ask for the rest when it has come to a halt. */
function windowMoved() {
  chart.fit();
  clearTimeout(settling);
  settling = setTimeout(() => settled().catch(showFault), SETTLE_MS);
}

async function settled() {
  drawForecast();
  await loadHistory();
  sayWindow();
}

function sayWindow() {
  const [begin, end] = chart.window;
  const { history } = state;
  const at = history.time.map((_, index) => index).filter((index) => history.time[index] >= begin && history.time[index] <= end);
  const ahead = forecast();
  const parts = [`${time(begin)} to ${time(end)} UTC.`];
  if (at.length) {
    const least = at.reduce((found, index) => Math.min(found, history.min[index]), Infinity);
    const most = at.reduce((found, index) => Math.max(found, history.max[index]), -Infinity);
    const each = history.exact ? "every step" : `${number(Math.max(...history.steps))} steps a point`;
    parts.push(`Observed ${metricName(state.metric)} from ${number(least)} to ${number(most)}, ${each}.`);
  }
  if (ahead && end > ahead.start) {
    const last = Math.min(ahead.length - 1, Math.max(0, Math.floor((end - ahead.start) / step()) - 1));
    const value = (level) => number(ahead.columns[level][last]);
    parts.push(`Forecast at the end: median ${value("0.5")}, 80 % from ${value("0.1")} to ${value("0.9")}.`);
    const ends = ahead.paths.map((path) => path[last]);
    if (ends.length) parts.push(`${ends.length} scenarios end there between ${number(Math.min(...ends))} and ${number(Math.max(...ends))}.`);
  }
  byId("chart-says").textContent = parts.join(" ");
  byId("legend-range").hidden = history.exact;
  byId("legend-scenarios").hidden = !ahead?.paths.length;
  fillTables();
}

function fillTables() {
  if (!byId("chart-data").open) return;
  const [begin, end] = chart.window;
  byId("chart-tables").replaceChildren(...dataTables(state.history, forecast()?.window(begin, end, POINTS_A_SCREEN) ?? null, begin, end));
}

/** Look at the last `ms` of history with the forecast behind it. */
function lookBack(ms) {
  const ahead = forecast() ? Math.min(forecast().end - observedUntil(), ms) : 0;
  chart.look(observedUntil() - ms, observedUntil() + ahead + step() / 2, limits());
}

function zoom(factor) {
  const [begin, end] = chart.window;
  const half = Math.max(((end - begin) * factor) / 2, FEWEST_STEPS * step() / 2);
  const middle = (begin + end) / 2;
  chart.look(middle - half, middle + half, limits());
}

function move(share) {
  const [begin, end] = chart.window;
  chart.look(begin + (end - begin) * share, end + (end - begin) * share, limits());
}

function sayFacts() {
  const { info } = state;
  byId("facts").textContent = `${number(info.snapshots)} steps of ${stepName(info.step)}, ${number(info.events)} events, the last step ${time(info.last_step)} UTC`;
  byId("age").replaceChildren("Observed until ", makeAge(new Date(observedUntil()).toISOString()));
  byId("age").hidden = false;
}

/** Take a document of the graph that has changed. */
async function changed(info) {
  const before = state.followed;
  state.info = info;
  sayFacts();
  if (info.last_step === before.last_step && info.events === before.events && info.snapshots === before.snapshots) return;
  chart.setNow(observedUntil());
  await loadForecast();
  moveOn(info.last_step);
  await loadHistory(true);
  sayWindow();
  announce(`${number(info.snapshots - before.snapshots)} new steps; the last one is ${time(info.last_step)}`);
  await showQuality(graph);
  state.followed = info;
}

/** Move a window that shows the end on to the new one; once, however often what comes behind it has to be tried. */
function moveOn(lastStep) {
  const before = Date.parse(state.looked);
  const grown = Date.parse(lastStep) - before;
  state.looked = lastStep;
  const [begin, end] = chart.window;
  if (end >= before && grown > 0) chart.look(begin + grown, end + grown, limits());
}

/** Do something that the page goes on without: again as long as its failure passes by. */
const patiently = (work) => untilAnswered(work, showFault, lifetime.signal).catch(showFault);

async function chooseMetric() {
  state.metric = byId("metric").value;
  state.loaded = null;
  await longRun.close();
  const metric = metricOf(state.metric);
  byId("meaning").textContent = metric.meaning;
  chart.setMetric(metric);
  await Promise.all([loadHistory(true), loadForecast()]);
  await chart.draw();
  sayWindow();
}

function setUpControls() {
  const attempt = (work) => () => Promise.resolve(work()).then(() => showFault(null), showFault);
  for (const { name } of state.info.metrics) byId("metric").append(make("option", { value: name }, metricName(name)));
  const most = Number(document.documentElement.dataset.shortMax);
  const horizons = [...new Set([...HORIZONS.filter((steps) => steps < most), most])];
  byId("horizon").append(make("option", { value: 0 }, "none"), ...horizons.map((steps) => make("option", { value: steps, selected: steps === most }, `next ${number(steps)} steps`)));
  byId("metric").addEventListener("change", attempt(chooseMetric));
  byId("horizon").addEventListener("change", attempt(async () => {
    await longRun.close();
    await loadForecast();
    lookBack(observedUntil() - chart.window[0]);
  }));
  setUpScenarios(attempt(async () => {
    await longRun.close();
    await loadForecast();
    sayWindow();
  }));
  const whole = observedUntil() - Date.parse(state.info.first_step);
  const ranges = [...RANGES_MS.filter(([, ms]) => ms >= FEWEST_STEPS * step() && ms < whole), ["All", whole]];
  for (const [name, ms] of ranges) {
    const button = make("button", { type: "button" }, name);
    button.addEventListener("click", () => lookBack(ms));
    byId("ranges").append(button);
  }
  for (const level of ["80", "95"]) {
    byId(`band-${level}`).addEventListener("change", () => {
      chart.showBands({ "80": byId("band-80").checked, "95": byId("band-95").checked });
      byId(`legend-${level}`).hidden = !byId(`band-${level}`).checked;
    });
  }
  const moves = {
    "move-back": () => move(-0.25), "move-on": () => move(0.25), "zoom-in": () => zoom(0.5), "zoom-out": () => zoom(2),
  };
  for (const [id, act] of Object.entries(moves)) byId(id).addEventListener("click", act);
  const keys = {
    ArrowLeft: moves["move-back"], ArrowRight: moves["move-on"], "+": moves["zoom-in"], "=": moves["zoom-in"], "-": moves["zoom-out"],
    End: () => lookBack(FIRST_LOOK_STEPS * step()), Home: () => lookBack(whole),
  };
  byId("chart").addEventListener("keydown", (event) => {
    const act = keys[event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act();
  });
  byId("chart-data").addEventListener("toggle", fillTables);
}

/** Take a long forecast as far as it is, or null when it is put away. */
function takeLong(found) {
  const [begin, end] = chart.window;
  const isFirst = state.long === null;
  state.long = found;
  if (!found) {
    state.longEnd = null;
    lookBack(Math.min(observedUntil() - begin, FIRST_LOOK_STEPS * step()));
    return;
  }
  // The window grows with the forecast, as long as nobody has moved it. As much history as forecast: one sees what it goes on from.
  if (isFirst || Math.abs(end - state.longEnd) < step()) {
    const ahead = found.end - observedUntil();
    chart.look(observedUntil() - Math.max(ahead, FIRST_LOOK_STEPS * step()), found.end, limits());
    state.longEnd = chart.window[1];
  }
  drawForecast();
  loadHistory().catch(showFault);
}

/** BokehJS comes behind this module, which asks for the graph while the browser reads that. */
function canDraw() {
  if (window.Bokeh?.Plotting || document.readyState === "complete") return null;
  return new Promise((resolve) => {
    document.addEventListener("DOMContentLoaded", resolve, { once: true });
    window.addEventListener("load", resolve, { once: true });
  });
}

async function start() {
  setUpKey();
  const { body: info } = await untilAnswered(() => getFresh(here), showFault, lifetime.signal);
  if (!info.snapshots) {
    byId("facts").textContent = "No step is closed yet: ingest more events.";
    await follow(graph, (now) => now.snapshots && location.reload(), showFault, lifetime.signal);
    return;
  }
  state.info = state.followed = info;
  state.looked = info.last_step;
  sayFacts();
  byId("content").hidden = false;
  await canDraw();
  chart = new Chart(byId("chart"), windowMoved);
  setUpControls();
  longRun = new LongRun(graph, { onForecast: takeLong, getMetric: () => state.metric, getStep: () => state.info.step, getScenarios: () => scenarios() });
  byId("meaning").textContent = metricOf(state.metric).meaning;
  chart.setMetric(metricOf(state.metric));
  chart.setNow(observedUntil());
  lookBack(FIRST_LOOK_STEPS * step());
  await Promise.all([untilAnswered(() => loadHistory(true), showFault, lifetime.signal), chart.draw()]);
  performance.mark("graphtide-first-paint");
  chart.setNow(observedUntil());
  patiently(() => showQuality(graph));
  setUpReports(graph, lifetime.signal).catch(showFault);
  setUpSchedules(graph, lifetime.signal).catch(showFault);
  // The first forecast of a graph may have to encode its history; the chart does not wait for it.
  await patiently(loadForecast);
  lookBack(FIRST_LOOK_STEPS * step());
  await follow(graph, changed, showFault, lifetime.signal);
}

setUpTheme(() => chart?.draw().catch(showFault));
start().catch((error) => {
  byId("facts").textContent = "";
  showFault(error);
});
