"""Helpers that are independent of GANs: files, locks, printing, plotting, caching and progress."""
