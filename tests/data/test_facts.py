"""The native size of images."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from image_helpers import WriteImages
from PIL import Image

from poise.data import facts
from poise.data.config import DataConfig
from poise.data.digits import DigitsConfig
from poise.data.domains import DomainsConfig
from poise.data.facts import at_native_size, native_size, padded_from, without_held_out
from poise.data.folder import FolderConfig
from poise.data.npz import NpzConfig
from poise.data.pairs import PairsConfig
from poise.data.torchvision_data import VisionConfig
from poise.data.toys import RingConfig
from poise.data.zip_archive import ZipConfig


def png(width: int, height: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height)).save(out, "png")
    return out.getvalue()


def image_folder(path: Path, *sizes: tuple[int, int]) -> FolderConfig:
    path.mkdir()
    for k, (width, height) in enumerate(sizes):
        (path / f"{k:03}.png").write_bytes(png(width, height))
    return FolderConfig(path=str(path))


def zip_file(path: Path, *sizes: tuple[int, int]) -> ZipConfig:
    with zipfile.ZipFile(path, "w") as archive:
        for k, (width, height) in enumerate(sizes):
            archive.writestr(f"{k:03}.png", png(width, height))
    return ZipConfig(path=str(path))


def npz_file(path: Path, *shape: int, key: str = "images") -> NpzConfig:
    np.savez(path, **{key: np.zeros(shape, np.uint8)})
    return NpzConfig(path=str(path))


@pytest.mark.parametrize("dataset", ["CIFAR10", "CIFAR100", "SVHN", "STL10"])
def test_named_sets_of_colour_images_have_their_size(dataset: str) -> None:
    config, size = VisionConfig(dataset=dataset, size=64), 96 if dataset == "STL10" else 32
    assert native_size(config) == (size, size)
    assert at_native_size(config) == config.model_copy(update={"size": size})


@pytest.mark.parametrize("dataset", ["MNIST", "FashionMNIST", "KMNIST", "QMNIST", "USPS"])
def test_named_sets_that_are_padded_have_no_size_of_their_own(dataset: str) -> None:
    config, side = VisionConfig(dataset=dataset), 16 if dataset == "USPS" else 28
    assert native_size(config) is None
    assert at_native_size(config) == config
    assert padded_from(config) == side
    assert native_size(config.model_copy(update={"fit": "crop"})) == (side, side)
    assert padded_from(DigitsConfig()) == 28


def test_the_size_of_an_array_is_that_of_its_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "a.npz", images=np.zeros((3, 14, 15, 3), np.uint8))
    np.savez(tmp_path / "b.npz", images=np.zeros((3, 14, 15), np.uint8, "F"), a=np.zeros(3))
    for name in ("read_array", "open_memmap"):
        monkeypatch.setattr(np.lib.format, name, lambda *_, **__: pytest.fail("the array is read"))
    for name, grey in (("a.npz", False), ("b.npz", True)):
        found = facts.image_facts(NpzConfig(path=str(tmp_path / name)))
        assert found is not None
        assert (found.count, found.size, found.grey) == (3, (14, 15), grey)


def test_images_of_one_size(tmp_path: Path) -> None:
    assert native_size(image_folder(tmp_path / "a", *[(12, 12)] * 3)) == (12, 12)
    assert native_size(zip_file(tmp_path / "a.zip", *[(13, 13)] * 3)) == (13, 13)
    assert native_size(npz_file(tmp_path / "a.npz", 3, 14, 14, 3)) == (14, 14)
    assert native_size(npz_file(tmp_path / "b.npz", 3, 15, 15)) == (15, 15)


def test_the_shorter_side_is_used_if_sizes_differ(tmp_path: Path) -> None:
    assert native_size(image_folder(tmp_path / "a", (20, 12), (12, 30))) == (12, 12)
    assert native_size(zip_file(tmp_path / "a.zip", (20, 11), (19, 11))) == (11, 11)


def test_images_of_one_size_that_is_not_square(tmp_path: Path) -> None:
    """Height and width, as they are shown: the EXIF orientation is applied."""
    assert native_size(image_folder(tmp_path / "a", (20, 12), (20, 12))) == (12, 20)
    assert native_size(npz_file(tmp_path / "a.npz", 3, 9, 14, 3)) == (9, 14)
    assert native_size(npz_file(tmp_path / "b.npz", 3, 14, 8, 1)) == (14, 8)
    config = image_folder(tmp_path / "b", (12, 20))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 12)).save(tmp_path / "b" / "turned.jpg", exif=exif)
    assert native_size(config) == (20, 12)


def test_the_median_of_mixed_sizes(tmp_path: Path) -> None:
    """The most common size of many different ones would be an accident, which one more image may change."""
    sizes = [(30, 35), (12, 12), (40, 40), (12, 50), (50, 50)]
    assert native_size(image_folder(tmp_path / "a", *sizes)) == (30, 30)
    assert native_size(zip_file(tmp_path / "a.zip", *sizes)) == (30, 30)


def test_sizes_are_limited_to_256(tmp_path: Path) -> None:
    for name, side in (("a", 256), ("b", 257)):
        config = image_folder(tmp_path / name, (side, 300), (301, side))
        assert native_size(config) == (side, side)
        assert at_native_size(config).size == 256
    assert at_native_size(npz_file(tmp_path / "a.npz", 1, 300, 400, 1)).size == (192, 256)
    assert at_native_size(npz_file(tmp_path / "b.npz", 1, 512, 1, 1)).size == (256, 1)


def test_classes_and_broken_files(tmp_path: Path, write_images: WriteImages) -> None:
    write_images(tmp_path / "top" / "cats", size=10)
    write_images(tmp_path / "top" / "dogs", size=10)
    for k in range(20):
        (tmp_path / "top" / "cats" / f"broken-{k}.png").write_bytes(b"words" if k % 2 else png(7, 7)[:20])
    (tmp_path / "top" / "notes.txt").write_text("words")
    assert native_size(FolderConfig(path=str(tmp_path / "top"))) == (10, 10)
    with zipfile.ZipFile(tmp_path / "top.zip", "w") as archive:
        archive.writestr("a.png", b"words")
        archive.writestr("b.png", png(11, 11))
        archive.writestr("c.png", b"")
    assert native_size(ZipConfig(path=str(tmp_path / "top.zip"))) == (11, 11)


def test_data_without_a_known_size(tmp_path: Path) -> None:
    (tmp_path / "words.zip").write_text("words")
    (tmp_path / "words.npz").write_text("words")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"words")
    unknown: list[DataConfig] = [
        FolderConfig(path=str(tmp_path / "nowhere")),
        FolderConfig(path=str(tmp_path / "empty")),
        FolderConfig(path=str(tmp_path / "broken")),
        FolderConfig(path=str(tmp_path / "words.zip")),
        ZipConfig(path=str(tmp_path / "nowhere.zip")),
        ZipConfig(path=str(tmp_path / "words.zip")),
        NpzConfig(path=str(tmp_path / "nowhere.npz")),
        NpzConfig(path=str(tmp_path / "words.npz")),
        npz_file(tmp_path / "others.npz", 3, 9, 9, 1, key="pictures"),
        npz_file(tmp_path / "flat.npz", 3, 9),
        DigitsConfig(),
        RingConfig(),
    ]
    for config in unknown:
        assert native_size(config) is None, config
        assert at_native_size(config) == config


def test_a_single_array_has_no_size(tmp_path: Path) -> None:
    with (tmp_path / "alone.npz").open("wb") as file:
        np.save(file, np.zeros((2, 3, 3), np.uint8))
    assert native_size(NpzConfig(path=str(tmp_path / "alone.npz"))) is None


@pytest.mark.parametrize("flip", [0x01, 0x55])
@pytest.mark.parametrize("suffix", [".npz", ".zip"])
def test_damaged_archives_raise_no_error(tmp_path: Path, suffix: str, flip: int) -> None:
    """A size or None is returned; loading the data reports the damage."""
    path = tmp_path / f"a{suffix}"
    if suffix == ".npz":
        np.savez_compressed(path, images=np.random.default_rng(0).integers(0, 256, (4, 6, 6, 1), np.uint8))
    else:
        zip_file(path, (6, 6), (6, 6))
    content = path.read_bytes()
    config = NpzConfig(path=str(path)) if suffix == ".npz" else ZipConfig(path=str(path))
    assert native_size(config) == (6, 6)
    damaged = [content[:k] + bytes([content[k] ^ flip]) + content[k + 1 :] for k in range(0, len(content), 3)]
    for data in [*damaged, *(content[:k] for k in range(0, len(content), 9))]:
        path.write_bytes(data)
        native_size(config)


@pytest.mark.parametrize(("count", "read"), [(9, 9), (19, 19), (20, 10), (29, 15), (100, 10)])
def test_a_limited_number_of_headers_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, read: int
) -> None:
    opened: list[object] = []
    read_header = facts.read_header

    def counted(stream: object) -> object:
        opened.append(stream)
        return read_header(stream)  # type: ignore[arg-type]

    monkeypatch.setattr(facts, "read_header", counted)
    monkeypatch.setattr(facts, "NUM_HEADERS", 10)
    config = image_folder(tmp_path / "a", *[(12, 12)] * (3 * count // 10), *[(20, 20)] * (count - 3 * count // 10))
    assert native_size(config) == (20, 20)
    assert len(opened) == read


def test_a_config_of_the_native_size(tmp_path: Path) -> None:
    config = image_folder(tmp_path / "a", (12, 12), (12, 12)).model_copy(
        update={"held_out": 0.3, "background": "black"}
    )
    assert at_native_size(config) == config.model_copy(update={"size": 12})
    assert at_native_size(config, (40, 40)) == config.model_copy(update={"size": 40})
    assert at_native_size(config, (40, 30)) == config.model_copy(update={"size": (40, 30)})
    assert at_native_size(DigitsConfig(), (16, 16)) == DigitsConfig(size=16)
    assert at_native_size(RingConfig(), (16, 16)) == RingConfig()
    assert at_native_size(config).load().train.shape == (3, 12, 12)


def test_a_config_without_held_out_images(tmp_path: Path) -> None:
    config = image_folder(tmp_path / "a", *[(12, 12)] * 20)
    assert config.held_out > 0
    assert without_held_out(config).load().held_out is None
    assert without_held_out(config) == config.model_copy(update={"held_out": 0.0})
    assert without_held_out(DigitsConfig()) == DigitsConfig()
    assert without_held_out(RingConfig()) == RingConfig()


def test_two_domains(tmp_path: Path) -> None:
    """In folders, side by side, in an archive of arrays and at two paths; the pairs count, or the larger set."""
    (tmp_path / "set").mkdir()
    image_folder(tmp_path / "set/a", (16, 16), (16, 16))
    Image.new("L", (9, 9)).save(tmp_path / "set/a/grey.png")
    for k in range(4):
        (tmp_path / "set/b").mkdir(exist_ok=True)
        Image.new("L", (16, 16)).save(tmp_path / "set/b" / f"{k:03}.png")
    image_folder(tmp_path / "both", *[(24, 12)] * 3)
    npz_file(tmp_path / "d.npz", 5, 14, 14, 3, key="a")
    np.savez(tmp_path / "d.npz", a=np.zeros((5, 14, 14, 3), np.uint8), b=np.zeros((2, 14, 14), np.uint8))
    for config, count in ((PairsConfig(path=str(tmp_path / "set")), 2), (DomainsConfig(path=str(tmp_path / "set")), 4)):
        found = facts.image_facts(config)
        assert found is not None
        assert (found.count, found.middle_side, found.grey, found.parts) == (count, 16, False, (3, 1))
    found = facts.image_facts(PairsConfig(path=str(tmp_path / "both"), channels=(1, 3)))
    assert found is not None
    assert (found.count, found.size, found.parts) == (3, (12, 12), (1, 3))
    found = facts.image_facts(DomainsConfig(path=str(tmp_path / "d.npz")))
    assert found is not None
    assert (found.count, found.size, found.parts) == (5, (14, 14), (3, 1))
    apart = DomainsConfig(a=str(tmp_path / "set/b"), b=str(tmp_path / "both"))
    found = facts.image_facts(apart)
    assert found is not None
    assert (found.count, found.parts) == (4, (1, 3))
    assert facts.image_facts(DomainsConfig(path=str(tmp_path / "both"))) is None, "whoever loads it says why"
