"""The playground: a learner chooses a game on points in the plane, and a worker process trains it, step by step.

`options.py` lists what may be chosen, `commands.py` is the schema of what the page may ask for, `table.py` makes a
recipe of it, `games.py` trains one or two such recipes in turns, and `worker.py` is the process: commands as lines of
JSON on stdin, replies on stdout. The first three import no torch, because `poise.web` uses them.
"""
