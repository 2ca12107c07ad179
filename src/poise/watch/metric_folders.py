"""Reading folders with a file per metric, as MLflow and BigGAN-PyTorch write them."""

from __future__ import annotations

from pathlib import Path

from poise.errors import DataError
from poise.watch.csv_tables import parse_single_metric
from poise.watch.resumed_rows import join_curves
from poise.watch.text_tables import Table, read_text

MAX_FILES, MAX_BYTES = 10_000, 100_000_000
LOG_NAMES = ("stats.jsonl", "log", "*.csv", "*.jsonl", "*.log", "*log*.txt", "*.json", "*.tsv", "*.txt")
"""The files in a folder that may be logs, the likeliest first."""


def read_metric_files(path: Path) -> Table:
    """Read all files in a folder in which each line is a step and a value, one column per file and a row per step.

    Rows of a resumed run are separate, see `join_curves`. MLflow's `metrics` is found below the folder of its run.

    Raises:
        DataError: there are none, or they belong to several runs.
    """
    points: list[tuple[str, float, float]] = []
    runs: dict[str, None] = {}
    for file in _files_below(path):
        place = file.relative_to(path)
        folder, mark, name = f"/{place.as_posix()}".rpartition("/metrics/")
        if not mark:
            whole = path.name == "metrics"
            folder, name = ("", place.as_posix()) if whole else (f"/{place.parent.as_posix()}", file.name)
        name = name.removesuffix(file.suffix)
        for row in parse_single_metric(read_text(file), name) or ():
            runs[folder] = None
            points.append((name, row["step"], row[name]))
    if len(runs) > 1:
        names = ", ".join(run.strip("/") for run in list(runs)[:8])
        raise DataError("contains several runs", where=str(path), cure=f"pass one of its folders: {names}")
    if not points:
        logs = dict.fromkeys(file.name for pattern in LOG_NAMES for file in sorted(path.glob(pattern)))
        cure = f"pass one of its files: {', '.join(list(logs)[:8])}" if logs else "pass a log file"
        raise DataError("no line contains a number: no events and no file of a metric", where=str(path), cure=cure)
    return Table([{"step": step} | row for step, row in join_curves(points)])


def _files_below(path: Path) -> list[Path]:
    """The files that may hold a metric."""
    names = (file for file in sorted(path.rglob("*")) if file.suffix.lower() in ("", ".log", ".txt"))
    return [file for file in names if file.is_file() and file.stat().st_size <= MAX_BYTES][:MAX_FILES]
