/** Which series of a run share a chart, under which title, and in which section. A pure function of their names. */

import { heading } from "../format";
import { PLAYER, STROKES, type Stroke } from "./palette";

export interface Line extends Stroke {
  /** The name of the series, such as `d/adversarial`. */
  name: string;
  label: string;
}

export interface Group {
  title: string;
  /** One sentence for those who meet the quantity for the first time. */
  about: string;
  lines: Line[];
  /** The fixed range of the y axis, if the quantity has one. */
  span?: readonly [number, number];
}

export interface Section {
  title: string;
  groups: Group[];
}

interface Plan {
  section: number;
  title: string;
  about: string;
  quantities: Record<string, string>;
  span?: readonly [number, number];
}

const SECTIONS = ["Adversarial game", "Loss terms", "Gradients and updates", "Samples", "Speed", "Other series"];
const [GAME, LOSS_TERMS, GRADIENTS, SAMPLES, SPEED, OTHER] = [0, 1, 2, 3, 4, 5];

const PLANS: Plan[] = [
  {
    section: GAME,
    title: "Adversarial losses",
    about: "The objective of each player without additional terms",
    quantities: { adversarial: "" },
  },
  {
    section: GAME,
    title: "Scores",
    about: "D's mean score of real and of generated samples",
    quantities: { real_score: "real", fake_score: "generated", real_energy: "energy, real", fake_energy: "energy, generated" },
  },
  {
    section: GAME,
    title: "Accuracy of D",
    about: "The share of samples that D puts on the correct side of its threshold",
    quantities: { real_accuracy: "real", fake_accuracy: "generated", accuracy: "mean" },
    span: [0, 1],
  },
  {
    section: GAME,
    title: "Distance seen by D",
    about: "D's own estimate of the distance between the distributions",
    quantities: { wasserstein: "Wasserstein", divergence: "divergence" },
  },
  {
    section: GRADIENTS,
    title: "Gradient norms",
    about: "The norm of each player's gradient, before clipping",
    quantities: { grad_norm: "" },
  },
  {
    section: GRADIENTS,
    title: "Updates",
    about: "The norm of the last change of each player's weights",
    quantities: { update: "" },
  },
  {
    section: SAMPLES,
    title: "Diversity",
    about: "The distance between samples, divided by that between real ones",
    quantities: { diversity: "samples", feature_diversity: "in D's features" },
  },
];

const SAMPLE_QUANTITIES = new Set(["shades", "newness", "nearest_ratio", "train_ratio", "label_effect"]);
const PENALTIES = new Set(["r1", "r2"]);

const isPlayer = (side: string): side is "d" | "g" => side === "d" || side === "g";

function split(name: string): [string, string] {
  const cut = name.indexOf("/");
  return cut < 0 ? ["", name] : [name.slice(0, cut), name.slice(cut + 1)];
}

function strokes(lines: Line[]): Line[] {
  return lines.map((line, index) => ({ ...line, ...(STROKES[index % STROKES.length] as Stroke) }));
}

function planned(plan: Plan, names: Set<string>): Group | null {
  const lines: Line[] = [];
  for (const [quantity, word] of Object.entries(plan.quantities)) {
    for (const side of ["d", "g"] as const) {
      const name = `${side}/${quantity}`;
      if (!names.delete(name)) continue;
      lines.push({ name, label: word || side.toUpperCase(), ...PLAYER[side] });
    }
  }
  const bySide = Object.values(plan.quantities)[0] === "";
  const { title, about, span } = plan;
  return lines.length ? { title, about, lines: bySide ? lines : strokes(lines), ...(span ? { span } : {}) } : null;
}

function key(name: string): { section: number; title: string } {
  const [side, quantity] = split(name);
  if (side === "time") return { section: SPEED, title: heading(quantity) };
  if (!isPlayer(side)) return { section: OTHER, title: name };
  if (PENALTIES.has(quantity)) return { section: LOSS_TERMS, title: "Gradient penalties" };
  return { section: SAMPLE_QUANTITIES.has(quantity) ? SAMPLES : LOSS_TERMS, title: heading(quantity) };
}

function label(name: string): string {
  const [side, quantity] = split(name);
  if (PENALTIES.has(quantity)) return quantity.toUpperCase();
  return isPlayer(side) ? side.toUpperCase() : heading(quantity);
}

/** The sections of charts for series of these names; each name is in exactly one chart. */
export function sections(names: string[]): Section[] {
  const left = new Set(names);
  const groups: Group[][] = SECTIONS.map(() => []);
  for (const plan of PLANS) {
    const group = planned(plan, left);
    if (group) groups[plan.section]?.push(group);
  }
  for (const name of [...left].sort()) {
    const { section, title } = key(name);
    const found = groups[section]?.find((group) => group.title === title);
    const [side] = split(name);
    const stroke = found ? PLAYER.g : isPlayer(side) ? PLAYER[side] : PLAYER.d;
    const line: Line = { name, label: label(name), ...stroke };
    if (found) found.lines = strokes([...found.lines, line]);
    else groups[section]?.push({ title, about: "", lines: [line] });
  }
  return SECTIONS.map((title, index) => ({ title, groups: groups[index] ?? [] })).filter((one) => one.groups.length > 0);
}
