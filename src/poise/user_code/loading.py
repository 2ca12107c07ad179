"""Letting code of the user's run: where it is, whether it may, what it left, and what is told if it fails."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from copy import deepcopy
from math import isfinite
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from pydantic import Field, ValidationError, field_validator

from poise.core.config import Config, did_you_mean, reject_value
from poise.errors import RecipeError

_allowed: set[Path] = set()
_copies: dict[Path, Path] = {}
"""What stands in for files that are not there."""


class ExecutedFile(NamedTuple):
    """Code that ran.

    Attributes:
        digest: SHA-256 of it, 16 hex digits.
        source: the code.
        names: what it left.
    """

    digest: str
    source: bytes
    names: dict[str, Any]


_loaded: dict[Path, ExecutedFile] = {}
"""By file."""


class UserCode(Config):
    """Where a part of the user's is found, and what it is built with."""

    file: str = Field(min_length=1)
    name: str = Field(min_length=1)
    options: dict[str, Any] = Field(default_factory=dict)

    @field_validator("options")
    @classmethod
    def _plain(cls, options: dict[str, Any]) -> dict[str, Any]:
        for key, value in options.items():
            if not _comes_back(value):
                cure = "take a finite number, text, true, false, or lists and tables of them"
                reject_value("a recipe can't hold this", found=f"{value!r}"[:60], key=key, cure=cure)
        return options

    def load(self) -> Any:
        """What the file calls `name`; the file is run once per process.

        Raises:
            RecipeError: it was not allowed to run, is not there, fails, or has no such name.
        """
        there = _once(self).names
        if self.name not in there:
            public = [name for name in there if not name.startswith("_")]
            raise RecipeError(
                "has no such part", where=self.file, found=self.name, cure=did_you_mean(self.name, public)
            )
        return there[self.name]

    def instantiate(self, *args: Any, **given: Any) -> Any:
        """The part, built with what the package gives it and the recipe's options."""
        try:
            return self.load()(*args, **given, **deepcopy(self.options))
        except RecipeError:
            raise
        except Exception as error:
            ours = isinstance(error, TypeError | ValidationError)
            cure = "compare with docs/custom-components.md" if ours else "see where with --debug"
            what = f"'{self.name}' can't be built"
            raise RecipeError(what, where=self.file, found=short_error(error), cure=cure) from error


def user_components(recipe: Config) -> list[UserCode]:
    """All components of a recipe that are user code, in the order of the recipe's fields."""
    return list(_user_code_in(recipe))


def _user_code_in(value: object) -> Iterator[UserCode]:
    if isinstance(value, UserCode):
        yield value
    elif isinstance(value, Config):
        for name in type(value).model_fields:
            yield from _user_code_in(getattr(value, name))
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _user_code_in(item)


def allow_user_code(recipe: Config, trust_code: bool) -> None:
    """Let the files that `recipe` names run from now on in this process, if the user trusts them.

    Raises:
        RecipeError: there are some, and the user has not said so.
    """
    for part in user_components(recipe):
        trust_file(Path(part.file), part.name, trust_code)


def trust_file(file: Path, name: str, trust_code: bool) -> None:
    """Let one file run from now on in this process, if the user trusts it.

    Args:
        file: where the code is.
        name: the part of it that is asked for.
        trust_code: whether it may.

    Raises:
        RecipeError: it may not.
    """
    if not trust_code:
        raise _untrusted(str(file), name)
    _allowed.add(file.resolve())


def code_hash(recipe: Config) -> dict[str, str]:
    """SHA-256 of each such file as it was when it ran, 16 hex digits, by its name: other code is another run."""
    return {part.file: _once(part).digest for part in user_components(recipe)}


def source_of(part: UserCode) -> bytes:
    """The code of a part as it was when it ran."""
    return _once(part).source


def use_copy(file: str, copy: Path) -> None:
    """Let `copy` be read in this process wherever a recipe names `file`, as long as that is not there."""
    _copies[Path(file).resolve()] = copy.resolve()


def _comes_back(value: Any) -> bool:
    """Whether an option is the same once it was written to a recipe and read again."""
    if isinstance(value, dict):
        return all(type(key) is str and _comes_back(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(_comes_back, value))
    return type(value) in (bool, int, str) or (type(value) is float and isfinite(value))


def _untrusted(file: str, name: str) -> RecipeError:
    cure = "read it, and pass --trust-code (trust_code=True) if it may"
    return RecipeError("this wants to run a Python file", where=file, found=name, cure=cure)


def _once(part: UserCode) -> ExecutedFile:
    """What the file left at its one run in this process."""
    path = Path(part.file).resolve()
    if path not in _allowed:
        raise _untrusted(part.file, part.name)
    if not path.exists():
        path = _copies.get(path, path)
    if path not in _loaded:
        _loaded[path] = _run(path, part.file)
    return _loaded[path]


def _run(path: Path, told: str) -> ExecutedFile:
    """Read once, so that what is hashed is what runs; a module of its own, as dataclasses and annotations need."""
    try:
        code = path.read_bytes()
    except OSError:
        raise RecipeError("can't be read", where=told, cure="the path is seen from where the command runs") from None
    digest = hashlib.sha256(code).hexdigest()[:16]
    if same := next((ran for ran in _loaded.values() if ran.digest == digest), None):
        return same  # a copy of what ran already
    module = ModuleType(f"_own_{digest}_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    try:
        exec(compile(code, str(path), "exec"), vars(module))
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        cure = "see where with --debug"
        raise RecipeError("fails when it is run", where=told, found=short_error(error), cure=cure) from error
    return ExecutedFile(digest, code, vars(module))


def short_error(error: BaseException) -> str:
    """An error of the user's code in one line."""
    told = str(error)
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        told = ": ".join([*map(str, first["loc"]), first["msg"]])
    return f"{type(error).__name__}: {told}".split("\n")[0]
