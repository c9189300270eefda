// The chart: history with its range, forecast with its intervals, drawn by BokehJS; it knows nothing of where they come from.

import { LEVELS } from "./series.js";

const HEIGHT = 400;
const PHONE = matchMedia("(max-width: 640px)");

const NO_HISTORY = { time: [], min: [], mean: [], max: [] };
const NO_FORECAST = { time: [], paths: [], ...Object.fromEntries(LEVELS.map((level) => [level, []])) };

const lines = (time, paths) => ({ xs: paths.map(() => time), ys: paths });

export class Chart {
  /** `onWindow(begin, end)` is told, in ms, what is looked at whenever that has changed. */
  constructor(place, onWindow) {
    this.place = place;
    this.onWindow = onWindow;
    this.history = NO_HISTORY;
    this.forecast = NO_FORECAST;
    this.shown = { "80": true, "95": true };
    this.label = "";
    this.fromZero = true;
    this.isShare = false;
    this.limits = null;
    this.now = null;
    this.silent = false;
    this.#makeModels([0, 1], null);
  }

  /** Make what the plot shares with us. A model belongs to the plot that it was drawn in, so each plot gets its own. */
  #makeModels([start, end], bounds) {
    this.x = new Bokeh.Range1d({ start, end, bounds });
    this.y = new Bokeh.Range1d({ start: 0, end: 1 });
    const { time, min, mean, max } = this.history;
    this.seen = new Bokeh.ColumnDataSource({ data: { time, min, mean, max } });
    const { steps: _, paths, ...ahead } = this.forecast;
    this.ahead = new Bokeh.ColumnDataSource({ data: ahead });
    this.futures = new Bokeh.ColumnDataSource({ data: lines(ahead.time, paths) });
    this.x.change.connect(() => this.silent || this.onWindow(this.x.start, this.x.end));
  }

  setLimits(limits) {
    this.x.bounds = limits;
  }

  /** Draw anew, in the colours that the page has now. */
  async draw() {
    if (this.view) this.#makeModels(this.window, this.x.bounds);
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const ink = { text_color: colour("--muted"), font: colour("--font") };
    const plot = Bokeh.Plotting.figure({
      height: PHONE.matches ? 300 : HEIGHT,
      sizing_mode: "stretch_width",
      x_axis_type: "datetime",
      x_range: this.x,
      y_range: this.y,
      tools: [],
      toolbar_location: null,
      background_fill_color: null,
      border_fill_color: null,
      outline_line_color: null,
      min_border_left: PHONE.matches ? 44 : 60,
      min_border_right: 12,
      lod_threshold: null,
    });
    const area = (source, low, high, fill, alpha) =>
      plot.varea({ field: "time" }, { field: low }, { field: high }, { source, fill_color: fill, fill_alpha: alpha });
    const line = (source, y, stroke, width) =>
      plot.line({ field: "time" }, { field: y }, { source, line_color: stroke, line_width: width, line_join: "round" });
    area(this.seen, "min", "max", colour("--seen"), 0.2);
    this.bands = {
      95: area(this.ahead, "0.025", "0.975", colour("--model"), 0.16),
      80: area(this.ahead, "0.1", "0.9", colour("--model"), 0.28),
    };
    plot.multi_line({ field: "xs" }, { field: "ys" }, { source: this.futures, line_color: colour("--scenario"), line_width: 1, line_alpha: 0.55, line_join: "round" });
    const seenLine = line(this.seen, "mean", colour("--seen"), 1.6);
    const medianLine = line(this.ahead, "0.5", colour("--model"), 2);
    this.nowLine = new Bokeh.Span({ location: this.now, dimension: "height", line_color: colour("--muted"), line_dash: [4, 4], line_alpha: 0.7 });
    plot.add_layout(this.nowLine);
    const format = this.isShare ? "{0.000}" : "{0,0.[00]}";
    const when = ["time", "@time{%d %b %Y, %H:%M}"];
    const hover = (renderer, tooltips) =>
      new Bokeh.HoverTool({ renderers: [renderer], tooltips, formatters: { "@time": "datetime" }, mode: "vline", line_policy: "nearest" });
    const pan = new Bokeh.PanTool({ dimensions: "width" });
    // With Ctrl, or a pinch on a touch pad: a page that is scrolled shall not zoom what passes under the pointer.
    const wheel = new Bokeh.WheelZoomTool({ dimensions: "width", modifiers: { ctrl: true } });
    plot.add_tools(
      pan,
      wheel,
      hover(seenLine, [when, ["observed", `@mean${format}`]]),
      hover(medianLine, [when, ["median", `@{0.5}${format}`], ["80 %", `@{0.1}${format} – @{0.9}${format}`], ["95 %", `@{0.025}${format} – @{0.975}${format}`]]),
    );
    plot.toolbar.active_drag = pan;
    plot.toolbar.active_scroll = wheel;
    const [xAxis] = plot.below;
    const [yAxis] = plot.left;
    for (const axis of [xAxis, yAxis]) {
      axis.setv({
        major_label_text_color: ink.text_color,
        major_label_text_font: ink.font,
        major_label_text_font_size: "12px",
        axis_line_color: null,
        major_tick_line_color: null,
        minor_tick_line_color: null,
      });
    }
    if (PHONE.matches) xAxis.ticker.desired_num_ticks = 4;
    yAxis.formatter = new Bokeh.NumeralTickFormatter({ format: this.isShare ? "0.[00]" : "0,0.[00]" });
    xAxis.formatter = new Bokeh.DatetimeTickFormatter({
      minutes: "%H:%M", hourmin: "%H:%M", hours: "%H:%M", days: "%d %b", months: "%b %Y", years: "%Y", strip_leading_zeros: false,
    });
    for (const grid of plot.center.filter((one) => one instanceof Bokeh.Grid))
      grid.grid_line_color = grid.axis === yAxis || grid.dimension === 1 ? colour("--line") : null;
    const holder = document.createElement("div");
    const before = this.view;
    this.place.replaceChildren(holder);
    this.view = await Bokeh.Plotting.show(plot, holder);
    before?.model.document?.clear();
    this.showBands(this.shown);
    this.fit();
  }

  /** Say what the numbers are; takes effect with the next `draw`. */
  setMetric(metric) {
    this.fromZero = metric.kind !== "total";
    this.isShare = metric.kind === "share";
  }

  setHistory(columns) {
    this.history = columns;
    const { time, min, mean, max } = columns;
    this.seen.data = { time, min, mean, max };
    this.fit();
  }

  setForecast(columns) {
    this.forecast = columns ?? NO_FORECAST;
    const { steps: _, paths, ...data } = this.forecast;
    this.ahead.data = data;
    this.futures.data = lines(data.time, paths);
    this.fit();
  }

  /** Mark where what was observed ends. */
  setNow(ms) {
    this.now = ms;
    if (this.nowLine) this.nowLine.location = ms;
  }

  showBands(shown) {
    this.shown = shown;
    for (const [level, renderer] of Object.entries(this.bands ?? {})) renderer.visible = shown[level];
    this.fit();
  }

  get window() {
    return [this.x.start, this.x.end];
  }

  /** Look from `begin` to `end` (ms), kept inside `limits`. */
  look(begin, end, limits) {
    const [low, high] = limits;
    const width = Math.min(end - begin, high - low);
    const start = Math.min(Math.max(begin, low), high - width);
    this.silent = true;
    // Bounds that do not fit the range would be applied to it at once.
    this.x.bounds = null;
    this.x.setv({ start, end: start + width });
    this.x.bounds = [low, high];
    this.silent = false;
    this.onWindow(start, start + width);
  }

  /** Choose the vertical range by what is in the window. */
  fit() {
    const [begin, end] = this.window;
    let [low, high] = [Infinity, -Infinity];
    const take = (time, lows, highs) => {
      time.forEach((when, at) => {
        if (when < begin || when > end) return;
        low = Math.min(low, lows[at]);
        high = Math.max(high, highs[at]);
      });
    };
    take(this.history.time, this.history.min, this.history.max);
    const [lowest, highest] = this.shown["95"] ? ["0.025", "0.975"] : this.shown["80"] ? ["0.1", "0.9"] : ["0.5", "0.5"];
    take(this.forecast.time, this.forecast[lowest], this.forecast[highest]);
    for (const path of this.forecast.paths) take(this.forecast.time, path, path);
    if (low > high) return;
    if (this.fromZero) low = 0;
    const pad = (high - low || Math.abs(high) || 1) * 0.06;
    this.y.setv({ start: this.fromZero ? 0 : low - pad, end: high + pad });
  }
}
