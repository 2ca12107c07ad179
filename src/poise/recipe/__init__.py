"""Recipes: what a run is made of, as data.

`text.py` reads TOML and applies `--set`, `shipped.py` knows the files that come along (neither imports
torch), `model.py` is the recipe itself, `read.py` turns text into it with errors made for people, `fit.py`
decides what fits together.
"""
