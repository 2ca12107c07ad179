"""Every kind of data: it loads, batches are functions of (seed, index), a run trains on it and resumes bit for bit."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from contracts.tiny import Session, recipe, unequal
from poise.core.config import find_components
from poise.core.random_streams import RandomStreams
from poise.data.clouds import CloudsConfig
from poise.data.config import DataConfig, ImageDataConfig
from poise.data.source import SizedSource
from poise.data.word_vectors import write_word_vectors
from poise.recipe.checks.compatibility import check_compatibility
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.recipe.toml import parse_toml

KINDS = find_components(DataConfig, "poise.data")
TOYS = sorted(kind for kind, config in KINDS.items() if not issubclass(config, ImageDataConfig))
VECTORS = ("clouds", "vectors")
N = 24


def write_folder(folder: Path, mode: str = "L", n: int = N) -> None:
    """n images of 8 x 8 pixels, the same ones for each mode."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(3)
    for i in range(n):
        Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).convert(mode).save(folder / f"{i}.png")


def write_zip(path: Path) -> None:
    """The same images as an archive."""
    write_folder(path.with_suffix(".d"))
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(path.with_suffix(".d").iterdir()):
            archive.write(file, file.name)


def write_mnist(root: Path) -> None:
    """Files in the format of MNIST."""
    random = np.random.default_rng(3)
    for part in ("train", "t10k"):
        images, labels = random.integers(0, 256, (N, 28, 28), np.uint8), np.arange(N, dtype=np.uint8) % 10
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            head = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
            path = root / "MNIST" / "raw" / f"{part}-{name}-ubyte"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(head + array.tobytes())


def write_two(folder: Path, n: int = N) -> None:
    """Grey images a and n images b in colour."""
    write_folder(folder / "a", "L")
    write_folder(folder / "b", "RGB", n)


def write_vectors(folder: Path) -> None:
    """Two sets of vectors."""
    folder.mkdir()
    for name, one in zip("ab", CloudsConfig(count=N, dim=3, clusters=4).read(), strict=True):
        write_word_vectors(folder / f"{name}.npz", one)


def write_tar(folder: Path) -> None:
    """The same images in two shards, with labels."""
    write_folder(folder.with_suffix(".d"))
    folder.mkdir()
    for part in range(2):
        with tarfile.open(folder / f"images-{part}.tar", "w") as archive:
            for i in range(part * N // 2, (part + 1) * N // 2):
                archive.add(folder.with_suffix(".d") / f"{i}.png", f"{i}.png")
                label = tarfile.TarInfo(f"{i}.cls")
                label.size = 1
                archive.addfile(label, io.BytesIO(b"%d" % (i % 2)))


def write_parquet(folder: Path) -> None:
    """The same images in two parquet files, with labels."""
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    write_folder(folder.with_suffix(".d"))
    (folder / "data").mkdir(parents=True)
    rows = [
        {"image": {"bytes": (folder.with_suffix(".d") / f"{i}.png").read_bytes(), "path": None}, "label": i % 2}
        for i in range(N)
    ]
    for part in range(2):
        table = arrow.Table.from_pylist(rows[part * N // 2 : (part + 1) * N // 2])
        parquet.write_table(table, folder / f"data/train-{part:05d}-of-00002.parquet", row_group_size=5)


WRITE: dict[str, Callable[[Path], object]] = {
    "folder": write_folder,
    "zip": write_zip,
    "npz": lambda path: np.savez(path, images=np.random.default_rng(3).integers(0, 256, (N, 8, 8), np.uint8)),
    "density": lambda path: Image.linear_gradient("L").save(path),
    "tar": write_tar,
    "parquet": write_parquet,
    "torchvision": write_mnist,
    "pairs": write_two,
    "domains": lambda path: write_two(path, N + 5),
    "vectors": write_vectors,
}
"""Writes data of a kind to a path, for the kinds that read some."""

SUFFIX = {"zip": ".zip", "npz": ".npz", "density": ".png"}
FIELDS: dict[str, dict[str, Any]] = {
    "torchvision": {"dataset": "MNIST", "download": False},
    "stacked_digits": {"count": 64},
}


def table_of(kind: str, tmp_path: Path) -> dict[str, Any]:
    """The table `data` of a kind, whose data is written to `tmp_path`."""
    path = tmp_path / f"{kind}{SUFFIX.get(kind, '')}"
    if kind in WRITE:
        WRITE[kind](tmp_path if kind == "torchvision" else path)
    table = {"kind": kind} | FIELDS.get(kind, {})
    table |= {"size": 8} if "size" in KINDS[kind].model_fields else {}
    table |= {"a": str(path / "a.npz"), "b": str(path / "b.npz")} if kind == "vectors" else {}
    return table | ({"path": str(path)} if "path" in KINDS[kind].model_fields else {})


PAIRED = {"direction": "a_to_b", "g": {"kind": "unet", "width": 2, "depth": 2}}
UNPAIRED = {
    "direction": "both_ways",
    "judges": "each",
    "g": {"kind": "translator", "width": 2, "blocks": 1, "downsamplings": 1},
}
LINEAR = {
    "direction": "a_to_b",
    "judges": "b",
    "g": {"kind": "linear_map", "start": "orthogonal"},
    "d": {"kind": "mlp", "width": 4, "depth": 1},
}
TRANSLATION = {"pairs": PAIRED, "digit_pairs": PAIRED, "domains": UNPAIRED, "digit_domains": UNPAIRED}
TRANSLATION |= {"clouds": LINEAR, "vectors": LINEAR}


def recipe_of(kind: str, tmp_path: Path) -> Recipe:
    """A tiny run on a kind of data; with two domains, one that translates."""
    changes: dict[str, Any] = {"data": table_of(kind, tmp_path)}
    if kind in TRANSLATION:
        changes["network"] = {"d": {"kind": "patch", "width": 2, "layers": 1}} | TRANSLATION[kind]
        changes["latent"] = {"kind": "source"}
    tricks = [(PAIRED, "target_l1"), (UNPAIRED, "image_pool"), (LINEAR, "orthogonal_map")]
    trick = [{"kind": trick} for network, trick in tricks if TRANSLATION.get(kind) is network]
    return recipe("points" if kind in TOYS else "pictures", *trick, **changes)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_kind_of_data(kind: str, tmp_path: Path) -> None:
    """TOML round trip; batches, draws and previews; three steps; a resumed run equals one that never stopped."""
    config = recipe_of(kind, tmp_path)
    assert decode(parse_toml(config.to_toml(), "")) == config
    splits, again = config.data.load(tmp_path), config.data.load(tmp_path)
    source = splits.train
    assert source.fingerprint == again.train.fingerprint
    if kind in VECTORS:
        assert splits.held_out is None
    else:
        assert splits.held_out is not None
        assert (source.fingerprint == splits.held_out.fingerprint) == (kind in TOYS), "a toy is its distribution"
    assert len(config.data.paths) == (2 if kind == "vectors" else "path" in config.data.model_dump())
    streams = RandomStreams(5)
    for index in (0, 7):
        (images, labels), (same, _) = source.batch(index, 4, streams), again.train.batch(index, 4, RandomStreams(5))
        assert torch.equal(images, same)
        assert (labels is None) == (not source.classes)
    assert not torch.equal(source.batch(0, 4, streams).images, source.batch(0, 4, RandomStreams(6)).images)
    drawn = source.draw(5, torch.Generator().manual_seed(1))
    assert torch.equal(drawn, again.train.draw(5, torch.Generator().manual_seed(1)))
    assert (drawn.dtype, drawn.shape[1:]) == (images.dtype, images.shape[1:])
    preview = source.preview(6)
    assert (preview.shape, preview.dtype) == ((6, *source.shape), torch.float32)
    assert torch.equal(preview, again.train.preview(6))
    assert sum(source.parts) in (0, source.shape[0])
    assert [domain.shape for domain in source.domain_sources] == [(part, *source.shape[1:]) for part in source.parts]
    if isinstance(source, SizedSource):
        assert source.spec().num_samples == len(source)
        assert len(source.gather(source.evenly_spaced(9)).images) == 9
    findings = check_compatibility(config, source.shape, len(source.classes), source.parts)
    assert findings.refusals == []
    run = Session(config, source).play(3)
    resumed = run.resumed().play(3)
    assert unequal(resumed.saved(), run.play(3).saved()) == []
    assert all(torch.isfinite(tensor).all() for tensor in run.saved().values() if tensor.is_floating_point())
