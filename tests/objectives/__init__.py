"""Tests that mirror `src/poise/objectives`."""
