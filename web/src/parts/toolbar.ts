/** What stands above charts: the step that they show, and the buttons that zoom, as a drag and a double click do. */

import type { Timeline } from "../data/timeline";
import { h, setText, type Child } from "../dom";
import { count } from "../format";

/** The toolbar of all charts of a timeline; `more` stands at its beginning. */
export function chartToolbar(timeline: Timeline, ...more: Child[]): HTMLElement {
  const button = (text: string, label: string, click: () => void): HTMLButtonElement =>
    h("button", { class: "quiet", attrs: { type: "button", "aria-label": label, title: label }, on: { click } }, text);
  const whole = button("Whole run", "Whole run", () => timeline.zoom(null));
  const where = h("output", { class: "figures muted", attrs: { "aria-live": "off" } });
  const update = (): void => {
    whole.disabled = timeline.part === null;
    setText(where, `step ${count(timeline.step)}`);
  };
  timeline.onChange(update);
  update();
  return h(
    "div",
    { class: "toolbar", attrs: { role: "group", "aria-label": "Charts" } },
    more,
    h("span", "toolbar-gap"),
    where,
    button("−", "Zoom out", () => timeline.zoomBy(2)),
    button("+", "Zoom in at the step that is shown", () => timeline.zoomBy(0.5)),
    whole,
  );
}
