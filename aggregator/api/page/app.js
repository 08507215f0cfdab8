// The page: which view the address asks for, drawn anew whenever the ledger says that something happened.

import { follow, get, Refused } from "./api.js";
import { account, ask } from "./account.js";
import { setClock, tick } from "./clock.js";
import { el, morph } from "./dom.js";
import { committee, nodes, noteView, settlements } from "./network.js";
import { order, orders } from "./orders.js";
import { put } from "./put.js";
import { count, words } from "./format.js";

const main = document.getElementById("main");
const said = document.getElementById("said");
let status = null;
let drawing = null;
let again = false;
let shown = null;

function route() {
  const [section = "orders", key] = location.hash.replace(/^#\/?/, "").split("/").filter(Boolean).map((part) => {
    try {
      return decodeURIComponent(part);
    } catch {
      return "";
    }
  });
  return { section, key };
}

async function view({ section, key }) {
  switch (section) {
    case "orders":
      return key ? order(key, status) : orders(refresh);
    case "nodes":
      return nodes(refresh);
    case "committee":
      return committee();
    case "put":
      return put(refresh, status);
    case "settlements":
      return settlements(refresh, status);
    case "accounts":
      return key ? account(key, refresh, status) : ask();
    default:
      throw new Refused(404, "NotFound", "There is no such page.");
  }
}

function failure(reason) {
  const text = reason instanceof Refused ? reason.message : "The aggregator does not answer; trying again.";
  return {
    title: "Not available",
    body: [el("h1", {}, "Not available"), el("p", { class: "note", role: "alert" }, text),
      el("p", {}, el("a", { href: "#/orders" }, "All orders"))],
  };
}

async function draw() {
  const asked = route();
  const { hash } = location;
  try {
    status = await get("/v1/status");
    setClock(status.clockMs);
    foot();
  } catch (reason) {
    console.info("no status:", reason.message);
  }
  let made;
  try {
    made = await view(asked);
  } catch (reason) {
    made = failure(reason);
  }
  if (location.hash !== hash) return; // somebody went on meanwhile
  const fresh = el("main", {}, made.body);
  const key = `${asked.section}/${asked.key ?? ""}`;
  if (shown === key) morph(main, fresh);
  else main.replaceChildren(...fresh.childNodes);
  document.title = `${made.title} · DTN`;
  for (const link of document.querySelectorAll("#nav a")) {
    if (link.getAttribute("href") === `#/${asked.section}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (shown !== null && shown !== key) {
    main.focus({ preventScroll: true });
    window.scrollTo(0, 0);
  }
  shown = key;
  main.setAttribute("aria-busy", "false");
  tick();
}

// Draw, or draw once more when the drawing under way is done: never two at once.
function refresh() {
  if (drawing) {
    again = true;
    return;
  }
  drawing = draw().finally(() => {
    drawing = null;
    if (again) {
      again = false;
      refresh();
    }
  });
}

function foot() {
  const network = status.network;
  document.getElementById("foot").replaceChildren(
    el("p", {}, `Member ${status.member ?? "–"} of ${status.members.length} · chain ${network.chainId} · batch ${count(status.executed)} · ` +
      `view ${count(status.view)} · ${count(status.waiting)} waiting`),
    el("p", {}, el("a", { href: "/openapi.json" }, "API"), " · ",
      "One member may lie: what decides about money is asked of f + 1 (", el("code", {}, "dtn get"), ")."));
}

function pulse(state) {
  document.getElementById("pulse").dataset.state = state;
  document.getElementById("pulse-text").textContent = state;
}

follow((events) => {
  for (const { name, data } of events) if (name === "view") noteView(data);
  const phases = events.filter(({ name, data }) => name === "phase" && data.oid === route().key);
  // Only what the reader looks at is spoken, and only the last of it.
  if (phases.length) said.textContent = `The order is now in ${words(phases.at(-1).data.phase)}.`;
  refresh();
}, pulse);

window.addEventListener("hashchange", () => {
  main.setAttribute("aria-busy", "true");
  refresh();
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) refresh();
});
main.setAttribute("aria-busy", "true");
refresh();
