"""Checks that the recipe has the players that its objective needs, and no others.

An adversarial game has a discriminator D and its optimiser. Training without a discriminator (`reconstruction`, `elbo`)
has neither, and no tricks that act on D. An encoder is needed if, and only if, some part uses latent codes of real
samples. What is missing or has no use is refused before anything else is checked.
"""

from __future__ import annotations

from poise.data.config import PointsConfig
from poise.networks.base import TranslatorConfig
from poise.recipe.checks.findings import Finding, Findings
from poise.recipe.model import Recipe


def check_players(recipe: Recipe, findings: Findings) -> None:
    """Add a finding for each player that is missing or has no use."""
    for rule in (_discriminator, _tempo, _discriminator_tricks, _encoder, _style_mixing, _latent, _source):
        rule(recipe, findings)


def _discriminator(recipe: Recipe, findings: Findings) -> None:
    """There is a discriminator with its optimiser if, and only if, the objective uses one."""
    kind = recipe.objective.tag()
    parts = {"network.d": recipe.network.d, "optimizer.d": recipe.optimizer.d}
    if recipe.has_discriminator:
        for where, part in parts.items():
            if part is None:
                reason = f"'{kind}' needs a discriminator, but the recipe has no {where}"
                cure = "add it, or use the objective 'reconstruction' or 'elbo', which train without a discriminator"
                findings.refusals.append(Finding(where, reason, "T25", cure))
        return
    for where, part in (parts | {"conditioning.d": recipe.labels.d}).items():
        if part is not None:
            reason = f"'{kind}' trains without a discriminator"
            cure = f"remove it (--set {where}=none), or use another objective"
            findings.refusals.append(Finding(where, reason, "T25", cure))


def _tempo(recipe: Recipe, findings: Findings) -> None:
    """The tempo `alone` is for training without a discriminator, and every other tempo for two players."""
    alone = recipe.tempo.tag() == "alone"
    if recipe.has_discriminator and alone:
        reason = f"'{recipe.objective.tag()}' trains two players, but with 'alone' only G moves"
        findings.refusals.append(Finding("tempo", reason, "T12", 'use kind "ratio"'))
    if not recipe.has_discriminator and not alone:
        kind = recipe.objective.tag()
        reason = f"'{recipe.tempo.tag()}' moves two players, but '{kind}' trains without a discriminator"
        findings.refusals.append(Finding("tempo", reason, "T25", 'use kind "alone"'))


def _discriminator_tricks(recipe: Recipe, findings: Findings) -> None:
    """A trick that acts on D or its output needs a D."""
    for i, trick in enumerate(recipe.tricks):
        if trick.needs_discriminator and not recipe.has_discriminator:
            kind = recipe.objective.tag()
            reason = f"'{trick.tag()}' acts on D or its output, but '{kind}' trains without a discriminator"
            cure = "remove it"
            if trick.tag() == "python":
                cure = "remove it, or set needs_discriminator = False in its class if it does not"
            findings.refusals.append(Finding(f"tricks.{i}", reason, trick.tip, cure))


def _encoder(recipe: Recipe, findings: Findings) -> None:
    """There is an encoder if, and only if, latent codes are used; free codes need a finite training set."""
    encoder = recipe.network.e
    if encoder is None and recipe.needs_codes:
        users = [trick.tag() for trick in recipe.tricks if trick.needs_codes] or [recipe.objective.tag()]
        reason = f"'{users[0]}' uses the latent codes of real samples, but the recipe has no encoder"
        findings.refusals.append(Finding("network.e", reason, "T25", 'add network.e = {kind = "dcgan"}, or "mlp"'))
    if encoder is not None and not recipe.needs_codes:
        reason = "nothing uses the codes of this encoder, so it would not be trained"
        cure = "remove it, or add the trick 'feature_reconstruction'"
        if any(trick.tag() == "python" for trick in recipe.tricks):
            cure = "remove it, or set needs_codes = True in the class of the trick that uses them"
        findings.warnings.append(Finding("network.e", reason, "T08b", cure))
    if encoder is not None and encoder.by_index and isinstance(recipe.data, PointsConfig):
        reason = "free codes are one per training sample, but this data set is endless"
        findings.refusals.append(Finding("network.e", reason, "T25", 'use network.e = {kind = "mlp"}'))
    if encoder is not None and encoder.by_index and recipe.data.two_domains == "domains":
        reason = "free codes are one per training sample, but samples of two domains are ever new combinations"
        findings.refusals.append(Finding("network.e", reason, "T25", 'use network.e = {kind = "dcgan"}'))
    if encoder is not None and encoder.by_index and recipe.mirrors_images:
        reason = "free codes are one per training image, so an image and its flip would have the same code"
        cure = 'set it to false, or use network.e = {kind = "dcgan"}'
        findings.refusals.append(Finding("data.mirror", reason, "T25", cure))


def _style_mixing(recipe: Recipe, findings: Findings) -> None:
    """A reconstruction must depend on the code of its sample alone."""
    if recipe.needs_codes and getattr(recipe.network.g, "style_mixing", 0) > 0:
        reason = "G decodes the codes of real samples, but style mixing replaces some of their styles by random ones"
        findings.refusals.append(Finding("network.g.style_mixing", reason, "T08b", "set it to 0"))
    if "codes" in recipe.required_outputs and getattr(recipe.network.g, "style_mixing", 0) > 0:
        reason = "D predicts the z of each generated sample, but style mixing makes some of them from two"
        findings.refusals.append(Finding("network.g.style_mixing", reason, "M03", "set it to 0"))


def _latent(recipe: Recipe, findings: Findings) -> None:
    """The KL divergence of the codes is computed in closed form between Gaussians."""
    if recipe.needs_code_variance and recipe.latent.tag() != "gaussian":
        reason = f"the KL divergence of the codes needs a Gaussian prior, but the latents are '{recipe.latent.tag()}'"
        findings.refusals.append(Finding("latent", reason, "T08b", 'use kind "gaussian"'))


def _source(recipe: Recipe, findings: Findings) -> None:
    """A translator starts from samples of the data, and no other generator can."""
    kind, is_source = recipe.network.g.tag(), not recipe.latent.is_space
    translates = isinstance(recipe.network.g, TranslatorConfig)
    if is_source and not translates:
        which = "a G from a Python file" if kind == "python" else f"'{kind}'"
        reason = (
            f"with latents of kind '{recipe.latent.tag()}' G starts from samples of the data, but {which} maps vectors"
        )
        findings.refusals.append(
            Finding("latent", reason, "T03", 'use kind "gaussian", or a network.g that translates')
        )
    if translates and not is_source:
        reason = f"'{kind}' translates samples of the data, but the latents are '{recipe.latent.tag()}'"
        findings.refusals.append(Finding("latent", reason, "T03", 'use kind "source"'))
    for i, trick in enumerate(recipe.tricks):
        if is_source and "codes" in trick.required_outputs:
            reason = f"'{trick.tag()}' predicts the coordinates of z, but G starts from samples of the data"
            findings.refusals.append(Finding(f"tricks.{i}", reason, trick.tip, "remove it"))
    if is_source and recipe.network.e is not None:
        reason = "G starts from samples of the data, so there are no codes"
        findings.refusals.append(Finding("network.e", reason, "T25", "remove it (--set network.e=none)"))
