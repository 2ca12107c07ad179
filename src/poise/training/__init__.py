"""Training: read `step.py` first; `game.py` is its state, `begin.py` and `loop.py` the run around it."""
