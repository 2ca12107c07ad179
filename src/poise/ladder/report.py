"""The report of a ladder: one self-contained HTML file and its Markdown twin, from run folders alone, without torch."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from poise.ladder.findings import compare_rungs
from poise.ladder.read import Rung, read_rungs
from poise.utils.files import write_bytes, write_text
from poise.utils.plotting import as_png, new_figure
from poise.utils.printing import count_noun

MEASURES = {
    "fid": "FID",
    "coverage": "coverage",
    "precision": "precision",
    "recall": "recall",
    "class_balance": "class balance",
    "high_frequencies": "high frequencies",
    "reconstruction": "rebuilding error",
    "pca_reconstruction": "of PCA",
    "elbo": "ELBO, nats",
    "elbo_reconstruction": "of it, rebuilding",
    "elbo_kl": "of it, KL",
}
FAR = 1.25
"""How many times as long codes are than latents, or the other way round, for that to be spoken of."""

COLOURS = {"autoencoder": "#8a6d3b", "vae": "#2b6cb0", "gan": "#d9622b", "vae-gan": "#2f855a"}


class ReportImage(NamedTuple):
    """A picture and what is under it."""

    path: Path
    caption: str


class ReportSection(NamedTuple):
    """A section of the report: a heading, sentences, then a table (its head first) or pictures side by side."""

    heading: str
    paragraphs: Sequence[str] = ()
    table: Sequence[Sequence[str]] = ()
    images: Sequence[ReportImage] = ()


def write_report(out: Path, names: list[str]) -> Path:
    """Write `report.html` and `report.md` into the ladder's folder; gives the first one's path.

    Raises:
        CheckpointError: a rung is missing, or was not looked at.
        DiskError: a file can't be written.
    """
    rungs = read_rungs(out, names)
    _curves(rungs, out / "spectrum.png")
    parts = list(_parts(rungs, out))
    write_text(out / "report.md", markdown(parts, out))
    write_text(out / "report.html", html(parts))
    return out / "report.html"


def _parts(rungs: list[Rung], out: Path) -> Iterator[ReportSection]:
    first = rungs[0]
    recipe, data = first.recipe, first.info["data"]
    pictures = recipe["steps"] * recipe["batch"]
    yield ReportSection(
        "The ladder",
        [
            f"Data: {data['kind']}, {count_noun(data['count'], 'picture')} of {'x'.join(map(str, data['shape']))}. "
            f"Decoder: '{recipe['network']['g']['kind']}' with {count_noun(first.info['parameters']['g'], 'weight')} "
            f"and {count_noun(recipe['latent']['dim'], 'latent')}, the same in all rungs, with equal initial weights. "
            f"Budget: {count_noun(recipe['steps'], 'step')} of {recipe['batch']}, {count_noun(pictures, 'picture')}. "
            f"Seed {recipe['seed']}.",
            "One seed shows what differs, not how certain that is.",
        ],
    )
    yield ReportSection(
        "What there is to see",
        [
            f"{'As told' if one.confirmed else 'NOT as told'}: {one.expected}. {one.found}."
            for one in compare_rungs(rungs)
        ],
    )
    yield ReportSection(
        "Measures",
        [
            f"Of {first.results['n']:,} samples against as many held-out pictures, by {first.results['features']}. "
            "Floor: real pictures against real ones. Rebuilding error: mean squared, per number, in [-1, 1].",
        ],
        table=list(_table(rungs)),
    )
    yield ReportSection("Samples", _on_samples(rungs), images=_sheets(rungs, "samples", "latents from the prior"))
    fitted = _sheets(rungs, "fitted", "latents from a Gaussian fitted to the codes")
    if fitted:
        yield ReportSection("Samples from where the codes lie", _on_codes(rungs), images=fitted)
    yield ReportSection(
        "Rebuilt",
        ["Rows by turns: held-out pictures, and what is made of their codes. A GAN has no codes."],
        images=_sheets(rungs, "rebuilt", "real above rebuilt"),
    )
    for path, words in (("lerp", "By line"), ("slerp", "By great circle")):
        yield ReportSection(
            f"Walks: {words.lower()}",
            ["From the code of one training picture to another's; the GAN's walks are between latents."],
            images=_sheets(rungs, path, words.lower()),
        )
    yield ReportSection(
        "Blur",
        [
            "A squared error asks for the mean of all pictures that could be meant, and a mean of edges in slightly "
            "different places is a soft edge. What is lost is power at high frequencies: below 1 is blur, above it "
            "noise. A discriminator takes soft edges for what they are: fake.",
        ],
        images=[ReportImage(out / "spectrum.png", "power of samples over that of real pictures, by frequency")],
    )
    yield ReportSection("Cost and repeating", [], table=list(_costs(rungs)))


def _table(rungs: list[Rung]) -> Iterator[list[str]]:
    columns = [(rung, "measures", rung.name) for rung in rungs]
    columns[1:1] = [(rung, "fitted", f"{rung.name}, fitted codes") for rung in rungs[:1] if "fitted" in rung.results]
    floors = {name: told["floor"] for name, told in rungs[0].results["measures"].items()}
    yield ["", *(title for _, _, title in columns), "floor"]
    for name, title in MEASURES.items():
        values = [rung.value(name, group) for rung, group, _ in columns]
        if any(value is not None for value in values):
            yield [title, *("" if value is None else f"{value:.4g}" for value in values), _figure(floors.get(name))]


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _on_samples(rungs: list[Rung]) -> list[str]:
    codes = rungs[0].results.get("codes")
    if codes is None:
        return []
    away = max(codes["length"], codes["prior_length"]) > FAR * min(codes["length"], codes["prior_length"])
    asked = ", so the decoder is asked about places it has never been to" if away else ""
    return [
        "Why the autoencoder's look as they do: nobody asked its codes to lie where latents are drawn. A training "
        f"picture's code is {codes['length']:.3g} long, a latent {codes['prior_length']:.3g}{asked}. The VAE's KL pays "
        "for keeping codes at the prior."
    ]


def _on_codes(rungs: list[Rung]) -> list[str]:
    codes = rungs[0].results.get("codes")
    if codes is None:
        return []
    low, middle, high = codes["std"]
    return [
        f"The autoencoder's codes have standard deviations of {low:.3g} to {high:.3g} (median {middle:.3g}). Drawing "
        "from a Gaussian with their mean and covariance brings the decoder back to familiar ground; what is still "
        "wrong is that the codes are no Gaussian: between the classes there are places where nothing was ever put."
    ]


def _sheets(rungs: list[Rung], name: str, caption: str) -> list[ReportImage]:
    return [ReportImage(path, f"{rung.name}: {caption}") for rung in rungs if (path := rung.image(name)) is not None]


def _costs(rungs: list[Rung]) -> Iterator[list[str]]:
    yield ["", "seconds", "weights", "alarms", "recipe", "save"]
    for rung in rungs:
        sizes = ", ".join(f"{name} {count:,}" for name, count in rung.info["parameters"].items())
        alarms = ", ".join(sorted({alarm["detector"] for alarm in rung.alarms})) or "none"
        hashed, step = rung.info["recipe"], rung.results["step"]
        yield [rung.name, f"{rung.info['seconds']:,.0f}", sizes, alarms, hashed, f"step {step:,}"]


def _curves(rungs: list[Rung], path: Path) -> None:
    figure = new_figure(8, 3.6, dpi=120, layout="constrained")
    axes = figure.subplots()
    for rung in rungs:
        real = rung.results["spectrum"]["real"]
        for name, style in (("samples", "-"), ("fitted", ":")):
            curve = rung.results["spectrum"].get(name)
            if curve is None or (name == "fitted" and rung is not rungs[0]):
                continue
            ratio = [max(fake, 1e-12) / max(true, 1e-12) for fake, true in zip(curve, real, strict=True)]
            label = rung.name if name == "samples" else f"{rung.name}, fitted codes"
            axes.plot(range(1, len(ratio)), ratio[1:], style, color=COLOURS.get(rung.name), label=label, linewidth=1.6)
    axes.axhline(1, color="black", linestyle="--", linewidth=0.8, label="real pictures")
    axes.set_yscale("log")
    axes.set(xlabel="waves per picture", ylabel="power over that of reals")
    axes.legend(frameon=False, fontsize=8)
    write_bytes(path, as_png(figure))


def markdown(parts: Sequence[ReportSection], out: Path) -> str:
    """The report as Markdown; pictures by their paths from `out`."""
    lines: list[str] = []
    for number, part in enumerate(parts):
        lines += [f"{'#' if number == 0 else '##'} {part.heading}", ""]
        lines += [line for words in part.paragraphs for line in (words, "")]
        if part.table:
            head, *rows = part.table
            lines += ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)] + [""]
        for picture in part.images:
            lines += [f"![{picture.caption}]({picture.path.relative_to(out).as_posix()})", ""]
    return "\n".join(lines)


STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.55 system-ui, sans-serif; max-width: 76rem; margin: 2.5rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.9rem; margin-bottom: .4rem; } h2 { margin-top: 2.4rem; font-size: 1.25rem; }
p { max-width: 46rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .8rem; text-align: right; border-bottom: 1px solid #8884; }
th:first-child, td:first-child { text-align: left; }
.row { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 30rem), 1fr)); gap: 1.2rem; }
figure { margin: 0; } img { width: 100%; image-rendering: pixelated; }
figure.wide img { image-rendering: auto; background: white; }
figcaption { font-size: .85rem; opacity: .75; }
"""


def html(parts: Sequence[ReportSection]) -> str:
    """The report as one HTML file with its pictures inside."""
    body: list[str] = []
    for number, part in enumerate(parts):
        level = 1 if number == 0 else 2
        body.append(f"<h{level}>{escape(part.heading)}</h{level}>")
        body += [f"<p>{escape(words)}</p>" for words in part.paragraphs]
        if part.table:
            body.append(_html_table(part.table))
        if part.images:
            body.append('<div class="row">' + "".join(map(_html_picture, part.images)) + "</div>")
    title = escape(parts[0].heading)
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<style>{STYLE}</style></head>\n<body>\n'
        + "\n".join(body)
        + ("\n</body></html>\n")
    )


def _html_table(table: Sequence[Sequence[str]]) -> str:
    head, *rows = table

    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return "<table>" + line(head, "th") + "".join(line(row, "td") for row in rows) + "</table>"


def _html_picture(picture: ReportImage) -> str:
    inside = base64.b64encode(picture.path.read_bytes()).decode()
    wide = ' class="wide"' if picture.path.name == "spectrum.png" else ""
    shown = f'<img alt="{escape(picture.caption)}" src="data:image/png;base64,{inside}">'
    return f"<figure{wide}>{shown}<figcaption>{escape(picture.caption)}</figcaption></figure>"
