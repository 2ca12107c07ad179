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
  const newest = h("button", { class: "quiet", attrs: { type: "button" }, on: { click: () => timeline.pin(null) } }, "Newest");
  const play = h("button", { class: "quiet", attrs: { type: "button" }, on: { click: toggle } });
  let timer = 0;

  function choose(index: number): void {
    const step = steps()[index];
    if (step !== undefined) timeline.pin(index >= steps().length - 1 ? null : step);
  }

  function toggle(): void {
    if (timer) stop();
    else start();
  }

  function start(): void {
    const last = steps().length - 1;
    let index = indexAt(steps(), timeline.step);
    if (index >= last) index = -1;
    const stride = Math.max(1, Math.round((last * STEP_TIME) / WHOLE_TIME));
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
    slider.max = String(Math.max(0, list.length - 1));
    slider.value = String(index);
    slider.disabled = play.disabled = list.length < 2;
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
