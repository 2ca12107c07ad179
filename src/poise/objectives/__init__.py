"""The adversarial costs: what each player pays for what D says. One file per family."""

from poise.parts import offer

__getattr__, __dir__ = offer(__name__)
