"""Helpers that know nothing of GANs: files, locks, printing, plotting, caching, progress."""
