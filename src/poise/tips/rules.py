"""The rules that decide which tips a recipe follows, breaks or leaves open: one rule for each tip.

The tips are advice, and some contradict each other. "Broken" means that a recipe deviates from a tip, not that the
recipe is wrong.
"""

from __future__ import annotations

from collections.abc import Callable

from poise.errors import RecipeError
from poise.recipe.toml import Table
from poise.tips.catalogue import Tip, parts, tips
from poise.tips.recipe_view import RecipeView, TipStatus, followed, left_open, not_followed
from poise.utils.printing import agree, count_noun

PENALTIES = ("r1", "r2", "wgan_gp", "dragan")
BATCH_NORMS = ("batch", "spectral_batch")
SPECTRAL_NORMS = ("spectral", "spectral_batch")
BATCH_INDEPENDENT_NORMS = ("instance", "layer", "group", "virtual")


def normalised_inputs(recipe: RecipeView) -> TipStatus:
    """T01: G's output has the range of the data."""
    output = recipe.get("network.g.output")
    if recipe.is_toy:
        return left_open("points have no fixed range")
    if output in ("auto", "tanh"):
        return followed("images are in [-1, 1], and G ends in tanh")
    return left_open("G's network has no output setting") if output is None else not_followed(f"G's output is {output}")


def non_saturating_loss(recipe: RecipeView) -> TipStatus:
    """T02: G's loss has a gradient where D rejects its samples."""
    kind = recipe.get("objective.kind")
    if kind == "non_saturating":
        return followed("G maximises log D(G(z))")
    return (
        not_followed("G minimises log(1 - D(G(z)))") if kind == "minimax" else left_open(f"the objective is '{kind}'")
    )


def spherical_latent(recipe: RecipeView) -> TipStatus:
    """T03: z is not uniform in a cube."""
    kind = recipe.get("latent.kind")
    if kind is None:
        return left_open("the recipe sets no latent distribution")
    if kind == "uniform":
        return not_followed("z is uniform in a cube")
    if kind == "source":
        return left_open("G starts from samples of the data")
    if kind == "codes":
        return left_open("z contains codes, which are categories and uniform numbers")
    return followed(f"the latent distribution is '{kind}'")


def separate_batches(recipe: RecipeView) -> TipStatus:
    """T04: no mixed batch passes through batch norm."""
    if recipe.get("judging") != "together":
        return followed("real and fake batches pass through D separately")
    batch_tricks = recipe.present_tricks("minibatch_discrimination", "minibatch_stddev")
    if recipe.norm("d") in BATCH_NORMS or batch_tricks:
        return not_followed(f"a mixed batch passes through {batch_tricks[0] if batch_tricks else 'batch norm'} in D")
    return left_open("a mixed batch passes through D, but no layer of D depends on the batch")


def batch_norm(recipe: RecipeView) -> TipStatus:
    """T05a: batch norm in both players, unless D has a gradient penalty."""
    g, d, penalties = recipe.norm("g"), recipe.norm("d"), recipe.present_tricks(*PENALTIES)
    if d in BATCH_NORMS and penalties:
        return not_followed(f"batch norm in D, and '{penalties[0]}' penalises the input gradient of each sample")
    if g in BATCH_NORMS and d in BATCH_NORMS:
        return followed("batch norm in both players")
    return left_open(f"norms: G {g}, D {d}")


def spectral_norm(recipe: RecipeView) -> TipStatus:
    """T05b: D's weights are divided by their largest singular value."""
    norm = recipe.norm("d")
    return followed("D's weights are spectrally normalised") if norm in SPECTRAL_NORMS else left_open(f"norm: D {norm}")


def other_norms(recipe: RecipeView) -> TipStatus:
    """T05c: a norm that does not depend on the batch, where batch norm is unsuitable."""
    norms = {side: recipe.norm(side) for side in ("g", "d")}
    independent = [f"{norm} norm in {side.upper()}" for side, norm in norms.items() if norm in BATCH_INDEPENDENT_NORMS]
    if independent:
        return followed(", ".join(independent))
    if norms["d"] in BATCH_NORMS and recipe.present_tricks(*PENALTIES):
        return not_followed("batch norm in D, where a gradient penalty requires another norm or none")
    return left_open(f"norms: G {norms['g']}, D {norms['d']}")


def no_sparse_gradients(recipe: RecipeView) -> TipStatus:
    """T06a: activations and downsampling that pass a gradient everywhere."""
    if recipe.get("network.d.down") == "max":
        return not_followed("max pooling in D passes the gradient to one pixel in four")
    kinds = {side: recipe.activation(side) for side in ("g", "d")}
    sparse = [side.upper() for side, kind in kinds.items() if kind == "relu"]
    if sparse:
        return not_followed(f"ReLU in {' and '.join(sparse)}")
    if None in kinds.values() and "python" in {recipe.get(f"network.{side}.kind") for side in ("g", "d")}:
        return left_open("a custom network")
    return followed("activations that pass some gradient everywhere, and no max pooling")


def gradient_penalty(recipe: RecipeView) -> TipStatus:
    """T06b: D's input gradient is penalised; always where the objective requires it."""
    penalties = recipe.present_tricks(*PENALTIES)
    lazy = [kind for kind in penalties if recipe.tricks[kind].get("every", 1) > 1]
    if lazy and recipe.is_toy:
        return not_followed(f"'{lazy[0]}' is not computed in every step, which fails on toy data")
    if penalties:
        return followed(" and ".join(penalties))
    bounded = recipe.present_tricks("weight_clipping") or recipe.norm("d") in SPECTRAL_NORMS
    if recipe.get("objective.kind") == "wasserstein" and not bounded:
        return not_followed("the critic has no Lipschitz constraint")
    return left_open("no gradient penalty")


def dcgan(recipe: RecipeView) -> TipStatus:
    """T08a: both players are DCGANs."""
    kinds = [recipe.get(f"network.{side}.kind") for side in ("g", "d")]
    if kinds == ["dcgan", "dcgan"]:
        return followed("both players are DCGANs")
    return left_open(f"networks: G {kinds[0]}, D {kinds[1]}")


def hybrids(recipe: RecipeView) -> TipStatus:
    """T08b: a GAN with an autoencoder or a KL divergence."""
    kind, terms = recipe.get("objective.kind"), recipe.present_tricks("posterior_kl", "feature_reconstruction")
    if kind in ("energy", "began"):
        return followed(f"D is an autoencoder ('{kind}')")
    if recipe.has_no_discriminator:
        return left_open("not a GAN")
    if terms:
        return followed(f"G is also a decoder ('{terms[0]}')")
    if kind == "kl_divergence":
        return followed("the objective is a KL divergence")
    return left_open("a GAN without an autoencoder")


def optimizer_per_player(recipe: RecipeView) -> TipStatus:
    """T10: Adam for G; no momentum for a clipped critic."""
    g, d = (recipe.part(f"optimizer.{side}") for side in ("g", "d"))
    beta1 = (d.get("betas") or [0])[0]
    clipped = recipe.present_tricks("weight_clipping")
    if clipped and d.get("kind", "").startswith("adam") and beta1 != 0:
        return not_followed("the optimiser of the clipped Wasserstein critic has momentum")
    kinds = f"G {g.get('kind')}, D {d.get('kind')}"
    if clipped and d.get("kind") == "rmsprop" and not d.get("momentum"):
        return followed(f"{kinds}, without momentum")
    return followed(kinds) if g.get("kind") in ("adam", "adamw") else left_open(kinds)


def track_failures(recipe: RecipeView) -> TipStatus:
    """T11: a monitor reads the logged rows."""
    rows = recipe.get("log.rows") or parts()["log"][""]["rows"]
    interval = agree(rows, "step", f"{rows:,} steps")
    return followed(f"the monitor checks losses, accuracy, gradients and samples every {interval}")


def loss_thresholds(recipe: RecipeView) -> TipStatus:
    """T12: the number of moves does not depend on the losses."""
    if recipe.get("tempo.kind") == "thresholds":
        return left_open("the losses determine the number of moves, within bounds")
    return followed("the losses do not decide how often a player moves, as the tip advises")


def use_labels(recipe: RecipeView) -> TipStatus:
    """T13: a player is conditioned on labels or predicts them."""
    if recipe.part("conditioning.g") or recipe.part("conditioning.d") or recipe.present_tricks("auxiliary_classifier"):
        return followed("the players use the labels")
    return left_open("no labels are used")


def instance_noise(recipe: RecipeView) -> TipStatus:
    """T14a: noise on D's inputs that decays to 0."""
    trick = recipe.tricks.get("instance_noise")
    if trick is None:
        return left_open("no noise on D's inputs")
    end = recipe.last_value(trick["sigma"])
    return (
        followed("the noise decays to 0")
        if end == 0
        else not_followed(f"the noise does not decay to 0, it ends at {end:.3g}")
    )


def train_d_more(recipe: RecipeView) -> TipStatus:
    """T15: several moves of D; always for a Wasserstein critic."""
    d, g, kind = recipe.get("tempo.d") or 1, recipe.get("tempo.g") or 1, recipe.get("objective.kind")
    if recipe.get("tempo.kind") == "thresholds":
        return left_open("the losses determine the number of moves")
    if d > g:
        return followed(f"{count_noun(d, 'move')} of D to {g} of G")
    if kind == "wasserstein":
        return not_followed("the Wasserstein critic makes no more moves than G")
    return left_open("D makes no more moves than G")


def label_embedding(recipe: RecipeView) -> TipStatus:
    """T17: labels enter as embeddings."""
    kinds = [recipe.get(f"conditioning.{side}.kind") for side in ("g", "d")]
    return followed(", ".join(kind for kind in kinds if kind)) if any(kinds) else left_open("no labels are used")


def width_before_depth(recipe: RecipeView) -> TipStatus:
    """T22: players of similar capacity, judged by the widths of networks of the same kind."""
    g, d = recipe.part("network.g"), recipe.part("network.d")
    if g.get("kind") != d.get("kind") or not isinstance(g.get("width"), int) or not isinstance(d.get("width"), int):
        return left_open("networks of different kinds are not compared")
    ratio = max(g["width"], d["width"]) / min(g["width"], d["width"])
    if ratio >= 4:
        return not_followed(f"one network is {ratio:g} times as wide as the other")
    return followed(f"networks of the same kind, G {g['width']} and D {d['width']} wide")


def continuous_outputs(recipe: RecipeView) -> TipStatus:
    """T23: G's output is continuous, as in every recipe of poise."""
    return followed("G's output is continuous")


def sanity_first(recipe: RecipeView) -> TipStatus:
    """T24: D is trained alone first."""
    head_start = recipe.get("tempo.head_start")
    if not head_start:
        return left_open("it concerns a run before this one, of which the recipe says nothing")
    alone = f"D is trained alone for {count_noun(head_start, 'step')} first"
    if recipe.get("objective.kind") in ("energy", "began"):
        return left_open(f"{alone}, to learn to reconstruct real samples")
    return followed(alone)


def start_simple(recipe: RecipeView) -> TipStatus:
    """T25: training without a discriminator, or the simplest networks."""
    if recipe.has_no_discriminator:
        return followed("training without a discriminator")
    kinds = {recipe.get(f"network.{side}.kind") for side in ("g", "d")}
    return (
        followed("fully connected networks")
        if kinds == {"mlp"}
        else left_open("it concerns a run before this one, of which the recipe says nothing")
    )


def r3gan(recipe: RecipeView) -> TipStatus:
    """M01: a relativistic objective with both penalties and no normalisation."""
    if recipe.get("objective.kind") not in ("relativistic", "relativistic_average"):
        return left_open("another objective")
    missing = [kind for kind in ("r1", "r2") if not recipe.present_tricks(kind)]
    if missing:
        return not_followed(f"a relativistic objective without {' and '.join(missing)}")
    lazy = [kind for kind in ("r1", "r2") if recipe.tricks[kind].get("every", 1) > 1]
    if lazy:
        return not_followed(f"'{lazy[0]}' is not computed in every step")
    normalised = [side.upper() for side in ("g", "d") if recipe.norm(side) != "none"]
    if normalised:
        return not_followed(f"normalisation in {' and '.join(normalised)}")
    return followed("a relativistic objective, R1 and R2, no normalisation")


def later_additions(recipe: RecipeView) -> TipStatus:
    """M03: any of the later additions."""
    tricks = ("lecam", "consistency", "top_k", "feature_matching", "infogan", "orthogonal", "path_length")
    found = recipe.present_tricks(*tricks, "frozen_layers")
    found += ["hinge"] if recipe.get("objective.kind") == "hinge" else []
    found += ["self-attention"] if recipe.get("network.g.attention") or recipe.get("network.d.attention") else []
    found += ["StyleGAN2's G"] if recipe.get("network.g.kind") == "stylegan2" else []
    found += ["BigGAN's G"] if recipe.get("network.g.kind") == "biggan" else []
    return followed(", ".join(found)) if found else left_open("none of the additions of this tip")


def any_of(*kinds: str) -> Callable[[RecipeView], TipStatus]:
    """A rule for tips that are followed if the recipe has one of some tricks, and open otherwise."""

    def rule(recipe: RecipeView) -> TipStatus:
        found = recipe.present_tricks(*kinds)
        return followed(", ".join(found)) if found else left_open("not in the recipe")

    return rule


RULES: dict[str, Callable[[RecipeView], TipStatus]] = {
    "T01": normalised_inputs,
    "T02": non_saturating_loss,
    "T03": spherical_latent,
    "T04": separate_batches,
    "T05a": batch_norm,
    "T05b": spectral_norm,
    "T05c": other_norms,
    "T06a": no_sparse_gradients,
    "T06b": gradient_penalty,
    "T07a": any_of("soft_labels"),
    "T07b": any_of("noisy_labels"),
    "T08a": dcgan,
    "T08b": hybrids,
    "T09a": any_of("experience_replay"),
    "T09b": any_of("past_selves"),
    "T10": optimizer_per_player,
    "T11": track_failures,
    "T12": loss_thresholds,
    "T13": use_labels,
    "T14a": instance_noise,
    "T14b": any_of("layer_noise"),
    "T15": train_d_more,
    "T16": any_of("minibatch_discrimination", "minibatch_stddev", "packing", "pulling_away"),
    "T17": label_embedding,
    "T18": any_of("standing_dropout"),
    "T19": any_of("history", "image_pool"),
    "T20": any_of("historical_averaging"),
    "T21": any_of("averaged_weights", "mean_weights"),
    "T22": width_before_depth,
    "T23": continuous_outputs,
    "T24": sanity_first,
    "T25": start_simple,
    "M01": r3gan,
    "M02": any_of("diff_augment", "adaptive_augment"),
    "M03": later_additions,
}

TIPS_WITHOUT_D = {"T01", "T03", "T06a", "T08b", "T11", "T14b", "T18", "T20", "T21", "T23", "T25"}
"""Tips that do not concern D. The others do not apply to training without a discriminator."""


def tip_status(tip: str, recipe: RecipeView) -> TipStatus:
    """Whether a recipe follows the tip of that id."""
    if recipe.has_no_discriminator and tip not in TIPS_WITHOUT_D:
        return left_open("training without a discriminator")
    return RULES[tip](recipe)


def tip_statuses(table: Table) -> list[tuple[Tip, TipStatus]]:
    """Whether a recipe follows each tip.

    Args:
        table: the recipe's TOML table.

    Raises:
        RecipeError: a field has the wrong type.
    """
    try:
        recipe = RecipeView(table)
        return [(tip, tip_status(tip.id, recipe)) for tip in tips()]
    except (TypeError, ValueError, AttributeError, IndexError, ZeroDivisionError):
        raise RecipeError("a field has an invalid value", where="RECIPE", cure="poise train names it") from None
