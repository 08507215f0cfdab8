// Nodes, committee and settlements.

import { get } from "./api.js";
import { el, outside, section, table } from "./dom.js";
import * as show from "./format.js";
import { kept, records } from "./record.js";

const MOST_PAGES = 20;
const filter = { role: "", pages: 1 };
const viewsSeen = [];

export async function nodes(refresh) {
  const found = [];
  let next = null;
  do {
    const query = new URLSearchParams({ limit: 500 });
    if (filter.role) query.set("role", filter.role);
    if (next) query.set("cursor", next);
    const answer = await get(`/v1/nodes?${query}`);
    found.push(...answer.nodes);
    next = answer.next;
  } while (next && found.length < MOST_PAGES * 500);
  const past = await records();
  const most = found.flatMap((node) => node.stakes).reduce((top, stake) => {
    const bonded = BigInt(stake.bondedWei);
    return bonded > top ? bonded : top;
  }, 1n);
  const rows = found.flatMap((node) => node.stakes
    .filter((stake) => !filter.role || stake.role === filter.role)
    .map((stake) => [
      show.account(node.account),
      el("span", { class: "tag" }, stake.role),
      bar(stake.bondedWei, most),
      show.tokens(stake.lockedWei, 2),
      BigInt(stake.unbondingWei) ? show.tokens(stake.unbondingWei, 2) : "–",
      stake.role === "aggregator" ? "–" : kept(past, node.account),
      el("span", { class: "endpoints" }, endpoints(node.endpoint)),
    ]));
  const roles = ["provider", "validator", "verifier", "aggregator"];
  return {
    title: "Nodes",
    body: [
      el("div", { class: "head" },
        el("div", {}, el("h1", {}, "Nodes"),
          el("p", { class: "lead" }, `${show.count(found.length)} registered accounts, what each has at stake, and of its `
            + `claims, scores and challenges in the latest ${past ? show.count(past.orders) : "–"} settled orders those kept: `
            + "opened, and not found wrong.")),
        el("p", { class: "filter" }, el("label", { for: "role-filter" }, "Role"),
          el("select", {
            id: "role-filter",
            onchange: (event) => {
              filter.role = event.target.value;
              refresh();
            },
          }, el("option", { value: "" }, "all roles"),
          roles.map((role) => el("option", { value: role, selected: role === filter.role }, role))))),
      table("Nodes", [
        { label: "Account" }, { label: "Role" }, { label: "Stake, tokens" }, { label: "Locked", number: true },
        { label: "Leaving", number: true }, { label: "Kept", number: true }, { label: "Endpoint" },
      ], rows, "Nobody is registered in this role."),
    ],
  };
}

function bar(wei, most) {
  const share = Number((BigInt(wei) * 1000n) / most) / 1000;
  return el("span", { class: "stake" },
    el("meter", { min: 0, max: 1, value: share, "aria-hidden": "true" }),
    el("span", {}, show.tokens(wei, 2)));
}

function endpoints(text) {
  if (!text) return "–";
  return text.slice(0, 400).split(",").map((part, place) => [place ? el("br") : null, outside(part)]);
}

// Remember views, so that the committee's page can show the changes since this page was opened.
export function noteView(data) {
  const last = viewsSeen.at(-1);
  if (!last || last.view !== data.view || last.active !== data.active) {
    viewsSeen.push({ ...data, seenMs: Date.now() });
    if (viewsSeen.length > 20) viewsSeen.shift();
  }
}

export async function committee() {
  const known = await get("/v1/committee");
  const statuses = await Promise.all(known.members.map(async (member) => {
    try {
      if (member.index === known.member) return await get("/v1/status");
      if (!/^https?:\/\//.test(member.api ?? "")) return null;
      return await get("/v1/status", member.api);
    } catch {
      return null;
    }
  }));
  const heads = statuses.filter(Boolean).map((status) => status.executed);
  const top = Math.max(0, ...heads);
  const rows = known.members.map((member, place) => {
    const status = statuses[place];
    const alarms = status?.alarms ?? [];
    return [
      [String(member.index), member.index === known.member ? el("span", { class: "tag" }, "this one") : null,
        status && status.primary === member.index ? el("span", { class: "tag good" }, "primary") : null],
      show.account(member.account),
      status ? show.count(status.view) : "–",
      status ? show.count(status.executed) : "–",
      status ? show.count(top - status.executed) : "–",
      status ? show.count(status.stable) : "–",
      !status ? el("span", { class: "tag bad" }, "not reached from here")
        : alarms.length ? el("span", { class: "bad-ink why" }, alarms.join("; "))
          : el("span", { class: "tag good" }, status.active ? "well" : "changing view"),
      member.api ? outside(member.api) : "–",
    ];
  });
  const reached = statuses.filter(Boolean).length;
  return {
    title: "Committee",
    body: [
      el("div", { class: "head" }, el("div", {}, el("h1", {}, "Committee"),
        el("p", { class: "lead" }, `${reached} of ${known.members.length} members answer this browser; ` +
          `${Math.floor((known.members.length - 1) / 3)} may fail without harm. Epoch ${known.committeeEpoch}.`))),
      table("Members", [
        { label: "Member" }, { label: "Account" }, { label: "View", number: true }, { label: "Sequence", number: true },
        { label: "Lag", number: true }, { label: "Checkpoint", number: true }, { label: "Health" }, { label: "API" },
      ], rows),
      section("Views of this member",
        table("Views since this page was opened", [
          { label: "Seen" }, { label: "View", number: true }, { label: "Primary", number: true }, { label: "State" },
        ], [...viewsSeen].reverse().map((view) => [
          show.when(view.seenMs), show.count(view.view), show.count(view.primary), view.active ? "ordering" : "changing view",
        ]), "None told yet.")),
    ],
  };
}

export async function settlements(refresh, status) {
  const found = [];
  let next = null;
  for (let page = 0; page < filter.pages; page += 1) {
    const answer = await get(`/v1/settlements?limit=50${next ? `&cursor=${encodeURIComponent(next)}` : ""}`);
    found.push(...answer.settlements);
    next = answer.next;
    if (!next) break;
  }
  const chainId = status?.network?.chainId;
  const rows = found.map((each) => [
    show.count(each.epoch), show.when(each.atMs), show.transaction(each.tx, chainId),
    el("details", {}, el("summary", {}, show.count(each.orders.length)),
      el("ul", { class: "plain" }, each.orders.slice(0, 100).map((oid) => el("li", {}, show.order(oid))))),
    el("details", {}, el("summary", {}, show.count(each.credits.length)),
      el("ul", { class: "plain" }, each.credits.slice(0, 100).map((credit) =>
        el("li", {}, show.account(credit.account), ` ${show.tokens(credit.amountWei, 4)}`)))),
    show.tokens(show.sum(each.credits.map((credit) => credit.amountWei)), 4),
    show.count(each.gasUsed),
    each.credits.length ? show.count(each.gasUsed / each.credits.length) : "–",
  ]);
  return {
    title: "Settlements",
    body: [
      el("div", { class: "head" }, el("div", {}, el("h1", {}, "Settlements"),
        el("p", { class: "lead" }, "Each pays everything that was due by then in one transaction."))),
      table("Settlements", [
        { label: "Epoch", number: true }, { label: "At" }, { label: "Transaction" }, { label: "Orders" },
        { label: "Accounts" }, { label: "Paid, tokens", number: true }, { label: "Gas", number: true },
        { label: "Gas per account", number: true },
      ], rows, "Nothing was settled yet."),
      next ? el("p", {}, el("button", {
        type: "button",
        onclick: () => {
          filter.pages += 1;
          refresh();
        },
      }, "Show more")) : null,
    ],
  };
}
