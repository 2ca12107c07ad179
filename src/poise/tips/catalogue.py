"""The catalogue in memory: the tips, the components that implement them, and the search for a tip."""

from __future__ import annotations

import difflib
import json
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from poise.core.config import SYNONYMS
from poise.errors import RecipeError
from poise.tips.verdicts import NOT_MEASURED, Verdict, leading, leading_arm, published, short_text

Fields = dict[str, Any]
"""The fields of a component with their defaults; None for an optional field."""

REQUIRED = "(required)"
"""Shown in place of the default of a required field."""


@dataclass(frozen=True)
class Evidence:
    """One piece of published evidence.

    Attributes:
        says: whether it is for or against the tip; `open` if there is no evidence or it is disputed.
        text: the finding, with its numbers.
        source: where it was published.
    """

    says: Literal["for", "against", "open"]
    text: str
    source: str = ""

    @property
    def cited_text(self) -> str:
        """The text, followed by the source in brackets."""
        return f"{self.text} ({self.source})" if self.source else self.text


@dataclass(frozen=True)
class TipPart:
    """A component of poise that implements a tip.

    Attributes:
        at: its place in a recipe: "tricks", "network.d", ...
        kind: its kind.
        switch: the options of `poise train` that enable it.
        note: how it differs from the other parts of the tip.
    """

    at: str
    kind: str
    switch: str
    note: str

    @property
    def fields(self) -> Fields:
        """Its fields with their defaults."""
        return parts()[self.at][self.kind]


@dataclass(frozen=True)
class Tip:
    """One tip of the published lists.

    Attributes:
        id: its number in the catalogue, such as T07a.
        name: its name, such as soft-labels.
        summary: what it advises and how poise implements it.
        switch: the options of `poise train` that apply it to the default recipe.
        source: where it was published.
        evidence: the published evidence.
        verdicts: what was measured here, in the order of the studies and their plans.
        disagree: how the sources disagree, if they do.
        parts: the components that implement it.
    """

    id: str
    name: str
    summary: str
    switch: str
    source: tuple[str, ...]
    evidence: tuple[Evidence, ...]
    verdicts: tuple[Verdict, ...] = ()
    disagree: str = ""
    parts: tuple[TipPart, ...] = ()

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of its parts."""
        return tuple(part.kind for part in self.parts)

    @property
    def verdict(self) -> str:
        """The verdicts in one line: one per data set, that of the most widely measured arm on the first measure."""
        texts = " · ".join(map(short_text, leading(self.verdicts)))
        return f"{leading_arm(self.verdicts)}: {texts}" if texts else NOT_MEASURED

    def as_json(self) -> dict[str, Any]:
        """The entry that `poise tips --json` prints."""
        evidence: list[dict[str, str]] = [vars(item) for item in self.evidence]
        if self.disagree:
            evidence.append({"says": "disagree", "text": self.disagree, "source": ""})
        entry: dict[str, Any] = {"id": self.id, "name": self.name, "summary": self.summary, "switch": self.switch}
        entry["options"] = [
            {"at": p.at, "kind": p.kind, "switch": p.switch, "note": p.note, "fields": p.fields} for p in self.parts
        ]
        verdicts = [verdict.model_dump(mode="json") | {"stale": verdict.stale_note} for verdict in self.verdicts]
        return entry | {"source": list(self.source), "evidence": evidence, "verdicts": verdicts}


@cache
def parts() -> dict[str, dict[str, Fields]]:
    """The fields and their defaults of every component, by place in a recipe and kind."""
    return json.loads((files("poise.tips") / "parts.json").read_text("utf-8"))


@cache
def tips() -> tuple[Tip, ...]:
    """All tips, in the order of the lists."""
    document = tomllib.loads((files("poise.tips") / "catalogue.toml").read_text("utf-8"))
    return tuple(_parse_tip(table) for table in document["tip"])


def _parse_tip(table: dict[str, Any]) -> Tip:
    table = dict(table)
    tip_parts = tuple(TipPart(**part) for part in table.pop("part", ()))
    evidence = tuple(Evidence(**item) for item in table.pop("evidence"))
    source, verdicts = tuple(table.pop("source")), published().get(table["id"], ())
    return Tip(**table, source=source, evidence=evidence, verdicts=verdicts, parts=tip_parts)


def find(query: str) -> tuple[Tip, ...]:
    """The tips with a given id (T07 stands for T07a and T07b), name, or kind of a part, or a usual word for that kind.

    Raises:
        RecipeError: there is none; the error names the closest match.
    """
    key = query.strip().lower().replace("_", "-")
    for matches in (
        lambda tip: tip.id.lower() == key or tip.name == key,
        lambda tip: tip.id[-1].isalpha() and tip.id.lower()[:-1] == key,
        lambda tip: key in {kind.replace("_", "-") for kind in tip.kinds},
        lambda tip: SYNONYMS.get(key.replace("-", "_")) in tip.kinds,
    ):
        found = tuple(tip for tip in tips() if matches(tip))
        if found:
            return found
    names = [name for tip in tips() for name in (tip.id, tip.name, *(kind.replace("_", "-") for kind in tip.kinds))]
    close = difflib.get_close_matches(key, names, n=1)
    cure = f"did you mean '{close[0]}'?" if close else "poise tips lists them"
    raise RecipeError("no such tip", where="TIP", found=f"'{query}'", cure=cure)
