"""Sizes and durations as text: one form, and what lsblk and df print instead."""

import ast
import math
import re
from pathlib import Path

import pandas as pd
import pytest
from disks import partitioned
from hypothesis import given
from hypothesis import strategies as st

from cloudlab import tools, units
from cloudlab.sizes import parse_size
from cloudlab.units import KIB, MIB

GIB, TIB = 1 << 30, 1 << 40
PACKAGE = Path(units.__file__).parent


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (374784, "366 KiB"),
        (4 * MIB, "4.0 MiB"),
        (int(99.94 * MIB), "99.9 MiB"),
        (int(99.96 * MIB), "100 MiB"),
        (206569472, "197 MiB"),
        (1024 * MIB - 1, "1.0 GiB"),
        (2097152000, "2.0 GiB"),
        (21359476224, "19.9 GiB"),
        (20 * GIB, "20.0 GiB"),
        (2 * TIB, "2.0 TiB"),
        (-3 * MIB, "-3.0 MiB"),
        (1 << 80, "1048576 EiB"),
        (pd.NA, "unknown"),
        (None, "unknown"),
        (float("nan"), "unknown"),
        (float("inf"), "unknown"),
        (float("-inf"), "unknown"),
        (-0.4, "0 B"),
        (-0.6, "-1 B"),
    ],
)
def test_a_size_has_one_form(size, text):
    assert units.format_bytes(size) == text


@pytest.mark.parametrize(
    ("sizes", "text"),
    [
        ((1 << 30, 20 << 30), ("1.0 GiB", "20.0 GiB")),
        ((20 << 30, (20 << 30) + 512), ("21,474,836,480 bytes", "21,474,836,992 bytes")),
    ],
)
def test_two_sizes_are_told_apart(sizes, text):
    assert units.format_two(*sizes) == text


def test_byte_counts_in_sentences_have_separators():
    without = [
        f"{path.name}:{one.lineno}: {ast.unparse(one)}"
        for path in PACKAGE.rglob("*.py")
        for text in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(text, ast.JoinedStr)
        for parts in [[None, *ast.iter_child_nodes(text), None]]
        for before, one, after in zip(parts, parts[1:], parts[2:], strict=False)
        if isinstance(one, ast.FormattedValue)
        and (re.match(r" (bytes|sectors)\b", words(after)) or words(before).endswith(" byte "))
        and "," not in ast.unparse(one.format_spec or ast.Constant(""))
        and not words(before).endswith("2^")
    ]
    assert without == []


def words(part):
    """Return a part of an f-string that is words, else nothing."""
    return part.value if isinstance(part, ast.Constant) else ""


@pytest.mark.parametrize(
    ("size", "lsblk", "df"),
    [
        (0, "0B", "0"),
        (512, "512B", "512"),
        (1024, "1K", "1.0K"),
        (2040913920, "1.9G", "2.0G"),
        (2097152000, "2G", "2.0G"),
        (21148409856, "19.7G", "20G"),
        (MIB - 512, "1023.5K", "1.0M"),
        (1073686528, "1023.9M", "1.0G"),
        (1073741312, "1024M", "1.0G"),
        (GIB - 1, "1024M", "1.0G"),
        (10 * GIB - 1, "10G", "10G"),
    ],
)
def test_sizes_are_printed_as_the_tools_do(size, lsblk, df):
    assert (units.lsblk_size(size), units.df_size(size)) == (lsblk, df)


@pytest.mark.parametrize("sectors", [2047, 2097049, 2097050, 2097151, 2097152, 4089447])
def test_lsblk_size_is_what_util_linux_prints(tmp_path, sectors):
    # partx prints sizes by the same function, also of a disk that is a file.
    script = f"label: dos\nstart=2048, size={sectors}\n"
    disk = partitioned(tmp_path / "disk", script, 3 * GIB)
    done = tools.run(["partx", "--noheadings", "--output", "SIZE", "--show", disk])
    assert units.lsblk_size(sectors * 512) == done.stdout.strip()


@pytest.mark.parametrize(
    ("size", "layer", "note"),
    [
        # lsblk rounds to the nearest as format_bytes does, df rounds up.
        (21148409856, "filesystem", "df prints 20G"),
        (21148409856, "partition", ""),
        (2040913920, "filesystem", "df prints 2.0G"),
        (2097152000, "partition", ""),
        (20 * GIB, "filesystem", ""),
        (1000 * GIB, "partition", ""),
        (512, "filesystem", ""),
        (pd.NA, "filesystem", ""),
    ],
)
def test_a_tools_own_number_is_mentioned_where_it_differs(size, layer, note):
    assert units.printed_note(size, layer) == note


@pytest.mark.parametrize(
    ("predicted", "measured", "right"),
    [
        ("2G", 2040913920, True),
        ("2.0G", 2040913920, True),
        ("1.9G", 2040913920, True),
        ("2.1G", 2040913920, False),
        ("2G", 2097152000, True),
        ("1.8G", 2097152000, False),
        ("20G", 21358427136, True),
        ("20G", 2046820352, False),
        ("2G", 1600 * MIB, False),
        ("1.1M", 1025 * KIB, True),
        ("0", 0, True),
        ("1G", 0, False),
    ],
)
def test_a_prediction_is_right_as_lsblk_and_df_print_sizes(predicted, measured, right):
    assert units.alike(parse_size(predicted), measured) is right


@pytest.mark.parametrize(
    ("largest", "most", "ticks"),
    [
        (20 * GIB, 4, [0, 5 * GIB, 10 * GIB, 15 * GIB, 20 * GIB]),
        (2 * TIB, 4, [0, 512 * GIB, TIB, 1536 * GIB, 2 * TIB]),
        (MIB, 5, [0, 256 * KIB, 512 * KIB, 768 * KIB, MIB]),
        (3, 8, [0, 1, 2, 3]),
        # 1.25 GiB and 1200 MiB would need more digits than other sizes have.
        (2 * GIB, 8, [0, 512 * MIB, GIB, 1536 * MIB, 2 * GIB]),
        (int(1.3 * GIB), 8, [0, 512 * MIB, GIB]),
    ],
)
def test_ticks_are_round_sizes(largest, most, ticks):
    assert units.byte_ticks(largest, most) == ticks


def test_seconds_have_round_ticks():
    assert units.second_ticks(90, 5) == [0, 20, 40, 60, 80]
    assert units.second_ticks(0.9, 5) == [0, 0.2, 0.4, 0.6, 0.8]
    assert units.second_ticks(49.481, 1) == [0, 40]
    assert units.second_ticks(0.0, 3) == [0, 0.0005, 0.001]
    assert units.second_ticks(math.nextafter(1e6, 0), 1) == [0, 900_000]


@given(largest=st.floats(0.001, 1e6), most=st.integers(1, 20))
def test_two_ticks_of_seconds_at_least(largest, most):
    ticks = units.second_ticks(largest, most)
    assert 2 <= len(ticks) <= most + 1
    assert ticks[-1] <= largest * (1 + 1e-6)


def test_a_tick_is_the_size_in_its_shortest_form():
    assert [units.format_tick(n) for n in (0, 1536 * GIB, 512)] == ["0", "1.5 TiB", "512 B"]
    assert units.format_tick(2112 * MIB) == "2.1 GiB"


@given(largest=st.integers(1, 1 << 60), most=st.integers(1, 20))
def test_ticks_are_sizes_of_one_decimal(largest, most):
    ticks = units.byte_ticks(largest, most)
    assert len(ticks) <= most + 1
    assert all(
        float(units.format_bytes(n).split()[0]) == float(units.format_tick(n).split()[0])
        for n in ticks
    )
