"""Executes Python files of the user: only trusted ones, each version once per process, with readable errors.

A file that has been edited is executed anew when its next use begins: when a training starts or a run is opened. What
was made of the former version keeps its code.
"""

from __future__ import annotations

import hashlib
import sys
import traceback
from collections.abc import Iterator
from copy import deepcopy
from math import isfinite
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from pydantic import Field, ValidationError, field_validator

from poise.core.config import Config, did_you_mean, reject_value
from poise.errors import RecipeError

COMPARE = "compare with docs/custom-components.md"
"""What to do about a component that is not what poise expects."""

_trusted: set[Path] = set()
_copies: dict[Path, Path] = {}
"""Copies that are used for missing files, by the path of the file."""
_originals: dict[Path, Path] = {}
"""The files that copies were made of, by the path of the copy."""


class ExecutedFile(NamedTuple):
    """A Python file that was executed.

    Attributes:
        digest: SHA-256 of the code, 16 hex digits.
        source: the code.
        names: the module's global names.
        file: the file as the recipe names it.
    """

    digest: str
    source: bytes
    names: dict[str, Any]
    file: str


_executed: dict[Path, ExecutedFile] = {}
"""The newest version of each file that was executed in this process, by path."""


class UserCode(Config):
    """The location of a custom component and the options that it is constructed with."""

    file: str = Field(min_length=1)
    name: str = Field(min_length=1)
    options: dict[str, Any] = Field(default_factory=dict)

    @field_validator("options")
    @classmethod
    def _check_options(cls, options: dict[str, Any]) -> dict[str, Any]:
        for key, value in options.items():
            if not _survives_toml(value):
                cure = "use a finite number, text, true, false, or lists and tables of them"
                reject_value("a recipe can't contain this value", found=f"{value!r}"[:60], key=key, cure=cure)
        return options

    def reset(self) -> None:
        """Forget what was made of the file, which may have been edited since."""

    def load(self) -> Any:
        """The object called `name` in the file, which is executed once unless it is edited.

        Raises:
            RecipeError: the file is not trusted, is missing, fails, or has no such name.
        """
        names = _execute_once(self).names
        if self.name not in names:
            public = [name for name in names if not name.startswith("_")]
            cure = did_you_mean(self.name, public)
            raise RecipeError("the file has no such name", where=self.file, found=self.name, cure=cure)
        return names[self.name]

    def instantiate(self, *args: Any, **kwargs: Any) -> Any:
        """Construct the component from the given arguments and the recipe's options.

        Raises:
            RecipeError: see `load`, or the constructor raises.
        """
        try:
            return self.load()(*args, **kwargs, **deepcopy(self.options))
        except RecipeError:
            raise
        except Exception as error:
            wrong_arguments = isinstance(error, TypeError | ValidationError)
            cure = COMPARE if wrong_arguments else "see the traceback with --debug"
            what = f"'{self.name}' can't be constructed"
            raise RecipeError(what, where=self.file, found=short_error(error), cure=cure) from error


def user_components(recipe: Config) -> list[UserCode]:
    """All custom components of a recipe, in the order of its fields."""
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
    """Allow the files that a recipe names to be executed in this process, if the user trusts them, as they are now.

    Raises:
        RecipeError: the recipe names a file, and `trust_code` is False.
    """
    for component in user_components(recipe):
        trust_file(Path(component.file), component.name, trust_code)
        component.reset()


def trust_file(file: Path, name: str, trust_code: bool) -> None:
    """Allow one file to be executed in this process, if the user trusts it, and anew if it has been edited.

    Args:
        file: the Python file.
        name: the name in it that is needed, for the message.
        trust_code: whether the user trusts the file.

    Raises:
        RecipeError: `trust_code` is False.
    """
    if not trust_code:
        raise _untrusted(str(file), name)
    path = file.resolve()
    _trusted.add(path)
    if path in _executed and digest_of_file(path) not in (_executed[path].digest, None):
        del _executed[path]


def digest_of(code: bytes) -> str:
    """SHA-256 of code, 16 hex digits."""
    return hashlib.sha256(code).hexdigest()[:16]


def digest_of_file(path: Path) -> str | None:
    """That of a file's contents; None if it can't be read."""
    try:
        return digest_of(path.read_bytes())
    except OSError:
        return None


def code_hash(recipe: Config) -> dict[str, str]:
    """SHA-256 of each Python file as it was executed, 16 hex digits, by path."""
    return {component.file: _execute_once(component).digest for component in user_components(recipe)}


def source_of(component: UserCode) -> bytes:
    """The code of a component's file as it was executed."""
    return _execute_once(component).source


def use_copy(file: str, copy: Path) -> None:
    """Use `copy` in this process wherever a recipe names `file`, as long as that is missing."""
    _copies[Path(file).resolve()] = copy.resolve()
    register_copy(file, copy)


def register_copy(file: str, copy: Path) -> None:
    """Tell that `copy` was made of `file`, so that equal code of both is executed only once in this process."""
    _originals[copy.resolve()] = Path(file).resolve()


def _survives_toml(value: Any) -> bool:
    """Whether a value is unchanged after it is written to TOML and read again."""
    if isinstance(value, dict):
        return all(type(key) is str and _survives_toml(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(_survives_toml, value))
    return type(value) in (bool, int, str) or (type(value) is float and isfinite(value))


def _untrusted(file: str, name: str) -> RecipeError:
    cure = "read the file, and allow it with --trust-code (trust_code=True)"
    return RecipeError("this would execute a Python file", where=file, found=name, cure=cure)


def _execute_once(component: UserCode) -> ExecutedFile:
    """The component's file, executed at the first call since it was edited."""
    path = Path(component.file).resolve()
    if path not in _trusted:
        raise _untrusted(component.file, component.name)
    if not path.exists():
        path = _copies.get(path, path)
    if path not in _executed:
        _executed[path] = _execute(path, component.file)
    return _executed[path]


def _execute(path: Path, file: str) -> ExecutedFile:
    """Execute a file, which is read only once so that the hash is that of the executed code.

    It becomes a module in `sys.modules`, which dataclasses and annotations need, and can import the modules in its
    folder, as a script can. `file` is the path for messages.
    """
    try:
        code = path.read_bytes()
    except OSError:
        cure = "paths are relative to the working directory"
        raise RecipeError("can't be read", where=file, cure=cure) from None
    digest = digest_of(code)
    original = _originals.get(path, path)
    for other, executed in _executed.items():
        if executed.digest == digest and _originals.get(other, other) == original:
            return executed
    module = ModuleType(_new_module_name(f"_user_code_{digest}_{path.stem}"))
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    try:
        exec(compile(code, str(path), "exec", dont_inherit=True), vars(module))
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        cure = "see the traceback with --debug"
        if isinstance(error, ModuleNotFoundError):
            cure = f"install it, or put it into {path.parent}"
        raise RecipeError("fails when it is executed", where=file, found=short_error(error), cure=cure) from error
    return ExecutedFile(digest, code, vars(module), file)


def _new_module_name(name: str) -> str:
    """The name, numbered if it is taken.

    Equal files in two folders are two modules, as each may read its own folder.
    """
    free, n = name, 1
    while free in sys.modules:
        n += 1
        free = f"{name}_{n}"
    return free


def fault_of_user_code(error: BaseException) -> RecipeError | None:
    """The exception as an error of the Python file of the user in which it was raised; None if it was elsewhere.

    What the file calls belongs to it: the innermost of its functions is named, with the line.
    """
    files = {executed.names.get("__file__"): executed.file for executed in _executed.values()}
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        if (file := files.get(frame.f_code.co_filename)) is not None:
            what = f"'{frame.f_code.co_qualname}' fails in line {line}"
            return RecipeError(what, where=file, found=short_error(error), cure="see the traceback with --debug")
    return None


def short_error(error: BaseException) -> str:
    """An exception of the user's code in one line."""
    text = str(error)
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        text = ": ".join([*map(str, first["loc"]), first["msg"]])
    name = type(error).__name__
    return f"{name}: {text}".split("\n")[0] if text else name


def describe_result(value: object) -> str:
    """What the user's code has returned, in a few words: the shape of a tensor, the parts of a tuple, else the type.

    For example "a tuple of 2: a 0-dim tensor, a tensor of shape 8x5".
    """
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}: {', '.join(map(describe_result, value))}" if value else "an empty tuple"
    if (shape := getattr(value, "shape", None)) is not None:
        return f"a tensor of shape {'x'.join(map(str, shape))}" if len(shape) else "a 0-dim tensor"
    return "None" if value is None else type(value).__name__
