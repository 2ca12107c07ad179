"""A run on disk: its folder and checkpoints, and what is computed from them (samples, latent codes, measures)."""
