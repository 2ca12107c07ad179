"""Where a run stands: the game and what goes with it, put together before the first step or taken up from a save."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from poise.core import Moment
from poise.data.source import Loaded
from poise.errors import PoiseError, RecipeError, SaveError
from poise.own.code import code_hash, short
from poise.randomness import Dice
from poise.recipe.model import Recipe
from poise.training import save, state
from poise.training.alone import alone
from poise.training.build import build
from poise.training.feed import Feed
from poise.training.ledger import Ledger
from poise.training.machine import Machine
from poise.training.past import core_hash, pick
from poise.training.step import alternate, simultaneous
from poise.training.vitals import Vitals
from poise.watch.monitor import Monitoring

STEPS = {"alternate": alternate, "simultaneous": simultaneous, "alone": alone}
"""What a step is, by the tempo's style."""


def try_single(recipe: Recipe, machine: Machine, loaded: Loaded) -> None:
    """Where D judges one sample at a time, a step is tried that leaves nothing behind: not every part can do that.

    A norm, a statistic over the batch or the user's own code may want two; what is known of the package's own
    networks is refused by `fit` already.

    Raises:
        RecipeError: the step fails; says how.
    """
    if recipe.batch > recipe.pack:
        return
    try:
        Standing(recipe, machine, loaded).step()
    except (PoiseError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        cure = f"set it to {2 * recipe.pack} or more, or look where with --debug"
        what = f"a step fails with one {'pack' if recipe.pack > 1 else 'sample'} in a batch"
        raise RecipeError(what, where="batch", found=short(error), cure=cure) from error


class Standing:
    """A run at one of its steps.

    Args:
        recipe: what is trained.
        machine: where.
        loaded: on what.

    Attributes:
        done: steps done.
        seconds: what they took.
        setbacks: how often the run had to go back to a save.
        alarms: lines of `alarms.jsonl` at the save that was taken up; None where that does not say.
    """

    def __init__(self, recipe: Recipe, machine: Machine, loaded: Loaded) -> None:
        self.recipe, self.machine, self.loaded = recipe, machine, loaded
        self.how = recipe.monitor or Monitoring()
        self.source, self.dice = loaded.train, Dice(recipe.seed, machine.device)
        self.fingerprint = self.source.fingerprint
        self.setbacks = 0
        self.alarms: int | None = None
        self.begin()

    def begin(self) -> None:
        """Before the first step."""
        self.game = build(self.recipe, self.source.subject(), self.machine, self.dice)
        self.feed = Feed(self.source, self.machine.device, max(1, self.game.tempo.most.d))
        self.ledger = Ledger(self.recipe.objective.undecided)
        self.vitals = Vitals(self.recipe, self.loaded, self.game, self.machine.device)
        self.stepping = STEPS[self.game.tempo.style]
        for player in self.game.players.values():
            _ = player.optimizer  # built before anything is written: what it refuses is an error of the start
        self.done, self.seconds = 0, 0.0
        self.constant = state.constants(self.game)
        self._slow_down()

    def take_up(self, saves: Path) -> list[str]:
        """At the newest save that is whole and of this run; notes on what was passed over, and on another machine.

        Raises:
            SaveError, RecipeError: see `pick`.
        """
        past, passed = pick(saves, self.recipe, self.fingerprint, self._restore)
        self.done, self.seconds = past.step, float(past.state["seconds"])
        self.setbacks = max(self.setbacks, int(past.state.get("setbacks", 0)))
        self.alarms = past.state.get("alarms")
        self._slow_down()
        then, now = past.manifest, self.exactness()
        changed = [f"{key} {then.get(key)} -> {now[key]}" for key in now if then.get(key) != now[key]]
        notes = [f"passed over a damaged save: {sentence}" for sentence in passed]
        return notes + ([f"resumed, but not promised to be exact: {', '.join(changed)}"] if changed else [])

    def _restore(self, past: save.Save) -> None:
        state.refuse_non_finite(past.tensors, self.constant)
        state.restore(self.game, self.ledger, past.tensors)

    def go_back(self, saves: Path) -> None:
        """To the newest save or the beginning, with lower rates."""
        self.setbacks += 1
        self.begin()
        with suppress(SaveError):
            self.take_up(saves)

    @property
    def pace(self) -> float:
        """What both rates are multiplied with."""
        return self.how.back_off**self.setbacks

    def _slow_down(self) -> None:
        for player in self.game.players.values():
            player.pace = self.pace

    def step(self) -> None:
        """One step further."""
        moment = Moment(self.done, self.recipe.steps, self.recipe.batch, self.dice)
        self.dice.settle("step", self.done)
        self.stepping(self.game, self.feed, moment, self.ledger)
        self.done += 1

    def kept(self, seconds: float, alarms: int) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]]:
        """What a save holds: tensors, what goes with them, what it stands on."""
        recipe = self.recipe
        facts = {"recipe": recipe.hash, "core": core_hash(recipe), "data": self.fingerprint, **self.exactness()}
        words = {"seconds": seconds, "setbacks": self.setbacks, "alarms": alarms, "recipe": recipe.core}
        return state.gather(self.game, self.ledger), words, facts

    def exactness(self) -> dict[str, Any]:
        """What exact repetition depends on, beside recipe and data."""
        code = code_hash(self.recipe)
        return self.machine.facts() | ({"code": code} if code else {})

    def unsound(self, net: nn.Module) -> str:
        """The first tensor of a network of the game's that is not finite and should be, by name; empty if none is."""
        root = next((f"game/{name}." for name, module in self.game.named_modules() if module is net), "")
        return save.not_finite({n: t for n, t in net.state_dict().items() if f"{root}{n}" not in self.constant})

    def first_bad(self) -> str:
        """Which gradient was the first that was not finite, in words; nothing if all were."""
        for side, player in self.game.players.items():
            if (found := self.ledger.first_bad(f"{side}/grad_norm")) is not None:
                names = [name for name, weight in player.named_weights() if weight.grad is not None]
                same = found.of == len(names)  # a later step may have had other gradients
                return f"{side.upper()}'s gradient" + (f" of {names[found.place]}" if same else "")
        return ""
