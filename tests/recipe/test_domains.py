"""Recipes with two domains: what is refused, at which field, and that the cure helps; what the recipe file contains."""

from __future__ import annotations

from typing import Any

import pytest

from contracts.tiny import TRANSLATED, recipe, source
from poise.recipe.checks.compatibility import check_compatibility
from poise.recipe.checks.findings import Finding
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.recipe.toml import set_value

UNET: dict[str, Any] = {"kind": "unet", "width": 2}
PATCH: dict[str, Any] = {"kind": "patch", "width": 2, "layers": 1}
DCGAN: dict[str, Any] = {"kind": "dcgan", "width": 2}


def translating(direction: str | None = "a_to_b", judges: str | None = None, *tricks: str, **changes: Any) -> Recipe:
    """A recipe with a U-Net."""
    network = {"g": UNET, "d": PATCH, "direction": direction, "judges": judges}
    table = {"network": {name: value for name, value in network.items() if value is not None}}
    return recipe(TRANSLATED, *({"kind": kind} for kind in tricks), **(table | changes))


def normalised(norm: str) -> dict[str, Any]:
    """The networks of a residual translator with this norm."""
    g = {"kind": "translator", "width": 2, "blocks": 1, "downsamplings": 1, "norm": norm}
    return {"g": g, "d": PATCH, "direction": "same"}


def refusals(config: Recipe, parts: tuple[int, ...] | None = (1, 1), classes: int = 0) -> list[Finding]:
    found = check_compatibility(config, (sum(parts or (1,)), 8, 8), classes, parts).refusals
    assert all(finding.message and finding.cure and finding.tip for finding in found)
    return found


@pytest.mark.parametrize(
    ("direction", "judges", "parts"),
    [
        ("a_to_b", None, (1, 1)),
        ("a_to_b", "all", (1, 3)),
        ("a_to_b", "b", (3, 1)),
        ("both_ways", "each", (1, 3)),
        ("both_ways", "all", (1, 1)),
        ("same", None, ()),
        ("same", None, (3,)),
        ("a_to_b", "b", None),
    ],
)
def test_what_fits(direction: str, judges: str | None, parts: tuple[int, ...] | None) -> None:
    assert refusals(translating(direction, judges), parts) == []


def test_a_domain_that_g_generates_can_be_measured() -> None:
    assert refusals(translating("both_ways", "each", measure={"domain": "a"})) == []
    assert refusals(translating("a_to_b", measure={"domain": "b"})) == []
    changed = translating("a_to_b", measure={"domain": "a"}).canonical()
    set_value(changed, "measure.domain=none")
    assert refusals(decode(changed)) == []


@pytest.mark.parametrize(
    ("config", "field", "says"),
    [
        (translating(None), "network.direction", "'unet' translates images, but the recipe does not say which part"),
        (
            recipe("pictures", network={"g": DCGAN, "d": DCGAN, "direction": "a_to_b"}),
            "network.direction",
            "'dcgan' generates images from latents, so it has no direction",
        ),
        (translating("both_ways", "b"), "network.judges", "D never sees its images of the domain a"),
        (translating("a_to_b", "each"), "network.judges", "a D of their own learns nothing"),
        (
            translating("both_ways", "each", conditioning={"g": {"kind": "channels"}, "d": {"kind": "projection"}}),
            "conditioning.g",
            "G translates both ways, but a label belongs to one domain",
        ),
        (
            translating("same", conditioning={"g": {"kind": "concat"}}),
            "conditioning.g",
            "'concat' adds a label to a vector or to norms, but 'unet' translates images",
        ),
        (
            recipe("labelled", conditioning={"g": {"kind": "channels"}}),
            "conditioning.g",
            "'channels' adds a label to an image, but 'dcgan' generates images from latents",
        ),
        (
            translating("same", network=normalised("instance"), conditioning={"g": {"kind": "channels"}}),
            "conditioning.g",
            "an instance norm removes whatever is constant over an image",
        ),
        (
            translating("same", network=normalised("virtual"), conditioning={"g": {"kind": "channels"}}),
            "conditioning.g",
            "the reference batch of virtual batch norm has no labels",
        ),
        (
            translating("same", tricks=[{"kind": "frozen_critic", "goal": "label"}]),
            "conditioning.g",
            "'frozen_critic' compares with the label, but G is not conditioned on it",
        ),
        (
            recipe("pictures", {"kind": "frozen_critic"}),
            "tricks.0",
            "'frozen_critic' compares images before and after translation, but G does not translate",
        ),
        (
            recipe(
                "labelled",
                network={"g": DCGAN, "d": DCGAN, "judges": "b"},
                conditioning={"g": {"kind": "concat"}, "d": {"kind": "projection"}},
            ),
            "conditioning.d",
            "a D that reads one domain of a sample takes no labels",
        ),
        (recipe("pictures", {"kind": "cycle"}), "tricks.0", "but G does not translate"),
        (translating("a_to_b", None, "cycle"), "tricks.0", "but the direction of G is 'a_to_b'"),
        (translating("same", None, "identity_mapping"), "tricks.0", "but the direction of G is 'same'"),
        (translating("same", None, "target_l1"), "tricks.0", "but the direction of G is 'same'"),
        (translating("a_to_b", None, "path_length"), "tricks.0", "G starts from images"),
        (translating("a_to_b", measure={"domain": "a"}), "measure.domain", "generates no images of a"),
        (translating("same", measure={"domain": "b"}), "measure.domain", "are of one domain"),
        (recipe("pictures", measure={"domain": "b"}), "measure.domain", "are of one domain"),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value else "",
)
def test_what_the_recipe_alone_shows(config: Recipe, field: str, says: str) -> None:
    found = refusals(config, None, 2)
    assert field in [finding.field for finding in found]
    assert any(says in finding.message for finding in found if finding.field == field)


def test_the_tricks_say_with_which_direction_they_work() -> None:
    (finding,) = refusals(translating("same", None, "identity_mapping"), ())
    assert finding.cure == 'set network.direction to "a_to_b" or "both_ways", or remove the trick'


@pytest.mark.parametrize(
    ("config", "parts", "field", "says"),
    [
        (translating("a_to_b"), (), "network.direction", "'a_to_b' needs a sample with an image of each of two"),
        (
            translating("both_ways", "each"),
            (3,),
            "network.judges",
            "'each' needs a sample with an image of each of two",
        ),
        (translating("same"), (1, 3), "network.direction", "which 'same' would translate as one"),
        (translating("both_ways", None, "identity_mapping"), (1, 3), "tricks.0", "which have 1 and 3 channels"),
        (translating("a_to_b", None, "self_regularization"), (1, 3), "tricks.0", "which have 1 and 3 channels"),
    ],
    ids=str,
)
def test_what_the_data_shows(config: Recipe, parts: tuple[int, ...], field: str, says: str) -> None:
    assert not refusals(config, None)
    found = refusals(config, parts)
    assert any(says in finding.message for finding in found if finding.field == field)


def test_losses_between_domains_with_other_channels() -> None:
    """The cycle and the distance to the target stay within a domain, so that the channels may differ."""
    assert refusals(translating("both_ways", "each", "cycle", "target_l1"), (1, 3)) == []


def test_nothing_is_judged_without_a_discriminator() -> None:
    network = {"g": DCGAN, "e": DCGAN, "judges": "b"}
    adam = {"kind": "adam", "lr": 1e-2}
    config = recipe(
        "coded",
        network=network,
        objective={"kind": "reconstruction"},
        optimizer={"g": adam},
        tempo={"kind": "alone"},
    )
    (finding,) = refusals(config, None)
    assert finding.field == "network.judges"
    assert "no discriminator" in finding.message


def test_an_ordinary_recipe_does_not_mention_domains() -> None:
    ordinary = recipe("pictures").canonical()["network"]
    assert ordinary.keys() == {"g", "d"}
    assert recipe(TRANSLATED).canonical()["network"].keys() == {"g", "d", "direction", "judges"}
    assert recipe("pictures").network.configs.keys() == {"g", "d"}
    assert recipe(TRANSLATED).network.configs.keys() == {"g", "d"}


def test_the_direction_is_removed_as_the_refusal_says() -> None:
    table = recipe("pictures", network={"g": DCGAN, "d": DCGAN, "direction": "a_to_b"}).canonical()
    set_value(table, "network.direction=none")
    assert table["network"].keys() == {"g", "d"}


def test_the_parts_of_the_data_reach_the_networks() -> None:
    assert source(TRANSLATED).spec().parts == (1, 1)
    assert source("pictures").spec().parts == ()


@pytest.mark.parametrize("direction", ["same", "a_to_b"])
@pytest.mark.parametrize("norm", ["batch", "none", "layer"])
def test_a_g_that_translates_one_way_takes_labels(direction: str, norm: str) -> None:
    network = normalised(norm) | {"direction": direction}
    labelled = translating(network=network, conditioning={"g": {"kind": "channels"}, "d": {"kind": "projection"}})
    assert refusals(labelled, (1, 1) if direction == "a_to_b" else (), 3) == []


def test_several_critics_are_no_mistake() -> None:
    critics = [{"kind": "frozen_critic"}, {"kind": "frozen_critic", "goal": "change", "output": "features"}]
    found = check_compatibility(translating("same", tricks=critics), (1, 8, 8), 0, ())
    assert [warning.message for warning in found.warnings if "more than once" in warning.message] == []
