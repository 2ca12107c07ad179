"""Tests of `src/poise/networks`."""
