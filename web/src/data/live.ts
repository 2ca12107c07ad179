/**
 * The stream of server-sent events: what is new, for the runs that are shown. It reconnects by itself.
 *
 * Browsers allow six connections to a server, all windows together, so a window that is hidden holds no stream.
 */

import type { GameStatus, OverviewEvent, RunEvent } from "./types";

interface Events {
  overview: OverviewEvent;
  run: RunEvent;
  playground: GameStatus | null;
  /** A stream is open. It tells what changes from now on, and all of the runs that it is about; the overview before was missed. */
  opened: null;
  /** The same, after events may have been missed: the server was lost, or the window was hidden. */
  reopened: null;
  /** Whether the server can be reached. */
  connected: boolean;
}

type Listener<K extends keyof Events> = (data: Events[K]) => void;

const FIRST_RETRY = 500;
const LAST_RETRY = 5000;

export class Live {
  private source: EventSource | null = null;
  private readonly listeners = new Map<keyof Events, Set<Listener<never>>>();
  private runs: string[] = [];
  private wait = FIRST_RETRY;
  private timer = 0;
  private lost = false;

  constructor() {
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) this.rest();
      else if (!this.source) this.open();
    });
  }

  /** Listen to one kind of event until `signal` is aborted. */
  on<K extends keyof Events>(kind: K, listener: Listener<K>, signal?: AbortSignal): void {
    const set = this.listeners.get(kind) ?? new Set();
    this.listeners.set(kind, set);
    set.add(listener as Listener<never>);
    signal?.addEventListener("abort", () => set.delete(listener as Listener<never>));
  }

  /** Be told about these runs besides the overview; replaces those of before. */
  watch(runs: string[]): void {
    const wanted = [...new Set(runs)].sort();
    if (this.source && wanted.join() === this.runs.join()) return;
    this.runs = wanted;
    if (!document.hidden) this.open();
  }

  private emit<K extends keyof Events>(kind: K, data: Events[K]): void {
    for (const listener of this.listeners.get(kind) ?? []) (listener as Listener<K>)(data);
  }

  private open(): void {
    window.clearTimeout(this.timer);
    this.source?.close();
    const source = new EventSource(`/api/events${this.runs.length ? `?runs=${this.runs.join(",")}` : ""}`);
    this.source = source;
    source.addEventListener("open", () => {
      this.wait = FIRST_RETRY;
      const wasLost = this.lost;
      this.lost = false;
      this.emit("connected", true);
      this.emit("opened", null);
      if (wasLost) this.emit("reopened", null);
    });
    for (const kind of ["overview", "run", "playground"] as const) {
      source.addEventListener(kind, (event) => this.emit(kind, JSON.parse((event as MessageEvent<string>).data)));
    }
    source.addEventListener("error", () => this.retry(source));
  }

  /** End the stream until the window is visible again. */
  private rest(): void {
    window.clearTimeout(this.timer);
    if (!this.source) return;
    this.source.close();
    this.source = null;
    this.lost = true;
  }

  /** The browser's own way to reconnect gives up at an error status, so the page does it. */
  private retry(source: EventSource): void {
    if (source !== this.source) return;
    source.close();
    this.lost = true;
    this.emit("connected", false);
    this.timer = window.setTimeout(() => this.open(), this.wait);
    this.wait = Math.min(LAST_RETRY, this.wait * 2);
  }
}
