"""Warnings about fractions that round to none or all of a batch, and about pools that the run can't fill."""

from __future__ import annotations

from typing import Any

import pytest

from contracts.tiny import findings_of, recipe

HISTORY, REPLAY, POOL = ({"kind": kind, "size": 16} for kind in ("history", "experience_replay", "image_pool"))


@pytest.mark.parametrize(
    ("tricks", "changes", "words"),
    [
        ([HISTORY], {"batch": 1}, "rounds to 0"),
        ([REPLAY], {"batch": 1}, "rounds to 0"),
        ([REPLAY | {"fraction": 1.0}], {}, "all 8 fake samples"),
        ([HISTORY | {"fraction": 0.97}], {}, "all 8 fake samples"),
        ([HISTORY | {"size": 1000}], {}, "full after 125 steps, but the run has 12"),
        ([REPLAY | {"size": 1000}], {}, "full after 500 steps"),
        ([POOL | {"size": 1000}], {}, "full after 125 steps"),
        ([REPLAY | {"fraction": 1.0}, HISTORY], {}, "replace all fake samples"),
        ([{"kind": "top_k", "fraction": 0.95}], {}, "rounds to all"),
        ([{"kind": "minibatch_discrimination"}], {"batch": 1}, "nothing to compare"),
        ([{"kind": "minibatch_stddev", "group": 2}], {"batch": 7}, "no group size from 2"),
    ],
)
def test_a_trick_without_effect_causes_a_warning(
    tricks: list[dict[str, Any]], changes: dict[str, Any], words: str
) -> None:
    found = findings_of(recipe("points", *tricks, **changes), "points")
    matching = [finding for finding in found.warnings if words in finding.message]
    assert matching, found
    assert all(finding.field.startswith("tricks.") and finding.cure for finding in matching)


@pytest.mark.parametrize(
    "tricks",
    [[HISTORY], [REPLAY], [POOL], [REPLAY, HISTORY], [HISTORY, POOL], [{"kind": "top_k", "fraction": 0.5}]],
)
def test_proper_fractions_cause_no_warning(tricks: list[dict[str, Any]]) -> None:
    assert findings_of(recipe("points", *tricks, steps=100), "points").warnings == []


def test_a_second_image_pool_is_refused() -> None:
    (refusal,) = findings_of(recipe("points", POOL, POOL, steps=100), "points").refusals
    assert refusal.field == "tricks.1"
    assert "no effect" in refusal.message


@pytest.mark.parametrize(
    "trick",
    [
        {"kind": "minibatch_stddev"},
        {"kind": "minibatch_discrimination"},
        {"kind": "pulling_away"},
        {"kind": "top_k", "fraction": 0.5},
    ],
    ids=lambda trick: trick["kind"],
)
@pytest.mark.parametrize("batch", [1, 4, 9])
def test_a_batch_that_is_no_multiple_of_the_pack_has_one_reason(trick: dict[str, Any], batch: int) -> None:
    """The number of scores is not known then: the cure changes the batch."""
    packing = {"kind": "packing", "samples": 8}
    found = findings_of(recipe("points", packing, trick, batch=batch), "points")
    assert [(finding.field, finding.cure) for finding in found.refusals] == [("tricks.0", "set batch to 8")]
    assert not any("no effect" in finding.message for finding in found.warnings)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"shift": 0.05, "mirror": 0.0}, "no effect: its shift of 0.05 rounds to 0 pixels in images of 8 x 8"),
        ({"shift": 0.0, "mirror": 0.0}, "no effect"),
        ({"shift": 0.05, "mirror": 0.5}, "rounds to 0 pixels"),
        ({"shift": 0.1, "mirror": 0.0}, ""),
        ({"shift": 0.0, "mirror": 0.5}, ""),
        ({"shift": 0.05, "mirror": 0.0, "weight": 0.0}, ""),
    ],
)
def test_a_shift_of_no_pixel_causes_a_warning(settings: dict[str, Any], words: str) -> None:
    found = findings_of(recipe("pictures", {"kind": "consistency", **settings}), "pictures").warnings
    messages = [finding.message for finding in found if finding.field == "tricks.0.shift"]
    assert [words in message for message in messages] == ([True] if words else [])
