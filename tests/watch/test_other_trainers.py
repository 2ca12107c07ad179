"""Tests of reading the logs of other trainers: an excerpt of each, and the formats of text."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from poise.errors import DataError, RecipeError
from poise.watch.columns import parse_columns
from poise.watch.logs import Log, read_log
from poise.watch.replay import replay
from poise.watch.text_tables import read_text

D, G, ACCURACY = "d/adversarial", "g/adversarial", "d/accuracy"


def written(folder: Path, text: str | bytes, name: str = "train.log") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def curves(log: Log) -> dict[str, list[float]]:
    """The values of each metric, in order."""
    found: dict[str, list[float]] = {}
    for _, numbers in log.rows:
        for name, stat in numbers.items():
            found.setdefault(name, []).append(stat.mean)
    return found


def steps(log: Log) -> list[int]:
    return [step for step, _ in log.rows]


class Trainer(NamedTuple):
    """The line format of one trainer. D's losses are 0.5, 0.25 and 0.125, G's losses 1, 2 and 4."""

    name: str
    line: str
    step: int | None
    note: str = ""


VALUES = [(0, 0.5, 1.0), (1, 0.25, 2.0), (2, 0.125, 4.0)]
MEAN_D = "D's loss is taken to be the mean of "
TRAINERS = {
    "PyTorch-GAN": Trainer("gan.log", "[Epoch 0/200] [Batch {i}/938] [D loss: {d:f}] [G loss: {g:f}]", None),
    "Keras-GAN": Trainer("keras.log", "{i} [D loss: {d:f}, acc.: 51.56%] [G loss: {g:f}]", None),
    "yunjey's tutorial": Trainer(
        "y.log", "Epoch [0/200], Step [{i}/600], d_loss: {d:.4f}, g_loss: {g:.4f}, D(x): 0.99, D(G(z)): 0.01", None
    ),
    "StyleGAN2-ADA": Trainer(
        "stats.jsonl",
        '{{"Loss/D/loss": {{"num": 64, "mean": {d}, "std": 0.1}}, "Loss/G/loss": {{"num": 64, "mean": {g}, '
        '"std": 0.1}}, "Progress/kimg": {{"num": 1, "mean": {i}.0, "std": 0.0}}}}',
        1,
    ),
    "BigGAN-PyTorch": Trainer(
        "big.log",
        "{i}/15313 ( 0.01%) (TE/ETC: 0:01) itr: {i}, G_loss : {g:+4.3f}, D_loss_real : {d:+4.3f}, "
        "D_loss_fake : {d:+4.3f}",
        1,
        MEAN_D + "D_loss_real and D_loss_fake",
    ),
    "pix2pix": Trainer(
        "loss_log.txt",
        "(epoch: 1, iters: {i}, time: 0.172, data: 0.331) G_GAN: {g:.3f} G_L1: 12.370 D_real: {d:.3f} D_fake: {d:.3f} ",
        1,
        MEAN_D + "D_real and D_fake",
    ),
    "CycleGAN": Trainer(
        "loss_log.txt",
        "(epoch: 1, iters: {i}, time: 0.3, data: 0.2) D_A: {d:.3f} G_A: {g:.3f} cycle_A: 2.1 idt_A: 0.9 D_B: {d:.3f} "
        "G_B: {g:.3f} cycle_B: 1.9 idt_B: 1.1",
        1,
        MEAN_D + "D_A and D_B",
    ),
    "mimicry": Trainer(
        "mimicry.log",
        "INFO: [Epoch 1/256][Global Step: {i}/100000] | D(G(z)): 0.4 | D(x): 0.6 | errD: {d:.4f} | errG: {g:.4f} | "
        "lr_D: 0.0002 | (0.1 sec/idx)",
        1,
    ),
    "rosinality's StyleGAN2": Trainer(
        "bar.log",
        "d: {d:.4f}; g: {g:.4f}; r1: 0.0100; path: 0.0000; mean path: 0.0000; augment: 0.0000",
        None,
        "the columns D and G are taken to be the losses of D and G",
    ),
    "Keras' fit": Trainer("fit.log", "938/938 [=====] - 41s 41ms/step - d_loss: {d:.4f} - g_loss: {g:.4f}", None),
    "Lightning's CSV": Trainer("metrics.csv", "{d},,0,{i}\n,{g},0,{i}", 1),
    "a printed dictionary": Trainer("dict.log", "{{'step': {i}, 'd_loss': {d}, 'g_loss': {g}}}", 1),
    "a dictionary of tensors": Trainer(
        "dict.log", "{{'d_loss': tensor({d}, device='cuda:0', grad_fn=<AddBackward0>), 'g_loss': tensor({g})}}", None
    ),
    "NumPy's scalars": Trainer("np.log", "step={i} d_loss=np.float32({d}) g_loss=array({g}, dtype=float32)", 1),
    "TensorFlow's scalars": Trainer(
        "tf.log",
        "d_loss: tf.Tensor({d}, shape=(), dtype=float32), g_loss: <tf.Tensor: shape=(), dtype=float32, numpy={g}>",
        None,
    ),
    "a dictionary behind a logger's head": Trainer(
        "json.log", '[2024-01-01 10:00:00,123][INFO] {{"iter": {i}, "loss_D": {d}, "loss_G": {g}}}', 1
    ),
    "two parts in a CSV": Trainer("parts.csv", "{i},{d},{d},{g}", 1, MEAN_D + "d_loss_real and d_loss_fake"),
    "train/ in the names": Trainer("names.csv", "{i},9.5,{d},{g}", 1),
}
SUMS = {"yunjey's tutorial", "mimicry", "rosinality's StyleGAN2"}
WHOLE_SQUARES = {"CycleGAN"}
HEADS = {
    "Lightning's CSV": "d_loss_step,g_loss_step,epoch,step\n",
    "two parts in a CSV": "step,d_loss_real,d_loss_fake,g_loss\n",
    "train/ in the names": "step,val/d_loss,train/d_loss,train/g_loss\n",
}


@pytest.mark.parametrize("name", TRAINERS)
def test_the_losses_of_a_trainer(name: str, tmp_path: Path) -> None:
    trainer = TRAINERS[name]
    text = HEADS.get(name, "") + "".join(trainer.line.format(i=i, d=d, g=g) + "\n" for i, d, g in VALUES)
    log = read_log(written(tmp_path, text, trainer.name))
    found = curves(log)
    scale = 0.5 if "halved" in " ".join(log.notes) else 1.0
    assert found[D] == [scale * loss for loss in (0.5, 0.25, 0.125)]
    assert found[G] == [(scale if name in WHOLE_SQUARES else 1.0) * loss for loss in (1.0, 2.0, 4.0)]
    assert set(found) == {D, G}
    assert (scale == 0.5) == (name in SUMS | WHOLE_SQUARES)
    if name != "Lightning's CSV":
        assert steps(log) == [i * trainer.step for i, _, _ in VALUES] if trainer.step else [1, 2, 3]
    notes = [note for note in log.notes if "halved" not in note]
    assert notes == [note for note in [trainer.note] if note] + (
        ["G's loss is taken to be the mean of G_A and G_B"] if name == "CycleGAN" else []
    )


# ---- formats of text -----------------------------------------------------------------------------------

LINES = "".join(f"step {i}: d_loss: {0.5 + i / 8}, g_loss: 2.0\n" for i in range(5))
TABLE = "step,d_loss,g_loss\n" + "".join(f"{i},{0.5 + i / 8},2.0\n" for i in range(5))
FORMS: dict[str, Callable[[str], bytes]] = {
    "UTF-8 with a byte order mark": lambda text: text.encode("utf-8-sig"),
    "UTF-16 as PowerShell writes it": lambda text: text.replace("\n", "\r\n").encode("utf-16"),
    "UTF-16, big-endian": lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
    "UTF-16 without a byte order mark": lambda text: text.encode("utf-16-le"),
    "UTF-32": lambda text: text.encode("utf-32"),
    "Latin-1": lambda text: f"# générateur\n{text}".encode("latin-1") if text is LINES else text.encode("latin-1"),
    "UTF-16 with an incomplete character": lambda text: text.encode("utf-16") + b"\x31",
    "half in UTF-16 (>> in PowerShell)": lambda text: text[:40].encode() + text[40:].encode("utf-16-le"),
    "Windows line endings": lambda text: text.replace("\n", "\r\n").encode(),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("text", "name"), [(LINES, "a.log"), (TABLE, "a.csv")], ids=["lines", "table"])
def test_encodings(form: str, text: str, name: str, tmp_path: Path) -> None:
    found = curves(read_log(written(tmp_path, FORMS[form](text), name)))
    assert found[D] == [0.5, 0.625, 0.75, 0.875, 1.0]
    assert found[G] == [2.0] * 5


@pytest.mark.parametrize(
    "line",
    [
        "\x1b[32mstep {i}\x1b[0m d_loss: \x1b[1;31m{d}\x1b[0m g_loss: \x1b[38;5;12m2.0\x1b[m",
        "\x1b]0;training\x07d_loss: {d}\x1b[K g_loss: 2.0",
        "\x1b]8;;http://x/?loss_D=9\x1b\\run\x1b]8;;\x1b\\ d_loss=\x1b[4m{d}\x1b[24m, g_loss=2.0\x1b[1A",
    ],
    ids=["colours", "title", "link"],
)
def test_terminal_escape_sequences_are_removed(line: str, tmp_path: Path) -> None:
    text = "".join(line.format(i=i, d=0.5 + i / 8) + "\n" for i in range(5))
    assert curves(read_log(written(tmp_path, text))) == {D: [0.5, 0.625, 0.75, 0.875, 1.0], G: [2.0] * 5}


def bar(epoch: int, *, end: str = "\n", back: str = "\r") -> str:
    """The progress bar of one epoch, in four states; the last one counts."""
    states = (f"{25 * k:3d}%|##  | {k}/4 [00:01<00:03, d_loss={epoch + k / 8}, g_loss=2.0]" for k in range(1, 5))
    return back + back.join(states) + end


@pytest.mark.parametrize("back", ["\r", "\x08" * 60], ids=["carriage return", "backspaces"])
def test_the_last_state_of_a_progress_bar_counts(back: str, tmp_path: Path) -> None:
    text = "".join(bar(epoch, back=back) for epoch in range(5))
    assert curves(read_log(written(tmp_path, text)))[D] == [0.5, 1.5, 2.5, 3.5, 4.5]
    text = "".join(bar(epoch, end="\r\n") for epoch in range(5))
    assert len(read_log(written(tmp_path, text)).rows) == 5


def test_every_state_counts_if_the_log_is_one_progress_bar(tmp_path: Path) -> None:
    text = "".join(f"\r{i}/100 d: {0.5 + i / 8}; g: 2.0; r1: 0.1" for i in range(100)) + "\n"
    assert curves(read_log(written(tmp_path, text)))[D] == [0.5 + i / 8 for i in range(100)]


ROWS = [{"step": 10 * i, "d_loss": 0.5 + i / 8, "g_loss": 2.0} for i in range(5)]
DOCUMENTS = {
    "an array": json.dumps(ROWS),
    "an array, printed": json.dumps(ROWS, indent=2),
    "an array with a row per line": "[" + ",\n".join(map(json.dumps, ROWS)) + "]",
    "an unterminated array": "[" + ",\n".join(map(json.dumps, ROWS)) + ",\n",
    "rows in an entry": json.dumps({"args": {"lr": 1e-4}, "log_history": ROWS}),
    "columns": json.dumps({name: [row[name] for row in ROWS] for name in ROWS[0]}),
    "columns in an entry": json.dumps({"history": {name: [row[name] for row in ROWS] for name in ROWS[0]}}),
    "a row per line": "\n".join(map(json.dumps, ROWS)),
    "a row per line, separated by commas": ",\n".join(map(json.dumps, ROWS)),
}


@pytest.mark.parametrize("name", ["log.json", "log.jsonl", "log.txt"])
@pytest.mark.parametrize("form", DOCUMENTS)
def test_json(form: str, name: str, tmp_path: Path) -> None:
    log = read_log(written(tmp_path, DOCUMENTS[form], name))
    assert curves(log) == {D: [0.5, 0.625, 0.75, 0.875, 1.0], G: [2.0] * 5}
    assert steps(log) == [0, 10, 20, 30, 40]


@pytest.mark.parametrize(
    ("name", "text", "noted"),
    [
        ("a.log", "iter: {step:,} d_loss: {d} g_loss: 2.0\n", False),
        ("a.csv", '"{step:,}",{d},2.0\n', False),
        ("b.csv", "{step:,};{d};2.0\n", False),
        ("b.log", "iter: {step} d_loss: {comma} g_loss: 2,0\n", True),
        ("c.csv", "{step};{comma};2,0\n", True),
    ],
    ids=["grouped", "grouped in a CSV", "grouped by semicolons", "decimal commas", "decimal commas in a CSV"],
)
def test_commas_in_numbers(name: str, text: str, noted: bool, tmp_path: Path) -> None:
    head = {"a.csv": "iter,d_loss,g_loss\n", "b.csv": "iter;d_loss;g_loss\n", "c.csv": "iter;d_loss;g_loss\n"}
    rows = [(1000 * i + 500, 0.5 + i / 8) for i in range(4)]
    body = "".join(text.format(step=step, d=d, comma=str(d).replace(".", ",")) for step, d in rows)
    log = read_log(written(tmp_path, head.get(name, "") + body, name))
    assert steps(log) == [500, 1500, 2500, 3500]
    assert curves(log) == {D: [0.5, 0.625, 0.75, 0.875], G: [2.0] * 4}
    assert bool(log.notes) == noted


@pytest.mark.parametrize(
    "body", [b"", b"\xff\xfe", b"\0" * 300, b"\x89PNG\r\n\x1a\n\0\0\x01", b"[", b"{", b"[1, 2]", b"{}", b"null"]
)
@pytest.mark.parametrize("name", ["a.log", "a.csv", "a.json"])
def test_files_without_numbers_are_refused(name: str, body: bytes, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no line contains a number"):
        read_log(written(tmp_path, body, name))


def test_a_cell_larger_than_the_csv_limit(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a readable table"):
        read_log(written(tmp_path, "d_loss,note\n0.5," + "x" * 200_000 + "\n", "a.csv"))


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "long", ["word and more ", "tensor(", "tensor(1,", "<tf.Tensor: ", "1,234,", "\x1b]", "()", "a"], ids=repr
)
def test_the_time_is_linear_in_the_length_of_a_line(long: str, tmp_path: Path) -> None:
    text = "tensor(1," + long * (300_000 // len(long)) + "\n[D loss: 0.5] [G loss: 2.0]\n"
    assert curves(read_log(written(tmp_path, text))) == {D: [0.5], G: [2.0]}


def test_text_without_a_byte_order_mark(tmp_path: Path) -> None:
    assert read_text(written(tmp_path, "grün: 1\n")) == "grün: 1\n"


# ---- accuracy in per cent --------------------------------------------------------------------------------

PERCENT = [48.44, 51.56, 53.12, 54.69]


@pytest.mark.parametrize(
    ("name", "text", "columns"),
    [
        ("a.csv", "d_loss,D_acc\n" + "".join(f"0.7,{p}\n" for p in PERCENT), ""),
        ("a.csv", "d_loss,D_acc\n" + "".join(f"0.7,{p}%\n" for p in PERCENT), ""),
        ("a.csv", "d_loss,D_acc (%)\n" + "".join(f"0.7,{p}\n" for p in PERCENT), "accuracy=D_acc (%)"),
        ("a.csv", "d_loss,acc\n" + "".join(f"0.7,{p}\n" for p in PERCENT), "accuracy=acc%"),
        ("a.log", "".join(f"[D loss: 0.7, acc.: {p}%]\n" for p in PERCENT), "accuracy=acc."),
        ("a.log", "".join(f"D loss: 0.7 D_acc: {p} %\n" for p in PERCENT), ""),
    ],
    ids=["clear", "signs in cells", "a sign in the name", "requested", "signs in lines", "signs after a blank"],
)
def test_per_cent(name: str, text: str, columns: str, tmp_path: Path) -> None:
    log = read_log(written(tmp_path, text, name), parse_columns(columns))
    assert curves(log)[ACCURACY] == pytest.approx([p / 100 for p in PERCENT])
    assert [note for note in log.notes if "per cent" in note]


def test_small_numbers_with_a_sign_are_per_cent(tmp_path: Path) -> None:
    log = read_log(written(tmp_path, "D loss: 0.7 D_acc: 0.5%\n"))
    assert curves(log)[ACCURACY] == [0.005]


@pytest.mark.parametrize("cells", ["0.5 1.0 0.25", "1 0 1", "0 0 0"])
def test_fractions_are_unchanged(cells: str, tmp_path: Path) -> None:
    log = read_log(written(tmp_path, "d_loss,D_acc\n" + "".join(f"0.7,{c}\n" for c in cells.split()), "a.csv"))
    assert curves(log)[ACCURACY] == [float(c) for c in cells.split()]
    assert log.notes == ()


@pytest.mark.parametrize("cells", ["30 64 33", "1.5 0.5", "150 90", "-3 50", "2 1"])
def test_unclear_accuracy_is_ignored_or_refused(cells: str, tmp_path: Path) -> None:
    """The numbers may be counts, such as 32 images of 64."""
    text = "d_loss,D_acc\n" + "".join(f"0.7,{c}\n" for c in cells.split())
    log = read_log(written(tmp_path, text, "a.csv"))
    assert ACCURACY not in curves(log)
    assert "D_acc is neither a fraction between 0 and 1 nor clearly per cent" in log.notes[0]
    assert "--columns accuracy=D_acc%" in log.notes[0]
    with pytest.raises(RecipeError, match="neither a fraction"):
        read_log(written(tmp_path, text, "a.csv"), {"accuracy": "D_acc"})


# ---- D's loss in parts, or missing -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("real", "fake"),
    [
        ("D_loss_real", "D_loss_fake"),
        ("D_real", "D_fake"),
        ("d_real_loss", "d_fake_loss"),
        ("loss_D_real", "loss_D_fake"),
        ("Loss/D_real", "Loss/D_fake"),
        ("errD_real", "errD_fake"),
        ("real_d_loss", "fake_d_loss"),
        ("discriminator_loss_real", "discriminator_loss_fake"),
        ("D loss real", "D loss fake"),
        ("d_loss_r", "d_loss_f"),
        ("D_A", "D_B"),
        ("loss_D_A", "loss_D_B"),
    ],
    ids=str,
)
def test_ds_loss_is_the_mean_of_its_parts(real: str, fake: str, tmp_path: Path) -> None:
    path = written(tmp_path, f"{real},{fake},g_loss\n0.5,0.25,1\n0.5,,1\n1,0,1\n", "a.csv")
    log = read_log(path)
    assert curves(log)[D] == [0.375, 0.5]
    assert list(log.notes) == [f"D's loss is taken to be the mean of {real} and {fake}"]
    total = read_log(written(tmp_path, f"{real},{fake},d_loss\n0.5,0.25,3\n", "b.csv"))
    assert (curves(total), total.notes) == ({D: [3.0]}, ())
    requested = read_log(path, parse_columns(f"d={real}"))
    assert (curves(requested)[D], requested.notes) == ([0.5, 0.5, 1.0], ())


SCATTERED = [(50 * i, {"d_loss_real": 0.5 + i / 8, "d_loss_fake": 1.0 + i / 8, "g_loss": 2.0}) for i in range(1, 6)]
"""The step and the metrics of logs in which each metric has a line of its own."""

SCATTERED_FORMS = {
    "a.jsonl": '{{"step": {step}, "epoch": 0, "time": {count}, "{name}": {value}}}\n',
    "a.log": "step: {step} {name}: {value}\n",
    "b.log": "{head}{name}: {value}\n",
    "a.csv": "{step},{cells}\n",
}


def scattered(file: str, *left_out: str) -> str:
    """A log of `SCATTERED` with a line for each metric."""
    names = [name for name in SCATTERED[0][1] if name not in left_out]
    text, count = "step,d_loss_real,d_loss_fake,g_loss\n" if file == "a.csv" else "", 0
    for step, metrics in SCATTERED:
        for name in names:
            count += 1
            cells = ",".join(str(metrics[name]) if other == name else "" for other in metrics)
            head = f"step: {step}\n" if name == names[0] else ""
            text += SCATTERED_FORMS[file].format(
                step=step, count=count, name=name, value=metrics[name], cells=cells, head=head
            )
    return text


@pytest.mark.parametrize("file", SCATTERED_FORMS)
@pytest.mark.parametrize("left_out", [(), ("g_loss",)], ids=["both players", "D alone"])
def test_parts_of_a_loss_in_separate_lines(file: str, left_out: tuple[str, ...], tmp_path: Path) -> None:
    log = read_log(written(tmp_path, scattered(file, *left_out), file))
    assert curves(log) == {D: [0.75 + i / 8 for i in range(1, 6)]} | ({} if left_out else {G: [2.0] * 5})
    assert steps(log) == [50, 100, 150, 200, 250]
    assert log.notes == (MEAN_D + "d_loss_real and d_loss_fake",)


def test_requested_parts_in_separate_lines_are_averaged(tmp_path: Path) -> None:
    text = "".join(f"step: {i} a: 0.5\nstep: {i} b: 1.5\nstep: {i} x: 40\nstep: {i} y: 60\n" for i in range(1, 4))
    log = read_log(written(tmp_path, text), parse_columns("d=a+b,accuracy=x+y%"))
    assert curves(log) == {D: [1.0] * 3, ACCURACY: [0.5] * 3}


def test_a_sum_and_its_parts_in_separate_lines(tmp_path: Path) -> None:
    text = "".join(
        f"step: {i} D_real: 0.{i}\nstep: {i} D_fake: 0.4\nstep: {i} d_loss: {0.4 + i / 10}\n" for i in range(1, 6)
    )
    log = read_log(written(tmp_path, text))
    assert curves(log)[D] == pytest.approx([0.2 + i / 20 for i in range(1, 6)])
    assert log.notes == ("D's loss is halved: it is the sum of D_real and D_fake",)


def test_lines_of_one_step_that_repeat_a_metric_are_rows_of_their_own(tmp_path: Path) -> None:
    text = "step: 1 d_loss: 0.5\nstep: 1 d_loss: 0.75\nstep: 1 g_loss: 1.5\nstep: 2 g_loss: 2.5\n"
    log = read_log(written(tmp_path, text))
    assert [(step, {name: stat.mean for name, stat in row.items()}) for step, row in log.rows] == [
        (1, {D: 0.5}),
        (1, {D: 0.75, G: 1.5}),
        (2, {G: 2.5}),
    ]


APART = "d_loss_real and d_loss_fake are never logged in the same line or step"


def test_parts_that_are_never_logged_together(tmp_path: Path) -> None:
    """Without steps, nothing tells which lines belong together."""
    parts = "d_loss_real: 0.5\nd_loss_fake: 0.6\n"
    log = read_log(written(tmp_path, f"{parts}g_loss: 0.9\n" * 5))
    assert curves(log) == {G: [0.9] * 5}
    assert not log.has_d_loss
    assert "d/adversarial" not in log.columns
    assert [note.partition(", so ")[0] for note in log.notes] == [APART, "D's loss was not found"]
    with pytest.raises(DataError, match=APART):
        read_log(written(tmp_path, parts * 5))
    with pytest.raises(RecipeError, match=APART):
        read_log(written(tmp_path, f"{parts}g_loss: 0.9\n" * 5), parse_columns("d=d_loss_real+d_loss_fake"))


def test_columns_joined_by_plus_are_averaged(tmp_path: Path) -> None:
    path = written(tmp_path, "a,b,c+d\n0.5,0.25,3\n", "a.csv")
    assert curves(read_log(path, parse_columns("d=a+b,g=c+d"))) == {D: [0.375], G: [3.0]}
    with pytest.raises(RecipeError, match="no such column") as raised:
        read_log(path, parse_columns("d=a+bb"))
    assert "'bb'" in str(raised.value)


def test_a_missing_loss_of_d_is_noted(tmp_path: Path) -> None:
    log = read_log(written(tmp_path, "D_A,g_loss\n0.5,1\n", "a.csv"))
    assert (set(curves(log)), log.has_d_loss) == ({G}, False)
    assert list(log.notes) == [
        "D's loss was not found, so its detectors are inactive; name its column with --columns d=..."
    ]


def test_one_letter_columns_are_losses_only_if_no_other_column_is(tmp_path: Path) -> None:
    log = read_log(written(tmp_path, "d,g,d_loss,g_loss\n9,9,0.5,1\n", "a.csv"))
    assert curves(log) == {D: [0.5], G: [1.0]}
    with pytest.raises(RecipeError, match="no column is recognised as a loss"):
        read_log(written(tmp_path, "d,x\n9,9\n", "b.csv"))


# ---- steps that decrease ----------------------------------------------------------------------------------


def table_with_steps(numbers: list[int], epochs: list[int] | None = None) -> str:
    """A table in which D's loss is the index of the line."""
    if epochs is None:
        return "step,d_loss\n" + "".join(f"{at},{k}\n" for k, at in enumerate(numbers))
    rows = zip(epochs, numbers, strict=True)
    return "epoch,step,d_loss\n" + "".join(f"{epoch},{at},{k}\n" for k, (epoch, at) in enumerate(rows))


RESUMED = {
    "once": ([0, 10, 20, 30, 40, 20, 30, 40, 50], [0, 10, 20, 30, 40, 50], [0, 1, 5, 6, 7, 8]),
    "twice": ([0, 10, 20, 30, 20, 30, 40, 20, 30, 40, 50], [0, 10, 20, 30, 40, 50], [0, 1, 7, 8, 9, 10]),
    "to a step that was not logged": ([0, 10, 20, 30, 25, 35, 45], [0, 10, 20, 25, 35, 45], [0, 1, 2, 4, 5, 6]),
    "not as far as before": ([0, 10, 20, 30, 40, 50, 30, 40], [0, 10, 20, 30, 40], [0, 1, 2, 6, 7]),
    "from the beginning, and further": ([0, 10, 20, 0, 10, 20, 30, 40], [0, 10, 20, 30, 40], [3, 4, 5, 6, 7]),
    "both players' lines": (
        [0, 0, 10, 10, 20, 20, 10, 10, 20, 20, 30, 30],
        [0, 0, 10, 10, 20, 20, 30, 30],
        [0, 1, *range(6, 12)],
    ),
}


@pytest.mark.parametrize("case", RESUMED)
def test_rows_of_a_resumed_run_replace_earlier_rows(case: str, tmp_path: Path) -> None:
    given, kept, losses = RESUMED[case]
    log = read_log(written(tmp_path, table_with_steps(given), "a.csv"))
    assert steps(log) == kept
    assert curves(log)[D] == losses
    assert f"{len(given) - len(kept)} rows were written again" in " ".join(log.notes)
    assert log.length == kept[-1]


CONTAINERS = ("csv", "log", "jsonl", "events", "files", "long.csv")


def write_log(folder: Path, rows: list[dict[str, float]], form: str) -> Path:
    """A log with these rows, in the order in which they are written; each has a step."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    if form == "csv":
        lines = [",".join(names), *(",".join(str(row.get(name, "")) for name in names) for row in rows)]
    elif form == "log":
        lines = [" ".join(f"{name}: {value}" for name, value in row.items()) for row in rows]
    elif form == "jsonl":
        lines = [json.dumps(row) for row in rows]
    elif form == "long.csv":
        lines = ["key,value,step"]
        lines += [f"{name},{row[name]},{row['step']}" for row in rows for name in row if name != "step"]
    else:
        path = folder / "run"
        path.mkdir()
        if form == "files":
            for name in names[1:]:
                text = "".join(f"{row['step']}: {row[name]}\n" for row in rows if name in row)
                written(path, text, f"{name}.log")
            return path
        with SummaryWriter(str(path)) as writer:
            for row in rows:
                for name in row.keys() - {"step"}:
                    writer.add_scalar(name, row[name], int(row["step"]))
        return path
    return written(folder, "".join(f"{line}\n" for line in lines), f"a.{form}")


def losses_at(numbers: list[int], d: float = 0.5) -> list[dict[str, float]]:
    return [{"step": step, "d_loss": d, "g_loss": 1.0} for step in numbers]


@pytest.mark.parametrize("form", CONTAINERS)
def test_a_late_measure_of_an_earlier_step_removes_no_loss(form: str, tmp_path: Path) -> None:
    rows = losses_at(list(range(0, 1000, 100)))
    rows[5]["fid"] = 60.0
    log = read_log(write_log(tmp_path, [*rows, {"step": 250, "fid": 80.0}], form))
    assert curves(log) == {D: [0.5] * 10, G: [1.0] * 10, "measure/fid": [80.0, 60.0]}
    assert steps(log) == sorted([*range(0, 1000, 100), 250])
    assert log.notes == ()


@pytest.mark.parametrize("form", CONTAINERS)
def test_measures_that_lag_behind_the_losses(form: str, tmp_path: Path) -> None:
    rows: list[dict[str, float]] = []
    for step in range(200, 1100, 100):
        rows += losses_at([step])
        if step % 200 == 0:
            rows.append({"step": step - 150, "fid": 90.0 - step / 20})
    log = read_log(write_log(tmp_path, [*rows, *losses_at([1100])], form))
    assert curves(log) == {D: [0.5] * 10, G: [1.0] * 10, "measure/fid": [80.0, 70.0, 60.0, 50.0, 40.0]}
    assert steps(log) == sorted([*range(200, 1200, 100), *range(50, 1050, 200)])
    assert log.notes == ()


@pytest.mark.parametrize("form", CONTAINERS)
def test_what_a_resumed_run_has_replaced_does_not_count_in_any_form(form: str, tmp_path: Path) -> None:
    """The dead run had measured up to step 800; the resumed one has measured once so far."""
    dead = losses_at(list(range(0, 1000, 100)), d=0.25)
    for row, fid in zip(dead[::4], (90.0, 80.0, 400.0), strict=True):
        row["fid"] = fid
    resumed = losses_at([350, 450, 550, 650], d=0.75)
    resumed[0]["fid"] = 70.0
    log = read_log(write_log(tmp_path, [*dead, *resumed], form))
    assert steps(log) == [0, 100, 200, 300, 350, 450, 550, 650]
    assert curves(log) == {D: [0.25] * 4 + [0.75] * 4, G: [1.0] * 8, "measure/fid": [90.0, 70.0]}
    assert log.length == 650
    assert any(note.startswith("6 rows were written again") for note in log.notes)


@pytest.mark.parametrize("form", CONTAINERS)
def test_a_metric_in_few_rows_is_replaced_too(form: str, tmp_path: Path) -> None:
    """G's loss is logged in every fifth row, and in the resumed run for the first time at the step of a dead row."""
    rows = losses_at(list(range(0, 110, 10)))
    rows = [row if row["step"] % 50 == 0 else {"step": row["step"], "d_loss": 0.5} for row in rows]
    again = [{"step": step, "d_loss": 0.75} for step in range(60, 100, 10)]
    again.append({"step": 100, "d_loss": 0.75, "g_loss": 2.0})
    log = read_log(write_log(tmp_path, [*rows, *again], form))
    assert curves(log) == {D: [0.5] * 6 + [0.75] * 5, G: [1.0, 1.0, 2.0]}
    assert sorted({*steps(log)}) == list(range(0, 110, 10))


@pytest.mark.parametrize("form", CONTAINERS)
def test_a_decrease_that_only_the_last_row_has_is_no_resume(form: str, tmp_path: Path) -> None:
    log = read_log(write_log(tmp_path, losses_at([0, 10, 20, 30, 40, 15]), form))
    assert steps(log) == [0, 10, 15, 20, 30, 40]
    assert log.notes == ()


def test_events_of_a_run_that_was_resumed_in_another_file(tmp_path: Path) -> None:
    for numbers, d in ((range(0, 1000, 100), 0.25), (range(400, 600, 100), 0.75)):
        with SummaryWriter(str(tmp_path)) as writer:
            for step in numbers:
                writer.add_scalar("loss/D", d, step)
                writer.add_scalars("loss", {"G": 1.0}, step)
    log = read_log(tmp_path)
    assert curves(log) == {D: [0.25] * 4 + [0.75] * 2, G: [1.0] * 6}
    assert steps(log) == list(range(0, 600, 100))


CUT_LINES = {
    "a.csv": ("d_loss,g_loss,step\n", "{d},{g},{step}\n"),
    "b.csv": ("d_loss,step,g_loss\n", "{d},{step},{g}\n"),
    "c.csv": ("step,d_loss,g_loss\n", "{step},{d},{g}\n"),
    "quoted.csv": ("d_loss,g_loss,step\n", '{d},{g},"{step}"\n'),
    "long.csv": ("key,value,step\n", "d_loss,{d},{step}\ng_loss,{g},{step}\n"),
    "a.log": ("", "d_loss: {d} g_loss: {g} step: {step}\n"),
    "b.log": ("", "step: {step} d_loss: {d} g_loss: {g}\n"),
    "a.jsonl": ("", '{{"d_loss": {d}, "g_loss": {g}, "step": {step}}}\n'),
    "d_loss.txt": ("", "{step},{d}\n"),
    "metrics/d_loss": ("", "1700000000000 {d} {step}\n"),
}


@pytest.mark.parametrize("name", CUT_LINES)
def test_a_log_that_ends_anywhere_in_its_last_line_has_the_rows_before_it(name: str, tmp_path: Path) -> None:
    head, line = CUT_LINES[name]
    (tmp_path / name).parent.mkdir(exist_ok=True)
    whole = head + "".join(line.format(d=0.5, g=1.5, step=step) for step in range(9000, 10000, 250))
    last = line.format(d=0.5, g=1.5, step=10000)
    for length in range(len(last) + 1):
        log = read_log(written(tmp_path, whole + last[:length], name))
        found = [step for step, _ in log.rows if step != 10000]
        assert sorted({*found}) == [9000, 9250, 9500, 9750], last[:length]
        assert not any("again" in note or "restarts" in note for note in log.notes)
        assert log.length in (9750, 10000)


def test_a_last_line_without_a_newline_counts_if_it_is_complete(tmp_path: Path) -> None:
    log = read_log(written(tmp_path, "step,d_loss\n1,0.5\n2,0.25", "a.csv"))
    assert steps(log) == [1, 2]
    assert log.notes == ()
    cut = read_log(written(tmp_path, "step,d_loss,g_loss\n1,0.5,1\n2,0.25", "b.csv"))
    assert steps(cut) == [1]
    assert cut.notes == ("the last line is incomplete, as in a log that is being written, and is left out",)


EPOCHS = {
    "two, the second incomplete": [0, 100, 200, 0, 100],
    "two": [0, 100, 200, 0, 100, 200],
    "five": [100, 200, 300] * 5,
    "with a short one": [0, 50, 100, 0, 50, 0, 50, 100, 0, 50, 100],
    "that grow longer": [0, 1, 2, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 6, 0, 1],
}


@pytest.mark.parametrize("case", EPOCHS)
def test_lines_are_counted_if_steps_restart_each_epoch(case: str, tmp_path: Path) -> None:
    log = read_log(written(tmp_path, table_with_steps(EPOCHS[case]), "a.csv"))
    assert steps(log) == list(range(1, len(EPOCHS[case]) + 1))
    assert "as with each epoch: lines are counted instead" in log.notes[0] if log.notes else False


def test_an_epoch_column_continues_the_steps(tmp_path: Path) -> None:
    within = [0, 100, 200, 300] * 3
    epochs = [1] * 4 + [2] * 4 + [3] * 4
    log = read_log(written(tmp_path, table_with_steps(within, epochs), "a.csv"))
    assert steps(log) == list(range(0, 1200, 100))
    assert log.notes == ("step restarts 2 times, and is continued across epochs by epoch",)
    again = read_log(written(tmp_path, table_with_steps([*within, *within[4:]], [*epochs, *epochs[4:]]), "b.csv"))
    assert steps(again) == list(range(0, 1200, 100))
    assert curves(again)[D] == [0, 1, 2, 3, *range(12, 20)]


def test_a_resumed_run_raises_the_same_alarms(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [
        f"{50 * i},{0.69 + 0.03 * rng.standard_normal() if i < 350 else 0.003:.4f},{0.75 if i < 350 else 7}\n"
        for i in range(400)
    ]
    once = read_log(written(tmp_path, "step,d_loss,g_loss\n" + "".join(rows), "once.csv"))
    text = "step,d_loss,g_loss\n" + "".join(rows[:240] + rows[200:300] + rows[280:])
    again = read_log(written(tmp_path, text, "again.csv"))
    assert replay(again).alarms == replay(once).alarms
    assert "d_at_zero" in {alarm.detector for alarm in replay(again).alarms}


# ---- folders of events -----------------------------------------------------------------------------------


def test_add_scalars(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path / "tb")) as writer:
        for step in range(5):
            writer.add_scalars("loss", {"D": step / 8, "G": 2.0}, step)
            writer.add_scalar("fid", 10.0 - step, step)
    log = read_log(tmp_path / "tb")
    assert curves(log) == {D: [step / 8 for step in range(5)], G: [2.0] * 5, "measure/fid": [10.0, 9.0, 8.0, 7.0, 6.0]}
    assert steps(log) == [0, 1, 2, 3, 4]


def test_add_scalars_of_a_tag_with_folders(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path)) as writer:
        for step in range(4):
            writer.add_scalars("train/loss", {"D": 0.5, "G": 2.0}, step)
    assert curves(read_log(tmp_path)) == {D: [0.5] * 4, G: [2.0] * 4}


def test_several_runs_in_a_folder_are_refused(tmp_path: Path) -> None:
    for name in ("first", "second"):
        with SummaryWriter(str(tmp_path / name)) as writer:
            writer.add_scalar("d_loss", 0.5, 1)
    with pytest.raises(DataError, match="several runs") as raised:
        read_log(tmp_path)
    assert "first, second" in str(raised.value)
    assert curves(read_log(tmp_path / "first")) == {D: [0.5]}


def test_a_single_run_in_a_subfolder(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path / "version_0")) as writer:
        writer.add_scalar("d_loss", 0.5, 1)
    assert curves(read_log(tmp_path)) == {D: [0.5]}


# ---- the command -----------------------------------------------------------------------------------------


def test_notes_go_to_stderr(poise: Any, tmp_path: Path) -> None:
    path = written(tmp_path, "D_real,D_fake,g_loss\n" + "0.7,0.7,0.7\n0.6,0.6,0.8\n" * 15, "a.csv")
    for options in ((), ("--json",)):
        result = poise("watch", path, *options)
        assert result.code == 0
        assert result.err == f"{path}: D's loss is taken to be the mean of D_real and D_fake\n"
    found = json.loads(result.out)
    assert (found["rows"], found["alarms"]) == (30, [])
    assert found["notes"] == ["D's loss is taken to be the mean of D_real and D_fake"]


def test_no_alarm_is_not_printed_without_ds_loss(poise: Any, tmp_path: Path) -> None:
    result = poise("watch", written(tmp_path, "g_loss\n" + "0.7\n" * 30, "a.csv"))
    assert "no alarm" not in result.out + result.err
    assert "D's loss was not found" in result.out
