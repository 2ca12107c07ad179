"""A run opened from its folder: its recipe, its newest checkpoint and samples. Works while it is still training."""

from __future__ import annotations

import shlex
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from poise.core.random_streams import RandomStreams
from poise.core.types import DataSpec, Shape
from poise.data.config import DataConfig, ToyConfig, loading_memory
from poise.data.source import DataSplits
from poise.engine.batches import StartingSamples, sampling_latent
from poise.engine.build import build_game
from poise.engine.compute import ComputeSettings
from poise.engine.game import Game
from poise.errors import CheckpointError, DataError, RecipeError
from poise.latents import Latent
from poise.networks.translation import Domain, GeneratedPart, generated_part, generated_parts
from poise.recipe.decode import decode
from poise.recipe.model import Recipe, with_free_fields
from poise.recipe.toml import parse_toml
from poise.runs import checkpoint, checkpoint_folder, state_tensors
from poise.runs.code_copies import use_copies
from poise.runs.folder import RunFolder
from poise.runs.generate import generate, latent_block, sample_latents
from poise.runs.labels import (
    MAX_LISTED,
    check_label,
    check_labels,
    check_number,
    class_number,
    labels_by_class,
    proportional_labels,
)
from poise.runs.reload import reload_data, root_of_run
from poise.runs.remote_runs import open_remote_run
from poise.runs.sample_view import SampleView
from poise.runs.translate import OneDirection, Translator
from poise.truncation import check_truncation, truncated_layers
from poise.user_code.loading import allow_user_code
from poise.utils.image_grid import MAX_CLASS_ROWS, evenly_spaced, grid_capacity


class Run:
    """A finished or running run.

    Args:
        path: the run folder, or the URL of one in an object store, such as `s3://bucket/runs/x`, of which the needed
            files are then fetched into the cache folder.
        trust_code: whether Python files that its recipe names may be executed.
        best: whether to load the checkpoint with the best measured value instead of the newest one.

    Attributes:
        skipped_checkpoints: a message for each checkpoint that was skipped because it is damaged or does not fit.

    Raises:
        CheckpointError: this is not a run folder, or its `run.json` is damaged.
        RecipeError, DiskError: the object store can't be read (`utils.remote.RemoteFolder`).
    """

    def __init__(self, path: str | Path, *, trust_code: bool = False, best: bool = False) -> None:
        self.trust_code, self.best = trust_code, best
        self.skipped_checkpoints: list[str] = []
        self._data_root: Path | None = None
        self._remote = open_remote_run(path)
        self.folder = RunFolder(Path(path) if self._remote is None else self._remote.local)
        self.path = self.folder.path
        self.info: dict[str, Any] = self.folder.read_info()

    def __repr__(self) -> str:
        best = ", best checkpoint" if self.best else ""
        return f"Run({str(self.path)!r}, {self.info.get('state')} at step {self.info.get('step', 0):,}{best})"

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe; paths of user code are those of the copies in the run folder.

        Raises:
            CheckpointError: `recipe.toml` is damaged (names the line or the field), or a copy of user code is.
        """
        return use_copies(self.folder.parse_recipe(decode), self.folder.code, self.info.get("code", {}))

    @property
    def shape(self) -> Shape:
        """The shape of one sample."""
        return tuple(self.info["data"]["shape"])

    @property
    def parts(self) -> tuple[int, ...]:
        """The number of channels of each domain in a sample; empty for ordinary data."""
        return tuple(self.info["data"].get("parts", ()))

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes by label; empty if the data has none."""
        return tuple(self.info["data"]["classes"])

    @property
    def alpha(self) -> bool:
        """Whether the second of two channels, of an image or of that of a domain, is an alpha channel."""
        return bool(self.parts) or getattr(self.recipe.data, "alpha", True)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of `rows.jsonl` so far."""
        if self._remote is not None:
            self._remote.fetch(self.folder.rows.relative_to(self.path).as_posix())
        return self.folder.read_rows()

    @property
    def measures(self) -> list[dict[str, Any]]:
        """The lines of `measures.jsonl` so far."""
        return self.folder.read_measures()

    @property
    def checkpoint(self) -> checkpoint.Checkpoint:
        """The newest valid checkpoint that fits the recipe, or the best one.

        Raises:
            CheckpointError: there is none; names the skipped ones with their defects.
        """
        return self._opened[0]

    @property
    def game(self) -> Game:
        """The game with the state of the checkpoint, on the CPU in float32."""
        return self._opened[1]

    @cached_property
    def _opened(self) -> tuple[checkpoint.Checkpoint, Game]:
        allow_user_code(self.recipe, self.trust_code)
        folder = self.folder.best if self.best else self.folder.saves
        if (opened := self._open_newest(folder, self.skipped_checkpoints)) is not None:
            return opened
        found = "; ".join(self.skipped_checkpoints) or "none at all"
        cure = self._cure_of_damage() if self.skipped_checkpoints or self._has_saved else self._when_due()
        if not self.skipped_checkpoints and self._has_saved:
            found = "none at all; the run has written some, which were deleted or not copied with it"
        raise CheckpointError("no valid checkpoint", where=str(folder), found=found, cure=cure)

    def _open_newest(self, folder: Path, skipped: list[str]) -> tuple[checkpoint.Checkpoint, Game] | None:
        """The newest checkpoint of a folder that is valid and fits, and its game; None if there is none.

        A message for each newer one is appended to `skipped`.
        """
        recipe, count = self.recipe, self.info["data"]["count"] or 0
        data_spec = DataSpec(self.shape, len(self.classes), num_samples=count, parts=self.parts)
        cpu, game = ComputeSettings(torch.device("cpu"), "fp32"), None
        for candidate in checkpoint_folder.valid_checkpoints(folder, skipped, self._fetch_tensors):
            if game is None or self._may_have_changes(candidate):
                recipe = self._recipe_of(candidate)
                game = build_game(recipe, data_spec, cpu, RandomStreams(recipe.seed))
            allowed = state_tensors.non_finite_buffers(game)
            try:
                state_tensors.refuse_non_finite(candidate.tensors, allowed)
                state_tensors.load_game_tensors(game, candidate.tensors)
                return candidate, game
            except CheckpointError as error:
                skipped.append(f"{candidate.path.name}: {error.what}")
        return None

    def _cure_of_damage(self) -> str:
        """Which other checkpoint can be used if none in `saves/`, or in `best/`, can be; empty if there is none."""
        other, option = (self.folder.saves, "leave out") if self.best else (self.folder.best, "add")
        if (opened := self._open_newest(other, [])) is not None:
            return f"{opened[0].path} is intact: {option} --best"
        if not self.best and (opened := self._open_newest(self.folder.kept, [])) is not None:
            return checkpoint_folder.how_to_use(opened[0].path, self.folder.saves)
        return ""

    @property
    def _has_saved(self) -> bool:
        """Whether the run has written a checkpoint to `saves/`, or to `best/`, according to its `run.json`."""
        return "best" in self.info if self.best else self.info.get("state") in ("done", "stopped")

    def _when_due(self) -> str:
        """When a run writes the first checkpoint to `saves/`, or to `best/`."""
        measure, steps, done = self.recipe.measure, self.recipe.steps, int(self.info.get("step", 0))
        if not self.best:
            return f"a run saves its first one at step {self.recipe.log.saves:,}, or when it is stopped with Ctrl-C"
        if measure is None:
            return "only a run that is evaluated during training has one: [measure] in its recipe"
        if done >= steps:
            return "none of its measurements has led to one: leave out --best"
        due = min(steps, (done // measure.every + 1) * measure.every)
        return f"the next measurement, which may lead to one, is due at step {due:,}: leave out --best until then"

    def _may_have_changes(self, candidate: checkpoint.Checkpoint) -> bool:
        """Whether the checkpoint may be of another recipe than `recipe.toml`, because of the policy `advise`."""
        return bool(candidate.state.get("changes") or self.info.get("changes"))

    def _recipe_of(self, candidate: checkpoint.Checkpoint) -> Recipe:
        """The recipe of a checkpoint."""
        if not self._may_have_changes(candidate):
            return self.recipe
        core = parse_toml(str(candidate.state["recipe"]), str(candidate.path))
        recipe = decode(with_free_fields(core, self.recipe))
        return use_copies(recipe, self.folder.code, self.info.get("code", {}))

    def _fetch_tensors(self, path: Path) -> None:
        """Fetch the tensors of a checkpoint from the object store, if the run is in one."""
        if self._remote is not None:
            self._remote.fetch((path / checkpoint.TENSORS).relative_to(self.path).as_posix())

    def load(self, data_root: Path | None = None) -> DataSplits:
        """Load the data that the run was trained on.

        Args:
            data_root: the folder in which named data sets are looked for; by default that of `read_data_from`, or else
                that of the training.

        Raises:
            DataError: the data is missing or has changed.
        """
        data, root = self.recipe.data, data_root or self._data_root
        with loading_memory(data):
            root = root_of_run(root, self.info, data, self.path)
            return reload_data(data, self.info["data"]["fingerprint"], self.path, root)

    def read_data_from(self, data: DataConfig | None = None, data_root: Path | None = None) -> None:
        """Set another place that `load` reads the data from; `load` still refuses data that differs.

        Args:
            data: the data at its new place; None if it has not moved.
            data_root: the folder in which named data sets are looked for.
        """
        self._data_root = data_root
        if data is not None:
            self.__dict__["recipe"] = self.recipe.model_copy(update={"data": data})

    def generator(self, *, raw: bool = False) -> nn.Module:
        """G in evaluation mode, as samples are generated: with averaged weights if there are any and not `raw`."""
        return self.game.sampling_network(raw=raw).eval()

    @cached_property
    def latent(self) -> Latent:
        """The distribution of the latents; a G that starts from samples of the data gets held-out ones.

        Raises:
            DataError: it does, and the data is missing or has changed.
        """
        latent = self.recipe.latent
        return latent if latent.is_space else sampling_latent(latent, self._starting_data, torch.device("cpu"))

    def check_space(self) -> None:
        """Refuse to interpolate or to search where there is no space of latents, or where a sample is two images.

        Raises:
            RecipeError: there is none, see `Latent.is_space`; or G generates an image of each domain.
        """
        latent, run = self.recipe.latent, shlex.quote(str(self.path))
        if latent.is_space:
            if len(self.shape) == 3 and len(self.parts) == 2:
                what = "a sample of this generator is two images, one of each domain, which can't be shown as one"
                raise RecipeError(what, where=str(self.path), cure=f"see both of them: poise sample {run}")
            return
        label = " --label CLASS" if self.recipe.labels.g is not None else ""
        cure = f"give it your own images: poise translate {run} --data DIR --out DIR{label}"
        if len(self.shape) != 3:
            cure = f"see what it makes of them: poise sample {run}"
        what = "this generator translates images: it has no latent space to move in"
        raise RecipeError(what, where="latent.kind", found=f"'{latent.tag()}'", cure=cure)

    def starting_notes(self, n: int, domain: Domain | None = None) -> list[str]:
        """What should be known of the images that n samples start from, see `StartingSamples.notes`; for messages.

        Args:
            n: the number of samples.
            domain: the domain of the samples of a G that translates both ways; by default both are looked at.
        """
        direction = self.recipe.network.direction
        if direction is None:
            return []
        parts = generated_parts(direction, self.parts) if domain is None else [self.generated_part(domain)]
        return StartingSamples(self._starting_data).notes(n, [part.source_index for part in parts])

    @cached_property
    def _starting_data(self) -> DataSplits:
        """The data, for a G that starts from samples of it."""
        return self.load()

    @cached_property
    def view(self) -> SampleView:
        """How samples are looked at.

        Raises:
            DataError: G starts from samples of the data, and it is missing or has changed.
        """
        direction = self.recipe.network.direction
        if direction is None:
            return SampleView(None, self.parts, alpha=self.alpha)
        return SampleView.of(self.recipe, self._starting_data)

    @property
    def generated_shape(self) -> Shape:
        """The shape of what `sample` returns: that of a sample, or of the part of it that G generates."""
        return self.generated_part().shape_of(self.shape)

    def generated_part(self, domain: Domain | None = None) -> GeneratedPart:
        """The part of a sample that G generated, see `networks.translation.generated_part`."""
        return generated_part(self.recipe.network.direction, self.parts, domain)

    def latents(self, n: int, seed: int = 0) -> Tensor:
        """n latents, n x dim; latent i is a function of (seed, i).

        Those of a G that translates are held-out samples of the data with both domains, n x (C_a + C_b) x H x W.

        Raises:
            DataError: G translates, and the data is missing or has changed.
        """
        return sample_latents(self.latent, n, RandomStreams(seed), "sample")

    def label(self, word: str) -> int:
        """The label of the class that `word` names, see `class_number`.

        Raises:
            RecipeError: the generator takes no labels, or there is no such class; suggests the nearest name.
        """
        if self.recipe.labels.g is None:
            raise RecipeError("this run's generator takes no labels", where="--label", cure="leave it out")
        return self.class_number(word, "--label")

    def class_number(self, word: str, where: str) -> int:
        """The label of a class of this run, see `labels.class_number`."""
        return class_number(word, self.classes, where)

    @property
    def class_counts(self) -> tuple[int, ...]:
        """The number of training samples of each class; equal ones for runs of older versions, which lack them."""
        return tuple(self.info["data"].get("class_counts") or [1] * len(self.classes))

    def labels(self, n: int, label: int | str | None = None, seed: int = 0) -> Tensor | None:
        """n labels, int64, n: all `label`, or in the proportions of the training samples; None if G takes none.

        Raises:
            RecipeError: G takes no labels and there is a `label`, there is no class of this number or name, or n is
                negative.
        """
        check_number(n)
        if label is not None:
            return torch.full((n,), self._number_of(label))
        return None if self.recipe.labels.g is None else proportional_labels(n, self.class_counts, seed)

    def _number_of(self, label: int | str) -> int:
        """The label of the class that a caller of this class has named or numbered.

        Raises:
            RecipeError: G takes none, or there is no such class.
        """
        if self.recipe.labels.g is None:
            raise RecipeError("this run's generator takes no labels", where="label", cure="leave it out")
        return check_label(label, self.classes)

    def _checked(self, labels: Tensor | list[int], n: int) -> Tensor:
        """The labels of n samples that a caller chose.

        Raises:
            RecipeError: G takes none, or they are not n labels of classes.
        """
        if self.recipe.labels.g is None:
            raise RecipeError("this run's generator takes no labels", where="labels", cure="leave them out")
        return check_labels(labels, n, len(self.classes))

    def _labels_of(self, n: int, seed: int, label: int | str | None, labels: Tensor | None) -> Tensor | None:
        """The labels of n samples: those that the caller chose, or all `label`, or see `labels`.

        Raises:
            RecipeError: both are given, or see `labels` and `_checked`.
        """
        if label is not None and labels is not None:
            raise RecipeError("give either label or labels", where="label", found=repr(label)[:60])
        return self.labels(n, label, seed) if labels is None else self._checked(labels, n)

    def labels_by_row(self, n: int) -> Tensor | None:
        """n labels for a grid with one row per class (see `labels_by_class`); None if G takes none."""
        return None if self.recipe.labels.g is None else labels_by_class(n, len(self.classes))

    def grid_labels(self, n: int) -> Tensor | None:
        """Up to n labels for a sample grid with one row per class, for at most 16 classes; None if G takes none."""
        if self.recipe.labels.g is None:
            return None
        rows, columns = grid_capacity(self.shape)
        classes = evenly_spaced(len(self.classes), min(n, MAX_CLASS_ROWS, rows))
        return classes[labels_by_class(min(n, len(classes) * columns), len(classes))]

    def labels_of_grid(self, rows: int, columns: int) -> Tensor | None:
        """The labels of a grid of rows x columns in which each row has one class; None if G takes none.

        If there are fewer classes than rows, a class has several rows; if there are more, they are evenly spaced.
        """
        if self.recipe.labels.g is None:
            return None
        few = len(self.classes) <= rows
        by_row = labels_by_class(rows, len(self.classes)) if few else evenly_spaced(len(self.classes), rows)
        return by_row.repeat_interleave(columns)

    def sample(
        self,
        n: int,
        seed: int = 0,
        *,
        label: int | str | None = None,
        labels: Tensor | None = None,
        raw: bool = False,
        truncation: float = 1.0,
        domain: Domain | None = None,
    ) -> Tensor:
        """n samples, n x shape, in [-1, 1] for images; sample i is a function of (seed, i) and of its label.

        A G that translates starts from held-out images of the data, in an order that depends on the seed, and a sample
        is what it makes of one of them; `sample_images` also returns that image.

        Args:
            n: the number of samples.
            seed: the seed of the latents and labels.
            label: the class of all samples, by its name or its number.
            labels: the label of each sample, int64, n; defaults to `labels(n, label, seed)`.
            raw: whether to use the non-averaged weights.
            truncation: above 0 and at most 1. Smaller values give better samples of less variety: StyleGAN2 moves w
                towards its mean, other generators get truncated latents (`poise.latents.Latent.truncate`).
            domain: the domain of the samples of a G that translates both ways, a or b; b by default.

        Raises:
            RecipeError: the latents of this run can't be truncated, it generates no images of the domain, n is
                negative, G takes no labels, the labels are not those of n samples, or both `label` and `labels` are
                given.
            DataError: G translates, and the data is missing or has changed.
        """
        part, latents = self.generated_part(domain), self.latents(n, seed)
        labels = self._labels_of(n, seed, label, labels)
        samples = self._generate(latents, labels, RandomStreams(seed), raw=raw, truncation=truncation)
        return part.of(samples)

    def sample_images(
        self,
        n: int,
        seed: int = 0,
        *,
        label: int | str | None = None,
        labels: Tensor | None = None,
        raw: bool = False,
        truncation: float = 1.0,
    ) -> dict[str, Tensor]:
        """The images that n samples consist of, by name: see `SampleView`; just `images` or `points` if it is one each.

        The arguments are those of `sample`.
        """
        if self.view.direction is None:
            samples = self.sample(n, seed, label=label, labels=labels, raw=raw, truncation=truncation)
            return self.view.split(samples)
        latents = self.latent.truncate(self.latents(n, seed), truncation)
        labels = self._labels_of(n, seed, label, labels)
        return self.view.generate(self.generator(raw=raw), latents, labels, RandomStreams(seed))

    def translator(
        self, direction: OneDirection | None = None, *, label: int | str | None = None, raw: bool = False
    ) -> Translator:
        """The generator as a function of images, if it starts from images.

        Args:
            direction: of a G that translates both ways, `a_to_b` (the default) or `b_to_a`.
            label: the class of all images, by its name or its number, if G takes labels.
            raw: whether to use the non-averaged weights.

        Raises:
            RecipeError: G does not translate images, or not in this direction, or needs a label.
        """
        if self.recipe.network.direction is not None and len(self.shape) != 3:
            what = "this run's generator translates vectors, not images"
            cure = "to map files of vectors: poise align SRC TGT"
            raise RecipeError(what, where=str(self.path), found=self.recipe.name, cure=cure)
        number = None if label is None else self._number_of(label)
        translator = Translator(self.generator(raw=raw), self.recipe, self.shape, self.parts, direction, number)
        if label is None and self.recipe.labels.g is not None:
            names = ", ".join(self.classes[:MAX_LISTED])
            what, cure = "this run's generator translates to a class", f"give the label of one of them: {names}"
            raise RecipeError(what, where="--label", cure=cure)
        return translator

    def translate(
        self,
        images: Tensor,
        *,
        direction: OneDirection | None = None,
        label: int | str | None = None,
        seed: int = 0,
        raw: bool = False,
    ) -> Tensor:
        """What G makes of images, B x C' x H x W in [-1, 1].

        Args:
            images: B x C x H x W in [-1, 1], with the channels of the domain that is translated from. Height and width
                are those of the data or, if the network allows it, others (`TranslatorConfig.size_multiple`).
            direction: see `translator`.
            label: see `translator`.
            seed: the seed of layers that draw random numbers when G generates.
            raw: see `translator`.

        Raises:
            RecipeError: see `translator`; or images of this shape can't be translated.
        """
        return self.translator(direction, label=label, raw=raw)(images, seed)

    def sample_block(
        self,
        number: int,
        seed: int = 0,
        *,
        labels: Tensor | None = None,
        raw: bool = False,
        truncation: float = 1.0,
        whole: bool = False,
    ) -> Tensor:
        """The samples of one block, those from index number * BLOCK on; equal to those of `sample`.

        Args:
            number: the number of the block.
            seed: the seed of the latents.
            labels: their labels, at most as many as a block has samples; None if G takes none.
            raw: see `sample`.
            truncation: see `sample`.
            whole: whether to return samples with all their domains instead of the part that `sample` returns.

        Raises:
            RecipeError, DataError: see `sample`.
        """
        streams = RandomStreams(seed)
        latents = latent_block(self.latent, number, streams, "sample")
        samples = self._generate(latents, labels, streams, raw=raw, truncation=truncation, first_block=number)
        return samples if whole else self.generated_part().of(samples)

    def _generate(
        self,
        latents: Tensor,
        labels: Tensor | None,
        streams: RandomStreams,
        *,
        raw: bool,
        truncation: float,
        first_block: int = 0,
    ) -> Tensor:
        check_truncation(truncation)
        net = self.generator(raw=raw)
        with truncated_layers(net, truncation) as by_layers:
            if truncation < 1 and not by_layers:
                latents = self.latent.truncate(latents, truncation)
            return generate(net, latents, labels, streams=streams, first_block=first_block)

    def real(self, n: int) -> Tensor | None:
        """n real samples of toy data, n x 2 for points in the plane, in the units of the data.

        None for images, and for data whose file is gone or has changed.
        """
        if isinstance(self.recipe.data, ToyConfig):
            with suppress(DataError):
                return self.load().train.preview(n)
        return None
