"""Options from plain values: typed, checked, and refused with the accepted ones."""

from pathlib import Path

import numpy as np
import pytest
from guests import make_guest

from cloudlab.disk import parse_disk_size
from cloudlab.errors import UsageError
from cloudlab.image.cache import open_image
from cloudlab.machine.config import Accel, Firmware, Network
from cloudlab.run.options import (
    SCENARIOS,
    Options,
    Start,
    article_options,
    make_options,
    scenario_name,
    typed_values,
)
from cloudlab.seed import GrowpartMode, Profile, ResizeRootfs, SeedConfig, User


@pytest.fixture
def image(tmp_path, own_cache):
    return open_image(make_guest(tmp_path / "guest.img", ""))


def test_without_values_everything_is_as_in_the_article(image):
    assert make_options(image) == Options(image)
    assert make_options(image, growpart=None) == Options(image)


def test_a_disk_can_be_enlarged_only_to_more(image):
    assert make_options(image, enlarge_to="30G").enlarge_to_bytes == 30 << 30
    for smaller in ("20G", "3G"):
        with pytest.raises(UsageError, match="cannot be enlarged") as caught:
            make_options(image, enlarge_to=smaller)
        assert "--enlarge-to" in caught.value.hint


def test_plain_values_become_typed(image, tmp_path):
    (tmp_path / "vendor").write_text("#cloud-config\n")
    options = make_options(
        image,
        disk_size="30G",
        memory="512M",
        growpart="OFF",
        resize_rootfs=False,
        growpart_devices=["/", "/boot"],
        profile="full",
        firmware="uefi",
        accel="tcg",
        network="user",
        start="cold",
        vendor_data=tmp_path / "vendor",
        cpus=2,
        timeout_s=60,
        bootcmd=["ls", ["echo", "a b"]],
        users=[User("me", ssh_authorized_keys=("ssh-ed25519 AAAA",))],
    )
    assert options == Options(
        image,
        disk_size_bytes=30 << 30,
        seed=SeedConfig(
            growpart=GrowpartMode.OFF,
            growpart_devices=("/", "/boot"),
            resize_rootfs=ResizeRootfs.FALSE,
            profile=Profile.FULL,
            bootcmd=("ls", ("echo", "a b")),
            users=(User("me", ssh_authorized_keys=("ssh-ed25519 AAAA",)),),
        ),
        vendor_data="#cloud-config\n",
        scenario="both kept",
        firmware=Firmware.UEFI,
        accel=Accel.TCG,
        memory_bytes=512 << 20,
        cpus=2,
        timeout_s=60.0,
        network=Network.USER,
        start=Start.COLD,
    )


@pytest.mark.parametrize("value", ["off", False, GrowpartMode.OFF])
def test_growpart_off_may_be_written_as_yaml_reads_it(image, value):
    assert make_options(image, growpart=value).seed.growpart is GrowpartMode.OFF


def test_other_options_can_be_the_base(image):
    base = make_options(image, growpart="off", scenario="mine", disk_size="30G")
    other = make_options(image, base, resize_rootfs="noblock")
    assert other.scenario == "mine"
    assert other.disk_size_bytes == 30 << 30
    assert other.seed.growpart is GrowpartMode.OFF
    assert other.seed.resize_rootfs is ResizeRootfs.NOBLOCK


def test_a_scenario_named_after_its_options_follows_them(image):
    base = make_options(image, disk_size="30G")
    assert make_options("auto", base, growpart="off").scenario == "partition kept"
    assert make_options("auto", base, growpart="off", scenario="mine").scenario == "mine"


def test_another_image_for_the_same_options(image, tmp_path):
    other = make_guest(tmp_path / "other.img", "")
    base = make_options(image, disk_size="30G")
    options = make_options(other, base)
    assert (options.image.path, options.disk_size_bytes) == (other, 30 << 30)
    assert make_options("auto", base) == base


REFUSED = {
    "name": ({"growpat": "off"}, "no option 'growpat'", "growpart"),
    "image": ({"seed": SeedConfig()}, "no option 'seed'", "disk_size"),
    "growpart": ({"growpart": "maybe"}, "growpart has no value 'maybe'", "auto, growpart, gpart, off"),
    "growpart true": ({"growpart": True}, "growpart has no value True", "auto, growpart, gpart, off"),
    "resize_rootfs": ({"resize_rootfs": 1}, "resize_rootfs has no value 1", "true, false, noblock"),
    "profile": ({"profile": "fat"}, "profile has no value 'fat'", "lean, full"),
    "firmware": ({"firmware": "efi"}, "firmware has no value 'efi'", "bios, uefi"),
    "accel": ({"accel": "xen"}, "accel has no value 'xen'", "kvm, hvf, tcg"),
    "network": ({"network": "tap"}, "network has no value 'tap'", "none, user"),
    "start": ({"start": "hot"}, "start has no value 'hot'", "cold, warm, auto"),
    "disk size": ({"disk_size": "lots"}, "lots", "20G"),
    "memory": ({"memory": "1M"}, "1 MiB", "256 MiB"),
    "memory as words": ({"memory": "lots"}, "The memory size 'lots'", "512M"),
    "too much memory": ({"memory": "17T"}, "The memory size '17T' is over the limit", "16T"),
    "endless file": ({"user_data": Path("/dev/zero")}, "longer than 1 MiB", "text file in UTF-8"),
    "cpus as text": ({"cpus": "two"}, "cpus has no value 'two'", "int, str"),
    "time": ({"timeout_s": "long"}, "timeout_s has no value 'long'", "float"),
    "devices": ({"growpart_devices": "/"}, "growpart_devices has no value '/'", "array"),
    "switch": ({"sampler": "yes"}, "sampler has no value 'yes'", "bool"),
    "scenario": ({"scenario": 3}, "scenario has no value 3", "str"),
    "file": ({"user_data": Path("/nowhere")}, "/nowhere cannot be read", "text file"),
    "cpus": ({"cpus": 0}, "cannot have 0 CPUs", "1"),
}  # fmt: skip


@pytest.mark.parametrize(("values", "said", "accepted"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_value_is_refused_with_the_accepted_ones(image, values, said, accepted):
    with pytest.raises(UsageError) as caught:
        make_options(image, **values)
    assert said in caught.value.message
    for word in accepted.split(", "):
        assert word in caught.value.hint


def test_options_take_values_as_people_write_them(image, tmp_path):
    (tmp_path / "name").write_text("vm\n")
    (tmp_path / "user-data").write_text("#cloud-config\n")
    seed = SeedConfig("off", resize_rootfs="false", profile="full", runcmd=["a", ["b", "c"]])
    assert (seed.growpart, seed.resize_rootfs) == (GrowpartMode.OFF, ResizeRootfs.FALSE)
    assert (seed.profile, seed.runcmd) == (Profile.FULL, ("a", ("b", "c")))
    options = Options(
        image,
        np.int64(30 << 30),
        firmware="bios",
        network="user",
        start="cold",
        timeout_s=np.float64(5),
        cpus=np.int32(2),
        keep_overlay=np.True_,
        user_data=tmp_path / "user-data",
    )
    assert options.firmware is Firmware.BIOS
    assert options.network is Network.USER
    assert options.start is Start.COLD
    assert type(options.disk_size_bytes) is type(options.cpus) is int
    assert options.keep_overlay is True
    # A document keeps its end, a name does not.
    assert options.user_data == "#cloud-config\n"
    assert make_options(image, hostname=tmp_path / "name").seed.hostname == "vm"


@pytest.mark.parametrize(
    "values",
    [
        {"disk_size_bytes": None},
        {"network": None},
        {"cpus": "2"},
        {"seed": None},
        {"scenario": None},
    ],
    ids=lambda one: next(iter(one)),
)
def test_options_refuse_other_types(image, values):
    with pytest.raises(UsageError, match=next(iter(values))) as caught:
        Options(image, **values)
    assert "Expected" in caught.value.hint


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_boot_needs_some_time(image, seconds):
    with pytest.raises(UsageError, match="cannot end within") as caught:
        make_options(image, timeout_s=seconds)
    assert "--timeout" in caught.value.hint


def test_choice_takes_a_member_or_its_text():
    assert typed_values(start=Start.WARM)["start"] is Start.WARM
    assert typed_values(resize_rootfs=True)["resize_rootfs"] is ResizeRootfs.TRUE


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_is_known_by_its_options(name):
    assert scenario_name(SCENARIOS[name]) == name


def test_other_options_name_their_scenario():
    seed = SeedConfig(growpart=GrowpartMode.GPART, resize_rootfs=ResizeRootfs.NOBLOCK)
    assert scenario_name(seed) == "growpart gpart, resize_rootfs noblock"


def test_the_articles_scenarios_share_the_rest(image):
    base = make_options(image, disk_size="30G", hostname="mine", sampler=True)
    runs = article_options(base)
    assert [one.scenario for one in runs] == list(SCENARIOS)
    assert {one.disk_size_bytes for one in runs} == {parse_disk_size("30G")}
    assert all(one.seed.sampler and one.seed.hostname == "mine" for one in runs)
    kept = [(one.seed.growpart, one.seed.resize_rootfs) for one in runs]
    assert kept == [(None, None), (None, ResizeRootfs.FALSE), (GrowpartMode.OFF, None)]
