"""What an exported file says about its generator: text by name, without the paths of this computer."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, Literal, NamedTuple, Self

from poise.errors import CheckpointError, RecipeError
from poise.networks.translation import Parts
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.recipe.toml import parse_toml
from poise.runs.code_copies import code_of_generator, copy_names
from poise.runs.run import Run
from poise.runs.translate import AnyDirection, Translator, part_of, sizes_in_words
from poise.version import __version__

ABSOLUTE = re.compile(r"[/\\~]|[A-Za-z]:[/\\]")


class Description(NamedTuple):
    """The description of an exported generator.

    Attributes:
        recipe: the recipe of its run; paths are reduced to the names of the files or folders.
        shape: the shape of what it generates.
        classes: the names of the classes; empty if G is not conditional.
        num_classes: the number of classes of the data, whether or not G is conditional.
        step: the step of the checkpoint.
        weights: "averaged" or "live".
        data: kind, fingerprint and number of the training samples.
        code: the hash of each Python file without which samples can't be generated, by the file's name.
        random_layers: "kept", "given as the input noise", "replaced by their means", or "none".
        license: an identifier such as "cc-by-4.0"; empty if unknown.
        version: the version of poise.
        direction: "a_to_b", "b_to_a" or "same" if it starts from images (or vectors); empty if it does not.
        parts: the number of channels of each domain in a sample of its run; empty if it has one.
        size_multiple: of what the height and width of the images that it starts from may be any multiples; 0 if they
            must be those of the data.
        least_size: the smallest height and width of these images; 0 if they must be those of the data.
        noise_dim: how many numbers from N(0, 1) the input `noise` has for each sample; 0 if there is no such input.
    """

    recipe: Recipe
    shape: tuple[int, ...]
    classes: tuple[str, ...]
    num_classes: int
    step: int
    weights: str
    data: Mapping[str, Any]
    code: Mapping[str, str]
    random_layers: str = "none"
    license: str = ""
    version: str = __version__
    direction: AnyDirection | Literal[""] = ""
    parts: Parts = ()
    size_multiple: int = 0
    least_size: int = 0
    noise_dim: int = 0

    @classmethod
    def of(cls, run: Run, *, raw: bool = False, license: str = "", translator: Translator | None = None) -> Self:
        """The description of a run's generator, or of the one direction of it that `translator` is."""
        data, original = run.info["data"], run.folder.parse_recipe(decode)
        hashes = {name: run.info.get("code", {}).get(file) for file, name in copy_names(original).items()}
        return cls(
            recipe=portable(original),
            shape=run.shape if translator is None else translator.part.shape_of(run.shape),
            classes=() if original.labels.g is None else run.classes,
            num_classes=len(run.classes),
            step=run.checkpoint.step,
            weights="live" if run.generator(raw=raw) is run.game.g.net else "averaged",
            data={key: data[key] for key in ("kind", "fingerprint", "count")},
            code={name: hashes[name] for name in code_of_generator(run.recipe) if hashes[name] is not None},
            license=license,
            direction="" if translator is None else translator.direction,
            parts=run.parts,
            size_multiple=0 if translator is None else translator.size_multiple or 0,
            least_size=0 if translator is None else translator.least_size or 0,
        )

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of a sample of its run: an image of each domain, if it translates from one to another."""
        return (sum(self.parts), *self.shape[1:]) if self.direction in ("a_to_b", "b_to_a") else self.shape

    @property
    def source_shape(self) -> tuple[int, ...]:
        """The shape of what it starts from, if it translates."""
        return () if self.direction == "" else part_of(self.direction, self.parts).source_shape_of(self.sample_shape)

    @property
    def is_image(self) -> bool:
        """Whether the samples are images, C x H x W, and not points."""
        return len(self.shape) == 3

    @property
    def noun(self) -> str:
        """What the samples are, in a word: images, points of the plane, or vectors."""
        return "images" if self.is_image else "points" if self.shape == (2,) else "vectors"

    @property
    def sizes(self) -> str:
        """Which heights and widths the images may have that it starts from, as a clause; empty if those of the data."""
        return sizes_in_words(self.size_multiple, self.least_size)

    @property
    def inputs_in_words(self) -> str:
        """How latents are drawn, or what it translates, for a reader who does not have poise."""
        if not self.source_shape:
            return self.recipe.latent.in_words
        return f"{self.noun} like those of the data"

    def as_text(self) -> dict[str, str]:
        """All of it as text by name: the metadata of a file. Values that are not text are JSON."""
        latent = self.recipe.latent
        facts: dict[str, Any] = {
            "generator": "poise",
            "poise_version": self.version,
            "name": self.recipe.name,
            "latent": latent.model_dump(mode="json") | {"distribution": self.inputs_in_words},
            "shape": list(self.shape),
            "direction": self.direction,
            "source_shape": list(self.source_shape),
            "parts": list(self.parts),
            "size_multiple": self.size_multiple,
            "least_size": self.least_size,
            "range": [-1, 1] if self.is_image else None,
            "classes": list(self.classes),
            "num_classes": self.num_classes,
            "step": self.step,
            "weights": self.weights,
            "random_layers": self.random_layers,
            "noise_dim": self.noise_dim,
            "data": dict(self.data),
            "code": dict(self.code),
            "license": self.license,
            "recipe": self.recipe.to_toml(),
        }
        return {name: fact if isinstance(fact, str) else json.dumps(fact) for name, fact in facts.items()}

    @classmethod
    def from_text(cls, metadata: Mapping[str, str], where: str) -> Self:
        """The inverse of `as_text`.

        Args:
            metadata: the metadata of a file.
            where: the file, for messages.

        Raises:
            CheckpointError: the metadata is not that of a generator exported by poise, or is damaged.
        """
        if metadata.get("generator") != "poise":
            raise CheckpointError("not a generator exported by poise: its metadata says nothing of it", where=where)
        try:
            return cls(
                recipe=decode(parse_toml(metadata["recipe"], where), where),
                shape=tuple(map(int, json.loads(metadata["shape"]))),
                classes=tuple(map(str, json.loads(metadata["classes"]))),
                num_classes=int(json.loads(metadata["num_classes"])),
                step=int(json.loads(metadata["step"])),
                weights=metadata["weights"],
                data=dict(json.loads(metadata["data"])),
                code=dict(json.loads(metadata["code"])),
                random_layers=metadata["random_layers"],
                license=metadata["license"],
                version=metadata["poise_version"],
                direction=_read_direction(metadata.get("direction", "")),
                parts=tuple(map(int, json.loads(metadata.get("parts", "[]")))),
                size_multiple=int(json.loads(metadata.get("size_multiple", "0"))),
                least_size=int(json.loads(metadata.get("least_size", "0"))),
                noise_dim=int(json.loads(metadata.get("noise_dim", "0"))),
            )
        except (KeyError, ValueError, TypeError, RecipeError) as error:
            cure = f"it was written by poise {metadata.get('poise_version', 'of an unknown version')}"
            raise CheckpointError(f"its metadata can't be read: {error}", where=where, cure=cure) from None


def _read_direction(text: str) -> AnyDirection | Literal[""]:
    """The direction in the metadata.

    Raises:
        ValueError: it is none.
    """
    if text == "" or text == "a_to_b" or text == "b_to_a" or text == "same":
        return text
    raise ValueError(f"direction {text!r}")


def portable(recipe: Recipe) -> Recipe:
    """The recipe without paths of this computer.

    The paths of the data and of the run that the weights started from, and every text that is an absolute path, are
    reduced to their last parts, those of two domains to so many that they differ. A Python file gets the name of its
    copy, under which it is looked for beside the exported file.
    """
    names = copy_names(recipe)
    places = _last_parts(recipe.data.paths) | ({} if recipe.init is None else _last_parts([recipe.init.run]))

    def reduced(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: reduced(part, name) for name, part in value.items()}
        if isinstance(value, list):
            return [reduced(part, key) for part in value]
        if not isinstance(value, str):
            return value
        if key == "file" and value in names:
            return names[value]
        return places.get(value) or (_last_parts([value])[value] if ABSOLUTE.match(value) else value)

    table = recipe.canonical()
    return decode({name: part if name == "about" else reduced(part, name) for name, part in table.items()}, "recipe")


def _last_parts(paths: Sequence[str]) -> dict[str, str]:
    """The last part of each path, or as many as make all of them differ that are different paths."""
    flavours = {path: PureWindowsPath(path) if "\\" in path else PurePosixPath(path) for path in paths}
    parts = {path: flavour.parts[bool(flavour.anchor) :] for path, flavour in flavours.items()}
    found = dict[str, str]()
    for count in range(1, 2 + max(map(len, parts.values()), default=0)):
        found = {path: "/".join(names[-count:]) or "data" for path, names in parts.items()}
        if len(set(found.values())) == len(found):
            break
    return found
