"""Tests that every component of a family must pass, on tiny games (`tiny.py`)."""
