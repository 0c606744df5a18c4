// The playground: what a policy makes of what somebody enters. Nothing of it is kept, here or on the server.

import { get, post } from "./api.js";
import { Delivered } from "./delivered.js";
import { field, fill, h, select, set } from "./dom.js";
import { digest, many } from "./format.js";
import { player } from "./player.js";
import { problemList } from "./problems.js";
import { area, source } from "./source.js";
import { highlighted, legend, spanTable, teller, valuesOf } from "./spans.js";

const CUTS = [["token", "about a token each"], ["character", "one character each"], ["whole", "all at once"]];

export async function show(main) {
  const loaded = await get("loaded");
  const result = h("div", { class: "result", tabindex: -1, role: "region", "aria-label": "Result" });
  const cut = select(CUTS, "token", { autocomplete: "off" });
  const pieces = field("Pieces", cut, "How the text comes in. The result is always the same; the hold is not.");
  const entered = source(
    { dialects: loaded.dialects, upstreams: loaded.upstreams.map(({ name }) => name) },
    (kind) => set(pieces, { hidden: kind !== "text" }),
  );
  const policy = select(loaded.policies.map(({ name }) => name), loaded.policies[0]?.name, { autocomplete: "off" });
  const draft = area(10, { class: "code", placeholder: "version: 1\nname: draft\nrules: []" });
  const wrong = h("div", { role: "alert" });
  const button = h("button", { type: "submit" }, "Moderate");

  async function moderate(event) {
    event.preventDefault();
    fill(wrong);
    try {
      const about = { policy: policy.value, source: entered.read(), cut: cut.value };
      if (draft.value.trim()) about.draft = draft.value;
      set(button, { disabled: true, "aria-busy": "true" });
      fill(button, "Moderating\u2026");
      fill(result, outcome(await post("try", about)));
      result.focus({ preventScroll: true });
      result.scrollIntoView({ block: "start" });
    } catch (error) {
      fill(wrong, h("p", { class: "problem" }, error.message), problemList(error.problems ?? []));
    } finally {
      set(button, { disabled: false, "aria-busy": null });
      fill(button, "Moderate");
    }
  }

  function clear() {
    entered.clear();
    draft.value = "";
    fill(result);
    fill(wrong);
  }

  fill(main,
    h("h1", {}, "Playground"),
    h("p", {}, "See what a policy makes of a text, a stream or an answer, piece by piece. ",
      h("strong", {}, "Nothing that you enter here is stored or logged.")),
    h("form", { class: "card enter", autocomplete: "off", onsubmit: moderate },
      entered.element,
      h("div", { class: "pair" }, field("Policy", policy), pieces),
      h("details", { class: "more" }, h("summary", {}, "Try a draft in its place"),
        field("Draft", draft, "A policy in YAML. It decides instead of the one above as long as something stands here.")),
      h("div", { class: "row" }, button, h("button", { type: "button", class: "plain", onclick: clear }, "Clear everything")),
      wrong),
    result);
}

/** A result of /try. */
function outcome(result) {
  const spans = result.channels.flatMap((channel) => channel.spans);
  const values = result.channels.reduce((sum, channel) => sum + valuesOf(channel.spans), 0);
  const blocked = result.blocked && h("p", { class: "message bad", "data-blocked": true }, "Blocked: a rule ended the exchange. The client gets what stands before the blocked value, and nothing after it.");
  const fault = result.fault && h("p", { class: "message bad", "data-fault": true }, `Fault: ${result.fault}`);
  return [
    h("section", { class: "card" },
      h("h2", {}, "Result"),
      h("p", {}, `Decided by ${result.policy.name}, `, digest(result.policy.digest), `: ${many(values, "value")} found in ${many(result.channels.length, "channel")}`,
        result.received_bytes === undefined ? "." : `; ${many(result.received_bytes, "byte")} came from the upstream.`),
      blocked, fault, legend(spans),
      !result.channels.length && h("p", {}, "No text was received.")),
    result.channels.map(channelCard),
    result.steps.length > 0 && result.channels.length > 0 && player(result),
    h("section", { class: "card" }, h("h2", {}, "Who found what"), spanTable(result.channels)),
    result.wire !== undefined && h("details", { class: "card wire" }, h("summary", {}, h("h2", {}, "What the client gets")),
      h("pre", { tabindex: 0, role: "region", "aria-label": "Wire text", "data-wire": true }, result.wire)),
  ];
}

function channelCard(channel, index) {
  const about = teller(channel.raw);
  return h("section", { class: "card channel", "data-channel": index, "data-kind": channel.kind, "data-lane": channel.lane, "aria-label": channel.label },
    h("h2", {}, channel.label),
    h("div", { class: "sides" },
      h("div", { "data-side": "raw" }, h("h3", {}, "As it was written"), highlighted(channel.raw, channel.spans, about.tell)),
      h("div", { "data-side": "delivered" }, h("h3", {}, "Delivered"), new Delivered(channel).text())),
    channel.spans.length > 0 && h("p", { class: "hint" }, "Choose a marked value to read how it was decided."),
    about.element);
}
