// A JSON Schema read for completion: what may stand at a place, in words.

import { MEANINGS } from "./words.js";

/** What may be written at `place` (see place.js), each as {word, insert, about}. */
export function suggestions(schema, place) {
  const part = partAt(schema, place.path);
  if (!part) return [];
  if (part.type === "object") return place.inline ? [] : keys(schema, part, place);
  if (part.type === "array") return entries(schema, part, place);
  return words(part, part.description).filter(({ word }) => !place.present.has(word));
}

/** Those of `found` that `prefix` may become: first those that begin so, then those with a part that does. */
export function matching(found, prefix) {
  const wanted = prefix.toLowerCase();
  const begins = found.filter(({ word }) => word.toLowerCase().startsWith(wanted));
  return [...begins, ...found.filter((each) => !begins.includes(each) && each.word.toLowerCase().includes(`_${wanted}`))];
}

/** The schema's part that `path` leads to, or null. */
function partAt(schema, path) {
  let part = schema;
  let about = "";
  for (const step of path) {
    part = resolved(schema, step === "-" ? part.items : part.properties?.[step]);
    if (!part) return null;
    about = part.description ?? about; // entries of a list are described by the list
  }
  return { ...part, description: about };
}

function resolved(schema, part) {
  if (!part?.$ref) return part;
  const found = part.$ref.slice(2).split("/").reduce((at, step) => at?.[step], schema);
  return { ...found, description: part.description }; // what is said of the place, not of the word
}

function keys(schema, part, place) {
  const needed = new Set(part.required);
  return Object.entries(part.properties).filter(([name]) => !place.present.has(name)).map(([name, of]) => {
    const value = resolved(schema, of);
    return {
      word: name,
      insert: name + opening(value, resolved(schema, value.items), place),
      about: `${needed.has(name) ? "Needed. " : ""}${value.description ?? ""}`,
    };
  });
}

/** What is written behind a key, up to where its value begins. */
function opening(value, items, place) {
  if (place.flow) return ": ";
  const below = `:\n${" ".repeat(place.indent + 2)}`;
  if (value.type === "object") return below;
  if (value.type === "array") return items.type === "object" ? `${below}- ` : ": [";
  return ": ";
}

/** Entries of a list whose first is not begun: in brackets behind its key, or with a dash below it. */
function entries(schema, part, place) {
  const items = resolved(schema, part.items);
  const found = items.type === "object"
    ? keys(schema, items, { ...place, present: new Set(), indent: place.indent + 2 })
    : words(items, part.description);
  if (!place.inline) return found.map((each) => ({ ...each, insert: `- ${each.insert}` }));
  return items.type === "object" ? [] : found.map((each) => ({ ...each, insert: `[${each.insert}]` }));
}

function words(part, about = "") {
  const all = part.enum ?? (part.const === undefined ? [] : [part.const]);
  if (part.type === "boolean") all.push(true, false);
  return all.map((value) => {
    const word = String(value);
    return { word, insert: word, about: typeof value === "string" && Object.hasOwn(MEANINGS, word) ? MEANINGS[word] : about };
  });
}
