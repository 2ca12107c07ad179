"""Classifiers in files: what is written is read again, and anything else is refused with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch

from poise.errors import DataError
from poise.measure.classifier import SmallClassifier
from poise.measure.classifier_file import StoredClassifier, read_classifier, write_classifier

SHAPE, CLASSES = (3, 12, 16), ("café", "b", "c")


@pytest.fixture
def classifier() -> StoredClassifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return StoredClassifier(SmallClassifier(SHAPE, len(CLASSES)).eval(), SHAPE, CLASSES, 0.875)


def test_what_is_written_is_read(classifier: StoredClassifier, tmp_path: Path) -> None:
    path, state = tmp_path / "it.safetensors", torch.get_rng_state()
    write_classifier(path, classifier)
    content = read_classifier(path)
    assert content[1:] == classifier[1:]
    assert not content.net.training
    images = torch.rand(4, *SHAPE)
    with torch.no_grad():
        for one, other in zip(content.net(images), classifier.net(images), strict=True):
            assert torch.equal(one, other)
    torch.set_rng_state(state)
    read_classifier(path)
    assert torch.equal(torch.get_rng_state(), state), "reading draws no random numbers"


def test_other_files_are_refused(classifier: StoredClassifier, tmp_path: Path) -> None:
    path = tmp_path / "it.safetensors"
    with pytest.raises(DataError, match="no such file"):
        read_classifier(path)
    path.write_bytes(b"not safetensors at all")
    with pytest.raises(DataError, match="can't be read as safetensors"):
        read_classifier(path)
    weights = classifier.net.state_dict()
    safetensors.torch.save_file(weights, path)
    with pytest.raises(DataError, match="is not a classifier that poise has written"):
        read_classifier(path)
    write_classifier(path, classifier)
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(DataError, match="can't be read as safetensors"):
        read_classifier(path)
    path.write_bytes(whole.replace(b"[3, 12, 16]", b"[1, 12, 16]"))
    with pytest.raises(DataError, match="is a damaged classifier"):
        read_classifier(path)
