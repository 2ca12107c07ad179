"""Fine-tuning: a run that starts from the weights of another run."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from poise.core.config import find_components
from poise.core.random_streams import RandomStreams
from poise.core.types import DataSpec
from poise.data.source import DataSplits, ImageDataset
from poise.engine.build import build_game
from poise.engine.compute import ComputeSettings
from poise.engine.game import Game
from poise.engine.initial_weights import MAX_LISTED, class_rows, class_tensors
from poise.errors import CheckpointError, RecipeError
from poise.measure.fid import fid
from poise.networks.conditioning import DiscriminatorConditioning, GeneratorConditioning
from poise.recipe.decode import decode
from poise.recipe.init import InitConfig
from poise.recipe.model import Recipe
from poise.runs.generate import generate
from poise.runs.run import Run
from poise.training.initial_weights import (
    InitialWeights,
    checksum,
    describe_initial_weights,
    read_initial_weights,
)
from poise.training.listener import NullListener, StartInfo
from poise.training.precheck import check
from poise.training.state import TrainState
from poise.training.train import train
from poise.utils.images import to_float
from runs.small_runs import digits, stopped, traces

CPU = ComputeSettings(torch.device("cpu"), "fp32")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose averaged weights differ from its live ones."""
    return train(digits(), tmp_path_factory.mktemp("source") / "run", device="cpu", precision="fp32")


CONDITIONAL = {"g": {"kind": "concat"}, "d": {"kind": "projection"}}


@pytest.fixture(scope="module")
def conditional(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with labels."""
    recipe = decode(digits(2).canonical() | {"conditioning": CONDITIONAL})
    return train(recipe, tmp_path_factory.mktemp("conditional") / "run", device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def data() -> DataSplits:
    return digits().data.load()


def tuned(source: Run, steps: int = 12, init: dict[str, Any] | None = None, **changes: Any) -> Recipe:
    """The recipe of the run that starts from `source`."""
    return decode(digits(steps).canonical() | {"init": {"from": str(source.path), **(init or {})}} | changes)


def started(recipe: Recipe, data: DataSplits) -> tuple[TrainState, InitialWeights]:
    """The state before step 0."""
    assert recipe.init is not None
    initial = read_initial_weights(recipe.init)
    return TrainState(recipe, CPU, data, initial.tensors), initial


def equal_states(one: nn.Module, other: nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class Notes(NullListener):
    """Keeps the lines that are printed before the first step."""

    lines: list[str]

    def on_start(self, info: StartInfo) -> None:
        self.lines = info.lines


# ---------------------------------------------------------------- what is taken


def test_step_0_generates_the_samples_of_the_averaged_weights(source: Run, data: DataSplits) -> None:
    """Bit for bit, from the trained weights as well as from the averaged ones."""
    state, _ = started(tuned(source), data)
    latents = source.latents(9, seed=3)
    nets = (
        source.generator(),
        source.generator(raw=True),
        *(state.game.sampling_network(raw=raw) for raw in (False, True)),
    )
    expected, live, *mine = (generate(net, latents, None, streams=RandomStreams(0)) for net in nets)
    assert torch.equal(expected, source.sample(9, seed=3))
    assert all(torch.equal(samples, expected) for samples in mine)
    assert not torch.equal(live, expected)
    assert state.game.d is not None
    assert source.game.d is not None
    assert equal_states(state.game.d.net, source.game.d.net)
    assert not any(player.optimizer.state for player in state.game.players.values())


def test_the_first_sample_grid_is_that_of_the_other_run(source: Run, tmp_path: Path) -> None:
    """With the same seed the grids have the same latents, so the first grid equals the other run's last one."""
    run = train(tuned(source, 1), tmp_path / "run", device="cpu", precision="fp32")
    first, last = run.path / "samples" / "step-00000000.png", source.path / "samples" / "step-00000020.png"
    assert first.read_bytes() == last.read_bytes()


def test_g_starts_from_the_trained_weights_if_there_are_no_averaged_ones(tmp_path: Path, data: DataSplits) -> None:
    plain = decode(digits(3).canonical() | {"tricks": []})
    run = train(plain, tmp_path / "plain", device="cpu", precision="fp32")
    state, initial = started(tuned(run), data)
    assert not initial.averaged
    assert equal_states(state.game.sampling_network(), run.game.g.net)
    assert equal_states(state.game.g.net, run.game.g.net)


def test_all_that_tricks_keep_of_the_networks_starts_from_them(source: Run, data: DataSplits) -> None:
    kinds = [
        {"kind": "historical_averaging"},
        {"kind": "past_selves", "every": 5, "duration": 1, "keep": 1},
        {"kind": "mean_weights"},
    ]
    state, _ = started(tuned(source, tricks=kinds), data)
    tricks: Any = state.game.tricks
    for side, player in state.game.players.items():
        means = list(tricks["historical_averaging"].means[side.value].buffers())
        assert all(torch.equal(a, b) for a, b in zip(means, player.net.parameters(), strict=True))
        assert equal_states(tricks["past_selves"].selves[side.value][0], player.net)
    assert equal_states(tricks["mean_weights"].mean, source.generator())


@pytest.mark.parametrize("player", ["g", "d"])
def test_one_player_alone(source: Run, data: DataSplits, player: str) -> None:
    """The other one has the initial weights of a run without `[init]`."""
    state, initial = started(tuned(source, init={"players": [player]}), data)
    plain = TrainState(digits(), CPU, data)
    assert set(initial.tensors) == {player}
    for side, mine in state.game.players.items():
        is_taken = side.value == player
        assert equal_states(mine.net, plain.game.players[side].net) != is_taken
    assert len(describe_initial_weights(initial, state.game)) == 2


def test_the_encoder_is_taken_with_g(tmp_path: Path) -> None:
    net = {"kind": "dcgan", "width": 2}
    table = digits(2).canonical() | {
        "network": {"g": net, "e": net},
        "objective": {"kind": "reconstruction"},
        "optimizer": {"g": {"kind": "adam"}},
        "tempo": {"kind": "alone"},
        "tricks": [],
    }
    run = train(decode(table), tmp_path / "run", device="cpu", precision="fp32")
    again = decode(table | {"init": {"from": str(run.path)}})
    state, initial = started(again, again.data.load())
    assert set(initial.tensors) == {"g", "e"}
    assert state.game.g.encoder is not None
    assert run.game.g.encoder is not None
    assert equal_states(state.game.g.encoder, run.game.g.encoder)
    lines = describe_initial_weights(initial, state.game)
    assert [line.partition(":")[0] for line in lines] == ["initial weights", "G", "encoder"]


def test_the_best_checkpoint(source: Run, tmp_path: Path) -> None:
    measure = {"every": 4, "measures": ["fid"], "n": 20, "features": "pixels"}
    table = digits(8).canonical() | {"measure": measure}
    run = train(decode(table), tmp_path / "run", device="cpu", precision="fp32")
    best = Run(run.path, best=True)
    initial = read_initial_weights(InitConfig.model_validate({"from": str(run.path), "weights": "best"}))
    assert initial.origin == f"{run.path}, step {best.checkpoint.step}"
    assert initial.init.sha256 == checksum(
        {"g": best.generator().state_dict(), "d": best.game.players["d"].net.state_dict()}  # type: ignore[index]
    )
    with pytest.raises(CheckpointError, match="no valid checkpoint"):
        read_initial_weights(InitConfig.model_validate({"from": str(source.path), "weights": "best"}))


# ---------------------------------------------------------------- what is said


def test_all_tensors_are_taken_and_the_lines_say_so(source: Run, tmp_path: Path) -> None:
    notes = Notes()
    train(tuned(source, 1), tmp_path / "run", device="cpu", precision="fp32", listener=notes)
    text = "\n".join(notes.lines)
    g, d = (len(player.net.state_dict()) for player in (source.game.g, source.game.players["d"]))  # type: ignore[index]
    assert f"initial weights: {source.path}, step 20" in text
    assert f"G: {g} of {g} tensors (100% of the values) from its averaged weights" in text
    assert f"D: {d} of {d} tensors (100% of the values)" in text


def test_label_embeddings_of_other_classes_are_left(tmp_path: Path) -> None:
    labels = {"g": {"kind": "concat"}, "d": {"kind": "projection"}}
    run = train(decode(digits(2).canonical() | {"conditioning": labels}), tmp_path / "a", device="cpu")
    few = tuned(run, 2, conditioning=labels)
    whole = few.data.load()
    state, initial = started(few, whole)
    assert len(describe_initial_weights(initial, state.game)) == 3

    tensors = {name: dict(state) for name, state in initial.tensors.items()}
    for name, key in (("g", "embedding.weight"), ("d", "embedding.weight")):
        tensors[name][key] = tensors[name][key][:4]
    state = TrainState(few, CPU, whole, tensors)
    plain = TrainState(few, CPU, whole)
    lines = describe_initial_weights(initial._replace(tensors=tensors), state.game)
    shape = list(state.game.g.net.state_dict()["embedding.weight"].shape)
    assert lines[-2] == (
        f"G: embedding.weight keeps its initial values: its shape is {shape}, in that run [4, {shape[1]}]"
    )
    assert lines[-1].startswith("D: embedding.weight keeps its initial values")
    for side in state.game.players:
        mine, initially = (game.players[side].net.state_dict() for game in (state.game, plain.game))
        assert torch.equal(mine["embedding.weight"], initially["embedding.weight"])
        others = [name for name, t in mine.items() if t.dim() > 1 and name != "embedding.weight"]
        assert all(torch.equal(mine[name], tensors[side.value][name]) for name in others)


SMALL_NET = {"kind": "dcgan", "width": 4}
SPECTRAL = {"g": SMALL_NET, "d": {**SMALL_NET, "norm": "spectral"}}
CLASSIFIER = {"kind": "auxiliary_classifier"}

CONDITIONED: dict[str, tuple[dict[str, Any], dict[str, int]]] = {
    "concat": ({"conditioning": {"g": {"kind": "concat"}}}, {"g": 1}),
    "class_norm": ({"conditioning": {"g": {"kind": "class_norm"}}}, {"g": 4}),
    "channels": ({"conditioning": {"d": {"kind": "channels"}}}, {"d": 1}),
    "projection": ({"conditioning": {"d": {"kind": "projection"}}}, {"d": 1}),
    "projection with spectral norm": (
        {"conditioning": {"d": {"kind": "projection"}}, "network": SPECTRAL},
        {"d": 2},
    ),
    "auxiliary classifier": (
        {"conditioning": {"g": {"kind": "concat"}}, "tricks": [CLASSIFIER]},
        {"g": 1, "d": 2},
    ),
    "auxiliary classifier with spectral norm, packing": (
        {
            "conditioning": {"g": {"kind": "concat"}},
            "tricks": [CLASSIFIER, {"kind": "packing", "samples": 2}],
            "network": SPECTRAL,
        },
        {"g": 1, "d": 3},
    ),
    "shared embedding": (
        {
            "conditioning": {"g": {"kind": "shared_embedding", "dim": 4}},
            "network": {"g": {"kind": "biggan", "width": 2}, "d": SMALL_NET},
        },
        {"g": 1},
    ),
    "translation": (
        {
            "conditioning": {"g": {"kind": "channels"}},
            "data": {"kind": "digit_domains", "size": 16},
            "latent": {"kind": "source"},
            "network": {"g": {"kind": "unet", "width": 2}, "d": SMALL_NET, "direction": "a_to_b"},
        },
        {"g": 1},
    ),
}
"""A recipe for each way to condition, and the numbers of tensors with a row for each class."""


def game_with(table: dict[str, Any], classes: int, seed: int = 0, **initial: Any) -> Game:
    recipe = decode(digits().canonical() | table)
    parts = (1, 1) if recipe.data.two_domains else ()
    spec = DataSpec((sum(parts) or 1, 16, 16), classes, num_samples=10, parts=parts)
    return build_game(recipe, spec, CPU, RandomStreams(seed), **initial)


@pytest.mark.parametrize("how", CONDITIONED)
def test_the_class_tensors_are_those_whose_shape_depends_on_the_number_of_classes(how: str) -> None:
    table, counts = CONDITIONED[how]
    few, many = game_with(table, 3), game_with(table, 5)
    for side, player in few.players.items():
        mine, other = player.net.state_dict(), many.players[side].net.state_dict()
        depend = {name for name in mine if mine[name].shape != other[name].shape}
        assert class_tensors(player.net) == depend
        assert len(depend) == counts.get(side.value, 0)
        assert all(mine[name].shape == (3, *other[name].shape[1:]) for name in depend)


def test_every_kind_of_conditioning_is_among_them() -> None:
    families = [("g", GeneratorConditioning), ("d", DiscriminatorConditioning)]
    kinds = {(side, kind) for side, family in families for kind in find_components(family, "poise.networks")}
    tested = {
        (side, one["kind"]) for table, _ in CONDITIONED.values() for side, one in table.get("conditioning", {}).items()
    }
    assert kinds == tested


def test_classes_that_start_with_their_number_are_found_by_it() -> None:
    digits, mnist = ("0", "1", "2"), ("0 - zero", "1 - one", "2 - two")
    assert class_rows(digits, mnist) is None
    assert class_rows(mnist, digits[::-1]) == [2, 1, 0]


@pytest.mark.parametrize("how", CONDITIONED)
@pytest.mark.parametrize(
    ("known", "names"),
    [("abc", "cba"), ("abc", "bcd"), ("abc", "dabce"), ("abcd", "ca"), ("abc", "def")],
    ids=["reordered", "as many others", "more", "fewer", "none in common"],
)
def test_what_belongs_to_a_class_is_taken_by_its_name(how: str, known: str, names: str) -> None:
    table, _ = CONDITIONED[how]
    source, plain = game_with(table, len(known), seed=1), game_with(table, len(names))
    tensors = {
        side.value: {key: tensor + torch.rand(tensor.shape) for key, tensor in player.net.state_dict().items()}
        for side, player in source.players.items()
    }
    game = game_with(table, len(names), initial=tensors, rows=class_rows(known, names))
    for side, player in game.players.items():
        mine, initially, theirs = player.net.state_dict(), plain.players[side].net.state_dict(), tensors[side.value]
        of_classes = class_tensors(player.net)
        for key in mine.keys() - of_classes:
            assert torch.equal(mine[key], theirs[key].to(mine[key].dtype))
        for key in of_classes:
            for row, name in enumerate(names):
                expected = theirs[key][known.index(name)] if name in known else initially[key][row]
                assert torch.equal(mine[key][row], expected)


@pytest.mark.parametrize(
    ("names", "line", "share"),
    [
        ("1032456789", "classes: each starts from the weights of the class of the same name", 1.0),
        ("01", "classes: each starts from the weights of the class of the same name", 1.0),
        ("0a", "classes: 1 class starts from the weights of the class of the same name; a is new and keeps its", 0.5),
        ("ab0", "classes: 1 class starts from the weights of the class of the same name; a, b are new and keep", 1 / 3),
        ("ab", "classes: the weights of all classes keep their initial values, as that run has none of these", 0.0),
        ("0123456789", "", 1.0),
    ],
)
def test_a_line_says_which_classes_are_taken(conditional: Run, names: str, line: str, share: float) -> None:
    recipe = tuned(conditional, conditioning=CONDITIONAL)
    data = DataSplits(ImageDataset(np.zeros((20, 16, 16, 1), np.uint8), np.zeros(20, np.int64), tuple(names)))
    initial = read_initial_weights(InitConfig.model_validate({"from": str(conditional.path)}))
    state = TrainState(recipe, CPU, data, initial.tensors, initial_classes=initial.classes)
    lines = describe_initial_weights(initial, state.game, data.train.classes)
    said = [one for one in lines if one.startswith("classes")]
    assert len(said) == bool(line)
    assert said[:1] == [one for one in said if one.startswith(line)]
    sizes = {key: tensor.numel() for key, tensor in state.game.g.net.state_dict().items()}
    taken = sum(sizes.values()) - (1 - share) * sizes["embedding.weight"]
    assert f"G: {len(sizes) - (not share)} of {len(sizes)} tensors ({taken / sum(sizes.values()):.0%} of" in lines[1]
    assert "embedding" not in "".join(lines[3:])
    if names[0] == "0":
        assert torch.equal(
            state.game.g.net.state_dict()["embedding.weight"][0], initial.tensors["g"]["embedding.weight"][0]
        )


def test_another_size_takes_what_fits_and_names_the_rest(source: Run) -> None:
    larger = tuned(source, data={"kind": "digits", "size": 32})
    state, initial = started(larger, larger.data.load())
    lines = describe_initial_weights(initial, state.game)
    left = [line for line in lines if "keeps its initial values" in line]
    assert len(left) == MAX_LISTED
    assert any("that run has no such tensor" in line for line in [*left, lines[-1]]) or "more" in lines[-1]
    taken = {line[0]: int(line.split()[1]) for line in lines if " tensors (" in line}
    assert all(0 < count < len(state.game.players[side.lower()].net.state_dict()) for side, count in taken.items())  # type: ignore[index]
    total = sum(len(player.net.state_dict()) for player in state.game.players.values())
    assert lines[-1] == f"and {total - sum(taken.values()) - MAX_LISTED} more keep their initial values"


def test_no_matching_weight_is_an_error_before_anything_is_written(source: Run, tmp_path: Path) -> None:
    mlp = {"kind": "mlp", "width": 8}
    other = tuned(source, network={"g": mlp, "d": mlp})
    with pytest.raises(RecipeError) as error:
        train(other, tmp_path / "run")
    assert error.value.where == "init.from"
    assert "no weight of a layer has the name and shape" in error.value.what
    assert "leave RECIPE out" in error.value.cure
    assert not (tmp_path / "run").exists()
    assert [refusal.field for refusal in check(other).findings.refusals] == ["init.from"]


def test_a_folder_without_a_run_is_an_error(tmp_path: Path, source: Run) -> None:
    for act in (lambda recipe: train(recipe, tmp_path / "run"), check):
        with pytest.raises(CheckpointError, match="not a run folder"):
            act(tuned(source, init={"from": str(tmp_path / "none")}))
    assert not (tmp_path / "run").exists()


def test_the_check_says_what_would_be_taken(source: Run) -> None:
    report = check(tuned(source))
    assert not report.findings.refusals
    assert f"initial weights: {source.path}, step 20" in report.notes


# ---------------------------------------------------------------- the checksum


def test_the_checksum_depends_on_names_types_shapes_and_values_only() -> None:
    tensor = torch.arange(6.0).view(2, 3)
    digest = checksum({"g": {"a": tensor, "b": torch.tensor(1)}, "d": {}})
    assert digest == checksum({"d": {}, "g": {"b": torch.tensor(1), "a": tensor.T.contiguous().T}})
    others: list[dict[str, Tensor]] = [
        {"a": tensor + 1e-6, "b": torch.tensor(1)},
        {"a": tensor.view(3, 2), "b": torch.tensor(1)},
        {"a": tensor.double(), "b": torch.tensor(1)},
        {"c": tensor, "b": torch.tensor(1)},
        {"a": tensor},
    ]
    assert len({digest, *(checksum({"g": other}) for other in others)}) == 6
    assert checksum({"g": {"a": tensor}}) != checksum({"d": {"a": tensor}})


def test_the_recipe_of_the_run_has_the_checksum_and_gives_the_same_run_again(source: Run, tmp_path: Path) -> None:
    first = train(tuned(source), tmp_path / "a", device="cpu", precision="fp32")
    assert first.recipe.init is not None
    assert first.recipe.init.sha256 == read_initial_weights(first.recipe.init).init.sha256
    train(first.recipe, tmp_path / "b", device="cpu", precision="fp32")
    assert traces(tmp_path / "a") == traces(tmp_path / "b")


def test_weights_that_have_changed_since_are_refused(source: Run, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(source.path, tmp_path / "copy"))
    kept = read_initial_weights(InitConfig.model_validate({"from": str(copy)})).init
    train(digits(21), copy, resume=True, device="cpu", precision="fp32")
    recipe = tuned(source, init=kept.model_dump())
    with pytest.raises(RecipeError) as error:
        train(recipe, tmp_path / "run")
    assert error.value.where == "init.sha256"
    assert f"{copy}, step 21" in error.value.what
    assert "remove init.sha256" in error.value.cure
    assert not (tmp_path / "run").exists()
    assert [refusal.field for refusal in check(recipe).findings.refusals] == ["init.sha256"]


# ---------------------------------------------------------------- resuming


@pytest.mark.parametrize("recipe_of", ["run", "by hand"])
def test_a_run_resumes_exactly_without_the_folder_that_it_started_from(
    source: Run, tmp_path: Path, recipe_of: str
) -> None:
    frozen = [*digits().canonical()["tricks"], {"kind": "frozen_layers", "d": 1}]
    base = Path(shutil.copytree(source.path, tmp_path / "base"))
    recipe = tuned(source, 12, init={"from": str(base)}, tricks=frozen)
    train(recipe, tmp_path / "whole")
    stopped(recipe, tmp_path / "half", 7)
    shutil.rmtree(base)
    again = Run(tmp_path / "half").recipe if recipe_of == "run" else recipe
    half = train(again, tmp_path / "half", resume=True)
    assert traces(tmp_path / "whole") == traces(tmp_path / "half")
    assert half.recipe.init is not None
    assert half.recipe.init.sha256 is not None


def test_another_checksum_is_another_recipe(source: Run, tmp_path: Path) -> None:
    stopped(tuned(source), tmp_path / "run", 7)
    with pytest.raises(RecipeError, match=r"init\.sha256"):
        train(tuned(source, init={"sha256": "ab" * 32}), tmp_path / "run", resume=True)


def test_a_roll_back_to_the_beginning_returns_to_these_weights(source: Run, data: DataSplits, tmp_path: Path) -> None:
    state, _ = started(tuned(source), data)
    state.step()
    assert not equal_states(state.game.g.net, source.generator())
    state.roll_back(tmp_path / "no checkpoints")
    assert state.steps_done == 0
    assert equal_states(state.game.g.net, source.generator())


def test_a_resumed_run_without_a_valid_checkpoint_does_not_begin_anew_from_random_weights(
    source: Run, data: DataSplits, tmp_path: Path
) -> None:
    resumed = TrainState(tuned(source), CPU, data)
    with pytest.raises(CheckpointError, match="no valid checkpoint to resume from"):
        resumed.roll_back(tmp_path / "no checkpoints")
    plain = TrainState(digits(), CPU, data)
    plain.roll_back(tmp_path / "no checkpoints")
    assert plain.steps_done == 0


# ---------------------------------------------------------------- the effect


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_fine_tuning_on_few_images_is_far_ahead_of_training_from_scratch(tmp_path: Path, seed: int) -> None:
    """50 steps on 100 threes, from a G that has seen all other digits: less than a third of the FID by pixels."""
    benchmark = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "fine_tuning.py"))
    images = benchmark["split_digits"]()
    samples = benchmark["sample_runs"](tmp_path, images, seed, 300, [50])
    real = to_float(images.real).flatten(1)
    distance = {name: fid(to_float(one).flatten(1), real) for name, one in samples.items()}
    tuned = distance["50 steps, fine-tuned"]
    assert tuned < distance["before fine-tuning"]
    assert tuned < distance["50 steps, from scratch"] / 3
