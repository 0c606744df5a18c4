// What two lists have in common: the longest sequence that stands in both.

const MOST = 4_000_000; // pairs that are compared; beyond it all is told as different

/** The parts of `before` and `after`, in order: {kind: "same" | "removed" | "added", items}. `same(a, b)` compares two. */
export function differences(before, after, same = (a, b) => a === b) {
  let head = 0;
  while (head < before.length && head < after.length && same(before[head], after[head])) head++;
  let tail = 0;
  while (tail < Math.min(before.length, after.length) - head && same(before.at(-1 - tail), after.at(-1 - tail))) tail++;
  const old = before.slice(head, before.length - tail);
  const fresh = after.slice(head, after.length - tail);
  const parts = [];
  const add = (kind, item) => {
    if (parts.at(-1)?.kind === kind) parts.at(-1).items.push(item);
    else parts.push({ kind, items: [item] });
  };
  after.slice(0, head).forEach((item) => add("same", item));
  for (const [kind, item] of between(old, fresh, same)) add(kind, item);
  after.slice(after.length - tail).forEach((item) => add("same", item));
  return parts;
}

function between(old, fresh, same) {
  const all = [...old.map((item) => ["removed", item]), ...fresh.map((item) => ["added", item])];
  if (!old.length || !fresh.length || old.length * fresh.length > MOST) return all;
  const width = fresh.length + 1;
  const longest = new Uint16Array((old.length + 1) * width); // of what stands behind each pair of places
  for (let i = old.length - 1; i >= 0; i--) {
    for (let j = fresh.length - 1; j >= 0; j--) {
      longest[i * width + j] = same(old[i], fresh[j])
        ? longest[(i + 1) * width + j + 1] + 1
        : Math.max(longest[(i + 1) * width + j], longest[i * width + j + 1]);
    }
  }
  const found = [];
  let [i, j] = [0, 0];
  while (i < old.length || j < fresh.length) {
    if (i < old.length && j < fresh.length && same(old[i], fresh[j])) {
      found.push(["same", fresh[j++]]);
      i++;
    } else if (j >= fresh.length || (i < old.length && longest[(i + 1) * width + j] >= longest[i * width + j + 1])) {
      found.push(["removed", old[i++]]);
    } else {
      found.push(["added", fresh[j++]]);
    }
  }
  return found;
}
