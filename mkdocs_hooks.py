"""Hooks of the documentation site: the pages that are not files in `docs/`.

These are the Markdown files at the root of the repository, a table of options for each command, and one page per public
module of the package. Modules and commands are found, not listed, so nothing here changes when they do. Links that
leave `docs/` are rewritten: those to a module lead to its API page, those to any other file to a copy in the site.
"""

from __future__ import annotations

import ast
import posixpath
import re
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from typer.main import get_command

ROOT = Path(__file__).parent
DOCS = ROOT / "docs"
SOURCE = ROOT / "src"
PACKAGE = "poise"
API = "api"
ROOT_PAGES = {
    "index.md": ROOT / "README.md",
    "architecture.md": ROOT / "ARCHITECTURE.md",
    "contributing.md": ROOT / "CONTRIBUTING.md",
    "changelog.md": ROOT / "CHANGELOG.md",
}
"""Page of the site → file at the root of the repository."""

OPTIONS = "<!-- options of every command -->"
"""The line of a page that the options replace."""

LINK = re.compile(r"""(?P<before>\]\(|\b(?:src|href)=")(?P<target>[^)\s"]+)""")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Replace the entry `api` of the navigation by the tree of modules."""
    config.nav = _replaced(config.nav)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, and copies of the files outside `docs/` to which a page links."""
    for uri, path in ROOT_PAGES.items():
        files.append(File.generated(config, uri, content=path.read_text("utf-8")))
    for name, path in modules().items():
        files.append(File.generated(config, api_page(path), content=api_text(name, path)))
    for path in sorted(_linked_files(files)):
        files.append(File.generated(config, site_path(path), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links that leave `docs/` into the site, and insert the options of the commands."""
    uri = page.file.src_uri
    if uri.startswith(f"{API}/"):
        return markdown
    folder = posixpath.dirname(uri)

    def rewrite(link: re.Match[str]) -> str:
        target = resolve(link["target"], origin(uri))
        if target is None:
            return link[0]
        fragment = link["target"].partition("#")[2]
        return link["before"] + posixpath.relpath(site_path(target), folder or ".") + (fragment and f"#{fragment}")

    return LINK.sub(rewrite, markdown).replace(OPTIONS, options_text() if OPTIONS in markdown else "")


def modules() -> dict[str, Path]:
    """Every public module of the package by its dotted name; a package stands before its modules."""
    found: dict[str, Path] = {}
    for path in SOURCE.joinpath(PACKAGE).rglob("*.py"):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if not any(part.startswith("_") for part in parts):
            found[".".join(parts)] = path
    return dict(sorted(found.items(), key=lambda item: item[0].split(".")))


def api_page(path: Path) -> str:
    """The page of the module in this file."""
    name = "index" if path.name == "__init__.py" else path.stem
    return posixpath.join(API, path.relative_to(SOURCE).parent.as_posix(), f"{name}.md")


def api_text(name: str, path: Path) -> str:
    """The source of a module's page; that of a package lists its modules."""
    text = f"---\ntitle: {name}\n---\n\n::: {name}\n"
    if path.name != "__init__.py":
        return text
    inside = {other: at for other, at in modules().items() if other.rpartition(".")[0] == name}
    folder = posixpath.dirname(api_page(path))
    lines = [f"- [`{other}`]({posixpath.relpath(api_page(at), folder)}): {summary(at)}" for other, at in inside.items()]
    return text + ("\n## Modules\n\n" + "\n".join(lines) + "\n" if lines else "")


def summary(path: Path) -> str:
    """The first paragraph of a module's docstring, in one line."""
    docstring = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return " ".join(docstring.partition("\n\n")[0].split())


def api_tree(name: str = PACKAGE) -> list[Any]:
    """The navigation of a package: its own page, then its modules and packages."""
    found = modules()
    inside = [other for other in found if other.rpartition(".")[0] == name]
    entries: list[Any] = [api_page(found[name])]
    for other in inside:
        own = other.rpartition(".")[2]
        entries.append({own: api_tree(other) if found[other].name == "__init__.py" else api_page(found[other])})
    return entries


def _replaced(entry: Any) -> Any:
    if isinstance(entry, list):
        return [_replaced(item) for item in entry]
    if isinstance(entry, dict):
        return {title: _replaced(item) for title, item in entry.items()}
    return api_tree() if entry == API else entry


def origin(uri: str) -> Path:
    """The file in the repository of which this page is made."""
    return ROOT_PAGES.get(uri, DOCS / uri)


def resolve(target: str, page: Path) -> Path | None:
    """The file to which a link of this page leads, or None where that is no file of the repository."""
    path = target.partition("#")[0]
    if not path or "://" in path:
        return None
    found = (page.parent / path).resolve()
    return found if found.exists() and found.is_relative_to(ROOT) else None


def site_path(path: Path) -> str:
    """Where a file of the repository stands in the site, relative to its root."""
    for uri, at in ROOT_PAGES.items():
        if path == at:
            return uri
    if path.is_relative_to(DOCS):
        return path.relative_to(DOCS).as_posix()
    module = path / "__init__.py" if path.is_dir() else path
    return api_page(module) if module in modules().values() else f"files/{path.relative_to(ROOT).as_posix()}"


def _linked_files(files: Files) -> set[Path]:
    found = set()
    for file in files.documentation_pages():
        links = LINK.finditer(file.content_string)
        targets = {resolve(link["target"], origin(file.src_uri)) for link in links}
        found |= {path for path in targets if path and path.is_file() and site_path(path).startswith("files/")}
    return found


def options_text() -> str:
    """Each command of the package's command line with its arguments and options."""
    (script,) = entry_points(group="console_scripts", name=PACKAGE)
    scope = vars(__import__(script.module, fromlist=["*"]))
    (app,) = {value for value in scope.values() if isinstance(value, typer.Typer)}
    group = get_command(app)
    texts = []
    for name, command in group.commands.items():
        context = command.make_context(name, [], resilient_parsing=True)
        rows = [parameter.get_help_record(context) for parameter in command.params]
        table = [f"| `{_cell(row[0])}` | {_cell(row[1])} |" for row in rows if row]
        head = [f"## poise {name}", "", command.help, ""]
        texts.append("\n".join([*head, "| argument or option | description |", "|---|---|", *table, ""]))
    return "\n".join(texts)


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")
