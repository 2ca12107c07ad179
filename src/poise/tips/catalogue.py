"""The catalogue as it is read: tips, the parts that belong to them, and how one is found."""

from __future__ import annotations

import difflib
import json
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from poise.errors import RecipeError

Fields = dict[str, Any]
"""A part's fields with their defaults; None for a field that may be left out."""

REQUIRED = "(required)"
"""Stands for the default of a field that has none."""


@dataclass(frozen=True)
class Evidence:
    """One thing that is known, with its figure and source; `open`: that nothing is known, or that it is disputed."""

    says: Literal["for", "against", "open"]
    text: str
    source: str = ""

    @property
    def words(self) -> str:
        """What is known, and the source in brackets."""
        return f"{self.text} ({self.source})" if self.source else self.text


@dataclass(frozen=True)
class TipPart:
    """A part of poise that belongs to a tip.

    Attributes:
        at: where it stands in a recipe: "tricks", "network.d", ...
        kind: its kind there.
        switch: the words after `poise train` that switch it on.
        note: what tells it from the others.
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
    """One tip of the lists. `verdicts` are our own measurements; there are none yet."""

    id: str
    name: str
    summary: str
    switch: str
    source: tuple[str, ...]
    evidence: tuple[Evidence, ...]
    verdicts: tuple[dict[str, Any], ...] = ()
    disagree: str = ""
    parts: tuple[TipPart, ...] = ()

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of its parts."""
        return tuple(part.kind for part in self.parts)

    @property
    def verdict(self) -> str:
        """What we measured ourselves, in words."""
        return "; ".join(str(one["text"]) for one in self.verdicts) or "not measured yet"

    def as_json(self) -> dict[str, Any]:
        """As `poise tips --json` prints it."""
        evidence: list[dict[str, str]] = [vars(one) for one in self.evidence]
        if self.disagree:
            evidence.append({"says": "disagree", "text": self.disagree, "source": ""})
        told: dict[str, Any] = {"id": self.id, "name": self.name, "summary": self.summary, "switch": self.switch}
        told["options"] = [
            {"at": p.at, "kind": p.kind, "switch": p.switch, "note": p.note, "fields": p.fields} for p in self.parts
        ]
        return told | {"source": list(self.source), "evidence": evidence, "verdicts": list(self.verdicts)}


@cache
def parts() -> dict[str, dict[str, Fields]]:
    """Every kind that a recipe knows, by its place, with its fields and their defaults."""
    return json.loads((files("poise.tips") / "parts.json").read_text("utf-8"))


@cache
def tips() -> tuple[Tip, ...]:
    """All tips, in the lists' order."""
    told = tomllib.loads((files("poise.tips") / "catalogue.toml").read_text("utf-8"))
    return tuple(_read(table) for table in told["tip"])


def _read(table: dict[str, Any]) -> Tip:
    table = dict(table)
    made = tuple(TipPart(**part) for part in table.pop("part", ()))
    evidence = tuple(Evidence(**one) for one in table.pop("evidence"))
    source, verdicts = tuple(table.pop("source")), tuple(table.pop("verdicts"))
    return Tip(**table, source=source, evidence=evidence, verdicts=verdicts, parts=made)


def find(word: str) -> tuple[Tip, ...]:
    """The tips called `word`: by id (T07 is T07a and T07b), by name, or by the kind of one of their parts.

    Raises:
        RecipeError: there is none; names the nearest.
    """
    plain = word.strip().lower().replace("_", "-")
    for fits in (
        lambda tip: tip.id.lower() == plain or tip.name == plain,
        lambda tip: tip.id[-1].isalpha() and tip.id.lower()[:-1] == plain,
        lambda tip: plain in {kind.replace("_", "-") for kind in tip.kinds},
    ):
        found = tuple(tip for tip in tips() if fits(tip))
        if found:
            return found
    words = [w for tip in tips() for w in (tip.id, tip.name, *(kind.replace("_", "-") for kind in tip.kinds))]
    close = difflib.get_close_matches(plain, words, n=1)
    cure = f"did you mean '{close[0]}'?" if close else "poise tips lists them"
    raise RecipeError("no tip of that name", where="TIP", found=f"'{word}'", cure=cure)
