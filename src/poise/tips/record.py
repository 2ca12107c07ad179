"""Writes what is derived from the catalogue and the parts: `python -m poise.tips.record [DOCS]`, after changing either.

`parts.json` lists every part's fields with their defaults, so that the catalogue can tell them without torch;
`docs/tips.md` is the catalogue as a page; `docs/recipes.md` has a table of the fields that may be dials between two
markers. Tests hold all three to their sources.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any, get_args

from pydantic_core import PydanticUndefined, to_jsonable_python

from poise.core.config import ComponentConfig, find_components
from poise.core.schedules import Schedule
from poise.data.source import DataConfig, ToyConfig
from poise.latents import Latent
from poise.networks.base import DiscriminatorConfig, EncoderConfig, GeneratorConfig
from poise.networks.conditioning import DiscriminatorConditioning, GeneratorConditioning
from poise.objectives.base import Objective
from poise.optimizers import OptimizerConfig
from poise.recipe.model import LogConfig
from poise.tempo import TempoConfig
from poise.tips.catalogue import REQUIRED, Fields, Tip, tips
from poise.tricks.base import TrickConfig
from poise.utils.files import write_text

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


def fields(entry: type[Any]) -> Fields:
    """Each field's default as JSON knows it."""
    told: Fields = {}
    for name, field in entry.model_fields.items():
        if name != "kind":
            told[name] = REQUIRED if field.default is PydanticUndefined else to_jsonable_python(field.default)
    return told


def all_parts() -> dict[str, Any]:
    """What `parts.json` holds."""
    told: dict[str, Any] = {
        place: {kind: fields(entry) for kind, entry in find_components(base, package).items()}
        for place, (base, package) in FAMILIES.items()
    }
    told["log"] = {"": fields(LogConfig)}
    told["points"] = [
        kind for kind, entry in find_components(DataConfig, "poise.data").items() if issubclass(entry, ToyConfig)
    ]
    return told


def parts_text() -> str:
    """`parts.json`."""
    return json.dumps(all_parts(), indent=1, sort_keys=True) + "\n"


def may_move(annotation: Any) -> bool:
    """Whether a number over time (`poise.core.schedules.Scheduled`) fits this annotation, or a part of it."""
    if isinstance(annotation, type) and issubclass(annotation, Schedule):
        return True
    return any(may_move(part) for part in get_args(annotation))


def schedulable_fields() -> str:
    """The table of the fields that may be dials, as `docs/recipes.md` has it between `DIALS`."""
    lines = ["| where | kind | fields |", "|---|---|---|"]
    for base in dict.fromkeys(base for base, _ in FAMILIES.values()):
        places = [place for place, family in FAMILIES.items() if family[0] is base]
        for kind, entry in find_components(base, FAMILIES[places[0]][1]).items():
            found = [name for name, field in entry.model_fields.items() if may_move(field.annotation)]
            if found:
                where, names = (", ".join(f"`{one}`" for one in many) for many in (places, found))
                lines.append(f"| {where} | `{kind}` | {names} |")
    return "\n".join(lines)


SCHEDULABLE = (
    "<!-- fields that accept a schedule, written by python -m poise.tips.record -->",
    "<!-- end of the fields that accept a schedule -->",
)
"""The lines around `dials` in `docs/recipes.md`."""


def insert_schedulable_fields(text: str) -> str:
    """`docs/recipes.md`, with the table as it is now."""
    begin, end = SCHEDULABLE
    table = f"{begin}\n{schedulable_fields()}\n{end}"
    return re.sub(f"{re.escape(begin)}.*{re.escape(end)}", lambda _: table, text, flags=re.DOTALL)


INTRO = """\
# The tips

The advice of published lists of tips for GAN training, each as a switch of `poise train`. `poise tips` prints \
the list, one tip, or how a recipe relates to all of them:

```console
poise tips
poise tips soft-labels
poise tips --recipe ring
```

Below, each tip has a summary, the command that applies it to the default recipe, the parts of poise that \
implement it, the published evidence with its sources, and our own verdict. In a command `tricks+=[...]` adds to \
a recipe's tricks and `tricks=[...]` replaces them. Figures are those of the sources. Our verdicts are measured \
over paired seeds; a tip without one has not been measured. "ganhacks" is the list "How to Train a GAN? Tips and \
tricks to make GANs work", cited with the number of its item.

This page is generated by `python -m poise.tips.record` from `src/poise/tips/catalogue.toml`.
"""


def page() -> str:
    """`docs/tips.md`."""
    index = "\n".join(f"- [{tip.id} {tip.name}](#{tip.id.lower()}-{tip.name})" for tip in tips())
    return "\n".join([INTRO, index, *map(section, tips())])


def section(tip: Tip) -> str:
    """One tip of the page."""
    lines = [f"\n## {tip.id} {tip.name}\n", tip.summary.strip(), f"\n```text\npoise train {tip.switch}\n```\n"]
    if tip.parts:
        lines.append("Parts:\n")
    for part in tip.parts:
        options = ", ".join(f"{name} = {json.dumps(default)}" for name, default in part.fields.items())
        lines.append(f"- `{part.kind}` ({part.at}): {part.note} Switch: `{part.switch}`. Fields: {options or 'none'}.")
    lines.append("\nEvidence:\n" if tip.parts else "Evidence:\n")
    for one in tip.evidence:
        lines.append(f"- **{one.says}**: {one.words}")
    if tip.disagree:
        lines.append(f"- **sources disagree**: {tip.disagree}")
    lines.append(f"\nSources: {'; '.join(tip.source)}. Our verdict: {tip.verdict}.")
    return "\n".join(lines)


def main() -> None:
    """See the module."""
    docs = Path(sys.argv[1] if len(sys.argv) > 1 else "docs")
    write_text(Path(__file__).parent / "parts.json", parts_text())
    write_text(docs / "tips.md", page() + "\n")
    recipes = docs / "recipes.md"
    write_text(recipes, insert_schedulable_fields(recipes.read_text("utf-8")))


if __name__ == "__main__":
    main()
