"""The recipe: a frozen, typed description of a run that is read from and written as TOML.

The configuration of each component is defined beside the component that it builds; this module puts them together.
"""

from __future__ import annotations

import hashlib
from math import prod
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, Strict, field_validator, model_validator

from poise.core.config import Config, component_union, reject_value
from poise.core.types import ExtraOutput
from poise.data.config import DataConfig, ImageDataConfig
from poise.latents import Latent
from poise.measure.config import MeasureConfig
from poise.networks.base import DiscriminatorConfig, EncoderConfig, GeneratorConfig, NetworkConfig
from poise.networks.conditioning import DiscriminatorConditioning, GeneratorConditioning
from poise.networks.translation import Direction, Judges
from poise.objectives.base import Objective
from poise.optimizers import OptimizerConfig
from poise.recipe.init import InitConfig
from poise.recipe.toml import NAME, dotted_fields, to_toml
from poise.tempo import TempoConfig
from poise.tricks.base import TrickConfig
from poise.watch.monitor import MonitorConfig

if TYPE_CHECKING:
    AnyData = DataConfig
    AnyLatent = Latent
    AnyGenerator = GeneratorConfig
    AnyDiscriminator = DiscriminatorConfig
    AnyEncoder = EncoderConfig
    AnyGeneratorConditioning = GeneratorConditioning
    AnyDiscriminatorConditioning = DiscriminatorConditioning
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
    AnyGeneratorConditioning = component_union(GeneratorConditioning, "poise.networks")
    AnyDiscriminatorConditioning = component_union(DiscriminatorConditioning, "poise.networks")
    AnyObjective = component_union(Objective, "poise.objectives", "poise.user_code")
    AnyOptimizer = component_union(OptimizerConfig, "poise.optimizers")
    AnyTempo = component_union(TempoConfig, "poise.tempo")
    AnyTrick = component_union(TrickConfig, "poise.tricks", "poise.user_code")


class NetworksConfig(Config):
    """The networks: the generator, the discriminator (None in training without one) and G's encoder, if any.

    In a game with two domains, `direction` says which part of a sample G reads, and `judges` which part D reads, None
    being the whole; see `networks/translation.py`.
    """

    g: AnyGenerator
    d: AnyDiscriminator | None = None
    e: AnyEncoder | None = None
    direction: Direction | None = None
    judges: Judges | None = None

    @property
    def configs(self) -> dict[str, NetworkConfig]:
        """The configurations of the networks that there are, by field."""
        known: dict[str, NetworkConfig | None] = {"g": self.g, "d": self.d, "e": self.e}
        return {name: config for name, config in known.items() if config is not None}


class OptimizersConfig(Config):
    """The players' optimisers; G's encoder is trained by G's."""

    g: AnyOptimizer
    d: AnyOptimizer | None = None


class ConditioningConfig(Config):
    """How each player is conditioned on the class; an absent entry means not at all."""

    g: AnyGeneratorConditioning | None = None
    d: AnyDiscriminatorConditioning | None = None


TrackerName = Literal["tensorboard", "wandb", "mlflow", "trackio"]
"""The experiment trackers, `training/trackers/`."""


class LogConfig(Config):
    """How often the run folder is updated, in steps, and where else the run is logged.

    `rows`, `samples` and `saves` are the intervals between logged rows, sample grids and checkpoints; `keep` is the
    number of checkpoints that are kept, and `sheet` the number of samples in a grid, or of images, if a translation is
    shown beside its source. `frames` is the largest number of
    frames per second of a GAN on 2-D points (`training/frames.py`), 0 for none. `to` lists the experiment trackers that
    get the same rows, measures and grids.
    """

    rows: int = Field(default=50, ge=1)
    samples: int = Field(default=500, ge=1)
    saves: int = Field(default=500, ge=1)
    keep: int = Field(default=2, ge=2, le=1000)
    sheet: int = Field(default=100, ge=1, le=10_000)
    frames: float = Field(default=10.0, ge=0, le=60)
    to: Annotated[tuple[TrackerName, ...], Strict(False)] = ("tensorboard",)

    @field_validator("to")
    @classmethod
    def _no_duplicates(cls, names: tuple[TrackerName, ...]) -> tuple[TrackerName, ...]:
        for number, name in enumerate(names):
            if name in names[:number]:
                reject_value("each tracker can be named once", found=name)
        return names


class Recipe(Config):
    """The description of a run.

    With `judging = "apart"` D gets an all-real and an all-fake batch (tip T04), with `"together"` one batch of both.
    A step consists of D's moves, then G's, as the tempo decides; `batch` is the number of real, and of fake, samples.
    With `sync_batch_norm` batch norms use the statistics of all ranks among which a batch is divided.
    """

    name: str = Field(default="custom", pattern=f"^{NAME}$")
    about: str = Field(default="", max_length=200)
    seed: int = Field(default=0, ge=0, le=2**63 - 1)
    steps: int = Field(ge=1, le=10**9)
    batch: int = Field(default=64, ge=1, le=65536)
    judging: Literal["apart", "together"] = "apart"
    sync_batch_norm: bool | None = None
    data: AnyData
    latent: AnyLatent
    network: NetworksConfig
    conditioning: ConditioningConfig | None = None
    objective: AnyObjective
    optimizer: OptimizersConfig
    tempo: AnyTempo
    tricks: Annotated[tuple[AnyTrick, ...], Strict(False)] = ()
    init: InitConfig | None = None
    log: LogConfig = LogConfig()
    measure: MeasureConfig | None = None
    monitor: MonitorConfig | None = None

    @model_validator(mode="after")
    def _one_line(self) -> Self:
        if "\n" in self.about:
            reject_value("must be one line", key="about")
        return self

    def canonical(self) -> dict[str, Any]:
        """All fields, including defaults, as a TOML table. TOML has no null: None is an absent key."""
        return _kind_first(self.model_dump(mode="json", exclude_none=True))

    def to_toml(self) -> str:
        """The canonical form as TOML, which decodes to an equal recipe."""
        return to_toml(self.canonical())

    @property
    def hash(self) -> str:
        """SHA-256 of the canonical form, 16 hex digits, which identifies the recipe.

        It is taken without `log.frames`, which nothing that is measured depends on and which earlier versions did not
        have: the hashes that they have recorded stay valid.
        """
        table = self.canonical()
        del table["log"]["frames"]
        return hashlib.sha256(to_toml(table).encode()).hexdigest()[:16]

    @property
    def core(self) -> str:
        """The canonical form without the fields that a resumed run may change; it determines the steps of a run."""
        return to_toml(_without(self.canonical(), ""))

    @property
    def labels(self) -> ConditioningConfig:
        """The players' conditioning; an empty one if the recipe has none."""
        return self.conditioning or ConditioningConfig()

    @property
    def has_discriminator(self) -> bool:
        """Whether the objective trains a discriminator."""
        return bool(self.objective.output_kinds)

    @property
    def needs_codes(self) -> bool:
        """Whether real samples are encoded."""
        return not self.has_discriminator or any(trick.needs_codes for trick in self.tricks)

    @property
    def needs_code_variance(self) -> bool:
        """Whether the encoder returns a Gaussian over codes instead of a single code."""
        return self.objective.needs_code_variance or any(trick.needs_code_variance for trick in self.tricks)

    @property
    def spectral_norm_bounds_d(self) -> bool:
        """Whether spectral norm bounds D's input gradient: no other norm scales its layers, and no trick undoes it."""
        norm = getattr(self.network.d, "norm", None)
        return norm == "spectral" and all(trick.keeps_spectral_norm for trick in self.tricks)

    @property
    def required_outputs(self) -> frozenset[ExtraOutput]:
        """What D must return beside its score, because a trick needs it."""
        return frozenset[ExtraOutput]().union(*(trick.required_outputs for trick in self.tricks))

    @property
    def pack(self) -> int:
        """The number of samples that D scores at once (packing)."""
        return prod(trick.pack for trick in self.tricks)

    @property
    def uses_labels(self) -> bool:
        """Whether labels are loaded: a player or a trick uses them."""
        by_tricks = "classes" in self.required_outputs or any(trick.needs_labels for trick in self.tricks)
        return bool(self.labels.g or self.labels.d or by_tricks)

    @property
    def mirrors_images(self) -> bool:
        """Whether the images of training batches are flipped at random; False for points."""
        return isinstance(self.data, ImageDataConfig) and self.data.mirror

    def trick_names(self) -> list[str]:
        """The name of each trick: its kind, numbered from the second occurrence on."""
        counts: dict[str, int] = {}
        names: list[str] = []
        for trick in self.tricks:
            kind = trick.trick_name
            counts[kind] = counts.get(kind, 0) + 1
            names.append(kind if counts[kind] == 1 else f"{kind}_{counts[kind]}")
        return names


def _kind_first(value: Any) -> Any:
    if isinstance(value, dict):
        order = sorted(value, key=lambda key: key != "kind")
        return {key: _kind_first(value[key]) for key in order}
    return [_kind_first(item) for item in value] if isinstance(value, list) else value


DATA_LOCATION = ("data.kind", "data.path", "data.a", "data.b", "data.follow_links", "data.max_bad")
"""Where the data is and how it is read. Its contents are checked by its fingerprint instead."""

FREE_TO_CHANGE = ("steps", "about", "name", "log", "measure", "monitor", "init.from", *DATA_LOCATION)
"""The fields that may change when a run is resumed: no earlier step depends on them."""


def _is_free(path: str) -> bool:
    return any(path == free or path.startswith(f"{free}.") for free in FREE_TO_CHANGE)


def _without(table: dict[str, Any], root: str) -> dict[str, Any]:
    """A table without the fields that are free to change."""
    kept = {key: value for key, value in table.items() if not _is_free(f"{root}{key}")}
    return {key: _without(value, f"{root}{key}.") if isinstance(value, dict) else value for key, value in kept.items()}


def with_free_fields(core: dict[str, Any], recipe: Recipe) -> dict[str, Any]:
    """A complete table from the `core` of one recipe and the fields that are free to change of another."""

    def merge(fixed: dict[str, Any], other: dict[str, Any], root: str) -> dict[str, Any]:
        merged = dict(fixed)
        for key, value in other.items():
            path = f"{root}{key}"
            if _is_free(path):
                merged[key] = value
            elif isinstance(value, dict) and isinstance(fixed.get(key), dict):
                merged[key] = merge(fixed[key], value, f"{path}.")
        return merged

    return merge(core, recipe.canonical(), "")


def differences(old: Recipe, new: Recipe) -> list[str]:
    """The dotted paths of the fields that differ, except for those that may change when a run is resumed.

    A field that is a number in one and a table, such as a schedule, in the other is one field.
    """
    a, b = dotted_fields(old.canonical()), dotted_fields(new.canonical())
    paths = {p for p in a.keys() | b.keys() if a.get(p) != b.get(p) and not _is_free(p)}
    return sorted(p for p in paths if not any(p.startswith(f"{other}.") for other in paths))
