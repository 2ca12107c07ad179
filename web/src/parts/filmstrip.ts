/** The sample grids of a run: the one at the step that is shown, and a strip of small ones from first to last. */

import { gridAddress } from "../data/api";
import { indexAt, type Timeline } from "../data/timeline";
import { h, refill, setText } from "../dom";
import { count } from "../format";
import { scrubber } from "./scrubber";

const THUMBNAILS = 8;

/** `starts` is what the samples of all grids are made of, such as "latents". */
export function filmstrip(run: string, starts: string, timeline: Timeline, signal: AbortSignal) {
  let grids: number[] = [];
  let shown = -1;
  let thumbnails = "";
  const image = h("img", { class: "grid-image", attrs: { alt: "", decoding: "async" } });
  const caption = h("figcaption", "muted figures");
  const strip = h("ol", { class: "strip", attrs: { "aria-label": "Sample grids from the first to the last" } });
  const control = scrubber(timeline, () => grids, "Step of the sample grid", signal);
  const element = h("div", {}, h("figure", "grid-frame", image, caption), control.element, strip);

  function update(): void {
    const step = grids[indexAt(grids, timeline.step)];
    if (step === undefined || step === shown) return;
    shown = step;
    image.src = gridAddress(run, step);
    image.alt = `Samples of the same ${starts} at step ${count(step)}`;
    setText(caption, `samples at step ${count(step)}, always of the same ${starts}`);
    for (const button of strip.querySelectorAll("button")) {
      if (Number(button.dataset["step"]) === nearestThumbnail(step)) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    }
  }

  function nearestThumbnail(step: number): number {
    const steps = chosen();
    return steps[indexAt(steps, step)] ?? -1;
  }

  /** Evenly spaced grids, the last one included. */
  function chosen(): number[] {
    const number = Math.min(THUMBNAILS, grids.length);
    const at = (index: number): number => Math.round((index * (grids.length - 1)) / Math.max(1, number - 1));
    return Array.from({ length: number }, (_, index) => grids[at(index)] as number);
  }

  function pin(event: Event): void {
    timeline.pin(Number((event.currentTarget as HTMLElement).dataset["step"]));
  }

  function drawStrip(): void {
    const steps = chosen();
    if (steps.join() === thumbnails) return;
    thumbnails = steps.join();
    refill(
      strip,
      steps.map((step) => {
        const picture = h("img", { attrs: { src: gridAddress(run, step), alt: "", loading: "lazy", decoding: "async" } });
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
    show(list: number[]): void {
      grids = list;
      timeline.setExtent("grids", list[0], list.at(-1));
      drawStrip();
      control.update();
      shown = -1;
      update();
    },
  };
}
