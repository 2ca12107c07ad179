"""`poise export`: writes a run's generator as a file for other programs."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Literal

import typer

from poise.cli.options import Best, License, NoNoise, OneDirection, Raw, RunArgument, TrustCode
from poise.utils.printing import print_line

Format = Literal["safetensors", "onnx", "pt2"]


def export(
    run: RunArgument,
    form: Annotated[
        Format | None, typer.Option("--format", help="The format.", show_default="that of --out, or safetensors")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The file.", show_default="RUN/generator.FORMAT")] = None,
    raw: Raw = False,
    best: Best = False,
    no_noise: NoNoise = False,
    direction: OneDirection = None,
    license: License = None,
    trust_code: TrustCode = False,
) -> None:
    """Export the generator of a run, and check the file against PyTorch before it is written.

    `safetensors` has the weights and the recipe, for poise.load_generator. `onnx` is a graph for onnxruntime and other
    engines, `pt2` a torch.export program; both have a dynamic batch and, if G translates images of other sizes than
    those of the data, a dynamic height and width.
    """
    from poise.cli.files import (
        check_code_beside,
        check_license,
        check_run,
        check_writable,
        output_in_run,
        report_skipped_checkpoints,
    )

    check_run(run)
    suffix = "" if out is None else out.suffix.lower().removeprefix(".")
    forms = ("safetensors", "onnx", "pt2")
    name = form or (suffix if suffix in forms else forms[0])
    out = output_in_run(run, f"generator.{name}") if out is None else out
    check_writable(out, tuple(f".{one}" for one in ((form,) if form else forms)), "--out")
    check_license(license)

    from poise.export.comparison import BATCHES
    from poise.export.exporter import export_generator
    from poise.runs.run import Run
    from poise.utils.files import write_bytes

    opened = Run(run, trust_code=trust_code, best=best)
    done = export_generator(opened, name, raw=raw, no_noise=no_noise, license=license or "", direction=direction)
    report_skipped_checkpoints(opened)
    check_code_beside(out, done.code)
    for name, content in done.code.items():
        write_bytes(out.parent / name, content)
    write_bytes(out, done.data)
    for note in [*done.notes, *_code_note(out, done.code)]:
        print_line(f"note: {note}", err=True)
    batches = " and ".join(map(str, BATCHES)) + (" and two other image sizes" if done.description.sizes else "")
    sizes = f"; {done.description.sizes}" if done.description.sizes else ""
    way = {"a_to_b": "from a to b, ", "b_to_a": "from b to a, "}.get(done.description.direction, "")
    print_line(
        f"{out}: {way}{done.description.weights} weights of step {done.description.step:,}, inputs: "
        f"{', '.join(done.inputs)}{sizes}; with {done.engine}, the largest difference from PyTorch is "
        f"{done.comparison.difference:.2g} over batches of {batches} (limit {done.comparison.limit:.2g})",
        err=True,
    )


def _code_note(out: Path, code: Collection[str]) -> list[str]:
    """What a user must know about the Python files that were written beside the file; none if there are none."""
    if not code:
        return []
    files = ", ".join(str(out.parent / name) for name in code)
    return [f"the generator needs {files}, which must lie beside {out.name} wherever poise.load_generator reads it"]
