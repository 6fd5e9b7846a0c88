"""The arm64 round, which `make test-arm64` runs: build, cold boot by UEFI, warm starts."""

import pytest
from gallery import outcome

from cloudlab.disk import inspect_disk
from cloudlab.image.build import build_image
from cloudlab.run.boot import boot_many
from cloudlab.run.options import Options, Start, article_options
from cloudlab.run.value import recorded

pytestmark = [pytest.mark.arm64, pytest.mark.boots, pytest.mark.builds]


@pytest.fixture(scope="module")
def image():
    return build_image(arch="arm64")


def test_the_image_has_no_bios_boot_partition(image):
    assert (image.arch, image.firmware) == ("arm64", ("uefi",))
    assert [one.number for one in inspect_disk(image.path, "qcow2").partitions] == [15, 1]


def test_the_articles_scenarios_come_out_as_on_amd64(tmp_path, image):
    """The first run takes the snapshot that the others resume from."""
    wanted = article_options(Options(image))
    runs = boot_many([(one, tmp_path / str(n)) for n, one in enumerate(wanted)], parallel=1)
    assert [run.error for run in runs] == [None] * 3
    assert [run.record.start.kind for run in runs][1:] == [Start.WARM] * 2
    assert all("if=pflash" in " ".join(run.record.command) for run in runs)
    names = ("default", "resize-rootfs-false", "growpart-off")
    for run, name in zip(runs, names, strict=True):
        findings, notes, _ = outcome(run.explain())
        expected, no_notes, _ = outcome(recorded(name).explain())
        assert (findings, notes) == (expected, no_notes)
