// The editor for a draft: a textarea with line numbers, suggestions, and marks at lines that are wrong.

import { completion } from "./completion.js";
import { fill, h, set } from "./dom.js";

const PADDING = 10; // as in policy.css

/** An editor with the given label; `schema` may be null. `onchange` is called after every change of the text. */
export function editor(label, schema, onchange) {
  const text = h("textarea", {
    id: "draft", class: "code", rows: 18, wrap: "off", spellcheck: "false", autocomplete: "off", autocapitalize: "off",
    "aria-describedby": "draft-help draft-state",
  });
  const gutter = h("div", { class: "gutter", "aria-hidden": "true" });
  const ruler = h("span", { class: "ruler", "aria-hidden": "true" }, "0".repeat(100));
  const frame = h("div", { class: "frame" }, gutter, text, ruler);
  let lines = 0;
  let wrong = new Set();

  function drawGutter() {
    const count = text.value.split("\n").length;
    if (count !== lines) {
      lines = count;
      fill(gutter, h("div", { class: "numbers" }, Array.from({ length: count }, (_, index) => h("div", {}, String(index + 1)))));
    }
    [...gutter.firstChild.children].forEach((line, index) => line.classList.toggle("wrong", wrong.has(index + 1)));
    follow();
  }

  function follow() {
    gutter.firstChild.style.transform = `translateY(${-text.scrollTop}px)`;
  }

  /** Put `words` in the place of what stands there, so that it can be undone; the cursor `caret` before its end. */
  function write(from, to, words, caret = 0) {
    text.focus();
    text.setSelectionRange(from, to);
    if (!document.execCommand("insertText", false, words)) { // it tells that the text has changed
      text.setRangeText(words, from, to, "end");
      changed();
    }
    text.selectionStart = text.selectionEnd = from + words.length - caret;
  }

  function changed() {
    drawGutter();
    onchange();
  }

  /** Where a list of that width is to stand, below the cursor. */
  function spot(width) {
    const before = text.value.slice(0, text.selectionStart).split("\n");
    const size = ruler.getBoundingClientRect();
    const left = text.offsetLeft + PADDING + (before.at(-1).length * size.width) / 100 - text.scrollLeft;
    return {
      left: Math.max(0, Math.min(left, frame.clientWidth - width)),
      top: PADDING + before.length * size.height - text.scrollTop + 4,
    };
  }

  /** A new line begins where the one before it does, or deeper behind a key without a value. */
  function indent(event) {
    if (event.key !== "Enter" || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    event.preventDefault();
    const line = text.value.slice(0, text.selectionStart).split("\n").at(-1);
    const column = /^[\s-]*/.exec(line)[0].length;
    write(text.selectionStart, text.selectionEnd, `\n${" ".repeat(column + (/:\s*$/.test(line) ? 2 : 0))}`);
    if (text.scrollTop + text.clientHeight >= text.scrollHeight - 40) text.scrollTop = text.scrollHeight;
  }

  if (schema) {
    const { list, said } = completion(text, schema, write, spot);
    frame.append(list, said);
  }
  text.addEventListener("keydown", indent);
  text.addEventListener("input", changed);
  text.addEventListener("scroll", follow);
  drawGutter();
  const help = schema
    ? "Ctrl+Space shows what may stand at the cursor. Escape closes the list; then Tab leaves the editor."
    : "Tab leaves the editor.";
  return {
    element: h("div", { class: "editor" }, h("label", { for: "draft" }, label), frame, h("p", { class: "hint", id: "draft-help" }, help)),
    get value() {
      return text.value;
    },
    set value(value) {
      text.value = value;
      text.setSelectionRange(0, 0);
      text.scrollTop = 0;
      changed();
    },
    /** Whether what stands there cannot be changed now. */
    set locked(locked) {
      text.readOnly = locked;
    },
    /** Mark the lines of problems. */
    mark(problems) {
      wrong = new Set(problems.map(({ line }) => line).filter(Boolean));
      set(text, { "aria-invalid": problems.length ? "true" : null });
      drawGutter();
    },
    /** Move the cursor to a problem's line and column. */
    go({ line, column }) {
      const all = text.value.split("\n");
      const inLine = Array.from(all[line - 1] ?? "").slice(0, Math.max(0, column - 1)).join("").length;
      const at = all.slice(0, line - 1).reduce((sum, each) => sum + each.length + 1, 0) + inLine;
      text.focus();
      text.setSelectionRange(at, at);
      text.scrollTop = Math.max(0, (line - 6) * ruler.getBoundingClientRect().height);
    },
  };
}
