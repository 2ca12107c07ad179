"""A bench: real data made ready, so that samples can be measured against it, once or at every turn of a run.

The reals are held out of training where there are any; floors are worked out with other real samples at the same n, and
kept as long as the bench stands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor, nn

from poise.data.source import Bytes, DataEntry, Finite, Loaded
from poise.data.stacked import Stacked
from poise.data.toys import PlaneEntry
from poise.errors import RecipeError
from poise.measure.base import Figure, Measure, Need
from poise.measure.catalogue import Result, Told, taken
from poise.measure.classifier import Progress, silent
from poise.measure.copying import nearest
from poise.measure.features import Extractor, OfClassifier, OfD, Setting, extractor
from poise.measure.modes import Modes, count_modes, count_numbers
from poise.measure.rebuilding import Coder
from poise.measure.sitting import AT_ONCE, Pile, Sitting, bytes_of, pile_of
from poise.randomness import Dice
from poise.sheets import draw, most

ABREAST = 3
MOST, TOYS, STACKS = 5_000, 2_500, 26_000
MOST_TRAINED = 100_000
"""Samples that are measured by default: at most that many pictures, points of the plane, stacks whose modes count."""


class Bench:
    """Real data, ready.

    Args:
        entry: the data's entry, which knows its modes.
        loaded: the data; what it holds out is measured against, else a part of it.
        features: a word for `extractor`.
        n: how many samples are compared; left out, as many as are held out, at most 5,000 (toys 2,500).
        d: gives the discriminator, or says why there is none.
        tell: told of work that takes its time.
        trust_code: whether a Python file may make features.
    """

    def __init__(
        self,
        entry: DataEntry | None,
        loaded: Loaded,
        features: str = "auto",
        n: int | None = None,
        *,
        d: Callable[[], nn.Module] | str = "there is no discriminator here",
        tell: Progress = silent,
        trust_code: bool = False,
    ) -> None:
        self.entry, self.loaded, self.d, self.tell = entry, loaded, d, tell
        self.notes: list[str] = []
        setting = Setting(loaded.train, loaded.held_out, d, tell, trust_code, self.notes.append)
        self.look: Extractor = extractor(features, setting)
        self.given: set[Need] = set()
        self._many_reals = torch.empty(0)
        self._floors: dict[str, Figure | None] = {}
        if isinstance(loaded.train, Finite):
            held_out = loaded.held_out
            self._pictures(loaded.train, held_out if isinstance(held_out, Finite) else None, n)
        else:
            self._points(n or TOYS)
        self.n = len(self.real)
        self.n_modes = min(n or STACKS, len(self._many_reals)) if len(self._many_reals) else self.n

    def measure(
        self,
        samples: Callable[[int], Tensor],
        measures: Sequence[Measure],
        labels: Callable[[int], Tensor | None] = lambda n: None,
        play: Callable[[], float] | None = None,
        coder: Coder | None = None,
    ) -> Result:
        """Measure samples, and say what of it could not be done.

        Args:
            samples: gives n of them: points, or pictures in [-1, 1] or as uint8.
            measures: which.
            labels: of which class the first n samples are meant to be, where that is known.
            play: works out the duality gap of the game they come from.
            coder: rebuilds pictures, if what they come from can.
        """
        n_fakes, asked = self.n, labels(self.n)
        made = samples(max(n_fakes, self.n_modes if self._counts(measures) else 0))
        fakes = made if made.dtype == torch.uint8 else bytes_of(made)
        fake = Pile(fakes[:n_fakes], self.look, None if asked is None else asked[:n_fakes], tell=self.tell)
        sitting = self._sitting(fake, partial(self._modes, fakes), play)
        sitting.coder = coder
        given = set(self.given)
        conditions: dict[Need, bool] = {
            "asked labels": asked is not None,
            "game": play is not None,
            "logits": self.look.classifies,
            "coder": coder is not None,
            "likelihood": coder is not None and coder.bound is not None,
        }
        given.update(need for need, met in conditions.items() if met)
        told, skipped = {}, {}
        for measure in measures:
            self.tell(measure.name, 0.0)
            figure = taken(measure, sitting, given)
            if isinstance(figure, str):
                skipped[measure.name] = figure
            else:
                told[measure.name] = Told(figure, self._floor(measure, given))
        return Result(len(fake), self.look.name, told, skipped, tuple(self.notes) + self._on_modes(told))

    def neighbours(self, samples: Tensor, k: int = 3) -> Bytes:
        """A sheet: samples, each beside the k training pictures nearest to it in features, three such rows abreast.

        Raises:
            RecipeError: it is not known what was trained on.
        """
        if self.train is None:
            raise RecipeError("this run's training pictures have no end", where="--neighbours", cure="leave it out")
        fakes = Pile(bytes_of(samples), self.look, tell=self.tell)
        places = nearest(fakes.features.double(), self.train.features.double(), k).places
        rows = [
            torch.cat((fakes.signed(slice(row, row + 1)), self.train.signed(places[row]))) for row in range(len(fakes))
        ]
        abreast = max(1, min(ABREAST, most(self.loaded.train.shape)[1] // (k + 1)))
        return draw(torch.cat(rows), None, abreast * (k + 1), alpha=getattr(self.entry, "alpha", True))

    def _sitting(self, fake: Pile, count: Callable[[], Modes], play: Callable[[], float] | None = None) -> Sitting:
        classes = len(self.loaded.train.classes)
        return Sitting(fake, self.real, lambda: self.train, count, self._probed, play, classes=classes, tell=self.tell)

    @cached_property
    def _probed(self) -> OfD | None:
        return None if isinstance(self.d, str) else OfD(self.d(), "this run's")

    def _floor(self, measure: Measure, given: set[Need]) -> Figure | None:
        """The measure on real samples, worked out the first time that it is asked for."""
        if measure.name not in self._floors:
            self._floors[measure.name] = self._worked_out(measure, given)
        return self._floors[measure.name]

    def _worked_out(self, measure: Measure, given: set[Need]) -> Figure | None:
        if measure.floor == "none":
            return None
        piles = {"other": (self.other, self.beside), "real": (self.real, self.real), "halves": self._halves()}
        fake, real = piles[measure.floor]
        sitting = self._sitting(fake, partial(self._modes, self._many_reals))
        sitting.real = real
        figure = taken(measure, sitting, given)
        return None if isinstance(figure, str) else figure

    def _halves(self) -> tuple[Pile, Pile]:
        """Every other real sample: they may lie sorted by class."""
        return self.real.part(slice(0, None, 2)), self.real.part(slice(1, None, 2))

    def _pictures(self, train: Finite, held_out: Finite | None, n: int | None) -> None:
        """Which pictures are held against the fakes, and which stand in for them in the floors."""
        source = train if held_out is None else held_out
        if n is not None and n > len(source):
            self.notes.append(f"there are {len(source):,} real pictures to hold against the samples, not {n:,}")
        n = min(n or MOST, len(source))
        if held_out is not None:
            self.given.add("held out")
            self.real = pile_of(held_out, held_out.spread(n), self.look, self.tell)
            self.other, self.beside = pile_of(train, train.spread(n), self.look, self.tell), self.real
        else:
            order = torch.from_numpy(np.random.Generator(np.random.Philox(0)).permutation(len(train)))
            self.real = pile_of(train, order[:n], self.look, self.tell)
            two = len(train) >= 2 * n
            other = pile_of(train, order[n : 2 * n], self.look, self.tell) if two else self.real
            self.other, self.beside = (other, self.real) if two else self._halves()
        if len(self.other) != n:
            self.notes.append(f"floors: {len(self.other):,} real pictures against {len(self.beside):,} others")
        if train.classes:
            self.given.add("labels")
        if not isinstance(self.d, str):
            self.given.add("d")
        if isinstance(train, Stacked):
            if not isinstance(self.look, OfClassifier) or not isinstance(held_out, Stacked):
                return  # nothing here can read the digits
            self.given.add("modes")
            self._many_reals = held_out.take(held_out.spread(STACKS)).images
        else:
            self.given.add("train")

    @cached_property
    def train(self) -> Pile | None:
        """What was trained on, up to 100,000 pictures of it; None where that has no end."""
        train = self.loaded.train
        if not isinstance(train, Finite) or isinstance(train, Stacked):
            return None
        if len(train) > MOST_TRAINED:
            self.notes.append(f"copying is looked for in {MOST_TRAINED:,} of {len(train):,} training pictures")
        return pile_of(train, train.spread(MOST_TRAINED), self.look, self.tell)

    def _points(self, n: int) -> None:
        assert isinstance(self.entry, PlaneEntry)
        dice = Dice(0)
        real, other = (self.entry.points(n, dice("measure", k)) for k in range(2))
        self.real, self.other = Pile(real, self.look), Pile(other, self.look)
        self.beside, self._many_reals = self.real, other
        if self.entry.modes_at() is not None:
            self.given.update(("modes", "centres"))

    def _counts(self, measures: Sequence[Measure]) -> bool:
        return any("modes" in measure.needs for measure in measures) and "modes" in self.given

    def _modes(self, samples: Tensor) -> Modes:
        samples = samples[: self.n_modes]
        if isinstance(self.entry, PlaneEntry):
            found = self.entry.modes_at()
            assert found is not None
            return count_modes(samples, *found)
        assert isinstance(self.look, OfClassifier), "stacks are looked at by a classifier"
        pile, numbers = Pile(samples, self.look), []
        with torch.no_grad():
            for start in range(0, len(samples), AT_ONCE):
                self.tell("counting modes", start / len(samples))
                numbers.append(self.look.numbers(pile.signed(slice(start, start + AT_ONCE))))
        return count_numbers(torch.cat(numbers), len(self.loaded.train.classes))

    def _on_modes(self, told: dict[str, Told]) -> tuple[str, ...]:
        counted = {"modes", "reverse_kl", "high_quality"} & told.keys()
        return (f"modes: of {self.n_modes:,} samples",) if counted and self.n_modes != self.n else ()
