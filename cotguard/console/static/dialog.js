// A dialog that asks before something is done.

import { h } from "./dom.js";

let dialogs = 0;

/** Whether somebody agrees to `title`, whose button is called `action`, after reading `content`. */
export function confirmed(title, content, action) {
  const id = `dialog-${++dialogs}`;
  return new Promise((resolve) => {
    const dialog = h("dialog", { "aria-labelledby": id, onclose: () => { dialog.remove(); resolve(dialog.returnValue === "yes"); } },
      h("form", { method: "dialog" },
        h("h2", { id }, title),
        h("div", { class: "content", tabindex: 0, role: "group", "aria-label": "What changes" }, content),
        h("div", { class: "row" },
          h("button", { value: "no", class: "plain", autofocus: true }, "Cancel"),
          h("button", { value: "yes" }, action))));
    document.body.append(dialog);
    dialog.showModal();
  });
}
