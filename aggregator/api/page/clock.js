// Phase clocks: what is left of a phase, by the aggregator's clock, moved on once a second.

import { duration } from "./format.js";

let aheadMs = 0;

// Learn how far the aggregator's clock is ahead of this machine's.
export function setClock(serverMs) {
  if (Number.isFinite(serverMs)) aheadMs = serverMs - Date.now();
}

export function nowMs() {
  return Date.now() + aheadMs;
}

export function tick() {
  for (const node of document.querySelectorAll("[data-deadline]")) {
    const leftMs = Number(node.dataset.deadline) - nowMs();
    const text = leftMs > 0 ? `${duration(leftMs)} left` : "ending";
    if (node.textContent !== text) node.textContent = text;
  }
  for (const node of document.querySelectorAll("progress[data-from]")) {
    const from = Number(node.dataset.from), until = Number(node.dataset.until);
    node.value = Math.min(1, Math.max(0, (nowMs() - from) / Math.max(1, until - from)));
  }
}

setInterval(tick, 1000);
