/** The state of a run, its progress and its best measure, as the list and the head of a run show them. */

import type { Card, State } from "../data/types";
import { h } from "../dom";
import { count, figure } from "../format";
import { stateIcon } from "./icons";

export function stateMark(state: State): HTMLElement {
  return h("span", `state state-${state}`, stateIcon(state), state);
}

export function progress(step: number | null, steps: number | null, name: string): HTMLElement {
  const done = step ?? 0;
  const bar = h("span", { class: "progress-bar", attrs: { "aria-hidden": "true" } }, h("span", "progress-done"));
  const part = steps ? Math.min(1, done / steps) : 0;
  (bar.firstElementChild as HTMLElement).style.width = `${part * 100}%`;
  const text = steps ? `${count(done)} of ${count(steps)}` : count(done);
  return h("span", { class: "progress", attrs: { title: `${name}: step ${text}` } }, h("span", "figures", text), bar);
}

export function bestText(best: Card["best"]): string {
  return best ? `${best.measure.replaceAll("_", " ")} ${figure(best.value)}` : "–";
}
