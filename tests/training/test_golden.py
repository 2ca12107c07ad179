"""Two golden runs: the first 20 rows are what they were, to the bit on the same machine kind, to 1e-3 elsewhere.

A change that is meant to change them is recorded by `python tests/training/test_golden.py`, and its commit says why.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from poise.recipe.read import decode
from poise.recipe.shipped import table
from poise.recipe.text import set_value
from poise.training.begin import train

GOLDEN = Path(__file__).parents[1] / "golden"
CHANGES = {
    "ring": [],
    "dcgan": ["data.size=16", "network.g.width=8", "network.d.width=8", "batch=16"],
}


def rows(name: str, out: Path) -> list[dict[str, float]]:
    """Each step's row, on one thread."""
    recipe = table(name)
    for change in [*CHANGES[name], "steps=20", "log.rows=1", "log.samples=20", "log.saves=20", "log.sheet=4"]:
        set_value(recipe, change)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        run = train(decode(recipe), out, device="cpu", precision="fp32")
    finally:
        torch.set_num_threads(threads)
    return [{k: v["mean"] for k, v in row["stats"].items() if not k.startswith("time/")} for row in run.rows]


def kind_of_machine() -> dict[str, str]:
    """What exact repetition depends on: torch, threads, and every instruction set kernels may be chosen by."""
    abilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    sets = " ".join(sorted(name for name, has in abilities.items() if has is True))
    return {
        "torch": torch.__version__.split("+")[0],
        "threads": "1",
        "capability": torch.backends.cpu.get_cpu_capability(),
        "instructions": hashlib.sha256(sets.encode()).hexdigest()[:16],
    }


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_golden(name: str, tmp_path: Path, record_property: Any, capsys: pytest.CaptureFixture[str]) -> None:
    golden = json.loads((GOLDEN / f"{name}.json").read_text())
    seen = rows(name, tmp_path / "run")
    assert len(seen) == 20
    exact = golden["machine"] == kind_of_machine()
    checked = "to the bit" if exact else "to 1e-3: another torch, thread count or CPU"
    record_property("checked", checked)
    with capsys.disabled():
        print(f"golden {name}: checked {checked}")
    if exact:
        assert seen == golden["rows"]
        return
    for step, (now, then) in enumerate(zip(seen, golden["rows"], strict=True)):
        assert now.keys() == then.keys()
        for quantity in now:
            assert now[quantity] == pytest.approx(then[quantity], rel=1e-3, abs=1e-3), f"{quantity} at row {step}"


if __name__ == "__main__":
    from tempfile import TemporaryDirectory

    for name in CHANGES:
        with TemporaryDirectory() as folder:
            written = {"machine": kind_of_machine(), "rows": rows(name, Path(folder) / "run")}
        (GOLDEN / f"{name}.json").write_text(json.dumps(written, indent=1) + "\n")
