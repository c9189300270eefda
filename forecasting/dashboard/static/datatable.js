// The numbers behind the chart, as tables that can be read without seeing it.

import { makeTable } from "./dom.js";
import { number, time } from "./format.js";

const MOST_ROWS = 200;

/** Return tables of what the window from `begin` to `end` (ms) shows; the latest observed and the first forecast rows of many. */
export function dataTables(history, forecast, begin, end) {
  const within = (columns) => columns.time.map((when, at) => at).filter((at) => columns.time[at] >= begin && columns.time[at] <= end);
  const seen = within(history);
  const ahead = forecast ? within(forecast) : [];
  const tables = [
    makeTable(
      `Observed${history.exact ? "" : ", each row the mean of several steps"}${some(seen.length, "latest")}`,
      [{ name: "Time (UTC)", text: true }, ...(history.exact ? [{ name: "Value" }] : [{ name: "Mean" }, { name: "Least" }, { name: "Most" }])],
      seen.slice(-MOST_ROWS).map((at) => [
        time(history.time[at]), number(history.mean[at]), ...(history.exact ? [] : [number(history.min[at]), number(history.max[at])]),
      ]),
    ),
  ];
  if (ahead.length) {
    const range = (low, high, at) => `${number(forecast[low][at])} – ${number(forecast[high][at])}`;
    tables.push(makeTable(
      `Forecast${forecast.steps === 1 ? "" : `, each row a typical step of ${number(forecast.steps)}`}${some(ahead.length, "first")}`,
      [{ name: "Time (UTC)", text: true }, { name: "Median" }, { name: "80 %" }, { name: "95 %" }, ...forecast.paths.map((_, path) => ({ name: `Scenario ${path + 1}` }))],
      ahead.slice(0, MOST_ROWS).map((at) => [time(forecast.time[at]), number(forecast["0.5"][at]), range("0.1", "0.9", at), range("0.025", "0.975", at), ...forecast.paths.map((path) => number(path[at]))]),
    ));
  }
  return tables;
}

const some = (count, which) => (count > MOST_ROWS ? ` (the ${which} ${MOST_ROWS} of ${number(count)} rows; zoom in for others)` : "");
