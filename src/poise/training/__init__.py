"""Training: `step.py` is the game (read it first), `game.py` its state, `loop.py` the run around it."""
