"""The command line: one file per command, each importing what it needs when it runs.

Nothing here imports torch; `poise --help` and `poise recipes` answer at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer
from typer.exceptions import TyperException

from poise.cli import interpolate, recipes, sample, train
from poise.errors import PoiseError

app = typer.Typer(
    name="poise",
    help="Train GANs and keep the two players in balance.",
    epilog="Add --debug to any command to see where an error comes from.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command("recipes")(recipes.recipes)
app.command("train")(train.train)
app.command("sample")(sample.sample)
app.command("interpolate")(interpolate.interpolate)


@app.callback(invoke_without_command=True)
def _version(version: bool = typer.Option(False, "--version", help="Print the version and leave.")) -> None:
    if version:
        from poise import __version__

        typer.echo(__version__)
        raise typer.Exit(0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; every error becomes one line on stderr and an exit code (docs/exit-codes.md)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    if debug:
        sys.exit(app(words, standalone_mode=False) or 0)
    try:
        code = app(words, standalone_mode=False)
    except PoiseError as error:
        code = _complain(str(error), error.exit_code)
    except TyperException as error:
        code = _complain(error.format_message() or "a command is missing; try poise --help", 2)
    except BrokenPipeError:
        code = 6
    except OSError as error:
        code = _complain(f"{error.filename or 'the disk'}: {error.strerror or error}", 6)
    except (KeyboardInterrupt, typer.Abort):
        code = _complain("stopped", 75)
    except Exception as error:
        told = f"{type(error).__name__}: {error}".splitlines()[0]
        code = _complain(f"a fault in poise itself: {told}; run it again with --debug and report what it prints", 1)
    sys.exit(code if isinstance(code, int) else 0)


def _complain(line: str, code: int) -> int:
    print(f"poise: {' '.join(line.split())}", file=sys.stderr)
    return code
