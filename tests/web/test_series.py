"""Series: decimation without loss of extremes and means, and files that grow, shrink, are replaced or damaged."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from poise.web import follow
from poise.web.follow import RowFollower
from poise.web.series import MAX_BUCKETS, MAX_NAMES, Buckets, RowSeries
from web.sites import Visitor, lines, row

EVERYTHING = (0, 10**15)


def view(follower: RowFollower, name: str = "d/adversarial", points: int = 1024) -> tuple[dict, dict]:
    answer = follower.view([name], *EVERYTHING, points)
    return answer, answer["series"].get(name, {})


@pytest.mark.parametrize("count", [1, 100, MAX_BUCKETS, MAX_BUCKETS + 1, 5 * MAX_BUCKETS + 7])
@pytest.mark.parametrize("points", [16, 1000, 2048])
def test_decimation(count: int, points: int) -> None:
    rng = np.random.default_rng(count)
    means, stds = rng.normal(3, 2, count), rng.uniform(0, 1, count)
    buckets = Buckets()
    for step, (mean, std) in enumerate(zip(means, stds, strict=True), 1):
        buckets.add(step, mean, std, mean - 1, mean + 1)
    series = RowSeries()
    series.metrics["m"] = buckets
    found = series.view(["m", "none"], *EVERYTHING, points)
    assert set(found) == {"m"}
    shown = found["m"]
    size = len(shown["step"])
    assert min(count, points // 2) <= size <= min(count, points)
    assert shown["step"] == sorted(shown["step"])
    assert min(shown["min"]) == pytest.approx(means.min() - 1)
    assert max(shown["max"]) == pytest.approx(means.max() + 1)
    # the law of total variance, over the first bucket, whose rows are known
    table = buckets.table()
    rows = int(table[0, 0])
    assert table[1, 0] == pytest.approx(means[:rows].mean())
    assert table[2, 0] / rows == pytest.approx((stds[:rows] ** 2).mean() + means[:rows].var())
    assert table[0].sum() == count
    assert table.shape[1] <= MAX_BUCKETS + 1
    assert (table[0] @ table[1]) / count == pytest.approx(means.mean())


def test_a_part_of_the_steps() -> None:
    series = RowSeries()
    for step in range(1, 101):
        series.add_line(json.dumps(row(step, float(step))).encode())
    found = series.view(["d/adversarial"], 40, 60, 1024)["d/adversarial"]
    assert found["step"] == list(range(40, 61))
    assert found["mean"] == [float(step) for step in range(40, 61)]


def test_values_that_are_not_finite_are_gaps() -> None:
    series = RowSeries()
    for step, value in enumerate([1.0, "nan", "inf", "-inf", 1e308, -1e308, 2**53 + 1, -0.0, 2.0], 1):
        series.add_line(json.dumps(row(step, value)).encode())
    found = series.view(["d/adversarial"], *EVERYTHING, 16)["d/adversarial"]
    assert found["bad"] == [2, 3, 4]
    assert found["step"] == list(range(1, 10))
    for name in ("mean", "min", "max"):
        assert found[name] == [1.0, None, None, None, 1e308, -1e308, 9.007199e15, -0.0, 2.0]
    assert [step for step, std in zip(found["step"], found["std"], strict=True) if std is None] == [2, 3, 4]
    json.dumps(found, allow_nan=False)
    assert series.rows == 9


def test_a_value_that_is_not_finite_stays_a_gap_among_merged_buckets() -> None:
    series = RowSeries()
    for step in range(1, 3 * MAX_BUCKETS + 1):
        series.add_line(json.dumps(row(step, "nan" if step in (2, 1000, 3 * MAX_BUCKETS) else 1.0)).encode())
    found = series.view(["d/adversarial"], *EVERYTHING, 16)["d/adversarial"]
    assert found["step"] == sorted(found["step"])
    gaps = [step for step, mean in zip(found["step"], found["mean"], strict=True) if mean is None]
    assert gaps == found["bad"] == [2, 1000, 3 * MAX_BUCKETS]
    assert len(found["step"]) <= 16 + len(gaps)
    part = series.view(["d/adversarial"], 900, 1100, 16)["d/adversarial"]
    assert [step for step, mean in zip(part["step"], part["mean"], strict=True) if mean is None] == [1000]


def test_extreme_values_in_one_bucket_are_null_and_not_an_error() -> None:
    buckets = Buckets()
    for step in range(3 * MAX_BUCKETS):
        buckets.add(step, 1e308 * (-1) ** step, 1e200, -1e308, 1e308)
    series = RowSeries()
    series.metrics["m"] = buckets
    found = series.view(["m"], *EVERYTHING, 16)["m"]
    json.dumps(found, allow_nan=False)
    assert set(found["max"]) == {1e308}


@pytest.mark.parametrize(
    "line",
    [b"", b"{", b"[]", b"null", b'{"step": 5}', b'{"step": -1, "stats": {}}', b'{"step": 1e99, "stats": {}}', b"\xff",
     b'{"step": 5, "stats": {"a": 1}}', b'{"step": 5, "stats": {"a": {"mean": 1}}}', b"[" * 100_000,
     b'{"step": 5, "stats": []}', b'{"step": 99999999999999999999999, "stats": {}}', b'{"step": NaN, "stats": {}}'],
)  # fmt: skip
def test_damaged_lines_are_skipped(line: bytes, tmp_path: Path) -> None:
    content = lines([row(1)]).encode() + line + b"\n" + lines([row(9)]).encode()
    (tmp_path / "rows.jsonl").write_bytes(content)
    answer, shown = view(RowFollower(tmp_path, ()))
    assert shown["step"] == [1, 9]
    assert (answer["first"], answer["last"], answer["rows"], answer["complete"]) == (1, 9, 2, True)


def test_names_have_a_bound() -> None:
    series = RowSeries()
    stat = {"mean": 1, "std": 0, "min": 1, "max": 1}
    series.add_line(json.dumps({"step": 1, "stats": {str(n): stat for n in range(2 * MAX_NAMES)}}).encode())
    assert len(series.metrics) == MAX_NAMES


def test_a_growing_file(tmp_path: Path) -> None:
    follower, path = RowFollower(tmp_path, ()), tmp_path / "rows.jsonl"
    assert view(follower)[0]["rows"] == 0
    path.write_text(lines([row(1)]))
    assert view(follower)[1]["step"] == [1]
    generation = view(follower)[0]["generation"]
    half = lines([row(2)])
    with path.open("a") as stream:
        stream.write(half[:20])
        stream.flush()
        assert view(follower)[1]["step"] == [1]
        stream.write(half[20:])
    assert view(follower)[1]["step"] == [1, 2]
    assert view(follower)[0]["generation"] == generation


def test_a_file_that_shrinks_is_replaced_or_rewritten(tmp_path: Path) -> None:
    follower, path = RowFollower(tmp_path, ()), tmp_path / "rows.jsonl"
    generations = []

    def steps() -> list[int]:
        answer, shown = view(follower)
        generations.append(answer["generation"])
        return shown["step"]

    path.write_text(lines([row(1), row(2), row(3)]))
    assert steps() == [1, 2, 3]
    path.write_text(lines([row(1)]))  # in place and shorter
    assert steps() == [1]
    (tmp_path / "new").write_text(lines([row(1), row(5)]))
    (tmp_path / "new").replace(path)
    assert steps() == [1, 5]
    path.write_text(lines([row(2, 7.0), row(5), row(6)]))  # in place and longer
    assert steps() == [2, 5, 6]
    path.unlink()
    assert view(follower)[0]["rows"] == 0
    assert len(set(generations)) == len(generations), "a page that has rows of before fetches all of them anew"


def test_a_line_without_an_end_takes_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "MAX_LINE", 1000)
    monkeypatch.setattr(follow, "CHUNK", 400)
    (tmp_path / "rows.jsonl").write_bytes(b"x" * 5_000 + b"\n" + lines([row(3)]).encode())
    follower = RowFollower(tmp_path, ())
    assert view(follower)[1]["step"] == [3]
    assert len(follower._rest) <= 1000


def test_a_large_file_is_sampled_first_and_then_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "LARGE", 10_000)
    found = [row(step, math.sin(step / 500)) for step in range(1, 5001)]
    (tmp_path / "rows.jsonl").write_text(lines(found))
    follower = RowFollower(tmp_path, ())
    with follower._lock:
        sampled = follower._current()  # the thread waits for the lock
        assert follower._thread is not None
        thread = follower._thread
        assert 900 <= sampled.rows <= 1100
        assert (sampled.first, sampled.last) == (1, 5000)
    thread.join(60)
    answer, shown = view(follower)
    assert (answer["rows"], answer["complete"]) == (5000, True)
    assert max(shown["max"]) == pytest.approx(1, abs=1e-6)


def test_the_route(visitor: Visitor, runs: Path) -> None:
    run = visitor.get("/api/overview").json["runs"][0]
    address = f"/api/runs/{run['id']}"
    assert visitor.get(address).json["series"] == ["d/accuracy", "d/adversarial", "g/adversarial"]
    answer = visitor.get(f"{address}/series?names=d/adversarial,nothing").json
    assert set(answer["series"]) == {"d/adversarial"}
    assert answer["series"]["d/adversarial"]["step"] == list(range(10, 101, 10))
    assert visitor.get(f"{address}/series?names=d/adversarial&from=30&to=50").json["series"]["d/adversarial"][
        "step"
    ] == [
        30,
        40,
        50,
    ]
    for wrong in ("from=-1", "to=NaN", "points=1e9", "from=1.5", "points=x", "from=" + "9" * 40, "to=%00"):
        assert visitor.get(f"{address}/series?names=d/adversarial&{wrong}").status == 400, wrong
    assert visitor.get(f"{address}/series?names=d/adversarial&points=999999999").status == 200
    assert visitor.get(f"{address}/series").json["series"] == {}
    assert visitor.get("/api/runs/0000000000000000/series?names=a").status == 404


def test_answers_have_a_bound(visitor: Visitor, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "LARGE", 10**9)  # the file is read at once
    stat = {"mean": 0.123456789, "std": 0.123456789, "min": 0.123456789, "max": 0.123456789}
    found = [row(step) | {"stats": {f"m{n}": stat for n in range(100)}} for step in range(1, 1501)]
    (runs / "ring/rows.jsonl").write_text(lines(found))
    run = next(run for run in visitor.get("/api/overview").json["runs"] if run["name"] == "ring")
    names = ",".join(f"m{n}" for n in range(100))
    assert visitor.get(f"/api/runs/{run['id']}").status == 200
    answer = visitor.get(f"/api/runs/{run['id']}/series?names={names}&points=2048")
    assert answer.status == 200
    assert len(answer.body) <= 5_000_000
