"""Checks of a recipe before it runs: its players, whether its parts fit together, and what is suspicious about it."""
