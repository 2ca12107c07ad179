"""Features of images as a function of tensors, for measures in other training loops."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from poise.core.types import Shape, check_floats
from poise.errors import DataError, RecipeError
from poise.measure.classifier_file import StoredClassifier, read_classifier
from poise.measure.extractors import IdentityExtractor
from poise.measure.features import Extractor, ExtractorOutput
from poise.measure.pretrained import load_pretrained
from poise.measure.sample_set import extract
from poise.utils.printing import describe_type

FeatureFunction = Callable[[Tensor], Tensor]
"""Maps images, B x C x H x W in [-1, 1], to features, B x d."""


class StoredClassifierExtractor:
    """The 64 features of a classifier that `poise.train_classifier` has returned or written."""

    classifies, has_data_classes, name, key = True, False, "classifier of a file", None

    def __init__(self, classifier: StoredClassifier) -> None:
        self.classifier = classifier

    def __call__(self, samples: Tensor) -> ExtractorOutput:
        """See `Extractor`.

        Raises:
            DataError: the images have another shape than those that the classifier was trained on.
        """
        if samples.shape[1:] != self.classifier.shape:
            found = " x ".join(map(str, samples.shape[1:]))
            what = f"this classifier takes images of {' x '.join(map(str, self.classifier.shape))}"
            raise DataError(what, where="images", found=found, cure="train one on your images: poise.train_classifier")
        return ExtractorOutput(*self.classifier.net(samples))


def feature_extractor(
    network: str | Path | StoredClassifier, *, alpha: bool = True, trust_code: bool = False
) -> FeatureFunction:
    """A function that returns the features of images for `fid`, `kid`, `prdc` and the other measures of features.

    It takes images on any device, B x C x H x W in [-1, 1], and returns float32, B x d, on the CPU, without a gradient.
    Values are not rounded; `poise measure` rounds those of generated images to 8 bits, as in files.

    Args:
        network: a classifier that `poise.train_classifier` has returned, or the file of one; or `pixels`,
            `inception=FILE`, `FILE.py:NAME`, or NAME=FILE with the name of a torchvision network and a file of its
            weights, as for `--features`.
        alpha: whether the second of two channels of the images is an alpha channel.
        trust_code: whether a Python file may be run.

    Raises:
        RecipeError: there are no such features, or, later, these are not images, or images of whole numbers.
        DataError: the file does not exist or can't be read, or, later, the images do not suit the network.
    """
    extractor = _make(network, alpha, trust_code)

    def features(images: Tensor) -> Tensor:
        if images.dim() != 4:
            found = " x ".join(map(str, images.shape)) or "a scalar"
            raise RecipeError("needs images, B x C x H x W", where="features", found=found)
        check_floats(images, "features")
        chosen = extractor(images.shape[1:])
        return extract(lambda part: images[part].detach().float().cpu(), len(images), chosen).features

    return features


def _make(network: str | Path | StoredClassifier, alpha: bool, trust_code: bool) -> Callable[[Shape], Extractor]:
    """The extractor by the shape of the images."""
    if network == "pixels":
        return IdentityExtractor
    stored = stored_extractor(network)
    others = "pixels, FILE.safetensors"
    loaded = stored or load_pretrained(str(network), trust_code=trust_code, alpha=alpha, others=others)
    return lambda shape: loaded


def stored_extractor(features: str | Path | StoredClassifier) -> StoredClassifierExtractor | None:
    """The extractor of a classifier that `poise.train_classifier` has returned or written; None for other features.

    Raises:
        RecipeError: features are given in another form than as a text, a path or such a classifier.
        DataError: the file does not exist or can't be read.
    """
    if isinstance(features, StoredClassifier):
        return StoredClassifierExtractor(features)
    if not isinstance(features, str | Path):
        what = "must be a text, the path of a classifier, or a classifier of poise.train_classifier"
        cure = "name a network of your own as FILE.py:NAME, or compute features with it: F.fid(net(fake), net(real))"
        raise RecipeError(what, where="features", found=describe_type(features), cure=cure)
    is_file = isinstance(features, Path) or (features.endswith(".safetensors") and "=" not in features)
    return StoredClassifierExtractor(read_classifier(Path(features))) if is_file else None
