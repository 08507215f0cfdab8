// Numbers, times and ids as people read them. Amounts are whole numbers of wei all the way: never floats.

import { el } from "./dom.js";

const WEI = 10n ** 18n;
const INVALID = -(2n ** 63n);

function whole(text) {
  return /^-?[0-9]{1,80}$/.test(String(text)) ? BigInt(text) : null;
}

function grouped(digits) {
  return digits.replace(/\B(?=(\d{3})+(?!\d))/g, "\u202f");
}

// Tokens, exact, without trailing zeros; at most `places` decimals if given, then marked as shortened.
export function tokens(text, places = 18) {
  const wei = whole(text);
  if (wei === null) return "–";
  const size = wei < 0n ? -wei : wei;
  const decimals = (size % WEI).toString().padStart(18, "0").replace(/0+$/, "");
  const shown = decimals.slice(0, places);
  const tail = decimals.length > places ? "…" : "";
  return (wei < 0n ? "−" : "") + grouped((size / WEI).toString()) + (shown || tail ? "." + shown : "") + tail;
}

export function sum(texts) {
  return texts.reduce((total, text) => total + (whole(text) ?? 0n), 0n).toString();
}

// A score in millionths; an invalid model says so.
export function score(text) {
  const value = text === null || text === undefined ? null : whole(text);
  if (value === null) return "–";
  if (value === INVALID) return "invalid";
  const size = value < 0n ? -value : value;
  return (value < 0n ? "−" : "") + (size / 1000000n).toString() + "." + (size % 1000000n).toString().padStart(6, "0");
}

export function scoreNumber(text) {
  const value = text === null || text === undefined ? null : whole(text);
  return value === null || value === INVALID ? null : Number(value) / 1e6;
}

export function count(number) {
  return Number.isFinite(number) ? grouped(String(Math.trunc(number))) : "–";
}

export function bytes(number) {
  if (!Number.isFinite(number)) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let power = 0;
  while (number >= 1024 && power < units.length - 1) {
    number /= 1024;
    power += 1;
  }
  return `${power ? number.toFixed(1) : number} ${units[power]}`;
}

export function duration(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 100) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 100) return `${minutes} min ${seconds % 60} s`;
  const hours = Math.floor(minutes / 60);
  return hours < 72 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

export function when(ms) {
  if (!Number.isFinite(ms)) return "–";
  const date = new Date(ms);
  if (Number.isNaN(date.getTime())) return "–";
  return el("time", { datetime: date.toISOString(), title: date.toISOString() },
    date.toLocaleString("en-GB", { day: "2-digit", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit" }));
}

// The time of day alone.
export function clockTime(ms) {
  const date = new Date(ms);
  if (Number.isNaN(date.getTime())) return "–";
  return el("time", { datetime: date.toISOString(), title: date.toISOString() }, date.toLocaleTimeString("en-GB"));
}

export function short(id) {
  return typeof id === "string" && id.length > 16 ? `${id.slice(0, 8)}…${id.slice(-6)}` : String(id ?? "–");
}

export function words(name) {
  return String(name).replaceAll("_", " ");
}

// An id in full for whoever copies it, short for whoever looks.
export function id(text) {
  return el("span", { class: "mono", title: text ?? "" }, short(text));
}

export function account(address) {
  if (!address) return "–";
  return el("a", { href: `#/accounts/${encodeURIComponent(address)}`, class: "mono", title: address }, short(address));
}

export function order(oid) {
  return el("a", { href: `#/orders/${encodeURIComponent(oid)}`, class: "mono", title: oid }, short(oid));
}

const EXPLORERS = { 1: "https://etherscan.io", 56: "https://bscscan.com", 97: "https://testnet.bscscan.com" };

export function transaction(hash, chainId) {
  const base = EXPLORERS[chainId];
  if (!base || !/^0x[0-9a-f]{64}$/.test(hash)) return id(hash);
  return el("a", { href: `${base}/tx/${hash}`, rel: "noopener noreferrer external", class: "mono", title: hash }, short(hash));
}

export function phase(name) {
  const known = /^[a-z_]{1,32}$/.test(name) ? name.split("_")[0] : "other";
  return el("span", { class: `phase phase-${known}` }, words(name));
}

// What is left until a time of the ledger; `clock.js` keeps it moving.
export function clock(deadlineMs) {
  return deadlineMs === null || deadlineMs === undefined
    ? null
    : el("span", { class: "clock", "data-deadline": deadlineMs, "data-keep": `clock-${deadlineMs}` });
}
