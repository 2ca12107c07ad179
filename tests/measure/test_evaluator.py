"""Benches: what is held against what, floors, what measures see of what they claim to see, and what is told."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from poise.data.digits import DigitsConfig
from poise.data.source import DataConfig, DataSplits, ImageDataset
from poise.data.stacked_digits import StackedConfig, StackedDigits
from poise.data.toys import GridConfig, PlaneConfig, RingConfig, TwoMoonsConfig
from poise.errors import RecipeError
from poise.measure import evaluator as bench_
from poise.measure.base import MISSING_REASONS, Floor, Measure, MeasuredValue
from poise.measure.catalogue import MEASURES, EvaluationResult, select_measures
from poise.measure.context import EvalContext
from poise.measure.evaluator import MAX_SAMPLES, NUM_POINTS, NUM_STACKS, Evaluator
from poise.measure.memorization import copying_test
from poise.measure.modes import reverse_kl
from poise.measure.reference import NUM_DRAWS, random_order
from poise.networks.mlp import MLPDiscriminatorConfig
from poise.utils.images import Bytes, to_float

Samples = Callable[[int], Tensor]
N = 400


def these(images: Bytes) -> Samples:
    return lambda n: torch.from_numpy(images[:n])


def split(pictures: ImageDataset, at: int) -> DataSplits:
    """The first `at` pictures to train on, the others held out."""
    assert pictures.labels is not None
    parts = [
        ImageDataset(pictures.images[some], pictures.labels[some], pictures.classes)
        for some in (slice(0, at), slice(at, None))
    ]
    return DataSplits(*parts)


def value(result: EvaluationResult, name: str) -> float:
    return result.results[name].value.value


def floor(result: EvaluationResult, name: str) -> float:
    told = result.results[name].floor
    assert told is not None
    return told.value


def pictures_of(samples: Tensor) -> set[bytes]:
    return {one.numpy().tobytes() for one in samples}


# ---- what measures see ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def told(digits: DataSplits, digits_bench: Evaluator) -> dict[str, EvaluationResult]:
    """All quick measures of digits that were neither trained on nor held against, and of what may become of them."""
    train, held_out = digits.train, digits.held_out
    assert isinstance(train, ImageDataset)
    assert isinstance(held_out, ImageDataset)
    assert held_out.labels is not None
    rng = np.random.default_rng(0)
    fresh = rng.permutation(np.setdiff1d(np.arange(len(held_out)), random_order(len(held_out))[:N].numpy()))
    images, labels = held_out.images[fresh], held_out.labels[fresh]
    typical = np.abs(images - images[labels == 1].mean(0)).reshape(len(images), -1).mean(1).argmin()
    piles = {
        "real": images[:N],
        "others": images[-N:],
        "blurred": gaussian_filter(images[:N], (0, 0.6, 0.6, 0)),
        "no nines": images[labels != 9][:N],
        "one": np.repeat(images[[typical]], N, axis=0),
        "black": np.zeros_like(images[:N]),
        "noise": rng.integers(0, 256, (N, 32, 32, 1), np.uint8),
        "copies": train.images[rng.permutation(len(train))[:N]],
    }
    return {name: digits_bench.measure(these(pile), select_measures(None)) for name, pile in piles.items()}


def worse(told: dict[str, EvaluationResult], pile: str, name: str) -> bool:
    """Whether a pile is farther beyond the worst of three real piles than these are apart, and 3 % at the least."""
    reals = [value(told["real"], name), value(told["others"], name), floor(told["real"], name)]
    sign = -1 if MEASURES[name].better == "less" else 1
    reals, seen = [sign * real for real in reals], sign * value(told[pile], name)
    return seen < min(reals) - max(max(reals) - min(reals), 0.03 * abs(min(reals)))


REBUILDING = ("reconstruction", "pca_reconstruction", "elbo", "elbo_reconstruction", "elbo_kl")
"""What is measured only of a run that rebuilds."""


SEEN = {
    "blurred": ["fid", "coverage"],
    "no nines": ["fid", "coverage"],
    "one": ["fid", "kid", "recall", "coverage", "ndb", "class_balance", "vendi", "diversity", "inception_score"],
    "noise": ["fid", "kid", "precision", "density", "coverage"],
}
UNSEEN = {
    "others": [name for name in MEASURES if name not in ("gan_test", "gan_train", "d_probe", "duality_gap")],
    "one": ["precision"],
    "copies": ["fid", "kid", "precision", "recall", "density", "coverage", "ndb", "class_balance"],
}


@pytest.mark.parametrize(("pile", "name"), [(pile, name) for pile, names in SEEN.items() for name in names])
def test_a_measure_sees_what_it_claims_to_see(told: dict[str, EvaluationResult], pile: str, name: str) -> None:
    assert worse(told, pile, name)


@pytest.mark.parametrize(("pile", "name"), [(pile, name) for pile, names in UNSEEN.items() for name in names])
def test_and_is_blind_to_what_it_is_said_to_be_blind_to(
    told: dict[str, EvaluationResult], pile: str, name: str
) -> None:
    if name in told["real"].results:
        assert not worse(told, pile, name)
    else:
        assert MEASURES[name].requires & {"modes", "encoder", "likelihood"}


def test_a_missing_class_is_seen_beside_the_spread_of_the_floor(digits: DataSplits) -> None:
    """A thousand pictures show it; of four hundred random ones the shares vary too much."""
    train = digits.train
    assert isinstance(train, ImageDataset)
    assert train.labels is not None
    bench, order = Evaluator(DigitsConfig(size=32), digits), random_order(len(train), 9)
    without = order[torch.from_numpy(train.labels)[order] != 9]
    whole, fewer = (
        bench.measure(lambda n, places=places: train.gather(places[:n]).images, select_measures("class_balance"))
        for places in (order, without)
    )
    told = whole.results["class_balance"].floor
    assert told is not None
    assert told.std is not None
    assert abs(value(whole, "class_balance") - told.value) < 4 * told.std + 0.005
    assert value(fewer, "class_balance") < told.value - 8 * told.std


def test_the_order_from_real_to_noise(told: dict[str, EvaluationResult]) -> None:
    for name, sign in (("fid", 1), ("coverage", -1)):
        real, blurred, fewer, one, noise = (
            sign * value(told[pile], name) for pile in ("real", "blurred", "no nines", "one", "noise")
        )
        assert real < min(blurred, fewer)
        assert max(blurred, fewer) < one
        assert one < noise or (name, one, noise) == ("coverage", 0, 0)


def test_copies_are_flagged_and_new_pictures_are_not(told: dict[str, EvaluationResult]) -> None:
    assert value(told["copies"], "copying") < -5
    assert value(told["copies"], "authenticity") == 0
    for pile in ("real", "others", "blurred", "no nines"):
        assert abs(value(told[pile], "copying")) < 3
        assert abs(value(told[pile], "authenticity") - floor(told[pile], "authenticity")) < 0.2
    assert abs(floor(told["real"], "copying")) < 3


@pytest.mark.parametrize("pile", ["one", "black", "noise"])
def test_collapse_and_noise_are_numbers_all_the_same(told: dict[str, EvaluationResult], pile: str) -> None:
    for name, (figure, beside, _) in told[pile].results.items():
        assert beside is not None
        for number in (figure.value, beside.value, figure.stderr or 0.0):
            assert math.isfinite(number)
        if name not in ("kid", "copying"):
            assert figure.value >= 0
    assert set(told[pile].results) == set(told["real"].results)
    if pile == "one":
        assert value(told[pile], "vendi") == pytest.approx(1)
        assert value(told[pile], "inception_score") == pytest.approx(1, abs=1e-5)
        assert value(told[pile], "diversity") == pytest.approx(0, abs=1e-6)


# ---- what is told ----------------------------------------------------------------------------------------


def test_each_measure_is_told_or_skipped_with_a_reason(told: dict[str, EvaluationResult]) -> None:
    for result in told.values():
        assert not set(result.results) & set(result.skipped)
        assert set(result.results) | set(result.skipped) == {measure.name for measure in select_measures(None)}
        assert set(result.skipped) == {"gan_test", "modes", "high_quality", "reverse_kl", *REBUILDING}
        assert set(result.skipped.values()) <= set(MISSING_REASONS.values())
        assert result.notes == ()


@pytest.mark.parametrize("pile", ["real", "one", "noise"])
def test_json(told: dict[str, EvaluationResult], pile: str, digits_bench: Evaluator) -> None:
    found = json.loads(json.dumps(told[pile].as_json(), allow_nan=False))
    assert list(found) == ["n", "features", "measures", "skipped"]
    assert (found["n"], found["features"]) == (N, digits_bench.extractor.name)
    assert list(found["measures"]) == list(told[pile].results)
    for name, one in found["measures"].items():
        assert set(one) == {"value", "floor", "floor_std"} | (
            {"stderr"} if name in ("kid", "inception_score") else set()
        )
        assert (one["floor_std"] is None) == (MEASURES[name].floor == "real")
        assert (one["value"], one["floor"]) == (value(told[pile], name), floor(told[pile], name))
    assert found["skipped"] == told[pile].skipped


def test_a_figure_that_is_no_number_is_skipped(shades: ImageDataset) -> None:
    bench = Evaluator(None, split(shades, 100), "pixels", 20)
    for bad, why in ((math.nan, "its value is nan"), (math.inf, "its value is inf")):
        result = bench.measure(
            these(shades.images), [Measure("bad", "", "less", lambda _, bad=bad: MeasuredValue(bad))]
        )
        assert (result.results, result.skipped) == ({}, {"bad": why})


def test_a_measure_that_cannot_be_taken_says_why(shades: ImageDataset) -> None:
    def refuse(context: EvalContext) -> MeasuredValue:
        raise ValueError("too few of them")

    result = Evaluator(None, split(shades, 100), "pixels", 20).measure(
        these(shades.images), [Measure("bad", "", "less", refuse)]
    )
    assert result.skipped == {"bad": "too few of them"}


# ---- floors ------------------------------------------------------------------------------------------------


def test_floors_are_real_pictures_against_real_ones_at_the_same_n(
    told: dict[str, EvaluationResult], digits: DataSplits, digits_bench: Evaluator
) -> None:
    train, held_out = digits.train, digits.held_out
    assert isinstance(train, ImageDataset)
    assert isinstance(held_out, ImageDataset)
    draws = digits_bench.reference.floor_draws
    assert digits_bench.n == told["real"].n == len(digits_bench.real) == N
    assert [len(draw.fake) for draw in draws] == [N] * NUM_DRAWS
    assert len(set.union(*(pictures_of(draw.fake.samples) for draw in draws))) == NUM_DRAWS * N, (
        "draws share no picture"
    )
    others = [digits_bench.measure(lambda n, draw=draw: draw.fake.samples, select_measures(None)) for draw in draws]
    real = digits_bench.measure(lambda n: digits_bench.real.samples, select_measures(None))
    for name, one in told["noise"].results.items():
        assert one.floor is not None
        if MEASURES[name].floor == "halves":
            continue
        against = {"other": others, "real": [real]}[MEASURES[name].floor]
        values = [value(result, name) for result in against]
        assert one.floor.value == pytest.approx(np.mean(values), rel=1e-9)
        assert one.floor.std == (None if len(values) == 1 else pytest.approx(np.std(values, ddof=1), rel=1e-6))


def test_the_floor_of_copying_is_held_out_pictures_against_others_at_the_figures_n(
    told: dict[str, EvaluationResult], digits: DataSplits, digits_bench: Evaluator
) -> None:
    draws = digits_bench.reference.copying_draws
    assert digits_bench.train is not None
    assert len(digits_bench.train) == 4000
    values = []
    for draw in draws:
        sides = [pictures_of(pile.samples) for pile in draw]
        assert (len(sides[0]), len(sides[1]), len(sides[0] & sides[1])) == (N, N, 0)
        values.append(copying_test(draw.fake.features, draw.real.features, digits_bench.train.features))
    assert floor(told["one"], "copying") == pytest.approx(np.mean(values))
    # with fewer held out than that, figure and floor are both taken at half of what there is
    few = Evaluator(None, digits, "pixels", 1000)
    images = torch.from_numpy(digits.train.images[:1000])  # type: ignore[attr-defined]
    result = few.measure(lambda n: images[:n], select_measures("fid,copying"))
    assert (result.n, result.results["copying"].n, result.results["fid"].n) == (1000, 500, None)
    assert result.as_json()["measures"]["copying"]["n"] == 500
    assert result.notes == ("copying: computed from 500 samples; the other held-out images are used for its floor",)
    assert [len(pile) for draw in few.reference.copying_draws for pile in draw] == [500] * 2 * NUM_DRAWS
    real = few.reference.copying_draws[0].real
    assert few.train is not None
    expected = copying_test(to_float(images[:500]).flatten(1), real.features, few.train.features)
    assert value(result, "copying") == pytest.approx(expected)


def test_both_sides_of_every_figure_and_floor_have_the_same_n(shades: ImageDataset) -> None:
    """Whatever is asked for, held out, and there."""
    seen: list[tuple[int, int]] = []

    def count(context: EvalContext) -> MeasuredValue:
        seen.append((len(context.fake), len(context.real)))
        return MeasuredValue(1.0)

    measures = [Measure(stand, "", "less", count, floor=stand) for stand in ("other", "real", "halves", "none")]
    for loaded in (split(shades, 100), split(shades, 150), split(shades, 30), split(shades, 199), DataSplits(shades)):
        for n in (None, 2, 20, 50, 90, 100, 101, 199, 500):
            if loaded.held_out is None:
                measures = [one for one in measures if one.floor != "halves"]
            seen.clear()
            result = Evaluator(None, loaded, "pixels", n).measure(these(shades.images), measures)
            assert all(fake == real for fake, real in seen)
            for one in result.results.values():
                assert (one.n or result.n) in {real for _, real in seen}
            told = result.results["other"].floor
            there = len(loaded.train) - (result.n if loaded.held_out is None else 0)  # type: ignore[arg-type]
            assert (told is None) == (there < result.n)
            assert any("most measures have no floor" in note for note in result.notes) == (told is None)


def test_a_floor_is_worked_out_once(shades: ImageDataset) -> None:
    taken: list[EvalContext] = []

    def count(context: EvalContext) -> MeasuredValue:
        taken.append(context)
        return MeasuredValue(float(context.fake.features.mean()))

    bench = Evaluator(None, split(shades, 100), "pixels", 25)
    measures = [Measure("mean", "", "less", count), Measure("bare", "", "less", count, floor="none")]
    first = bench.measure(these(shades.images[100:]), measures)
    others = [draw.fake for draw in bench.reference.floor_draws]
    assert [context.fake in others for context in taken] == [False, *[True] * NUM_DRAWS, False]
    again = bench.measure(these(shades.images[:50]), measures)
    assert len(taken) == NUM_DRAWS + 4
    assert first.results["mean"].floor == again.results["mean"].floor
    assert first.results["bare"].floor is None


def test_what_takes_long_has_its_floor_drawn_once(shades: ImageDataset) -> None:
    taken: list[EvalContext] = []

    def count(context: EvalContext) -> MeasuredValue:
        taken.append(context)
        return MeasuredValue(1.0)

    result = Evaluator(None, split(shades, 100), "pixels", 25).measure(
        these(shades.images), [Measure("slow", "", "less", count, slow=True)]
    )
    assert len(taken) == 2
    assert result.results["slow"].floor == Floor(1.0)


@pytest.mark.parametrize(
    ("asked", "n", "draws"), [(20, 20, "apart"), (60, 60, "anew"), (100, 100, "anew"), (None, 100, "anew")]
)
def test_without_pictures_held_out_two_piles_that_share_none(
    shades: ImageDataset, asked: int | None, n: int, draws: str
) -> None:
    bench = Evaluator(None, DataSplits(shades), "pixels", asked)
    assert len(bench.reference.floor_draws) == NUM_DRAWS
    assert len(pictures_of(bench.real.samples)) == n
    for k, draw in enumerate(bench.reference.floor_draws):
        fake, real = (pictures_of(pile.samples) for pile in draw)
        assert len(fake) == len(real) == n
        assert not fake & real
        assert (draw.real is bench.real) == (k == 0 or draws == "apart")
    assert bench.measure(these(shades.images), select_measures("fid")).notes == ()


def test_without_pictures_enough_for_two_piles_no_floor_and_a_note(shades: ImageDataset) -> None:
    bench = Evaluator(None, DataSplits(shades), "pixels", 151)
    result = bench.measure(these(shades.images), select_measures(None))
    assert result.notes == ("most measures have no floor: 200 real images are too few for two parts of 151",)
    assert result.as_json()["notes"] == list(result.notes)
    assert result.as_json()["measures"]["fid"]["floor"] is None
    assert result.n == 151
    assert result.skipped["copying"] == MISSING_REASONS["held out"]
    assert all(one.floor is None for name, one in result.results.items() if MEASURES[name].floor == "other")


def test_reals_are_drawn_at_random_from_data_that_is_sorted_by_class() -> None:
    """Evenly spread ones would hold each class equally often: real pictures would lie farther away than their floor."""
    images = np.repeat(np.arange(200, dtype=np.uint8), 16).reshape(200, 4, 4, 1)
    for loaded in (
        split(ImageDataset(images, np.arange(200) // 100, ("a", "b")), 100),
        DataSplits(ImageDataset(images)),
    ):
        bench = Evaluator(None, loaded, "pixels", 40)
        for pile in (bench.real, *(draw.fake for draw in bench.reference.floor_draws)):
            gaps = pile.samples.flatten(1)[:, 0].sort().values.diff()
            assert gaps.max() >= 5, "forty evenly spread ones of a hundred are two or three apart"
            assert gaps.min() == 1


@pytest.mark.parametrize(("asked", "n"), [(None, 100), (30, 30), (1000, 100)])
def test_as_many_as_are_asked_for_and_held_out(shades: ImageDataset, asked: int | None, n: int) -> None:
    wanted: list[int] = []
    bench = Evaluator(None, split(shades, 100), "pixels", asked)

    def samples(count: int) -> Tensor:
        wanted.append(count)
        return torch.from_numpy(shades.images[:count])

    result = bench.measure(samples, select_measures("fid"))
    assert (result.n, wanted) == (n, [n])
    assert result.notes == (("only 100 real images are available for the comparison, not 1,000",) * (asked == 1000))
    assert pictures_of(bench.real.samples) <= pictures_of(torch.from_numpy(shades.images[100:]))
    for draw in bench.reference.floor_draws:
        assert pictures_of(draw.fake.samples) <= pictures_of(torch.from_numpy(shades.images[:100]))
        assert draw.real is bench.real
    assert (MAX_SAMPLES, NUM_POINTS, NUM_STACKS) == (5_000, 2_500, 26_000)


def test_pictures_in_numbers_from_minus_one_count_as_their_bytes(shades: ImageDataset) -> None:
    bench = Evaluator(None, split(shades, 100), "pixels", 40)
    bytes_ = torch.from_numpy(shades.images[:40])
    by_bytes, by_numbers = (
        bench.measure(lambda _, some=some: some, select_measures("fid,vendi"))
        for some in (bytes_, to_float(bytes_) + 0.001)
    )
    assert by_bytes == by_numbers


# ---- labels, D ---------------------------------------------------------------------------------------------


def test_labels_that_were_asked_for(digits: DataSplits, digits_bench: Evaluator) -> None:
    held_out = digits.held_out
    assert isinstance(held_out, ImageDataset)
    batch = held_out.gather(random_order(len(held_out))[:N])
    assert batch.labels is not None
    for labels, least, most in ((batch.labels, 0.95, 1.0), ((batch.labels + 1) % 10, 0.0, 0.03)):
        result = digits_bench.measure(
            lambda _: batch.images, select_measures("gan_test"), lambda n, labels=labels: labels[: max(n, 1)]
        )
        assert least <= value(result, "gan_test") <= most
        assert 0.95 <= floor(result, "gan_test") <= 1


def test_what_d_has_learnt_is_probed(shades: ImageDataset) -> None:
    d = MLPDiscriminatorConfig(width=8).build(shades.shape)
    bench = Evaluator(None, split(shades, 100), "pixels", d=lambda: d)
    result = bench.measure(these(shades.images), select_measures("d_probe"))
    assert value(result, "d_probe") > 0.9
    assert result.results["d_probe"].floor is None
    without = Evaluator(None, split(shades, 100), "pixels").measure(these(shades.images), select_measures("d_probe"))
    assert without.skipped == {"d_probe": MISSING_REASONS["d"]}


# ---- neighbours ------------------------------------------------------------------------------------------


def tiles(sheet: Bytes, side: int, columns: int) -> list[list[Bytes]]:
    """A sheet's pictures, row by row, without the gaps of two pixels between them."""
    width = (sheet.shape[1] - 2) // columns - 2
    assert width % side == 0
    edges = range(2, sheet.shape[0], width + 2)
    found = [[sheet[y : y + width, 2 + x * (width + 2) :][:, :width] for x in range(columns)] for y in edges]
    return [[tile[:: width // side, :: width // side] for tile in row] for row in found]


def test_each_sample_is_beside_its_nearest_training_pictures(shades: ImageDataset) -> None:
    bench = Evaluator(None, split(shades, 100), "pixels")
    chosen_ = torch.tensor([7, 0, 99, 42])
    sheet = tiles(bench.nearest_training_grid(to_float(torch.from_numpy(shades.images)[chosen_])), 8, 12)
    rows = [sheet[k // 3][k % 3 * 4 : k % 3 * 4 + 4] for k in range(4)]
    pool = shades.images[:100].reshape(100, -1).astype(float)
    for place, row in zip(chosen_.tolist(), rows, strict=True):
        nearest = np.argsort(((pool - pool[place]) ** 2).sum(1), kind="stable")[:3]
        assert nearest[0] == place
        for tile, expected in zip(row, [place, *nearest], strict=True):
            assert (tile == shades.images[expected]).all()


@pytest.mark.parametrize("entry", [RingConfig(), TwoMoonsConfig(), StackedConfig(size=32, count=40)])
def test_what_has_no_end_has_no_neighbours_to_show(entry: DataConfig) -> None:
    with pytest.raises(RecipeError, match="no fixed set of images"):
        Evaluator(entry, entry.load(), "pixels").nearest_training_grid(torch.zeros(4, 2))


def test_of_very_many_training_pictures_some_are_looked_at_for_copies(
    shades: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_, "MAX_TRAINING_SAMPLES", 50)
    bench = Evaluator(None, split(shades, 100), "pixels", 40)
    result = bench.measure(these(shades.images), select_measures("authenticity"))
    assert result.notes == ("copies are searched for in 50 of 100 training images",)
    assert bench.train is not None
    assert len(pictures_of(bench.train.samples)) == 50


# ---- points ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("entry", "modes"), [(RingConfig(), 8), (GridConfig(), 25)])
def test_modes_in_the_plane(entry: PlaneConfig, modes: int) -> None:
    bench = Evaluator(entry, entry.load())
    real = bench.measure(lambda n: entry.points(n, torch.Generator().manual_seed(3)), select_measures("all"))
    assert (real.n, real.features) == (NUM_POINTS, "points")
    for of in (value, floor):
        assert of(real, "modes") == modes
        assert of(real, "high_quality") == pytest.approx(1 - math.exp(-4.5), abs=0.01)
        assert of(real, "reverse_kl") == pytest.approx((modes - 1) / (2 * NUM_POINTS), abs=0.01)
        assert 0 <= of(real, "fid") < 0.1
    assert value(real, "modes") == floor(real, "modes")
    assert value(real, "fid") != floor(real, "fid")
    assert real.notes == ()
    assert set(real.skipped) == {
        *("inception_score", "class_confidence", "class_balance", "gan_test", "gan_train"),
        *("copying", "authenticity", "d_probe", "duality_gap", "high_frequencies", *REBUILDING),
    }
    centres = entry.mode_centres()
    assert centres is not None
    few = bench.measure(
        lambda n: centres[0][torch.arange(n) % 3], select_measures("modes,high_quality,reverse_kl,vendi")
    )
    assert value(few, "modes") == 3
    assert value(few, "high_quality") == 1
    assert value(few, "reverse_kl") == pytest.approx(math.log(modes / 3), abs=1e-5)
    assert floor(few, "modes") == modes


def test_a_plane_without_modes_has_none_to_count() -> None:
    entry = TwoMoonsConfig()
    result = Evaluator(entry, entry.load(), n=50).measure(
        lambda n: entry.points(n, torch.Generator().manual_seed(3)), select_measures("modes,high_quality,fid")
    )
    assert result.skipped == {"modes": MISSING_REASONS["modes"], "high_quality": MISSING_REASONS["centres"]}
    assert list(result.results) == ["fid"]


def test_a_game_that_can_be_played_on() -> None:
    entry = RingConfig()
    result = Evaluator(entry, entry.load(), n=50).measure(
        lambda n: torch.zeros(n, 2), select_measures("duality_gap"), duality_gap=lambda: 0.25
    )
    assert result.results["duality_gap"] == (MeasuredValue(0.25), None, None)


# ---- stacked digits ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pairs() -> tuple[StackedConfig, DataSplits]:
    entry = StackedConfig(size=32, stack=2, count=1200)
    return entry, entry.load()


def test_pixels_of_stacks_are_measured_but_no_modes_counted(pairs: tuple[StackedConfig, DataSplits]) -> None:
    entry, loaded = pairs
    bench = Evaluator(entry, loaded, "pixels", n=20)
    assert isinstance(loaded.held_out, StackedDigits)
    images = loaded.held_out.gather(torch.arange(20)).images
    found = bench.measure(lambda n: images[:n], select_measures("modes,diversity"))
    assert (found.results.keys(), found.skipped) == ({"diversity"}, {"modes": MISSING_REASONS["modes"]})


def test_modes_of_stacked_digits_are_those_of_the_labels(pairs: tuple[StackedConfig, DataSplits]) -> None:
    entry, loaded = pairs
    train = loaded.train
    assert isinstance(train, StackedDigits)
    bench = Evaluator(entry, loaded, n=200)
    fours = torch.nonzero(train.gather_labels(torch.arange(len(train))) // 10 == 4).flatten()
    for places, most in ((torch.arange(200), 100), (fours, 10)):
        labels = train.gather_labels(places)
        result = bench.measure(lambda _, places=places: train.gather(places).images, select_measures(None))
        counts = torch.bincount(labels, minlength=100)
        assert abs(value(result, "modes") - int((counts > 0).sum())) <= 2
        assert value(result, "modes") <= most + 2
        assert value(result, "reverse_kl") == pytest.approx(reverse_kl(counts), abs=0.06)
    assert set(result.skipped) == {
        *("high_quality", "inception_score", "class_confidence", "class_balance"),
        *("gan_test", "copying", "authenticity", *REBUILDING),
    }
    assert "on each of 2 channels" in result.features
    assert bench.real.features.shape == (200, 128)
    assert floor(result, "modes") > 70
    assert result.notes == ()


def test_stacks_that_count_are_more_than_those_compared(pairs: tuple[StackedConfig, DataSplits]) -> None:
    """And as many as there are real ones for the floor: modes found grow with the number of samples."""
    entry, loaded = pairs
    assert isinstance(loaded.train, StackedDigits)
    assert isinstance(loaded.held_out, StackedDigits)
    train, wanted = loaded.train, []

    def samples(n: int) -> Tensor:
        wanted.append(n)
        return train.gather(torch.arange(min(n, len(train)))).images

    bench = Evaluator(entry, loaded)
    assert bench.n == len(loaded.held_out) == 300
    bench.measure(samples, select_measures("fid"))
    result = bench.measure(samples, select_measures("modes,reverse_kl"))
    assert wanted[0] == 300
    assert abs(value(result, "modes") - floor(result, "modes")) <= 6
    assert value(result, "reverse_kl") == pytest.approx(floor(result, "reverse_kl"), abs=0.05)
    assert wanted[1] == bench.num_mode_samples == len(loaded.held_out)


def test_a_note_where_modes_are_of_another_number(pairs: tuple[StackedConfig, DataSplits]) -> None:
    entry, loaded = pairs
    train = loaded.train
    assert isinstance(train, StackedDigits)
    bench = Evaluator(entry, replace(loaded), n=30)
    bench.num_mode_samples = 1000
    result = bench.measure(lambda n: train.gather(torch.arange(n)).images, select_measures("modes,fid"))
    assert (result.n, result.notes) == (30, ("modes: computed from 1,000 samples",))
    assert bench.measure(lambda n: train.gather(torch.arange(n)).images, select_measures("fid")).notes == ()
    assert value(result, "modes") > 95
