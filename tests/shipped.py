"""The shipped recordings, which each test process reads and explains once."""

from functools import cache

import pytest

from cloudlab.course.cases import CASES
from cloudlab.run.value import recorded

#: For tests that change nothing of a run.
recorded = cache(recorded)

#: One of each kind: what grew, LVM, no table, no report.
FEW = {"default", "growpart-off", "lvm", "no-seed", "wall", "whole-disk"}

#: All of them; `make test-fast` takes a few.
EACH_RECORDING = pytest.mark.parametrize(
    "name", [name if name in FEW else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
)
