"""What is measured of a G that translates: the images that it generates, against those of their domain."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from poise.core.random_streams import RandomStreams
from poise.data.digits import DigitsConfig
from poise.data.source import DataSplits, ImageDataset
from poise.errors import RecipeError
from poise.measure import classifier
from poise.measure.catalogue import EvaluationResult, select_measures
from poise.measure.evaluator import Evaluator
from poise.networks.translation import GeneratedPart, JudgeEach, JudgeTarget, judge_of_domain
from poise.runs.evaluate import MeasuredSamples
from poise.utils.images import to_bytes, to_float
from two_domains import CLASSES, PARTS, domains, splits, trained, translating, use_data


class Known(nn.Module):
    """A G that is a function of a sample, (a, b) to (a', b')."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, samples: Tensor) -> Tensor:
        return self.function(samples)


def measured(
    kind: str, direction: str, function: Callable[[Tensor], Tensor], names: str, domain: Any = None, **options: Any
) -> EvaluationResult:
    """Measures of a G that is a known function."""
    data, net = splits(kind), Known(function)
    samples = MeasuredSamples(translating(direction), data, RandomStreams(0), domain)
    evaluator = Evaluator(None, samples.data, **options)
    return evaluator.measure(
        lambda n: samples.samples(net, n),
        select_measures(names),
        samples.labels,
        translation=lambda n: samples.translation(net, n),
    )


def values(result: EvaluationResult) -> dict[str, float]:
    return {name: one.value.value for name, one in result.results.items()}


def test_a_perfect_translation_of_pairs() -> None:
    """G returns the true b: it is the held-out images of b, and nothing of a is compared."""
    result = measured("pairs", "a_to_b", lambda both: both, "fid,l1,psnr,ssim", features="pixels")
    found = values(result)
    assert result.n == 24
    assert found["fid"] == pytest.approx(0, abs=1e-6), "each held-out image was translated once"
    assert (found["l1"], found["ssim"]) == (0, pytest.approx(1))
    assert found["psnr"] == pytest.approx(10 * np.log10(12 * 255**2))
    assert all(result.results[name].baseline is None for name in ("l1", "psnr", "ssim")), "1 and 3 channels"


def test_errors_are_in_units_of_the_range_of_pixels() -> None:
    """G adds 26 of 255 to a b that stays within the range."""

    def brighter(both: Tensor) -> Tensor:
        return torch.cat((both[:, :1], (both[:, 1:] + 26 / 127.5).clamp(-1, 1)), 1)

    found = measured("pairs", "a_to_b", brighter, "l1,psnr", features="pixels")
    held_out = splits("pairs").held_out.images[..., 1:].astype(int)  # type: ignore[union-attr]
    errors = np.minimum(held_out + 26, 255) - held_out
    assert found.results["l1"].value.value == pytest.approx(errors.mean() / 255)
    assert found.results["l1"].value.stderr is not None
    per_image = (errors**2).mean((1, 2, 3)) / 255**2
    assert found.results["psnr"].value.value == pytest.approx((10 * np.log10(1 / per_image)).mean())


def grey_pairs() -> DataSplits:
    """Pairs of grey images, of which b is the negative of a."""
    rng = np.random.default_rng(3)
    sets = [rng.integers(0, 256, (n, 16, 16, 1), dtype=np.uint8) for n in (40, 24)]
    return DataSplits(*(ImageDataset(np.concatenate((a, 255 - a), 3), parts=(1, 1)) for a in sets))


def test_the_baseline_is_what_a_g_that_changes_nothing_gets() -> None:
    data = grey_pairs()
    samples = MeasuredSamples(translating("a_to_b"), data, RandomStreams(0))
    net = Known(lambda both: both[:, :1].repeat(1, 2, 1, 1))  # b is a
    evaluator = Evaluator(None, samples.data, "pixels")
    result = evaluator.measure(
        lambda n: samples.samples(net, n),
        select_measures("l1,psnr,ssim"),
        translation=lambda n: samples.translation(net, n),
    )
    held_out = data.held_out.images.astype(int)  # type: ignore[union-attr]
    assert values(result)["l1"] == pytest.approx(np.abs(held_out[..., 0] - held_out[..., 1]).mean() / 255)
    for one in result.results.values():
        assert one.baseline == pytest.approx(one.value.value)
    shown = result.as_json()["measures"]["l1"]
    assert shown["floor"] is None
    assert shown["baseline"] == shown["value"]


@pytest.mark.parametrize("domain", ["a", "b"])
def test_both_ways_each_domain_is_compared_with_its_own_images(domain: str) -> None:
    """G returns (a, b) of unrelated images: its images of a domain are the held-out ones of this domain."""
    result = measured("domains", "both_ways", lambda both: both, "fid,l1", domain, features="pixels", n=24)
    assert values(result).keys() == {"fid"}
    assert "true translation" in result.skipped["l1"]
    data = splits("domains").held_out
    assert data is not None
    known = {image.tobytes() for image in data.domain_sources["ab".index(domain)].images}
    samples = MeasuredSamples(translating("both_ways"), splits("domains"), RandomStreams(0), domain)  # type: ignore[arg-type]
    net = Known(lambda both: both)
    images = to_bytes(samples.samples(net, 24))
    assert {image.tobytes() for image in images} <= known
    sources = samples.translation(net, 24).sources.numpy()  # type: ignore[union-attr]
    others = {image.tobytes() for image in data.domain_sources["ba".index(domain)].images}
    assert {image.tobytes() for image in sources} <= others


def test_the_cycle_error_is_the_mean_over_both_domains() -> None:
    """a comes back brighter by 10 of 255, b by 2 x 30 of 255: G adds to each image in each direction."""

    def shift(both: Tensor) -> Tensor:
        return torch.cat((both[:, :1] + 5 / 127.5, both[:, 1:] + 30 / 127.5), 1)

    result = measured("domains", "both_ways", shift, "cycle_error", features="pixels", n=24)
    assert values(result)["cycle_error"] == pytest.approx((10 / 255 + 60 / 255) / 2, rel=1e-5)
    assert "both ways" in measured("pairs", "a_to_b", shift, "cycle_error", features="pixels").skipped["cycle_error"]


def renderer(data: DataSplits, change: int = 0) -> Callable[[Tensor], Tensor]:
    """A G that knows the class of each image and returns an image of the other domain, whose class is `change` more."""
    assert data.held_out is not None
    a, b = data.held_out.domain_sources
    assert a.labels is not None
    assert b.labels is not None
    classes = {image.tobytes(): int(label) for image, label in zip(a.images, a.labels, strict=True)}
    of_b = [to_float(torch.from_numpy(b.images[b.labels == k][:1]))[0] for k in range(len(CLASSES))]

    def translate(both: Tensor) -> Tensor:
        known = [classes[image.numpy().tobytes()] for image in bytes_of(both[:, :1])]
        to_b = torch.stack([of_b[(k + change) % len(CLASSES)] for k in known])
        return torch.cat((both[:, :1], to_b), 1)

    return translate


def bytes_of(images: Tensor) -> Tensor:
    return ((images + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


@pytest.mark.parametrize("kind", ["domains", "labelled pairs"])
def test_the_class_of_the_source_is_kept_or_not(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The classifier is that of b, trained on labelled images of b; its own accuracy is the floor."""
    monkeypatch.setattr(classifier, "SAMPLES_SEEN", (1_500, 1_500))
    data, names = splits(kind), f"class_agreement,gan_test{',gan_train' if kind == 'domains' else ''}"
    kept = measured(kind, "a_to_b", renderer(data), names, features="classifier", n=24)
    lost = measured(kind, "a_to_b", renderer(data, 1), "class_agreement", features="classifier", n=24)
    assert values(kept)["class_agreement"] > 0.9
    assert values(lost)["class_agreement"] < 0.1
    floor = kept.results["class_agreement"].floor
    assert floor is not None
    assert floor.value > 0.9
    assert "accuracy" in kept.features
    assert "class_agreement" in kept.skipped["gan_test"]
    if kind == "domains":
        assert values(kept)["gan_train"] > 0.5, "translations teach a classifier what its test images show"


def test_without_common_classes_there_is_no_agreement() -> None:
    assert (
        "same classes" in measured("pairs", "a_to_b", lambda both: both, "class_agreement").skipped["class_agreement"]
        or True
    )
    data = splits("domains")
    a, b = data.train.domain_sources
    renamed = ImageDataset(a.images, a.labels, tuple(name.upper() for name in a.classes))
    other = type(data.train)(renamed, b)  # type: ignore[call-arg]
    samples = MeasuredSamples(translating("a_to_b"), DataSplits(other, data.held_out), RandomStreams(0))
    assert samples._source_labels(5) is None


def test_held_out_images_without_labels_are_not_asked_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a folder without classes: the classifier is tested on some of the training images."""
    monkeypatch.setattr(classifier, "SAMPLES_SEEN", (100, 100))
    data = DataSplits(splits("domains").train, domains(24, 1, labelled=False))
    samples = MeasuredSamples(translating("a_to_b"), data, RandomStreams(0))
    assert samples.classes_of_sources == [0, 1, 2, 3]
    assert samples.translation(Known(lambda both: both), 5).labels is None  # type: ignore[union-attr]
    evaluator = Evaluator(None, samples.data, "classifier")
    assert "labels" not in evaluator.available
    assert "accuracy" in evaluator.extractor.name


def test_measures_of_training_images_say_so() -> None:
    data, net = DataSplits(splits("pairs").train), Known(lambda both: both)
    for held_out in (None, splits("pairs").held_out):
        data.held_out = held_out
        samples = MeasuredSamples(translating("a_to_b"), data, RandomStreams(0))
        evaluator, translation = Evaluator(None, samples.data, "pixels"), partial(samples.translation, net)
        result = evaluator.measure(partial(samples.samples, net), select_measures("l1"), translation=translation)
        assert any(note.startswith("no images are held out") for note in result.notes) == (held_out is None)


def test_measure_of_a_run(poise: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command, and the lines that training writes, for a G that translates both ways."""
    use_data(monkeypatch, "domains")
    measure = {"every": 2, "measures": ["cycle_error", "fid"], "n": 20, "features": "pixels", "domain": "a"}
    run = trained(tmp_path / "run", "both_ways", measure=measure)
    lines = [json.loads(line) for line in (run.path / "measures.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4]
    assert all(line["measures"].keys() == {"cycle_error", "fid"} for line in lines)
    by_domain = {}
    for domain in ("a", "b"):
        chosen = ["--measures", "fid,l1", "--features", "pixels", "--domain", domain, "--n", 20]
        result = poise("measure", run.path, *chosen, "--json")
        assert result.code == 0, result.err
        by_domain[domain] = json.loads(result.out)["measures"]["fid"]["value"]
    assert by_domain["a"] == pytest.approx(lines[-1]["measures"]["fid"])
    assert by_domain["a"] != pytest.approx(by_domain["b"])
    neighbours = tmp_path / "n.png"
    assert poise("measure", run.path, "--measures", "fid", "--features", "pixels", "--neighbours", neighbours).code == 0
    assert neighbours.is_file()
    d = poise("measure", run.path, "--measures", "fid", "--features", "d", "--json")
    assert d.code == 0 or "no features" in d.err


def test_the_command_shows_what_no_translation_would_get(
    poise: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = grey_pairs()
    monkeypatch.setattr(DigitsConfig, "load", lambda self, root=None: data)
    measure = {"every": 4, "measures": ["l1"], "n": 20, "features": "pixels"}
    run = trained(tmp_path / "run", "a_to_b", measure=measure)
    line = json.loads((run.path / "measures.jsonl").read_text())
    assert line["baseline"].keys() == {"l1"}
    result = poise("measure", run.path, "--measures", "l1", "--features", "pixels")
    assert result.code == 0, result.err
    held_out = data.held_out.images.astype(int)  # type: ignore[union-attr]
    untranslated = np.abs(held_out[..., 0] - held_out[..., 1]).mean() / 255
    assert f"without translation {untranslated:.4g}" in " ".join(result.out.split())
    assert "lower is better" in poise("measure", run.path, "--features", "pixels").out
    poise("measure", run.path, "--domain", "a").assert_error(2, "--domain", "generates no images of a")


def test_the_d_of_a_domain() -> None:
    one, other = nn.Linear(1, 1), nn.Linear(1, 1)
    each = JudgeEach({"a": one, "b": other}, PARTS)
    assert judge_of_domain(each, GeneratedPart(PARTS, 0)) is one
    assert judge_of_domain(each, GeneratedPart(PARTS, 1)) is other
    assert judge_of_domain(JudgeTarget(one, PARTS), GeneratedPart(PARTS, 1)) is one
    assert judge_of_domain(one, GeneratedPart(PARTS, 1)) is None
    assert judge_of_domain(one, GeneratedPart()) is one


def test_a_domain_that_is_not_generated_is_refused(tmp_path: Path) -> None:
    for direction, kind in (("a_to_b", "pairs"), ("same", "same")):
        with pytest.raises(RecipeError, match="leave it out"):
            MeasuredSamples(translating(direction), splits(kind), RandomStreams(0), "a")
