// A moderated stream, played: after each step what came in, what of it was delivered, and what is on hold, and why.

import { fill, h, select, set } from "./dom.js";
import { Delivered } from "./delivered.js";
import { many } from "./format.js";
import { heldChart } from "./heldchart.js";
import { Points } from "./points.js";
import { Timeline } from "./timeline.js";
import { reason } from "./words.js";

const SHOWN = 2000; // characters of a text, its last: enough to follow, and quick to draw
const SPEEDS = [[1, "1 step/s"], [4, "4 steps/s"], [15, "15 steps/s"], [60, "60 steps/s"]];

/** The player of a result of /try. */
export function player(result) {
  const timeline = new Timeline(result.steps, result.channels);
  const views = result.channels.map((channel, index) => channelView(channel, index, timeline, result));
  const chart = heldChart(timeline.held, go);
  const slider = h("input", { type: "range", min: 0, max: timeline.length, step: 1, autocomplete: "off", "aria-label": "Step", oninput: () => { pause(); go(Number(slider.value)); } });
  const said = h("p", { class: "number stepsaid", "aria-live": "polite" });
  const playing = h("button", { type: "button", onclick: () => (timer ? pause() : play()) }, "Play");
  const speed = select(SPEEDS, 4, { "aria-label": "Speed", autocomplete: "off", onchange: () => { if (timer) { pause(); play(); } } });
  const back = h("button", { type: "button", class: "plain", onclick: () => { pause(); go(now - 1); } }, "Step back");
  const forward = h("button", { type: "button", class: "plain", onclick: () => { pause(); go(now + 1); } }, "Step forward");
  let now = 0;
  let timer = null;

  function go(step) {
    now = Math.min(Math.max(step, 0), timeline.length);
    slider.value = now;
    const told = `Step ${now} of ${timeline.length}: ${many(timeline.held[now], "character")} on hold`;
    set(slider, { "aria-valuetext": told });
    fill(said, told);
    chart.point(now);
    set(back, { disabled: now === 0 });
    set(forward, { disabled: now === timeline.length });
    views.forEach((view) => view.show(now));
    if (now === timeline.length) pause();
  }

  function play() {
    if (now === timeline.length) go(0);
    set(said, { "aria-live": "off" }); // a screen reader would read every step
    fill(playing, "Pause");
    timer = setInterval(() => (playing.isConnected ? go(now + 1) : pause()), 1000 / Number(speed.value));
  }

  function pause() {
    clearInterval(timer);
    timer = null;
    set(said, { "aria-live": "polite" });
    fill(playing, "Play");
  }

  go(0);
  return h("section", { class: "card player", "aria-labelledby": "player-title" },
    h("h2", { id: "player-title" }, "Step by step"),
    h("p", { class: "hint" }, `${many(timeline.length, "step")}: one for each piece that came in, and the end. Only what is decided is delivered.`),
    h("div", { class: "controls" }, playing, back, forward, speed),
    slider,
    h("p", { class: "hint charttitle", "aria-hidden": "true" }, "Characters on hold", h("span", { class: "number" }, `at most ${chart.most}`)),
    chart.element,
    said,
    views.map((view) => view.element));
}

function channelView(channel, index, timeline, result) {
  const raw = new Points(channel.raw);
  const delivered = new Delivered(channel);
  const received = h("div", { "data-side": "received" });
  const out = h("div", { "data-side": "delivered" });
  const why = h("div", { class: "why" });
  const element = h("div", { class: "playing", "data-channel": index },
    h("h3", {}, channel.label),
    h("div", { class: "sides" },
      h("div", {}, h("h4", {}, "Received"), received),
      h("div", {}, h("h4", {}, "Delivered"), out)),
    why);
  let drawn = null;

  function show(step) {
    const state = timeline.at(index, step);
    const end = step === timeline.length;
    const key = JSON.stringify([state, end]);
    set(element, { "data-received": state.received, "data-released": state.released, "data-written": state.written });
    if (key === drawn) {
      if (state.why.length) fill(why, reasons(state, step));
      return;
    }
    drawn = key;
    const held = state.received - state.released;
    const from = Math.max(0, Math.min(state.released, state.received - SHOWN));
    fill(received, h("div", { class: "text" }, from > 0 && "\u2026", raw.slice(from, state.released),
      held > 0 && h("mark", state.why.length ? { class: "held", "data-held": held } : { class: "dropped", "data-dropped": held }, raw.slice(state.released, state.received))));
    const first = Math.max(0, state.written - SHOWN);
    fill(out, delivered.text(first, state.written));
    if (first > 0) out.firstChild.prepend("\u2026");
    fill(why, reasons(state, step));
    follow(received.firstChild, `Received in ${channel.label}`);
    follow(out.firstChild, `Delivered in ${channel.label}`);
  }

  function reasons(state, step) {
    const held = state.received - state.released;
    if (!state.received) return h("p", { class: "hint" }, "Nothing was received yet.");
    if (!state.why.length && held === 0) return h("p", { class: "hint" }, "Nothing is on hold.");
    if (!state.why.length) return h("p", {}, `${many(held, "character")} will never be delivered: ${result.fault ? "a fault" : "a block"} ended the exchange.`);
    const at = timeline.decided(index, state.received);
    const until = at === null
      ? "It is not delivered in the end."
      : `All of it is decided at step ${at}, ${many(at - step, "step")} later.`;
    return [
      h("p", {}, held ? `${many(held, "character")} on hold. ` : "Half a character or an escape on hold. ", until),
      h("ul", {}, state.why.map((name) => h("li", { "data-why": name }, reason(name)))),
    ];
  }

  return { element, show };
}

/** Show the end of a text that is longer than its place, which the keyboard can scroll. */
function follow(text, label) {
  if (text.scrollHeight <= text.clientHeight) return;
  set(text, { tabindex: 0, role: "group", "aria-label": label });
  text.scrollTop = text.scrollHeight;
}
