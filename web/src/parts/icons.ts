/** Small drawings. Each state and level has a shape of its own, so that none depends on colour. */

import { svg } from "../dom";
import type { Alarm, State } from "../data/types";

function icon(...shapes: SVGElement[]): SVGElement {
  return svg("svg", { viewBox: "0 0 16 16", class: "icon", "aria-hidden": "true", focusable: "false" }, ...shapes);
}

const stroke = { fill: "none", stroke: "currentColor", "stroke-width": 2, "stroke-linecap": "round", "stroke-linejoin": "round" };
const line = (d: string): SVGElement => svg("path", { d, ...stroke });
const solid = (d: string): SVGElement => svg("path", { d, fill: "currentColor" });

const STATES: Record<State, () => SVGElement> = {
  running: () => icon(svg("circle", { cx: 8, cy: 8, r: 4, fill: "currentColor", class: "pulse" })),
  done: () => icon(line("M3 8.5l3.2 3.2L13 4.8")),
  stopped: () => icon(svg("rect", { x: 4, y: 4, width: 8, height: 8, rx: 1, fill: "currentColor" })),
  failed: () => icon(line("M4 4l8 8M12 4l-8 8")),
  interrupted: () => icon(line("M5.5 4v8M10.5 4v8")),
  damaged: () => icon(line("M8 3v6M8 12.5v.2")),
};

export const stateIcon = (state: State): SVGElement => (STATES[state] ?? STATES.damaged)();

const LEVELS: Record<Alarm["level"], () => SVGElement> = {
  failure: () => icon(solid("M8 1l7 7-7 7-7-7z")),
  warning: () => icon(solid("M8 1.5L15.5 14.5H.5z")),
  note: () => icon(svg("circle", { cx: 8, cy: 8, r: 5.5, fill: "currentColor" })),
};

export const levelIcon = (level: Alarm["level"]): SVGElement => (LEVELS[level] ?? LEVELS.note)();

export function worstLevel(alarms: Alarm[]): Alarm["level"] {
  for (const level of ["failure", "warning"] as const) if (alarms.some((alarm) => alarm.level === level)) return level;
  return "note";
}

const VERDICTS: Record<string, () => SVGElement> = {
  helps: () => icon(solid("M8 2.5L14 13H2z")),
  harms: () => icon(solid("M8 13.5L2 3h12z")),
  "no effect seen": () => icon(svg("circle", { cx: 8, cy: 8, r: 5, ...stroke })),
  unstable: () => icon(line("M4 4l8 8M12 4l-8 8")),
  "too few seeds": () => icon(line("M3 8h10")),
};

export const verdictIcon = (verdict: string): SVGElement => (VERDICTS[verdict] ?? VERDICTS["too few seeds"]!)();

export const playIcon = (): SVGElement => icon(solid("M4 2.5v11l9-5.5z"));
export const pauseIcon = (): SVGElement => icon(line("M5.5 3.5v9M10.5 3.5v9"));
export const closeIcon = (): SVGElement => icon(line("M4 4l8 8M12 4l-8 8"));
export const themeIcon = (): SVGElement =>
  icon(svg("circle", { cx: 8, cy: 8, r: 5.5, ...stroke }), solid("M8 2.5a5.5 5.5 0 0 1 0 11z"));
