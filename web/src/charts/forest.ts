/** A forest plot: per comparison the effect with its interval, against no effect at 0. */

import type { Effect } from "../data/types";
import { svg } from "../dom";
import { figure } from "../format";

/** The effect, and the lower and upper end of its interval. */
type Interval = [number, number, number];

/** The effects with their intervals: relative to the mean without the tip if all have one, else in units of the measure. */
function shownEffects(effects: Effect[]): { relative: boolean; intervals: Interval[] } {
  const isWhole = (values: unknown[]): values is Interval => values.every((value) => typeof value === "number");
  const relative = effects.every((one) => isWhole(one.relative ?? [null]));
  const intervals = effects.map((one): Interval => {
    const values = relative && one.relative ? one.relative : [one.effect, one.low, one.high];
    return isWhole(values) ? values : [NaN, NaN, NaN];
  });
  return { relative, intervals };
}

function effectText(value: number, relative: boolean): string {
  if (!Number.isFinite(value)) return "–";
  return `${value > 0 ? "+" : ""}${relative ? `${figure(value * 100, 3)} %` : figure(value, 3)}`;
}

/** Round numbers between `low` and `high`, about `wanted` of them. */
function ticks(low: number, high: number, wanted: number): number[] {
  const raw = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(raw));
  const size = ([1, 2, 5, 10].find((factor) => factor * power >= raw) ?? 10) * power;
  const result = [];
  for (let index = Math.ceil(low / size); index * size <= high; index += 1) result.push(index * size);
  return result;
}

/** The axis that all rows of a forest plot share. Positions are in per cent, so that a row has any width. */
export class ForestScale {
  private readonly relative: boolean;
  private readonly intervals: Map<Effect, Interval>;
  private readonly low: number;
  private readonly width: number;
  private readonly marks: number[];

  constructor(effects: Effect[]) {
    const { relative, intervals } = shownEffects(effects);
    const ends = intervals.flat().filter(Number.isFinite);
    const [low, high] = [Math.min(0, ...ends), Math.max(0, ...ends)];
    const margin = (high - low || 1) * 0.08;
    this.relative = relative;
    this.intervals = new Map(effects.map((effect, index) => [effect, intervals[index] as Interval]));
    this.low = low - margin;
    this.width = high - low + 2 * margin;
    this.marks = ticks(this.low, this.low + this.width, 4);
  }

  /** The effect of a row as text, with its interval. */
  text(effect: Effect): string {
    const [value, low, high] = this.intervals.get(effect) ?? [NaN, NaN, NaN];
    if (!Number.isFinite(value)) return "–";
    return `${effectText(value, this.relative)} [${effectText(low, this.relative)}, ${effectText(high, this.relative)}]`;
  }

  /** The interval of one row. */
  row(effect: Effect): SVGElement {
    const [value, low, high] = this.intervals.get(effect) ?? [NaN, NaN, NaN];
    const isKnown = Number.isFinite(value);
    return svg(
      "svg",
      { class: `forest verdict-${effect.verdict.replaceAll(" ", "-")}`, "aria-hidden": "true" },
      this.lines(),
      isKnown ? svg("line", { class: "interval", x1: this.place(low), x2: this.place(high), y1: "50%", y2: "50%" }) : null,
      isKnown ? svg("svg", { x: this.place(value), y: "50%", overflow: "visible" }, marker(effect.verdict)) : null,
    );
  }

  /** The figures below the last row. */
  axis(): SVGElement {
    const figures = this.marks.map((mark) => svg("text", { x: this.place(mark), y: 14, "text-anchor": "middle" }, effectText(mark, this.relative)));
    return svg("svg", { class: "forest forest-axis", "aria-hidden": "true" }, figures);
  }

  private lines(): SVGElement[] {
    return this.marks.map((mark) =>
      svg("line", { class: mark === 0 ? "zero" : "gridline", x1: this.place(mark), x2: this.place(mark), y1: 0, y2: "100%" }),
    );
  }

  private place(value: number): string {
    return `${(((value - this.low) / this.width) * 100).toFixed(2)}%`;
  }
}

/** The same shapes as those of `verdictIcon`, about the origin. */
function marker(verdict: string): SVGElement {
  if (verdict === "helps") return svg("path", { class: "marker", d: "M0 -6l6 11h-12z" });
  if (verdict === "harms") return svg("path", { class: "marker", d: "M0 6l6 -11h-12z" });
  return svg("circle", { class: "marker open", r: 4.5 });
}
