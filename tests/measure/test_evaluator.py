"""The evaluator: its comparisons, its floors, what measures detect, and its results."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from poise.data.config import DataConfig
from poise.data.digits import DigitsConfig
from poise.data.source import DataSplits, ImageDataset
from poise.data.stacked_digits import StackedConfig, StackedDigits
from poise.data.toys import GridConfig, PlaneConfig, RingConfig, TwoMoonsConfig
from poise.errors import DataError, RecipeError
from poise.measure import evaluator as evaluator_module
from poise.measure import extractors
from poise.measure.base import MISSING_REASONS, Floor, Measure, MeasuredValue
from poise.measure.catalogue import MEASURES, EvaluationResult, select_measures
from poise.measure.compare import compare
from poise.measure.context import EvalContext
from poise.measure.evaluator import ENOUGH_TO_RANK, MAX_SAMPLES, NUM_POINTS, NUM_STACKS, Evaluator
from poise.measure.extractors import TRAINED
from poise.measure.memorization import copying_test
from poise.measure.modes import reverse_kl
from poise.measure.reference import NUM_DRAWS, FloorDraw, random_order
from poise.networks.mlp import MLPDiscriminatorConfig
from poise.utils.images import Bytes, to_float

Samples = Callable[[int], Tensor]
N = 400


def first_of(images: Bytes) -> Samples:
    return lambda n: torch.from_numpy(images[:n])


def split(dataset: ImageDataset, at: int) -> DataSplits:
    """The first `at` images as the training split, the others held out."""
    assert dataset.labels is not None
    parts = [
        ImageDataset(dataset.images[part], dataset.labels[part], dataset.classes)
        for part in (slice(0, at), slice(at, None))
    ]
    return DataSplits(*parts)


def value(result: EvaluationResult, name: str) -> float:
    return result.results[name].value.value


def floor(result: EvaluationResult, name: str) -> float:
    measured = result.results[name].floor
    assert measured is not None
    return measured.value


def image_set(samples: Tensor) -> set[bytes]:
    return {sample.numpy().tobytes() for sample in samples}


@pytest.mark.parametrize("features", ["classifier", "rotations"])
def test_features_are_not_trained_on_the_real_samples_that_are_compared(
    shades: ImageDataset, features: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if nothing is held out: of their training images, features know the classes and the positions."""
    seen: list[ImageDataset] = []
    made = TRAINED[features].__init__

    def spy(self: Any, train: ImageDataset, held_out: ImageDataset | None, *rest: Any) -> None:
        seen.extend((train, held_out))  # type: ignore[arg-type]
        made(self, train, held_out, *rest)

    monkeypatch.setattr(TRAINED[features], "__init__", spy)
    monkeypatch.setattr(extractors, "MIN_IMAGES", 50)
    evaluator = Evaluator(None, DataSplits(shades), features)
    trained_on, others = (image_set(one.gather(torch.arange(len(one))).images) for one in seen)
    assert not trained_on & others
    assert len(evaluator.real) == len(others) // 2 == len(shades) // 4
    assert any("trained on 100 of the real images, and the other 100 are for" in note for note in evaluator.notes)
    for draw in [FloorDraw(evaluator.real, evaluator.real), *evaluator.reference.floor_draws]:
        assert image_set(draw.real.samples) | image_set(draw.fake.samples) <= others
    assert len(evaluator.reference.floor_draws) == NUM_DRAWS
    assert not any("trained on" in note for note in Evaluator(None, DataSplits(shades), "pixels").notes)


# ---- what measures detect ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def results(digits: DataSplits, digits_evaluator: Evaluator) -> dict[str, EvaluationResult]:
    """All fast measures of digits that are neither training nor reference images, and of degraded versions of them."""
    train, held_out = digits.train, digits.held_out
    assert isinstance(train, ImageDataset)
    assert isinstance(held_out, ImageDataset)
    assert held_out.labels is not None
    rng = np.random.default_rng(0)
    fresh = rng.permutation(np.setdiff1d(np.arange(len(held_out)), random_order(len(held_out))[:N].numpy()))
    images, labels = held_out.images[fresh], held_out.labels[fresh]
    typical = np.abs(images - images[labels == 1].mean(0)).reshape(len(images), -1).mean(1).argmin()
    sample_sets = {
        "real": images[:N],
        "others": images[-N:],
        "blurred": gaussian_filter(images[:N], (0, 0.6, 0.6, 0)),
        "no nines": images[labels != 9][:N],
        "one": np.repeat(images[[typical]], N, axis=0),
        "black": np.zeros_like(images[:N]),
        "noise": rng.integers(0, 256, (N, 32, 32, 1), np.uint8),
        "copies": train.images[rng.permutation(len(train))[:N]],
    }
    return {
        name: digits_evaluator.measure(first_of(images), select_measures(None)) for name, images in sample_sets.items()
    }


def worse(results: dict[str, EvaluationResult], case: str, name: str) -> bool:
    """Whether a set is worse than the worst of three real sets by more than their range and by at least 3 %."""
    reals = [value(results["real"], name), value(results["others"], name), floor(results["real"], name)]
    sign = -1 if MEASURES[name].better == "less" else 1
    reals, measured = [sign * real for real in reals], sign * value(results[case], name)
    return measured < min(reals) - max(max(reals) - min(reals), 0.03 * abs(min(reals)))


RECONSTRUCTION = ("reconstruction", "pca_reconstruction", "elbo", "elbo_reconstruction", "elbo_kl")
"""Measures that require an encoder."""

TRANSLATION = ("l1", "psnr", "ssim", "cycle_error", "class_agreement")
"""Measures of translated images."""


DETECTED = {
    "blurred": ["fid", "coverage"],
    "no nines": ["fid", "coverage"],
    "one": [
        *("fid", "kid", "recall", "coverage", "ndb", "class_balance", "vendi", "diversity", "class_diversity"),
        "inception_score",
    ],
    "noise": ["fid", "kid", "precision", "density", "coverage"],
}
UNDETECTED = {
    "others": [name for name in MEASURES if name not in ("gan_test", "gan_train", "d_probe", "duality_gap")],
    "one": ["precision"],
    "copies": ["fid", "kid", "precision", "recall", "density", "coverage", "ndb", "class_balance"],
}


@pytest.mark.parametrize(("case", "name"), [(case, name) for case, names in DETECTED.items() for name in names])
def test_measure_detects_what_it_claims_to_detect(results: dict[str, EvaluationResult], case: str, name: str) -> None:
    assert worse(results, case, name)


@pytest.mark.parametrize(("case", "name"), [(case, name) for case, names in UNDETECTED.items() for name in names])
def test_measure_does_not_detect_what_it_is_blind_to(
    results: dict[str, EvaluationResult], case: str, name: str
) -> None:
    if name in results["real"].results:
        assert not worse(results, case, name)
    else:
        requires = {"modes", "encoder", "likelihood", "targets", "cycle", "source labels"}
        assert MEASURES[name].requires & requires


def test_missing_class_exceeds_the_spread_of_the_floor(digits: DataSplits) -> None:
    """A thousand images suffice; the class frequencies of four hundred vary too much."""
    train = digits.train
    assert isinstance(train, ImageDataset)
    assert train.labels is not None
    evaluator, order = Evaluator(DigitsConfig(size=32), digits), random_order(len(train), 9)
    without = order[torch.from_numpy(train.labels)[order] != 9]
    complete, incomplete = (
        evaluator.measure(lambda n, indices=indices: train.gather(indices[:n]).images, select_measures("class_balance"))
        for indices in (order, without)
    )
    real = complete.results["class_balance"].floor
    assert real is not None
    assert real.std is not None
    assert abs(value(complete, "class_balance") - real.value) < 4 * real.std + 0.005
    assert value(incomplete, "class_balance") < real.value - 8 * real.std


def test_order_from_real_to_noise(results: dict[str, EvaluationResult]) -> None:
    for name, sign in (("fid", 1), ("coverage", -1)):
        real, blurred, fewer, one, noise = (
            sign * value(results[case], name) for case in ("real", "blurred", "no nines", "one", "noise")
        )
        assert real < min(blurred, fewer)
        assert max(blurred, fewer) < one
        assert one < noise or (name, one, noise) == ("coverage", 0, 0)


def test_copies_are_detected_and_new_images_are_not(results: dict[str, EvaluationResult]) -> None:
    assert value(results["copies"], "copying") < -5
    assert value(results["copies"], "authenticity") == 0
    for case in ("real", "others", "blurred", "no nines"):
        assert abs(value(results[case], "copying")) < 3
        assert abs(value(results[case], "authenticity") - floor(results[case], "authenticity")) < 0.2
    assert abs(floor(results["real"], "copying")) < 3


@pytest.mark.parametrize("case", ["one", "black", "noise"])
def test_collapse_and_noise_give_finite_values(results: dict[str, EvaluationResult], case: str) -> None:
    for name, (measured, real, _, _) in results[case].results.items():
        assert real is not None
        for number in (measured.value, real.value, measured.stderr or 0.0):
            assert math.isfinite(number)
        if name not in ("kid", "copying"):
            assert measured.value >= 0
    assert set(results[case].results) == set(results["real"].results)
    if case == "one":
        assert value(results[case], "vendi") == pytest.approx(1)
        assert value(results[case], "inception_score") == pytest.approx(1, abs=1e-5)
        assert value(results[case], "diversity") == pytest.approx(0, abs=1e-6)


# ---- results ----------------------------------------------------------------------------------------


def test_each_measure_is_computed_or_skipped_with_a_reason(results: dict[str, EvaluationResult]) -> None:
    for result in results.values():
        assert not set(result.results) & set(result.skipped)
        assert set(result.results) | set(result.skipped) == {measure.name for measure in select_measures(None)}
        assert set(result.skipped) == {
            "gan_test",
            "modes",
            "high_quality",
            "reverse_kl",
            "mode_std_error",
            *RECONSTRUCTION,
            *TRANSLATION,
        }
        assert set(result.skipped.values()) <= set(MISSING_REASONS.values())
        assert result.notes == ()


@pytest.mark.parametrize("case", ["real", "one", "noise"])
def test_json(results: dict[str, EvaluationResult], case: str, digits_evaluator: Evaluator) -> None:
    found = json.loads(json.dumps(results[case].as_json(), allow_nan=False))
    assert list(found) == ["n", "features", "measures", "skipped"]
    assert (found["n"], found["features"]) == (N, digits_evaluator.extractor.name)
    assert list(found["measures"]) == list(results[case].results)
    for name, one in found["measures"].items():
        assert set(one) == {"value", "floor", "floor_std"} | (
            {"stderr"} if name in ("kid", "inception_score") else set()
        )
        assert (one["floor_std"] is None) == (MEASURES[name].floor == "real")
        assert (one["value"], one["floor"]) == (value(results[case], name), floor(results[case], name))
    assert found["skipped"] == results[case].skipped


def test_non_finite_value_is_skipped(shades: ImageDataset) -> None:
    evaluator = Evaluator(None, split(shades, 100), "pixels", 20)
    for bad, reason in ((math.nan, "its value is nan"), (math.inf, "its value is inf")):
        result = evaluator.measure(
            first_of(shades.images), [Measure("bad", "", "less", lambda _, bad=bad: MeasuredValue(bad))]
        )
        assert (result.results, result.skipped) == ({}, {"bad": reason})


def test_error_of_a_measure_is_the_reason_for_skipping(shades: ImageDataset) -> None:
    def refuse(context: EvalContext) -> MeasuredValue:
        raise ValueError("too few of them")

    result = Evaluator(None, split(shades, 100), "pixels", 20).measure(
        first_of(shades.images), [Measure("bad", "", "less", refuse)]
    )
    assert result.skipped == {"bad": "too few of them"}


def test_too_few_samples_are_counted_in_the_reason(shades: ImageDataset) -> None:
    evaluator = Evaluator(None, split(shades, len(shades) - 1), "pixels")
    result = evaluator.measure(first_of(shades.images), select_measures(["fid", "kid", "recall", "coverage"]))
    reason = "there is only 1 real sample to compare with, and it needs at least 2"
    assert result.skipped == dict.fromkeys(("fid", "kid", "recall", "coverage"), reason)


@pytest.fixture(scope="module")
def ring_evaluator() -> Evaluator:
    config = RingConfig()
    return Evaluator(config, config.load(), n=40)


@pytest.mark.parametrize("points", [math.nan, math.inf, 1e30, 1e100, 1e200, 1e250])
@pytest.mark.parametrize("all_of_them", [True, False])
def test_points_of_a_diverged_generator_are_measured_or_skipped_with_a_reason(
    ring_evaluator: Evaluator, points: float, all_of_them: bool
) -> None:
    fakes = torch.randn(40, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    fakes[: None if all_of_them else 1] *= points
    result = ring_evaluator.measure(lambda n: fakes, select_measures(None))
    assert all(math.isfinite(one.value.value) for one in result.results.values())
    if not math.isfinite(points):
        reason = f"{40 if all_of_them else 1} of 40 samples are not finite"
        assert {name: result.skipped[name] for name in ("fid", "modes")} == {"fid": reason, "modes": reason}
        assert result.results == {}
    elif points > 1e154:  # the square overflows
        assert "too large for a Frechet distance" in result.skipped["fid"]
        assert "too large for a kernel distance" in result.skipped["kid"]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("count", [1, 20])
def test_images_that_are_not_finite_are_not_measured_as_black_or_white_ones(
    shades: ImageDataset, bad: float, count: int
) -> None:
    evaluator = Evaluator(None, split(shades, 100), "pixels", 20)
    images = to_float(torch.from_numpy(shades.images[:20]))
    images[:count, 0, 3, 4] = bad
    result = evaluator.measure(
        lambda n: images, select_measures("fid,precision,vendi,duality_gap"), duality_gap=lambda: 0.25
    )
    assert set(result.results) == {"duality_gap"}  # for which the samples don't matter
    assert result.skipped == dict.fromkeys(("fid", "precision", "vendi"), f"{count} of 20 samples are not finite")
    with pytest.raises(DataError, match=rf"--neighbours: {count} of 20 samples are not finite"):
        evaluator.nearest_training_grid(images)


WRONG_IMAGES: dict[str, tuple[Callable[[Tensor], object], str]] = {
    "channels last": (lambda x: to_float(x).permute(0, 2, 3, 1), "20 x 8 x 6 x 1 as float32"),
    "bytes with channels first": (lambda x: x.permute(0, 3, 1, 2), "20 x 1 x 8 x 6 as uint8"),
    "flat": (lambda x: to_float(x).flatten(1), "20 x 48 as float32"),
    "another size": (lambda x: to_float(x)[..., :4], "20 x 1 x 8 x 4 as float32"),
    "another number of channels": (lambda x: to_float(x).expand(-1, 3, -1, -1), "20 x 3 x 8 x 6 as float32"),
    "whole numbers": (lambda x: to_float(x).long(), "20 x 1 x 8 x 6 as int64"),
    "too few": (lambda x: to_float(x)[:19], "19 x 1 x 8 x 6 as float32"),
    "one": (lambda x: to_float(x)[0], "1 x 8 x 6 as float32"),
    "an array": (lambda x: x.numpy(), "a value of the type ndarray"),
}


@pytest.mark.parametrize("case", WRONG_IMAGES)
def test_samples_of_another_form_than_the_data_are_refused(shades: ImageDataset, case: str) -> None:
    cropped = ImageDataset(shades.images[:, :, :6], shades.labels, shades.classes)
    evaluator = Evaluator(None, split(cropped, 100), "pixels", 20)
    convert, found = WRONG_IMAGES[case]
    with pytest.raises(RecipeError) as raised:
        evaluator.measure(lambda n: convert(torch.from_numpy(cropped.images[:n])), select_measures("fid"))
    assert str(raised.value) == (
        "samples: must be 20 x 1 x 8 x 6 as floating-point numbers in [-1, 1], or 20 x 8 x 6 x 1 as uint8, "
        f"found {found}"
    )


@pytest.mark.parametrize("points", [torch.zeros(40, 3), torch.zeros(39, 2), torch.zeros(40, 2, dtype=torch.uint8)])
def test_points_of_another_form_are_refused(ring_evaluator: Evaluator, points: Tensor) -> None:
    with pytest.raises(RecipeError, match=r"samples: must be 40 x 2 as floating-point numbers, found \d+ x \d as"):
        ring_evaluator.measure(lambda n: points, select_measures("fid"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_more_samples_than_requested_are_cut_off_and_any_precision_will_do(
    shades: ImageDataset, dtype: torch.dtype
) -> None:
    evaluator, images = Evaluator(None, split(shades, 100), "pixels", 20), torch.from_numpy(shades.images)
    expected = evaluator.measure(first_of(shades.images), select_measures("fid"))
    found = evaluator.measure(lambda n: to_float(images[: n + 5]).to(dtype), select_measures("fid"))
    assert found.n == expected.n == 20
    assert value(found, "fid") == pytest.approx(value(expected, "fid"), rel=0.05)


@pytest.mark.parametrize("error", [OverflowError("34"), torch.linalg.LinAlgError("no convergence")])
def test_measure_that_fails_on_its_numbers_is_skipped(shades: ImageDataset, error: Exception) -> None:
    def fail(context: EvalContext) -> MeasuredValue:
        raise error

    result = Evaluator(None, split(shades, 100), "pixels", 20).measure(
        first_of(shades.images), [Measure("bad", "", "less", fail)]
    )
    assert "too large or not finite" in result.skipped["bad"]


# ---- floors ------------------------------------------------------------------------------------------------


def test_floors_compare_real_images_at_the_same_n(
    results: dict[str, EvaluationResult], digits: DataSplits, digits_evaluator: Evaluator
) -> None:
    train, held_out = digits.train, digits.held_out
    assert isinstance(train, ImageDataset)
    assert isinstance(held_out, ImageDataset)
    draws = digits_evaluator.reference.floor_draws
    assert digits_evaluator.n == results["real"].n == len(digits_evaluator.real) == N
    assert [len(draw.fake) for draw in draws] == [N] * NUM_DRAWS
    assert len(set.union(*(image_set(draw.fake.samples) for draw in draws))) == NUM_DRAWS * N, "draws must be disjoint"
    others = [digits_evaluator.measure(lambda n, draw=draw: draw.fake.samples, select_measures(None)) for draw in draws]
    real = digits_evaluator.measure(lambda n: digits_evaluator.real.samples, select_measures(None))
    for name, one in results["noise"].results.items():
        assert one.floor is not None
        if MEASURES[name].floor == "halves":
            continue
        against = {"other": others, "real": [real]}[MEASURES[name].floor]
        values = [value(result, name) for result in against]
        assert one.floor.value == pytest.approx(np.mean(values), rel=1e-9)
        assert one.floor.std == (None if len(values) == 1 else pytest.approx(np.std(values, ddof=1), rel=1e-6))


def test_floor_of_copying_compares_held_out_images_at_the_same_n(
    results: dict[str, EvaluationResult], digits: DataSplits, digits_evaluator: Evaluator
) -> None:
    draws = digits_evaluator.reference.copying_draws
    assert digits_evaluator.train is not None
    assert len(digits_evaluator.train) == 4000
    values = []
    for draw in draws:
        sides = [image_set(side.samples) for side in draw]
        assert (len(sides[0]), len(sides[1]), len(sides[0] & sides[1])) == (N, N, 0)
        values.append(copying_test(draw.fake.features, draw.real.features, digits_evaluator.train.features))
    assert floor(results["one"], "copying") == pytest.approx(np.mean(values))
    # with fewer held-out images, value and floor both use half of them
    assert isinstance(digits.held_out, ImageDataset)
    few = split(digits.held_out, 800)
    limited = Evaluator(None, few, "pixels", 200)
    images = torch.from_numpy(digits.held_out.images[:200])
    result = limited.measure(lambda n: images[:n], select_measures("fid,copying"))
    assert (result.n, result.results["copying"].n, result.results["fid"].n) == (200, 100, None)
    assert result.as_json()["measures"]["copying"]["n"] == 100
    assert result.notes == ("copying: computed from 100 samples; the other held-out images are used for its floor",)
    assert [len(side) for draw in limited.reference.copying_draws for side in draw] == [100] * 2 * NUM_DRAWS
    real = limited.reference.copying_draws[0].real
    assert limited.train is not None
    expected = copying_test(to_float(images[:100]).flatten(1), real.features, limited.train.features)
    assert value(result, "copying") == pytest.approx(expected)


def test_both_sides_of_every_comparison_have_the_same_n(shades: ImageDataset) -> None:
    """For various requested, held-out and available numbers."""
    sizes: list[tuple[int, int]] = []

    def count(context: EvalContext) -> MeasuredValue:
        sizes.append((len(context.fake), len(context.real)))
        return MeasuredValue(1.0)

    measures = [Measure(source, "", "less", count, floor=source) for source in ("other", "real", "halves", "none")]
    for data in (split(shades, 100), split(shades, 150), split(shades, 30), split(shades, 199), DataSplits(shades)):
        for n in (None, 2, 20, 50, 90, 100, 101, 199, 500):
            if data.held_out is None:
                measures = [one for one in measures if one.floor != "halves"]
            sizes.clear()
            result = Evaluator(None, data, "pixels", n).measure(first_of(shades.images), measures)
            assert all(fake == real for fake, real in sizes)
            for one in result.results.values():
                assert (one.n or result.n) in {real for _, real in sizes}
            floor_value = result.results["other"].floor
            available = len(data.train) - (result.n if data.held_out is None else 0)  # type: ignore[arg-type]
            assert (floor_value is None) == (available < result.n)
            assert any("most measures have no floor" in note for note in result.notes) == (floor_value is None)


def test_floor_is_computed_once(shades: ImageDataset) -> None:
    contexts: list[EvalContext] = []

    def count(context: EvalContext) -> MeasuredValue:
        contexts.append(context)
        return MeasuredValue(float(context.fake.features.mean()))

    evaluator = Evaluator(None, split(shades, 100), "pixels", 25)
    measures = [Measure("mean", "", "less", count), Measure("bare", "", "less", count, floor="none")]
    first = evaluator.measure(first_of(shades.images[100:]), measures)
    others = [draw.fake for draw in evaluator.reference.floor_draws]
    assert [context.fake in others for context in contexts] == [False, *[True] * NUM_DRAWS, False]
    again = evaluator.measure(first_of(shades.images[:50]), measures)
    assert len(contexts) == NUM_DRAWS + 4
    assert first.results["mean"].floor == again.results["mean"].floor
    assert first.results["bare"].floor is None


def test_slow_measure_has_one_floor_draw(shades: ImageDataset) -> None:
    contexts: list[EvalContext] = []

    def count(context: EvalContext) -> MeasuredValue:
        contexts.append(context)
        return MeasuredValue(1.0)

    result = Evaluator(None, split(shades, 100), "pixels", 25).measure(
        first_of(shades.images), [Measure("slow", "", "less", count, slow=True)]
    )
    assert len(contexts) == 2
    assert result.results["slow"].floor == Floor(1.0)


@pytest.mark.parametrize(
    ("requested", "n", "draws"),
    [(20, 20, "disjoint"), (60, 60, "redrawn"), (100, 100, "redrawn"), (None, 100, "redrawn")],
)
def test_parts_are_disjoint_if_nothing_is_held_out(
    shades: ImageDataset, requested: int | None, n: int, draws: str
) -> None:
    evaluator = Evaluator(None, DataSplits(shades), "pixels", requested)
    assert len(evaluator.reference.floor_draws) == NUM_DRAWS
    assert len(image_set(evaluator.real.samples)) == n
    for k, draw in enumerate(evaluator.reference.floor_draws):
        fake, real = (image_set(side.samples) for side in draw)
        assert len(fake) == len(real) == n
        assert not fake & real
        assert (draw.real is evaluator.real) == (k == 0 or draws == "disjoint")
    assert evaluator.measure(first_of(shades.images), select_measures("fid")).notes == ()


def test_too_few_images_for_a_floor(shades: ImageDataset) -> None:
    evaluator = Evaluator(None, DataSplits(shades), "pixels", 151)
    result = evaluator.measure(first_of(shades.images), select_measures(None))
    assert result.notes == ("most measures have no floor: 200 real images are too few for two parts of 151",)
    assert result.as_json()["notes"] == list(result.notes)
    assert result.as_json()["measures"]["fid"]["floor"] is None
    assert result.n == 151
    assert result.skipped["copying"] == MISSING_REASONS["held out"]
    assert all(one.floor is None for name, one in result.results.items() if MEASURES[name].floor == "other")


def test_reals_are_drawn_at_random_from_sorted_data() -> None:
    """Evenly spaced images would contain each class equally often, so real images would seem worse than their floor."""
    images = np.repeat(np.arange(200, dtype=np.uint8), 16).reshape(200, 4, 4, 1)
    for data in (
        split(ImageDataset(images, np.arange(200) // 100, ("a", "b")), 100),
        DataSplits(ImageDataset(images)),
    ):
        evaluator = Evaluator(None, data, "pixels", 40)
        for samples in (evaluator.real, *(draw.fake for draw in evaluator.reference.floor_draws)):
            differences = samples.samples.flatten(1)[:, 0].sort().values.diff()
            assert differences.max() >= 5, "forty evenly spaced images of a hundred differ by two or three"
            assert differences.min() == 1


@pytest.mark.parametrize(("requested", "n"), [(None, 100), (30, 30), (1000, 100)])
def test_number_of_samples(shades: ImageDataset, requested: int | None, n: int) -> None:
    counts: list[int] = []
    evaluator = Evaluator(None, split(shades, 100), "pixels", requested)

    def samples(count: int) -> Tensor:
        counts.append(count)
        return torch.from_numpy(shades.images[:count])

    result = evaluator.measure(samples, select_measures("fid"))
    assert (result.n, counts) == (n, [n])
    assert result.notes == (("only 100 real images are available for the comparison, not 1,000",) * (requested == 1000))
    assert image_set(evaluator.real.samples) <= image_set(torch.from_numpy(shades.images[100:]))
    for draw in evaluator.reference.floor_draws:
        assert image_set(draw.fake.samples) <= image_set(torch.from_numpy(shades.images[:100]))
        assert draw.real is evaluator.real
    assert (MAX_SAMPLES, NUM_POINTS, NUM_STACKS) == (5_000, 2_500, 26_000)


def test_float_images_are_rounded_to_bytes(shades: ImageDataset) -> None:
    evaluator = Evaluator(None, split(shades, 100), "pixels", 40)
    images = torch.from_numpy(shades.images[:40])
    of_bytes, of_floats = (
        evaluator.measure(lambda _, samples=samples: samples, select_measures("fid,vendi"))
        for samples in (images, to_float(images) + 0.001)
    )
    assert of_bytes == of_floats


# ---- labels, D ---------------------------------------------------------------------------------------------


def test_gan_test_uses_the_labels_of_the_samples(digits: DataSplits, digits_evaluator: Evaluator) -> None:
    held_out = digits.held_out
    assert isinstance(held_out, ImageDataset)
    batch = held_out.gather(random_order(len(held_out))[:N])
    assert batch.labels is not None
    for labels, low, high in ((batch.labels, 0.95, 1.0), ((batch.labels + 1) % 10, 0.0, 0.03)):
        result = digits_evaluator.measure(
            lambda _: batch.images, select_measures("gan_test"), lambda n, labels=labels: labels[: max(n, 1)]
        )
        assert low <= value(result, "gan_test") <= high
        assert 0.95 <= floor(result, "gan_test") <= 1


def test_labels_are_not_compared_with_the_classes_of_another_data_set(
    digits: DataSplits, digits_evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inception classifies, too, but by the classes of ImageNet."""
    monkeypatch.setattr(digits_evaluator.extractor, "has_data_classes", False)
    batch = digits.held_out.gather(torch.arange(N))
    result = digits_evaluator.measure(
        lambda _: to_float(batch.images), select_measures("gan_test,class_balance"), lambda _: batch.labels
    )
    assert result.skipped == {"gan_test": "the feature extractor does not know the classes of the data"}
    assert value(result, "class_balance") > 0


def test_d_probe(shades: ImageDataset) -> None:
    d = MLPDiscriminatorConfig(width=8).build(shades.shape)
    evaluator = Evaluator(None, split(shades, 100), "pixels", d=lambda: d)
    result = evaluator.measure(first_of(shades.images), select_measures("d_probe"))
    assert value(result, "d_probe") > 0.9
    assert result.results["d_probe"].floor is None
    without = Evaluator(None, split(shades, 100), "pixels").measure(first_of(shades.images), select_measures("d_probe"))
    assert without.skipped == {"d_probe": MISSING_REASONS["d"]}


def test_of_several_reasons_the_one_about_the_data_is_given(shades: ImageDataset) -> None:
    """Classes of the samples would be of no use without those of the data."""
    bare = DataSplits(ImageDataset(shades.images, None, ()))
    result = Evaluator(None, bare, "pixels", n=20).measure(first_of(shades.images), select_measures("gan_train"))
    assert result.skipped == {"gan_train": MISSING_REASONS["labels"]}


# ---- neighbours ------------------------------------------------------------------------------------------


def tiles(grid: Bytes, side: int, columns: int) -> list[list[Bytes]]:
    """The images of a grid by row, without the margins of two pixels between them."""
    width = (grid.shape[1] - 2) // columns - 2
    assert width % side == 0
    tops = range(2, grid.shape[0], width + 2)
    large = [[grid[y : y + width, 2 + x * (width + 2) :][:, :width] for x in range(columns)] for y in tops]
    return [[tile[:: width // side, :: width // side] for tile in row] for row in large]


def test_samples_are_followed_by_their_nearest_training_images(shades: ImageDataset) -> None:
    evaluator = Evaluator(None, split(shades, 100), "pixels")
    indices = torch.tensor([7, 0, 99, 42])
    grid = tiles(evaluator.nearest_training_grid(to_float(torch.from_numpy(shades.images)[indices])), 8, 12)
    rows = [grid[k // 3][k % 3 * 4 : k % 3 * 4 + 4] for k in range(4)]
    pool = shades.images[:100].reshape(100, -1).astype(float)
    for index, row in zip(indices.tolist(), rows, strict=True):
        nearest = np.argsort(((pool - pool[index]) ** 2).sum(1), kind="stable")[:3]
        assert nearest[0] == index
        for tile, expected in zip(row, [index, *nearest], strict=True):
            assert (tile == shades.images[expected]).all()


def test_flipped_copies_are_found_if_flips_are_trained_on() -> None:
    """New images and their flips are no copies, and the floor is that of new images."""
    digits = DigitsConfig(size=8).load().train
    assert isinstance(digits, ImageDataset)
    shuffled = digits.images[np.random.default_rng(0).permutation(len(digits))]
    train, held_out, new = np.split(shuffled[:1200], [500, 900])
    data = DataSplits(ImageDataset(train), ImageDataset(held_out))
    sets = {"copies": train[:300, :, ::-1], "new": new, "flips of new": new[:, :, ::-1]}
    found = {}
    for mirror in (False, True):
        evaluator = Evaluator(DigitsConfig(size=8, mirror=mirror), data, "pixels", 300)
        for name, images in sets.items():
            samples = first_of(np.ascontiguousarray(images))
            found[name, mirror] = evaluator.measure(samples, select_measures("copying,authenticity"))
    assert value(found["copies", True], "copying") < -6
    assert value(found["copies", True], "authenticity") == 0
    assert value(found["copies", False], "authenticity") > 0.3, "without mirror they are no copies"
    for name in ("new", "flips of new"):
        assert abs(value(found[name, True], "copying")) < 3
        assert value(found[name, True], "authenticity") == pytest.approx(
            floor(found[name, True], "authenticity"), abs=0.12
        )
    assert abs(floor(found["new", True], "copying")) < 3


def test_half_of_the_held_out_images_of_copying_are_flipped_if_flips_are_trained_on(shades: ImageDataset) -> None:
    held_out = torch.from_numpy(shades.images[100:])
    plain, flips = image_set(held_out), image_set(held_out.flip(2))
    for mirror in (False, True):
        evaluator = Evaluator(DigitsConfig(size=8, mirror=mirror), split(shades, 100), "pixels")
        for draw in evaluator.reference.copying_draws:
            sides = [image_set(side.samples) for side in draw]
            assert all(side <= plain | flips for side in sides)
            assert all(len(side & flips) in (range(15, 36) if mirror else [0]) for side in sides)
            as_they_were = [image_set(torch.cat([side.samples, side.samples.flip(2)])) & plain for side in draw]
            assert len(as_they_were[0] | as_they_were[1]) == 100, "no image is on both sides, flipped or not"
        assert image_set(evaluator.real.samples) == plain, "other measures use the images as they are"


def test_the_nearest_training_images_are_shown_as_flips_where_these_are_nearer(shades: ImageDataset) -> None:
    evaluator = Evaluator(DigitsConfig(size=8, mirror=True), split(shades, 100), "pixels")
    images = torch.from_numpy(shades.images)[:4].flip(2)
    grid = tiles(evaluator.nearest_training_grid(to_float(images)), 8, 12)
    for k, image in enumerate(images.numpy()):
        sample, nearest, *others = grid[k // 3][k % 3 * 4 : k % 3 * 4 + 4]
        assert (sample == image).all()
        assert (nearest == image).all()
        assert all((tile != shades.images[k]).any() for tile in others), "each training image is shown once"


@pytest.mark.parametrize("config", [RingConfig(), TwoMoonsConfig(), StackedConfig(size=32, count=40)])
def test_neighbours_require_a_fixed_training_set(config: DataConfig) -> None:
    with pytest.raises(RecipeError, match="no fixed set of images"):
        Evaluator(config, config.load(), "pixels").nearest_training_grid(torch.zeros(4, 2))


@pytest.mark.parametrize(
    ("held_out", "requested", "noted"),
    [
        (ENOUGH_TO_RANK - 1, None, True),
        (ENOUGH_TO_RANK - 1, 1000, True),  # as a recipe asks for
        (ENOUGH_TO_RANK - 1, 30, False),
        (ENOUGH_TO_RANK, None, False),
        (ENOUGH_TO_RANK, 1000, False),
    ],
)
def test_few_held_out_images_are_noted(shades: ImageDataset, held_out: int, requested: int | None, noted: bool) -> None:
    evaluator = Evaluator(None, split(shades, 200 - held_out), "pixels", requested)
    notes = evaluator.measure(first_of(shades.images), select_measures("fid")).notes
    assert any("small differences may be chance" in note for note in notes) == noted


@pytest.mark.parametrize(
    ("fakes", "requested", "noted"),
    [
        (15, None, True),
        (15, 100, True),
        (200, 30, False),
        (15, 15, False),
        (ENOUGH_TO_RANK - 1, None, True),
        (ENOUGH_TO_RANK, None, False),
    ],
)
def test_a_comparison_of_few_images_is_noted(
    shades: ImageDataset, fakes: int, requested: int | None, noted: bool
) -> None:
    some = DataSplits(ImageDataset(shades.images[:fakes], None, ()))
    result = compare(some, split(shades, 80), select_measures("diversity"), n=requested, features="pixels")
    assert any("small differences may be chance" in note for note in result.notes) == noted


def test_number_of_searched_training_images_is_limited(shades: ImageDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluator_module, "MAX_TRAINING_SAMPLES", 50)
    evaluator = Evaluator(None, split(shades, 100), "pixels", 40)
    result = evaluator.measure(first_of(shades.images), select_measures("authenticity"))
    assert result.notes == ("copies are searched for in 50 of 100 training images",)
    assert evaluator.train is not None
    assert len(image_set(evaluator.train.samples)) == 50


# ---- points ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("config", "modes"), [(RingConfig(), 8), (GridConfig(), 25)])
def test_modes_in_the_plane(config: PlaneConfig, modes: int) -> None:
    evaluator = Evaluator(config, config.load())
    real = evaluator.measure(lambda n: config.points(n, torch.Generator().manual_seed(3)), select_measures("all"))
    assert (real.n, real.features) == (NUM_POINTS, "points")
    for get in (value, floor):
        assert get(real, "modes") == modes
        assert get(real, "high_quality") == pytest.approx(1 - math.exp(-4.5), abs=0.01)
        assert get(real, "reverse_kl") == pytest.approx((modes - 1) / (2 * NUM_POINTS), abs=0.01)
        assert 0 <= get(real, "fid") < 0.1
    assert value(real, "modes") == floor(real, "modes")
    assert value(real, "fid") != floor(real, "fid")
    assert real.notes == ()
    assert set(real.skipped) == {
        *("inception_score", "class_confidence", "class_balance", "class_diversity", "gan_test", "gan_train"),
        *("copying", "authenticity", "d_probe", "duality_gap", "high_frequencies", *RECONSTRUCTION, *TRANSLATION),
    }
    centres = config.mode_centres()
    assert centres is not None
    three_modes = evaluator.measure(
        lambda n: centres[0][torch.arange(n) % 3], select_measures("modes,high_quality,reverse_kl,vendi")
    )
    assert value(three_modes, "modes") == 3
    assert value(three_modes, "high_quality") == 1
    assert value(three_modes, "reverse_kl") == pytest.approx(math.log(modes / 3), abs=1e-5)
    assert floor(three_modes, "modes") == modes


def test_distribution_without_modes() -> None:
    config = TwoMoonsConfig()
    result = Evaluator(config, config.load(), n=50).measure(
        lambda n: config.points(n, torch.Generator().manual_seed(3)), select_measures("modes,high_quality,fid")
    )
    assert result.skipped == {"modes": MISSING_REASONS["modes"], "high_quality": MISSING_REASONS["mode centres"]}
    assert list(result.results) == ["fid"]


def test_duality_gap_is_reported() -> None:
    config = RingConfig()
    result = Evaluator(config, config.load(), n=50).measure(
        lambda n: torch.zeros(n, 2), select_measures("duality_gap"), duality_gap=lambda: 0.25
    )
    assert result.results["duality_gap"] == (MeasuredValue(0.25), None, None, None)


# ---- stacked digits ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pairs() -> tuple[StackedConfig, DataSplits]:
    config = StackedConfig(size=32, stack=2, count=1200)
    return config, config.load()


def test_modes_of_stacked_digits_require_the_classifier(pairs: tuple[StackedConfig, DataSplits]) -> None:
    config, data = pairs
    evaluator = Evaluator(config, data, "pixels", n=20)
    assert isinstance(data.held_out, StackedDigits)
    images = data.held_out.gather(torch.arange(20)).images
    result = evaluator.measure(lambda n: images[:n], select_measures("modes,diversity"))
    assert (result.results.keys(), result.skipped) == ({"diversity"}, {"modes": MISSING_REASONS["modes"]})


def test_modes_of_stacked_digits_match_the_labels(pairs: tuple[StackedConfig, DataSplits]) -> None:
    config, data = pairs
    train = data.train
    assert isinstance(train, StackedDigits)
    evaluator = Evaluator(config, data, n=200)
    fours = torch.nonzero(train.gather_labels(torch.arange(len(train))) // 10 == 4).flatten().repeat(2)[:200]
    for indices, max_modes in ((torch.arange(200), 100), (fours, 10)):
        labels = train.gather_labels(indices)
        result = evaluator.measure(lambda _, indices=indices: train.gather(indices).images, select_measures(None))
        counts = torch.bincount(labels, minlength=100)
        assert abs(value(result, "modes") - int((counts > 0).sum())) <= 2
        assert value(result, "modes") <= max_modes + 2
        assert value(result, "reverse_kl") == pytest.approx(reverse_kl(counts), abs=0.06)
    assert set(result.skipped) == {
        *("high_quality", "mode_std_error", "inception_score", "class_confidence", "class_balance", "class_diversity"),
        *("gan_test", "copying", "authenticity", *RECONSTRUCTION, *TRANSLATION),
    }
    assert "on each of 2 channels" in result.features
    assert evaluator.real.features.shape == (200, 128)
    assert floor(result, "modes") > 70
    assert result.notes == ()


def test_more_stacks_are_counted_than_compared(pairs: tuple[StackedConfig, DataSplits]) -> None:
    """The floor uses the same number, because the number of modes found grows with the number of samples."""
    config, data = pairs
    assert isinstance(data.train, StackedDigits)
    assert isinstance(data.held_out, StackedDigits)
    train, counts = data.train, []

    def samples(n: int) -> Tensor:
        counts.append(n)
        return train.gather(torch.arange(min(n, len(train)))).images

    evaluator = Evaluator(config, data)
    assert evaluator.n == len(data.held_out) == 300
    evaluator.measure(samples, select_measures("fid"))
    result = evaluator.measure(samples, select_measures("modes,reverse_kl"))
    assert counts[0] == 300
    assert abs(value(result, "modes") - floor(result, "modes")) <= 6
    assert value(result, "reverse_kl") == pytest.approx(floor(result, "reverse_kl"), abs=0.05)
    assert counts[1] == evaluator.num_mode_samples == len(data.held_out)


def test_number_of_mode_samples_is_noted(pairs: tuple[StackedConfig, DataSplits]) -> None:
    config, data = pairs
    train = data.train
    assert isinstance(train, StackedDigits)
    evaluator = Evaluator(config, replace(data), n=30)
    evaluator.num_mode_samples = 1000
    result = evaluator.measure(lambda n: train.gather(torch.arange(n)).images, select_measures("modes,fid"))
    assert (result.n, result.notes) == (30, ("modes: computed from 1,000 samples",))
    assert evaluator.measure(lambda n: train.gather(torch.arange(n)).images, select_measures("fid")).notes == ()
    assert value(result, "modes") > 95
