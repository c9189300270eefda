// The page of all graphs.

import { getFresh, getJson, setUpKey } from "./api.js";
import { announce, byId, make, makeAge, setUpTheme, showFault } from "./dom.js";
import { number, stepMs, stepName, time } from "./format.js";

const POLL_MS = 5000;
const SPARK_STEPS = 336;
const SPARK_POINTS = 84;
const MANY = 7;
const cards = new Map();
// The places of lines that are still to be asked for again, with the documents of their graphs.
const undrawn = new Map();

/** Return a small line of the last steps; the card says the same in words. */
function sparkline(values) {
  const [width, height] = [260, 56];
  const most = Math.max(...values, 1);
  const points = values.map((value, at) => [
    (at / Math.max(values.length - 1, 1)) * width,
    height - 3 - (value / most) * (height - 8),
  ]);
  const line = points.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ");
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  for (const [name, value] of Object.entries({ viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true", class: "spark", preserveAspectRatio: "none" }))
    svg.setAttribute(name, value);
  for (const [name, drawn] of [["polygon", `0,${height} ${line} ${width},${height}`], ["polyline", line]]) {
    const shape = document.createElementNS("http://www.w3.org/2000/svg", name);
    shape.setAttribute("points", drawn);
    svg.append(shape);
  }
  return svg;
}

async function drawSpark(info, place) {
  if (info.snapshots === 0) return;
  undrawn.delete(place);
  const start = new Date(new Date(info.last_step).getTime() - (SPARK_STEPS - 1) * stepMs(info.step)).toISOString();
  const query = new URLSearchParams({ metrics: "events", points: SPARK_POINTS, start });
  try {
    const { series } = await getJson(`/v1/graphs/${encodeURIComponent(info.graph)}/history?${query}`);
    place.replaceChildren(sparkline(series[0].mean));
  } catch (error) {
    undrawn.set(place, info);
    showFault(error, true);
  }
}

function card(info) {
  const spark = make("div", { class: "spark-place" });
  const facts = [
    ["Events", number(info.events)],
    ["Steps", number(info.snapshots)],
    ["Each", stepName(info.step)],
    ["Late", number(info.late)],
  ];
  const element = make("li", { class: "card graph" }, [
    make("h2", {}, make("a", { href: `/graphs/${encodeURIComponent(info.graph)}` }, info.graph)),
    make("p", { class: "muted small" }, info.last_step ? [`Last step ${time(info.last_step)} · `, makeAge(info.last_step)] : "No step is closed yet"),
    spark,
    make("dl", { class: "inline" }, facts.map(([name, value]) => make("div", {}, [make("dt", {}, name), make("dd", {}, value)]))),
  ]);
  drawSpark(info, spark);
  return element;
}

function show(graphs) {
  const events = graphs.reduce((sum, { events }) => sum + events, 0);
  byId("summary").textContent = graphs.length
    ? `${graphs.length} ${graphs.length === 1 ? "graph" : "graphs"}, ${number(events)} events`
    : "No graph yet. Ingest a log: graphtide ingest events.ndjson --graph town";
  byId("search-field").hidden = graphs.length < MANY;
  const known = new Set(graphs.map(({ graph }) => graph));
  for (const name of cards.keys()) if (!known.has(name)) cards.delete(name);
  for (const info of graphs) {
    const said = JSON.stringify(info);
    if (cards.get(info.graph)?.said !== said) cards.set(info.graph, { said, element: card(info) });
  }
  byId("graphs").replaceChildren(...graphs.map(({ graph }) => cards.get(graph).element));
  filter();
}

function filter() {
  const wanted = byId("search").value.trim().toLowerCase();
  let shown = 0;
  for (const [name, { element }] of cards) {
    element.hidden = !name.includes(wanted);
    shown += element.hidden ? 0 : 1;
  }
  if (wanted) announce(`${shown} of ${cards.size} graphs`);
}

async function look() {
  try {
    const { body, isNew } = await getFresh("/v1/graphs");
    showFault(null);
    if (isNew) show(body.graphs);
    for (const [place, info] of undrawn) {
      if (place.isConnected) drawSpark(info, place);
      else undrawn.delete(place);
    }
  } catch (error) {
    showFault(error, true);
  }
}

setUpTheme();
setUpKey();
byId("search").addEventListener("input", filter);
await look();
setInterval(() => document.hidden || look(), POLL_MS);
