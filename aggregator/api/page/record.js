// How accounts kept their word in the latest settled orders: the counts of offchain/economics/record.py, for people
// to look at. A settled order never changes, so each is asked for once.

import { get } from "./api.js";
import * as show from "./format.js";

export const MOST_ORDERS = 50;
const AT_ONCE = 10;
const WRONG_ANSWER = ["wrong score", "model irretrievable"]; // it was opened, and did not stand
const WRONG_DOUBT = ["wrong challenge", "wrong report"];
const known = new Map();

// By account { kept, broken }, and how many orders were looked at; null if they cannot be read now.
export async function records() {
  try {
    const { orders } = await get(`/v1/orders?phase=settled&limit=${MOST_ORDERS}`);
    const wanted = orders.map((order) => order.oid);
    for (const oid of known.keys()) if (!wanted.includes(oid)) known.delete(oid);
    const missing = wanted.filter((oid) => !known.has(oid));
    for (let from = 0; from < missing.length; from += AT_ONCE) {
      const details = await Promise.all(missing.slice(from, from + AT_ONCE).map((oid) => get(`/v1/orders/${oid}`)));
      for (const detail of details) known.set(detail.oid, changes(detail));
    }
  } catch {
    return null;
  }
  const by = new Map();
  for (const [account, kept, broken] of [...known.values()].flat()) {
    const record = by.get(account) ?? { kept: 0, broken: 0 };
    by.set(account, { kept: record.kept + kept, broken: record.broken + broken });
  }
  return { by, orders: known.size };
}

// What one order adds to [account, kept, broken].
function changes(detail) {
  const opened = (account, is) => [account, is ? 1 : 0, is ? 0 : 1];
  return [
    ...detail.claims.map((claim) => opened(claim.provider, claim.mid !== null)),
    ...detail.validations.map((validation) => opened(validation.validator, validation.score !== null)),
    ...detail.receipts.filter((line) => line.amountWei.startsWith("-")).flatMap((line) => {
      if (WRONG_ANSWER.includes(line.reason)) return [[line.account, -1, 1]];
      return WRONG_DOUBT.includes(line.reason) ? [[line.account, 0, 1]] : [];
    }),
  ];
}

// "11 of 12", or a dash for who committed to nothing.
export function kept(found, account) {
  const record = found?.by.get(account);
  if (!record) return "–";
  const stood = Math.max(0, record.kept);
  return `${show.count(stood)} of ${show.count(stood + record.broken)}`;
}
