"""The colour images of the studies: emoji as a small NumPy archive.

    npm pack @lobehub/fluent-emoji-3d@1.1.0 && tar xf lobehub-fluent-emoji-3d-1.1.0.tgz
    python benchmarks/studies/emoji.py package/assets benchmarks/studies/emoji.npz

The study of the default recipe uses the same images at 32 pixels, and those of another set with transparency:

    python benchmarks/studies/emoji.py package/assets runs/data/emoji-3d.npz --size 32
    npm pack emoji-datasource-twitter@16.0.0 && tar xf emoji-datasource-twitter-16.0.0.tgz
    python benchmarks/studies/emoji.py package/img/twitter/64 runs/data/emoji-rgba.npz --size 32 --channels 4

The images are decoded as `poise train --data package/assets` decodes them: sRGB, composited over white (with four
channels, alpha is kept), resized with Pillow's Lanczos filter, in the order of their file names. Three kinds of images
are left out. Two of them are copies or near copies, which would be on both sides of the split: those that differ from
another one in the tone of the skin only (their names contain one of the five modifiers U+1F3FB to U+1F3FF), and
repetitions of equal pixels. The third are the flags of countries and regions, which are not part of the original Fluent
Emoji. 1,622 images of the first set remain, and 1,618 of the second.
`emoji.LICENSE.txt` has their source and licence.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Literal

import numpy as np

from poise.data.decode import SUFFIXES, decode_image, strict_pillow
from poise.data.fit import TargetFormat
from poise.data.listing import sort_key
from poise.errors import DataError
from poise.utils.images import Bytes

SKIN_TONE = re.compile("1f3f[b-f]")
FLAG = re.compile("1f1(e[6-9a-f]|f[0-9a-f])|1f3f4-e0067")
"""A regional indicator, or the black flag with the tag of a region."""


def list_files(folder: Path) -> list[Path]:
    """The image files of a folder without flags and variants of the skin tone, in the order of their names.

    Raises:
        DataError: there are none.
    """
    files = [file for file in folder.iterdir() if file.suffix in SUFFIXES]
    files = [file for file in files if not SKIN_TONE.search(file.name) and not FLAG.search(file.name)]
    if not files:
        raise DataError("there are no images", where="SRC", found=str(folder), cure="see this script's docstring")
    return sorted(files, key=lambda file: sort_key(file.name))


def read_images(folder: Path, size: int, channels: Literal[3, 4] = 3) -> Bytes:
    """The distinct images of a folder, N x size x size x channels, sRGB, over white unless alpha is kept.

    Raises:
        DataError: there are none.
    """
    target, distinct = TargetFormat((size, size), channels, "white"), dict[bytes, Bytes]()
    with strict_pillow():
        for file in list_files(folder):
            with file.open("rb") as stream:
                pixels, _ = decode_image(stream, target)
            distinct.setdefault(pixels.tobytes(), pixels)
    return np.stack(list(distinct.values()))


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("src", type=Path, help="the folder of the images")
    parser.add_argument("out", type=Path, help="the .npz file to write")
    parser.add_argument("--size", type=int, default=16)
    parser.add_argument("--channels", type=int, default=3, choices=(3, 4))
    args = parser.parse_args()
    images = read_images(args.src, args.size, args.channels)
    np.savez_compressed(args.out, images=images)
    print(f"{args.out}: {len(images):,} images, {args.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
