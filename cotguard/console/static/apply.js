// A draft put in force, the policy before put back, and the draft as a file.

import { post } from "./api.js";
import { confirmed } from "./dialog.js";
import { fill, h } from "./dom.js";
import { digest } from "./format.js";
import { problemList } from "./problems.js";
import { changes } from "./sentences.js";

const NOT_WRITTEN = "This gateway does not write its policies' files: download the draft, and put it in the file's place.";

/**
 * The card for what is done with a draft. `draft` is {policy (as /policies tells it), text, checked (as /check answers,
 * or null)} and has `onapplied(text, name)` and `reload(name)`, called after the policies in force have changed.
 */
export function applyCard(draft, mayChange) {
  const said = h("div", { role: "alert" });
  const place = h("div", {});

  async function change(path, about, done) {
    fill(said);
    try {
      const told = await post(path, about);
      await done(told);
      fill(said, h("p", { class: "message good" }, `${told.name} is in force now. Digest: `, digest(told.digest)));
    } catch (error) {
      if (error.status !== 409) {
        fill(said, h("p", { class: "problem" }, error.message), problemList(error.problems ?? []));
        return;
      }
      fill(said, h("p", { class: "problem" }, "Somebody else changed this policy meanwhile, and nothing was written. Your draft is still here: load what is in force now, and see what the draft changes of it."),
        h("button", { type: "button", class: "plain", onclick: () => { fill(said); draft.reload(); } }, "Load what is in force"));
    }
  }

  async function apply() {
    const { policy, text, checked } = draft;
    const content = [
      h("p", {}, `${policy.file ?? policy.name} is written, and what begins after it is decided by the draft; exchanges under way are not touched.`),
      h("p", {}, "Digest ", digest(policy.digest), " becomes ", digest(checked.digest)),
      changes(policy.sentences, checked.sentences),
    ];
    if (await confirmed(`Apply the draft to ${policy.name}?`, content, "Apply")) {
      await change("apply", { policy: policy.name, draft: text, digest: policy.digest }, ({ name }) => draft.onapplied(text, name));
    }
  }

  async function rollBack() {
    const { policy } = draft;
    const content = h("p", {}, `What stood in ${policy.file ?? policy.name} before the last change is put in force again, in the place of `, digest(policy.digest), ".");
    if (await confirmed(`Roll back ${policy.name}?`, content, "Roll back")) {
      await change("rollback", { policy: policy.name, digest: policy.digest }, ({ name }) => draft.reload(name));
    }
  }

  function download() {
    const { policy, text } = draft;
    const address = URL.createObjectURL(new Blob([text], { type: "application/yaml" }));
    const link = h("a", { href: address, download: policy.file ?? `${policy.name}.yaml` });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(address), 60_000); // some browsers fetch it later
  }

  function why() {
    const { policy, checked, changed } = draft;
    if (!policy.writable) return policy.why_not || NOT_WRITTEN;
    if (!mayChange) return 'Putting a draft in force needs the right "change".';
    if (!changed) return "The draft is what stands in the file.";
    return checked?.digest ? "" : "A draft can be applied when nothing is wrong with it.";
  }

  return {
    element: h("section", { class: "card", "aria-labelledby": "apply-title", "data-card": "apply" },
      h("h2", { id: "apply-title" }, "Put it in force"), place, said),
    /** Show what may be done now. */
    update() {
      const { policy } = draft;
      const hindrance = why();
      fill(place,
        h("div", { class: "row" },
          policy.writable && mayChange && h("button", { type: "button", disabled: Boolean(hindrance), onclick: apply }, "Apply"),
          policy.writable && mayChange && policy.previous && h("button", { type: "button", class: "plain", onclick: rollBack }, "Roll back"),
          h("button", { type: "button", class: "plain", onclick: download }, "Download")),
        hindrance && h("p", { class: "hint", "data-hindrance": true }, hindrance));
    },
    clear: () => fill(said),
  };
}
