"""The command line: one module per command, each of which imports what it needs when it runs.

Nothing here imports torch, so that `poise --help`, `poise recipes`, `poise tips` and `poise watch` start quickly.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from contextlib import nullcontext

import typer
from typer.exceptions import TyperException

from poise.cli import (
    align,
    check,
    compare,
    export,
    interpolate,
    ladder,
    measure,
    project,
    push,
    recipes,
    report,
    runs,
    sample,
    study,
    tips,
    train,
    translate,
    watch,
    web,
)
from poise.cli.examples import epilog
from poise.cli.streams import lenient_streams
from poise.errors import PoiseError, RankFailed, is_out_of_memory
from poise.training.signals import Signals, owned_process
from poise.user_code.loading import fault_of_user_code
from poise.utils.launcher import number_of_ranks, rank_of_process
from poise.utils.printing import make_streams_lenient, print_error, print_line, print_text
from poise.utils.remote import with_urls

app = typer.Typer(
    name="poise",
    help="Train GANs and keep the two players in balance.",
    epilog="Add --debug to any command to print the traceback of an error.",
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
    "runs": runs.runs,
    "sample": sample.sample,
    "translate": translate.translate,
    "interpolate": interpolate.interpolate,
    "project": project.project,
    "measure": measure.measure,
    "compare": compare.compare,
    "export": export.export,
    "push": push.push,
    "watch": watch.watch,
    "web": web.web,
    "align": align.align,
    "ladder": ladder.ladder,
    "study": study.study,
    "report": report.report,
}
for _name, _command in COMMANDS.items():
    app.command(_name, epilog=epilog(_name))(_command)


@app.callback(invoke_without_command=True)
def _version(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    if version:
        from poise.version import __version__

        print_line(__version__)
        raise typer.Exit(0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; every error becomes one line on stderr and an exit code (docs/exit-codes.md).

    Args:
        arguments: the arguments after `poise`. If None, those of this process, which then is assumed to belong to the
            command line alone.
    """
    own_process = arguments is None
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    make_streams_lenient()
    with lenient_streams(own_process=own_process), owned_process() if own_process else nullcontext():
        try:
            code = _run([argument for argument in arguments if argument != "--debug"], debug="--debug" in arguments)
        except KeyboardInterrupt:
            if not own_process:
                raise
            code = 130
    sys.exit(code)


def _style_help() -> None:
    """Let the help have colours and bold text where other output has them, and not where typer would."""
    from typer import rich_utils

    from poise.utils.console import has_styles

    rich_utils.COLOR_SYSTEM = "auto" if has_styles() else None
    rich_utils.FORCE_TERMINAL = None  # typer would assume a terminal in a GitHub job


def _run(arguments: list[str], *, debug: bool) -> int:
    if not arguments or {"-h", "--help"} & set(arguments):
        _style_help()
    elif number_of_ranks() > 1 and arguments[0] in COMMANDS and arguments[0] != "train":
        return _fail(
            f"poise {arguments[0]} runs in one process, only poise train in several; start it without torchrun", 2
        )
    try:
        with Signals("; there was nothing to save"):  # until a run handles signals itself
            code = app(arguments, prog_name="poise", standalone_mode=False)
        sys.stdout.flush()  # a full disk may be noticed only here
    except Exception as error:
        if debug:
            print_text(traceback.format_exc(), err=True)
        return _report_error(error, arguments)
    return code if isinstance(code, int) else 0


MEMORY_CURES = {
    "sample": "generate fewer samples at a time: --n",
    "interpolate": "generate fewer images: --rows, --steps",
    "translate": "translate smaller images",
    "project": "start from fewer latents: --starts",
    "measure": "use fewer samples: --n",
    "compare": "use fewer or smaller images: --n, --size",
    "study": "use smaller batches in the plan",
    "ladder": "use smaller batches or images: --batch, --size",
    "align": "read fewer vectors: --set data.vocabulary=50000",
    "check": "use smaller batches: --set batch=N",
}
"""The cure for too little memory, by command."""


def _report_error(error: Exception, arguments: list[str]) -> int:
    """Print an error as one line and return its exit code."""
    if isinstance(error, RankFailed):
        return error.exit_code  # the other rank has printed the reason
    if isinstance(error, PoiseError):
        return _fail(str(error), error.exit_code)
    if isinstance(error, TyperException):
        return _fail(error.format_message() or "no command was given; try poise --help", 2)
    if is_out_of_memory(error):
        cure = next((MEMORY_CURES[word] for word in arguments if word in MEMORY_CURES), "use smaller batches or images")
        return _fail(f"out of memory; {cure}", 7)
    if (fault := fault_of_user_code(error)) is not None:
        return _fail(str(fault), fault.exit_code)
    if isinstance(error, OSError):
        return _fail(f"{error.filename or 'the disk'}: {error.strerror or error}", 6)
    summary = f"{type(error).__name__}: {error}".split("\n")[0]
    return _fail(f"internal error: {summary}; run the command again with --debug and report the traceback", 1)


def _fail(line: str, code: int) -> int:
    rank, line = rank_of_process(), with_urls(line)
    print_error(f"rank {rank}: {line}" if rank else line)
    return code
