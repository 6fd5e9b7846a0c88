"""What `make demo` and `make test` install is pinned, within the ranges that any other one has."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PINS = [
    Requirement(line)
    for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    if not line.startswith("#")
]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
RANGES = [
    Requirement(line)
    for lines in (
        PROJECT["build-system"]["requires"],
        PROJECT["project"]["dependencies"],
        PROJECT["project"]["optional-dependencies"]["notebook"],
        PROJECT["project"]["optional-dependencies"]["dev"],
    )
    for line in lines
    if not line.startswith("cloudlab")
]


def test_a_pin_is_one_version_from_no_particular_place():
    assert PINS
    for pin in PINS:
        assert re.fullmatch(r"==[^*,]+", str(pin.specifier)), pin
        assert pin.url is None, pin


def test_what_the_project_needs_is_pinned_within_its_range():
    for wanted in RANGES:
        name = canonicalize_name(wanted.name)
        pins = [pin for pin in PINS if canonicalize_name(pin.name) == name]
        assert pins, wanted
        for pin in pins:
            [exactly] = pin.specifier
            assert wanted.specifier.contains(exactly.version), wanted


@pytest.mark.xdist_group("any")
def test_a_group_of_tests_stays_with_one_worker(request):
    """For which pytest-xdist appends the group's name, if pytest lets it."""
    grouped = request.config.getoption("loadgroup", default=False)
    assert request.node.nodeid.endswith("@any") is bool(grouped)
