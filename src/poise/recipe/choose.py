"""The default recipe for a data set: which recipe, image size, batch and augmentation suit it.

`poise train --data DIR` without a recipe starts from here. The choice depends on facts about the images, on the limits
that the user gives, and on how fast the machine trains; it is written to `recipe.toml`, so the run depends on none of
them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from poise.core.config import find_components
from poise.data.config import DataConfig
from poise.data.facts import ImageFacts
from poise.recipe.shipped import DEFAULT, list_recipes, load_table
from poise.recipe.toml import Table
from poise.utils.durations import duration_text
from poise.utils.printing import count_noun

RECIPE = "images"
"""The recipe for images: in the study `benchmarks/studies/default` it is better than `dcgan`, the default of before, on
all four sets at equal CPU time, and chosen by the rule that is written there."""

TRANSLATION = {"pairs": "pix2pix", "domains": "cyclegan"}
"""The recipes for images of two domains, by `DataConfig.two_domains`."""

DEFAULT_SECONDS = 3600.0
"""The training time if the user states neither a time nor a number of steps."""

SMALLEST, LARGEST = 16, 256
"""The range of image sizes that are chosen without `--size`, in pixels."""

MAX_ENLARGEMENT = 4 / 3
"""The largest factor by which images are enlarged to the next power of two."""

ENOUGH_IMAGES = 500_000
"""How many real images D should see, with repetitions, before a larger image size is worth its time. The shipped
recipes for 16 to 32 pixels see 190,000 to 290,000."""

ENOUGH_TRANSLATED = {"pairs": 80_000, "domains": 200_000}
"""The same for translation: pix2pix saw the 400 facades 200 times, and CycleGAN sets of about 1,000 images 200 times
(Isola 2017, section 6.2; Zhu 2017, section 7.2)."""

FEW_IMAGES = 10_000
"""Below this number of images copying is measured, and D's input is augmented if it is in colour and the training time
is an hour; for shorter times, the number is smaller in proportion.

An image must be seen often before an augmentation pays. With DiffAugment, after five minutes of CPU time, the FID of
emoji is 20 instead of 13 (2,374 images, each seen about 40 times); after ten minutes that of photographs is 27 instead
of 33 (600 images, seen 400 times; without augmentation D ends with 99 % of its decisions right, with it with 54 %). One
seed each; the number is between them. The authors of DiffAugment find a small gain for the 50,000 images of CIFAR-10,
and a large one for 10,000 and 5,000 of them, trained much longer (Zhao et al. 2020, arXiv:2006.10738, table 2).
"""

FEW_TO_LEARN_FROM = 600
"""Below this number of images the user is told that samples may resemble single images.

After ten minutes on photographs, C_T, the test of copying, is -6.6 with 60 training images, and -3.6 for as many other
images that G has not seen; with 600 images it is -5.3 and -4.8, with 6,000 it is -1.1 and -1.5
(`benchmarks/small_sets.py`).
"""


class Limits(NamedTuple):
    """What the user has decided; None leaves a value to `choose`.

    Attributes:
        seconds: the training time.
        size: the side of the images, or (height, width).
        batch: the batch size.
    """

    seconds: float | None = None
    size: int | tuple[int, int] | None = None
    batch: int | None = None


class Choice(NamedTuple):
    """A recipe and the reasons for it.

    Attributes:
        table: the recipe.
        reasons: sentences for the user.
        timed: whether its number of steps is to follow from the training time; otherwise it has one of its own.
    """

    table: Table
    reasons: list[str]
    timed: bool = True


def made_for(kind: str) -> str | None:
    """The name of the shipped recipe for a kind of data, the shortest one of several; None if there is none."""
    return min((one.name for one in list_recipes() if one.data == kind), key=len, default=None)


def choose_without_facts(data: Table) -> Choice:
    """The recipe for data of which nothing is known before it is loaded, with the recipe's own number of steps.

    It is the one that is made for data of this kind, see `made_for`; without one, it is the default.

    Args:
        data: the table `data` of the recipe.
    """
    name = made_for(str(data["kind"]))
    if name is None:
        reason = f"nothing is known of the images before they are loaded: the recipe {DEFAULT}, with its own settings"
        return Choice(load_table(DEFAULT) | {"data": data}, [reason], timed=False)
    table = load_table(name)
    table["data"] |= data
    return Choice(table, [f"the recipe {name}, which is made for data of the kind {data['kind']}"], timed=False)


def choose(facts: ImageFacts, data: Table, limits: Limits, images_per_second: Callable[[Table], float]) -> Choice:
    """Choose a recipe.

    Args:
        facts: the images.
        data: the table `data` of the recipe, without a size.
        limits: what the user has decided.
        images_per_second: measures how many real images the D of a recipe sees per second; called for each image size
            above 32 pixels that is considered, and not at all if the user has decided the size.
    """
    if facts.parts:
        return _choose_translation(facts, data, limits, images_per_second)
    table = load_table(RECIPE)
    table["batch"] = limits.batch or batch_size(int(table["batch"]), facts.count)
    seconds = limits.seconds or DEFAULT_SECONDS
    few = max_augmented(seconds)
    augmented = not facts.grey and facts.count < few
    if augmented:
        table["tricks"] = [*table["tricks"], {"kind": "diff_augment"}]
    if facts.count < FEW_IMAGES:
        table["measure"] |= {"measures": [*table["measure"]["measures"], "copying"]}
    size: int | tuple[int, int]
    if limits.size is not None:
        size, why = limits.size, "as given"
    else:
        size, why = image_size(
            facts.middle_side, seconds, lambda size: images_per_second(table | {"data": data | {"size": size}})
        )
    table["data"] = data | {"size": size}
    height, width = facts.typical_shape
    kind = count_noun(facts.count, f"{'greyscale' if facts.grey else 'colour'} image")
    when = f"fewer than {few:,} images in {duration_text(seconds)} of training"
    small = f" with DiffAugment, which is used for {when}" if augmented else ""
    reasons = [
        f"{kind} of about {width} x {height}: the recipe {table['name']}{small}",
        f"{_pixels(size)}, {why}, in batches of {table['batch']}",
    ]
    if facts.count < FEW_TO_LEARN_FROM:
        compare = "compare them with poise measure RUN --neighbours FILE"
        reasons.append(f"with so few images, samples may be near-copies of training images: {compare}")
    return Choice(table, reasons)


def _choose_translation(
    facts: ImageFacts, data: Table, limits: Limits, images_per_second: Callable[[Table], float]
) -> Choice:
    """Choose a recipe for images of two domains, see `choose`. D's patches are of 16 pixels at a size of 32, as in the
    recipe, of 34 at 64 and of 70 above, as published."""
    config = find_components(DataConfig, "poise.data")[data["kind"]]
    assert issubclass(config, DataConfig)
    relation = config.two_domains
    table = load_table(TRANSLATION[relation])
    table["batch"] = limits.batch or batch_size(int(table["batch"]), facts.count)
    seconds = limits.seconds or DEFAULT_SECONDS
    reasons = list[str]()
    if relation == "domains" and len(set(facts.parts)) > 1 and "channels" not in data:
        data = data | {"channels": max(facts.parts)}
        reasons.append("greyscale images are read in colour (data.channels), as both domains are compared")

    def sized(size: int | tuple[int, int]) -> Table:
        side = size if isinstance(size, int) else min(size)
        d = table["network"]["d"] | {"layers": min(3, max(1, side.bit_length() - 5))}
        return table | {"data": data | {"size": size}, "network": table["network"] | {"d": d}}

    size: int | tuple[int, int]
    if limits.size is not None:
        size, why = limits.size, "as given"
    else:
        enough = ENOUGH_TRANSLATED[relation]
        size, why = image_size(facts.middle_side, seconds, lambda side: images_per_second(sized(side)), enough)
    height, width = facts.typical_shape
    what = count_noun(facts.count, "pair") if relation == "pairs" else "two domains"
    images = f"{what} of images of about {width} x {height}: the recipe {table['name']}"
    reasons = [images, f"{_pixels(size)}, {why}, in batches of {table['batch']}", *reasons]
    return Choice(sized(size), reasons)


def _pixels(size: int | tuple[int, int]) -> str:
    """A size in words, width first as in the size of images."""
    height, width = (size, size) if isinstance(size, int) else size
    return f"{width} x {height} pixels"


def max_augmented(seconds: float) -> int:
    """The number of colour images below which D's input is augmented: `FEW_IMAGES`, or less for less than an hour."""
    return round(FEW_IMAGES * min(1.0, seconds / 3600))


def batch_size(usual: int, count: int) -> int:
    """The usual batch size, halved until a batch contains at most half of the images; at least 4, if there are 4."""
    while usual > max(2, min(4, count), count // 2):
        usual //= 2
    return usual


def largest_size(side: int) -> int:
    """The largest power of two to which images are enlarged by at most `MAX_ENLARGEMENT`, within the range of sizes."""
    size = SMALLEST
    while 2 * size <= min(MAX_ENLARGEMENT * side, LARGEST):
        size *= 2
    return size


def image_size(
    side: int, seconds: float, images_per_second: Callable[[int], float], enough: int = ENOUGH_IMAGES
) -> tuple[int, str]:
    """The largest size for which the time suffices, and the reason.

    Args:
        side: the shorter side of the images, in pixels.
        seconds: the training time.
        images_per_second: measures how many images D sees per second at a size.
        enough: how many images D should see.
    """
    largest = largest_size(side)
    size = min(32, largest)
    while 2 * size <= largest:
        shown = seconds * images_per_second(2 * size)
        if shown < enough:
            thousands = f"{max(1, round(shown / 1000)):,},000"
            return (
                size,
                f"as D would see only {thousands} images of {2 * size} x {2 * size} in {duration_text(seconds)}",
            )
        size *= 2
    return size, "their own size" if size == side else f"the power of two that suits a median side of {side}"
