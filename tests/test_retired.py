"""Names that were documented before they were renamed still work, and warn."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import poise
from poise import retired
from poise.core.hooks import InputTransform
from poise.objectives.base import Objective
from poise.training.listener import NullListener, SafeListener

PAGE = (Path(__file__).parents[1] / "docs" / "migration.md").read_text("utf-8")
MEMBERS = (
    retired.TRICK_MEMBERS,
    retired.OBJECTIVE_MEMBERS,
    retired.DISCRIMINATOR_MEMBERS,
    retired.LISTENER_MEMBERS,
)


def named(dotted: str) -> Any:
    home, _, name = dotted.rpartition(".")
    return getattr(import_module(home), name)


@pytest.mark.parametrize(("old", "new"), retired.NAMES.items())
def test_a_retired_name_is_the_new_thing_and_warns(old: str, new: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"now called {new}"):
        found = named(old)
    assert found is named(new)


def test_an_unknown_name_is_refused_as_ever() -> None:
    for module in {old.rpartition(".")[0] for old in retired.NAMES}:
        with pytest.raises(AttributeError, match="no_such_name"):
            named(f"{module}.no_such_name")
    with pytest.raises(ModuleNotFoundError):
        import_module("poise.no_such_module")


def test_the_page_shows_the_table() -> None:
    for table in (retired.NAMES, *MEMBERS):
        for old, new in table.items():
            assert f"| `{old}` | `{new}` |" in PAGE
    assert PAGE.count("\n| `") == sum(len(table) for table in (retired.NAMES, *MEMBERS))


def test_members_of_a_custom_trick() -> None:
    with pytest.warns(DeprecationWarning, match=r"Old\.view is now called Old\.transform_input"):

        class Old(InputTransform):
            def view(self, images: Any, pile: Any, moment: Any) -> Any:
                return images

    assert Old("old").transform_input("images", "real", None) == "images"  # type: ignore[arg-type]


def test_members_of_a_custom_objective() -> None:
    with pytest.warns(DeprecationWarning, match=r"Old\.d_costs is now called Old\.d_losses"):

        class Old(Objective):
            def d_costs(self, real: Any, fake: Any, targets: Any) -> Any:
                return (real, fake)

    assert Old().d_losses(1, 2, None) == (1, 2)  # type: ignore[arg-type]


def test_members_of_a_listener() -> None:
    steps: list[int] = []
    with pytest.warns(DeprecationWarning, match=r"Old\.tick is now called Old\.on_step"):

        class Old(NullListener):
            def tick(self, step: int) -> None:
                steps.append(step)

    Old().on_step(3)
    assert steps == [3]


def test_a_listener_that_inherits_from_nothing() -> None:
    steps: list[int] = []

    class Plain:
        def tick(self, step: int) -> None:
            steps.append(step)

    with pytest.warns(DeprecationWarning, match=r"Plain\.tick is now called Plain\.on_step"):
        safe = SafeListener(Plain(), print)  # type: ignore[arg-type]
    safe.on_step(4)
    assert steps == [4]


def test_the_old_argument_of_train(tmp_path: Path) -> None:
    seen: list[int] = []

    class Counting(NullListener):
        def on_step(self, step: int) -> None:
            seen.append(step)

    with pytest.warns(DeprecationWarning, match="the argument watcher is now called listener"):
        poise.train("ring", tmp_path / "run", steps=2, watcher=Counting())
    assert seen == [1, 2]
    with pytest.raises(TypeError, match="unexpected keyword argument 'spectator'"):
        poise.train("ring", tmp_path / "other", spectator=None)


def test_a_script_of_version_0_1_runs() -> None:
    script = (
        "import warnings; warnings.simplefilter('ignore')\n"
        "from poise.core import Moment, Side\n"
        "from poise.players import Player\n"
        "from poise.randomness import Dice\n"
        "from poise.seams import View\n"
        "from poise.training.step import alternate\n"
        "print(Dice(3).seed)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "3\n"
