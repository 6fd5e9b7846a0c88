"""What one run is made of, and the scenarios that the course keeps coming back to."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from cloudlab.image.cache import Image
from cloudlab.machine.config import Accel, Firmware, Network
from cloudlab.seed import GrowpartMode, ResizeRootfs, SeedConfig

GIB = 1 << 30

#: The article's disk.
DISK_SIZE_BYTES = 20 * GIB

#: Seconds that a boot may take before it counts as stuck, by accelerator.  Measured boots
#: take 10-20 s on hardware and 60-130 s under emulation; hosts can be five times as busy.
BOOT_TIMEOUT_S = {Accel.KVM: 300.0, Accel.HVF: 300.0, Accel.TCG: 1200.0}

#: Seconds without a word on the console after which the guest counts as silent.
SILENCE_TIMEOUT_S = {Accel.KVM: 90.0, Accel.HVF: 90.0, Accel.TCG: 600.0}


class Start(StrEnum):
    """Where a run begins: at the firmware, in a machine saved amid its boot, or as fits."""

    COLD = "cold"
    WARM = "warm"
    AUTO = "auto"


@dataclass(frozen=True)
class RunOptions:
    """Everything that one run follows from.

    Attributes
    ----------
    image : Image
    disk_size_bytes : int
        Virtual size of the overlay.
    seed : SeedConfig
        The cloud-init options; without effect where ``user_data`` is given, except for
        ``report``, ``sampler``, ``profile`` and ``instance_id``.
    user_data, meta_data, vendor_data, network_config : str or None
        The learner's own texts.
    check_user_data : bool
        Whether a user-data text with errors is refused; the course boots a broken one.
    scenario : str
        What the run is called in tables and figures.
    firmware : Firmware or None
        None takes BIOS where the image boots by it.
    accel : Accel or None
        None takes what works here.
    memory_bytes, cpus : int
    network : Network
    timeout_s : float or None
        None takes :data:`BOOT_TIMEOUT_S`.
    keep_overlay : bool
        Whether the overlay stays in the run folder.
    attach_seed : bool
        Whether the machine gets the seed; without one cloud-init finds no datasource.
    start : Start
        ``auto`` starts warm under emulation, with the lean profile.
    """

    image: Image
    disk_size_bytes: int = DISK_SIZE_BYTES
    seed: SeedConfig = field(default_factory=SeedConfig)
    user_data: str | None = None
    meta_data: str | None = None
    vendor_data: str | None = None
    network_config: str | None = None
    check_user_data: bool = True
    scenario: str = "default"
    firmware: Firmware | None = None
    accel: Accel | None = None
    memory_bytes: int = GIB
    cpus: int = 1
    network: Network = Network.NONE
    timeout_s: float | None = None
    keep_overlay: bool = False
    attach_seed: bool = True
    start: Start = Start.AUTO

    def to_json(self) -> dict[str, Any]:
        """Return the options as plain values, without anything secret."""
        seed = self.seed
        return {
            "disk_size_bytes": self.disk_size_bytes,
            "growpart": seed.growpart.value if seed.growpart else None,
            "growpart_devices": list(seed.growpart_devices),
            "ignore_growroot_disabled": seed.ignore_growroot_disabled,
            "resize_rootfs": seed.resize_rootfs.value if seed.resize_rootfs else None,
            "profile": seed.profile.value,
            "sampler": seed.sampler,
            "own_user_data": self.user_data is not None,
            "firmware": self.firmware.value if self.firmware else None,
            "memory_bytes": self.memory_bytes,
            "cpus": self.cpus,
            "network": self.network.value,
            "keep_overlay": self.keep_overlay,
            "attach_seed": self.attach_seed,
            "start": self.start.value,
        }


#: The article's three scenarios, in its order: name -> what is set in user-data.
SCENARIOS: dict[str, SeedConfig] = {
    "default": SeedConfig(),
    "filesystem kept": SeedConfig(resize_rootfs=ResizeRootfs.FALSE),
    "partition kept": SeedConfig(growpart=GrowpartMode.OFF),
}


def scenario_name(seed: SeedConfig) -> str:
    """Return the name of the scenario that these growth options make."""
    known = {
        **SCENARIOS,
        "both kept": SeedConfig(GrowpartMode.OFF, resize_rootfs=ResizeRootfs.FALSE),
    }
    for name, config in known.items():
        if (seed.growpart, seed.resize_rootfs) == (config.growpart, config.resize_rootfs):
            return name
    words = [
        f"growpart {seed.growpart}" if seed.growpart else "",
        f"resize_rootfs {seed.resize_rootfs}" if seed.resize_rootfs else "",
    ]
    return ", ".join(word for word in words if word)


def article_runs(base: RunOptions) -> list[RunOptions]:
    """Return the article's three runs; what is no growth option is as in ``base``."""
    return [
        replace(
            base,
            scenario=name,
            seed=replace(base.seed, growpart=seed.growpart, resize_rootfs=seed.resize_rootfs),
        )
        for name, seed in SCENARIOS.items()
    ]
