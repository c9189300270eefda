// The REST API: keys, problems, entity tags, and streams of events.

import { byId } from "./dom.js";

const KEY = "graphtide-key";
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 10_000;
// The browser reads the file after the click.
const KEPT_MS = 60_000;
const kept = new Map();
let asking = null;

/** What the service said is wrong. */
export class ApiError extends Error {
  constructor(status, problem) {
    super(problem.detail ?? `the service answered ${status}`);
    this.status = status;
    this.errors = problem.errors ?? [];
    this.kind = (problem.type ?? "").replace("urn:graphtide:problem:", "");
  }
}

/** Ask for the key, once for all who wait for it. It is kept for this tab alone. */
function askForKey() {
  asking ??= new Promise((resolve) => {
    const dialog = byId("key-dialog");
    const input = byId("key-input");
    byId("key-fault").hidden = sessionStorage.getItem(KEY) === null;
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    byId("key-form").addEventListener("submit", () => {
      sessionStorage.setItem(KEY, input.value.trim());
      input.value = "";
      asking = null;
      resolve();
    }, { once: true });
    dialog.showModal();
  });
  return asking;
}

export function setUpKey() {
  const button = byId("key-button");
  button.hidden = sessionStorage.getItem(KEY) === null;
  button.addEventListener("click", () => {
    sessionStorage.removeItem(KEY);
    location.reload();
  });
}

/** Tell whether to ask again is of no use: too many requests or streams, or a service that is away, pass by. */
const isFinal = (error) => error instanceof ApiError && error.status < 500 && error.status !== 429;

/** Return the response to a request, after a key was given where one is needed; throws ApiError. */
export async function send(path, { method = "GET", headers = {}, body, signal } = {}) {
  for (;;) {
    const key = sessionStorage.getItem(KEY);
    const sent = key ? { ...headers, Authorization: `Bearer ${key}` } : headers;
    const response = await fetch(path, { method, headers: sent, body, signal, cache: "no-store" });
    if (response.status === 401) {
      // Another request may have been given a key meanwhile.
      if (sessionStorage.getItem(KEY) === key) await askForKey();
      byId("key-button").hidden = false;
      continue;
    }
    if (response.ok || response.status === 304) return response;
    throw new ApiError(response.status, await response.json().catch(() => ({})));
  }
}

/**
 * Return what `work()` does, once it succeeds: what passes by is tried again. `onFault(error, true)` is told of each such
 * failure, and `onFault(null)` when they are over.
 */
export async function untilAnswered(work, onFault, signal) {
  let hasFailed = false;
  for (let wait = FIRST_WAIT_MS; ; wait = Math.min(wait * 2, LONGEST_WAIT_MS)) {
    try {
      const found = await work();
      if (hasFailed) onFault(null);
      return found;
    } catch (error) {
      if (signal.aborted || isFinal(error)) throw error;
      hasFailed = true;
      onFault(error, true);
    }
    await new Promise((resolve) => setTimeout(resolve, wait));
    signal.throwIfAborted();
  }
}

export const hasKey = () => sessionStorage.getItem(KEY) !== null;

/** Save what a path answers as a file. */
export async function download(path, mediaType, name) {
  const address = URL.createObjectURL(await (await send(path, { headers: { Accept: mediaType } })).blob());
  const link = Object.assign(document.createElement("a"), { href: address, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), KEPT_MS);
}

export const getJson = async (path, options) => (await send(path, options)).json();

/** Return {body, isNew}: an unchanged answer costs a 304 and is the one that was kept. */
export async function getFresh(path, options = {}) {
  const before = kept.get(path);
  const headers = before ? { "If-None-Match": before.etag } : {};
  const response = await send(path, { ...options, headers });
  if (response.status === 304) return { body: before.body, isNew: false };
  const body = await response.json();
  kept.set(path, { etag: response.headers.get("ETag"), body });
  return { body, isNew: true };
}

/**
 * Yield {id, event, data} of a stream of server-sent events. EventSource cannot send a key, so the stream is read by hand.
 * A stream that breaks is taken up again behind the last event; whoever reads it leaves it at its last one.
 */
export async function* events(path, signal) {
  let lastId = null;
  let wait = FIRST_WAIT_MS;
  for (;;) {
    try {
      const headers = { Accept: "text/event-stream", ...(lastId === null ? {} : { "Last-Event-ID": lastId }) };
      const response = await send(path, { headers, signal });
      for await (const event of parse(response.body)) {
        lastId = event.id ?? lastId;
        wait = FIRST_WAIT_MS;
        yield event;
      }
    } catch (error) {
      if (signal.aborted || isFinal(error)) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, wait));
    signal.throwIfAborted();
    wait = Math.min(wait * 2, LONGEST_WAIT_MS);
  }
}

async function* parse(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      text += value;
      for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
        const event = parseOne(text.slice(0, end));
        text = text.slice(end + 2);
        if (event.data !== undefined) yield event;
      }
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

function parseOne(block) {
  const event = { event: "message" };
  for (const line of block.split("\n")) {
    const at = line.indexOf(":");
    if (at <= 0) continue;
    const [name, value] = [line.slice(0, at), line.slice(at + 1).replace(/^ /, "")];
    event[name] = name === "data" && event.data !== undefined ? `${event.data}\n${value}` : value;
  }
  return event;
}
