/** Alarms as buttons on the step axis of a chart, with those that would overlap as one button. */

import type { Timeline } from "../data/timeline";
import type { Alarm } from "../data/types";
import { h, place, renew } from "../dom";
import { count } from "../format";
import { levelIcon, worstLevel } from "../parts/icons";
import { PLOT_LEFT, PLOT_RIGHT } from "./chart";

const NEAREST = 26;

export function alarmLane(timeline: Timeline, open: (alarms: Alarm[]) => void, signal: AbortSignal) {
  const lane = h("div", { class: "alarm-lane", attrs: { role: "group", "aria-label": "Alarms on the step axis" } });
  let alarms: Alarm[] = [];
  let drawn = "";
  /** The buttons by the step of their first alarm, which stay while the axis grows, and the alarms of each. */
  const buttons = new Map<number, { element: HTMLElement; group: Alarm[] }>();

  function draw(): void {
    const [first, last] = timeline.range;
    const width = lane.clientWidth - PLOT_LEFT - PLOT_RIGHT;
    const state = [first, last, width, alarms.length].join();
    if (width <= 0 || state === drawn) return;
    drawn = state;
    const groups: { x: number; alarms: Alarm[] }[] = [];
    for (const alarm of alarms) {
      if (alarm.step < first || alarm.step > last) continue;
      const x = PLOT_LEFT + ((alarm.step - first) / (last - first)) * width;
      const group = groups.at(-1);
      if (group && x - group.x < NEAREST) group.alarms.push(alarm);
      else groups.push({ x, alarms: [alarm] });
    }
    place(lane, groups.map((group) => mark(group.x, group.alarms)));
  }

  function mark(x: number, group: Alarm[]): HTMLElement {
    const [first] = group as [Alarm];
    const known = buttons.get(first.step) ?? { element: button(group, () => open(known.group)), group };
    known.group = group;
    buttons.set(first.step, known);
    renew(known.element, button(group));
    known.element.style.left = `${x}px`;
    return known.element;
  }

  function button(group: Alarm[], click: () => void = () => undefined): HTMLElement {
    const [first] = group as [Alarm];
    const label =
      group.length === 1
        ? `Alarm ${first.detector} at step ${count(first.step)}: ${first.message}`
        : `${group.length} alarms from step ${count(first.step)}`;
    const level = worstLevel(group);
    return h(
      "button",
      { class: `alarm-mark level-${level}`, attrs: { type: "button", "aria-label": label, title: label }, on: { click } },
      levelIcon(level),
      group.length > 1 ? h("span", "alarm-number", group.length) : null,
    );
  }

  timeline.onChange(draw);
  const sizes = new ResizeObserver(draw);
  sizes.observe(lane);
  signal.addEventListener("abort", () => sizes.disconnect());
  return {
    element: lane,
    show(list: Alarm[]): void {
      alarms = [...list].sort((a, b) => a.step - b.step);
      drawn = "";
      draw();
    },
  };
}
