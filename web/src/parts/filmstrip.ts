/** The sample grids of a run: the one at the step that is shown, and a strip of small ones from first to last. */

import { gridAt } from "../data/api";
import { indexAt, type Timeline } from "../data/timeline";
import type { Run } from "../data/types";
import { h, refill, setText } from "../dom";
import { count } from "../format";
import { scrubber } from "./scrubber";

const THUMBNAILS = 8;

/** `starts` is what the samples of all grids are made of, such as "latents". */
export function filmstrip(first: Run, starts: string, timeline: Timeline, signal: AbortSignal) {
  let run = first;
  let shown = -1;
  let thumbnails = "";
  const image = h("img", { class: "grid-image", attrs: { alt: "", decoding: "async" } });
  const caption = h("figcaption", "muted figures");
  const strip = h("ol", { class: "strip", attrs: { "aria-label": "Sample grids from the first to the last" } });
  const control = scrubber(timeline, () => run.grids, "Step of the sample grid", signal);
  const element = h("div", {}, h("figure", "grid-frame", image, caption), control.element, strip);

  function update(): void {
    const index = indexAt(run.grids, timeline.step);
    const step = run.grids[index];
    if (step === undefined || step === shown) return;
    shown = step;
    const address = gridAt(run, index);
    if (image.getAttribute("src") !== address) image.src = address;
    image.alt = `Samples of the same ${starts} at step ${count(step)}`;
    setText(caption, `samples at step ${count(step)}, always of the same ${starts}`);
    for (const button of strip.querySelectorAll("button")) {
      if (Number(button.dataset["step"]) === nearestThumbnail(step)) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    }
  }

  function nearestThumbnail(step: number): number {
    const steps = chosen().map((index) => run.grids[index] as number);
    return steps[indexAt(steps, step)] ?? -1;
  }

  /** The places of evenly spaced grids, the last one included. */
  function chosen(): number[] {
    const number = Math.min(THUMBNAILS, run.grids.length);
    return Array.from({ length: number }, (_, index) => Math.round((index * (run.grids.length - 1)) / Math.max(1, number - 1)));
  }

  function pin(event: Event): void {
    timeline.pin(Number((event.currentTarget as HTMLElement).dataset["step"]));
  }

  function drawStrip(): void {
    const places = chosen();
    const addresses = places.map((index) => gridAt(run, index)).join();
    if (addresses === thumbnails) return;
    thumbnails = addresses;
    refill(
      strip,
      places.map((index) => {
        const step = run.grids[index] as number;
        const picture = h("img", { attrs: { src: gridAt(run, index), alt: "", loading: "lazy", decoding: "async" } });
        const button = h(
          "button",
          { class: "thumb", attrs: { type: "button", "aria-label": `Sample grid at step ${count(step)}` }, on: { click: pin } },
          picture,
        );
        button.dataset["step"] = String(step);
        return h("li", {}, button);
      }),
    );
  }

  image.addEventListener("load", () => image.classList.toggle("pixelated", image.naturalWidth < image.clientWidth));
  timeline.onChange(update);
  return {
    element,
    show(now: Run): void {
      run = now;
      timeline.setExtent("grids", run.grids[0], run.grids.at(-1));
      drawStrip();
      control.update();
      shown = -1;
      update();
    },
  };
}
