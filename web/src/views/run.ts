/** One run: its curves, its sample grids or its game, its alarms, its recipe. */

import { Board } from "../charts/board";
import type { Spread } from "../charts/curves";
import { alarmLane } from "../charts/marks";
import { fetchRun, RequestError } from "../data/api";
import { isBehind } from "../data/behind";
import { Timeline } from "../data/timeline";
import type { Alarm, Change, Run, RunEvent } from "../data/types";
import { fill, h, place, refill, setText, type Child } from "../dom";
import { count, duration, figure, rate, shapeText, words } from "../format";
import { openAlarms } from "../parts/explain";
import { filmstrip } from "../parts/filmstrip";
import { gameView, planeLegend } from "../parts/game";
import { levelIcon } from "../parts/icons";
import { informationTables, recipeTables, tipChips, tomlText } from "../parts/recipe";
import { departure, goneNote } from "../parts/notice";
import { scrubber } from "../parts/scrubber";
import { progress, stateMark } from "../parts/state";
import { chartToolbar } from "../parts/toolbar";
import type { Context, View } from "./view";

export const runView: View = async (context, id) => {
  const run = await fetchRun(id, context.signal);
  context.title(run.name);
  await new RunPage(context, run).open();
};

/** What G starts from: a G that translates gets samples of the data. */
function startsOf(run: Run): string {
  if (run.recipe["latent.kind"] !== "source") return "latents";
  return run.recipe["network.g.kind"] === "linear_map" ? "source vectors" : "source images";
}

class RunPage {
  private readonly timeline = new Timeline();
  private readonly board: Board;
  private readonly lane;
  private readonly film;
  private readonly game;
  private readonly gameScrubber;
  private readonly head = h("header", "run-head");
  private readonly alarmTally = h("span", "tally figures");
  private readonly alarmList = h("ul", { class: "alarms", attrs: { "aria-label": "Alarms" } });
  private readonly alarmRows = new Map<string, HTMLElement>();
  private readonly noAlarm = h("p", "muted", "No alarm. The monitor looks at losses, scores, gradients and samples.");
  private readonly changes = h("div", "side-section");
  private readonly alarms = h("section", "side-section", h("h2", {}, "Alarms", this.alarmTally), this.alarmList, this.noAlarm, this.changes);
  private readonly samples = h("section", "side-section");
  private readonly details = h("div", "run-details");
  private readonly isGone;
  private fetching = false;
  private again = false;

  constructor(
    private readonly context: Context,
    private run: Run,
  ) {
    const { signal } = context;
    this.isGone = departure(context.store.runs, run.id);
    this.board = new Board(this.timeline, signal);
    this.lane = alarmLane(this.timeline, openAlarms, signal);
    this.board.lane = this.lane.element;
    this.film = filmstrip(run, startsOf(run), this.timeline, signal);
    this.game = gameView("Generated 2-D points and the score of D around them", this.timeline, signal);
    this.gameScrubber = scrubber(this.timeline, () => this.game.steps(), "Step of the frame", signal);
    context.onRepaint(() => {
      this.board.repaint();
      this.game.repaint();
    });
  }

  async open(): Promise<void> {
    const { store, root, signal } = this.context;
    const charts = h("div", "run-charts", this.toolbar(), this.board.element);
    const side = h("aside", { class: "run-side", attrs: { "aria-label": "Samples and alarms" } }, h("div", "run-sticky", this.samples, this.alarms));
    root.replaceChildren(this.head, h("div", "run-columns", side, charts), this.details);
    this.show();
    this.showDetails();
    store.events.on("run", (event) => this.hear(event), signal);
    store.events.on("reopened", () => void this.refresh(), signal);
    store.events.watch([this.run.id]);
    store.onChange(() => this.showHead(), signal);
    await this.board.load("all").catch((error: unknown) => {
      if (error instanceof RequestError) this.board.element.prepend(h("p", "reason", `The curves could not be read: ${error.message}`));
    });
  }

  private show(): void {
    this.showHead();
    this.showSamples();
    this.showAlarms();
    this.board.show(this.run);
    this.lane.show(this.run.alarms);
  }

  private showHead(): void {
    const { run } = this;
    const card = this.context.store.runs.get(run.id);
    const { best } = card ?? run;
    const speed = card?.images_per_second ?? run.images_per_second;
    const seconds = card?.seconds ?? run.seconds;
    const facts: Child[] = [
      fact("recipe", String(run.recipe["name"] ?? "–")),
      fact("data", [run.data, shapeText(run.shape)].filter(Boolean).join(", ") || "–"),
      fact("images per second", speed ? rate(speed) : "–"),
      fact("time", duration(seconds)),
      best ? fact(`best ${words(best.measure)}`, `${figure(best.value)} at ${count(best.step)}`) : null,
    ];
    refill(
      this.head,
      h("p", "crumbs", this.origin()),
      h("h1", {}, run.name),
      h("div", "run-line", this.isGone() ? goneNote("run") : stateMark(card?.state ?? run.state), progress(card?.step ?? run.step, card?.steps ?? run.steps, run.name)),
      h("dl", "run-facts", facts),
      run.reason ? h("p", "reason", run.reason) : null,
    );
  }

  /** The way back: to the list, or to the study that the run belongs to. */
  private origin(): Child {
    const { study } = this.run;
    if (study === null) return h("a", { attrs: { href: "#/" } }, "Runs");
    const name = this.context.store.studies.get(study)?.name ?? "study";
    return [h("a", { attrs: { href: "#/studies" } }, "Studies"), " / ", h("a", { attrs: { href: `#/study/${study}` } }, name)];
  }

  private showSamples(): void {
    const { run } = this;
    const parts: Child[] = [];
    if (run.frames) {
      parts.push(h("h2", {}, "2-D points"), this.game.element, planeLegend(), this.gameScrubber.element);
      this.game.open(run.id);
    }
    if (run.grids.length && !run.frames) parts.push(h("h2", {}, "Samples"), this.film.element);
    if (run.grids.length && run.frames) parts.push(h("details", {}, h("summary", {}, "Sample grids"), this.film.element));
    if (!parts.length) parts.push(h("h2", {}, "Samples"), h("p", "muted", "The first sample grid is not written yet."));
    const kind = `${Boolean(run.frames)},${run.grids.length > 0}`;
    if (this.samples.dataset["kind"] !== kind) {
      this.samples.dataset["kind"] = kind;
      fill(this.samples, parts);
    }
    this.film.show(run);
  }

  private showAlarms(): void {
    const { alarms, changes, lines } = this.run;
    this.alarmTally.hidden = this.alarmList.hidden = alarms.length === 0;
    this.noAlarm.hidden = alarms.length > 0;
    const all = Math.max(lines.alarms, alarms.length);
    setText(this.alarmTally, all > alarms.length ? `${count(alarms.length)} of ${count(all)}` : count(all));
    place(this.alarmList, alarms.map((alarm, index) => this.alarmRow(alarm, index)).reverse());
    if (alarms.length > 6) this.alarmList.tabIndex = 0;
    else this.alarmList.removeAttribute("tabindex");
    this.changes.hidden = changes.length === 0;
    refill(this.changes, changes.length ? [h("h2", {}, "Changes of the recipe"), h("ul", "changes", changes.map(changeRow))] : null);
  }

  /** The row of an alarm, which is made once. */
  private alarmRow(alarm: Alarm, index: number): HTMLElement {
    const key = JSON.stringify([index, alarm]);
    const known = this.alarmRows.get(key) ?? this.makeAlarmRow(alarm);
    this.alarmRows.set(key, known);
    return known;
  }

  private makeAlarmRow(alarm: Alarm): HTMLElement {
    const open = (): void => {
      this.timeline.pin(alarm.step);
      openAlarms([alarm]);
    };
    return h(
      "li",
      {},
      h(
        "button",
        { class: `alarm-row level-${alarm.level}`, attrs: { type: "button" }, on: { click: open } },
        levelIcon(alarm.level),
        h("span", {}, alarm.message),
        h("span", "figures muted", count(alarm.step)),
      ),
    );
  }

  private showDetails(): void {
    fill(
      this.details,
      h("section", "details-section", h("h2", {}, "Recipe"), tipChips(this.run), recipeTables(this.run), tomlText(this.run)),
      h("section", "details-section", h("h2", {}, "Run"), informationTables(this.run)),
    );
  }

  private toolbar(): HTMLElement {
    const { timeline, board } = this;
    const choice = h("select", { attrs: { id: "spread" } });
    for (const [value, text] of [["range", "least to most"], ["std", "standard deviation"], ["none", "none"]] as const) {
      choice.append(h("option", { attrs: { value } }, text));
    }
    choice.addEventListener("change", () => {
      board.spread = choice.value as Spread;
      board.draw();
    });
    return chartToolbar(timeline, h("label", { attrs: { for: "spread" } }, "Band"), choice);
  }

  /** Something of this run is new: fetch what changed. */
  private hear(event: RunEvent): void {
    const { run } = this;
    if (event.id !== run.id) return;
    if (event.frames !== null && run.frames) void this.game.refresh();
    if (event.rows || run.series.length) void this.board.load("new").catch(() => undefined);
    run.step = event.step;
    if (isBehind(run, event)) void this.refresh();
    else this.showHead();
  }

  private async refresh(): Promise<void> {
    this.again = true;
    if (this.fetching) return;
    this.fetching = true;
    try {
      while (this.again) {
        this.again = false;
        const { toml } = this.run;
        this.run = await fetchRun(this.run.id, this.context.signal);
        this.show();
        if (this.run.toml !== toml) this.showDetails();
        await this.board.load("new");
      }
    } catch {
      // The banner says that the server is gone; the next event or reconnection tries again.
    } finally {
      this.fetching = false;
    }
  }
}

function changeRow(change: Change): HTMLElement {
  const detector = words(change.detector);
  if (!change.set.length) return h("li", {}, `the change for ${detector} was taken back at step ${count(change.step)}`);
  const options = change.set.flatMap((option, index) => [index ? " and " : null, h("code", {}, option)]);
  return h("li", {}, options, h("span", "muted", ` from step ${count(change.step)}, on the advice of ${detector}`));
}

function fact(name: string, value: string): HTMLElement {
  return h("div", {}, h("dt", {}, name), h("dd", "figures", value));
}
