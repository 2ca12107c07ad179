"""The command line: one file per command, each importing what it needs when it runs.

Nothing here imports torch; `poise --help`, `poise recipes`, `poise tips` and `poise watch` answer at once.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from contextlib import nullcontext

import typer
from typer.exceptions import TyperException

from poise.cli import check, compare, interpolate, ladder, measure, recipes, sample, tips, train, watch
from poise.cli.examples import epilog
from poise.cli.streams import lenient_streams
from poise.errors import PoiseError, is_out_of_memory
from poise.training.signals import Signals, owned_process
from poise.utils.printing import make_streams_lenient, print_error, print_line, print_text

app = typer.Typer(
    name="poise",
    help="Train GANs and keep the two players in balance.",
    epilog="Add --debug to any command to see where an error comes from.",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
COMMANDS = {
    "recipes": recipes.recipes,
    "tips": tips.tips,
    "check": check.check,
    "train": train.train,
    "sample": sample.sample,
    "interpolate": interpolate.interpolate,
    "measure": measure.measure,
    "compare": compare.compare,
    "watch": watch.watch,
    "ladder": ladder.ladder,
}
for _name, _command in COMMANDS.items():
    app.command(_name, epilog=epilog(_name))(_command)


@app.callback(invoke_without_command=True)
def _version(version: bool = typer.Option(False, "--version", help="Print the version and leave.")) -> None:
    if version:
        from poise.version import __version__

        print_line(__version__)
        raise typer.Exit(0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; every error becomes one line on stderr and an exit code (docs/exit-codes.md).

    Args:
        arguments: the words after `poise`; left out, those of this process, which then is the command line's own.
    """
    ours = arguments is None
    words = list(sys.argv[1:] if arguments is None else arguments)
    make_streams_lenient()
    with lenient_streams(own_process=ours), owned_process() if ours else nullcontext():
        try:
            code = _run([word for word in words if word != "--debug"], debug="--debug" in words)
        except KeyboardInterrupt:
            if not ours:
                raise
            code = 130
    sys.exit(code)


def _run(words: list[str], *, debug: bool) -> int:
    try:
        with Signals("; there was nothing to save"):  # until a run looks after signals itself
            code = app(words, prog_name="poise", standalone_mode=False)
        sys.stdout.flush()  # a full disk may be noticed only here
    except Exception as error:
        if debug:
            print_text(traceback.format_exc(), err=True)
        return _told(error, words)
    return code if isinstance(code, int) else 0


LESS = {
    "sample": "ask for fewer at a time: --n",
    "interpolate": "ask for fewer: --rows, --steps",
    "measure": "ask for fewer: --n",
    "compare": "ask for fewer, or smaller ones: --n, --size",
    "ladder": "ask for fewer in a step, or smaller ones: --batch, --size",
    "check": "ask for fewer in a step: --set batch=N",
}
"""What to do, by command, where there is too little memory."""


def _told(error: Exception, words: list[str]) -> int:
    """Say what went wrong, and give the exit code that goes with it."""
    if isinstance(error, PoiseError):
        return _complain(str(error), error.exit_code)
    if isinstance(error, TyperException):
        return _complain(error.format_message() or "a command is missing; try poise --help", 2)
    if is_out_of_memory(error):
        cure = next((LESS[word] for word in words if word in LESS), "ask for less at a time")
        return _complain(f"there is too little memory; {cure}", 7)
    if isinstance(error, OSError):
        return _complain(f"{error.filename or 'the disk'}: {error.strerror or error}", 6)
    told = f"{type(error).__name__}: {error}".split("\n")[0]
    return _complain(f"a fault in poise itself: {told}; run it again with --debug and report what it prints", 1)


def _complain(line: str, code: int) -> int:
    print_error(line)
    return code
