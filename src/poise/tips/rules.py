"""Which tips a recipe follows, which it breaks, which it leaves open: one rule for each tip.

The tips are advice and some contradict each other; "broken" says that a recipe does otherwise, not that it is wrong.
"""

from __future__ import annotations

from collections.abc import Callable

from poise.errors import RecipeError
from poise.recipe.toml import Table
from poise.tips.catalogue import Tip, parts, tips
from poise.tips.recipe_view import RecipeView, TipStatus, broken, followed, neither
from poise.utils.printing import agree, count_noun

PENALTIES = ("r1", "r2", "wgan_gp", "dragan")
BATCH = ("batch", "spectral_batch")
SPECTRAL = ("spectral", "spectral_batch")
UNTIED = ("instance", "layer", "group", "virtual")


def normalised_inputs(told: RecipeView) -> TipStatus:
    """T01: the output has the range of the data."""
    output = told.get("network.g.output")
    if told.is_toy:
        return neither("points of the plane have no fixed range")
    if output in ("auto", "tanh"):
        return followed("pictures lie in [-1, 1], and G ends in tanh")
    return neither("G's output is its own") if output is None else broken(f"G's output is {output}")


def non_saturating_loss(told: RecipeView) -> TipStatus:
    """T02: G's loss has a slope where G is losing."""
    kind = told.get("objective.kind")
    if kind == "non_saturating":
        return followed("G maximises log D(G(z))")
    return broken("G minimises log(1 - D(G(z)))") if kind == "minimax" else neither(f"the game is '{kind}'")


def spherical_latent(told: RecipeView) -> TipStatus:
    """T03: z is not drawn from a cube."""
    kind = told.get("latent.kind")
    if kind is None:
        return neither("no latent is named")
    return broken("z is drawn from a cube") if kind == "uniform" else followed(f"z is {kind}")


def separate_batches(told: RecipeView) -> TipStatus:
    """T04: no mixed batch goes through batch norm."""
    if told.get("judging") != "together":
        return followed("D judges reals and fakes apart")
    comparing = told.has("minibatch_discrimination", "minibatch_stddev")
    if told.norm("d") in BATCH or comparing:
        return broken(f"D judges a mixed batch, through {comparing[0] if comparing else 'batch norm'}")
    return neither("D judges a mixed batch, and its scores are the same as apart")


def batch_norm(told: RecipeView) -> TipStatus:
    """T05a: batch norm in both players, unless a penalty forbids it."""
    g, d, penalties = told.norm("g"), told.norm("d"), told.has(*PENALTIES)
    if d in BATCH and penalties:
        return broken(f"batch norm in D, and '{penalties[0]}' charges each picture for its own slope")
    return followed("batch norm in both players") if g in BATCH and d in BATCH else neither(f"G {g}, D {d}")


def spectral_norm(told: RecipeView) -> TipStatus:
    """T05b: D's weights are divided by their largest singular value."""
    norm = told.norm("d")
    return followed("D's weights are spectrally normed") if norm in SPECTRAL else neither(f"D {norm}")


def other_norms(told: RecipeView) -> TipStatus:
    """T05c: a norm that does not tie the batch together, where one is wanted."""
    norms = {side: told.norm(side) for side in ("g", "d")}
    kept = [f"{norm} norm in {side.upper()}" for side, norm in norms.items() if norm in UNTIED]
    if kept:
        return followed(", ".join(kept))
    if norms["d"] in BATCH and told.has(*PENALTIES):
        return broken("batch norm in D where a gradient penalty wants another norm or none")
    return neither(f"G {norms['g']}, D {norms['d']}")


def no_sparse_gradients(told: RecipeView) -> TipStatus:
    """T06a: activations and pools that pass gradient everywhere."""
    if told.get("network.d.down") == "max":
        return broken("a max pool in D hands the gradient to one pixel in four")
    kinds = {side: told.get(f"network.{side}.activation") for side in ("g", "d")}
    sparse = [side.upper() for side, kind in kinds.items() if kind == "relu"]
    if sparse:
        return broken(f"ReLU in {' and '.join(sparse)}")
    if None in kinds.values() and "python" in {told.get(f"network.{side}.kind") for side in ("g", "d")}:
        return neither("a network of the user's own")
    return followed("activations that pass some gradient everywhere, no max pool")


def gradient_penalty(told: RecipeView) -> TipStatus:
    """T06b: D is charged for its slope; always where the game needs it."""
    penalties = told.has(*PENALTIES)
    lazy = [kind for kind in penalties if told.tricks[kind].get("every", 1) > 1]
    if lazy and told.is_toy:
        return broken(f"'{lazy[0]}' is lazy, which fails on toys")
    if penalties:
        return followed(" and ".join(penalties))
    bounded = told.has("weight_clipping") or told.norm("d") in SPECTRAL
    if told.get("objective.kind") == "wasserstein" and not bounded:
        return broken("nothing bounds the critic's slope")
    return neither("no penalty")


def dcgan(told: RecipeView) -> TipStatus:
    """T08a: both players are DCGANs."""
    kinds = [told.get(f"network.{side}.kind") for side in ("g", "d")]
    return followed("both players") if kinds == ["dcgan", "dcgan"] else neither(f"G {kinds[0]}, D {kinds[1]}")


def hybrids(told: RecipeView) -> TipStatus:
    """T08b: a game with an autoencoder or a KL in it."""
    kind, terms = told.get("objective.kind"), told.has("posterior_kl", "feature_reconstruction")
    if kind in ("energy", "began"):
        return followed(f"D is an autoencoder ('{kind}')")
    if told.has_no_discriminator:
        return neither("no GAN at all")
    if terms:
        return followed(f"G is also a decoder ('{terms[0]}')")
    return followed("the game is a KL divergence") if kind == "kl_divergence" else neither("a GAN alone")


def optimizer_per_player(told: RecipeView) -> TipStatus:
    """T10: Adam for G; no momentum for a clipped critic."""
    g, d = (told.part(f"optimizer.{side}") for side in ("g", "d"))
    beta1 = (d.get("betas") or [0])[0]
    if told.has("weight_clipping") and d.get("kind", "").startswith("adam") and beta1 != 0:
        return broken("the clipped Wasserstein critic has momentum")
    ours = f"G {g.get('kind')}, D {d.get('kind')}"
    if told.has("weight_clipping") and d.get("kind") == "rmsprop" and not d.get("momentum"):
        return followed(f"{ours}, without momentum")
    return followed(ours) if g.get("kind") in ("adam", "adamw") else neither(ours)


def track_failures(told: RecipeView) -> TipStatus:
    """T11: a monitor hears the rows."""
    rows = told.get("log.rows") or parts()["log"][""]["rows"]
    return followed(
        f"a monitor hears losses, accuracy, gradients and samples every {agree(rows, 'step', f'{rows:,} steps')}"
    )


def loss_thresholds(told: RecipeView) -> TipStatus:
    """T12: moves are not counted out by the losses."""
    kind = told.get("tempo.kind")
    if kind == "thresholds":
        return neither("balanced by the losses, in the bounded way")
    return followed("no balancing by the losses")


def use_labels(told: RecipeView) -> TipStatus:
    """T13: labels are told to a player, or asked of one."""
    if told.part("conditioning.g") or told.part("conditioning.d") or told.has("auxiliary_classifier"):
        return followed("the players are told the labels")
    return neither("no labels are used")


def instance_noise(told: RecipeView) -> TipStatus:
    """T14a: noise on D's inputs, which dies out."""
    trick = told.tricks.get("instance_noise")
    if trick is None:
        return neither("no noise on D's inputs")
    sigma = trick.get("sigma")
    end = sigma.get("end", (sigma.get("values") or [None])[-1]) if isinstance(sigma, dict) else sigma
    return followed("noise that dies out") if end == 0 else broken(f"the noise stays, at {end}")


def train_d_more(told: RecipeView) -> TipStatus:
    """T15: several moves of D, always for the Wasserstein game."""
    d, g, kind = told.get("tempo.d") or 1, told.get("tempo.g") or 1, told.get("objective.kind")
    if told.get("tempo.kind") == "thresholds":
        return neither("as many moves as the losses ask for")
    if d > g:
        return followed(f"{count_noun(d, 'move')} of D to {g} of G")
    return broken("a Wasserstein critic with one move") if kind == "wasserstein" else neither("one move each")


def label_embedding(told: RecipeView) -> TipStatus:
    """T17: labels come as embeddings."""
    kinds = [told.get(f"conditioning.{side}.kind") for side in ("g", "d")]
    return followed(", ".join(kind for kind in kinds if kind)) if any(kinds) else neither("no labels are used")


def width_before_depth(told: RecipeView) -> TipStatus:
    """T22: players of similar capacity, as far as their fields tell."""
    g, d = told.part("network.g"), told.part("network.d")
    if g.get("kind") != d.get("kind") or not isinstance(g.get("width"), int) or not isinstance(d.get("width"), int):
        return neither("players of two kinds are not compared by their fields")
    ratio = max(g["width"], d["width"]) / min(g["width"], d["width"])
    if ratio >= 4:
        return broken(f"one player is {ratio:g} times as wide as the other")
    return followed(f"players of one kind, {g['width']} and {d['width']} wide")


def continuous_outputs(told: RecipeView) -> TipStatus:
    """T23: nothing here is discrete."""
    return followed("G's output is continuous")


def sanity_first(told: RecipeView) -> TipStatus:
    """T24: D alone first."""
    alone = told.get("tempo.head_start")
    if alone and told.get("objective.kind") in ("energy", "began"):
        return neither(f"D begins alone for {count_noun(alone, 'step')}, to learn to rebuild the reals")
    return (
        followed(f"D begins alone, for {count_noun(alone, 'step')}")
        if alone
        else neither("a matter of a run before this one")
    )


def start_simple(told: RecipeView) -> TipStatus:
    """T25: a game for one, or the simplest players."""
    if told.has_no_discriminator:
        return followed("G rebuilds, and nobody judges")
    kinds = {told.get(f"network.{side}.kind") for side in ("g", "d")}
    return followed("fully connected players") if kinds == {"mlp"} else neither("a matter of the runs before this one")


def r3gan(told: RecipeView) -> TipStatus:
    """M01: the relativistic game with both penalties and no norm."""
    if told.get("objective.kind") not in ("relativistic", "relativistic_average"):
        return neither("another game")
    missing = [kind for kind in ("r1", "r2") if not told.has(kind)]
    if missing:
        return broken(f"a relativistic game without {' and '.join(missing)}")
    lazy = [kind for kind in ("r1", "r2") if told.tricks[kind].get("every", 1) > 1]
    if lazy:
        return broken(f"'{lazy[0]}' is lazy")
    normed = [s.upper() for s in ("g", "d") if told.norm(s) != "none"]
    return broken(f"a norm in {' and '.join(normed)}") if normed else followed("relativistic, R1 and R2, no norms")


def later_additions(told: RecipeView) -> TipStatus:
    """M03: any of them."""
    found = told.has("lecam", "consistency", "top_k", "feature_matching")
    found += ["hinge"] if told.get("objective.kind") == "hinge" else []
    found += ["self-attention"] if told.get("network.g.attention") or told.get("network.d.attention") else []
    return followed(", ".join(found)) if found else neither("none of them")


def any_of(*kinds: str) -> Callable[[RecipeView], TipStatus]:
    """Followed if one of some tricks is there, else open."""

    def rule(told: RecipeView) -> TipStatus:
        found = told.has(*kinds)
        return followed(", ".join(found)) if found else neither("not in the recipe")

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


OF_ONE = {"T01", "T03", "T06a", "T08b", "T11", "T14b", "T18", "T20", "T21", "T23", "T25"}
"""Tips about G and its samples. The others are about D or about playing, and a game for one says nothing to them."""


def tip_status(tip: str, told: RecipeView) -> TipStatus:
    """How a recipe stands to the tip of that id."""
    return neither("a game for one") if told.has_no_discriminator and tip not in OF_ONE else RULES[tip](told)


def tip_statuses(table: Table) -> list[tuple[Tip, TipStatus]]:
    """How a recipe's table stands to every tip.

    Raises:
        RecipeError: a field is of a wrong type.
    """
    try:
        told = RecipeView(table)
        return [(tip, tip_status(tip.id, told)) for tip in tips()]
    except (TypeError, ValueError, AttributeError, IndexError, ZeroDivisionError):
        raise RecipeError("a field is not what it must be", where="RECIPE", cure="poise train says which") from None
