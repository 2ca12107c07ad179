/** From what the server says of a series or a measure to the curve that a chart draws. */

import { EMPTY } from "../data/series";
import type { Buckets, Measured, Value } from "../data/types";
import type { Curve } from "./chart";
import type { Stroke } from "./palette";

/** What the band about a mean shows: from the least to the largest value, a standard deviation to each side, or nothing. */
export type Spread = "range" | "std" | "none";

/** The curve of a series, of which `buckets` is undefined until there is a row. */
export function seriesCurve(stroke: Stroke, label: string, buckets: Buckets = EMPTY, spread: Spread = "range"): Curve {
  const { step, mean, bad } = buckets;
  return { color: stroke.color, dash: stroke.dash, label, step, mean, bad, ...edges(buckets, spread) };
}

function edges(buckets: Buckets, spread: Spread): { low: Value[] | null; high: Value[] | null } {
  if (spread === "none") return { low: null, high: null };
  if (spread === "range") return { low: buckets.min, high: buckets.max };
  const moved = (sign: number): Value[] =>
    buckets.mean.map((mean, index) => (mean === null ? null : mean + sign * (buckets.std[index] ?? 0)));
  return { low: moved(-1), high: moved(1) };
}

/** The curve of a measure: a mark at each step at which it was measured. */
export function measureCurve(stroke: Stroke, label: string, name: string, measured: Measured[]): Curve {
  const found = measured.filter((one) => name in one.measures);
  const mean = found.map((one) => one.measures[name] ?? null);
  const bad = found.filter((one) => one.measures[name] === null).map((one) => one.step);
  return { color: stroke.color, dash: stroke.dash, label, step: found.map((one) => one.step), mean, low: null, high: null, bad, points: true };
}
