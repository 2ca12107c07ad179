/** What a view is: it fills `root` and lives until `signal` is aborted. */

import type { Store } from "../data/store";

export interface Context {
  store: Store;
  root: HTMLElement;
  signal: AbortSignal;
  /** Set the title of the window. */
  title(text: string): void;
  /** Be called when the colours have changed. */
  onRepaint(listener: () => void): void;
}

export type View = (context: Context, parameter: string) => void | Promise<void>;
