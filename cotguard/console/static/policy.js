// The policies in force in sentences, and for those who may try one a draft: written, checked, compared, applied.

import { get, post } from "./api.js";
import { may } from "./app.js";
import { applyCard } from "./apply.js";
import { compareCard } from "./compare.js";
import { field, fill, h, select, set } from "./dom.js";
import { editor } from "./editor.js";
import { digest, many, tag } from "./format.js";
import { problemList } from "./problems.js";
import { compared, inSentences } from "./sentences.js";
import { trialCard } from "./trial.js";

const PAUSE = 400; // milliseconds without typing after which a draft is checked
const EMPTY = "version: 1\nname: NAME\nmode: enforce\nrules:\n  - entities: [SECRET]\n    action: redact\n";

export async function show(main, who) {
  let { policies } = await get("policies");
  let current = policies[0];
  const inForce = h("section", { class: "card", "aria-labelledby": "in-force", "data-card": "in-force" });
  const choice = select(policies.map(({ name }) => name), current.name, { id: "policy", autocomplete: "off", onchange: () => choose(choice.value) });
  const desk = may(who.right, "try") ? await draftDesk(who, async (name = current.name) => {
    ({ policies } = await get("policies"));
    fill(choice, policies.map((each) => h("option", { value: each.name }, each.name)));
    await choose(name);
  }) : null;

  function choose(name) {
    current = policies.find((each) => each.name === name) ?? policies[0];
    choice.value = current.name;
    fill(inForce, described(current));
    return desk?.choose(current);
  }

  fill(main,
    h("h1", {}, "Policy"),
    policies.length > 1 && h("div", { class: "choose" }, field("Policy in force", choice)),
    inForce,
    desk ? desk.elements : h("p", { class: "hint" }, 'Writing drafts needs the right "try".'));
  await choose(current.name);
}

/** A policy in force: what it is, and what it does. */
function described(policy) {
  const facts = [
    ["Digest", digest(policy.digest, 16)],
    ["File", policy.file === undefined ? null : policy.file ?? "none: it comes with cotguard"],
    ["Used by", policy.used_by && (policy.used_by.join(", ") || "nothing now")],
  ].filter(([, value]) => value);
  return [
    h("h2", { id: "in-force", "data-policy": policy.name }, policy.name, " ", tag(policy.mode, policy.mode === "enforce" ? "good" : "held")),
    h("dl", { class: "policyfacts" }, facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
    inSentences(policy.sentences),
  ];
}

/** A policy's text, or why it is not shown: {text, why}. Gateways that do not tell of files tell no texts. */
async function textOf({ name, file }) {
  if (file === undefined) return { text: null, why: "" };
  return get(`policies/${encodeURIComponent(name)}/text`).catch(({ message }) => ({ text: null, why: message }));
}

/** Everything about a draft; `reload(name)` asks for the policies in force again, and shows that one. */
async function draftDesk(who, reload) {
  const schema = await get("schema").catch(() => null);
  const drafts = new Map(); // by policy: {text, base}, as long as the page is open
  const state = h("div", { id: "draft-state", role: "status" });
  const note = h("p", { class: "hint" });
  const sentences = h("div", { class: "both" });
  const written = editor("Draft", schema, changed);
  const draft = {
    policy: null, checked: null, text: "", changed: false, reload,
    onapplied: (text, name) => {
      drafts.delete(draft.policy.name);
      drafts.set(name, { text, base: text });
      return reload(name);
    },
  };
  const apply = applyCard(draft, may(who.right, "change"));
  const about = () => ({ policy: draft.policy.name, draft: written.value });
  const reset = h("button", { type: "button", class: "plain", onclick: () => { written.value = kept().base; } }, "Undo all changes");
  let waiting = null;
  let asked = 0;

  function kept() {
    return drafts.get(draft.policy.name);
  }

  function changed() {
    if (!draft.policy || !kept()) return;
    draft.text = kept().text = written.value;
    draft.changed = draft.text !== kept().base;
    draft.checked = null;
    set(reset, { disabled: !draft.changed });
    apply.update();
    clearTimeout(waiting);
    waiting = setTimeout(check, PAUSE);
  }

  async function check() {
    const number = ++asked;
    try {
      const found = await post("check", about());
      if (number !== asked) return; // there is a later one
      written.mark(found.problems);
      draft.checked = found;
      const good = !found.problems.length;
      fill(state, good
        ? h("p", { class: "message good" }, "Nothing is wrong. The draft is called ", found.name, ". Digest: ", digest(found.digest))
        : [h("p", { class: "message bad" }, `${many(found.problems.length, "problem")}:`), problemList(found.problems, written.go)]);
      set(state, { "data-problems": found.problems.length });
      fill(sentences, good && (draft.policy.digest === found.digest
        ? h("p", {}, "The draft does what the policy in force does.")
        : compared(draft.policy.sentences, found.sentences)));
    } catch (error) {
      if (number !== asked) return;
      fill(state, h("p", { class: "problem" }, error.message));
    }
    apply.update();
  }

  async function choose(policy) {
    if (policy.name !== draft.policy?.name) apply.clear();
    draft.policy = policy;
    fill(sentences);
    fill(note);
    set(reset, { disabled: true });
    written.locked = true; // what is written meanwhile would be lost
    const { text, why } = await textOf(policy);
    if (draft.policy !== policy) return;
    written.locked = false;
    const base = text ?? EMPTY.replace("NAME", policy.name);
    const before = drafts.get(policy.name);
    drafts.set(policy.name, { base, text: before && before.text !== before.base ? before.text : base });
    fill(note, text === null && `The text of the policy in force is not shown. ${why} The draft begins anew.`);
    written.value = kept().text;
  }

  addEventListener("beforeunload", (event) => {
    if ([...drafts.values()].some(({ text, base }) => text !== base)) event.preventDefault();
  });
  return {
    choose,
    elements: [
      h("section", { class: "card", "aria-labelledby": "draft-title", "data-card": "draft" },
        h("h2", { id: "draft-title" }, "Write a draft"), note, written.element, h("div", { class: "row" }, reset), state, sentences),
      compareCard(about),
      trialCard(about, may(who.right, "change")),
      apply.element,
    ],
  };
}
