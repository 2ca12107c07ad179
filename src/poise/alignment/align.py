"""`poise align`: map one set of vectors onto another without known pairs, and write the results.

map.npy           the matrix W, d x d: a normalised source x, a column, is mapped to W x
dictionary.tsv    the best translations of the most frequent sources: source, target, CSLS
mapped.EXT        the normalised sources, mapped, in the format of the sources' file
target.EXT        the normalised targets, among which the mapped sources lie, in the format of theirs
align.json        how the map was found, and how good it is
search.npz        the best map of the search and all evaluations, from which it is continued
align.lock        is locked while an alignment writes to the folder
start-1, ...      the run folders of the adversarial training
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from poise.alignment.dictionary import KnownPairs, Precision, find_pairs, precision, read_dictionary
from poise.alignment.neighbours import mean_similarities, nearest_by_csls, unit_rows
from poise.alignment.record import FILE, Evaluation, SearchRecord, read_record
from poise.alignment.refinement import apply_map, held_out_agreement, num_pairs, refine, share_of_pairs
from poise.alignment.search import ROUNDS, Found, fingerprint_of, search
from poise.data.vectors import TwoSets, VectorsConfig, VectorSetsConfig
from poise.data.word_vectors import WordVectors, format_of, write_word_vectors
from poise.errors import RecipeError, Stopped
from poise.networks.linear import LinearMapConfig
from poise.recipe.model import Recipe
from poise.runs.folder import unused_name
from poise.training.listener import ProgressListener
from poise.training.signals import Signals
from poise.utils.files import open_atomic, write_json, write_text
from poise.utils.locks import claimed_folder
from poise.utils.printing import count_noun
from poise.utils.progress import reporting

RECIPE = "align"
TRANSLATED = 10_000
"""The number of most frequent sources in `dictionary.tsv`."""

TRANSLATIONS = 5
"""The number of translations of each of them."""

STARTS = 10
"""The largest number of random starts, unless another one is given."""

LOCK = "align.lock"
CHECKPOINTS = "start-*/saves/step-*"
"""The checkpoints of the starts, in the folder of the results."""

KS = (1, 5)
"""The k of P@k."""


class Alignment(NamedTuple):
    """A finished alignment.

    Attributes:
        folder: where its files are.
        map: W, d x d: a normalised source x, a column, is mapped to W x.
        found: the search that led to it.
        refined: the evaluation of `map`, which was refined once more with all vectors.
        precision: P@1 and P@5 of the dictionary that was given.
        known: the words that they were computed from.
        notes: sentences on what was left out or changed when the files were read.
    """

    folder: Path
    map: Tensor
    found: Found
    refined: Evaluation
    precision: Precision | None
    known: KnownPairs | None
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The contents of `align.json`.

        The criterion, agreement, pairs and share are those of all vectors; `judged` has those of the most frequent
        ones, which decide whether the map is clear.
        """
        best = self.refined
        table: dict[str, Any] = {
            "folder": str(self.folder),
            "criterion": best.criterion,
            "agreement": best.agreement,
            "pairs": best.pairs,
            "share": best.share,
            "judged": {name: getattr(self.found.best, name) for name in ("agreement", "pairs", "share")},
            "start": best.start,
            "step": best.step,
            "clear": self.found.is_clear,
            "evaluations": [evaluation._asdict() for evaluation in self.found.evaluations],
            "dictionary": None,
        }
        if self.precision is not None and self.known is not None:
            scores = {f"p@{k}": share for k, share in self.precision.csls.items()}
            table["dictionary"] = {"words": len(self.known.sources), "of": self.known.total, **scores}
        return table


def align(
    recipe: Recipe,
    out: Path | None = None,
    *,
    dictionary: Path | None = None,
    starts: int = STARTS,
    resume: bool = False,
    device: str = "auto",
    listener: ProgressListener | None = None,
    notify: Callable[[Evaluation], None] | None = None,
) -> Alignment:
    """Map the sources of the recipe's data onto its targets, and write the results.

    Args:
        recipe: see `search`.
        out: the folder of the results; the default is `runs/NAME`, with a number if this folder exists.
        dictionary: known translations, with which the result is compared; the search does not use them.
        starts: see `search`.
        resume: continue the alignment in `out`, or add more starts to it. On the same machine with the same libraries
            the result is bit-identical to that of an alignment that was not interrupted.
        device: see `train`.
        listener: see `search`.
        notify: see `search`.

    Raises:
        RecipeError: the data are no two sets of vectors, or `out` has an alignment already that is not to be resumed,
            or that has another recipe.
        CheckpointError: there is no alignment to resume, it is damaged, or it is one of other vectors.
        DataError: a file is missing or damaged, the sets can't be mapped onto each other, or no pair of the dictionary
            has vectors.
        PoiseError: see `search`.
    """
    if not isinstance(recipe.data, VectorSetsConfig):
        cure = 'use data kind "vectors" or "clouds"'
        raise RecipeError(
            "poise align maps sets of vectors", where="data.kind", found=f"'{recipe.data.tag()}'", cure=cure
        )
    if not isinstance(recipe.network.g, LinearMapConfig) or recipe.network.direction != "a_to_b":
        cure = 'use network.g kind "linear_map" and network.direction "a_to_b"'
        raise RecipeError(
            "poise align needs a linear map", where="network", found=f"'{recipe.network.g.tag()}'", cure=cure
        )
    base = Path("runs") / recipe.name
    folder = unused_name(base) if out is None else out
    if resume:
        read_record(folder)
    else:
        _refuse_earlier_one(folder)
    with Signals(_resume_command(folder, dictionary, starts, device) if resume else "; there was nothing to save"):
        sets = recipe.data.read()
        known = None
        if dictionary is not None:
            known = find_pairs(read_dictionary(dictionary), sets.a.words, sets.b.words, str(dictionary))
        with reporting("normalising the vectors"):
            source, target = (recipe.data.normalised(one) for one in sets)
    with ExitStack() as claims:
        folder, note = _claim(folder, claims, base if out is None else None, resume=resume)
        if note and listener is not None:
            listener.on_message(note)
        record = SearchRecord(folder, recipe, fingerprint_of(source, target))
        if resume:
            before = read_record(folder)
            before.check_same(recipe, record.fingerprint)
            record.evaluations, record.weights = before.evaluations, before.weights
            if listener is not None:
                listener.on_message(_known(record))
        again = _resume_command(folder, dictionary, starts, device)
        signals = claims.enter_context(Signals(again, hears_inner=True))
        try:
            found = search(
                recipe,
                source,
                target,
                folder,
                starts=starts,
                device=device,
                listener=listener,
                notify=notify,
                record=record,
            )
        except Stopped as stopped:
            raise Stopped(f"{stopped}{again if record.path.is_file() else '; there was nothing to save'}") from None
        signals.interrupt()
        return _finish(recipe.data, folder, sets, (source, target), found, known)


def _claim(folder: Path, claims: ExitStack, base: Path | None, *, resume: bool) -> tuple[Path, str]:
    """Keep other alignments away from the folder of the results, until `claims` is closed.

    Args:
        folder: the folder.
        claims: gets the lock.
        base: the default name, if the user has named no folder; if another alignment has taken `folder` since its name
            was chosen, another name is chosen then.
        resume: whether an alignment in it is continued.

    Returns:
        The folder, and a note on the lock, which may be empty.

    Raises:
        RecipeError: another alignment is writing to the folder, or has done so meanwhile.
        DiskError: the folder can't be created or locked.
    """
    while True:
        try:
            what = "another alignment is writing to this folder"
            note = claims.enter_context(claimed_folder(folder, folder / LOCK, f"--out {folder}", what))
            if not resume:
                _refuse_earlier_one(folder)
            return folder, note
        except RecipeError:
            if base is None:
                raise
            claims.close()
            folder = unused_name(base)


def _refuse_earlier_one(folder: Path) -> None:
    """Raise `RecipeError` if a folder has an alignment already."""
    has_search = (folder / FILE).exists()
    if (folder / "align.json").exists() or has_search or any(folder.glob(CHECKPOINTS)):
        cure = "continue it with --resume, or choose another folder" if has_search else "choose another folder"
        raise RecipeError("this folder has an alignment already", where=f"--out {folder}", cure=cure)


def _resume_command(folder: Path, dictionary: Path | None, starts: int, device: str) -> str:
    """The end of the message of an interrupted alignment: the command that continues it with the same options."""
    words = ["poise", "align", "--resume", "--out", str(folder)]
    words += ["--dictionary", str(dictionary)] if dictionary is not None else []
    words += ["--starts", str(starts)] if starts != STARTS else []
    words += ["--device", device] if device != "auto" else []
    return f"; continue with: {shlex.join(words)}"


def _known(record: SearchRecord) -> str:
    """A sentence on what an alignment that is resumed has found before."""
    if record.best is None:
        return f"{record.folder} has no evaluation yet: the search starts from the beginning"
    starts = count_noun(len({found.start for found in record.evaluations}), "start")
    best = f"criterion {record.best.criterion:.3f} in start {record.best.start}, step {record.best.step:,}"
    return f"resuming after {count_noun(len(record.evaluations), 'evaluation')} of {starts}; the best one has {best}"


def _finish(
    data: VectorSetsConfig,
    folder: Path,
    sets: TwoSets,
    vectors: tuple[Tensor, Tensor],
    found: Found,
    known: KnownPairs | None,
) -> Alignment:
    """Refine the best map with all vectors, compare it with the dictionary, and write the files."""
    source, target = map(unit_rows, vectors)
    with reporting("refining the best map with all vectors"):
        best = refine(found.weights, source, target, ROUNDS).best
        agreement = held_out_agreement(best.weights, source, target)
    pairs = num_pairs(best, source, target)
    share = share_of_pairs(pairs, source, target)
    refined = found.best._replace(criterion=best.criterion, agreement=agreement, pairs=pairs, share=share)
    mapped = apply_map(best.weights, source)
    score = None
    if known is not None:
        with reporting("comparing with the dictionary"):
            score = precision(mapped, target, known, KS)
    result = Alignment(folder, best.weights, found, refined, score, known, (*sets.a.notes, *sets.b.notes))
    with reporting("writing the results"):
        with open_atomic(folder / "map.npy") as stream:
            np.save(stream, best.weights.numpy(), allow_pickle=False)
        write_text(folder / "dictionary.tsv", _translations(sets, mapped, target))
        endings = (
            [format_of(Path(path)) for path in (data.a, data.b)] if isinstance(data, VectorsConfig) else [".npz"] * 2
        )
        plain = vectors[0] @ best.weights.T
        write_word_vectors(folder / f"mapped{endings[0]}", WordVectors(sets.a.words, plain.numpy()))
        write_word_vectors(folder / f"target{endings[1]}", WordVectors(sets.b.words, vectors[1].numpy()))
        write_json(folder / "align.json", result.as_json())
    return result


def _translations(sets: TwoSets, mapped: Tensor, target: Tensor) -> str:
    """The text of `dictionary.tsv`: the sources in their order, each with its translations, the best first."""
    means = mean_similarities(mapped, target)
    first = slice(TRANSLATED)
    found = nearest_by_csls(mapped[first], target, means.source[first], means.target, TRANSLATIONS)
    lines = ["source\ttarget\tcsls"]
    for word, scores, rows in zip(sets.a.words, found.similarity.tolist(), found.indices.tolist(), strict=False):
        lines += [f"{word}\t{sets.b.words[row]}\t{score:.4f}" for score, row in zip(scores, rows, strict=True)]
    return "\n".join(lines) + "\n"


def align_table(a: str, b: str, table: Mapping[str, Any], most_frequent: int | None = None) -> dict[str, Any]:
    """The table of the recipe with the files a and b as its data; keys of its table `data` that still fit are kept."""
    kept = {key: value for key, value in table["data"].items() if key in VectorsConfig.model_fields and key != "kind"}
    data = kept | {"kind": "vectors", "a": a, "b": b}
    if most_frequent is not None:
        data["most_frequent"] = most_frequent
    return {**table, "data": data}
