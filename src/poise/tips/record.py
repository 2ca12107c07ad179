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

from poise.data.source import DataEntry, ToyEntry
from poise.dials import Scheduled
from poise.entries import Part, kinds
from poise.files import write_text
from poise.latents import Latent
from poise.networks.base import Discriminator, Encoder, Generator
from poise.networks.conditioning import DiscriminatorLabels, GeneratorLabels
from poise.objectives.base import Objective
from poise.optimizers import OptimizerEntry
from poise.recipe.model import Log
from poise.tempo import TempoEntry
from poise.tips.catalogue import REQUIRED, Fields, Tip, tips
from poise.tricks.base import TrickEntry

FAMILIES: dict[str, tuple[type[Part], str]] = {
    "data": (DataEntry, "poise.data"),
    "latent": (Latent, "poise.latents"),
    "network.g": (Generator, "poise.networks"),
    "network.d": (Discriminator, "poise.networks"),
    "network.e": (Encoder, "poise.networks"),
    "conditioning.g": (GeneratorLabels, "poise.networks"),
    "conditioning.d": (DiscriminatorLabels, "poise.networks"),
    "objective": (Objective, "poise.objectives"),
    "optimizer.g": (OptimizerEntry, "poise.optimizers"),
    "optimizer.d": (OptimizerEntry, "poise.optimizers"),
    "tempo": (TempoEntry, "poise.tempo"),
    "tricks": (TrickEntry, "poise.tricks"),
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
        place: {kind: fields(entry) for kind, entry in kinds(base, package).items()}
        for place, (base, package) in FAMILIES.items()
    }
    told["log"] = {"": fields(Log)}
    told["points"] = [kind for kind, entry in kinds(DataEntry, "poise.data").items() if issubclass(entry, ToyEntry)]
    return told


def parts_text() -> str:
    """`parts.json`."""
    return json.dumps(all_parts(), indent=1, sort_keys=True) + "\n"


def may_move(annotation: Any) -> bool:
    """Whether a number over time (`poise.dials.Scheduled`) fits this annotation, or a part of it."""
    if isinstance(annotation, type) and issubclass(annotation, Scheduled):
        return True
    return any(may_move(part) for part in get_args(annotation))


def dials() -> str:
    """The table of the fields that may be dials, as `docs/recipes.md` has it between `DIALS`."""
    lines = ["| where | kind | fields |", "|---|---|---|"]
    for base in dict.fromkeys(base for base, _ in FAMILIES.values()):
        places = [place for place, family in FAMILIES.items() if family[0] is base]
        for kind, entry in kinds(base, FAMILIES[places[0]][1]).items():
            found = [name for name, field in entry.model_fields.items() if may_move(field.annotation)]
            if found:
                where, names = (", ".join(f"`{one}`" for one in many) for many in (places, found))
                lines.append(f"| {where} | `{kind}` | {names} |")
    return "\n".join(lines)


DIALS = "<!-- fields that may be dials, written by python -m poise.tips.record -->", "<!-- end of these fields -->"
"""The lines around `dials` in `docs/recipes.md`."""


def with_dials(text: str) -> str:
    """`docs/recipes.md`, with the table as it is now."""
    begin, end = DIALS
    table = f"{begin}\n{dials()}\n{end}"
    return re.sub(f"{re.escape(begin)}.*{re.escape(end)}", lambda _: table, text, flags=re.DOTALL)


INTRO = """\
# The tips

What the lists of "tips and tricks to make GANs work" advise, as switches. `poise tips` prints this list, `poise tips \
soft-labels` one of them, `poise tips --recipe ring` what a recipe makes of them. The words in each box stand behind \
`poise train` and act on the default recipe; `tricks+=[...]` adds to a recipe's tricks, `tricks=[...]` replaces them. \
Figures are their sources' own. Our own verdicts are measured over paired seeds: an empty place is one \
that nobody has measured here.

This page is written by `python -m poise.tips.record`; the facts are in `src/poise/tips/catalogue.toml`.
"""


def page() -> str:
    """`docs/tips.md`."""
    index = "\n".join(f"- [{tip.id} {tip.name}](#{tip.id.lower()}-{tip.name})" for tip in tips())
    return "\n".join([INTRO, index, *map(section, tips())])


def section(tip: Tip) -> str:
    """One tip of the page."""
    lines = [f"\n## {tip.id} {tip.name}\n", tip.summary.strip(), f"\n```text\npoise train {tip.switch}\n```\n"]
    for part in tip.parts:
        options = ", ".join(f"{name} = {json.dumps(default)}" for name, default in part.fields.items())
        lines.append(f"- `{part.kind}` ({part.at}): {part.note} Switch: `{part.switch}`. Fields: {options or 'none'}.")
    lines += [""] if tip.parts else []
    for one in tip.evidence:
        lines.append(f"- {one.says}: {one.words}")
    if tip.disagree:
        lines.append(f"- where sources disagree: {tip.disagree}")
    lines.append(f"\nSources: {'; '.join(tip.source)}. Our verdict: {tip.verdict}.")
    return "\n".join(lines)


def main() -> None:
    """See the module."""
    docs = Path(sys.argv[1] if len(sys.argv) > 1 else "docs")
    write_text(Path(__file__).parent / "parts.json", parts_text())
    write_text(docs / "tips.md", page() + "\n")
    recipes = docs / "recipes.md"
    write_text(recipes, with_dials(recipes.read_text("utf-8")))


if __name__ == "__main__":
    main()
