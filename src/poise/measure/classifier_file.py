"""The file of a small classifier: safetensors, with the shape of an image and the names of the classes as metadata."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import safetensors
import safetensors.torch
import torch

from poise.core.types import Shape
from poise.errors import DataError
from poise.measure.classifier import SmallClassifier
from poise.utils.files import write_bytes

FORMAT = "poise classifier 1"
CURE = "write one with poise.train_classifier(data, path)"


class StoredClassifier(NamedTuple):
    """A trained classifier with what is known of it.

    Attributes:
        net: the network, in evaluation mode.
        shape: the shape of an image.
        classes: the names of the classes by label.
        accuracy: the accuracy on images that it was not trained on, 0 to 1.
    """

    net: SmallClassifier
    shape: Shape
    classes: tuple[str, ...]
    accuracy: float


def write_classifier(path: Path, classifier: StoredClassifier) -> None:
    """Write a classifier.

    Raises:
        DiskError: the file can't be written.
    """
    metadata = {
        "format": FORMAT,
        "shape": json.dumps(classifier.shape),
        "classes": json.dumps(classifier.classes),
        "accuracy": json.dumps(classifier.accuracy),
    }
    weights = {name: tensor.contiguous() for name, tensor in classifier.net.state_dict().items()}
    write_bytes(path, safetensors.torch.save(weights, metadata))


def read_classifier(path: Path) -> StoredClassifier:
    """Read a classifier.

    Raises:
        DataError: there is no such file, or it is none that `write_classifier` has written.
    """
    if not path.is_file():
        raise DataError("no such file", where=str(path), cure=CURE)
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
    except Exception as error:  # the error for another or a damaged file is not specified
        raise DataError("can't be read as safetensors", where=str(path), found=str(error), cure=CURE) from None
    if metadata.get("format") != FORMAT:
        found = f"its format is {metadata.get('format', 'not stated')}"
        raise DataError("is not a classifier that poise has written", where=str(path), found=found, cure=CURE)
    try:
        shape, classes = tuple(json.loads(metadata["shape"])), tuple(json.loads(metadata["classes"]))
        with torch.random.fork_rng(devices=[]):  # the initial weights are replaced
            net = SmallClassifier(shape, len(classes)).eval()
        net.load_state_dict(weights)
        return StoredClassifier(net, shape, classes, float(json.loads(metadata["accuracy"])))
    except Exception as error:  # edited by hand, or written by another version
        found = f"{type(error).__name__}: {error}".split("\n")[0]
        raise DataError("is a damaged classifier", where=str(path), found=found, cure=CURE) from None
