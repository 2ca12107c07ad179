"""Recipe files as plain dictionaries: TOML in, `--set` on top, TOML out. No torch, no models."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import tomli_w

from poise.errors import RecipeError
from poise.utils.printing import count_noun

Table = dict[str, Any]

NAME = r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}"
"""What a recipe or a run may be called."""

LARGEST = 1_000_000
DEEPEST = 50


def parse_toml(text: str, where: str) -> Table:
    """A TOML document as a dictionary.

    Raises:
        RecipeError: it is not TOML, or nested more than 50 deep; names file and line.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        number = re.search(r"at line (\d+)", str(error))
        line = text.split("\n")[int(number[1]) - 1].strip()[:60] if number else ""
        raise RecipeError(
            f"not valid TOML: {str(error).rstrip('.')}", where=where, found=line and ascii(line)
        ) from None
    except RecursionError:
        raise RecipeError(f"nested more than {DEEPEST} deep", where=where, cure="write it flatter") from None
    if _depth(table) > DEEPEST:
        raise RecipeError(f"nested more than {DEEPEST} deep", where=where, cure="write it flatter")
    return table


def read_file(path: Path) -> Table:
    """A recipe file as a dictionary; a byte order mark is accepted, an empty file is all defaults.

    Raises:
        RecipeError: it is missing, no regular file, larger than 1 MB, not UTF-8 or not TOML.
    """
    where = str(path)
    if not path.exists():
        raise RecipeError("no such recipe file", where=where)
    if not path.is_file():
        raise RecipeError("a recipe is a TOML file", where=where, found="something that is not a regular file")
    try:
        size = path.stat().st_size
        if size > LARGEST:
            raise RecipeError("a recipe is at most 1 MB", where=where, found=f"{count_noun(size, 'byte')}")
        raw = path.read_bytes()
    except OSError as error:
        raise RecipeError(f"can't be read: {error.strerror}", where=where) from None
    try:
        return parse_toml(raw.decode("utf-8-sig").replace("\r\n", "\n"), where)
    except UnicodeDecodeError:
        kind = "UTF-16 text" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "bytes that are not text"
        raise RecipeError("a recipe is UTF-8 text", where=where, found=kind, cure="save it as UTF-8") from None


def to_toml(table: Table) -> str:
    """A dictionary as TOML."""
    return tomli_w.dumps(table)


NONE = "none"
"""What `--set` says of a table that shall not be there; a field's "none" is written in quotes like all text."""


def set_value(table: Table, assignment: str) -> None:
    """Apply one `--set path=value` in place: a dotted path, a TOML value; `path+=value` adds a list's items to a list.

    `path=none` takes a whole table out. A path may lead into the tricks by their number or by their kind:
    `tricks.instance_noise.sigma=0.2`.

    Raises:
        RecipeError: no "=", an empty path, a value that is not TOML, a path through something that holds no keys, or
            items that are added to something that is no list.
    """
    path, equals, text = assignment.partition("=")
    path = path.strip()
    more = path.endswith("+")
    path = path.removesuffix("+").strip()
    keys = _keys(path)
    where = f"--set {assignment}"
    if not equals or not keys:
        raise RecipeError("--set takes path=value", where=where, cure="for example --set optimizer.d.lr=1e-4")
    if text.strip() == NONE and not more and _took_out(table, keys):
        return
    value = _value(path.strip(), text.strip(), where)
    here: Any = table
    for at, key in enumerate(keys[:-1]):
        here = _enter(here, key, ".".join(keys[:at]), where)
    if isinstance(here, list):
        last: Any = _place(here, keys[-1], ".".join(keys[:-1]), where)
    elif isinstance(here, dict):
        last = keys[-1]
    else:
        raise RecipeError(f"'{'.'.join(keys[:-1])}' is a single value and has no keys", where=where)
    if not more:
        here[last] = value
        return
    before = here.get(last, []) if isinstance(here, dict) else here[last]
    if not isinstance(before, list) or not isinstance(value, list):
        cure = "for example --set 'tricks+=[{kind=\"soft_labels\"}]'"
        raise RecipeError("'+=' adds items to a list", where=where, cure=cure)
    here[last] = [*before, *value]


def _took_out(table: Table, keys: list[str]) -> bool:
    """Take out the table at `keys`; whether there is one."""
    here: Any = table
    for key in keys[:-1]:
        here = here.get(key) if isinstance(here, dict) else None
    if not isinstance(here, dict) or not isinstance(here.get(keys[-1]), dict):
        return False
    del here[keys[-1]]
    return True


def _value(path: str, text: str, where: str) -> Any:
    if not text:
        raise RecipeError("no value after '='", where=where)
    try:
        table = parse_toml(f"value = {text}", where)
    except RecipeError:
        if re.fullmatch(r"[A-Za-z_./~-][\w./~ -]*", text):
            raise RecipeError(
                "text needs quotes in TOML", where=where, cure=f"write --set '{path}=\"{text}\"'"
            ) from None
        raise
    if len(table) > 1:
        raise RecipeError("one --set is one value", where=where, cure="write --set again for the next")
    return table["value"]


def _keys(path: str) -> list[str]:
    """The keys of a dotted path as TOML reads it, quoted ones too; none where it is no path."""
    try:
        here: Any = tomllib.loads(f"{path} = 0")
    except tomllib.TOMLDecodeError:
        return []
    keys: list[str] = []
    while isinstance(here, dict) and len(here) == 1:
        ((key, here),) = here.items()
        keys.append(key)
    return keys


def _enter(here: Any, key: str, so_far: str, where: str) -> Any:
    if isinstance(here, list):
        return here[_place(here, key, so_far, where)]
    if not isinstance(here, dict):
        raise RecipeError(f"'{so_far}' is a single value and has no keys", where=where)
    return here.setdefault(key, [] if key == "tricks" else {})


def _place(here: list[Any], key: str, so_far: str, where: str) -> int:
    if key.isdecimal() and int(key) < len(here):
        return int(key)
    there = [item.get("kind") if isinstance(item, dict) else None for item in here]
    if there.count(key) == 1:
        return there.index(key)
    listed = ", ".join(map(str, there)) or "nothing"
    cure = f"add it with --set '{so_far}+=[{{kind=\"{key}\"}}]'" if key not in there else "say which by its number"
    raise RecipeError(f"'{so_far}' has no single entry '{key}'", where=where, found=listed, cure=cure)


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level:
        depth += 1
        level = [
            child
            for item in level
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
        ]
    return depth
