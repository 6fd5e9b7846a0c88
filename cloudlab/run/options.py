"""The options of a run, typed and checked, and the article's scenarios."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from cloudlab.disk import parse_disk_size
from cloudlab.errors import UsageError, suggest
from cloudlab.image.cache import Image
from cloudlab.machine.config import Accel, Firmware, Network, check_shape
from cloudlab.seed import GrowpartMode, ResizeRootfs, SeedConfig
from cloudlab.seed.config import Checked, field_types, typed
from cloudlab.seed.iso import USER_DATA_FILE, VOLUME_ID
from cloudlab.units import GIB, format_two

#: The article's disk.
DISK_SIZE_BYTES = 20 * GIB

#: Seconds that a boot may take before it counts as stuck, by accelerator.  Measured boots
#: take 10-20 s on hardware and 60-130 s under emulation; hosts can be five times as busy.
BOOT_TIMEOUT_S = {Accel.KVM: 300.0, Accel.HVF: 300.0, Accel.TCG: 1200.0}

#: Seconds without console output after which the guest counts as silent.
SILENCE_TIMEOUT_S = {Accel.KVM: 90.0, Accel.HVF: 90.0, Accel.TCG: 600.0}


class Start(StrEnum):
    """How a run starts: from the firmware, from a snapshot, or whichever fits."""

    COLD = "cold"
    WARM = "warm"
    AUTO = "auto"


@dataclass(frozen=True)
class Options(Checked):
    """Everything that the outcome of one run depends on.

    Attributes
    ----------
    image : Image
        The base image.
    disk_size_bytes : int
        Virtual size of the overlay.
    enlarge_to_bytes : int or None
        Enlarge the disk to this size while the guest runs, at the end of its boot.
    seed : SeedConfig
        The cloud-init options.  With ``user_data`` only its ``report``, ``sampler``,
        ``profile`` and ``instance_id`` are used.
    user_data, meta_data, vendor_data, network_config : str or None
        Texts to use in place of generated ones.
    check_user_data : bool
        Refuse user-data that cloud-init would not accept.
    scenario : str
        Name of the run in tables and figures.
    firmware : Firmware or None
        None: BIOS where the image supports it.
    accel : Accel or None
        None: the fastest accelerator that works on this host.
    memory_bytes, cpus : int
        Size of the virtual machine.  With two CPUs a cold boot under TCG takes two thirds of the
        time, but with QEMU 7.2 the kernel of Debian 13 panicked in one of ten.
    network : Network
    timeout_s : float or None
        None: :data:`BOOT_TIMEOUT_S`.
    keep_overlay : bool
        Keep the overlay in the run folder.
    attach_seed : bool
        Attach the seed; without it cloud-init finds no datasource.
    seed_label, user_data_file : str
        The seed's volume label, and the name of its user-data.  With any other label cloud-init
        does not find the seed, with any other name it rejects it; neither boot can report.
    start : Start
        ``auto`` starts warm under emulation with the lean profile.

    Raises
    ------
    UsageError
        For a value of another type, and if the machine would have no sensible shape.

    Examples
    --------
    >>> image, _ = cloudlab.choose_image()
    >>> options = cloudlab.Options(image, disk_size_bytes=30 << 30)
    >>> run = cloudlab.boot(options)
    """

    image: Image
    disk_size_bytes: int = DISK_SIZE_BYTES
    enlarge_to_bytes: int | None = None
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
    seed_label: str = VOLUME_ID
    user_data_file: str = USER_DATA_FILE
    start: Start = Start.AUTO

    def __post_init__(self) -> None:
        if not isinstance(self.image, Image):
            raise UsageError(
                f"The image cannot be {self.image!r:.80}.",
                hint="Options take an Image; make_options() takes its name, path or URL.",
            )
        super().__post_init__()
        check_shape(self.memory_bytes, self.cpus)
        if self.timeout_s is not None and not self.timeout_s > 0:
            raise UsageError(
                f"A boot cannot end within {self.timeout_s:g} seconds.",
                hint="Choose a larger timeout_s (--timeout).",
            )
        larger = self.enlarge_to_bytes
        if larger is not None and larger <= self.disk_size_bytes:
            disk, target = format_two(self.disk_size_bytes, larger)
            raise UsageError(
                f"A disk of {disk} cannot be enlarged to {target}.",
                hint="Choose a larger --enlarge-to, or a smaller --disk-size.",
            )


#: The article's three scenarios, in its order: name -> cloud-init options.
SCENARIOS: dict[str, SeedConfig] = {
    "default": SeedConfig(),
    "filesystem kept": SeedConfig(resize_rootfs=ResizeRootfs.FALSE),
    "partition kept": SeedConfig(growpart=GrowpartMode.OFF),
}

_TYPES = field_types(SeedConfig) | field_types(Options)
_SIZES = {
    "disk_size": ("disk_size_bytes", "disk size"),
    "enlarge_to": ("enlarge_to_bytes", "size to enlarge the disk to"),
    "memory": ("memory_bytes", "memory size"),
}


def make_options(
    image: Image | Path | str = "auto",
    base: Options | None = None,
    *,
    cancel: threading.Event | None = None,
    **values: Any,
) -> Options:
    """Return options from plain values, as people write them.

    Parameters
    ----------
    image : Image, Path or str
        What :func:`~cloudlab.image.fetch.choose_image` accepts; ``auto`` is that of ``base``.
    base : Options, optional
        Where values that are not given come from.  A scenario that is named after its growth
        options follows them.
    cancel : threading.Event, optional
        Setting it ends a download of the image.
    **values
        Any other field of :class:`Options` or :class:`~cloudlab.seed.SeedConfig` by its name;
        ``disk_size``, ``enlarge_to`` and ``memory`` as text such as ``"20G"``; choices as text such as
        ``growpart="off"``; a Path in place of a text is read; None leaves a value out.

    Raises
    ------
    UsageError
        For an unknown name or value, with the accepted ones.
    CloudlabError
        As of choosing an image.

    Examples
    --------
    >>> options = cloudlab.make_options(growpart="off", disk_size="30G")
    >>> options.scenario, options.disk_size_bytes
    ('partition kept', 32212254720)
    """
    # Whoever reads a record needs no downloads.
    from cloudlab.image.fetch import choose_image

    given = typed_values(**values)
    if not isinstance(base, Options | None):
        raise UsageError(
            f"Options cannot be {base!r:.80}.",
            hint="Give what make_options(...) returned, or each option by its name.",
        )
    if base is not None and isinstance(image, str) and image == "auto":
        image = base.image
    image, _ = choose_image(image, cancel=cancel)
    first = replace(base, image=image) if base is not None else Options(image)
    of_seed = {name: given.pop(name) for name in field_types(SeedConfig) if name in given}
    seed = replace(first.seed, **of_seed)
    if first.scenario == scenario_name(first.seed):
        given.setdefault("scenario", scenario_name(seed))
    return replace(first, seed=seed, **given)


def typed_values(**values: Any) -> dict[str, Any]:
    """Return values for fields of :class:`Options` and its seed, converted to the fields' types.

    They are given as to :func:`make_options`, which see; None leaves a value out.
    """
    known = sorted((_TYPES.keys() | _SIZES) - {"image", "seed"})
    given: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            hint = suggest(name, known, f"Options: {', '.join(known)}.")
            raise UsageError(f"There is no option {name!r}.", hint=hint)
        if value is None:
            continue
        field_name, what = _SIZES.get(name, (name, ""))
        if what and values.get(field_name) is not None:
            raise UsageError(f"Both {name} and {field_name} were given.", hint="Leave one out.")
        kind = _TYPES[field_name]
        given[field_name] = parse_disk_size(str(value), what) if what else typed(name, value, kind)
    return given


def scenario_name(seed: SeedConfig) -> str:
    """Return the name of the scenario that these growth options make."""
    known = {
        **SCENARIOS,
        "both kept": SeedConfig(GrowpartMode.OFF, resize_rootfs=ResizeRootfs.FALSE),
    }
    for name, config in known.items():
        if (seed.growpart, seed.resize_rootfs) == (config.growpart, config.resize_rootfs):
            return name
    parts = {"growpart": seed.growpart, "resize_rootfs": seed.resize_rootfs}
    return ", ".join(f"{name} {value}" for name, value in parts.items() if value)


def article_options(base: Options) -> list[Options]:
    """Return the options of the article's three scenarios, otherwise as in ``base``."""
    return [
        replace(
            base,
            scenario=name,
            seed=replace(base.seed, growpart=seed.growpart, resize_rootfs=seed.resize_rootfs),
        )
        for name, seed in SCENARIOS.items()
    ]
