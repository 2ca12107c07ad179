"""Feature extractors that load a network from a file: torchvision's, Inception by torch-fidelity, custom modules."""

from __future__ import annotations

import hashlib
from math import isfinite
from pathlib import Path

import torch
from torch import Tensor, nn

from poise.core.config import did_you_mean
from poise.errors import DataError, RecipeError
from poise.measure import feature_cache
from poise.measure.features import ExtractorOutput, hash_weights, resize
from poise.user_code.loading import UserCode, describe_result, short_error, trust_file
from poise.utils.images import to_rgb


class NetworkExtractor:
    """A network that maps images, B x 3 x S x S, to features, B x d, or to feature maps, which are averaged.

    Args:
        net: the network.
        name: the name of the features.
        side: the image size that the network requires, or None for any.
        shift: the normalisation of its input: (x - shift) / scale with x from 0 to 1, per channel.
        scale: see `shift`.
        alpha: whether the second of two channels is an alpha channel.
        own_code: whether the network is of the user's code, whose features are not cached, see `Extractor`.
    """

    classifies = has_data_classes = False

    def __init__(
        self,
        net: nn.Module,
        name: str,
        side: int | None = None,
        shift: tuple[float, ...] = (0.485, 0.456, 0.406),
        scale: tuple[float, ...] = (0.229, 0.224, 0.225),
        alpha: bool = True,
        own_code: bool = False,
    ) -> None:
        self.alpha = alpha
        self.net, self.side = net.eval(), side
        self.name = f"{name} (resized to {side} x {side}, antialiased)" if side else name
        self.key = None if own_code else feature_cache.cache_key(self.name, hash_weights(net), shift, scale, alpha)
        self.shift, self.scale = (torch.tensor(channels)[:, None, None] for channels in (shift, scale))

    def __call__(self, samples: Tensor) -> ExtractorOutput:
        """See `Extractor`."""
        images = to_rgb(samples, alpha=self.alpha)
        images = images if self.side is None else resize(images, self.side)
        features = self.net(((images + 1) / 2 - self.shift) / self.scale)
        if not isinstance(features, Tensor) or features.dim() < 2 or len(features) != len(images):
            what, cure = "must return features, B x d, or feature maps, B x d x H x W", "mend its forward"
            raise RecipeError(what, where=self.name, found=describe_result(features), cure=cure)
        return ExtractorOutput(features.mean((2, 3)) if features.dim() == 4 else features.flatten(1))


class InceptionExtractor:
    """The Inception network of published FIDs, as implemented by torch-fidelity, with weights from a local file."""

    classifies, has_data_classes = True, False
    LAYER, LOGITS, SIDE = "2048", "logits_unbiased", 299

    def __init__(self, file: Path, *, alpha: bool = True) -> None:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        try:
            self.net = FeatureExtractorInceptionV3(
                "inception", [self.LAYER, self.LOGITS], feature_extractor_weights_path=str(file)
            )
        except Exception as error:  # the error for a file of another kind is not specified
            cure = "use torch-fidelity's weights file, weights-inception-2015-12-05-6726825d.pth"
            raise DataError(
                "cannot be read as Inception weights", where=str(file), found=short_error(error), cure=cure
            ) from None
        self.alpha = alpha
        self.name = f"Inception {file.name} (resized to {self.SIDE} x {self.SIDE} by torch-fidelity)"
        self.key = feature_cache.cache_key(self.name, hashlib.sha256(file.read_bytes()).hexdigest())

    def __call__(self, samples: Tensor) -> ExtractorOutput:
        """See `Extractor`."""
        images = to_rgb(samples, alpha=self.alpha).add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
        features, logits = self.net(images)
        return ExtractorOutput(features, logits)


def load_torchvision(name: str, file: Path, alpha: bool) -> NetworkExtractor:
    """A torchvision network without its last layers, its feature maps averaged, with weights from a file."""
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        cure = did_you_mean(name, known)
        raise RecipeError("no such torchvision network", where="--features", found=f"'{name}'", cure=cure)
    net = models.get_model(name, weights=None)
    try:
        if file.suffix == ".safetensors":
            import safetensors.torch

            weights = safetensors.torch.load(file.read_bytes())
        else:
            weights = torch.load(file, map_location="cpu", weights_only=True)
        net.load_state_dict(weights)
    except Exception as error:  # a damaged file, weights of another network, or a pickle that would run code
        message = f"cannot be read as weights of {name}"
        raise DataError(message, where=str(file), found=short_error(error)) from None
    if isinstance(net, models.VGG | models.AlexNet):  # these flatten their last feature map
        net.avgpool = nn.AdaptiveAvgPool2d(1)
    for last in ("fc", "classifier", "head", "heads"):
        if hasattr(net, last):  # the classifier of a SqueezeNet is convolutional, with no pooling before it
            setattr(net, last, nn.AdaptiveAvgPool2d(1) if isinstance(net, models.SqueezeNet) else nn.Identity())
            break
    return NetworkExtractor(net, f"torchvision {name} from {file.name}", side=224, alpha=alpha)


def load_custom(spec: str, trust_code: bool, alpha: bool) -> NetworkExtractor:
    """A custom network, `FILE.py:NAME`: a class or function without arguments that returns a module.

    The attributes `side`, `shift` and `scale` of the module state the input that it expects: images of three channels,
    (x - shift) / scale for values x from 0 to 1, resized to side x side. By default their values are from -1 to 1, and
    their size is that of the data. Shift and scale are a number, or one for each channel.

    Raises:
        RecipeError: the file is not trusted or fails, this is no module, or an attribute is none of these.
    """
    file, _, name = spec.rpartition(":")
    trust_file(Path(file), name, trust_code)
    net = UserCode(file=file, name=name).instantiate()
    if not isinstance(net, nn.Module):
        raise RecipeError("is not a torch.nn.Module", where=spec, found=type(net).__name__)
    side = getattr(net, "side", None)
    if side is not None and (isinstance(side, bool) or not isinstance(side, int) or side < 1):
        what = f"'{name}.side' must be the height and the width of its input, a whole number of pixels"
        raise RecipeError(what, where=spec, found=repr(side))
    shift, scale = (_of_channels(net, attribute, f"'{name}.{attribute}'", spec) for attribute in ("shift", "scale"))
    return NetworkExtractor(net, f"{name} of {Path(file).name}", side, shift, scale, alpha, own_code=True)


def _of_channels(net: nn.Module, attribute: str, described: str, spec: str) -> tuple[float, ...]:
    """The shift or the scale of a custom network: one number, or one for each of three channels."""
    value = getattr(net, attribute, 0.5)
    try:
        numbers = torch.as_tensor(value, dtype=torch.float64).flatten().tolist()
    except (TypeError, ValueError, RuntimeError):
        numbers = []
    if len(numbers) not in (1, 3) or not all(map(isfinite, numbers)) or (attribute == "scale" and 0 in numbers):
        nonzero = " other than 0" if attribute == "scale" else ""
        what = f"{described} must be a finite number{nonzero}, or three of them, one for each channel"
        raise RecipeError(what, where=spec, found=f"{value!r}"[:60])
    return tuple(numbers)


def load_pretrained(spec: str, *, trust_code: bool, alpha: bool, others: str) -> NetworkExtractor | InceptionExtractor:
    """The network in a file that a text names.

    Args:
        spec: `inception=FILE`, `FILE.py:NAME`, or NAME=FILE with the name of a torchvision network and a file of its
            weights.
        trust_code: whether a Python file may be run.
        alpha: whether the second of two channels is an alpha channel.
        others: what else can be named, for the message.

    Raises:
        RecipeError: this names no network in a file, or the Python file may not be run.
        DataError: the file does not exist or can't be read.
    """
    name, _, file = spec.partition("=")
    if ".py:" in spec:
        return load_custom(spec, trust_code, alpha)
    if not file:
        cure = f"{others}, inception=FILE, FILE.py:NAME or NAME=FILE (a torchvision network)"
        raise RecipeError("no such features", where="--features", found=f"'{spec}'", cure=cure)
    if not Path(file).is_file():
        raise DataError("no such file", where="--features", found=file)
    return (
        InceptionExtractor(Path(file), alpha=alpha)
        if name == "inception"
        else load_torchvision(name, Path(file), alpha)
    )
