"""The tables of `poise compare RUN RUN`: how two runs and their recipes differ."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from poise.utils.printing import count_noun, print_line

if TYPE_CHECKING:
    from rich.table import Table

    from poise.runs.compare_runs import MeasureHistory, RunComparison, RunFacts


def print_comparison(comparison: RunComparison) -> None:
    """Print the facts, the measures and the differences of the recipes to stdout, and the remarks to stderr."""
    from poise.utils.console import TerminalConsole

    a, b = comparison.a, comparison.b
    console = TerminalConsole()
    facts = _table("", a.path, b.path)
    for name, one, other in zip(FACTS, _facts(a), _facts(b), strict=True):
        facts.add_row(name, one, other)
    console.print(facts)
    names = list(dict.fromkeys((*a.measures, *b.measures)))
    if names:
        measures = _table("measure: last, best (real data)", a.path, b.path)
        for name in names:
            measures.add_row(name, *(_history(run.measures.get(name)) for run in (a, b)))
        print_line("")
        console.print(measures)
    print_line("")
    if comparison.recipe:
        recipe = _table("recipe", a.path, b.path)
        for field, one, other in comparison.recipe:
            recipe.add_row(field, inline(one), inline(other))
        console.print(recipe)
    else:
        print_line("the recipes are equal")
    for note in comparison.notes:
        print_line(note, err=True)


FACTS = ("state", "steps", "images seen", "training time", "data", "alarms")


def _facts(run: RunFacts) -> tuple[str, ...]:
    from poise.cli.run_progress import format_duration

    threads = "" if run.threads is None else f", {count_noun(run.threads, 'thread')}"
    alarms = ", ".join(name if n == 1 else f"{name} ({n:,})" for name, n in run.alarms.items())
    return (
        run.state,
        f"{run.step:,} of {run.steps:,}",
        f"{run.images:,}",
        f"{format_duration(run.seconds)} ({run.device}{threads})",
        run.data,
        alarms or "none",
    )


def _history(history: MeasureHistory | None) -> str:
    if history is None:
        return ""
    best = "" if history.best is None else f", best {history.best:.4g} at step {history.best_step:,}"
    floor = "" if history.floor is None else f" ({history.floor:.4g})"
    return f"{history.last:.4g}{best}{floor}"


def inline(value: Any) -> str:
    """A value of a recipe on one line, as `--set` takes it; "-" if there is none."""
    if value is None:
        return "-"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {inline(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(inline, value)) + "]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str | bool) else str(value)


def _table(*columns: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
