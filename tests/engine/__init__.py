"""Tests that mirror `src/poise/engine`."""
