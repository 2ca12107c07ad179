"""The report of a study, as a self-contained HTML file and as Markdown, made from its records without torch."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Container, Iterator
from pathlib import Path

from poise.errors import RecipeError
from poise.recipe.toml import to_toml
from poise.report.document import ReportSection
from poise.report.render import html, markdown
from poise.study import report_tables as tables
from poise.study.records import StudyBase
from poise.study.report_images import ImageFiles, curve_sections, forest_section, sample_section
from poise.study.summary import StudyResults
from poise.utils.files import make_folder, write_folder, write_text
from poise.utils.printing import agree, count_noun
from poise.utils.system import disk_errors

IMAGES = "report"
"""The folder with the images of `report.md`."""

SUFFIXES = (".svg", ".png")
"""The suffixes of these images."""

EFFECTS = (
    "An effect is the difference of the interquartile means over paired seeds, in per cent of the mean without the tip "
    "where that makes sense, and its interval of 95 % is a BCa bootstrap over the pairs. It is the change of the "
    "measure, so its sign alone does not say whether it is an improvement. The p-values of the tips on the same base "
    "and measure are adjusted by the method of Benjamini and Hochberg. A run without a value counts with the worst one "
    "that any run of its base had. Where fewer than half of the seeds have a value, with the tip or without it, no "
    "effect is given, and failures alone decide. The cost ratio is CPU time per image "
    "with the tip divided by that without it, the median over the seeds."
)


def write_report(results: StudyResults, out: Path, runs: Path, plan: str = "") -> Path:
    """Write `report.html`, `report.md` and the images of the latter in `report/`.

    Args:
        results: the study, its results and its effects.
        out: the folder, which is created if it does not exist.
        runs: the folder of the run folders, for the sample grids; need not exist.
        plan: the text of `plan.toml`, which the report quotes.

    Returns:
        The path of `report.html`.

    Raises:
        RecipeError: `report/` has files that no report has written.
        DiskError: a file can't be written.
    """
    images = ImageFiles(out / IMAGES)
    sections = [section for section in report_sections(results, images, runs, plan) if not _is_empty(section)]
    _refuse_other_files(out / IMAGES, images.files)
    page = out / "report.html"
    with disk_errors(out):
        make_folder(out)
        write_text(out / "report.md", markdown(sections, out))  # first: it marks the folder as that of a report
        write_folder(out / IMAGES, images.files)
        write_text(page, html(sections))  # last: it contains the images, and takes the longest
    return page


def _refuse_other_files(folder: Path, images: Container[str]) -> None:
    """Refuse a folder that is not one of images of a report, because it is replaced as a whole.

    It is one if it lies beside a report, or if all of its files have names of this report's images, as a report has
    left them that was interrupted before it wrote anything else.
    """
    entries = list(folder.iterdir()) if folder.is_dir() else [folder] if folder.exists() else []
    has_report = folder.with_name("report.md").is_file()
    for entry in entries:
        is_image = entry.suffix in SUFFIXES if has_report else entry.name in images
        if not entry.is_file() or not is_image:
            what = f"'{IMAGES}' has something in it that is not of a report, and would be replaced"
            raise RecipeError(what, where="--out", found=str(entry), cure="choose another folder, or move it away")


def report_sections(results: StudyResults, images: ImageFiles, runs: Path, plan: str) -> Iterator[ReportSection]:
    """The sections of the report; those that have nothing to say are empty.

    Args:
        results: the study, its results and its effects.
        images: gets the images.
        runs: the folder of the run folders.
        plan: the text of `plan.toml`.
    """
    yield _summary(results)
    if results.study.comparisons:
        yield from _verdicts(results)
        yield forest_section(results, images)
        yield _agreement(results)
        yield _too_few_seeds(results)
    yield _values(results)
    yield from curve_sections(results, images)
    yield from sample_section(results, images, runs)
    yield from _failures(results)
    yield _changes(results)
    yield from _reproduction(results, plan)


def _is_empty(section: ReportSection) -> bool:
    return not (section.paragraphs or len(section.table) > 1 or section.images or section.code)


def _summary(results: StudyResults) -> ReportSection:
    return ReportSection(
        f"Study: {results.study.name}",
        [
            _counts(results),
            *([f"Verdicts: {_verdict_counts(results)}."] if results.study.comparisons else []),
            *(_base_sentences(results, base) for base in results.study.bases),
            *tables.unmeasured(results),
            _versions(results),
            *([EFFECTS] if results.study.comparisons else []),
        ],
    )


def _counts(results: StudyResults) -> str:
    study, states = results.study, results.states()
    failed = {state: n for state, n in states.items() if state not in ("done", "missing") and n}
    reasons = f" ({', '.join(f'{n:,} {state}' for state, n in failed.items())})" if failed else ""
    seeds = sorted({len(arm.runs) for arm in study.arms})
    span = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}" if seeds else "0"
    return (
        f"{count_noun(results.num_planned, 'run')}: {states['done']:,} trained to the end, "
        f"{sum(failed.values()):,} not{reasons}, "
        f"{states['missing']:,} missing. {count_noun(len(study.arms), 'arm')} on "
        f"{count_noun(len(study.bases), 'base')} with {span} {agree(max(seeds, default=0), 'seed', 'seeds')} each, "
        f"for {count_noun(len(study.comparisons), 'comparison')}."
    )


def _verdict_counts(results: StudyResults) -> str:
    counts = Counter(effect.verdict for effect in results.effects)
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in tables.TONES)


def _base_sentences(results: StudyResults, base: StudyBase) -> str:
    images = sorted({arm.images for arm in results.study.arms if arm.base == base.name})
    budget = f"{images[0]:,}" if len(images) == 1 else f"{images[0]:,} to {images[-1]:,}" if images else "no"
    limits = [
        f"{measure.name} {'above' if measure.better == 'less' else 'below'} {measure.failure:g}"
        for measure in base.measures
        if measure.failure is not None
    ]
    failure = f" A run that ends with {' or '.join(limits)} counts as failed." if limits else ""
    effects = [effect for effect in results.effects if effect.base == base.name and effect.seeds]
    if effects and all(min(effect.failures, effect.control_failures) == effect.seeds for effect in effects):
        ended = any(
            run.state == "done"
            for arm in results.study.arms
            if arm.base == base.name
            for run in results.of(arm).values()
        )
        failure += " All runs did: the limit may be wrong." if ended else " No run was trained to the end."
    summary = f"{base.summary.rstrip('.')}. " if base.summary else ""
    measures = ", ".join(f"{measure.name} ({measure.better} is better)" for measure in base.measures)
    return f"{base.name}: {summary}Each run sees {budget} real images. Measures: {measures}.{failure}"


def _versions(results: StudyResults) -> str:
    """The versions and settings of all runs; of the dates, the first and the last."""
    versions = [result.versions for result in results.results.values()]
    parts = []
    for key in dict.fromkeys(key for one in versions for key in one):
        values = sorted({one.get(key, "unknown") for one in versions})
        shown = [values[0], values[-1]] if key == "date" and len(values) > 1 else values
        parts.append(f"{key} {(' to ' if key == 'date' else ', ').join(shown)}")
    return f"Versions and settings of the runs: {'; '.join(parts)}." if parts else "No run has a result yet."


def _verdicts(results: StudyResults) -> Iterator[ReportSection]:
    yield ReportSection("Verdicts", table=list(tables.overview_table(results.effects, results.study.bases)))
    for base, measure, effects in results.groups():
        costs = {effect.name: results.cost_ratio(results.comparison(effect)) for effect in effects}
        heading = f"{base.name}: effects on {measure} ({effects[0].better} is better)"
        yield ReportSection(heading, table=list(tables.effect_table(effects, costs)), level=3)
    yield ReportSection(
        "All numbers",
        [
            "In the units of the measures. Means are interquartile means. A failure rate is the share of the seeds, "
            "with a Clopper-Pearson interval. A detectable effect is the smallest that would have been seen in four of "
            "five studies of this size."
        ],
        table=list(tables.detail_table(results.effects)),
        level=3,
        folded=True,
    )


def _agreement(results: StudyResults) -> ReportSection:
    effects = [effect for effect in results.effects if effect.expected]
    counts = Counter(effect.agreement for effect in effects)
    text = (
        f"Verdicts that agree with the published direction: {counts['agrees']} of {len(effects)}; that disagree: "
        f"{counts['disagrees']}; open, because an effect was expected and none was seen, or because there were too few "
        f"seeds: {counts['open']}."
    )
    table = list(tables.agreement_table(effects))
    return ReportSection("Agreement with the literature", [text] if effects else [], table)


def _too_few_seeds(results: StudyResults) -> ReportSection:
    few = [effect for effect in results.effects if tables.reason_for_seeds(effect)]
    rule = (
        "More seeds are needed if there are fewer than 6 pairs, if no effect was seen although the interval does not "
        "contain zero, or if the study may have missed an effect of 20 % of the control."
    )
    return ReportSection(
        "Where seeds were too few",
        [f"{len(few)} of {count_noun(len(results.effects), 'effect')}. {rule}"],
        list(tables.seeds_table(few)) if few else [],
    )


def _values(results: StudyResults) -> ReportSection:
    text = (
        "The median over the seeds, with the smallest and the largest value, of the runs that were trained to the end."
    )
    return ReportSection(
        "Final values", [text], list(tables.value_table(results)), folded=bool(results.study.comparisons)
    )


def _failures(results: StudyResults) -> Iterator[ReportSection]:
    failed, missing = list(tables.failure_table(results)), list(tables.missing_table(results))
    text = (
        "These runs were not trained to the end." if len(failed) > 1 else "All finished runs were trained to the end."
    )
    limit = " Runs that ended beyond the failure limit of their base are counted in the tables of effects."
    has_limit = any(measure.failure is not None for base in results.study.bases for measure in base.measures)
    yield ReportSection("Failed runs", [text + (limit if has_limit else "")], failed if len(failed) > 1 else [])
    yield ReportSection("Missing runs", ["These runs have no result yet."] if len(missing) > 1 else [], missing)


def _changes(results: StudyResults) -> ReportSection:
    table = list(tables.changes_table(results))
    text = (
        "These runs changed their recipes on the advice of alarms (monitor.policy), so their arms differ in more than "
        "the plan says."
    )
    return ReportSection("Changed recipes", [text] if len(table) > 1 else [], table)


def _reproduction(results: StudyResults, plan: str) -> Iterator[ReportSection]:
    folder = shlex.quote(f"runs/{results.study.name}")
    bases = [base for base in results.study.bases if base.recipe]
    known = "; those of this study are below:" if bases else ", which may differ from those of this study:"
    yield ReportSection(
        "Reproduction",
        [
            "The plan is the file plan.toml in the folder of the study. There, these commands repeat the study, with "
            "the same data and the options --data-root, --device and --trust-code that it was started with, if any. "
            "They train the recipes that the version of poise has that runs them" + known
        ],
        code=f"poise study plan.toml --out {folder}\npoise report {folder}",
    )
    for base in bases:
        yield ReportSection(f"{base.name}: the recipe", code=to_toml(base.recipe).rstrip("\n"), level=3, folded=True)
    yield ReportSection("plan.toml", code=plan.rstrip("\n"), level=3, folded=True)
    yield ReportSection("Arms", table=list(tables.arm_table(results)), level=3, folded=True)
