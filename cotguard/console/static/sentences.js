// A policy in sentences: its rules as a numbered list, and what changes from one policy to another.

import { h } from "./dom.js";
import { differences } from "./diff.js";

const RULE = /^Rule \d+: /;

/** Sentences as the gateway gives them; what stands before the rules, the rules, and what follows. */
export function inSentences(sentences) {
  return lists(sentences.map((text) => ({ text, kind: "same" })));
}

/** Two policies' sentences side by side, with what only one of them says marked. */
export function compared(before, after) {
  const parts = between(before, after);
  const changed = parts.some(({ kind }) => kind !== "same");
  return h("div", { class: "sides", "data-changed": String(changed) },
    h("div", { "data-side": "active" }, h("h3", {}, "In force"), lists(marked(parts, before, "removed"))),
    h("div", { "data-side": "draft" }, h("h3", {}, "Draft"), lists(marked(parts, after, "added"))));
}

/** What changes, alone. */
export function changes(before, after) {
  const parts = between(before, after);
  const found = parts.filter(({ kind }) => kind !== "same").flatMap(({ kind, items }) => items.map((text) => h("li", {}, changedText(text, kind))));
  return found.length ? h("ul", { class: "changes" }, found) : h("p", {}, "No sentence changes: the draft does what the policy in force does.");
}

function between(before, after) {
  return differences(before, after, (a, b) => a.replace(RULE, "") === b.replace(RULE, "")); // rules may move
}

/** One side's sentences, each with whether it is the same on the other. */
function marked(parts, sentences, kind) {
  const kinds = parts.filter((part) => part.kind === "same" || part.kind === kind).flatMap((part) => part.items.map(() => part.kind));
  return sentences.map((text, index) => ({ text, kind: kinds[index] }));
}

function lists(sentences) {
  const first = sentences.findIndex(({ text }) => RULE.test(text));
  const rules = sentences.filter(({ text }) => RULE.test(text));
  const before = first < 0 ? [] : sentences.slice(0, first);
  const after = first < 0 ? sentences : sentences.slice(first + rules.length);
  const item = ({ text, kind }) => h("li", { "data-kind": kind }, changedText(text.replace(RULE, ""), kind));
  return h("div", { class: "sentences" },
    before.length > 0 && h("ul", {}, before.map(item)),
    rules.length > 0 && h("ol", { "aria-label": "Rules" }, rules.map(item)),
    after.length > 0 && h("ul", {}, after.map(item)));
}

function changedText(text, kind) {
  if (kind === "same") return text;
  return h(kind === "added" ? "ins" : "del", {}, h("span", { class: "unseen" }, kind === "added" ? "New: " : "Gone: "), text);
}
