"""Custom components train, resume and sample like built-in ones, run only if trusted, and fail in one line."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import os
import py_compile
import re
import shutil
import signal
import sys
import tomllib
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from contracts.tiny import Session, recipe, session, source, suited, unequal, with_encoder
from poise.core.move import MoveData
from poise.core.types import MoveContext, Side
from poise.engine import compute
from poise.errors import CheckpointError, RecipeError, Stopped
from poise.objectives.base import Objective
from poise.recipe.checks.compatibility import check_compatibility
from poise.recipe.decode import decode
from poise.recipe.model import Recipe, differences
from poise.recipe.shipped import load_table
from poise.runs import checkpoint_folder
from poise.runs.run import Run
from poise.training.listener import NullListener, StartInfo
from poise.training.train import train
from poise.user_code import loading
from poise.user_code.components import UserObjective
from poise.user_code.loading import UserCode

Table = dict[str, Any]

HEAD = """\
from math import prod
import torch
from torch import nn
from torch.nn.functional import softplus
from poise.core.types import Side, DiscriminatorOutput
from poise.objectives.base import Objective, ObjectiveModule
from poise.core.hooks import PostUpdate, TargetTransform, LossTerm, InputTransform
"""

SOURCES = {
    "Sketcher": """
class Sketcher(nn.Module):
    def __init__(self, latent, shape, width=6):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(latent, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, prod(shape)),
            nn.Unflatten(1, shape),
        )
    def forward(self, z):
        return self.layers(z)
""",
    "Critic": """
class Critic(nn.Module):
    def __init__(self, shape, width=6, how="column"):
        super().__init__()
        self.how = how
        self.trunk = nn.Sequential(nn.Flatten(), nn.Linear(prod(shape), width), nn.LeakyReLU(0.2), nn.Dropout(0.2))
        self.score = nn.Linear(width, 1)
        if how == "output":
            self.width = width
    def forward(self, images):
        features = self.trunk(images)
        score = self.score(features)
        if self.how == "output":
            return DiscriminatorOutput(score.squeeze(1), features)
        return score if self.how == "column" else score.squeeze(1)
""",
    "Autoencoder": """
class Autoencoder(nn.Module):
    output_kind = "energy"
    def __init__(self, shape):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(prod(shape), 2), nn.Tanh(), nn.Linear(2, prod(shape)))
    def forward(self, images):
        flat = images.flatten(1)
        return -(self.layers(flat) - flat).square().mean(1)
""",
    "Exponential": """
class Exponential(Objective):
    limit: float = 5.0
    def d_losses(self, real, fake, targets):
        return torch.exp(-self.clip(real)), torch.exp(self.clip(fake))
    def g_losses(self, fake, real):
        return (torch.exp(-self.clip(fake)),)
    def clip(self, score):
        return score.clamp(-self.limit, self.limit)
""",
    "Declared": """
class Declared(Objective):
    output_kinds = frozenset({"score", "energy"})
    accepts_targets = True
    is_relativistic = True
    needs_lipschitz_bound = True
    @property
    def decision_threshold(self):
        return 0.25
    @property
    def equilibrium(self):
        return {Side.D: 0.5, Side.G: 1.5}
    def d_losses(self, real, fake, targets):
        return (softplus(fake - real) * (1.0 if targets is None else targets.real),)
    def g_losses(self, fake, real):
        return (softplus(real - fake),)
    def extra_metrics(self, real, fake):
        return {"gap": real.mean() - fake.mean()}
""",
    "Swaying": """
class Swaying(Objective):
    pull: float = 0.5
    def build(self):
        return Swing(self)
class Swing(ObjectiveModule):
    def __init__(self, config):
        super().__init__(config)
        self.register_buffer("level", torch.zeros(()))
    def d_losses(self, real, fake, targets, context):
        return softplus(self.level - real), softplus(fake - self.level)
    def g_losses(self, fake, real, context):
        return (softplus(self.level - fake),)
    @torch.no_grad()
    def after_update(self, move):
        super().after_update(move)
        self.level.lerp_(move.score("fake").mean() + 1, self.config.pull)
""",
    "Grain": """
class Grain(InputTransform):
    def __init__(self, name, sigma=0.3):
        super().__init__(name)
        self.sigma = sigma
    def transform_input(self, images, origin, context):
        generator = context.generator(f"{self.name}/{origin}")
        return images + self.sigma * torch.randn(images.shape, generator=generator)
class Speckle(Grain):
    pass
""",
    "Flatness": """
class Flatness(LossTerm):
    sides = frozenset({Side.D})
    needs_input_gradient = frozenset({"real"})
    def __init__(self, name, weight=0.5):
        super().__init__(name, weight)
    def loss(self, move):
        return move.input_gradient("real").flatten(1).square().sum(1).mean()
class Steepness(Flatness):
    def loss(self, move):
        return 1 + super().loss(move)
""",
    "SmoothedTargets": """
class SmoothedTargets(TargetTransform):
    def transform_targets(self, targets, context):
        return targets._replace(real=0.9 * targets.real)
""",
    "Memory": """
class Memory(PostUpdate):
    sides = frozenset({Side.D})
    def __init__(self, name, decay=0.5):
        super().__init__(name)
        self.decay = decay
        self.register_buffer("mean", torch.zeros(()))
    @torch.no_grad()
    def after_update(self, player, move):
        self.mean.lerp_(move.score("fake").mean() + 1, 1 - self.decay)
        for weight in player.weights:
            weight.mul_(1 - 0.05 * torch.tanh(self.mean))
""",
}
DEFINED_IN = {"Speckle": "Grain", "Steepness": "Flatness"}
SLOTS = ("g", "d", "objective", "trick")
MLP = {"kind": "mlp", "width": 6, "depth": 1}
EVERY_STEP = {"rows": 1, "samples": 100, "saves": 100, "sheet": 4}

MakeTable = Callable[..., Table]


def as_table(file: Path, name: str, **options: Any) -> Table:
    return {"kind": "python", "file": str(file), "name": name, "options": options}


@pytest.fixture
def component(tmp_path: Path) -> MakeTable:
    """`component("Grain", sigma=0.2)` writes the file that defines it and returns its table."""

    def write(name: str, **options: Any) -> Table:
        source_name = DEFINED_IN.get(name, name)
        file = tmp_path / f"{source_name.lower()}.py"
        file.write_text(HEAD + SOURCES[source_name])
        return as_table(file, name, **options)

    return write


@pytest.fixture(autouse=True)
def fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has not executed any user code."""
    forget_user_code(monkeypatch)


def forget_user_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_trusted", set())
    monkeypatch.setattr(loading, "_executed", {})
    monkeypatch.setattr(loading, "_copies", {})
    monkeypatch.setattr(loading, "_originals", {})
    monkeypatch.setattr(sys, "path", [*sys.path])


def ring(*tricks: Table, g: Table = MLP, d: Table = MLP, **changes: Any) -> Recipe:
    return recipe("points", *tricks, **({"steps": 3, "log": EVERY_STEP, "network": {"g": g, "d": d}} | changes))


def with_component(slot: str, table: Table, **changes: Any) -> Recipe:
    """A recipe with one custom component."""
    if slot == "trick":
        return ring(table, **changes)
    return ring(**{slot: table}, **changes)


def trusted(config: Recipe) -> Recipe:
    loading.allow_user_code(config, True)
    return config


def tensors(out: Path) -> dict[str, Tensor]:
    newest, damaged = checkpoint_folder.newest_valid(out / "saves")
    assert newest is not None
    assert damaged == []
    return newest.tensors


def rows(out: Path) -> list[Table]:
    lines = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    for row in lines:
        del row["seconds"], row["stats"]["time/images_per_second"]
    return lines


class Notes(NullListener):
    """Keeps the messages at the start, and stops the run by SIGTERM at a step, if one is given."""

    def __init__(self, stop: int = 0) -> None:
        self.lines: list[str] = []
        self.stop = stop

    def on_start(self, start: StartInfo) -> None:
        self.lines = start.lines

    def on_step(self, step: int) -> None:
        if step == self.stop - 1:
            os.kill(os.getpid(), signal.SIGTERM)


# ---- training -----------------------------------------------------------------------------------------

COMPONENTS: dict[str, tuple[str, str, Table]] = {
    "generator": ("g", "Sketcher", {"width": 5}),
    "column": ("d", "Critic", {"how": "column"}),
    "flat": ("d", "Critic", {"how": "flat", "width": 4}),
    "output": ("d", "Critic", {"how": "output"}),
    "objective": ("objective", "Exponential", {"limit": 2.5}),
    "objective with state": ("objective", "Swaying", {"pull": 0.25}),
    "input transform": ("trick", "Grain", {"sigma": 0.1}),
    "loss term": ("trick", "Flatness", {"weight": 2.0}),
    "post-update": ("trick", "Memory", {}),
}


@pytest.mark.parametrize("which", COMPONENTS)
def test_a_component_trains_samples_and_survives_the_round_trip(
    which: str, component: MakeTable, tmp_path: Path
) -> None:
    slot, name, options = COMPONENTS[which]
    config = with_component(slot, component(name, **options))
    run = train(config, tmp_path / "run", trust_code=True)
    assert [row["step"] for row in rows(run.path)] == [1, 2, 3]
    again = decode(tomllib.loads((run.path / "recipe.toml").read_text()))
    assert again == config
    assert again.hash == config.hash
    assert again.to_toml() == config.to_toml()
    assert loading.user_components(again)[0].options == options
    points = Run(run.path, trust_code=True).sample(5, seed=3)
    assert points.shape == (5, 2)
    assert torch.equal(points, run.sample(5, seed=3))


def test_options_are_passed_to_the_component(component: MakeTable) -> None:
    tables = (
        component("Sketcher", width=5),
        component("Critic", width=7),
        component("Grain", sigma=0.125),
        component("Swaying", pull=0.25),
    )
    config = trusted(ring(tables[2], g=tables[0], d=tables[1], objective=tables[3]))
    game = Session(config, source("points")).game
    assert game.g.net.layers[0].out_features == 5  # type: ignore[union-attr, index]
    assert game.d.net.net.score.in_features == 7  # type: ignore[union-attr]
    assert game.tricks["own_grain"].sigma == 0.125
    assert game.objective.config.pull == 0.25


@pytest.mark.parametrize("value", [5, 0.5, -3, True, "text", [], [1, [2.5]], {"a": {"b": [1]}}, [{"a": 1}, {"b": 2}]])
def test_options_survive_the_round_trip(value: object, component: MakeTable) -> None:
    config = ring(component("Grain", sigma=value))
    again = decode(tomllib.loads(config.to_toml()))
    assert again.hash == config.hash
    assert again.tricks[0].options == {"sigma": value}  # type: ignore[attr-defined]
    assert type(again.tricks[0].options["sigma"]) is type(value)  # type: ignore[attr-defined]


@pytest.mark.parametrize("value", [math.inf, math.nan, None, date(2020, 1, 1), [math.inf], {"a": [None]}, Path("x")])
def test_options_that_toml_can_not_store_are_refused(value: object, component: MakeTable) -> None:
    with pytest.raises(RecipeError, match=r"tricks\.0\.options"):
        decode(ring().canonical() | {"tricks": [component("Grain", sigma=value)]})


def test_a_component_can_not_change_the_recipe(tmp_path: Path) -> None:
    """It gets a copy of an option that is a list."""
    file = tmp_path / "greedy.py"
    code = """
class Greedy(nn.Module):
    def __init__(self, latent, shape, widths):
        super().__init__()
        self.layer = nn.Linear(latent, widths.pop())
    def forward(self, z):
        return self.layer(z)
"""
    file.write_text(HEAD + code)
    config = trusted(ring(g=as_table(file, "Greedy", widths=[5, 2])))
    before = config.to_toml()
    Session(config, source("points"))
    assert config.to_toml() == before


def test_all_forms_of_the_output_of_d_are_equivalent(component: MakeTable) -> None:
    sessions = [
        Session(trusted(ring(d=component("Critic", how=how))), source("points")).play(3)
        for how in ("column", "flat", "output")
    ]
    for other in sessions[1:]:
        assert unequal(sessions[0].saved(), other.saved()) == []


def test_the_output_kind_of_d_is_used(component: MakeTable) -> None:
    energy, score = component("Autoencoder"), component("Critic")
    assert check_compatibility(trusted(ring(d=energy, objective={"kind": "energy"}))).refusals == []
    assert [r.field for r in check_compatibility(trusted(ring(d=energy))).refusals] == ["objective"]
    assert [r.field for r in check_compatibility(trusted(ring(d=score, objective={"kind": "energy"}))).refusals] == [
        "objective"
    ]
    Session(ring(d=energy, objective={"kind": "energy"}), source("points")).play(3)


def test_declarations_of_an_objective_are_used(component: MakeTable, tmp_path: Path) -> None:
    config = trusted(ring({"kind": "soft_labels"}, objective=component("Declared")))
    objective = config.objective
    assert objective.output_kinds == {"score", "energy"}
    assert (objective.accepts_targets, objective.is_relativistic, objective.needs_lipschitz_bound) == (True, True, True)
    assert objective.decision_threshold == 0.25
    assert objective.equilibrium == {Side.D: 0.5, Side.G: 1.5}
    assert objective.extra_metrics(torch.ones(2), torch.zeros(2)) == {"gap": torch.tensor(1.0)}
    findings = check_compatibility(config)
    assert findings.refusals == []
    assert [w.field for w in findings.warnings if w.tip == "T06b"] == ["objective"]
    assert Session(config, source("points")).game.objective.is_relativistic
    train(config, tmp_path / "run", trust_code=True)
    assert {"d/gap", "d/real_accuracy"} <= rows(tmp_path / "run")[0]["stats"].keys()


def test_every_declaration_of_an_objective_is_that_of_the_file(
    component: MakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that no objective of these files overrides: the base class's class variables are all forwarded."""
    declarations = {name for name in vars(Objective) if "ClassVar" in str(Objective.__annotations__.get(name))}
    assert {"allows_bf16", "is_separable", "g_target_span"} < declarations
    config = trusted(ring(objective=component("Exponential"))).objective
    assert isinstance(config, UserObjective)
    for name in declarations | {"d_losses", "g_losses"}:
        marker = object()
        monkeypatch.setattr(type(config.objective), name, marker, raising=False)
        assert getattr(config, name) is marker, name


def test_a_user_s_objective_judges_reconstructions_and_measures_the_elbo(tmp_path: Path) -> None:
    """Parts that use an objective's formulas get those of the file."""
    file = tmp_path / "mine.py"
    file.write_text(
        "from poise.objectives.pointwise import NonSaturating\nfrom poise.objectives.reconstruction import Elbo\n\n\n"
        "class Judge(NonSaturating):\n    pass\n\n\nclass Bound(Elbo):\n    pass\n"
    )
    small = {"steps": 1, "batch": 4, "log": {"rows": 1, "samples": 1, "saves": 1, "sheet": 4}}
    for name, class_name, measures in (("vae-gan", "Judge", ["fid"]), ("vae", "Bound", ["elbo"])):
        table = load_table(name)
        narrow = {key: part | {"width": 4} for key, part in table["network"].items()}
        objective = {"kind": "python", "file": str(file), "name": class_name}
        measure = {"measures": measures, "n": 10, "features": "pixels", "every": 1}
        changed = table | small | {"objective": objective, "network": narrow, "measure": measure}
        run = train(trusted(decode(changed)), tmp_path / name, trust_code=True)
        (line,) = run.measures
        assert line["measures"].keys() == set(measures)


def test_defaults_of_an_objective_are_those_of_the_base(component: MakeTable, tmp_path: Path) -> None:
    config = trusted(ring({"kind": "soft_labels"}, objective=component("Exponential")))
    assert config.objective.output_kinds == {"score"}
    assert (
        config.objective.is_relativistic,
        config.objective.needs_lipschitz_bound,
        config.objective.decision_threshold,
    ) == (False, False, None)
    refusals = check_compatibility(config).refusals
    assert [r.field for r in refusals] == ["tricks.0"]
    assert "targets" in refusals[0].message
    with pytest.raises(RecipeError, match="targets"):
        train(config, tmp_path / "run", trust_code=True)
    assert not (tmp_path / "run").exists()
    train(ring(objective=component("Exponential")), tmp_path / "run", trust_code=True)
    stats = rows(tmp_path / "run")[0]["stats"]
    assert "d/accuracy" in stats
    assert "d/real_accuracy" not in stats


def test_declarations_of_a_trick_are_used(tmp_path: Path) -> None:
    """`pack`, a sample selection that needs per-sample losses, and `needs_score_sign`."""
    code = """
from torch import nn
from poise.core.types import Side
from poise.core.hooks import SampleSelection, NetworkTransform, InputTransform
class Two(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net
    def forward(self, points):
        return self.net(points.reshape(len(points) // 2, -1))
class Pairs(NetworkTransform):
    sides, pack = frozenset({Side.D}), 2
    def transform_network(self, side, net):
        return Two(net)
class First(SampleSelection):
    sides = frozenset({Side.G})
    def select_samples(self, scores, move):
        return scores.topk(1).indices
class Signed(InputTransform):
    needs_score_sign = True
    def transform_input(self, images, origin, context):
        return images
"""
    file = tmp_path / "declares.py"
    file.write_text(code)

    def with_trick(name: str, **changes: Any) -> Recipe:
        return trusted(ring({"kind": "python", "file": str(file), "name": name}, **changes))

    pairs = with_trick("Pairs")
    assert check_compatibility(pairs).refusals == []
    source = pairs.data.load().train
    run = Session(pairs, source).play(1)
    assert len(run.moves[0].move.score("real")) == pairs.batch // 2
    for name, kind in (("First", "relativistic_average"), ("Signed", "wasserstein")):
        assert check_compatibility(with_trick(name)).refusals == []
        assert [r.field for r in check_compatibility(with_trick(name, objective={"kind": kind})).refusals] == [
            "tricks.0"
        ]


GS = "sides = frozenset({Side.G})"
USES_CODES = """
    needs_real = True
    def loss(self, move):
        return (move.reconstruction.images - move.real).abs().mean()
"""


@pytest.mark.parametrize(
    ("hook", "body", "needed"),
    [
        ("GradientTransform", GS, False),
        ("GradientTransform", "", False),
        ("GradientTransform", "sides = frozenset({Side.D})", True),
        ("GradientTransform", "needs_discriminator = True", True),
        ("PostUpdate", GS, False),
        ("NetworkTransform", GS, False),
        ("NetworkTransform", "sides = frozenset({Side.D})", True),
        ("InputTransform", "", True),
        ("OpponentSwap, hooks.PostUpdate", "", True),
        ("SampleSelection", GS, True),
        ("LossTerm", GS, True),
        ("LossTerm", "needs_discriminator = False", False),
    ],
)
def test_a_custom_trick_needs_a_discriminator_if_its_hook_does(
    hook: str, body: str, needed: bool, tmp_path: Path
) -> None:
    file = tmp_path / "it.py"
    head = "from poise.core import hooks\nfrom poise.core.types import Side\n"
    file.write_text(f"{head}class It(hooks.{hook}):\n    {body or 'pass'}\n")
    table = {"kind": "python", "file": str(file), "name": "It"}
    findings = check_compatibility(trusted(recipe("points", table, **suited("points", "elbo"))))
    assert [refusal.field for refusal in findings.refusals] == (["tricks.0"] if needed else [])
    assert all("needs_discriminator = False" in refusal.cure for refusal in findings.refusals)


@pytest.mark.parametrize("declared", [True, False])
def test_a_custom_trick_may_use_the_codes_of_an_encoder(declared: bool, tmp_path: Path) -> None:
    """If it says so, no warning calls the encoder useless; if it doesn't, the warning says how."""
    file = tmp_path / "coded.py"
    head = "from poise.core.hooks import LossTerm\nfrom poise.core.types import Side\nclass Coded(LossTerm):\n"
    lines = [f"    {GS}", "    def __init__(self, name):", "        super().__init__(name, 1.0)"]
    file.write_text(head + "\n".join([*lines, *(["    needs_codes = True"] if declared else []), USES_CODES]))
    table = {"kind": "python", "file": str(file), "name": "Coded"}
    config = trusted(recipe("points", table, **with_encoder("points")))
    warnings = [warning for warning in check_compatibility(config).warnings if warning.field == "network.e"]
    assert [("needs_codes = True" in warning.cure) for warning in warnings] == ([] if declared else [True])
    run = Session(config, source("points"))
    before = [weight.detach().clone() for weight in run.game.g.encoder.parameters()]
    after = run.play(1).game.g.encoder.parameters()
    assert not any(map(torch.equal, before, after)), "its weights are trained"
    without = check_compatibility(trusted(recipe("points", table)))
    assert [refusal.field for refusal in without.refusals] == (["network.e"] if declared else [])


def test_a_target_transform_needs_targets(component: MakeTable) -> None:
    assert check_compatibility(trusted(ring(component("SmoothedTargets")))).refusals == []
    refusals = check_compatibility(trusted(ring(component("SmoothedTargets"), objective={"kind": "hinge"}))).refusals
    assert [(r.field, "targets" in r.message) for r in refusals] == [("tricks.0", True)]


def test_annotations_may_be_postponed(tmp_path: Path) -> None:
    """With `from __future__ import annotations`, dataclasses and objectives look names up in the module."""
    file = tmp_path / "postponed.py"
    early = """
from __future__ import annotations
from dataclasses import dataclass
from typing import ClassVar, Literal
"""
    code = """
@dataclass
class Sizes:
    width: int = 3
    most: ClassVar[int] = 9
class Chosen(Objective):
    accepts_targets: ClassVar[bool] = True
    how: Literal["sum", "mean"] = "sum"
    def d_losses(self, real, fake, targets):
        return softplus(-real), softplus(fake)
    def g_losses(self, fake, real):
        return (softplus(-fake),)
"""
    file.write_text(early + HEAD + code)
    config = trusted(ring(objective=as_table(file, "Chosen", how="mean")))
    assert config.objective.accepts_targets
    Session(config, source("points")).play(1)


def test_custom_networks_use_full_precision(component: MakeTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "native_bf16", lambda device: True)
    dcgan = {"kind": "dcgan", "width": 2}
    for g, d, precision in (
        (dcgan, dcgan, "bf16"),
        (component("Sketcher"), dcgan, "fp32"),
        (dcgan, component("Critic"), "fp32"),
        (component("Sketcher"), component("Critic"), "fp32"),
    ):
        config = recipe("pictures", network={"g": g, "d": d})
        assert compute.choose_compute("cpu", "auto", config).precision == precision


# ---- names --------------------------------------------------------------------------------------------


def test_two_tricks_of_one_file_have_different_names_and_streams(component: MakeTable) -> None:
    grain, speckle = component("Grain"), component("Speckle")
    both = trusted(ring(grain, speckle, grain))
    assert both.trick_names() == ["own_grain", "own_speckle", "own_grain_2"]
    tricks = Session(both, source("points")).game.tricks
    assert list(tricks) == both.trick_names()
    now, nothing = MoveContext(1, 3, 8, Session(both, source("points")).streams), torch.zeros(8, 2)
    first, second, third = (trick.transform_input(nothing, "real", now) for trick in tricks.values())  # type: ignore[operator]
    assert not torch.equal(first, second)
    assert not torch.equal(first, third)
    alone = Session(trusted(ring(grain)), source("points")).game.tricks["own_grain"]
    assert torch.equal(first, alone.transform_input(nothing, "real", now))  # type: ignore[operator]


def test_loss_terms_are_logged_by_their_names(component: MakeTable, tmp_path: Path) -> None:
    train(ring(component("Flatness"), component("Steepness")), tmp_path / "run", trust_code=True)
    for row in rows(tmp_path / "run"):
        flat, steep = (row["stats"][f"d/own_{name}"]["mean"] for name in ("flatness", "steepness"))
        assert steep == pytest.approx(1 + flat)
        assert "g/own_flatness" not in row["stats"]


def test_a_custom_trick_does_not_change_other_random_numbers(component: MakeTable) -> None:
    plain = session("points", network={"g": MLP, "d": MLP}).play(3)
    noisy = Session(trusted(ring(component("Grain"), steps=12)), source("points")).play(3)
    for a, b in zip(plain.moves, noisy.moves, strict=True):
        assert torch.equal(a.latents, b.latents)
    assert unequal(plain.saved(), noisy.saved()) != []


# ---- resuming -----------------------------------------------------------------------------------------


def all_custom(component: MakeTable, steps: int) -> Recipe:
    """Custom components everywhere, each with state; rows of three steps, so that the stop falls within one."""
    tricks = (
        component("Grain"),
        component("Flatness"),
        component("Memory"),
        {"kind": "averaged_weights", "ramp_up": 0.0},
    )
    players = {"g": component("Sketcher"), "d": component("Critic")}
    return ring(*tricks, **players, objective=component("Swaying"), steps=steps, log=EVERY_STEP | {"rows": 3})


def test_a_stopped_and_resumed_run_equals_an_uninterrupted_one(
    component: MakeTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = all_custom(component, 4)
    train(config, tmp_path / "whole", trust_code=True)
    with pytest.raises(Stopped, match="after step 2"):
        train(config, tmp_path / "halves", trust_code=True, listener=Notes(stop=2))
    half = tensors(tmp_path / "halves")
    forget_user_code(monkeypatch)
    notes = Notes()
    train(config, tmp_path / "halves", trust_code=True, resume=True, listener=notes)
    assert not any("exact" in line for line in notes.lines)
    whole = tensors(tmp_path / "whole")
    assert unequal(whole, tensors(tmp_path / "halves")) == []
    assert rows(tmp_path / "whole") == rows(tmp_path / "halves")
    for name in ("game/tricks.own_memory.mean", "game/objective.level"):
        assert half[name] != 0
        assert half[name] != whole[name]


def test_an_extended_run_equals_a_longer_one(component: MakeTable, tmp_path: Path) -> None:
    train(all_custom(component, 4), tmp_path / "whole", trust_code=True)
    train(all_custom(component, 2), tmp_path / "longer", trust_code=True)
    train(all_custom(component, 4), tmp_path / "longer", trust_code=True, resume=True)
    states = [tensors(tmp_path / name) for name in ("whole", "longer")]
    for state in states:  # a row ended where the shorter run did, so the pending values differ
        for name in [name for name in state if name.startswith("ledger/")]:
            del state[name]
    assert unequal(*states) == []


@pytest.mark.parametrize("buffer", ["game/tricks.own_memory.mean", "game/objective.level"])
def test_losing_a_buffer_changes_the_run(buffer: str, component: MakeTable) -> None:
    """So the comparisons above would detect it."""
    first = Session(trusted(all_custom(component, 4)), source("points")).play(2)
    lost = first.saved()
    lost[buffer] = torch.zeros(())
    assert unequal(first.resumed().play(2).saved(), first.resumed(lost).play(2).saved()) != []


def test_changed_code_is_noted_when_a_run_is_resumed(
    component: MakeTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run continues, and `run.json` has the hash of the code that was executed."""
    table = component("Memory")
    file, out = Path(table["file"]), tmp_path / "run"
    train(ring(table, steps=2), out, trust_code=True)
    assert json.loads((out / "run.json").read_text())["code"] == {str(file): file_hash(file)}
    forget_user_code(monkeypatch)
    file.write_text(file.read_text() + "\n# a thought\n")
    notes = Notes()
    train(ring(table, steps=4), out, trust_code=True, resume=True, listener=notes)
    warnings = [line for line in notes.lines if "may not be exactly reproducible" in line]
    assert len(warnings) == 1
    assert "code" in warnings[0]
    assert json.loads((out / "run.json").read_text())["code"] == {str(file): file_hash(file)}


def run_without_files(component: MakeTable, out: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Recipe, Path, Tensor]:
    """A run whose files no longer exist, as on another machine, and samples from before."""
    table = component("Memory")
    config = ring(table, g=component("Sketcher"), steps=2)
    train(config, out, trust_code=True)
    samples = Run(out, trust_code=True).sample(3)
    for each in loading.user_components(config):
        Path(each.file).unlink(missing_ok=True)
    forget_user_code(monkeypatch)
    return config, Path(table["file"]), samples


def test_a_run_is_sampled_without_its_files(
    component: MakeTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It uses the copies, which are not executed without trust either."""
    _, file, samples = run_without_files(component, tmp_path / "run", monkeypatch)
    assert torch.equal(Run(tmp_path / "run", trust_code=True).sample(3), samples)
    forget_user_code(monkeypatch)
    with pytest.raises(RecipeError, match="--trust-code"):
        Run(tmp_path / "run").sample(3)
    assert (tmp_path / "run" / "code" / file.name).is_file()


def test_a_run_is_resumed_without_its_files(
    component: MakeTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends like a run that always had them."""
    config, file, _ = run_without_files(component, tmp_path / "run", monkeypatch)
    notes = Notes()
    longer = config.model_copy(update={"steps": 4})
    train(longer, tmp_path / "run", trust_code=True, resume=True, listener=notes)
    assert any(f"{file} does not exist: the run's copy" in line for line in notes.lines)
    assert not any("may not be exactly reproducible" in line for line in notes.lines)
    forget_user_code(monkeypatch)
    train(ring(component("Memory"), g=component("Sketcher"), steps=4), tmp_path / "whole", trust_code=True)
    assert unequal(tensors(tmp_path / "run"), tensors(tmp_path / "whole")) == []
    assert Run(tmp_path / "run").info["code"] == Run(tmp_path / "whole").info["code"]


def test_changed_code_replaces_the_copy_when_a_run_is_resumed(
    component: MakeTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new version is used and copied; until then the run is sampled with the code that it was trained with."""
    table = component("Memory")
    file = Path(table["file"])
    train(ring(table, steps=2), tmp_path / "run", trust_code=True)
    forget_user_code(monkeypatch)
    file.write_text(file.read_text() + "\n# a thought\n")
    copy = tmp_path / "run" / "code" / file.name
    assert copy.read_bytes() != file.read_bytes()
    assert Run(tmp_path / "run", trust_code=True).sample(2) is not None
    notes = Notes()
    train(ring(table, steps=4), tmp_path / "run", trust_code=True, resume=True, listener=notes)
    assert any(f"{file} has changed since this run was started" in line for line in notes.lines)
    assert copy.read_bytes() == file.read_bytes()


@pytest.mark.parametrize("exists", [True, False])
def test_a_changed_copy_is_not_executed(
    component: MakeTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: bool
) -> None:
    """The original file is used if it is unchanged; otherwise nothing is executed."""
    table = component("Memory")
    file, run = Path(table["file"]), tmp_path / "run"
    train(ring(table, steps=2), run, trust_code=True)
    copy = run / "code" / file.name
    copy.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    forget_user_code(monkeypatch)
    if exists:
        assert Run(run, trust_code=True).sample(2) is not None
    else:
        file.unlink()
        for use in (lambda: Run(run, trust_code=True).sample(2), lambda: resume_with(table, run)):
            with pytest.raises(CheckpointError, match="copy of its code can't be used, found changed or damaged"):
                use()
    assert not (tmp_path / "ran").exists()


def resume_with(table: Table, run: Path) -> Run:
    return train(ring(table, steps=4), run, trust_code=True, resume=True)


def test_two_files_with_the_same_name_have_two_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for year in ("early", "late"):
        (tmp_path / year).mkdir()
        (tmp_path / year / "mine.py").write_text(HEAD + SOURCES["Sketcher" if year == "early" else "Critic"])
    config = ring(
        g=as_table(tmp_path / "early" / "mine.py", "Sketcher"), d=as_table(tmp_path / "late" / "mine.py", "Critic")
    )
    train(config, tmp_path / "run", trust_code=True)
    assert sorted(path.name for path in (tmp_path / "run" / "code").iterdir()) == ["mine-2.py", "mine.py"]
    shutil.rmtree(tmp_path / "early")
    shutil.rmtree(tmp_path / "late")
    forget_user_code(monkeypatch)
    assert Run(tmp_path / "run", trust_code=True).sample(2) is not None


def file_hash(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def write_version(file: Path, year: str) -> str:
    """Write a generator whose layer is named after the version; returns the hash of the file."""
    code = f"""
class Dated(nn.Module):
    def __init__(self, latent, shape):
        super().__init__()
        self.{year} = nn.Linear(latent, prod(shape))
    def forward(self, z):
        return self.{year}(z)
"""
    file.write_text(HEAD + code)
    return file_hash(file)


def test_the_hash_is_that_of_the_executed_code(tmp_path: Path) -> None:
    """Even if the file has changed since it was executed in this process."""
    file = tmp_path / "dated.py"
    digests = {"early": write_version(file, "early")}
    train(ring(g=as_table(file, "Dated")), tmp_path / "first", trust_code=True)
    digests["late"] = write_version(file, "late")
    train(ring(g=as_table(file, "Dated")), tmp_path / "second", trust_code=True)
    (ran,) = [year for year in digests if f"game/g.net.{year}.bias" in tensors(tmp_path / "second")]
    assert json.loads((tmp_path / "second" / "run.json").read_text())["code"] == {str(file): digests[ran]}


def test_a_path_is_relative_to_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for year in ("early", "late"):
        (tmp_path / year).mkdir()
        monkeypatch.chdir(tmp_path / year)
        write_version(Path("dated.py"), year)
        train(ring(g=as_table(Path("dated.py"), "Dated")), "run", trust_code=True)
        assert f"game/g.net.{year}.bias" in tensors(tmp_path / year / "run")


def test_the_source_is_executed_and_not_a_compiled_file(tmp_path: Path) -> None:
    """A compiled file beside it might contain other code than the one that was read and trusted."""
    file, other = tmp_path / "dated.py", tmp_path / "other.py"
    write_version(other, "hidden")
    write_version(file, "shown")
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    cached = importlib.util.cache_from_source(str(file))
    py_compile.compile(str(other), cfile=cached, dfile=str(file), invalidation_mode=unchecked)
    game = Session(trusted(ring(g=as_table(file, "Dated"))), source("points")).game
    assert [name for name, _ in game.g.net.named_children()] == ["shown"]


# ---- trust --------------------------------------------------------------------------------------------

EXAMPLES = {"g": "Sketcher", "d": "Critic", "objective": "Exponential", "trick": "Grain"}


@pytest.fixture(params=SLOTS)
def marked(request: pytest.FixtureRequest, component: MakeTable, tmp_path: Path) -> tuple[Recipe, Path]:
    """A recipe with one custom component, whose file adds a letter to the marker whenever it is executed."""
    table, marker = component(EXAMPLES[request.param]), tmp_path / "marker"
    file = Path(table["file"])
    file.write_text(file.read_text() + f"with open({str(marker)!r}, 'a') as marker:\n    marker.write('x')\n")
    return with_component(request.param, table), marker


def test_reading_a_recipe_executes_nothing(marked: tuple[Recipe, Path]) -> None:
    config, marker = marked
    again = decode(tomllib.loads(config.to_toml()))
    assert again == config
    assert again.hash == config.hash
    assert differences(config, again) == []
    assert again.trick_names() == config.trick_names()
    repr(config)
    assert not marker.exists()


def test_checking_and_building_without_trust_execute_nothing(marked: tuple[Recipe, Path], tmp_path: Path) -> None:
    config, marker = marked
    file = loading.user_components(config)[0].file
    if config.network.g.kind != "python":  # type: ignore[attr-defined]
        with pytest.raises(RecipeError, match="--trust-code"):  # the check needs nothing of a G from a file
            check_compatibility(config)
    with pytest.raises(RecipeError, match="--trust-code") as error:
        Session(config, source("points"))
    assert file in str(error.value)
    with pytest.raises(RecipeError, match="--trust-code"):
        train(config, tmp_path / "run")
    assert not marker.exists()
    assert not (tmp_path / "run").exists()


def test_no_command_executes_a_file_without_trust(
    marked: tuple[Recipe, Path], tmp_path: Path, poise: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, marker = marked
    file, run = loading.user_components(config)[0].file, tmp_path / "run"
    (tmp_path / "mine.toml").write_text(config.to_toml())
    poise("train", tmp_path / "mine.toml", "--out", run).assert_error(2, file, "--trust-code")
    assert not run.exists()
    assert not marker.exists()

    assert poise("train", tmp_path / "mine.toml", "--out", run, "--trust-code").code == 0
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for fresh in (False, True):  # whether the file was executed in this process already
        if fresh:
            forget_user_code(monkeypatch)
        copy = str(run / "code" / Path(file).name)
        poise("sample", run).assert_error(2, copy, "--trust-code")
        poise("interpolate", run).assert_error(2, copy, "--trust-code")
        poise("train", "--resume", "--out", run, "--steps", 5).assert_error(2, file, "--trust-code")
        with pytest.raises(RecipeError, match="--trust-code"):
            Run(run).sample(2)
    assert marker.read_text() == "x"
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_file_is_executed_once_per_process(marked: tuple[Recipe, Path], tmp_path: Path, poise: Any) -> None:
    config, marker = marked
    run = tmp_path / "run"
    train(config, run, trust_code=True)
    assert poise("sample", run, "--n", 4, "--trust-code").code == 0
    assert poise("interpolate", run, "--rows", 2, "--steps", 2, "--trust-code").code == 0
    assert poise("train", "--resume", "--out", run, "--steps", 4, "--trust-code").code == 0
    assert marker.read_text() == "x"


def loaded(file: Path, name: str) -> Any:
    loading.trust_file(file, name, True)
    return UserCode(file=str(file), name=name).load()


@pytest.mark.parametrize("recipe_is_kept", [False, True])
def test_an_edited_file_is_executed_anew_by_the_next_training(tmp_path: Path, recipe_is_kept: bool) -> None:
    """As in a notebook: the same process, the same path, and sometimes the same recipe object."""
    file = tmp_path / "mine.py"
    code = HEAD + (
        "class Constant(Objective):\n"
        "    def d_losses(self, real, fake, targets):\n        return (real * 0 + fake * 0 + 1.0,)\n"
        "    def g_losses(self, fake, real):\n        return (fake * 0 + 1.0,)\n"
    )

    def make() -> Recipe:
        return with_component("objective", as_table(file, "Constant"))

    def last_loss(run: Path) -> float:
        return json.loads((run / "rows.jsonl").read_text().splitlines()[-1])["stats"]["g/adversarial"]["mean"]

    file.write_text(code)
    config = make()
    train(config, tmp_path / "first", trust_code=True)
    assert last_loss(tmp_path / "first") == 1.0
    opened = Run(tmp_path / "first", trust_code=True)
    samples = opened.sample(2)

    file.write_text(code.replace("1.0", "99.0"))
    train(config if recipe_is_kept else make(), tmp_path / "second", trust_code=True)
    assert last_loss(tmp_path / "second") == 99.0
    assert (tmp_path / "second" / "code" / "mine.py").read_bytes() == file.read_bytes()
    assert Run(tmp_path / "second").info["code"] == {str(file): file_hash(file)}
    for run in (opened, Run(tmp_path / "first", trust_code=True)):  # with the copy of the former version
        assert torch.equal(run.sample(2), samples)

    notes = Notes()
    longer = make().model_copy(update={"steps": 6})
    train(longer, tmp_path / "first", resume=True, trust_code=True, listener=notes)
    assert any("the new version is used from here on" in line for line in notes.lines)
    assert last_loss(tmp_path / "first") == 99.0
    file.write_text("import")
    with pytest.raises(RecipeError, match="fails when it is executed"):
        train(make(), tmp_path / "third", trust_code=True)
    file.write_text(code)
    train(make(), tmp_path / "third", trust_code=True)
    assert last_loss(tmp_path / "third") == 1.0


def test_a_file_is_compiled_as_it_is_when_it_is_imported(tmp_path: Path) -> None:
    """Without the future statements of the module that executes it, with which annotations would be text."""
    (tmp_path / "mine.py").write_text("class Scaled:\n    scale: float\n")
    assert loaded(tmp_path / "mine.py", "Scaled").__annotations__ == {"scale": float}


def test_a_file_can_import_modules_that_lie_beside_it(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from module_beside_it import WIDTH\n")
    with pytest.raises(RecipeError, match=f"No module named 'module_beside_it'.*put it into {tmp_path}"):
        loaded(tmp_path / "mine.py", "WIDTH")
    (tmp_path / "module_beside_it.py").write_text("WIDTH = 3\n")
    assert loaded(tmp_path / "mine.py", "WIDTH") == 3


def test_equal_files_in_two_folders_read_their_own_folders(tmp_path: Path) -> None:
    for number in "12":
        (tmp_path / number).mkdir()
        (tmp_path / number / "weights.txt").write_text(number)
        code = "from pathlib import Path\nNUMBER = (Path(__file__).parent / 'weights.txt').read_text()\n"
        (tmp_path / number / "mine.py").write_text(code)
    assert [loaded(tmp_path / number / "mine.py", "NUMBER") for number in "12"] == ["1", "2"]


def test_trusting_one_file_does_not_trust_another(component: MakeTable, tmp_path: Path) -> None:
    trusted(ring(component("Grain")))
    with pytest.raises(RecipeError, match="--trust-code"):
        check_compatibility(ring(component("Grain"), component("Memory")))


# ---- refusals -----------------------------------------------------------------------------------------

WRONG = """
class Grand(nn.Module):
    def __init__(self, latent=3, shape=(2,), size=1):
        super().__init__()
        self.layer = nn.Linear(latent, 3)
    def forward(self, z):
        return self.layer(z)
class Torn(Grand):
    def forward(self, z):
        return self.layer(z[:, :1])
class Twofold(nn.Module):
    def __init__(self, shape, out=2):
        super().__init__()
        self.layer = nn.Linear(prod(shape), out)
    def forward(self, images):
        return self.layer(images)[None]
class Silent(Objective):
    def __init__(self, name):
        super().__init__()
def plain(*args, **options):
    return 7
def picky(*args, **options):
    raise ValueError("not\\ntoday")
"""

Case = tuple[str, Table, tuple[str, ...]]
REFUSED: dict[str, Case] = {
    **{
        f"missing {slot}": (
            slot,
            {"file": "nowhere.py", "name": "A"},
            ("nowhere.py", "paths are relative to the working directory"),
        )
        for slot in SLOTS
    },
    **{
        f"misnamed {slot}": (slot, {"name": "Gramd"}, ("wrong.py", "no such name", "Gramd", "did you mean 'Grand'"))
        for slot in SLOTS
    },
    **{f"broken {slot}": (slot, {"file": "broken.py"}, ("broken.py", "ZeroDivisionError")) for slot in SLOTS},
    "unreadable": ("g", {"file": "syntax.py"}, ("syntax.py", "SyntaxError")),
    "leaves": ("g", {"file": "leaves.py"}, ("leaves.py", "SystemExit")),
    "options of g": (
        "g",
        {"options": {"colour": 1}},
        ("wrong.py", "'Grand' can't be constructed", "TypeError", "colour"),
    ),
    "options of d": (
        "d",
        {"options": {"colour": 1}},
        ("wrong.py", "'Grand' can't be constructed", "TypeError", "colour"),
    ),
    "options of a trick": (
        "trick",
        {"name": "Grain", "options": {"colour": 1}},
        ("wrong.py", "'Grain' can't be constructed", "TypeError", "colour"),
    ),
    "options of an objective": (
        "objective",
        {"name": "Exponential", "options": {"colour": 1}},
        ("wrong.py", "'Exponential' can't be constructed", "colour"),
    ),
    "values of an objective": (
        "objective",
        {"name": "Exponential", "options": {"limit": "high"}},
        ("wrong.py", "'Exponential' can't be constructed", "limit"),
    ),
    **{f"picky {slot}": (slot, {"name": "picky"}, ("wrong.py", "ValueError: not")) for slot in SLOTS},
    "plain g": ("g", {"name": "plain"}, ("wrong.py", "torch.nn.Module", "found int")),
    "plain d": ("d", {"name": "plain"}, ("wrong.py", "torch.nn.Module", "found int")),
    "plain objective": ("objective", {"name": "plain"}, ("wrong.py", "Objective", "found int")),
    "plain trick": ("trick", {"name": "plain"}, ("wrong.py", "poise.core.hooks", "found int")),
    "a module is not an objective": ("objective", {"name": "Grand"}, ("wrong.py", "Objective", "found Grand")),
    "an objective is not a trick": ("trick", {"name": "Silent"}, ("wrong.py", "a subclass of one of the hooks")),
    "g's shape": ("g", {"name": "Grand"}, ("wrong.py", "'Grand'", "3")),
    "g's failure": ("g", {"name": "Torn"}, ("wrong.py", "'Torn'")),
    "d's shape": ("d", {"name": "Twofold"}, ("wrong.py", "'Twofold'", "2")),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_is_one_line_and_nothing_is_written(
    case: str, tmp_path: Path, poise: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot, table, parts = REFUSED[case]
    monkeypatch.chdir(tmp_path)
    Path("wrong.py").write_text(HEAD + SOURCES["Exponential"] + SOURCES["Grain"] + WRONG)
    Path("broken.py").write_text("1 / 0\n")
    Path("syntax.py").write_text("class (:\n")
    Path("leaves.py").write_text("raise SystemExit(3)\n")
    config = with_component(slot, {"kind": "python", "file": "wrong.py", "name": "Grand"} | table)
    Path("mine.toml").write_text(config.to_toml())
    result = poise("train", "mine.toml", "--out", "run", "--trust-code")
    result.assert_error(2, *parts)
    assert not Path("run").exists()


MISTAKEN = """
from poise.core.hooks import FakeReplacement, NetworkTransform, OpponentSwap, SampleSelection
class Mean(Objective):
    def d_losses(self, real, fake, targets):
        return fake.mean() - real.mean()
    def g_losses(self, fake, real):
        return (-fake,)
class Means(Mean):
    def d_losses(self, real, fake, targets):
        return -real.mean(), fake.mean()
class Unfinished(Objective):
    def d_losses(self, real, fake, targets):
        return -real, fake
class Detached(Unfinished):
    def g_losses(self, fake, real):
        return (-fake.detach(),)
class Wider(InputTransform):
    def transform_input(self, images, origin, context):
        return torch.cat((images, images), 1)
class Misread(LossTerm):
    def __init__(self, name):
        super().__init__(name, 1.0)
    def loss(self, move):
        return move.fake.images.mean()
class Unreduced(Misread):
    def loss(self, move):
        return move.score("fake")
class Lost(SampleSelection):
    def select_samples(self, scores, move):
        return scores.argmax()
class Shorter(FakeReplacement):
    def replace_fakes(self, fake, context):
        return fake
class Nobody(OpponentSwap):
    def select_network(self, side, net, context):
        return None
class Unchanged(NetworkTransform):
    def transform_network(self, side, net):
        net.eval
class Hard(TargetTransform):
    def transform_targets(self, targets, context):
        return targets.real
class Forgetful(PostUpdate):
    def __init__(self, name, step=0):
        super().__init__(name)
        self.step = step
    def after_update(self, player, move):
        if move.context.step == self.step:
            raise KeyError("my key")
class Late(PostUpdate):
    def __init__(self, name, step=0):
        super().__init__(name)
        self.step = step
        self.register_buffer("mean", None)
    def after_update(self, player, move):
        if move.context.step >= self.step:
            self.mean = torch.ones(2)
class Growing(Late):
    def __init__(self, name):
        super().__init__(name, 9)
        self.register_buffer("queue", torch.zeros(0, 3))
    def after_update(self, player, move):
        self.queue = torch.cat((self.queue, torch.ones(2, 3)))
class Undeclared(Misread):
    sides = (Side.G,)
    def loss(self, move):
        return move.score("real").mean()
class Renamed(Forgetful):
    def __init__(self, name):
        super().__init__("mine")
class Talkative(Forgetful):
    def after_update(self, player, move):
        move.logged["count"] = 3.0
class Vectorial(Forgetful):
    def after_update(self, player, move):
        move.logged["scores"] = move.score("fake")
class Memorising(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.layer = nn.Linear(prod(shape), 1)
        self.register_buffer("last", None)
    def forward(self, images):
        if self.training:
            self.last = images.detach()
        return self.layer(images)
class Inplace(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.layer = nn.Linear(prod(shape), 1)
    def forward(self, images):
        return torch.sigmoid(self.layer(images)).mul_(2).square().mul_(3)
"""

NEEDED = "tuple of losses of every sample, each of shape B or B x P"
MISTAKES: dict[str, tuple[str, tuple[str, ...]]] = {
    "Mean": ("objective", ("'Mean.d_losses' must return a ", NEEDED, "found a 0-dim tensor", "leave out the mean")),
    "Means": (
        "objective",
        ("'Means.d_losses' must", "found a tuple of 2: a 0-dim tensor, a 0-dim", "leave out the mean"),
    ),
    "Unfinished": ("objective", ("'Unfinished' has no method 'g_losses'", "docs/custom-components.md")),
    "Detached": ("objective", ("a step with this code and a batch of 8 fails", "does not require grad", "--debug")),
    "Wider": ("trick", ("'Wider.transform_input' must return", "found a tensor of shape 8x4")),
    "Misread": ("trick", ("'Misread.loss' fails in line ", "AttributeError", "no attribute 'images'", "--debug")),
    "Unreduced": ("trick", ("'Unreduced.loss' must return a 0-dim tensor, found a tensor of shape 8", "take the mean")),
    "Lost": ("trick", ("'Lost.select_samples' must return", "found a 0-dim tensor")),
    "Shorter": ("trick", ("'Shorter.replace_fakes' must return ReplacedFakes",)),
    "Nobody": ("trick", ("'Nobody.select_network' must return a torch.nn.Module, found None",)),
    "Unchanged": ("trick", ("'Unchanged.transform_network' must return a torch.nn.Module, found NoneType",)),
    "Hard": ("trick", ("'Hard.transform_targets' must return Targets", "found a tensor of shape 8")),
    "Forgetful": ("trick", ("'Forgetful.after_update' fails in line ", "found KeyError: 'my key'")),
    "Late": (
        "trick",
        ("the form of the tensor 'tricks.own_late.mean'", "nothing at first, float32[2] now", "__init__"),
    ),
    "Growing": ("trick", ("'tricks.own_growing.queue'", "float32[0, 3] at first, float32[", "no checkpoint")),
    "Undeclared": ("trick", ("'Undeclared.loss' fails in line", "real samples in g's move", 'frozenset({"real"})')),
    "Renamed": ("trick", ("'Renamed' must keep the name that it is given; take it as", "super().__init__(name)")),
    "Talkative": ("trick", ("'d/count' can't be logged, found float; log a 0-dim tensor",)),
    "Vectorial": ("trick", ("'d/scores' can't be logged, found a tensor of shape 8; log a 0-dim tensor",)),
    "Memorising": ("d", ("'d.net.net.last'", "float32[8, 2] now")),
    "Inplace": ("d", ("a step with this code and a batch of 8 fails", "RuntimeError", "inplace operation")),
}


@pytest.fixture
def mistaken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Writes a recipe with one of the components above, whose file is `mistaken.py`."""
    monkeypatch.chdir(tmp_path)
    Path("mistaken.py").write_text(HEAD + MISTAKEN)

    def write(name: str, slot: str, **options: Any) -> Path:
        config = with_component(slot, as_table(Path("mistaken.py"), name, **options))
        Path("mine.toml").write_text(config.to_toml())
        return Path("mine.toml")

    return write


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_that_the_first_step_shows_is_refused_before_anything_is_written(
    name: str, mistaken: Callable[..., Path], poise: Any
) -> None:
    """With file, class and method; not as an internal error of poise, whose code it may be raised in."""
    slot, parts = MISTAKES[name]
    poise("train", mistaken(name, slot), "--out", "run", "--trust-code").assert_error(2, "mistaken.py: ", *parts)
    assert not Path("run").exists()


@pytest.mark.parametrize("name", ["Means", "Misread"])
def test_the_check_refuses_what_training_refuses(name: str, mistaken: Callable[..., Path], poise: Any) -> None:
    slot, parts = MISTAKES[name]
    result = poise("check", mistaken(name, slot), "--trust-code")
    assert result.code == 2
    for part in ("mistaken.py: ", *parts):
        assert part in result.out + result.err


def test_a_component_that_fails_later_is_to_blame_for_it(mistaken: Callable[..., Path], poise: Any) -> None:
    result = poise("train", mistaken("Forgetful", "trick", step=1), "--out", "run", "--trust-code")
    assert result.code == 2
    assert "mistaken.py: 'Forgetful.after_update' fails in line " in result.last
    assert "found KeyError: 'my key'; see the traceback with --debug" in result.last
    assert json.loads(Path("run/run.json").read_text())["state"] == "failed"


def test_a_buffer_that_appears_later_ends_training_before_a_checkpoint_is_written_that_can_not_be_loaded(
    mistaken: Callable[..., Path], poise: Any
) -> None:
    recipe_file = mistaken("Late", "trick", step=2)
    result = poise("train", recipe_file, "--out", "run", "--trust-code", "--steps", 4, "--set", "log.saves=1")
    result.assert_error(2, "tricks.own_late.mean: training changes the form", "register buffers in __init__")
    assert Run(Path("run"), trust_code=True).checkpoint.step == 2
    assert Run(Path("run"), trust_code=True).sample(2).shape == (2, 2)


def test_a_feature_network_that_fails_is_to_blame_for_it(component: MakeTable, tmp_path: Path, poise: Any) -> None:
    config = recipe("pictures", steps=1, log=EVERY_STEP)
    train(config, tmp_path / "run")
    (tmp_path / "feat.py").write_text(
        "from torch import nn\nclass B(nn.Module):\n    def forward(self, x):\n"
        "        return {}['x']\nclass C(B):\n    def forward(self, x):\n        return x.mean()\n"
    )
    parts = {"B": ("'B.forward' fails in line 4", "KeyError: 'x'"), "C": ("C of feat.py", "found a 0-dim tensor")}
    for name, texts in parts.items():
        result = poise(
            "measure", tmp_path / "run", "--n", 16, "--features", f"{tmp_path}/feat.py:{name}", "--trust-code"
        )
        assert result.code == 2, result.err
        for text in texts:
            assert text in result.last


def test_a_component_may_need_the_batch_of_the_recipe(component: MakeTable, tmp_path: Path) -> None:
    """A step with a small batch is not what the recipe makes, so that its failure alone refuses nothing."""
    file = tmp_path / "most.py"
    code = """
class Most(LossTerm):
    def __init__(self, name):
        super().__init__(name, 1.0)
    def loss(self, move):
        return move.score("fake").topk(12).values.mean()
"""
    file.write_text(HEAD + code)
    train(ring(as_table(file, "Most"), batch=12, steps=1), tmp_path / "run", trust_code=True)
    with pytest.raises(RecipeError, match=r"most\.py: 'Most\.loss' fails in line"):
        train(ring(as_table(file, "Most"), batch=11, steps=1), tmp_path / "other", trust_code=True)


def test_the_page_explains_every_member_of_the_data_of_a_move() -> None:
    page = (Path(__file__).parents[2] / "docs" / "custom-components.md").read_text("utf-8")
    table = page.partition("| of `move` | is |")[2].partition("\n\n")[0]
    public = {name for name in (*dir(MoveData), *MoveData.__annotations__) if not name.startswith("_")}
    missing = [name for name in sorted(public) if re.search(rf"`{name}\b", table) is None]
    assert not missing


def test_errors_of_poise_are_not_blamed_on_the_user(component: MakeTable) -> None:
    trusted(ring(component("Grain")))
    with pytest.raises(KeyError) as caught:
        _ = {}["x"]
    assert loading.fault_of_user_code(caught.value) is None


CONCAT = {"g": {"kind": "concat", "dim": 4}}
USERS_OF_FEATURES: dict[str, Table] = {
    "projection": {"conditioning": CONCAT | {"d": {"kind": "projection"}}},
    "classifier": {"conditioning": CONCAT, "tricks": [{"kind": "auxiliary_classifier"}]},
    "term": {"tricks": [{"kind": "pulling_away"}]},
}


@pytest.mark.parametrize("user", USERS_OF_FEATURES)
def test_heads_and_terms_need_features_of_d(user: str, component: MakeTable, tmp_path: Path) -> None:
    """A D that returns only scores can't be used with a projection, a classifier or a term that uses features."""
    network = {"g": {"kind": "dcgan", "width": 2}, "d": component("Critic", how="column")}
    config = recipe("pictures", network=network, steps=1, log=EVERY_STEP, **USERS_OF_FEATURES[user])
    with pytest.raises(RecipeError, match="features"):
        train(config, tmp_path / "run", trust_code=True)
    assert not (tmp_path / "run").exists()


def test_heads_use_features_of_d(component: MakeTable) -> None:
    network = {"g": {"kind": "dcgan", "width": 2}, "d": component("Critic", how="output")}
    labels = {"g": {"kind": "concat", "dim": 4}, "d": {"kind": "projection"}}
    config = trusted(recipe("labelled", {"kind": "auxiliary_classifier"}, network=network, conditioning=labels))
    played = Session(config, source("labelled")).play(2)
    assert {"d/auxiliary_classifier", "g/auxiliary_classifier"} <= played.metrics.reduce().keys()


def test_parameters_are_saved_under_their_names(component: MakeTable) -> None:
    played = Session(trusted(ring(g=component("Sketcher"), d=component("Critic"))), source("points"))
    names = {name for name, _ in played.game.named_parameters()}
    assert {"g.net.layers.0.weight", "d.net.net.score.bias"} <= names
