"""Tests that mirror `src/poise/networks`."""
