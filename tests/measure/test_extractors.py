"""Feature extractors: their selection, features and names, and errors for invalid files."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from scipy.stats import binom
from torch import Tensor, nn
from torchvision import models

from poise.data.source import DataSplits, ImageDataset, SizedSource
from poise.data.stacked_digits import StackedDigits
from poise.data.toys import RingConfig
from poise.errors import DataError, PoiseError, RecipeError
from poise.measure import classifier
from poise.measure.classifier import SmallClassifier, TrainedClassifier
from poise.measure.extractors import (
    ClassifierExtractor,
    DiscriminatorExtractor,
    ExtractorContext,
    IdentityExtractor,
    make_extractor,
)
from poise.measure.features import resize
from poise.measure.pretrained import InceptionExtractor, NetworkExtractor
from poise.measure.sample_set import extract, sample_set
from poise.networks.mlp import MLPDiscriminatorConfig
from poise.utils.images import Bytes, to_float, to_rgb


@pytest.fixture(autouse=True)
def _short_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Classifiers are trained for twenty steps and use a separate cache."""
    monkeypatch.setenv("POISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(classifier, "SAMPLES_SEEN", (1280, 1280))


def noise(n: int, channels: int = 1, side: int = 8) -> Tensor:
    return to_float(torch.from_numpy(np.random.default_rng(1).integers(0, 256, (n, side, side, channels), np.uint8)))


def extractor_of(spec: str, train: SizedSource, **more: object) -> object:
    return make_extractor(spec, ExtractorContext(train, None, **more))  # type: ignore[arg-type]


def error_of(spec: str, train: SizedSource, kind: type[PoiseError], **more: object) -> str:
    """The message of the error, which must be one line."""
    with pytest.raises(kind) as error:
        extractor_of(spec, train, **more)
    message = str(error.value)
    assert "\n" not in message
    return message


# ---- selection ---------------------------------------------------------------------------------------------


def test_auto_depends_on_the_data(shades: ImageDataset) -> None:
    unlabelled = ImageDataset(shades.images)
    few = ImageDataset(shades.images[:39], shades.labels[:39], shades.classes)  # type: ignore[index]
    assert isinstance(extractor_of("auto", shades), ClassifierExtractor)
    for dataset in (unlabelled, few):
        chosen = extractor_of("auto", dataset)
        assert isinstance(chosen, IdentityExtractor)
        assert chosen.name == "pixels"
    points = make_extractor("auto", ExtractorContext(RingConfig().load().train, None))
    assert points.name == "points"
    for spec in ("pixels", "points", "classifier"):
        assert make_extractor(spec, ExtractorContext(RingConfig().load().train, None)).name == "points"
    sample = torch.randn(5, 2)
    assert torch.equal(points(sample).features, sample)
    assert points(sample).logits is None


def randomly_labelled(images: Bytes, classes: int, seed: int, *, largest: float = 0.0) -> ImageDataset:
    """Images with random labels, a share of which is of one class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, len(images))
    labels[rng.random(len(images)) < largest] = 0
    return ImageDataset(images, labels, tuple(map(str, range(classes))))


def random_images(n: int = 400, seed: int = 5) -> Bytes:
    return np.random.default_rng(seed).integers(0, 256, (n, 8, 8, 1), np.uint8)


@pytest.mark.parametrize(("classes", "largest"), [(2, 0.0), (4, 0.0), (10, 0.0), (4, 0.85)])
@pytest.mark.parametrize("seed", [0, 1])
def test_auto_rejects_a_classifier_that_has_not_learned(classes: int, largest: float, seed: int) -> None:
    """Labels without a relation to the images don't change the features, and a note gives the reason."""
    notes: list[str] = []
    chosen = extractor_of("auto", randomly_labelled(random_images(), classes, seed, largest=largest), note=notes.append)
    assert isinstance(chosen, IdentityExtractor)
    (note,) = notes
    assert "pixels" in note
    assert "on 40 unseen images" in note
    assert "of the largest class" in note
    notes.clear()
    assert isinstance(
        extractor_of(
            "classifier", randomly_labelled(random_images(), classes, seed, largest=largest), note=notes.append
        ),
        ClassifierExtractor,
    )
    assert "the features are not meaningful" in notes[0]


def test_classifier_is_not_tested_on_copies_of_training_images() -> None:
    """Each image occurs ten times, so a classifier could memorise all of them."""
    few = randomly_labelled(random_images(40), 4, 0)
    assert few.labels is not None
    repeated = ImageDataset(np.repeat(few.images, 10, 0), np.repeat(few.labels, 10), few.classes)
    notes: list[str] = []
    assert isinstance(extractor_of("auto", repeated, note=notes.append), IdentityExtractor)
    assert len(notes) == 1


def test_auto_accepts_a_classifier_that_beats_the_largest_class(shades: ImageDataset) -> None:
    """Nine of ten images are of one class: 90 % accuracy is not significant, 100 % is with enough test images."""
    notes: list[str] = []
    skewed = [k for k in range(200) if k % 2 == 0 or k % 18 == 1]
    assert shades.labels is not None
    train = ImageDataset(shades.images[skewed], shades.labels[skewed], shades.classes)
    tested = ImageDataset(np.repeat(shades.images[skewed], 2, 0), np.repeat(shades.labels[skewed], 2), shades.classes)
    chosen = make_extractor("auto", ExtractorContext(train, tested, note=notes.append))
    assert isinstance(chosen, ClassifierExtractor)
    assert chosen.classifier.accuracy == 1.0
    assert notes == []


@pytest.mark.parametrize(
    ("accuracy", "num_tested", "majority_share", "has_learned"),
    [
        (0.12, 1000, 0.1, False),
        (0.14, 1000, 0.1, True),
        (0.9, 400, 0.9, False),
        (0.95, 400, 0.9, True),
        (1.0, 3, 0.5, False),
        (1.0, 40, 1.0, False),
        (0.0, 0, 1.0, False),
        (0.3, 40, 0.125, False),
        (0.4, 40, 0.125, True),
    ],
)
def test_p_value_against_the_largest_class(
    accuracy: float, num_tested: int, majority_share: float, has_learned: bool
) -> None:
    trained = TrainedClassifier(SmallClassifier((1, 8, 8), 2), "", accuracy, num_tested, majority_share)
    assert trained.has_learned == has_learned
    num_correct = round(accuracy * num_tested)
    tail = sum(binom.pmf(k, num_tested, majority_share) for k in range(num_correct, num_tested + 1))
    assert trained.p_value == pytest.approx(tail, rel=1e-6)


def test_pixels_and_classifier_by_name(shades: ImageDataset) -> None:
    assert isinstance(extractor_of("pixels", shades), IdentityExtractor)
    extractor = extractor_of("classifier", shades)
    assert isinstance(extractor, ClassifierExtractor)
    assert extractor.classifies
    output = extractor(noise(3))
    assert output.features.shape == (3, 64)
    assert output.logits is not None
    assert output.logits.shape == (3, 2)
    assert extractor.name.startswith("classifier ")
    assert extractor.name.endswith("% on unseen images")


@pytest.mark.parametrize("spec", ["", "pixel", "inception", "resnet18", "Pixels", "own.py"])
def test_unknown_features_are_rejected(shades: ImageDataset, spec: str) -> None:
    message = error_of(spec, shades, RecipeError)
    assert message.startswith("--features: no such features")
    for possible in ("auto", "pixels", "classifier", "d", "inception=FILE", "FILE.py:NAME", "NAME=FILE"):
        assert possible in message


def test_classifier_requires_labels(shades: ImageDataset) -> None:
    assert "requires labels" in error_of("classifier", ImageDataset(shades.images), RecipeError)


@pytest.mark.parametrize("spec", ["inception=x.pth", "resnet18=x.pth", "own.py:Net", "nonsense"])
def test_points_have_no_other_features(spec: str) -> None:
    with pytest.raises(RecipeError, match="no such features for 2-D points"):
        make_extractor(spec, ExtractorContext(RingConfig().load().train, None))


# ---- pixels --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (4, 7, 5)])
def test_small_images_are_not_resized(shape: tuple[int, int, int]) -> None:
    extractor, sample = IdentityExtractor(shape), torch.randn(3, *shape)
    assert extractor.name == "pixels"
    assert torch.equal(extractor(sample).features, sample.reshape(3, -1))


def test_large_images_are_resized_with_antialiasing() -> None:
    """A fine checkerboard becomes uniform grey, as in Pillow; without antialiasing it would stay black."""
    extractor = IdentityExtractor((1, 128, 128))
    assert extractor.name == "pixels (resized to 32 x 32, antialiased)"
    board = (torch.arange(128)[:, None] + torch.arange(128)) % 2 * 2.0 - 1
    output = extractor(board[None, None]).features.reshape(32, 32)
    assert output.abs().max() < 0.05
    sample = noise(1, 1, 128)
    array = Image.fromarray(sample[0, 0].numpy().astype(np.float32))
    by_pillow = np.asarray(array.resize((32, 32), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(extractor(sample).features.reshape(32, 32).numpy(), by_pillow, atol=1e-5)


def test_resize() -> None:
    sample = noise(2, 3, 16)
    assert resize(sample, 16) is sample
    assert resize(sample, 24).shape == (2, 3, 24, 24)
    assert resize(torch.full((1, 3, 5, 9), 0.25), 7).allclose(torch.tensor(0.25))


def test_key_depends_on_resizing() -> None:
    assert (
        IdentityExtractor((1, 128, 128)).key != IdentityExtractor((1, 8, 8)).key == IdentityExtractor((3, 16, 16)).key
    )


# ---- colour --------------------------------------------------------------------------------------------


def test_grey_is_repeated() -> None:
    grey, colour = noise(2, 1), noise(2, 3)
    assert torch.equal(to_rgb(grey), grey.repeat(1, 3, 1, 1))
    assert to_rgb(colour) is colour


@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_is_composited_over_white(channels: int) -> None:
    sample = noise(2, channels)
    sample[0, -1], sample[1, -1] = 1.0, -1.0
    output = to_rgb(sample)
    assert output.shape == (2, 3, 8, 8)
    assert output[0].allclose(sample[0, :-1].expand(3, -1, -1))
    assert output[1].allclose(torch.tensor(1.0))
    sample[:, -1] = 0.0
    assert to_rgb(sample)[0].allclose((sample[0, :-1].expand(3, -1, -1) + 1) / 2)


# ---- D ---------------------------------------------------------------------------------------------------


def test_features_of_d(shades: ImageDataset) -> None:
    d = MLPDiscriminatorConfig(width=8).build(shades.shape)
    extractor = extractor_of("d", shades, d=lambda: d)
    assert isinstance(extractor, DiscriminatorExtractor)
    assert not extractor.classifies
    sample = noise(4)
    with torch.no_grad():
        output = extractor(sample)
        assert torch.equal(output.features, d(sample).features)
    assert output.logits is None
    assert extractor.name == "features of D (this run's)"


@pytest.mark.parametrize("name", ["auto", "pixels", "points", "d", "classifier", "rotations"])
@pytest.mark.parametrize("file", ["", "mine.safetensors"])
def test_features_without_a_file_refuse_one(shades: ImageDataset, name: str, file: str) -> None:
    expected = f"--features: takes no file, found '{name}={file}'; use --features {name}"
    assert expected in error_of(f"{name}={file}", shades, RecipeError, d=lambda: MLPDiscriminatorConfig())


def test_missing_d_is_explained(shades: ImageDataset) -> None:
    assert "there is no discriminator" in error_of("d", shades, RecipeError)
    assert "this D requires labels" in error_of("d", shades, RecipeError, d="this D requires labels")


# ---- networks from files -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def squeezed(tmp_path_factory: pytest.TempPathFactory) -> tuple[models.SqueezeNet, Path]:
    """A torchvision network with random weights, saved in both file formats."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = models.squeezenet1_1(weights=None).eval()
    folder = tmp_path_factory.mktemp("weights")
    torch.save(net.state_dict(), folder / "weights.pth")
    safetensors.torch.save_file(net.state_dict(), folder / "weights.safetensors")
    return net, folder


@pytest.mark.parametrize("file", ["weights.pth", "weights.safetensors"])
def test_torchvision_network(squeezed: tuple[models.SqueezeNet, Path], shades: ImageDataset, file: str) -> None:
    net, folder = squeezed
    extractor = extractor_of(f"squeezenet1_1={folder / file}", shades)
    assert isinstance(extractor, NetworkExtractor)
    assert extractor.name == f"torchvision squeezenet1_1 from {file} (resized to 224 x 224, antialiased)"
    assert not extractor.classifies
    sample = noise(2, 3, 16)
    with torch.no_grad():
        output = extractor(sample).features
        shift, scale = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        large = nn.functional.interpolate(sample, (224, 224), mode="bilinear", antialias=True)
        normalized = ((large + 1) / 2 - shift[:, None, None]) / scale[:, None, None]
        expected = net.features(normalized)
    assert output.shape == (2, 512)  # the maps are averaged, not flattened to 86,528 values
    assert output.allclose(expected.mean((2, 3)), atol=1e-5)


def test_last_layer_is_removed(tmp_path: Path, shades: ImageDataset) -> None:
    net = models.shufflenet_v2_x0_5(weights=None)
    torch.save(net.state_dict(), tmp_path / "w.pth")
    extractor = extractor_of(f"shufflenet_v2_x0_5={tmp_path / 'w.pth'}", shades)
    assert isinstance(extractor, NetworkExtractor)
    with torch.no_grad():
        assert extractor(noise(1, 3, 8)).features.shape == (1, 1024)


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    "kind", ["text", "empty", "truncated", "other network", "tensor", "code", "pth-as-safetensors", "folder"]
)
def test_invalid_weights_files_are_rejected(
    squeezed: tuple[models.SqueezeNet, Path], shades: ImageDataset, tmp_path: Path, kind: str
) -> None:
    complete = (squeezed[1] / "weights.pth").read_bytes()
    file = tmp_path / ("w.safetensors" if "safetensors" in kind else "w.pth")
    if kind == "other network":
        torch.save(models.shufflenet_v2_x0_5(weights=None).state_dict(), file)
    elif kind == "tensor":
        torch.save(torch.ones(3), file)
    elif kind == "code":
        file.write_bytes(pickle.dumps({"features.0.weight": Bomb(tmp_path / "ran")}))
    elif kind == "folder":
        file.mkdir()
    else:
        file.write_bytes(
            {"text": b"text", "empty": b"", "truncated": complete[: len(complete) // 2]}.get(kind, complete)
        )
    message = error_of(f"squeezenet1_1={file}", shades, DataError)
    assert str(file) in message
    assert ("no such file" if kind == "folder" else "cannot be read as weights of squeezenet1_1") in message
    assert len(message) < 600
    assert not (tmp_path / "ran").exists()


def test_unknown_torchvision_network_or_missing_file(
    squeezed: tuple[models.SqueezeNet, Path], shades: ImageDataset
) -> None:
    message = error_of(f"squeezenet1_2={squeezed[1] / 'weights.pth'}", shades, RecipeError)
    assert "did you mean 'squeezenet1_" in message
    missing = error_of("squeezenet1_1=nowhere.pth", shades, DataError)
    assert "nowhere.pth" in missing


OWN = """
from torch import nn

class Doubling(nn.Module):
    shift, scale, side = (0.5, 0.25, 0.0), (0.5, 0.5, 1.0), 4

    def forward(self, x):
        return 2 * x

def plain():
    return nn.Flatten()

def number():
    return 7

def broken():
    raise ValueError("no luck")
"""


def test_custom_network(tmp_path: Path, shades: ImageDataset) -> None:
    file = tmp_path / "own.py"
    file.write_text(OWN)
    message = error_of(f"{file}:Doubling", shades, RecipeError)
    assert "would execute a Python file" in message
    assert "--trust-code" in message
    extractor = extractor_of(f"{file}:Doubling", shades, trust_code=True)
    assert isinstance(extractor, NetworkExtractor)
    assert extractor.name == "Doubling of own.py (resized to 4 x 4, antialiased)"
    sample = noise(2, 3, 4)
    expected = 2 * ((sample + 1) / 2 - torch.tensor([0.5, 0.25, 0.0])[:, None, None])
    expected /= torch.tensor([0.5, 0.5, 1.0])[:, None, None]
    assert extractor(sample).features.allclose(expected.mean((2, 3)), atol=1e-6)
    plain = extractor_of(f"{file}:plain", shades, trust_code=True)
    assert isinstance(plain, NetworkExtractor)
    assert plain.name == "plain of own.py"
    assert plain(sample).features.allclose(sample.flatten(1), atol=1e-6)


@pytest.mark.parametrize("value", ["0.25", "(0.25,)", "[0.25, 0.25, 0.25]", "__import__('torch').tensor(0.25)"])
def test_one_number_is_the_shift_of_all_channels(tmp_path: Path, shades: ImageDataset, value: str) -> None:
    file = tmp_path / "own.py"
    file.write_text(OWN.replace("(0.5, 0.25, 0.0), (0.5, 0.5, 1.0), 4", f"{value}, 0.5, None"))
    features = extractor_of(f"{file}:Doubling", shades, trust_code=True)(noise(2, 3, 4)).features
    assert features.allclose((2 * ((noise(2, 3, 4) + 1) / 2 - 0.25) / 0.5).mean((2, 3)), atol=1e-6)


@pytest.mark.parametrize(
    ("attributes", "attribute"),
    [
        ("(0.5, 0.5), 0.5, 4", "shift"),
        ("'grey', 0.5, 4", "shift"),
        ("float('nan'), 0.5, 4", "shift"),
        ("0.5, (0.5, 0.0, 0.5), 4", "scale"),
        ("0.5, 0.5, (4, 4)", "side"),
        ("0.5, 0.5, '4'", "side"),
        ("0.5, 0.5, 0", "side"),
    ],
)
def test_an_input_that_is_not_understood_is_refused(
    tmp_path: Path, shades: ImageDataset, attributes: str, attribute: str
) -> None:
    (tmp_path / "own.py").write_text(OWN.replace("(0.5, 0.25, 0.0), (0.5, 0.5, 1.0), 4", attributes))
    with pytest.raises(RecipeError, match=f"'Doubling.{attribute}' must be"):
        extractor_of(f"{tmp_path / 'own.py'}:Doubling", shades, trust_code=True)


@pytest.mark.parametrize(
    ("old", "new"), [("2 * x", "3 * x"), ("(0.5, 0.5, 1.0)", "(0.5, 0.5, 2.0)"), ("side = ", "_ = ")]
)
def test_corrected_custom_network_has_new_features_of_real_images(
    tmp_path: Path, shades: ImageDataset, old: str, new: str
) -> None:
    features = []
    for folder, code in (("first", OWN), ("second", OWN.replace(old, new))):
        file = tmp_path / folder / "own.py"
        file.parent.mkdir()
        file.write_text(code)
        extractor = make_extractor(f"{file}:Doubling", ExtractorContext(shades, None, trust_code=True))
        real = sample_set(shades, torch.arange(4), extractor)
        features.append(real.features)
        assert torch.equal(real.features, extractor(real.normalized()).features)
    assert features[0].shape != features[1].shape or not torch.equal(*features)


def test_features_of_corrected_d_are_not_those_of_the_old_one(shades: ImageDataset) -> None:
    d = MLPDiscriminatorConfig(width=8).build(shades.shape)
    before = sample_set(shades, torch.arange(4), DiscriminatorExtractor(d, "this run's")).features
    d.register_forward_hook(lambda _, __, output: output._replace(features=2 * output.features))
    after = sample_set(shades, torch.arange(4), DiscriminatorExtractor(d, "this run's")).features
    assert torch.equal(after, 2 * before)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("number", "is not a torch.nn.Module, found int"),
        ("broken", "no luck"),
        ("Doublng", "did you mean 'Doubling'?"),
    ],
)
def test_invalid_custom_network(tmp_path: Path, shades: ImageDataset, name: str, part: str) -> None:
    file = tmp_path / "own.py"
    file.write_text(OWN)
    assert part in error_of(f"{file}:{name}", shades, RecipeError, trust_code=True)


def test_missing_custom_file(tmp_path: Path, shades: ImageDataset) -> None:
    assert "can't be read" in error_of(f"{tmp_path / 'no.py'}:Net", shades, RecipeError, trust_code=True)


# ---- Inception -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["text", "other network"])
def test_invalid_inception_weights(
    squeezed: tuple[models.SqueezeNet, Path], tmp_path: Path, shades: ImageDataset, kind: str
) -> None:
    file = tmp_path / "inception.pth"
    file.write_bytes(b"text" if kind == "text" else (squeezed[1] / "weights.pth").read_bytes())
    message = error_of(f"inception={file}", shades, DataError)
    assert "cannot be read as Inception weights" in message
    assert "weights-inception-2015-12-05-6726825d.pth" in message
    assert "no such file" in error_of(f"inception={tmp_path / 'no.pth'}", shades, DataError)


def test_inception_receives_rgb_bytes(tmp_path: Path, shades: ImageDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []

    class StandIn:
        def __init__(self, name: str, layers: list[str], *, feature_extractor_weights_path: str) -> None:
            assert layers == ["2048", "logits_unbiased"]
            assert feature_extractor_weights_path == str(tmp_path / "w.pth")

        def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
            seen.append(images)
            return torch.ones(len(images), 2048), torch.zeros(len(images), 1008)

    monkeypatch.setattr("torch_fidelity.feature_extractor_inceptionv3.FeatureExtractorInceptionV3", StandIn)
    (tmp_path / "w.pth").write_bytes(b"weights")
    extractor = extractor_of(f"inception={tmp_path / 'w.pth'}", shades)
    assert isinstance(extractor, InceptionExtractor)
    assert (extractor.classifies, extractor.has_data_classes) == (True, False)
    assert extractor.name == "Inception w.pth (resized to 299 x 299 by torch-fidelity)"
    batch = torch.from_numpy(shades.images[:3])
    output = extractor(to_float(batch))
    assert output.features.shape == (3, 2048)
    assert output.logits is not None
    assert output.logits.shape == (3, 1008)
    assert seen[0].dtype == torch.uint8
    assert torch.equal(seen[0], batch.permute(0, 3, 1, 2).repeat(1, 3, 1, 1))


# ---- stacks, batches, the cache ------------------------------------------------------------------------------


@pytest.fixture
def stacks(shades: ImageDataset) -> StackedDigits:
    labels = np.arange(400) % 10
    rng = np.random.default_rng(0)
    images = rng.integers(0, 20, (400, 8, 8, 1)) + 23 * labels[:, None, None, None]
    return StackedDigits(ImageDataset(images.astype(np.uint8), labels, tuple("0123456789")), 3, 50)


def test_stacks_are_classified_channel_by_channel(stacks: StackedDigits) -> None:
    extractor = make_extractor("auto", ExtractorContext(stacks, stacks))
    assert isinstance(extractor, ClassifierExtractor)
    assert "on each of 3 channels" in extractor.name
    sample = to_float(stacks.gather(torch.arange(20)).images)
    with torch.no_grad():
        output = extractor(sample)
        parts = [extractor.classifier.net(sample[:, k : k + 1]) for k in range(3)]
        modes = extractor.mode_indices(sample)
    assert output.logits is None
    assert not extractor.classifies
    assert torch.equal(output.features, torch.cat([features for features, _ in parts], 1))
    digits = [logits.argmax(1) for _, logits in parts]
    assert torch.equal(modes, 100 * digits[0] + 10 * digits[1] + digits[2])


def test_second_channel_of_a_stack_is_not_alpha(stacks: StackedDigits, tmp_path: Path) -> None:
    """The second of two stacked digits is a digit; it must not change the opacity of the first."""
    (tmp_path / "own.py").write_text(OWN)
    pairs = StackedDigits(stacks.digits, 2, 50)
    extractor = make_extractor(f"{tmp_path / 'own.py'}:plain", ExtractorContext(pairs, pairs, trust_code=True))
    sample = to_float(pairs.gather(torch.arange(20)).images)
    output = extractor(sample).features.unflatten(1, (3, 8, 8))
    assert output[:, 0].allclose(sample[:, 0], atol=1e-6)
    assert output[:, 1].allclose(sample[:, 1], atol=1e-6)


@pytest.mark.parametrize("spec", ["pixels", "classifier", "d", "own"])
def test_features_do_not_depend_on_the_batch(spec: str, shades: ImageDataset, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    d = MLPDiscriminatorConfig(width=8, norm="batch").build(shades.shape)
    d(noise(32))
    extractor = extractor_of(
        f"{tmp_path / 'own.py'}:Doubling" if spec == "own" else spec, shades, d=lambda: d, trust_code=True
    )
    sample = noise(30)
    with torch.no_grad():
        complete = extractor(sample).features  # type: ignore[operator]
        parts = torch.cat([extractor(part).features for part in sample.split([1, 2, 7, 20])])  # type: ignore[operator]
    assert (complete - parts).abs().max() <= 1e-6
    assert complete.std() > 0


def test_features_are_extracted_in_batches_and_cached(shades: ImageDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("poise.measure.sample_set.BATCH_SIZE", 7)
    sample, seen = noise(30), []

    def part(indices: slice) -> Tensor:
        seen.append(indices)
        return sample[indices]

    extractor = extractor_of("classifier", shades)
    assert isinstance(extractor, ClassifierExtractor)
    first = extract(part, 30, extractor, "mark")
    assert len(seen) == math.ceil(30 / 7)
    again = extract(part, 30, extractor, "mark")
    assert len(seen) == math.ceil(30 / 7)
    for one, other in zip(first, again, strict=True):
        assert one is not None
        assert other is not None
        assert torch.equal(one, other)
    with torch.no_grad():
        assert (first.features - extractor(sample).features).abs().max() <= 1e-6
    extract(part, 30, extractor, "another mark")
    extract(part, 30, extractor)
    extract(part, 30, IdentityExtractor(shades.shape), "mark")
    assert len(seen) == 4 * math.ceil(30 / 7)


def test_accuracy_is_that_on_held_out_images(digits: DataSplits) -> None:
    """The accuracy in the name is that on the held-out images if there are any."""
    train = digits.train
    assert isinstance(train, ImageDataset)
    assert train.labels is not None
    few = ImageDataset(train.images[::8], train.labels[::8], train.classes)
    wrong = ImageDataset(train.images[::8], (train.labels[::8] + 1) % 10, train.classes)
    name = make_extractor("classifier", ExtractorContext(few, wrong)).name
    accuracy = float(name.split("accuracy ")[1].split("%")[0])
    assert accuracy < 12
