"""The expansion of plans: recipes, comparisons, budgets, order, duplicates, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from poise.errors import RecipeError
from poise.recipe.decode import validate
from poise.study.budget import TooManyRuns, images_per_step
from poise.study.expand import Expansion, expand
from poise.study.plan import Plan

PACKING = 'tricks+=[{kind="packing", samples=2}]'
SOFT = 'tricks+=[{kind="soft_labels"}]'
R1 = 'tricks=[{kind="r1"}]'
RING: dict[str, Any] = {"recipe": "ring", "set": ["tricks=[]", "batch=100"], "measures": ["modes"]}


def plan_of(*tips: dict[str, Any], base: dict[str, Any] | None = None, **keys: Any) -> Plan:
    table = {"name": "small", "seeds": 2, "base": base or {"ring": RING}, "tip": list(tips)}
    return validate(Plan, table | keys, "plan.toml")


def expanded(*tips: dict[str, Any], **keys: Any) -> Expansion:
    return expand(plan_of(*tips, **keys), Path())


def refusal(*tips: dict[str, Any], **keys: Any) -> str:
    with pytest.raises(RecipeError) as caught:
        expanded(*tips, **keys)
    return str(caught.value)


def arms(expansion: Expansion) -> dict[str, Any]:
    return {f"{arm.base}: {arm.name}": arm for arm in expansion.study.arms}


def comparisons(expansion: Expansion) -> list[tuple[str, ...]]:
    return [(one.tip, one.name, *one.treatment, "/", *one.control) for one in expansion.study.comparisons]


def tip(name: str = "packing", change: str = PACKING, **keys: Any) -> dict[str, Any]:
    return {"name": name, "set": [change], **keys}


def test_a_tip_is_compared_with_the_base() -> None:
    expansion = expanded(tip(id="t16"))
    assert comparisons(expansion) == [("T16", "packing", "packing", "/", "base")]
    base, packing = (arms(expansion)[f"ring: {name}"] for name in ("base", "packing"))
    assert (base.changes, packing.changes) == ((), (PACKING,))
    assert packing.components == {"tricks.packing": "tricks/packing.py"}
    assert expansion.notes == []


def test_hashes_are_those_of_the_recipes() -> None:
    expansion = expanded(tip())
    for arm in expansion.study.arms:
        for seed, run in arm.runs.items():
            recipe = expansion.recipes[run]
            assert (recipe.hash, str(recipe.seed), recipe.steps, recipe.name) == (run, seed, arm.steps, "small")
    assert len(expansion.recipes) == 4


def test_the_same_plan_gives_the_same_expansion() -> None:
    plan = plan_of(tip(), tip("soft labels", SOFT), budget={"images": 5_000})
    assert expand(plan, Path()) == expand(plan, Path())
    assert list(expand(plan, Path()).recipes) == list(expand(plan, Path()).recipes)


def test_all_arms_of_the_first_seed_come_first() -> None:
    seeds = [recipe.seed for recipe in expanded(tip(), tip("soft labels", SOFT), seeds=[5, 2, 9]).recipes.values()]
    assert seeds == [2, 2, 2, 5, 5, 5, 9, 9, 9]


def test_without_set_the_switch_of_the_catalogue_is_used() -> None:
    assert arms(expanded({"id": "T07a", "name": "soft"}))["ring: soft"].changes == (SOFT,)


def test_budgets_in_images() -> None:
    five = tip("five moves of D", "tempo.d=5")
    expansion = expanded(
        tip(), five, tip("as many moves of G", "tempo.d=5", budget_factor=5.0), budget={"images": 10_000}
    )
    assert {name: (arm.steps, arm.images) for name, arm in arms(expansion).items()} == {
        "ring: base": (100, 10_000),
        "ring: packing": (100, 10_000),
        "ring: five moves of D": (20, 10_000),
        "ring: as many moves of G": (100, 50_000),
    }


def test_without_a_budget_the_recipe_has_its_steps() -> None:
    base = RING | {"set": [*RING["set"], "steps=77"]}
    assert {arm.steps for arm in expanded(tip(), base={"ring": base}).study.arms} == {77}


def test_what_is_logged_and_measured() -> None:
    base = RING | {"measures": [{"name": "high_quality", "better": "more"}, "modes"]}
    expansion = expanded(tip(), base={"ring": base}, evaluations=3, budget={"images": 10_000})
    for recipe in expansion.recipes.values():
        assert recipe.measure is not None
        assert recipe.measure.measures == ("modes", "high_quality")  # the first selects the best weights
        assert (recipe.measure.every, recipe.log.samples, recipe.log.saves) == (34, 100, 25)
    assert [measure.name for measure in expansion.study.bases[0].measures] == ["high_quality", "modes"]


def test_leaving_out_measures_the_trick() -> None:
    base = {"ring": RING | {"set": [R1]}, "plain": RING}
    expansion = expanded(base=base, leave_out=["r1"])
    assert comparisons(expansion) == [("T06b", "r1", "base", "/", "without r1")]
    without, plain = arms(expansion)["ring: without r1"], arms(expansion)["plain: base"]
    assert expansion.recipes[without.runs["0"]].tricks == ()
    assert without.components == {"tricks.r1": "tricks/gradient_penalties.py"}
    assert without.runs["0"] != plain.runs["0"] or "another base" in expansion.notes[0]


@pytest.mark.parametrize("kind", ["r1", "own_mine"])
def test_every_trick_of_a_name_is_left_out(kind: str, tmp_path: Path) -> None:
    """Also one of a file of the user, and two of a kind; the others stay."""
    (tmp_path / "mine.py").write_text("from poise.core.hooks import Trick\n\n\nclass Mine(Trick):\n    pass\n")
    own = f'{{kind="python", file="{tmp_path / "mine.py"}", name="Mine"}}'
    tricks = f'tricks=[{{kind="r1"}}, {own}, {{kind="packing"}}, {{kind="r1", every=4}}]'
    expansion = expanded(base={"ring": RING | {"set": [tricks]}}, leave_out=[kind])
    without = arms(expansion)[f"ring: without {kind}"]
    left = [trick.trick_name for trick in expansion.recipes[without.runs["0"]].tricks]
    assert left == [name for name in ("r1", "own_mine", "packing", "r1") if name != kind]


def test_an_inverse_arm_measures_what_it_is_against() -> None:
    expansion = expanded(tip("no labels", SOFT, inverse=True, title="hard labels", seeds=4))
    assert comparisons(expansion) == [("", "hard labels", "base", "/", "no labels")]
    assert [list(arm.runs) for arm in expansion.study.arms] == [["0", "1", "2", "3"]] * 2


def test_controls_have_the_seeds_of_all_that_is_compared_with_them() -> None:
    expansion = expanded(tip(seeds=[0, 7]), tip("soft labels", SOFT), tip("both", SOFT, against="packing", seeds=[8]))
    runs = {name: list(arm.runs) for name, arm in arms(expansion).items()}
    assert runs["ring: base"] == ["0", "1", "7"]
    assert runs["ring: packing"] == ["0", "7", "8"]


def test_seeds_of_a_base() -> None:
    base = {"ring": RING, "grid": RING | {"recipe": "grid", "seeds": 3}}
    assert {name: len(arm.runs) for name, arm in arms(expanded(tip(), base=base)).items()} == {
        "ring: base": 2,
        "ring: packing": 2,
        "grid: base": 3,
        "grid: packing": 3,
    }


def test_main_effects() -> None:
    factors = {"pack": {"no": [], "yes": [PACKING]}, "labels": {"hard": [], "soft": [SOFT]}}
    expansion = expanded(factorial=[{"name": "both", "factors": factors}])
    merged = [("", "both: pack yes against no", "both: yes, hard", "both: yes, soft", "/", "base", "both: no, soft")]
    merged += [
        ("", "both: labels soft against hard", "both: no, soft", "both: yes, soft", "/", "base", "both: yes, hard")
    ]
    assert comparisons(expansion) == merged
    assert expansion.notes == ["ring: 'both: no, hard' is the same recipe as 'base', which is trained once"]
    assert len(expansion.recipes) == 4 * 2


def test_each_base_is_trained_on_each_data_set() -> None:
    data = {"eight": {"kind": "ring"}, "twelve": {"kind": "ring", "modes": 12}}
    expansion = expanded(tip(), data=data)
    assert [base.name for base in expansion.study.bases] == ["ring-eight", "ring-twelve"]
    modes = {arm.base: expansion.recipes[arm.runs["0"]].data.modes for arm in expansion.study.arms}  # type: ignore[attr-defined]
    assert modes == {"ring-eight": 8, "ring-twelve": 12}


def test_duplicates_are_dropped_aloud() -> None:
    expansion = expanded(tip(), tip("packing again"), tip("nothing", "tricks=[]"))
    assert expansion.notes == [
        "ring: 'packing again' is the same recipe as 'packing', which is trained once",
        "ring: 'nothing' is the same recipe as 'base', which is trained once",
        "ring: 'packing again' is the same comparison as 'packing'",
        "ring: 'nothing' changes nothing here, so there is nothing to compare",
    ]
    assert comparisons(expansion) == [("", "packing", "packing", "/", "base")]
    assert len(expansion.recipes) == 4
    twice = expanded(tip(), base={"one": RING, "two": RING})
    assert len(twice.recipes) == 4
    assert "two: 2 runs of 'base' belong to another base as well" in twice.notes


def test_recipe_files_are_found_beside_the_plan(tmp_path: Path) -> None:
    expansion = expanded(tip())
    (tmp_path / "own.toml").write_text(next(iter(expansion.recipes.values())).to_toml())
    plan = plan_of(tip(), base={"own": {"recipe": "own.toml", "measures": ["modes"]}})
    assert len(expand(plan, tmp_path).recipes) == 4
    with pytest.raises(RecipeError, match=r"own: .*own.toml: no such recipe file"):
        expand(plan, tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("tips", "keys", "parts"),
    [
        ([tip(change="tricks+=[{kind='pcking'}]")], {}, ["ring, arm 'packing'", "'pcking'", "did you mean 'packing'?"]),
        ([tip(change="optimizer.d.lr")], {}, ["ring, arm 'packing'", "path=value"]),
        ([tip(change="network.g.widht=3")], {}, ["ring, arm 'packing'", "'widht'", "did you mean 'width'?"]),
        ([tip(change="tricks.r1=none")], {}, ["ring, arm 'packing'", "no entry 'r1'", "only what is there"]),
        ([tip(id="T99")], {}, ["ring, arm 'packing': id", "no such tip", "'T99'"]),
        ([{"id": "T07", "name": "soft"}], {}, ["ring, arm 'soft': id", "more than one tip", "'T07'", "T07a, T07b"]),
        ([tip(against="pakcing"), tip("x")], {}, ["no such arm", "'pakcing'"]),
        ([tip("x", against="pakcing"), tip()], {}, ["ring, arm 'x': against", "did you mean 'packing'?"]),
        ([tip(), tip()], {}, ["two arms have the same name", "'packing'"]),
        ([tip("r1", SOFT)], {"leave_out": ["r1"], "base": {"a": RING | {"set": [R1]}}}, ["two comparisons", "'r1'"]),
        ([tip()], {"leave_out": ["r2"], "base": {"a": RING | {"set": [R1]}}}, ["leave_out", "'r2'", "known: r1"]),
        ([tip()], {"leave_out": ["r1"]}, ["leave_out", "no base has any trick"]),
        ([tip()], {"base": {"ring": RING | {"recipe": "rign"}}}, ["ring: ", "rign"]),
        ([tip()], {"base": {"ring": RING | {"set": ["tricks=[1]"]}}}, ["ring: tricks"]),
        ([tip()], {"base": {"ring": RING | {"set": ["measure=3"]}}}, ["ring: measure", "must be a table", "found 3"]),
        ([tip(change="log=[]")], {}, ["ring, arm 'packing': log", "must be a table"]),
        ([tip(budget_factor=1e300)], {}, ["ring, arm 'packing': steps"]),
    ],
    ids=str,
)
def test_refused(tips: list[dict[str, Any]], keys: dict[str, Any], parts: list[str]) -> None:
    message = refusal(*tips, **keys)
    assert [part for part in parts if part not in message] == [], message


def test_a_plan_above_its_limit() -> None:
    assert len(expanded(tip(), limit=4).recipes) == 4
    message = refusal(tip(), limit=3)
    assert (
        message == "the plan has more than 3 runs, found 4; reduce the seeds or the tips, or raise 'limit' in the plan"
    )
    with pytest.raises(TooManyRuns) as caught:
        expanded(tip(), seeds=10_000)
    assert [(load.arm.trick_names(), load.runs) for load in caught.value.loads] == [([], 10_000), (["packing"], 10_000)]


def test_runs_that_two_bases_share_count_once() -> None:
    base = {name: {"recipe": "ring", "measures": ["coverage"]} for name in ("one", "other")}
    assert len(expanded(base=base, seeds=2, limit=2).recipes) == 2
    assert "found 2;" in refusal(base=base, seeds=2, limit=1)


def test_a_factorial_of_many_factors_is_refused_at_once() -> None:
    factors = {f"f{n}": {str(level): [] for level in range(10)} for n in range(20)}
    assert f"found {2 * 10**20:,};" in refusal(factorial=[{"name": "huge", "factors": factors}])


def test_images_per_step() -> None:
    expansion = expanded(tip("d5", "tempo.d=5"), tip("thresholds", 'tempo={kind="thresholds"}'))
    steps = {arm.name: images_per_step(expansion.recipes[arm.runs["0"]]) for arm in expansion.study.arms}
    assert steps == {"base": 100, "d5": 500, "thresholds": 100}


@pytest.mark.parametrize(
    ("change", "cure"),
    [("seed=3", "'seeds'"), ("measure.every=5", "'evaluations'"), ("log.saves=5", "remove the change")],
)
def test_a_change_that_the_plan_would_override_is_refused(change: str, cure: str) -> None:
    message = refusal(tip(change=change))
    assert message.startswith(f"ring, arm 'packing': set: {change}: the plan sets this field for all arms")
    assert cure in message


@pytest.mark.parametrize(
    ("change", "field"),
    [("log={rows=10, saves=3}", "'log.saves'"), ("measure={measures=['coverage']}", "'measure.measures'")],
)
def test_a_table_with_such_a_field_is_refused(change: str, field: str) -> None:
    message = refusal(tip(change=change))
    assert "the plan sets this field for all arms" in message
    assert field in message
    assert arms(expanded(tip(change="log={rows=10}")))["ring: packing"].steps > 0


@pytest.mark.parametrize("change", ["measure.n=20", "measure={n=20}", "measure=none"])
def test_an_arm_can_not_be_measured_in_another_way(change: str) -> None:
    assert "the arms of a base are measured alike" in refusal(tip(change=change))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("seed=5", "the plan sets this field for all arms"),
        ("name='mine'", "the plan sets this field for all arms"),
        ("measure.every=3", "the plan sets this field for all arms"),
        ("steps=777", "the budget sets the steps"),
        ("data.sigma=0.1", "data sets replace the data of all bases"),
    ],
)
def test_a_change_of_a_base_that_the_plan_would_override_is_refused(change: str, reason: str) -> None:
    base = {"ring": {"recipe": "ring", "set": [change], "measures": ["coverage"]}}
    message = refusal(tip(), base=base, budget={"images": 1000}, data={"grid": {"kind": "grid"}})
    assert reason in message
    assert f"set: {change}" in message


def test_the_steps_of_an_arm_are_its_own_only_without_a_budget() -> None:
    assert arms(expanded(tip(change="steps=7")))["ring: packing"].steps == 7
    assert "use 'budget_factor'" in refusal(tip(change="steps=7"), budget={"images": 1000})


@pytest.mark.parametrize(
    ("recipe", "players"),
    [
        ("ring", "ring; G and D: mlp (width 128) and mlp (width 128); objective"),
        ("vae-gan", "G and D: dcgan"),
        ("autoencoder", "E and G: dcgan (width 32) and dcgan (width 32);"),
        ("latent-optimisation", "E and G: free_codes and dcgan (width 32);"),
    ],
)
def test_bases_are_described_by_their_players(recipe: str, players: str) -> None:
    base = {"b": {"recipe": recipe, "set": [], "measures": ["fid"]}}
    [summary] = [one.summary for one in expanded(tip("short", "batch=16"), base=base).study.bases]
    assert players in summary
