// Where in a YAML text the cursor stands. It reads lines by their indentation, and lists in brackets, which is what
// policies are written with. It is no parser: whether a draft is right is for the server to say.

const KEY = /^([A-Za-z_][\w-]*)\s*:(?=\s|$)/;

/**
 * The place at `offset` of `text`, or null where there is nothing to complete: {path, prefix, present, indent, inline, flow}.
 *
 * `path` are the keys that lead there ("-": an entry of a list), `prefix` is what is already written of a word, `present`
 * are the keys of the same mapping or the words of the same list, `indent` is the column of the word, `inline` says
 * that it stands behind its key, and `flow` that it stands in brackets.
 */
export function placeIn(text, offset) {
  const before = text.slice(0, offset).split("\n");
  const after = text.slice(offset).split("\n").slice(1);
  const line = before.pop();
  const outline = new Outline();
  before.forEach((each) => outline.take(each));
  if (outline.isText(line) || uncommented(line) !== line) return null;
  const place = outline.place(line);
  if (place && !place.inline && !place.flow) place.present = siblings(before, line, after, place.indent);
  return place;
}

/** Where the line that comes next stands: inside which keys, entries and brackets. */
class Outline {
  constructor() {
    this.stack = []; // {indent, step}: keys, and "-" for entries, each inside the one before
    this.flow = []; // {bracket, key, words}: brackets that are open
    this.text = null; // the indentation of a key whose text (| or >) goes on in the lines below it
  }

  isText(line) {
    return this.text !== null && (!line.trim() || indentOf(line) > this.text);
  }

  take(line) {
    if (this.isText(line)) return;
    this.text = null;
    const said = uncommented(line);
    if (!said.trim()) return;
    const value = this.flow.length ? said : this.enter(said).value;
    this.follow(value);
    if (!this.flow.length && /^\s*[|>][+-]?\d?\s*$/.test(value)) this.text = this.stack.at(-1)?.indent ?? 0;
  }

  /** Go to where a line stands. Returns the column behind its dashes, its key, and what stands behind that. */
  enter(line) {
    const { dashes, column, rest } = parts(line);
    for (const dash of dashes) {
      this.leave(({ indent, step }) => indent > dash || (indent === dash && step === "-"));
      this.stack.push({ indent: dash, step: "-" });
    }
    this.leave(({ indent }) => indent >= column);
    const key = KEY.exec(rest)?.[1];
    if (key) this.stack.push({ indent: column, step: key });
    return { column, key, value: rest.replace(KEY, "") };
  }

  leave(goes) {
    while (this.stack.length && goes(this.stack.at(-1))) this.stack.pop();
  }

  /** Follow the brackets in `value`; returns what stands behind the last sign. */
  follow(value) {
    let word = 0;
    for (let at = 0; at < value.length; at++) {
      const sign = value[at];
      const said = value.slice(word, at).trim();
      if (sign === '"' || sign === "'") {
        const end = value.indexOf(sign, at + 1);
        if (!said) at = end < 0 ? value.length : end;
      } else if ((sign === "[" || sign === "{") && !said) {
        this.flow.push({ bracket: sign, key: "", words: new Set() });
        word = at + 1;
      } else if (this.flow.length && (",]}".includes(sign) || (sign === ":" && this.flow.at(-1).bracket === "{"))) {
        this.divide(sign, said);
        word = at + 1;
      }
    }
    return value.slice(word).trimStart();
  }

  divide(sign, said) {
    const open = this.flow.at(-1);
    if (said && (open.bracket === "[" || sign === ":")) open.words.add(said);
    open.key = sign === ":" ? said : "";
    if (sign === "]" || sign === "}") this.flow.pop();
  }

  /** The place at the end of `line`. */
  place(line) {
    if (!this.flow.length) {
      const { column, key, value } = this.enter(line);
      const prefix = this.follow(value);
      if (!this.flow.length) {
        if (!/^[\w-]*$/.test(prefix)) return null;
        return { path: this.path(), prefix, present: new Set(), indent: column, inline: key !== undefined, flow: false };
      }
      return this.flowPlace(prefix);
    }
    const prefix = this.follow(line);
    return this.flow.length ? this.flowPlace(prefix) : null;
  }

  flowPlace(prefix) {
    const { bracket, key, words } = this.flow.at(-1);
    if (!/^[\w-]*$/.test(prefix)) return null;
    return { path: this.path(), prefix, present: bracket === "{" && key ? new Set() : new Set(words), indent: 0, inline: false, flow: true };
  }

  path() {
    const inBrackets = this.flow.flatMap(({ bracket, key }) => (bracket === "[" ? ["-"] : key ? [key] : []));
    return [...this.stack.map(({ step }) => step), ...inBrackets];
  }
}

/** Keys of the mapping whose keys stand in column `indent`, around the cursor's line. */
function siblings(before, line, after, indent) {
  const found = new Set();
  /** Whether the mapping goes on beyond the line `each`, from which it is read upwards or downwards. */
  const note = (each, upwards) => {
    const { dashes, column, rest } = parts(uncommented(each));
    if (!rest && !dashes.length) return true;
    if (column < indent || (!upwards && dashes.length && column === indent)) return false;
    const key = column === indent && KEY.exec(rest);
    if (key) found.add(key[1]);
    return !(upwards && dashes.length && column === indent);
  };
  if (!parts(line).dashes.length) before.toReversed().every((each) => note(each, true));
  after.every((each) => note(each, false));
  return found;
}

/** A line's dashes (their columns), the column of what stands behind them, and that. */
function parts(line) {
  const dashes = [];
  let column = indentOf(line);
  let rest = line.slice(column);
  while (/^-(\s|$)/.test(rest)) {
    dashes.push(column);
    const width = 1 + indentOf(rest.slice(1));
    column += width;
    rest = rest.slice(width);
  }
  return { dashes, column, rest };
}

function indentOf(line) {
  return line.length - line.trimStart().length;
}

/** A line without its comment. */
function uncommented(line) {
  let quote = "";
  for (let at = 0; at < line.length; at++) {
    const sign = line[at];
    if (quote) quote = sign === quote ? "" : quote;
    else if (sign === '"' || sign === "'") quote = /(^|[\s[{,])$/.test(line.slice(0, at)) ? sign : "";
    else if (sign === "#" && /(^|\s)$/.test(line.slice(0, at))) return line.slice(0, at);
  }
  return line;
}
