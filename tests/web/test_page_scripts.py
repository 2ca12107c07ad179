"""The scripts of the page in Node: what they do with events, rows and numbers, which needs no browser."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from poise.web.events import run_state
from poise.web.series import RowSeries
from web.scripts import BROWSER, run_script
from web.sites import ALARM, Visitor, lines, make_run, row

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


def test_labels_of_a_y_axis_are_short_and_tell_its_ticks_apart(tmp_path: Path) -> None:
    """Ranges of any size and place: each tick is its label plus the base, as exactly as the distance of ticks needs."""
    found = run_script(
        tmp_path,
        """
import { axisTexts } from "@/format.ts";
let seed = 1;
const random = (): number => (seed = (seed * 48271) % 2147483647) / 2147483647;
const value = (text: string): number => Number(text.replaceAll(",", "").replaceAll("−", "-") || 0);
const wrong: unknown[] = [];
let longest = 0;
for (let number = 0; number < 20000; number += 1) {
  const centre = (random() < 0.5 ? -1 : 1) * 10 ** (random() * 15 - 6);
  const span = Math.abs(centre) * 10 ** (0.5 - random() * 5.5);
  const raw = span / (2 + random() * 6);
  const power = 10 ** Math.floor(Math.log10(raw));
  const distance = ([1, 2, 2.5, 5, 10].find((one) => one * power >= raw * (1 - 1e-12)) ?? 10) * power;
  const first = Math.ceil((centre - span / 2) / distance - 1e-9);
  const last = Math.floor((centre + span / 2) / distance + 1e-9);
  if (last - first < 1) continue;
  const ticks = Array.from({ length: last - first + 1 }, (_, index) => (first + index) * distance);
  const { texts, base } = axisTexts(ticks, distance);
  const isRight = ticks.every((tick, index) => Math.abs(value(base) + value(texts[index]) - tick) < 0.001 * distance);
  const isShort = texts.every((text) => text.length <= 8);
  longest = Math.max(longest, base.length);
  if (!isRight || !isShort || new Set(texts).size < texts.length) wrong.push({ ticks, texts, base });
}
const examples = [[0.6931, 0.693105, 0.69311], [1.2e7, 1.21e7], [-0.5, 0, 0.5], [0, 250000, 500000], [0, 1e-5]];
show({ wrong: wrong.slice(0, 3), longest, examples: examples.map((ticks) => axisTexts(ticks, ticks[1] - ticks[0])) });
""",
    )
    assert found["wrong"] == []
    assert found["longest"] <= 15
    assert found["examples"] == [
        {"texts": ["0", "5e−6", "1e−5"], "base": "0.6931"},
        {"texts": ["1.2e7", "1.21e7"], "base": ""},
        {"texts": ["−0.5", "0", "0.5"], "base": ""},
        {"texts": ["0", "250,000", "500,000"], "base": ""},
        {"texts": ["0", "0.00001"], "base": ""},
    ]


def test_a_figure_has_its_digits_at_any_size_and_more_where_values_are_close(tmp_path: Path) -> None:
    found = run_script(
        tmp_path,
        """
import { digitsOf, figure, rate } from "@/format.ts";
const texts = [0.693, 0.0001, -1.25e-7, 1.234e7, 12345.6, 0, null].map((value) => figure(value, 3));
const close = [[0.69311, 0.6931, 0.69312], [1.21e7, 1.2e7, 1.24e7], [12345.6, 12345, 12346], [0.7, 0, 1], [2, 2, 2]];
const rates = [0.043, 0.4, 3.456, 12.3, 12345].map(rate);
show({ texts, rates, close: close.map(([value, low, high]) => figure(value, digitsOf(low, high))) });
""",
    )
    assert found["texts"] == ["0.693", "1e−4", "−1.25e−7", "1.23e7", "12,346", "0", "–"]
    assert found["rates"] == ["0.043", "0.4", "3.46", "12", "12,345"]
    assert found["close"] == ["0.69311", "1.21e7", "12,345.6", "0.7", "2"]


APPENDED = """
import { appended } from "@/data/series.ts";
const [first, ...others] = ANSWERS;
show(others.reduce(appended, first));
"""


def followed(folder: Path, values: list[float | str], begun: int, stride: int) -> tuple[dict, dict]:
    """What a page has of rows at steps 50, 100, ... that it followed from `begun` rows on, and all that there is.

    It asks for what is new after every `stride` rows.
    """
    series, answers, asked = RowSeries(), [], -1
    for number, value in enumerate(values, 1):
        series.add_line(json.dumps(row(50 * number, value)).encode())
        if number >= begun and (number - begun) % stride == 0:
            answers.append(series.view(["d/accuracy"], asked + 1, 10**15, 512)["d/accuracy"])
            asked = 50 * number
    everything = series.view(["d/accuracy"], 0, 10**15, 2048)["d/accuracy"]
    return run_script(folder, APPENDED.replace("ANSWERS", json.dumps(answers))), everything


@pytest.mark.parametrize("stride", [1, 3, 64])
def test_a_long_run_that_is_followed_has_each_bucket_once(tmp_path: Path, stride: int) -> None:
    """Buckets have two rows here, so the last one comes again when it has both of them."""
    values = [float(number) for number in range(1, 2101 + 3 * 64)]
    shown, everything = followed(tmp_path, values, 2100, stride)
    tail = sum(step > 50 * 2101 for step in everything["step"])
    assert tail > 60
    for name in ("step", "mean", "min", "max"):
        assert shown[name][-tail:] == everything[name][-tail:]


@pytest.mark.parametrize("stride", [1, 7])
def test_a_long_run_that_is_followed_loses_no_spike_and_no_gap(tmp_path: Path, stride: int) -> None:
    """While the buckets of the server become two and four rows wide."""
    count = 2 * 2048 + 301
    values: list[float | str] = [100.0 + number if number % 10 == 0 else 0.0 for number in range(1, count + 1)]
    values[::997] = ["nan"] * len(values[::997])
    shown, everything = followed(tmp_path, values, count - 7 * 330, stride)
    assert shown["step"] == sorted(shown["step"])
    gaps = [step for step, mean in zip(shown["step"], shown["mean"], strict=True) if mean is None]
    assert gaps == shown["bad"] == everything["bad"]
    spikes = {value for value in everything["max"][-500:] if value}
    assert spikes <= set(shown["max"])


def test_what_is_new_of_a_run_is_fetched_alone_and_with_one_timer(tmp_path: Path) -> None:
    """While the server reads a large file, events change nothing, and all is asked for again now and then."""
    found = run_script(
        tmp_path,
        BROWSER
        + """
import { RunSeries } from "@/data/series.ts";
const asked: string[] = [];
let complete = false;
let reachable = true;
const answer = () => ({ first: 10, last: 500, rows: 9, complete, generation: "g", series: {} });
const fetch = async (path: string) => {
  asked.push(path.split("?")[1]);
  if (!reachable) throw new Error("the server is gone");
  return { ok: true, json: async () => answer() };
};
Object.assign(globalThis, { fetch });
const run = { id: "a", series: ["d/r1"] };
const { signal } = new AbortController();
const series = new RunSeries({ run: () => run as never, part: () => null }, 512, signal, () => undefined);
const counts: number[] = [];
const runTimers = async (): Promise<void> => {
  const due = [...timers.values()];
  timers.clear();
  due.forEach((call) => call());
  await settled();
};
await series.load("all");
for (let event = 0; event < 5; event += 1) await series.load("new");
await series.load("all");
counts.push(asked.length, timers.size);
reachable = false;
await runTimers();
counts.push(asked.length, timers.size);
[reachable, complete] = [true, true];
await runTimers();
counts.push(asked.length, timers.size);
await series.load("new");
show({ counts, newest: asked.at(-1), first: asked[0], extent: [series.first, series.last] });
""",
    )
    assert found["counts"] == [2, 1, 3, 1, 4, 0]
    assert found["first"] == "names=d%2Fr1&points=512"
    assert found["newest"] == "names=d%2Fr1&from=501&points=512"
    assert found["extent"] == [10, 500]


TIMELINE = (
    BROWSER
    + """
import { measureCurve, readingAt, seriesCurve } from "@/charts/curves.ts";
import { Timeline } from "@/data/timeline.ts";
const timeline = new Timeline();
timeline.setExtent("rows", 10, 1000);
const seen: unknown[] = [];
const tell = (): unknown => seen.push([timeline.step, timeline.part, timeline.follows]);
"""
)


def test_everything_shows_one_step_which_is_among_those_that_are_zoomed_to(tmp_path: Path) -> None:
    """The newest one, a chosen one and that under the pointer; one that is chosen elsewhere leads to the whole run."""
    found = run_script(
        tmp_path,
        TIMELINE
        + """
timeline.zoom([100.2, 299.7]);
tell();
timeline.pin(200);
timeline.zoom([400, 600]);
tell();
timeline.pin(null);
timeline.zoomBy(0.5);
tell();
timeline.zoomBy(2);
tell();
timeline.pin(50);
tell();
timeline.zoom([100, 300]);
timeline.follow();
tell();
timeline.pin(900);
timeline.zoom([700, 950]);
timeline.setExtent("rows", 10, 800);
tell();
timeline.setExtent("rows", 10, 500);
tell();
show(seen);
""",
    )
    assert found == [
        [300, [100, 300], False],
        [400, [400, 600], False],
        [600, [500, 600], False],
        [700, [500, 700], False],
        [50, None, False],
        [1000, None, True],
        [800, [700, 950], False],
        [500, None, False],
    ]


GAP = [[500, 1000, 1000.5, 1001], [1, 2, None, 2], []]
"""Between values of different numbers of samples, after the last step that has one before it."""


def test_no_value_is_read_at_a_step_before_it_was_measured(tmp_path: Path) -> None:
    """Of a measure, and of a series that begins late, whose first bucket begins before its middle."""
    found = run_script(
        tmp_path,
        TIMELINE
        + """
const line = { color: "--d", dash: [] };
const measured = [500, 1000].map((step) => ({ step, measures: { modes: step / 500 }, floor: {}, n: 9, features: "x" }));
const measure = measureCurve(line, "", "modes", measured);
const stat = { mean: [3, 4], std: [0, 0], min: [3, 4], max: [3, 4] };
const late = seriesCurve(line, "", { step: [625, 675], ...stat, bad: [], since: 0, begin: 600 });
const other = [...measured, { ...measured[1], step: 1001, n: 99 }];
const changed = measureCurve(line, "", "modes", other);
const none = [seriesCurve(line, ""), measureCurve(line, "", "fid", measured)];
const read = (curve: any, ...steps: number[]) => steps.map((step) => readingAt(curve, step, true, 3));
const found = [read(measure, 60, 499, 500, 999, 1000), read(late, 60, 599, 600, 624, 660, 700)];
show([...found, none.map((one) => read(one, 60)), [changed.step, changed.mean, changed.bad]]);
""",
    )
    assert found == [["–", "–", "1", "1", "2"], ["–", "–", "3", "3", "3", "4"], [["–"], ["–"]], GAP]


def test_a_folder_with_too_many_folders_is_read_once_and_said_to_be_incomplete(tmp_path: Path) -> None:
    """`complete` of the overview never becomes true there; the page knows by itself whether it has been answered."""
    found = run_script(
        tmp_path,
        BROWSER
        + """
import { Store } from "@/data/store.ts";
let asked = 0;
const lists = { runs: [], studies: [], ladders: [] };
const answer = { directory: "runs", playground: false, complete: false, ...lists };
const fetch = async () => ((asked += 1), { ok: true, json: async () => answer });
Object.assign(globalThis, { fetch });
const store = new Store({ on: () => undefined } as never);
const before = store.loaded;
await store.load();
show({ before, after: store.loaded, complete: store.complete, asked, timers: timers.size });
""",
    )
    assert found == {"before": False, "after": True, "complete": False, "asked": 1, "timers": 0}


def test_a_run_with_more_than_is_told_or_with_damaged_files_is_not_fetched_again_and_again(tmp_path: Path) -> None:
    """The page compares the tags that the run and the events both have."""
    pairs = []
    steps: dict[str, int | str] = {"many": 5, "damaged": "five", "whole": 5}
    for name, step in steps.items():
        path = make_run(tmp_path / "runs" / name)
        many = 6000 if name == "many" else 2
        measured = {"measures": {"fid": 1.0}, "floor": {}, "n": 9, "features": "x"}
        (path / "measures.jsonl").write_text(lines([{"step": step} | measured] * many))
        (path / "alarms.jsonl").write_text(lines([ALARM | {"step": step}] * many))
    visitor = Visitor(tmp_path / "runs")
    for card in visitor.get("/api/overview").json["runs"]:
        entry = visitor.pages.index.run(card["id"])
        run = visitor.get(f"/api/runs/{card['id']}").json
        pairs.append([run, run_state(visitor.pages.index.root, entry, run["series"])])
    script = """
import { isBehind } from "@/data/behind.ts";
show(PAIRS.map(([run, event]) => isBehind(run, event)));
"""
    found = run_script(tmp_path, script.replace("PAIRS", json.dumps(pairs)))
    assert found == [False, False, False]
