"""Printed text has no control characters and nothing that a stream can't encode, and is otherwise unchanged."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from poise.errors import DataError
from poise.utils.console import TerminalConsole, styled_text
from poise.utils.printing import (
    CONTROL_CHARACTERS,
    count_noun,
    make_stream_lenient,
    one_line,
    print_json,
    print_line,
    print_text,
    printable,
    shorten_list,
)

OBEYED_ONES = [
    *map(chr, range(0x20)),
    *map(chr, range(0x7F, 0xA0)),
    *"\u202a\u202e\u2066\u2069\u200e\u061c\u2028\ufeff",
]
OBEYED_ONES += ["\udc80", "\ud800", "\U000e0041"]
HOSTILE = "\x1b[31mred\x1b]0;owned\x07 a\rb\b\x7f\x9b1m \u202eevil\u2066"


@pytest.mark.parametrize("char", OBEYED_ONES, ids=ascii)
def test_control_characters_are_escaped(char: str) -> None:
    result = printable(f"a{char}b")
    assert result.isprintable()
    assert result == "a" + {"\n": r"\n", "\r": r"\r", "\t": r"\t"}.get(char, ascii(char)[1:-1]) + "b"
    assert printable(result) == result, "what is escaped already stays"


@pytest.mark.parametrize("text", ["", "plain", "Ωmega é 漢字 😀", "नमस्ते", "[bold]x[/]", r"C:\new", "👩\u200d🔬"])
def test_text_in_any_script_is_unchanged(text: str) -> None:
    assert printable(text) == text


def test_newlines_are_kept_on_request() -> None:
    assert printable("a\nb\r\n", keep_newlines=True) == "a\nb\\r\n"
    assert printable("a\nb") == r"a\nb"
    assert one_line("  a\n   b \r\n c\td\re ") == "a b c d\re"


def test_error_keeps_control_characters_until_it_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    error = DataError("no such\n  data", where="a\rb", found="\x1b[2J")
    assert str(error) == "a\rb: no such data, found \x1b[2J"
    print_line(str(error), err=True)
    assert capsys.readouterr().err == "a\\rb: no such data, found \\x1b[2J\n"


@pytest.mark.parametrize("value", [HOSTILE, "é", "\udc80", "a\nb"])
def test_json_is_ascii_and_has_the_same_value(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_json({value: [value]})
    out = capsys.readouterr().out
    assert out.isascii()
    assert not CONTROL_CHARACTERS.search(out.replace("\n", ""))
    assert json.loads(out) == {value: [value]}


def test_json_rejects_non_finite_numbers() -> None:
    with pytest.raises(ValueError):
        print_json(float("nan"))


@pytest.mark.parametrize(
    ("n", "words", "message"),
    [
        (0, ("picture",), "0 pictures"),
        (1, ("picture",), "1 picture"),
        (2000, ("picture",), "2,000 pictures"),
        (1, ("class", "classes"), "1 class"),
        (2, ("class", "classes"), "2 classes"),
    ],
)
def test_count_noun(n: int, words: tuple[str, ...], message: str) -> None:
    assert count_noun(n, *words) == message


def test_no_other_module_prints() -> None:
    """Text that is not printed by `utils/printing.py` or `utils/console.py` would not be escaped."""
    import poise

    top = Path(poise.__file__).parent
    ways = re.compile(
        r"^\s*print\(|typer\.echo|sys\.(stdout|stderr)\.write|rich\.markup|import .*\bConsole\b", re.MULTILINE
    )
    sinners = sorted(str(path) for path in top.rglob("*.py") if ways.search(_without_docstrings(path)))
    assert sinners == [str(top / "utils/console.py"), str(top / "utils/printing.py")]


def _without_docstrings(path: Path) -> str:
    return re.sub(r'""".*?"""', "", path.read_text("utf-8"), flags=re.DOTALL)


# ---- the console --------------------------------------------------------------------------------------


def terminal(*, colours: bool) -> tuple[TerminalConsole, io.StringIO]:
    out = io.StringIO()
    given = {"color_system": "truecolor", "force_terminal": True} if colours else {}
    return TerminalConsole(file=out, width=100, **given), out


@pytest.mark.parametrize("colours", [False, True])
def test_console_prints_text_literally(colours: bool) -> None:
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

    console, out = terminal(colours=colours)
    table = Table(box=None)
    table.add_column(HOSTILE)
    for cell in (HOSTILE, "[bold]x[/]", ":bug:", styled_text(("[red]" + HOSTILE, "bold"))):
        table.add_row(cell)
    console.print(table)
    console.print(HOSTILE, Text(HOSTILE), styled_text((HOSTILE, "dim")), "[bold]y[/bold]")
    with Live(Text(HOSTILE), console=console):
        pass
    result = out.getvalue()
    for one in ("\x1b[31m", "\x1b]", "\x07", "\b", "\x7f", "\x9b", "\u202e", "\u2066", "a\rb"):
        assert one not in result, ascii(one)
    assert result.count(r"\x1b[31mred\x1b]0;owned\x07 a\rb\x08\x7f\x9b1m \u202eevil\u2066") >= 4
    assert "[bold]x[/]" in result
    assert "[bold]y[/bold]" in result
    assert ":bug:" in result
    assert ("\x1b[1m" in result) == colours


# ---- streams that can't encode everything -------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "cp437", "utf-8"])
def test_stream_replaces_unencodable_characters(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    make_stream_lenient(sys.stdout)
    text = "± · ┊ ● ‖∇‖ σ² Ωmega → 漢"
    print_line(text)
    print_text(text)
    console = TerminalConsole()
    console.print(text)
    sys.stdout.flush()
    message = raw.getvalue().decode(encoding)
    assert len(message.splitlines()) == 3
    expected = {
        "ascii": r"+/- . | o |grad | sigma^2 omegamega \u2192 \u6f22",
        "utf-8": text,
    }
    if encoding in expected:
        assert set(message.splitlines()) == {expected[encoding]}
    assert r"\u6f22" in message or encoding == "utf-8"


def test_other_streams_are_unchanged() -> None:
    make_stream_lenient(None)
    other = io.StringIO()
    make_stream_lenient(other)
    other.write("é")


# ---- pictures of figures ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "backend",
    [
        "module://matplotlib_inline.backend_inline",
        "nonsense",
        *(pytest.param(other, marks=pytest.mark.slow) for other in ("module://nonsense", "tkagg")),
    ],
)
def test_backend_in_the_environment_is_ignored(backend: str, tmp_path: Path) -> None:
    (tmp_path / "home").touch()  # a folder that can't be made: matplotlib's own is nowhere
    script = f"""
import os
from poise.utils.plotting import as_png, new_figure
figure = new_figure(2, 1)
figure.subplots().set_title("\\u6f22\\x07")
assert as_png(figure).startswith(b"\\x89PNG")
assert os.environ["MPLBACKEND"] == {backend!r}
"""
    around = os.environ | {"MPLBACKEND": backend, "MPLCONFIGDIR": str(tmp_path / "home" / "x")}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=around, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_long_list_is_shortened() -> None:
    assert shorten_list(["a"]) == "a"
    assert shorten_list(list("abcdef")) == "a, b, c, d, e, f"
    assert shorten_list(list("abcdefgh")) == "a, b, c, d, e and 3 others"
