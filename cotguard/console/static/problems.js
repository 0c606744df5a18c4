// What is wrong with a draft, line by line.

import { h } from "./dom.js";

/** A list of problems; `go(problem)`, where given, is called when somebody chooses one. */
export function problemList(problems, go = null) {
  return h("ul", { class: "problems" }, problems.map((problem) => {
    const place = problem.line ? `Line ${problem.line}, column ${problem.column}` : "The draft as a whole";
    return h("li", { "data-line": problem.line, "data-column": problem.column },
      go && problem.line ? h("button", { type: "button", class: "place", onclick: () => go(problem) }, place) : h("strong", {}, place),
      `: ${sentence(problem)}`);
  }));
}

function sentence({ reason, hint }) {
  const said = hint ? `${reason}; ${hint}` : reason;
  return /[.?!]$/.test(said) ? said : `${said}.`;
}
