"""The sources and the built files of the page: how text reaches it, what it may load, and that both agree."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WEB = ROOT / "web"
STATIC = ROOT / "src/poise/web/static"

SOURCES = sorted((WEB / "src").rglob("*.ts"))
BUILT = sorted(path for path in STATIC.rglob("*") if path.is_file())

MARKUP = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|DOMParser|setHTMLUnsafe"
    r"|srcdoc|javascript:|\beval\(|new Function|\bset(?:Timeout|Interval)\([\"'`]"
)
"""Ways in which text becomes markup or code."""

ADDRESS = re.compile(r"(?:https?|wss?):?//[^\s\"'`)]*|url\(\s*[\"']?//[^)]*")


@pytest.mark.parametrize(
    "path", SOURCES + [path for path in BUILT if path.suffix != ".svg"], ids=lambda path: path.name
)
def test_text_never_becomes_markup_or_code(path: Path) -> None:
    assert MARKUP.findall(path.read_text()) == []


@pytest.mark.parametrize("path", BUILT, ids=lambda path: path.name)
def test_the_built_page_names_no_outside_address(path: Path) -> None:
    addresses = {address.rstrip("\\,;") for address in ADDRESS.findall(path.read_text())}
    assert addresses <= {"http://www.w3.org/2000/svg"}, "the name space of SVG is a name, all others are addresses"


def test_the_page_has_no_inline_script_or_style() -> None:
    page = (STATIC / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=", page)
    assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", page))


def test_the_names_of_the_built_files_are_stable() -> None:
    names = [str(path.relative_to(STATIC)) for path in BUILT]
    assert names == ["assets/icon.svg", "assets/page.css", "assets/page.js", "index.html"]


def test_the_built_page_is_that_of_the_sources(tmp_path: Path) -> None:
    npx = shutil.which("npx")
    if npx is None:
        pytest.skip("the page is not built anew: Node is not installed")
    if not (WEB / "node_modules/vite").exists():
        pytest.skip("the page is not built anew: `make page` has not installed the packages of web/package-lock.json")
    command = [npx, "vite", "build", "--outDir", str(tmp_path), "--emptyOutDir", "--logLevel", "warn"]
    subprocess.run(command, cwd=WEB, check=True, timeout=120)
    built = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert built == {str(path.relative_to(STATIC)): path.read_bytes() for path in BUILT}, "run `make page` and commit"
