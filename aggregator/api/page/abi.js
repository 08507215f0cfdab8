// ABI encoding of the few calls that a Put makes. `tests/page` holds it against the Python encoding.

const WORD = 64;

// Function selectors: the first four bytes of the Keccak-256 of each signature.
export const SELECTORS = {
  approve: "0x095ea7b3", // approve(address,uint256)
  put: "0x9af2af0c", // put((address,uint64,string,uint96,uint96,uint32,uint32,uint32,bytes32,string,bytes32,int64))
  putWithPermit: "0xd2a8be61", // putWithPermit(the same order,uint256,uint8,bytes32,bytes32)
  permit: "0xd505accf", // permit(address,address,uint256,uint256,uint8,bytes32,bytes32)
  nonces: "0x7ecebe00", // nonces(address)
  name: "0x06fdde03", // name()
  allowance: "0xdd62ed3e", // allowance(address,address)
  token: "0xfc0c546a", // token()
  parameters: "0x89035730", // parameters()
  balanceOf: "0x70a08231", // balanceOf(address)
  get: "0x8eaa6ac0", // get(bytes32)
};

// The contracts' refusals, by selector.
export const ERRORS = {
  "0x4a9fcace": "the order names another client than the wallet's account",
  "0xa4848d0d": "the reward is smaller than allowed",
  "0x148f05e1": "the deposit is smaller than allowed",
  "0x42fe44c0": "a window is out of bounds",
  "0x903b580d": "the kind's name is too long",
  "0xff7cf2ef": "the task link is too long",
  "0xdfdc6fb2": "this very order was placed already",
  "0xe450d38c": "the account holds too few tokens",
  "0xfb8f41b2": "the allowance is too small",
};

export function word(value, bits = 256) {
  const number = BigInt(value);
  const signed = number < 0n;
  if (signed ? number < -(2n ** BigInt(bits - 1)) : number >= 2n ** BigInt(bits)) throw new RangeError(`${value} needs more than ${bits} bits`);
  return BigInt.asUintN(256, number).toString(16).padStart(WORD, "0");
}

export function address(text) {
  if (!/^0x[0-9a-fA-F]{40}$/.test(text)) throw new RangeError(`${text} is no address`);
  return text.slice(2).toLowerCase().padStart(WORD, "0");
}

export function bytes32(text) {
  if (!/^0x[0-9a-fA-F]{64}$/.test(text)) throw new RangeError(`${text} is not 32 bytes in hex`);
  return text.slice(2).toLowerCase();
}

export function ascii32(text) {
  return [...text].map((letter) => letter.charCodeAt(0).toString(16).padStart(2, "0")).join("").padEnd(WORD, "0");
}

function string(text) {
  const data = new TextEncoder().encode(text);
  const hex = [...data].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return word(data.length) + hex.padEnd(Math.ceil(data.length / 32) * WORD, "0");
}

export function approveCall(spender, amount) {
  return SELECTORS.approve + address(spender) + word(amount);
}

// permit: {deadline, v, r, s}, the last two as 32 bytes in hex.
function signed(permit) {
  return word(permit.deadline) + word(permit.v, 8) + bytes32(permit.r) + bytes32(permit.s);
}

export function permitCall(owner, spender, amount, permit) {
  return SELECTORS.permit + address(owner) + address(spender) + word(amount) + signed(permit);
}

// What a wallet shows and signs (EIP-2612 under EIP-712): `spender` may take `amount` of `owner`'s tokens, once.
export function permitDocument(token, chainId, message) {
  const field = (name, type) => ({ name, type });
  return {
    types: {
      EIP712Domain: [field("name", "string"), field("version", "string"), field("chainId", "uint256"), field("verifyingContract", "address")],
      Permit: [field("owner", "address"), field("spender", "address"), field("value", "uint256"), field("nonce", "uint256"), field("deadline", "uint256")],
    },
    primaryType: "Permit",
    domain: { name: token.name, version: "1", chainId: Number(chainId), verifyingContract: token.address },
    message: Object.fromEntries(Object.entries(message).map(([name, value]) => [name, String(value)])),
  };
}

// The parts of a 65-byte signature; null for what is none. Some devices count the last byte from 0.
export function signature(text) {
  const match = /^0x([0-9a-fA-F]{64})([0-9a-fA-F]{64})([0-9a-fA-F]{2})$/.exec(text ?? "");
  if (!match) return null;
  const last = parseInt(match[3], 16);
  return { r: `0x${match[1]}`, s: `0x${match[2]}`, v: last < 2 ? last + 27 : last };
}

// The string that a call like name() answers; null for what is none.
export function stringIn(data) {
  const hex = /^0x((?:[0-9a-fA-F]{2})*)$/.exec(data ?? "")?.[1] ?? "";
  const length = parseInt(hex.slice(WORD, 2 * WORD), 16);
  const text = hex.slice(2 * WORD, 2 * WORD + 2 * length);
  if (!(length <= 256) || text.length !== 2 * length) return null;
  return new TextDecoder().decode(Uint8Array.from(text.match(/../g) ?? [], (byte) => parseInt(byte, 16)));
}

// order: {client, nonce, kind, reward, deposit, trainWindow, validateWindow, challengeWindow, taskHash, taskLink,
// dataRoot, baseline}; numbers as BigInt or decimal text.
export function putCall(order) {
  return SELECTORS.put + word(32) + packed(order);
}

export function putWithPermitCall(order, permit) {
  return SELECTORS.putWithPermit + word(5 * 32) + signed(permit) + packed(order);
}

function packed(order) {
  const kind = string(order.kind);
  const link = string(order.taskLink);
  const head = 12 * 32;
  return [
    address(order.client),
    word(order.nonce, 64),
    word(head),
    word(order.reward, 96),
    word(order.deposit, 96),
    word(order.trainWindow, 32),
    word(order.validateWindow, 32),
    word(order.challengeWindow, 32),
    bytes32(order.taskHash),
    word(head + kind.length / 2),
    bytes32(order.dataRoot),
    word(order.baseline, 64),
  ].join("") + kind + link;
}

// An amount of tokens, written like 100 or 0.5, in wei; null for what is none.
export function wei(text) {
  const match = /^([0-9]{1,11})(?:\.([0-9]{1,18}))?$/.exec(text.trim());
  return match ? BigInt(match[1]) * 10n ** 18n + BigInt((match[2] ?? "").padEnd(18, "0")) : null;
}

// A score, written like 0.85, in millionths; null for what is none.
export function millionths(text) {
  const match = /^(-?)([0-9]{1,9})(?:\.([0-9]{1,6}))?$/.exec(text.trim());
  if (!match) return null;
  const size = BigInt(match[2]) * 1000000n + BigInt((match[3] ?? "").padEnd(6, "0"));
  return match[1] ? -size : size;
}
