/** The state of a run, its progress and its best measure, as the list and the head of a run show them. */

import type { Card, State } from "../data/types";
import { h } from "../dom";
import { count, figure, words } from "../format";
import { stateIcon } from "./icons";

export function stateMark(state: State): HTMLElement {
  return h("span", `state state-${state}`, stateIcon(state), state);
}

/** How much is done of what is planned, as text and as a bar; `unit` is "steps" unless it is said. */
export function progress(step: number | null, steps: number | null, name: string, unit = ""): HTMLElement {
  const done = step ?? 0;
  const bar = h("span", { class: "progress-bar", attrs: { "aria-hidden": "true" } }, h("span", "progress-done"));
  const part = steps ? Math.min(1, done / steps) : 0;
  (bar.firstElementChild as HTMLElement).style.width = `${part * 100}%`;
  const text = steps ? `${count(done)} of ${count(steps)}` : count(done);
  const attrs = { title: `${name}: ${unit ? "" : "step "}${text}` };
  return h("span", { class: "progress", attrs }, h("span", "figures", unit ? `${text} ${unit}` : text), bar);
}

export function bestText(best: Card["best"]): string {
  return best ? `${words(best.measure)} ${figure(best.value)}` : "–";
}
