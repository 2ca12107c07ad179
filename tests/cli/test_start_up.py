"""What a command imports before it starts its work: time to the first step and to the first sample is mostly imports.

Not timed, as other work on the machine would decide; the modules are listed instead. `torch._dynamo` alone is a third
of the time to the first step, and PyTorch imports it at the first call of an optimiser, unless it is called as `Eager`
does.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

NEVER = {"torch._dynamo", "torchvision", "pandas", "scipy", "sklearn", "matplotlib", "torch_fidelity", "sympy"}
RECORDS = {"tensorboard", "torch.utils.tensorboard"}

SAMPLE = """
import sys
from poise.cli import main
try:
    main(sys.argv[2:])
except SystemExit as left:
    assert not left.code, left.code
print(*sorted(set(sys.argv[1].split(",")) & set(sys.modules)), "imported")
"""

TRAIN = """
import sys
from poise.training import state
step = state.TrainState.step
def first(self):
    step(self)
    print(*sorted(set(sys.argv[1].split(",")) & set(sys.modules)), "imported", flush=True)
    raise KeyboardInterrupt
state.TrainState.step = first
from poise.cli import main
main(sys.argv[2:])
"""


def imported(script: str, unwanted: set[str], *words: object) -> list[str]:
    """Which of the unwanted modules a command imported, in a process of its own."""
    outcome = [sys.executable, "-c", script, ",".join(unwanted), *map(str, words)]
    done = subprocess.run(outcome, capture_output=True, text=True, timeout=120)
    result = [line for line in done.stdout.splitlines() if line.endswith("imported")]
    assert result, done.stderr
    return result[0].split()[:-1]


def test_sampling_imports_no_compiler_and_no_library_for_other_work(digits_run: Path, tmp_path: Path) -> None:
    words = ["sample", digits_run, "--n", 4, "--out", tmp_path / "sheet.png"]
    assert imported(SAMPLE, NEVER | RECORDS, *words) == []
    assert (tmp_path / "sheet.png").is_file()


def test_training_imports_no_more_than_its_first_step_needs(tmp_path: Path) -> None:
    small = ["--set", "network.g.width=4", "--set", "network.d.width=4", "--set", "batch=4"]
    assert imported(TRAIN, NEVER, "train", "--out", tmp_path / "run", *small) == []
