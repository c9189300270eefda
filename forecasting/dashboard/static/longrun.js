// A long forecast: asked for as a job, and filled in from its stream while it is computed.

import { ApiError, events, getJson, send } from "./api.js";
import { announce, byId } from "./dom.js";
import { duration, number } from "./format.js";
import { Forecast, LEVELS } from "./series.js";

const ETA_EVERY_MS = 2000;

export class LongRun {
  /**
   * `onForecast(forecast)` is called as it grows, and with null when it is put away;
   * `getMetric()` names the metric, `getStep()` the step size of the graph, `getScenarios()` {paths, seed} or {}.
   */
  constructor(graph, { onForecast, getMetric, getStep, getScenarios }) {
    this.graph = graph;
    Object.assign(this, { onForecast, getMetric, getStep, getScenarios });
    this.job = null;
    this.aborter = null;
    this.isCancelled = false;
    byId("long-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.run(Number(byId("long-steps").value));
    });
    byId("long-cancel").addEventListener("click", () => this.cancel());
    byId("long-close").addEventListener("click", () => this.close());
  }

  async run(horizon) {
    await this.close();
    const signal = (this.aborter = new AbortController()).signal;
    this.isCancelled = false;
    this.#say("Asking for the forecast …", 0, horizon);
    this.#buttons({ running: true });
    try {
      const body = JSON.stringify({ horizon, metrics: [this.getMetric()], quantiles: LEVELS.map(Number), ...this.getScenarios() });
      const path = `/v1/graphs/${encodeURIComponent(this.graph)}/forecasts`;
      // Waited for though it was put away meanwhile: a job that nobody knows could not be cancelled.
      const job = await (await send(path, { method: "POST", body })).json();
      if (signal.aborted) {
        await this.#drop(job);
        return;
      }
      this.job = job;
      if (this.isCancelled) await this.cancel();
      await this.#fill(horizon, signal);
    } catch (error) {
      if (signal.aborted) return;
      const advice = error instanceof ApiError && error.kind === "forbidden" ? " Ask for a key with scope write." : "";
      this.#say(`It could not be computed: ${error.message}.${advice}`, 0, horizon);
      this.job = null;
      this.#buttons({});
    }
  }

  async #fill(horizon, signal) {
    let forecast = null;
    let asked = Date.now();
    this.#say("Waiting for its turn …", 0, horizon);
    for await (const { event, data } of events(this.job.links.stream, signal)) {
      const found = JSON.parse(data);
      if (event === "end") {
        this.#ended(found, horizon, forecast);
        return;
      }
      const [output] = found.outputs;
      forecast ??= new Forecast(Date.parse(output.start_timestamp), this.getStep());
      forecast.add(output, found.first_step, found.paths?.[output.name]);
      this.onForecast(forecast);
      let left = "";
      if (Date.now() - asked > ETA_EVERY_MS) {
        asked = Date.now();
        left = await this.#timeLeft(signal);
      }
      this.#say(`${number(forecast.length)} of ${number(horizon)} steps${left}`, forecast.length, horizon);
    }
  }

  /** Return how long it will take still, in words; none where the service does not tell now: the steps come anyway. */
  async #timeLeft(signal) {
    try {
      const { progress } = await getJson(this.job.links.self, { signal });
      return progress.eta_s === null ? "" : `, about ${duration(progress.eta_s * 1000)} left`;
    } catch (error) {
      if (signal.aborted) throw error;
      console.debug(error);
      return "";
    }
  }

  #ended({ status, problem, steps_done }, horizon, forecast) {
    this.job = null;
    const said = status === "done" ? `All ${number(horizon)} steps are there.` : `The forecast was ${status}${problem ? `: ${problem}` : ""}; ${number(steps_done)} steps are there.`;
    this.#say(said, steps_done, horizon);
    this.#buttons({ done: forecast !== null });
    announce(said);
  }

  /** Cancel the job, as soon as there is one; what has come stays. */
  async cancel() {
    this.isCancelled = true;
    if (!this.job) return;
    try {
      await send(this.job.links.self, { method: "DELETE" });
    } catch (error) {
      this.#say(`It could not be cancelled: ${error.message}`, 0, 1);
    }
  }

  /** Put the forecast away, and cancel its job if it still runs. */
  async close() {
    this.aborter?.abort();
    const { job } = this;
    this.job = null;
    byId("long-state").hidden = true;
    this.#buttons({});
    if (this.aborter) this.onForecast(null);
    this.aborter = null;
    if (job) await this.#drop(job);
  }

  /** Cancel a job that nobody waits for. */
  #drop(job) {
    return send(job.links.self, { method: "DELETE" }).catch(() => {});
  }

  #buttons({ running = false, done = false }) {
    byId("long-run").disabled = running;
    byId("long-cancel").hidden = !running;
    byId("long-close").hidden = !done;
  }

  #say(text, done, of) {
    byId("long-state").hidden = false;
    Object.assign(byId("long-progress"), { value: done, max: of });
    byId("long-says").textContent = text;
  }
}
