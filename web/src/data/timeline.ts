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

  /** The step that is shown: that under the pointer, else that of the scrubber, else the newest. */
  get step(): number {
    return this.hovered ?? this.pinned ?? this.last;
  }

  /** True unless a step was chosen: what is shown moves on with the run. */
  get follows(): boolean {
    return this.pinned === null;
  }

  /** The first and the last step of the charts. */
  get range(): Range {
    return this.zoomed ?? [this.first, this.last];
  }

  get isZoomed(): boolean {
    return this.zoomed !== null;
  }

  get extent(): Range {
    return [this.first, this.last];
  }

  /** Call `listener` after every change, until `signal` is aborted. */
  onChange(listener: () => void, signal?: AbortSignal): void {
    this.listeners.add(listener);
    signal?.addEventListener("abort", () => this.listeners.delete(listener));
  }

  /** The first and the last step of one source, such as the rows or the frames, if it has any; the timeline spans all sources. */
  setExtent(source: string, first: number | undefined, last: number | undefined): void {
    if (first === undefined || last === undefined) this.sources.delete(source);
    else this.sources.set(source, [first, last]);
    const spans = [...this.sources.values()];
    this.first = spans.length ? Math.min(...spans.map((span) => span[0])) : 0;
    this.last = Math.max(this.first + 1, ...spans.map((span) => span[1]));
    this.tell();
  }

  /** Forget all sources: another run is shown. */
  clear(): void {
    this.sources.clear();
    [this.first, this.last, this.pinned, this.hovered, this.zoomed] = [0, 1, null, null, null];
    this.tell();
  }

  /** Choose a step, or with null the newest one from now on. */
  pin(step: number | null): void {
    this.pinned = step === null || step >= this.last ? null : Math.max(this.first, step);
    this.hovered = null;
    this.tell();
  }

  hover(step: number | null): void {
    if (step === this.hovered) return;
    this.hovered = step;
    this.tell();
  }

  zoom(range: Range | null): void {
    if (range && range[1] - range[0] < 2) return;
    const full = range && range[0] <= this.first && range[1] >= this.last;
    this.zoomed = range && !full ? [Math.max(range[0], this.first), Math.min(range[1], this.last)] : null;
    this.tell();
  }

  /** Zoom about the step that is shown: by 0.5 to half as many steps, by 2 to twice as many. */
  zoomBy(factor: number): void {
    const [from, to] = this.range;
    const half = ((to - from) * factor) / 2;
    const centre = Math.min(Math.max(this.step, this.first + half), Math.max(this.last - half, this.first + half));
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
