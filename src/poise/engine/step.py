"""The training step, top to bottom. Read this first.

    tempo > opponent swap > z > G > fake samples > fake replacement > input transforms > D > target transforms
          > objective > sample selection, loss terms > backward > gradient transforms > optimiser > post-update

Every trick acts at one of these hooks (`core/hooks.py`). A hook without tricks is an empty list and costs nothing, and
nothing here waits for the device. `reconstruction_step.py` is the step of a game without a discriminator.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from poise.core import hooks
from poise.core.move import MoveData
from poise.core.types import Batch, MoveContext, Side, Targets
from poise.engine.accumulation import Forward, accumulate_gradients
from poise.engine.batches import RealBatches
from poise.engine.game import Game
from poise.engine.step_metrics import StepMetrics
from poise.objectives.base import Losses


def alternate(game: Game, batches: RealBatches, context: MoveContext, metrics: StepMetrics) -> None:
    """One step: the moves of one player (D first, unless the tempo says otherwise), then those of the other."""
    for side in game.tempo.order:
        turn, last = 0, None
        while game.tempo.should_move(context.for_move(side, turn), last):
            last = make_move(game, batches, context.for_move(side, turn), metrics)
            turn += 1


def simultaneous(game: Game, batches: RealBatches, context: MoveContext, metrics: StepMetrics) -> None:
    """One step in which both players compute their gradients before either of them updates its weights."""
    play = partial(forward, game, batches)
    for move in [compute_gradients(game, context.for_move(side, 0), play, metrics) for side in Side]:
        apply_update(game, move, metrics)


def make_move(game: Game, batches: RealBatches, context: MoveContext, metrics: StepMetrics) -> MoveData:
    """One move: an optimiser update of one player while the weights of the other are frozen."""
    move = compute_gradients(game, context, partial(forward, game, batches), metrics)
    apply_update(game, move, metrics)
    return move


def compute_gradients(game: Game, context: MoveContext, forward: Forward, metrics: StepMetrics) -> MoveData:
    """The first half of a move: the forward passes, the loss and its gradients, which tricks may change."""
    player, move = game.players[context.side], accumulate_gradients(game, context, forward)
    if player.side is Side.D:
        metrics.add_scores(move.score("real"), move.score("fake"))
    player.set_found_inf(metrics.add_norms(f"{player.side}/grad_norm", player.gradients()))
    for trick in game.active_tricks(player.side).gradient_transforms:
        trick.transform_gradients(player, move)
    return move


def forward(game: Game, batches: RealBatches, context: MoveContext) -> tuple[MoveData, Tensor]:
    """The forward passes of both players, and the loss of the one that moves."""
    with game.autocast():
        move = sample(game, batches, context)
        replace_fakes(game, move)
        discriminate(game, move)
    return move, compute_loss(game, move)


def apply_update(game: Game, move: MoveData, metrics: StepMetrics) -> None:
    """The second half of a move: the optimiser's update and what follows it."""
    game.players[move.context.side].apply_gradients(move.context)
    after_update(game, move, metrics)


def sample(game: Game, batches: RealBatches, context: MoveContext) -> MoveData:
    """Load real samples, draw latents and generate fake samples; in D's move without a gradient through G."""
    needs = game.requirements(context)
    real, labels = batches.load(context, real=needs.real, labels=game.uses_labels)
    latents = context.ranks.part(game.latent.sample(context.batch_size, context.of_all_ranks.generator("latents")))
    generate, reconstruct = game.generate_fn(context, labels), game.reconstruct_fn(batches, context, real, labels)
    fake, required = generate(latents), (needs.input_gradients, needs.outputs)
    return MoveData(context, latents, fake, real, labels, labels, *required, generate, reconstruct)


def replace_fakes(game: Game, move: MoveData) -> None:
    """Replace some of the fake samples, in D's move, by samples that G made earlier."""
    newest, tricks = Batch(move.fake, move.fake_labels), game.active_tricks(move.context.side).fake_replacements
    move.fake, move.fake_labels = hooks.apply_fake_replacements(tricks, newest, move.context)


def discriminate(game: Game, move: MoveData) -> None:
    """Transform the real and the fake samples and run D on them."""
    context = move.context
    for origin in move.differentiated:
        move.samples(origin).requires_grad_()
    tricks, d = game.active_tricks(context.side).input_transforms, game.network_for(Side.D, context)
    fake, real = Batch(hooks.apply_input_transforms(tricks, move.fake, "fake", context), move.fake_labels), None
    if move.discriminates_real:
        real = Batch(hooks.apply_input_transforms(tricks, move.samples("real"), "real", context), move.labels)
    move.outputs = game.discriminate(d, real, fake)
    move.discriminate_fn = game.discriminate_fn(d, context)


def compute_loss(game: Game, move: MoveData) -> Tensor:
    """The player's loss, 0-dim: the objective on the selected samples, plus the loss terms that are due."""
    tricks = game.active_tricks(move.context.side).sample_selections
    losses = hooks.apply_sample_selections(tricks, adversarial_losses(game, move), move)
    total = sum((loss.mean() for loss in losses[1:]), losses[0].mean())
    move.logged["adversarial"] = total.detach() / len(losses)
    return add_loss_terms(game, move, total)


def add_loss_terms(game: Game, move: MoveData, total: Tensor) -> Tensor:
    """The loss so far plus the loss terms of the tricks that are due in this step."""
    for term in game.active_tricks(move.context.side).loss_terms:
        if term.is_due(move.context):
            loss = move.logged[term.name] = term.loss(move)
            total = total + term.scale(move.context) * loss
    return total


def adversarial_losses(game: Game, move: MoveData) -> Losses:
    """The objective's per-sample losses for the player that moves."""
    context, fake = move.context, move.score("fake")
    if context.side is Side.G:
        return game.objective.g_losses(fake, move.score("real") if game.objective.is_relativistic else None, context)
    real, tricks = move.score("real"), game.active_tricks(Side.D).target_transforms
    hard = Targets(torch.ones_like(real), torch.zeros_like(fake)) if tricks else None
    return game.objective.d_losses(real, fake, hard and hooks.apply_target_transforms(tricks, hard, context), context)


def after_update(game: Game, move: MoveData, metrics: StepMetrics) -> None:
    """Let the objective and the tricks update what they keep, and log the move's values."""
    side = move.context.side
    game.objective.after_update(move)
    for trick in game.active_tricks(side).post_updates:
        trick.after_update(game.players[side], move)
    for name, value in move.logged.items():
        metrics.add(f"{side}/{name}", value)
