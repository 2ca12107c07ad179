"""How often `poise align` finds the right map: of clouds with a known rotation, and of the words of a real corpus.

    python benchmarks/align.py clouds
    python benchmarks/align.py words --corpus /usr/share/dictd/gcide.dict.dz
    python benchmarks/align.py small
    python benchmarks/align.py table

clouds  Pairs of clouds of 1,000 points in 50 dimensions (data kind `clouds`), ten draws for each of three noises, whose
        standard deviation is relative to that of a coordinate. Each is aligned by the recipe `align` with up to 20
        starts. The ceiling is Procrustes' map of all known pairs.
words   Word vectors of two halves of a corpus, aligned in the same way. The true translation of a word is the word
        itself. The corpus is divided by paragraphs that begin at the margin, which are the entries of a dictionary. The
        vectors of each half are those of its most frequent words: the positive pointwise mutual information of words
        and their contexts (5 words to either side, weighted by 1 / distance; context counts to the power of 0.75),
        reduced by a singular value decomposition U S V^T to U S.
small   Which maps between small sets of Gaussian vectors count as clearly right: wrong ones, which are 60 random
        orthogonal maps between sets that have nothing to do with each other, and right ones, which are the true
        rotation of vectors with noise. All are refined; ten draws of the sets.

The first two also refine random orthogonal maps, as many as there are starts, without adversarial training; the one
with the best criterion is compared. P@1 is by CSLS. Results are lines of `benchmarks/studies/align/*.jsonl`; what is
there already is not computed again. Seconds are of CPU time with one thread.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from poise.alignment.align import align
from poise.alignment.dictionary import KnownPairs, find_pairs, precision
from poise.alignment.neighbours import unit_rows
from poise.alignment.record import AGREEMENT, PAIRED, Evaluation
from poise.alignment.refinement import apply_map, procrustes, refine
from poise.alignment.search import JUDGED, ROUNDS, evaluate_map
from poise.data.clouds import random_orthogonal
from poise.data.vectors import VectorSetsConfig
from poise.data.word_vectors import WordVectors, write_word_vectors
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.recipe.shipped import load_table
from poise.recipe.toml import set_value

RESULTS = Path(__file__).parent / "studies" / "align"
NOISES, DRAWS, STARTS = (0.0, 0.01, 0.1), 10, 20
CORPUS = Path("/usr/share/dictd/gcide.dict.dz")
QUIET = ("log.to=[]", "log.samples=1000000", "log.sheet=4")
QUICK = ("steps=2", "log.saves=2", "batch=4", "network.d.width=4")
WINDOW = 5
SIZES = {
    5: (40, 60, 80, 100, 150, 200),
    6: (40, 60, 80, 100),
    8: (24, 40, 60, 80, 120),
    12: (24, 40, 60),
    16: (24, 40, 60, 80),
    50: (60, 100),
}
"""The numbers of vectors of the small sets, for each number of dimensions."""
MAPS = 60
NOISES_OF_SMALL = (0.03, 0.1, 0.3)

Line = dict[str, Any]


def recipe_of(data: dict[str, Any], seed: int, *, quick: bool) -> Recipe:
    """The recipe `align` on this data."""
    table = load_table("align") | {"seed": seed, "data": data}
    for change in (*QUIET, *(QUICK if quick else ())):
        set_value(table, change)
    return decode(table)


def aligned(recipe: Recipe, known: KnownPairs, vectors: tuple[Tensor, Tensor], starts: int) -> Line:
    """The result of `poise align`."""
    with tempfile.TemporaryDirectory() as folder:
        result = align(recipe, Path(folder) / "out", starts=starts)
    found = scores(result.map, known, vectors)
    last = result.found.evaluations[-1]
    wrong = [e.agreement for e in result.found.evaluations if not e.is_clear]
    return found | {
        "clear": result.found.is_clear,
        "starts": last.start,
        "criterion": result.refined.criterion,
        "agreement": result.refined.agreement,
        "share": result.refined.share,
        "highest_agreement_of_others": max(wrong, default=None),
    }


def ceiling(known: KnownPairs, vectors: tuple[Tensor, Tensor]) -> Line:
    """The result of Procrustes' map of all known pairs."""
    pairs = known.pairs
    return scores(procrustes(vectors[0][pairs[:, 0]], vectors[1][pairs[:, 1]]), known, vectors)


def refined_at_random(seed: int, known: KnownPairs, vectors: tuple[Tensor, Tensor], starts: int) -> Line:
    """The result of refining random orthogonal maps, of which the best by the criterion is kept."""
    generator = torch.Generator().manual_seed(seed)
    judged = [one[:JUDGED] for one in vectors]
    rounds = [refine(random_orthogonal(judged[0].shape[1], generator), *judged, ROUNDS).best for _ in range(starts)]
    best = max(rounds, key=lambda found: found.criterion)
    return scores(best.weights, known, vectors) | {"criterion": best.criterion}


def scores(weights: Tensor, known: KnownPairs, vectors: tuple[Tensor, Tensor]) -> Line:
    """P@1 and P@5 of a map."""
    found = precision(apply_map(weights, vectors[0]), vectors[1], known, (1, 5)).csls
    return {"p@1": round(found[1], 4), "p@5": round(found[5], 4)}


def add_line(path: Path, key: Line, compute: Callable[[], Line]) -> None:
    """Append what `compute` finds to a file, unless it has a line with this key."""
    lines = read_lines(path)
    if any(key.items() <= line.items() for line in lines):
        return
    began = time.process_time()
    found = compute()
    line = key | found | {"cpu_seconds": round(time.process_time() - began, 1)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")
    print(json.dumps(line), flush=True)


def read_lines(path: Path) -> list[Line]:
    """The lines of a file of results; none if it does not exist."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def measure(path: Path, key: Line, recipe: Recipe, starts: int, methods: Sequence[str]) -> None:
    """Add the results of these methods to a file."""
    data = recipe.data
    assert isinstance(data, VectorSetsConfig)
    sets = data.read()
    vectors = (unit_rows(data.normalised(sets.a)), unit_rows(data.normalised(sets.b)))
    same = {word: frozenset([word]) for word in sets.a.words}
    known = find_pairs(same, sets.a.words, sets.b.words, "the words that both have")
    compute: dict[str, Callable[[], Line]] = {
        "ceiling": lambda: ceiling(known, vectors),
        "align": lambda: aligned(recipe, known, vectors, starts),
        "random": lambda: refined_at_random(recipe.seed, known, vectors, starts),
    }
    for method in methods:
        add_line(path, key | {"method": method}, compute[method])


def clouds(path: Path, draws: Sequence[int], starts: int, methods: Sequence[str], *, quick: bool) -> None:
    """Measure pairs of clouds."""
    small = {"count": 60, "dim": 4, "clusters": 8} if quick else {}
    for draw in draws:
        for noise in NOISES[:1] if quick else NOISES:
            recipe = recipe_of({"kind": "clouds", "noise": noise, "draw": draw, **small}, 100 * draw, quick=quick)
            measure(path, {"noise": noise, "draw": draw}, recipe, starts, methods)


def words(path: Path, corpus: Path, dim: int, starts: int, seeds: Sequence[int], *, quick: bool) -> None:
    """Measure the words of two halves of a corpus."""
    raw = corpus.read_bytes()
    text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8", "replace")
    entries = re.split(r"\n(?=\S)", text)
    half = np.random.default_rng(0).permutation(len(entries)) % 2
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{name}.npz" for name in "ab"]
        for k, file in enumerate(files):
            write_word_vectors(file, word_vectors([e for e, h in zip(entries, half, strict=True) if h == k], dim))
        for seed in seeds:
            data = {"kind": "vectors", "a": str(files[0]), "b": str(files[1]), "most_frequent": 5000}
            recipe = recipe_of(data, 100 * seed, quick=quick)
            methods = ("ceiling", "align", "random") if seed == seeds[0] else ("align",)
            measure(path, {"corpus": corpus.name, "dim": dim, "seed": seed}, recipe, starts, methods)


def small(path: Path, draws: Sequence[int], *, quick: bool) -> None:
    """Evaluate wrong and right maps of small sets."""
    maps = 2 if quick else MAPS
    for dim, counts in ({4: (24,)} if quick else SIZES).items():
        for n in counts:
            key = {"dim": dim, "vectors": n, "draws": len(draws)}
            add_line(path, key | {"maps": "wrong"}, partial(wrong_maps, dim, n, draws, maps))
            for noise in NOISES_OF_SMALL:
                add_line(path, key | {"maps": "right", "noise": noise}, partial(right_maps, dim, n, draws, noise))


def wrong_maps(dim: int, n: int, draws: Sequence[int], maps: int) -> Line:
    """The evaluations of refined random maps between unrelated sets of Gaussian vectors."""
    found: list[Evaluation] = []
    convincing = 0
    for draw in draws:
        generator = torch.Generator().manual_seed(1000 + draw)
        a, b = (unit_rows(torch.randn(n, dim, generator=generator)) for _ in "ab")
        of = [evaluate_map(random_orthogonal(dim, generator), a, b)[0] for _ in range(maps)]
        convincing += any(map(is_confirmed, of))
        found += of
    return summary(found) | {"draws_with_confirmed": convincing}


def right_maps(dim: int, n: int, draws: Sequence[int], noise: float) -> Line:
    """Those of the refined true rotation; `noise` is relative to the standard deviation of a coordinate."""
    found: list[Evaluation] = []
    for draw in draws:
        generator = torch.Generator().manual_seed(2000 + draw)
        a = unit_rows(torch.randn(n, dim, generator=generator))
        rotation = random_orthogonal(dim, generator)
        b = unit_rows(a @ rotation.T + noise * torch.randn(n, dim, generator=generator) / dim**0.5)
        found.append(evaluate_map(rotation, a, b)[0])
    return summary(found)


def is_confirmed(found: Evaluation) -> bool:
    """Whether half of the vectors have a pair, and 90 % of the pairs are confirmed, however few they are."""
    return found.share >= PAIRED and found.agreement >= AGREEMENT


def summary(found: Sequence[Evaluation]) -> Line:
    """How many maps are confirmed and how many are clear; the most convincing one, and the least."""
    most, least = (choose(found, key=lambda one: (one.agreement, one.pairs)) for choose in (max, min))
    return {
        "evaluated": len(found),
        "confirmed": sum(map(is_confirmed, found)),
        "clear": sum(one.is_clear for one in found),
        "most": [round(most.agreement, 3), most.pairs],
        "least": [round(least.agreement, 3), least.pairs],
    }


def word_vectors(documents: Sequence[str], dim: int, most: int = 8000, at_least: int = 20) -> WordVectors:
    """The vectors of the most frequent words of a corpus; see the module."""
    tokens = [re.findall(r"[a-z]+", re.sub(r"\[[^\]]*\]|\\[^\\\n]*\\", " ", text.lower())) for text in documents]
    counts = Counter(word for document in tokens for word in document)
    vocabulary = [word for word, count in counts.most_common(most) if count >= at_least]
    rows = {word: row for row, word in enumerate(vocabulary)}
    gap = [-1] * WINDOW
    flat = np.array([row for document in tokens for row in (*(rows.get(w, -1) for w in document), *gap)], np.int32)
    n = len(vocabulary)
    counted = sparse.csr_matrix((n, n), dtype=np.float64)
    for distance in range(1, WINDOW + 1):
        left, right = flat[:-distance], flat[distance:]
        both = (left >= 0) & (right >= 0)
        pairs = (left[both], right[both])
        counted += sparse.coo_matrix((np.full(both.sum(), 1 / distance), pairs), shape=(n, n)).tocsr()
    table = (counted + counted.T).tocoo()
    totals = np.asarray(table.sum(1)).ravel()
    contexts = totals**0.75 / (totals**0.75).sum()
    information = np.log(table.data / totals[table.row] / contexts[table.col])
    kept = information > 0
    ppmi = sparse.csr_matrix((information[kept], (table.row[kept], table.col[kept])), shape=(n, n), dtype=np.float32)
    u, s, _ = sparse.linalg.svds(ppmi, k=dim, v0=np.ones(n, np.float32))
    return WordVectors(tuple(vocabulary), (u * s).astype(np.float32))


def table(folder: Path) -> None:
    """Print the tables of docs/notes/align.md."""
    print_clouds(read_lines(folder / "clouds.jsonl"))
    print()
    print_words(read_lines(folder / "words.jsonl"))
    print()
    print_small(read_lines(folder / "small.jsonl"))


def print_clouds(lines: Sequence[Line]) -> None:
    """The table of the clouds."""
    print(
        "| noise | draws | P@1 of at least 99 % | P@1, mean | starts, mean (most) | ceiling "
        "| best of 20 refined random maps, P@1, mean (most) |"
    )
    print("|---|---|---|---|---|---|---|")
    for noise in sorted({line["noise"] for line in lines}):
        of = {name: [x for x in lines if (x["noise"], x["method"]) == (noise, name)] for name in METHODS}
        if not of["align"]:
            continue
        p1 = [line["p@1"] for line in of["align"]]
        starts = [line["starts"] for line in of["align"]]
        known = [line["p@1"] for line in of["ceiling"]]
        others = [line["p@1"] for line in of["random"]]
        random = f"{np.mean(others):.1%} ({max(others):.1%})" if others else ""
        print(
            f"| {noise:g} | {len(p1)} | {sum(p >= 0.99 for p in p1)} | {np.mean(p1):.1%} "
            f"| {np.mean(starts):.1f} ({max(starts)}) | {np.mean(known):.1%} | {random} |"
        )


def print_words(lines: Sequence[Line]) -> None:
    """The table of the words."""
    print("| corpus | d | method | seed | P@1 | P@5 | starts | clear | CPU seconds |")
    print("|---|---|---|---|---|---|---|---|---|")
    for line in lines:
        print(
            f"| {line['corpus']} | {line['dim']} | {line['method']} | {line['seed']} | {line['p@1']:.1%} "
            f"| {line['p@5']:.1%} | {line.get('starts', '')} | {line.get('clear', '')} | {line['cpu_seconds']:.0f} |"
        )


def print_small(lines: Sequence[Line]) -> None:
    """The table of the small sets, with the most convincing wrong map and the least convincing right one."""
    print("| vectors | d | wrong maps | confirmed | in draws | most | clear |", end="")
    print("".join(f" right maps with noise of {noise}: clear (least) |" for noise in NOISES_OF_SMALL))
    print("|---" * (7 + len(NOISES_OF_SMALL)) + "|")
    for line in (one for one in lines if one["maps"] == "wrong"):
        columns = [line["vectors"], line["dim"], line["evaluated"], line["confirmed"]]
        columns += [f"{line['draws_with_confirmed']} of {line['draws']}", in_words(line["most"]), line["clear"]]
        for right in lines:
            if right["maps"] == "right" and all(right[name] == line[name] for name in ("dim", "vectors", "draws")):
                columns.append(f"{right['clear']} of {right['evaluated']} ({in_words(right['least'])})")
        print("".join(f"| {column} " for column in columns) + "|")


def in_words(found: tuple[float, int]) -> str:
    """The share of a map's pairs that are confirmed, and their number."""
    share, pairs = found
    return f"{share:.0%} of {pairs}"


METHODS = ("ceiling", "align", "random")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["clouds", "words", "small", "table"])
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="a text, or a text compressed with gzip")
    parser.add_argument("--dim", type=int, default=50)
    parser.add_argument("--starts", type=int, default=STARTS)
    parser.add_argument("--draws", type=int, nargs="*", default=list(range(DRAWS)), help="the draws, or the seeds")
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=METHODS)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--quick", action="store_true", help="tiny data and two steps; not a measurement")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.quick:
        args.draws, args.starts, args.dim, args.results = [0], 1, 4, Path("results")
        args.corpus = Path(__file__).parents[1] / "CHANGELOG.md"
    if args.what == "clouds":
        clouds(args.results / "clouds.jsonl", args.draws, args.starts, args.methods, quick=args.quick)
    elif args.what == "words":
        seeds = args.draws[: 1 if args.quick else 5]
        words(args.results / "words.jsonl", args.corpus, args.dim, args.starts, seeds, quick=args.quick)
    elif args.what == "small":
        small(args.results / "small.jsonl", args.draws, quick=args.quick)
    else:
        table(args.results)


if __name__ == "__main__":
    main()
