/** The GAN on 2-D points of one run: the canvas, its colour bar, the frames as they arrive, and what its marks mean. */

import { fetchFrames } from "../data/api";
import { isSame, joined, parseFrames, type Frame, type Frames } from "../data/frames";
import { indexAt, type Timeline } from "../data/timeline";
import { h, setText, svg } from "../dom";
import { count, figure } from "../format";
import { drawPlane, heat, heatColors, middle } from "./plane";

/** With more frames than this, all are fetched anew: the file has thinned the early ones by then. */
const MOST_FRAMES = 2000;

export function gameView(label: string, timeline: Timeline, signal: AbortSignal) {
  let frames: Frames | null = null;
  let steps: number[] = [];
  let run = "";
  let fetching = false;
  let wanted = false;
  const canvas = h("canvas", { class: "plane", attrs: { role: "img", "aria-label": label } });
  const bar = h("canvas", { class: "bar", attrs: { width: 256, height: 1, "aria-hidden": "true" } });
  const [low, centre, high] = [h("span"), h("span"), h("span")];
  const scale = h("div", {}, bar, h("div", "bar-ends figures", low, centre, high));
  const element = h("div", "game", h("div", "plane-frame", canvas), scale);

  /** Fetch what came after the newest frame, or all if that is no longer there: the run went back. One request at a time. */
  async function refresh(): Promise<void> {
    wanted = true;
    if (fetching) return;
    fetching = true;
    try {
      while (wanted && !signal.aborted) {
        wanted = false;
        const asked = run;
        const known = frames && frames.frames.length < MOST_FRAMES ? frames : null;
        const newest = known?.frames.at(-1);
        const more = parseFrames(await fetchFrames(asked, newest?.step ? newest.step - 1 : null, signal));
        if (asked !== run) continue;
        const goesOn = known && newest?.step && more.frames.some((frame) => isSame(frame, newest));
        if (newest?.step && !goesOn) {
          frames = null;
          wanted = true;
          continue;
        }
        frames = goesOn ? joined(known, more) : more;
        steps = frames.frames.map((frame) => frame.step);
        timeline.setExtent(label, steps[0], steps.at(-1));
      }
    } catch (error) {
      if (!signal.aborted) console.warn("frames", error);
    } finally {
      fetching = false;
    }
  }

  function draw(): void {
    if (!frames) return;
    const size = Math.round(canvas.clientWidth * Math.min(2, devicePixelRatio)) || 480;
    if (canvas.width !== size) canvas.width = canvas.height = size;
    const frame = frames.frames[indexAt(steps, timeline.step)] ?? null;
    drawPlane(canvas, frames, frame);
    if (frame) describe(frame);
  }

  function describe(frame: Frame): void {
    const colors = heatColors();
    const pen = bar.getContext("2d");
    const image = new ImageData(256, 1);
    const reach = Math.max(Math.abs(frame.scoreMax - middle(frame)), Math.abs(frame.scoreMin - middle(frame))) || 1;
    for (let index = 0; index < 256; index += 1) {
      const score = frame.scoreMin + ((frame.scoreMax - frame.scoreMin) * index) / 255;
      image.data.set([...heat(colors, (score - middle(frame)) / reach), 255], 4 * index);
    }
    pen?.putImageData(image, 0, 0);
    setText(low, figure(frame.scoreMin, 3));
    setText(high, figure(frame.scoreMax, 3));
    const threshold = Number.isNaN(frame.threshold) ? "" : `, threshold ${figure(frame.threshold, 3)}`;
    setText(centre, `score of D${threshold}`);
    canvas.setAttribute("aria-label", `${label} at step ${count(frame.step)}`);
  }

  const sizes = new ResizeObserver(draw);
  sizes.observe(canvas);
  signal.addEventListener("abort", () => sizes.disconnect());
  timeline.onChange(draw);
  return {
    element,
    refresh,
    repaint: draw,
    steps: (): number[] => steps,
    /** Show the frames of another run from now on. */
    open(id: string): void {
      if (id !== run) {
        run = id;
        frames = null;
        steps = [];
      }
      void refresh();
    },
  };
}

/** What the marks of a GAN on 2-D points mean. */
export function planeLegend(): HTMLElement {
  const mark = (...shapes: SVGElement[]): SVGElement =>
    svg("svg", { viewBox: "0 0 16 16", class: "icon", "aria-hidden": "true" }, ...shapes);
  const entry = (name: string, shape: SVGElement, text: string): HTMLElement => h("span", `plane-key ${name}`, mark(shape), text);
  const arrow = svg("path", { d: "M1 8h13M9.5 3.5L14 8l-4.5 4.5", fill: "none", stroke: "currentColor", "stroke-width": 1.5 });
  return h(
    "p",
    "plane-legend",
    entry("key-real", svg("circle", { cx: 8, cy: 8, r: 5, fill: "none", stroke: "currentColor", "stroke-width": 2 }), "real"),
    entry("key-fake", svg("path", { d: "M8 2l6 6-6 6-6-6z", fill: "currentColor" }), "generated"),
    entry("key-arrow", arrow, "where G's loss falls"),
  );
}
