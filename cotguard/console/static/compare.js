// The draft beside the policy in force, on texts that are pasted and on the samples that come with cotguard.

import { post } from "./api.js";
import { differences } from "./diff.js";
import { field, fill, h, select, set } from "./dom.js";
import { many, tag } from "./format.js";
import { problemList } from "./problems.js";
import { sides } from "./sides.js";
import { area } from "./source.js";
import { highlighted, legend, teller, valuesOf } from "./spans.js";
import { CHANNELS } from "./words.js";

const TOKEN = /\[[^\][\s]*\]|[\p{L}\p{N}_]+|\s+|[^\p{L}\p{N}_\s]/gu;

/** The card for comparing. `about()` gives {policy, draft}. */
export function compareCard(about) {
  const texts = h("div", { class: "texts" });
  const samples = h("input", { type: "checkbox", id: "samples", checked: true, autocomplete: "off" });
  const result = h("div", { class: "compared", role: "region", "aria-label": "Comparison" });
  const wrong = h("div", { role: "alert" });
  const button = h("button", { type: "submit" }, "Compare");

  function addText() {
    const number = texts.children.length + 1;
    const text = area(3);
    texts.append(h("div", { class: "onetext" },
      field(`Text ${number}`, text),
      field(`Channel of text ${number}`, select(CHANNELS.slice(0, 5), "output", { autocomplete: "off" }))));
    return text;
  }

  function entered() {
    return [...texts.children]
      .map((each) => ({ channel: each.querySelector("select").value, text: each.querySelector("textarea").value }))
      .filter(({ text }) => text);
  }

  async function compare(event) {
    event.preventDefault();
    fill(wrong);
    const given = entered();
    if (!given.length && !samples.checked) {
      fill(wrong, h("p", { class: "problem" }, "Enter a text, or take the samples."));
      return;
    }
    set(button, { disabled: true, "aria-busy": "true" });
    fill(button, "Comparing\u2026");
    try {
      fill(result, shown(await post("compare", { ...about(), texts: given.length ? given : null, samples: samples.checked })));
    } catch (error) {
      fill(result);
      fill(wrong, h("p", { class: "problem" }, error.message), problemList(error.problems ?? []));
    } finally {
      set(button, { disabled: false, "aria-busy": null });
      fill(button, "Compare");
    }
  }

  addText();
  return h("section", { class: "card", "aria-labelledby": "compare-title", "data-card": "compare" },
    h("h2", { id: "compare-title" }, "Compare"),
    h("p", { class: "hint" }, "What both make of the same texts. Nothing that you enter here is stored or logged."),
    h("form", { class: "enter", autocomplete: "off", onsubmit: compare },
      texts,
      h("label", { class: "check" }, samples, " The samples that come with cotguard"),
      h("div", { class: "row" }, button, h("button", { type: "button", class: "plain", onclick: () => addText().focus() }, "Add a text")),
      wrong),
    result);
}

function shown({ rows, totals }) {
  const differing = rows.filter(({ same }) => !same);
  const alike = rows.filter(({ same }) => same);
  return [
    h("p", { class: "message", role: "status", "data-differing": differing.length },
      differing.length ? `${many(differing.length, "text")} of ${rows.length} ${differing.length === 1 ? "differs" : "differ"}.` : `No difference in ${many(rows.length, "text")}.`),
    legend(rows.flatMap(({ active, draft }) => [...active.spans, ...draft.spans])),
    h("details", { class: "alike" }, h("summary", {}, "All decisions in sum"), sides("Decisions on these texts", totals.active, totals.draft)),
    differing.map(rowView),
    alike.length > 0 && h("details", { class: "alike" }, h("summary", {}, `${many(alike.length, "text")} without a difference`), alike.map(rowView)),
  ];
}

function rowView(row) {
  const [before, after] = delivered(row);
  return h("article", { class: "compare", "data-row": row.label, "data-same": String(row.same), "data-channel": row.channel },
    h("h3", {}, row.label, " ", tag(row.channel), " ", row.same ? tag("same", "good") : tag("differs", "held")),
    h("div", { class: "sides" }, side("active", "In force", row.active, before), side("draft", "Draft", row.draft, after)),
    !row.same && row.active.delivered === row.draft.delivered &&
      h("p", { class: "hint" }, "Both deliver the same; what they decided about the values differs."),
    h("details", { class: "more" }, h("summary", {}, `Values: ${valuesOf(row.active.spans)} in force, ${valuesOf(row.draft.spans)} with the draft`),
      h("div", { class: "sides" }, found("In force", row.raw, row.active), found("Draft", row.raw, row.draft))));
}

function side(name, title, made, text) {
  return h("div", { "data-side": name }, h("h4", {}, title), h("div", { class: "text" }, text),
    made.blocked && h("p", { class: "problem" }, "Blocked: the exchange ends here."),
    made.fault && h("p", { class: "problem" }, `Fault: ${made.fault}.`));
}

function found(title, raw, made) {
  const about = teller(raw);
  return h("div", {}, h("h4", {}, title), highlighted(raw, made.spans, about.tell), about.element);
}

/** What both deliver, with what only one of them does marked. */
function delivered({ active, draft }) {
  const parts = differences(active.delivered.match(TOKEN) ?? [], draft.delivered.match(TOKEN) ?? []);
  const of = (kind, tagName) => parts.filter((part) => part.kind === "same" || part.kind === kind).map((part) =>
    part.kind === "same" ? part.items.join("") : h(tagName, { class: "differs" }, part.items.join("")));
  return [of("removed", "del"), of("added", "ins")];
}
