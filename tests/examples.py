"""How many examples Hypothesis makes up: `make test-fast` asks for a fifth of them."""

from hypothesis import settings


def examples(percent):
    """Have a test tried with this percentage of the usual number of examples."""
    return settings(max_examples=max(1, settings.default.max_examples * percent // 100))
