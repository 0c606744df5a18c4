// Tabs: one of several panels is shown. Arrow keys, Home and End move between the tabs; Tab goes into the panel.

import { h, set } from "./dom.js";

/** Tabs with the accessible name `label`; `panels` are {name, title, content}. `chosen()` names the one that is shown. */
export function tabs(label, panels, onchoose = () => {}) {
  let current = 0;
  const buttons = panels.map((panel, index) => h("button", {
    type: "button", role: "tab", id: `tab-${panel.name}`, "aria-controls": `panel-${panel.name}`,
    onclick: () => choose(index), onkeydown: (event) => move(event, index),
  }, panel.title));
  const bodies = panels.map((panel) =>
    h("div", { role: "tabpanel", id: `panel-${panel.name}`, "aria-labelledby": `tab-${panel.name}` }, panel.content));
  const element = h("div", { class: "tabs" }, h("div", { role: "tablist", "aria-label": label }, buttons), bodies);

  function choose(index) {
    current = index;
    buttons.forEach((button, at) => set(button, { "aria-selected": String(at === index), tabindex: at === index ? 0 : -1 }));
    bodies.forEach((body, at) => set(body, { hidden: at !== index }));
    onchoose(panels[index].name);
  }

  function move(event, index) {
    const last = panels.length - 1;
    const to = { ArrowRight: index === last ? 0 : index + 1, ArrowLeft: index === 0 ? last : index - 1, Home: 0, End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    choose(to);
    buttons[to].focus();
  }

  choose(0);
  return { element, chosen: () => panels[current].name };
}
