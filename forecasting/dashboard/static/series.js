// Forecasts as columns, and what of them a window of the chart shows.

import { stepMs } from "./format.js";

export const LEVELS = ["0.025", "0.1", "0.5", "0.9", "0.975"];

const DAY_MS = 8.64e7;

/** Return how many steps go into a point of about `ms`: whole days or weeks of hours, as on the server. */
function stepsPerPoint(ms, stepMs) {
  const size = Math.max(1, Math.ceil(ms / stepMs));
  for (const [rhythm, from] of [[7 * DAY_MS, 2 * DAY_MS], [DAY_MS, DAY_MS / 4]]) {
    if (rhythm % stepMs === 0 && size > 1 && size * stepMs > from) return (Math.ceil((size * stepMs) / rhythm) * rhythm) / stepMs;
  }
  return size;
}

function mean(values, begin, end) {
  let sum = 0;
  for (let at = begin; at < end; at += 1) sum += values[at];
  return sum / (end - begin);
}

/** The forecast of one metric, which grows as its chunks arrive. */
export class Forecast {
  /** `start` is the time of the first step in ms, `step` such as `1h`. */
  constructor(start, step) {
    this.start = start;
    this.stepMs = stepMs(step);
    this.columns = Object.fromEntries(LEVELS.map((level) => [level, []]));
    this.paths = [];
  }

  /** Take an object of `outputs` in an answer or a chunk that begins at step `first`, and the sample paths beside it. */
  add(output, first, paths = []) {
    paths.forEach((values, path) => {
      const column = (this.paths[path] ??= []);
      values.forEach((value, at) => (column[first + at] = value));
    });
    for (const level of LEVELS) {
      const column = this.columns[level];
      output.quantiles[level].forEach((value, at) => (column[first + at] = value));
    }
  }

  get length() {
    return this.columns["0.5"].length;
  }

  get end() {
    return this.start + this.length * this.stepMs;
  }

  /**
   * Return {time, steps, paths, "0.025": […], …} of the steps from `begin` to `end` (ms), at most about `most` points. A point
   * of several steps is their typical step: the mean of each quantile, and of each path. A sum of quantiles would be no
   * quantile of a sum.
   */
  window(begin, end, most) {
    const size = stepsPerPoint((end - begin) / most, this.stepMs);
    const first = Math.max(0, Math.floor((begin - this.start) / this.stepMs));
    const last = Math.min(this.length, Math.ceil((end - this.start) / this.stepMs) + 1);
    const found = { time: [], steps: size, paths: this.paths.map(() => []), ...Object.fromEntries(LEVELS.map((level) => [level, []])) };
    for (let at = first - (first % size); at < last; at += size) {
      const upto = Math.min(at + size, this.length);
      found.time.push(this.start + ((at + upto - 1) / 2) * this.stepMs);
      for (const level of LEVELS) found[level].push(mean(this.columns[level], at, upto));
      this.paths.forEach((values, path) => found.paths[path].push(mean(values, at, upto)));
    }
    return found;
  }
}

/** Return an answer of `/history` as columns of the chart; a bucket is drawn at its middle. */
export function historyColumns({ step, step_start, steps, series: [{ min, mean, max }], exact }) {
  const half = stepMs(step) / 2;
  const time = step_start.map((start, at) => Date.parse(start) + (steps[at] - 1) * half);
  return { time, min, mean, max, exact, steps };
}
