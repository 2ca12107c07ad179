"""Writes the files derived from the catalogue and the components: `python -m poise.tips.record [DOCS]`.

Run it after a change of either. `parts.json` lists the fields of all components with their defaults, so that the
catalogue can show them without torch. `docs/tips.md` is the catalogue as a page. `docs/recipes.md` has a table of all
fields with their defaults and one of the fields that accept a schedule, each between two markers. A test checks that
all of them are up to date.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic_core import PydanticUndefined, to_jsonable_python

from poise.core.config import ComponentConfig, Config, find_components
from poise.core.schedules import Schedule
from poise.data.config import DataConfig, PointsConfig
from poise.latents import Latent
from poise.measure.config import MeasureConfig
from poise.networks.base import DiscriminatorConfig, EncoderConfig, GeneratorConfig
from poise.networks.conditioning import DiscriminatorConditioning, GeneratorConditioning
from poise.objectives.base import Objective
from poise.optimizers import OptimizerConfig
from poise.recipe.init import InitConfig
from poise.recipe.model import LogConfig, Recipe
from poise.tempo import TempoConfig
from poise.tips.catalogue import REQUIRED, Fields, Tip, tips
from poise.tips.verdicts import NOT_MEASURED, Verdict, data_names, format_effect, leading, leading_arm
from poise.tricks.base import TrickConfig
from poise.utils.files import write_text
from poise.watch.monitor import MonitorConfig

FAMILIES: dict[str, tuple[type[ComponentConfig], str]] = {
    "data": (DataConfig, "poise.data"),
    "latent": (Latent, "poise.latents"),
    "network.g": (GeneratorConfig, "poise.networks"),
    "network.d": (DiscriminatorConfig, "poise.networks"),
    "network.e": (EncoderConfig, "poise.networks"),
    "conditioning.g": (GeneratorConditioning, "poise.networks"),
    "conditioning.d": (DiscriminatorConditioning, "poise.networks"),
    "objective": (Objective, "poise.objectives"),
    "optimizer.g": (OptimizerConfig, "poise.optimizers"),
    "optimizer.d": (OptimizerConfig, "poise.optimizers"),
    "tempo": (TempoConfig, "poise.tempo"),
    "tricks": (TrickConfig, "poise.tricks"),
}


TABLES: dict[str, type[Config]] = {
    "": Recipe,
    "init": InitConfig,
    "log": LogConfig,
    "measure": MeasureConfig,
    "monitor": MonitorConfig,
}
"""The tables of a recipe that have no kind, and the recipe itself."""


def fields(entry: type[Any]) -> Fields:
    """The default of each field, as JSON values."""
    defaults: Fields = {}
    for name, field in entry.model_fields.items():
        if name != "kind":
            default = field.get_default(call_default_factory=True)
            defaults[field.alias or name] = REQUIRED if default is PydanticUndefined else to_jsonable_python(default)
    return defaults


def all_parts() -> dict[str, Any]:
    """The content of `parts.json`."""
    content: dict[str, Any] = {
        place: {kind: fields(entry) for kind, entry in find_components(base, package).items()}
        for place, (base, package) in FAMILIES.items()
    }
    content["log"] = {"": fields(LogConfig)}
    content["points"] = [
        kind for kind, entry in find_components(DataConfig, "poise.data").items() if issubclass(entry, PointsConfig)
    ]
    return content


def parts_text() -> str:
    """The text of `parts.json`."""
    return json.dumps(all_parts(), indent=1, sort_keys=True) + "\n"


def accepts_schedule(annotation: Any) -> bool:
    """Whether a field with this annotation accepts a schedule, itself or in one of its items."""
    if isinstance(annotation, type) and issubclass(annotation, Schedule):
        return True
    return any(accepts_schedule(part) for part in get_args(annotation))


def components_by_place() -> Iterator[tuple[str, str, type[ComponentConfig]]]:
    """The places of each component in a recipe, formatted, its kind and its config."""
    for base in dict.fromkeys(base for base, _ in FAMILIES.values()):
        places = [place for place, family in FAMILIES.items() if family[0] is base]
        for kind, entry in find_components(base, FAMILIES[places[0]][1]).items():
            yield ", ".join(f"`{place}`" for place in places), kind, entry


def schedulable_fields() -> str:
    """The table of the fields that accept a schedule."""
    rows = [["where", "kind", "fields"]]
    for where, kind, entry in components_by_place():
        found = [name for name, field in entry.model_fields.items() if accepts_schedule(field.annotation)]
        if found:
            rows.append([where, f"`{kind}`", ", ".join(f"`{name}`" for name in found)])
    return markdown_table(rows)


def is_table(annotation: Any) -> bool:
    """Whether a field with this annotation is a table of a recipe, or a list of tables."""
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return True
    return any(is_table(part) for part in get_args(annotation))


def all_fields() -> str:
    """The table of all fields with their defaults."""
    rows = [["where", "kind", "fields"]]
    for place, table in TABLES.items():
        tables = [name for name, field in table.model_fields.items() if is_table(field.annotation)]
        named = {name: default for name, default in fields(table).items() if name not in tables}
        rows.append([f"`[{place}]`" if place else "the recipe", "", format_fields(named)])
    rows += [[where, f"`{kind}`", format_fields(fields(entry))] for where, kind, entry in components_by_place()]
    return markdown_table(rows)


def format_fields(defaults: Fields) -> str:
    """Fields with their defaults, as in `` `lr` = 0.1, `path` (required), `depth` (unset) ``."""
    return ", ".join(f"`{name}` {format_default(default)}" for name, default in defaults.items())


def format_default(default: Any) -> str:
    """A default as TOML with a sign of equality; TOML has no null."""
    if default in (REQUIRED, None):
        return REQUIRED if default else "(unset)"
    return f"= {format_value(default)}"


def format_value(value: Any) -> str:
    """A JSON value as inline TOML, without the items of tables that are null."""
    if isinstance(value, dict):
        items = [f"{key} = {format_value(item)}" for key, item in value.items() if item is not None]
        return "{ " + ", ".join(items) + " }" if items else "{}"
    return json.dumps(value)


GENERATED = {"all fields": all_fields, "the fields that accept a schedule": schedulable_fields}
"""The generated tables of `docs/recipes.md`, by the name in the lines around them."""


def insert_tables(text: str) -> str:
    """The text of `docs/recipes.md` with the current tables.

    Raises:
        ValueError: the lines around a table are missing.
    """
    for name, table in GENERATED.items():
        begin, end = f"<!-- {name}, written by python -m poise.tips.record -->", f"<!-- end of {name} -->"
        before, begun, rest = text.partition(begin)
        _, ended, after = rest.partition(end)
        if not (begun and ended):
            raise ValueError(f"docs/recipes.md: the lines around the table of {name} are missing: {begin} and {end}")
        text = f"{before}{begin}\n{table()}\n{end}{after}"
    return text


INTRO = """\
# The tips

The advice of published lists of tips for GAN training, each as a switch of `poise train`. `poise tips` prints \
the list, one tip, or how a recipe relates to all of them:

```console
poise tips
poise tips soft-labels
poise tips --recipe ring
```

Below, each tip has a summary, the command that applies it to the default recipe (its switch), the parts of poise \
that implement it, the published evidence with its sources, and our own verdict. G is the generator and D the \
discriminator, or critic; they are the players, and an update of one player is a move. In a command `tricks+=[...]` \
adds to a recipe's tricks and `tricks=[...]` replaces them. Figures are those of the sources. Our verdicts are \
measured over paired seeds, as [the page on studies](studies.md) describes. "ganhacks" is the list "How to Train a \
GAN? Tips and tricks to make GANs work", cited with the number of its item.

This page is generated by `python -m poise.tips.record` from `catalogue.toml` and `verdicts.json` in \
`src/poise/tips/`.

## Overview

"""

EFFECTS = """

An effect is the change of the measure by the tip, with its interval of 95 %: in percent of the value without the tip, \
or in units of the measure where percentages make no sense. It was measured on this data, with these networks:"""


def page() -> str:
    """The text of `docs/tips.md`."""
    return "\n".join([INTRO + overview(), *map(section, tips())])


def overview() -> str:
    """The table of all tips and their verdicts: a column per data set, or one if nothing has been measured."""
    names = page_names()
    bases = {names[v.data, v.summary]: v.measure for tip in tips() for v in leading(tip.verdicts)}
    columns = [f"{name} ({measure})" for name, measure in bases.items()]
    table = [["tip", "arm", *columns] if bases else ["tip", "verdict"]]
    for tip in tips():
        link = f"[{tip.id} {tip.name}](#{tip.id.lower()}-{tip.name})"
        found = {names[v.data, v.summary]: v for v in leading(tip.verdicts)}
        cells = [brief(found[name]) if name in found else NOT_MEASURED for name in bases]
        table.append([link, leading_arm(tip.verdicts), *cells] if bases else [link, NOT_MEASURED])
    lines = "".join(f"\n- **{name}**: {summary}" for (_, summary), name in names.items())
    return markdown_table(table) + (f"{EFFECTS}\n{lines}" if bases else "")


def page_names() -> dict[tuple[str, str], str]:
    """What the data of a verdict is called on the page, see `data_names`."""
    return data_names(verdict for tip in tips() for verdict in tip.verdicts)


def brief(verdict: Verdict) -> str:
    """A verdict with its effect, for a cell of a table: `helps -12 % [-19, -4]`."""
    stale = " (stale)" if verdict.stale_files else ""
    return f"{verdict.verdict} {format_effect(verdict)}{stale}"


def verdict_section(tip: Tip) -> str:
    """The verdicts of a tip as a table, and the commands that repeat their studies."""
    if not tip.verdicts:
        return f"Our verdict: {NOT_MEASURED}."
    head = ["arm", "data", "measure", "effect", "verdict", "seeds", "failures with / without", "date"]
    names = page_names()
    rows = [
        [
            *(v.name, names[v.data, v.summary], v.measure, format_effect(v)),
            f"{v.verdict} ({v.stale_note})" if v.stale_note else v.verdict,
            *(str(v.seeds), f"{v.failures} / {v.control_failures}", v.date),
        ]
        for v in tip.verdicts
    ]
    plans = dict.fromkeys(f"poise study {v.study.plan} --out runs/{v.study.name}" for v in tip.verdicts)
    commands = "\n".join(plans)
    return f"Our verdicts:\n\n{markdown_table([head, *rows])}\n\n```text\n{commands}\n```"


def markdown_table(rows: list[list[str]]) -> str:
    """A table whose first row is its head."""
    head, *body = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])


def section(tip: Tip) -> str:
    """The section of one tip."""
    lines = [f"\n## {tip.id} {tip.name}\n", tip.summary.strip(), f"\n```text\npoise train {tip.switch}\n```\n"]
    if tip.parts:
        lines.append("Parts:\n")
    for part in tip.parts:
        options = ", ".join(f"{name} = {json.dumps(default)}" for name, default in part.fields.items())
        lines.append(f"- `{part.kind}` ({part.at}): {part.note} Switch: `{part.switch}`. Fields: {options or 'none'}.")
    lines.append("\nEvidence:\n" if tip.parts else "Evidence:\n")
    for item in tip.evidence:
        lines.append(f"- **{item.says}**: {item.cited_text}")
    if tip.disagree:
        lines.append(f"- **sources disagree**: {tip.disagree}")
    lines.append(f"\n{verdict_section(tip)}\n\nSources: {'; '.join(tip.source)}.")
    return "\n".join(lines)


def main() -> None:
    """Write all derived files."""
    docs = Path(sys.argv[1] if len(sys.argv) > 1 else "docs")
    write_text(Path(__file__).parent / "parts.json", parts_text())
    write_text(docs / "tips.md", page() + "\n")
    recipes = docs / "recipes.md"
    write_text(recipes, insert_tables(recipes.read_text("utf-8")))


if __name__ == "__main__":
    main()
