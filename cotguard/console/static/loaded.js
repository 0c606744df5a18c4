// What is loaded: versions, policies, the classifier's bundle, upstreams, and the dialects with their paths.

import { get } from "./api.js";
import { fill, h, set } from "./dom.js";
import { exact, many, NOTHING, tag } from "./format.js";

export async function show(main) {
  const told = await get("loaded");
  fill(main, h("h1", {}, "Loaded"),
    h("div", { class: "loaded" }, versions(told), policies(told.policies), bundle(told), upstreams(told.upstreams)),
    dialects(told.dialects));
}

function card(id, title, ...children) {
  return h("section", { class: "card", "aria-labelledby": id, "data-loaded": id }, h("h2", { id }, title), children);
}

/** Names with values; `data-name` is for tests, the name is for people. */
function pairs(list) {
  return h("dl", { class: "pairs" }, list.map(([name, value]) => h("div", { "data-name": name }, h("dt", {}, name), h("dd", {}, value))));
}

function hex(text) {
  return h("code", { class: "hex", "data-digest": text }, text);
}

function versions({ version, python, libraries }) {
  return card("versions", "Versions", pairs([["cotguard", version], ["Python", python], ...Object.entries(libraries)]));
}

function policies(list) {
  return card("policies", "Policies in use", pairs(list.map(({ name, digest }) => [name, hex(digest)])),
    h("p", { class: "hint" }, h("a", { href: "/console/policy" }, "What they say")));
}

function bundle({ bundle: found, guard }) {
  const told = found === null ? h("p", {}, "No classifier is loaded.") : [
    pairs([["bundle", found.name], ["labels", exact(found.labels)], ["runs on", found.provider], ["digest", hex(found.digest)]]),
    h("h3", {}, "SHA-256 of its files"), pairs(Object.entries(found.files).map(([name, sum]) => [name, hex(sum)]))];
  return card("classifier", "Classifier and guard", told, h("h3", {}, "Guard"), h("p", { "data-guard": guard }, guard || "No guard is asked."));
}

function upstreams(list) {
  return card("upstreams", "Upstreams", list.length === 0 ? h("p", {}, "None.") : pairs(list.map(({ name, servers, key }) => [name, [
    h("ul", { class: "plain" }, servers.map((server) => h("li", { class: "mono" }, server))),
    h("span", { class: "hint" }, key ? "with a key of the gateway's" : "with the client's own key"),
  ]])));
}

function dialects(list) {
  const all = list.map(dialect);
  const status = h("p", { class: "hint", role: "status" });
  const none = h("p", { hidden: true }, "No dialect has it: such a request is refused.");
  const search = h("input", { type: "search", id: "search", placeholder: "name, server or path, such as /v1/messages", oninput: () => look() });
  const look = () => {
    const asked = search.value.trim();
    const found = all.filter((each) => each.look(asked));
    status.textContent = asked ? `${exact(found.length)} of ${many(all.length, "dialect")}` : many(all.length, "dialect");
    set(none, { hidden: found.length > 0 });
  };
  look();
  return h("section", { "aria-labelledby": "dialects", "data-loaded": "dialects" },
    h("h2", { id: "dialects" }, "Dialects"),
    h("p", { class: "hint" }, "What requests and answers may look like. Requests to moderated paths are moderated both ways; lookups pass, as they carry no text; what is not here is refused."),
    h("div", { class: "search" }, h("label", { for: "search" }, "Search"), search, status),
    none, all.map(({ element }) => element));
}

/** A dialect, and `look(asked)`, which shows only what fits the search and says whether something did. */
function dialect({ name, title, servers, moderated, lookups, refused }) {
  const runs = [servers].flat().join(", ");
  const paths = [
    ...moderated.map((path) => ({ path, kind: ["moderated", "good"], why: "" })),
    ...lookups.map((path) => ({ path, kind: ["lookup", ""], why: "" })),
    ...refused.map(({ path, why }) => ({ path, kind: ["refused", "bad"], why })),
  ].map(({ path, kind, why }) => ({ path, element: h("li", { "data-path": path, "data-kind": kind[0] }, tag(...kind), h("code", {}, path), why && h("span", { class: "hint" }, why)) }));
  const element = h("details", { class: "card dialect", "data-dialect": name },
    h("summary", {}, h("h3", {}, title), h("span", { class: "hint" }, h("code", {}, name), ` ${many(paths.length, "path")}`)),
    h("p", {}, h("span", { class: "hint" }, "Spoken by "), runs || NOTHING),
    h("ul", { class: "plain paths" }, paths.map((each) => each.element)));
  const look = (asked) => {
    const named = [name, title, runs].some((text) => text.toLowerCase().includes(asked.toLowerCase()));
    const fitting = new Set(paths.filter(({ path }) => fits(path, asked)));
    for (const each of paths) set(each.element, { hidden: !named && !fitting.has(each) });
    const found = named || fitting.size > 0;
    set(element, { hidden: !found, open: found && asked !== "" });
    return found;
  };
  return { element, look };
}

/** Whether a path, such as `GET /v1/models/{model}`, holds what is asked or is what a whole path would be served as. */
function fits(path, asked) {
  if (path.toLowerCase().includes(asked.toLowerCase())) return true;
  const pattern = path.split(/\{[^}]*\}/).map((part) => part.replace(/[^\w\s]/g, "\\$&")).join("[^/]+");
  return new RegExp(`^${pattern}$`, "i").test(asked) || new RegExp(`^${pattern.replace(/^[A-Z]+ /, "")}$`, "i").test(asked);
}
