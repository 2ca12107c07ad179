/** From what the server says of a series or a measure to the curve that a chart draws, and to its value at a step. */

import { EMPTY } from "../data/series";
import { indexAt } from "../data/timeline";
import type { Buckets, Measured, Value } from "../data/types";
import { figure } from "../format";
import type { Stroke } from "./palette";

export interface Curve extends Stroke {
  label: string;
  step: ArrayLike<number>;
  mean: Value[];
  /** The edges of the band of spread; null for none. */
  low: Value[] | null;
  high: Value[] | null;
  /** Steps whose value is not finite. */
  bad: number[];
  /** The step of the first value, from which on there is one to read; null without values. */
  begin: number | null;
  /** Draw a mark at each value: for few values far apart. */
  points?: boolean;
}

/** What the band about a mean shows: from the least to the largest value, a standard deviation to each side, or nothing. */
export type Spread = "range" | "std" | "none";

/** The curve of a series, of which `buckets` is undefined until there is a row. */
export function seriesCurve(stroke: Stroke, label: string, buckets: Buckets = EMPTY, spread: Spread = "range"): Curve {
  const { step, mean, bad, begin } = buckets;
  return { color: stroke.color, dash: stroke.dash, label, step, mean, bad, begin, ...edges(buckets, spread) };
}

function edges(buckets: Buckets, spread: Spread): { low: Value[] | null; high: Value[] | null } {
  if (spread === "none") return { low: null, high: null };
  if (spread === "range") return { low: buckets.min, high: buckets.max };
  const moved = (sign: number): Value[] =>
    buckets.mean.map((mean, index) => (mean === null ? null : mean + sign * (buckets.std[index] ?? 0)));
  return { low: moved(-1), high: moved(1) };
}

/**
 * The curve of a measure: a mark at each step at which it was measured. Values of other features or of another number of samples
 * can't be compared, so a gap is before them.
 */
export function measureCurve(stroke: Stroke, label: string, name: string, measured: Measured[]): Curve {
  const found = measured.filter((one) => name in one.measures);
  const bad = found.filter((one) => one.measures[name] === null).map((one) => one.step);
  const step: number[] = [];
  const mean: Value[] = [];
  found.forEach((one, index) => {
    const before = found[index - 1] ?? one;
    if ((before.n !== one.n || before.features !== one.features) && before.step < one.step) {
      step.push(one.step - 0.5);
      mean.push(null);
    }
    step.push(one.step);
    mean.push(one.measures[name] ?? null);
  });
  return { color: stroke.color, dash: stroke.dash, label, step, mean, low: null, high: null, bad, begin: step[0] ?? null, points: true };
}

/** The value of a curve at a step in so many digits, with its spread unless there is no room for it; "–" before the first one. */
export function readingAt(curve: Curve, step: number, brief: boolean, digits: number): string {
  if (curve.begin === null || step < curve.begin) return "–";
  const index = indexAt(curve.step, step);
  const text = figure(curve.mean[index], digits);
  const [low, high] = [curve.low?.[index], curve.high?.[index]];
  return brief || low == null || high == null || low === high ? text : `${text}  [${figure(low, digits)}, ${figure(high, digits)}]`;
}
