"""Measures: how good, how varied, how new samples are, as functions of features, points or classes.

Read `context.py` for what is measured and `catalogue.py` for all that can be; each other file is one family, its
formulas first. A figure without its floor, its features' name and its n says little, so `measured` gives all of them.
"""
