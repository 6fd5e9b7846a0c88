"""Images of other releases and with another filesystem: built, booted, grown."""

import pytest

from cloudlab.image.build import build_image
from cloudlab.machine.config import Firmware
from cloudlab.run.boot import boot
from cloudlab.run.options import Options

pytestmark = [pytest.mark.builds, pytest.mark.boots, pytest.mark.xdist_group("boots")]

GREW = {("partition", True, "growpart"), ("filesystem", True, "resizefs")}


@pytest.mark.parametrize(
    ("suite", "filesystem", "firmware"),
    [
        pytest.param("bullseye", "ext4", Firmware.BIOS, id="bullseye"),
        pytest.param("bookworm", "ext4", Firmware.UEFI, id="bookworm by UEFI"),
        pytest.param("trixie", "btrfs", Firmware.BIOS, id="trixie on btrfs"),
    ],
)
def test_other_images_build_boot_and_grow(tmp_path, suite, filesystem, firmware):
    image = build_image(suite=suite, filesystem=filesystem)
    run = boot(Options(image, firmware=firmware), tmp_path / "run")
    found = {
        (str(one.subject), one.finding[0], str(one.finding[1])) for one in run.explain().statements
    }
    assert found == GREW
