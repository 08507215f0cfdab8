// The list of orders, and one order with everything that happened in it.

import { get } from "./api.js";
import { el, facts, outside, section, table } from "./dom.js";
import * as show from "./format.js";
import { nowMs } from "./clock.js";
import { scorePlot } from "./plot.js";

const PAGE = 50;
const filter = { phase: "", pages: 1 };
let phases = ["training"];

export async function orders(refresh) {
  const found = [];
  let next = null;
  for (let page = 0; page < filter.pages; page += 1) {
    const query = new URLSearchParams({ limit: PAGE });
    if (filter.phase) query.set("phase", filter.phase);
    if (next) query.set("cursor", next);
    const answer = await get(`/v1/orders?${query}`);
    found.push(...answer.orders);
    next = answer.next;
    if (!next) break;
  }
  phases = [...new Set([...phases, ...found.map((order) => order.phase), "settled"])].sort();
  const running = found.filter((order) => order.deadlineMs !== null);
  const rows = found.map((order) => [
    show.order(order.oid),
    el("span", { class: "phase-cell" }, show.phase(order.phase), show.clock(order.deadlineMs)),
    show.tokens(order.rewardWei, 4),
    show.tokens(order.rewardRateWei, 2),
    order.claimCount === null ? "–" : show.count(order.claimCount),
    show.score(order.score),
    order.winner ? show.account(order.winner) : el("span", { class: "dim clamp" }, order.result ?? "open"),
  ]);
  const choose = el("select", {
    id: "phase-filter",
    onchange: (event) => {
      filter.phase = event.target.value;
      filter.pages = 1;
      refresh();
    },
  }, el("option", { value: "" }, "all phases"),
  phases.map((name) => el("option", { value: name, selected: name === filter.phase }, show.words(name))));
  return {
    title: "Orders",
    body: [
      el("div", { class: "head" },
        el("div", {}, el("h1", {}, "Orders"),
          el("p", { class: "lead" }, running.length
            ? `${running.length} running, best paid per second of training first.`
            : "None is running. New ones appear here by themselves.")),
        el("p", { class: "filter" }, el("label", { for: "phase-filter" }, "Phase"), choose)),
      table("Orders", [
        { label: "Order" }, { label: "Phase" }, { label: "Reward, tokens", number: true }, { label: "per second", number: true },
        { label: "Claims", number: true }, { label: "Score", number: true }, { label: "Winner" },
      ], rows, "No orders here yet. `dtn put task.yaml` places one."),
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

export async function order(oid, status) {
  const detail = await get(`/v1/orders/${encodeURIComponent(oid)}`);
  const chainId = status?.network?.chainId;
  return {
    title: `Order ${show.short(detail.oid)}`,
    body: [
      el("p", { class: "crumb" }, el("a", { href: "#/orders" }, "Orders")),
      el("div", { class: "head" },
        el("div", {},
          el("h1", {}, "Order ", el("span", { class: "mono" }, show.short(detail.oid))),
          el("p", { class: "lead" }, show.phase(detail.phase), " ", show.clock(detail.deadlineMs),
            detail.result ? el("span", { class: "result" }, result(detail)) : null)),
        reward(detail)),
      timeline(detail),
      leaderboard(detail),
      scores(detail),
      validations(detail),
      challenges(detail),
      verdicts(detail),
      receipts(detail.receipts),
      settlement(detail.settlement, chainId),
      terms(detail),
    ],
  };
}

function result(detail) {
  return detail.winner
    ? [" won by ", show.account(detail.winner), ` with ${show.score(detail.score)}`]
    : ` ${detail.result}`;
}

function reward(detail) {
  return el("p", { class: "big" }, show.tokens(detail.rewardWei, 4), el("span", { class: "unit" }, " tokens"));
}

function timeline(detail) {
  const passed = detail.phases ?? [];
  if (!passed.length) return null;
  const settled = detail.settlement ? [...passed, { phase: "settled", atMs: detail.settlement.atMs }] : passed;
  const running = detail.deadlineMs !== null;
  return section("Timeline",
    el("ol", { class: "timeline" }, settled.map((entered, place) => {
      const following = settled[place + 1];
      const current = place === settled.length - 1 && running;
      const took = following ? show.duration(following.atMs - entered.atMs) : null;
      return el("li", { class: current ? "current" : "past", "aria-current": current ? "step" : null },
        el("span", { class: "step" }, show.words(entered.phase)),
        el("span", { class: "dim" }, place ? show.clockTime(entered.atMs) : show.when(entered.atMs), took ? ` · ${took}` : null),
        current ? progress(entered.atMs, detail.deadlineMs) : null);
    })));
}

function progress(from, until) {
  const share = Math.min(1, Math.max(0, (nowMs() - from) / Math.max(1, until - from)));
  return el("progress", {
    max: 1, value: share, "aria-label": "how much of the phase has passed",
    "data-from": from, "data-until": until, "data-keep": `progress-${from}-${until}`,
  });
}

function leaderboard(detail) {
  const claims = detail.claims ?? [];
  if (detail.claims === undefined) return null;
  const worth = (claim) => show.scoreNumber(claim.score) ?? -Infinity;
  const ranked = [...claims].sort((a, b) =>
    (b.provider === detail.winner) - (a.provider === detail.winner) || worth(b) - worth(a) || a.claimedMs - b.claimedMs);
  const rows = ranked.map((claim, place) => [
    claim.score === null || claim.score === undefined ? "–" : String(place + 1),
    [show.account(claim.provider), claim.provider === detail.winner ? el("span", { class: "tag good" }, "winner") : null],
    claim.mid ? show.id(claim.mid) : el("span", { class: "dim" }, "committed, not shown yet"),
    show.score(claim.score),
    show.bytes(claim.sizeBytes ?? NaN),
    show.when(claim.claimedMs),
    claim.links.length ? claim.links.slice(0, 3).map((link, n) => [n ? ", " : null, artifact(link, n)]) : "–",
  ]);
  return section("Leaderboard",
    table("Claims by score", [
      { label: "Rank", number: true }, { label: "Provider" }, { label: "Model" }, { label: "Score", number: true },
      { label: "Size", number: true }, { label: "Claimed" }, { label: "File" },
    ], rows, "Nobody has claimed yet."));
}

function artifact(link, place) {
  return outside(link, place ? `mirror ${place}` : "model");
}

function scores(detail) {
  const plot = scorePlot(detail);
  return plot && section("Scores",
    el("figure", {}, plot, el("figcaption", {},
      el("span", { class: "key claim-key" }, "accepted score of a claim"),
      el("span", { class: "key given-key" }, "a validator's score"),
      el("span", { class: "key best-key" }, "best so far"))));
}

function validations(detail) {
  const given = detail.validations ?? [];
  if (!given.length) return null;
  const accepted = new Map((detail.claims ?? []).filter((claim) => claim.mid).map((claim) => [claim.mid, claim.score]));
  const opened = given.filter((each) => each.score !== null);
  const agreeing = opened.filter((each) => each.score === accepted.get(each.mid));
  const mids = [...new Set(given.map((each) => each.mid))];
  const rows = mids.map((mid) => [
    show.id(mid), show.score(accepted.get(mid)),
    el("ul", { class: "plain answers" }, given.filter((each) => each.mid === mid).map((each) =>
      el("li", {}, show.account(each.validator), el("span", {}, show.score(each.score)),
        agreement(each.score, accepted.get(mid)),
        el("span", { class: "dim", title: `VID ${each.vid}` }, `staked ${show.tokens(each.vStakeWei, 2)}`)))),
  ]);
  return section("Validations",
    opened.length ? el("p", { class: "dim" }, `${agreeing.length} of ${opened.length} revealed scores are the accepted one.`) : null,
    table("Validations by model", [
      { label: "Model" }, { label: "Accepted score", number: true }, { label: "Validators" },
    ], rows));
}

function agreement(value, accepted) {
  if (value === null) return el("span", { class: "dim" }, "committed");
  if (accepted === null || accepted === undefined) return el("span", { class: "dim" }, "no accepted score");
  return value === accepted
    ? el("span", { class: "tag good" }, "agrees")
    : el("span", { class: "tag bad" }, "differs");
}

function challenges(detail) {
  const rows = (detail.challenges ?? []).map((challenge) => [
    show.account(challenge.challenger), show.id(challenge.vid),
    challenge.score === null ? el("span", { class: "dim" }, "committed") : show.score(challenge.score),
    show.tokens(challenge.cStakeWei, 4),
  ]);
  return rows.length ? section("Challenges", table("Challenges", [
    { label: "Challenger" }, { label: "Validation" }, { label: "Score", number: true }, { label: "Stake, tokens", number: true },
  ], rows)) : null;
}

function verdicts(detail) {
  const disputes = detail.disputes ?? [];
  return disputes.length ? section("Verdicts", disputes.map((dispute) => [
    el("h3", {}, "Model ", show.id(dispute.mid), dispute.decided
      ? el("span", { class: "tag good" }, "decided") : el("span", { class: "tag" }, `round ${dispute.round}`)),
    table("Jurors", [
      { label: "Juror" }, { label: "Stake, tokens", number: true }, { label: "Verdict", number: true },
    ], dispute.jurors.map((juror) => [
      show.account(juror.juror),
      show.tokens(juror.stakeWei, 4),
      juror.score !== null ? show.score(juror.score) : el("span", { class: "dim" }, juror.committed ? "committed" : "silent"),
    ]), "No jurors."),
  ])) : null;
}

export function receipts(lines) {
  if (!lines.length) return null;
  const rows = lines.map((line) => [
    show.account(line.account), show.words(line.role), el("span", { class: "why" }, line.reason),
    el("span", { class: line.amountWei.startsWith("-") ? "bad-ink" : "good-ink" }, show.tokens(line.amountWei, 6)),
  ]);
  return section("Receipts", table("Receipts", [
    { label: "Account" }, { label: "Role" }, { label: "Reason" }, { label: "Tokens", number: true },
  ], rows));
}

function settlement(settled, chainId) {
  return settled && section("Settlement", facts([
    ["Epoch", show.count(settled.epoch)],
    ["Transaction", show.transaction(settled.tx, chainId)],
    ["Gas", show.count(settled.gasUsed)],
    ["At", show.when(settled.atMs)],
  ]));
}

function terms(detail) {
  const put = detail.order ?? {};
  return section("Terms", facts([
    ["Client", show.account(detail.client)],
    ["Kind", detail.kind],
    ["Reward", show.tokens(put.reward), " tokens"],
    ["Deposit", show.tokens(put.deposit), " tokens"],
    ["Windows", `train ${put.trainWindow} s, validate ${put.validateWindow} s, challenge ${put.challengeWindow} s`],
    ["Baseline", show.score(put.baseline)],
    ["Task", outside(put.taskLink ?? "", "task document")],
    ["Task hash", show.id(put.taskHash)],
    ["Test set", (detail.testLinks ?? []).length
      ? detail.testLinks.slice(0, 3).map((link, n) => [n ? ", " : null, outside(link, `part ${n + 1}`)])
      : "not released"],
    ["Order", el("span", { class: "mono full" }, detail.oid)],
  ]));
}
