"""The four parts that may come from a file, and how each is tried before anything is written."""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from poise.core.hooks import SampleSelection, TargetTransform, Trick
from poise.core.types import DiscriminatorOutput, ExtraOutput, OutputKind, Shape
from poise.errors import RecipeError
from poise.networks.base import DiscriminatorConfig, GeneratorConfig
from poise.objectives.base import Objective, ObjectiveModule
from poise.retired import DISCRIMINATOR_MEMBERS, adopt
from poise.tricks.base import TrickConfig, TrickContext
from poise.user_code.loading import UserCode, short_error

TRIED = 5
"""How many samples a network is tried on before anything is written."""


class UserGenerator(UserCode, GeneratorConfig):
    """A generator: `name(latent=..., shape=..., **options)` is a module from B x latent to B x shape."""

    kind: Literal["python"] = "python"
    allows_bf16: ClassVar[bool] = False
    norm: ClassVar[str] = "own"

    def build(self, latent: int, shape: Shape) -> nn.Module:
        """What the file makes."""
        net = _wanted(self, self.instantiate(latent=latent, shape=shape), nn.Module, "a torch.nn.Module")
        if not getattr(net, "takes_labels", False):
            _fits(self, _tried(self, net, torch.zeros(TRIED, latent)), (TRIED, *shape))
        return net


class UserDiscriminator(UserCode, DiscriminatorConfig):
    """A discriminator: `name(shape=..., **options)` is a module from B x shape to B scores, B x 1, or a `Verdict`.

    An attribute `says = "energy"` of the class tells that the score is minus an energy; an attribute `width` of
    the module, how long the features of its verdict are.
    """

    kind: Literal["python"] = "python"
    allows_bf16: ClassVar[bool] = False

    @property
    def output_kind(self) -> OutputKind:
        """A score, unless the class says otherwise."""
        made = self.load()
        if isinstance(made, type):
            adopt(made, DISCRIMINATOR_MEMBERS)
        return getattr(made, "output_kind", "score")

    def build(self, shape: Shape) -> nn.Module:
        """What the file makes, with a verdict around it."""
        net = _wanted(self, self.instantiate(shape=shape), nn.Module, "a torch.nn.Module")
        said = _tried(self, net, torch.zeros(TRIED, *shape))
        if isinstance(said, DiscriminatorOutput):
            _fits(self, said.score, (TRIED,))
            if said.features is not None:
                _fits(self, said.features, (TRIED, getattr(net, "width", 0)))
        else:
            _fits(self, said, (TRIED,), (TRIED, 1))
        return DiscriminatorAdapter(net)


class DiscriminatorAdapter(nn.Module):
    """A network that may answer with scores alone."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.width = net, getattr(net, "width", None)

    def forward(self, images: Tensor) -> DiscriminatorOutput:
        """What D says."""
        said = self.net(images)
        return said if isinstance(said, DiscriminatorOutput) else DiscriminatorOutput(said.flatten())


class UserObjective(UserCode, Objective):
    """An objective: `name(**options)` is a `poise.objectives.base.Objective`, whose declarations hold."""

    kind: Literal["python"] = "python"

    @cached_property
    def objective(self) -> Objective:
        """The objective that the file makes."""
        return _wanted(self, self.instantiate(), Objective, "a poise.objectives.base.Objective")

    def __getattribute__(self, name: str) -> Any:
        """What an objective declares is asked of the one in the file."""
        return getattr(self.objective, name) if name in _DECLARED else super().__getattribute__(name)

    def build(self) -> ObjectiveModule[Any]:
        """The file's own rule."""
        return self.objective.build()


_DECLARED = frozenset(
    (
        "output_kinds",
        "accepts_targets",
        "is_relativistic",
        "needs_lipschitz_bound",
        "has_per_sample_g_loss",
        "equilibrium",
        "decision_threshold",
        "extra_metrics",
    )
)


class UserTrick(UserCode, TrickConfig):
    """A trick: `name` is one of the seams' subclasses, called with its name in the run and the options."""

    kind: Literal["python"] = "python"
    tip: ClassVar[str] = "own"
    source: ClassVar[str] = "the user's own file"

    @property
    def required_outputs(self) -> frozenset[ExtraOutput]:
        """What D must say for it: the class's attribute `reads`."""
        return frozenset(getattr(self.load(), "required_outputs", ()))

    @property
    def needs_targets(self) -> bool:  # type: ignore[bad-override]
        """Whether it is an aim."""
        made = self.load()
        return isinstance(made, type) and issubclass(made, TargetTransform)

    @property
    def needs_independent_scores(self) -> bool:  # type: ignore[bad-override]
        """Whether it reads slopes, unless the class says otherwise."""
        return getattr(self.load(), "needs_independent_scores", bool(getattr(self.load(), "needs_input_gradient", ())))

    @property
    def bounds_lipschitz(self) -> bool:
        """Whether the class says that it does."""
        return getattr(self.load(), "bounds_lipschitz", False)

    @property
    def pack(self) -> int:
        """How many samples the class says that it lets D judge at once."""
        return getattr(self.load(), "pack", 1)

    @property
    def needs_score_sign(self) -> bool:
        """Whether the class says that it does."""
        return getattr(self.load(), "needs_score_sign", False)

    @property
    def selects_samples(self) -> bool:
        """Whether it is a pick."""
        made = self.load()
        return isinstance(made, type) and issubclass(made, SampleSelection)

    @property
    def modifies_score(self) -> bool:
        """Whether the class says that it does."""
        return getattr(self.load(), "modifies_score", False)

    @property
    def trick_name(self) -> str:
        """The name in the file, in small letters: what the rows and the random streams are called by."""
        return f"own_{self.name.lower()}"

    def build(self, name: str, context: TrickContext) -> Trick:
        """What the file makes."""
        return _wanted(self, self.instantiate(name), Trick, "one of the hooks in poise.core.hooks")


def _wanted(part: UserCode, made: Any, what: type, words: str) -> Any:
    if not isinstance(made, what):
        raise RecipeError(f"'{part.name}' must be {words}", where=part.file, found=type(made).__name__)
    return made


@torch.no_grad()
def _tried(part: UserCode, net: nn.Module, few: Tensor) -> Any:
    """What the network answers to a few zeros, before anything is written."""
    training = net.training
    try:
        return net.eval()(few)
    except Exception as error:
        what = f"'{part.name}' fails on {'x'.join(map(str, few.shape))}"
        raise RecipeError(what, where=part.file, found=short_error(error), cure="see where with --debug") from error
    finally:
        net.train(training)


def _fits(part: UserCode, made: Any, *wanted: tuple[int, ...]) -> None:
    if not isinstance(made, Tensor) or tuple(made.shape) not in wanted:
        words = " or ".join("x".join(map(str, ("B", *shape[1:]))) for shape in wanted)
        found = "x".join(map(str, made.shape)) if isinstance(made, Tensor) else type(made).__name__
        cure = f"B is {TRIED} here"
        raise RecipeError(f"'{part.name}' must make {words}", where=part.file, found=found, cure=cure)
