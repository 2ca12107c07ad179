"""Measures of the quality, variety and novelty of samples, as functions of features, points or classes.

Start with `context.py`, which holds what a measure is computed from, and `catalogue.py`, which lists all measures. Each
other module holds one family of measures, its formulas first. A value means little without its floor, the name of the
features and the number of samples, so `Evaluator.measure` returns all of them.
"""
