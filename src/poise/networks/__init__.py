"""The players' networks: one file per family, each with its two recipe entries and its two modules."""

from poise.parts import offer

__getattr__, __dir__ = offer(__name__)
