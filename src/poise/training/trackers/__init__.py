"""Experiment trackers: where the rows, measures and sample grids of a run are logged beside its own files."""
