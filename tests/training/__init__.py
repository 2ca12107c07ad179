"""Tests that mirror `src/poise/training`."""
