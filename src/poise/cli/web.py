"""`poise web`: serves the live page of the runs in a folder. It imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from poise.cli import completion
from poise.utils.printing import print_line

DEFAULT = Path("runs")


def web(
    folder: Annotated[
        Path | None,
        typer.Argument(
            help="A folder with run folders in it, up to three levels below; it need not exist yet. Or the URL of one "
            "in an object store.",
            metavar="DIR",
            show_default="runs",
            autocompletion=completion.paths,
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="The port; 0 for any free one.", show_default="8765, or any free one"),
    ] = None,
    playground: Annotated[
        bool,
        typer.Option("--playground", help="Let the page train small GANs on 2-D points, in DIR/playground."),
    ] = False,
) -> None:
    """Show the runs in a folder on a web page, live and after they have ended; Ctrl-C stops the server."""
    from poise.errors import RecipeError
    from poise.runs.remote_runs import open_remote_runs
    from poise.utils.paths import refuse_url, url_of, without_login
    from poise.web.mirror import MirrorRefresher
    from poise.web.server import Server, open_socket

    root = DEFAULT if folder is None else folder
    if playground:
        refuse_url(root, "--playground")
    if (url := url_of(root)) is not None:
        print_line(f"reading {without_login(url)} ...", err=True)
    remote = open_remote_runs(root)
    root = root if remote is None else remote.local
    if root.exists() and not root.is_dir():
        raise RecipeError("not a folder", where=str(root), cure="give the folder that contains the runs")
    if not root.is_dir():
        print_line(f"{root} does not exist yet: the page shows runs as soon as there are any", err=True)
    played = None
    if playground:
        from poise.web.playground import Playground

        played = Playground(root)
    mirror = None if remote is None else MirrorRefresher(remote, lambda line: print_line(line, err=True))
    server = Server(root, open_socket(port), played, mirror)
    print_line(server.address)
    server.serve_until_stopped()
