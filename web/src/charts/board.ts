/** All charts of one run: series in their groups, and the measures, over one timeline. */

import { RunSeries } from "../data/series";
import type { Timeline } from "../data/timeline";
import type { Run } from "../data/types";
import { h } from "../dom";
import { count, figure, heading } from "../format";
import { Chart, type ChartOptions } from "./chart";
import { measureCurve, seriesCurve, type Spread } from "./curves";
import { sections, type Group } from "./groups";
import type { ReferenceLine } from "./overlay";
import { PLAYER } from "./palette";

const POINTS = 512;

/** The reference lines of a group, with one label for lines at the same height. */
function referencesOf(group: Group, run: Run): ReferenceLine[] {
  const lines = new Map<number, string[]>();
  for (const { name, label } of group.lines) {
    const reference = run.references[name];
    if (!reference) continue;
    const labels = lines.get(reference.value) ?? [];
    lines.set(reference.value, labels);
    if (!labels.includes(label)) labels.push(label);
  }
  const several = lines.size > 1;
  return [...lines].map(([value, labels]) => ({ value, label: `${several ? labels.join(", ") : "equilibrium"} ${figure(value, 3)}` }));
}

/** What a chart shows, and what its reference line means. */
function aboutOf(group: Group, run: Run): string {
  const meanings = group.lines.map(({ name }) => run.references[name]?.meaning).filter((meaning) => meaning !== undefined);
  return [group.about, meanings[0] ? `equilibrium: ${meanings[0]}` : ""].filter(Boolean).join("; ");
}

/** What the chart of a measure shows, and the line of real samples: as many as of the last measurement. */
function describeMeasure(name: string, run: Run): { about: string; references: ReferenceLine[] } {
  const last = run.measures.findLast((one) => name in one.measures);
  const floor = last?.floor[name];
  const references = floor == null ? [] : [{ value: floor, label: `real data ${figure(floor, 3)}` }];
  const [told, all] = [run.measures.length, run.lines.measures];
  const part = all > told ? `there are more measurements than the ${count(told)} that are shown` : "";
  const about = [last?.n ? `Of ${last.n} samples; the line is what as many real samples reach` : "", part].filter(Boolean).join("; ");
  return { about, references };
}

export class Board {
  readonly element = h("div", "board");
  /** What stands below the axis of the first chart. */
  lane: HTMLElement | null = null;
  spread: Spread = "range";
  private charts: { chart: Chart; group: Group }[] = [];
  private measureCharts = new Map<string, Chart>();
  private run: Run | null = null;
  private built = "";
  /** Aborted when the charts are replaced by others. */
  private charted = new AbortController();
  private readonly series: RunSeries;

  constructor(
    private readonly timeline: Timeline,
    private readonly signal: AbortSignal,
  ) {
    this.series = new RunSeries({ run: () => this.run, part: () => timeline.part }, POINTS, signal, () => {
      timeline.setExtent("rows", this.series.first, this.series.last);
      this.draw();
    });
    timeline.onZoom(() => void this.load("all").catch(() => undefined), signal);
  }

  /** Build the charts for the series and measures that the run has now, and draw them. */
  show(run: Run): void {
    this.run = run;
    const names = run.series.join();
    const measures = [...new Set(run.measures.flatMap((one) => Object.keys(one.measures)))];
    const wanted = `${names};${measures.join()}`;
    if (wanted !== this.built) {
      this.built = wanted;
      this.build(run, measures);
    }
    this.draw();
  }

  /** Fetch rows; see `RunSeries.load`. */
  load(what: "new" | "all"): Promise<void> {
    return this.series.load(what);
  }

  draw(): void {
    const { run } = this;
    if (!run) return;
    const { alarms } = run;
    for (const { chart, group } of this.charts) {
      chart.describe(aboutOf(group, run), referencesOf(group, run));
      chart.show(group.lines.map((line) => seriesCurve(line, line.label, this.series.of[line.name], this.spread)), alarms);
    }
    for (const [name, chart] of this.measureCharts) {
      const { about, references } = describeMeasure(name, run);
      chart.describe(about, references);
      chart.show([measureCurve(PLAYER.d, "", name, run.measures)], alarms);
    }
  }

  repaint(): void {
    for (const { chart } of this.charts) chart.repaint();
    for (const chart of this.measureCharts.values()) chart.repaint();
  }

  private build(run: Run, measures: string[]): void {
    this.charted.abort();
    this.charted = new AbortController();
    this.charts = [];
    this.measureCharts = new Map();
    const parts = sections(run.series).map(({ title, groups }, index) =>
      section(title, groups.map((group, place) => this.addChart(group, index === 0 && place === 0))),
    );
    if (measures.length) parts.splice(1, 0, section("Measures", measures.map((name) => this.addMeasure(name))));
    const none = h("p", "muted", "Curves appear with the first row, which is written after the first logging interval.");
    this.element.replaceChildren(...(parts.length ? parts : [none]));
  }

  private addChart(group: Group, isFirst: boolean): HTMLElement {
    const chart = this.chart({ title: group.title, span: group.span, height: isFirst ? 280 : 180 });
    this.charts.push({ chart, group });
    if (!isFirst) return chart.element;
    chart.element.classList.add("chart-wide");
    if (this.lane) chart.element.append(this.lane);
    return chart.element;
  }

  private addMeasure(name: string): HTMLElement {
    const chart = this.chart({ title: heading(name), height: 180 });
    this.measureCharts.set(name, chart);
    return chart.element;
  }

  private chart(options: ChartOptions): Chart {
    return new Chart(options, this.timeline, AbortSignal.any([this.signal, this.charted.signal]));
  }
}

function section(title: string, charts: HTMLElement[]): HTMLElement {
  return h("section", "chart-section", h("h2", {}, title), h("div", "charts", charts));
}
