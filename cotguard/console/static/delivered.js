// What was delivered of a channel, with what was written in place of its text marked.

import { h } from "./dom.js";
import { Points } from "./points.js";

export class Delivered {
  constructor(channel) {
    this._points = new Points(channel.delivered);
    this._places = places(channel, this._points);
  }

  /** The code points from `from` to `until`, with edits marked. */
  text(from = 0, until = this._points.length) {
    const body = h("div", { class: "text" });
    let at = from;
    for (const [start, end, [first, last, text]] of this._places) {
      if (start < from) continue;
      if (end > until) break;
      const about = { "data-start": start, "data-end": end, "data-from": first, "data-to": last };
      body.append(this._points.slice(at, start), text
        ? h("ins", { class: "written", ...about }, text)
        : h("span", { class: "gone", role: "img", "aria-label": `${last - first} characters left out`, ...about }));
      at = end;
    }
    body.append(this._points.slice(at, until));
    return body;
  }
}

/**
 * Where edits stand in the delivered text: [start, end, edit] in its code points. A replacement that the text does not
 * show at its place is left out, and so is what is only written in another way.
 */
function places(channel, delivered) {
  const raw = new Points(channel.raw);
  const found = [];
  let shift = 0;
  for (const edit of channel.edits) {
    const [start, end, text] = edit;
    const length = new Points(text).length;
    const at = start + shift;
    shift += length - (end - start);
    if (at > delivered.length || delivered.slice(at, at + length) !== text) continue;
    if (isEscape(raw.slice(start, end), text)) continue;
    found.push([at, at + length, edit]);
  }
  return found;
}

/** Whether `text` is how JSON writes `value` (in a tool's arguments), and no replacement of it. */
function isEscape(value, text) {
  try {
    return text.startsWith("\\") && JSON.parse(`"${text}"`) === value;
  } catch {
    return false;
  }
}
