"""The scripts of the page in Node: what they do with events, rows and numbers, which needs no browser."""

from __future__ import annotations

from pathlib import Path

from web.scripts import BROWSER, run_script

LIVE = (
    BROWSER
    + """
import { Live } from "@/data/live.ts";
class Source {
  static open: Source[] = [];
  listeners: Record<string, (event: unknown) => void> = {};
  constructor(readonly address: string) {
    Source.open.push(this);
  }
  addEventListener(kind: string, listener: (event: unknown) => void): void {
    this.listeners[kind] = listener;
  }
  close(): void {
    Source.open = Source.open.filter((one) => one !== this);
  }
}
Object.assign(globalThis, { EventSource: Source });
const live = new Live();
const open = (): string[] => Source.open.map((one) => one.address);
const seen: string[] = [];
for (const kind of ["opened", "reopened"] as const) live.on(kind, () => seen.push(kind));
"""
)


def test_a_window_that_is_hidden_holds_no_stream_of_events(tmp_path: Path) -> None:
    """Browsers allow six connections per server, of which each stream takes one."""
    found = run_script(
        tmp_path,
        LIVE
        + """
const told: string[][] = [];
live.watch(["a"]);
Source.open[0].listeners["open"]({});
told.push(open());
setHidden(true);
told.push(open());
live.watch(["b"]);
told.push(open());
setHidden(false);
told.push(open());
Source.open[0].listeners["open"]({});
Source.open[0].listeners["error"]({});
const waiting = timers.size;
setHidden(true);
const kept = timers.size;
setHidden(false);
setHidden(false);
told.push(open());
show({ told, seen, waiting, kept });
""",
    )
    a, b = ["/api/events?runs=a"], ["/api/events?runs=b"]
    assert found["told"] == [a, [], [], b, b]
    assert found["seen"] == ["opened", "opened", "reopened"], "what was missed meanwhile is fetched"
    assert (found["waiting"], found["kept"]) == (1, 0)
