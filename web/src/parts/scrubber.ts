/** A slider over steps, tied to the step that the charts show. */

import { indexAt, type Timeline } from "../data/timeline";
import { h, setText } from "../dom";
import { count } from "../format";
import { pauseIcon, playIcon } from "./icons";

const STEP_TIME = 120;
/** Longest time that playing everything takes. */
const WHOLE_TIME = 12_000;

/** `steps()` gives the ascending steps that the slider can stop at. */
export function scrubber(timeline: Timeline, steps: () => ArrayLike<number>, label: string, signal: AbortSignal) {
  const slider = h("input", { attrs: { type: "range", min: 0, max: 0, value: 0, "aria-label": label } });
  const output = h("output", { class: "figures scrubber-step", attrs: { "aria-live": "off" } });
  const newest = h("button", { class: "quiet", attrs: { type: "button" }, on: { click: () => timeline.follow() } }, "Newest");
  const play = h("button", { class: "quiet", attrs: { type: "button" }, on: { click: toggle } });
  let timer = 0;

  /** The places of the first and the last step that the charts show. */
  function ends(): [number, number] {
    const [first, last] = timeline.range;
    return [indexAt(steps(), first), indexAt(steps(), last)];
  }

  function choose(index: number): void {
    const step = steps()[index];
    if (step !== undefined) timeline.pin(index >= steps().length - 1 ? null : Math.max(step, timeline.range[0]));
  }

  function toggle(): void {
    if (timer) stop();
    else start();
  }

  function start(): void {
    const [first, last] = ends();
    let index = indexAt(steps(), timeline.step);
    if (index >= last) index = first - 1;
    const stride = Math.max(1, Math.round(((last - first) * STEP_TIME) / WHOLE_TIME));
    timer = window.setInterval(() => {
      index = Math.min(last, index + stride);
      choose(index);
      if (index >= last) stop();
    }, STEP_TIME);
    describePlay();
  }

  function stop(): void {
    window.clearInterval(timer);
    timer = 0;
    describePlay();
  }

  function describePlay(): void {
    play.replaceChildren(timer ? pauseIcon() : playIcon());
    play.setAttribute("aria-label", timer ? "Pause" : "Play");
  }

  function update(): void {
    const list = steps();
    const index = indexAt(list, timeline.step);
    const [first, last] = ends();
    slider.min = String(first);
    slider.max = String(last);
    slider.value = String(index);
    slider.disabled = play.disabled = first === last;
    const text = list.length ? `step ${count(list[index] as number)}` : "";
    slider.setAttribute("aria-valuetext", text);
    setText(output, text);
    newest.disabled = timeline.follows;
    element.hidden = list.length === 0;
  }

  slider.addEventListener("input", () => {
    stop();
    choose(Number(slider.value));
  });
  const element = h("div", { class: "scrubber", attrs: { hidden: true } }, play, slider, output, newest);
  signal.addEventListener("abort", stop);
  timeline.onChange(update);
  describePlay();
  return { element, update };
}
