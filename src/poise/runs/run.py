"""A run, opened from its folder: its recipe, its newest save, and samples of it. Works while it still trains."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from poise.core.config import did_you_mean
from poise.core.random_streams import RandomStreams
from poise.core.types import DataSpec, Shape
from poise.data.listing import display_name
from poise.data.source import DataConfig, DataSplits, ToyConfig, loading_memory
from poise.engine.build import build_game
from poise.engine.compute import ComputeSettings
from poise.engine.game import Game
from poise.errors import CheckpointError, RecipeError
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.runs import checkpoint, state_tensors
from poise.runs.code_copies import use_copies
from poise.runs.folder import RunFolder
from poise.runs.generate import generate, labels_by_class, proportional_labels, sample_latents
from poise.runs.reload import reload_data
from poise.user_code.loading import allow_user_code
from poise.utils.image_grid import MAX_CLASS_ROWS, evenly_spaced, grid_capacity

LISTED = 20
"""So many classes are named where one is not known."""


class Run:
    """A finished or running run.

    Args:
        path: the run folder.
        trust_code: whether Python files that its recipe names may run.
        best: whether to take the weights that were measured best, not the newest ones.

    Attributes:
        skipped_checkpoints: a sentence for each save that was passed over, damaged or unfit.

    Raises:
        CheckpointError: it is not one, or its `run.json` is damaged.
    """

    def __init__(self, path: str | Path, *, trust_code: bool = False, best: bool = False) -> None:
        self.trust_code, self.best = trust_code, best
        self.skipped_checkpoints: list[str] = []
        self.folder = RunFolder(Path(path))
        self.path = self.folder.path
        self.info: dict[str, Any] = self.folder.read_info()

    @cached_property
    def recipe(self) -> Recipe:
        """What was trained; Python files of the user's are named by their copies in the run folder.

        Raises:
            CheckpointError: `recipe.toml` is damaged; names the line or the field; or a copy of code is.
        """
        return use_copies(self.folder.parse_recipe(decode), self.folder.code, self.info.get("code", {}))

    @property
    def shape(self) -> Shape:
        """The shape of one sample."""
        return tuple(self.info["data"]["shape"])

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes' names, by number; empty where the data has none."""
        return tuple(self.info["data"]["classes"])

    @property
    def alpha(self) -> bool:
        """Whether the second of two channels is how opaque a pixel is, and not an ink of its own."""
        return getattr(self.recipe.data, "alpha", True)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows so far, as `rows.jsonl` has them."""
        return self.folder.read_rows()

    @property
    def measures(self) -> list[dict[str, Any]]:
        """What was measured so far, as `measures.jsonl` has it."""
        return self.folder.read_measures()

    @property
    def checkpoint(self) -> checkpoint.Checkpoint:
        """The newest save that is whole and fits the recipe, or the best one.

        Raises:
            CheckpointError: there is none; says what is wrong with the others.
        """
        return self._opened[0]

    @property
    def game(self) -> Game:
        """The game as it was saved, on the CPU in float32."""
        return self._opened[1]

    @cached_property
    def _opened(self) -> tuple[checkpoint.Checkpoint, Game]:
        recipe, place = self.recipe, self.folder.best if self.best else self.folder.saves
        allow_user_code(recipe, self.trust_code)
        data_spec = DataSpec(self.shape, len(self.classes), num_samples=self.info["data"]["count"] or 0)
        game = build_game(recipe, data_spec, ComputeSettings(torch.device("cpu"), "fp32"), RandomStreams(recipe.seed))
        constant = state_tensors.non_finite_buffers(game)
        for past in checkpoint.valid_checkpoints(place, self.skipped_checkpoints):
            try:
                state_tensors.refuse_non_finite(past.tensors, constant)
                state_tensors.load_game_tensors(game, past.tensors)
                return past, game
            except CheckpointError as error:
                self.skipped_checkpoints.append(f"{past.path.name}: {error.what}")
        cure = "only a run that measures itself keeps one: [measure] in its recipe" if self.best else ""
        found = "; ".join(self.skipped_checkpoints) or "none at all"
        raise CheckpointError(
            "no valid save", where=str(place), found=found, cure="" if self.skipped_checkpoints else cure
        )

    def load(self, data_root: Path | None = None) -> DataSplits:
        """The data it was trained on.

        Raises:
            DataError: it is not there, or has changed since.
        """
        with loading_memory(self.recipe.data):
            return reload_data(self.recipe.data, self.info["data"]["fingerprint"], self.path, data_root)

    def read_data_from(self, data: DataConfig) -> None:
        """Take the run's data from another place from now on; `load` refuses it if it is other data."""
        self.__dict__["recipe"] = self.recipe.model_copy(update={"data": data})

    def generator(self, *, raw: bool = False) -> nn.Module:
        """The generator that samples come from: the averaged one if there is one, the live one if `raw`."""
        return self.game.sampling_network(raw=raw)

    def latents(self, n: int, seed: int = 0) -> Tensor:
        """n latents; latent i is a function of (seed, i)."""
        return sample_latents(self.recipe.latent, n, RandomStreams(seed), "sample")

    def label(self, word: str) -> int:
        """The number of the class that `word` stands for, see `class_number`.

        Raises:
            RecipeError: this G takes no labels, or there is no such class; names the nearest.
        """
        if self.recipe.labels.g is None:
            raise RecipeError("this run's generator takes no labels", where="--label", cure="leave it out")
        return self.class_number(word, "--label")

    def class_number(self, word: str, where: str) -> int:
        """The number of the class called `word`, or with that number where no class is called by a number.

        Raises:
            RecipeError: there is no such class; names the nearest.
        """
        for name in (word, display_name(word)):  # an odd name is kept as it is shown
            if name in self.classes:
                return self.classes.index(name)
        numbered = any(_number(name) for name in self.classes)
        if not numbered and word.isascii() and word.isdecimal() and int(word) < len(self.classes):
            return int(word)
        cure = did_you_mean(word, list(self.classes)) if self.classes else "the data has no classes"
        if "did you mean" not in cure and len(self.classes) > LISTED:
            cure = f"there are {len(self.classes):,}: {', '.join(self.classes[:LISTED])}, ... (all are in run.json)"
        cure += "; here numbers are names" if numbered and _number(word) else ""
        raise RecipeError("no such class", where=where, found=f"'{word}'", cure=cure)

    @property
    def class_counts(self) -> tuple[int, ...]:
        """Training pictures of each class; equal where the run folder does not say, as older ones don't."""
        return tuple(self.info["data"].get("class_counts") or [1] * len(self.classes))

    def labels(self, n: int, label: int | None = None, seed: int = 0) -> Tensor | None:
        """n labels, B: all `label`, or in the shares of the training pictures; None if G takes none."""
        if self.recipe.labels.g is None:
            return None
        return proportional_labels(n, self.class_counts, seed) if label is None else torch.full((n,), label)

    def labels_by_row(self, n: int) -> Tensor | None:
        """n labels for a grid with one row for each class (see `class_by_class`); None if G takes none."""
        return None if self.recipe.labels.g is None else labels_by_class(n, len(self.classes))

    def grid_labels(self, n: int) -> Tensor | None:
        """Up to n labels for a grid of samples: a row for each class, or for 16 of many; None if G takes none."""
        if self.recipe.labels.g is None:
            return None
        down, across = grid_capacity(self.shape)
        kinds = evenly_spaced(len(self.classes), min(n, MAX_CLASS_ROWS, down))
        return kinds[labels_by_class(min(n, len(kinds) * across), len(kinds))]

    def sample(
        self, n: int, seed: int = 0, *, label: int | None = None, labels: Tensor | None = None, raw: bool = False
    ) -> Tensor:
        """n samples, B x shape, in [-1, 1] for pictures; sample i is a function of (seed, i) and of its label.

        Args:
            n: how many.
            seed: which latents and labels.
            label: all are of this class.
            labels: of which class each is, B; left out, `labels(n, label, seed)`.
            raw: whether the live weights make them, not the averaged ones.
        """
        labels = self.labels(n, label, seed) if labels is None else labels
        return generate(self.generator(raw=raw), self.latents(n, seed), labels, streams=RandomStreams(seed))

    def real(self, n: int) -> Tensor | None:
        """n real points for toys, which need no files; None for pictures."""
        entry = self.recipe.data
        return entry.load().train.preview(n) if isinstance(entry, ToyConfig) else None


def _number(word: str) -> bool:
    return re.fullmatch(r"[-+]?[0-9]+(\.[0-9]*)?", word) is not None
