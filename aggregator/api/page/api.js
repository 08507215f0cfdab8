// Talking to aggregators: reads with a time limit, and the event stream with polling to fall back on.

const TIMEOUT_MS = 8000;
const LIVE_POLL_MS = 15000;
const FALLBACK_POLL_MS = 3000;
const GATHER_MS = 150;
const EVENTS = ["order", "transaction", "phase", "sealed", "penalty", "report", "settlement", "view", "gap"];

export class Refused extends Error {
  constructor(status, code, reason) {
    super(reason);
    this.status = status;
    this.code = code;
  }
}

export async function get(path, base = "") {
  const answer = await fetch(base + path, {
    cache: "no-cache",
    credentials: "omit",
    signal: AbortSignal.timeout(TIMEOUT_MS),
  });
  const body = await answer.json().catch(() => null);
  if (!answer.ok || body === null) {
    throw new Refused(answer.status, body?.error?.code ?? "Unreadable", body?.error?.reason ?? `status ${answer.status}`);
  }
  return body;
}

// Calls `changed(events)` when something happened, a little gathered; `state(text)` when the connection changes.
export function follow(changed, state) {
  let gathered = [];
  let timer = null;
  let live = false;
  let polled = Date.now();

  function flush() {
    timer = null;
    const events = gathered;
    gathered = [];
    polled = Date.now();
    changed(events);
  }

  function note(event) {
    if (gathered.length < 1000) gathered.push(event);
    timer ??= setTimeout(flush, GATHER_MS);
  }

  const source = new EventSource("/v1/events");
  source.onopen = () => {
    live = true;
    state("live");
    note({ name: "open", data: {} });
  };
  source.onerror = () => {
    live = false;
    state("polling");
  };
  for (const name of EVENTS) {
    source.addEventListener(name, (event) => {
      let data = {};
      try {
        data = JSON.parse(event.data);
      } catch {
        return;
      }
      note({ name, data, id: event.lastEventId });
    });
  }
  setInterval(() => {
    if (Date.now() - polled >= (live ? LIVE_POLL_MS : FALLBACK_POLL_MS)) note({ name: "poll", data: {} });
  }, 1000);
}
