"""The changes that advice names: which options belong together, and that each is valid where the alarm can arise."""

from __future__ import annotations

import re

import pytest

from poise.recipe.advice import fit_advice, useful_options
from poise.recipe.decode import decode
from poise.recipe.toml import Table
from poise.watch.advice import changes_in
from poise.watch.monitor import DETECTORS
from watch.test_detectors import CASES, TABLES, alarms_for, refusals, set_options


@pytest.mark.parametrize(
    ("advice", "changes"),
    [
        ("lower the learning rate", []),
        ("lower it: --set optimizer.g.lr=5e-5", [("optimizer.g.lr=5e-5",)]),
        ("both: --set a=1 --set b=2; or --set c=3.", [("a=1", "b=2"), ("c=3",)]),
        ("first --set a=1, then --set b=2", [("a=1",), ("b=2",)]),
        (
            "--set 'x+=[{kind=\"y\", z=2}]', or (--set a.b=1e-4) and --set c=3",
            [('x+=[{kind="y", z=2}]',), ("a.b=1e-4",), ("c=3",)],
        ),
    ],
)
def test_options_side_by_side_are_one_change(advice: str, changes: list[tuple[str, ...]]) -> None:
    assert changes_in(advice) == changes


@pytest.mark.parametrize("recipe", TABLES)
def test_each_change_is_valid_where_the_alarm_can_arise(recipe: str) -> None:
    for alarm in [alarm for name in CASES for alarm in alarms_for(name, recipe)]:
        changes = changes_in(alarm.advice)
        assert [option for change in changes for option in change] == set_options(alarm.advice)
        for change in changes:
            assert refusals(recipe, change) == [], alarm
        check_fitted(alarm.advice, decode(TABLES[recipe], recipe).canonical())


def check_fitted(advice: str, table: Table) -> None:
    """What remains of advice for a recipe advances on it, repeats no trick, and is still a sentence."""
    fitted = fit_advice(advice, table)
    kinds = [trick["kind"] for trick in table["tricks"]]
    for option in set_options(fitted):
        assert useful_options(table, (option,)) == (option,)
        assert not any(f'kind="{kind}"' in option for kind in kinds)
    assert re.search(r"[:,] ?(\(|$)|\) \(|  |--set(?! \S)", fitted) is None, fitted


def test_every_option_of_default_advice_is_found() -> None:
    """Detectors choose other advice if they know the player or the components; some names no option."""
    named = {name: changes_in(detector.advice) for name, detector in DETECTORS.items()}
    assert {name for name, changes in named.items() if len(changes) > 1} == {"wasserstein_stuck"}
    assert named["d_at_zero"] == [("optimizer.d.lr=5e-5", 'tricks+=[{kind="instance_noise", sigma=0.5}]')]
    for name, detector in DETECTORS.items():
        assert sum(map(len, named[name])) == detector.advice.count("--set")
