"""The networks `stylegan2` and `biggan` beside their authors' code, with equal weights and inputs; minutes on one core.

    python benchmarks/parity.py --stylegan2 DIR --biggan DIR
    python benchmarks/parity.py --stylegan2 DIR --quick             (the smallest size in float64)

DIR is a checkout of the authors' repository, NVlabs/stylegan2-ada-pytorch (commit d72cc7d) or ajbrock/BigGAN-PyTorch
(commit 9845943); poise contains nothing of either. The environment variables POISE_STYLEGAN2 and POISE_BIGGAN are the
defaults, for `make parity`. At least one checkout is needed; its code is imported, so use the authors' own.

Both networks are built on the CPU, where the authors' StyleGAN2 uses its reference operations. Ours are initialised,
all tensors of their state are moved away from simple initial values, and the authors' networks get the same state. Each
line of the table is a quantity, the largest absolute difference, and the largest absolute value in the authors' result.
The gradients are those of all weights that correspond; "the loss" is that of G, of which D is a part.
`_parity_stylegan2.py` and `_parity_biggan.py` say what is compared, and which names and shapes correspond.

The exit code is 1 if a difference exceeds the tolerance, a share of the largest value, and 2 without a checkout.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from _parity_authors import BIGGAN_FILE, STYLEGAN2_FILE, biggan_networks, stylegan2_networks
from _parity_biggan import SIZES as BIGGAN_SIZES
from _parity_biggan import compare_biggan
from _parity_pairs import Comparison, UnknownCheckoutError
from _parity_stylegan2 import SIZES as STYLEGAN2_SIZES
from _parity_stylegan2 import compare_stylegan2

TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-3}
"""The largest difference that is allowed, as a share of the largest value.

float64 decides. In float32 batch norm magnifies rounding errors, and an activation near 0 may change its sign: BigGAN's
images and gradients differ between the two codes about as much as ours do between float32 and float64.
"""


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Set PyTorch's default dtype, in which networks are built and the authors' code draws noise, for a while."""
    previous = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(previous)


def report(family: str, side: int, comparisons: Iterable[Comparison]) -> list[str]:
    """Print the comparisons of one size, in the default dtype; return a line for each difference that is too large."""
    dtype = torch.get_default_dtype()
    name, failures = str(dtype).removeprefix("torch."), []
    for one in comparisons:
        line = f"{family:<10}{side:>4}  {name}  {one.quantity:<40}{one.difference:9.1e} of {one.largest:8.3g}"
        print(line, flush=True)
        if not one.agrees(TOLERANCES[dtype]):
            failures.append(f"{line}, tolerance {TOLERANCES[dtype] * one.largest:.1e}")
    return failures


def run(stylegan2: Path | None, biggan: Path | None, *, quick: bool) -> list[str]:
    """Compare what is given, print all results, and return a line for each difference that is too large."""
    failures = []
    for dtype in list(TOLERANCES)[: 1 if quick else None]:
        with default_dtype(dtype):
            for size in STYLEGAN2_SIZES[: 1 if quick else None] if stylegan2 else ():
                with stylegan2_networks(stylegan2, dtype) as authors:
                    results = compare_stylegan2(authors, size)
                failures += report("stylegan2", size.side, results)
            for size in BIGGAN_SIZES[: 1 if quick else None] if biggan else ():
                with biggan_networks(biggan) as authors:
                    results = compare_biggan(authors, size)
                failures += report("biggan", size.side, results)
    return failures


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description="Our StyleGAN2 and BigGAN beside their authors' code.")
    for family, repository in (("stylegan2", "NVlabs/stylegan2-ada-pytorch"), ("biggan", "ajbrock/BigGAN-PyTorch")):
        default = os.environ.get(f"POISE_{family.upper()}") or None
        parser.add_argument(f"--{family}", type=Path, metavar="DIR", default=default, help=f"checkout of {repository}")
    parser.add_argument("--quick", action="store_true", help="the smallest size of each, in float64 only")
    args = parser.parse_args()
    if not args.stylegan2 and not args.biggan:
        parser.error("a checkout of the authors' code is needed: --stylegan2 DIR or --biggan DIR, or both")
    for folder, file in ((args.stylegan2, STYLEGAN2_FILE), (args.biggan, BIGGAN_FILE)):
        if folder and not (folder / file).is_file():
            parser.error(f"{folder} is not the checkout that is needed: it has no file {file}")
    torch.set_num_threads(1)
    try:
        failures = run(args.stylegan2, args.biggan, quick=args.quick)
    except UnknownCheckoutError as error:
        parser.error(f"this is not the commit that is needed: {error}")
    for failure in failures:
        print(f"too different: {failure}", file=sys.stderr)
    if failures:
        sys.exit(1)
    tolerances = ", ".join(f"{share:g} in {str(dtype).removeprefix('torch.')}" for dtype, share in TOLERANCES.items())
    print(f"\nall differences are within the tolerance, a share of the largest value: {tolerances}")


if __name__ == "__main__":
    main()
