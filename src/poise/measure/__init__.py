"""Measures of the quality, variety and novelty of samples, as functions of features, points or classes.

Start with `context.py`, which holds what a measure is computed from, and `catalogue.py`, which lists all measures. Each
other module holds one family of measures, its formulas first. A value means little without its floor, the name of the
features and the number of samples, so `Evaluator.measure` returns all of them.
"""

from poise.utils.lazy_exports import lazy_exports

__getattr__, __dir__ = lazy_exports(
    __name__,
    ("EvaluationResult", "Evaluator", "Measure", "MeasureConfig", "MeasureResult", "MeasuredValue", "Floor"),
    {
        "absolute_error": "translation",
        "make_extractor": "extractors",
        "psnr": "translation",
        "select_measures": "catalogue",
        "ssim": "translation",
    },
)
