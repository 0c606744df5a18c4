// A small chart: characters on hold after each step, and where the player stands.

import { set } from "./dom.js";
import { many } from "./format.js";

const SPACE = "http://www.w3.org/2000/svg";
const WIDTH = 1000;
const HEIGHT = 80;
const TOP = 4;

function shape(tag, properties) {
  const element = document.createElementNS(SPACE, tag);
  set(element, properties);
  return element;
}

/** The chart of `held` (characters on hold after 0, 1, ... steps): its element and `point(step)`; a click calls `go`. */
export function heldChart(held, go) {
  const most = held.reduce((a, b) => Math.max(a, b), 0);
  const last = Math.max(1, held.length - 1);
  const x = (step) => (step / last) * WIDTH;
  const y = (value) => HEIGHT - (value / Math.max(1, most)) * (HEIGHT - TOP);
  let path = `M0 ${HEIGHT}`;
  held.forEach((value, step) => { path += `H${x(step).toFixed(1)}V${y(value).toFixed(1)}`; });
  const cursor = shape("line", { class: "cursor", y1: 0, y2: HEIGHT, "vector-effect": "non-scaling-stroke" });
  const element = shape("svg", {
    class: "heldchart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img",
    "aria-label": `Characters on hold after each step: at most ${most}, first after ${many(held.indexOf(most), "step")}.`,
    onclick: (event) => {
      const box = element.getBoundingClientRect();
      go(Math.round(((event.clientX - box.left) / box.width) * last));
    },
  });
  element.append(
    shape("path", { class: "area", d: `${path}V${HEIGHT}Z` }),
    shape("line", { class: "base", x1: 0, x2: WIDTH, y1: HEIGHT, y2: HEIGHT, "vector-effect": "non-scaling-stroke" }),
    cursor,
  );
  return { element, most, point: (step) => set(cursor, { x1: x(step), x2: x(step) }) };
}
