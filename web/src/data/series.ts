/** The curves of one run as far as they were fetched; what is new is fetched and added to them. */

import { fetchSeries } from "./api";
import type { Range } from "./timeline";
import type { Buckets, Run } from "./types";

export const EMPTY: Buckets = { step: [], mean: [], std: [], min: [], max: [], bad: [], since: 0, begin: null };

/** The time between two looks at a run whose rows the server is still reading. */
const READING_TIME = 1500;

/** The buckets with newer ones: `more` has all that begins at `more.since` or later, such as the last bucket with more rows than before. */
export function appended(old: Buckets, more: Buckets): Buckets {
  const found = old.step.findIndex((step) => step >= more.since);
  const kept = found < 0 ? old.step.length : found;
  return {
    step: [...old.step.slice(0, kept), ...more.step],
    mean: [...old.mean.slice(0, kept), ...more.mean],
    std: [...old.std.slice(0, kept), ...more.std],
    min: [...old.min.slice(0, kept), ...more.min],
    max: [...old.max.slice(0, kept), ...more.max],
    bad: [...old.bad.filter((step) => step < more.since), ...more.bad],
    since: old.since,
    begin: kept ? (old.begin ?? more.begin) : more.begin,
  };
}

/** What the curves are of. */
export interface Source {
  /** The run as it is known now; null before it is known. */
  run(): Pick<Run, "id" | "series"> | null;
  /** The steps that are zoomed to, of which alone there are curves then; null for all. */
  part(): Range | null;
}

export class RunSeries {
  /** The curves by name. */
  of: Record<string, Buckets> = {};
  /** The steps of the first and the last row, which lie beyond the middles of the first and the last bucket. */
  first: number | undefined = undefined;
  last: number | undefined = undefined;
  /** What the rows that are here belong to, all of them up to the last one or of the part that was asked for; null without them. */
  private held: { names: string; generation: string } | null = null;
  /** False while the curves are made of a part of the rows. */
  private complete = true;
  private loading = false;
  private again: "new" | "all" | null = null;
  private timer = 0;

  /** `points` is the number of buckets to ask for; `show` is called when the curves have changed. */
  constructor(
    private readonly source: Source,
    private readonly points: number,
    private readonly signal: AbortSignal,
    private readonly show: () => void,
  ) {}

  /**
   * Fetch rows: only those after the last one if all before it are here and have not been replaced, or all of the steps that are shown.
   * One request at a time. While the server is reading the rows, those that are new change nothing, and all are fetched now and then.
   */
  async load(what: "new" | "all"): Promise<void> {
    if (what === "new" && !this.complete) return;
    this.again = this.again === "all" ? "all" : what;
    if (this.loading) return;
    this.loading = true;
    window.clearTimeout(this.timer);
    try {
      while (this.again && !this.signal.aborted) {
        const all = this.again === "all" || !this.complete || this.isFull() || this.held?.names !== this.source.run()?.series.join();
        this.again = null;
        await this.fetch(all);
      }
    } finally {
      this.loading = false;
      if (!this.complete && !this.signal.aborted) this.timer = window.setTimeout(() => void this.load("all").catch(() => undefined), READING_TIME);
    }
  }

  private isFull(): boolean {
    return Object.values(this.of).some((buckets) => buckets.step.length > 2 * this.points);
  }

  private async fetch(all: boolean): Promise<void> {
    const run = this.source.run();
    if (!run) return;
    const part = this.source.part();
    if (all) this.held = null;
    const steps = !all ? { from: (this.last ?? -1) + 1 } : part ? { from: part[0], to: part[1] } : {};
    const answer = await fetchSeries(run.id, { names: run.series, points: this.points, ...steps }, this.signal);
    this.complete = answer.complete;
    if (all) {
      this.of = answer.series;
      this.held = { names: run.series.join(), generation: answer.generation };
    } else if (answer.generation !== this.held?.generation) {
      this.again = "all";
      return;
    } else if (!part) { // otherwise new rows come after the steps that are shown
      for (const [name, buckets] of Object.entries(answer.series)) this.of[name] = appended(this.of[name] ?? EMPTY, buckets);
    }
    this.first = answer.first ?? undefined;
    this.last = answer.last ?? undefined;
    this.show();
  }
}
