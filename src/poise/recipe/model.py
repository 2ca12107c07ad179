"""The recipe: a frozen, typed description of a run that reads and writes as TOML.

Every part's entry stands beside the part it builds; this file only says how they make a whole.
"""

from __future__ import annotations

import hashlib
from math import prod
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, Strict, model_validator

from poise.core.config import Config, component_union, reject_value
from poise.core.types import ExtraOutput
from poise.data.source import DataConfig
from poise.latents import Latent
from poise.measure.config import MeasureConfig
from poise.networks.base import DiscriminatorConfig, EncoderConfig, GeneratorConfig
from poise.networks.conditioning import DiscriminatorConditioning, GeneratorConditioning
from poise.objectives.base import Objective
from poise.optimizers import OptimizerConfig
from poise.recipe.toml import NAME, to_toml
from poise.tempo import TempoConfig
from poise.tricks.base import TrickConfig
from poise.watch.monitor import MonitorConfig

if TYPE_CHECKING:
    AnyData = DataConfig
    AnyLatent = Latent
    AnyGenerator = GeneratorConfig
    AnyDiscriminator = DiscriminatorConfig
    AnyEncoder = EncoderConfig
    AnyGeneratorLabels = GeneratorConditioning
    AnyDiscriminatorLabels = DiscriminatorConditioning
    AnyObjective = Objective
    AnyOptimizer = OptimizerConfig
    AnyTempo = TempoConfig
    AnyTrick = TrickConfig
else:
    AnyData = component_union(DataConfig, "poise.data")
    AnyLatent = component_union(Latent, "poise.latents")
    AnyGenerator = component_union(GeneratorConfig, "poise.networks", "poise.user_code")
    AnyDiscriminator = component_union(DiscriminatorConfig, "poise.networks", "poise.user_code")
    AnyEncoder = component_union(EncoderConfig, "poise.networks")
    AnyGeneratorLabels = component_union(GeneratorConditioning, "poise.networks")
    AnyDiscriminatorLabels = component_union(DiscriminatorConditioning, "poise.networks")
    AnyObjective = component_union(Objective, "poise.objectives", "poise.user_code")
    AnyOptimizer = component_union(OptimizerConfig, "poise.optimizers")
    AnyTempo = component_union(TempoConfig, "poise.tempo")
    AnyTrick = component_union(TrickConfig, "poise.tricks", "poise.user_code")


class NetworksConfig(Config):
    """Both players' networks, and G's encoder where codes are read; a game for one has no `d`."""

    g: AnyGenerator
    d: AnyDiscriminator | None = None
    e: AnyEncoder | None = None


class OptimizersConfig(Config):
    """Both players' optimisers; G's is also its encoder's."""

    g: AnyOptimizer
    d: AnyOptimizer | None = None


class ConditioningConfig(Config):
    """How each player learns of the label; left out, it doesn't."""

    g: AnyGeneratorLabels | None = None
    d: AnyDiscriminatorLabels | None = None


class LogConfig(Config):
    """How often the run folder hears of the run, in steps."""

    rows: int = Field(default=50, ge=1)
    samples: int = Field(default=500, ge=1)
    saves: int = Field(default=500, ge=1)
    keep: int = Field(default=2, ge=2, le=1000)
    sheet: int = Field(default=100, ge=1, le=10_000)


class Recipe(Config):
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
    network: NetworksConfig
    conditioning: ConditioningConfig | None = None
    objective: AnyObjective
    optimizer: OptimizersConfig
    tempo: AnyTempo
    tricks: Annotated[tuple[AnyTrick, ...], Strict(False)] = ()
    log: LogConfig = LogConfig()
    measure: MeasureConfig | None = None
    monitor: MonitorConfig | None = None

    @model_validator(mode="after")
    def _one_line(self) -> Self:
        if "\n" in self.about:
            reject_value("must be one line", key="about")
        return self

    def canonical(self) -> dict[str, Any]:
        """Every field, defaults spelled out, as TOML knows it (which has no null: absent means None)."""
        return _kind_first(self.model_dump(mode="json", exclude_none=True))

    def to_toml(self) -> str:
        """The canonical form. Reading it back gives an equal recipe."""
        return to_toml(self.canonical())

    @property
    def hash(self) -> str:
        """SHA-256 of the canonical form, 16 hex digits: the recipe's true name."""
        return hashlib.sha256(self.to_toml().encode()).hexdigest()[:16]

    @property
    def core(self) -> str:
        """The canonical form without what a resumed run may change: two runs with one core have the same steps."""
        return to_toml(_without(self.canonical(), ""))

    @property
    def labels(self) -> ConditioningConfig:
        """How the players learn of labels, whether or not the recipe speaks of it."""
        return self.conditioning or ConditioningConfig()

    @property
    def has_discriminator(self) -> bool:
        """Whether there is a D: not in a game for one."""
        return bool(self.objective.output_kinds)

    @property
    def needs_codes(self) -> bool:
        """Whether reals are encoded."""
        return not self.has_discriminator or any(trick.needs_codes for trick in self.tricks)

    @property
    def needs_code_variance(self) -> bool:
        """Whether the encoder says in what region a code may lie, and not only where it is."""
        return self.objective.needs_code_variance or any(trick.needs_code_variance for trick in self.tricks)

    @property
    def required_outputs(self) -> frozenset[ExtraOutput]:
        """What D must say beside its score, for some trick."""
        return frozenset[ExtraOutput]().union(*(trick.required_outputs for trick in self.tricks))

    @property
    def pack(self) -> int:
        """How many samples D judges at once."""
        return prod(trick.pack for trick in self.tricks)

    @property
    def uses_labels(self) -> bool:
        """Whether labels are drawn: a player or a trick reads them."""
        return bool(self.labels.g or self.labels.d or "classes" in self.required_outputs)

    def trick_names(self) -> list[str]:
        """A name for each trick: its kind, numbered from the second on if the kind comes again."""
        seen: dict[str, int] = {}
        names: list[str] = []
        for trick in self.tricks:
            kind = trick.trick_name
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


def with_free_fields(core: dict[str, Any], recipe: Recipe) -> dict[str, Any]:
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
