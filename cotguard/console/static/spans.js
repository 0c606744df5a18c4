// Spans in a text: highlighted where they stand, told in words, and as a table. Offsets are code points.

import { fill, h, set, table } from "./dom.js";
import { kindOf, tag } from "./format.js";
import { Points } from "./points.js";
import { outcome } from "./words.js";

const STOPS = new Set(["blocked", "withheld"]);
const STAYS = new Set(["allowed", "flagged", "would_have", "bypassed"]);
const LOOKS = { changed: "replaced", stays: "found, and delivered as it stands", stops: "withheld, or the exchange ends" };

/** How a span looks: what became of it. */
function look(span) {
  if (STOPS.has(span.outcome)) return "stops";
  return STAYS.has(span.outcome) ? "stays" : "changed";
}

/** The looks that `spans` have, explained. Null if there is none. */
export function legend(spans) {
  const seen = new Set(spans.map(look));
  if (!seen.size) return null;
  return h("p", { class: "legend" }, Object.entries(LOOKS).filter(([name]) => seen.has(name)).map(([name, words]) =>
    h("span", {}, h("mark", { class: `span ${name}` }, "value"), ` ${words}`)));
}

/**
 * A channel's raw text with its spans. Spans that overlap make one group, which the keyboard reaches as one and whose
 * spans are told together, to `tell`.
 */
export function highlighted(text, spans, tell) {
  const points = new Points(text);
  const body = h("div", { class: "text" });
  let at = 0;
  for (const group of groups(spans)) {
    body.append(points.slice(at, group.start), marked(points, group, tell));
    at = group.end;
  }
  body.append(points.slice(at));
  return body;
}

function marked(points, group, tell) {
  const names = [...new Set(group.spans.map(({ span }) => span.entity))];
  const show = () => {
    element.parentNode.querySelector(".hit[data-chosen]")?.removeAttribute("data-chosen");
    set(element, { "data-chosen": true });
    tell(group.spans.map(({ span }) => span));
  };
  const element = h("span", {
    class: "hit", role: "button", tabindex: 0, "aria-label": `${names.join(", ")}: ${points.slice(group.start, group.end)}`,
    onclick: show, onfocus: show,
    onkeydown: (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      show();
    },
  });
  const last = new Map();
  for (const { span } of group.spans) last.set(span.entity, Math.max(span.end, last.get(span.entity) ?? 0));
  const ends = [...new Set(group.spans.flatMap(({ span }) => [span.start, span.end]))].sort((a, b) => a - b);
  for (let index = 0; index + 1 < ends.length; index++) {
    const [start, end] = [ends[index], ends[index + 1]];
    let inner = points.slice(start, end);
    // The widest outside; a span that another one cuts is marked in parts.
    for (const { span, number } of group.spans.filter(({ span }) => span.start <= start && end <= span.end).reverse()) {
      const isLast = end === last.get(span.entity); // once in a group, at its end
      if (isLast) last.delete(span.entity);
      inner = h("mark", {
        class: `span ${look(span)}`, "data-span": number, "data-start": span.start, "data-end": span.end, "data-entity": span.entity,
        "data-named": isLast ? span.entity : null,
      }, inner);
    }
    element.append(inner);
  }
  return element;
}

/** How many values `spans` are: those that overlap are one, found by several detectors or in parts. */
export function valuesOf(spans) {
  return groups(spans).length;
}

/** Spans that overlap, together, in order, the widest first; each with its number among all. Empty ones have no place. */
function groups(spans) {
  const sorted = spans.map((span, number) => ({ span, number })).filter(({ span }) => span.end > span.start);
  sorted.sort((a, b) => a.span.start - b.span.start || b.span.end - a.span.end);
  const found = [];
  for (const each of sorted) {
    const last = found.at(-1);
    if (last && each.span.start < last.end) {
      last.end = Math.max(last.end, each.span.end);
      last.spans.push(each);
    } else {
      found.push({ start: each.span.start, end: each.span.end, spans: [each] });
    }
  }
  return found;
}

/** Spans in words. */
export function described(points, spans) {
  return spans.map((span) => h("article", { class: "about", "data-about": span.entity },
    h("h4", {}, span.entity, " ", tag(span.outcome, kindOf(span.outcome))),
    h("p", { class: "quote" }, points.slice(span.start, span.end)),
    h("p", {}, `Found by ${span.detector} with a score of ${span.score}, at ${span.start} to ${span.end}`,
      span.kind ? ` (${span.kind}). ` : ". ", `Decided: ${span.action}; ${outcome(span.outcome)}.`),
    h("p", {}, h("strong", {}, span.rule < 0 ? "Decided by no rule, but by the default. " : `Decided by rule ${span.rule + 1}. `), span.rule_text)));
}

/** All spans as a table. `channels` are {label, raw, spans}. */
export function spanTable(channels) {
  const rows = channels.flatMap(({ label, raw, spans }) => {
    const points = new Points(raw);
    return spans.map((span) => [
      label, h("span", { class: "number" }, `${span.start}\u2013${span.end}`), h("code", { class: "value" }, points.slice(span.start, span.end)), span.entity,
      span.score, span.detector, span.action, tag(span.outcome, kindOf(span.outcome)),
      h("span", { class: "rule" }, span.rule < 0 ? "Default. " : `Rule ${span.rule + 1}. `, span.rule_text),
    ]);
  });
  if (!rows.length) return h("p", {}, "Nothing was found.");
  return labelled(table("All spans", HEADINGS, rows, { class: "cards spans" }));
}

const HEADINGS = ["Channel", "Place", "Value", "Entity", "Score", "Detector", "Action", "Outcome", "Decided by"];

/** Cells that name their column, for narrow windows (see `.cards`). */
function labelled(region) {
  for (const row of region.querySelectorAll("tbody tr")) {
    [...row.cells].forEach((cell, index) => set(cell, { "data-label": HEADINGS[index] }));
  }
  return region;
}

/** A place where spans are told, which says so to screen readers. `tell(spans)` fills it. */
export function teller(raw) {
  const points = new Points(raw);
  const element = h("div", { class: "explained", role: "status" });
  return { element, tell: (spans) => fill(element, described(points, spans)) };
}
