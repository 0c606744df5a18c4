// The policies in force, in sentences.

import { get } from "./api.js";
import { fill, h } from "./dom.js";

export async function show(main) {
  const { policies } = await get("policies");
  fill(main, h("h1", {}, "Policy"), policies.map((policy) =>
    h("section", { class: "card", "data-policy": policy.name },
      h("h2", {}, policy.name, " ", h("span", { class: "tag" }, policy.mode)),
      h("p", { class: "hint" }, "Digest ", h("code", {}, policy.digest)),
      h("ul", {}, policy.sentences.map((sentence) => h("li", {}, sentence))))));
}
