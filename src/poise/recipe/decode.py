"""From a dictionary to a recipe, with errors that name the path, what was found and what to do."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from poise.core.config import did_you_mean
from poise.errors import RecipeError
from poise.recipe.model import Recipe
from poise.recipe.toml import Table

TYPES = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "string_type": "must be text in quotes",
    "string_unicode": "must be text, and these bytes are no UTF-8",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "model_attributes_type": "must be a table",
    "missing": "is missing",
    "finite_number": "must be a finite number",
    "extra_forbidden": "is not known here",
    "string_pattern_mismatch": "must be 1 to 64 letters, digits, '.', '_' or '-', and start with no dot",
}


def decode(table: Table, where: str = "") -> Recipe:
    """The recipe that `table` describes.

    Args:
        table: what a TOML file held.
        where: the file or name it came from, for the message.

    Raises:
        RecipeError: about the first thing that is wrong, in one line.
    """
    try:
        return Recipe.model_validate(table)
    except ValidationError as error:
        details = error.errors(include_url=False)
        first = min(details, key=lambda detail: detail["type"] == "missing")  # a misspelt key explains a missing one
        raise _explain(first, table, where, len(details) - 1) from None


def _explain(detail: ErrorDetails, table: Table, where: str, more: int) -> RecipeError:
    context: dict[str, Any] = detail.get("ctx", {})
    path = _path(detail["loc"], table)
    found, cure = _show(detail["input"]), ""
    if detail["type"] == "poise":
        path = ".".join(p for p in (path, context["key"]) if p)
        what, found, cure = context["what"], context["found"], context["cure"]
    elif detail["type"] in ("union_tag_invalid", "union_tag_not_found"):
        known = [tag.strip(" '") for tag in context.get("expected_tags", "").split(",") if tag]
        given = detail["input"].get("kind") if isinstance(detail["input"], dict) else None
        what, found = ("has an unknown kind", _show(given)) if given is not None else ("needs a 'kind'", "")
        cure = (
            did_you_mean(str(given), known)
            if given is not None and known
            else f"one of {', '.join(known)}"
            if known
            else ""
        )
    elif detail["type"] == "literal_error":
        words = [word.strip(" '") for word in str(context["expected"]).replace(" or ", ",").split(",")]
        what, cure = f"must be {context['expected']}", did_you_mean(str(detail["input"]), words)
        cure = cure if "did you mean" in cure else ""
    else:
        what = TYPES.get(detail["type"], detail["msg"][:1].lower() + detail["msg"][1:])
        what = what.replace("input should be", "must be").replace("or equal to ", "or equal to ")
        found = "" if detail["type"] == "missing" else found
    cure += f" (and {more} more)" if more and cure else ""
    place = f"{where}: {path}" if where and path else where or path
    return RecipeError(what, where=place, found=found, cure=cure or (f"{more} more after this one" if more else ""))


def _path(loc: Sequence[int | str], table: Any) -> str:
    """pydantic's location as a path in the file: the tags of unions, which the file does not have, left out."""
    parts: list[str] = []
    here = table
    for key in loc:
        inside = here[key] if isinstance(here, dict) and key in here else None
        inside = here[key] if isinstance(here, list) and isinstance(key, int) and key < len(here) else inside
        if inside is None and _is_tag(key, here):
            continue
        parts.append(str(key))
        here = inside
    return ".".join(parts)


def _is_tag(key: int | str, here: Any) -> bool:
    kind = here.get("kind") if isinstance(here, dict) else "number"
    return key == kind or (key == "number" and not isinstance(here, dict)) or (key == "linear" and kind is None)


def _show(value: Any) -> str:
    """What was found, short and on one line, in TOML's words."""
    told = {True: "true", False: "false"}.get(value) if isinstance(value, bool) else repr(value)
    if isinstance(value, datetime.date | datetime.time):
        told = value.isoformat()
    told = {dict: "a table", list: f"the list {value!r}"}.get(type(value), told) or ""
    return told if len(told) <= 60 else told[:57] + "..."
