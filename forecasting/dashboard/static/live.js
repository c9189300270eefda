// Being told when a graph has changed: by the service's push where it has one, else by asking now and then.

import { events, getFresh, untilAnswered } from "./api.js";
import { has } from "./dom.js";

const POLL_MS = 2000;

/**
 * Call `onChange(document)` whenever the graph's document has changed, until `signal` aborts.
 * `onFault(error, isAskedAgain)` is told when it cannot be asked, and `null` when it can again.
 */
export async function follow(graph, onChange, onFault, signal) {
  const path = `/v1/graphs/${encodeURIComponent(graph)}`;
  let isBehind = false;
  let hasFailed = false;
  const look = async () => {
    const { body, isNew } = await getFresh(path, { signal });
    isBehind ||= isNew;
    if (isBehind) await onChange(body);
    isBehind = false;
  };
  const attempt = async () => {
    try {
      await untilAnswered(look, onFault, signal);
      if (hasFailed) onFault(null);
      hasFailed = false;
    } catch (error) {
      hasFailed = true;
      if (!signal.aborted) onFault(error);
    }
  };
  for await (const _ of has("live") ? events(`${path}/live`, signal) : ticks(signal)) await attempt();
}

async function* ticks(signal) {
  while (!signal.aborted) {
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    // A page that nobody sees asks for nothing; it catches up when it is looked at again.
    if (!document.hidden) yield null;
  }
}
