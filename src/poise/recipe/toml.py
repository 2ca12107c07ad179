"""Recipe files as plain dictionaries: reads TOML, applies `--set` and writes TOML. Does not import torch."""

from __future__ import annotations

import re
import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import tomli_w

from poise.errors import RecipeError
from poise.utils.printing import count_noun

Table = dict[str, Any]

NAME = r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}"
"""The pattern of the names of recipes and runs."""

MAX_BYTES = 1_000_000
MAX_DEPTH = 50


def parse_toml(text: str, where: str) -> Table:
    """A TOML document as a dictionary.

    Raises:
        RecipeError: the text is not TOML, or is nested more than 50 levels deep; names file and line.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        number = re.search(r"at line (\d+)", str(error))
        line = text.split("\n")[int(number[1]) - 1].strip()[:60] if number else ""
        raise RecipeError(
            f"not valid TOML: {str(error).rstrip('.')}", where=where, found=line and ascii(line)
        ) from None
    except ValueError:  # Python's limit of the digits of an integer
        raise RecipeError("not valid TOML: a number has thousands of digits", where=where, cure="correct it") from None
    except RecursionError:
        raise RecipeError(f"nested more than {MAX_DEPTH} levels deep", where=where, cure="remove levels") from None
    if _depth(table) > MAX_DEPTH:
        raise RecipeError(f"nested more than {MAX_DEPTH} levels deep", where=where, cure="remove levels")
    return table


def read_file(path: Path, kind: str = "recipe") -> Table:
    """A recipe or another TOML file as a dictionary. A byte order mark is accepted, and an empty file is an empty one.

    Args:
        path: the file.
        kind: what it should be, for the messages.

    Raises:
        RecipeError: the file is missing, not a regular file, larger than 1 MB, not UTF-8 or not TOML.
    """
    where = str(path)
    if not path.exists():
        raise RecipeError(f"no such {kind} file", where=where)
    if not path.is_file():
        raise RecipeError(f"a {kind} must be a TOML file", where=where, found="something that is not a regular file")
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise RecipeError(f"a {kind} can have at most 1 MB", where=where, found=f"{count_noun(size, 'byte')}")
        raw = path.read_bytes()
    except OSError as error:
        raise RecipeError(f"can't be read: {error.strerror}", where=where) from None
    try:
        return parse_toml(raw.decode("utf-8-sig").replace("\r\n", "\n"), where)
    except UnicodeDecodeError:
        found = "UTF-16 text" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "bytes that are not text"
        raise RecipeError(f"a {kind} must be UTF-8 text", where=where, found=found, cure="save it as UTF-8") from None


def to_toml(table: Table) -> str:
    """A dictionary as TOML."""
    return tomli_w.dumps(table)


NONE = "none"
"""The value with which `--set` removes a table, or another entry of `OPTIONAL`.

A field's value "none" is written in quotes, like all text.
"""

OPTIONAL = (
    *("conditioning", "conditioning.d", "conditioning.g", "init", "log", "measure", "measure.domain", "monitor"),
    *("network.d", "network.e", "network.direction", "network.judges", "optimizer.d", "tricks"),
)
"""What a recipe can do without: removing a table, list or choice of these that is not there changes nothing."""


def set_value(table: Table, assignment: str) -> None:
    """Apply one `--set path=value` in place, with a dotted path and a TOML value; `path+=value` extends a list.

    `path=none` removes a table or a trick; if a table of `OPTIONAL` is not there, nothing changes. A trick is addressed
    by its index or by its kind: `tricks.instance_noise.sigma=0.2`.

    Raises:
        RecipeError: there is no "=", the path is empty or leads through a single value, the value is not TOML, or `+=`
            is applied to something that is not a list.
    """
    path, equals, text = assignment.partition("=")
    path = path.strip()
    extends = path.endswith("+")
    path = path.removesuffix("+").strip()
    keys = _keys(path)
    where = f"--set {assignment}"
    if not equals or not keys:
        raise RecipeError("--set takes path=value", where=where, cure="for example --set optimizer.d.lr=1e-4")
    if text.strip() == NONE and not extends:
        _remove(table, keys, where)
        return
    if extends and text.strip() and not text.strip().startswith("["):
        raise _not_a_list(where)
    if extends and keys != ["tricks"] and _is_missing(table, keys):
        what = f"'{'.'.join(keys)}' is not in the recipe, and items that are added would replace its default"
        raise RecipeError(what, where=where, cure=f"give the whole list: --set '{'.'.join(keys)}=[...]'")
    value = _value(path, text.strip(), where)
    parent: Any = table
    for depth, key in enumerate(keys[:-1]):
        parent = _child(parent, key, ".".join(keys[:depth]), where)
    if isinstance(parent, list):
        last: Any = _index(parent, keys[-1], ".".join(keys[:-1]), where)
    elif isinstance(parent, dict):
        last = keys[-1]
    else:
        raise RecipeError(f"'{'.'.join(keys[:-1])}' is a single value and has no keys", where=where)
    if not extends:
        parent[last] = value
        return
    before = parent.get(last, []) if isinstance(parent, dict) else parent[last]
    if not isinstance(before, list) or not isinstance(value, list):
        raise _not_a_list(where)
    parent[last] = [*before, *value]


def dotted_fields(value: Any, path: str = "") -> Table:
    """The values of a nested table by their dotted paths; tables in a list are numbered from 0."""
    if isinstance(value, dict):
        fields = [dotted_fields(item, f"{path}.{key}" if path else key) for key, item in value.items()]
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        fields = [dotted_fields(item, f"{path}.{i}") for i, item in enumerate(value)]
    else:
        return {path: value}
    return {name: leaf for table in fields for name, leaf in table.items()}


def _is_missing(table: Table, keys: list[str]) -> bool:
    """Whether a key is in none of the tables that lead to it; what is in a list is found by `_index`."""
    parent: Any = table
    for key in keys:
        if not isinstance(parent, dict):
            return False
        if key not in parent:
            return True
        parent = parent[key]
    return False


def _not_a_list(where: str) -> RecipeError:
    cure = "for example --set 'tricks+=[{kind=\"soft_labels\"}]'"
    return RecipeError("'+=' adds the items of a list to a list", where=where, cure=cure)


def _remove(table: Table, keys: list[str], where: str) -> None:
    """Remove the table at `keys`, which may be an item of a list, such as a trick, or all tricks.

    Raises:
        RecipeError: there is none, and it is not one of `OPTIONAL`; or a list has no such item, or more than one.
    """
    parent: Any = table
    for depth, key in enumerate(keys[:-1]):
        if isinstance(parent, list):
            parent = parent[_index(parent, key, ".".join(keys[:depth]), where)]
        else:
            parent = parent.get(key, [] if key == "tricks" else None) if isinstance(parent, dict) else None
    path, last = ".".join(keys), keys[-1]
    if isinstance(parent, list):
        del parent[_index(parent, last, ".".join(keys[:-1]), where, "only what is there can be removed")]
        return
    value = parent.get(last) if isinstance(parent, dict) else None
    if isinstance(value, dict) or (path in OPTIONAL and value is not None):
        del parent[last]
    elif path not in OPTIONAL:
        what = f"none removes a table or a trick, and '{path}' is neither"
        found = "nothing" if value is None else "a list" if isinstance(value, list) else f"{path} = {value!r}"
        cure = f"text needs quotes: --set '{path}=\"none\"'"
        if isinstance(value, list):
            cure = f"--set '{path}=[]' empties it"
        elif parent is table and value is None and (similar := get_close_matches(path, OPTIONAL, 1)):
            cure = f"did you mean '{similar[0]}'?"
        raise RecipeError(what, where=where, found=found, cure=cure)


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
        raise RecipeError("--set takes one value", where=where, cure="repeat --set for each value")
    return table["value"]


def _keys(path: str) -> list[str]:
    """The keys of a dotted path as TOML parses it, including quoted ones; an empty list if it is not a path."""
    try:
        value: Any = tomllib.loads(f"{path} = 0")
    except tomllib.TOMLDecodeError:
        return []
    keys: list[str] = []
    while isinstance(value, dict) and len(value) == 1:
        ((key, value),) = value.items()
        keys.append(key)
    return keys


def _child(parent: Any, key: str, parent_path: str, where: str) -> Any:
    """The value of `key` in a table or list; a missing one is created in a table."""
    if isinstance(parent, list):
        return parent[_index(parent, key, parent_path, where)]
    if not isinstance(parent, dict):
        raise RecipeError(f"'{parent_path}' is a single value and has no keys", where=where)
    return parent.setdefault(key, [] if key == "tricks" else {})


def _index(items: list[Any], key: str, path: str, where: str, cure: str = "") -> int:
    """The index of the item that `key` addresses, by its number or by a kind that occurs once."""
    if key.isdecimal() and int(key) < len(items):
        return int(key)
    kinds = [item.get("kind") if isinstance(item, dict) else None for item in items]
    if kinds.count(key) == 1:
        return kinds.index(key)
    found = ", ".join(map(str, kinds)) or "nothing"
    if key in kinds:
        raise RecipeError(
            f"'{path}' has more than one entry '{key}'", where=where, found=found, cure="give its number instead"
        )
    cure = cure or f"add it with --set '{path}+=[{{kind=\"{key}\"}}]'"
    raise RecipeError(f"'{path}' has no entry '{key}'", where=where, found=found, cure=cure)


def _depth(value: Any) -> int:
    """The number of levels of nested tables and lists."""
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
