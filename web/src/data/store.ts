/** The overview: all runs, studies and ladders as the server last told them. */

import { fetchOverview } from "./api";
import type { Live } from "./live";
import type { Card, LadderCard, Overview, OverviewEvent, StudyCard } from "./types";

export class Store {
  directory = "";
  playground = false;
  /** False if there are more folders than the server searches, so that runs may be missing. */
  complete = true;
  /** Whether the server has answered; until then nothing is known. */
  loaded = false;
  readonly runs = new Map<string, Card>();
  readonly studies = new Map<string, StudyCard>();
  readonly ladders = new Map<string, LadderCard>();
  private readonly listeners = new Set<() => void>();
  /** The events since the last request for the overview was sent; null if it is answered. */
  private meanwhile: OverviewEvent[] | null = null;

  constructor(private readonly live: Live) {
    live.on("overview", (event) => {
      this.meanwhile?.push(event);
      this.apply(event);
      this.tell();
    });
    live.on("opened", () => void this.load().catch(() => undefined));
  }

  /** Fetch everything anew. */
  async load(): Promise<void> {
    const events: OverviewEvent[] = [];
    this.meanwhile = events;
    const overview: Overview = await fetchOverview();
    if (this.meanwhile !== events) return; // a later call gets a newer answer
    this.meanwhile = null;
    this.directory = overview.directory;
    this.playground = overview.playground;
    this.complete = overview.complete;
    this.loaded = true;
    this.runs.clear();
    this.studies.clear();
    this.ladders.clear();
    this.merge(overview.runs, overview.studies, overview.ladders);
    events.forEach((event) => this.apply(event)); // some may be newer than the answer
    this.tell();
  }

  /** Call `listener` after every change, until `signal` is aborted. */
  onChange(listener: () => void, signal?: AbortSignal): void {
    this.listeners.add(listener);
    signal?.addEventListener("abort", () => this.listeners.delete(listener));
  }

  /** The stream of events, for views that follow single runs. */
  get events(): Live {
    return this.live;
  }

  /** Runs from the newest to the oldest. */
  newest(): Card[] {
    return [...this.runs.values()].sort((a, b) => b.changed - a.changed || a.name.localeCompare(b.name));
  }

  private apply(event: OverviewEvent): void {
    for (const id of event.removed) {
      this.runs.delete(id);
      this.studies.delete(id);
      this.ladders.delete(id);
    }
    this.merge(event.runs, event.studies, event.ladders);
  }

  private merge(runs: Card[], studies: StudyCard[], ladders: LadderCard[]): void {
    for (const run of runs) this.runs.set(run.id, run);
    for (const study of studies) this.studies.set(study.id, study);
    for (const ladder of ladders) this.ladders.set(ladder.id, ladder);
  }

  private tell(): void {
    for (const listener of this.listeners) listener();
  }
}
