"""How many examples a test is tried with: `make test-fast` takes a part of them."""

import pytest
from hypothesis import settings


def examples(percent):
    """Have a test tried with this percentage of the usual number of examples."""
    return settings(max_examples=max(1, settings.default.max_examples * percent // 100))


def few_pairs(one, other, every):
    """Return all pairs of two lists, of which `make test-fast` takes one in ``every``.

    Those are spread so that each value of both lists is among them.
    """
    slow = pytest.mark.slow
    return [
        pytest.param(first, second, marks=() if (row + column) % every == 0 else slow)
        for row, first in enumerate(one)
        for column, second in enumerate(other)
    ]


def few(values, every):
    """Return test parameters, of which `make test-fast` takes the first in each ``every``."""
    slow = pytest.mark.slow
    return [
        value if number % every == 0 else pytest.param(value, marks=slow)
        for number, value in enumerate(values)
    ]
