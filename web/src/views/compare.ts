/** Several runs: curves overlaid, differences of the recipes, sample grids at a common step. */

import { Chart } from "../charts/chart";
import { measureCurve, seriesCurve, type Curve } from "../charts/curves";
import { MAX_COMPARED, STROKES, type Stroke } from "../charts/palette";
import { sections, type Group, type Line } from "../charts/groups";
import { fetchRun, gridAt } from "../data/api";
import { isBehind } from "../data/behind";
import { RunSeries } from "../data/series";
import { indexAt, Timeline } from "../data/timeline";
import type { Run, RunEvent } from "../data/types";
import { fill, h, refill, setText, svg, type Child } from "../dom";
import { count, counted, heading, valueText } from "../format";
import { departure, isMissing } from "../parts/notice";
import { scrubber } from "../parts/scrubber";
import { stateMark } from "../parts/state";
import { headings, row, scrollTable } from "../parts/table";
import { chartToolbar } from "../parts/toolbar";
import type { Context, View } from "./view";

const POINTS = 512;

/** Bands of more runs would hide each other. */
const MOST_BANDS = 3;

interface Compared {
  run: Run;
  stroke: Stroke;
  letter: string;
  series: RunSeries;
  /** Whether the run has been moved or removed. */
  isGone: () => boolean;
}

/** A part of the view, and how it shows what the runs are now. */
interface Part {
  element: HTMLElement;
  show(): void;
}

/** The paths whose values differ, with the value in each run; runs that have no such path have undefined. */
function differences(recipes: Record<string, unknown>[]): [string, unknown[]][] {
  const paths = [...new Set(recipes.flatMap((recipe) => Object.keys(recipe)))];
  return paths
    .map((path): [string, unknown[]] => [path, recipes.map((recipe) => recipe[path])])
    .filter(([, values]) => new Set(values.map((value) => JSON.stringify(value) ?? "")).size > 1);
}

export const compareView: View = async (context, parameter) => {
  const { signal, title, root, store } = context;
  title("Compare");
  const ids = parameter.split(",").slice(0, MAX_COMPARED);
  const timeline = new Timeline();
  const parts: Part[] = [];
  const show = oncePerFrame(() => parts.forEach((part) => part.show()), signal);
  const found = await Promise.allSettled(ids.map((id) => fetchRun(id, signal)));
  const failures = found.filter((one) => one.status === "rejected").map((one) => one.reason as unknown);
  if (failures.length === found.length || !failures.every(isMissing)) throw failures[0];
  const compared = found.flatMap((one, index) => (one.status === "fulfilled" ? make(one.value, index, timeline, context, show) : []));
  const loadAll = (): Promise<unknown> => Promise.all(compared.map(({ series }) => series.load("all")));
  await loadAll();
  const [head, samples, differing, board] = [legend(compared), grids(compared, timeline, signal), differenceTable(compared), charts(compared, timeline, context)];
  parts.push(head, samples, differing, board);
  root.replaceChildren(
    h("header", "run-head", h("p", "crumbs", h("a", { attrs: { href: "#/" } }, "Runs")), h("h1", {}, `Compare ${counted(compared.length, "run")}`), missing(found), head.element),
    h(
      "div",
      "run-columns",
      h(
        "aside",
        { class: "run-side", attrs: { "aria-label": "Samples and recipes" } },
        h("div", "run-sticky", samples.element, differing.element),
      ),
      h("div", "run-charts", chartToolbar(timeline), board.element),
    ),
  );
  parts.forEach((part) => part.show());
  timeline.onZoom(() => void loadAll().catch(() => undefined), signal);
  for (const one of compared) follow(one, show, context);
  store.onChange(() => head.show(), signal);
  store.events.watch(ids);
};

/** Which of the runs are not there. */
function missing(found: PromiseSettledResult<Run>[]): Child {
  const letters = found.flatMap((one, index) => (one.status === "rejected" ? letterOf(index) : []));
  if (!letters.length) return null;
  const text = letters.length === 1 ? `Run ${letters[0]} is not there: it was` : `Runs ${letters.join(", ")} are not there: they were`;
  return h("p", "reason", `${text} moved or removed.`);
}

const letterOf = (index: number): string => String.fromCharCode(65 + index);

function make(run: Run, index: number, timeline: Timeline, { signal, store }: Context, show: () => void): Compared {
  const series = new RunSeries({ run: () => one.run, part: () => timeline.part }, POINTS, signal, show);
  const one: Compared = { run, series, isGone: departure(store.runs, run.id), letter: letterOf(index), stroke: STROKES[index] as Stroke };
  return one;
}

/** Call `draw` in the next frame of the screen, once however often this is called until then. */
function oncePerFrame(draw: () => void, signal: AbortSignal): () => void {
  let pending = false;
  return () => {
    if (pending) return;
    pending = true;
    requestAnimationFrame(() => {
      pending = false;
      if (!signal.aborted) draw();
    });
  };
}

/** Fetch what is new of a run when it goes on; one request at a time. */
function follow(one: Compared, show: () => void, { store, signal }: Context): void {
  let newest: RunEvent | null = null;
  let busy = false;
  async function update(): Promise<void> {
    if (busy) return;
    busy = true;
    try {
      while (newest && !signal.aborted) {
        const event: RunEvent = newest;
        newest = null;
        if (isBehind(one.run, event)) {
          one.run = await fetchRun(one.run.id, signal);
          show();
        }
        await one.series.load("new");
      }
    } catch {
      // The next event asks again.
    } finally {
      busy = false;
    }
  }
  store.events.on(
    "run",
    (event) => {
      if (event.id !== one.run.id) return;
      newest = event;
      void update();
    },
    signal,
  );
}

function key({ stroke, letter }: Compared): HTMLElement {
  const line = svg("line", { x1: 0, y1: 6, x2: 30, y2: 6, "stroke-width": 2.5, "stroke-dasharray": stroke.dash.join(" ") || null });
  line.style.stroke = `var(${stroke.color})`;
  return h("span", "run-key", svg("svg", { viewBox: "0 0 30 12", class: "key-line", "aria-hidden": "true" }, line), h("strong", {}, letter));
}

/** A part of the view that is built anew only if what it is made of has changed; `put` replaces its children. */
function part(element: HTMLElement, source: () => unknown, build: () => Child, put = refill): Part {
  let built = "";
  const show = (): void => {
    const now = JSON.stringify(source());
    if (now === built) return;
    built = now;
    put(element, build());
  };
  return { element, show };
}

function legend(compared: Compared[]): Part {
  const entry = (one: Compared): HTMLElement => h("li", {}, key(one), h("a", { attrs: { href: `#/run/${one.run.id}` } }, one.run.name), one.isGone() ? h("span", "reason", "moved or removed") : stateMark(one.run.state));
  return part(h("ul", "compare-legend"), () => compared.map(({ run, isGone }) => [run.state, isGone()]), () => compared.map(entry));
}

/** The curves of all runs, in one chart per series and per measure that one of them has. */
function charts(compared: Compared[], timeline: Timeline, { signal, onRepaint }: Context): Part {
  let shown: { chart: Chart; curves: () => Curve[] }[] = [];
  /** Aborted when the charts are replaced by others. */
  let charted = new AbortController();
  const names = (): string[] => [...new Set(compared.flatMap(({ run }) => run.series))];
  const measures = (): string[] => [...new Set(compared.flatMap(({ run }) => run.measures.flatMap((one) => Object.keys(one.measures))))];
  const add = (title: string, curves: () => Curve[], span?: readonly [number, number]): HTMLElement => {
    const chart = new Chart({ title, height: 180, span }, timeline, AbortSignal.any([signal, charted.signal]));
    shown.push({ chart, curves });
    return chart.element;
  };
  const line = (group: Group, { name, label }: Line): HTMLElement =>
    add(group.lines.length > 1 ? `${group.title}: ${label}` : group.title, () => seriesCurves(compared, name), group.span);
  const section = (title: string, panels: HTMLElement[]): HTMLElement => h("section", "chart-section", h("h2", {}, title), h("div", "charts", panels));
  const build = (): Child => {
    charted.abort();
    charted = new AbortController();
    shown = [];
    const parts = sections(names()).map(({ title, groups }) => section(title, groups.flatMap((group) => group.lines.map((one) => line(group, one)))));
    const panels = measures().map((name) => add(heading(name), () => measureCurves(compared, name)));
    if (panels.length) parts.splice(1, 0, section("Measures", panels));
    return parts.length ? parts : h("p", "muted", "Curves appear with the first row of one of the runs.");
  };
  const board = part(h("div", "board"), () => [names(), measures()], build, fill); // a chart is more than its elements
  onRepaint(() => shown.forEach(({ chart }) => chart.repaint()));
  const show = (): void => {
    board.show();
    for (const { series, letter } of compared) timeline.setExtent(letter, series.first, series.last);
    for (const { chart, curves } of shown) chart.show(curves());
  };
  return { element: board.element, show };
}

function seriesCurves(compared: Compared[], name: string): Curve[] {
  const spread = compared.length <= MOST_BANDS ? "std" : "none";
  return compared.map(({ series, stroke, letter }) => seriesCurve(stroke, letter, series.of[name], spread));
}

function measureCurves(compared: Compared[], name: string): Curve[] {
  return compared.map(({ run, stroke, letter }) => measureCurve(stroke, letter, name, run.measures));
}

function differenceTable(compared: Compared[]): Part {
  const recipes = (): Record<string, unknown>[] => compared.map(({ run }) => run.recipe);
  const build = (): Child => {
    const found = differences(recipes()).filter(([path]) => path !== "name" && path !== "about");
    const body = found.length
      ? scrollTable(
          "Differences of the recipes",
          "differences",
          headings("Key", ...compared.map(key)),
          h("tbody", {}, found.map(([path, values]) => row(path, ...values.map((value) => h("td", {}, valueText(value)))))),
        )
      : h("p", "muted", "The recipes are equal.");
    return [h("h2", {}, "What differs"), body];
  };
  return part(h("section", "side-section"), recipes, build);
}

/** The steps at which all runs have a sample grid, or if there are none, those of the first run. */
function commonSteps(grids: number[][]): number[] {
  const [first = [], ...others] = grids.filter((steps) => steps.length);
  const sets = others.map((steps) => new Set(steps));
  const common = first.filter((step) => sets.every((set) => set.has(step)));
  return common.length ? common : first;
}

function grids(compared: Compared[], timeline: Timeline, signal: AbortSignal): Part {
  let steps: number[] = [];
  const figures = compared.map((one) => ({ one, image: h("img", { class: "grid-image", attrs: { alt: "", decoding: "async" } }), text: h("span", "muted figures") }));
  const control = scrubber(timeline, () => steps, "Step of the sample grids", signal);
  const pair = h("div", "grid-pair", figures.map(({ one, image, text }) => h("figure", "grid-frame", image, h("figcaption", {}, key(one), text))));
  const none = h("p", "muted", "None of these runs has a sample grid.");
  const update = (): void => {
    const wanted = steps[indexAt(steps, timeline.step)];
    for (const { one, image, text } of figures) {
      const index = indexAt(one.run.grids, wanted ?? 0);
      const step = one.run.grids[index];
      if (wanted === undefined || step === undefined || image.getAttribute("src") === gridAt(one.run, index)) continue;
      image.src = gridAt(one.run, index);
      image.alt = `Samples of run ${one.letter}, ${one.run.name}, at step ${count(step)}`;
      setText(text, `step ${count(step)}`);
    }
  };
  timeline.onChange(update);
  const show = (): void => {
    steps = commonSteps(compared.map(({ run }) => run.grids));
    timeline.setExtent("grids", steps[0], steps.at(-1));
    pair.hidden = steps.length === 0;
    none.hidden = steps.length > 0;
    control.update();
    update();
  };
  return { element: h("section", "side-section", h("h2", {}, "Samples"), none, pair, control.element), show };
}
