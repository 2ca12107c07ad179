"""The command line: one file per command, each importing what it needs when it runs.

Nothing here imports torch; `poise --help`, `poise recipes`, `poise tips` and `poise watch` answer at once.
"""

from __future__ import annotations

import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import typer
from typer.exceptions import TyperException

from poise.cli import check, compare, interpolate, ladder, measure, recipes, sample, tips, train, watch
from poise.errors import PoiseError, Stopped
from poise.printing import fit_streams, one_line, say, say_lines

app = typer.Typer(
    name="poise",
    help="Train GANs and keep the two players in balance.",
    epilog="Add --debug to any command to see where an error comes from.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command("recipes")(recipes.recipes)
app.command("tips")(tips.tips)
app.command("check")(check.check)
app.command("train")(train.train)
app.command("sample")(sample.sample)
app.command("interpolate")(interpolate.interpolate)
app.command("measure")(measure.measure)
app.command("compare")(compare.compare)
app.command("watch")(watch.watch)
app.command("ladder")(ladder.ladder)


@app.callback(invoke_without_command=True)
def _version(version: bool = typer.Option(False, "--version", help="Print the version and leave.")) -> None:
    if version:
        from poise import __version__

        say(__version__)
        raise typer.Exit(0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; every error becomes one line on stderr and an exit code (docs/exit-codes.md)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    fit_streams()
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        with _signals():
            code = app(words, standalone_mode=False)
    except Exception as error:
        if debug:
            say_lines(traceback.format_exc(), err=True)
        code = _told(error)
    sys.exit(code if isinstance(code, int) else 0)


def _told(error: Exception) -> int:
    """Say what went wrong, and give the exit code that goes with it."""
    if isinstance(error, PoiseError):
        return _complain(str(error), error.exit_code)
    if isinstance(error, TyperException):
        return _complain(error.format_message() or "a command is missing; try poise --help", 2)
    if isinstance(error, BrokenPipeError):
        return 6
    if isinstance(error, OSError):
        return _complain(f"{error.filename or 'the disk'}: {error.strerror or error}", 6)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, unimported
        return _complain("there is too little memory; ask for less at a time", 7)
    told = f"{type(error).__name__}: {error}".split("\n")[0]
    return _complain(f"a fault in poise itself: {told}; run it again with --debug and report what it prints", 1)


@contextmanager
def _signals() -> Iterator[None]:
    """Until a run looks after signals itself, they end the command in an orderly way."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(f"stopped by {signal.Signals(number).name}; there was nothing to save")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _complain(line: str, code: int) -> int:
    say(f"poise: {one_line(line)}", err=True)
    return code
