"""Tests of reading run folders and the logs of other trainers."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.util.tensor_util import make_tensor_proto
from torch.utils.tensorboard import SummaryWriter

from poise.core.metrics_log import Row, Stat, row_to_json
from poise.errors import CheckpointError, DataError, PoiseError, RecipeError
from poise.watch.column_names import KNOWN_COLUMNS, SHORT_NAMES
from poise.watch.columns import parse_columns
from poise.watch.logs import Log, measures_to_metrics, read_log
from poise.watch.replay import replay

D, G = "d/adversarial", "g/adversarial"
Plain = list[tuple[int, dict[str, float]]]


def plain(log: Log) -> Plain:
    """The rows of a log whose statistics are single values."""
    for _, numbers in log.rows:
        assert all(stat == Stat.of(stat.mean) or math.isnan(stat.mean) for stat in numbers.values())
    return [(step, {name: stat.mean for name, stat in numbers.items()}) for step, numbers in log.rows]


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, "utf-8")
    return path


# ---- run folders -----------------------------------------------------------------------------------------


def row(step: int, **stats: Stat) -> str:
    named = {name.replace("_", "/", 1): stat for name, stat in stats.items()}
    return json.dumps(row_to_json(Row(step, 64 * step, 0.1 * step, named))) + "\n"


def make_run(
    folder: Path, *, recipe: str = 'steps = 400\n[objective]\nkind = "hinge"\n', rows: str | None = None
) -> Path:
    path = folder / "run"
    path.mkdir()
    default = row(50, d_adversarial=Stat(0.7, 0.1, 0.5, 0.9)) + row(
        100, d_adversarial=Stat(math.nan, 0.1, 0.5, math.inf)
    )
    written(path, "rows.jsonl", default if rows is None else rows)
    written(path, "recipe.toml", recipe)
    return path


def test_a_run_folder(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    measured = [
        {"step": 75, "measures": {"fid": 12}, "floor": {"fid": 1.5}},
        {"step": 100, "measures": {"fid": "nan"}, "floor": {}},
    ]
    written(run, "measures.jsonl", "".join(json.dumps(line) + "\n" for line in measured))
    log = read_log(run)
    assert [step for step, _ in log.rows] == [50, 75, 100, 100]
    assert log.rows[0][1] == {D: Stat(0.7, 0.1, 0.5, 0.9)}
    assert log.rows[1][1] == {"measure/fid": Stat.of(12.0), "floor/fid": Stat.of(1.5)}
    assert set(log.rows[2][1]) == {D}  # the row, then what was measured after it
    assert math.isnan(log.rows[2][1][D].mean)
    assert log.rows[2][1][D].max == math.inf
    assert set(log.rows[3][1]) == {"measure/fid"}
    assert math.isnan(log.rows[3][1]["measure/fid"].mean)
    assert (log.count, log.length, log.family, log.monitor) == (2, 400, "hinge", {})


def test_the_monitor_table_of_a_run(tmp_path: Path) -> None:
    recipe = '[objective]\nkind = "custom"\n[monitor.policy]\ncollapse = "off"\n'
    log = read_log(make_run(tmp_path, recipe=recipe))
    assert log.monitor == {"policy": {"collapse": "off"}}
    assert log.family is None


@pytest.mark.parametrize(
    ("steps", "last", "length"),
    [("steps = 3000", 50, 3000), ("steps = 300", 50, 400), ("", 900, 900), ("", 100, 400)],
    ids=["given", "given, short", "from the rows", "from the rows, short"],
)
def test_the_length_of_a_run_is_at_least_400(tmp_path: Path, steps: str, last: int, length: int) -> None:
    run = make_run(tmp_path, recipe=f"{steps}\n", rows=row(25, d_adversarial=Stat.of(1)) + row(last))
    assert read_log(run).length == length


def test_an_incomplete_last_line_is_ignored(tmp_path: Path) -> None:
    line = row(50, d_adversarial=Stat.of(0.7))
    assert [step for step, _ in read_log(make_run(tmp_path, rows=line + line[:30])).rows] == [50]


@pytest.mark.parametrize(
    ("rows", "recipe", "part"),
    [
        ("", "steps = 4", "no row has been logged yet"),
        ('{"step": 1}\n', "steps = 4", "rows.jsonl:1: line 1 is damaged"),
        ('{"step": 1, "stats": {"d/loss": 3}}\n', "steps = 4", "rows.jsonl:1: line 1 is damaged"),
        (row(50, d_adversarial=Stat.of(0.7)), "steps = ", "recipe.toml: is damaged"),
    ],
    ids=["empty", "no stats", "no stat", "no TOML"],
)
def test_unreadable_runs_are_refused(tmp_path: Path, rows: str, recipe: str, part: str) -> None:
    run = make_run(tmp_path, rows=rows, recipe=recipe)
    with pytest.raises(CheckpointError if "damaged" in part else DataError, match=part) as raised:
        read_log(run)
    assert str(run) in str(raised.value)


def test_a_run_without_its_recipe(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (run / "recipe.toml").unlink()
    with pytest.raises(DataError, match="not a readable run folder"):
        read_log(run)


def test_measures_to_metrics() -> None:
    line = {"step": 3, "measures": {"fid": 2, "kid": "inf"}, "floor": {"fid": 1}}
    assert measures_to_metrics(line) == {
        "measure/fid": Stat.of(2.0),
        "measure/kid": Stat.of(math.inf),
        "floor/fid": Stat.of(1.0),
    }


@pytest.mark.parametrize("has_events", [False, True], ids=["no events", "events"])
def test_a_run_before_its_first_row(tmp_path: Path, has_events: bool) -> None:
    run = make_run(tmp_path)
    (run / "rows.jsonl").unlink()
    written(run, "run.json", "{}")
    if has_events:
        EventFileWriter(str(run / "tensorboard")).close()
    with pytest.raises(DataError, match="no row has been logged yet"):
        read_log(run)
    with pytest.raises(RecipeError, match="is for the logs of other trainers"):
        read_log(run, is_sum=True)


def test_a_folder_with_the_run_json_of_another_program_is_no_run(tmp_path: Path) -> None:
    written(tmp_path, "run.json", "{}")
    with SummaryWriter(str(tmp_path)) as writer:
        writer.add_scalar("d_loss", 0.5, 1)
    assert plain(read_log(tmp_path)) == [(1, {D: 0.5})]


# ---- tables ----------------------------------------------------------------------------------------------

TABLE = "iter{m}loss_D{m}loss_G{m}note\n10{m}0.5{m}1.5{m}fine\n20{m}0.25{m}{m}\n30{m}{m}1.25{m}3\n"
ROWS: Plain = [(10, {D: 0.5, G: 1.5}), (20, {D: 0.25}), (30, {G: 1.25})]


@pytest.mark.parametrize("mark", [",", ";", "\t", ", "], ids=["comma", "semicolon", "tab", "comma and blank"])
@pytest.mark.parametrize("start", ["", "\ufeff"], ids=["plain", "BOM"])
@pytest.mark.parametrize("suffix", ["csv", "CSV", "tsv"])
def test_csv_and_tsv(tmp_path: Path, mark: str, start: str, suffix: str) -> None:
    log = read_log(written(tmp_path, f"log.{suffix}", start + TABLE.format(m=mark)))
    assert plain(log) == ROWS
    assert (log.count, log.length, log.family, log.monitor) == (3, 30, None, {})


def test_cells_that_are_not_finite(tmp_path: Path) -> None:
    log = read_log(written(tmp_path, "log.csv", "step,d_loss,g_loss\n1,0.5,inf\n2,nan,-inf\n"))
    (_, first), (_, second) = plain(log)
    assert math.isnan(second[D])
    assert (first[D], first[G], second[G]) == (0.5, math.inf, -math.inf)


def test_rows_longer_or_shorter_than_the_header(tmp_path: Path) -> None:
    log = read_log(written(tmp_path, "log.csv", "step,d_loss,g_loss\n1,0.5,1.5,9,9\n2,0.25\n"))
    assert plain(log) == [(1, {D: 0.5, G: 1.5}), (2, {D: 0.25})]


def test_a_long_table_with_unclear_commas_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the commas in d_loss may be decimal commas"):
        read_log(written(tmp_path, "log.csv", "key;value;step\nd_loss;1,386;1\ng_loss;2;1\n"))


def test_per_cent_signs_in_a_long_table(tmp_path: Path) -> None:
    log = read_log(written(tmp_path, "log.csv", "key,value,step\nd_loss,0.5,1\nd_accuracy,50%,1\nd_accuracy,1 %,2\n"))
    assert plain(log) == [(1, {D: 0.5, "d/accuracy": 0.5}), (2, {"d/accuracy": 0.01})]


def test_number_formats(tmp_path: Path) -> None:
    log = read_log(written(tmp_path, "log.csv", " d_loss ,g_loss\n1e-3,.5\n-2,+3.\n"))
    assert plain(log) == [(1, {D: 0.001, G: 0.5}), (2, {D: -2.0, G: 3.0})]


@pytest.mark.parametrize(
    "lines",
    [
        '{"step": 10, "d_loss": 0.5, "g_loss": 1.5, "who": "me"}\n{"step": 20, "d_loss": 0.25}\n',
        '{"step": 10, "loss": {"d": 0.5, "g": 1.5}}\n{"step": 20, "loss": {"d": 0.25}}\n',
        '{"Progress/kimg": {"num": 1, "mean": 10.2, "std": 0}, "Loss/D/loss": {"num": 9, "mean": 0.5, "std": 0.1}, '
        '"Loss/G/loss": {"num": 9, "mean": 1.5, "std": 0.1}, "Progress/tick": {"mean": 1}, "timestamp": 16.5}\n'
        '{"Progress/kimg": {"num": 1, "mean": 19.8}, "Loss/D/loss": {"num": 9, "mean": 0.25}}\n',
        'half a line\n{"iter": 10, "errD": 0.5, "errG": 1.5}\n[1, 2]\n{"iter": 20, "errD": 0.25, "errG": nu',
    ],
    ids=["flat", "nested", "StyleGAN", "broken lines"],
)
def test_json_lines(tmp_path: Path, lines: str) -> None:
    found: Plain = [(10, {D: 0.5, G: 1.5}), (20, {D: 0.25})]
    broken = lines.startswith("half")
    path = written(tmp_path, "stats.jsonl", lines.removeprefix("half a line\n"))
    assert plain(read_log(path)) == (found[:1] if broken else found)


def test_json_lines_with_numbers_that_are_not_finite(tmp_path: Path) -> None:
    lines = '\n{"d_loss": "nan", "g_loss": NaN, "on": true}\n{"d_loss": "inf", "g_loss": null}\n'
    (_, first), (_, second) = plain(read_log(written(tmp_path, "log.txt", lines)))
    assert math.isnan(first[D])
    assert math.isnan(first[G])
    assert second == {D: math.inf}


# ---- lines of text ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "numbers"),
    [
        (
            "[0/25][3/1583]\tLoss_D: 1.4\tLoss_G: 5.6\tD(x): 0.5\tD(G(z)): 0.5 / 0.01",
            (3, {D: 0.7, G: 5.6}),
        ),
        ("[Epoch 2/200] [Batch 3/938] [D loss: 0.69] [G loss: 0.70]", (1879, {D: 0.69, G: 0.7})),
        ("epoch 3 d_loss=0.5, g_loss=0.6", (1, {D: 0.5, G: 0.6})),
        ("(epoch: 1, iters: 100, time: 0.1) D_loss: 0.1 G_loss: 0.5", (100, {D: 0.1, G: 0.5})),
        ("step: 7, D loss: -1e-3, G loss: +2.5E2", (7, {D: -0.001, G: 250.0})),
        ("INFO 12:30:01 | Iteration: 40 | discriminator loss = .5 | generator loss = 3.", (40, {D: 0.5, G: 3.0})),
        ("Epoch 1 - D loss: 0.5 - G loss: inf - acc: 80%", (1, {D: 0.5, G: math.inf})),
        ("critic_loss: -0.5 generator_loss: 0.25", (1, {D: -0.5, G: 0.25})),
        ("d_loss: 0.5s d_loss2: 7 g_loss: 0.25", (1, {G: 0.25})),
    ],
    ids=["DCGAN", "PyTorch-GAN", "equals", "pix2pix", "exponents", "words", "dashes", "critic", "units"],
)
def test_lines_of_text(tmp_path: Path, line: str, numbers: tuple[int, dict[str, float]]) -> None:
    path = written(tmp_path, "train.log", f"Starting Training Loop...\n{line}\nSaved.\n")
    assert plain(read_log(path)) == [numbers]


def test_lines_of_text_with_nan(tmp_path: Path) -> None:
    text = "[0/25][1/9]\tLoss_D: 0.5\tLoss_G: nan\n[0/25][2/9]\tLoss_D: NaN\tLoss_G: -nan\n"
    (one, first), (two, second) = plain(read_log(written(tmp_path, "log", text)))
    assert (one, two, first[D]) == (1, 2, 0.5)
    assert math.isnan(second[D])
    assert math.isnan(first[G])
    assert math.isnan(second[G])


def test_other_numbers_are_ignored_unless_requested(tmp_path: Path) -> None:
    path = written(tmp_path, "log.txt", "Loss_D: 1.4\tLoss_G: 5.6\tD(x): 0.75\tD(G(z)): 0.5 / 0.01\n")
    assert plain(read_log(path, {"real": "D(x)", "d/custom": "D(G(z))"})) == [
        (1, {D: 0.7, G: 5.6, "d/real_score": 0.75, "d/custom": 0.5})
    ]


@pytest.mark.parametrize("name", KNOWN_COLUMNS)
def test_known_column_names(tmp_path: Path, name: str) -> None:
    log = read_log(written(tmp_path, "log.csv", f"{name},loss_d,loss_g\n0.75,2,1\n"))
    expected = 0.875 if KNOWN_COLUMNS[name] == "r_t" else 0.75  # (1 + r_t) / 2
    assert plain(log)[0][1][SHORT_NAMES[KNOWN_COLUMNS[name]]] == expected


@pytest.mark.parametrize("name", ["D loss", "loss/D", "Loss_D", "errD", "D_err", "D_errors", "Loss/D/loss", "D/loss"])
def test_punctuation_and_case_of_names_are_ignored(tmp_path: Path, name: str) -> None:
    log = read_log(written(tmp_path, "log.csv", f"{name}\n3\n"))
    assert plain(log) == [(1, {D: 3})]


@pytest.mark.parametrize(
    ("names", "number"),
    [
        ("accuracy D_acc", "d/accuracy"),
        ("D_grad_norm", "d/grad_norm"),
        ("grad_norm/G", "g/grad_norm"),
        ("Wasserstein distance", "d/wasserstein"),
        ("g/diversity", "g/diversity"),
        ("d/anything", "d/anything"),
        ("measure/fid", "measure/fid"),
    ],
    ids=str,
)
def test_other_metrics_are_recognised(tmp_path: Path, names: str, number: str) -> None:
    head = names.removeprefix("accuracy ")
    log = read_log(written(tmp_path, "log.csv", f"loss_g,{head},other\n2,0.75,9\n"))
    assert plain(log) == [(1, {G: 2, number: 0.75})]


# ---- --pattern -------------------------------------------------------------------------------------------

LINES = "epoch 1/9: it 5 D 0.5 G 1.5\nnothing\nepoch 1/9: it 10 D nan G 1.25\n"
PATTERN = r"it (?P<step>\d+) D (?P<d>\S+) G (?P<g>\S+)"


def test_pattern(tmp_path: Path) -> None:
    path = written(tmp_path, "log.txt", LINES)
    (one, first), (two, second) = plain(read_log(path, pattern=PATTERN))
    assert (one, two, first, second[G]) == (5, 10, {D: 0.5, G: 1.5}, 1.25)
    assert math.isnan(second[D])
    rows = plain(read_log(path, {"real": "g"}, r"it \d+ D (?P<d>[0-9.]+) G (?P<g>\S+)"))
    assert rows == [(1, {D: 0.5, G: 1.5, "d/real_score": 1.5})]


def test_pattern_applies_to_any_file(tmp_path: Path) -> None:
    path = written(tmp_path, "log.csv", LINES)
    assert len(read_log(path, pattern=PATTERN).rows) == 2


@pytest.mark.parametrize(
    ("pattern", "error", "parts"),
    [
        ("D ([0-9.]+)", RecipeError, ["--pattern", "has no named group", "(?P<d>[0-9.]+)"]),
        (r"loss (?P<d>\d+)", PoiseError, []),
        (r"D (?P<real>\S+)", RecipeError, ["no column is recognised as a loss of D or G", "the columns are real"]),
    ],
    ids=["no group", "no match", "no loss"],
)
def test_invalid_patterns_are_refused(tmp_path: Path, pattern: str, error: type[PoiseError], parts: list[str]) -> None:
    with pytest.raises(error) as raised:
        read_log(written(tmp_path, "log.txt", LINES), pattern=pattern)
    for part in parts:
        assert part in str(raised.value)


def test_an_invalid_regular_expression_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="not a regular expression"):
        read_log(written(tmp_path, "log.txt", LINES), pattern="(?P<d>")


def test_pattern_needs_a_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="can't be read"):
        read_log(tmp_path, pattern=PATTERN)


COMMAS = r"it (?P<step>[\d,.]+) D (?P<d>[\d,.]+) G (?P<g>[\d,.]+)"


@pytest.mark.parametrize(
    ("lines", "rows", "noted"),
    [
        ("it 1 D 1,376 G 0,950\nit 2 D 0,5 G 2,5\n", [(1, {D: 1.376, G: 0.95}), (2, {D: 0.5, G: 2.5})], True),
        (
            "it 1 D 0,701 G 0,702\nit 2 D 0,703 G 1.000,5\n",
            [(1, {D: 0.701, G: 0.702}), (2, {D: 0.703, G: 1000.5})],
            True,
        ),
        (
            "it 1,500 D 0.5 G 1,376.5\nit 2,500 D 1,376 G 2.5\n",
            [(1500, {D: 0.5, G: 1376.5}), (2500, {D: 1376, G: 2.5})],
            False,
        ),
        ("it 1,500 D 1 G 2\n", [(1500, {D: 1, G: 2})], False),
    ],
    ids=["decimal commas", "no number with a point", "digits in groups", "steps in groups"],
)
def test_pattern_with_commas_in_numbers(tmp_path: Path, lines: str, rows: Plain, noted: bool) -> None:
    log = read_log(written(tmp_path, "log.txt", lines), pattern=COMMAS)
    assert plain(log) == rows
    assert list(log.notes) == ["commas in numbers are read as decimal commas"] * noted


def test_pattern_with_unclear_commas_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "log.txt", "it 1 D 1,376 G 2,950\nit 2 D 1,401 G 2\n")
    with pytest.raises(DataError, match="the commas in d may be decimal commas"):
        read_log(path, pattern=r"D (?P<d>\S+)")


@pytest.mark.parametrize("pattern", [r"acc (?P<accuracy>\S+)", r"acc (?P<accuracy>[\d.,]+)"], ids=["within", "after"])
def test_a_per_cent_sign_within_or_after_a_group(tmp_path: Path, pattern: str) -> None:
    path = written(tmp_path, "log.txt", "acc 50% D 0,5\nacc 1% D 0,5\nacc - D 0,5\n")
    log = read_log(path, pattern=rf"(?:{pattern}|acc -).* D (?P<d>\S+)")
    assert plain(log) == [(1, {D: 0.5, "d/accuracy": 0.5}), (2, {D: 0.5, "d/accuracy": 0.01}), (3, {D: 0.5})]


# ---- TensorBoard -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("events")
    with SummaryWriter(str(folder)) as writer:
        for step in (10, 20, 30):
            writer.add_scalar("Loss/D", step / 64, step)
            writer.add_scalar("lr", 0.5, step)
            if step != 20:
                writer.add_scalar("Loss/G", -step / 32, step)
    return folder


def test_tensorboard_events(events: Path) -> None:
    found: Plain = [
        (10, {D: 10 / 64, G: -10 / 32}),
        (20, {D: 20 / 64}),
        (30, {D: 30 / 64, G: -30 / 32}),
    ]
    assert plain(read_log(events)) == found
    (file,) = events.iterdir()
    assert plain(read_log(file)) == found
    requested = read_log(events, {"accuracy": "lr"})
    assert [numbers["d/accuracy"] for _, numbers in plain(requested)] == [0.5] * 3


def test_events_are_not_subsampled(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path)) as writer:
        for step in range(12_000):
            writer.add_scalar("d_loss", 0.5, step)
    assert [step for step, _ in read_log(tmp_path).rows] == list(range(12_000))


def test_events_of_tensorflow_2(tmp_path: Path) -> None:
    """Scalars are tensors whose first event names the plugin "scalars"; other tensors are ignored."""
    writer, described = EventFileWriter(str(tmp_path)), set()
    for step in range(5, 205, 5):
        values = {("d_loss", "scalars"): np.float32(step / 64), ("notes", "text"): np.array([b"fine"], dtype=object)}
        if step % 2:
            values["g_loss", "scalars"] = np.float32(-step / 32)
        values["g/weights", "histograms"] = np.ones((3, 3))
        for (tag, plugin), value in values.items():
            metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name=plugin))
            one = Summary.Value(
                tag=tag, tensor=make_tensor_proto(value), metadata=None if tag in described else metadata
            )
            writer.add_event(Event(wall_time=1.0, step=step, summary=Summary(value=[one])))
            described.add(tag)
    writer.close()
    found = [(step, {D: step / 64} | ({G: -step / 32} if step % 2 else {})) for step in range(5, 205, 5)]
    log = read_log(tmp_path)
    assert plain(log) == found
    assert log.count == 40
    (file,) = tmp_path.iterdir()
    assert plain(read_log(file)) == found


def test_events_of_both_formats_share_their_rows(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path)) as writer:
        for step in (20, 10):
            writer.add_scalar("d_loss", 0.5, step)
            writer.add_scalar("g_loss", step, step, new_style=True)
    assert plain(read_log(tmp_path)) == [(10, {D: 0.5, G: 10}), (20, {D: 0.5, G: 20})]


def test_a_folder_without_events(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no line contains a number") as raised:
        read_log(tmp_path)
    assert str(tmp_path) in str(raised.value)


# ---- steps -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "steps"),
    [
        ("step", [10, 20, 30]),
        ("Global Step", [10, 20, 30]),
        ("n_img", [10, 20, 30]),
        ("tick", [10, 20, 30]),
        ("epoch", [1, 2, 3]),
        ("time", [1, 2, 3]),
    ],
    ids=str,
)
def test_steps_come_from_a_column_or_are_counted(tmp_path: Path, head: str, steps: list[int]) -> None:
    path = written(tmp_path, "log.csv", f"{head},d_loss\n10,0.5\n20,0.5\n30,0.5\n")
    log = read_log(path)
    assert [step for step, _ in log.rows] == steps
    assert log.length == steps[-1]
    assert [step for step, _ in read_log(path, {"step": head}).rows] == [10, 20, 30]


@pytest.mark.parametrize(
    "head",
    [
        "trainer/global_step",
        "train/global_step",
        "charts/global_step",
        "trainer/step",
        "progress/step",
        "time/total_steps",
        "_step",
        "steps",
        "Steps",
        "total_steps",
        "train_step",
        "it",
        "batch",
        "cur_nimg",
    ],
)
def test_usual_names_of_the_step(tmp_path: Path, head: str) -> None:
    for form in ("csv", "jsonl"):
        text = f"{head},d_loss,sec/it\n10,0.5,0.1\n20,0.5,0.2\n30,0.5,0.3\n"
        if form == "jsonl":
            text = "".join(json.dumps({head: 10 * k, "d_loss": 0.5, "sec/it": 0.1 * k}) + "\n" for k in (1, 2, 3))
        log = read_log(written(tmp_path, f"log.{form}", text))
        assert [step for step, _ in log.rows] == [10, 20, 30]
        assert log.columns["step"] == head


@pytest.mark.parametrize("head", ["sec/step", "s/it", "sec/batch", "images/step", "time per it"])
def test_rates_are_not_the_step(tmp_path: Path, head: str) -> None:
    log = read_log(written(tmp_path, "log.csv", f"{head},d_loss\n10,0.5\n20,0.5\n"))
    assert [step for step, _ in log.rows] == [1, 2]


def test_a_column_with_one_number_is_not_the_step(tmp_path: Path) -> None:
    """A batch size, and the number of steps to be done."""
    lines = "".join(f"64,1000,0.5,{10 * k}\n" for k in range(1, 6))
    log = read_log(written(tmp_path, "log.csv", f"batch,total_steps,d_loss,nimg\n{lines}"))
    assert [step for step, _ in log.rows] == [10, 20, 30, 40, 50]


@pytest.mark.parametrize(
    "line",
    [
        "2023-01-05 12:00:01,123 - INFO - step {s} - d_loss: {d}, g_loss: {g}",
        "2023-01-05 12:00:01.123 | INFO     | __main__:train:88 - step {s} - D loss: {d} G loss: {g}",
        "2023-01-05 12:00:01,123 - train - INFO - Step {s} - d_loss: {d} - g_loss: {g}",
        "Step {s} - Discriminator loss = {d} - Generator loss = {g}",
        "Step {s} | d_loss: {d} | g_loss: {g}",
        "iter {s}/20000 d_loss={d} g_loss={g}",
        "[2023-01-05 12:00:01] [INFO] [step {s}] loss_D: {d}, loss_G: {g}",
        "INFO:root:step {s} d_loss: {d} g_loss: {g}",
        "Discriminator Loss: {d}, Generator Loss: {g} (step {s})",
        "time: 12:33:10, steps: {s}, d_loss: {d}, g_loss: {g}",
        "INFO global step {s}: lr: 0.1, d_loss: {d}, g_loss: {g}",
        "Iteration #{s} took 1.5 s, d_loss: {d}, g_loss: {g}",
    ],
)
def test_steps_in_lines_of_logging(tmp_path: Path, line: str) -> None:
    text = "".join(line.format(s=s, d=0.5, g=1.5) + "\n" for s in range(0, 250, 50))
    log = read_log(written(tmp_path, "train.log", text))
    assert plain(log) == [(step, {D: 0.5, G: 1.5}) for step in range(0, 250, 50)]
    assert log.notes == ()


def test_spaced_steps_within_epochs_are_continued(tmp_path: Path) -> None:
    text = "".join(f"Epoch {e} | Batch {b}/3 | d_loss: 0.5\n" for e in range(3) for b in range(3))
    assert [step for step, _ in read_log(written(tmp_path, "train.log", text)).rows] == list(range(9))


def test_a_spaced_step_is_only_read_where_no_step_has_a_sign(tmp_path: Path) -> None:
    text = "".join(f"stage step 2 of 3: iter: {s} d_loss: 0.5\n" for s in (10, 20, 30, 40))
    assert [step for step, _ in read_log(written(tmp_path, "train.log", text)).rows] == [10, 20, 30, 40]


def test_names_after_dashes_can_be_requested(tmp_path: Path) -> None:
    text = "".join(f"INFO - step {s} - critic value: 0.5\n" for s in (10, 20))
    log = read_log(written(tmp_path, "train.log", text), {"d": "critic value"})
    assert plain(log) == [(10, {D: 0.5}), (20, {D: 0.5})]


BODY = {
    "comma": ("step,d_loss,g_loss", ["10,0.5,1.5", "20,0.25,", "30,,1.25"]),
    "semicolon": ("step;d_loss;g_loss", ["10;0,5;1,5", "20;0,25;", "30;;1,25"]),
    "tab": ("step\td_loss\tg_loss", ["10\t0.5\t1.5", "20\t0.25\t", "30\t\t1.25"]),
    "blanks": ("step  d_loss  g_loss", ["10  0.5  1.5", "20  0.25 nan", "30  nan  1.25"]),
}


@pytest.mark.parametrize("mark", BODY)
@pytest.mark.parametrize("name", ["log.txt", "train.log", "log", "log.csv"])
@pytest.mark.parametrize(
    "head",
    ["{h}", "# run 5, lr 2e-4\n# started 2023\n{h}", "# {h}", "#{h}", "# by numpy\n# {h}", "sep=,\n{h}", "\n{h}"],
)
def test_tables_are_recognised_by_their_header(tmp_path: Path, mark: str, name: str, head: str) -> None:
    header, lines = BODY[mark]
    log = read_log(written(tmp_path, name, "\n".join([head.format(h=header), *lines, ""])))
    assert [(step, numbers.get(D), numbers.get(G)) for step, numbers in plain(log)][:1] == [(10, 0.5, 1.5)]
    found = {step: {k: v for k, v in numbers.items() if not math.isnan(v)} for step, numbers in plain(log)}
    assert found == {10: {D: 0.5, G: 1.5}, 20: {D: 0.25}, 30: {G: 1.25}}


def test_a_table_with_dates_and_other_texts(tmp_path: Path) -> None:
    text = "time,host,step,d_loss\n" + "".join(f"2023-01-05 12:00:0{k},a,{10 * k},0.5\n" for k in range(3))
    assert plain(read_log(written(tmp_path, "log.txt", text))) == [(10 * k, {D: 0.5}) for k in range(3)]


@pytest.mark.parametrize("first", ["training d_loss and g_loss", "d_loss, g_loss and others are logged", "# d_loss"])
def test_text_that_begins_with_words_is_no_table(tmp_path: Path, first: str) -> None:
    text = f"{first}\n" + "".join(f"step: {k} d_loss: 0.5\n" for k in range(1, 4))
    assert plain(read_log(written(tmp_path, "log.txt", text))) == [(k, {D: 0.5}) for k in (1, 2, 3)]


def test_words_between_the_rows_of_a_table(tmp_path: Path) -> None:
    rows = "".join(f"{k} 0.5 1.5\n" for k in range(1, 8))
    log = read_log(written(tmp_path, "log.txt", f"step d_loss g_loss\n{rows}saved 3 files\nstep d_loss g_loss\n8 0.5"))
    assert [step for step, _ in log.rows] == [1, 2, 3, 4, 5, 6, 7]


def test_the_first_step_column_is_used(tmp_path: Path) -> None:
    path = written(tmp_path, "log.csv", "tick,iter,step,d_loss\n1,2,3,0.5\n4,5,6,0.5\n")
    assert [step for step, _ in read_log(path).rows] == [3, 6]
    assert [step for step, _ in read_log(path, {"step": "tick"}).rows] == [1, 4]


@pytest.mark.parametrize(
    ("steps", "found"),
    [
        ("0 100 200 0 100", [1, 2, 3, 4, 5]),
        ("5 5 6", [5, 5, 6]),
        ("0.4 1.6 2.51", [0, 2, 3]),
        ("10 20  40", [10, 20, 20, 40]),
        (" 10 20 30", [10, 10, 20, 30]),
        ("1    ", [1, 2, 3, 4, 5]),
    ],
    ids=["restarts", "the same twice", "rounded", "one missing", "the first missing", "most missing"],
)
def test_lines_are_counted_if_steps_restart_or_are_mostly_missing(tmp_path: Path, steps: str, found: list[int]) -> None:
    lines = "".join(f"{step},0.5\n" for step in steps.split(" "))
    assert [step for step, _ in read_log(written(tmp_path, "log.csv", f"step,d_loss\n{lines}")).rows] == found


def test_rows_without_a_metric_are_not_counted(tmp_path: Path) -> None:
    text = "d_loss: 0.5\nlr: 0.1\nd_loss: 0.25\n"
    log = read_log(written(tmp_path, "log.txt", text))
    assert plain(log) == [(1, {D: 0.5}), (2, {D: 0.25})]
    assert log.count == 2


@pytest.mark.parametrize("step", ["nan", "inf"])
def test_a_step_that_is_not_finite(tmp_path: Path, step: str) -> None:
    log = read_log(written(tmp_path, "log.csv", f"step,d_loss\n1,0.5\n{step},0.5\n"))
    assert [number for number, _ in log.rows] == [1, 1]


# ---- --columns -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", {}),
        ("d=loss_D", {"d": "loss_D"}),
        ("step=iter,d=loss_D,g=loss_G", {"step": "iter", "d": "loss_D", "g": "loss_G"}),
        ("g/newness=n, measure/fid=f,", {"g/newness": "n", "measure/fid": "f"}),
        ("d=D loss,accuracy=D(x)=1", {"d": "D loss", "accuracy": "D(x)=1"}),
    ],
    ids=str,
)
def test_parse_columns(text: str, found: dict[str, str]) -> None:
    assert parse_columns(text) == found


@pytest.mark.parametrize("name", SHORT_NAMES)
def test_every_short_name(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, "log.csv", "a,loss_d\n0.75,2\n")
    columns = parse_columns(f"{name}=a")
    assert plain(read_log(path, columns))[0][1][SHORT_NAMES[name]] == 0.75
    full = parse_columns(f"{SHORT_NAMES[name]}=a")
    assert full == {SHORT_NAMES[name]: "a"}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("d", ["--columns", "must be name=column, separated by commas", "'d'"]),
        ("d=", ["must be name=column", "'d='"]),
        ("=d", ["must be name=column", "'=d'"]),
        ("d=a,,g", ["must be name=column", "'g'"]),
        ("acuracy=a", ["--columns", "no such metric", "'acuracy'", "did you mean 'accuracy'?"]),
        ("stpe=a", ["no such metric", "did you mean 'step'?"]),
    ],
    ids=str,
)
def test_invalid_columns_are_refused(text: str, parts: list[str]) -> None:
    with pytest.raises(RecipeError) as raised:
        parse_columns(text)
    for part in parts:
        assert part in str(raised.value)


def test_columns_override_guesses(tmp_path: Path) -> None:
    path = written(tmp_path, "log.csv", "loss_D,other,d_loss,iter,at\n1,2,3,4,5\n")
    assert plain(read_log(path)) == [(4, {D: 1})]
    assert plain(read_log(path, {"d": "other", "step": "at"})) == [(5, {D: 2})]
    assert plain(read_log(path, {D: "other"})) == [(4, {D: 2})]


def test_columns_override_metric_names(tmp_path: Path) -> None:
    path = written(tmp_path, "log.csv", "d/adversarial,other\n1,2\n")
    assert plain(read_log(path, {"d": "other"})) == [(1, {D: 2})]


# ---- errors ----------------------------------------------------------------------------------------------


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such run or log") as raised:
        read_log(tmp_path / "nowhere")
    assert "nowhere" in str(raised.value)


@pytest.mark.parametrize("name", ["log.csv", "log.jsonl", "log.txt"])
@pytest.mark.parametrize("text", ["", "\n \n", "words\n"], ids=["empty", "blank", "no number"])
def test_files_without_numbers(tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(DataError, match="no line contains a number") as raised:
        read_log(written(tmp_path, name, text))
    assert "--pattern" in str(raised.value)


@pytest.mark.parametrize("name", ["d", "step"])
def test_missing_column(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, "log.csv", "iter,loss_D,loss_G\n1,2,3\n")
    with pytest.raises(RecipeError, match="no such column") as raised:
        read_log(path, {name: "lossD"})
    assert "--columns" in str(raised.value)
    assert "'lossD'" in str(raised.value)
    assert "did you mean 'loss_D'?" in str(raised.value)


def test_no_recognised_loss(tmp_path: Path) -> None:
    head = ",".join(f"c{number}" for number in range(20))
    cells = ",".join("1" for _ in range(20))
    with pytest.raises(RecipeError, match="no column is recognised as a loss of D or G") as raised:
        read_log(written(tmp_path, "log.csv", f"{head}\n{cells}\n"))
    assert "--columns d=...,g=..." in str(raised.value)
    assert str(raised.value).endswith("the columns are " + ", ".join(f"c{number}" for number in range(12)))


def test_one_loss_is_enough(tmp_path: Path) -> None:
    assert plain(read_log(written(tmp_path, "log.csv", "a,b\n1,2\n"), {"g": "b"})) == [(1, {G: 2})]


# ---- the family ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("below", "family"), [(0, None), (1, None), (2, "wasserstein"), (20, "wasserstein")], ids=str)
def test_repeated_negative_losses_of_d_indicate_a_critic(tmp_path: Path, below: int, family: str | None) -> None:
    lines = "".join(f"{-1 if number < below else 1},-5\n" for number in range(20))
    assert read_log(written(tmp_path, "log.csv", f"d_loss,g_loss\n{lines}")).family == family


def test_negative_losses_of_g_indicate_nothing(tmp_path: Path) -> None:
    assert read_log(written(tmp_path, "log.csv", "g_loss\n-1\n-2\n")).family is None


@pytest.mark.parametrize("options", [{"columns": {"d": "loss"}}, {"pattern": "(?P<d>.)"}, {"is_sum": False}], ids=str)
def test_options_for_other_logs_are_refused_for_a_run(options: dict[str, Any]) -> None:
    run = Path(__file__).parents[1] / "golden" / "run-0.1"
    assert read_log(run, {}).count == 3
    with pytest.raises(RecipeError, match="is for the logs of other trainers"):
        read_log(run, **options)


# ---- measures that are NaN where nothing was measured, logs whose newest line comes first -------------------


def losses_with_fid(fids: list[float], *, form: str) -> str:
    if form == "csv":
        return "step,d_loss,fid\n" + "".join(f"{100 * k},0.7,{fid}\n" for k, fid in enumerate(fids))
    return "".join(json.dumps({"step": 100 * k, "d_loss": 0.7, "fid": fid}) + "\n" for k, fid in enumerate(fids))


NAN = math.nan
RARE = [60.0, *[NAN] * 4, 50.0, *[NAN] * 4, 40.0, *[NAN] * 3]


@pytest.mark.parametrize("form", ["csv", "jsonl"])
@pytest.mark.parametrize(
    ("fids", "num_missing"),
    [
        (RARE, 11),
        ([NAN] * 5 + RARE, 16),
        ([NAN] * 9, 9),  # measuring is switched off
        ([60.0, 50.0, *[NAN] * 9], 0),  # the run has diverged
        ([*RARE, *[NAN] * 9], 8),
        ([60.0, NAN, 50.0, 40.0], 1),
        ([60.0, NAN, 50.0, 40.0, NAN, NAN], 1),
        ([60.0, 50.0, 40.0, NAN], 0),
    ],
)
def test_measures_that_are_nan_where_nothing_was_measured(
    tmp_path: Path, form: str, fids: list[float], num_missing: int
) -> None:
    log = read_log(written(tmp_path, f"log.{form}", losses_with_fid(fids, form=form)))
    found = [numbers["measure/fid"].mean for _, numbers in log.rows if "measure/fid" in numbers]
    assert len(found) == len(fids) - num_missing
    assert len(log.rows) == len(fids)
    said = f"{num_missing:,} values of fid that are NaN are taken for rows in which it was not measured"
    assert [note for note in log.notes if "NaN" in note] == [said] * (num_missing > 0)
    detectors = {alarm.detector for alarm in replay(log).alarms}
    assert ("not_finite" in detectors) == (num_missing < sum(map(math.isnan, fids)))
    assert num_missing == 0 or len(found) > 3 or "past_its_best" not in detectors


RARE_LOSS = [1.0, *[NAN] * 4] * 3


@pytest.mark.parametrize("form", ["csv", "jsonl"])
@pytest.mark.parametrize(
    ("name", "full", "called"),
    [
        ("g_loss", G, "G's loss"),
        ("d_loss", D, "D's loss"),
        ("d_accuracy", "d/accuracy", "d/accuracy"),
        ("d_grad_norm", "d/grad_norm", "d/grad_norm"),
    ],
)
@pytest.mark.parametrize(
    ("values", "num_missing"),
    [
        (RARE_LOSS, 12),  # n_critic = 5
        (RARE_LOSS[1:], 12),
        ([*RARE_LOSS, *[NAN] * 9], 8),  # and the run has diverged
        ([1.0, NAN, 1.0, 1.0], 1),
        ([1.0, 1.0, 1.0, NAN], 0),
        ([1.0, NAN, 1.0, NAN, NAN], 1),
        ([1.0, 1.0, NAN, math.inf], 0),
        ([NAN] * 5, 0),
        ([1.0, math.inf, 1.0, -math.inf, 1.0], 0),
    ],
)
def test_nan_between_finite_values_is_not_logged(
    tmp_path: Path, form: str, name: str, full: str, called: str, values: list[float], num_missing: int
) -> None:
    other = "g_loss" if name != "g_loss" else "d_loss"
    rows = [{"step": 100 * k, other: 0.7, name: value} for k, value in enumerate(values)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if form == "csv":
        text = f"step,{other},{name}\n" + "".join(f"{row['step']},0.7,{row[name]}\n" for row in rows)
    log = read_log(written(tmp_path, f"log.{form}", text))
    found = [numbers[full].mean for _, numbers in log.rows if full in numbers]
    assert len(found) == len(values) - num_missing
    assert len(log.rows) == len(values)
    said = f"{num_missing:,} values of {called} that are NaN are taken for rows in which it was not logged"
    assert [note for note in log.notes if "NaN" in note] == [said] * (num_missing > 0)
    alarms = {alarm.detector for alarm in replay(log).alarms}
    assert ("not_finite" in alarms) == (not all(map(math.isfinite, found)))


@pytest.mark.parametrize("placeholder", [0, -1, "0.0", "-1.0"])
def test_a_fid_of_0_or_less_is_not_measured(tmp_path: Path, placeholder: float | str) -> None:
    fids = [placeholder, placeholder, 90, placeholder, 70, placeholder, 60]
    lines = "".join(f"{100 * k},0.7,{fid},{-0.001 * k}\n" for k, fid in enumerate(fids))
    log = read_log(written(tmp_path, "log.csv", f"step,d_loss,fid,kid\n{lines}"))
    assert [numbers["measure/fid"].mean for _, numbers in log.rows if "measure/fid" in numbers] == [90, 70, 60]
    assert sum("measure/kid" in numbers for _, numbers in log.rows) == 7
    assert log.notes == ("4 values of fid that are 0 or less are taken for rows in which it was not measured",)
    assert "past_its_best" not in {alarm.detector for alarm in replay(log).alarms}


def test_a_log_of_placeholders_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no loss, and no FID above 0"):
        read_log(written(tmp_path, "log.csv", "step,fid\n1,0\n2,0\n"))


def test_a_log_of_measures_alone_keeps_nan(tmp_path: Path) -> None:
    log = read_log(written(tmp_path, "log.csv", "step,fid\n" + "".join(f"{k},nan\n" for k in range(9))))
    assert all(math.isnan(numbers["measure/fid"].mean) for _, numbers in log.rows)


@pytest.mark.parametrize("form", ["csv", "jsonl", "log"])
def test_a_log_whose_newest_line_comes_first_is_read_from_its_end(tmp_path: Path, form: str) -> None:
    lines = [(100 * k, 0.7 - 0.01 * k) for k in range(9)]
    texts = {
        "csv": ["step,d_loss", *(f"{step},{loss}" for step, loss in reversed(lines))],
        "jsonl": [json.dumps({"step": step, "d_loss": loss}) for step, loss in reversed(lines)],
        "log": [f"step: {step}, d_loss: {loss}" for step, loss in reversed(lines)],
    }
    log = read_log(written(tmp_path, f"log.{form}", "\n".join(texts[form])))
    assert plain(log) == [(step, {D: loss}) for step, loss in lines]
    assert "step decreases from line to line: the log is read from its end" in log.notes


def test_parts_of_a_loss_in_lines_of_a_reversed_log_are_joined(tmp_path: Path) -> None:
    lines = "".join(f"{step},0.7,\n{step},,1.5\n" for step in (400, 300, 200, 100))
    log = read_log(written(tmp_path, "log.csv", f"step,d_loss,g_loss\n{lines}"))
    assert plain(log) == [(step, {D: 0.7, G: 1.5}) for step in (100, 200, 300, 400)]
