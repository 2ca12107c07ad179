"""Recipes: the description of a run as data.

`toml.py` reads TOML and applies `--set`, and `shipped.py` finds the recipes of the package; neither imports torch.
`model.py` defines the recipe itself, `decode.py` validates a table into one, with readable errors, and `checks/`
decides what fits together.
"""
