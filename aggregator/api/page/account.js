// Why was I paid this: an account's stakes, and every credit and debit with its reason.

import { get } from "./api.js";
import { el, section, table } from "./dom.js";
import * as show from "./format.js";
import { kept, records } from "./record.js";

const ADDRESS = /^0x[0-9a-fA-F]{40}$/;
let more = { account: "", pages: 0 };

export function ask(message) {
  return {
    title: "Account",
    body: [el("h1", {}, "Account"),
      el("p", { class: "lead" }, "Why was I paid this? Every credit and debit, with its reason and its transaction."),
      form(""), message ? el("p", { class: "note bad-ink", role: "alert" }, message) : null],
  };
}

function form(value) {
  return el("form", {
    class: "ask",
    onsubmit: (event) => {
      event.preventDefault();
      const given = event.target.elements.address.value.trim();
      location.hash = `#/accounts/${encodeURIComponent(given)}`;
    },
  }, el("label", { for: "address" }, "Address"),
  el("input", { id: "address", name: "address", value, placeholder: "0x…", autocomplete: "off", spellcheck: "false", maxlength: 64 }),
  el("button", { type: "submit" }, "Show"));
}

export async function account(address, refresh, status) {
  if (!ADDRESS.test(address)) return ask("An address is 0x and 40 hex digits.");
  if (more.account !== address) more = { account: address, pages: 0 };
  const [known, past] = await Promise.all([get(`/v1/accounts/${address}`), records()]);
  const receipts = [...known.receipts];
  let next = known.receiptsNext;
  for (let page = 0; page < more.pages && next; page += 1) {
    const answer = await get(`/v1/accounts/${address}/receipts?limit=500&cursor=${encodeURIComponent(next)}`);
    receipts.push(...answer.receipts);
    next = answer.next;
  }
  const chainId = status?.network?.chainId;
  const credit = receipts.filter((line) => !line.amountWei.startsWith("-"));
  const debit = receipts.filter((line) => line.amountWei.startsWith("-"));
  const lines = [
    ...known.pending.map((line) => row(line, el("span", { class: "dim" }, "with the next settlement"))),
    ...receipts.map((line) => row(line, [show.transaction(line.tx, chainId),
      el("span", { class: "dim" }, ` epoch ${line.epoch}, `, show.when(line.atMs))])),
  ];
  return {
    title: `Account ${show.short(address)}`,
    body: [
      el("div", { class: "head" }, el("div", {}, el("h1", {}, "Account ", el("span", { class: "mono" }, show.short(known.account))),
        el("p", { class: "lead mono full" }, known.account))),
      form(known.account),
      el("dl", { class: "figures" },
        figure("Earned", show.tokens(show.sum(credit.map((line) => line.amountWei)), 4), "good-ink"),
        figure("Lost", show.tokens(show.sum(debit.map((line) => line.amountWei)), 4), debit.length ? "bad-ink" : ""),
        figure("Due next", show.tokens(show.sum(known.pending.map((line) => line.amountWei)), 4), ""),
        figure("Kept", kept(past, known.account), ""),
        figure("Settlements", show.count(known.credits.length) + (known.creditsNext ? "+" : ""), "")),
      section("Why",
        table("Receipts", [
          { label: "Tokens", number: true }, { label: "As" }, { label: "Because" }, { label: "Order" },
          { label: "Follows from" }, { label: "Paid by" },
        ], lines, "Nothing was paid to this account, and nothing is due."),
        next ? el("p", {}, el("button", {
          type: "button",
          onclick: () => {
            more.pages += 1;
            refresh();
          },
        }, "Show more")) : null),
      section("Stake", table("Stake by role", [
        { label: "Role" }, { label: "Bonded", number: true }, { label: "Locked", number: true }, { label: "Leaving", number: true },
      ], known.stakes.map((stake) => [
        show.words(stake.role), show.tokens(stake.bondedWei, 4), show.tokens(stake.lockedWei, 4), show.tokens(stake.unbondingWei, 4),
      ]), "This account has no stake.")),
    ],
  };
}

function figure(name, value, ink) {
  return el("div", {}, el("dt", {}, name), el("dd", { class: ink || null }, value));
}

function row(line, paidBy) {
  return [
    el("span", { class: line.amountWei.startsWith("-") ? "bad-ink" : "good-ink" }, show.tokens(line.amountWei, 6)),
    show.words(line.role),
    el("span", { class: "why" }, line.reason),
    show.order(line.oid),
    line.refs.length ? line.refs.slice(0, 3).map((ref, place) => [place ? ", " : null, show.id(ref)]) : "–",
    el("span", {}, paidBy),
  ];
}
