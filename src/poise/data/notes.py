"""What is said about pictures: the files they came in, what became of them, and how their pixels look."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

import numpy as np

from poise.data.decode import SUFFIXES, Header, TargetFormat, Trait
from poise.data.listing import Listing, display_name
from poise.data.source import BadFile, DataWarning
from poise.utils.images import Bytes
from poise.utils.printing import agree, count_noun

FEW = 50
"""Fewer pictures are spoken of."""

NARROW = 128
"""Pictures whose values span fewer of the 256 levels are doubtful."""

OUTLIERS = 0.05
"""The share of pictures that may lie outside the range that the others keep to."""

AT_ONCE = 4096

Named = tuple[str, Header]


def file_notes(listing: Listing, bad: Sequence[BadFile], good: Sequence[Named]) -> list[str]:
    """Notes on files: left out, passed over, named after another format."""
    notes: list[str] = []
    if bad:
        notes.append(f"{len(bad):,} of {count_noun(len(bad) + len(good), 'picture file')} left out as bad")
    if listing.ignored:
        notes.append(f"passed over {count_noun(listing.ignored.total(), 'other file')}: {listing.describe_ignored}")
    if listing.runs:
        notes.append(f"passed over {count_noun(listing.runs, 'run folder')}: the pictures in them are a generator's")
    wrong = [(name, _real(head)) for name, head in good if _real(head) != SUFFIXES.get(_suffix(name))]
    if wrong:
        name, real = wrong[0]
        example = f"{display_name(name)} is {real}"
        notes.append(f"{count_noun(len(wrong), 'picture')} named after another format ({example}): the content counts")
    return notes


def content_notes(headers: Sequence[Header], traits: Counter[Trait], frame: TargetFormat) -> list[str]:
    """Notes on what the pictures were and what they became."""
    several = sum(header.several for header in headers)
    oblong = sum(header.width != header.height for header in headers)
    mixed = len({(header.width, header.height) for header in headers}) > 1
    small = sum(min(header.width, header.height) < frame.size for header in headers)
    told = (
        (traits[Trait.ALPHA], f"with transparency: {_alpha(frame)}"),
        (traits[Trait.CLEAR], f"fully transparent: {_cleared(frame)}"),
        (traits[Trait.DEEP], "with 16-bit grey: the upper 8 bits are taken"),
        (several, "with more frames or pages than one: the first is taken"),
        (oblong if mixed else 0, f"that {agree(oblong, 'is', 'are')} not square: the middle square is kept"),
        (small if mixed else 0, f"smaller than {frame.size} x {frame.size}: enlarged"),
        (traits[Trait.PROFILE], "with a colour profile that can't be used: taken as sRGB"),
        (traits[Trait.EXIF], "with EXIF data that can't be read: taken as they lie"),
    )
    return _mixture(headers, frame) + [f"{count_noun(n, 'picture')} {what}" for n, what in told if n]


def alpha_notes(alpha: Bytes, frame: TargetFormat) -> list[str]:
    """The same notes for the alpha channel of an array, N x H x W."""
    opacity = alpha.reshape(len(alpha), -1)
    clear, gone = int((opacity.min(1) < 255).sum()), int((opacity.max(1) == 0).sum())
    told = ((clear, f"with transparency: {_alpha(frame)}"), (gone, f"fully transparent: {_cleared(frame)}"))
    return [f"{count_noun(n, 'picture')} {what}" for n, what in told if n]


def resize_note(width: int, height: int, size: int) -> list[str]:
    """What becomes of pictures that are all width x height; nothing where they keep every pixel."""
    if (width, height) == (size, size):
        return []
    cut = [] if width == height else ["none of them is square: the middle square of each is kept"]
    return [f"all pictures are {width} x {height} and become {size} x {size}", *cut]


def pixel_notes(images: Bytes) -> list[str]:
    """Notes about the pixels themselves: copies, pictures of one colour, no difference at all, too few."""
    notes: list[str] = []
    n, distinct, flat = len(images), set(), 0
    for pixels in images:
        distinct.add(hashlib.blake2b(pixels.tobytes(), digest_size=16).digest())
        flat += bool((pixels == pixels[0, 0]).all())
    if len(distinct) == 1:
        notes.append(f"all {n:,} pictures are the same, pixel for pixel (zero variance): there is nothing to learn")
    elif len(distinct) < n:
        copies = n - len(distinct)
        notes.append(f"{copies:,} of {n:,} pictures {agree(copies, 'repeats', 'repeat')} another one exactly")
    if flat and images.shape[1] > 1:
        notes.append(f"{flat:,} of {n:,} pictures {agree(flat, 'is', 'are')} all one colour")
    if n < FEW:
        notes.append(f"only {n} pictures: D will soon know them by heart (overfitting); DiffAugment (M02) helps")
    return notes


def range_note(images: Bytes, deep: int = 0, *, alpha: bool = True) -> list[DataWarning]:
    """Whether the pictures use only a narrow part of 0 to 255: then they were saved on another scale, as a rule.

    Pictures of one colour say nothing about that and are not asked.

    Args:
        images: N x S x S x C.
        deep: how many of them were 16-bit grey.
        alpha: whether the second of two channels, and the fourth of four, says how opaque a pixel is.
    """
    ends = [_ends(rows) for rows in _in_chunks(_colours(images, alpha))]
    lows, highs = (np.concatenate([pair[i] for pair in ends]) for i in range(2))
    lows, highs = np.sort(lows[lows < highs]), np.sort(highs[lows < highs])
    if not len(lows):
        return []
    rank = int(OUTLIERS * len(lows))
    low, high = int(lows[rank]), int(highs[-1 - rank])
    if low == high or (strict := lows[0] >= low and highs[-1] <= high):
        low, high, strict = int(lows[0]), int(highs[-1]), True
    if not 0 < high - low < NARROW:
        return []
    looks = ((high < 32, "nearly black"), (high < 128, "dark"), (low > 223, "nearly white"), (low > 127, "bright"))
    look = next((word for true, word in looks if true), "low in contrast")
    which = "all pictures" if strict else f"{1 - OUTLIERS:.0%} of the pictures"
    message = f"{which} are {look}: their values go from {low} to {high}, of a range from 0 to 255"
    return [DataWarning(message, _stretch(low, high, deep, len(images)), "T01")]


def _stretch(low: int, high: int, deep: int, n: int) -> str:
    if low == 0 and 2 * deep > n:
        bits = 8 + high.bit_length()
        return f"if they are {bits}-bit values in 16-bit files, multiply them by {2 ** (16 - bits)} and save them again"
    if low == 0:
        return f"if their values go from 0 to {high}, multiply them by {255 // max(high, 1)} and save them again"
    return f"if they should have full contrast, stretch them: (x - {low}) * 255 / {high - low}"


def _colours(images: Bytes, alpha: bool) -> Bytes:
    return images[..., :-1] if alpha and images.shape[3] in (2, 4) else images


def _in_chunks(images: Bytes) -> Iterator[Bytes]:
    for start in range(0, len(images), AT_ONCE):
        yield images[start : start + AT_ONCE]


def _ends(rows: Bytes) -> tuple[Bytes, Bytes]:
    flat = rows.reshape(len(rows), -1)
    return flat.min(1), flat.max(1)


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _real(header: Header) -> str:
    return "JPEG" if header.format == "MPO" else header.format


def _alpha(frame: TargetFormat) -> str:
    return "kept" if frame.channels in (2, 4) else f"laid over {frame.background} (data.background)"


def _cleared(frame: TargetFormat) -> str:
    kept = "their alpha is kept, so nothing of them is seen"
    return kept if frame.channels in (2, 4) else f"they come out all {frame.background} (save them without alpha)"


def _mixture(headers: Sequence[Header], frame: TargetFormat) -> list[str]:
    modes = Counter(header.mode for header in headers)
    sizes = sorted({(header.width, header.height) for header in headers}, key=lambda size: (size[0] * size[1], size))
    if len(modes) == 1 and len(sizes) == 1:
        return resize_note(*sizes[0], frame.size)
    kinds = ", ".join(f"{n:,} {mode}" for mode, n in modes.most_common())
    first, last = (f"{width} x {height}" for width, height in (sizes[0], sizes[-1]))
    spread = first if len(sizes) == 1 else f"{count_noun(len(sizes), 'size')} from {first} to {last}"
    became = f"{frame.size} x {frame.size} x {count_noun(frame.channels, 'channel')}"
    return [f"the pictures are {kinds}, {spread}; all become {became}"]
