"""Own parts: a generator, a discriminator, an objective or a trick from a Python file of the user's.

    [network.g]
    kind = "python"
    file = "mine.py"            # seen from where the command runs
    name = "Sketcher"           # called with latent, shape and the options
    options = { width = 32 }

Such a file is code, and a recipe may come from anybody: nothing of it runs before `allow` was told that it may
(`--trust-code`, `trust_code=True`). What is read of a recipe without that is text.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from copy import deepcopy
from functools import cached_property
from math import isfinite
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field, ValidationError, field_validator
from torch import Tensor, nn

from poise.core import Judgement, Said, Shape, Side, Verdict
from poise.entries import Entry, complain, nearest
from poise.errors import RecipeError
from poise.networks.blocks import Discriminator, Generator
from poise.objectives.base import Objective, Rule
from poise.seams import Aim, Trick
from poise.tricks.base import TrickEntry

if TYPE_CHECKING:
    from poise.recipe.model import Recipe

_allowed: set[Path] = set()
_loaded: dict[Path, tuple[str, dict[str, Any]]] = {}
"""By file: the hash of the code that ran, and the names it left."""

TRIED = 5
"""How many samples a network is tried on before anything is written."""


class Own(Entry):
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
                complain("a recipe can't hold this", found=f"{value!r}"[:60], key=key, cure=cure)
        return options

    def load(self) -> Any:
        """What the file calls `name`; the file is run once per process.

        Raises:
            RecipeError: it was not allowed to run, is not there, fails, or has no such name.
        """
        there = _once(self)[1]
        if self.name not in there:
            public = [name for name in there if not name.startswith("_")]
            raise RecipeError("has no such part", where=self.file, found=self.name, cure=nearest(self.name, public))
        return there[self.name]

    def made(self, *args: Any, **given: Any) -> Any:
        """The part, built with what the package gives it and the recipe's options."""
        try:
            return self.load()(*args, **given, **deepcopy(self.options))
        except RecipeError:
            raise
        except Exception as error:
            ours = isinstance(error, TypeError | ValidationError)
            cure = "compare with docs/own-parts.md" if ours else "see where with --debug"
            what = f"'{self.name}' can't be built"
            raise RecipeError(what, where=self.file, found=_short(error), cure=cure) from error


def own_parts(recipe: Recipe) -> list[Own]:
    """All parts of a recipe that are code of the user's."""
    parts = (recipe.network.g, recipe.network.d, recipe.objective, *recipe.tricks)
    return [part for part in parts if isinstance(part, Own)]


def allow(recipe: Recipe, trust_code: bool) -> None:
    """Let the files that `recipe` names run from now on in this process, if the user trusts them.

    Raises:
        RecipeError: there are some, and the user has not said so.
    """
    for part in own_parts(recipe):
        if not trust_code:
            raise _untrusted(part)
        _allowed.add(Path(part.file).resolve())


def code_hash(recipe: Recipe) -> dict[str, str]:
    """SHA-256 of each such file as it was when it ran, 16 hex digits, by its name: other code is another run."""
    return {part.file: _once(part)[0] for part in own_parts(recipe)}


def _comes_back(value: Any) -> bool:
    """Whether an option is the same once it was written to a recipe and read again."""
    if isinstance(value, dict):
        return all(type(key) is str and _comes_back(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(_comes_back, value))
    return type(value) in (bool, int, str) or (type(value) is float and isfinite(value))


def _untrusted(part: Own) -> RecipeError:
    cure = "read it, and pass --trust-code (trust_code=True) if it may"
    return RecipeError("this recipe wants to run a Python file", where=part.file, found=part.name, cure=cure)


def _once(part: Own) -> tuple[str, dict[str, Any]]:
    """The file's hash and names, from its one run in this process."""
    path = Path(part.file).resolve()
    if path not in _allowed:
        raise _untrusted(part)
    if path not in _loaded:
        _loaded[path] = _run(path, part.file)
    return _loaded[path]


def _run(path: Path, told: str) -> tuple[str, dict[str, Any]]:
    """Read once, so that what is hashed is what runs; a module of its own, as dataclasses and annotations need."""
    try:
        code = path.read_bytes()
    except OSError:
        raise RecipeError("can't be read", where=told, cure="the path is seen from where the command runs") from None
    digest = hashlib.sha256(code).hexdigest()[:16]
    module = ModuleType(f"_own_{digest}_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    try:
        exec(compile(code, str(path), "exec"), vars(module))
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        cure = "see where with --debug"
        raise RecipeError("fails when it is run", where=told, found=_short(error), cure=cure) from error
    return digest, vars(module)


def _short(error: BaseException) -> str:
    """An error of the user's code in one line."""
    told = str(error)
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        told = ": ".join([*map(str, first["loc"]), first["msg"]])
    return f"{type(error).__name__}: {told}".splitlines()[0]


@torch.no_grad()
def _tried(part: Own, net: nn.Module, few: Tensor) -> Any:
    """What the network answers to a few zeros, before anything is written."""
    training = net.training
    try:
        return net.eval()(few)
    except Exception as error:
        what = f"'{part.name}' fails on {'x'.join(map(str, few.shape))}"
        raise RecipeError(what, where=part.file, found=_short(error), cure="see where with --debug") from error
    finally:
        net.train(training)


def _fits(part: Own, made: Any, *wanted: tuple[int, ...]) -> None:
    if not isinstance(made, Tensor) or tuple(made.shape) not in wanted:
        words = " or ".join("x".join(map(str, ("B", *shape[1:]))) for shape in wanted)
        found = "x".join(map(str, made.shape)) if isinstance(made, Tensor) else type(made).__name__
        cure = f"B is {TRIED} here"
        raise RecipeError(f"'{part.name}' must make {words}", where=part.file, found=found, cure=cure)


def _wanted(part: Own, made: Any, what: type, words: str) -> Any:
    if not isinstance(made, what):
        raise RecipeError(f"'{part.name}' must be {words}", where=part.file, found=type(made).__name__)
    return made


class OwnGenerator(Own, Generator):
    """A generator: `name(latent=..., shape=..., **options)` is a module from B x latent to B x shape."""

    kind: Literal["python"] = "python"
    likes_bf16: ClassVar[bool] = False
    norm: ClassVar[str] = "own"

    def build(self, latent: int, shape: Shape) -> nn.Module:
        """What the file makes."""
        net = _wanted(self, self.made(latent=latent, shape=shape), nn.Module, "a torch.nn.Module")
        if not getattr(net, "takes_labels", False):
            _fits(self, _tried(self, net, torch.zeros(TRIED, latent)), (TRIED, *shape))
        return net


class OwnDiscriminator(Own, Discriminator):
    """A discriminator: `name(shape=..., **options)` is a module from B x shape to B scores, B x 1, or a `Verdict`.

    An attribute `says = "energy"` of the class tells that the score is minus an energy; an attribute `width` of
    the module, how long the features of its verdict are.
    """

    kind: Literal["python"] = "python"
    likes_bf16: ClassVar[bool] = False

    @property
    def says(self) -> Judgement:
        """A score, unless the class says otherwise."""
        return getattr(self.load(), "says", "score")

    def build(self, shape: Shape) -> nn.Module:
        """What the file makes, with a verdict around it."""
        net = _wanted(self, self.made(shape=shape), nn.Module, "a torch.nn.Module")
        said = _tried(self, net, torch.zeros(TRIED, *shape))
        if isinstance(said, Verdict):
            _fits(self, said.score, (TRIED,))
            if said.features is not None:
                _fits(self, said.features, (TRIED, getattr(net, "width", 0)))
        else:
            _fits(self, said, (TRIED,), (TRIED, 1))
        return Spoken(net)


class Spoken(nn.Module):
    """A network that may answer with scores alone."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.width = net, getattr(net, "width", None)

    def forward(self, images: Tensor) -> Verdict:
        """What D says."""
        said = self.net(images)
        return said if isinstance(said, Verdict) else Verdict(said.flatten())


class OwnObjective(Own, Objective):
    """An objective: `name(**options)` is a `poise.objectives.base.Objective`, whose declarations hold."""

    kind: Literal["python"] = "python"

    @cached_property
    def told(self) -> Objective:
        """The objective that the file makes."""
        return _wanted(self, self.made(), Objective, "a poise.objectives.base.Objective")

    def __getattribute__(self, name: str) -> Any:
        """What an objective declares is asked of the one in the file."""
        return getattr(self.told, name) if name in _DECLARED else super().__getattribute__(name)

    def build(self) -> Rule[Any]:
        """The file's own rule."""
        return self.told.build()


_DECLARED = frozenset(
    ("reads", "takes_targets", "compares", "needs_slope_bound", "equilibrium", "undecided", "readings")
)


class OwnTrick(Own, TrickEntry):
    """A trick: `name` is one of the seams' subclasses, called with its name in the run and the options."""

    kind: Literal["python"] = "python"
    tip: ClassVar[str] = "own"
    source: ClassVar[str] = "the user's own file"

    @property
    def reads(self) -> frozenset[Said]:
        """What D must say for it: the class's attribute `reads`."""
        return frozenset(getattr(self.load(), "reads", ()))

    @property
    def needs_targets(self) -> bool:  # type: ignore[bad-override]
        """Whether it is an aim."""
        made = self.load()
        return isinstance(made, type) and issubclass(made, Aim)

    @property
    def needs_own_scores(self) -> bool:  # type: ignore[bad-override]
        """Whether it reads slopes, unless the class says otherwise."""
        return getattr(self.load(), "needs_own_scores", bool(getattr(self.load(), "slopes", ())))

    @property
    def bounds_slope(self) -> bool:
        """Whether the class says that it does."""
        return getattr(self.load(), "bounds_slope", False)

    @property
    def called(self) -> str:
        """The name in the file, in small letters: what the rows and the random streams are called by."""
        return f"own_{self.name.lower()}"

    def build(self, name: str, nets: Mapping[Side, nn.Module]) -> Trick:
        """What the file makes."""
        return _wanted(self, self.made(name), Trick, "one of the seams in poise.seams")
