// Times, durations and numbers as people read them. All times are UTC.

const UNITS_MS = { s: 1e3, m: 6e4, h: 3.6e6, d: 8.64e7, w: 6.048e8 };
const UNIT_NAMES = { s: "second", m: "minute", h: "hour", d: "day", w: "week" };
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const fine = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const dates = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric", timeZone: "UTC" });
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", timeZone: "UTC" });

/** Return the milliseconds of a step such as `1h`. */
export function stepMs(step) {
  const [, count, unit] = /^(\d+)([smhdw])$/.exec(step);
  return Number(count) * UNITS_MS[unit];
}

/** Return the length of a step in words: `one hour`, `15 minutes`. */
export function stepName(step) {
  const [, count, unit] = /^(\d+)([smhdw])$/.exec(step);
  return count === "1" ? `one ${UNIT_NAMES[unit]}` : `${count} ${UNIT_NAMES[unit]}s`;
}

export function number(value) {
  return Number.isInteger(value) || Math.abs(value) >= 1000 ? whole.format(value) : fine.format(value);
}

export function time(when) {
  const moment = new Date(when);
  return `${dates.format(moment)}, ${clock.format(moment)}`;
}

/** Return a duration in its largest unit: `3 hours`. */
export function duration(ms) {
  const parts = [["year", 3.15576e10], ["month", 2.6298e9], ["day", 8.64e7], ["hour", 3.6e6], ["minute", 6e4], ["second", 1e3]];
  const [name, size] = parts.find(([, one]) => ms >= one) ?? ["second", 1e3];
  const count = Math.max(0, Math.round(ms / size));
  return `${count} ${name}${count === 1 ? "" : "s"}`;
}

/** Return how long ago a time was. */
export function age(when) {
  const ms = Date.now() - new Date(when).getTime();
  return ms < 0 ? `${duration(-ms)} ahead of this clock` : `${duration(ms)} ago`;
}

/** Return what a forecast rests on, and how far it was found to hold on which graphs. */
export function groundWords({ model, model_digest, observed_until, degraded_reason, calibrated_until_step, calibrated_on }) {
  if (model_digest === null) return `A floor (${model}) answers: ${degraded_reason}.`;
  const said = [`By ${model}, from all that was observed until ${time(observed_until)} UTC.`];
  // The general model stands in for one that is damaged.
  if (degraded_reason) said.push(`It answers because ${degraded_reason}.`);
  if (calibrated_on) said.push(`Its intervals were found to hold up to step ${number(calibrated_until_step)}, on ${calibrated_on}.`);
  return said.join(" ");
}

export const metricName = (name) => name.replaceAll("_", " ");
