"""The model card of a pushed generator: the README.md of its repository."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from poise.core.metrics_log import decode_number
from poise.export.description import Description
from poise.networks.translation import translator_to
from poise.report.render import environment
from poise.runs.evaluate import measured_domain
from poise.runs.run import Run
from poise.runs.translate import part_of
from poise.utils.printing import shape_text

PIPELINE, TRANSLATION = "unconditional-image-generation", "image-to-image"
"""The tasks under which huggingface.co lists models that generate images without a text, and from images."""


class CardFacts(NamedTuple):
    """What the card says beyond the description.

    Attributes:
        measures: rows of measure, value and floor, as text.
        measured: how the measures were computed, in one sentence; empty if there are none.
        training: rows of a fact's name and its value.
        remarks: what readers should know.
        files: what each file of the repository is, by its name.
        inputs: the names of the generator's inputs.
        noise_dim: how many random numbers the exported graph needs for each sample.
    """

    measures: Sequence[tuple[str, str, str]]
    measured: str
    training: Sequence[tuple[str, str]]
    remarks: Sequence[str]
    files: Mapping[str, str]
    inputs: Collection[str]
    noise_dim: int = 0


def model_card(description: Description, facts: CardFacts) -> str:
    """The card in Markdown, with the metadata that huggingface.co reads in YAML at its head."""
    recipe = description.recipe
    front = {
        "license": description.license or "unknown",
        "library_name": "poise",
        "tags": ["gan", "poise", recipe.name, *(["onnx"] if "generator.onnx" in facts.files else [])],
        **({"pipeline_tag": TRANSLATION if description.direction else PIPELINE} if description.is_image else {}),
    }
    return (
        environment()
        .get_template("model-card.md.j2")
        .render(
            front=front,
            description=description,
            recipe=recipe,
            recipe_toml=recipe.to_toml().rstrip("\n"),
            does=_purpose(description),
            facts=facts,
        )
    )


def _purpose(description: Description) -> str:
    """What the generator does, as the predicate of a sentence."""
    kind = description.noun
    ways = {"a_to_b": f"translates {kind} of a domain a to {kind} of a domain b"}
    ways |= {"b_to_a": f"translates {kind} of a domain b to {kind} of a domain a", "same": f"translates {kind}"}
    return ways.get(description.direction, f"generates {kind}")


def card_facts(
    run: Run,
    description: Description,
    remarks: Sequence[str],
    files: Mapping[str, str],
    inputs: Collection[str],
    noise_dim: int = 0,
) -> CardFacts:
    """Collect the facts of a run; the last four arguments are those of `CardFacts`."""
    same_weights = description.weights == "averaged" or not _averages(run)
    is_measured = same_weights and not measured_other_direction(run, description)
    line = last_measures(run, description.step) if is_measured else None
    return CardFacts(
        measures=[] if line is None else _measure_rows(line),
        measured="" if line is None else _how_measured(line),
        training=list(_training(run, description)),
        remarks=remarks,
        files=files,
        inputs=inputs,
        noise_dim=noise_dim,
    )


def last_measures(run: Run, step: int) -> dict[str, Any] | None:
    """The last line of `measures.jsonl` up to a step, which is of the weights that are sampled from; None if none."""
    lines = [line for line in run.measures if line["step"] <= step]
    return lines[-1] if lines else None


def measured_other_direction(run: Run, description: Description) -> bool:
    """Whether the measures of a run that translates both ways are of the images that its other generator makes."""
    generated = {"a_to_b": "b", "b_to_a": "a"}.get(description.direction)
    return run.recipe.network.direction == "both_ways" and (measured_domain(run.recipe) or "b") != generated


def _averages(run: Run) -> bool:
    return run.generator() is not run.generator(raw=True)


def _measure_rows(line: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    floors, baselines = line.get("floor", {}), line.get("baseline", {})
    references = {name: _number(floors.get(name)) for name in line["measures"]}
    references |= {name: f"{_number(value)} without translation" for name, value in baselines.items()}
    return [(name, _number(value), references[name]) for name, value in line["measures"].items()]


def _number(value: Any) -> str:
    return "" if value is None else f"{decode_number(value):.4g}"


def _how_measured(line: Mapping[str, Any]) -> str:
    return (
        f"Measured at step {line['step']:,} with {line['n']:,} samples, features: {line['features']}. The column of "
        "real data has the same measure of other real samples in place of generated ones, as a reference."
    )


def _training(run: Run, description: Description) -> list[tuple[str, str]]:
    data, info = description.data, run.info
    rows = [
        ("data", f"{data['kind']}: {_counted(run, description)}"),
        ("fingerprint of the data", str(data["fingerprint"])),
        ("steps", f"{description.step:,} of {run.recipe.steps:,}, batch size {run.recipe.batch:,}"),
        ("parameters of the generator", f"{_num_parameters(run, description):,}"),
        ("weights", "averaged over training" if description.weights == "averaged" else "as trained, not averaged"),
        ("precision", f"trained in {info.get('precision', 'an unknown precision')}, stored as float32"),
        ("poise", description.version),
    ]
    classes = [("classes", ", ".join(description.classes))] if description.classes else []
    return rows[:2] + classes + rows[2:]


def _counted(run: Run, description: Description) -> str:
    """How many samples of which shape the data has."""
    count, size = description.data["count"], shape_text(description.sample_shape, description.parts)
    if description.noun == "points" and not description.parts:
        return "points of the plane"
    number = "" if count is None else f"{count:,} "
    if not description.is_image:
        return f"{number}{description.noun} of {size} numbers"
    if run.recipe.data.two_domains == "domains":
        return f"up to {number}unpaired images of each domain, {size} (C x H x W)"
    return f"{number}{'pairs of ' if len(description.parts) > 1 else ''}images of {size} (C x H x W)"


def _num_parameters(run: Run, description: Description) -> int:
    """The number of parameters of what is exported: of a G that translates both ways, of one direction."""
    net = run.generator()
    if description.direction:
        net = translator_to(net, part_of(description.direction, description.parts))
    return sum(parameter.numel() for parameter in net.parameters())
