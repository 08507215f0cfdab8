// The score plot of one order: claims over time, each validator's score as a dot, the best so far as a line.

import { svg } from "./dom.js";
import { duration, score, scoreNumber, short } from "./format.js";

const WIDTH = 720, HEIGHT = 260, LEFT = 58, RIGHT = 16, TOP = 14, BOTTOM = 34;

function ticks(low, high, most) {
  const span = high - low;
  const step = 10 ** Math.floor(Math.log10(span / most));
  const nice = [1, 2, 5, 10].map((factor) => factor * step).find((each) => span / each <= most) ?? 10 * step;
  const found = [];
  for (let at = Math.ceil(low / nice) * nice; at <= high + nice * 1e-9 && found.length < 20; at += nice) found.push(at);
  return [found, Math.max(0, -Math.floor(Math.log10(nice) + 1e-9))];
}

// order: the detail of an open order. Returns null when there is nothing to plot.
export function scorePlot(order) {
  const scored = (order.claims ?? [])
    .map((claim) => ({ claim, accepted: scoreNumber(claim.score) }))
    .filter(({ claim }) => claim.mid)
    .sort((a, b) => a.claim.claimedMs - b.claim.claimedMs);
  const given = (order.validations ?? [])
    .map((validation) => ({ validation, value: scoreNumber(validation.score) }))
    .filter(({ value }) => value !== null);
  const values = [...scored.map(({ accepted }) => accepted), ...given.map(({ value }) => value)].filter((v) => v !== null);
  if (!values.length) return null;
  const startMs = order.takenMs;
  const endMs = Math.max(startMs + 1, ...scored.map(({ claim }) => claim.claimedMs));
  const baseline = scoreNumber(order.order?.baseline);
  let low = Math.min(...values), high = Math.max(...values);
  if (baseline !== null && baseline < low && low - baseline < 3 * (high - low + 0.05)) low = baseline;
  const margin = (high - low || Math.abs(high) * 0.05 || 0.05) * 0.12;
  low -= margin;
  high += margin;
  const spanMs = (endMs - startMs) * 1.06;
  const x = (ms) => LEFT + ((ms - startMs) / spanMs) * (WIDTH - LEFT - RIGHT);
  const y = (value) => HEIGHT - BOTTOM - ((value - low) / (high - low)) * (HEIGHT - TOP - BOTTOM);

  const marks = [];
  const [scores, decimals] = ticks(low, high, 5);
  for (const value of scores) {
    marks.push(svg("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value) }));
    marks.push(svg("text", { class: "tick", x: LEFT - 8, y: y(value) + 4, "text-anchor": "end" }, value.toFixed(Math.min(6, decimals))));
  }
  const [seconds] = ticks(0, spanMs / 1000, 6);
  for (const at of seconds.filter(Number.isInteger)) {
    const place = x(startMs + at * 1000);
    marks.push(svg("line", { class: "grid", x1: place, x2: place, y1: TOP, y2: HEIGHT - BOTTOM }));
    marks.push(svg("text", { class: "tick", x: place, y: HEIGHT - BOTTOM + 18, "text-anchor": "middle" }, duration(at * 1000)));
  }
  if (baseline !== null && baseline >= low && baseline <= high) {
    marks.push(svg("line", { class: "baseline", x1: LEFT, x2: WIDTH - RIGHT, y1: y(baseline), y2: y(baseline) }));
    marks.push(svg("text", { class: "tick", x: WIDTH - RIGHT, y: y(baseline) - 5, "text-anchor": "end" }, "baseline"));
  }
  let best = -Infinity;
  let path = "";
  for (const { claim, accepted } of scored) {
    if (accepted === null || accepted <= best) continue;
    path += path ? `H${x(claim.claimedMs)}V${y(accepted)}` : `M${x(claim.claimedMs)} ${y(accepted)}`;
    best = accepted;
  }
  if (path) marks.push(svg("path", { class: "best", d: `${path}H${WIDTH - RIGHT}` }));
  for (const { claim, accepted } of scored) {
    for (const { validation, value } of given.filter(({ validation }) => validation.mid === claim.mid)) {
      marks.push(svg("circle", { class: "given", cx: x(claim.claimedMs), cy: y(value), r: 3 },
        svg("title", {}, `${short(validation.validator)} scored ${score(validation.score)}`)));
    }
    if (accepted === null) continue;
    const won = claim.provider === order.winner;
    marks.push(svg("circle", { class: won ? "claim won" : "claim", cx: x(claim.claimedMs), cy: y(accepted), r: won ? 6.5 : 5 },
      svg("title", {}, `${short(claim.provider)}: ${score(claim.score)}${won ? ", the winner" : ""}`)));
  }
  const said = `Scores of ${scored.length} models over ${duration(endMs - startMs)} of training` +
    (best > -Infinity ? `; the best is ${best.toFixed(6)}` : "");
  return svg("svg", { class: "plot", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": said }, marks);
}
