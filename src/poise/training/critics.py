"""Makes the frozen networks that tricks of a recipe need: trained on its data, read from a file, or code of the user.

A classifier is copied into the run folder, and a resumed run takes the copy: trained on another machine it would have
other weights, and a file elsewhere may have been replaced. What code of the user constructs is not copied.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from poise.core.types import Shape
from poise.data.config import DataConfig
from poise.data.lookup import load, table_config
from poise.data.source import DataSplits, SizedSource
from poise.errors import CheckpointError, DataError, RecipeError
from poise.measure.classifier import can_train_on, load_or_train
from poise.measure.classifier_file import StoredClassifier, read_classifier, write_classifier
from poise.measure.features import hash_weights
from poise.networks.critics import Critic, CriticConfig, CriticFile, CriticNeeds, TrainedCritic
from poise.recipe.model import Recipe
from poise.user_code.components import UserCritic
from poise.utils.files import make_folder
from poise.utils.paths import expand_home
from poise.utils.progress import report
from poise.utils.system import disk_errors


class Critics(NamedTuple):
    """The critics of a run, by the name of the trick that uses them.

    Attributes:
        networks: all of them.
        classifiers: those that are classifiers of poise.
        notes: what they are, a sentence each.
    """

    networks: dict[str, Critic]
    classifiers: dict[str, StoredClassifier]
    notes: list[str]

    @property
    def digests(self) -> dict[str, str]:
        """The hash of each one's weights."""
        return {name: critic.digest for name, critic in self.networks.items()}

    def write_copies(self, folder: Path) -> None:
        """Write the classifiers into a folder, except for those that are there.

        Raises:
            DiskError: the disk refused.
        """
        for name, classifier in self.classifiers.items():
            path = copy_of(folder, name)
            if not path.exists():
                with disk_errors(folder):
                    make_folder(folder)
                write_classifier(path, classifier)


def copy_of(folder: Path, name: str) -> Path:
    """The path of the copy of a trick's classifier."""
    return folder / f"{name}.safetensors"


def make_critics(recipe: Recipe, data: DataSplits, device: torch.device, copies: Path | None = None) -> Critics:
    """Make the critics that a recipe needs.

    Args:
        recipe: the recipe.
        data: its data.
        device: where the networks are needed.
        copies: the folder of the copies, if the run is resumed.

    Raises:
        RecipeError: one does not fit the data, or can't be trained on it.
        DataError: a file can't be read.
        CheckpointError: a copy can't be read.
    """
    critics = Critics({}, {}, [])
    for i, (trick, name) in enumerate(zip(recipe.tricks, recipe.trick_names(), strict=True)):
        if trick.critic is None:
            continue
        where, config, classes = f"tricks.{i}.network", trick.critic.network, tuple[str, ...]()
        if isinstance(config, UserCritic):
            net = config.build(_shape(data))
            critic, note = Critic(net, config.name, hash_weights(net)), f"{config.name} of {config.file}"
        else:
            copy = None if copies is None else copy_of(copies, name)
            classifier, what = _classifier(config, recipe.data, data, copy, where)
            _check_shape(classifier, _shape(data), what, where)
            critics.classifiers[name], classes = classifier, classifier.classes
            critic = Critic(classifier.net, what, hash_weights(classifier.net))
            note = f"{what} of {_listed(classes)}, {_accuracy(classifier.accuracy)}"
        _check_classes(critic, classes, trick.critic, data, where)
        critics.networks[name] = critic.to(device)
        critics.notes.append(f"{name}: {note}")
    return critics


def train_classifier(
    data: str | Path | Mapping[str, Any] | DataConfig, path: str | Path, *, data_root: str | Path | None = None
) -> StoredClassifier:
    """Train the small classifier of the measures on labelled images and write it to a file.

    The file can be the critic of a run: `network = {kind = "file", path = "..."}` of the trick `frozen_critic`.

    Args:
        data: a folder with a subfolder per class, a .zip or a .npz; the name of a data set; or a table `data` of a
            recipe, such as `{"kind": "folder", "path": "faces", "size": 64}`, or its config.
        path: the file to write, which ends in .safetensors.
        data_root: the folder that is searched for data sets given by name.

    Returns:
        The classifier, with its accuracy on images that it was not trained on.

    Raises:
        RecipeError: the data has no labels, or too few or too small images; or the classifier learns nothing.
        DataError: the data can't be read.
        DiskError: the file can't be written.
    """
    if Path(path).suffix != ".safetensors":
        raise RecipeError("must end in .safetensors", where="path", found=str(path))
    classifier = _train(load(data, data_root=data_root), "data")
    write_classifier(Path(path), classifier)
    return classifier


def _classifier(
    config: CriticConfig, recipe_data: DataConfig, data: DataSplits, copy: Path | None, where: str
) -> tuple[StoredClassifier, str]:
    """A classifier, and what it is."""
    if copy is not None and copy.is_file():
        try:
            return read_classifier(copy), f"the run's copy {copy}"
        except DataError as error:
            cure = "restore the file from a copy of the run folder, or start a new run"
            found = f"{error.what} ({error.found})" if error.found else error.what
            raise CheckpointError("a frozen critic can't be read", where=str(copy), found=found, cure=cure) from None
    if isinstance(config, CriticFile):
        return read_classifier(expand_home(config.path)), f"the classifier {config.path}"
    assert isinstance(config, TrainedCritic)
    splits = data if config.labels is None else _relabelled(recipe_data, config.labels, where)
    return _train(splits, where), "a classifier, trained on this data,"


def _check_shape(classifier: StoredClassifier, shape: Shape, what: str, where: str) -> None:
    if classifier.shape != shape:
        found, cure = f"{_text(classifier.shape)} in {what}", f"train one on images of {_text(shape)}"
        raise RecipeError(f"the classifier must read images of {_text(shape)}", where=where, found=found, cure=cure)


def _check_classes(critic: Critic, classes: tuple[str, ...], needs: CriticNeeds, data: DataSplits, where: str) -> None:
    """Refuse a critic that doesn't classify, or not into the classes of the data, if that is needed."""
    if not needs.classes:
        return
    with torch.no_grad():
        logits = critic(torch.zeros(2, *_shape(data))).logits
    count = 0 if logits is None or logits.dim() != 2 else logits.shape[1]
    if count < 2:
        cure = 'return features and logits of at least two classes, or set the trick\'s output to "features"'
        raise RecipeError("this network does not classify", where=where, found=critic.name, cure=cure)
    wanted = data.train.classes
    if needs.labels_of_data and (count != len(wanted) or (classes and classes != wanted)):
        found = _listed(classes) if classes else f"{count} classes"
        cure = "use a classifier that was trained on the labels of this data"
        what = f"its classes must be those of the data, {_listed(wanted)}"
        raise RecipeError(what, where=where, found=found, cure=cure)


def _train(data: DataSplits, where: str) -> StoredClassifier:
    """The small classifier of labelled images, newly trained or from the cache."""
    train, held_out = data.train, data.held_out
    if not isinstance(train, SizedSource) or len(train.shape) != 3 or len(train.parts) > 1 or not can_train_on(train):
        cure = "name a file that poise.train_classifier has written for other data, or your own network"
        what = "a classifier requires labelled images of one domain, twenty per class on average"
        raise RecipeError(what, where=where, cure=cure)
    try:
        trained = load_or_train(train, held_out if isinstance(held_out, SizedSource) else None, report)
    finally:
        report("", 1.0)
    if not trained.has_learned:
        found = f"{_accuracy(trained.accuracy)}, of which {trained.majority_share:.1%} are of the largest class"
        cure = "use more images, or another network"
        what = "the classifier has not learned the classes of this data"
        raise RecipeError(what, where=where, found=found, cure=cure)
    return StoredClassifier(trained.net, train.shape, train.classes, trained.accuracy)


def _relabelled(config: DataConfig, labels: str, where: str) -> DataSplits:
    """The same images with other labels."""
    if "labels" not in type(config).model_fields:
        cure = "leave labels out"
        raise RecipeError(f"data of kind '{config.tag()}' has labels of one kind", where=f"{where}.labels", cure=cure)
    try:
        relabelled = table_config(config.model_dump(mode="json", exclude_none=True) | {"labels": labels})
    except RecipeError as error:
        raise RecipeError(error.what, where=f"{where}.labels", found=error.found, cure=error.cure) from None
    return relabelled.load()


def _shape(data: DataSplits) -> Shape:
    """The shape of an image: of the first of two domains, which have equally many channels if they are compared."""
    shape, parts = data.train.shape, data.train.parts
    return (parts[0], *shape[1:]) if len(parts) > 1 else shape


def _listed(classes: tuple[str, ...]) -> str:
    return ", ".join(classes) if len(classes) <= 10 else f"{len(classes)} classes"


def _accuracy(accuracy: float) -> str:
    return f"accuracy {accuracy:.1%} on unseen images"


def _text(shape: Shape) -> str:
    return "x".join(map(str, shape))
