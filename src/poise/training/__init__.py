"""Training runs: `train.py` prepares a run, `trainer.py` is its loop. The training step is in `poise.engine`."""
