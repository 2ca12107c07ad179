"""Tests that mirror `src/poise/tricks`."""
