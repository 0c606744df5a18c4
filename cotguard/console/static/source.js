// What is entered in the playground: a text, a recorded stream, or a prompt. Nothing of it is kept in the browser.

import { field, fill, h, select, set } from "./dom.js";
import { many } from "./format.js";
import { tabs } from "./tabs.js";
import { CHANNELS, SENT } from "./words.js";

const EXAMPLE =
  "Her address is ann.lee@example.com, and the card on file is 4111 1111 1111 1111. " +
  "I should not repeat the key AKIAIOSFODNN7EXAMPLE from the notes. 🙂 Her phone is +49 30 901820.";

const off = { autocomplete: "off", spellcheck: "false" };

/** A text field of several lines. */
export function area(rows, properties = {}) {
  return h("textarea", { rows, ...off, ...properties });
}

/**
 * The form's part for the source: its `element`, and `read()`, which gives what /try takes or raises an Error that says
 * what is missing. `told` are {dialects, upstreams}; `onchoose` gets the kind of source that is shown.
 */
export function source(told, onchoose) {
  const kinds = { text: textSource(), stream: streamSource(told.dialects), prompt: promptSource(told.upstreams) };
  const titles = { text: "Text", stream: "Recorded stream", prompt: "Prompt" };
  const shown = tabs("What is moderated", Object.entries(kinds).map(([name, kind]) =>
    ({ name, title: titles[name], content: kind.content })), onchoose);
  return {
    element: shown.element,
    read: () => ({ kind: shown.chosen(), ...kinds[shown.chosen()].read() }),
    clear: () => Object.values(kinds).forEach((kind) => kind.clear()),
  };
}

function textSource() {
  const channel = select(CHANNELS.map((name) => [name, SENT.has(name) ? `${name} (sent to the model)` : name]), "reasoning", { ...off, onchange: () => fit() });
  const text = area(7);
  const system = area(2);
  const more = h("details", { class: "more" }, h("summary", {}, "System prompt"),
    field("System prompt", system, "Optional: the model's text is looked through for passages and values of it."));
  const fit = () => set(more, { hidden: SENT.has(channel.value) });
  return {
    content: [
      field("Text", text),
      h("div", { class: "row" },
        field("Channel", channel),
        h("button", { type: "button", class: "plain", onclick: () => { text.value = EXAMPLE; text.focus(); } }, "Fill in an example")),
      more,
    ],
    read: () => {
      if (!text.value) throw new Error("Enter a text.");
      return { channel: channel.value, text: text.value, system: SENT.has(channel.value) ? "" : system.value };
    },
    clear: () => { text.value = system.value = ""; },
  };
}

function streamSource(dialects) {
  let binary = null;
  const dialect = select(dialects.map(({ name, title }) => [name, title]), dialects[0]?.name, off);
  const body = area(8, { placeholder: 'data: {"choices": [...]}' });
  const pasted = field("Response of an upstream", body, "A stream or a whole body, as the upstream sent it: without HTTP headers.");
  const file = h("input", { type: "file", onchange: () => load() });
  const told = h("p", { class: "hint", role: "status" });

  async function load() {
    binary = null;
    set(pasted, { hidden: false });
    fill(told);
    if (!file.files.length) return;
    const [chosen] = file.files;
    const bytes = new Uint8Array(await chosen.arrayBuffer());
    try {
      body.value = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
      fill(told, `${chosen.name}: ${many(bytes.length, "byte")}, shown above.`);
    } catch {
      binary = bytes;
      set(pasted, { hidden: true });
      fill(told, `${chosen.name}: ${many(bytes.length, "byte")}. It is no text, and sent as it is. `,
        h("button", { type: "button", class: "plain", onclick: drop }, "Paste a text instead"));
    }
  }

  function drop() {
    binary = null;
    file.value = "";
    set(pasted, { hidden: false });
    fill(told);
    body.focus();
  }

  return {
    content: [field("Dialect", dialect), pasted, field("Or a file", file), told],
    read: () => {
      if (binary === null && !body.value) throw new Error("Paste a response, or choose a file.");
      return { dialect: dialect.value, body: binary === null ? body.value : base64(binary), base64: binary !== null };
    },
    clear: () => {
      binary = null;
      body.value = file.value = "";
      set(pasted, { hidden: false });
      fill(told);
    },
  };
}

function promptSource(upstreams) {
  const upstream = select(upstreams, upstreams[0], off);
  const model = h("input", { type: "text", ...off, autocapitalize: "off" });
  const system = area(2);
  const prompt = area(5);
  return {
    content: [
      h("p", { class: "hint" }, "The prompt is sent to the upstream, which may take its time and cost money. Its answer is moderated as it comes."),
      h("div", { class: "pair" }, field("Upstream", upstream), field("Model", model, "As the upstream calls it.")),
      field("System prompt", system, "Optional."),
      field("Prompt", prompt),
    ],
    read: () => {
      if (!prompt.value) throw new Error("Enter a prompt.");
      return { upstream: upstream.value, model: model.value, system: system.value, prompt: prompt.value };
    },
    clear: () => { model.value = system.value = prompt.value = ""; },
  };
}

function base64(bytes) {
  let text = "";
  for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192));
  return btoa(text);
}
