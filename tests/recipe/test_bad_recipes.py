"""Every invalid recipe is refused with exit code 2 and one line: the field, the value found and the cure.

The numbers are those of the project's catalogue of invalid inputs (C01 to C16). Nothing is written, and each message
contains the dotted path, the value, and the valid range or the nearest valid word.
"""

from __future__ import annotations

import json
import os
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poise.core.config import SYNONYMS
from poise.data.digits import DigitsConfig
from poise.recipe.checks.compatibility import check_compatibility
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.recipe.shipped import load_table, recipe_names

RING = (files("poise.recipes") / "ring.toml").read_text("utf-8")


def with_replaced(old: str, new: str) -> str:
    """The text of the ring recipe with `new` for the first `old`, which it must contain."""
    assert old in RING, f"the recipe has no {old!r}"
    return RING.replace(old, new, 1)


def line_of(text: str) -> str:
    """The line of the ring recipe on which a text begins, as messages have it."""
    return f"line {RING[: RING.index(text)].count(chr(10)) + 1}"


STEPS = "steps = 16000"
LATENT = RING[RING.index("[latent]") : RING.index("[network.g]")]
LR = "optimizer.d.lr"
BETAS = "optimizer.d.betas"


def case(ident: str, changes: str | list[str], *parts: str) -> Any:
    """One or several `--set` on the ring recipe, and what the message must contain."""
    return pytest.param([changes] if isinstance(changes, str) else changes, parts, id=ident)


def noise(sigma: str) -> str:
    return f'tricks=[{{kind="instance_noise", sigma={sigma}}}]'


CHANGES = [
    case("C01-misspelt-key", "optimizer.d.beats=[0.5, 0.9]", "optimizer.d.beats", "did you mean 'betas'?"),
    case("C01-unknown-key", f"{LR[:-2]}speed=1e-4", "optimizer.d.speed", "known: betas, eps, kind, lr"),
    case("C01-misspelt-key-at-top", "bacth=3", "bacth", "did you mean 'batch'?"),
    case("C01-usual-word", "optimizer.d.learning_rate=1e-4", "optimizer.d.learning_rate", "did you mean 'lr'?"),
    case("C01-usual-word-for-a-kind", 'tricks=[{kind="EMA"}]', "tricks.0", "did you mean 'averaged_weights'?"),
    case("C01-misspelt-table", "optimizr.d.lr=1e-4", "optimizr", "did you mean 'optimizer'?"),
    case("C01-misspelt-in-trick", 'tricks=[{kind="r1", gama=1.0}]', "tricks.0.gama", "did you mean 'gamma'?"),
    case(
        "C01-misspelt-in-schedule",
        f'{LR}={{kind="linear", start=1e-3, end=0.0, untill=0.5}}',
        f"{LR}.untill",
        "did you mean 'until'?",
    ),
    case("C02-number-in-quotes", f'{LR}="1e-4"', LR, "must be a number", "'1e-4'"),
    case("C02-whole-number-in-quotes", 'batch="64"', "batch", "must be a whole number", "'64'"),
    case("C03-bool-for-a-number", f"{LR}=true", LR, "must be a number", "found true"),
    case("C03-bool-for-a-whole-number", "seed=false", "seed", "must be a whole number", "found false"),
    case("C03-bool-for-a-word", "judging=true", "judging", "'apart' or 'together'", "found true"),
    case("C03-number-for-text", "about=3", "about", "must be text in quotes", "found 3"),
    case("C03-word-without-quotes", "batch=on", "--set batch=on", "quotes", "write --set 'batch=\"on\"'"),
    case(
        "C03-kind-without-quotes",
        "objective.kind=minimax",
        "--set objective.kind=minimax",
        "write --set 'objective.kind=\"minimax\"'",
    ),
    case("C04-octal", "seed=010", "--set seed=010", "not valid TOML"),
    case("C04-sexagesimal", "steps=12:30:45", "steps", "must be a whole number", "found 12:30:45"),
    case("C04-date", "steps=2026-01-02", "steps", "must be a whole number", "found 2026-01-02"),
    case("C06-nan", f"{LR}=nan", LR, "must be a finite number", "found nan"),
    case("C06-inf", f"{LR}=inf", LR, "must be a finite number", "found inf"),
    case("C06-nan-in-a-list", "optimizer.g.betas=[nan, 0.9]", "optimizer.g.betas.0", "finite", "found nan"),
    case("C06-negative-rate", f"{LR}=-1e-4", LR, "must be at least 0", "found -0.0001"),
    case("C06-beta-of-one", "optimizer.d.betas=[0.5, 1.0]", "optimizer.d.betas.1", "less than 1", "found 1.0"),
    case("C06-negative-beta", "optimizer.d.betas=[-0.1, 0.9]", "optimizer.d.betas.0", "0", "found -0.1"),
    case("C06-eps-of-zero", "optimizer.d.eps=0.0", "optimizer.d.eps", "must be greater than 0", "found 0.0"),
    case("C06-negative-sigma", noise("-0.1"), "tricks.0.sigma", "must be at least 0", "found -0.1"),
    case(
        "C06-schedule-that-ends-out-of-range",
        noise('{kind="linear", start=0.1, end=-0.1}'),
        "tricks.0.sigma",
        "must be at least 0",
        "found -0.1",
    ),
    case("C06-schedule-with-nan", noise('{kind="cosine", start=nan, end=0.0}'), "tricks.0.sigma.start", "finite"),
    case(
        "C06-steps-with-a-negative-value",
        f'{LR}={{kind="steps", values=[1e-3, -1e-3, 1e-3], at=[0.2, 0.4]}}',
        LR,
        "must be at least 0",
        "found -0.001",
    ),
    case(
        "C06-steps-that-do-not-increase",
        f'{LR}={{kind="steps", values=[3.0, 2.0, 1.0], at=[0.4, 0.2]}}',
        LR,
        "must increase",
        "found [0.4, 0.2]",
    ),
    case(
        "C06-steps-without-the-last-value",
        f'{LR}={{kind="steps", values=[3.0, 2.0], at=[0.2, 0.4]}}',
        LR,
        "one more value",
    ),
    case("C06-ramp-without-time", f'{LR}={{kind="linear", start=1.0, end=0.0, after=0.5, until=0.5}}', LR, "'until'"),
    case("C06-ramp-past-the-end", f'{LR}={{kind="linear", start=1.0, end=0.0, until=500}}', LR, "steps", "until 500"),
    case("C06-label-beyond-two", 'tricks=[{kind="soft_labels", real=[0.9, 3.0]}]', "tricks.0.real.1", "at most 2"),
    case("C06-label-high-first", 'tricks=[{kind="soft_labels", real=[0.9, 0.7]}]', "tricks.0", "[low, high]"),
    case("C07-batch-of-none", "batch=0", "batch", "1", "found 0"),
    case("C07-negative-batch", "batch=-1", "batch", "1", "found -1"),
    case("C07-fractional-batch", "batch=2.5", "batch", "must be a whole number", "found 2.5"),
    case("C07-huge-batch", "batch=1000000000", "batch", "65536", "found 1000000000"),
    case("C07-no-steps", "steps=0", "steps", "1", "found 0"),
    case("C07-no-moves", "tempo.d=0", "tempo.d", "1", "found 0"),
    case("C07-seed-below-zero", "seed=-1", "seed", "0", "found -1"),
    case("C07-seed-beyond-64-bits", f"seed={2**64}", "seed", str(2**63 - 1), f"found {2**64}"),
    case("C09-list-for-a-number", f"{LR}=[1e-4]", LR, "must be a number", "found the list [0.0001]"),
    case("C09-list-for-a-whole-number", "batch=[64]", "batch", "must be a whole number", "found the list [64]"),
    case("C09-list-for-a-table", "data=[1]", "data", "must be a table", "found the list [1]"),
    case("C09-table-for-a-list", 'tricks={kind="r1"}', "tricks", "must be a list", "found a table"),
    case("C09-text-for-a-list", 'tricks="r1"', "tricks", "must be a list", "found 'r1'"),
    case("C09-text-for-a-trick", 'tricks=["r1"]', "tricks.0", "must be a table", "found 'r1'"),
    case("C09-number-for-a-list", "optimizer.d.betas=0.5", "optimizer.d.betas", "must be a list", "found 0.5"),
    case("C09-short-list", "optimizer.d.betas=[0.5]", "optimizer.d.betas.1", "is missing"),
    case("C09-key-below-a-number", "steps.x=1", "--set steps.x=1", "'steps' is a single value and has no keys"),
    case("C12-class-path", '_target_="os.system"', "_target_", "unknown key"),
    case("C12-class-path-as-kind", 'objective.kind="os.system"', "objective", "unknown kind", "'os.system'"),
    case("C12-variable-is-plain-text", 'name="${HOME}"', "name", "found '${HOME}'"),
    case("A07-name-with-parent-folders", 'name="../../x"', "name", "found '../../x'"),
    case("A07-name-rule-in-words", 'name="a/b"', "name", "letters, digits", "found 'a/b'"),
    case("about-of-two-lines", 'about="a\\nb"', "about", "must be one line"),
    case("kind-missing", "objective={}", "objective", "needs a 'kind'"),
    case("kind-missing-in-trick", "tricks=[{gamma=1.0}]", "tricks.0", "needs a 'kind'"),
    case("kind-misspelt", 'objective.kind="minmax"', "objective", "'minmax'", "did you mean 'minimax'?"),
    case("kind-misspelt-in-trick", 'tricks=[{kind="soft_label"}]', "tricks.0", "did you mean 'soft_labels'?"),
    case("kind-misspelt-in-schedule", f'{LR}={{kind="linaer", start=1.0, end=0.0}}', LR, "did you mean 'linear'?"),
    case("kind-misspelt-of-a-tempo", 'tempo.kind="ratoi"', "tempo", "did you mean 'ratio'?"),
    case("kind-unknown", 'objective.kind="xyz"', "objective", "known: ", "minimax, non_saturating"),
    case("kind-a-number", "tricks=[{kind=3}]", "tricks.0", "unknown kind", "found 3"),
    case(
        "kind-changed-in-a-table-of-another",
        'optimizer.g.kind="sgd"',
        "optimizer.g.betas",
        "unknown key 'betas'; it belongs to adam, adamw; to change the kind, set the whole table",
        '{kind="sgd"}',
    ),
    case("list-without-values", "measure={measures=[]}", "measure.measures", "must not be empty, found the list []"),
    case("long-list", f"{BETAS}=[0.5, 0.9, 0.9]", BETAS, "must have at most 2 values, found the list [0.5, 0.9, 0.9]"),
    case("empty-text", 'init={from=""}', "init.from", "must not be empty"),
    case("long-text", f'about="{"a" * 201}"', "about", "must have at most 200 characters"),
    case("key-of-no-kind", "optimizer.g.power=3", "optimizer.g.power", "known: betas, "),
    case("word-misspelt", 'network.d.norm="btch"', "network.d.norm", "'virtual' or 'none'", "did you mean 'batch'?"),
    case("schedule-incomplete", f'{LR}={{kind="linear", start=1e-3}}', f"{LR}.end", "is missing"),
    case("trick-missing", ["tricks=[]", "tricks.r1.gamma=3"], "tricks", "'r1'"),
    case("set-without-value", "steps=", "--set steps=", "no value"),
    case("set-without-equals", "steps", "--set steps", "path=value"),
    case("set-without-path", "=3", "--set =3", "path=value"),
    case("set-with-empty-key", "optimizer..lr=1e-4", "--set optimizer..lr=1e-4", "path=value"),
    case("set-of-two-values", "steps=3\nbatch=8", "--set"),
    case("two-errors-misspelling-first", ["steps=0", "bacth=3"], "bacth", "did you mean 'batch'?"),
]


@pytest.mark.parametrize(("changes", "parts"), CHANGES)
def test_change_refused(poise: Any, tmp_path: Path, changes: list[str], parts: tuple[str, ...]) -> None:
    words = [word for change in changes for word in ("--set", change)]
    result = poise("train", "ring", "--out", tmp_path / "out", *words)
    result.assert_error(2, *parts)
    assert result.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def in_file(ident: str, content: str | bytes, *parts: str) -> Any:
    return pytest.param(content if isinstance(content, bytes) else content.encode(), parts, id=ident)


FILES = [
    in_file("C04-octal", with_replaced(STEPS, "steps = 0777"), line_of(STEPS)),
    in_file("C05-same-key-twice", with_replaced(STEPS, "steps = 900\n" + STEPS), line_of("batch"), "steps"),
    in_file("C05-same-key-in-table", with_replaced("dim = 24", "dim = 8\ndim = 24"), line_of("categories"), "dim"),
    in_file("C05-same-table-twice", RING + '\n[data]\nkind = "grid"\n', f"line {RING.count(chr(10)) + 2}", "data"),
    in_file(
        "C14-3000-brackets",
        "x = " + "[" * 3000 + "]" * 3000 + "\n" + RING,
        "nested more than 50 levels deep",
        "remove levels",
    ),
    in_file("C14-3000-open-brackets", "x = " + "[" * 3000, "nested more than 50 levels deep"),
    in_file("C14-3000-tables", ".".join(["a"] * 3000) + " = 1\n", "nested more than 50 levels deep"),
    in_file("C14-51-tables", "[" + ".".join(["a"] * 51) + "]\n", "nested more than 50 levels deep"),
    in_file("C14-more-than-1-MB", RING + "#" * 1_000_000, "at most 1 MB", "found 1,00"),
    in_file("C14-binary", bytes(range(256)) * 20, "UTF-8 text", "save it as UTF-8"),
    in_file("long-number", RING + f"\nseed = {10**4000}{10**4000}", "not valid TOML: a number has thousands of digits"),
    in_file("C14-zeros", bytes(500), "not valid TOML", "line 1"),
    in_file("C14-UTF-16", RING.encode("utf-16"), "UTF-16", "save it as UTF-8"),
    in_file("C14-UTF-16-without-mark", RING.encode("utf-16-le"), "not valid TOML"),
    in_file("C14-empty", b"", "is missing", "more after this one"),
    in_file("C14-only-comments", "# nothing\n", "is missing", "more after this one"),
    in_file("yaml", "lr: 1e-4\n", "not valid TOML", "line 1"),
    in_file("json", '{"steps": 3}', "not valid TOML", "line 1"),
    in_file("table-misspelt", with_replaced("[objective]", "[objectiv]"), "objectiv", "did you mean 'objective'?"),
    in_file("table-missing", with_replaced(LATENT, ""), "latent", "is missing"),
    in_file("kind-missing", with_replaced('kind = "relativistic"', ""), "objective", "needs a 'kind'"),
    in_file("value-out-of-range", with_replaced("batch = 256", "batch = 0"), "batch", "found 0"),
]


@pytest.mark.parametrize(("content", "parts"), FILES)
def test_file_refused(poise: Any, tmp_path: Path, content: bytes, parts: tuple[str, ...]) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_bytes(content)
    result = poise("train", recipe, "--out", tmp_path / "out")
    result.assert_error(2, "mine.toml", *parts)
    assert result.err.count("\n") == 1
    assert len(result.err) < 500 + len(str(tmp_path))
    assert list(tmp_path.iterdir()) == [recipe]


UNUSUAL_BUT_VALID = [
    pytest.param(b"\xef\xbb\xbf" + RING.encode(), id="C14-byte-order-mark"),
    pytest.param(RING.replace(" = ", "\t=\t").replace("\nkind", "\n\tkind").encode(), id="C14-tabs"),
    pytest.param(RING.replace("\n", "\r\n").encode(), id="line-ends-of-windows"),
    pytest.param(b"\xef\xbb\xbf" + RING.replace("\n", "\r\n").encode() + b"# \xc3\xa9", id="all-of-these"),
]


@pytest.mark.parametrize("content", UNUSUAL_BUT_VALID)
def test_file_accepted(poise: Any, tmp_path: Path, content: bytes) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_bytes(content)
    # the device is checked last, so this message means that the recipe was accepted
    result = poise("train", recipe, "--out", tmp_path / "out", "--device", "abacus")
    result.assert_error(2, "--device", "abacus")


@pytest.mark.timeout(30)  # an empty pipe must not block
@pytest.mark.parametrize(
    ("recipe", "parts"),
    [
        pytest.param("rnig", ("RECIPE", "'rnig'", "did you mean 'ring'?"), id="nearest"),
        pytest.param("qqq", ("RECIPE", "'qqq'", "known: ", *recipe_names()), id="all"),
        pytest.param("no-such.toml", ("no-such.toml", "no such recipe file"), id="no-file"),
        pytest.param("folder.toml", ("folder.toml", "not a regular file"), id="folder"),
        pytest.param("pipe.toml", ("pipe.toml", "not a regular file"), id="pipe"),
    ],
)
def test_recipe_not_found(
    poise: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: str, parts: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.toml").mkdir()
    os.mkfifo(tmp_path / "pipe.toml")
    poise("train", recipe, "--out", "out").assert_error(2, *parts)
    assert not (tmp_path / "out").exists()


# ---- C08: the size of the images -------------------------------------------------------------------


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "pictures.npz"
    np.savez(path, images=np.random.default_rng(3).integers(0, 256, (60, 16, 16, 1), np.uint8))
    return path


@pytest.mark.parametrize(
    ("size", "parts"),
    [
        (0, ("data.size", "found 0", "1")),
        (-32, ("data.size", "found -32", "1")),
        (32.0, ("data.size", "found 32.0", "whole number")),
        (7, ("network.g", "7x7", "data.size to 8")),
        (100, ("network.g", "100x100", "data.size to 96 or 104")),
        (300, ("network.g", "300x300", "data.size to 256")),
        (65536, ("data.size", "found 65536", "4096")),
        ("[50,70]", ("network.g", "50x70", "data.size to [48, 64], [48, 72] or [56, 72]")),
        ("[32]", ("data.size", "found [32]", "[height, width]")),
        ("[32,0]", ("data.size", "found [32, 0]", "1 to 4096")),
        ("[32,32,3]", ("data.size", "found [32, 32, 3]", "[height, width]")),
        ("[true,32]", ("data.size", "found [True, 32]", "whole number")),
        ("true", ("data.size", "found True", "whole number")),
        ('"32"', ("data.size", "found '32'", "whole number")),
    ],
)
def test_size_refused(poise: Any, tmp_path: Path, pictures: Path, size: float | str, parts: tuple[str, ...]) -> None:
    data = f'data={{kind="npz", path="{pictures}"}}'
    out = tmp_path / "out"
    poise("train", "dcgan", "--out", out, "--set", data, "--set", f"data.size={size}").assert_error(2, *parts)
    assert not out.exists()


def test_size_below_the_minimum_of_the_digits(poise: Any, tmp_path: Path) -> None:
    result = poise("train", "dcgan", "--out", tmp_path / "out", "--set", "data.size=7")
    result.assert_error(2, "data.size", "7", "8")
    assert not (tmp_path / "out").exists()


def test_size_refused_before_the_images_are_loaded(poise: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """5,000 digits of 4096 x 4096 are 80 GB: the network's limit must be checked first."""

    def load(self: DigitsConfig, root: Path | None = None) -> None:
        raise MemoryError

    monkeypatch.setattr(DigitsConfig, "load", load)
    result = poise("train", "dcgan", "--out", tmp_path / "out", "--set", "data.size=4096")
    result.assert_error(2, "network.g", "256")


def test_network_too_deep_for_its_images(poise: Any, tmp_path: Path, pictures: Path) -> None:
    data = f'data={{kind="npz", path="{pictures}", size=16}}'
    words = ["--set", data, "--set", "network.d.depth=4"]
    poise("train", "dcgan", "--out", tmp_path / "out", *words).assert_error(2, "network.d", "depth 4", "at most 3")
    assert not (tmp_path / "out").exists()


def test_network_for_images_on_points(poise: Any, tmp_path: Path) -> None:
    result = poise("train", "dcgan", "--out", tmp_path / "out", "--set", 'data={kind="ring"}')
    result.assert_error(2, "network.g", "points", "'mlp'")
    assert not (tmp_path / "out").exists()


# ---- C10: tricks that contradict each other or the objective ------------------------------------------


def ring(*tricks: dict[str, Any], norm: str = "none") -> Any:
    plain = load_table("ring")
    plain["tricks"] = list(tricks)
    plain["network"]["d"]["norm"] = norm
    return decode(plain)


def test_a_gradient_penalty_with_batch_norm_in_d_causes_a_warning() -> None:
    findings = check_compatibility(ring({"kind": "instance_noise"}, {"kind": "r1"}, norm="batch"))
    assert findings.refusals == []
    (warning,) = findings.warnings
    assert warning.field == "tricks.1"
    assert "'r1'" in warning.message
    assert "batch norm in D" in warning.message
    assert "network.d.norm" in warning.cure
    assert warning.tip


@pytest.mark.parametrize(
    ("tricks", "norm"),
    [(({"kind": "r1"},), "none"), (({"kind": "instance_noise"},), "batch"), ((), "batch")],
    ids=["r1-alone", "noise-and-norm", "norm-alone"],
)
def test_no_warning_without_a_conflict(tricks: tuple[dict[str, Any], ...], norm: str) -> None:
    findings = check_compatibility(ring(*tricks, norm=norm))
    assert findings.refusals == []
    assert findings.warnings == []


def test_a_warning_is_printed_when_training_starts(poise: Any, tmp_path: Path) -> None:
    words = ["--set", 'network.d.norm="batch"', "--set", 'tricks=[{kind="r1"}]', "--set", "batch=4"]
    result = poise("train", "ring", "--steps", 1, "--out", tmp_path / "out", *words)
    assert result.code == 0
    assert "tricks.0: 'r1' penalises" in result.err
    assert "network.d.norm" in result.err


def test_a_repeated_trick_causes_a_warning() -> None:
    (warning,) = check_compatibility(ring({"kind": "r1", "gamma": 1.0}, {"kind": "r1", "gamma": 2.0})).warnings
    assert warning.field == "tricks.1"
    assert "more than once" in warning.message


def test_soft_labels_need_an_objective_with_targets(poise: Any, tmp_path: Path) -> None:
    (refusal,) = check_compatibility(ring({"kind": "r1"}, {"kind": "soft_labels"})).refusals
    assert refusal.field == "tricks.1"
    assert refusal.tip == "T07a"

    words = ["--set", 'tricks=[{kind="soft_labels"}]']
    result = poise("train", "ring", "--out", tmp_path / "out", *words)
    result.assert_error(2, "tricks.0", "'soft_labels'", "'relativistic' has none", "remove the trick")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("word", SYNONYMS)
def test_a_usual_word_stands_for_something_in_recipes(word: str) -> None:
    """For a field, a kind or another value."""
    assert f'"{SYNONYMS[word]}"' in json.dumps(Recipe.model_json_schema())
