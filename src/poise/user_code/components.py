"""The components that may come from a Python file. Networks are tested before anything is written."""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from poise.core.hooks import GradientTransform, NetworkTransform, PostUpdate, SampleSelection, TargetTransform, Trick
from poise.core.types import DiscriminatorOutput, ExtraOutput, OutputKind, Shape, Side
from poise.errors import RecipeError
from poise.networks.base import DiscriminatorConfig, GeneratorConfig
from poise.networks.critics import CriticConfig
from poise.objectives.base import Objective, ObjectiveModule
from poise.retired import DISCRIMINATOR_MEMBERS, adopt
from poise.tricks.base import TrickConfig, TrickContext
from poise.user_code.loading import COMPARE, UserCode, short_error

TEST_BATCH = 5
"""The number of samples that a network is tested on before anything is written."""


class UserGenerator(UserCode, GeneratorConfig):
    """A generator: `name(latent=..., shape=..., **options)` constructs a module from B x latent to B x shape."""

    kind: Literal["python"] = "python"
    allows_bf16: ClassVar[bool] = False
    norm: ClassVar[str] = "own"

    def build_layers(self, latent: int, shape: Shape) -> nn.Module:
        """Construct the network; one that takes no labels is tested on a small batch.

        Raises:
            RecipeError: the constructor or the test fails, or the output has another shape.
        """
        net = _check_type(self, self.instantiate(latent=latent, shape=shape), nn.Module, "a torch.nn.Module")
        if not getattr(net, "takes_labels", False):
            _check_shape(self, _test_forward(self, net, torch.zeros(TEST_BATCH, latent)), (TEST_BATCH, *shape))
        return net


class UserDiscriminator(UserCode, DiscriminatorConfig):
    """A discriminator: `name(shape=..., **options)` constructs a module from B x shape to scores.

    The module returns scores of shape B, B x 1, or B x P for P patches of each sample; or a `DiscriminatorOutput`, in
    which case its attribute `width` is the length of the features. A class with `output_kind = "energy"` returns the
    negative of an energy as score.
    """

    kind: Literal["python"] = "python"
    allows_bf16: ClassVar[bool] = False

    @property
    def output_kind(self) -> OutputKind:
        """The class's attribute `output_kind`; by default a score."""
        component = self.load()
        if isinstance(component, type):
            adopt(component, DISCRIMINATOR_MEMBERS)
        return getattr(component, "output_kind", "score")

    def build_layers(self, shape: Shape) -> nn.Module:
        """Construct the network and test it on a small batch.

        Raises:
            RecipeError: the constructor or the test fails, or the output has another shape.
        """
        net = _check_type(self, self.instantiate(shape=shape), nn.Module, "a torch.nn.Module")
        output = _test_forward(self, net, torch.zeros(TEST_BATCH, *shape))
        if isinstance(output, DiscriminatorOutput):
            _check_scores(self, output.score)
            if output.features is not None:
                _check_shape(self, output.features, (TEST_BATCH, getattr(net, "width", 0)))
        else:
            _check_scores(self, output)
        return DiscriminatorAdapter(net)


class DiscriminatorAdapter(nn.Module):
    """Wraps a network that may return scores alone into one that returns a `DiscriminatorOutput`."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.width = net, getattr(net, "width", None)

    def forward(self, images: Tensor) -> DiscriminatorOutput:
        """The network's output as a `DiscriminatorOutput`."""
        output = self.net(images)
        if isinstance(output, DiscriminatorOutput):
            return output
        return DiscriminatorOutput(output.squeeze(1) if output.shape[1:] == (1,) else output)


class UserCritic(UserCode, CriticConfig):
    """A frozen network of a trick: `name(shape=..., **options)` constructs a module from B x shape to its judgement.

    That is features, B x F, and class logits, B x K; or one tensor, B x K, that is both.
    """

    kind: Literal["python"] = "python"

    def build(self, shape: Shape) -> nn.Module:
        """Construct the network and test it on a small batch.

        Raises:
            RecipeError: the constructor or the test fails, or the output has another shape.
        """
        net = _check_type(self, self.instantiate(shape=shape), nn.Module, "a torch.nn.Module")
        output = _test_forward(self, net, torch.zeros(TEST_BATCH, *shape))
        for part in output if isinstance(output, tuple) else (output,):
            width = part.shape[1] if isinstance(part, Tensor) and part.dim() == 2 else 1
            _check_shape(self, part, (TEST_BATCH, width))
        return net


class UserObjective(UserCode, Objective):
    """An objective: `name(**options)` constructs a `poise.objectives.base.Objective`, whose declarations apply."""

    kind: Literal["python"] = "python"

    def reset(self) -> None:
        """See `UserCode.reset`."""
        vars(self).pop("objective", None)

    @cached_property
    def objective(self) -> Objective:
        """The objective from the file."""
        return _check_type(self, self.instantiate(), Objective, "a poise.objectives.base.Objective")

    def __getattribute__(self, name: str) -> Any:
        """Forward the declarations and the formulas of an objective to the one from the file."""
        return getattr(self.objective, name) if name in _DECLARED else super().__getattribute__(name)

    def build(self) -> ObjectiveModule[Any]:
        """See `Objective.build`."""
        return self.objective.build()


_DECLARED = frozenset(
    (
        "output_kinds",
        "needs_code_variance",
        "accepts_targets",
        "g_target_span",
        "is_relativistic",
        "needs_lipschitz_bound",
        "is_separable",
        "allows_bf16",
        "has_per_sample_g_loss",
        "equilibrium",
        "decision_threshold",
        "extra_metrics",
        "d_losses",
        "g_losses",
    )
)


PLAYERS_HOOKS = frozenset({GradientTransform, NetworkTransform, PostUpdate})
"""The hooks that act on a player, which may be a G that has no opponent."""


class UserTrick(UserCode, TrickConfig):
    """A trick: `name` is a subclass of a hook, constructed with its name in the run and the options."""

    kind: Literal["python"] = "python"
    tip: ClassVar[str] = "own"
    source: ClassVar[str] = "a file of the user"

    @property
    def required_outputs(self) -> frozenset[ExtraOutput]:
        """What D must return for it: the class's attribute `required_outputs`."""
        return frozenset(getattr(self.load(), "required_outputs", ()))

    @property
    def needs_targets(self) -> bool:  # type: ignore[bad-override]
        """Whether it is a `TargetTransform`."""
        component = self.load()
        return isinstance(component, type) and issubclass(component, TargetTransform)

    @property
    def changes_generator(self) -> bool:  # type: ignore[bad-override]
        """Whether it is a `NetworkTransform` that acts on G."""
        component = self.load()
        is_transform = isinstance(component, type) and issubclass(component, NetworkTransform)
        return is_transform and Side.G in component.sides

    @property
    def needs_independent_scores(self) -> bool:  # type: ignore[bad-override]
        """The class's attribute of this name; by default, whether it uses input gradients."""
        return getattr(self.load(), "needs_independent_scores", bool(getattr(self.load(), "needs_input_gradient", ())))

    @property
    def needs_discriminator(self) -> bool:  # type: ignore[bad-override]
        """The class's attribute of this name; by default False if its hooks act on G or its gradients alone."""
        component = self.load()
        hooks = [hook for hook in Trick.__subclasses__() if isinstance(component, type) and issubclass(component, hook)]
        acts_on_g = bool(hooks) and set(hooks) <= PLAYERS_HOOKS and Side.G in getattr(component, "sides", ())
        return getattr(component, "needs_discriminator", not acts_on_g)

    @property
    def needs_codes(self) -> bool:
        """The class's attribute of this name; by default whether it needs their variance."""
        return getattr(self.load(), "needs_codes", self.needs_code_variance)

    @property
    def needs_code_variance(self) -> bool:
        """The class's attribute of this name; by default False."""
        return getattr(self.load(), "needs_code_variance", False)

    @property
    def bounds_lipschitz(self) -> bool:
        """The class's attribute of this name; by default False."""
        return getattr(self.load(), "bounds_lipschitz", False)

    @property
    def pack(self) -> int:
        """The number of samples in a pack: the class's attribute of this name; by default 1."""
        return getattr(self.load(), "pack", 1)

    @property
    def needs_score_sign(self) -> bool:
        """The class's attribute of this name; by default False."""
        return getattr(self.load(), "needs_score_sign", False)

    @property
    def selects_samples(self) -> bool:
        """Whether it is a `SampleSelection`."""
        component = self.load()
        return isinstance(component, type) and issubclass(component, SampleSelection)

    @property
    def modifies_score(self) -> bool:
        """The class's attribute of this name; by default False."""
        return getattr(self.load(), "modifies_score", False)

    @property
    def trick_name(self) -> str:
        """The class name in lower case after `own_`: the name in logged rows and of the random streams."""
        return f"own_{self.name.lower()}"

    def build(self, name: str, context: TrickContext) -> Trick:
        """Construct the trick.

        Raises:
            RecipeError: the constructor fails, or the object is no trick; later, `transform_network` returns no module.
        """
        component = self.load()
        if isinstance(component, type) and not issubclass(component, Trick):
            what = f"'{self.name}' must be a subclass of one of the hooks in poise.core.hooks, such as LossTerm"
            bases = ", ".join(base.__name__ for base in component.__bases__)
            raise RecipeError(what, where=self.file, found=f"a subclass of {bases}", cure=COMPARE)
        trick = _check_type(self, self.instantiate(name), Trick, "one of the hooks in poise.core.hooks")
        if trick.name != name:
            cure = "take it as the first argument of __init__ and pass it on: super().__init__(name)"
            raise RecipeError(f"'{self.name}' must keep the name that it is given", where=self.file, cure=cure)
        if isinstance(trick, NetworkTransform):
            transform = trick.transform_network

            def transform_network(side: Side, net: nn.Module) -> nn.Module:
                return _check_type(self, transform(side, net), nn.Module, "a torch.nn.Module", ".transform_network")

            trick.transform_network = transform_network  # type: ignore[method-assign]
        return trick


def _check_type(component: UserCode, value: Any, expected: type, description: str, method: str = "") -> Any:
    if not isinstance(value, expected):
        what = f"'{component.name}{method}' must {'return' if method else 'be'} {description}"
        raise RecipeError(what, where=component.file, found=type(value).__name__)
    return value


@torch.no_grad()
def _test_forward(component: UserCode, net: nn.Module, inputs: Tensor) -> Any:
    """The network's output for a small batch, in evaluation mode."""
    training = net.training
    try:
        return net.eval()(inputs)
    except Exception as error:
        what = f"'{component.name}' fails on an input of shape {_shape(inputs)}"
        found, cure = short_error(error), "see the traceback with --debug"
        raise RecipeError(what, where=component.file, found=found, cure=cure) from error
    finally:
        net.train(training)


def _check_shape(component: UserCode, output: Any, *expected: tuple[int, ...]) -> None:
    if not isinstance(output, Tensor) or tuple(output.shape) not in expected:
        shapes = " or ".join("x".join(map(str, ("B", *shape[1:]))) for shape in expected)
        found = _shape(output) if isinstance(output, Tensor) else type(output).__name__
        what, cure = f"the output of '{component.name}' must have shape {shapes}", f"B is {TEST_BATCH} here"
        raise RecipeError(what, where=component.file, found=found, cure=cure)


def _check_scores(component: UserCode, scores: Any) -> None:
    """Refuse scores that are neither B nor B x P."""
    num_patches = scores.shape[1] if isinstance(scores, Tensor) and scores.dim() == 2 else 1
    _check_shape(component, scores, (TEST_BATCH,), (TEST_BATCH, num_patches))


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape))
