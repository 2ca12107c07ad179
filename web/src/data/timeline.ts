/** The step that all charts, grids and frames of a view show, and the steps that are zoomed to. */

export type Range = readonly [number, number];

export class Timeline {
  private first = 0;
  private last = 1;
  private pinned: number | null = null;
  private hovered: number | null = null;
  private zoomed: Range | null = null;
  private readonly sources = new Map<string, Range>();
  private readonly listeners = new Set<() => void>();
  private pending = false;

  /** The step that is shown: that under the pointer, else that of the scrubber, else the newest; the nearest one that the charts show. */
  get step(): number {
    const step = within(this.hovered ?? this.pinned ?? this.last, [this.first, this.last]); // a run may go back
    return within(step, this.range);
  }

  /** The step that was chosen; null if the newest one is shown. */
  get chosen(): number | null {
    return this.pinned;
  }

  /** True if what is shown moves on with the run: no step was chosen, and the charts show the newest. */
  get follows(): boolean {
    return this.pinned === null && this.range[1] >= this.last;
  }

  /** The first and the last step of the charts. */
  get range(): Range {
    return this.zoomed ?? [this.first, this.last];
  }

  /** The steps that are zoomed to; null if all are shown. */
  get part(): Range | null {
    return this.zoomed;
  }

  /** Call `listener` after every change, until `signal` is aborted. */
  onChange(listener: () => void, signal?: AbortSignal): void {
    this.listeners.add(listener);
    signal?.addEventListener("abort", () => this.listeners.delete(listener));
  }

  /** Call `listener` after every change of the steps that are zoomed to, until `signal` is aborted. */
  onZoom(listener: () => void, signal?: AbortSignal): void {
    let before = String(this.zoomed);
    this.onChange(() => {
      const now = String(this.zoomed);
      if (now === before) return;
      before = now;
      listener();
    }, signal);
  }

  /**
   * The first and the last step of one source, such as the rows or the frames, if it has any; the timeline spans all sources.
   * If a run has gone back to before the steps that are zoomed to, all are shown.
   */
  setExtent(source: string, first: number | undefined, last: number | undefined): void {
    if (first === undefined || last === undefined) this.sources.delete(source);
    else this.sources.set(source, [first, last]);
    const spans = [...this.sources.values()];
    this.first = spans.length ? Math.min(...spans.map((span) => span[0])) : 0;
    this.last = Math.max(this.first + 1, ...spans.map((span) => span[1]));
    if (this.zoomed && (this.zoomed[0] >= this.last || this.zoomed[1] <= this.first)) this.zoomed = null;
    this.tell();
  }

  /** Forget all sources: another run is shown. */
  clear(): void {
    this.sources.clear();
    [this.first, this.last, this.pinned, this.hovered, this.zoomed] = [0, 1, null, null, null];
    this.tell();
  }

  /** Choose a step, or with null the newest one from now on. If it is not among the steps that are zoomed to, all are shown. */
  pin(step: number | null): void {
    this.pinned = step === null || step >= this.last ? null : Math.max(this.first, step);
    this.hovered = null;
    if (step !== null && step !== within(step, this.range)) this.zoomed = null;
    this.tell();
  }

  /** Show the newest step from now on, and all steps if it is not among those that are zoomed to. */
  follow(): void {
    this.pin(null);
    if (!this.follows) this.zoom(null);
  }

  hover(step: number | null): void {
    if (step === this.hovered) return;
    this.hovered = step;
    this.tell();
  }

  /** Show these steps, which are rounded to whole ones; fewer than two are refused. Null for all. */
  zoom(range: Range | null): void {
    const all: Range = [this.first, this.last];
    const part = range && ([within(Math.round(range[0]), all), within(Math.round(range[1]), all)] as const);
    if (part && part[1] - part[0] < 2) return;
    this.zoomed = part && String(part) !== String(all) ? part : null;
    this.tell();
  }

  /** Zoom about the step that is shown: by 0.5 to half of the steps that are shown, by 2 to twice as many. */
  zoomBy(factor: number): void {
    const [from, to] = this.range;
    const [low, high] = factor < 1 ? [from, to] : [this.first, this.last];
    const half = ((to - from) * factor) / 2;
    const centre = within(this.step, [low + half, Math.max(high - half, low + half)]);
    this.zoom([centre - half, centre + half]);
  }

  /** Listeners are called once per frame of the screen, however much changes. */
  private tell(): void {
    if (this.pending) return;
    this.pending = true;
    requestAnimationFrame(() => {
      this.pending = false;
      for (const listener of this.listeners) listener();
    });
  }
}

/** The number of a range that is nearest to a number. */
function within(value: number, [low, high]: Range): number {
  return Math.min(high, Math.max(low, value));
}

/** The index of the last element of an ascending list that is at most `value`; 0 if none is. */
export function indexAt(sorted: ArrayLike<number>, value: number): number {
  let low = 0;
  let high = sorted.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if ((sorted[middle] as number) <= value) low = middle;
    else high = middle - 1;
  }
  return low;
}
