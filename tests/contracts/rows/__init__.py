"""The rows of the exam that every trick sits (`test_tricks.py`), by what they are about; each module has a `ROWS`."""

from pkgutil import iter_modules

import pytest

pytest.register_assert_rewrite(*(f"{__name__}.{module.name}" for module in iter_modules(__path__)))
