/** Colours of series: those of Okabe and Ito, which colour-blind people can tell apart. Each also has a dash of its own. */

export interface Stroke {
  /** The name of a custom property of the style sheet, which differs between light and dark. */
  color: string;
  dash: number[];
}

/** What the two players, real and fake samples look like everywhere. */
export const PLAYER: Record<"d" | "g", Stroke> = {
  d: { color: "--blue", dash: [] },
  g: { color: "--vermilion", dash: [7, 4] },
};

/** Curves in one chart, in their order: runs that are compared, or series that belong to no player. */
export const STROKES: readonly Stroke[] = [
  PLAYER.d,
  PLAYER.g,
  { color: "--green", dash: [2, 3] },
  { color: "--purple", dash: [9, 3, 2, 3] },
  { color: "--orange", dash: [12, 4] },
  { color: "--sky", dash: [4, 2] },
];

export const MAX_COMPARED = STROKES.length;

/** The value of a colour now, as the style sheet has it. */
export function color(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** The same colour, transparent: `alpha` from 0 to 1. Colours of the style sheet are #rrggbb. */
export function faded(name: string, alpha: number): string {
  const byte = Math.round(alpha * 255);
  return color(name) + byte.toString(16).padStart(2, "0");
}
