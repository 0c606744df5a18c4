// The draft in the shadow of live traffic: what it would have decided, in numbers, beside what was decided.

import { get, post, remove } from "./api.js";
import { field, fill, h, set } from "./dom.js";
import { clock, digest, exact, many } from "./format.js";
import { problemList } from "./problems.js";
import { sides } from "./sides.js";

const EVERY = 2000;
const LEFT_OUT = {
  too_large: "too large to be kept until the end",
  busy: "the gateway had no time for the trial",
  failed: "moderating with the draft failed",
};

/** The card for trials. `about()` gives {policy, draft}; `mayStart`: whether whoever looks may start and stop one. */
export function trialCard(about, mayStart) {
  const minutes = h("input", { type: "number", min: 1, max: 60, step: 1, value: 10, required: true, autocomplete: "off" });
  const start = h("button", { type: "submit" }, "Start");
  const stop = h("button", { type: "button", class: "plain", onclick: () => ask(() => remove("trial")) }, "Stop");
  const wrong = h("div", { role: "alert" });
  const said = h("p", { role: "status" });
  const numbers = h("div", {});
  const card = h("section", { class: "card", "aria-labelledby": "trial-title", "data-card": "trial" },
    h("h2", { id: "trial-title" }, "Shadow on live traffic"),
    h("p", { class: "hint" }, "The policy in force goes on deciding. The draft decides beside it, for nobody, and only counts are kept: no text."),
    mayStart
      ? h("form", { class: "row", onsubmit: (event) => { event.preventDefault(); ask(() => post("trial", { ...about(), minutes: Number(minutes.value) })); } },
        field("Minutes", minutes), start, stop)
      : h("p", { class: "hint" }, 'Starting one needs the right "change".'),
    wrong, said, numbers);
  let waiting = null;

  async function ask(question) {
    clearTimeout(waiting);
    fill(wrong);
    try {
      tell(await question());
    } catch (error) {
      fill(wrong, h("p", { class: "problem" }, error.message), problemList(error.problems ?? []));
      if (card.dataset.running === "true") waiting = setTimeout(refresh, EVERY);
    }
  }

  function refresh() {
    if (card.isConnected) ask(() => get("trial"));
  }

  function tell(state) {
    set(card, { "data-running": String(state.running), "data-exchanges": state.exchanges });
    set(start, { disabled: state.running });
    set(stop, { disabled: !state.running });
    const what = state.running
      ? `A draft called ${state.name} runs in the shadow of ${state.policy} until ${clock(state.ends)}.`
      : state.started ? `The last trial, of a draft called ${state.name} in the shadow of ${state.policy}, is over.` : "No trial was started yet.";
    if (said.textContent !== what) fill(said, what); // said again, it would be read again
    if (!state.started) {
      fill(numbers);
      return;
    }
    const left = Object.entries(state.left_out).filter(([, number]) => number);
    fill(numbers,
      h("p", {}, h("strong", { class: "number" }, exact(state.exchanges)), ` ${state.exchanges === 1 ? "exchange was" : "exchanges were"} decided by both. Digest of the draft: `, digest(state.digest)),
      left.length > 0 && h("p", {}, "Left out, and counted on neither side: ", left.map(([why, number]) => `${many(number, "exchange")} (${LEFT_OUT[why] ?? why})`).join(", "), "."),
      sides("Decisions of both", state.active, state.draft));
    if (state.running) waiting = setTimeout(refresh, EVERY);
  }

  ask(() => get("trial"));
  return card;
}
