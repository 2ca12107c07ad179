"""The base classes of network configurations, how networks are called, and the modules that add a head to one.

Also: which generators have intermediate latents, and how these are reached.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Protocol, cast

from pydantic import Field
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from poise.core.config import ComponentConfig
from poise.core.types import DiscriminatorOutput, EncoderOutput, OutputKind, Shape
from poise.errors import RecipeError
from poise.networks.conditioning import GeneratorConditioning, Incompatibility
from poise.networks.norms import BATCH_STATISTICS_NORMS, apply_norm, match_spectral_norm_


class NetworkConfig(ComponentConfig):
    """A network in a recipe."""

    allows_bf16: ClassVar[bool] = True
    """Whether `--precision auto` may choose bfloat16. It pays off for convolutions, but not for small linear layers."""

    has_skip_connections: ClassVar[bool] = False
    """Whether skip connections bypass its activations, so that a gradient reaches its input even if these block it."""

    @property
    def uses_batch_statistics(self) -> bool:
        """Whether it has layers with statistics over the batch."""
        return getattr(self, "norm", "none") in BATCH_STATISTICS_NORMS

    def min_batch(self, shape: Shape | None) -> int:
        """The smallest batch size for training: 2 if a norm takes its means over the batch alone, 1 otherwise."""
        return 1

    def incompatibility(self, shape: Shape) -> tuple[str, str] | None:
        """Why the network does not support samples of `shape`, and what to do about it; None if it supports them."""
        return None

    def check_shape(self, shape: Shape) -> None:
        """Check that the network supports samples of `shape`, before it is built.

        Raises:
            RecipeError: it does not, see `incompatibility`.
        """
        if (mismatch := self.incompatibility(shape)) is not None:
            raise RecipeError(mismatch[0], where="shape", found=str(tuple(shape)), cure=mismatch[1])

    def apply_norm(self, net: nn.Module, reference: Tensor | None) -> nn.Module:
        """Apply the part of the norm that concerns the whole network, once; see `norms.apply_norm`.

        `build` and its relatives have done this; `build_layers` and its relatives leave it to their caller.
        """
        return apply_norm(net, getattr(self, "norm", "none"), reference)


class GeneratorConfig(NetworkConfig):
    """A generator: latents, B x dim, to samples, B x shape."""

    def build(self, latent: int, shape: Shape, *, reference: Tensor | None = None) -> nn.Module:
        """The complete module, its norm included, with initial weights from PyTorch's global generator.

        Args:
            latent: the dimension of the latents.
            shape: the shape of one sample.
            reference: latents, R x latent, the reference batch of the norm `virtual`; no other norm needs one.

        Raises:
            RecipeError: the network does not support samples of this shape, or the norm is `virtual`, and `reference`
                is missing.
        """
        return self.build_for(None, latent, shape, reference=reference)

    def build_for(
        self,
        conditioning: GeneratorConditioning | None,
        latent: int,
        shape: Shape,
        *,
        reference: Tensor | None = None,
    ) -> nn.Module:
        """The complete module that `conditioning.wrap` makes a conditional one; see `build`.

        Args:
            conditioning: how G is conditioned on the label; None if it is not.
            latent: the dimension of the latents alone.
            shape: the shape of one sample.
            reference: see `build`.

        Returns:
            A module from latents, B x latent, to samples, B x shape, if `conditioning` is None. Otherwise one that only
            `conditioning.wrap(module, num_classes)` knows how to call: the wrapped module takes latents, B x latent,
            and labels, int64, B.

        Raises:
            RecipeError: see `build`; or the network does not fit the latents, such as too few for the parts of
                `biggan`. Whether it supports the conditioning is asked with `conditioning_incompatibility`.
        """
        self.check_shape(shape)
        return self.apply_norm(self.build_layers_for(conditioning, latent, shape), reference)

    def build_layers(self, latent: int, shape: Shape) -> nn.Module:
        """The module of `build` before `apply_norm`: a network defines this method."""
        raise NotImplementedError

    def build_layers_for(self, conditioning: GeneratorConditioning | None, latent: int, shape: Shape) -> nn.Module:
        """The module of `build_for` before `apply_norm`: by default for longer latents, and unaware of labels."""
        return self.build_layers(latent if conditioning is None else conditioning.latent_dim(latent), shape)

    def conditioning_incompatibility(self, conditioning: GeneratorConditioning) -> Incompatibility | None:
        """Why the network does not support this conditioning, and what to do about it; None if it supports it."""
        return conditioning.incompatibility(getattr(self, "norm", "none"))


class TranslatorConfig(GeneratorConfig):
    """A generator that maps samples of one domain to samples of another; it needs latents of kind `source`."""

    def build_translator(self, in_shape: Shape, out_shape: Shape, *, reference: Tensor | None = None) -> nn.Module:
        """The complete module from B x in_shape to B x out_shape, its norm included.

        Its initial weights are from PyTorch's global generator.

        Args:
            in_shape: the shape of one sample of the domain that is translated.
            out_shape: the shape of one translated sample.
            reference: samples, R x in_shape; see `GeneratorConfig.build`.

        Raises:
            RecipeError: the network does not support samples of one of these shapes.
        """
        self.check_shape(in_shape)
        self.check_shape(out_shape)
        return self.apply_norm(self.build_translator_layers(in_shape, out_shape), reference)

    def build_translator_layers(self, in_shape: Shape, out_shape: Shape) -> nn.Module:
        """The module of `build_translator` before `apply_norm`: a translator defines this method."""
        raise NotImplementedError

    def size_multiple(self, shape: Shape) -> int | None:
        """Of what height and width must be multiples, so that a network built for `shape` can translate an image.

        None if it translates images of that size only.
        """
        return None

    def least_size(self, shape: Shape) -> int | None:
        """The smallest height and width of images that a network built for `shape` can translate.

        None if it translates images of that size only.
        """
        multiple = self.size_multiple(shape)
        if multiple is None:
            return None
        sides = range(multiple, min(shape[1:]) + 1, multiple)
        return next((side for side in sides if self.incompatibility((shape[0], side, side)) is None), min(shape[1:]))

    def translates_size(self, shape: Shape, size: tuple[int, int]) -> bool:
        """Whether a network built for images of `shape`, C x H x W, can translate those of a height and width."""
        multiple = self.size_multiple(shape)
        fits = multiple is not None and all(side % multiple == 0 for side in size)
        return tuple(size) == tuple(shape[1:]) or (fits and self.incompatibility((shape[0], *size)) is None)


class DiscriminatorConfig(NetworkConfig):
    """A discriminator: samples, B x shape, to a `DiscriminatorOutput`.

    If it returns features, its module has an attribute `width`, the number of features.
    """

    small_on_purpose: ClassVar[bool] = False
    """Whether it is published for experiments with a D that is far smaller than G, so that this is no mistake."""

    @property
    def output_kind(self) -> OutputKind:
        """Whether its score is unbounded or the negative of an energy."""
        return "score"

    def build(self, shape: Shape, *, reference: Tensor | None = None) -> nn.Module:
        """The complete module, its norm included, with initial weights from PyTorch's global generator.

        Args:
            shape: the shape of one sample.
            reference: samples, R x shape, the reference batch of the norm `virtual`; no other norm needs one.

        Raises:
            RecipeError: the network does not support samples of this shape, or the norm is `virtual`, and `reference`
                is missing.
        """
        self.check_shape(shape)
        return self.apply_norm(self.build_layers(shape), reference)

    def build_layers(self, shape: Shape) -> nn.Module:
        """The module of `build` before `apply_norm`: a network defines this method."""
        raise NotImplementedError


class EncoderConfig(NetworkConfig):
    """An encoder: samples, B x shape, to an `EncoderOutput`.

    `pace` is the factor by which G's learning rate is multiplied for the encoder's weights.
    """

    by_index: ClassVar[bool] = False
    """Whether it maps indices of training samples to codes, instead of the samples themselves."""

    pace: float = Field(default=1.0, gt=0)

    def build(self, shape: Shape, out_dim: int, num_samples: int, *, reference: Tensor | None = None) -> nn.Module:
        """The complete module, its norm included, with initial weights from PyTorch's global generator.

        Args:
            shape: the shape of one sample.
            out_dim: the number of outputs per sample: the dimension of the latents, or twice that if the objective
                needs the variance of the codes.
            num_samples: the number of training samples.
            reference: see `DiscriminatorConfig.build`.

        Raises:
            RecipeError: the network does not support samples of this shape.
        """
        self.check_shape(shape)
        return self.apply_norm(self.build_layers(shape, out_dim, num_samples), reference)

    def build_layers(self, shape: Shape, out_dim: int, num_samples: int) -> nn.Module:
        """The module of `build` before `apply_norm`: a network defines this method."""
        raise NotImplementedError


def call_network(net: nn.Module, x: Tensor, labels: Tensor | None) -> Any:
    """The output of `net` for `x`; a module with an attribute `takes_labels = True` is given the labels too."""
    return net(x, labels) if getattr(net, "takes_labels", False) else net(x)


def call_encoder(encoder: nn.Module, images: Tensor, get_indices: Callable[[], Tensor]) -> EncoderOutput:
    """The output of `encoder` for a batch.

    Args:
        encoder: a module; one with an attribute `takes_indices = True` is given the indices of the samples.
        images: the samples, B x shape.
        get_indices: returns the indices of the samples in the training set, int64, B. It is called only if needed.
    """
    return encoder(get_indices()) if getattr(encoder, "takes_indices", False) else encoder(images)


class HasIntermediateLatents(Protocol):
    """A generator with an intermediate latent space, as StyleGAN has: it maps z to w, and w to the sample.

    In evaluation mode, and without truncation, its output is synthesize(map_latents(latents)).
    """

    def map_latents(self, latents: Tensor) -> Tensor:
        """w, B x dim of w, of the generator's inputs: z, or z and an embedding of the label."""
        ...

    def synthesize(self, w: Tensor) -> Tensor:
        """The samples, B x shape, of intermediate latents, B x dim of w; differentiable."""
        ...


class IntermediateSpace(NamedTuple):
    """The intermediate latent space of a network.

    Attributes:
        net: the network, including a module that adds the labels to its inputs.
        mapped: the generator in it that has the space.
    """

    net: nn.Module
    mapped: HasIntermediateLatents

    def map_latents(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        """w, B x dim of w, of latents z, B x dim, and labels, B."""
        wrapped_inputs = getattr(self.net, "wrapped_inputs", None)
        return self.mapped.map_latents(latents if wrapped_inputs is None else wrapped_inputs(latents, labels))

    def synthesize(self, w: Tensor) -> Tensor:
        """The samples of w, B x dim of w."""
        return self.mapped.synthesize(w)


def intermediate_space(net: nn.Module) -> IntermediateSpace | None:
    """The intermediate latent space of a generator; None if it has none.

    The generator is `net` itself, or its attribute `net` if it has a method `wrapped_inputs` (see `Concat`).
    """
    inner = net.net if hasattr(net, "wrapped_inputs") else net
    has_space = all(callable(getattr(inner, name, None)) for name in ("map_latents", "synthesize"))
    return IntermediateSpace(net, cast(HasIntermediateLatents, inner)) if has_space else None


def mixes_samples(net: nn.Module) -> bool:
    """Whether the output for a sample depends on the other samples of its batch, as with batch norm.

    A custom module of which this is true declares it by an attribute `mixes_samples = True`.
    """
    return any(isinstance(m, _BatchNorm) or getattr(m, "mixes_samples", False) for m in net.modules())


class WithClassifier(nn.Module):
    """A discriminator with an auxiliary classifier, which computes class logits from its features.

    Source: Odena et al. 2017, arXiv:1610.09585.
    """

    class_layers = ("head",)

    def __init__(self, net: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.takes_labels = getattr(net, "takes_labels", False)
        self.width: int = net.width  # type: ignore[assignment]
        self.net, self.head = net, nn.Linear(self.width, num_classes)
        match_spectral_norm_(self.head, net)

    def forward(self, images: Tensor, *labels: Tensor) -> DiscriminatorOutput:
        """The discriminator's output with class logits."""
        output: DiscriminatorOutput = self.net(images, *labels)
        assert output.features is not None
        return output._replace(classes=self.head(output.features))


class WithCodes(nn.Module):
    """A discriminator that predicts the codes from which a sample was generated, with a head on its features.

    Source: Chen et al. 2016, arXiv:1606.03657, appendix C.1, without the batch norm of the head.
    """

    def __init__(self, net: nn.Module, num_outputs: int) -> None:
        super().__init__()
        self.takes_labels = getattr(net, "takes_labels", False)
        self.width: int = net.width  # type: ignore[assignment]
        self.net = net
        self.code_head = nn.Sequential(nn.Linear(self.width, 128), nn.LeakyReLU(0.1), nn.Linear(128, num_outputs))
        for layer in (self.code_head[0], self.code_head[2]):
            match_spectral_norm_(layer, net)

    def forward(self, images: Tensor, *labels: Tensor) -> DiscriminatorOutput:
        """The discriminator's output with predicted codes."""
        output: DiscriminatorOutput = self.net(images, *labels)
        assert output.features is not None
        return output._replace(codes=self.code_head(output.features))


class EncoderModule(nn.Module):
    """An encoder: a network whose output is interpreted as latent codes.

    Args:
        net: maps samples, B x shape, or their indices, B, to B x `out_dim` (see `EncoderConfig.build`).
        has_variance: whether the second half of the outputs is the log-variance of the code.
    """

    def __init__(self, net: nn.Module, *, has_variance: bool) -> None:
        super().__init__()
        self.net, self.has_variance = net, has_variance
        self.takes_indices = isinstance(net, nn.Embedding)

    def forward(self, x: Tensor) -> EncoderOutput:
        """The codes of samples, B x shape, or of indices, B."""
        output = self.net(x)
        return EncoderOutput(*output.chunk(2, 1)) if self.has_variance else EncoderOutput(output)
