"""No text of a figure is cut or covered, from tiny disks to huge ones, on slides and pages."""

from __future__ import annotations

import itertools

import figure_tables as tables
import numpy as np
import pandas as pd
import pytest
from figure_tables import GIB, KIB, MIB, TIB
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from cloudlab import figures
from cloudlab.figures import style
from cloudlab.figures.style import LOOKS, SERIES, families, quiet

NAMES = [
    "default",
    "Wurzeldateisystem absichtlich nicht vergrößert (resize_rootfs: false)",
    "ルートパーティションを拡張しない場合のシナリオ",
    "disk as large as the image",
    "growpart-off-and-resize-rootfs-off-both-kept-without-any-space-in-the-name",
    "a wall behind root",
    "btrfs",
    "Grüße",
]


def many_runs(count):
    names = [f"{NAMES[n % 8]}{'' if n < 8 else n}" for n in range(count)]
    return pd.concat(
        [tables.lab_run(f"r{n}", scenario=name) for n, name in enumerate(names)],
        ignore_index=True,
    )


def stage(sizes, *names):
    return sizes[sizes["stage"].isin(names)]


def without_starts(sizes):
    return sizes.drop(columns="start_bytes")


RUN = tables.lab_run()
WHOLE_DISK = tables.whole_disk_run()
UNMEASURED = tables.unmeasured_run()
TWO_BOOTS = pd.concat(
    [tables.stages_table(), tables.stages_table("two", NAMES[1], 1.7)], ignore_index=True
)
MANY_PREDICTIONS = pd.concat(
    [tables.predictions_table().assign(scenario=name) for name in NAMES], ignore_index=True
)
BRIEF = tables.stages_table(factor=0.01)

CASES = {
    "layers-20G": ("layers", (RUN,)),
    "layers-before-only": ("layers", (stage(RUN, "image", "before"),)),
    "layers-unmeasured": ("layers", (UNMEASURED,)),
    "layers-1M": ("layers", (tables.even_run(MIB, 1),)),
    "layers-2T": ("layers", (tables.crowded_run(),)),
    "disk-map-20G": ("disk-map", (RUN,)),
    "disk-map-image": ("disk-map", (tables.with_image(RUN),)),
    "disk-map-deduced": ("disk-map", (tables.lab_run(samples=False),)),
    "disk-map-before-only": ("disk-map", (stage(RUN, "image", "before"),)),
    "disk-map-after-only": ("disk-map", (without_starts(stage(RUN, "after")),)),
    "disk-map-1M-1": ("disk-map", (tables.even_run(MIB, 1),)),
    "disk-map-1M-16": ("disk-map", (tables.even_run(MIB, 16),)),
    "disk-map-2T-1": ("disk-map", (tables.even_run(2 * TIB, 1),)),
    "disk-map-2T-16": ("disk-map", (tables.even_run(2 * TIB, 16),)),
    "disk-map-crowded": ("disk-map", (tables.crowded_run(),)),
    "scenarios-1": ("scenarios", (many_runs(1),)),
    "scenarios-3": ("scenarios", (tables.three_runs(),)),
    "scenarios-8": ("scenarios", (many_runs(8),)),
    "scenarios-20": ("scenarios", (many_runs(20),)),
    "scenarios-unmeasured": ("scenarios", (pd.concat([many_runs(2), WHOLE_DISK, UNMEASURED]),)),
    "timeline": ("timeline", (RUN, tables.stages_table())),
    "timeline-no-stages": ("timeline", (RUN, None)),
    "timeline-flat": ("timeline", (stage(RUN, "image", "before"), tables.stages_table())),
    "timeline-whole-disk": ("timeline", (WHOLE_DISK, tables.stages_table())),
    "timeline-unmeasured": ("timeline", (UNMEASURED, tables.stages_table())),
    "timeline-brief": ("timeline", (RUN, BRIEF)),
    "overlay-1M-1": (
        "overlay-map",
        (tables.extents_table(MIB, 2), tables.partitions_table(MIB, 1)),
    ),
    "overlay-20G-3": (
        "overlay-map",
        (tables.extents_table(20 * GIB, 3), tables.partitions_table(19 * GIB, 3)),
    ),
    "overlay-2T-16": (
        "overlay-map",
        (tables.extents_table(2 * TIB, 5), tables.partitions_table(2 * TIB, 16)),
    ),
    "prediction-2": ("prediction", (tables.predictions_table(),)),
    "prediction-8": ("prediction", (MANY_PREDICTIONS,)),
    "stages-1": ("stages", (tables.stages_table(),)),
    "stages-2": ("stages", (TWO_BOOTS,)),
    "stages-brief": ("stages", (BRIEF,)),
}
LEGIBLE_PT = {"slide": 11.0, "page": 4.5}


def drawn_texts(ax):
    """Return every visible text of the figure with its box in pixels."""
    figure = ax.get_figure(root=True)
    canvas = FigureCanvasAgg(figure)
    with quiet():
        canvas.draw()
        renderer = canvas.get_renderer()
        found = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]
        return [(text, text.get_window_extent(renderer)) for text in found]


def cut(texts, box):
    """Return the texts that leave the box by more than a pixel."""
    return [
        text.get_text()
        for text, e in texts
        if e.x0 < box.x0 - 1 or e.y0 < box.y0 - 1 or e.x1 > box.x1 + 1 or e.y1 > box.y1 + 1
    ]


def covered(texts):
    """Return the pairs of texts that overlap by more than a pixel both ways."""
    return [
        (one.get_text(), two.get_text())
        for (one, a), (two, b) in itertools.combinations(texts, 2)
        if min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1
    ]


@pytest.mark.parametrize("size", ["slide", "page"])
@pytest.mark.parametrize("case", CASES)
def test_no_text_is_cut_or_covered(case, size):
    kind, given = CASES[case]
    ax = figures.KINDS[kind].plot(*given, ax=figures.new_axes(size))
    texts = drawn_texts(ax)

    assert len(texts) >= 3
    assert cut(texts, ax.figure.bbox) == []
    assert covered(texts) == []


@pytest.mark.parametrize("size", LEGIBLE_PT)
@pytest.mark.parametrize("case", CASES)
def test_type_is_large_enough_to_read(case, size):
    kind, given = CASES[case]
    ax = figures.KINDS[kind].plot(*given, ax=figures.new_axes(size))
    smallest = min(text.get_fontsize() for text, _ in drawn_texts(ax))

    assert smallest >= LEGIBLE_PT[size]


@pytest.mark.parametrize("case", CASES)
def test_a_new_figure_has_room_for_its_rows(case):
    kind, given = CASES[case]
    ax = figures.KINDS[kind].plot(*given)
    texts = drawn_texts(ax)

    assert cut(texts, ax.figure.bbox) == []
    assert covered(texts) == []
    assert min(text.get_fontsize() for text, _ in texts) >= 8


def test_a_figure_keeps_inside_the_axes_it_was_given():
    figure = Figure(figsize=(12, 7), dpi=100)
    grid = figure.subplots(2, 2)
    boxes = [ax.get_window_extent().frozen() for ax in grid.flat]
    figures.plot_layers(RUN, grid[0, 0])
    figures.plot_disk_map(RUN, grid[0, 1])
    figures.plot_timeline(RUN, tables.stages_table(), grid[1, 0])
    figures.plot_scenarios(tables.three_runs(), grid[1, 1])

    for ax, box in zip(grid.flat, boxes, strict=True):
        own = [(text, e) for text, e in drawn_texts(ax) if text.axes is ax]
        assert len(own) > 5
        assert cut(own, box) == []
    assert covered(drawn_texts(grid[0, 0])) == []


def boxes_of(ax, look):
    """Return the boxes of a look on the Axes, in points and from the top."""
    FigureCanvasAgg(ax.figure).draw()
    dpi = ax.figure.dpi
    found = [p for p in ax.patches if to_hex(p.get_facecolor()).upper() == LOOKS[look].fill]
    boxes = [p.get_window_extent() for p in found if p.get_window_extent().width * 72 / dpi > 3]
    return sorted(boxes, key=lambda box: (-round(box.y0), box.x0))


def test_what_did_not_change_looks_the_same_beside_widened_partitions():
    ax = figures.plot_disk_map(RUN, figures.new_axes("page"))
    chips = 9
    before, grown, _ = [b for b in boxes_of(ax, "filesystem") if b.height > 30 or b.width > 60][-3:]
    assert len(boxes_of(ax, "filesystem")) <= chips
    assert before.width == pytest.approx(grown.width, abs=0.1)
    assert before.x0 == pytest.approx(grown.x0, abs=0.1)


def test_a_figure_grows_before_its_type_is_too_small_but_not_the_callers():
    ax = figures.plot_scenarios(many_runs(20), figures.new_axes("page"))
    assert ax.figure.get_figheight() > 4
    assert ax.figure.get_figwidth() == pytest.approx(3.3)
    mine = Figure(figsize=(3.3, 2.7), dpi=100)
    figures.plot_scenarios(many_runs(20), mine.subplots())
    assert mine.get_figheight() == pytest.approx(2.7)


def test_looks_of_the_same_hatch_differ_in_black_and_white():
    for one, two in itertools.combinations(SERIES[:16], 2):
        grey = [np.dot(to_rgb(look.fill), [0.299, 0.587, 0.114]) for look in (one, two)]
        assert one.hatch != two.hatch or abs(grey[0] - grey[1]) > 0.1


def test_a_narrow_stage_turns_no_other_name():
    stages = tables.stages_table()
    ax = figures.plot_timeline(RUN, stages, figures.new_axes("slide"))
    turned = {text.get_text() for text, _ in drawn_texts(ax) if text.get_rotation() == 90}
    assert turned <= {"firmware", "kernel", "initramfs", "report"}
    assert "seconds since launch" in [text.get_text() for text, _ in drawn_texts(ax)]


def test_the_overlay_files_growth_is_seen():
    ax = figures.plot_timeline(RUN, None, figures.new_axes("slide"))
    ends = [line.get_ydata() for line in ax.lines if line.get_color() == "#009E73"]
    drawn = max(np.nanmax(y) - np.nanmin(y) for y in ends)
    low, high = ax.get_ylim()
    assert drawn / (high - low) > 0.08


def test_the_grid_is_as_wide_as_the_figure_and_every_writer_is_drawn():
    extents = pd.DataFrame(
        [(0, 64 * KIB, "data"), (5 * MIB, 256 * KIB, "data"), (20 * GIB - KIB, KIB, "data")],
        columns=["start_bytes", "length_bytes", "kind"],
    )
    partitions = pd.DataFrame(
        [("vda14", MIB, 4 * MIB), ("vda15", 5 * MIB, 106 * MIB), ("vda1", 111 * MIB, 19 * GIB)],
        columns=["device", "start_bytes", "size_bytes"],
    )
    ax = figures.plot_overlay_map(extents, partitions, figures.new_axes("slide"))
    texts = [text.get_text() for text, _ in drawn_texts(ax)]
    assert any(text.startswith("outside") for text in texts)
    assert not any(text.startswith("vda14") for text in texts)
    assert ax.get_window_extent().width > 0.8 * ax.figure.bbox.width
    # Cells that are empty, then pale and full ones of vda15 and of what is outside.
    assert len(ax.collections) == 5
    areas = {}
    for drawn in ax.collections[3:]:
        areas[to_hex(drawn.get_facecolor()[0]).upper()] = sum(
            np.ptp(path.vertices[:, 0]) * np.ptp(path.vertices[:, 1]) for path in drawn.get_paths()
        )
    first, second = SERIES[1].fill, "#4D4D4D"
    assert areas[first] / areas[second] == pytest.approx(256 / 65)


def test_small_partitions_stay_visible():
    ax = figures.plot_disk_map(RUN, figures.new_axes("page"))
    FigureCanvasAgg(ax.figure).draw()
    widths = [patch.get_window_extent().width * 72 / 300 for patch in ax.patches]

    assert min(widths) >= 2.0


def test_the_disk_map_is_to_scale():
    ax = figures.plot_disk_map(tables.even_run(64 * GIB, 4), figures.new_axes("slide"))
    FigureCanvasAgg(ax.figure).draw()
    tops = sorted({round(patch.get_window_extent().y1) for patch in ax.patches})
    for top in tops:
        row = [p.get_window_extent() for p in ax.patches if round(p.get_window_extent().y1) == top]
        if len(row) != 5:
            continue
        disk, *parts = sorted(row, key=lambda box: -box.width)
        # Each partition is 16 GiB less a twentieth.
        assert [p.width / disk.width for p in parts] == pytest.approx([0.25 * 0.95] * 4, rel=0.01)
        return
    pytest.fail("no bar with a disk and its four partitions was found")


def test_a_learners_style_is_neither_used_nor_changed():
    import matplotlib as mpl

    with mpl.rc_context({"font.size": 44, "text.usetex": True, "axes.facecolor": "black"}):
        before = dict(mpl.rcParams)
        ax = figures.plot_scenarios(tables.three_runs())
        assert dict(mpl.rcParams) == before
        assert cut(drawn_texts(ax), ax.figure.bbox) == []


def test_a_japanese_name_is_drawn_with_an_installed_font_that_has_it(monkeypatch):
    # The fonts of this host do not matter, nor when matplotlib listed them.
    fonts = [font_manager.FontEntry(name=name) for name in ("DejaVu Sans", "Meiryo")]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", fonts)
    monkeypatch.setattr(style, "_installed_cjk", style._installed_cjk.__wrapped__)
    assert families("Partition") == ["DejaVu Sans"]
    assert families("仮想ディスク") == ["DejaVu Sans", "Meiryo"]


def test_dollar_signs_are_no_formulas():
    ax = figures.plot_scenarios(tables.lab_run(scenario="costs $5, or $x_1$"))
    drawn = [text for text, _ in drawn_texts(ax)]
    assert "costs $5, or $x_1$" in [text.get_text() for text in drawn]
    assert not any(text.get_parse_math() for text in drawn)


def test_a_tick_says_its_size_in_full():
    ax = figures.plot_disk_map(tables.even_run(300 * KIB, 1), figures.new_axes("slide"))
    labels = [label.get_text() for label in ax.get_xticklabels()]
    assert labels[:2] == ["0", "50 KiB"]
