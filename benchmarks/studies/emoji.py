"""The colour images of the study of tips: emoji as a small NumPy archive.

    npm pack @lobehub/fluent-emoji-3d@1.1.0 && tar xf lobehub-fluent-emoji-3d-1.1.0.tgz
    python benchmarks/studies/emoji.py package/assets benchmarks/studies/emoji.npz

The images are decoded as `poise train --data package/assets` decodes them: sRGB, composited over white, resized with
Pillow's Lanczos filter, in the order of their file names. Three kinds of images are left out. Two of them are copies or
near copies, which would be on both sides of the split: those that differ from another one in the tone of the skin only
(their names contain one of the five modifiers U+1F3FB to U+1F3FF), and repetitions of equal pixels. The third are the
flags of countries and regions, which are not part of the original Fluent Emoji. 1,622 images remain.
`emoji.LICENSE.txt` has their source and licence.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import numpy as np

from poise.data.decode import TargetFormat, decode_image, strict_pillow
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
    files = [file for file in folder.glob("*.webp") if not SKIN_TONE.search(file.name) and not FLAG.search(file.name)]
    if not files:
        raise DataError("there are no .webp files", where="SRC", found=str(folder), cure="see this script's docstring")
    return sorted(files, key=lambda file: sort_key(file.name))


def read_images(folder: Path, size: int) -> Bytes:
    """The distinct images of a folder, N x size x size x 3, sRGB over white.

    Raises:
        DataError: there are none.
    """
    target, distinct = TargetFormat(size, 3, "white"), dict[bytes, Bytes]()
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
    args = parser.parse_args()
    images = read_images(args.src, args.size)
    np.savez_compressed(args.out, images=images)
    print(f"{args.out}: {len(images):,} images, {args.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
