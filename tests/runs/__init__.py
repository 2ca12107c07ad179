"""Tests that mirror `src/poise/runs`."""
