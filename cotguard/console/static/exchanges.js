// What the audit trail tells of exchanges: who asked, what became of it. One that is opened tells its decisions.

import { get } from "./api.js";
import { field, fill, h, select, set } from "./dom.js";
import { Opened } from "./exchange.js";
import { duration, exact, kindOf, many, moment, tag } from "./format.js";

const PAGE = 50;
const AGES = [["900", "last 15 minutes"], ["3600", "last hour"], ["86400", "last 24 hours"], ["604800", "last 7 days"], ["", "all"]];
const FILTERS = [["caller", "Caller", "callers"], ["route", "Route", "routes"], ["model", "Model", "models"], ["entity", "Entity", "entities"], ["outcome", "Outcome", "outcomes"]];

export async function show(main) {
  const page = new Exchanges(await get("exchanges/filters"));
  fill(main, h("h1", {}, "Exchanges"), page.element);
  if (!(await page.start())) fill(main, h("h1", {}, "Exchanges"), untold());
}

function untold() {
  return h("div", { class: "card untold", "data-trail": "false" },
    h("h2", {}, "No audit trail is kept"),
    h("p", {}, "This page shows what an audit trail tells, and the gateway keeps none. Start it with"),
    h("pre", {}, "cotguard serve --audit-dir DIR"),
    h("p", {}, "(or COTGUARD_AUDIT_DIR=DIR). The trail is a directory of files with names, numbers and keyed hashes: never the text that was moderated. It tells of exchanges from then on."));
}

class Exchanges {
  constructor(known) {
    const asked = new URLSearchParams(location.search);
    this.controls = Object.fromEntries(FILTERS.map(([name, , list]) => [name, choice(name, known[list], asked.get(name) ?? "")]));
    this.controls.since = select(AGES, asked.get("since") ?? "", { name: "since" });
    this.listed = [];
    this.trail = true;
    this.turn = 0; // of the newest question: answers to older ones come too late
    this.status = h("p", { class: "hint told", role: "status" });
    this.problem = h("p", { class: "problem", role: "alert" });
    this.body = h("tbody", { role: "rowgroup" });
    this.older = h("button", { type: "button", class: "plain", hidden: true, onclick: () => this.load(true) }, "Show older");
    this.opened = new Opened({ leave: (request) => this.left(request), go: (request) => this.open(request) });
    const form = h("form", { class: "card filters", "aria-label": "Filters", onsubmit: (event) => event.preventDefault(), onchange: () => this.load() },
      FILTERS.map(([name, label]) => field(label, this.controls[name])), field("Since", this.controls.since),
      h("div", { class: "row" },
        h("button", { type: "button", onclick: () => this.load() }, "Refresh"),
        h("button", { type: "button", class: "plain", onclick: () => this.clear() }, "Clear")));
    this.element = [form, this.problem, this.status, this.table(), this.older, this.opened.element];
  }

  table() {
    const headings = ["time", "caller", "model and route", "outcome", "took", "received", "delivered", "decisions"];
    return h("div", { class: "card scroll", tabindex: 0, role: "region", "aria-label": "Exchanges, table" },
      h("table", { role: "table", class: "cards exchanges" },
        h("caption", { class: "unseen" }, "Exchanges, the newest first"),
        h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, headings.map((heading, place) =>
          h("th", { scope: "col", role: "columnheader", class: place > 3 ? "number" : null }, heading)))),
        this.body));
  }

  /** Show what the address names. False: there is no trail that tells of anything. */
  async start() {
    addEventListener("popstate", () => this.follow());
    await this.load();
    if (this.trail) this.follow();
    return this.trail;
  }

  /** Do what the address bar says about the opened exchange. */
  follow() {
    const request = new URLSearchParams(location.search).get("request");
    if (request) this.opened.show(request);
    else this.opened.close();
  }

  open(request) {
    this.address(request);
    this.opened.show(request);
  }

  /** After closing: the keyboard goes on where the exchange is listed, where nothing else has taken it. */
  left(request) {
    this.address("");
    const link = [...this.body.querySelectorAll("a")].find((each) => each.dataset.open === request);
    if (document.activeElement === document.body) link?.focus();
  }

  /** Keep the address such that it can be given to others: the filters and, where one is opened, its exchange. */
  address(request) {
    const query = this.query(request);
    if (query === location.search) return;
    if (request) history.pushState(null, "", query || location.pathname);
    else history.replaceState(null, "", query || location.pathname);
  }

  query(request) {
    const query = new URLSearchParams(Object.entries(this.controls).map(([name, { value }]) => [name, value]).filter(([, value]) => value));
    if (request) query.set("request", request);
    return query.size ? `?${query}` : "";
  }

  clear() {
    for (const control of Object.values(this.controls)) control.value = "";
    return this.load();
  }

  /** Ask for what the filters say; `older`: for the next page of it. */
  async load(older = false) {
    const turn = ++this.turn;
    this.problem.textContent = "";
    if (!older) this.address(new URLSearchParams(location.search).get("request"));
    try {
      const { trail, exchanges, more } = await get("exchanges", this.question(older));
      if (turn !== this.turn) return;
      this.trail = trail;
      const rows = exchanges.map((exchange) => this.row(exchange));
      if (older) this.body.append(...rows);
      else fill(this.body, rows);
      this.listed = older ? [...this.listed, ...exchanges] : exchanges;
      set(this.older, { hidden: !more });
      this.status.textContent = this.listed.length === 0 ? "No exchange is like this." : `${many(this.listed.length, "exchange")}, the newest first${more ? "; there are older ones" : ""}.`;
      if (older) rows[0]?.querySelector("a").focus();
    } catch (error) {
      if (turn === this.turn) this.problem.textContent = error.message;
    }
  }

  question(older) {
    const { since, ...others } = this.controls;
    const asked = Object.fromEntries(Object.entries(others).map(([name, { value }]) => [name, value]));
    if (since.value) asked.since = new Date(Date.now() - since.value * 1000).toISOString().replace("Z", "000Z"); // as records tell times
    if (older) asked.before = this.listed.at(-1).seq;
    return { ...asked, limit: PAGE };
  }

  row(exchange) {
    const { request_id, seq, time, caller, role, model, route, outcome, status, seconds, received, delivered, decisions, failure } = exchange;
    const link = h("a", {
      href: this.query(request_id) || "?", "data-open": request_id, "aria-haspopup": "dialog",
      onclick: (event) => {
        if (event.ctrlKey || event.metaKey || event.shiftKey) return; // another tab or window, as of any link
        event.preventDefault();
        this.open(request_id);
      },
    }, moment(time));
    const cell = (label, properties, ...shown) => h("td", { role: "cell", "data-label": label, ...properties }, h("div", {}, shown));
    const number = (label, value, text = exact(value)) => cell(label, { class: "number", title: value, "data-value": value }, text);
    return h("tr", { role: "row", "data-request": request_id, "data-seq": seq },
      cell("time", {}, link),
      cell("caller", {}, h("div", { class: "clamp", title: caller }, caller), role && h("div", { class: "hint" }, role)),
      cell("model", { class: "model" }, h("div", { class: "clamp", title: model }, model), h("div", { class: "hint mono" }, route)),
      cell("outcome", { "data-outcome": outcome }, tag(outcome.replaceAll("_", " "), kindOf(outcome)), ` ${status}`, failure && h("div", { class: "hint" }, failure.replaceAll("_", " "))),
      number("took", seconds, duration(seconds)), number("received", received), number("delivered", delivered), number("decisions", decisions));
  }
}

/** A select of what the trail knows, and of what the address names although it does not. */
function choice(name, known, chosen) {
  const values = known.includes(chosen) || !chosen ? known : [chosen, ...known];
  return select([["", "any"], ...values.map((value) => [value, name === "outcome" ? value.replaceAll("_", " ") : value])], chosen, { name });
}
