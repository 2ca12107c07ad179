"""Checks of a game with two domains: which parts of a sample G and D read, and the tricks that compare images.

What the data consists of is known once it is loaded; what depends on the recipe alone is checked before.
"""

from __future__ import annotations

from poise.data.vectors import NO_MEASURES, VectorSetsConfig
from poise.errors import RecipeError
from poise.networks.base import TranslatorConfig
from poise.networks.translation import Parts, generated_part
from poise.recipe.checks.findings import Finding, Findings
from poise.recipe.model import Recipe

TIP = "T18"
"""The tip that presents pix2pix, to which findings about its networks belong."""


def check_domains(recipe: Recipe, parts: Parts | None, findings: Findings) -> None:
    """Find what does not fit together in a game with two domains.

    Args:
        recipe: the recipe.
        parts: the number of channels of each domain in a sample of the data; None if it is not known yet.
        findings: where the findings are added.
    """
    for rule in (_direction, _judges, _labels, _comparisons, _measures, _measured_domain):
        rule(recipe, findings)
    if parts is not None:
        _parts(recipe, parts, findings)
        _equal_parts(recipe, parts, findings)


def _direction(recipe: Recipe, findings: Findings) -> None:
    """A translator has a direction, and no other generator has one."""
    kind, direction = recipe.network.g.tag(), recipe.network.direction
    translates = isinstance(recipe.network.g, TranslatorConfig)
    if translates and direction is None:
        reason = f"'{kind}' translates images, but the recipe does not say which part of a sample it reads"
        cure = 'set it to "a_to_b" or "both_ways", or to "same" for data with one domain'
        findings.refusals.append(Finding("network.direction", reason, TIP, cure))
    if direction is not None and not translates:
        reason = f"'{kind}' generates images from latents, so it has no direction"
        cure = 'remove it (--set network.direction=none), or use network.g kind "unet", "translator" or "refiner"'
        findings.refusals.append(Finding("network.direction", reason, TIP, cure))


def _judges(recipe: Recipe, findings: Findings) -> None:
    """D judges what G generates."""
    judges, direction = recipe.network.judges, recipe.network.direction
    reason, cure = "", ""
    if judges is not None and not recipe.has_discriminator:
        reason = "it says what D sees, but the recipe has no discriminator"
        cure = "remove it (--set network.judges=none)"
    elif judges == "b" and direction == "both_ways":
        reason = "G translates both ways, but D never sees its images of the domain a"
        cure = 'set it to "each" or "all"'
    elif judges == "each" and direction == "a_to_b":
        reason = "with 'a_to_b' the images of the domain a are real in either case, so a D of their own learns nothing"
        cure = 'set it to "b" or "all"'
    if reason:
        findings.refusals.append(Finding("network.judges", reason, TIP, cure))


def _labels(recipe: Recipe, findings: Findings) -> None:
    """A translator of one domain takes labels beside its image; a D of one domain takes none."""
    kind, direction, conditioning = recipe.network.g.tag(), recipe.network.direction, recipe.labels.g
    remove, reason, cure = "remove the conditioning (--set conditioning=none)", "", 'use conditioning.g kind "channels"'
    if conditioning is not None and direction == "both_ways":
        reason, cure = "G translates both ways, but a label belongs to one domain", remove
    elif conditioning is not None and direction is not None and not conditioning.of_images:
        reason = f"'{conditioning.tag()}' adds a label to a vector or to norms, but '{kind}' translates images"
    elif conditioning is not None and direction is None and conditioning.of_images:
        reason = f"'{conditioning.tag()}' adds a label to an image, but '{kind}' generates images from latents"
        cure = 'use conditioning.g kind "concat"'
    if reason:
        findings.refusals.append(Finding("conditioning.g", reason, "T13", cure))
    if recipe.network.judges in ("b", "each") and recipe.labels.d is not None:
        reason = "a D that reads one domain of a sample takes no labels"
        findings.refusals.append(Finding("conditioning.d", reason, "T13", remove))


def _comparisons(recipe: Recipe, findings: Findings) -> None:
    """A trick that compares images before and after translation needs a translation that has both."""
    direction = recipe.network.direction
    for i, trick in enumerate(recipe.tricks):
        where, name = f"tricks.{i}", f"'{trick.tag()}'"
        if trick.directions and direction not in trick.directions:
            known = " or ".join(f'"{one}"' for one in sorted(trick.directions))
            does = "G does not translate" if direction is None else f"the direction of G is '{direction}'"
            reason = f"{name} compares images before and after translation, but {does}"
            cure = f"set network.direction to {known}, or remove the trick"
            findings.refusals.append(Finding(where, reason, trick.tip, cure))
        elif trick.needs_pairs and recipe.data.two_domains == "domains":
            reason = f"{name} compares a translated image with the other one of its sample, but these are unrelated"
            cure = "use data kind \"pairs\", or the trick 'cycle'"
            findings.refusals.append(Finding(where, reason, trick.tip, cure))
        elif trick.tag() == "path_length" and direction is not None:
            reason = f"{name} penalises unequal steps between latents, but G starts from images"
            findings.refusals.append(Finding(where, reason, trick.tip, "remove it"))


def _measures(recipe: Recipe, findings: Findings) -> None:
    """Measures compare images, or points in the plane."""
    if isinstance(recipe.data, VectorSetsConfig) and recipe.measure is not None:
        findings.refusals.append(Finding("measure", NO_MEASURES, "T23", "remove it (--set measure=none)"))


def _measured_domain(recipe: Recipe, findings: Findings) -> None:
    """Only images that G generates are measured."""
    domain = None if recipe.measure is None else recipe.measure.domain
    if domain is None:
        return
    try:
        generated_part(recipe.network.direction, (1, 1), domain)
    except RecipeError as error:
        findings.refusals.append(Finding("measure.domain", error.what, TIP, "remove it (--set measure.domain=none)"))


def _parts(recipe: Recipe, parts: Parts, findings: Findings) -> None:
    """Two domains where two are read, and one where one is."""
    direction, judges = recipe.network.direction, recipe.network.judges
    fields = {"network.direction": direction in ("a_to_b", "both_ways"), "network.judges": judges in ("b", "each")}
    for where, needs_two in fields.items():
        if needs_two and len(parts) != 2:
            value = direction if where == "network.direction" else judges
            reason = f"'{value}' needs a sample with an image of each of two domains, and this data has one"
            usable = "same" if where == "network.direction" else "all"
            cure = f'set it to "{usable}", or use data kind "pairs" or "domains" (--data pairs:PATH)'
            findings.refusals.append(Finding(where, reason, TIP, cure))
    if direction is None and len(parts) == 2:
        reason = "a sample has an image of each of two domains, and G generates both, as it does not translate"
        cure = "set network.direction for a G that translates; to read sub-folders as classes give --data folder:PATH"
        findings.warnings.append(Finding("network.g", reason, TIP, cure))
    if direction == "same" and len(parts) == 2:
        reason = "a sample has an image of each of two domains, which 'same' would translate as one"
        findings.refusals.append(Finding("network.direction", reason, TIP, 'set it to "a_to_b" or "both_ways"'))


def _equal_parts(recipe: Recipe, parts: Parts, findings: Findings) -> None:
    """Images of two domains can be compared if they have equally many channels."""
    for i, trick in enumerate(recipe.tricks):
        if trick.compares_domains and len(set(parts)) > 1:
            counts = " and ".join(map(str, parts))
            reason = f"'{trick.tag()}' compares images of both domains, which have {counts} channels"
            cure = "use data with equally many channels, or remove the trick"
            findings.refusals.append(Finding(f"tricks.{i}", reason, trick.tip, cure))
