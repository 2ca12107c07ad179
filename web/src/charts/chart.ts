/** One chart: uPlot with bands of spread, reference lines, marks of alarms, and the step that all charts share. */

import uPlot from "uplot";

import type { Timeline } from "../data/timeline";
import type { Alarm, Value } from "../data/types";
import { h, setText } from "../dom";
import { axisTexts, digitsOf, stepText } from "../format";
import { readingAt, type Curve } from "./curves";
import { drawAlarms, drawBase, drawGaps, drawReferences, type ReferenceLine } from "./overlay";
import { color, faded, type Stroke } from "./palette";

export interface ChartOptions {
  title: string;
  height?: number;
  span?: readonly [number, number] | undefined;
}

/** The distance of the plot from the left and the right edge of the chart, in pixels: the last step may be 1,234,560. */
export const [PLOT_LEFT, PLOT_RIGHT] = [60, 30];

/** In a narrower chart there is no room for the spread beside a value. */
const NARROW = 300;

/** The distances that labels of the step axis may have: steps are whole, so 2.5 is none of them. */
const STEP_DISTANCES = Array.from({ length: 15 }, (_, power) => [1, 2, 2.5, 5].map((first) => first * 10 ** power))
  .flat()
  .filter(Number.isInteger);

/** The server rounds values to seven digits, so a smaller difference, in parts of the values, may be none. */
const ROUNDING = 1e-6;

type Column = (number | null | undefined)[];

const FONT = '12px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif';

/** The columns of uPlot: the union of all steps, and per curve its mean, upper and lower edge. */
function columns(curves: Curve[]): uPlot.AlignedData {
  const first = curves[0]?.step;
  const shared = curves.every((curve) => sameSteps(curve.step, first));
  if (shared) return [Array.from(first ?? []), ...curves.flatMap((one) => [one.mean, one.high ?? [], one.low ?? []])];
  const steps = [...new Set(curves.flatMap((curve) => Array.from(curve.step)))].sort((a, b) => a - b);
  const place = new Map(steps.map((step, index) => [step, index]));
  const spread = (curve: Curve, values: Value[] | null): Column => {
    const column: Column = new Array<undefined>(steps.length).fill(undefined);
    values?.forEach((value, index) => (column[place.get(curve.step[index] as number) as number] = value));
    return column;
  };
  return [steps, ...curves.flatMap((one) => [spread(one, one.mean), spread(one, one.high), spread(one, one.low)])];
}

function sameSteps(a: ArrayLike<number>, b: ArrayLike<number> | undefined): boolean {
  if (!b || a.length !== b.length) return false;
  for (let index = 0; index < a.length; index += 1) if (a[index] !== b[index]) return false;
  return true;
}

export class Chart {
  readonly element: HTMLElement;
  private readonly stage = h("div", "chart-stage");
  private readonly readings: HTMLElement[] = [];
  private readonly swatches: HTMLCanvasElement[] = [];
  private readonly legend = h("div", "legend");
  private plot: uPlot | null = null;
  private curves: Curve[] = [];
  private alarms: Alarm[] = [];
  private references: ReferenceLine[] = [];
  private readonly heading = h("h3");
  /** What is to be added to each label of the y axis; empty for nothing. */
  private base = "";
  private readonly sizes: ResizeObserver;

  constructor(
    private readonly options: ChartOptions,
    private readonly timeline: Timeline,
    signal: AbortSignal,
  ) {
    const { title } = options;
    this.heading.textContent = title;
    const caption = h("figcaption", "chart-head", this.heading, this.legend);
    this.stage.style.height = `${options.height ?? 200}px`;
    this.element = h("figure", { class: "chart", attrs: { "aria-label": title } }, caption, this.stage);
    this.sizes = new ResizeObserver(() => this.resize());
    this.sizes.observe(this.stage);
    signal.addEventListener("abort", () => {
      this.sizes.disconnect();
      this.plot?.destroy();
    });
    timeline.onChange(() => this.follow(), signal);
  }

  /** Say what the chart shows, and draw these reference lines from the next call of `show` on. */
  describe(about: string, references: ReferenceLine[]): void {
    this.heading.title = about;
    this.references = references;
  }

  /** Show these curves; the same number as before keeps the chart and its size. */
  show(curves: Curve[], alarms: Alarm[] = []): void {
    const rebuild = curves.length !== this.curves.length || !this.plot;
    this.curves = curves;
    this.alarms = alarms;
    if (rebuild) this.build();
    else {
      this.plot?.setData(columns(curves), false);
      this.plot?.setScale("x", { min: this.timeline.range[0], max: this.timeline.range[1] });
    }
    this.follow();
  }

  /** Draw again in the colours of now. */
  repaint(): void {
    this.plot?.redraw(false, true);
    this.swatches.forEach((swatch, index) => paintSwatch(swatch, this.curves[index] as Curve));
  }

  private build(): void {
    this.plot?.destroy();
    this.readings.length = this.swatches.length = 0;
    this.legend.replaceChildren(...this.curves.map((curve) => this.entry(curve)));
    const width = this.stage.clientWidth || 300;
    this.plot = new uPlot(this.settings(width), columns(this.curves), this.stage);
    this.listen(this.plot);
  }

  private entry(curve: Curve): HTMLElement {
    const reading = h("span", "reading");
    this.readings.push(reading);
    const swatch = h("canvas", { class: "swatch", attrs: { "aria-hidden": "true", width: 44, height: 12 } });
    this.swatches.push(swatch);
    paintSwatch(swatch, curve);
    return h("span", "legend-entry", swatch, curve.label ? h("span", {}, curve.label) : null, reading);
  }

  private settings(width: number): uPlot.Options {
    const axis = {
      stroke: () => color("--muted"),
      font: FONT,
      grid: { stroke: () => color("--line"), width: 1 },
      ticks: { show: false },
    };
    const { span } = this.options;
    return {
      width,
      height: this.stage.clientHeight || 200,
      padding: [8, PLOT_RIGHT, 0, 0],
      legend: { show: false },
      cursor: { y: false, drag: { x: true, y: false, setScale: false }, points: { show: false } },
      scales: {
        x: { time: false, range: () => [...this.timeline.range] as [number, number] },
        y: span ? { range: () => [...span] as [number, number] } : { range: (_, low, high) => this.yRange(low, high) },
      },
      axes: [
        {
          ...axis,
          size: 28,
          gap: 6,
          space: (_plot, _axis, _min, _max, pixels) => Math.min(70, pixels / 2.2),
          incrs: STEP_DISTANCES,
          values: (_plot, steps, _axis, _space, distance) => steps.map((step) => stepText(step, distance)),
        },
        {
          ...axis,
          size: PLOT_LEFT,
          gap: 6,
          space: 34,
          values: (_plot, values, _axis, _space, distance) => this.yLabels(values, distance),
        },
      ],
      series: [{}, ...this.curves.flatMap((curve) => lineSeries(curve))],
      bands: this.curves.map((curve, index) => ({
        series: [index * 3 + 2, index * 3 + 3],
        fill: () => faded(curve.color, 0.17),
      })),
      hooks: {
        setSelect: [(plot) => this.select(plot)],
        draw: [
          (plot) => {
            drawReferences(plot, this.references);
            drawAlarms(plot, this.alarms);
            drawGaps(plot, this.curves);
            drawBase(plot, this.base);
            this.read(); // the digits of the values depend on the range of the axis
          },
        ],
      },
    };
  }

  private yLabels(values: number[], distance: number): string[] {
    const { texts, base } = axisTexts(values, distance);
    this.base = base;
    return texts;
  }

  /** The range of the y axis, which includes the reference lines and is never empty. */
  private yRange(low: number | null, high: number | null): [number, number] {
    const values = this.references.map((one) => one.value);
    const bottom = Math.min(low ?? Infinity, ...values);
    const top = Math.max(high ?? -Infinity, ...values);
    if (!Number.isFinite(bottom) || !Number.isFinite(top)) return [0, 1];
    const size = Math.max(Math.abs(bottom), Math.abs(top));
    const isFlat = top - bottom <= ROUNDING * size;
    const margin = (isFlat ? size || 1 : top - bottom) * 0.06;
    return [bottom >= 0 && bottom < margin * 3 ? 0 : bottom - margin, top + margin];
  }

  private select(plot: uPlot): void {
    const { left, width } = plot.select;
    if (width > 4) this.timeline.zoom([plot.posToVal(left, "x"), plot.posToVal(left + width, "x")]);
    plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
  }

  private listen(plot: uPlot): void {
    const stepAt = (event: MouseEvent): number => {
      const box = plot.over.getBoundingClientRect();
      const [first, last] = this.timeline.range;
      return Math.min(last, Math.max(first, Math.round(plot.posToVal(event.clientX - box.left, "x"))));
    };
    let down = 0;
    let before: number | null = null;
    plot.over.addEventListener("pointermove", (event) => this.timeline.hover(stepAt(event)));
    plot.over.addEventListener("pointerleave", () => this.timeline.hover(null));
    plot.over.addEventListener("pointerdown", (event) => (down = event.clientX));
    plot.over.addEventListener("click", (event) => {
      if (event.detail > 1 || Math.abs(event.clientX - down) >= 4) return; // of a double click the second one, or the end of a drag
      before = this.timeline.chosen;
      this.timeline.pin(stepAt(event));
    });
    plot.over.addEventListener("dblclick", () => {
      this.timeline.zoom(null);
      this.timeline.pin(before); // its first click has chosen a step
    });
  }

  private resize(): void {
    const { clientWidth: width, clientHeight: height } = this.stage;
    if (this.plot && width > 0 && (width !== this.plot.width || height !== this.plot.height)) {
      this.plot.setSize({ width, height });
    }
  }

  private follow(): void {
    if (!this.plot) return;
    const [min, max] = this.timeline.range;
    const { min: oldMin, max: oldMax } = this.plot.scales.x ?? {};
    if (min !== oldMin || max !== oldMax) this.plot.setScale("x", { min, max });
    this.plot.setCursor({ left: this.plot.valToPos(this.timeline.step, "x"), top: 0 }, false);
    this.read();
  }

  /** Write the value of each curve at the step that is shown. */
  private read(): void {
    if (!this.plot) return;
    const { min, max } = this.plot.scales["y"] ?? {};
    const digits = digitsOf(min ?? 0, max ?? 0);
    const brief = this.curves.length > 2 || this.plot.width < NARROW;
    this.curves.forEach((curve, index) => {
      const reading = this.readings[index];
      if (reading) setText(reading, readingAt(curve, this.timeline.step, brief, digits));
    });
  }
}

/** The places of values between two gaps, to which no line leads: null is a gap, undefined a step of another curve. */
function alone(column: ArrayLike<number | null | undefined>): number[] {
  const own = Array.from(column, (_, place) => place).filter((place) => column[place] !== undefined);
  const isGap = (place: number | undefined): boolean => place === undefined || column[place] === null;
  return own.filter((place, index) => !isGap(place) && isGap(own[index - 1]) && isGap(own[index + 1]));
}

function lineSeries(curve: Curve): uPlot.Series[] {
  const edge: uPlot.Series = { stroke: "transparent", width: 0, points: { show: false } };
  return [
    {
      stroke: () => color(curve.color),
      width: 1.75,
      dash: curve.dash,
      points: {
        show: curve.points ? true : (plot) => (plot.data[0]?.length ?? 0) < 3,
        filter: (plot, series, shown) => (shown ? null : alone(plot.data[series] ?? [])),
        size: 6,
        width: 1.5,
        fill: () => color("--page"),
      },
    },
    { ...edge },
    { ...edge },
  ];
}

function paintSwatch(canvas: HTMLCanvasElement, stroke: Stroke): void {
  const pen = canvas.getContext("2d");
  if (!pen) return;
  pen.clearRect(0, 0, canvas.width, canvas.height);
  pen.strokeStyle = color(stroke.color);
  pen.lineWidth = 4;
  pen.setLineDash(stroke.dash.map((length) => length * 2));
  pen.beginPath();
  pen.moveTo(0, 6);
  pen.lineTo(44, 6);
  pen.stroke();
}
