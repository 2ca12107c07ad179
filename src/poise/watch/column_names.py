"""The names of columns in other trainers' logs: which name means which metric."""

from __future__ import annotations

import re

SHORT_NAMES = {
    "d": "d/adversarial",
    "g": "g/adversarial",
    "accuracy": "d/accuracy",
    "d_norm": "d/grad_norm",
    "g_norm": "g/grad_norm",
    "real": "d/real_score",
    "fake": "d/fake_score",
    "r_t": "d/real_accuracy",
    "wasserstein": "d/wasserstein",
    "diversity": "g/diversity",
    "fid": "measure/fid",
    "kid": "measure/kid",
    "coverage": "measure/coverage",
}
"""The short names that `--columns` accepts beside the full names of metrics."""

_LOSS_FORMS = (
    "{s}loss",
    "loss{s}",
    "err{s}",
    "{s}err",
    "{s}errors",
    "{s}adversarial",
    "loss{s}loss",
    "{s}cost",
    "{n}loss",
    "loss{n}",
)
KNOWN_COLUMNS = {form.format(s="d", n="discriminator"): "d" for form in _LOSS_FORMS}
KNOWN_COLUMNS |= {form.format(s="g", n="generator"): "g" for form in _LOSS_FORMS}
KNOWN_COLUMNS |= {form.format(n=name): "d" for name in ("critic", "dis", "disc") for form in _LOSS_FORMS[-2:]}
KNOWN_COLUMNS |= {form.format(n="gen"): "g" for form in _LOSS_FORMS[-2:]}
KNOWN_COLUMNS |= {"closs": "d", "lossc": "d", "disccost": "d", "criticcost": "d"}
KNOWN_COLUMNS |= {"ggan": "g", "lossggan": "g", "gan": "g", "lggan": "g", "gencost": "g"}
KNOWN_COLUMNS |= {"daccuracy": "accuracy", "dacc": "accuracy", "accd": "accuracy"}
KNOWN_COLUMNS |= {"dgradnorm": "d_norm", "gradnormd": "d_norm", "ggradnorm": "g_norm", "gradnormg": "g_norm"}
KNOWN_COLUMNS |= {"wassersteindistance": "wasserstein", "wasserstein": "wasserstein", "wdistance": "wasserstein"}
KNOWN_COLUMNS |= {"wassersteind": "wasserstein"}
KNOWN_COLUMNS |= {"lossscoresreal": "real", "lossscoresfake": "fake", "losssignsreal": "r_t"}
"""The short name for each known column name, which is normalised to lower-case letters and digits."""

ADVERSARIAL_COLUMNS = {
    form.format(s=side): side
    for side in "dg"
    for form in ("{s}adv", "{s}advloss", "{s}lossadv", "adv{s}loss", "loss{s}adv")
}
"""Names of an adversarial loss alone, without a class loss or a penalty. They are preferred to those of a total."""

MEASURE = re.compile(
    r"(?:metrics?|results?|eval|val|valid|validation|test)*(fid|kid)(?:\d+k)?(?:full|scores?|val|valid|test)?"
)
"""The normalised names of measures: `fid`, `Metrics/fid50k_full`, `val_fid`, `FID score`."""

CLASS_LOSS = re.compile(
    r"(?:cls|class|classification|aux|auxiliary)(?:d|dis|real)?loss|lossd?(?:cls|class|aux)|d(?:loss)?(?:cls|aux)(?:loss)?"
)
"""The normalised names of a class loss, as of ACGAN."""

LETTER_COLUMNS = {"d": "d", "g": "g"}
"""One-letter names. They are losses if both are present and no other column is a loss."""

_PART_FORMS = (
    "{s}loss{p}",
    "{s}{p}loss",
    "loss{s}{p}",
    "{s}{p}",
    "err{s}{p}",
    "{p}{s}loss",
    "{s}losson{p}",
    "{n}loss{p}",
    "loss{p}{s}",
    "l{s}{p}",
)
PART_COLUMNS = {
    form.format(s="d", n="discriminator", p=part): ("d", origin)
    for form in _PART_FORMS
    for part, origin in (("real", "real"), ("fake", "fake"), ("r", "real"), ("f", "fake"))
    if len(part) > 1 or form in ("{s}loss{p}", "loss{s}{p}")
}
PART_COLUMNS |= {
    form.format(s=side, p=part): (side, part) for side in "dg" for part in "ab" for form in _PART_FORMS[:4]
}
"""The player and the part for each name of a partial loss: on real or fake samples, or of one of CycleGAN's pairs."""

BARE_PARTS = frozenset({"dreal", "dfake"})
"""Names such as `D_real`, which ESRGAN gives to scores. They are parts of D's loss if no other columns are."""

LOSS_PARTS = (("d", ("real", "fake")), ("d", ("a", "b")), ("g", ("a", "b")))
"""The parts whose mean is the loss of a player."""

STEP_COLUMNS = (
    "step",
    "globalstep",
    "iteration",
    "iterations",
    "iter",
    "iters",
    "itr",
    "niter",
    "batchesdone",
    "epochandbatch",
    "steps",
    "totalstep",
    "totalsteps",
    "trainstep",
    "trainingstep",
    "progresskimg",
    "kimg",
    "nimg",
    "curnimg",
    "tick",
)
BARE_STEP_COLUMNS = ("it", "batch")
"""Names that are the step only if they are the whole name: `sec/it` and `time per batch` are none."""

PER_STEP = re.compile(r"(s|secs?|seconds?|ms|min|it|imgs?|images|samples)(/| per )\w+", re.IGNORECASE)
"""Rates, which end with the name of a step: `sec/step`."""

EPOCH_COLUMNS = ("epoch", "epochs", "globalepoch")

SHORTENED = frozenset({*KNOWN_COLUMNS, *PART_COLUMNS, *ADVERSARIAL_COLUMNS, *STEP_COLUMNS, *EPOCH_COLUMNS})
"""The normalised names to which longer ones are shortened."""


def normalize_name(name: str) -> str:
    """The letters and digits of a name, in lower case."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def quantity_of(name: str) -> str | None:
    """The short name of the metric that a column holds, or None if the name is unknown.

    Of a path, the last component is looked up too; a prefix `train` and a suffix such as `epoch` or `mean` are ignored.
    Of validation columns only measures are interpreted, because their losses form a separate curve.
    """
    keys = keys_of(name)
    measure = next((match[1] for key in keys if (match := MEASURE.fullmatch(key))), None)
    if measure is not None or re.match(r"(val|valid|validation|test|eval)[_/ ]", name.lower()):
        return measure
    return next((KNOWN_COLUMNS[key] for key in keys if key in KNOWN_COLUMNS), None)


def keys_of(name: str) -> tuple[str, str]:
    """The normalised forms of a name under which it is looked up: the whole name, and the end of a path."""
    bare = re.sub(r"^(train|training)[_/ ]|[_/ ](step|epoch|mean|avg)$", "", name, flags=re.IGNORECASE)
    return normalize_name(bare), normalize_name(bare.rsplit("/", 1)[-1])


def is_step(name: str, key: str) -> bool:
    """Whether a name, or the end of a path, is that of a step: `trainer/global_step` for the key `globalstep`."""
    if normalize_name(name) == key:
        return True
    return key not in BARE_STEP_COLUMNS and PER_STEP.fullmatch(name) is None and path_end(name) == key


def path_end(name: str) -> str:
    """The last component of a path, normalised."""
    return normalize_name(name.rsplit("/", 1)[-1])


def is_known(name: str) -> bool:
    """Whether this is the name of a metric, a part of a loss, a step or an epoch."""
    return normalize_name(name) in SHORTENED or quantity_of(name) is not None


def shorten_name(name: str) -> str:
    """The end of a name of several words, if it is known: `d_loss` for `INFO epoch 3 d_loss`."""
    if name.startswith("val/"):
        return f"val/{shorten_name(name.removeprefix('val/'))}"
    words = name.split()
    if words and words[0].lower() == "best":  # of an earlier step
        return name
    ends = [" ".join(words[start:]) for start in range(len(words))]
    known = (end.lstrip("- ") for end in ends if is_known(end))
    return next(known, ends[0] if ends else name)
