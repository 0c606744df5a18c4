// Charts of the last hour. Under each is a table with its values, which is also how it is read without seeing it.

import uPlot from "./vendor/uplot.js";
import { fill, h, set } from "./dom.js";
import { clock, count, duration, rate } from "./format.js";

const HEIGHT = 170;
const SHORTEST = 60; // seconds
const HALVES = [["p50", "p50", 1, [4, 4]], ["p99", "p99", 2, []]];

/** A pair of quantiles of one distribution. */
function quantiles(name) {
  return HALVES.map(([end, label, colour, dash]) => ({ name: `${name}_${end}`, label, colour, dash }));
}

const CHARTS = [
  { name: "requests", title: "Requests and decisions", format: rate, series: [
    { name: "requests", label: "requests", colour: 1 }, { name: "decisions", label: "decisions", colour: 2 }] },
  { name: "events", title: "Events", format: rate, series: [{ name: "events", label: "events", colour: 1 }] },
  { name: "streams", title: "Streams", format: count, series: [
    { name: "active", label: "active", colour: 1 }, { name: "waiting", label: "waiting for a place", colour: 4 }] },
  { name: "added", title: "Added latency", format: duration, series: quantiles("added") },
  { name: "first", title: "Time to first text", format: duration, series: [
    { name: "first_upstream_p50", label: "upstream p50", colour: 3, dash: [4, 4] },
    { name: "first_upstream_p99", label: "upstream p99", colour: 3 },
    { name: "first_delivered_p50", label: "delivered p50", colour: 2, dash: [4, 4] },
    { name: "first_delivered_p99", label: "delivered p99", colour: 2 }] },
  { name: "held", title: "Characters on hold", format: count, series: quantiles("held") },
  { name: "held_seconds", title: "Time on hold", format: duration, series: quantiles("held_seconds") },
  { name: "classifier", title: "Classifier and guard", format: count, series: [
    { name: "classifier_queue", label: "windows queued", colour: 1 },
    { name: "classifier_batch_p99", label: "batch p99", colour: 2, dash: [4, 4] },
    { name: "guard_queue", label: "guard queue", colour: 3 }] },
  { name: "failures", title: "Failures", format: rate, series: [
    { name: "failed_closed", label: "closed", colour: 2, dash: [4, 4] }, { name: "failed_open", label: "open", colour: 4 }] },
  { name: "lag", title: "Event loop lag", format: duration, series: [{ name: "loop_lag_p99", label: "p99", colour: 1 }] },
];

/** All charts over one stretch of time. Draw again after anything has changed: samples, span or moment. */
export class Charts {
  /** `hour`: the samples, a LastHour. `span`: how many seconds are shown. */
  constructor(element, hour, span) {
    this.hour = hour;
    this.span = span;
    this.moment = null; // whose values the tables tell; null: the latest
    this.pointed = null; // the same, as long as a pointer is over a chart
    this.shown = CHARTS.map((chart) => new Chart(chart, this));
    fill(element, this.shown.map((chart) => chart.figure));
    for (const chart of this.shown) chart.start();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      for (const chart of this.shown) chart.recolour();
    });
  }

  draw() {
    for (const chart of this.shown) chart.draw();
  }

  /** Tell the values of the time that a pointer is at; null: it has left. */
  point(time) {
    this.pointed = time;
    for (const chart of this.shown) chart.tell();
  }

  /** The times that are shown, first and last: no more than there are samples for, and no less than a minute. */
  get range() {
    const last = this.hour.latest ?? Date.now() / 1000;
    const known = Math.max(last - (this.hour.columns.time[0] ?? last), SHORTEST);
    return [last - Math.min(this.span, known), last];
  }
}

class Chart {
  constructor({ name, title, format, series }, all) {
    this.title = title;
    this.format = format;
    this.series = series;
    this.all = all;
    this.plot = h("div", { class: "plot", role: "img" });
    this.when = h("th", { scope: "col", class: "number" }, "now");
    this.rows = series.map((each) => ({
      each,
      now: h("td", { class: "number", "data-series": each.name }),
      least: h("td", { class: "number" }),
      most: h("td", { class: "number" }),
    }));
    this.figure = h("figure", { class: "card chart", "data-chart": name },
      h("figcaption", {}, h("h3", {}, title)),
      this.plot,
      h("table", {},
        h("caption", { class: "unseen" }, `${title}: values`),
        h("thead", {}, h("tr", {}, h("th", { scope: "col" }, h("span", { class: "unseen" }, "what")), this.when,
          h("th", { scope: "col", class: "number" }, "least"), h("th", { scope: "col", class: "number" }, "most"))),
        h("tbody", {}, this.rows.map(({ each, now, least, most }) =>
          h("tr", {}, h("th", { scope: "row" }, swatch(each), each.label), now, least, most)))));
  }

  /** Make the plot, as soon as there is a place for it. */
  start() {
    this.colours();
    this.uplot = new uPlot(this.#options(), this.#data(), this.plot);
    const { over } = this.uplot;
    over.addEventListener("pointermove", (event) => this.all.point(this.uplot.posToVal(event.offsetX, "x")));
    over.addEventListener("pointerleave", () => this.all.point(null));
    new ResizeObserver(() => {
      const { clientWidth } = this.plot;
      if (clientWidth > 0 && clientWidth !== this.uplot.width) this.uplot.setSize({ width: clientWidth, height: HEIGHT });
    }).observe(this.plot);
  }

  colours() {
    const style = getComputedStyle(document.documentElement);
    this.colour = (name) => style.getPropertyValue(name).trim();
  }

  recolour() {
    this.colours();
    this.uplot.redraw(false);
  }

  draw() {
    this.uplot.setData(this.#data());
    this.tell();
  }

  /** Write the table, and the name of the plot for those who do not see it; put the line where the values are. */
  tell() {
    const { hour, range, span } = this.all;
    const { time } = hour.columns;
    const at = this.all.pointed ?? this.all.moment;
    const row = at === null ? time.length - 1 : hour.rowAt(at);
    this.when.textContent = at === null ? "now" : clock(time[row] ?? at);
    const left = at === null ? -10 : ((at - range[0]) / span) * this.uplot.over.clientWidth;
    this.uplot.setCursor({ left, top: 1 }, false);
    const from = hour.rowAt(range[0]);
    for (const { each, now, least, most } of this.rows) {
      const column = hour.columns[each.name] ?? [];
      const seen = column.slice(from).filter((value) => value !== null);
      this.#write(now, column[row] ?? null);
      this.#write(least, seen.length ? seen.reduce((one, other) => Math.min(one, other)) : null);
      this.#write(most, seen.length ? seen.reduce((one, other) => Math.max(one, other)) : null);
    }
    const told = this.rows.map(({ each, now }) => `${each.label} ${now.textContent}`).join(", ");
    set(this.plot, { "aria-label": `Chart of ${this.title.toLowerCase()}, ${clock(range[0])} to ${clock(range[1])}. ${this.when.textContent}: ${told}` });
  }

  #write(cell, value) {
    cell.textContent = this.format(value);
    set(cell, { "data-value": value ?? "", title: value });
  }

  #data() {
    const { columns } = this.all.hour;
    return [columns.time, ...this.series.map(({ name }) => columns[name] ?? columns.time.map(() => null))];
  }

  #options() {
    const axis = {
      stroke: () => this.colour("--faint"),
      grid: { stroke: () => this.colour("--line"), width: 1 },
      ticks: { show: false },
      font: "12px system-ui, sans-serif",
    };
    return {
      width: this.plot.clientWidth || 300,
      height: HEIGHT,
      padding: [8, 8, 0, 0],
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, points: { size: 6 } },
      scales: {
        x: { range: () => this.all.range },
        y: { range: (_, least, most) => [0, (most || 1) * 1.1] },
      },
      axes: [
        { ...axis, space: 64, size: 28, values: (_, splits, __, ___, step) => splits.map((at) => clock(at, step < 60)) },
        { ...axis, space: 34, size: 62, values: (_, splits) => splits.map((value) => this.format(value)) },
      ],
      series: [{}, ...this.series.map(({ label, colour, dash }) => ({
        label, dash, width: 1.75, stroke: () => this.colour(`--series-${colour}`), points: { show: false },
      }))],
    };
  }
}

/** What the line of a series looks like; the dashes tell it apart without its colour. */
function swatch({ colour, dash }) {
  return h("span", { class: `swatch series-${colour} ${dash?.length ? "dashed" : ""}` });
}
