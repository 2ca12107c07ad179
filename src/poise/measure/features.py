"""Features: what samples are turned into before they are compared. Every result names them.

`points` of the plane as they are; `pixels`; a small classifier of the run's own data; D's; any torchvision network or
network of the user's by file; Inception, by torch-fidelity, from a file. Pictures are looked at in their own size
unless an extractor demands another; then they are resized with antialiasing, and the name says so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from poise.core.types import Shape
from poise.data.source import SizedSource, Source
from poise.data.stacked_digits import StackedDigits, mode_numbers
from poise.errors import DataError, RecipeError
from poise.measure import feature_cache
from poise.measure.classifier import can_train_on, load_or_train
from poise.networks.base import call_network
from poise.user_code.loading import UserCode, short_error, trust_file
from poise.utils.progress import Progress, no_progress

MOST_PIXELS = 32
"""The side that `pixels` shrinks larger pictures to: a distance between Gaussians needs a matrix of all pairs."""


class ExtractorOutput(NamedTuple):
    """What an extractor makes of B samples: features, B x d, and if it classifies, logits, B x K."""

    features: Tensor
    logits: Tensor | None = None


class Extractor(Protocol):
    """Samples to features.

    Attributes:
        name: said with every result.
        key: a hash of all that the features depend on, beside the samples.
        classifies: whether it gives logits.
    """

    @property
    def classifies(self) -> bool:
        """See above."""

    @property
    def name(self) -> str:
        """See above."""

    @property
    def key(self) -> str:
        """See above."""

    def __call__(self, samples: Tensor) -> ExtractorOutput:
        """Samples, B x C x H x W in [-1, 1] or points B x 2."""


def resized(images: Tensor, side: int) -> Tensor:
    """B x C x H x W to B x C x side x side: bilinear with antialiasing; untouched where it has that size."""
    if images.shape[2:] == (side, side):
        return images
    return interpolate(images, (side, side), mode="bilinear", antialias=True, align_corners=False)


def to_rgb(images: Tensor, *, alpha: bool = True) -> Tensor:
    """B x C x H x W to three channels: grey repeated, alpha laid over white; two inks without alpha, red and green."""
    channels = images.shape[1]
    if channels == 2 and not alpha:
        return torch.cat((images, torch.full_like(images[:, :1], -1)), 1)
    if channels in (2, 4):
        opaque = (images[:, -1:] + 1) / 2
        images = images[:, :-1] * opaque + (1 - opaque)
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images


class IdentityExtractor:
    """Numbers as they are: points of the plane, or pixels."""

    classifies = False

    def __init__(self, shape: Shape) -> None:
        self.shrinks = len(shape) == 3 and max(shape[1:]) > MOST_PIXELS
        kind = "pixels" if len(shape) == 3 else "points"
        self.name = f"{kind} (resized to {MOST_PIXELS} x {MOST_PIXELS}, antialiased)" if self.shrinks else kind
        self.key = feature_cache.cache_key(self.name)

    def __call__(self, samples: Tensor) -> ExtractorOutput:
        """See `Extractor`."""
        return ExtractorOutput((resized(samples, MOST_PIXELS) if self.shrinks else samples).flatten(1))


class ClassifierExtractor:
    """The small classifier's 64 features; of stacked digits, those of each channel, one after the other."""

    def __init__(self, train: SizedSource, held_out: SizedSource | None, tell: Progress = no_progress) -> None:
        self.stack = train.stack if isinstance(train, StackedDigits) else 1
        self.classifies = self.stack == 1
        self.trained = load_or_train(_digits(train), None if held_out is None else _digits(held_out), tell)
        each = f" on each of {self.stack} channels" if self.stack > 1 else ""
        self.name = f"{self.trained.name}{each}, {self.trained.right:.1%} right on pictures it was not trained on"
        self.key = feature_cache.cache_key(self.trained.name, self.stack)

    @property
    def doubt(self) -> str:
        """Why its features mean nothing, in words; empty if it has learnt the classes."""
        told = self.trained
        if told.knows:
            return ""
        of = f"{told.right:.1%} of {told.asked:,} pictures that it was not trained on"
        return f"right on {of}, and the largest class has {told.largest:.1%} of these (p = {told.chance:.2g})"

    def __call__(self, samples: Tensor) -> ExtractorOutput:
        """See `Extractor`; no logits for stacks, whose classes are the `numbers`."""
        if self.stack == 1:
            return ExtractorOutput(*self.trained.net(samples))
        return ExtractorOutput(torch.cat([features for features, _ in self._channels(samples)], 1))

    def numbers(self, samples: Tensor) -> Tensor:
        """The mode of each stack, as the classifier reads it, B."""
        return mode_numbers(torch.stack([logits.argmax(1) for _, logits in self._channels(samples)], 1))

    def _channels(self, samples: Tensor) -> list[tuple[Tensor, Tensor]]:
        return [self.trained.net(samples[:, channel : channel + 1]) for channel in range(self.stack)]


class DiscriminatorExtractor:
    """A discriminator's features: what it reads its score from. They are its own; no two runs' can be compared."""

    classifies = False

    def __init__(self, d: nn.Module, name: str) -> None:
        self.d, self.name = d.eval(), f"features of D ({name})"
        self.key = feature_cache.cache_key(self.name, _hash_of(d))

    def __call__(self, samples: Tensor) -> ExtractorOutput:
        """See `Extractor`."""
        return ExtractorOutput(call_network(self.d, samples, None).features.float())


class NetworkExtractor:
    """A network of torchvision's or the user's: images, B x 3 x S x S, to features, B x d (maps are averaged).

    Args:
        net: the network.
        name: what it is called.
        side: the size that it demands, or None for any.
        shift: what it expects of its input: (x - shift) / scale with x from 0 to 1, per channel.
        scale: see `shift`.
        alpha: whether a second of two channels is how opaque a pixel is.
    """

    classifies = False

    def __init__(
        self,
        net: nn.Module,
        name: str,
        side: int | None = None,
        shift: tuple[float, ...] = (0.485, 0.456, 0.406),
        scale: tuple[float, ...] = (0.229, 0.224, 0.225),
        alpha: bool = True,
    ) -> None:
        self.alpha = alpha
        self.net, self.side = net.eval(), side
        self.name = f"{name} (resized to {side} x {side}, antialiased)" if side else name
        self.key = feature_cache.cache_key(self.name, _hash_of(net))
        self.shift, self.scale = (torch.tensor(one)[:, None, None] for one in (shift, scale))

    def __call__(self, samples: Tensor) -> ExtractorOutput:
        """See `Extractor`."""
        images = to_rgb(samples, alpha=self.alpha)
        images = images if self.side is None else resized(images, self.side)
        features = self.net(((images + 1) / 2 - self.shift) / self.scale)
        return ExtractorOutput(features.mean((2, 3)) if features.dim() == 4 else features.flatten(1))


class InceptionExtractor:
    """The Inception network of the published FID, by torch-fidelity, from a local weights file."""

    classifies = True
    LAYER, LOGITS, SIDE = "2048", "logits_unbiased", 299

    def __init__(self, file: Path, *, alpha: bool = True) -> None:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        try:
            self.net = FeatureExtractorInceptionV3(
                "inception", [self.LAYER, self.LOGITS], feature_extractor_weights_path=str(file)
            )
        except Exception as error:  # whatever a file of another kind makes of it
            cure = "it must be torch-fidelity's own weights-inception-2015-12-05-6726825d.pth"
            raise DataError(
                "can't be read as Inception's weights", where=str(file), found=short_error(error), cure=cure
            ) from None
        self.alpha = alpha
        self.name = f"Inception {file.name} (resized to {self.SIDE} x {self.SIDE} by torch-fidelity)"
        self.key = feature_cache.cache_key(self.name, hashlib.sha256(file.read_bytes()).hexdigest())

    def __call__(self, samples: Tensor) -> ExtractorOutput:
        """See `Extractor`."""
        bytes_ = to_rgb(samples, alpha=self.alpha).add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
        features, logits = self.net(bytes_)
        return ExtractorOutput(features, logits)


class ExtractorContext(NamedTuple):
    """What features can be made from.

    Attributes:
        train: the data trained on, or whatever stands for it.
        held_out: what was held out of it, if anything.
        d: the discriminator, where a run is measured, and why its features can't be had, if they can't.
        progress: told of work that takes its time.
        trust_code: whether a Python file may run.
        note: told what the reader of the figures should know.
    """

    train: Source
    held_out: Source | None
    d: Callable[[], nn.Module] | str = "there is no discriminator here"
    progress: Progress = no_progress
    trust_code: bool = False
    note: Callable[[str], None] = lambda sentence: None


def make_extractor(word: str, setting: ExtractorContext) -> Extractor:
    """The extractor that `--features` names.

    `auto` (the classifier where the data has labels enough and it has learnt them, else pixels or points), `pixels`,
    `classifier`, `d`, `inception=FILE`, `FILE.py:NAME`, or NAME=FILE with the name of a torchvision network and its
    weights.

    Raises:
        RecipeError: no such features, or not for this data.
        DataError: its file is not there or not what it should be.
    """
    name, _, file = word.partition("=")
    train, held_out = setting.train, setting.held_out
    plain = not isinstance(train, SizedSource)
    if name == "auto":
        return _best(setting)
    if name in ("pixels", "points") or (plain and name == "classifier"):
        return IdentityExtractor(train.shape)
    if name == "d":
        if isinstance(setting.d, str):
            raise RecipeError(setting.d, where="--features", found="d", cure="take another one, or auto")
        return DiscriminatorExtractor(setting.d(), "this run's")
    if plain:
        raise RecipeError("points have no such features", where="--features", found=name, cure="leave it out")
    if name == "classifier":
        assert isinstance(train, SizedSource)
        check_features(name, train)
        made = ClassifierExtractor(train, held_out if isinstance(held_out, SizedSource) else None, setting.progress)
        if made.doubt:
            setting.note(f"these features mean little: the classifier is {made.doubt}; take --features pixels")
        return made
    alpha = not isinstance(train, StackedDigits)
    if ".py:" in word:
        return _own(word, setting.trust_code, alpha)
    if not file:
        cure = "auto, pixels, classifier, d, inception=FILE, FILE.py:NAME or NAME=FILE (a torchvision network)"
        raise RecipeError("no such features", where="--features", found=f"'{word}'", cure=cure)
    if not Path(file).is_file():
        raise DataError("there is no such file", where="--features", found=file)
    return InceptionExtractor(Path(file), alpha=alpha) if name == "inception" else _torchvision(name, Path(file), alpha)


def _best(setting: ExtractorContext) -> Extractor:
    """What `auto` stands for: the classifier if it has learnt the classes, else the numbers as they are."""
    train, held_out = setting.train, setting.held_out
    if isinstance(train, SizedSource) and can_train_on(_digits(train)):
        made = ClassifierExtractor(train, held_out if isinstance(held_out, SizedSource) else None, setting.progress)
        if not made.doubt:
            return made
        setting.note(f"features are pixels, for a classifier is not sure to tell the classes: it is {made.doubt}")
    return IdentityExtractor(train.shape)


def check_features(name: str, train: Source) -> None:
    """Raises RecipeError if these features can't be made of this data, before anything is trained or written."""
    if name == "classifier" and isinstance(train, SizedSource) and not can_train_on(_digits(train)):
        cure = "take --features pixels"
        raise RecipeError("a classifier needs labels, twenty pictures to each", where="--features", cure=cure)


def _torchvision(name: str, file: Path, alpha: bool) -> NetworkExtractor:
    """A network by name with weights from a file, its maps averaged and its last layers left off."""
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        from poise.core.config import did_you_mean

        raise RecipeError(
            "no torchvision network", where="--features", found=f"'{name}'", cure=did_you_mean(name, known)
        )
    net = models.get_model(name, weights=None)
    try:
        if file.suffix == ".safetensors":
            import safetensors.torch

            weights = safetensors.torch.load(file.read_bytes())
        else:
            weights = torch.load(file, map_location="cpu", weights_only=True)
        net.load_state_dict(weights)
    except Exception as error:  # a damaged file, another network's, one that wants to run code
        what = f"can't be read as {name}'s weights"
        raise DataError(what, where=str(file), found=short_error(error)) from None
    if isinstance(net, models.VGG | models.AlexNet):  # these lay their last map flat
        net.avgpool = nn.AdaptiveAvgPool2d(1)
    for last in ("fc", "classifier", "head", "heads"):
        if hasattr(net, last):  # a squeezenet's classifier is convolutions, and nothing before it averages
            setattr(net, last, nn.AdaptiveAvgPool2d(1) if isinstance(net, models.SqueezeNet) else nn.Identity())
            break
    return NetworkExtractor(net, f"torchvision {name} from {file.name}", side=224, alpha=alpha)


def _own(word: str, trust_code: bool, alpha: bool) -> NetworkExtractor:
    """`FILE.py:NAME`: a class or function without arguments that gives a network; attributes say what it expects."""
    file, _, name = word.rpartition(":")
    trust_file(Path(file), name, trust_code)
    own = UserCode(file=file, name=name)
    net = own.instantiate()
    if not isinstance(net, nn.Module):
        raise RecipeError("is not a torch.nn.Module", where=word, found=type(net).__name__)
    shift, scale = getattr(net, "shift", (0.5,)), getattr(net, "scale", (0.5,))
    return NetworkExtractor(
        net, f"{name} of {Path(file).name}", getattr(net, "side", None), tuple(shift), tuple(scale), alpha
    )


def _digits(source: Source) -> SizedSource:
    """What a classifier of this data is trained on: of stacks, the digits they are made of."""
    assert isinstance(source, SizedSource)
    return source.digits if isinstance(source, StackedDigits) else source


def _hash_of(net: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in net.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().float().numpy().tobytes())
    return digest.hexdigest()[:16]
