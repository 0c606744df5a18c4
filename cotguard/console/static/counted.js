// Tables of what was counted since the start: one row for each set of labels, sorted and filtered by who reads them.

import { fill, h, set } from "./dom.js";
import { exact, many, tag } from "./format.js";

/** A collapsible table of [label, ..., count] rows. `metric` names its numbers, `tagged` the columns shown as tags, with what tells their kinds. */
export class Counted {
  constructor({ title, metric, columns, tagged = {}, empty, open = true }) {
    this.metric = metric;
    this.columns = columns;
    this.tagged = tagged;
    this.rows = new Map();
    this.order = { column: columns.length, falling: true };
    this.sum = h("span", { class: "number" });
    this.shown = h("p", { class: "hint" });
    this.search = h("input", { type: "search", placeholder: "filter", "aria-label": `Filter ${title.toLowerCase()}`, oninput: () => this.#arrange(true) });
    this.head = [...columns, "count"].map((name, column) => h("th", { scope: "col", role: "columnheader", class: column === columns.length ? "number" : null },
      h("button", { type: "button", class: "sort", onclick: () => this.#sort(column) }, name)));
    this.body = h("tbody", { role: "rowgroup" });
    this.none = h("p", { class: "hint" }, empty);
    this.held = h("div", {},
      h("div", { class: "filter" }, this.search, this.shown),
      h("div", { class: "scroll tall", tabindex: 0, role: "region", "aria-label": `${title}, table` },
        h("table", { role: "table", class: "counted" },
          h("caption", { class: "unseen" }, `${title} since the start, by ${columns.join(", ")}`),
          h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, this.head)),
          this.body)));
    this.element = h("details", { class: "card totals", open, "data-totals": metric },
      h("summary", {}, h("h3", {}, title), this.sum), this.none, this.held);
    this.update([]);
  }

  update(counts) {
    let changed = false;
    let sum = 0;
    const gone = new Set(this.rows.keys()); // all of them, once the gateway has started anew
    for (const labelled of counts) {
      const labels = labelled.slice(0, -1).map(String);
      const number = labelled.at(-1);
      const key = labels.join("|");
      changed ||= !gone.delete(key);
      const row = this.rows.get(key) ?? this.#row(key, labels);
      sum += number;
      if (row.number === number) continue;
      row.number = number;
      row.cell.textContent = exact(number);
      set(row.cell, { "data-value": number });
    }
    for (const key of gone) this.rows.delete(key);
    this.sum.textContent = exact(sum);
    set(this.sum, { "data-total": this.metric, "data-value": sum });
    set(this.none, { hidden: this.rows.size > 0 });
    set(this.held, { hidden: this.rows.size === 0 });
    this.#arrange(changed || gone.size > 0);
  }

  #row(key, labels) {
    const cell = h("td", { role: "cell", class: "number", "data-metric": this.metric, "data-labels": key });
    const element = h("tr", { role: "row" }, labels.map((label, column) => h("td", { role: "cell", "data-label": this.columns[column] },
      Object.hasOwn(this.tagged, this.columns[column]) ? tag(label, this.tagged[this.columns[column]](label)) : label || h("i", {}, "fault"))), cell);
    const row = { labels, element, cell, number: null };
    this.rows.set(key, row);
    return row;
  }

  #sort(column) {
    const { order } = this;
    this.order = { column, falling: column === order.column ? !order.falling : column === this.columns.length };
    this.#arrange(true);
  }

  /** Put the rows in order. They stay where they are as long as none moves: who reads is not disturbed. */
  #arrange(changed) {
    const { column, falling } = this.order;
    const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = [...this.rows.values()].filter(({ labels }) => words.every((word) => labels.some((label) => label.toLowerCase().includes(word))));
    const compare = column === this.columns.length
      ? (one, other) => one.number - other.number
      : (one, other) => one.labels[column].localeCompare(other.labels[column]) || other.number - one.number;
    rows.sort((one, other) => (falling ? compare(other, one) : compare(one, other)));
    if (changed || rows.some(({ element }, place) => this.body.children[place] !== element)) fill(this.body, rows.map(({ element }) => element));
    this.head.forEach((cell, place) => set(cell, { "aria-sort": place === column ? (falling ? "descending" : "ascending") : null }));
    set(this.shown, { "aria-live": words.length ? "polite" : "off" }); // told to those who filter, not whenever a row is new
    const told = words.length ? `${exact(rows.length)} of ${many(this.rows.size, "row")}` : many(this.rows.size, "row");
    if (this.shown.textContent !== told) this.shown.textContent = told;
  }
}
