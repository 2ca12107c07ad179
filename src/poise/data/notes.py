"""Notes and warnings about images: the files that were read, the conversions, and the statistics of the pixels."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt

from poise.data.decode import SUFFIXES, Header, Trait
from poise.data.fit import TargetFormat, aspect_text, has_other_aspect
from poise.data.listing import Listing, display_name
from poise.data.pixel_statistics import PixelStatistics, as_items
from poise.data.source import BadFile, DataWarning
from poise.utils.images import Bytes
from poise.utils.printing import agree, count_noun

MIN_IMAGES = 50
"""A note reports data sets with fewer images."""

MAX_GREY = 500
"""How many images at most are searched for colours."""

MIN_RANGE = 128
"""A warning reports images whose values span fewer of the 256 levels."""

OUTLIERS = 0.05
"""The fraction of the images that may exceed the range of the others."""

RESIZED = "and are resized to"
LOSE_COLOUR = "in colour: converted to greyscale (data.channels)"
WILL_OVERFIT = "D will soon overfit; more images help most, then tip M02 (augmentation of D's input)"
STORED_IN_COLOUR = "are grey, although they are stored in colour"
CLASSES = re.compile(r"(from dataset\.json: )?[0-9,]+ class(es)?[:,]")
"""Parts of notes that a comparison leaves out, see `notes_for_comparison`."""

NamedHeader = tuple[str, Header]


def notes_for_comparison(notes: Sequence[str], *, resizing: bool) -> list[str]:
    """The notes on a data set that matter if it is only compared: not its classes, and no advice on training.

    Args:
        notes: all notes.
        resizing: whether the one that all images are resized is among them; the comparison may have one of its own.
    """
    return [
        note
        for note in notes
        if not (
            (RESIZED in note and not resizing)
            or STORED_IN_COLOUR in note
            or note.endswith(WILL_OVERFIT)
            or CLASSES.match(note) is not None
        )
    ]


def file_notes(listing: Listing, bad: Sequence[BadFile], good: Sequence[NamedHeader]) -> list[str]:
    """Notes on files: invalid ones, ignored ones, and images with the suffix of another format."""
    notes: list[str] = []
    if bad:
        total = count_noun(len(bad) + len(good), "image file")
        notes.append(f"skipped {len(bad):,} of {total} as invalid")
    if listing.ignored:
        notes.append(f"skipped {count_noun(listing.ignored.total(), 'other file')}: {listing.ignored_summary}")
    if listing.num_runs:
        notes.append(f"skipped {count_noun(listing.num_runs, 'run folder')}, whose images are generated")
    wrong = [(n, _format(header)) for n, header in good if SUFFIXES.get(_suffix(n), _format(header)) != _format(header)]
    if wrong:
        name, actual = wrong[0]
        example = f"{display_name(name)} is {actual}"
        count = count_noun(len(wrong), "image")
        notes.append(f"{count} with the suffix of another format ({example}): the suffix is ignored")
    return notes


def content_notes(headers: Sequence[Header], traits: Counter[Trait], target: TargetFormat) -> list[str]:
    """Notes on the formats of the images and how they were converted."""
    multi_frame = sum(header.multi_frame for header in headers)
    oblong = sum(has_other_aspect(header.width, header.height, target) for header in headers)
    colour = sum(not header.grey for header in headers)
    uniform = len({(header.mode, header.width, header.height) for header in headers}) == 1  # `resize_note` says it all
    height, width = target.size
    small = sum(header.width < width or header.height < height for header in headers)
    notes = (
        (traits[Trait.ALPHA], f"with transparency: {_alpha_handling(target)}"),
        (traits[Trait.FULLY_TRANSPARENT], f"fully transparent: {_transparent_result(target)}"),
        (traits[Trait.SIXTEEN_BIT], "with 16-bit greyscale: the upper 8 bits are used"),
        (multi_frame, "with several frames or pages: the first is used"),
        (0 if target.channels > 2 else colour, LOSE_COLOUR),
        (0 if uniform else oblong, f"that {agree(oblong, 'is', 'are')} {_other_aspect(target)}: {_fitting(target)}"),
        (0 if uniform else small, f"smaller than {_size(target)}: enlarged"),
        (traits[Trait.BAD_PROFILE], "with an unusable colour profile: treated as sRGB"),
        (traits[Trait.BAD_EXIF], "with unreadable EXIF data: the orientation is not corrected"),
    )
    return _format_notes(headers, target) + [f"{count_noun(n, 'image')} {text}" for n, text in notes if n]


def colour_note(n: int, channels: int, target: TargetFormat) -> list[str]:
    """A note on the n images of an array with this number of channels, if their colours are lost; otherwise none."""
    return [f"{count_noun(n, 'image')} {LOSE_COLOUR}"] if target.channels <= 2 < channels else []


def alpha_notes(alpha: Bytes, target: TargetFormat) -> list[str]:
    """The notes on transparency for the alpha channel of an array, N x H x W."""
    opacity = alpha.reshape(len(alpha), -1)
    partly, fully = int((opacity.min(1) < 255).sum()), int((opacity.max(1) == 0).sum())
    notes = (
        (partly, f"with transparency: {_alpha_handling(target)}"),
        (fully, f"fully transparent: {_transparent_result(target)}"),
    )
    return [f"{count_noun(n, 'image')} {text}" for n, text in notes if n]


def resize_note(width: int, height: int, target: TargetFormat) -> list[str]:
    """Notes on images that are all width x height; none if no pixel is changed."""
    if (height, width) == target.size:
        return []
    notes = [f"all images are {width} x {height} {RESIZED} {_size(target)}"]
    if has_other_aspect(width, height, target):
        notes.append(f"the images are {_other_aspect(target)}: {_fitting(target)}")
    return notes


def pixel_notes(statistics: PixelStatistics, groups: Bytes) -> list[str]:
    """Notes on the pixels: copies, images of a single colour, identical images, too few images.

    Args:
        statistics: those of N images.
        groups: N x 16, equal for those that count as copies; see `split.group_hashes`.
    """
    notes: list[str] = []
    n, uniform = len(statistics.hashes), int(statistics.uniform.sum())
    distinct, num_groups = (len(np.unique(as_items(hashes))) for hashes in (statistics.hashes, groups))
    if distinct == 1:
        notes.append(f"all {n:,} images are identical (zero variance): there is nothing to learn")
    elif num_groups < n:
        copies = n - num_groups
        verb = agree(copies, "is an exact copy of another", "are exact copies of others")
        flips = f" or of {agree(copies, 'its flip', 'their flips')} (data.mirror)" if num_groups < distinct else ""
        notes.append(f"{copies:,} of {n:,} images {verb}{flips}")
    if uniform:
        notes.append(f"{uniform:,} of {n:,} images {agree(uniform, 'has', 'have')} a single colour")
    if n < MIN_IMAGES:
        notes.append(f"only {n} images: {WILL_OVERFIT}")
    return notes


def grey_note(images: Bytes, rows: npt.NDArray[np.intp]) -> list[str]:
    """A note if images with colour channels are grey: all of them, or all of `MAX_GREY` that are evenly spaced.

    Args:
        images: N x H x W x C; the first three of three or four channels are the colours.
        rows: those of the images that are used.
    """
    looked_at = rows[:: max(1, -(-len(rows) // MAX_GREY))]
    if images.shape[3] < 3 or not len(rows):
        return []
    for row in looked_at:
        if (images[row, ..., :1] != images[row, ..., 1:3]).any():
            return []
    which = "all images" if len(looked_at) == len(rows) else f"all of {len(looked_at):,} images that were looked at"
    return [f"{which} {STORED_IN_COLOUR}: data.channels=1 reads them as greyscale"]


def range_note(statistics: PixelStatistics, num_16_bit: int = 0) -> list[DataWarning]:
    """A warning if the images use a narrow part of 0 to 255 only, which usually means that they were scaled wrongly.

    Images of a single colour are not counted.

    Args:
        statistics: those of the images.
        num_16_bit: the number of images that were 16-bit greyscale.
    """
    lows, highs = statistics.lows, statistics.highs
    lows, highs = np.sort(lows[lows < highs]), np.sort(highs[lows < highs])
    if not len(lows):
        return []
    rank = int(OUTLIERS * len(lows))
    low, high = int(lows[rank]), int(highs[-1 - rank])
    if low == high or (all_within := lows[0] >= low and highs[-1] <= high):
        low, high, all_within = int(lows[0]), int(highs[-1]), True
    if not 0 < high - low < MIN_RANGE:
        return []
    levels = ((high < 32, "nearly black"), (high < 128, "dark"), (low > 223, "nearly white"), (low > 127, "bright"))
    level = next((word for applies, word in levels if applies), "low in contrast")
    which = "all images" if all_within else f"{1 - OUTLIERS:.0%} of the images"
    message = f"{which} are {level}: their values range from {low} to {high}, out of 0 to 255"
    return [DataWarning(message, _rescaling_cure(low, high, num_16_bit, len(statistics.lows)), "T01")]


def _rescaling_cure(low: int, high: int, num_16_bit: int, n: int) -> str:
    if low == 0 and 2 * num_16_bit > n:
        bits = 8 + high.bit_length()
        return f"if they are {bits}-bit values in 16-bit files, multiply them by {2 ** (16 - bits)} and save them again"
    if low == 0:
        return f"if their full range is 0 to {high}, multiply them by {255 // max(high, 1)} and save them again"
    return f"if they should have full contrast, rescale them: (x - {low}) * 255 / {high - low}"


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _format(header: Header) -> str:
    return "JPEG" if header.format == "MPO" else header.format


def _alpha_handling(target: TargetFormat) -> str:
    return "kept" if target.keeps_alpha else f"composited over {target.background} (data.background)"


def _transparent_result(target: TargetFormat) -> str:
    if target.keeps_alpha:
        return "alpha is kept, so nothing is visible"
    return f"the result is entirely {target.background} (save without alpha)"


def _format_notes(headers: Sequence[Header], target: TargetFormat) -> list[str]:
    """Notes on the sizes and modes of the images."""
    modes = Counter(header.mode for header in headers)
    sizes = sorted({(header.width, header.height) for header in headers}, key=lambda size: (size[0] * size[1], size))
    if len(modes) == 1 and len(sizes) == 1:
        return resize_note(*sizes[0], target)
    counts = ", ".join(f"{n:,} {mode}" for mode, n in modes.most_common())
    first, last = (f"{width} x {height}" for width, height in (sizes[0], sizes[-1]))
    size_range = (
        f"of size {first}" if len(sizes) == 1 else f"of {count_noun(len(sizes), 'size')} from {first} to {last}"
    )
    height, width = target.size
    order = "" if width == height else " (width x height)"
    converted = f"{width} x {height} x {count_noun(target.channels, 'channel')}{order}"
    return [f"the images are {counts}, {size_range}; all are converted to {converted}"]


def _size(target: TargetFormat) -> str:
    """Width x height, in the order of the sizes of image files."""
    height, width = target.size
    return f"{width} x {height}" + (" (width x height)" if width != height else "")


def _other_aspect(target: TargetFormat) -> str:
    aspect = aspect_text(target.size)
    return f"not {aspect}" if aspect == "square" else f"not of the aspect ratio {aspect}"


def _fitting(target: TargetFormat) -> str:
    """What `data.fit` does to such images."""
    if target.fit == "crop":
        height, width = target.size
        return f"the centred {'square' if width == height else 'rectangle'} is used (data.fit)"
    if target.fit == "squeeze":
        return "they are squeezed (data.fit)"
    return f"they are padded with {'transparency' if target.keeps_alpha else target.background} (data.fit)"
