/** The playground: choose a GAN on 2-D points, play it step by step or at speed, alone or two side by side. */

import { Chart } from "../charts/chart";
import { seriesCurve, type Curve } from "../charts/curves";
import { PLAYER } from "../charts/palette";
import { command, fetchPlayground, RequestError } from "../data/api";
import { RunSeries } from "../data/series";
import { Timeline } from "../data/timeline";
import type { GameChoice, GameStatus, PlaygroundAnswer, RunEvent } from "../data/types";
import { fill, h, setText } from "../dom";
import { count, duration, figure } from "../format";
import { gameView, planeLegend } from "../parts/game";
import { GameForm, lowered, numberControl } from "../parts/game_form";
import { isMissing, Unavailable } from "../parts/notice";
import { scrubber } from "../parts/scrubber";
import { chartToolbar } from "../parts/toolbar";
import type { Context, View } from "./view";

const LOSSES = ["d/adversarial", "g/adversarial"] as const;

const POINTS = 256;

/** What is said if an old address leads to a playground that the server doesn't have. */
const NO_PLAYGROUND = "This server was started without its playground. End it with Ctrl-C, and start it with: poise web DIR --playground";

export const playgroundView: View = async (context) => {
  context.title("Playground");
  const answer = await fetchPlayground(context.signal).catch((error: unknown) => {
    throw isMissing(error) ? new Unavailable("No playground here", NO_PLAYGROUND) : error;
  });
  new Playground(context, answer).open();
};

/** One of the games that are shown: its plane, its curves, and the run that they belong to. */
interface Side {
  run: string;
  heading: HTMLElement;
  link: HTMLAnchorElement;
  plane: ReturnType<typeof gameView>;
  chart: Chart;
  series: RunSeries | null;
  element: HTMLElement;
}

class Playground {
  private readonly form: GameForm;
  private readonly timeline = new Timeline();
  private readonly sides: Side[];
  private readonly stage = h("div", "playground-stage");
  /** What a screen reader is told of when it changes, beside the figures, which change all the time. */
  private readonly state = h("span", { attrs: { role: "status" } });
  private readonly figures = h("span");
  private readonly problem = h("p", { class: "problem", attrs: { role: "alert" } });
  private readonly kept = h("p", "muted game-kept");
  /** What stands below the games, once there are any. */
  private readonly below;
  private readonly buttons: Record<string, HTMLButtonElement>;
  private readonly speed;
  private readonly scrub;
  private game: GameStatus | null;
  /** What the game consists of that the form shows, and its speed. */
  private chosen = "";
  private chosenSpeed = NaN;
  /** Whether a game begins that has its speed from the slider, and whether the slider has been moved since. */
  private begins = false;
  private speedWaits = false;

  constructor(
    private readonly context: Context,
    private readonly answer: PlaygroundAnswer,
  ) {
    const { signal } = context;
    this.game = answer.game;
    this.form = new GameForm(answer.options);
    if (answer.density) this.form.pad.show(answer.density);
    this.sides = [0, 1].map((index) => this.side(index));
    this.scrub = scrubber(this.timeline, () => this.sides[0]?.plane.steps() ?? [], "Step of the frame", signal);
    this.below = h("div", { class: "playground-below", attrs: { hidden: true } }, planeLegend(), this.scrub.element, chartToolbar(this.timeline), this.kept);
    this.timeline.onZoom(() => this.sides.forEach((side) => load(side, "all")), signal);
    this.speed = numberControl("speed", "Steps per second, at most", answer.options.ranges["speed"] ?? { min: 1, max: 1000, default: 100 });
    this.speed.element.addEventListener("change", () => {
      if (this.game?.state === "running") void this.send("resume", { speed: this.speed.get() });
      else this.speedWaits = this.begins;
    });
    const button = (name: string, text: string, click: () => void, kind = "plain"): [string, HTMLButtonElement] => [
      name,
      h("button", { class: kind, attrs: { type: "button" }, on: { click } }, text),
    ];
    this.buttons = Object.fromEntries([
      button("start", "Start", () => this.start(), "primary"),
      button("pause", "Pause", () => void this.send("pause", {})),
      button("resume", "Resume", () => void this.send("resume", { speed: this.speed.get() })),
      button("d", "Step D", () => void this.send("step", { player: "d" })),
      button("g", "Step G", () => void this.send("step", { player: "g" })),
      button("both", "Step both", () => void this.send("step", { player: "both" })),
      button("reset", "Reset", () => void this.begin("reset", { speed: this.speed.get() })),
      button("stop", "Stop", () => void this.send("stop", {})),
    ]);
  }

  open(): void {
    const { store, root, signal, onRepaint } = this.context;
    const buttons = h("div", { class: "game-buttons", attrs: { role: "group", "aria-label": "Game" } }, Object.values(this.buttons));
    root.replaceChildren(
      h("header", "list-head", h("h1", {}, "Playground"), h("p", "game-status figures", this.state, this.figures)),
      h(
        "div",
        "playground-columns",
        h("section", { class: "playground-form", attrs: { "aria-label": "The game" } }, this.form.element, this.speed.element),
        h("section", { class: "playground-games", attrs: { "aria-label": "Play" } }, buttons, this.problem, this.stage, this.below),
      ),
    );
    store.events.on("playground", (game) => this.show(game), signal);
    store.events.on("run", (event) => this.hear(event), signal);
    store.events.on("reopened", () => void this.reload(), signal);
    onRepaint(() => {
      for (const { plane, chart } of this.sides) {
        plane.repaint();
        chart.repaint();
      }
      this.form.pad.draw();
    });
    store.events.watch(this.game?.runs ?? []); // the stream tells of a game that is begun, too
    this.show(this.game);
  }

  private side(index: number): Side {
    const { signal } = this.context;
    const heading = h("h2");
    const link = h("a", {}, "Open this run");
    const plane = gameView(`Game ${index === 0 ? "A" : "B"}`, this.timeline, signal);
    const chart = new Chart({ title: "Adversarial losses", height: 150 }, this.timeline, signal);
    const element = h("section", "playground-side", h("div", "section-line", heading, link), plane.element, chart.element);
    return { run: "", heading, link, plane, chart, series: null, element };
  }

  private async start(): Promise<void> {
    try {
      const body = { ...this.form.body(), speed: this.speed.get() };
      this.timeline.pin(null);
      await this.begin("start", body);
    } catch (error) {
      this.complain(error);
    }
  }

  private begin(name: "start" | "reset", body: object): Promise<void> {
    [this.begins, this.speedWaits] = [true, false];
    return this.send(name, body);
  }

  private async send(name: string, body: object): Promise<void> {
    this.problem.textContent = "";
    try {
      await command(name, this.answer.csrf, body);
    } catch (error) {
      this.complain(error);
    }
  }

  private complain(error: unknown): void {
    const isTold = error instanceof RequestError || (error instanceof Error && !(error instanceof TypeError));
    this.problem.textContent = isTold ? error.message : "The server cannot be reached.";
  }

  private async reload(): Promise<void> {
    const answer = await fetchPlayground(this.context.signal).catch(() => null);
    if (!answer) return;
    this.answer.csrf = answer.csrf; // another one, if the server was started anew
    if (answer.density && this.form.pad.isEmpty) this.form.pad.show(answer.density);
    this.show(answer.game);
  }

  /** Let the form show what a game consists of that was not begun here; what has been changed for the next one is left. */
  private choose({ games, seed, speed }: GameStatus): void {
    const chosen = JSON.stringify([games, seed]);
    if (chosen !== this.chosen) this.form.choose(games, seed);
    if (speed !== this.chosenSpeed) this.speed.set(speed);
    [this.chosen, this.chosenSpeed] = [chosen, speed];
  }

  private show(game: GameStatus | null): void {
    this.game = game;
    if (game) this.choose(game);
    const state = game?.state ?? "none";
    if (this.speedWaits && state === "running") void this.send("resume", { speed: this.speed.get() });
    this.begins = state === "starting";
    this.speedWaits &&= this.begins;
    const enabled: Record<string, boolean> = {
      start: state !== "starting",
      pause: state === "running",
      resume: state === "paused",
      d: state === "running" || state === "paused",
      g: state === "running" || state === "paused",
      both: state === "running" || state === "paused",
      reset: game !== null && state !== "starting",
      stop: state === "running" || state === "paused" || state === "starting",
    };
    for (const [name, button] of Object.entries(this.buttons)) button.disabled = !enabled[name];
    setText(this.state, game ? game.state + (game.message ? `: ${game.message}` : "") : "");
    setText(this.figures, game ? figuresText(game) : "");
    if (!game || !game.runs.length) {
      if (!game) fill(this.stage, introduction());
      return;
    }
    for (const side of this.sides.slice(game.runs.length)) Object.assign(side, { run: "", series: null }); // a second game of before
    game.runs.forEach((run, index) => this.assign(index, run, game));
    const shown = this.sides.slice(0, game.runs.length).map(({ element }) => element);
    if (this.stage.children.length !== shown.length || this.stage.firstElementChild !== shown[0]) fill(this.stage, shown);
    this.stage.classList.toggle("two", shown.length === 2);
    this.context.store.events.watch(game.runs);
    this.below.hidden = false;
    setText(this.kept, `Kept in ${this.context.store.directory}/playground until the next start or reset; rename the folder to keep it for longer.`);
  }

  private assign(index: number, run: string, game: GameStatus): void {
    const side = this.sides[index];
    if (!side || side.run === run) return;
    side.run = run;
    const source = { run: () => ({ id: run, series: [...LOSSES] }), part: () => this.timeline.part };
    const series = new RunSeries(source, POINTS, this.context.signal, () => {
      if (side.series === series) this.drawCurves(side);
    });
    side.series = series;
    side.link.href = `#/run/${run}`;
    setText(side.heading, describe(game.games, index, this.answer));
    this.timeline.clear();
    side.chart.show(this.curves(side));
    if (this.context.store.runs.get(run)?.frames) side.plane.open(run);
    if (this.context.store.runs.get(run)) load(side, "new");
  }

  private hear(event: RunEvent): void {
    const side = this.sides.find((one) => one.run === event.id);
    if (!side) return;
    if (event.frames !== null) side.plane.open(event.id);
    if (event.rows) load(side, "new");
  }

  private drawCurves(side: Side): void {
    this.timeline.setExtent("rows", 0, Math.max(...this.sides.map(({ series }) => series?.last ?? 0)));
    side.chart.show(this.curves(side));
  }

  private curves(side: Side): Curve[] {
    return LOSSES.map((name) => {
      const player = name[0] as "d" | "g";
      return seriesCurve(PLAYER[player], player.toUpperCase(), side.series?.of[name]);
    });
  }
}

/** Fetch rows of a game; if that fails, the next event asks again. */
function load({ series }: Side, what: "new" | "all"): void {
  void series?.load(what).catch(() => undefined);
}

/** What stands beside the state of a game: how far it is. */
function figuresText(game: GameStatus): string {
  const step = Math.max(0, ...game.step);
  const text = `step ${count(step)} of at most ${count(game.max_steps)}, ${duration(game.seconds)} of ${duration(game.max_seconds)}`;
  return game.message ? ` (${text})` : `, ${text}`;
}

/** What a game is, or of the second of two, what it does differently. */
function describe(games: GameChoice[], index: number, { options }: PlaygroundAnswer): string {
  const game = games[index];
  const first = games[0];
  if (!game || !first) return "";
  const label = (list: { kind: string; label: string }[], kind: string | null): string => list.find((one) => one.kind === kind)?.label ?? "none";
  const weight = lowered(options.penalties.find(({ kind }) => kind === game.penalty)?.weight?.label ?? "weight");
  const told: Partial<Record<keyof GameChoice, string>> = {
    objective: label(options.objectives, game.objective),
    penalty: `penalty: ${label(options.penalties, game.penalty)}`,
    tricks: game.tricks.length ? game.tricks.map((kind) => label(options.tricks, kind)).join(", ") : "no tricks",
    lr_g: `learning rate of G ${figure(game.lr_g)}`,
    lr_d: `learning rate of D ${figure(game.lr_d)}`,
    penalty_weight: `${weight} ${figure(game.penalty_weight)}`,
    d_moves: `${game.d_moves} moves of D`,
    width: `width ${game.width}`,
    latent_dim: `latents of ${game.latent_dim}`,
    batch: `batch of ${game.batch}`,
  };
  const other = games[index === 0 ? 1 : 0];
  if (!other) return label(options.objectives, game.objective);
  const keys = (Object.keys(told) as (keyof GameChoice)[]).filter((key) => JSON.stringify(game[key]) !== JSON.stringify(other[key]));
  const difference = keys.filter((key) => key !== "penalty_weight" || keys.length === 1).map((key) => told[key]);
  return `${index === 0 ? "A" : "B"}: ${difference.join(", ") || told.objective}`;
}

function introduction(): HTMLElement {
  return h(
    "div",
    "empty",
    h("h2", {}, "Two players, one plane"),
    h("p", {}, "G moves its points so that D takes them for real. D learns where the real points are. Choose what they play, then press Start."),
    h("p", {}, "To see what a tip does, let a second game differ in one switch: minimax beside non-saturating, say, from the same seed."),
  );
}
