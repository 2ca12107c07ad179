"""A bench: real data made ready, so that samples can be measured against it, once or at every turn of a run.

The reals are held out of training where there are any (`reals.py` draws them); floors are worked out with other real
samples at the same n, and kept as long as the bench stands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from statistics import fmean, stdev

import torch
from torch import Tensor, nn

from poise.data.source import Bytes, DataEntry, Finite, Loaded
from poise.data.stacked import Stacked
from poise.data.toys import PlaneEntry
from poise.errors import RecipeError
from poise.measure.base import Figure, Floor, Measure, Need, Stand
from poise.measure.catalogue import Result, Told, taken
from poise.measure.copying import nearest
from poise.measure.features import Extractor, OfClassifier, OfD, Setting, extractor
from poise.measure.modes import Modes, count_modes, count_numbers
from poise.measure.reals import Draw, Reals, held_out_reals, parted_reals, points, shuffled
from poise.measure.rebuilding import Coder
from poise.measure.sitting import AT_ONCE, Pile, Sitting, bytes_of, pile_of
from poise.progress import Progress, silent
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
        n: how many samples are compared; left out, as many as are held out, or where nothing is, half of all; at most
            5,000 (toys 2,500).
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
        self._floors: dict[str, Floor | None] = {}
        self._sittings: dict[Stand, list[Sitting]] = {}
        self.reals = self._drawn(n)
        self.real, self.n = self.reals.real, len(self.reals.real)
        self.notes += self.reals.notes
        many = self.reals.many
        self.n_modes = min(n or STACKS, len(many)) if len(many) else self.n

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
            some = self._halved(sitting) if measure.floor == "halves" and measure.needs <= given else sitting
            figure = taken(measure, some, given)
            if isinstance(figure, str):
                skipped[measure.name] = figure
            else:
                n = self.n_modes if "modes" in measure.needs else len(some.fake)
                told[measure.name] = Told(figure, self._floor(measure, given), None if n == self.n else n)
        return Result(len(fake), self.look.name, told, skipped, (*self.notes, *self._notes_on(told, measures)))

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

    def _halved(self, sitting: Sitting) -> Sitting:
        """The first of the fakes, against as many reals as leave others of the held-out ones for a floor."""
        real = self.reals.copying[0].real
        return replace(sitting, fake=sitting.fake.part(slice(len(real))), real=real)

    def _floor(self, measure: Measure, given: set[Need]) -> Floor | None:
        """The measure on real samples, worked out the first time that it is asked for; None if there is none."""
        if measure.name not in self._floors:
            self._floors[measure.name] = self._worked_out(measure, given)
        return self._floors[measure.name]

    def _worked_out(self, measure: Measure, given: set[Need]) -> Floor | None:
        sittings = self._stand_ins(measure.floor)
        if measure.slow or (self.stacks and "modes" in measure.needs):
            sittings = sittings[:1]  # a training, or thousands of stacks to be read, for each
        figures = [taken(measure, sitting, given) for sitting in sittings]
        values = [figure.value for figure in figures if isinstance(figure, Figure)]
        return Floor(fmean(values), stdev(values) if len(values) > 1 else None) if values else None

    def _stand_ins(self, stand: Stand) -> list[Sitting]:
        """Sittings with real samples in the fakes' place, the same ones for all measures: much is worked out once."""
        if stand not in self._sittings:
            draws = {
                "other": lambda: self.reals.draws,
                "real": lambda: [Draw(self.real, self.real)],
                "halves": lambda: self.reals.copying,
                "none": list[Draw],
            }
            self._sittings[stand] = [self._beside(draw) for draw in draws[stand]()]
        return self._sittings[stand]

    def _beside(self, draw: Draw) -> Sitting:
        counted = draw.fake.samples if isinstance(self.entry, PlaneEntry) else self.reals.many
        return replace(self._sitting(draw.fake, partial(self._modes, counted)), real=draw.real)

    @property
    def stacks(self) -> bool:
        """Whether the samples are stacks, of which more are counted than compared."""
        return isinstance(self.loaded.train, Stacked)

    def _drawn(self, n: int | None) -> Reals:
        """Which real samples are held against the fakes, and which stand in for them in the floors."""
        train, held_out = self.loaded.train, self.loaded.held_out
        if not isinstance(train, Finite):
            assert isinstance(self.entry, PlaneEntry)
            if self.entry.modes_at() is not None:
                self.given.update(("modes", "centres"))
            return points(self.entry, n or TOYS, self.look)
        if train.classes:
            self.given.add("labels")
        if not isinstance(self.d, str):
            self.given.add("d")
        if not isinstance(train, Stacked):
            self.given.add("train")
        if not isinstance(held_out, Finite):
            return parted_reals(train, n, MOST, self.look, self.tell)
        self.given.add("held out")
        reals = held_out_reals(train, held_out, n, MOST, self.look, self.tell)
        if isinstance(held_out, Stacked) and isinstance(self.look, OfClassifier):  # it can read the digits
            self.given.add("modes")
            reals.many = held_out.take(shuffled(len(held_out))[:STACKS]).images
        return reals

    @cached_property
    def train(self) -> Pile | None:
        """What was trained on, up to 100,000 pictures of it; None where that has no end."""
        train = self.loaded.train
        if not isinstance(train, Finite) or isinstance(train, Stacked):
            return None
        if len(train) > MOST_TRAINED:
            self.notes.append(f"copying is looked for in {MOST_TRAINED:,} of {len(train):,} training pictures")
        return pile_of(train, train.spread(MOST_TRAINED), self.look, self.tell)

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

    def _notes_on(self, told: dict[str, Told], measures: Sequence[Measure]) -> list[str]:
        """Which figures are of another number of samples, and why some have no floor."""
        notes, stands = [], {measure.name: measure.floor for measure in measures if measure.name in told}
        if {"modes", "reverse_kl", "high_quality"} & told.keys() and self.n_modes != self.n:
            notes.append(f"modes: of {self.n_modes:,} samples")
        for name, stand in stands.items():
            if stand == "halves" and (n := told[name].n) is not None:
                notes.append(f"{name}: of {n:,} samples, for the other held-out pictures are kept for its floor")
        if self.reals.no_floor and "other" in stands.values():
            notes.append(f"no floor for most: {self.reals.no_floor}")
        return notes
