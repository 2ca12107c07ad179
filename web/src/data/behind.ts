/** Whether what is shown of a run is older than what the stream of events says of it. */

import type { Run, RunEvent } from "./types";

/** True if the run must be fetched anew: only its step, its rows and its frames are told by other means. */
export function isBehind(run: Run, event: RunEvent): boolean {
  return event.tag !== run.tag;
}
