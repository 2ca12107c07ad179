"""Fixtures of the contract tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from contracts.tiny import one_thread, own_convolutions


@pytest.fixture(autouse=True)
def _fast_kernels() -> Iterator[None]:
    with one_thread(), own_convolutions():
        yield
