"""Own parts: they train, resume and sample like the package's own, run only where they may, and fail in one line."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import os
import py_compile
import shutil
import signal
import tomllib
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from contracts.tiny import Session, recipe, session, source, unequal
from poise.core.types import MoveContext, Side
from poise.engine import compute
from poise.errors import CheckpointError, RecipeError, Stopped
from poise.recipe.checks.compatibility import check_compatibility
from poise.recipe.decode import decode
from poise.recipe.model import Recipe, differences
from poise.runs import checkpoint
from poise.runs.run import Run
from poise.training.listener import NullListener, StartInfo
from poise.training.train import train
from poise.user_code import loading as own

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
    "Judge": """
class Judge(nn.Module):
    def __init__(self, shape, width=6, how="column"):
        super().__init__()
        self.how = how
        self.trunk = nn.Sequential(nn.Flatten(), nn.Linear(prod(shape), width), nn.LeakyReLU(0.2), nn.Dropout(0.2))
        self.score = nn.Linear(width, 1)
        if how == "verdict":
            self.width = width
    def forward(self, images):
        features = self.trunk(images)
        score = self.score(features)
        if self.how == "verdict":
            return DiscriminatorOutput(score.squeeze(1), features)
        return score if self.how == "column" else score.squeeze(1)
""",
    "Rebuilder": """
class Rebuilder(nn.Module):
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
        return torch.exp(-self.held(real)), torch.exp(self.held(fake))
    def g_losses(self, fake, real):
        return (torch.exp(-self.held(fake)),)
    def held(self, score):
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
    "Doubt": """
class Doubt(TargetTransform):
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
HOMES = {"Speckle": "Grain", "Steepness": "Flatness"}
SEAMS = ("g", "d", "objective", "trick")
MLP = {"kind": "mlp", "width": 6, "depth": 1}
OFTEN = {"rows": 1, "samples": 100, "saves": 100, "sheet": 4}

Part = Callable[..., Table]


def as_table(file: Path, name: str, **options: Any) -> Table:
    return {"kind": "python", "file": str(file), "name": name, "options": options}


@pytest.fixture
def part(tmp_path: Path) -> Part:
    """`part("Grain", sigma=0.2)`: the file that holds it is there, and this is its table."""

    def put(name: str, **options: Any) -> Table:
        home = HOMES.get(name, name)
        file = tmp_path / f"{home.lower()}.py"
        file.write_text(HEAD + SOURCES[home])
        return as_table(file, name, **options)

    return put


@pytest.fixture(autouse=True)
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has run nothing of anybody's."""
    forget(monkeypatch)


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own, "_trusted", set())
    monkeypatch.setattr(own, "_executed", {})
    monkeypatch.setattr(own, "_copies", {})


def ring(*tricks: Table, g: Table = MLP, d: Table = MLP, **changes: Any) -> Recipe:
    return recipe("points", *tricks, **({"steps": 3, "log": OFTEN, "network": {"g": g, "d": d}} | changes))


def with_one(seam: str, table: Table, **changes: Any) -> Recipe:
    """A recipe of which one part is somebody's own."""
    if seam == "trick":
        return ring(table, **changes)
    return ring(**{seam: table}, **changes)


def trusted(told: Recipe) -> Recipe:
    own.allow_user_code(told, True)
    return told


def tensors(out: Path) -> dict[str, Tensor]:
    newest, damaged = checkpoint.newest_valid(out / "saves")
    assert newest is not None
    assert damaged == []
    return newest.tensors


def rows(out: Path) -> list[Table]:
    told = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    for row in told:
        del row["seconds"], row["stats"]["time/images_per_second"]
    return told


class Notes(NullListener):
    """Keeps what is said at the start; stops the run by SIGTERM at a step, if one is given."""

    def __init__(self, stop: int = 0) -> None:
        self.lines: list[str] = []
        self.stop = stop

    def on_start(self, start: StartInfo) -> None:
        self.lines = start.lines

    def on_step(self, step: int) -> None:
        if step == self.stop - 1:
            os.kill(os.getpid(), signal.SIGTERM)


# ---- at work ------------------------------------------------------------------------------------------

WORKING: dict[str, tuple[str, str, Table]] = {
    "generator": ("g", "Sketcher", {"width": 5}),
    "column": ("d", "Judge", {"how": "column"}),
    "flat": ("d", "Judge", {"how": "flat", "width": 4}),
    "verdict": ("d", "Judge", {"how": "verdict"}),
    "objective": ("objective", "Exponential", {"limit": 2.5}),
    "rule": ("objective", "Swaying", {"pull": 0.25}),
    "view": ("trick", "Grain", {"sigma": 0.1}),
    "term": ("trick", "Flatness", {"weight": 2.0}),
    "after": ("trick", "Memory", {}),
}


@pytest.mark.parametrize("which", WORKING)
def test_each_trains_samples_and_reads_back(which: str, part: Part, tmp_path: Path) -> None:
    seam, name, options = WORKING[which]
    told = with_one(seam, part(name, **options))
    run = train(told, tmp_path / "run", trust_code=True)
    assert [row["step"] for row in rows(run.path)] == [1, 2, 3]
    again = decode(tomllib.loads((run.path / "recipe.toml").read_text()))
    assert again == told
    assert again.hash == told.hash
    assert again.to_toml() == told.to_toml()
    assert own.user_components(again)[0].options == options
    points = Run(run.path, trust_code=True).sample(5, seed=3)
    assert points.shape == (5, 2)
    assert torch.equal(points, run.sample(5, seed=3))


def test_options_reach_the_part(part: Part) -> None:
    tables = part("Sketcher", width=5), part("Judge", width=7), part("Grain", sigma=0.125), part("Swaying", pull=0.25)
    told = trusted(ring(tables[2], g=tables[0], d=tables[1], objective=tables[3]))
    game = Session(told, source("points")).game
    assert game.g.net.layers[0].out_features == 5  # type: ignore[union-attr, index]
    assert game.d.net.net.score.in_features == 7  # type: ignore[union-attr]
    assert game.tricks["own_grain"].sigma == 0.125
    assert game.objective.config.pull == 0.25


@pytest.mark.parametrize("value", [5, 0.5, -3, True, "text", [], [1, [2.5]], {"a": {"b": [1]}}, [{"a": 1}, {"b": 2}]])
def test_options_come_back(value: object, part: Part) -> None:
    told = ring(part("Grain", sigma=value))
    again = decode(tomllib.loads(told.to_toml()))
    assert again.hash == told.hash
    assert again.tricks[0].options == {"sigma": value}  # type: ignore[attr-defined]
    assert type(again.tricks[0].options["sigma"]) is type(value)  # type: ignore[attr-defined]


@pytest.mark.parametrize("value", [math.inf, math.nan, None, date(2020, 1, 1), [math.inf], {"a": [None]}, Path("x")])
def test_options_that_would_not_come_back_are_refused(value: object, part: Part) -> None:
    with pytest.raises(RecipeError, match=r"tricks\.0\.options"):
        decode(ring().canonical() | {"tricks": [part("Grain", sigma=value)]})


def test_a_part_can_not_change_the_recipe(tmp_path: Path) -> None:
    """An option that is a list is the part's own copy."""
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
    told = trusted(ring(g=as_table(file, "Greedy", widths=[5, 2])))
    before = told.to_toml()
    Session(told, source("points"))
    assert told.to_toml() == before


def test_a_column_of_scores_is_as_good_as_a_row_or_a_verdict(part: Part) -> None:
    played = [
        Session(trusted(ring(d=part("Judge", how=how))), source("points")).play(3)
        for how in ("column", "flat", "verdict")
    ]
    for other in played[1:]:
        assert unequal(played[0].saved(), other.saved()) == []


def test_what_d_says_is_believed(part: Part) -> None:
    energy, score = part("Rebuilder"), part("Judge")
    assert check_compatibility(trusted(ring(d=energy, objective={"kind": "energy"}))).refusals == []
    assert [r.field for r in check_compatibility(trusted(ring(d=energy))).refusals] == ["objective"]
    assert [r.field for r in check_compatibility(trusted(ring(d=score, objective={"kind": "energy"}))).refusals] == [
        "objective"
    ]
    Session(ring(d=energy, objective={"kind": "energy"}), source("points")).play(3)


def test_what_an_objective_declares_holds(part: Part, tmp_path: Path) -> None:
    told = trusted(ring({"kind": "soft_labels"}, objective=part("Declared")))
    objective = told.objective
    assert objective.output_kinds == {"score", "energy"}
    assert (objective.accepts_targets, objective.is_relativistic, objective.needs_lipschitz_bound) == (True, True, True)
    assert objective.decision_threshold == 0.25
    assert objective.equilibrium == {Side.D: 0.5, Side.G: 1.5}
    assert objective.extra_metrics(torch.ones(2), torch.zeros(2)) == {"gap": torch.tensor(1.0)}
    findings = check_compatibility(told)
    assert findings.refusals == []
    assert [w.field for w in findings.warnings if w.tip == "T06b"] == ["objective"]
    assert Session(told, source("points")).game.objective.is_relativistic
    train(told, tmp_path / "run", trust_code=True)
    assert {"d/gap", "d/real_accuracy"} <= rows(tmp_path / "run")[0]["stats"].keys()


def test_what_an_objective_leaves_out_is_the_base_s(part: Part, tmp_path: Path) -> None:
    told = trusted(ring({"kind": "soft_labels"}, objective=part("Exponential")))
    assert told.objective.output_kinds == {"score"}
    assert (
        told.objective.is_relativistic,
        told.objective.needs_lipschitz_bound,
        told.objective.decision_threshold,
    ) == (False, False, None)
    refused = check_compatibility(told).refusals
    assert [r.field for r in refused] == ["tricks.0"]
    assert "targets" in refused[0].message
    with pytest.raises(RecipeError, match="targets"):
        train(told, tmp_path / "run", trust_code=True)
    assert not (tmp_path / "run").exists()
    train(ring(objective=part("Exponential")), tmp_path / "run", trust_code=True)
    stats = rows(tmp_path / "run")[0]["stats"]
    assert "d/accuracy" in stats
    assert "d/real_accuracy" not in stats


def test_what_an_own_trick_declares_is_believed(tmp_path: Path) -> None:
    """A pack is what D is built for, a pick is refused where no cost is one fake's, a sign where scores have none."""
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

    def told(name: str, **changes: Any) -> Recipe:
        return trusted(ring({"kind": "python", "file": str(file), "name": name}, **changes))

    pairs = told("Pairs")
    assert check_compatibility(pairs).refusals == []
    source = pairs.data.load().train
    run = Session(pairs, source).play(1)
    assert len(run.moves[0].move.score("real")) == pairs.batch // 2
    for name, kind in (("First", "relativistic_average"), ("Signed", "wasserstein")):
        assert check_compatibility(told(name)).refusals == []
        assert [r.field for r in check_compatibility(told(name, objective={"kind": kind})).refusals] == ["tricks.0"]


def test_an_own_aim_needs_targets(part: Part) -> None:
    assert check_compatibility(trusted(ring(part("Doubt")))).refusals == []
    refused = check_compatibility(trusted(ring(part("Doubt"), objective={"kind": "hinge"}))).refusals
    assert [(r.field, "targets" in r.message) for r in refused] == [("tricks.0", True)]


def test_annotations_may_be_postponed(tmp_path: Path) -> None:
    """`from __future__ import annotations`: dataclasses and objectives look their words up in the file."""
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
    told = trusted(ring(objective=as_table(file, "Chosen", how="mean")))
    assert told.objective.accepts_targets
    Session(told, source("points")).play(1)


def test_precision_stays_full(part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "native_bf16", lambda device: True)
    dcgan = {"kind": "dcgan", "width": 2}
    for g, d, wanted in (
        (dcgan, dcgan, "bf16"),
        (part("Sketcher"), dcgan, "fp32"),
        (dcgan, part("Judge"), "fp32"),
        (part("Sketcher"), part("Judge"), "fp32"),
    ):
        told = recipe("pictures", network={"g": g, "d": d})
        assert compute.choose_compute("cpu", "auto", told).precision == wanted


# ---- names --------------------------------------------------------------------------------------------


def test_two_tricks_of_one_file_have_names_and_streams_of_their_own(part: Part) -> None:
    grain, speckle = part("Grain"), part("Speckle")
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


def test_terms_have_rows_of_their_own(part: Part, tmp_path: Path) -> None:
    train(ring(part("Flatness"), part("Steepness")), tmp_path / "run", trust_code=True)
    for row in rows(tmp_path / "run"):
        flat, steep = (row["stats"][f"d/own_{name}"]["mean"] for name in ("flatness", "steepness"))
        assert steep == pytest.approx(1 + flat)
        assert "g/own_flatness" not in row["stats"]


def test_an_own_trick_moves_nobody_else_s_dice(part: Part) -> None:
    plain = session("points", network={"g": MLP, "d": MLP}).play(3)
    noisy = Session(trusted(ring(part("Grain"), steps=12)), source("points")).play(3)
    for a, b in zip(plain.moves, noisy.moves, strict=True):
        assert torch.equal(a.latents, b.latents)
    assert unequal(plain.saved(), noisy.saved()) != []


# ---- resuming -----------------------------------------------------------------------------------------


def everything(part: Part, steps: int) -> Recipe:
    """Own parts everywhere, each with something to lose; a row lasts three steps, so that a stop falls into one."""
    tricks = part("Grain"), part("Flatness"), part("Memory"), {"kind": "averaged_weights", "ramp_up": 0.0}
    players = {"g": part("Sketcher"), "d": part("Judge")}
    return ring(*tricks, **players, objective=part("Swaying"), steps=steps, log=OFTEN | {"rows": 3})


def test_a_stopped_run_ends_like_one_that_was_not(part: Part, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = everything(part, 4)
    train(told, tmp_path / "whole", trust_code=True)
    with pytest.raises(Stopped, match="after step 2"):
        train(told, tmp_path / "halves", trust_code=True, listener=Notes(stop=2))
    half = tensors(tmp_path / "halves")
    forget(monkeypatch)
    notes = Notes()
    train(told, tmp_path / "halves", trust_code=True, resume=True, listener=notes)
    assert not any("exact" in line for line in notes.lines)
    whole = tensors(tmp_path / "whole")
    assert unequal(whole, tensors(tmp_path / "halves")) == []
    assert rows(tmp_path / "whole") == rows(tmp_path / "halves")
    for name in ("game/tricks.own_memory.mean", "game/objective.level"):
        assert half[name] != 0
        assert half[name] != whole[name]


def test_a_longer_run_begins_like_a_shorter_one(part: Part, tmp_path: Path) -> None:
    train(everything(part, 4), tmp_path / "whole", trust_code=True)
    train(everything(part, 2), tmp_path / "longer", trust_code=True)
    train(everything(part, 4), tmp_path / "longer", trust_code=True, resume=True)
    told = [tensors(tmp_path / name) for name in ("whole", "longer")]
    for given in told:  # a row ended where the shorter run did, so the pending readings are others
        for name in [name for name in given if name.startswith("ledger/")]:
            del given[name]
    assert unequal(*told) == []


@pytest.mark.parametrize("buffer", ["game/tricks.own_memory.mean", "game/objective.level"])
def test_what_is_remembered_matters(buffer: str, part: Part) -> None:
    """The rig above would see a buffer that was lost."""
    first = Session(trusted(everything(part, 4)), source("points")).play(2)
    lost = first.saved()
    lost[buffer] = torch.zeros(())
    assert unequal(first.resumed().play(2).saved(), first.resumed(lost).play(2).saved()) != []


def test_other_code_is_another_run(part: Part, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noted, and gone on with; `run.json` has the hash of the code that ran."""
    table = part("Memory")
    file, out = Path(table["file"]), tmp_path / "run"
    train(ring(table, steps=2), out, trust_code=True)
    assert json.loads((out / "run.json").read_text())["code"] == {str(file): digest(file)}
    forget(monkeypatch)
    file.write_text(file.read_text() + "\n# a thought\n")
    notes = Notes()
    train(ring(table, steps=4), out, trust_code=True, resume=True, listener=notes)
    told = [line for line in notes.lines if "may not be exactly reproducible" in line]
    assert len(told) == 1
    assert "code" in told[0]
    assert json.loads((out / "run.json").read_text())["code"] == {str(file): digest(file)}


def moved_away(part: Part, out: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Recipe, Path, Tensor]:
    """A run whose file is not there any more, as on another machine; and samples from when it was."""
    table = part("Memory")
    told = ring(table, g=part("Sketcher"), steps=2)
    train(told, out, trust_code=True)
    samples = Run(out, trust_code=True).sample(3)
    for each in own.user_components(told):
        Path(each.file).unlink(missing_ok=True)
    forget(monkeypatch)
    return told, Path(table["file"]), samples


def test_a_run_is_opened_where_its_files_are_not(part: Part, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It samples from the copies; without trust these don't run either."""
    _, file, samples = moved_away(part, tmp_path / "run", monkeypatch)
    assert torch.equal(Run(tmp_path / "run", trust_code=True).sample(3), samples)
    forget(monkeypatch)
    with pytest.raises(RecipeError, match="--trust-code"):
        Run(tmp_path / "run").sample(3)
    assert (tmp_path / "run" / "code" / file.name).is_file()


def test_a_run_goes_on_where_its_files_are_not(part: Part, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And ends like one that always had them."""
    told, file, _ = moved_away(part, tmp_path / "run", monkeypatch)
    notes = Notes()
    longer = told.model_copy(update={"steps": 4})
    train(longer, tmp_path / "run", trust_code=True, resume=True, listener=notes)
    assert any(f"{file} does not exist: the run's copy" in line for line in notes.lines)
    assert not any("may not be exactly reproducible" in line for line in notes.lines)
    forget(monkeypatch)
    train(ring(part("Memory"), g=part("Sketcher"), steps=4), tmp_path / "whole", trust_code=True)
    assert unequal(tensors(tmp_path / "run"), tensors(tmp_path / "whole")) == []
    assert Run(tmp_path / "run").info["code"] == Run(tmp_path / "whole").info["code"]


def test_changed_code_is_named_when_a_run_goes_on(part: Part, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is taken as it is now, for the copy too; the run samples from what it was trained with until then."""
    table = part("Memory")
    file = Path(table["file"])
    train(ring(table, steps=2), tmp_path / "run", trust_code=True)
    forget(monkeypatch)
    file.write_text(file.read_text() + "\n# a thought\n")
    copy = tmp_path / "run" / "code" / file.name
    assert copy.read_bytes() != file.read_bytes()
    assert Run(tmp_path / "run", trust_code=True).sample(2) is not None
    notes = Notes()
    train(ring(table, steps=4), tmp_path / "run", trust_code=True, resume=True, listener=notes)
    assert any(f"{file} has changed since this run was started" in line for line in notes.lines)
    assert copy.read_bytes() == file.read_bytes()


@pytest.mark.parametrize("there", [True, False])
def test_a_copy_that_was_changed_is_not_run(
    part: Part, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    """The file itself will do where it is what it was; else nothing runs."""
    table = part("Memory")
    file, run = Path(table["file"]), tmp_path / "run"
    train(ring(table, steps=2), run, trust_code=True)
    copy = run / "code" / file.name
    copy.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    forget(monkeypatch)
    if there:
        assert Run(run, trust_code=True).sample(2) is not None
    else:
        file.unlink()
        for use in (lambda: Run(run, trust_code=True).sample(2), lambda: go_on(table, run)):
            with pytest.raises(CheckpointError, match="copy of its code can't be used, found changed or damaged"):
                use()
    assert not (tmp_path / "ran").exists()


def go_on(table: Table, run: Path) -> Run:
    return train(ring(table, steps=4), run, trust_code=True, resume=True)


def test_two_files_of_one_name_have_two_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for year in ("early", "late"):
        (tmp_path / year).mkdir()
        (tmp_path / year / "mine.py").write_text(HEAD + SOURCES["Sketcher" if year == "early" else "Judge"])
    told = ring(
        g=as_table(tmp_path / "early" / "mine.py", "Sketcher"), d=as_table(tmp_path / "late" / "mine.py", "Judge")
    )
    train(told, tmp_path / "run", trust_code=True)
    assert sorted(path.name for path in (tmp_path / "run" / "code").iterdir()) == ["mine-2.py", "mine.py"]
    shutil.rmtree(tmp_path / "early")
    shutil.rmtree(tmp_path / "late")
    forget(monkeypatch)
    assert Run(tmp_path / "run", trust_code=True).sample(2) is not None


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def dated(file: Path, year: str) -> str:
    """A generator that can be told from its other versions by the name of its layer; returns the file's digest."""
    code = f"""
class Dated(nn.Module):
    def __init__(self, latent, shape):
        super().__init__()
        self.{year} = nn.Linear(latent, prod(shape))
    def forward(self, z):
        return self.{year}(z)
"""
    file.write_text(HEAD + code)
    return digest(file)


def test_the_hash_is_that_of_the_code_that_ran(tmp_path: Path) -> None:
    """Even if the file was changed since it was run in this process."""
    file = tmp_path / "dated.py"
    digests = {"early": dated(file, "early")}
    train(ring(g=as_table(file, "Dated")), tmp_path / "first", trust_code=True)
    digests["late"] = dated(file, "late")
    train(ring(g=as_table(file, "Dated")), tmp_path / "second", trust_code=True)
    (ran,) = [year for year in digests if f"game/g.net.{year}.bias" in tensors(tmp_path / "second")]
    assert json.loads((tmp_path / "second" / "run.json").read_text())["code"] == {str(file): digests[ran]}


def test_a_path_is_seen_from_where_the_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for year in ("early", "late"):
        (tmp_path / year).mkdir()
        monkeypatch.chdir(tmp_path / year)
        dated(Path("dated.py"), year)
        train(ring(g=as_table(Path("dated.py"), "Dated")), "run", trust_code=True)
        assert f"game/g.net.{year}.bias" in tensors(tmp_path / year / "run")


def test_what_runs_is_what_the_file_says(tmp_path: Path) -> None:
    """A compiled file beside it, which nobody reads, is not what was trusted."""
    file, other = tmp_path / "dated.py", tmp_path / "other.py"
    dated(other, "hidden")
    dated(file, "shown")
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    cached = importlib.util.cache_from_source(str(file))
    py_compile.compile(str(other), cfile=cached, dfile=str(file), invalidation_mode=unchecked)
    game = Session(trusted(ring(g=as_table(file, "Dated"))), source("points")).game
    assert [name for name, _ in game.g.net.named_children()] == ["shown"]


# ---- trust --------------------------------------------------------------------------------------------

PICK = {"g": "Sketcher", "d": "Judge", "objective": "Exponential", "trick": "Grain"}


@pytest.fixture(params=SEAMS)
def watched(request: pytest.FixtureRequest, part: Part, tmp_path: Path) -> tuple[Recipe, Path]:
    """A recipe with one own part, whose file adds a letter to the marker whenever it is run."""
    table, marker = part(PICK[request.param]), tmp_path / "marker"
    file = Path(table["file"])
    file.write_text(file.read_text() + f"with open({str(marker)!r}, 'a') as marker:\n    marker.write('x')\n")
    return with_one(request.param, table), marker


def test_reading_a_recipe_runs_nothing(watched: tuple[Recipe, Path]) -> None:
    told, marker = watched
    again = decode(tomllib.loads(told.to_toml()))
    assert again == told
    assert again.hash == told.hash
    assert differences(told, again) == []
    assert again.trick_names() == told.trick_names()
    repr(told)
    assert not marker.exists()


def test_checking_and_building_without_trust_runs_nothing(watched: tuple[Recipe, Path], tmp_path: Path) -> None:
    told, marker = watched
    file = own.user_components(told)[0].file
    if told.network.g.kind != "python":  # type: ignore[attr-defined]
        with pytest.raises(RecipeError, match="--trust-code"):  # nothing is asked of a G until it is built
            check_compatibility(told)
    with pytest.raises(RecipeError, match="--trust-code") as refused:
        Session(told, source("points"))
    assert file in str(refused.value)
    with pytest.raises(RecipeError, match="--trust-code"):
        train(told, tmp_path / "run")
    assert not marker.exists()
    assert not (tmp_path / "run").exists()


def test_no_command_runs_it_without_trust(
    watched: tuple[Recipe, Path], tmp_path: Path, poise: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, marker = watched
    file, run = own.user_components(told)[0].file, tmp_path / "run"
    (tmp_path / "mine.toml").write_text(told.to_toml())
    poise("train", tmp_path / "mine.toml", "--out", run).complains(2, file, "--trust-code")
    assert not run.exists()
    assert not marker.exists()

    assert poise("train", tmp_path / "mine.toml", "--out", run, "--trust-code").code == 0
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for fresh in (False, True):  # it has run in this process already; or it hasn't
        if fresh:
            forget(monkeypatch)
        copy = str(run / "code" / Path(file).name)
        poise("sample", run).complains(2, copy, "--trust-code")
        poise("interpolate", run).complains(2, copy, "--trust-code")
        poise("train", "--resume", "--out", run, "--steps", 5).complains(2, file, "--trust-code")
        with pytest.raises(RecipeError, match="--trust-code"):
            Run(run).sample(2)
    assert marker.read_text() == "x"
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_it_runs_once_in_a_process(watched: tuple[Recipe, Path], tmp_path: Path, poise: Any) -> None:
    told, marker = watched
    run = tmp_path / "run"
    train(told, run, trust_code=True)
    assert poise("sample", run, "--n", 4, "--trust-code").code == 0
    assert poise("interpolate", run, "--rows", 2, "--steps", 2, "--trust-code").code == 0
    assert poise("train", "--resume", "--out", run, "--steps", 4, "--trust-code").code == 0
    assert marker.read_text() == "x"


def test_trust_in_one_file_is_not_trust_in_another(part: Part, tmp_path: Path) -> None:
    trusted(ring(part("Grain")))
    with pytest.raises(RecipeError, match="--trust-code"):
        check_compatibility(ring(part("Grain"), part("Memory")))


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
        return self.layer(images)
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
        f"missing {seam}": (
            seam,
            {"file": "nowhere.py", "name": "A"},
            ("nowhere.py", "paths are relative to the working directory"),
        )
        for seam in SEAMS
    },
    **{
        f"misnamed {seam}": (seam, {"name": "Gramd"}, ("wrong.py", "no such name", "Gramd", "did you mean 'Grand'"))
        for seam in SEAMS
    },
    **{f"broken {seam}": (seam, {"file": "broken.py"}, ("broken.py", "ZeroDivisionError")) for seam in SEAMS},
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
    **{f"picky {seam}": (seam, {"name": "picky"}, ("wrong.py", "ValueError: not")) for seam in SEAMS},
    "plain g": ("g", {"name": "plain"}, ("wrong.py", "torch.nn.Module", "found int")),
    "plain d": ("d", {"name": "plain"}, ("wrong.py", "torch.nn.Module", "found int")),
    "plain objective": ("objective", {"name": "plain"}, ("wrong.py", "Objective", "found int")),
    "plain trick": ("trick", {"name": "plain"}, ("wrong.py", "poise.core.hooks", "found int")),
    "a module is no objective": ("objective", {"name": "Grand"}, ("wrong.py", "Objective", "found Grand")),
    "an objective is no trick": ("trick", {"name": "Silent"}, ("wrong.py", "poise.core.hooks", "found Silent")),
    "g's shape": ("g", {"name": "Grand"}, ("wrong.py", "'Grand'", "3")),
    "g's failure": ("g", {"name": "Torn"}, ("wrong.py", "'Torn'")),
    "d's shape": ("d", {"name": "Twofold"}, ("wrong.py", "'Twofold'", "2")),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_is_one_line_before_anything_is_written(
    case: str, tmp_path: Path, poise: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seam, table, parts = REFUSED[case]
    monkeypatch.chdir(tmp_path)
    Path("wrong.py").write_text(HEAD + SOURCES["Exponential"] + SOURCES["Grain"] + WRONG)
    Path("broken.py").write_text("1 / 0\n")
    Path("syntax.py").write_text("class (:\n")
    Path("leaves.py").write_text("raise SystemExit(3)\n")
    told = with_one(seam, {"kind": "python", "file": "wrong.py", "name": "Grand"} | table)
    Path("mine.toml").write_text(told.to_toml())
    said = poise("train", "mine.toml", "--out", "run", "--trust-code")
    said.complains(2, *parts)
    assert not Path("run").exists()


CONCAT = {"g": {"kind": "concat", "dim": 4}}
READERS: dict[str, Table] = {
    "projection": {"conditioning": CONCAT | {"d": {"kind": "projection"}}},
    "classifier": {"conditioning": CONCAT, "tricks": [{"kind": "auxiliary_classifier"}]},
    "term": {"tricks": [{"kind": "pulling_away"}]},
}


@pytest.mark.parametrize("reader", READERS)
def test_heads_need_features(reader: str, part: Part, tmp_path: Path) -> None:
    """A D that answers with scores alone has nothing for a projection, a classifier or a term to read."""
    network = {"g": {"kind": "dcgan", "width": 2}, "d": part("Judge", how="column")}
    told = recipe("pictures", network=network, steps=1, log=OFTEN, **READERS[reader])
    with pytest.raises(RecipeError, match="features"):
        train(told, tmp_path / "run", trust_code=True)
    assert not (tmp_path / "run").exists()


def test_heads_read_features(part: Part) -> None:
    network = {"g": {"kind": "dcgan", "width": 2}, "d": part("Judge", how="verdict")}
    labels = {"g": {"kind": "concat", "dim": 4}, "d": {"kind": "projection"}}
    told = trusted(recipe("labelled", {"kind": "auxiliary_classifier"}, network=network, conditioning=labels))
    played = Session(told, source("labelled")).play(2)
    assert {"d/auxiliary_classifier", "g/auxiliary_classifier"} <= played.metrics.reduce().keys()


def test_weights_are_saved_by_their_names(part: Part) -> None:
    played = Session(trusted(ring(g=part("Sketcher"), d=part("Judge"))), source("points"))
    names = {name for name, _ in played.game.named_parameters()}
    assert {"g.net.layers.0.weight", "d.net.net.score.bias"} <= names
