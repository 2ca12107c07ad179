"""`import poise`: its public names, its import cost, and `train` in scripts and notebooks."""

from __future__ import annotations

import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from torch import Tensor

import poise
from poise import functional as F
from poise.cli.progress_view import LiveView, NotebookView, PlainView, choose_view
from poise.core.config import find_components
from poise.core.double_backward import ConvGeometry
from poise.data.config import DataConfig
from poise.errors import DataError, RecipeError
from poise.objectives.base import Objective
from poise.recipe.decode import decode
from poise.recipe.shipped import load_table
from poise.recipe.toml import to_toml
from poise.tricks.lecam import lecam

SMALL = {"batch": 8, "log": {"rows": 2, "saves": 4, "samples": 4, "sheet": 4}}


def small(**more: object) -> dict[str, object]:
    recipe = load_table("ring") | SMALL | more
    recipe["network"] = {side: {"kind": "mlp", "width": 8} for side in ("g", "d")}
    recipe.pop("measure", None)
    return recipe


def test_listed_names_exist() -> None:
    assert dir(poise) == sorted(poise.__all__)
    for name in dir(poise):
        assert getattr(poise, name) is not None
    for name in dir(F):
        assert callable(getattr(F, name))
    assert poise.tricks.R1("r1", weight=1.0) is not None
    assert {"Hinge", "Began"} <= set(dir(poise.objectives))
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = poise.tricks.Nothing


def test_the_kinds_of_data_and_what_measures_are_public_names() -> None:
    kinds = find_components(DataConfig, "poise.data").values()
    assert {config.__name__ for config in kinds} | {"load", "DataSplits", "ImageDataset"} <= set(dir(poise.data))
    assert {"Evaluator", "MeasureConfig", "psnr", "select_measures"} <= set(dir(poise.measure))
    assert {"Listing", "SampleSet"} & {*dir(poise.data), *dir(poise.measure)} == set()
    for module in (poise.data, poise.measure):
        assert all(callable(getattr(module, name)) for name in dir(module))
        with pytest.raises(AttributeError, match="no attribute 'nothing'"):
            _ = module.nothing


def test_data_is_loaded_from_a_path_a_name_a_table_and_a_config(tmp_path: Path) -> None:
    images = np.arange(40, dtype=np.uint8)[:, None, None] + np.zeros((8, 8), np.uint8)
    np.savez(tmp_path / "d.npz", images=images, labels=np.arange(40) % 2)
    table = {"kind": "npz", "path": str(tmp_path / "d.npz"), "size": 8}
    config = poise.data.NpzConfig(path=str(tmp_path / "d.npz"))
    forms = (tmp_path / "d.npz", str(tmp_path / "d.npz"), table, config, poise.data.NpzConfig(**table))
    loaded = [poise.data.load(form, size=8, held_out=0.25) for form in forms]
    for splits in loaded:
        assert (len(splits.train), len(splits.held_out)) == (30, 10)
        assert splits.train.fingerprint == loaded[0].train.fingerprint
    batch = loaded[0].train.gather(torch.tensor([0, 1]))
    assert (batch.images.shape, batch.images.dtype, len(batch.labels)) == ((2, 8, 8, 1), torch.uint8, 2)
    assert table == {"kind": "npz", "path": str(tmp_path / "d.npz"), "size": 8}
    assert poise.data.load("ring").train.draw(3, torch.Generator().manual_seed(0)).shape == (3, 2)
    with pytest.raises(RecipeError, match=r"data\.sise: unknown key"):
        poise.data.load(tmp_path / "d.npz", sise=8)
    with pytest.raises(DataError, match="data: no such data, found 'nothing-of-the-kind'"):
        poise.data.load("nothing-of-the-kind")


def test_train_takes_a_table_of_data(tmp_path: Path) -> None:
    run = poise.train(small(), tmp_path / "run", data={"kind": "grid", "side": 3}, steps=1, progress=False)
    assert run.recipe.data == poise.data.GridConfig(side=3)


def test_listing_does_not_import_torch() -> None:
    code = "import sys, poise; dir(poise); print({'torch', 'numpy'} & set(sys.modules) or '')"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == ""


def test_component_modules_are_imported_lazily() -> None:
    code = "import sys, poise.tricks.base; print([m for m in sys.modules if m.endswith('.pools')])"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "[]"


# ---------------------------------------------------------------- train


def test_train_accepts_names_paths_tables_and_recipes(tmp_path: Path) -> None:
    """All of them give the same run."""
    file = tmp_path / "mine.toml"
    file.write_text(to_toml(small(steps=4)))
    given = {
        "table": small(steps=4),
        "path": file,
        "text": str(file),
        "recipe": decode(small(steps=4)),
        "shorter": small(steps=9),
    }
    runs = {
        name: poise.train(one, tmp_path / name, steps=4 if name == "shorter" else None, progress=False)
        for name, one in given.items()
    }
    first = runs["table"].checkpoint.tensors
    for run in runs.values():
        assert run.info["state"] == "done"
        assert all(torch.equal(first[name], run.checkpoint.tensors[name]) for name in first)
    named = poise.train("ring", tmp_path / "named", steps=2, seed=3, progress=False)
    assert (named.recipe.name, named.recipe.steps, named.recipe.seed) == ("ring", 2, 3)
    assert repr(named) == f"Run({str(tmp_path / 'named')!r}, done at step 2)"
    assert (
        repr(poise.Run(named.path, best=True)) == f"Run({str(tmp_path / 'named')!r}, done at step 2, best checkpoint)"
    )


def test_train_does_not_modify_its_table(tmp_path: Path) -> None:
    recipe, same = small(), small()
    poise.train(recipe, tmp_path / "run", steps=2, seed=5, progress=False)
    assert recipe == same


def test_train_resumes_without_a_recipe(tmp_path: Path) -> None:
    poise.train(small(), tmp_path / "run", steps=4, progress=False)
    run = poise.train(None, str(tmp_path / "run"), steps=6, resume=True, progress=False)
    assert run.info["step"] == 6


def test_train_errors_suggest_a_cure(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="did you mean 'ring'"):
        poise.train("rnig", tmp_path / "run")
    with pytest.raises(RecipeError, match="needs the folder of the run"):
        poise.train(resume=True)
    assert not (tmp_path / "run").exists()


def test_progress_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    poise.train(small(), tmp_path / "one", steps=4)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "step 4/4" in captured.err
    poise.train(small(), tmp_path / "two", steps=4, progress=False)
    assert capsys.readouterr() == ("", "")

    class CountingListener(poise.NullListener):
        rows = 0

        def on_row(self, row: object) -> None:
            self.rows += 1

    listener = CountingListener()
    poise.train(small(), tmp_path / "three", steps=4, listener=listener)
    assert listener.rows == 2
    assert capsys.readouterr() == ("", "")


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """IPython as seen from the kernel of a notebook."""
    shell = types.SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))


def test_notebook_progress_is_one_overwritten_line(
    kernel: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    poise.train(small(), tmp_path / "run", steps=6)
    captured = capsys.readouterr()
    assert captured.err == ""
    screen = visible_lines(captured.out)
    assert any("run folder" in line for line in screen)
    (status,) = [line for line in screen if line.startswith("step ")]
    assert status.startswith("step 6/6  ")
    assert "D 0." in status
    assert screen[-1] == "done"
    assert "\x1b" not in captured.out


def visible_lines(text: str) -> list[str]:
    """The lines that a terminal shows, with carriage returns applied."""
    lines = []
    for line in text.splitlines() if "\r" not in text else text.split("\n"):
        visible = ""
        for part in line.split("\r"):
            visible = part + visible[len(part) :]
        lines.append(visible.rstrip())
    return [line for line in lines if line]


def test_choose_view(kernel: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    assert type(choose_view()) is NotebookView
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: None))
    assert type(choose_view()) is LiveView
    monkeypatch.delenv("FORCE_COLOR")
    assert type(choose_view()) is PlainView


# ---------------------------------------------------------------- functions


def scores() -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    return torch.randn(9, generator=rng), torch.randn(9, generator=rng)


@pytest.mark.parametrize("kind", sorted(find_components(Objective, "poise.objectives")))
def test_losses_match_the_objectives(kind: str) -> None:
    """All objectives that are functions of scores are available; the others are rejected."""
    config = find_components(Objective, "poise.objectives")[kind]
    real, fake = scores()
    if not config.output_kinds or config.build is not Objective.build:  # type: ignore[attr-defined]
        with pytest.raises(RecipeError, match="no such objective"):
            F.d_loss(kind, real, fake)
        return
    objective = config()
    assert isinstance(objective, Objective)
    expected = sum(loss.mean() for loss in objective.d_losses(real, fake, None))
    assert torch.equal(F.d_loss(kind, real, fake), torch.as_tensor(expected))
    assert F.g_loss(kind, fake, real).dim() == 0
    if objective.is_relativistic:
        with pytest.raises(RecipeError, match="scores of real samples"):
            F.g_loss(kind, fake)


def test_an_objective_is_found_and_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of objectives is not read in every step; and options that are not equal are told apart."""
    real, fake = scores()
    options = ({}, {"a": -1.0}, {"a": -1.0, "c": 0.0}, {"a": 0.0})
    expected = [F.d_loss("least_squares", real, fake, **some) for some in options]
    assert torch.equal(expected[0], expected[3])
    assert not torch.equal(expected[0], expected[1])

    def fail(*_: object) -> NoReturn:
        raise AssertionError("built again")

    monkeypatch.setattr(F, "find_components", fail)
    monkeypatch.setattr(F, "validate", fail)
    for some, loss in zip(options, expected, strict=True):
        assert torch.equal(F.d_loss("least_squares", real, fake, **some), loss)


@pytest.mark.parametrize("bad", [True, "1", [1.0], {}, None])
def test_options_of_another_type_are_refused_each_time(bad: object) -> None:
    real, fake = scores()
    F.d_loss("least_squares", real, fake, b=1.0)  # True is equal to it
    for _ in range(2):
        with pytest.raises(RecipeError, match="least_squares: b: must be a number, found "):
            F.d_loss("least_squares", real, fake, b=bad)


@pytest.mark.slow
def test_losses_in_a_compiled_function_of_one_graph() -> None:
    """As the documentation says; a compiler can't read the objectives themselves."""
    code = """
import torch
from poise import functional as F
for loss in (F.d_loss, F.g_loss):
    torch.compiler.allow_in_graph(loss)
losses = lambda d, g: F.d_loss("least_squares", d, g, a=-1.0) + F.g_loss("hinge", g)
compiled = torch.compile(losses, fullgraph=True, backend="aot_eager")
d, g = torch.randn(9, requires_grad=True), torch.randn(9)
found, expected = compiled(d, g), losses(d, g)
assert torch.equal(found, expected)
assert torch.equal(*(torch.autograd.grad(loss, d)[0] for loss in (found, expected)))
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=200)


def test_losses_accept_targets_and_options() -> None:
    real, fake = scores()
    hard = F.d_loss("non_saturating", real, fake, targets=(torch.ones(9), torch.zeros(9)))
    assert torch.allclose(hard, F.d_loss("non_saturating", real, fake))
    with pytest.raises(RecipeError, match=r"^hinge: has no such option, found 'margin'; it has no options$"):
        F.d_loss("hinge", real, fake, margin=2)
    with pytest.raises(RecipeError, match=r"^least_squares: has no such option, found 'd'; known: a, b, c"):
        F.d_loss("least_squares", real, fake, d=1.0)
    with pytest.raises(RecipeError, match=r"^least_squares: a: .*, found 'one'$"):
        F.d_loss("least_squares", real, fake, a="one")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_losses_of_half_precision_scores_are_float32(dtype: torch.dtype) -> None:
    """As in training: the square of 400 is above the largest number of float16."""
    real, fake = torch.full((1000,), 400.0, dtype=dtype), torch.linspace(-3, 3, 1000).to(dtype)
    for kind in ("least_squares", "non_saturating"):
        for loss in (F.d_loss(kind, real, fake), F.g_loss(kind, real)):
            assert (loss.dtype, bool(loss.isfinite())) == (torch.float32, True)
        assert torch.equal(F.d_loss(kind, real, fake), F.d_loss(kind, real.float(), fake.float()))
    means = torch.tensor(0.5), torch.tensor(-0.5)
    assert torch.equal(lecam(real, fake, *means), lecam(real.float(), fake.float(), *means))


SCORED = [
    kind
    for kind, config in find_components(Objective, "poise.objectives").items()
    if config.output_kinds and config.build is Objective.build  # type: ignore[attr-defined]
]
"""The objectives that are functions of scores."""


@pytest.mark.parametrize("kind", SCORED)
def test_targets_count_or_are_refused(kind: str) -> None:
    real, fake = scores()
    targets = torch.full((9,), 0.9), torch.full((9,), 0.3)
    if find_components(Objective, "poise.objectives")[kind].accepts_targets:  # type: ignore[attr-defined]
        assert not torch.isclose(F.d_loss(kind, real, fake, targets=targets), F.d_loss(kind, real, fake))
    else:
        with pytest.raises(RecipeError, match=f"{kind}: this objective has no targets"):
            F.d_loss(kind, real, fake, targets=targets)


@pytest.mark.parametrize("kind", SCORED)
def test_scores_may_be_a_column_and_do_not_broadcast(kind: str) -> None:
    """B x 1 with B would be B x B; the values are those of B scores."""
    real, fake = scores()
    d, g = F.d_loss(kind, real, fake), F.g_loss(kind, fake, real)
    for one, other in ((real[:, None], fake), (real, fake[:, None]), (real[:, None], fake[:, None])):
        assert torch.equal(F.d_loss(kind, one, other), d)
        assert torch.equal(F.g_loss(kind, other, one), g)
    patches = real.expand(4, 9).T, fake.expand(4, 9).T
    assert torch.allclose(F.d_loss(kind, *patches), d)
    for empty in (real[:0], torch.tensor(1.0)):
        with pytest.raises(RecipeError, match=f"{kind}: needs the scores of real samples, B"):
            F.d_loss(kind, empty, fake)
        with pytest.raises(RecipeError, match=f"{kind}: needs the scores of fake samples, B"):
            F.g_loss(kind, empty, real)


@pytest.mark.parametrize("kind", ["non_saturating", "minimax", "least_squares"])
def test_targets_fit_the_scores(kind: str) -> None:
    real, fake = scores()
    soft = torch.linspace(0.7, 1.2, 9), torch.linspace(0, 0.3, 9)
    expected = F.d_loss(kind, real, fake, targets=soft)
    column = soft[0][:, None], soft[1][:, None]
    assert torch.equal(F.d_loss(kind, real, fake, targets=column), expected)
    assert torch.equal(F.d_loss(kind, real[:, None], fake[:, None], targets=soft), expected)
    patches = real.expand(4, 9).T, fake.expand(4, 9).T
    assert torch.allclose(F.d_loss(kind, *patches, targets=soft), expected)
    with pytest.raises(RecipeError, match="needs one target for each sample, found 4 for scores 9"):
        F.d_loss(kind, real, fake, targets=(soft[0][:4], soft[1]))


def test_pairs_need_as_many_real_as_fake_samples() -> None:
    real, fake = scores()
    for few in (fake[:1], fake[:4]):
        with pytest.raises(RecipeError, match="compares each real with one fake sample, found 9 and"):
            F.d_loss("relativistic", real, few)
        with pytest.raises(RecipeError, match="compares each real with one fake sample"):
            F.g_loss("relativistic", few, real)
        assert torch.isfinite(F.d_loss("relativistic_average", real, few))


def test_values_that_would_be_nonsense_are_refused() -> None:
    generator = torch.Generator().manual_seed(0)
    real = torch.randn(5, 2)
    with pytest.raises(ValueError, match=r"sides must be .* found 'three'"):
        F.wgan_gp(lambda x: x.sum(1), real, real, generator, sides="three")  # type: ignore[arg-type]
    whole = torch.tensor([[1, 3, -5]])
    for factor in (0.0, 2.0, float("nan")):
        with pytest.raises(ValueError, match="the truncation must be above 0 and at most 1, found"):
            F.truncate_gaussian(real, factor)
    for cut in (
        lambda: F.truncate_gaussian(whole, 0.5),
        lambda: F.lerp(whole, whole, 0.5),
        lambda: F.slerp(whole, whole, 0.5),
        lambda: F.lerp(whole.float(), whole, 0.5),
        lambda: F.slerp(whole.float(), whole, 0.5),
    ):
        with pytest.raises(ValueError, match=r"must be floating-point numbers, found torch\.int64"):
            cut()
    with pytest.raises(ValueError, match="the threshold must be above 0, found -1"):
        F.truncated(2, 2, generator, -1.0)
    for draw in (F.gaussian, F.uniform, F.sphere, F.truncated):
        with pytest.raises(ValueError, match=r"must be a torch.Generator, found 3; .*manual_seed"):
            draw(2, 2, 3)  # type: ignore[operator]
    for bad in (-1.0, 0.0, float("nan")):
        for nonsense in (
            lambda value: F.truncate_gaussian(real, 0.5, value),
            lambda value: F.truncate_gaussian(real, 1.0, value),
            lambda value: F.truncated(2, 2, generator, value),
            lambda value: F.sphere(2, 2, generator, value),
            lambda value: F.dragan(lambda x: x.sum(1), real, value or -0.5, generator),
            lambda value: F.add_noise(real, value or -0.5, generator),
        ):
            with pytest.raises(ValueError, match=r"(threshold|length|spread|sigma) must be (above|at least) 0, found"):
                nonsense(bad)
    for values, message in ((real[:0], "a matrix of at least 1 row"), (real * float("nan"), "must be finite")):
        for measure in (F.vendi, F.inception_score):
            with pytest.raises(ValueError, match=message):
                measure(values)


def test_penalties_of_a_linear_discriminator() -> None:
    """The gradient norm is the norm of the weight everywhere."""
    weight = torch.tensor([3.0, 4.0])
    real, fake = torch.randn(5, 2), torch.randn(5, 2)

    def d(samples: Tensor) -> Tensor:
        return samples @ weight

    assert F.r1(d, real) == pytest.approx(12.5)
    assert F.r2(d, fake) == pytest.approx(12.5)
    assert F.wgan_gp(d, real, fake) == pytest.approx(16)
    assert F.dragan(d, real, generator=torch.Generator().manual_seed(0)) == pytest.approx(16)


@pytest.mark.parametrize("kind", SCORED)
def test_functions_take_what_a_discriminator_of_poise_returns(kind: str) -> None:
    shape = (1, 8, 8)
    d = poise.networks.DCGANDiscriminatorConfig(width=2, norm="none").build(shape)
    real, fake = torch.randn(5, *shape), torch.randn(5, *shape)
    outputs = d(real), d(fake)
    scores = tuple(output.score for output in outputs)
    assert torch.equal(F.d_loss(kind, *outputs), F.d_loss(kind, *scores))
    assert torch.equal(F.g_loss(kind, *outputs[::-1]), F.g_loss(kind, *scores[::-1]))
    means = torch.tensor(0.5), torch.tensor(-0.5)
    assert torch.equal(F.lecam(*outputs, *means), F.lecam(*scores, *means))
    assert torch.equal(F.pulling_away(outputs[1]), F.pulling_away(outputs[1].features))
    with pytest.raises(RecipeError, match="pulling_away: needs D's features"):
        F.pulling_away(outputs[1]._replace(features=None))


@pytest.mark.parametrize("kind", ["non_saturating", "minimax", "least_squares"])
def test_targets_may_be_numbers_bools_or_integers(kind: str) -> None:
    real, fake = scores()
    soft = F.d_loss(kind, real, fake, targets=(torch.full((9,), 0.9), torch.full((9,), 0.1)))
    assert torch.equal(F.d_loss(kind, real, fake, targets=(0.9, 0.1)), soft)
    assert torch.equal(F.d_loss(kind, real, fake, targets=(torch.full((9,), 0.9).double(), 0.1)), soft)
    flipped = torch.arange(9) % 3 == 0
    expected = F.d_loss(kind, real, fake, targets=(1 - flipped.float(), flipped.float()))
    for targets in ((~flipped, flipped), ((~flipped).long(), flipped.long())):
        assert torch.equal(F.d_loss(kind, real, fake, targets=targets), expected)
    with pytest.raises(RecipeError, match=f"{kind}: needs two targets, .*, found 3"):
        F.d_loss(kind, real, fake, targets=(1.0, 0.0, 0.0))  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="kind: no such objective, found None"):
        F.d_loss(None, real, fake)  # type: ignore[arg-type]


PENALTIES = {
    "r1": lambda d, real: F.r1(d, real),
    "r2": lambda d, real: F.r2(d, real),
    "wgan_gp": lambda d, real: F.wgan_gp(d, real, real + 1, torch.Generator().manual_seed(0)),
    "dragan": lambda d, real: F.dragan(d, real, generator=torch.Generator().manual_seed(0)),
}


@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_penalties_are_numbers_without_gradients(name: str, mode: type[torch.no_grad]) -> None:
    net = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    real = torch.randn(5, 2)
    trained = PENALTIES[name](net, real)
    with mode():
        measured = PENALTIES[name](net, real * 1)
    assert (trained.requires_grad, measured.requires_grad) == (True, False)
    assert torch.equal(measured, trained.detach())


@pytest.mark.parametrize("name", PENALTIES)
def test_penalties_need_a_score_for_each_sample(name: str) -> None:
    real = torch.tensor([[1.0, 2.0], [3.0, 5.0]])
    assert torch.isfinite(PENALTIES["r1"](lambda x: (x @ x.T.detach()).squeeze(), real[:1]))
    for d in (lambda x: x.sum(), lambda x: x.sum(1)[:1]):
        with pytest.raises(RecipeError, match=r"D: must return a score for each sample, B, found .* for 2 samples"):
            PENALTIES[name](d, real)


@pytest.mark.parametrize("name", PENALTIES)
def test_penalties_have_the_same_gradients_without_those_of_weights_in_between(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On networks of poise, as in training; to the bit, and only the last backward pass asks for weights."""
    shape = (1, 8, 8)
    d = poise.networks.DCGANDiscriminatorConfig(width=2, norm="none").build(shape)
    real, asked = torch.randn(5, *shape), []
    backward = ConvGeometry.backward

    def record(self: ConvGeometry, *args: Any) -> Any:
        asked.append(args[4])
        return backward(self, *args)

    monkeypatch.setattr(ConvGeometry, "backward", record)
    penalty = PENALTIES[name](d, real)
    assert asked
    assert not any(asked)
    found = torch.autograd.grad(penalty, list(d.parameters()), materialize_grads=True)
    monkeypatch.setattr(F, "input_gradients", lambda total, at, **_: torch.autograd.grad(total, at, create_graph=True))
    again = PENALTIES[name](d, real)
    assert any(asked)
    assert torch.equal(penalty, again)
    expected = torch.autograd.grad(again, list(d.parameters()), materialize_grads=True)
    assert all(map(torch.equal, found, expected))


WHOLE_NUMBERS: dict[str, Callable[[Tensor], object]] = {
    **{name: lambda x, name=name: PENALTIES[name](lambda y: y.flatten(1).float().sum(1), x) for name in PENALTIES},
    "fake of wgan_gp": lambda x: F.wgan_gp(lambda y: y.flatten(1).sum(1), x.float(), x),
    "input_gradient": lambda x: F.input_gradient(lambda y: y.flatten(1).sum(1), x),
    "diff_augment": F.diff_augment,
    "add_noise": lambda x: F.add_noise(x, 0.5),
    "feature_extractor": lambda x: F.feature_extractor("pixels")(x),
}


@pytest.mark.parametrize("name", WHOLE_NUMBERS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_images_as_bytes_are_refused_in_one_sentence(name: str, dtype: torch.dtype) -> None:
    images = torch.randint(0, 256, (4, 1, 8, 8)).to(dtype)
    found = str(dtype).removeprefix("torch.")
    expected = rf"needs floating-point samples, found {found}; images in \[-1, 1\] are x / 127.5 - 1$"
    with pytest.raises(RecipeError, match=expected):
        WHOLE_NUMBERS[name](images)


WRONG_DATA: dict[str, Callable[[], object]] = {
    "tensor": lambda: torch.rand(4, 1, 8, 8),
    "array": lambda: np.zeros((100, 16, 16)),
    "loaded": lambda: poise.data.load("ring"),
    "number": lambda: 7,
    "bytes": lambda: b"digits",
}


@pytest.mark.parametrize("name", WRONG_DATA)
@pytest.mark.parametrize("use", ["load", "train", "train_classifier", "choose_recipe"])
def test_data_of_another_type_is_refused_in_one_line(name: str, use: str, tmp_path: Path) -> None:
    data: Any = WRONG_DATA[name]()
    calls: dict[str, Callable[[], object]] = {
        "load": lambda: poise.data.load(data),
        "train": lambda: poise.train("ring", tmp_path / "run", data=data, steps=1),
        "train_classifier": lambda: poise.train_classifier(data, tmp_path / "c.safetensors"),
        "choose_recipe": lambda: poise.choose_recipe(data, steps=1),
    }
    with pytest.raises(DataError, match=r"^data: must be a path.*, found a value of the type \w+; save .*np.savez"):
        calls[use]()


@pytest.mark.parametrize("targets", [0.9, (0.9, None), (None, 0.1), torch.tensor(1.0), (0.9, "x"), "ab"])
def test_targets_of_another_type_are_refused(targets: Any) -> None:
    real, fake = scores()
    with pytest.raises(RecipeError, match=r"^non_saturating: needs (two targets|a tensor or a number).*, found "):
        F.d_loss("non_saturating", real, fake, targets=targets)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: poise.networks.MLPGeneratorConfig(widht=3), "unknown key 'widht'; did you mean 'width'"),
        (
            lambda: poise.objectives.LeastSquares(a=2.0),
            "must be above a, .*, found a = 2, b = 1; use a = 0, b = 1, c = 1",
        ),
        (lambda: poise.tricks.R1Config(weight=1.0), "unknown key 'weight'; "),
        (lambda: poise.tricks.R1Config(gamma=-1), "must be at least 0, found -1"),
    ],
)
def test_errors_of_configs_in_python_name_the_cure_and_are_value_errors(
    build: Callable[[], object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build()
