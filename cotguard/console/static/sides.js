// Counts of two policies side by side.

import { h, set, table } from "./dom.js";
import { exact } from "./format.js";

const HEADINGS = ["Entity", "Channel", "Action", "Outcome", "In force", "Draft", "Difference"];

const LABELS = 4;

/** `active` and `draft` are lists of [entity, channel, action, outcome, count]. What differs stands first. */
export function sides(caption, active, draft) {
  const rows = new Map();
  [active, draft].forEach((counts, side) => {
    for (const [entity, channel, action, outcome, count] of counts) {
      const key = JSON.stringify([entity, channel, action, outcome]);
      const row = rows.get(key) ?? { labels: [entity, channel, action, outcome], counts: [0, 0] };
      row.counts[side] += count;
      rows.set(key, row);
    }
  });
  if (!rows.size) return h("p", {}, "Neither found anything.");
  const off = ({ counts }) => Math.abs(counts[1] - counts[0]);
  const sorted = [...rows.values()].sort((a, b) => off(b) - off(a) || a.labels.join().localeCompare(b.labels.join()));
  const region = table(caption, HEADINGS, sorted.map(({ labels, counts: [before, after] }) => [
    labels[0] || "(a fault)", ...labels.slice(1), number(before), number(after),
    before === after ? number(0) : h("strong", { class: "number" }, `${after > before ? "+" : "\u2212"}${exact(Math.abs(after - before))}`),
  ]), { class: "cards counts" });
  for (const row of region.querySelectorAll("tbody tr")) {
    [...row.cells].forEach((cell, index) => set(cell, { "data-label": HEADINGS[index] }));
  }
  for (const row of region.querySelectorAll("tr")) {
    for (const cell of [...row.cells].slice(LABELS)) set(cell, { class: "number" });
  }
  return region;
}

function number(count) {
  return h("span", { class: "number" }, exact(count));
}
