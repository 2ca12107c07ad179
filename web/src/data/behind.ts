/** Whether what is shown of a run is older than what the stream of events says of it. */

import type { Run, RunEvent } from "./types";

/** True if the run must be fetched anew: only its step and its rows are told by other means. */
export function isBehind(run: Run, event: RunEvent): boolean {
  const counted = event.alarms === run.lines.alarms && event.grids === run.grids.length && event.measures === run.lines.measures;
  const sameFrames = Boolean(run.frames) === (event.frames !== null);
  const firstRows = event.rows !== null && run.series.length === 0;
  return !counted || !sameFrames || firstRows || event.state !== run.state;
}
