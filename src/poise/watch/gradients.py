"""Signs in gradients and steps: too long, suddenly longer, uneven between reals and fakes."""

from __future__ import annotations

from poise.watch.base import GAMES, Detector, Look
from poise.watch.heard import Heard

WHO = {"d": "D", "g": "G"}


def gradient_long(heard: Heard, look: Look) -> str | None:
    """Either player's gradient above the list's bound throughout a window."""
    for side, who in WHO.items():
        window = heard.last(f"{side}/grad_norm", look.window)
        if window is not None and window.means.min() > look.threshold:
            return f"{who}'s gradient has been {window.median:.3g} long since step {window.steps[0]:,}"
    return None


def gradient_burst(heard: Heard, look: Look) -> str | None:
    """A gradient far above its own running median."""
    return _burst(heard, look, "grad_norm", "gradient")


def update_burst(heard: Heard, look: Look) -> str | None:
    """A step that moved the weights much farther than steps used to."""
    return _burst(heard, look, "update", "last step")


def _burst(heard: Heard, look: Look, quantity: str, what: str) -> str | None:
    for side, who in WHO.items():
        name = f"{side}/{quantity}"
        now, before = heard.newest(name), heard.before(name)
        if now is None or before is None or before.median <= 0:
            continue
        times = now.max / before.median
        if times > look.threshold:
            return f"{who}'s {what} is {now.max:.3g}, {times:.0f} times its running median"
    return None


def slopes_uneven(heard: Heard, look: Look) -> str | None:
    """D's squared slope at fakes against that at reals, where penalties tell both."""
    fake, real = heard.last("d/r2", look.window), heard.last("d/r1", look.window)
    if fake is None or real is None or real.mean <= 0 or fake.mean <= look.threshold * real.mean:
        return None
    return f"D's squared slope at fakes is {fake.mean / real.mean:.1f} times that at reals"


DETECTORS = (
    Detector(
        name="gradient_long",
        meaning="the length of a player's gradient above this for a whole window (the lists' 100)",
        threshold=100.0,
        window=300,
        policy="note",
        look=gradient_long,
        advice="lower that player's rate, or bound each move: --set 'tricks+=[{kind=\"gradient_clipping\"}]'",
        tip="T11",
        reads=("d/grad_norm", "g/grad_norm"),
        families=GAMES - {"wasserstein"},
    ),
    Detector(
        name="gradient_burst",
        meaning="a gradient this many times as long as its running median",
        threshold=30.0,
        window=500,
        policy="note",
        look=gradient_burst,
        advice="bound each move: --set 'tricks+=[{kind=\"gradient_clipping\"}]'; if bursts come back, lower the rate",
        tip="T11",
        reads=("d/grad_norm", "g/grad_norm"),
    ),
    Detector(
        name="update_burst",
        meaning="a step (the last before a row) that moved the weights this many times as far as the running median",
        threshold=5.0,
        window=500,
        policy="note",
        look=update_burst,
        advice="lower that player's rate, or Adam's beta2: --set 'optimizer.g.betas=[0.0, 0.99]'",
        tip="T10",
        reads=("d/update", "g/update"),
    ),
    Detector(
        name="slopes_uneven",
        meaning="D's squared slope at fakes in multiples of that at reals (R3GAN: it explodes where training diverges)",
        threshold=10.0,
        window=500,
        policy="warn",
        look=slopes_uneven,
        advice="a larger gamma for both: --set tricks.r1.gamma=1.0 --set tricks.r2.gamma=1.0",
        tip="T06b",
        reads=("d/r1", "d/r2"),
        families=GAMES,
    ),
)
