"""Alignment of two sets of vectors, such as the words of two languages, without known pairs (Conneau et al. 2018).

`neighbours.py` finds nearest neighbours between both sets, `refinement.py` fits and refines a map, and `dictionary.py`
compares its translations with known ones. These functions of vectors need no run.
"""
