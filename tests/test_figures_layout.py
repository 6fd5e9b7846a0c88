"""No text of a figure is cut or covered, from tiny disks to huge ones, in all sizes."""

from __future__ import annotations

import itertools

import figure_tables as tables
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from figure_tables import GIB, KIB, MIB, TIB, covered, cut, drawn_texts, row, sizes_table
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from cloudlab import figures
from cloudlab.figures.canvas import SIZES, STYLES, text_width, wrap
from cloudlab.figures.disks import ruler

NAMES = [
    "default",
    "root filesystem kept at its size on purpose (resize_rootfs: false)",
    "growpart-off-and-resize-rootfs-off-both-kept-without-any-space-in-the-name",
    "a wall behind root",
    "Grüße, $5 and $x_1$",
]
RUN = tables.lab_run()
STAGES = tables.stages_table()
WALL = pd.concat(
    [
        tables.lab_run(
            partition=(tables.PARTITION[0], 8 * GIB), filesystem=(tables.FILESYSTEM[0], 7 * GIB)
        ),
        sizes_table(
            [row("after", "partition", GIB, device="vda2", start_bytes=116391936 + 8 * GIB)]
        ),
    ],
    ignore_index=True,
)


def many_runs(count):
    names = [f"{NAMES[n % 5]}{'' if n < 5 else n}" for n in range(count)]
    runs = [tables.lab_run(f"r{n}", scenario=name) for n, name in enumerate(names)]
    return pd.concat(runs, ignore_index=True)


def sweep(*given):
    return dict(zip(("sizes", "options"), tables.sweep_runs(*given), strict=True))


SWEEP = sweep()
WIDE = sweep(
    [3, 4, 5, 6, 7, 8, 10, 12, 20, 21, 40, 1000, 4096], [*NAMES[:3], "lab-bookworm-ext4-r1"]
)


def stage(sizes, *names):
    return sizes[sizes["stage"].isin(names)]


def overlay(disk, every, count):
    return {
        "extents": tables.extents_table(disk, every),
        "partitions": tables.partitions_table(disk, count),
    }


PREDICTIONS = [tables.predictions_table().assign(scenario=name) for name in NAMES]
BOOTS = [STAGES, tables.stages_table("two", NAMES[1], 1.7)]
CASES = {
    "layers-20G": ("layers", {"sizes": RUN}),
    "layers-unmeasured": ("layers", {"sizes": tables.unmeasured_run()}),
    "layers-2T": ("layers", {"sizes": tables.crowded_run()}),
    "disk-map-image": ("disk-map", {"sizes": tables.with_image(RUN)}),
    "disk-map-deduced": ("disk-map", {"sizes": tables.lab_run(samples=False)}),
    "disk-map-after": ("disk-map", {"sizes": stage(RUN, "after").assign(start_bytes=pd.NA)}),
    "disk-map-lvm": ("disk-map", {"sizes": tables.lvm_run()}),
    "disk-map-wall": ("disk-map", {"sizes": WALL}),
    "disk-map-1M-16": ("disk-map", {"sizes": tables.even_run(MIB, 16)}),
    "disk-map-2T-1": ("disk-map", {"sizes": tables.even_run(2 * TIB, 1)}),
    "disk-map-crowded": ("disk-map", {"sizes": tables.crowded_run()}),
    "scenarios-8": ("scenarios", {"sizes": many_runs(8)}),
    "scenarios-unmeasured": (
        "scenarios",
        {"sizes": pd.concat([many_runs(2), tables.whole_disk_run(), tables.unmeasured_run()])},
    ),
    "timeline": ("timeline", {"sizes": RUN, "stages": STAGES}),
    "timeline-no-stages": ("timeline", {"sizes": RUN, "stages": STAGES.head(0)}),
    "timeline-flat": ("timeline", {"sizes": stage(RUN, "image", "before"), "stages": STAGES}),
    "timeline-unmeasured": ("timeline", {"sizes": tables.unmeasured_run(), "stages": STAGES}),
    "timeline-brief": (
        "timeline",
        {"sizes": RUN.assign(time_s=RUN["time_s"] / 100), "stages": tables.stages_table(factor=0.01)},
    ),
    "overlay-1M": ("overlay-map", overlay(MIB, 2, 1)),
    "overlay-2T": ("overlay-map", overlay(2 * TIB, 5, 16)),
    "prediction-10": ("prediction", {"predictions": pd.concat(PREDICTIONS)}),
    "growth-12": ("growth", SWEEP),
    "growth-wide": ("growth", WIDE),
    "growth-1": ("growth", {"sizes": RUN, "options": tables.options_table()}),
    "growth-unmeasured": (
        "growth", {"sizes": tables.unmeasured_run(), "options": tables.options_table("none")}
    ),
    "matrix-12": ("matrix", SWEEP),
    "matrix-wide": ("matrix", WIDE),
    "matrix-1": ("matrix", {"sizes": RUN, "options": tables.options_table()}),
    "matrix-whole-disk": (
        "matrix", {"sizes": tables.whole_disk_run(), "options": tables.options_table("whole")}
    ),
    "stages-2": ("stages", {"stages": pd.concat(BOOTS, ignore_index=True)}),
}  # fmt: skip
LEGIBLE_PT = {"screen": 8.0, "slide": 8.0, "page": 4.5}
# Each of them with each size, spread over the cases.
STYLE_OF = dict(zip(CASES, itertools.cycle(STYLES), strict=False))


# The narrowest size has least room for its texts; `make test-fast` draws each kind once with it.
FAST = {(case, "page") for case in {kind: case for case, (kind, _) in CASES.items()}.values()}


@pytest.mark.parametrize(
    ("case", "size"),
    [
        pytest.param(*pair, marks=() if pair in FAST else pytest.mark.slow)
        for pair in itertools.product(CASES, SIZES)
    ],
)
def test_no_text_is_cut_or_covered_and_all_is_legible(case, size):
    kind, given = CASES[case]
    settings = {"one": "growpart: {mode: 'off'}\nresize_rootfs: false"}
    plot = figures.plot(kind, given, size=size, style=STYLE_OF[case], settings=settings)
    texts = drawn_texts(plot)

    assert len(texts) >= 3
    assert cut(texts, plot.figure.bbox) == []
    assert covered(texts) == []
    assert min(text.get_fontsize() for text, _ in texts) >= LEGIBLE_PT[size]
    assert plot.figure.get_figwidth() == SIZES[size].width


@pytest.mark.parametrize("layout", [None, "constrained", "tight"])
def test_a_figure_keeps_inside_the_axes_it_was_given(layout):
    figure = Figure(figsize=(12, 7), dpi=100, layout=layout)
    grid = figure.subplots(2, 2)
    figure.draw_without_rendering()
    boxes = [ax.get_window_extent().frozen() for ax in grid.flat]
    plots = [
        figures.plot("layers", {"sizes": RUN}, grid[0, 0]),
        figures.plot("disk-map", {"sizes": RUN}, grid[0, 1]),
        figures.plot("timeline", {"sizes": RUN, "stages": STAGES}, grid[1, 0]),
        figures.plot("scenarios", {"sizes": tables.three_runs()}, grid[1, 1]),
    ]
    texts = drawn_texts(plots[0])

    assert [plot.axes for plot in plots] == list(grid.flat)
    for ax, box in zip(grid.flat, boxes, strict=True):
        own = [(text, e) for text, e in texts if text.axes in (ax, *ax.child_axes)]
        assert len(own) > 5
        assert cut(own, box) == []
    assert covered(texts) == []
    assert tuple(figure.get_size_inches()) == (12, 7)


def test_a_dark_figure_in_a_light_one_is_dark_all_over():
    figure = Figure(figsize=(8, 4), dpi=50)
    left, right = figure.subplots(1, 2)
    box = left.get_window_extent().frozen()
    figures.plot("layers", {"sizes": RUN}, left, style="dark")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[::-1, :, :3]
    inside = pixels[int(box.y0) + 2 : int(box.y1) - 2, int(box.x0) + 2 : int(box.x1) - 2]
    assert inside[0, 0].max() < 64
    assert inside[-1, -1].max() < 64
    assert pixels[0, 0].min() == right.get_facecolor()[0] * 255 == 255


def test_a_slide_keeps_its_shape_and_other_figures_take_what_they_need():
    tall, low = (figures.plot("scenarios", {"sizes": many_runs(n)}) for n in (8, 1))
    assert tall.figure.get_figheight() > 2 * low.figure.get_figheight()
    for count in (1, 8):
        slide = figures.plot("scenarios", {"sizes": many_runs(count)}, size="slide")
        assert slide.figure.get_size_inches().tolist() == [16, 9]


def filled(plot, look):
    """Return the boxes of a look's blocks, but for the legend's, from the top."""
    plot.figure.draw_without_rendering()
    fill = STYLES[plot.style].looks[look].fill.lower()
    boxes = [
        patch.get_window_extent()
        for patch in plot.axes.patches
        if to_hex(patch.get_facecolor()) == fill
        and patch.get_data_transform() == plot.axes.transData
    ]
    return sorted(boxes, key=lambda box: (-round(box.y0), box.x0))


def test_what_did_not_change_looks_the_same_in_each_state():
    plot = figures.plot("disk-map", {"sizes": RUN}, size="page")
    before, grown, after = filled(plot, "filesystem")
    assert before.width == pytest.approx(grown.width, abs=0.1)
    assert before.x0 == pytest.approx(grown.x0, abs=0.1)
    assert after.width > 2 * grown.width


def test_the_disk_map_is_to_scale():
    plot = figures.plot("disk-map", {"sizes": tables.even_run(64 * GIB, 4)})
    (disk,) = {round(box.width, 3) for box in filled(plot, "unallocated") if box.width > 400}
    widths = [box.width / disk for box in filled(plot, "partition")]
    # Each partition is 16 GiB less a twentieth.
    assert widths == pytest.approx([0.25 * 0.95] * 8, rel=1e-3)


def test_blocks_are_labelled_inside():
    plot = figures.plot("disk-map", {"sizes": RUN})
    boxes = {box.x0: box for box in filled(plot, "partition") + filled(plot, "filesystem")}
    labels = {text.get_text(): e for text, e in drawn_texts(plot)}
    for name in ("vda14", "vda15", "vda1 19.9 GiB", "/ 19.6 GiB, 1.1 GiB used (df prints 20G)"):
        inside = [b for b in boxes.values() if b.x0 < labels[name].x0 and labels[name].x1 < b.x1]
        assert inside, name


def test_a_ruler_widens_what_is_small_and_keeps_the_rest_even():
    edges, points, breaks = ruler(1000, 100, {(0, 1): 2, (1, 5): 2, (5, 1000): 2})
    assert np.interp([0, 1, 5, 1000], edges, points) == pytest.approx([0, 2, 4, 100])
    assert np.interp(502.5, edges, points) == pytest.approx(52)
    assert breaks == pytest.approx([4])
    edges, points, breaks = ruler(1000, 100, {(0, 500): 2, (500, 1000): 2})
    assert np.interp(250, edges, points) == pytest.approx(25)
    assert len(breaks) == 0


def test_a_ruler_has_no_room_for_a_partition_of_no_bytes():
    _, with_it, _ = ruler(1000, 100, {(0, 500): 2, (500, 500): 2, (500, 1000): 2})
    _, without, _ = ruler(1000, 100, {(0, 500): 2, (500, 1000): 2})
    assert list(with_it) == list(without)


def test_a_ruler_widens_overlapping_stretches_within_its_width():
    spans = {(0, 1): 2, (0, 4): 2, (2, 6): 2, (6, 1000): 2}
    edges, points, _ = ruler(1000, 100, spans)
    for start, end in spans:
        assert np.interp(end, edges, points) - np.interp(start, edges, points) >= 2 - 1e-6
    assert points[-1] == pytest.approx(100)
    crowded = {(n, n + 1): 30 for n in range(10)}
    edges, points, _ = ruler(1000, 100, crowded)
    assert points[-1] == pytest.approx(100)
    assert np.interp(10, edges, points) == pytest.approx(70, abs=1)


def test_a_partition_without_room_for_a_name_is_named_below():
    plot = figures.plot("disk-map", {"sizes": tables.crowded_run()}, size="page")
    notes = " ".join(text.get_text() for text, _ in drawn_texts(plot)).replace("\u00a0", " ")
    assert "Too narrow for a name: nvme0n1p2 4.0 MiB, nvme0n1p3 4.0 MiB" in notes


def test_small_files_are_enlarged_beside_their_bars():
    plot = figures.plot("layers", {"sizes": RUN})
    widths = sorted(box.width for box in filled(plot, "image_file"))
    assert widths[-1] > 10 * 206569472 / (20 * GIB) * plot.axes.get_window_extent().width
    assert "enlarged" in [text.get_text() for text, _ in drawn_texts(plot)]


def test_the_growth_takes_most_of_the_timeline():
    plot = figures.plot("timeline", {"sizes": RUN, "stages": STAGES})
    (zoom,) = plot.axes.child_axes
    low, high = zoom.get_xlim()
    # Within 52.3 s and 53.1 s of 90 s.
    assert 51 < low < 52.3
    assert 53.1 < high < 55
    assert zoom.get_ylim()[1] > 20 * GIB
    steps = {to_hex(line.get_color()): line.get_xdata() for line in zoom.lines}
    assert 52.3 in steps[STYLES["light"].looks["partition"].fill.lower()]


def test_an_unknown_moment_is_shaded():
    plot = figures.plot("timeline", {"sizes": tables.lab_run(samples=False), "stages": STAGES})
    (zoom,) = plot.axes.child_axes
    spans = {(box.get_x(), box.get_x() + box.get_width()) for box in zoom.patches}
    assert spans == {(41.0, 88.0)}


def test_every_writer_is_drawn_on_the_overlay_map():
    extents = pd.DataFrame(
        [(0, 64 * KIB, "data"), (5 * MIB, 256 * KIB, "data"), (20 * GIB - KIB, KIB, "data")],
        columns=["start_bytes", "length_bytes", "kind"],
    )
    partitions = pd.DataFrame(
        [("vda14", MIB, 4 * MIB), ("vda15", 5 * MIB, 106 * MIB), ("vda1", 111 * MIB, 19 * GIB)],
        columns=["device", "start_bytes", "size_bytes"],
    )
    plot = figures.plot("overlay-map", {"extents": extents, "partitions": partitions})
    texts = [text.get_text() for text, _ in drawn_texts(plot)]
    assert {"vda15 256 KiB", "outside partitions 65.0 KiB"} <= set(texts)
    assert not any(text.startswith("vda14") for text in texts)
    (cells,) = plot.axes.collections
    # Cells of 16 MiB, then what lies outside and vda15 in the first, and the last one.
    assert len(cells.get_paths()) == 20 * 64 + 3
    colours = {to_hex(colour) for colour in cells.get_facecolor()}
    assert len(colours) == 3


def test_the_print_style_needs_no_colour():
    for look in (*STYLES["print"].looks.values(), *STYLES["print"].series):
        red, green, blue = to_rgb(look.fill)
        assert red == green == blue
    greys = {(look.fill, look.hatch) for look in STYLES["print"].series}
    assert len(greys) == len(STYLES["print"].series)
    for style in ("light", "dark"):
        assert not any(look.hatch for look in STYLES[style].looks.values())


def test_colours_are_those_that_matplotlib_calls_okabe_ito():
    known = {to_hex(colour) for colour in mpl.color_sequences["okabe_ito"]}
    assert {look.fill.lower() for look in STYLES["light"].series} <= known


def luminance(colour):
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return float(np.dot(parts, [0.2126, 0.7152, 0.0722]))


def contrast(one, two):
    light, dark = sorted((luminance(one), luminance(two)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("style", STYLES)
def test_text_stands_out_from_what_it_is_written_on(style):
    own = STYLES[style]
    pairs = [(own.ink, own.paper), (own.faint, own.paper), (own.faint, own.pale)]
    kinds = ("partition", "volume", "filesystem", "unallocated")
    pairs += [(own.looks[kind].text, own.looks[kind].fill) for kind in kinds]
    assert [pair for pair in pairs if contrast(*pair) < 4.5] == []


def test_a_learners_style_is_neither_used_nor_changed():
    with mpl.rc_context({"font.size": 44, "text.usetex": True, "axes.facecolor": "black"}):
        before = dict(mpl.rcParams)
        plot = figures.plot("scenarios", {"sizes": tables.three_runs()})
        assert dict(mpl.rcParams) == before
        assert to_hex(plot.axes.get_facecolor()) == "#ffffff"
        assert cut(drawn_texts(plot), plot.figure.bbox) == []


def test_dollar_signs_are_no_formulas():
    plot = figures.plot("scenarios", {"sizes": tables.lab_run(scenario="costs $5, or $x_1$")})
    found = [text for text, _ in drawn_texts(plot)]
    assert "costs $5, or $x_1$" in [text.get_text() for text in found]
    assert not any(text.get_parse_math() for text in found)


def test_lines_break_between_words_and_never_before_a_unit():
    width = text_width("the partition", 10)
    assert wrap("the partition grew to 19.9 GiB", width, 10) == [
        "the partition", "grew to", "19.9\u00a0GiB"
    ]  # fmt: skip
    assert "".join(wrap("x" * 60, width, 10)) == "x" * 60
    assert max(text_width(line, 10) for line in wrap("x" * 60, width, 10)) <= width
    assert wrap("", width, 10) == []
