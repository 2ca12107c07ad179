"""Tests that mirror `src/poise/export`."""
