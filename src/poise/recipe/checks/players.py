"""Who takes part: a game of two has a D, a game for one has none, and an encoder is there if codes are read.

What stands here in a recipe without a part to play, or is missing, is refused before anything else is looked at.
"""

from __future__ import annotations

from poise.data.source import ToyConfig
from poise.recipe.checks.findings import Finding, Findings
from poise.recipe.model import Recipe


def check_players(recipe: Recipe, findings: Findings) -> None:
    """Add what is missing or has nothing to do to the refusals."""
    for rule in (_rival, _tempo, _asking, _encoder, _latent):
        rule(recipe, findings)


def _rival(recipe: Recipe, findings: Findings) -> None:
    kind = recipe.objective.tag()
    there = {"network.d": recipe.network.d, "optimizer.d": recipe.optimizer.d}
    if recipe.has_discriminator:
        for where, part in there.items():
            if part is None:
                reason = f"'{kind}' asks a discriminator, and the recipe has no {where}"
                cure = "add it, or take the objective 'reconstruction' or 'elbo', which rebuild what they see"
                findings.refusals.append(Finding(where, reason, "T25", cure))
        return
    for where, part in (there | {"conditioning.d": recipe.labels.d}).items():
        if part is not None:
            reason = f"'{kind}' is a game for one: nobody asks a discriminator"
            cure = f"leave it out (--set {where}=none), or take another objective"
            findings.refusals.append(Finding(where, reason, "T25", cure))


def _tempo(recipe: Recipe, findings: Findings) -> None:
    alone = recipe.tempo.tag() == "alone"
    if recipe.has_discriminator and alone:
        reason = f"'{recipe.objective.tag()}' is a game of two, and only G would move"
        findings.refusals.append(Finding("tempo", reason, "T12", 'take kind "ratio"'))
    if not recipe.has_discriminator and not alone:
        reason = f"'{recipe.tempo.tag()}' lets two players move, and '{recipe.objective.tag()}' is a game for one"
        findings.refusals.append(Finding("tempo", reason, "T25", 'take kind "alone"'))


def _asking(recipe: Recipe, findings: Findings) -> None:
    for i, trick in enumerate(recipe.tricks):
        if trick.needs_discriminator and not recipe.has_discriminator:
            reason = f"'{trick.tag()}' acts on D or on what D says, and '{recipe.objective.tag()}' is a game for one"
            findings.refusals.append(Finding(f"tricks.{i}", reason, trick.tip, "leave it out"))


def _encoder(recipe: Recipe, findings: Findings) -> None:
    """One is there if, and only if, somebody reads codes; free codes are those of pictures that can be counted."""
    encoder = recipe.network.e
    if encoder is None and recipe.needs_codes:
        readers = [trick.tag() for trick in recipe.tricks if trick.needs_codes] or [recipe.objective.tag()]
        reason = f"'{readers[0]}' reads the codes of real samples, and nothing encodes them"
        findings.refusals.append(Finding("network.e", reason, "T25", 'add network.e = {kind = "dcgan"}, or "mlp"'))
    if encoder is not None and not recipe.needs_codes:
        reason = "nobody reads this encoder's codes, so it would learn nothing"
        cure = "leave it out, or add the trick 'feature_reconstruction'"
        findings.warnings.append(Finding("network.e", reason, "T08b", cure))
    if encoder is not None and encoder.by_index and isinstance(recipe.data, ToyConfig):
        reason = "free codes are one for each training sample, and these have no end"
        findings.refusals.append(Finding("network.e", reason, "T25", 'take network.e = {kind = "mlp"}'))


def _latent(recipe: Recipe, findings: Findings) -> None:
    if recipe.needs_code_variance and recipe.latent.tag() != "gaussian":
        reason = f"the KL of a code's region is to a Gaussian, and latents are '{recipe.latent.tag()}'"
        findings.refusals.append(Finding("latent", reason, "T08b", 'take kind "gaussian"'))
