"""Data of two domains for experiments with translation between images.

    python benchmarks/two_domains.py data --data-root data --out runs/two-domains

`data` makes these sets from the complete MNIST in `--data-root`, from the fonts that matplotlib installs and from the
emoji of `benchmarks/studies`, as .npz files and with a contact sheet of each:

    edges     pairs: the edges of a digit (Canny 1986, without hysteresis), and the digit
    colours   pairs: an emoji in greyscale, and in colour
    twins     unpaired: digits, and other digits that are inverted and slanted; with the labels of both
    fonts     unpaired: digits drawn with random fonts, with labels, and handwritten digits, without

Digits are 32 x 32, the emoji 16 x 16. Training and test images of MNIST are not mixed: all are training images.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from poise.data.digits import DigitsConfig
from poise.data.source import ImageDataset
from poise.data.torchvision_data import VisionConfig
from poise.utils.image_grid import image_grid, write_png
from poise.utils.images import Bytes, to_float

SIDE = 32
SEED = 20161121
EMOJI = Path(__file__).parent / "studies" / "emoji.npz"

SLANT = 0.35
"""Columns by which a row of a twin is shifted, for each row that it is above the centre."""

EDGE_SIGMA, EDGE_THRESHOLD = 0.7, 25.0
"""The width of the Gaussian before the edge filter in pixels, and the smallest gradient of an edge per pixel."""

SOBEL = np.outer((-1, 0, 1), (1, 2, 1)) / 8
"""Sobel's filter for the change from row to row, per pixel."""

FONTS = (
    *(f"DejaVuSans{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSansMono{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSerif{style}" for style in ("", "-Bold", "-Italic", "-BoldItalic")),
    *(f"STIXGeneral{style}" for style in ("", "Bol", "Italic", "BolIta")),
    *("cmb10", "cmr10", "cmss10", "cmti10", "cmtt10"),
)
"""Those fonts of matplotlib that have digits of one height."""

OVERSAMPLING = 4
"""Digits are drawn at this multiple of their size and averaged down."""


class Digits(NamedTuple):
    """Digits, N x 32 x 32, white on black, and their labels, N."""

    images: Bytes
    labels: npt.NDArray[np.int64]


def load_digits(root: Path, *, quick: bool) -> Digits:
    """MNIST's training images in random order; if `quick`, the digits of the package."""
    config = DigitsConfig(size=SIDE) if quick else VisionConfig(dataset="MNIST", size=SIDE, download=False)
    train = config.load(root).train
    assert isinstance(train, ImageDataset)
    assert train.labels is not None
    order = np.random.default_rng(SEED).permutation(len(train))
    return Digits(np.ascontiguousarray(train.images[order, ..., 0]), train.labels[order])


def edge_map(images: Bytes) -> Bytes:
    """The edges of images, N x H x W, as lines of one pixel, 255 on 0.

    An edge is where the gradient of the smoothed image (Sobel's filter) exceeds a threshold, and those of both
    neighbours across it (Canny 1986; a single threshold takes the place of hysteresis).
    """
    smooth = ndimage.gaussian_filter(images.astype(np.float32), (0, EDGE_SIGMA, EDGE_SIGMA))
    down, right = (ndimage.correlate(smooth, kernel[None]) for kernel in (SOBEL, SOBEL.T))
    strength = np.hypot(down, right)
    direction = np.round(np.arctan2(down, right) / (np.pi / 4)).astype(int) % 4
    padded = np.pad(strength, ((0, 0), (1, 1), (1, 1)))
    height, width = images.shape[1:]
    largest = np.zeros(images.shape, bool)
    for k, (dy, dx) in enumerate(((0, 1), (1, 1), (1, 0), (1, -1))):
        after = padded[:, 1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]
        before = padded[:, 1 - dy : 1 - dy + height, 1 - dx : 1 - dx + width]
        largest |= (direction == k) & (strength >= after) & (strength > before)
    return np.where(largest & (strength > EDGE_THRESHOLD), np.uint8(255), np.uint8(0))


def twin(images: Bytes) -> Bytes:
    """The true translations of digits, N x H x W: slanted to the right by `SLANT` and inverted."""
    centre = (images.shape[1] - 1) / 2
    matrix = np.array([[1, 0, 0], [0, 1, 0], [0, SLANT, 1]])
    slanted = ndimage.affine_transform(images.astype(np.float32), matrix, (0, 0, -SLANT * centre), order=1)
    return (255 - np.round(slanted)).astype(np.uint8)


def draw_digit(digit: int, rng: np.random.Generator) -> Bytes:
    """A digit in a random font, white on black, 32 x 32, of random size, place, slant and stroke."""
    side = OVERSAMPLING * SIDE
    name = FONTS[rng.integers(len(FONTS))]
    path = Path(matplotlib.get_data_path(), "fonts", "ttf", f"{name}.ttf")
    font = ImageFont.truetype(path, side)
    stroke = int(rng.integers(0, OVERSAMPLING + 1))
    left, top, right, bottom = font.getbbox(str(digit))
    canvas = Image.new("L", (2 * side, 2 * side))
    at = (side - (left + right) / 2, side - (top + bottom) / 2)
    ImageDraw.Draw(canvas).text(at, str(digit), font=font, fill=255)
    height = rng.uniform(15, 22) * OVERSAMPLING
    zoom, stretch = (bottom - top) / height, rng.uniform(0.9, 1.3)
    slant = rng.uniform(-0.3, 0.3)
    shift_x, shift_y = rng.uniform(-2, 2, 2) * OVERSAMPLING
    # the pixel (x, y) of the result is the pixel (c + zoom (stretch (x - x0) + slant (y - y0)), c + zoom (y - y0))
    x0, y0, centre = side / 2 + shift_x, side / 2 + shift_y, float(side)
    row_x = (zoom * stretch, zoom * slant, centre - zoom * (stretch * x0 + slant * y0))
    row_y = (0.0, zoom, centre - zoom * y0)
    placed = canvas.transform((side, side), Image.Transform.AFFINE, (*row_x, *row_y), Image.Resampling.BILINEAR)
    pixels = np.asarray(placed)
    if stroke:
        pixels = ndimage.maximum_filter(pixels, size=1 + stroke)
    blocks = pixels.reshape(SIDE, OVERSAMPLING, SIDE, OVERSAMPLING)
    return np.round(blocks.mean(axis=(1, 3))).astype(np.uint8)


def make_sets(digits: Digits, count: int) -> dict[str, dict[str, Any]]:
    """The arrays of each set; `count` images of each domain, as far as there are that many."""
    half = len(digits.images) // 2
    n = min(count, half)
    first, other = slice(0, n), slice(half, half + n)
    rng = np.random.default_rng(SEED)
    drawn = rng.integers(0, 10, n)
    with np.load(EMOJI) as archive:
        emoji: Bytes = archive["images"]
    emoji = emoji[rng.permutation(len(emoji))[:count]]
    grey = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in emoji])
    names = [str(digit) for digit in range(10)]
    return {
        "edges": {
            "a": edge_map(digits.images[first]),
            "b": digits.images[first],
            "labels": digits.labels[first],
            "classes": names,
        },
        "colours": {"a": grey, "b": emoji},
        "twins": {
            "a": digits.images[first],
            "b": twin(digits.images[other]),
            **{f"{domain}_labels": digits.labels[rows] for domain, rows in (("a", first), ("b", other))},
            **dict.fromkeys(("a_classes", "b_classes"), names),
        },
        "fonts": {
            "a": np.stack([draw_digit(int(digit), rng) for digit in drawn]),
            "b": digits.images[other],
            "a_labels": drawn,
            "a_classes": names,
        },
    }


def contact_sheet(arrays: dict[str, Any], rows: int = 8, columns: int = 20) -> Bytes:
    """The first images of both domains, in alternate rows."""
    n = min(rows // 2 * columns, len(arrays["a"]), len(arrays["b"]))
    images = []
    for name in ("a", "b"):
        domain = arrays[name][:n]
        domain = domain if domain.ndim == 4 else np.repeat(domain[..., None], 3, axis=3)
        images.append(to_float(torch.from_numpy(np.ascontiguousarray(domain))))
    lines = [part for pair in zip(*(domain.split(columns) for domain in images), strict=True) for part in pair]
    return image_grid(torch.cat(lines), columns)


def write_sets(root: Path, out: Path, count: int, *, quick: bool) -> None:
    """Write the sets and their contact sheets, and print what they contain."""
    out.mkdir(parents=True, exist_ok=True)
    for name, arrays in make_sets(load_digits(root, quick=quick), count).items():
        path = out / f"{name}.npz"
        np.savez_compressed(path, **arrays)
        write_png(contact_sheet(arrays), path.with_suffix(".png"))
        shapes = ", ".join(f"{key} {' x '.join(map(str, np.shape(array)))}" for key, array in arrays.items())
        print(f"{path}: {shapes}", flush=True)


def main() -> None:
    """Make what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", choices=["data"])
    parser.add_argument("--data-root", type=Path, default=Path("data"), help="the folder of the complete MNIST")
    parser.add_argument("--out", type=Path, default=Path("runs/two-domains"), help="the folder of the sets")
    parser.add_argument("--count", type=int, default=20_000, help="the number of images of each domain")
    parser.add_argument("--quick", action="store_true", help="40 images of each domain, from the digits of the package")
    args = parser.parse_args()
    write_sets(args.data_root, args.out, 40 if args.quick else args.count, quick=args.quick)


if __name__ == "__main__":
    main()
