"""`poise push`: writes a model repository with a card to a folder, or uploads it."""

from __future__ import annotations

from typing import Annotated

import typer

from poise.cli.options import Best, DataRoot, License, MovedData, NoNoise, OneDirection, Raw, RunArgument, TrustCode
from poise.utils.printing import print_line


def push(
    run: RunArgument,
    target: Annotated[
        str,
        typer.Argument(
            metavar="REPO_OR_DIR",
            help="OWNER/NAME on huggingface.co, or a folder: ./DIR, an absolute path, or one that exists.",
        ),
    ],
    license: License = None,
    onnx: Annotated[
        bool | None,
        typer.Option(
            "--onnx/--no-onnx", help="Whether to add an ONNX file.", show_default="if its packages are installed"
        ),
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    raw: Raw = False,
    best: Best = False,
    no_noise: NoNoise = False,
    direction: OneDirection = None,
    data: MovedData = None,
    data_root: DataRoot = None,
    trust_code: TrustCode = False,
) -> None:
    """Write a model repository: the generator, a model card with samples and measures, and the recipe.

    A folder is written at once or not at all, and replaced only if it was written by this command.
    """
    from poise.cli.files import check_license, check_run, read_moved_data, report_skipped_checkpoints

    check_run(run)
    check_license(license)

    from poise.export.formats import missing_packages, require_packages
    from poise.export.hub import check_repository_name, hub_api, upload_repository
    from poise.export.repository import build_repository, check_folder, local_folder, write_repository
    from poise.runs.run import Run

    folder, api = local_folder(target), None
    if folder is not None:
        check_folder(folder)
    else:
        check_repository_name(target)
        api = hub_api()
    if onnx:
        require_packages("onnx")
    optional = ["onnx"] if onnx is None and not missing_packages("onnx") else []
    opened = Run(run, trust_code=trust_code, best=best)
    read_moved_data(opened, data, data_root)
    built = build_repository(
        opened,
        ["safetensors", *(["onnx"] if onnx else optional)],
        optional=optional,
        raw=raw,
        no_noise=no_noise,
        license=license or "",
        direction=direction,
    )
    report_skipped_checkpoints(opened)
    for note in built.notes:
        print_line(f"note: {note}", err=True)
    for name, difference in built.differences.items():
        print_line(f"{name}: the largest difference from PyTorch is {difference:.2g}", err=True)
    if folder is not None:
        write_repository(built, folder)
    where = folder if api is None else upload_repository(built.contents, target, api, private=private)
    print_line(f"{where}: {', '.join(sorted(built.contents))}", err=True)
    if not license:
        print_line("note: the card names no licence; state it with --license", err=True)
