"""The recipe: a frozen, typed description of a run that reads and writes as TOML.

Every part's entry stands beside the part it builds; this file only says how they make a whole.
"""

from __future__ import annotations

import hashlib
from math import prod
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, Strict, model_validator

from poise.core import Said
from poise.data.source import DataEntry
from poise.entries import Entry, complain, one_of
from poise.latents import Latent
from poise.measure.entry import Measuring
from poise.networks.base import Discriminator, Encoder, Generator
from poise.networks.conditioning import DiscriminatorLabels, GeneratorLabels
from poise.objectives.base import Objective
from poise.optimizers import OptimizerEntry
from poise.recipe.text import NAME, write
from poise.tempo import TempoEntry
from poise.tricks.base import TrickEntry
from poise.watch.monitor import Monitoring

if TYPE_CHECKING:
    AnyData = DataEntry
    AnyLatent = Latent
    AnyGenerator = Generator
    AnyDiscriminator = Discriminator
    AnyEncoder = Encoder
    AnyGeneratorLabels = GeneratorLabels
    AnyDiscriminatorLabels = DiscriminatorLabels
    AnyObjective = Objective
    AnyOptimizer = OptimizerEntry
    AnyTempo = TempoEntry
    AnyTrick = TrickEntry
else:
    AnyData = one_of(DataEntry, "poise.data")
    AnyLatent = one_of(Latent, "poise.latents")
    AnyGenerator = one_of(Generator, "poise.networks", "poise.own")
    AnyDiscriminator = one_of(Discriminator, "poise.networks", "poise.own")
    AnyEncoder = one_of(Encoder, "poise.networks")
    AnyGeneratorLabels = one_of(GeneratorLabels, "poise.networks")
    AnyDiscriminatorLabels = one_of(DiscriminatorLabels, "poise.networks")
    AnyObjective = one_of(Objective, "poise.objectives", "poise.own")
    AnyOptimizer = one_of(OptimizerEntry, "poise.optimizers")
    AnyTempo = one_of(TempoEntry, "poise.tempo")
    AnyTrick = one_of(TrickEntry, "poise.tricks", "poise.own")


class Networks(Entry):
    """Both players' networks, and G's encoder where codes are read; a game for one has no `d`."""

    g: AnyGenerator
    d: AnyDiscriminator | None = None
    e: AnyEncoder | None = None


class Optimizers(Entry):
    """Both players' optimisers; G's is also its encoder's."""

    g: AnyOptimizer
    d: AnyOptimizer | None = None


class Conditioning(Entry):
    """How each player learns of the label; left out, it doesn't."""

    g: AnyGeneratorLabels | None = None
    d: AnyDiscriminatorLabels | None = None


class Log(Entry):
    """How often the run folder hears of the run, in steps."""

    rows: int = Field(default=50, ge=1)
    samples: int = Field(default=500, ge=1)
    saves: int = Field(default=500, ge=1)
    keep: int = Field(default=2, ge=2, le=1000)
    sheet: int = Field(default=100, ge=1, le=10_000)


class Recipe(Entry):
    """A run, described.

    `judging = "apart"` lets D judge an all-real and an all-fake batch (tip T04); `"together"` mixes them.
    One step is the tempo's moves of D, then those of G; `batch` is the size of each pile.
    """

    name: str = Field(default="custom", pattern=f"^{NAME}$")
    about: str = Field(default="", max_length=200)
    seed: int = Field(default=0, ge=0, le=2**63 - 1)
    steps: int = Field(ge=1, le=10**9)
    batch: int = Field(default=64, ge=1, le=65536)
    judging: Literal["apart", "together"] = "apart"
    data: AnyData
    latent: AnyLatent
    network: Networks
    conditioning: Conditioning | None = None
    objective: AnyObjective
    optimizer: Optimizers
    tempo: AnyTempo
    tricks: Annotated[tuple[AnyTrick, ...], Strict(False)] = ()
    log: Log = Log()
    measure: Measuring | None = None
    monitor: Monitoring | None = None

    @model_validator(mode="after")
    def _one_line(self) -> Self:
        if "\n" in self.about:
            complain("must be one line", key="about")
        return self

    def canonical(self) -> dict[str, Any]:
        """Every field, defaults spelled out, as TOML knows it (which has no null: absent means None)."""
        return _kind_first(self.model_dump(mode="json", exclude_none=True))

    def to_toml(self) -> str:
        """The canonical form. Reading it back gives an equal recipe."""
        return write(self.canonical())

    @property
    def hash(self) -> str:
        """SHA-256 of the canonical form, 16 hex digits: the recipe's true name."""
        return hashlib.sha256(self.to_toml().encode()).hexdigest()[:16]

    @property
    def core(self) -> str:
        """The canonical form without what a resumed run may change: two runs with one core have the same steps."""
        return write(_without(self.canonical(), ""))

    @property
    def labels(self) -> Conditioning:
        """How the players learn of labels, whether or not the recipe speaks of it."""
        return self.conditioning or Conditioning()

    @property
    def judged(self) -> bool:
        """Whether there is a D: not in a game for one."""
        return bool(self.objective.reads)

    @property
    def reads_codes(self) -> bool:
        """Whether reals are encoded."""
        return not self.judged or any(trick.reads_codes for trick in self.tricks)

    @property
    def reads_region(self) -> bool:
        """Whether the encoder says in what region a code may lie, and not only where it is."""
        return self.objective.reads_region or any(trick.reads_region for trick in self.tricks)

    @property
    def reads(self) -> frozenset[Said]:
        """What D must say beside its score, for some trick."""
        return frozenset[Said]().union(*(trick.reads for trick in self.tricks))

    @property
    def pack(self) -> int:
        """How many samples D judges at once."""
        return prod(trick.pack for trick in self.tricks)

    @property
    def labelled(self) -> bool:
        """Whether labels are drawn: a player or a trick reads them."""
        return bool(self.labels.g or self.labels.d or "classes" in self.reads)

    def trick_names(self) -> list[str]:
        """A name for each trick: its kind, numbered from the second on if the kind comes again."""
        seen: dict[str, int] = {}
        names: list[str] = []
        for trick in self.tricks:
            kind = trick.called
            seen[kind] = seen.get(kind, 0) + 1
            names.append(kind if seen[kind] == 1 else f"{kind}_{seen[kind]}")
        return names


def _kind_first(value: Any) -> Any:
    if isinstance(value, dict):
        order = sorted(value, key=lambda key: key != "kind")
        return {key: _kind_first(value[key]) for key in order}
    return [_kind_first(item) for item in value] if isinstance(value, list) else value


PLACE = ("data.kind", "data.path", "data.follow_links", "data.max_bad")
"""Where the data lies and how it is read there; what it is, its fingerprint says."""

FREE_TO_CHANGE = ("steps", "about", "name", "log", "measure", "monitor", *PLACE)
"""What a resumed run may have otherwise than the run it goes on with: nothing that an earlier step depended on."""


def _free(path: str) -> bool:
    return any(path == free or path.startswith(f"{free}.") for free in FREE_TO_CHANGE)


def _without(table: dict[str, Any], root: str) -> dict[str, Any]:
    """A table without what is free to change."""
    kept = {key: value for key, value in table.items() if not _free(f"{root}{key}")}
    return {key: _without(value, f"{root}{key}.") if isinstance(value, dict) else value for key, value in kept.items()}


def completed(core: dict[str, Any], recipe: Recipe) -> dict[str, Any]:
    """A `core` as a whole recipe again: what is free to change is that of `recipe`."""

    def fill(ours: dict[str, Any], theirs: dict[str, Any], root: str) -> dict[str, Any]:
        whole = dict(ours)
        for key, value in theirs.items():
            inside = f"{root}{key}"
            if _free(inside):
                whole[key] = value
            elif isinstance(value, dict) and isinstance(ours.get(key), dict):
                whole[key] = fill(ours[key], value, f"{inside}.")
        return whole

    return fill(core, recipe.canonical(), "")


def differences(old: Recipe, new: Recipe) -> list[str]:
    """Dotted paths of fields that differ and may not when a run is resumed."""

    def flat(value: Any, path: str) -> dict[str, Any]:
        if isinstance(value, dict):
            return {
                k: v for key, item in value.items() for k, v in flat(item, f"{path}.{key}" if path else key).items()
            }
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return {k: v for i, item in enumerate(value) for k, v in flat(item, f"{path}.{i}").items()}
        return {path: value}

    a, b = flat(old.canonical(), ""), flat(new.canonical(), "")
    paths = sorted(p for p in a.keys() | b.keys() if a.get(p) != b.get(p))
    return [p for p in paths if not _free(p)]
