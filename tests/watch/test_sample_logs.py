"""Logs in the exact formats of other trainers, made here, with all rows that must be read from them without options."""

# ruff: noqa: E501 (the lines of logs are as long as they are)

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from torch.utils.tensorboard import SummaryWriter

from poise.errors import DataError, PoiseError
from poise.watch.logs import Log, read_log
from poise.watch.replay import replay

D, G, FID, R_T = "d/adversarial", "g/adversarial", "measure/fid", "d/real_accuracy"
Rows = list[tuple[int, dict[str, float]]]


class Sample(NamedTuple):
    """A log: its file (or files of a folder) with their text, the rows that must be read, the family, and a note."""

    files: dict[str, str]
    rows: Rows
    family: str | None = None
    note: str = ""


HALVED = "D's loss is halved"
SAMPLES: dict[str, Sample] = {
    "DCGAN-tensorflow, text": Sample(
        {
            "train.log": "Epoch: [ 0] [   0/ 546] time: 4.4012, d_loss: 1.54000000, g_loss: 0.70000000\n"
            "Epoch: [ 0] [   1/ 546] time: 5.1020, d_loss: 1.42000000, g_loss: 0.75000000\n"
            "[Sample] d_loss: 9.00000000, g_loss: 9.00000000\n"
            "Epoch: [ 1] [   0/ 546] time: 300.9, d_loss: 1.30000000, g_loss: 0.80000000\n"
        },
        [(0, {D: 0.77, G: 0.7}), (1, {D: 0.71, G: 0.75}), (546, {D: 0.65, G: 0.8})],
        "logistic",
        HALVED,
    ),
    "CycleGAN": Sample(
        {
            "loss_log.txt": "================ Training Loss (Sun Nov 29 08:00:00 2026) ================\n"
            + "".join(
                f"(epoch: {e}, iters: {i}, time: 0.301, data: 0.204) D_A: 0.400 G_A: 0.300 cycle_A: 1.200 idt_A: 0.600 "
                f"D_B: 0.200 G_B: 0.500 cycle_B: 1.100 idt_B: 0.500 \n"
                for e in (1, 2)
                for i in (100, 200, 300)
            )
        },
        [(step, {D: 0.15, G: 0.2}) for step in (100, 200, 300, 400, 500, 600)],
        "least_squares",
        "the losses of D and G are halved: squares have no factor of 1/2 in CycleGAN (otherwise pass --no-sum)",
    ),
    "pix2pix": Sample(
        {
            "loss_log.txt": "(epoch: 1, iters: 100, time: 0.172, data: 0.331) G_GAN: 0.813 G_L1: 12.370 D_real: 0.600 "
            "D_fake: 0.800 \n(epoch: 1, iters: 200, time: 0.172, data: 0.331) G_GAN: 1.5 G_L1: 9.0 D_real: 0.5 D_fake: 0.1 \n"
        },
        [(100, {D: 0.7, G: 0.813}), (200, {D: 0.3, G: 1.5})],
    ),
    "BigGAN-PyTorch, printed": Sample(
        {
            "big.log": "     0/15313 (  0.00%) (TE/ETC: 0:01 / 2:00) itr: 100, G_loss : +0.100, D_loss_real : +0.900, "
            "D_loss_fake : +1.100\n     1/15313 (  0.01%) itr: 101, G_loss : -0.200, D_loss_real : +0.500, D_loss_fake : +0.700\n"
        },
        [(100, {D: 1.0, G: 0.1}), (101, {D: 0.6, G: -0.2})],
    ),
    "BigGAN-PyTorch, a folder": Sample(
        {
            "G_loss.log": "0: 1.000e-01\n100: -2.000e-01\n",
            "D_loss_real.log": "0: 9.000e-01\n100: 5.000e-01\n",
            "D_loss_fake.log": "0: 1.100e+00\n100: 7.000e-01\n",
            "G_linear.sv0.log": "0: 3.000e+00\n100: 3.100e+00\n",
            "metalog.txt": "datetime: 2026-11-29\nconfig: {}\n",
        },
        [(0, {D: 1.0, G: 0.1}), (100, {D: 0.6, G: -0.2})],
    ),
    "BigGAN-PyTorch, FID": Sample(
        {
            "x_log.jsonl": '{"itr": 1000, "IS_mean": 5.0, "IS_std": 0.1, "FID": 60.5, "_stamp": 1.6e9}\n'
            '{"itr": 2000, "IS_mean": 6.0, "IS_std": 0.1, "FID": 40.25, "_stamp": 1.6e9}\n'
        },
        [(1000, {FID: 60.5}), (2000, {FID: 40.25})],
    ),
    "StudioGAN, old": Sample(
        {
            "a.log": "[INFO] 2021-05-03 10:11:12 > Step:     100 Progress: 0.1% Elapsed: 0:01:02 temperature: No "
            "ada_p: No Discriminator_loss: 1.9 Generator_loss: 0.1 \n[INFO] 2021-05-03 10:12:12 > Step:     200 Progress: 0.2% "
            "Elapsed: 0:02:04 temperature: No ada_p: No Discriminator_loss: 1.5 Generator_loss: -0.2 \n"
        },
        [(100, {D: 0.95, G: 0.1}), (200, {D: 0.75, G: -0.2})],
        None,
        HALVED,
    ),
    "StudioGAN, new": Sample(
        {
            "a.log": "[INFO] 2023-01-01 10:00:00 > Step:    100 Progress: 0.1% Elapsed: 0:01:02 Gen_loss: 0.1 Dis_loss: 1.9 "
            "Cls_loss: N/A Topk: N/A ada_p: N/A \n[INFO] 2023-01-01 10:01:00 > FID score (Step: 100, Using train moments): 45.3\n"
            "[INFO] 2023-01-01 10:01:00 > Best FID score (Step: 100, Using train moments): 45.3\n"
            "[INFO] 2023-01-01 10:02:00 > Step:    200 Progress: 0.2% Elapsed: 0:02:02 Gen_loss: -0.2 Dis_loss: 1.5 "
            "Cls_loss: N/A Topk: N/A ada_p: N/A \n[INFO] 2023-01-01 10:03:00 > FID score (Step: 200, Using train moments): 40.1\n"
            "[INFO] 2023-01-01 10:01:00 > Best FID score (Step: 200, Using train moments): 40.1\n"
        },
        [(100, {D: 0.95, G: 0.1, FID: 45.3}), (200, {D: 0.75, G: -0.2, FID: 40.1})],
        None,
        HALVED,
    ),
    "StudioGAN, with a class loss": Sample(
        {"a.log": "Step:    100 Progress: 0.1% Elapsed: 0:01:02 Gen_loss: 0.1 Dis_loss: 1.9 Cls_loss: 2.3 Topk: 64 \n"},
        [(100, {D: 0.95, G: 0.1})],
        None,
        "may include a class loss, as there is a column Cls_loss",
    ),
    "Chainer's log": Sample(
        {
            "log": json.dumps(
                [
                    {"gen/loss": 0.7, "dis/loss": 1.4, "epoch": 0, "iteration": 100, "elapsed_time": 9.1},
                    {"gen/loss": 0.9, "dis/loss": 1.2, "epoch": 0, "iteration": 200, "elapsed_time": 18.0},
                ],
                indent=4,
            )
        },
        [(100, {D: 0.7, G: 0.7}), (200, {D: 0.6, G: 0.9})],
        "logistic",
        HALVED,
    ),
    "Keras' CSVLogger": Sample(
        {"training.csv": "epoch,d_loss,g_loss\n0,0.6931,0.75\n1,0.5,1.0\n"},
        [(1, {D: 0.6931, G: 0.75}), (2, {D: 0.5, G: 1.0})],
    ),
    "Lightning's metrics.csv": Sample(
        {
            "metrics.csv": "d_loss_epoch,d_loss_step,epoch,g_loss_epoch,g_loss_step,step\n,0.5,0,,,49\n,,0,,1.5,49\n"
            ",0.25,0,,,99\n,,0,,2.5,99\n0.4,,0,2.0,,99\n"
        },
        [(49, {D: 0.5, G: 1.5}), (99, {D: 0.25, G: 2.5})],
    ),
    "StyleGAN3's stats.jsonl": Sample(
        {
            "stats.jsonl": "".join(
                json.dumps(
                    {
                        name: {"num": 64, "mean": mean, "std": 0.1}
                        for name, mean in {
                            "Loss/scores/fake": -k,
                            "Loss/signs/fake": -0.5,
                            "Loss/scores/real": k / 2,
                            "Loss/signs/real": 0.2 * k,
                            "Loss/G/loss": 0.75,
                            "Loss/D/loss": 1.5 / k,
                            "Progress/tick": k,
                            "Progress/kimg": 4.0 * k,
                        }.items()
                    }
                    | {"timestamp": 1.6e9}
                )
                + "\n"
                for k in (1, 2)
            )
        },
        [
            (4, {D: 0.75, G: 0.75, R_T: 0.6, "d/real_score": 0.5, "d/fake_score": -1.0}),
            (8, {D: 0.375, G: 0.75, R_T: 0.7, "d/real_score": 1.0, "d/fake_score": -2.0}),
        ],
        "logistic",
        HALVED,
    ),
    "StyleGAN3's metric-fid50k_full.jsonl": Sample(
        {
            "metric-fid50k_full.jsonl": "".join(
                json.dumps(
                    {
                        "results": {"fid50k_full": fid},
                        "metric": "fid50k_full",
                        "total_time": 700.5,
                        "num_gpus": 8,
                        "snapshot_pkl": f"network-snapshot-{kimg:06d}.pkl",
                        "timestamp": 1.6e9,
                    }
                )
                + "\n"
                for kimg, fid in ((0, 320.5), (200, 45.25))
            )
        },
        [(0, {FID: 320.5}), (200, {FID: 45.25})],
    ),
    "W&B, a table": Sample(
        {
            "wandb_export.csv": '"Step","dcgan-1 - _step","dcgan-1 - _step__MIN","dcgan-1 - d_loss","dcgan-1 - d_loss__MIN",'
            '"dcgan-1 - d_loss__MAX","dcgan-1 - g_loss"\n"0","0","0","0.7","0.1","9","0.75"\n"50","50","50","0.5","0.1","9","1"\n'
        },
        [(0, {D: 0.7, G: 0.75}), (50, {D: 0.5, G: 1.0})],
    ),
    "W&B, the history": Sample(
        {
            "history.json": json.dumps(
                [
                    {"_step": 0, "_runtime": 3, "_timestamp": 1.6e9, "train/d_loss": 0.7, "train/g_loss": 0.75},
                    {"_step": 50, "_runtime": 6, "_timestamp": 1.6e9, "train/d_loss": 0.5, "train/g_loss": 1.0},
                ]
            )
        },
        [(0, {D: 0.7, G: 0.75}), (50, {D: 0.5, G: 1.0})],
    ),
    "MLflow, the folder of a run": Sample(
        {
            "meta.yaml": "run_id: abc\n",
            "metrics/d_loss": "1600000000000 0.7 0\n1600000001000 0.5 50\n",
            "metrics/train/g_loss": "1600000000000 0.75 0\n1600000001000 1.0 50\n",
            "params/lr": "0.0002",
        },
        [(0, {D: 0.7, G: 0.75}), (50, {D: 0.5, G: 1.0})],
    ),
    "MLflow, a long table": Sample(
        {
            "mlflow.csv": "key,value,timestamp,step\nd_loss,0.7,16,0\nd_loss,0.5,17,50\ng_loss,0.75,16,0\ng_loss,1.0,17,50\n"
        },
        [(0, {D: 0.7, G: 0.75}), (50, {D: 0.5, G: 1.0})],
    ),
    "TensorBoard's CSV": Sample(
        {"run-dcgan-tag-Loss_D.csv": "Wall time,Step,Value\n1600000000.1,0,0.7\n1600000001.1,50,0.5\n"},
        [(0, {D: 0.7}), (50, {D: 0.5})],
    ),
    "lightweight-gan": Sample(
        {
            "a.log": "G: -0.50 | D: 1.20 | GP: 3.10 | SS: 0.10 | FID: 45.20\n" * 2
            + "G: 0.25 | D: 1.00 | GP: 3.0 | FID: 45.20\n"
        },
        [(1, {D: 0.6, G: -0.5, FID: 45.2}), (2, {D: 0.6, G: -0.5}), (3, {D: 0.5, G: 0.25})],
        "hinge",
        "2 repeated values of fid",
    ),
    "lightweight-gan's fid_scores.txt": Sample(
        {"fid_scores.txt": "1000,120.5\n2000,80.25\n"}, [(1000, {FID: 120.5}), (2000, {FID: 80.25})]
    ),
    "PyTorch's DCGAN tutorial": Sample(
        {
            "a.log": "[0/5][0/1583]\tLoss_D: 1.8000\tLoss_G: 5.6000\tD(x): 0.5343\tD(G(z)): 0.5771 / 0.0136\n"
            "[1/5][50/1583]\tLoss_D: 0.4000\tLoss_G: 4.0000\tD(x): 0.9\tD(G(z)): 0.1 / 0.01\n"
        },
        [(0, {D: 0.9, G: 5.6}), (1633, {D: 0.2, G: 4.0})],
        "logistic",
        HALVED,
    ),
    "a total and its parts": Sample(
        {"a.csv": "step,d_loss,d_loss_real,d_loss_fake,g_loss\n1,1.0,0.4,0.6,1\n2,0.5,0.2,0.3,2\n"},
        [(1, {D: 0.5, G: 1.0}), (2, {D: 0.25, G: 2.0})],
        None,
        "it is the sum of d_loss_real and d_loss_fake",
    ),
    "a total that is the mean of its parts": Sample(
        {"a.csv": "step,d_loss,d_loss_real,d_loss_fake\n1,0.5,0.4,0.6\n2,0.25,0.2,0.3\n"},
        [(1, {D: 0.5}), (2, {D: 0.25})],
    ),
    "a start at 2 ln 2": Sample(
        {"a.csv": "step,d_loss,g_loss\n" + "".join(f"{k},1.4,0.7\n" for k in range(4))},
        [(k, {D: 0.7, G: 0.7}) for k in range(4)],
        None,
        "it starts near 2 ln 2",
    ),
    "ESRGAN, whose D_real and D_fake are scores": Sample(
        {
            "a.log": "20-01-01 10:00:00.123 - INFO: <epoch:  0, iter:     100, lr:1.000e-04> l_g_pix: 2.0e-02 l_g_gan: 3.0e-02 "
            "l_d_real: 6.0e-01 l_d_fake: 4.0e-01 D_real: 1.5e-01 D_fake: -2.5e-01 \n"
        },
        [(100, {D: 0.5, G: 0.03})],
        None,
        "the mean of l_d_real and l_d_fake",
    ),
    "WGAN-GP's costs": Sample(
        {"a.csv": "iter,D_cost,G_cost,Wasserstein_D\n50,-5.0,1.0,5.5\n100,-4.0,2.0,4.5\n"},
        [(50, {D: -5.0, G: 1.0, "d/wasserstein": 5.5}), (100, {D: -4.0, G: 2.0, "d/wasserstein": 4.5})],
        "wasserstein",
    ),
    "names before numbers, without a sign": Sample(
        {
            "a.log": "step    100 | d_loss 0.6000 | g_loss 1.5000 | 3.1 it/s\nstep    200 | d_loss 0.5000 | g_loss 1e-1 |\n"
        },
        [(100, {D: 0.6, G: 1.5}), (200, {D: 0.5, G: 0.1})],
    ),
    "WGAN-GP of its authors": Sample(
        {
            "a.log": "iter 100\ttime\t0.1\ttrain disc cost\t-5.5\twasserstein distance\t5.5\niter 200\ttrain disc cost\t-4.5\n"
        },
        [(100, {D: -5.5, "d/wasserstein": 5.5}), (200, {D: -4.5})],
        "wasserstein",
    ),
    "StarGAN, with a step in brackets": Sample(
        {
            "a.log": "Elapsed [0:01:02], Iteration [10/2000], D/loss_real: 0.5000, D/loss_fake: 0.7000, D/loss_gp: 0.01\n"
        },
        [(10, {D: 0.6})],
        None,
        "the mean of D/loss_real and D/loss_fake",
    ),
    "numbers in brackets": Sample(
        {"a.log": "[0/9][3/10] D/loss: [0.5000] G/loss: [1.25]\n[2/9][3/10] D/loss: [0.25] G/loss: [1e-1]\n"},
        [(3, {D: 0.5, G: 1.25}), (23, {D: 0.25, G: 0.1})],
    ),
    "SPADE": Sample(
        {
            "loss_log.txt": "(epoch: 1, iters: 100, time: 0.3) GAN: 0.9 GAN_Feat: 8.2 VGG: 7.1 D_Fake: 0.5 D_real: 0.7 \n"
        },
        [(100, {D: 0.6, G: 0.9})],
    ),
    "Keras' progress": Sample(
        {"a.log": "Epoch 1/9\n938/938 [=====] - 30s 31ms/step - d_loss: 0.6000 - g_loss: 0.9\n"},
        [(1, {D: 0.6, G: 0.9})],
    ),
    "StyleGAN's log.txt": Sample(
        {
            "log.txt": "tick 1     kimg 140.3    lod 6.00  minibatch 128  time 1m 20s  sec/tick 80.0  maintenance 0.0\n"
            "network-snapshot-000140        time 5m 31s       fid50k 235.1231\n"
            "tick 2     kimg 280.3    lod 5.00  minibatch 128  time 2m 20s  sec/tick 80.0  maintenance 0.0\n"
            "network-snapshot-000280        time 5m 31s       fid50k 120.5\n"
        },
        [(140, {FID: 235.1231}), (280, {FID: 120.5})],
    ),
    "StyleGAN's metric-fid50k.txt": Sample(
        {
            "metric-fid50k.txt": "network-snapshot-000140        time 5m 31s       fid50k 235.1231\n"
            "network-snapshot-000280        time 5m 31s       fid50k 120.5\n"
        },
        [(140, {FID: 235.1231}), (280, {FID: 120.5})],
    ),
    "VQGAN, whose D is trained late": Sample(
        {
            "metrics.csv": "epoch,step,train/disc_loss,train/g_loss,train/disc_factor\n"
            + "".join(f"0,{step},0.0,0.01,0.0\n" for step in range(49, 249, 50))
            + "1,249,0.75,0.1,1.0\n1,299,0.5,0.2,1.0\n"
        },
        [(249, {D: 0.75, G: 0.1}), (299, {D: 0.5, G: 0.2})],
        None,
        "D's loss is exactly 0 before step 249",
    ),
    "D's loss at 0 from the first row on": Sample(
        {"a.csv": "step,d_loss\n1,0.0\n2,0.0\n3,0.0\n4,0.0\n5,0.001\n6,0.0\n"},
        [(1, {D: 0}), (2, {D: 0}), (3, {D: 0}), (4, {D: 0}), (5, {D: 0.001}), (6, {D: 0})],
    ),
    "a critic": Sample(
        {"a.csv": "step,critic_loss,g_loss\n1,-5.0,1.0\n2,-4.0,2.0\n"},
        [(1, {D: -5.0, G: 1.0}), (2, {D: -4.0, G: 2.0})],
        "wasserstein",
    ),
    "decimal commas with points in groups": Sample(
        {"a.log": "iter: 1.500 d_loss: 0,693 g_loss: 1,386\niter: 2.500 d_loss: 0,5 g_loss: 2,0\n"},
        [(1500, {D: 0.693, G: 1.386}), (2500, {D: 0.5, G: 2.0})],
        None,
        "decimal commas",
    ),
    "decimal commas between quotes": Sample(
        {"a.csv": 'step,d_loss,g_loss\n1,"0,693","1,386"\n2,"0,5","2,0"\n'},
        [(1, {D: 0.693, G: 1.386}), (2, {D: 0.5, G: 2.0})],
    ),
    "a list among numbers with points": Sample(
        {"a.log": "gpu_ids: 0,1\nstep: 1,500 d_loss: 0.5 g_loss: 1.e-05\nstep: 2,500 d_loss: 0.25 g_loss: 2.5\n"},
        [(1500, {D: 0.5, G: 1e-5}), (2500, {D: 0.25, G: 2.5})],
    ),
    "lines without their step": Sample(
        {"a.log": "step: 10 d_loss: 0.5\ng_loss: 1.5\nstep: 20 d_loss: 0.25\ng_loss: 2.5\n"},
        [(10, {D: 0.5, G: 1.5}), (20, {D: 0.25, G: 2.5})],
    ),
    "resumed within an epoch": Sample(
        {
            "loss_log.txt": "".join(
                f"(epoch: {e}, iters: {i}) D_real: {d} D_fake: {d} G_GAN: 1.0\n"
                for e, i, d in (
                    (1, 100, 1),
                    (1, 200, 2),
                    (2, 100, 3),
                    (2, 200, 4),
                    (2, 100, 5),
                    (2, 200, 6),
                    (3, 100, 7),
                    (3, 200, 8),
                )
            )
        },
        [
            (100, {D: 1, G: 1}),
            (200, {D: 2, G: 1}),
            (300, {D: 5, G: 1}),
            (400, {D: 6, G: 1}),
            (500, {D: 7, G: 1}),
            (600, {D: 8, G: 1}),
        ],
        None,
        "written again",
    ),
}


def rows_of(log: Log) -> Rows:
    return [(step, {name: stat.mean for name, stat in numbers.items()}) for step, numbers in log.rows]


@pytest.mark.parametrize("name", SAMPLES)
def test_all_rows_of_a_sample_log(name: str, tmp_path: Path) -> None:
    sample = SAMPLES[name]
    for file, text in sample.files.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text, "utf-8")
    log = read_log(tmp_path if len(sample.files) > 1 else tmp_path / next(iter(sample.files)))
    found = rows_of(log)
    assert [step for step, _ in found] == [step for step, _ in sample.rows]
    for (_, numbers), (_, expected) in zip(found, sample.rows, strict=True):
        assert numbers == pytest.approx(expected)
    assert log.family == sample.family
    assert sample.note in " ".join(log.notes)
    if sample.note != HALVED:
        assert (HALVED in " ".join(log.notes)) == any(
            word in sample.note for word in ("sum of", "ln 2", "Cls", "repeated")
        )


def test_events_of_dcgan_tensorflow(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path)) as writer:
        for step in (1, 2):
            for tag, value in {
                "d_loss_real": 0.5,
                "d_loss_fake": 0.25 * step,
                "d_loss": 0.5 + 0.25 * step,
                "g_loss": 2.0,
            }.items():
                writer.add_scalar(tag, value, step)
    log = read_log(tmp_path)
    assert rows_of(log) == [(1, {D: 0.375, G: 2.0}), (2, {D: 0.5, G: 2.0})]
    assert list(log.notes) == ["D's loss is halved: it is the sum of d_loss_real and d_loss_fake"]


@pytest.mark.parametrize(
    ("text", "name", "part"),
    [
        ("step: 1 d_loss: 1,386 g_loss: 1,693\n", "a.log", "may be decimal commas"),
        ('step,d_loss\n1,"1,386"\n', "a.csv", "may be decimal commas"),
        ("Step,run-1 - d_loss,run-2 - d_loss\n1,0.5,0.7\n", "a.csv", "several runs"),
    ],
)
def test_unclear_logs_are_refused(text: str, name: str, part: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=part):
        read_log(tmp_path / name)


def test_folders_of_several_runs_or_of_other_logs_are_refused(tmp_path: Path) -> None:
    (tmp_path / "loss_log.txt").write_text("d_loss: 0.5\n")
    with pytest.raises(DataError, match=r"pass one of its files: loss_log\.txt"):
        read_log(tmp_path)
    for run in ("a", "b"):
        (tmp_path / run).mkdir()
        (tmp_path / run / "D_loss.log").write_text("0: 0.5\n")
    with pytest.raises(DataError, match="pass one of its folders: a, b"):
        read_log(tmp_path)


def test_a_folder_of_runs_of_poise_names_the_runs(tmp_path: Path) -> None:
    """Their rows tell more than their TensorBoard events."""
    for run in ("ring", "other"):
        with SummaryWriter(str(tmp_path / run / "tensorboard")) as writer:
            writer.add_scalar("d/adversarial", 0.5, 1)
    (tmp_path / "ring" / "rows.jsonl").write_text("")
    with pytest.raises(DataError, match=r"pass one of its folders: other/tensorboard, ring$"):
        read_log(tmp_path)


def test_a_deeply_nested_document_has_no_rows(tmp_path: Path) -> None:
    for depth in (500, 995, 5000):
        (tmp_path / "a.json").write_text('{"a":' * depth + "1" + "}" * depth)
        with pytest.raises(PoiseError):
            read_log(tmp_path / "a.json")


def test_a_log_of_fid_alone_finds_what_is_past_its_best(tmp_path: Path) -> None:
    path = tmp_path / "fid_scores.txt"
    path.write_text("".join(f"{1000 * k},{fid}\n" for k, fid in enumerate((90, 40, 30, 31, 80, 90, 95, 99))))
    assert [alarm.detector for alarm in replay(read_log(path)).alarms] == ["past_its_best"]


def test_a_sum_can_be_given_or_denied(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("step,d_loss,g_loss\n" + "".join(f"{k},1.4,0.7\n" for k in range(4)))
    assert [numbers[D].mean for _, numbers in read_log(path, is_sum=False).rows] == [1.4] * 4
    path.write_text("step,d_loss,g_loss\n1,3.0,2.0\n")
    assert [numbers[D].mean for _, numbers in read_log(path, is_sum=True).rows] == [1.5]


def test_what_was_understood_is_printed_first(poise: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "loss_log.txt"
    path.write_text(SAMPLES["CycleGAN"].files["loss_log.txt"])
    result = poise("watch", path)
    words = " ".join(result.out.split())
    assert (
        "6 rows up to step 600 (from 100, every 100), loss family: least_squares "
        "(guessed: the columns are those of CycleGAN)" in words
    )
    assert "step: iters D's loss: D_A + D_B, averaged, halved G's loss: G_A + G_B, averaged, halved" in words
    assert words.index("averaged") < words.index("detectors without data")
    found = json.loads(poise("watch", path, "--json", "--no-sum", "--loss-family", "hinge").out)
    assert list(found) == [
        *("rows", "alarms", "columns", "family", "notes"),
        *("family_source", "steps", "inactive_detectors", "has_d_loss"),
    ]
    assert found["steps"] == {"first": 100, "last": 600, "every": 100}
    assert (found["family_source"], found["has_d_loss"]) == ("given", True)
    assert set(found["inactive_detectors"]) >= {"collapse", "d_never_wrong", "past_its_best"}
    assert found["columns"] == {"step": "iters", D: "D_A + D_B, averaged", G: "G_A + G_B, averaged"}
    assert found["family"] == "hinge"


def test_json_tells_health_from_a_log_that_says_nothing(poise: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("step,g_loss\n100,0.7\n")
    found = json.loads(poise("watch", path, "--json").out)
    assert (found["alarms"], found["has_d_loss"], found["family_source"]) == ([], False, "pass --loss-family")
    assert found["steps"] == {"first": 100, "last": 100, "every": None}
    assert "d_at_zero" in found["inactive_detectors"]


@pytest.mark.parametrize("column", ["lpips", "g/diversity"])
def test_only_poises_own_diversity_is_relative_to_real_samples(column: str, tmp_path: Path) -> None:
    """LPIPS of 0.35 is usual; a fall while G's loss falls is a sign in any unit."""
    note = "the unit of lpips is not known: only a fall of the diversity is looked for, and not collapse"

    def alarms(diversity: list[float]) -> set[str]:
        path = tmp_path / "a.csv"
        rows = (f"{50 * k},0.6,{3 - 0.01 * k},{value}\n" for k, value in enumerate(diversity))
        path.write_text(f"step,d_loss,g_loss,{column}\n" + "".join(rows))
        log = read_log(path, {"diversity": column})
        own = column == "g/diversity"
        assert log.notes == (() if own else (note,))
        return {alarm.detector for alarm in replay(log).alarms}

    assert ("collapse" in alarms([0.35] * 60)) == (column == "g/diversity")
    assert "g_falling" in alarms([0.35 - 0.004 * k for k in range(60)])


def test_thresholds_and_windows(poise: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("step,d_loss\n" + "".join(f"{50 * k},0.1\n" for k in range(1, 41)))

    def steps(*options: str) -> list[int]:
        alarms = json.loads(poise("watch", path, "--json", *options).out)["alarms"]
        return [alarm["step"] for alarm in alarms if alarm["detector"] == "d_at_zero"]

    assert steps() == []
    assert len(steps("--threshold", "d_at_zero=0.3")) == 1
    assert steps("--threshold", "d_at_zero=0.3", "--window", "d_at_zero=1000", "--threshold", "collapse=0.4")
    idle = poise("watch", path, "--threshold", "not_finite=3", "--window", "past_its_best=9", "--window", "collapse=9")
    assert [line for line in idle.err.splitlines() if "has no effect" in line] == [
        "--threshold not_finite has no effect: not_finite has no threshold",
        "--window past_its_best has no effect: past_its_best has no window",
    ]
    poise("watch", path, "--threshold", "d_at_zeros=1").assert_error(
        2, "--threshold", "no such detector", "'d_at_zero'"
    )
    poise("watch", path, "--window", "d_at_zero=0").assert_error(2, "--window", "a whole number of steps above 0")
    poise("watch", path, "--threshold", "d_at_zero").assert_error(2, "--threshold", "must be d_at_zero=a number")
