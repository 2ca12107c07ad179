"""A run on disk: its folder, its checkpoints, and what can be made of them (samples, codes, figures)."""
