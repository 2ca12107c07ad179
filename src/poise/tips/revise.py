"""Records that a source file was changed without changing what it computes, so that verdicts on it stay current.

    python -m poise.tips.revise FILE... --reason TEXT

FILE is relative to the package, such as `latents.py`. Do this only if golden runs and the tests of the component show
it, and if nothing that a study has used behaves differently.
"""

from __future__ import annotations

import argparse

from poise.errors import PoiseError, RecipeError
from poise.tips.verdicts import PACKAGE, REVISIONS, Revision, equivalent_hashes, file_hash, published, revisions
from poise.utils.files import write_text
from poise.utils.printing import print_error, print_line


def revise(file: str, reason: str, known: tuple[Revision, ...]) -> tuple[Revision, ...]:
    """The revisions of a changed file: one for each of the versions that verdicts were measured with.

    Raises:
        RecipeError: no verdict depends on the file, or it has not changed.
    """
    verdicts = [verdict for group in published().values() for verdict in group]
    parts = {part for verdict in verdicts for part in verdict.components.values() if part.file == file}
    if not parts:
        raise RecipeError("no verdict depends on this file", where="FILE", found=f"'{file}'")
    current = file_hash(PACKAGE / file)
    stale = [part for part in parts if current not in equivalent_hashes(part, known)]
    if not stale:
        raise RecipeError("has not changed since", where="FILE", found=f"'{file}'")
    return tuple(
        Revision(file=file, old=old, new=current, reason=reason) for old in sorted({part.sha256 for part in stale})
    )


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--reason", required=True)
    arguments = parser.parse_args()
    known = revisions()
    try:
        for file in arguments.files:
            known += revise(file, arguments.reason, known)
    except PoiseError as error:
        print_error(str(error))
        raise SystemExit(error.exit_code) from None
    write_text(PACKAGE / "tips" / "revisions.json", REVISIONS.dump_json(known, indent=1).decode() + "\n")
    print_line(f"recorded: {', '.join(arguments.files)}")


if __name__ == "__main__":
    main()
