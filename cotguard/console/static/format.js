// Numbers and times as people read them. Exact values go beside them, into `title` or a data attribute.

import { h } from "./dom.js";

export const NOTHING = "\u2013";

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const clockFormat = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const minuteFormat = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const dayFormat = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric" });

/** All digits: 1234567 is "1,234,567". */
export function exact(number) {
  return number === null ? NOTHING : whole.format(number);
}

/** About three digits: 1234567 is "1.23 M". */
export function count(number) {
  if (number === null) return NOTHING;
  for (const [unit, size] of [["G", 1e9], ["M", 1e6], ["k", 1e4]]) {
    if (Math.abs(number) >= size) return `${short.format(number / (unit === "k" ? 1e3 : size))} ${unit}`;
  }
  return Number.isInteger(number) ? whole.format(number) : short.format(number);
}

export function rate(number) {
  return number === null ? NOTHING : `${count(number)}/s`;
}

/** Seconds in the unit that suits them: 0.00042 is "420 µs". */
export function duration(seconds) {
  if (seconds === null) return NOTHING;
  if (seconds === 0) return "0 s";
  if (seconds < 0.000_999_5) return `${short.format(seconds * 1e6)} µs`;
  if (seconds < 0.999_5) return `${short.format(seconds * 1e3)} ms`;
  return seconds < 120 ? `${short.format(seconds)} s` : `${whole.format(seconds / 60)} min`;
}

/** How much, and of what: "1 value", "3 values". */
export function many(number, one, several = `${one}s`) {
  return `${exact(number)} ${number === 1 ? one : several}`;
}

/** The time of day of a unix time, in the reader's zone. */
export function clock(seconds, withSeconds = true) {
  return (withSeconds ? clockFormat : minuteFormat).format(seconds * 1000);
}

/** A moment, given as RFC 3339 or unix seconds: local, with the day where it is not today's, and UTC in the title. */
export function moment(time) {
  const date = new Date(typeof time === "number" ? time * 1000 : time);
  const today = date.toDateString() === new Date().toDateString();
  const text = today ? clockFormat.format(date) : `${dayFormat.format(date)}, ${clockFormat.format(date)}`;
  return h("time", { datetime: date.toISOString(), title: date.toISOString().replace("T", " ").replace("Z", " UTC") }, text);
}

/** The beginning of a digest or a keyed hash; all of it is in the title. */
export function digest(hex, length = 12) {
  return h("code", { title: hex, "data-digest": hex }, hex.length > length ? `${hex.slice(0, length)}\u2026` : hex);
}

/** A label with its meaning in colour; without a label, nothing. */
export function tag(text, kind = "") {
  return h("span", { class: `tag ${kind}` }, text);
}

const KINDS = {
  ok: "good", allowed: "good", restored: "good", closed: "good", up: "good",
  redacted: "found", flagged: "held", withheld: "held", would_have: "held", refused: "held", half_open: "held", client_gone: "",
  blocked: "bad", failed: "bad", failed_open: "bad", failed_closed: "bad", bypassed: "bad", upstream_error: "bad", open: "bad", down: "bad",
};

/** The kind of tag (see style.css) of an outcome or a state. */
export function kindOf(outcome) {
  return Object.hasOwn(KINDS, outcome) ? KINDS[outcome] : "";
}
