"""Errors of pydantic as one line: the path of a key, what is wrong with it, what was found, and how to fix it."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from poise.core.config import did_you_mean
from poise.errors import RecipeError
from poise.utils.printing import count_noun

ModelT = TypeVar("ModelT", bound=BaseModel)

MESSAGES = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "string_type": "must be text in quotes",
    "string_unicode": "must be text, but these bytes are not UTF-8",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "model_attributes_type": "must be a table",
    "missing": "is missing",
    "finite_number": "must be a finite number",
    "extra_forbidden": "is not known here",
    "string_pattern_mismatch": "must be 1 to 64 letters, digits, '.', '_' or '-', and not start with a dot",
}

LENGTHS = ("too_short", "too_long", "string_too_short", "string_too_long")


def validate(model: type[ModelT], table: Any, where: str = "") -> ModelT:
    """An instance of a pydantic model from a table.

    Args:
        model: the class.
        table: its values by name.
        where: what an error names before the key: a file, a table, an option.

    Raises:
        RecipeError: a key or a value is invalid; see `explain`.
    """
    try:
        return model.model_validate(table)
    except ValidationError as error:
        raise explain(error, table, where) from None


def explain(error: ValidationError, table: Any = None, where: str = "") -> RecipeError:
    """The first error of a validation, as an error for people.

    Args:
        error: the error of pydantic.
        table: what was validated; with it the path leaves out the tags of unions, which are not in a file.
        where: see `validate`.
    """
    details = error.errors(include_url=False)
    # a misspelt key may be the cause of a missing one, which is therefore reported last
    first = min(details, key=lambda detail: detail["type"] == "missing")
    return _explain_detail(first, table, where, len(details) - 1)


def _explain_detail(detail: ErrorDetails, table: Any, where: str, more: int) -> RecipeError:
    context: dict[str, Any] = detail.get("ctx", {})
    path = _path(detail["loc"], table)
    found, cure = _show(detail["input"]), ""
    if detail["type"] == "poise":
        path = ".".join(p for p in (path, context["key"]) if p)
        what, found, cure = context["what"], context["found"], context["cure"]
    elif detail["type"] in ("union_tag_invalid", "union_tag_not_found"):
        known = [tag.strip(" '") for tag in context.get("expected_tags", "").split(",") if tag]
        kind = detail["input"].get("kind") if isinstance(detail["input"], dict) else None
        what, found = ("has an unknown kind", _show(kind)) if kind is not None else ("needs a 'kind'", "")
        if known:
            cure = did_you_mean(str(kind), known) if kind is not None else f"one of {', '.join(known)}"
    elif detail["type"] in LENGTHS:
        what = _describe_length(detail["type"], context)
    elif detail["type"] == "literal_error":
        words = [word.strip(" '") for word in str(context["expected"]).replace(" or ", ",").split(",")]
        what, cure = f"must be {context['expected']}", did_you_mean(str(detail["input"]), words)
        cure = cure if "did you mean" in cure else ""
    else:
        what = MESSAGES.get(detail["type"], detail["msg"][:1].lower() + detail["msg"][1:])
        what = what.replace("input should be", "must be")
        found = "" if detail["type"] == "missing" else found
    cure += f" (and {more} more)" if more and cure else ""
    full_path = f"{where}: {path}" if where and path else where or path
    return RecipeError(what, where=full_path, found=found, cure=cure or (f"{more} more after this one" if more else ""))


def _describe_length(problem: str, context: dict[str, Any]) -> str:
    """What a list or a text of a wrong length must be."""
    unit = "character" if problem.startswith("string") else "value"
    if problem.endswith("short"):
        least = context["min_length"]
        return "must not be empty" if least == 1 else f"must have {count_noun(least, unit)} or more"
    return f"must have at most {count_noun(context['max_length'], unit)}"


def _path(loc: Sequence[int | str], table: Any) -> str:
    """Pydantic's location as a path in the file, without the tags of unions, which are not in the file."""
    parts: list[str] = []
    value = table
    for key in loc:
        child = value[key] if isinstance(value, dict) and key in value else None
        child = value[key] if isinstance(value, list) and isinstance(key, int) and key < len(value) else child
        if child is None and _is_tag(key, value):
            continue
        parts.append(str(key))
        value = child
    return ".".join(parts)


def _is_tag(key: int | str, value: Any) -> bool:
    kind = value.get("kind") if isinstance(value, dict) else "number"
    return key == kind or (key == "number" and not isinstance(value, dict)) or (key == "linear" and kind is None)


def _show(value: Any) -> str:
    """A value as TOML writes it, on one line of at most 60 characters."""
    text = {True: "true", False: "false"}.get(value) if isinstance(value, bool) else repr(value)
    if isinstance(value, datetime.date | datetime.time):
        text = value.isoformat()
    text = {dict: "a table", list: f"the list {value!r}"}.get(type(value), text) or ""
    return text if len(text) <= 60 else text[:57] + "..."
