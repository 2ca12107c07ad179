"""Suspicious settings: for each rule a recipe with a warning and a counterpart without; every rule is covered."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest

from contracts.tiny import recipe
from poise.recipe.checks import suspicious
from poise.recipe.checks.compatibility import check_compatibility
from poise.recipe.checks.findings import Finding, Findings
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.recipe.shipped import load_table
from poise.tips import catalogue
from poise.training import precheck

Table = dict[str, Any]
CONCAT: Table = {"kind": "concat", "dim": 2}
BOTH: Table = {"conditioning": {"g": CONCAT, "d": {"kind": "projection"}}}
CLIPPING: list[Table] = [{"kind": "weight_clipping"}]
WASSERSTEIN: Table = {"objective": {"kind": "wasserstein"}}
SPECTRAL: Table = {
    "network": {"g": {"kind": "dcgan", "width": 2}, "d": {"kind": "dcgan", "width": 2, "norm": "spectral"}}
}
STYLES: Table = {
    "network": {"g": {"kind": "stylegan2", "width": 2, "style_dim": 4}, "d": {"kind": "stylegan2", "width": 2}}
}
ADAM: Table = {"kind": "adam", "lr": 1e-2}
MARGIN: Table = {
    "objective": {"kind": "energy"},
    "network": {"g": {"kind": "dcgan", "width": 2}, "d": {"kind": "autoencoder", "width": 2, "code": 4}},
}


class Case(NamedTuple):
    """Changes and tricks that cause a warning, those of the counterpart, and the warning."""

    warned: tuple[Table, list[Table]]
    clean: tuple[Table, list[Table]]
    field: str
    tip: str
    word: str
    world: str = "pictures"


def networks(world: str = "pictures", *, g: Table | None = None, d: Table | None = None) -> Table:
    """Two tiny networks, with changed fields."""
    kind = {"kind": "dcgan", "width": 2} if world == "pictures" else {"kind": "mlp", "width": 4}
    return {"network": {"g": kind | (g or {}), "d": kind | (d or {})}}


def optimizers(**d: Any) -> Table:
    return {"optimizer": {"g": ADAM, "d": d}}


def tempo(**fields: Any) -> Table:
    return {"tempo": {"kind": "ratio", **fields}}


def g_learning_rate(**dial: Any) -> Table:
    return {"optimizer": {"g": {"kind": "adam", "lr": dial}, "d": ADAM}}


def linear_schedule(**fields: Any) -> Table:
    return {"kind": "linear", "start": 0.2, "end": 0.1, "over": "steps", **fields}


def step_schedule(**fields: Any) -> Table:
    return {"kind": "steps", "values": [1e-2, 1e-3], **fields}


def stacked(objective: Table) -> Table:
    return {"data": {"kind": "stacked_digits"}} | SPECTRAL | objective


def tricks(*kinds: str) -> list[Table]:
    return [{"kind": kind} for kind in kinds]


NOISE = "instance_noise"
SHIFTED: Table = {"kind": "consistency", "mirror": 0.0}
PLAIN: tuple[Table, list[Table]] = ({}, [])

CASES: dict[str, Case] = {
    # ---- _output_range
    "a sigmoid for images": Case(
        (networks(g={"output": "sigmoid"}), []),
        (networks(g={"output": "tanh"}), []),
        "network.g.output",
        "T01",
        "dark pixels",
    ),
    "an unbounded output for images": Case(
        (networks(g={"output": "linear"}), []),
        (networks(g={"output": "auto"}), []),
        "network.g.output",
        "T01",
        "outside that range",
    ),
    "a tanh for points": Case(
        (networks("points", g={"output": "tanh"}), []),
        (networks("points", g={"output": "linear"}), []),
        "network.g.output",
        "T01",
        "a tanh's output is at most 1",
        "points",
    ),
    "a sigmoid for points": Case(
        (networks("points", g={"output": "sigmoid"}), []),
        (networks("points", g={"output": "auto"}), []),
        "network.g.output",
        "T01",
        "a sigmoid's output is at most 1",
        "points",
    ),
    # ---- _sparse_gradients
    "a max pool": Case(
        (networks(d={"down": "max"}), []), (networks(d={"down": "average"}), []), "network.d.down", "T06a", "one pixel"
    ),
    "a ReLU in D": Case(
        (networks(d={"activation": "relu"}), []),
        (networks(g={"activation": "relu"}, d={"activation": "leaky_relu"}), []),
        "network.d.activation",
        "T06a",
        "negative",
    ),
    # ---- _critic_momentum
    "a critic's beta": Case(
        (WASSERSTEIN | optimizers(**ADAM, betas=[0.5, 0.9]), CLIPPING),
        (WASSERSTEIN | optimizers(**ADAM, betas=[0.0, 0.9]), CLIPPING),
        "optimizer.d.betas",
        "T10",
        "'wasserstein' is unstable with momentum",
    ),
    "a critic's beta that falls to 0": Case(
        (WASSERSTEIN | optimizers(**ADAM, betas=[linear_schedule(start=0.5, end=0.0, until=5), 0.9]), CLIPPING),
        (optimizers(**ADAM, betas=[linear_schedule(start=0.5, end=0.0, until=5), 0.9]), []),
        "optimizer.d.betas",
        "T10",
        "unstable with momentum",
    ),
    "a critic's momentum": Case(
        (WASSERSTEIN | optimizers(kind="sgd", momentum=0.9), CLIPPING),
        (WASSERSTEIN | optimizers(kind="sgd"), CLIPPING),
        "optimizer.d.momentum",
        "T10",
        "momentum",
    ),
    "rmsprop's momentum": Case(
        (WASSERSTEIN | optimizers(kind="rmsprop", momentum=0.9), CLIPPING),
        (WASSERSTEIN | {"optimizer": {"g": ADAM, "d": {"kind": "rmsprop"}}}, CLIPPING),
        "optimizer.d.momentum",
        "T10",
        "momentum",
    ),
    # ---- _lazy_penalties
    "a lazy penalty on a toy": Case(
        ({}, [{"kind": "lecam"}, {"kind": "r1", "every": 4}]),
        ({}, [{"kind": "lecam"}, {"kind": "r1", "every": 1}]),
        "tricks.1.every",
        "T06b",
        "only one step of 4",
        "points",
    ),
    "a lazy penalty on stacked digits": Case(
        (stacked({}), [{"kind": "r2", "every": 2}]),
        (SPECTRAL, [{"kind": "r2", "every": 2}]),
        "tricks.0.every",
        "T06b",
        "'r2'",
        "stacked",
    ),
    "a lazy trick that is not a penalty": Case(
        ({}, [{"kind": "wgan_gp", "every": 3}]),
        ({}, [{"kind": "experience_replay", "every": 3, "size": 6}]),
        "tricks.0.every",
        "T06b",
        "lazy penalties",
        "points",
    ),
    # ---- _mirrored_characters
    "flipped digits": Case(
        ({"data": {"kind": "digits", "size": 8, "mirror": True}}, []),
        ({"data": {"kind": "npz", "path": "p.npz", "size": 8, "mirror": True}}, []),
        "data.mirror",
        "M02",
        "'digits' shows characters",
    ),
    "flipped characters of torchvision": Case(
        ({"data": {"kind": "torchvision", "dataset": "kmnist", "size": 32, "mirror": True}}, []),
        ({"data": {"kind": "torchvision", "dataset": "FashionMNIST", "size": 32, "mirror": True}}, []),
        "data.mirror",
        "M02",
        "'KMNIST' shows characters",
    ),
    "flipped stacks": Case(
        ({"data": {"kind": "stacked_digits", "mirror": True}} | SPECTRAL, []),
        ({"data": {"kind": "stacked_digits"}} | SPECTRAL, []),
        "data.mirror",
        "M02",
        "'stacked_digits' shows characters",
    ),
    "consistency with flipped digits": Case(
        (SPECTRAL, [{"kind": "consistency", "mirror": 0.5}]),
        (SPECTRAL | {"data": {"kind": "npz", "path": "p.npz", "size": 8}}, [{"kind": "consistency", "mirror": 0.5}]),
        "tricks.0.mirror",
        "M03",
        "trains D to score them like the others",
    ),
    # ---- _style_mixing
    "mixed styles of uniform latents": Case(
        (STYLES | {"latent": {"kind": "uniform"}}, []),
        (STYLES | {"latent": {"kind": "sphere"}}, []),
        "network.g.style_mixing",
        "T03",
        "the second z of mixed styles is Gaussian, but the latents are 'uniform'",
    ),
    # ---- _head_start
    "a head start as long as the run": Case(
        (tempo(head_start=12) | MARGIN, []),
        (tempo(head_start=11) | MARGIN, []),
        "tempo.head_start",
        "T12",
        "G is never trained",
    ),
    "a head start with an unbounded score": Case(
        (tempo(head_start=1), []), (tempo(head_start=0), []), "tempo.head_start", "T12", "perfectly"
    ),
    # ---- _duplicates
    "the same trick twice": Case(
        ({}, tricks("lecam", "lecam")), ({}, tricks("lecam")), "tricks.1", "M03", "more than once"
    ),
    # ---- _noisy_consistency
    "consistency with instance noise": Case(
        (SPECTRAL, [*tricks("lecam"), SHIFTED, *tricks(NOISE)]),
        (SPECTRAL, [*tricks("lecam"), SHIFTED]),
        "tricks.1",
        "M03",
        "noisy copies",
    ),
    # ---- _misleading_targets
    "exchanged soft labels": Case(
        ({}, [{"kind": "soft_labels", "real": [0.0, 0.3], "fake": [0.7, 1.2]}]),
        ({}, [{"kind": "soft_labels", "real": [0.7, 1.2], "fake": [0.0, 0.3]}]),
        "tricks.0",
        "T07a",
        "0.15 for real and 0.95 for fake samples, so it learns to score fake",
    ),
    "equal soft labels": Case(
        ({}, [{"kind": "soft_labels", "real": [0.5, 0.5], "fake": [0.5, 0.5]}]),
        ({}, [{"kind": "soft_labels", "real": [0.5, 0.6], "fake": [0.5, 0.5]}]),
        "tricks.0",
        "T07a",
        "learns nothing",
    ),
    "soft labels that meet": Case(
        (
            {},
            [{"kind": "soft_labels", "real": [0.6, linear_schedule(start=1.0, end=0.6, until=6)], "fake": [0.6, 0.6]}],
        ),
        (
            {},
            [{"kind": "soft_labels", "real": [0.7, linear_schedule(start=1.0, end=0.7, until=6)], "fake": [0.6, 0.6]}],
        ),
        "tricks.0",
        "T07a",
        "0.6 for real and 0.6 for fake",
    ),
    "labels that are as often wrong as right": Case(
        ({}, [{"kind": "noisy_labels", "probability": 0.5}]),
        ({}, [{"kind": "noisy_labels", "probability": 0.49}]),
        "tricks.0.probability",
        "T07b",
        "learns nothing",
    ),
    "labels that end up flipped": Case(
        ({}, [{"kind": "noisy_labels", "probability": linear_schedule(start=0.0, end=1.0, until=5)}]),
        ({}, [{"kind": "noisy_labels", "probability": linear_schedule(start=0.0, end=0.4, until=5)}]),
        "tricks.0.probability",
        "T07b",
        "100% of D's targets flipped",
    ),
    # ---- _class_pairs
    "relativistic pairs of different classes": Case(
        ({"objective": {"kind": "relativistic"}} | BOTH, [{"kind": "history", "size": 20}]),
        ({"objective": {"kind": "relativistic"}}, [{"kind": "history", "size": 20}]),
        "tricks.0",
        "T19",
        "the objective pairs",
    ),
    "interpolation between different classes": Case(
        (SPECTRAL | BOTH, tricks("wgan_gp", "image_pool")),
        (SPECTRAL | BOTH, tricks("image_pool")),
        "tricks.1",
        "T19",
        "'wgan_gp' pairs",
    ),
    # ---- _hidden_codes
    "codes that nothing shows": Case(
        ({"latent": {"kind": "codes"}}, []),
        ({"latent": {"kind": "codes"}}, tricks("infogan")),
        "latent",
        "M03",
        "no loss ties the codes",
    ),
    # ---- _unused
    "an unused average": Case(
        ({}, [{"kind": "averaged_weights"}, {"kind": "mean_weights", "every": 2}]),
        ({}, [{"kind": "mean_weights", "every": 2}]),
        "tricks.1",
        "T21",
        "never used",
    ),
    "an average that starts after the end": Case(
        ({}, [{"kind": "mean_weights", "every": 13}]),
        ({}, [{"kind": "mean_weights", "every": 12}]),
        "tricks.0",
        "T21",
        "no effect before step 13",
    ),
    # ---- _mixed_batches
    "batch norm on a mixed batch": Case(
        ({"judging": "together"}, []), ({"judging": "apart"}, []), "judging", "T04", "batch norm in D"
    ),
    "minibatch statistics of a mixed batch": Case(
        (SPECTRAL | {"judging": "together"}, tricks("minibatch_stddev")),
        (SPECTRAL | {"judging": "together"}, []),
        "judging",
        "T04",
        "'minibatch_stddev' gets",
    ),
    # ---- _sync_batch_norm
    "batch norms to synchronise that are not there": Case(
        (networks(g={"norm": "none"}, d={"norm": "none"}) | {"sync_batch_norm": True}, []),
        (networks(g={"norm": "batch"}, d={"norm": "none"}) | {"sync_batch_norm": True}, []),
        "sync_batch_norm",
        "T05a",
        "changes nothing",
    ),
    # ---- _constant_schedules
    "a linear schedule after the end": Case(
        ({}, [{"kind": NOISE, "sigma": linear_schedule(after=12, until=20)}]),
        ({}, [{"kind": NOISE, "sigma": linear_schedule(after=11, until=20)}]),
        "tricks.0.sigma",
        "T11",
        "changes after 12 steps",
    ),
    "a step schedule after the end": Case(
        (g_learning_rate(**step_schedule(at=[12.0], over="steps")), []),
        (g_learning_rate(**step_schedule(at=[11.0], over="steps")), []),
        "optimizer.g.lr",
        "T11",
        "already over",
    ),
    "a step schedule at the end": Case(
        (g_learning_rate(**step_schedule(at=[1.0])), []),
        (g_learning_rate(**step_schedule(at=[0.9])), []),
        "optimizer.g.lr",
        "T11",
        "after 1 progress",
    ),
    "a schedule of beta after the end": Case(
        (optimizers(**ADAM, betas=[0.5, linear_schedule(after=30, until=40)]), []),
        (optimizers(**ADAM, betas=[0.5, linear_schedule(until=40)]), []),
        "optimizer.d.betas.1",
        "T11",
        "after 30 steps",
    ),
    "a penalty in the first step only": Case(
        (SPECTRAL, [{"kind": "r1", "every": 12}]),
        (SPECTRAL, [{"kind": "r1", "every": 11}]),
        "tricks.0.every",
        "T06b",
        "only in the first",
    ),
}


def build(changed: tuple[Table, list[Table]], world: str) -> Recipe:
    changes, acting = changed
    return recipe("points" if world == "points" else "pictures", *acting, **changes)


def check(config: Recipe, world: str) -> Findings:
    shape = {"points": (2,), "pictures": (1, 8, 8)}.get(world)
    return check_compatibility(config, shape, 0 if world == "points" else 4)


def assert_only_warning(findings: Findings, field: str, tip: str, word: str) -> None:
    """This warning and no other, and no refusal."""
    assert findings.refusals == []
    assert [warning.field for warning in findings.warnings] == [field]
    (one,) = findings.warnings
    assert word in one.message
    assert one.tip == tip
    assert tip in {known.id for known in catalogue.tips()}
    assert len(one.cure) > 8


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_suspicious_recipe_has_exactly_this_warning(case: Case) -> None:
    assert_only_warning(check(build(case.warned, case.world), case.world), case.field, case.tip, case.word)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_counterpart_has_no_warning(case: Case) -> None:
    world = "pictures" if case.world == "stacked" else case.world
    assert check(build(case.clean, world), world) == Findings()


# ---- warnings about the data and the network sizes ---------------------------------------------------------


def noise(n: int) -> np.ndarray:
    """n different images."""
    return np.random.default_rng(0).integers(0, 256, (n, 8, 8, 1), np.uint8)


def save_npz(file: Path, images: np.ndarray, labels: Any = None) -> Table:
    arrays = {"images": images} | ({} if labels is None else {"labels": np.asarray(labels)})
    np.savez(file, **arrays)
    return {"data": {"kind": "npz", "path": str(file), "size": 8, "held_out": 0.0}}


def with_samples(file: Path, n: int) -> Table:
    return save_npz(file, noise(n)) | {"batch": 64}


def with_plain_images(file: Path, plain: int) -> Table:
    """200 images, `plain` of which have a single colour each, all different."""
    images = noise(200)
    images[:plain] = np.arange(plain)[:, None, None, None] * 50
    return save_npz(file, images)


def with_copies(file: Path, copies: int) -> Table:
    images = noise(200)
    images[100 : 100 + copies] = images[:copies]
    return save_npz(file, images)


def with_flips(file: Path, copies: int, mirror: bool = True) -> Table:
    images = noise(200)
    images[100 : 100 + copies] = images[:copies, :, ::-1]
    table = save_npz(file, images)
    return table | {"data": table["data"] | {"mirror": mirror}}


TRANSLATION: Table = {
    "latent": {"kind": "source"},
    "objective": {"kind": "hinge"},
    "network": {
        "direction": "a_to_b",
        "g": {"kind": "translator", "width": 2, "blocks": 1, "downsamplings": 1},
        "d": {"kind": "patch", "width": 3, "layers": 1, "norm": "none"},
    },
}


def two_domains(file: Path, kind: str, a: np.ndarray, b: np.ndarray) -> Table:
    np.savez(file, a=a, b=b)
    return {"data": {"kind": kind, "path": str(file), "size": 8, "held_out": 0.0}} | TRANSLATION


def pairs_with_copies(file: Path, copies: int) -> Table:
    """200 pairs, `copies` of which occur twice; most images a do, beside other images b, which is no mistake."""
    images = noise(200)
    a, b = images[np.arange(200) % 100], images[::-1].copy()
    b[100 : 100 + copies] = b[:copies]
    return two_domains(file, "pairs", a, b)


def domains_with_copies(file: Path, copies: int) -> Table:
    """Two domains, of which b has copies."""
    b = noise(200)
    b[100 : 100 + copies] = b[:copies]
    return two_domains(file, "domains", noise(200), b)


def pairs_with_plain_images(file: Path, plain: int) -> Table:
    """200 pairs, whose images a have a single colour in `plain` cases, all different."""
    a = noise(200)
    a[:plain] = np.arange(plain)[:, None, None, None] * 50
    return two_domains(file, "pairs", a, noise(200))


def plain_copies(file: Path, copies: int) -> Table:
    """200 images, `copies` of which are copies of a single-coloured one, which should cause one warning, not two."""
    images = noise(200)
    images[:copies] = 7
    return save_npz(file, images)


def with_classes(file: Path, folders: int) -> Table:
    return save_npz(file, noise(120), np.arange(120) * folders // 120)


def with_widths(file: Path, g: int, d: int) -> Table:
    mlp = {"kind": "mlp", "depth": 1}
    return save_npz(file, noise(120)) | {"network": {"g": mlp | {"width": g}, "d": mlp | {"width": d}}}


class DataCase(NamedTuple):
    """How the data or the networks are made, with suspicious and with unsuspicious arguments."""

    make: Callable[..., Table]
    warned: tuple[int, ...]
    clean: tuple[int, ...]
    field: str
    tip: str
    word: str


DATA_CASES: dict[str, DataCase] = {
    "fewer images than a batch": DataCase(with_samples, (63,), (64,), "batch", "M02", "there are only 63"),
    "images of one colour": DataCase(
        with_plain_images, (3,), (2,), "data", "T01", "3 of 200 images are of a single colour"
    ),
    "many of one colour": DataCase(plain_copies, (20,), (1,), "data", "T01", "20 of 200 images are of a single colour"),
    "copies": DataCase(with_copies, (3,), (2,), "data", "M02", "3 of 200 images are copies"),
    "flips": DataCase(
        with_flips, (3,), (3, False), "data", "M02", "3 of 200 images are copies of others or of their flips"
    ),
    "copied pairs": DataCase(pairs_with_copies, (3,), (2,), "data", "M02", "3 of 200 pairs are copies"),
    "copies in a domain": DataCase(domains_with_copies, (3,), (2,), "data", "M02", "b: 3 of 200 images are copies"),
    "a domain of one colour": DataCase(
        pairs_with_plain_images, (3,), (2,), "data", "T01", "a: 3 of 200 images are of a single colour"
    ),
    "one class": DataCase(with_classes, (1,), (2,), "data", "T13", "of one class, '0'"),
    "too many classes": DataCase(with_classes, (41,), (40,), "data", "T13", "41 classes for 120 images"),
    "one class per image": DataCase(with_classes, (120,), (30,), "data", "T13", "120 classes for 120 images"),
    "a small D": DataCase(with_widths, (240, 2), (16, 16), "network.g", "T22", "G has"),
    "a small G": DataCase(with_widths, (1, 60), (4, 16), "network.d", "T22", "D has"),
}


def check_with_data(table: Table) -> Findings:
    changes = {"steps": 12, "batch": 8, **SPECTRAL} | table
    return precheck.check(recipe("pictures", **changes), device="cpu", precision="fp32").findings


@pytest.fixture
def no_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    """No steps are timed: only the findings matter."""
    monkeypatch.setattr(precheck, "_estimate", lambda _: None)


@pytest.mark.usefixtures("no_timing")
@pytest.mark.parametrize("case", DATA_CASES.values(), ids=DATA_CASES)
def test_suspicious_data_or_networks_have_exactly_this_warning(case: DataCase, tmp_path: Path) -> None:
    assert_only_warning(check_with_data(case.make(tmp_path / "p.npz", *case.warned)), case.field, case.tip, case.word)


@pytest.mark.usefixtures("no_timing")
@pytest.mark.parametrize("case", DATA_CASES.values(), ids=DATA_CASES)
def test_unsuspicious_data_or_networks_have_no_warning(case: DataCase, tmp_path: Path) -> None:
    assert check_with_data(case.make(tmp_path / "p.npz", *case.clean)) == Findings()


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"g": 2000, "d": 100}, None),
        ({"g": 2001, "d": 100}, "G has 20 times as many weights as D: 2,001 against 100"),
        ({"g": 100, "d": 5000}, "D has 50 times as many weights as G: 5,000 against 100"),
        ({"g": 21, "d": 0}, "G has 21 times as many weights as D: 21 against 0"),
    ],
)
def test_the_limit_of_the_ratio_of_parameters(sizes: dict[str, int], message: str | None) -> None:
    findings = Findings()
    precheck._compare_sizes(sizes, findings)
    assert [warning.message for warning in findings.warnings] == ([] if message is None else [message])
    if message is not None:
        larger, smaller = sorted(sizes, key=sizes.__getitem__, reverse=True)
        (one,) = findings.warnings
        assert one.field == f"network.{larger}"
        assert one.cure == f"set network.{smaller}.width higher or network.{larger}.width lower"


# ---- every rule is covered -------------------------------------------------------------------------------


def call_lines(module: ModuleType, name: str) -> dict[int, str]:
    """Each line of the calls of `name` in a module, with the enclosing function and the first line of the call."""
    lines_of_calls: dict[int, str] = {}
    for function in ast.parse(inspect.getsource(module)).body:
        for node in ast.walk(function):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
                assert isinstance(function, ast.FunctionDef)
                for line in range(node.lineno, (node.end_lineno or node.lineno) + 1):
                    lines_of_calls[line] = f"{function.name}, line {node.lineno}"
    return lines_of_calls


def record_lines(monkeypatch: pytest.MonkeyPatch, module: ModuleType, behind: str = "") -> set[int]:
    """The lines of `module` that create a finding from now on; in the helper `behind`, those of its callers."""
    lines: set[int] = set()

    def recorded(*fields: str) -> Finding:
        frame = sys._getframe(1)
        if behind and frame.f_code.co_name == behind and frame.f_back is not None:
            frame = frame.f_back
        lines.add(frame.f_lineno)
        return Finding(*fields)

    monkeypatch.setattr(module, "Finding", recorded)
    return lines


def test_every_rule_of_the_recipe_has_a_case(monkeypatch: pytest.MonkeyPatch) -> None:
    expected, lines = call_lines(suspicious, "Finding"), record_lines(monkeypatch, suspicious)
    for case in CASES.values():
        check(build(case.warned, case.world), case.world)
    assert len(set(expected.values())) >= 16
    assert {expected[line] for line in lines} == set(expected.values())


@pytest.mark.usefixtures("no_timing")
def test_every_rule_of_data_and_networks_has_a_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Components that can't be built and a D that learns nothing are tested with `precheck` itself."""
    expected = call_lines(precheck, "warn") | call_lines(precheck, "Finding")
    expected = {line: rule for line, rule in expected.items() if not rule.startswith("check,")}
    lines = record_lines(monkeypatch, precheck, behind="warn")
    for number, case in enumerate(DATA_CASES.values()):
        check_with_data(case.make(tmp_path / f"{number}.npz", *case.warned))
    recorded = {expected[line] for line in lines}
    nested = {rule for line, rule in expected.items() if "def warn" in _line_before(line)}
    assert recorded == set(expected.values()) - nested
    assert len(recorded) >= 6


def _line_before(line: int) -> str:
    return inspect.getsource(precheck).splitlines()[line - 2]


def test_every_rule_is_called() -> None:
    """A rule that is missing from the list of `find_suspicious` would have no effect."""
    source = ast.parse(inspect.getsource(suspicious))
    rules = {
        node.name
        for node in source.body
        if isinstance(node, ast.FunctionDef) and [a.arg for a in node.args.args] == ["recipe", "findings"]
    }
    (asked,) = [node for node in source.body if isinstance(node, ast.FunctionDef) and node.name == "find_suspicious"]
    named = {node.id for node in ast.walk(asked) if isinstance(node, ast.Name)}
    assert rules - {"find_suspicious"} <= named


@pytest.mark.parametrize(
    ("wide", "cure"),
    [
        (("g", "d"), "set network.d.width higher or network.g.width lower"),
        (("g",), "set network.g.width lower"),
        ((), "give D more channels, or G fewer"),
    ],
)
def test_the_advice_names_the_widths_that_can_be_changed(wide: tuple[str, ...], cure: str) -> None:
    findings = Findings()
    precheck._compare_sizes({"g": 5000, "d": 1}, findings, wide)
    assert findings.warnings[0].cure == cure


def test_codes_that_separate_the_modes_of_points_have_no_warning() -> None:
    bits = {"latent": {"kind": "codes", "dim": 4, "categories": [2, 2], "continuous": 0}}
    assert check(build((bits, []), "points"), "points") == Findings()


def test_published_designs_have_no_warning() -> None:
    """The linear output of R3GAN and StyleGAN2 and the ReLU in D of SNGAN and SAGAN are warned of elsewhere only."""
    for name in ("hinge-sngan", "sagan", "r3gan", "stylegan2"):
        assert check_compatibility(decode(load_table(name))).warnings == [], name
    relu = load_table("dcgan")
    relu["network"]["d"]["activation"] = "relu"
    assert [one.field for one in check_compatibility(decode(relu)).warnings] == ["network.d.activation"]
    linear = load_table("dcgan")
    linear["network"]["g"]["output"] = "linear"
    assert [one.field for one in check_compatibility(decode(linear)).warnings] == ["network.g.output"]
