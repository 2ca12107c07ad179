"""The tricks: one file each, with the formula, then the recipe entry, then the module that acts."""

from poise.parts import offer

__getattr__, __dir__ = offer(__name__)
