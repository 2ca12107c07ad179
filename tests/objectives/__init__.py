"""Tests of `src/poise/objectives`."""
