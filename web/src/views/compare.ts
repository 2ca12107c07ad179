/** Several runs: curves overlaid, differences of the recipes, sample grids at a common step. */

import { Chart, type Curve } from "../charts/chart";
import { extent, measureCurve, seriesCurve } from "../charts/curves";
import { MAX_COMPARED, STROKES, type Stroke } from "../charts/palette";
import { sections } from "../charts/groups";
import { fetchRun, fetchSeries, gridAddress } from "../data/api";
import { indexAt, Timeline } from "../data/timeline";
import type { Buckets, Run, RunEvent } from "../data/types";
import { h, setText, svg, type Child } from "../dom";
import { count, heading, valueText } from "../format";
import { scrubber } from "../parts/scrubber";
import { stateMark } from "../parts/state";
import { headings, row, scrollTable } from "../parts/table";
import type { Context, View } from "./view";

/** Bands of more runs would hide each other. */
const MOST_BANDS = 3;

interface Compared {
  run: Run;
  stroke: Stroke;
  letter: string;
  series: Record<string, Buckets>;
  /** False while the curves are made of a part of the rows. */
  complete: boolean;
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
  const compared = await Promise.all(
    ids.map(async (id, index): Promise<Compared> => {
      const run = await fetchRun(id, signal);
      return { run, ...(await curvesOf(run, signal)), letter: String.fromCharCode(65 + index), stroke: STROKES[index] as Stroke };
    }),
  );
  const timeline = new Timeline();
  const board = chartsOf(compared, timeline, context);
  root.replaceChildren(
    h("header", "run-head", h("p", "crumbs", h("a", { attrs: { href: "#/" } }, "Runs")), h("h1", {}, `Compare ${compared.length} runs`), legend(compared)),
    h(
      "div",
      "run-columns",
      h(
        "aside",
        { class: "run-side", attrs: { "aria-label": "Samples and recipes" } },
        h("div", "run-sticky", grids(compared, timeline, signal), differenceTable(compared)),
      ),
      h("div", "run-charts", board.element),
    ),
  );
  board.draw();
  follow(compared, board.draw, context);
  store.events.watch(ids);
};

/** Fetch the curves of a run anew when it goes on, or when the server has read more of it. */
function follow(compared: Compared[], draw: () => void, { store, signal }: Context): void {
  const busy = new Set<Compared>();
  async function update(one: Compared): Promise<void> {
    if (busy.has(one) || signal.aborted) return;
    busy.add(one);
    try {
      Object.assign(one, await curvesOf(one.run, signal));
      draw();
    } catch {
      // The next event asks again.
    } finally {
      busy.delete(one);
    }
    later(one);
  }
  const later = (one: Compared): void => {
    if (!one.complete) window.setTimeout(() => void update(one), 1500);
  };
  store.events.on(
    "run",
    (event: RunEvent) => {
      const one = compared.find(({ run }) => run.id === event.id);
      if (one && event.rows) void update(one);
    },
    signal,
  );
  compared.forEach(later);
}

async function curvesOf(run: Run, signal: AbortSignal): Promise<Pick<Compared, "series" | "complete">> {
  const { series, complete } = await fetchSeries(run.id, { names: run.series, points: 512 }, signal);
  return { series, complete };
}

function key({ stroke, letter }: Compared): HTMLElement {
  const line = svg("line", { x1: 0, y1: 6, x2: 30, y2: 6, "stroke-width": 2.5, "stroke-dasharray": stroke.dash.join(" ") || null });
  line.style.stroke = `var(${stroke.color})`;
  return h("span", "run-key", svg("svg", { viewBox: "0 0 30 12", class: "key-line", "aria-hidden": "true" }, line), h("strong", {}, letter));
}

function legend(compared: Compared[]): HTMLElement {
  return h(
    "ul",
    "compare-legend",
    compared.map((one) => h("li", {}, key(one), h("a", { attrs: { href: `#/run/${one.run.id}` } }, one.run.name), stateMark(one.run.state))),
  );
}

function chartsOf(compared: Compared[], timeline: Timeline, { signal, onRepaint }: Context) {
  const names = [...new Set(compared.flatMap(({ run }) => run.series))];
  const charts: { chart: Chart; curves: () => Curve[] }[] = [];
  const add = (title: string, curves: () => Curve[], span?: readonly [number, number]): HTMLElement => {
    const chart = new Chart({ title, height: 180, span }, timeline, signal);
    charts.push({ chart, curves });
    return chart.element;
  };
  const parts: Child[] = sections(names).map((section) =>
    h(
      "section",
      "chart-section",
      h("h2", {}, section.title),
      h(
        "div",
        "charts",
        section.groups.flatMap((group) =>
          group.lines.map((line) => {
            const several = group.lines.length > 1;
            return add(several ? `${group.title}: ${line.label}` : group.title, () => seriesCurves(compared, line.name), group.span);
          }),
        ),
      ),
    ),
  );
  const measures = [...new Set(compared.flatMap(({ run }) => run.measures.flatMap((one) => Object.keys(one.measures))))];
  if (measures.length) {
    const panels = measures.map((name) => add(heading(name), () => measureCurves(compared, name)));
    parts.splice(1, 0, h("section", "chart-section", h("h2", {}, "Measures"), h("div", "charts", panels)));
  }
  const draw = (): void => {
    timeline.setExtent("rows", ...extent(compared.flatMap(({ series }) => Object.values(series))));
    for (const { chart, curves } of charts) chart.show(curves());
  };
  onRepaint(() => charts.forEach(({ chart }) => chart.repaint()));
  return { element: h("div", "board", parts), draw };
}

function seriesCurves(compared: Compared[], name: string): Curve[] {
  const spread = compared.length <= MOST_BANDS ? "std" : "none";
  return compared.map(({ series, stroke, letter }) => seriesCurve(stroke, letter, series[name], spread));
}

function measureCurves(compared: Compared[], name: string): Curve[] {
  return compared.map(({ run, stroke, letter }) => measureCurve(stroke, letter, name, run.measures));
}

function differenceTable(compared: Compared[]): HTMLElement {
  const found = differences(compared.map(({ run }) => run.recipe)).filter(([path]) => path !== "name" && path !== "about");
  const body = found.length
    ? scrollTable(
        "Differences of the recipes",
        "differences",
        headings("Key", ...compared.map(key)),
        h("tbody", {}, found.map(([path, values]) => row(path, ...values.map((value) => h("td", {}, valueText(value)))))),
      )
    : h("p", "muted", "The recipes are equal.");
  return h("section", "side-section", h("h2", {}, "What differs"), body);
}

/** The steps at which all runs have a sample grid, or if there are none, those of the first run. */
function commonSteps(grids: number[][]): number[] {
  const [first = [], ...others] = grids.filter((steps) => steps.length);
  const sets = others.map((steps) => new Set(steps));
  const common = first.filter((step) => sets.every((set) => set.has(step)));
  return common.length ? common : first;
}

function grids(compared: Compared[], timeline: Timeline, signal: AbortSignal): HTMLElement {
  const steps = commonSteps(compared.map(({ run }) => run.grids));
  const heading = h("h2", {}, "Samples");
  if (!steps.length) return h("section", "side-section", heading, h("p", "muted", "None of these runs has a sample grid."));
  const figures = compared.map((one) => ({ one, image: h("img", { class: "grid-image", attrs: { alt: "", decoding: "async" } }), text: h("span", "muted figures") }));
  const control = scrubber(timeline, () => steps, "Step of the sample grids", signal);
  const update = (): void => {
    const wanted = steps[indexAt(steps, timeline.step)] as number;
    for (const { one, image, text } of figures) {
      const step = one.run.grids[indexAt(one.run.grids, wanted)];
      if (step === undefined || image.dataset["step"] === String(step)) continue;
      image.dataset["step"] = String(step);
      image.src = gridAddress(one.run.id, step);
      image.alt = `Samples of run ${one.letter}, ${one.run.name}, at step ${count(step)}`;
      setText(text, `step ${count(step)}`);
    }
  };
  timeline.onChange(update);
  update();
  control.update();
  return h(
    "section",
    "side-section",
    heading,
    h("div", "grid-pair", figures.map(({ one, image, text }) => h("figure", "grid-frame", image, h("figcaption", {}, key(one), text)))),
    control.element,
  );
}
