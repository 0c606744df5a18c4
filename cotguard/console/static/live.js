// What the gateway is doing now, in the last hour, and what it has done since its start.

import { follow, get } from "./api.js";
import { Charts } from "./charts.js";
import { Counted } from "./counted.js";
import { fill, h, select, set } from "./dom.js";
import { clock, count, duration, exact, kindOf, NOTHING, rate, tag } from "./format.js";
import { LastHour } from "./lasthour.js";

const SILENCE = 10_000; // milliseconds without a sample after which what is shown is called old
const SPANS = [[300, "5 minutes"], [900, "15 minutes"], [3600, "1 hour"]];
const OUTSIDE = { true: ["up", "good"], false: ["down", "bad"], null: ["not checked", ""] };

/** A tile's parts are [name in a sample, what it is called beside others]. */
const TILES = [
  { title: "Active streams", format: count, parts: [["active", ""]], means: "Answers under way." },
  { title: "Requests", format: rate, parts: [["requests", ""]], means: "Requests that ended." },
  { title: "Events", format: rate, parts: [["events", ""]], means: "Pieces of answers that went through." },
  { title: "Waiting", format: count, parts: [["waiting", ""]], means: "Requests that wait for a place.", alarm: true },
  { title: "Added latency", format: duration, parts: [["added_p50", "p50"], ["added_p99", "p99"]], means: "From the read that decides text to its write." },
  { title: "First text, upstream", format: duration, parts: [["first_upstream_p50", "p50"], ["first_upstream_p99", "p99"]], means: "Until the upstream's first text came." },
  { title: "First text, delivered", format: duration, parts: [["first_delivered_p50", "p50"], ["first_delivered_p99", "p99"]], means: "Until the client was sent its first text." },
  { title: "Event loop lag", format: duration, parts: [["loop_lag_p99", "p99"]], means: "How late the gateway's own tasks run." },
  { title: "On hold", format: count, parts: [["held_p50", "p50"], ["held_p99", "p99"]], means: "Characters that are not decided yet, after a read." },
  { title: "Time on hold", format: duration, parts: [["held_seconds_p50", "p50"], ["held_seconds_p99", "p99"]], means: "From text coming in to nothing being held." },
  { title: "Classifier queue", format: count, parts: [["classifier_queue", "windows"], ["guard_queue", "guard"]], means: "Windows of text, and questions to the guard, that wait." },
  { title: "Classifier batch", format: count, parts: [["classifier_batch_p50", "p50"], ["classifier_batch_p99", "p99"]], means: "Windows that are judged together." },
  { title: "Failed closed", format: rate, parts: [["failed_closed", ""]], means: "Exchanges that ended because of a fault.", alarm: true },
  { title: "Failed open", format: rate, parts: [["failed_open", ""]], means: "Went on without moderation, as the policy allows.", alarm: true },
  { title: "Decisions", format: rate, parts: [["decisions", ""]], means: "Values that were decided on." },
  { title: "Workers", format: count, parts: [["workers", ""]], means: "Processes that serve." },
];

export async function show(main) {
  const page = new Live();
  fill(main, page.element);
  await page.start();
}

class Live {
  constructor() {
    this.hour = new LastHour();
    this.paused = false;
    this.silent = false;
    this.hindrance = "";
    this.last = null;
    this.banner = h("div", { class: "banner", role: "alert", hidden: true });
    this.pausing = h("button", { type: "button", class: "plain", onclick: () => this.pause(!this.paused) }, "Pause");
    this.state = h("p", { class: "hint state" }, "Waiting for the first numbers.");
    this.tiles = TILES.map(tile);
    this.charts = h("div", { class: "charts" });
    this.at = h("input", { type: "range", min: 0, max: 100, value: 100, "aria-label": "Values at", "aria-valuetext": "now", oninput: () => this.look() });
    this.totals = totals();
    this.sums = { events: sum("events", "Events"), active: sum("active", "Streams under way") };
    this.upstreams = h("tbody", { role: "rowgroup" });
    this.element = [
      h("div", { class: "heading" }, h("h1", {}, "Live"), this.state, this.pausing),
      this.banner,
      h("section", { "aria-labelledby": "now" },
        h("h2", { id: "now" }, "Now"),
        h("p", { class: "hint" }, "p50: half of them were below. p99: all but one in a hundred. A dash: there was nothing to measure."),
        h("dl", { class: "tiles" }, this.tiles.map(({ element }) => element))),
      h("section", { "aria-labelledby": "hour" },
        h("div", { class: "heading" },
          h("h2", { id: "hour" }, "The last hour"),
          h("label", { class: "inline" }, "Show ", select(SPANS.map(([value, text]) => [String(value), text]), "900", { id: "span", onchange: (event) => this.stretch(Number(event.target.value)) })),
          h("label", { class: "inline at" }, "Values at ", this.at)),
        this.charts),
      h("section", { "aria-labelledby": "since" },
        h("h2", { id: "since" }, "Since the start"),
        h("dl", { class: "sums" }, Object.values(this.sums).map(({ element }) => element)),
        this.totals.decisions.element, this.totals.requests.element, this.totals.failures.element),
      h("section", { "aria-labelledby": "upstreams" }, h("h2", { id: "upstreams" }, "Upstreams"), upstreamTable(this.upstreams)),
    ];
  }

  async start() {
    this.drawn = new Charts(this.charts, this.hour, 900);
    await this.recall();
    let broken = false;
    follow("live", {
      sample: (data) => this.hear(data),
      error: () => {
        broken = true;
        this.silence(true);
      },
      open: () => {
        if (broken && !this.paused) this.catchUp();
        broken = false;
      },
    });
    document.addEventListener("visibilitychange", () => this.draw());
  }

  /** Fill the charts with what the gateway remembers. */
  async recall() {
    this.hour.merge(await get("live/history"));
    this.draw();
  }

  /** Recall what was missed; where that fails the charts have a gap, no more. */
  catchUp() {
    return this.recall().catch(() => {});
  }

  hear({ sample, totals: counted }) {
    this.last = { sample, counted };
    if (!this.paused) this.hour.push(sample);
    this.hindrance = counted.hindrance;
    this.silence(false);
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => this.silence(true), SILENCE);
    this.draw();
  }

  silence(silent) {
    this.silent = silent;
    document.body.classList.toggle("stale", silent);
    const told = [
      silent && `The connection to the gateway is lost. ${this.last ? `The numbers are of ${clock(this.last.sample.time)}. ` : ""}It is tried again by itself.`,
      !silent && this.hindrance && `The gateway is not ready: ${this.hindrance}`,
    ].filter(Boolean).join(" ");
    if (this.banner.textContent === told) return; // a screen reader would say it again
    this.banner.textContent = told;
    set(this.banner, { hidden: !told });
  }

  pause(paused) {
    this.paused = paused;
    this.pausing.textContent = paused ? "Continue" : "Pause";
    if (!paused) this.catchUp();
    else this.state.textContent = `Paused at ${clock(this.last?.sample.time ?? Date.now() / 1000)}; the gateway remembers what comes meanwhile.`;
  }

  stretch(span) {
    this.drawn.span = span;
    this.drawn.moment = null;
    this.drawn.draw();
    this.slide();
  }

  /** Let the tables tell the values of the time that the slider is at. */
  look() {
    const { drawn, at } = this;
    const [from, to] = drawn.range;
    drawn.moment = at.value === at.max ? null : from + (to - from) * (at.value / at.max);
    for (const chart of drawn.shown) chart.tell();
    this.slide();
  }

  /** Put the slider where the moment is, which moves while time goes on. */
  slide() {
    const { drawn, at } = this;
    const [from, to] = drawn.range;
    if (drawn.moment !== null && drawn.moment < from) drawn.moment = null;
    at.value = drawn.moment === null ? at.max : ((drawn.moment - from) / (to - from)) * at.max;
    set(at, { "aria-valuetext": drawn.moment === null ? "now" : clock(drawn.moment) });
  }

  draw() {
    if (this.paused || document.hidden) return;
    this.slide();
    this.drawn.draw();
    if (this.last === null) return;
    const { sample, counted } = this.last;
    this.state.textContent = `As of ${clock(sample.time)}, every ${this.hour.interval} s.`;
    for (const each of this.tiles) each.tell(sample);
    for (const [name, table] of Object.entries(this.totals)) table.update(counted[name]);
    for (const [name, one] of Object.entries(this.sums)) one.tell(counted[name]);
    this.drawUpstreams(counted.upstreams);
  }

  drawUpstreams(servers) {
    const told = JSON.stringify(servers);
    if (told === this.told) return;
    this.told = told;
    fill(this.upstreams, servers.map(upstream));
  }
}

function tile({ title, format, parts, means, alarm }) {
  const cells = parts.map(([name, called]) => ({ name, called, number: h("span", { class: "number", "data-now": name }, NOTHING) }));
  const element = h("div", { class: "card tile" },
    h("dt", {}, title),
    h("dd", { class: "values" }, cells.map(({ called, number }) => h("span", {}, number, called && h("span", { class: "hint" }, ` ${called}`)))),
    h("dd", { class: "hint" }, means));
  const tell = (sample) => {
    for (const { name, number } of cells) {
      const value = sample[name] ?? null;
      number.textContent = format(value);
      set(number, { "data-value": value ?? "", title: value ?? "nothing to measure" });
    }
    if (alarm) element.classList.toggle("alarm", sample[parts[0][0]] > 0);
  };
  return { element, tell };
}

function totals() {
  return {
    decisions: new Counted({ title: "Decisions", metric: "decisions", columns: ["entity", "channel", "action", "outcome"], tagged: { outcome: kindOf }, empty: "Nothing has been found yet." }),
    requests: new Counted({ title: "Requests", metric: "requests", columns: ["dialect", "status", "outcome"], tagged: { outcome: kindOf }, empty: "No request has ended yet." }),
    failures: new Counted({ title: "Failures", metric: "failures", columns: ["kind", "mode"], tagged: { mode: (mode) => (mode === "open" ? "bad" : "held") }, empty: "Nothing has failed." }),
  };
}

function sum(metric, title) {
  const number = h("dd", { class: "number", "data-metric": metric, "data-labels": "" }, NOTHING);
  const tell = (value) => {
    number.textContent = exact(value);
    set(number, { "data-value": value });
  };
  return { element: h("div", {}, h("dt", {}, title), number), tell };
}

function upstreamTable(body) {
  const headings = ["pool", "server", "health check", "breaker", "under way", "requests"];
  return h("div", { class: "card scroll", tabindex: 0, role: "region", "aria-label": "Upstreams, table" },
    h("table", { role: "table", class: "cards" },
      h("caption", { class: "unseen" }, "Servers of the upstreams, and what became of requests to them"),
      h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, headings.map((heading) => h("th", { scope: "col", role: "columnheader" }, heading)))),
      body));
}

function upstream({ pool, server, up, breaker, outstanding, requests }) {
  const labels = `${pool}|${server}`;
  const [health, kind] = OUTSIDE[up];
  const became = Object.entries(requests);
  const cell = (label, metric, value, ...shown) => h("td", { role: "cell", "data-label": label, "data-metric": metric, "data-labels": labels, "data-value": value }, shown);
  return h("tr", { role: "row" },
    h("td", { role: "cell", "data-label": "pool" }, pool),
    h("td", { role: "cell", "data-label": "server", class: "mono" }, server),
    cell("health check", "upstream_up", String(up), tag(health, kind)),
    cell("breaker", "upstream_breaker", String(breaker), breaker === null ? NOTHING : tag(breaker, kindOf(breaker))),
    cell("under way", "upstream_outstanding", outstanding, exact(outstanding)),
    h("td", { role: "cell", "data-label": "requests" }, became.length === 0 ? "none yet" : h("ul", { class: "plain" }, became.map(([outcome, number]) =>
      h("li", {}, `${outcome.replaceAll("_", " ")} `,
        h("span", { class: "number", "data-metric": "upstream_requests", "data-labels": `${labels}|${outcome}`, "data-value": number }, exact(number)))))));
}
