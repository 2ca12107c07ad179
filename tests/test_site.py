"""What the documentation site is made of: docstrings, API pages, the options of the commands, links that leave `docs/`.

`make docs` builds the whole site; CI runs it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def hooks() -> Iterator[ModuleType]:
    pytest.importorskip("mkdocs")
    sys.path.insert(0, str(ROOT))
    import mkdocs_hooks

    yield mkdocs_hooks
    sys.path.remove(str(ROOT))


def rewritten(hooks: ModuleType, markdown: str, uri: str) -> str:
    page: Any = SimpleNamespace(file=SimpleNamespace(src_uri=uri))
    return hooks.on_page_markdown(markdown, page, None, None)


def test_a_page_for_each_public_module(hooks: ModuleType) -> None:
    files = {path for path in ROOT.glob("src/poise/**/*.py") if path.name != "__main__.py"}
    assert set(hooks.modules().values()) == files
    assert all("__" not in name for name in hooks.modules())
    pages = [hooks.api_page(path) for path in hooks.modules().values()]
    assert len(set(pages)) == len(pages)


def test_private_modules_have_none(hooks: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("__init__.py", "__main__.py", "_hidden.py", "open.py", "_rooms/inside.py", "room/__init__.py"):
        path = tmp_path / "poise" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('"""A summary\nof two lines.\n\nMore.\n"""\n')
    monkeypatch.setattr(hooks, "SOURCE", tmp_path)
    assert list(hooks.modules()) == ["poise", "poise.open", "poise.room"]
    assert hooks.api_tree() == [
        "api/poise/index.md",
        {"open": "api/poise/open.md"},
        {"room": ["api/poise/room/index.md"]},
    ]
    text = hooks.api_text("poise", hooks.modules()["poise"])
    assert "- [`poise.open`](open.md): A summary of two lines." in text
    assert "- [`poise.room`](room/index.md)" in text


def test_every_module_is_in_the_tree(hooks: ModuleType) -> None:
    def leaves(entry: Any) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        return [leaf for item in (entry.values() if isinstance(entry, dict) else entry) for leaf in leaves(item)]

    assert sorted(leaves(hooks.api_tree())) == sorted(map(hooks.api_page, hooks.modules().values()))


@pytest.mark.parametrize(
    ("uri", "link", "there"),
    [
        ("index.md", "](docs/data.md#classes)", "](data.md#classes)"),
        ("index.md", "](src/poise/__init__.py)", "](api/poise/index.md)"),
        ("index.md", "](LICENSE)", "](files/LICENSE)"),
        ("index.md", "](https://example.org/a.md)", "](https://example.org/a.md)"),
        ("index.md", '<img src="docs/images/ring.png">', '<img src="images/ring.png">'),
        ("data.md", "](recipes.md)", "](recipes.md)"),
        ("data.md", "](#here)", "](#here)"),
        ("notes/zoo.md", "](../../ARCHITECTURE.md)", "](../architecture.md)"),
        ("notes/zoo.md", "](../../src/poise/__init__.py)", "](../api/poise/index.md)"),
        ("notes/zoo.md", "](../../README.md)", "](../index.md)"),
        ("notes/zoo.md", "](nowhere.md)", "](nowhere.md)"),
    ],
)
def test_links_lead_into_the_site(hooks: ModuleType, uri: str, link: str, there: str) -> None:
    assert rewritten(hooks, link, uri) == there


def test_the_options_of_every_command(hooks: ModuleType) -> None:
    text = rewritten(hooks, f"# Commands\n\n{hooks.OPTIONS}\n", "commands.md")
    assert "## poise train\n" in text
    assert re.search(r"^\| `--resume` \| \S", text, re.M)
    assert hooks.OPTIONS not in text


def test_the_sections_of_every_docstring_can_be_parsed(caplog: pytest.LogCaptureFixture) -> None:
    """Arguments are those of the signature, one to a line; errors have a type. The site is built from them."""
    griffe = pytest.importorskip("griffe")
    package = griffe.load("poise", search_paths=[ROOT / "src"], allow_inspection=False)

    def parse(thing: Any) -> int:
        members = [member for member in thing.members.values() if not member.is_alias]
        return sum(map(parse, members)) + (len(thing.docstring.parse("google")) if thing.docstring else 0)

    assert parse(package) > 1000
    assert not [record.getMessage() for record in caplog.records]
