"""Fields of a recipe that have no effect because of another field of the same table.

A recipe that was written by poise has all fields, so a field counts as given if its value is not the default.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from poise.core.config import ComponentConfig
from poise.networks.norms import GROUP_SIZE
from poise.recipe.checks.findings import Finding, Findings
from poise.recipe.model import Recipe


class IdleField(NamedTuple):
    """A field and when it has no effect.

    Attributes:
        table: the table of the recipe: "objective", "network", "network.d" or "tricks".
        kinds: the kinds that this is about; empty for all that have the field.
        name: the field.
        is_idle: whether it has no effect in this component.
        reason: why, with the fields of the component in braces.
        tip: the tip that explains it.
        cure: what to change.
    """

    table: str
    kinds: tuple[str, ...]
    name: str
    is_idle: Callable[[Any], bool]
    reason: str
    tip: str
    cure: str


LAYER_NORMS = ("batch", "instance", "layer", "group", "virtual")
"""The norms that are layers and nothing else."""

IDLE_FIELDS: tuple[IdleField, ...] = (
    IdleField(
        "objective",
        ("reconstruction",),
        "delta",
        lambda objective: objective.distance != "huber",
        "only the distance 'huber' has a delta, but the distance is '{distance}'",
        "T25",
        'remove it, or set distance to "huber"',
    ),
    IdleField(
        "objective",
        ("elbo",),
        "sigma",
        lambda objective: objective.likelihood == "bernoulli",
        "only the Gaussian likelihood has a sigma, but the likelihood is '{likelihood}'",
        "T25",
        'remove it, or set likelihood to "gaussian"',
    ),
    IdleField(
        "network.d",
        ("mlp", "dcgan"),
        "norm",
        lambda d: d.depth == 1 and d.norm in LAYER_NORMS,
        "D's first layer has no norm, and with depth = 1 it is the only one",
        "T05a",
        'set it to "none", or a larger depth',
    ),
    IdleField(
        "network",
        ("mlp",),
        "norm",
        lambda network: network.norm == "group" and network.width % GROUP_SIZE != 0,
        f"groups have {GROUP_SIZE} channels, which do not divide {{width}}, so this is layer norm",
        "T05a",
        f'set it to "layer", or width to a multiple of {GROUP_SIZE}',
    ),
    IdleField(
        "network",
        (),
        "width",
        lambda network: network.width > getattr(network, "widest", network.width),
        "it is above widest, so that every map has {widest} channels",
        "T22",
        "set widest to this or more, or this to widest",
    ),
    *(
        IdleField(
            "tricks",
            ("adaptive_augment",),
            name,
            lambda trick: trick.speed == 0,
            "it controls how p follows D's overfitting, but with speed = 0 p is 'start'",
            "M02",
            "remove it, or set a speed above 0",
        )
        for name in ("target", "every")
    ),
    IdleField(
        "tricks",
        ("adaptive_augment",),
        "policy",
        lambda trick: len(set(trick.policy)) < len(trick.policy),
        "it contains a transformation twice, which acts once",
        "M02",
        "remove the repetition",
    ),
)


def check_idle_fields(recipe: Recipe, findings: Findings) -> None:
    """Add a warning for each field that is given and has no effect."""
    components: list[tuple[str, str, ComponentConfig]] = [("objective", "objective", recipe.objective)]
    components += [(f"network.{side}", f"network.{side}", one) for side, one in recipe.network.configs.items()]
    components += [(f"tricks.{i}", "tricks", trick) for i, trick in enumerate(recipe.tricks)]
    for path, table, component in components:
        for field in IDLE_FIELDS:
            if table.startswith(field.table) and _is_given(component, field) and field.is_idle(component):
                reason = field.reason.format(**dict(component))
                findings.warnings.append(Finding(f"{path}.{field.name}", reason, field.tip, field.cure))


def _is_given(component: ComponentConfig, field: IdleField) -> bool:
    """Whether a component is of the kind of this field, and its value is not the default."""
    declared = type(component).model_fields.get(field.name)
    if declared is None or (field.kinds and component.tag() not in field.kinds):
        return False
    return field.name in component.model_fields_set and getattr(component, field.name) != declared.default
