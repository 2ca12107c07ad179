"""The formats of an exported generator: how each is encoded, and run again by its own engine for the comparison."""

from __future__ import annotations

import io
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.fx.experimental import _config as fx_config

from poise.errors import OutOfMemory, RecipeError, is_out_of_memory
from poise.export.comparison import GenerateFn
from poise.export.description import Description
from poise.export.load import decode_generator, encode_generator
from poise.export.network import ExportedGenerator, GeneratorInputs, ImageSizes
from poise.utils.printing import one_line

BATCH = torch.export.Dim("batch", min=1)
WEIGHTS_ONLY = "use --format safetensors, which keeps the weights and the recipe"
"""The cure if a generator can't be exported as a graph."""


def _side(name: str, sizes: ImageSizes) -> Any:
    """The height or the width as a dimension of torch.export."""
    side = torch.export.Dim(name, min=sizes.least // sizes.multiple)
    return side if sizes.multiple == 1 else sizes.multiple * side


class ExportFormat(ABC):
    """A format.

    Attributes:
        packages: what must be installed, beyond poise itself.
        keeps_random_layers: whether a network that draws random numbers keeps doing so. A graph could not be compared
            with PyTorch, as its engine draws other numbers.
        needs_code: whether the file is read with the Python files of the generator, which must then lie beside it.
        engine: what the file is run with, for the comparison.
    """

    packages: ClassVar[tuple[str, ...]] = ()
    keeps_random_layers: ClassVar[bool] = False
    needs_code: ClassVar[bool] = False
    engine: ClassVar[str]

    @abstractmethod
    def encode(self, generator: ExportedGenerator, example: GeneratorInputs, description: Description) -> bytes:
        """The contents of the file.

        Args:
            generator: the generator.
            example: inputs of the right shapes; the batch size may be any above 1.
            description: becomes the metadata.

        Raises:
            RecipeError: the network can't be expressed in this format.
        """

    @abstractmethod
    def open(self, data: bytes, code: Path) -> GenerateFn:
        """Run the contents of a file in the engine that users of the format have.

        Args:
            data: the contents.
            code: the folder with the Python files that the generator needs, if it needs any.
        """


class SafetensorsFormat(ExportFormat):
    """The weights by name, from which `poise.load_generator` rebuilds the network."""

    keeps_random_layers: ClassVar[bool] = True
    needs_code: ClassVar[bool] = True
    engine: ClassVar[str] = "poise.load_generator"

    def encode(self, generator: ExportedGenerator, example: GeneratorInputs, description: Description) -> bytes:
        """See `encode_generator`."""
        return encode_generator(generator.net, description)

    def open(self, data: bytes, code: Path) -> GenerateFn:
        """The network that `poise.load_generator` returns."""
        generator = decode_generator(data, "the exported file", code, trust_code=True)
        return lambda inputs: generator(*inputs.positional, **inputs.by_keyword)


class OnnxFormat(ExportFormat):
    """An ONNX graph with a dynamic batch and, where the network allows it, image size; weights are inside the file."""

    packages: ClassVar[tuple[str, ...]] = ("onnx", "onnxscript", "onnxruntime")
    engine: ClassVar[str] = "onnxruntime"

    def encode(self, generator: ExportedGenerator, example: GeneratorInputs, description: Description) -> bytes:
        """The serialised `ModelProto`, with the description in `metadata_props`."""
        from google.protobuf.message import EncodeError

        axes = {name: {0: "batch"} if value.dim() else {} for name, value in example.named.items()}
        if example.sizes is not None:
            axes[example.first] |= {2: "height", 3: "width"}
        with export_errors("onnx"):
            program = torch.onnx.export(
                generator,
                example.positional,
                kwargs=example.by_keyword,
                input_names=list(example.named),
                output_names=["images" if description.is_image else "points"],
                dynamic_shapes=axes,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        assert program is not None
        program.model.metadata_props.update(description.as_text())
        try:
            return program.model_proto.SerializeToString()
        except (EncodeError, ValueError):
            cure = "use --format safetensors"
            raise RecipeError(
                "a network above 2 GB can't be written as one ONNX file", where="--format", cure=cure
            ) from None

    def open(self, data: bytes, code: Path) -> GenerateFn:
        """A session on the CPU."""
        import onnxruntime

        onnxruntime.set_default_logger_severity(3)
        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])

        def generate(inputs: GeneratorInputs) -> Tensor:
            arrays = {name: value.numpy() for name, value in inputs.named.items()}
            return torch.from_numpy(session.run(None, arrays)[0])

        return generate


class Pt2Format(ExportFormat):
    """A `torch.export` program, which PyTorch loads without any code of the network; see `OnnxFormat` for its sizes."""

    engine: ClassVar[str] = "torch.export.load"

    def encode(self, generator: ExportedGenerator, example: GeneratorInputs, description: Description) -> bytes:
        """What `torch.export.save` writes, with the description as extra files."""
        axes = {name: {0: BATCH} if value.dim() else {} for name, value in example.named.items()}
        if example.sizes is not None:
            axes[example.first] |= {2: _side("height", example.sizes), 3: _side("width", example.sizes)}
        stream = io.BytesIO()
        # without it, the smallest map of a U-Net would have either one pixel, or several, in all images
        any_size = fx_config.patch(  # pyrefly: ignore[missing-attribute]
            backed_size_oblivious=example.sizes is not None
        )
        with export_errors("pt2"), any_size:
            program = torch.export.export(
                generator, example.positional, example.by_keyword, dynamic_shapes=axes, strict=False
            )
            torch.export.save(program, stream, extra_files=description.as_text())
        return stream.getvalue()

    def open(self, data: bytes, code: Path) -> GenerateFn:
        """The loaded program's module."""
        module = torch.export.load(io.BytesIO(data)).module()
        return lambda inputs: module(*inputs.positional, **inputs.by_keyword)


FORMATS: dict[str, ExportFormat] = {"safetensors": SafetensorsFormat(), "onnx": OnnxFormat(), "pt2": Pt2Format()}
"""The formats by name, which is also the suffix of their files."""


def missing_packages(name: str) -> list[str]:
    """The packages of a format that are not installed."""
    return [package for package in FORMATS[name].packages if find_spec(package) is None]


def require_packages(name: str) -> None:
    """Check that the packages of a format are installed.

    Raises:
        RecipeError: they are not.
    """
    if missing := missing_packages(name):
        what = f"the format {name} needs packages that are not installed"
        cure = "install them: pip install 'poise[export]'"
        raise RecipeError(what, where="--format", found=f"no {', '.join(missing)}", cure=cure)


@contextmanager
def export_errors(name: str) -> Iterator[None]:
    """Silence the exporter's warnings, and convert its errors to one line.

    Raises:
        RecipeError: the exporter has failed.
        OutOfMemory: it needed too much memory.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are about PyTorch's own code; the comparison is what counts
        try:
            yield
        except Exception as error:
            if is_out_of_memory(error.__cause__ or error):  # the ONNX exporter wraps errors
                raise OutOfMemory("out of memory", where="--format", found=name, cure=WEIGHTS_ONLY) from error
            reason = one_line(str(error).strip().split("\n")[0])[:200]
            what = f"this generator can't be exported as {name}: {type(error).__name__}: {reason}"
            raise RecipeError(what, where="--format", cure=WEIGHTS_ONLY) from error
