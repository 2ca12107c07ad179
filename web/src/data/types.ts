/** The JSON of the server's routes. Everything named `value` may be null where a number is not finite. */

export type State = "running" | "done" | "stopped" | "failed" | "interrupted" | "damaged";
export type Value = number | null;

export interface Card {
  id: string;
  name: string;
  state: State;
  /** Seconds since 1970. */
  changed: number;
  recipe: string | null;
  step: number | null;
  steps: number | null;
  data: string | null;
  shape: number[] | null;
  best: { measure: string; value: Value; step: number } | null;
  alarms: number;
  reason: string | null;
  seconds: number | null;
  images_per_second: number | null;
  last_grid: number | null;
  last_grid_tag: string | null;
  frames: boolean;
  study: string | null;
}

export interface StudyCard {
  id: string;
  name: string;
  state: State;
  done: number;
  planned: number;
  changed: number;
  reason: string | null;
}

export interface LadderCard {
  id: string;
  name: string;
  changed: number;
  reason: string | null;
  /** That of the ladder, as it is now. */
  tag: string;
}

export interface Overview {
  format: number;
  directory: string;
  version: string;
  playground: boolean;
  complete: boolean;
  runs: Card[];
  studies: StudyCard[];
  ladders: LadderCard[];
}

export interface Evidence {
  says: string;
  text: string;
  source: string;
}

/** A published verdict on a tip, in the words of `poise tips`. */
export interface Verdict {
  name: string;
  measure: string;
  verdict: string;
  text?: string;
  stale?: string;
}

/** An effect in the report of a study. */
export interface Effect {
  tip: string;
  name: string;
  data: string;
  measure: string;
  effect: Value;
  low: Value;
  high: Value;
  /** Effect, low and high in parts of the mean without the tip, where that makes sense. */
  relative: [Value, Value, Value] | null;
  seeds: number;
  failures: number;
  verdict: string;
}

export interface Tip {
  id: string;
  name: string;
  summary: string;
  switch?: string;
  source: string[];
  evidence: Evidence[];
  verdicts: Verdict[];
  /** The place in the recipe that the tip is about, such as `tricks[0]`. */
  path?: string;
}

export interface Alarm {
  step: number;
  detector: string;
  level: "note" | "warning" | "failure";
  message: string;
  advice: string;
  tip: string | null;
  /** The last step at which the run is taken to be sound; null in the files of earlier versions. */
  since: number | null;
}

/** A change of the recipe that a run has made on the advice of an alarm. */
export interface Change {
  /** The step to which the run returned. */
  step: number;
  detector: string;
  /** The arguments of `--set`; none if the change before was taken back. */
  set: string[];
}

export interface Measured {
  step: number;
  measures: Record<string, Value>;
  floor: Record<string, Value>;
  n: number;
  features: string;
}

export interface Reference {
  value: number;
  meaning: string;
}

export interface FrameRange {
  first: number;
  last: number;
  count: number;
}

/** One run: a card whose `recipe`, `alarms` and `frames` are told in full. */
export interface Run extends Omit<Card, "recipe" | "alarms" | "frames" | "last_grid" | "last_grid_tag"> {
  info: Record<string, unknown>;
  changes: Change[];
  /** Dotted paths, such as `optimizer.d.lr`, and their values. */
  recipe: Record<string, unknown>;
  toml: string;
  tips: Tip[];
  series: string[];
  references: Record<string, Reference>;
  measures: Measured[];
  alarms: Alarm[];
  /** The lines of the files of the run: the measures and the alarms that are told may be fewer. */
  lines: { measures: number; alarms: number };
  grids: number[];
  /** Of each sample grid: another one if its file is another one. */
  grid_tags: string[];
  frames: FrameRange | null;
  /** Another one whenever anything of this is, except for what each row or frame changes. */
  tag: string;
}

export interface Buckets {
  step: number[];
  mean: Value[];
  std: Value[];
  min: Value[];
  max: Value[];
  bad: number[];
  /** What was known from this step on is replaced by these buckets. */
  since: number;
  /** The step of the first row of the first bucket, which `step` has the middle of; null without buckets. */
  begin: number | null;
}

export interface SeriesAnswer {
  first: number | null;
  last: number | null;
  rows: number;
  complete: boolean;
  /** Another one after rows were deleted or replaced, as when the run went back to an earlier step. */
  generation: string;
  series: Record<string, Buckets>;
}

export interface OverviewEvent {
  runs: Card[];
  removed: string[];
  studies: StudyCard[];
  ladders: LadderCard[];
}

export interface RunEvent {
  id: string;
  state: State;
  step: number | null;
  rows: [number, number] | null;
  frames: number | null;
  /** That of the run, as it is now. */
  tag: string;
}

export interface StudyRun {
  run: string | null;
  base: string;
  arm: string | null;
  seed: number;
  state: string;
  values: Record<string, Value>;
}

export interface Study {
  id: string;
  name: string;
  state: State;
  done: number;
  planned: number;
  report: { tips: Effect[] };
  bases: { name: string; summary: string; measures: { name: string; better: string }[] }[];
  arms: string[];
  runs: StudyRun[];
}

export interface Rung {
  run: string;
  name: string;
  recipe: string;
  values: Record<string, Value>;
  images: string[];
  /** Of each image: another one if its file is another one. */
  image_tags: string[];
}

export interface Ladder {
  id: string;
  name: string;
  /** Another one whenever anything of this is. */
  tag: string;
  rungs: Rung[];
}

export interface Choice {
  kind: string;
  label: string;
  tip: string | null;
  /** Of a penalty: the name and the bounds of its weight, and that to begin with. */
  weight?: Range & { label: string };
}

export interface Range {
  min: number;
  max: number;
  default: number;
}

/** What one of the two games of the playground is made of. */
export interface GameChoice {
  data: string;
  objective: string;
  penalty: string | null;
  penalty_weight: number;
  tricks: string[];
  lr_g: number;
  lr_d: number;
  d_moves: number;
  width: number;
  latent_dim: number;
  batch: number;
}

export interface GameStatus {
  state: "starting" | "running" | "paused" | "ended";
  runs: string[];
  step: number[];
  max_steps: number;
  max_seconds: number;
  seconds: number;
  seed: number;
  speed: number;
  games: GameChoice[];
  message: string | null;
}

export interface PlaygroundOptions {
  data: Choice[];
  objectives: Choice[];
  penalties: Choice[];
  tricks: Choice[];
  ranges: Record<string, Range>;
  default: GameChoice;
}

export interface PlaygroundAnswer {
  csrf: string;
  options: PlaygroundOptions;
  game: GameStatus | null;
  /** The density of the game, as the pad encodes it; null if none was drawn. */
  density: string | null;
}
