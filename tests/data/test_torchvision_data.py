"""torchvision's data sets, from small files that these tests write in the same formats; nothing is downloaded."""

from __future__ import annotations

import bz2
import os
import struct
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.datasets as datasets
from image_helpers import train_and_held_out
from pydantic import ValidationError
from torch.utils.model_zoo import tqdm

from poise.data.digits import pad_to
from poise.data.fit import TargetFormat, convert_array
from poise.data.torchvision_data import DATASETS, VisionConfig
from poise.errors import DataError
from poise.utils.progress import progress_to

RNG = np.random.default_rng(0)
TRAIN, TEST = RNG.integers(0, 256, (30, 28, 28), np.uint8), RNG.integers(0, 256, (20, 28, 28), np.uint8)
TRAIN_LABELS, TEST_LABELS = np.arange(30) % 10, np.arange(20) % 10


def write_idx(path: Path, array: np.ndarray) -> None:
    code = {"u1": 8, "i4": 12}[array.dtype.str[1:]]
    head = struct.pack(">HBB", 0, code, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head + array.astype(array.dtype.newbyteorder(">")).tobytes())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root with small data sets in the formats of MNIST, QMNIST and USPS."""
    for name in ("MNIST", "FashionMNIST", "KMNIST"):
        for part, images, labels in (("train", TRAIN, TRAIN_LABELS), ("t10k", TEST, TEST_LABELS)):
            write_idx(tmp_path / name / "raw" / f"{part}-images-idx3-ubyte", images)
            write_idx(tmp_path / name / "raw" / f"{part}-labels-idx1-ubyte", labels.astype(np.uint8))
    for part, images, labels in (("train", TRAIN, TRAIN_LABELS), ("test", TEST, TEST_LABELS)):
        write_idx(tmp_path / "QMNIST" / "raw" / f"qmnist-{part}-images-idx3-ubyte", images)
        wide = np.stack([labels, *[labels * 0 + 99] * 7], 1).astype(np.int32)
        write_idx(tmp_path / "QMNIST" / "raw" / f"qmnist-{part}-labels-idx2-int", wide)
        name = "usps.bz2" if part == "train" else "usps.t.bz2"
        rows = [
            f"{label + 1} " + " ".join(f"{i + 1}:{value / 127.5 - 1:.6f}" for i, value in enumerate(image.ravel()))
            for image, label in zip(images[:, :16, :16], labels, strict=True)
        ]
        (tmp_path / name).write_bytes(bz2.compress("\n".join(rows).encode()))
    return tmp_path


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST", "KMNIST", "QMNIST"])
def test_the_mnist_family(root: Path, name: str) -> None:
    train, held_out = train_and_held_out(VisionConfig(dataset=name, download=False).load(root))
    assert np.array_equal(train.images, pad_to(TRAIN[..., None], (32, 32)))
    assert np.array_equal(held_out.images, pad_to(TEST[..., None], (32, 32)))
    assert train.labels is not None
    assert held_out.labels is not None
    assert np.array_equal(train.labels, TRAIN_LABELS)
    assert np.array_equal(held_out.labels, TEST_LABELS)
    assert train.classes == tuple(getattr(datasets, name).classes)


def test_usps(root: Path) -> None:
    train, _ = train_and_held_out(VisionConfig(dataset="usps", size=16, download=False).load(root))
    assert np.abs(train.images[..., 0].astype(int) - TRAIN[:, :16, :16]).max() <= 1
    assert train.classes == tuple("0123456789")
    assert train.labels is not None
    assert np.array_equal(train.labels, TRAIN_LABELS)


@pytest.mark.parametrize("name", ["mnist", "Mnist", "MNIST"])
def test_names_are_case_insensitive(name: str) -> None:
    assert VisionConfig(dataset=name).dataset == "MNIST"
    assert VisionConfig(dataset="fashionmnist").dataset == "FashionMNIST"


def test_a_misspelt_name() -> None:
    with pytest.raises(ValidationError) as raised:
        VisionConfig(dataset="CIFAR-10")
    assert raised.value.errors()[0]["ctx"]["cure"] == "did you mean 'CIFAR10'?"


def test_all_names_exist_in_torchvision() -> None:
    assert all(isinstance(getattr(datasets, name), type) for name in DATASETS)


@pytest.mark.parametrize(
    ("fit", "size", "note"),
    [("pad", 28, False), ("pad", 40, False), ("pad", 20, True), ("crop", 32, True), ("crop", 28, False)],
)
def test_padding_and_cropping(root: Path, fit: str, size: int, note: bool) -> None:
    loaded = VisionConfig(dataset="MNIST", fit=fit, size=size, download=False).load(root)  # type: ignore[arg-type]
    train, _ = train_and_held_out(loaded)
    images = TRAIN[..., None]
    padded = fit == "pad" and size >= 28
    expected = pad_to(images, (size, size)) if padded else convert_array(images, TargetFormat((size, size), 1, "white"))
    assert np.array_equal(train.images, expected)
    assert loaded.notes == ([f"all images are 28 x 28 and are resized to {size} x {size}"] if note else [])


class FakeDataset:
    """Replaces a data set whose files have checksums, with `targets` and channels last."""

    def __init__(self, root: str, download: bool, train: bool | None = None, split: str | None = None) -> None:
        assert (train is None) is (split is not None)
        self.n = 6 if train or split == "train" else 4
        self.data = np.random.default_rng(self.n).integers(0, 256, (self.n, 32, 32, 3), np.uint8)
        self.set_labels([i % 3 for i in range(self.n)])

    def set_labels(self, numbers: list[int]) -> None:
        self.targets, self.classes = numbers, ["x", "y", "z"]


class FakeDatasetWithLabels(FakeDataset):
    """As SVHN and STL10: `labels`, and channels first."""

    def set_labels(self, numbers: list[int]) -> None:
        self.data = self.data.transpose(0, 3, 1, 2)
        self.labels = np.array(numbers)


@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR100", "SVHN", "STL10"])
@pytest.mark.parametrize("size", [32, 16, 48])
def test_colour_data_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, size: int) -> None:
    by_label = name in ("SVHN", "STL10")
    monkeypatch.setattr(datasets, name, FakeDatasetWithLabels if by_label else FakeDataset)
    train, held_out = train_and_held_out(VisionConfig(dataset=name, size=size).load(tmp_path))
    expected = np.random.default_rng(6).integers(0, 256, (6, 32, 32, 3), np.uint8)
    assert np.array_equal(train.images, convert_array(expected, TargetFormat((size, size), 3, "white")))
    assert len(held_out) == 4
    assert train.classes == (("0", "1", "2") if by_label else ("x", "y", "z"))
    assert train.batch(0, 4, _streams()).images.dtype == torch.uint8


def _streams() -> object:
    from poise.core.random_streams import RandomStreams

    return RandomStreams(0)


def test_missing_files_without_download(tmp_path: Path) -> None:
    with pytest.raises(DataError) as raised:
        VisionConfig(dataset="MNIST", download=False).load(tmp_path)
    message = str(raised.value)
    assert message.startswith(f"{tmp_path}: MNIST was not found")
    assert "--data-root" in message
    assert "data.download" in message
    assert raised.value.exit_code == 3


def test_a_failed_download_names_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts: list[str] = []

    def offline(self: datasets.MNIST) -> None:
        attempts.append(self.raw_folder)
        raise OSError("Network is unreachable")

    monkeypatch.setattr(datasets.MNIST, "download", offline)
    with pytest.raises(DataError) as raised:
        VisionConfig(dataset="MNIST").load(tmp_path)
    assert len(attempts) == 1
    assert "the download failed: OSError: Network is unreachable" in str(raised.value)
    assert "--data-root" in str(raised.value)


def test_the_bar_of_a_download_is_drawn_on_a_terminal_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def downloading(self: datasets.MNIST) -> None:
        with tqdm(total=2) as bar:
            bar.update(1)
        raise OSError("Network is unreachable")

    reports: list[str] = []
    monkeypatch.setattr(datasets.MNIST, "download", downloading)
    with pytest.raises(DataError), progress_to(lambda what, _: reports.append(what)):
        VisionConfig(dataset="MNIST").load(tmp_path)
    assert capsys.readouterr().err == ""
    assert reports == ["downloading MNIST", ""]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with pytest.raises(DataError):
        VisionConfig(dataset="MNIST").load(tmp_path)
    assert "\r" in capsys.readouterr().err


def test_existing_files_are_not_downloaded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.MNIST, "download", lambda _: pytest.fail("tried to download"))
    assert len(train_and_held_out(VisionConfig(dataset="MNIST").load(root))[0]) == 30


def test_damaged_files(root: Path) -> None:
    path = root / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match="MNIST can't be read"):
        VisionConfig(dataset="MNIST").load(root)


def test_the_default_root_is_in_the_current_directory(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    (root / "MNIST").rename(tmp_path / "data" / "MNIST")
    monkeypatch.chdir(tmp_path)
    assert len(train_and_held_out(VisionConfig(dataset="MNIST", download=False).load())[0]) == 30


def test_the_real_mnist() -> None:
    root_of_mnist = os.environ.get("POISE_MNIST_ROOT")
    if not root_of_mnist:
        pytest.skip("POISE_MNIST_ROOT is not set to a folder with MNIST")
    start = time.perf_counter()
    train, held_out = train_and_held_out(VisionConfig(dataset="MNIST", download=False).load(Path(root_of_mnist)))
    assert time.perf_counter() - start < 30
    assert train.images.shape == (60_000, 32, 32, 1)
    assert held_out.images.shape == (10_000, 32, 32, 1)
    assert train.labels is not None
    assert train.labels[:5].tolist() == [5, 0, 4, 1, 9]
