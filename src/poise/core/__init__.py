"""The vocabulary of a step and the base classes that every component builds on."""

from poise.retired import attribute_of

__getattr__ = attribute_of(__name__)
