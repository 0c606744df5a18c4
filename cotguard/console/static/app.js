// The shell: who is logged in, the pages that he may see, and the one that the address names.

import { session } from "./api.js";
import { fill, h, set } from "./dom.js";

const RIGHTS = ["view", "try", "change"];
const PAGES = [
  { name: "live", title: "Live", right: "view" },
  { name: "exchanges", title: "Exchanges", right: "view" },
  { name: "playground", title: "Playground", right: "try" },
  { name: "policy", title: "Policy", right: "view" },
  { name: "loaded", title: "Loaded", right: "view" },
];

/** Whether someone with the right `has` may do what needs `needed`. */
export function may(has, needed) {
  return RIGHTS.indexOf(has) >= RIGHTS.indexOf(needed);
}

async function start() {
  const main = document.getElementById("main");
  const who = await session();
  const name = location.pathname.split("/").pop();
  const page = PAGES.find((each) => each.name === name);
  const allowed = PAGES.filter((each) => may(who.right, each.right));
  fill(document.getElementById("pages"), allowed.map((each) =>
    h("a", { href: `/console/${each.name}`, "aria-current": each === page ? "page" : null }, each.title)));
  fill(document.getElementById("leave"),
    h("input", { type: "hidden", name: "csrf", value: who.csrf }),
    h("span", { class: "who", title: `right: ${who.right}` }, who.name),
    h("button", { type: "submit", class: "plain" }, "Log out"));
  document.title = `${page.title} - cotguard`;
  try {
    if (!may(who.right, page.right)) throw new Error(`This page needs the right "${page.right}"; you have "${who.right}".`);
    const { show } = await import(`./${page.name}.js`);
    await show(main, who);
  } catch (error) {
    fill(main, h("h1", {}, page.title), h("p", { class: "problem", role: "alert" }, error.message));
  }
  set(main, { "aria-busy": null });
}

start().catch((error) => {
  const main = document.getElementById("main");
  fill(main, h("h1", {}, "cotguard"), h("p", { class: "problem", role: "alert" }, error.message));
  set(main, { "aria-busy": null });
});
