// Suggestions while a policy is written: a list under the cursor, after typing or with Ctrl+Space. The focus stays in the
// text; arrow keys choose, Enter or Tab takes what is chosen, Escape closes the list.

import { fill, h, set } from "./dom.js";
import { placeIn } from "./place.js";
import { matching, suggestions } from "./schema.js";

/**
 * Suggestions from `schema` for `text` (a textarea); `write(from, to, words, caret)` changes it, `spot()` is where its
 * cursor is drawn. Returns the list, an element that says what happens to screen readers, and `close`.
 */
export function completion(text, schema, write, spot) {
  const list = h("ul", { class: "suggestions", id: "suggestions", role: "listbox", "aria-label": "Suggestions", hidden: true });
  const said = h("div", { class: "unseen", role: "status" });
  let found = [];
  let place = null;
  let chosen = -1;
  set(text, { "aria-autocomplete": "list", "aria-haspopup": "listbox", "aria-controls": "suggestions" });

  /** Show what fits; where it was `asked` for or a word is begun, the first is chosen. */
  function open(asked) {
    place = text.selectionStart === text.selectionEnd ? placeIn(text.value, text.selectionStart) : null;
    found = place ? matching(suggestions(schema, place), place.prefix) : [];
    if (!asked && found.length === 1 && found[0].word === place.prefix) found = [];
    if (!found.length) {
      close();
      if (asked) fill(said, "No suggestions here.");
      return;
    }
    fill(list, found.map(({ word, about }, index) => h("li", {
      role: "option", id: `suggestion-${index}`, "aria-selected": "false", "data-word": word,
      onmousedown: (event) => event.preventDefault(), onclick: () => take(index),
    }, h("span", { class: "word" }, word), h("span", { class: "hint" }, about))));
    set(list, { hidden: false });
    const { left, top } = spot(list.offsetWidth);
    Object.assign(list.style, { left: `${left}px`, top: `${top}px` });
    list.scrollTop = 0;
    choose(asked || place.prefix ? 0 : -1);
    fill(said, `${found.length} ${found.length === 1 ? "suggestion" : "suggestions"}. Arrow keys choose, Enter takes, Escape closes.`);
  }

  function close() {
    set(list, { hidden: true });
    set(text, { "aria-activedescendant": null });
    fill(said);
    found = [];
    chosen = -1;
  }

  function choose(index) {
    list.children[chosen]?.setAttribute("aria-selected", "false");
    chosen = index;
    const option = list.children[index];
    set(text, { "aria-activedescendant": option ? option.id : null });
    if (!option) return;
    option.setAttribute("aria-selected", "true");
    option.scrollIntoView({ block: "nearest" });
  }

  function take(index) {
    const { word, insert } = found[index];
    const to = text.selectionStart;
    const rest = /^[\w-]*/.exec(text.value.slice(to))[0].length;
    const isKey = /^\s*:/.test(text.value.slice(to + rest));
    const opens = !isKey && insert.endsWith("[");
    close();
    write(to - place.prefix.length, to + rest, isKey ? word : opens ? `${insert}]` : insert, opens ? 1 : 0);
    if (/[\s[]$/.test(insert)) open(false);
  }

  function press(event) {
    if (event.key === " " && event.ctrlKey) {
      event.preventDefault();
      open(true);
    } else if (list.hidden) {
      return;
    } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      const step = event.key === "ArrowDown" ? 1 : chosen < 0 ? 0 : -1;
      choose((chosen + step + found.length) % found.length);
    } else if ((event.key === "Enter" || event.key === "Tab") && !event.shiftKey && chosen >= 0) {
      event.preventDefault();
      event.stopImmediatePropagation();
      take(chosen);
    } else if (event.key === "Escape") {
      event.preventDefault();
      close();
    } else if (["ArrowLeft", "ArrowRight", "Home", "End", "PageUp", "PageDown"].includes(event.key)) {
      close();
    }
  }

  function type(event) {
    const typed = event.inputType === "insertText" && /^[\w\s[,-]$/.test(event.data ?? "");
    if (typed || (event.inputType === "deleteContentBackward" && !list.hidden)) open(false);
    else close();
  }

  text.addEventListener("keydown", press);
  text.addEventListener("input", type);
  text.addEventListener("blur", close);
  text.addEventListener("mousedown", close);
  return { list, said, close };
}
