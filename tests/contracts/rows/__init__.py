"""The rows of the contract that every trick must meet (`test_tricks.py`), by subject; each module has a `ROWS`."""

from pkgutil import iter_modules

import pytest

pytest.register_assert_rewrite(*(f"{__name__}.{module.name}" for module in iter_modules(__path__)))
