// The console's endpoints. Whoever is no longer logged in is sent to the login page.

const base = "/console/api/";
let csrf = "";

/** What an endpoint says is wrong: a sentence, and for drafts the places in them. */
export class ApiError extends Error {
  constructor(status, message, problems = []) {
    super(message);
    this.status = status;
    this.problems = problems;
  }
}

/** Who is logged in: {name, right, csrf, version}. */
export async function session() {
  const told = await get("session");
  csrf = told.csrf;
  return told;
}

export function get(path, parameters = {}) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value !== "" && value !== null));
  return ask("GET", query.size ? `${path}?${query}` : path);
}

export function post(path, body = {}) {
  return ask("POST", path, body);
}

export function remove(path) {
  return ask("DELETE", path);
}

/**
 * Server-sent events; `listeners` by the event's name get the data, `open` and `error` (the connection broke) null.
 * It is always tried again. Returns a function that ends it.
 */
export function follow(path, listeners) {
  let source;
  let waiting;
  const start = () => {
    source = new EventSource(base + path);
    for (const [name, listener] of Object.entries(listeners)) {
      source.addEventListener(name, (event) => listener(event.data ? JSON.parse(event.data) : null));
    }
    source.addEventListener("error", () => {
      if (source.readyState === EventSource.CLOSED) waiting = setTimeout(again, 3000); // browsers give up after a refusal
    });
  };
  const again = () => session().then(start, () => { waiting = setTimeout(again, 3000); });
  start();
  return () => {
    clearTimeout(waiting);
    source.close();
  };
}

async function ask(method, path, body) {
  const headers = method === "GET" ? {} : { "content-type": "application/json", "x-cotguard-csrf": csrf };
  let response;
  try {
    response = await fetch(base + path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch {
    throw new ApiError(0, "The gateway does not answer.");
  }
  if (response.status === 401) {
    location.assign("/console/login");
    return new Promise(() => {});
  }
  const told = await response.json().catch(() => ({ error: `The gateway answered with status ${response.status}.` }));
  if (!response.ok) throw new ApiError(response.status, told.error, told.problems);
  return told;
}
