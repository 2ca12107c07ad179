"""A model repository: a folder with a generator, its card and a sample grid. `hub.py` uploads it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from poise.errors import RecipeError
from poise.export.card import card_facts, measured_other_direction, model_card
from poise.export.description import Description
from poise.export.exporter import Export, export_generator
from poise.export.hub import HUB
from poise.runs.code_copies import code_contents
from poise.runs.run import Run
from poise.runs.translate import OneDirection
from poise.utils.files import write_folder
from poise.utils.image_grid import encode_png, grid_by_class, sample_grid
from poise.utils.paths import expand_home
from poise.utils.system import disk_errors, refuse_unwritable_folder

FILES = {
    "README.md": "this card",
    "generator.safetensors": "the weights, with the recipe as metadata; `poise.load_generator` reads it",
    "generator.onnx": "the generator as an ONNX graph with a dynamic batch",
    "generator.pt2": "the generator as a `torch.export` program with a dynamic batch",
    "recipe.toml": "the recipe, with which poise trains the same model on the same data",
    "samples.png": "samples of seed 0",
}
"""The files of a repository, except for the user's Python files."""

SAMPLES = 64


class Repository(NamedTuple):
    """The contents of a model repository.

    Attributes:
        contents: the content of each file by its name.
        notes: messages about what was exported.
        differences: the largest difference from PyTorch of each exported file.
    """

    contents: dict[str, bytes]
    notes: list[str]
    differences: dict[str, float]


def build_repository(
    run: Run,
    formats: Sequence[str],
    *,
    optional: Sequence[str] = (),
    raw: bool = False,
    no_noise: bool = False,
    license: str = "",
    direction: OneDirection | None = None,
) -> Repository:
    """Everything that a repository contains; nothing is written.

    Args:
        run: the run.
        formats: the formats of the generator, keys of `FORMATS`.
        optional: those of them that are left out, with a note, if the generator can't be exported to them.
        raw: whether to use the non-averaged weights.
        no_noise: whether layers that draw random numbers are replaced by their means.
        license: an identifier of the licence, as huggingface.co knows it; empty if it is not stated.
        direction: of a generator that translates both ways, `a_to_b` (the default) or `b_to_a`.

    Raises:
        RecipeError, CheckpointError: see `export_generator`.
    """
    exports, omitted = dict[str, Export](), list[str]()
    for name in formats:
        try:
            exports[f"generator.{name}"] = export_generator(
                run, name, raw=raw, no_noise=no_noise, license=license, direction=direction
            )
        except RecipeError as error:
            if name not in optional:
                raise
            omitted.append(f"no generator.{name}: {error.what}")
    described = next((export.description for export in exports.values()), None)
    description = Description.of(run, raw=raw, license=license) if described is None else described
    notes = _merged_notes({name: export.notes for name, export in exports.items()})
    if run.measures and measured_other_direction(run, description):
        notes.append("the run measured its other direction, so the card has no measures")
    code = code_contents(run.recipe)
    written = {"README.md", "recipe.toml", "samples.png", *exports}
    files = {name: content for name, content in FILES.items() if name in written}
    files |= dict.fromkeys(code, "code of the network, which runs only with `trust_code=True`")
    inputs = next((export.inputs for export in exports.values()), ())
    noise_dim = max((export.description.noise_dim for export in exports.values()), default=0)
    card = model_card(description, card_facts(run, description, notes, files, inputs, noise_dim))
    contents = {
        "README.md": sign_card(card).encode(),
        "recipe.toml": description.recipe.to_toml().encode(),
        "samples.png": _sample_png(run, raw=raw),
        **{name: export.data for name, export in exports.items()},
        **code,
    }
    return Repository(
        contents, notes + omitted, {name: export.comparison.difference for name, export in exports.items()}
    )


def _merged_notes(notes: Mapping[str, Sequence[str]]) -> list[str]:
    """The notes on several files, each once; one that does not hold for all of them names those that it holds for."""
    merged = list[str]()
    for note in dict.fromkeys(chain.from_iterable(notes.values())):
        about = [name for name, own in notes.items() if note in own]
        merged.append(note if len(about) == len(notes) else f"{' and '.join(about)}: {note}")
    return merged


def _sample_png(run: Run, *, raw: bool) -> bytes:
    """A sample grid, with one row per class if G is conditional."""
    if not run.view.is_plain:
        n = max(1, SAMPLES // run.view.images_per_sample)
        return encode_png(run.view.draw(run.sample_images(n, raw=raw)))
    labels = run.grid_labels(SAMPLES)
    samples, columns = run.sample(SAMPLES if labels is None else len(labels), labels=labels, raw=raw), None
    if labels is not None:
        samples, columns = grid_by_class(samples, labels)
    return encode_png(sample_grid(samples, run.real(2000), columns, alpha=run.alpha))


def sign_card(card: str) -> str:
    """A card with a comment at its end that has the SHA-256 of the rest, by which a later edit is noticed."""
    return f"{card.rstrip()}\n\n<!-- poise: {hashlib.sha256(card.rstrip().encode()).hexdigest()} -->\n"


def is_edited(card: str) -> bool:
    """Whether a card is not as `sign_card` returned it."""
    return sign_card(card.rpartition("\n\n<!-- poise: ")[0]) != card


def local_folder(target: str) -> Path | None:
    """The folder that a target names; None if it names a repository on huggingface.co.

    A folder is a path that exists, is absolute, or begins with `./`, `../` or `~`. Everything else is a repository,
    `NAME` or `OWNER/NAME`, as is `hf://OWNER/NAME`.

    Raises:
        RecipeError: it could be either, as its first part is a folder here.
    """
    if target.startswith(HUB):
        return None
    path = expand_home(target)
    if path.is_absolute() or path.exists() or re.match(r"\.{1,2}([/\\]|$)|.*[/\\]$", target):
        return path
    if path.parent != Path() and Path(path.parts[0]).exists():
        cure = f"write ./{target} for the folder or {HUB}{target} for the repository"
        raise RecipeError(
            "could be a folder or a repository on huggingface.co", where="REPO_OR_DIR", found=f"'{target}'", cure=cure
        )
    return None


def check_folder(folder: Path, code: Collection[str] | None = None) -> None:
    """Check that a folder may be written: it does not exist, is empty, or contains only what `poise push` writes.

    Args:
        folder: the folder.
        code: the names of the Python files that will be written; None if they are not known yet.

    Raises:
        RecipeError: it may not, or its README.md was edited.
        DiskError: files can't be created beside it.
    """
    where, found = "REPO_OR_DIR", f"'{folder}'"
    refuse_unwritable_folder(folder.absolute().parent, where)
    if not folder.exists():
        return
    if not folder.is_dir():
        raise RecipeError("is a file", where=where, found=found, cure="name a folder")
    if Path.cwd().resolve().is_relative_to(folder.resolve()):
        cure = "name a new folder in it"
        raise RecipeError("is the folder that the command runs in", where=where, found=found, cure=cure)
    names = {entry.name for entry in folder.iterdir()}
    foreign = {name for name in names - FILES.keys() if not (name.endswith(".py") if code is None else name in code)}
    card = folder / "README.md"
    ours = not names or (
        not foreign and card.is_file() and 'library_name: "poise"' in card.read_text("utf-8", "replace")
    )
    if not ours:
        what = "the folder has files that poise push did not write"
        cure = "name a new or an empty folder"
        raise RecipeError(what, where=where, found=found, cure=cure)
    if card.is_file() and is_edited(card.read_text("utf-8", "replace")):
        what = "its README.md is not as poise push wrote it, and would be replaced"
        cure = "move the file away first, or name a new folder"
        raise RecipeError(what, where=where, found=found, cure=cure)


def write_repository(repository: Repository, folder: Path) -> None:
    """Write the repository as a folder, atomically; an earlier one is replaced.

    Raises:
        RecipeError: see `check_folder`.
        DiskError: the folder can't be written.
    """
    check_folder(folder, repository.contents)
    with disk_errors(folder):
        write_folder(folder.resolve(), repository.contents)
