/** The form of the playground: one game, and what a second one does differently. */

import type { Choice, GameChoice, PlaygroundOptions, Range } from "../data/types";
import { h, setText, type Child } from "../dom";
import { figure } from "../format";
import { openTipById } from "./explain";
import { Pad } from "./pad";

type NumberKey = "lr_g" | "lr_d" | "penalty_weight" | "d_moves" | "width" | "latent_dim" | "batch";

const NAMES: Record<NumberKey, string> = {
  lr_g: "Learning rate of G",
  lr_d: "Learning rate of D",
  penalty_weight: "Weight of the penalty",
  d_moves: "Moves of D per move of G",
  width: "Width of the networks",
  latent_dim: "Dimension of the latents",
  batch: "Batch size",
};

/** These vary by orders of magnitude, so their slider is logarithmic. */
const LOGARITHMIC = new Set<string>(["lr_g", "lr_d", "penalty_weight", "speed"]);

interface Control<T> {
  element: HTMLElement;
  get(): T;
  set(value: T): void;
}

interface NumberControl extends Control<number> {
  /** Have another label and other bounds, within which the value stays. */
  describe(label: string, range: Range): void;
}

let ids = 0;

function field(label: string, control: HTMLElement, ...more: Child[]): HTMLElement {
  ids += 1;
  control.id = `field-${ids}`;
  return h("div", "field", h("label", { attrs: { for: control.id } }, label), h("div", "field-control", control, ...more));
}

/** A slider with its value; logarithmic with two digits, or over integers. */
export function numberControl(name: string, label: string, first: Range): NumberControl {
  const logarithmic = LOGARITHMIC.has(name);
  let range = first;
  const slider = h("input", { attrs: { type: "range", step: logarithmic ? "any" : 1 } });
  const element = field(label, slider);
  const output = h("output", { class: "figures", attrs: { "aria-live": "off" } });
  const get = (): number => {
    const raw = Number(slider.value);
    const value = logarithmic ? Number((10 ** raw).toPrecision(2)) : Math.round(raw);
    return Math.min(range.max, Math.max(range.min, value));
  };
  const tell = (): void => {
    setText(output, figure(get(), 3));
    slider.setAttribute("aria-valuetext", figure(get(), 3));
  };
  slider.addEventListener("input", tell);
  const signOf = ({ key }: KeyboardEvent): number | undefined => ({ ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 })[key];
  slider.addEventListener("keydown", (event) => {
    const sign = signOf(event);
    if (!logarithmic || sign === undefined) return;
    event.preventDefault();
    slider.value = String(Number(slider.value) + sign * 0.1);
    slider.dispatchEvent(new Event("input", { bubbles: true }));
  });
  slider.addEventListener("keyup", (event) => {
    if (logarithmic && signOf(event) !== undefined) slider.dispatchEvent(new Event("change", { bubbles: true })); // as a browser does
  });
  const set = (value: number): void => {
    slider.value = String(logarithmic ? Math.log10(value) : value);
    tell();
  };
  const describe = (text: string, bounds: Range): void => {
    const value = get();
    range = bounds;
    [slider.min, slider.max] = [range.min, range.max].map((end) => String(logarithmic ? Math.log10(end) : end)) as [string, string];
    setText(element.firstElementChild as Element, text);
    set(value);
  };
  slider.after(output);
  describe(label, range);
  set(range.default);
  return { element, get, set, describe };
}

function whyButton(tip: () => string | null): HTMLElement {
  const button = h("button", { class: "quiet why", attrs: { type: "button", "aria-label": "Explanation of this choice" } }, "?");
  button.addEventListener("click", () => {
    const id = tip();
    if (id) void openTipById(id);
  });
  return button;
}

function menu(label: string, choices: Choice[], none: string | null): Control<string | null> {
  const select = h("select");
  if (none !== null) select.append(h("option", { attrs: { value: "" } }, none));
  select.append(...choices.map(({ kind, label: text }) => h("option", { attrs: { value: kind } }, text)));
  const tip = (): string | null => choices.find(({ kind }) => kind === select.value)?.tip ?? null;
  const why = whyButton(tip);
  const update = (): void => {
    why.style.visibility = tip() ? "visible" : "hidden";
  };
  select.addEventListener("change", update);
  update();
  return {
    element: field(label, select, why),
    get: () => select.value || null,
    set: (value) => {
      select.value = value ?? "";
      update();
    },
  };
}

function checks(choices: Choice[]): Control<string[]> {
  const boxes = choices.map(({ kind, label, tip }) => {
    const box = h("input", { attrs: { type: "checkbox", value: kind } });
    const why = tip ? whyButton(() => tip) : null;
    why?.setAttribute("aria-label", `Explanation of ${label}`);
    return { box, element: h("div", "check", h("label", {}, box, label), why) };
  });
  return {
    element: h("fieldset", "tricks", h("legend", {}, "Tricks"), boxes.map(({ element }) => element)),
    get: () => boxes.filter(({ box }) => box.checked).map(({ box }) => box.value),
    set: (kinds) => boxes.forEach(({ box }) => (box.checked = kinds.includes(box.value))),
  };
}

/** What the second game may do differently; the value is chosen in a control of its own. */
type Difference = "objective" | "penalty" | "trick" | NumberKey;

function differenceOf(game: GameChoice, other: GameChoice): Difference {
  if (game.tricks.join() !== other.tricks.join()) return "trick";
  const keys: Exclude<Difference, "trick">[] = ["objective", "penalty", ...(Object.keys(NAMES) as NumberKey[])];
  return keys.find((key) => game[key] !== other[key]) ?? "objective";
}

/** The name and the bounds of what goes with a penalty. */
function weightAbout({ penalties }: PlaygroundOptions, penalty: string | null): Choice["weight"] {
  return penalties.find(({ kind }) => kind === penalty)?.weight;
}

/** The name of a control within a sentence. */
export function lowered(text: string): string {
  return text.charAt(0).toLowerCase() + text.slice(1);
}

export class GameForm {
  readonly element = h("div", "game-form");
  readonly pad = new Pad();
  private readonly data: Control<string | null>;
  private readonly objective: Control<string | null>;
  private readonly penalty: Control<string | null>;
  private readonly tricks: Control<string[]>;
  private readonly numbers: Record<NumberKey, NumberControl>;
  private readonly otherWeight: NumberControl;
  private readonly seed: Control<number>;
  private readonly second = h("input", { attrs: { type: "checkbox", id: "second-game" } });
  private readonly differs = h("select", { attrs: { "aria-label": "The second game differs in" } });
  private readonly other: Partial<Record<Difference, Control<never>>> = {};
  private readonly otherPlace = h("div");
  private readonly drawing;

  constructor(private readonly options: PlaygroundOptions) {
    const { data, objectives, penalties, tricks, ranges } = options;
    this.data = menu("Data", data, null);
    this.objective = menu("Objective", objectives, null);
    this.penalty = menu("Penalty on D's gradient", penalties, "none");
    this.tricks = checks(tricks);
    const numbers = Object.keys(NAMES) as NumberKey[];
    this.numbers = Object.fromEntries(
      numbers.map((key) => [key, numberControl(key, NAMES[key], ranges[key] as Range)]),
    ) as Record<NumberKey, NumberControl>;
    this.otherWeight = this.numberOfSecond("penalty_weight");
    this.seed = numberControl("seed", "Seed", ranges["seed"] ?? { min: 0, max: 999_999, default: 0 });
    const clear = h("button", { class: "quiet", attrs: { type: "button" }, on: { click: () => this.pad.clear() } }, "Clear");
    this.drawing = h("div", "drawing", this.pad.canvas, h("div", "drawing-line", h("span", "muted", "Draw where real points are"), clear));
    this.addOthers();
    this.element.append(...this.layout());
    this.element.addEventListener("change", () => this.update());
    this.set(options.default);
  }

  private layout(): HTMLElement[] {
    const { lr_g, lr_d, penalty_weight, d_moves, width, latent_dim, batch } = this.numbers;
    return [
      this.data.element,
      this.drawing,
      this.objective.element,
      this.penalty.element,
      penalty_weight.element,
      lr_g.element,
      lr_d.element,
      h("details", "more-fields", h("summary", {}, "Tricks"), this.tricks.element),
      h("details", "more-fields", h("summary", {}, "Networks, batch and seed"), d_moves.element, width.element, latent_dim.element, batch.element, this.seed.element),
      h("div", "second", h("label", { attrs: { for: "second-game" } }, this.second, "A second game, which differs in"), this.differs, this.otherPlace),
    ];
  }

  private addOthers(): void {
    const { objectives, penalties, tricks } = this.options;
    const add = (key: Difference, text: string, control: Control<never>): void => {
      this.other[key] = control;
      this.differs.append(h("option", { attrs: { value: key } }, text));
    };
    add("objective", "the objective", menu("Objective of the second", objectives, null) as Control<never>);
    add("penalty", "the penalty", menu("Penalty of the second", penalties, "none") as Control<never>);
    add("trick", "a trick", menu("Trick that is switched", tricks, null) as Control<never>);
    for (const key of Object.keys(NAMES) as NumberKey[]) {
      const control: Control<number> = key === "penalty_weight" ? this.otherWeight : this.numberOfSecond(key);
      add(key, `the ${lowered(NAMES[key])}`, control as Control<never>);
    }
  }

  private numberOfSecond(key: NumberKey): NumberControl {
    return numberControl(key, `${NAMES[key]}, second`, this.options.ranges[key] as Range);
  }

  private set(game: GameChoice): void {
    this.data.set(game.data);
    this.objective.set(game.objective);
    this.penalty.set(game.penalty);
    this.tricks.set(game.tricks);
    this.describeWeight(game.penalty);
    for (const key of Object.keys(NAMES) as NumberKey[]) this.numbers[key].set(game[key]);
    this.lastPenalty = game.penalty; // its weight is that of the game, not the one to begin with
    this.update();
  }

  /** Choose what these games are made of: one, or two that differ in one thing. */
  choose([game, other]: GameChoice[], seed: number): void {
    if (!game) return;
    this.set(game);
    this.seed.set(seed);
    this.second.checked = other !== undefined;
    if (other) {
      const key = differenceOf(game, other);
      const isTrick = key === "trick";
      const [switched = ""] = game.tricks.concat(other.tricks).filter((kind) => game.tricks.includes(kind) !== other.tricks.includes(kind));
      this.differs.value = key;
      this.other[key]?.set((isTrick ? switched : other[key]) as never);
    }
    this.update();
  }

  private weightOf(penalty: string | null): number {
    return weightAbout(this.options, penalty)?.default ?? this.numbers.penalty_weight.get();
  }

  /** Name what goes with a penalty, in both games, and bound it. */
  private describeWeight(penalty: string | null): void {
    const about = weightAbout(this.options, penalty);
    if (!about) return;
    this.numbers.penalty_weight.describe(about.label, about);
    this.otherWeight.describe(`${about.label}, second`, about);
    setText(this.differs.querySelector("option[value=penalty_weight]") as Element, `the ${lowered(about.label)}`);
  }

  private lastPenalty: string | null = null;

  private update(): void {
    this.drawing.hidden = this.data.get() !== "density";
    if (!this.drawing.hidden) this.pad.draw();
    const penalty = this.penalty.get();
    if (penalty !== this.lastPenalty && penalty) {
      this.describeWeight(penalty);
      this.numbers.penalty_weight.set(this.weightOf(penalty));
    }
    this.lastPenalty = penalty;
    this.numbers.penalty_weight.element.hidden = penalty === null;
    this.differs.hidden = this.otherPlace.hidden = !this.second.checked;
    const control = this.other[this.differs.value as Difference];
    if (control && this.otherPlace.firstChild !== control.element) this.otherPlace.replaceChildren(control.element);
  }

  private first(): GameChoice {
    const numbers = Object.fromEntries(Object.entries(this.numbers).map(([key, control]) => [key, control.get()]));
    return {
      ...(numbers as Record<NumberKey, number>),
      data: this.data.get() ?? "",
      objective: this.objective.get() ?? "",
      penalty: this.penalty.get(),
      tricks: this.tricks.get(),
    };
  }

  private changed(game: GameChoice): GameChoice {
    const key = this.differs.value as Difference;
    const value = this.other[key]?.get() as unknown as string | number | null;
    if (key === "trick") {
      const has = game.tricks.includes(String(value));
      return { ...game, tricks: has ? game.tricks.filter((kind) => kind !== value) : [...game.tricks, String(value)] };
    }
    if (key === "penalty") return { ...game, penalty: value as string | null, penalty_weight: this.weightOf(value as string | null) };
    return { ...game, [key]: value };
  }

  /** The body of the command `start`; throws with a sentence if the drawing is missing. */
  body(): { games: GameChoice[]; seed: number; density: string | null } {
    const game = this.first();
    const drawn = game.data === "density";
    if (drawn && this.pad.isEmpty) throw new Error("Draw the density first: press and move the pointer in the square.");
    const games = this.second.checked ? [game, this.changed(game)] : [game];
    return { games, seed: this.seed.get(), density: drawn ? this.pad.encoded() : null };
  }
}
