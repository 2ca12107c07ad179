"""What other training loops can use: random numbers, augmentation, averages, features of images, the monitor."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import poise
from poise import functional as F
from poise.data.source import DataSplits, ImageDataset
from poise.errors import DataError, PoiseError, RecipeError
from poise.measure.classifier import SmallClassifier
from poise.measure.classifier_file import StoredClassifier, write_classifier
from poise.tricks.diff_augment import TRANSFORMS
from poise.utils.images import to_bytes, to_float

IMAGES = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1

RANDOM: dict[str, Callable[..., Tensor]] = {
    "gaussian": lambda **given: F.gaussian(3, 4, **given),
    "sphere": lambda **given: F.sphere(3, 4, **given),
    "uniform": lambda **given: F.uniform(3, 4, **given),
    "truncated": lambda **given: F.truncated(3, 4, **given),
    "add_noise": lambda **given: F.add_noise(IMAGES, 0.5, **given),
    "diff_augment": lambda **given: F.diff_augment(IMAGES, **given),
    "wgan_gp": lambda **given: F.wgan_gp(lambda x: x.square().flatten(1).sum(1), IMAGES, -IMAGES, **given),
    "dragan": lambda **given: F.dragan(lambda x: x.square().flatten(1).sum(1), IMAGES, **given),
}


def test_every_function_with_random_numbers_is_below() -> None:
    taking = {name for name in dir(F) if "generator" in inspect.signature(getattr(F, name)).parameters}
    assert taking == RANDOM.keys()


@pytest.mark.parametrize("name", RANDOM)
def test_a_generator_may_be_left_out(name: str) -> None:
    """Then the numbers are those of PyTorch's global generator; with one, that is left alone."""
    function = RANDOM[name]
    values = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        values.append(function())
    assert torch.equal(values[0], values[1])
    assert not torch.equal(values[0], values[2])
    before = torch.get_rng_state()
    ours = [function(generator=torch.Generator().manual_seed(5)) for _ in range(2)]
    assert torch.equal(*ours)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(values[0], values[1])


@pytest.mark.parametrize("policy", [("colour",), ("cutout", "translation"), tuple(TRANSFORMS), ()])
def test_images_are_augmented_by_the_policy(policy: tuple[str, ...]) -> None:
    generator = torch.Generator().manual_seed(3)
    expected = IMAGES
    for name in policy:
        expected = TRANSFORMS[name](expected, generator)  # type: ignore[index]
    images = IMAGES.clone().requires_grad_()
    augmented = F.diff_augment(images, policy, torch.Generator().manual_seed(3))
    assert torch.equal(augmented, expected)
    augmented.sum().backward()
    assert images.grad is not None


def test_what_can_not_be_augmented_is_refused() -> None:
    with pytest.raises(
        RecipeError, match=r"^diff_augment: no such transformation, found 'color'; did you mean 'colour'"
    ):
        F.diff_augment(IMAGES, "color")
    with pytest.raises(RecipeError, match=r"^diff_augment: needs images, B x C x H x W, found 4 x 2$"):
        F.diff_augment(torch.zeros(4, 2))


def test_an_average_follows_the_network() -> None:
    live = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    mean = copy.deepcopy(live)
    before = [tensor.clone() for tensor in mean.parameters()]
    live(torch.randn(8, 2))
    with torch.no_grad():
        for weight in live.parameters():
            weight.add_(1)
    F.ema_update_(mean, live, 0.75)
    for old, new in zip(before, mean.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.25)
    assert mean[1].num_batches_tracked == 1, "what has no mean is copied"


@pytest.mark.parametrize("beta", [-0.1, 1.9, float("nan")])
def test_the_weight_of_the_past_is_a_fraction(beta: float) -> None:
    net = nn.Linear(2, 3)
    before = net.weight.clone()
    with pytest.raises(ValueError, match=f"beta, the weight of the past, must be from 0 to 1, found {beta:g}"):
        F.ema_update_(net, nn.Linear(2, 3), beta)
    assert torch.equal(net.weight, before)


@pytest.mark.parametrize(
    ("other", "found"),
    [
        (nn.Linear(2, 4), r"\(3, 2\) and \(4, 2\)"),
        (nn.Linear(2, 3, bias=False), r"\(3,\) and none"),
        (nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)), r"none and \(1, 3\)"),
    ],
)
def test_an_average_has_the_tensors_of_the_network(other: nn.Module, found: str) -> None:
    with pytest.raises(ValueError, match=f"must have tensors of the same shapes, found {found}"):
        F.ema_update_(nn.Linear(2, 3), other, 0.9)


class Wrapper(nn.Module):
    """Puts a word in front of all names, as `torch.compile` and `DistributedDataParallel` do."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


class Masked(nn.Linear):
    """A layer with an attention mask."""

    def __init__(self) -> None:
        super().__init__(2, 3)
        self.register_buffer("mask", torch.full((3, 3), float("-inf")).triu(1))


@pytest.mark.parametrize("wrapped", ["neither", "network", "average", "both"])
def test_an_average_keeps_a_mask_of_a_wrapped_network(wrapped: str) -> None:
    live = Masked()
    mean = copy.deepcopy(live)
    live.weight.data += 1
    expected = mean.weight + 0.1
    pair = [Wrapper(net) if wrapped in (name, "both") else net for net, name in ((mean, "average"), (live, "network"))]
    for _ in range(2):
        F.ema_update_(pair[0], pair[1], 0.9)
        assert torch.equal(mean.mask, live.mask)
    torch.testing.assert_close(mean.weight, expected + 0.09)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_an_average_in_float32_of_a_network_in_another_precision(dtype: torch.dtype) -> None:
    live = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).to(dtype)
    mean = copy.deepcopy(live).float().eval()
    with torch.no_grad():
        mean[0].weight.zero_()
        live[0].weight.fill_(1)
    for _ in range(3000):
        F.ema_update_(mean, live, 0.999)
    assert {tensor.dtype for tensor in mean.parameters()} == {torch.float32}
    torch.testing.assert_close(mean[0].weight, torch.full((3, 2), 1 - 0.999**3000), rtol=1e-3, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_an_average_in_16_bits_is_refused(dtype: torch.dtype) -> None:
    """Its steps would be rounded to none."""
    live = nn.Linear(2, 3).to(dtype)
    mean = copy.deepcopy(live)
    found = f"found weight in {str(dtype).removeprefix('torch.')}"
    with pytest.raises(ValueError, match=rf"must be in float32: copy\.deepcopy\(g\)\.float\(\), {found}"):
        F.ema_update_(mean, live, 0.9)


BYTES = torch.randint(0, 256, (240, 8, 8, 1), generator=torch.Generator().manual_seed(0)).byte()
IMAGE_DATA = DataSplits(ImageDataset(BYTES.numpy(), None, ()))
RING = poise.data.RingConfig()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None, RING.load()), "data_config: points are measured with their config; pass .*RingConfig"),
        ((None, "digits"), "data: must be what poise.data.load returns, found a value of the type str"),
        ((None, IMAGES), "data: must be what poise.data.load returns, found a value of the type Tensor"),
        (({"kind": "ring"}, RING.load()), "data_config: must be the config .*, found a value of the type dict"),
        (
            (None, IMAGE_DATA, F.feature_extractor("pixels")),
            "features: must be a text.*found .* function",
        ),
        (
            (None, IMAGE_DATA, nn.Flatten()),
            "features: must be a text.*found .* Flatten; .*py:NAME",
        ),
        ((None, IMAGE_DATA, None), "features: must be a text.*found None"),
        ((None, IMAGE_DATA, "pixels", 0), "n: must be a whole number of samples from 1 on, found 0"),
        ((None, IMAGE_DATA, "pixels", 2.5), "n: must be a whole number of samples from 1 on, found 2.5"),
        ((None, IMAGE_DATA, "pixels", "all"), "n: must be a whole number .*, found a value of the type str"),
    ],
)
def test_arguments_of_another_type_are_refused_in_one_line(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(RecipeError, match=message) as raised:
        poise.measure.Evaluator(*arguments)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("network", [nn.Flatten(), None, 3])
def test_a_feature_extractor_says_what_it_takes(network: Any) -> None:
    with pytest.raises(RecipeError, match=r"^features: must be a text.*compute features with it"):
        F.feature_extractor(network)


@pytest.fixture
def stored(tmp_path: Path) -> tuple[StoredClassifier, Path]:
    classifier = StoredClassifier(SmallClassifier((1, 8, 8), 3).eval(), (1, 8, 8), ("a", "b", "c"), 0.9)
    write_classifier(tmp_path / "c.safetensors", classifier)
    return classifier, tmp_path / "c.safetensors"


def test_features_of_images_for_the_measures(stored: tuple[StoredClassifier, Path]) -> None:
    classifier, file = stored
    images = torch.cat([IMAGES] * 70)  # more than one batch
    with torch.no_grad():
        expected = classifier.net(images)[0]
    for network in (classifier, file, str(file)):
        features = F.feature_extractor(network)(images.double().requires_grad_())
        torch.testing.assert_close(features, expected)
        assert not features.requires_grad
    assert torch.equal(F.feature_extractor("pixels")(images), images.flatten(1))
    assert F.fid(features, features) == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("form", ["classifier", "path", "text"])
def test_an_evaluator_takes_what_a_feature_extractor_takes(stored: tuple[StoredClassifier, Path], form: str) -> None:
    features: Any = {"classifier": stored[0], "path": stored[1], "text": str(stored[1])}[form]
    evaluator = poise.measure.Evaluator(None, IMAGE_DATA, features, 40)
    noise = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    result = evaluator.measure(lambda n: noise, poise.measure.select_measures("fid,inception_score,gan_test"))
    real = to_float(evaluator.real.samples)
    rounded = to_float(torch.from_numpy(to_bytes(noise)))
    features = F.feature_extractor(features)
    assert result.results["fid"].value.value == pytest.approx(F.fid(features(rounded), features(real)))
    assert (list(result.results), list(result.skipped)) == (["fid", "inception_score"], ["gan_test"])


def test_features_of_a_python_file(tmp_path: Path) -> None:
    code = "from torch import nn\nclass Mean(nn.Module):\n    def forward(self, x):\n        return x.mean((2, 3))\n"
    (tmp_path / "own.py").write_text(code)
    with pytest.raises(RecipeError, match="--trust-code"):
        F.feature_extractor(f"{tmp_path}/own.py:Mean")
    features = F.feature_extractor(f"{tmp_path}/own.py:Mean", trust_code=True)(IMAGES)
    torch.testing.assert_close(features, IMAGES.mean((2, 3)).expand(4, 3))


@pytest.mark.parametrize(
    ("network", "images", "kind", "message"),
    [
        ("auto", IMAGES, RecipeError, "no such features, found 'auto'; pixels, FILE.safetensors, inception=FILE"),
        ("alexnet=missing.pth", IMAGES, DataError, "no such file, found missing.pth"),
        ("missing.safetensors", IMAGES, DataError, "missing.safetensors: no such file"),
        ("pixels", torch.zeros(4, 2), RecipeError, "features: needs images, B x C x H x W, found 4 x 2"),
        (None, torch.zeros(4, 3, 8, 8), DataError, "this classifier takes images of 1 x 8 x 8, found 3 x 8 x 8"),
    ],
)
def test_features_that_can_not_be_computed(
    network: str | None, images: Tensor, kind: type[PoiseError], message: str, stored: tuple[StoredClassifier, Path]
) -> None:
    with pytest.raises(kind) as error:
        F.feature_extractor(stored[0] if network is None else network)(images)
    assert message in str(error.value)


TABLES: dict[str, tuple[Any, str]] = {
    "detector": ({"policy": {"d_foold": "off"}}, "monitor.policy.d_foold: no such detector.*did you mean 'd_fooled'"),
    "policy": ({"policy": {"d_fooled": "of"}}, "monitor.policy.d_fooled: must be 'off', .*found 'of'"),
    "key": ({"windows": {}}, "monitor.windows: unknown key 'windows'; did you mean 'window'"),
    "window": ({"window": {"d_fooled": 0}}, "monitor.window.d_fooled: must be greater than or equal to 1, found 0"),
    "a family": ("hinge", "config: must be a table, found 'hinge'; give the family of the losses by its name"),
}


@pytest.mark.parametrize("case", TABLES)
def test_a_monitor_refuses_a_wrong_table_in_one_line(case: str) -> None:
    table, message = TABLES[case]
    with pytest.raises(RecipeError, match=f"^{message}"):
        poise.Monitor(table)


def test_a_monitor_takes_the_table_of_a_recipe() -> None:
    table = {"policy": {"d_fooled": "off"}, "threshold": {"d_at_zero": 0.5}, "window": {"d_at_zero": 7}}
    assert poise.Monitor(table).config.model_dump(exclude_defaults=True) == table
