"""Features: which are chosen, what they are of, what their names say, and what files they refuse."""

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
from poise.measure.features import resize, to_rgb
from poise.measure.pretrained import InceptionExtractor, NetworkExtractor
from poise.measure.sample_set import extract
from poise.networks.mlp import MLPDiscriminatorConfig
from poise.utils.images import Bytes, to_float


@pytest.fixture(autouse=True)
def _brief(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Classifiers of twenty steps, kept by themselves."""
    monkeypatch.setenv("POISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(classifier, "SAMPLES_SEEN", (1280, 1280))


def noise(n: int, channels: int = 1, side: int = 8) -> Tensor:
    return to_float(torch.from_numpy(np.random.default_rng(1).integers(0, 256, (n, side, side, channels), np.uint8)))


def of(word: str, train: SizedSource, **more: object) -> object:
    return make_extractor(word, ExtractorContext(train, None, **more))  # type: ignore[arg-type]


def refused(word: str, train: SizedSource, kind: type[PoiseError], **more: object) -> str:
    """What is said, which must be one line of that kind of error."""
    with pytest.raises(kind) as error:
        of(word, train, **more)
    told = str(error.value)
    assert "\n" not in told
    return told


# ---- which ---------------------------------------------------------------------------------------------


def test_left_out_they_suit_the_data(shades: ImageDataset) -> None:
    bare = ImageDataset(shades.images)
    few = ImageDataset(shades.images[:39], shades.labels[:39], shades.classes)  # type: ignore[index]
    assert isinstance(of("auto", shades), ClassifierExtractor)
    for other in (bare, few):
        chosen = of("auto", other)
        assert isinstance(chosen, IdentityExtractor)
        assert chosen.name == "pixels"
    points = make_extractor("auto", ExtractorContext(RingConfig().load().train, None))
    assert points.name == "points"
    for word in ("pixels", "points", "classifier"):
        assert make_extractor(word, ExtractorContext(RingConfig().load().train, None)).name == "points"
    sample = torch.randn(5, 2)
    assert torch.equal(points(sample).features, sample)
    assert points(sample).logits is None


def meaningless(images: Bytes, classes: int, seed: int, *, largest: float = 0.0) -> ImageDataset:
    """Pictures with labels that have nothing to do with them; a share of them all of one class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, len(images))
    labels[rng.random(len(images)) < largest] = 0
    return ImageDataset(images, labels, tuple(map(str, range(classes))))


def clouds(n: int = 400, seed: int = 5) -> Bytes:
    return np.random.default_rng(seed).integers(0, 256, (n, 8, 8, 1), np.uint8)


@pytest.mark.parametrize(("classes", "largest"), [(2, 0.0), (4, 0.0), (10, 0.0), (4, 0.85)])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_classifier_that_has_learnt_nothing_is_not_taken(classes: int, largest: float, seed: int) -> None:
    """Whatever the folders are called, the same pictures get the same features; and it is said why."""
    notes: list[str] = []
    chosen = of("auto", meaningless(clouds(), classes, seed, largest=largest), note=notes.append)
    assert isinstance(chosen, IdentityExtractor)
    (note,) = notes
    assert "pixels" in note
    assert "of 40 pictures that it was not trained on" in note
    assert "the largest class has" in note
    notes.clear()
    assert isinstance(
        of("classifier", meaningless(clouds(), classes, seed, largest=largest), note=notes.append), ClassifierExtractor
    )
    assert "the features are not meaningful" in notes[0]


def test_a_classifier_is_not_tested_on_copies_of_what_it_has_learnt() -> None:
    """Each picture ten times: by heart it would know them all."""
    few = meaningless(clouds(40), 4, 0)
    assert few.labels is not None
    repeated = ImageDataset(np.repeat(few.images, 10, 0), np.repeat(few.labels, 10), few.classes)
    notes: list[str] = []
    assert isinstance(of("auto", repeated, note=notes.append), IdentityExtractor)
    assert len(notes) == 1


def test_a_classifier_that_beats_the_largest_class_clearly_is_taken(shades: ImageDataset) -> None:
    """Nine of ten pictures of one class: 90 % right is nothing, all right is clear where there are enough to ask."""
    notes: list[str] = []
    skewed = [k for k in range(200) if k % 2 == 0 or k % 18 == 1]
    assert shades.labels is not None
    train = ImageDataset(shades.images[skewed], shades.labels[skewed], shades.classes)
    asked = ImageDataset(np.repeat(shades.images[skewed], 2, 0), np.repeat(shades.labels[skewed], 2), shades.classes)
    chosen = make_extractor("auto", ExtractorContext(train, asked, note=notes.append))
    assert isinstance(chosen, ClassifierExtractor)
    assert chosen.classifier.accuracy == 1.0
    assert notes == []


@pytest.mark.parametrize(
    ("right", "asked", "largest", "knows"),
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
def test_clearly_more_often_than_the_largest_class(right: float, asked: int, largest: float, knows: bool) -> None:
    trained = TrainedClassifier(SmallClassifier((1, 8, 8), 2), "", right, asked, largest)
    assert trained.has_learned == knows
    tail = sum(binom.pmf(k, asked, largest) for k in range(round(right * asked), asked + 1))
    assert trained.p_value == pytest.approx(tail, rel=1e-6)


def test_what_is_asked_for_by_name(shades: ImageDataset) -> None:
    assert isinstance(of("pixels", shades), IdentityExtractor)
    look = of("classifier", shades)
    assert isinstance(look, ClassifierExtractor)
    assert look.classifies
    found = look(noise(3))
    assert found.features.shape == (3, 64)
    assert found.logits is not None
    assert found.logits.shape == (3, 2)
    assert look.name.startswith("classifier ")
    assert look.name.endswith("% on unseen images")


@pytest.mark.parametrize("word", ["", "pixel", "inception", "resnet18", "Pixels", "own.py"])
def test_words_that_mean_nothing(shades: ImageDataset, word: str) -> None:
    told = refused(word, shades, RecipeError)
    assert told.startswith("--features: no such features")
    for possible in ("auto", "pixels", "classifier", "d", "inception=FILE", "FILE.py:NAME", "NAME=FILE"):
        assert possible in told


def test_a_classifier_needs_labels(shades: ImageDataset) -> None:
    assert "needs labels" in refused("classifier", ImageDataset(shades.images), RecipeError)


@pytest.mark.parametrize("word", ["inception=x.pth", "resnet18=x.pth", "own.py:Net", "nonsense"])
def test_points_have_no_features_but_themselves(word: str) -> None:
    with pytest.raises(RecipeError, match="no such features for 2-D points"):
        make_extractor(word, ExtractorContext(RingConfig().load().train, None))


# ---- pixels --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (4, 7, 5)])
def test_pixels_in_their_own_size_are_the_picture(shape: tuple[int, int, int]) -> None:
    look, sample = IdentityExtractor(shape), torch.randn(3, *shape)
    assert look.name == "pixels"
    assert torch.equal(look(sample).features, sample.reshape(3, -1))


def test_larger_ones_are_shrunk_without_aliasing_and_say_so() -> None:
    """A fine checkerboard becomes an even grey, as Pillow makes it; without antialiasing it would stay black."""
    look = IdentityExtractor((1, 128, 128))
    assert look.name == "pixels (resized to 32 x 32, antialiased)"
    board = (torch.arange(128)[:, None] + torch.arange(128)) % 2 * 2.0 - 1
    found = look(board[None, None]).features.reshape(32, 32)
    assert found.abs().max() < 0.05
    sample = noise(1, 1, 128)
    array = Image.fromarray(sample[0, 0].numpy().astype(np.float32))
    by_pillow = np.asarray(array.resize((32, 32), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(look(sample).features.reshape(32, 32).numpy(), by_pillow, atol=1e-5)


def test_resizing_leaves_the_right_size_alone() -> None:
    sample = noise(2, 3, 16)
    assert resize(sample, 16) is sample
    assert resize(sample, 24).shape == (2, 3, 24, 24)
    assert resize(torch.full((1, 3, 5, 9), 0.25), 7).allclose(torch.tensor(0.25))


def test_pixels_of_another_size_have_another_key() -> None:
    assert (
        IdentityExtractor((1, 128, 128)).key != IdentityExtractor((1, 8, 8)).key == IdentityExtractor((3, 16, 16)).key
    )


# ---- colour --------------------------------------------------------------------------------------------


def test_grey_is_repeated_and_colour_left() -> None:
    grey, colour = noise(2, 1), noise(2, 3)
    assert torch.equal(to_rgb(grey), grey.repeat(1, 3, 1, 1))
    assert to_rgb(colour) is colour


@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_is_laid_over_white(channels: int) -> None:
    sample = noise(2, channels)
    sample[0, -1], sample[1, -1] = 1.0, -1.0
    found = to_rgb(sample)
    assert found.shape == (2, 3, 8, 8)
    assert found[0].allclose(sample[0, :-1].expand(3, -1, -1))
    assert found[1].allclose(torch.tensor(1.0))
    sample[:, -1] = 0.0
    assert to_rgb(sample)[0].allclose((sample[0, :-1].expand(3, -1, -1) + 1) / 2)


# ---- D ---------------------------------------------------------------------------------------------------


def test_what_d_reads_its_score_from(shades: ImageDataset) -> None:
    d = MLPDiscriminatorConfig(width=8).build(shades.shape)
    look = of("d", shades, d=lambda: d)
    assert isinstance(look, DiscriminatorExtractor)
    assert not look.classifies
    sample = noise(4)
    with torch.no_grad():
        found = look(sample)
        assert torch.equal(found.features, d(sample).features)
    assert found.logits is None
    with torch.no_grad():
        next(d.parameters()).add_(1)
    assert DiscriminatorExtractor(d, "this run's").key != look.key
    assert look.name == "features of D (this run's)"


def test_where_there_is_no_d_it_says_why(shades: ImageDataset) -> None:
    assert "there is no discriminator" in refused("d", shades, RecipeError)
    assert "this D wants labels" in refused("d", shades, RecipeError, d="this D wants labels")


# ---- networks by file -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def squeezed(tmp_path_factory: pytest.TempPathFactory) -> tuple[models.SqueezeNet, Path]:
    """A network of torchvision's with weights by chance, in both kinds of file."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = models.squeezenet1_1(weights=None).eval()
    folder = tmp_path_factory.mktemp("weights")
    torch.save(net.state_dict(), folder / "weights.pth")
    safetensors.torch.save_file(net.state_dict(), folder / "weights.safetensors")
    return net, folder


@pytest.mark.parametrize("file", ["weights.pth", "weights.safetensors"])
def test_a_network_of_torchvisions(squeezed: tuple[models.SqueezeNet, Path], shades: ImageDataset, file: str) -> None:
    net, folder = squeezed
    look = of(f"squeezenet1_1={folder / file}", shades)
    assert isinstance(look, NetworkExtractor)
    assert look.name == f"torchvision squeezenet1_1 from {file} (resized to 224 x 224, antialiased)"
    assert not look.classifies
    sample = noise(2, 3, 16)
    with torch.no_grad():
        found = look(sample).features
        shift, scale = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        large = nn.functional.interpolate(sample, (224, 224), mode="bilinear", antialias=True)
        asked = ((large + 1) / 2 - shift[:, None, None]) / scale[:, None, None]
        expected = net.features(asked)
    assert found.shape == (2, 512)  # not all places of all 512 maps, 86,528 numbers
    assert found.allclose(expected.mean((2, 3)), atol=1e-5)


def test_the_last_layer_is_left_out(tmp_path: Path, shades: ImageDataset) -> None:
    net = models.shufflenet_v2_x0_5(weights=None)
    torch.save(net.state_dict(), tmp_path / "w.pth")
    look = of(f"shufflenet_v2_x0_5={tmp_path / 'w.pth'}", shades)
    assert isinstance(look, NetworkExtractor)
    with torch.no_grad():
        assert look(noise(1, 3, 8)).features.shape == (1, 1024)


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("kind", ["words", "empty", "cut", "others", "tensor", "code", "pth-as-safetensors", "folder"])
def test_files_that_are_no_weights_of_it(
    squeezed: tuple[models.SqueezeNet, Path], shades: ImageDataset, tmp_path: Path, kind: str
) -> None:
    whole = (squeezed[1] / "weights.pth").read_bytes()
    file = tmp_path / ("w.safetensors" if "safetensors" in kind else "w.pth")
    if kind == "others":
        torch.save(models.shufflenet_v2_x0_5(weights=None).state_dict(), file)
    elif kind == "tensor":
        torch.save(torch.ones(3), file)
    elif kind == "code":
        file.write_bytes(pickle.dumps({"features.0.weight": Bomb(tmp_path / "ran")}))
    elif kind == "folder":
        file.mkdir()
    else:
        file.write_bytes({"words": b"words", "empty": b"", "cut": whole[: len(whole) // 2]}.get(kind, whole))
    told = refused(f"squeezenet1_1={file}", shades, DataError)
    assert str(file) in told
    assert ("no such file" if kind == "folder" else "cannot be read as weights of squeezenet1_1") in told
    assert len(told) < 600
    assert not (tmp_path / "ran").exists()


def test_a_network_that_is_not_torchvisions(squeezed: tuple[models.SqueezeNet, Path], shades: ImageDataset) -> None:
    told = refused(f"squeezenet1_2={squeezed[1] / 'weights.pth'}", shades, RecipeError)
    assert "did you mean 'squeezenet1_" in told
    missing = refused("squeezenet1_1=nowhere.pth", shades, DataError)
    assert "nowhere.pth" in missing


OWN = """
from torch import nn

class Doubled(nn.Module):
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


def test_a_network_of_the_users(tmp_path: Path, shades: ImageDataset) -> None:
    file = tmp_path / "own.py"
    file.write_text(OWN)
    told = refused(f"{file}:Doubled", shades, RecipeError)
    assert "would execute a Python file" in told
    assert "--trust-code" in told
    look = of(f"{file}:Doubled", shades, trust_code=True)
    assert isinstance(look, NetworkExtractor)
    assert look.name == "Doubled of own.py (resized to 4 x 4, antialiased)"
    sample = noise(2, 3, 4)
    expected = 2 * ((sample + 1) / 2 - torch.tensor([0.5, 0.25, 0.0])[:, None, None])
    expected /= torch.tensor([0.5, 0.5, 1.0])[:, None, None]
    assert look(sample).features.allclose(expected.mean((2, 3)), atol=1e-6)
    plain = of(f"{file}:plain", shades, trust_code=True)
    assert isinstance(plain, NetworkExtractor)
    assert plain.name == "plain of own.py"
    assert plain(sample).features.allclose(sample.flatten(1), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "part"),
    [("number", "is not a torch.nn.Module, found int"), ("broken", "no luck"), ("Dubbled", "did you mean 'Doubled'?")],
)
def test_a_file_of_the_users_that_does_not_do(tmp_path: Path, shades: ImageDataset, name: str, part: str) -> None:
    file = tmp_path / "own.py"
    file.write_text(OWN)
    assert part in refused(f"{file}:{name}", shades, RecipeError, trust_code=True)


def test_a_file_of_the_users_that_is_not_there(tmp_path: Path, shades: ImageDataset) -> None:
    assert "can't be read" in refused(f"{tmp_path / 'no.py'}:Net", shades, RecipeError, trust_code=True)


# ---- Inception -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["words", "others"])
def test_files_that_are_not_inceptions_weights(
    squeezed: tuple[models.SqueezeNet, Path], tmp_path: Path, shades: ImageDataset, kind: str
) -> None:
    file = tmp_path / "inception.pth"
    file.write_bytes(b"words" if kind == "words" else (squeezed[1] / "weights.pth").read_bytes())
    told = refused(f"inception={file}", shades, DataError)
    assert "cannot be read as Inception weights" in told
    assert "weights-inception-2015-12-05-6726825d.pth" in told
    assert "no such file" in refused(f"inception={tmp_path / 'no.pth'}", shades, DataError)


def test_inception_is_given_colour_bytes(tmp_path: Path, shades: ImageDataset, monkeypatch: pytest.MonkeyPatch) -> None:
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
    look = of(f"inception={tmp_path / 'w.pth'}", shades)
    assert isinstance(look, InceptionExtractor)
    assert look.classifies
    assert look.name == "Inception w.pth (resized to 299 x 299 by torch-fidelity)"
    batch = torch.from_numpy(shades.images[:3])
    found = look(to_float(batch))
    assert found.features.shape == (3, 2048)
    assert found.logits is not None
    assert found.logits.shape == (3, 1008)
    assert seen[0].dtype == torch.uint8
    assert torch.equal(seen[0], batch.permute(0, 3, 1, 2).repeat(1, 3, 1, 1))


# ---- stacks, batches, the cache ------------------------------------------------------------------------------


@pytest.fixture
def stacks(shades: ImageDataset) -> StackedDigits:
    labels = np.arange(400) % 10
    rng = np.random.default_rng(0)
    images = rng.integers(0, 20, (400, 8, 8, 1)) + 23 * labels[:, None, None, None]
    return StackedDigits(ImageDataset(images.astype(np.uint8), labels, tuple("0123456789")), 3, 50)


def test_stacks_are_looked_at_channel_by_channel(stacks: StackedDigits) -> None:
    look = make_extractor("auto", ExtractorContext(stacks, stacks))
    assert isinstance(look, ClassifierExtractor)
    assert "on each of 3 channels" in look.name
    sample = to_float(stacks.gather(torch.arange(20)).images)
    with torch.no_grad():
        found = look(sample)
        parts = [look.classifier.net(sample[:, k : k + 1]) for k in range(3)]
        numbers = look.mode_indices(sample)
    assert found.logits is None
    assert not look.classifies
    assert torch.equal(found.features, torch.cat([features for features, _ in parts], 1))
    said = [logits.argmax(1) for _, logits in parts]
    assert torch.equal(numbers, 100 * said[0] + 10 * said[1] + said[2])


def test_two_inks_are_no_alpha(stacks: StackedDigits, tmp_path: Path) -> None:
    """The second of two stacked digits is a digit: it does not make the first one paler."""
    (tmp_path / "own.py").write_text(OWN)
    pairs = StackedDigits(stacks.digits, 2, 50)
    look = make_extractor(f"{tmp_path / 'own.py'}:plain", ExtractorContext(pairs, pairs, trust_code=True))
    sample = to_float(pairs.gather(torch.arange(20)).images)
    found = look(sample).features.unflatten(1, (3, 8, 8))
    assert found[:, 0].allclose(sample[:, 0], atol=1e-6)
    assert found[:, 1].allclose(sample[:, 1], atol=1e-6)


@pytest.mark.parametrize("word", ["pixels", "classifier", "d", "own"])
def test_features_do_not_depend_on_the_batch(word: str, shades: ImageDataset, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    d = MLPDiscriminatorConfig(width=8, norm="batch").build(shades.shape)
    d(noise(32))
    look = of(f"{tmp_path / 'own.py'}:Doubled" if word == "own" else word, shades, d=lambda: d, trust_code=True)
    sample = noise(30)
    with torch.no_grad():
        whole = look(sample).features  # type: ignore[operator]
        parts = torch.cat([look(some).features for some in sample.split([1, 2, 7, 20])])  # type: ignore[operator]
    assert (whole - parts).abs().max() <= 1e-6
    assert whole.std() > 0


def test_features_are_worked_out_a_few_at_a_time_and_kept(
    shades: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("poise.measure.sample_set.BATCH", 7)
    sample, seen = noise(30), []

    def part(places: slice) -> Tensor:
        seen.append(places)
        return sample[places]

    look = of("classifier", shades)
    assert isinstance(look, ClassifierExtractor)
    first = extract(part, 30, look, "mark")
    assert len(seen) == math.ceil(30 / 7)
    again = extract(part, 30, look, "mark")
    assert len(seen) == math.ceil(30 / 7)
    for one, other in zip(first, again, strict=True):
        assert one is not None
        assert other is not None
        assert torch.equal(one, other)
    with torch.no_grad():
        assert (first.features - look(sample).features).abs().max() <= 1e-6
    extract(part, 30, look, "another mark")
    extract(part, 30, look)
    extract(part, 30, IdentityExtractor(shades.shape), "mark")
    assert len(seen) == 4 * math.ceil(30 / 7)


def test_held_out_pictures_are_asked_about(digits: DataSplits) -> None:
    """The share of right answers in the name is of the pictures held out, where there are any."""
    train = digits.train
    assert isinstance(train, ImageDataset)
    assert train.labels is not None
    few = ImageDataset(train.images[::8], train.labels[::8], train.classes)
    wrong = ImageDataset(train.images[::8], (train.labels[::8] + 1) % 10, train.classes)
    named = make_extractor("classifier", ExtractorContext(few, wrong)).name
    share = float(named.split(", ")[1].split("%")[0])
    assert share < 12
