// One exchange, opened beside the list: its facts, where its values stood, what was decided, where else they occur.

import { get } from "./api.js";
import { fill, h, set } from "./dom.js";
import { digest, duration, exact, kindOf, many, moment, NOTHING, tag } from "./format.js";

const NARROWEST = 0.4; // percent of a strip: less is not seen

/** A dialog. `leave(request_id)` is called when it is closed, `go(request_id)` when another exchange is asked for. */
export class Opened {
  constructor({ leave, go }) {
    this.go = go;
    this.request = "";
    this.body = h("div", { class: "body" });
    this.title = h("h2", { id: "opened", tabindex: -1 }, "Exchange");
    this.element = h("dialog", {
      class: "opened", "aria-labelledby": "opened",
      onclose: () => {
        const left = this.request;
        this.request = "";
        leave(left);
      },
      onclick: (event) => { if (event.target === this.element) this.close(); }, // the backdrop
    },
      h("header", {}, this.title, h("button", { type: "button", class: "plain", onclick: () => this.close() }, "Close")),
      this.body);
  }

  close() {
    if (this.element.open) this.element.close();
  }

  async show(request) {
    if (request === this.request) return;
    this.request = request;
    if (!this.element.open) this.element.showModal();
    set(this.element, { "data-request": null, "aria-busy": true });
    fill(this.body, h("p", { class: "hint" }, "Reading the trail."));
    this.title.focus();
    let shown;
    try {
      const told = await get(`exchanges/${encodeURIComponent(request)}`);
      shown = this.#told(request, told);
    } catch (error) {
      shown = [h("p", { class: "mono" }, request), h("p", { class: "problem", role: "alert" }, error.message)];
    }
    if (request !== this.request) return;
    fill(this.body, shown);
    this.element.scrollTop = 0;
    set(this.element, { "data-request": request, "aria-busy": null });
  }

  #told(request, { exchange, decisions }) {
    return [
      h("p", { class: "mono id" }, request),
      exchange ? facts(exchange) : h("p", { class: "hint" }, "It has no record of its end: it is still under way, or that record was lost."),
      decisions.length === 0 ? h("p", {}, "Nothing was decided about it.") : [
        h("h3", {}, "Where the values stood"), strips(decisions, exchange),
        h("h3", {}, many(decisions.length, "decision")), this.#table(decisions),
      ],
    ].flat();
  }

  #table(decisions) {
    const headings = ["channel", "entity", "offset", "length", "score", "found by", "action and outcome", "value"];
    return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Decisions, table" },
      h("table", { role: "table", class: "cards decisions" },
        h("caption", { class: "unseen" }, "Decisions of this exchange, in their order"),
        h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, headings.map((heading, place) =>
          h("th", { scope: "col", role: "columnheader", class: place > 1 && place < 5 ? "number" : null }, heading)))),
        h("tbody", { role: "rowgroup" }, decisions.map((decision) => this.#row(decision)))));
  }

  #row(decision) {
    const { seq, direction, channel, entity, start, length, score, detector, rule, action, outcome, value } = decision;
    const cell = (label, properties, ...shown) => h("td", { role: "cell", "data-label": label, ...properties }, h("div", {}, shown));
    const number = (label, told) => cell(label, { class: "number", "data-field": label, "data-value": told }, entity ? exact(told) : NOTHING);
    const row = h("tr", { role: "row", "data-seq": seq, "data-entity": entity, "data-outcome": outcome },
      cell("channel", {}, channel, direction === "request" && h("div", { class: "hint" }, "request")),
      cell("entity", {}, entity || h("i", {}, "moderation failed")),
      number("offset", start), number("length", length),
      cell("score", { class: "number", "data-field": "score", "data-value": score }, entity ? score.toFixed(2) : NOTHING),
      cell("found by", {}, detector || NOTHING, h("div", { class: "hint", "data-field": "rule", "data-value": rule }, rule < 0 ? "default of the policy" : `rule ${rule + 1} of the policy`)),
      cell("action", {}, h("span", { "data-field": "action" }, action), " ", tag(outcome.replaceAll("_", " "), kindOf(outcome))),
      cell("value", {}, value ? [digest(value, 8), " ", this.#recurring(decision, () => row)] : NOTHING));
    return row;
  }

  /** How often the value was decided on, and a button that shows where. */
  #recurring({ value, recurrences }, row) {
    if (recurrences < 2) return h("span", { class: "hint", "data-recurrences": recurrences }, "only here");
    let shown = null;
    const button = h("button", {
      type: "button", class: "plain small", "aria-expanded": "false", "data-recurrences": recurrences,
      "aria-label": `${many(recurrences, "decision")} about the value ${value.slice(0, 8)}: show where`,
      onclick: async () => {
        if (shown) {
          shown.remove();
          shown = null;
          set(button, { "aria-expanded": "false" });
          return;
        }
        const place = h("td", { role: "cell", colspan: 8 }, h("p", { class: "hint" }, "Reading the trail."));
        shown = h("tr", { role: "row", class: "recurring", "data-value-of": value }, place);
        row().after(shown);
        set(button, { "aria-expanded": "true" });
        try {
          fill(place, this.#recurrences(await get(`values/${encodeURIComponent(value)}`)));
        } catch (error) {
          fill(place, h("p", { class: "problem", role: "alert" }, error.message));
        }
      },
    }, `${exact(recurrences)}\u00d7`);
    return button;
  }

  #recurrences({ decisions, exchanges, latest }) {
    const callers = new Set(latest.map(({ caller }) => caller)).size;
    const whose = decisions > latest.length ? `; the latest ${exact(latest.length)} are of ${many(callers, "caller")}` : `, of ${many(callers, "caller")}`;
    return h("div", {},
      h("p", { role: "status" }, `The same value: ${many(decisions, "decision")} in ${many(exchanges, "exchange")}${whose}.`),
      h("ul", { class: "plain" }, latest.map(({ time, request_id, caller, channel, entity, outcome }) => h("li", {},
        request_id === this.request
          ? h("span", {}, moment(time), " (this exchange)")
          : h("button", { type: "button", class: "link", "data-open": request_id, "aria-label": `Open the exchange ${request_id}`, onclick: () => this.go(request_id) }, moment(time)),
        h("span", {}, caller), h("span", {}, `${entity} in ${channel}`), tag(outcome.replaceAll("_", " "), kindOf(outcome))))));
  }
}

function facts(exchange) {
  const { time, caller, role, route, model, dialect, policy, policy_digest, upstream, status, outcome, stream, seconds, received, delivered, failure } = exchange;
  const told = [
    ["Ended", moment(time)], ["Caller", role ? `${caller} (role ${role})` : caller], ["Model", model], ["Upstream", upstream],
    ["Route", h("span", { class: "mono" }, route)], ["Dialect", dialect],
    ["Policy", [policy, " ", digest(policy_digest)]],
    ["Outcome", [tag(outcome.replaceAll("_", " "), kindOf(outcome)), ` ${status}`, failure && `, ${failure.replaceAll("_", " ")}`]],
    ["Took", [h("span", { title: `${seconds} s` }, duration(seconds)), stream ? ", streamed" : ", in one piece"]],
    ["Characters", `${exact(received)} received, ${exact(delivered)} delivered`],
  ];
  return h("dl", { class: "facts" }, told.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value || NOTHING))));
}

/** A strip for each channel, with a mark for each value. What a response's channels hold is only known in sum. */
function strips(decisions, exchange) {
  const channels = Map.groupBy(decisions.filter(({ entity }) => entity), ({ direction, channel }) => `${direction} ${channel}`);
  return h("ul", { class: "plain strips" }, [...channels.values()].map((values) => {
    const { direction, channel } = values[0];
    const last = Math.max(...values.map(({ start, length }) => start + length));
    const response = direction === "response";
    const whole = Math.max(last, response ? exchange?.received ?? 0 : 0, 1);
    const end = response && exchange && exchange.received >= last ? `${exact(whole)} characters received in all channels` : `character ${exact(whole)}, the end of the last value`;
    const strip = h("div", { class: "strip", "aria-hidden": "true" }, values.map(({ seq, start, length, entity, outcome }) => {
      const mark = h("span", { class: `mark ${kindOf(outcome)}`, "data-seq": seq, title: `${entity}, ${start}\u2013${start + length}: ${outcome}` });
      const width = Math.max((length / whole) * 100, NARROWEST);
      mark.style.left = `${Math.min((start / whole) * 100, 100 - width)}%`;
      mark.style.width = `${width}%`;
      return mark;
    }));
    return h("li", { "data-strip": channel },
      h("div", { class: "ends" }, h("b", {}, response ? channel : `${channel} (request)`), h("span", { class: "hint" }, many(values.length, "value"))),
      strip,
      h("div", { class: "ends hint" }, h("span", {}, "0"), h("span", {}, end)));
  }));
}
