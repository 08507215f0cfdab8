// Put from the browser: an injected wallet (EIP-1193) signs a permit over reward plus deposit (EIP-2612), and
// places the order with it in one transaction. A wallet that signs no typed data approves in a transaction first.
//
// The aggregator says where the OrderBook is, and an aggregator may lie. So the page asks the wallet's own chain
// node whether that contract belongs to this network's Parameters, permits the exact amount and no more, for an
// hour, and shows every address for the reader to compare with the address book.

import {
  ascii32, approveCall, ERRORS, millionths, address as padded, permitCall, permitDocument, putCall, putWithPermitCall,
  SELECTORS, signature, stringIn, wei,
} from "./abi.js";
import { get } from "./api.js";
import { el, section } from "./dom.js";
import * as show from "./format.js";

const NO_BASELINE = -(2n ** 63n);
const PERMIT_S = 3600n;
const DECLINED = 4001; // EIP-1193: by the person
const RECEIPT_TRIES = 90;
const RECEIPT_WAIT_MS = 1000;
const HEX32 = /^0x[0-9a-fA-F]{64}$/;

let steps = [];
let busy = false;

class Refusal extends Error {}

function wallet() {
  return typeof window.ethereum?.request === "function" ? window.ethereum : null;
}

export function put(refresh, status) {
  const book = status?.network?.orders;
  return {
    title: "Put",
    body: [
      el("h1", {}, "Put"),
      el("p", { class: "lead" }, "Order a model: escrow the reward from a wallet, without a terminal for the money."),
      !book ? el("p", { class: "note" }, "This aggregator does not say where the OrderBook is; use `dtn put`.")
        : !wallet() ? el("p", { class: "note" }, "No wallet is here. Install one that injects itself into pages (EIP-1193), such as MetaMask, and load this page again.")
          : null,
      el("form", { class: "put", onsubmit: (event) => submit(event, refresh, status) },
        field("prepared", "Prepared task", "What `dtn client prepare TASK --json` printed. `dtn client run` must serve it until the order is sealed.", true),
        el("div", { class: "row" },
          field("reward", "Reward, tokens", "", false, "100"),
          field("baseline", "Baseline score", "Empty: any model is paid.", false, "")),
        el("div", { class: "row" },
          field("train", "Training, seconds", "", false, "3600"),
          field("validate", "Validation, seconds", "", false, "600"),
          field("challenge", "Challenge, seconds", "", false, "600")),
        el("p", {}, el("button", { type: "submit", class: "main", disabled: !book || !wallet() || busy }, "Place the order"))),
      steps.length ? section("Progress", el("ol", { class: "steps", role: "status" },
        steps.map((step) => el("li", { class: step.state }, step.text)))) : null,
      book ? section("Contracts", el("p", { class: "dim" }, "Compare with the address book of your network before you sign."),
        el("p", { class: "mono full" }, `OrderBook ${book}`), el("p", { class: "mono full" }, `Parameters ${status.network.parameters}`)) : null,
    ],
  };
}

function field(name, label, hint, long, value) {
  const id = `put-${name}`;
  const shared = { id, name, "aria-describedby": hint ? `${id}-hint` : null, autocomplete: "off", spellcheck: "false", required: name !== "baseline" };
  return el("div", { class: "field" }, el("label", { for: id }, label),
    long ? el("textarea", { ...shared, rows: 4, maxlength: 4000 })
      : el("input", { ...shared, value, maxlength: 40, inputmode: "decimal" }),
    hint ? el("span", { class: "dim hint", id: `${id}-hint` }, hint) : null);
}

// The order's fields as the form has them; throws a Refusal that says what is wrong.
export function read(form) {
  let prepared;
  try {
    prepared = JSON.parse(form.prepared.value);
  } catch {
    throw new Refusal("The prepared task is not the JSON that `dtn client prepare --json` prints.");
  }
  const { task_link: taskLink, task_hash: taskHash, data_root: dataRoot } = prepared ?? {};
  if (!HEX32.test(taskHash) || !HEX32.test(dataRoot) || typeof taskLink !== "string" || !/^https?:\/\//.test(taskLink)) {
    throw new Refusal("The prepared task lacks task_link, task_hash or data_root.");
  }
  const reward = wei(form.reward.value);
  if (!reward) throw new Refusal("The reward is an amount of tokens like 100 or 0.5.");
  const baseline = form.baseline.value.trim() ? millionths(form.baseline.value) : NO_BASELINE;
  if (baseline === null) throw new Refusal("The baseline is a score like 0.85.");
  const windows = ["train", "validate", "challenge"].map((name) => {
    if (!/^[0-9]{1,9}$/.test(form[name].value.trim())) throw new Refusal("Windows are whole seconds.");
    return BigInt(form[name].value.trim());
  });
  return {
    kind: "open", reward, baseline, taskLink, taskHash, dataRoot,
    trainWindow: windows[0], validateWindow: windows[1], challengeWindow: windows[2],
  };
}

async function submit(event, refresh, status) {
  event.preventDefault();
  if (busy) return;
  busy = true;
  steps = [];
  const say = (text) => {
    if (steps.length) steps.at(-1).state = "done";
    steps.push({ text, state: "now" });
    refresh();
  };
  try {
    const oid = await place(read(event.target.elements), status, say);
    say(`Placed as ${oid}. It appears here once its block is confirmed.`);
    steps.at(-1).state = "done";
    await appear(oid);
    location.hash = `#/orders/${oid}`;
  } catch (reason) {
    steps.push({ text: explain(reason), state: "failed" });
  } finally {
    busy = false;
    refresh();
  }
}

function explain(reason) {
  if (reason instanceof Refusal) return reason.message;
  const data = [reason?.data, reason?.data?.data, reason?.data?.originalError?.data].find((each) => /^0x[0-9a-f]{8}/i.test(each ?? ""));
  const known = data && ERRORS[data.slice(0, 10).toLowerCase()];
  if (known) return `The contract refuses: ${known}.`;
  if (reason?.code === DECLINED) return "You declined in the wallet; nothing more was done.";
  return `The wallet says: ${String(reason?.message ?? reason).slice(0, 300)}`;
}

async function place(order, status, say) {
  const { chainId, parameters, orders: book } = status.network;
  const ask = (method, params = []) => wallet().request({ method, params });
  const call = (to, data, from) => ask("eth_call", [from ? { from, to, data } : { to, data }, "latest"]);
  const addressIn = (text) => `0x${String(text).slice(-40)}`.toLowerCase();

  say("Asking the wallet for an account");
  const [client] = await ask("eth_requestAccounts");
  if (BigInt(await ask("eth_chainId")) !== BigInt(chainId)) {
    await ask("wallet_switchEthereumChain", [{ chainId: `0x${BigInt(chainId).toString(16)}` }]);
  }
  say("Looking at the contracts");
  if (addressIn(await call(book, SELECTORS.parameters)) !== parameters.toLowerCase()) {
    throw new Refusal("The contract that this aggregator names is no OrderBook of this network; nothing was spent.");
  }
  const token = addressIn(await call(book, SELECTORS.token));
  const share = BigInt(await call(parameters, SELECTORS.get + ascii32("min_deposit_bps")));
  const deposit = (order.reward * share) / 10000n;
  const amount = order.reward + deposit;
  const balance = BigInt(await call(token, SELECTORS.balanceOf + padded(client)));
  if (balance < amount) {
    throw new Refusal(`${client} holds ${show.tokens(balance, 4)} tokens and needs ${show.tokens(amount, 4)}; nothing was spent.`);
  }
  const whole = { ...order, client, deposit, nonce: BigInt(Date.now()) };
  let data = putCall(whole);
  if (BigInt(await call(token, SELECTORS.allowance + padded(client) + padded(book))) < amount) {
    say(`Permit ${show.tokens(amount)} tokens (reward and deposit) in the wallet: a signature, no transaction`);
    const permit = await permitted(ask, call, { client, token, book, amount, chainId });
    if (permit) {
      data = putWithPermitCall(whole, permit);
    } else {
      say(`This wallet signs no permits: approve ${show.tokens(amount)} tokens (reward and deposit) in it`);
      await mined(ask, await ask("eth_sendTransaction", [{ from: client, to: token, data: approveCall(book, amount) }]));
    }
  }
  // Now a refusal costs nothing: ask before sending.
  const oid = await call(book, data, client);
  say("Place the order in the wallet");
  await mined(ask, await ask("eth_sendTransaction", [{ from: client, to: book, data }]));
  if (!HEX32.test(oid)) throw new Refusal("The contract gave no order id.");
  return oid;
}

// A permit that the token takes, or null where the wallet gives none; throws if the person declines.
async function permitted(ask, call, { client, token, book, amount, chainId }) {
  const name = stringIn(await call(token, SELECTORS.name));
  const nonce = BigInt(await call(token, SELECTORS.nonces + padded(client)));
  const { timestamp } = await ask("eth_getBlockByNumber", ["latest", false]);
  const deadline = BigInt(timestamp) + PERMIT_S;
  const message = { owner: client, spender: book, value: amount, nonce, deadline };
  try {
    const document = permitDocument({ name, address: token }, chainId, message);
    const parts = signature(await ask("eth_signTypedData_v4", [client, JSON.stringify(document)]));
    const permit = parts && { deadline, ...parts };
    // The token says whether it is one: contracts that are accounts, for example, sign otherwise.
    if (permit) await call(token, permitCall(client, book, amount, permit), client);
    return permit;
  } catch (reason) {
    if (reason?.code === DECLINED) throw reason;
    return null;
  }
}

async function mined(ask, hash) {
  for (let attempt = 0; attempt < RECEIPT_TRIES; attempt += 1) {
    const receipt = await ask("eth_getTransactionReceipt", [hash]);
    if (receipt) {
      if (BigInt(receipt.status) !== 1n) throw new Refusal(`The chain reverted transaction ${hash}.`);
      return;
    }
    await new Promise((done) => setTimeout(done, RECEIPT_WAIT_MS));
  }
  throw new Refusal(`Transaction ${hash} was not mined in time; the wallet knows what became of it.`);
}

async function appear(oid) {
  for (let attempt = 0; attempt < RECEIPT_TRIES; attempt += 1) {
    try {
      await get(`/v1/orders/${oid}`);
      return;
    } catch {
      await new Promise((done) => setTimeout(done, RECEIPT_WAIT_MS));
    }
  }
}
