"""All that is done for a run before its machine starts."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cloudlab
from cloudlab import paths
from cloudlab.disk import allocated_bytes, check_safe, create_overlay, inspect_disk
from cloudlab.errors import RecordingError, UsageError
from cloudlab.image.cache import check_unchanged
from cloudlab.lab.options import RunOptions, Start
from cloudlab.machine.accel import AccelChoice, choose_accel
from cloudlab.machine.config import Firmware, MachineConfig, Network, qemu_argv, qemu_program
from cloudlab.machine.firmware import uefi_files
from cloudlab.machine.network import choose_network
from cloudlab.machine.registry import Entry
from cloudlab.recording import claim_folder, write_run
from cloudlab.seed import (
    Seed,
    build_seed,
    custom_seed,
    load_schema,
    new_nonce,
    with_nonce,
    write_iso,
)
from cloudlab.tools import now
from cloudlab.tools import run as run_tool


@dataclass(frozen=True)
class PreparedRun:
    """A run whose files are there and whose machine can be started.

    Attributes
    ----------
    options : RunOptions
    folder : Path
    accel : AccelChoice
    machine : MachineConfig
    entry : Entry
        Its place in the list of running machines; whoever starts the machine closes it.
    start_bytes : int
        What the overlay takes up on the host before the launch.
    about : dict
        What ``run.json`` holds.
    """

    options: RunOptions
    folder: Path
    accel: AccelChoice
    machine: MachineConfig
    entry: Entry
    start_bytes: int
    about: dict[str, Any]

    @property
    def leftovers(self) -> list[Path]:
        """Files that only the machine uses."""
        return [Path(path) for path in self.entry.about["cleanup"]]


def claim(folder: Path, undo: contextlib.ExitStack, *, free: bool = False) -> Path:
    """Make a folder the place of one new run and return its absolute path.

    Parameters
    ----------
    folder : Path
        New or empty.
    undo : ExitStack
        Gets the callbacks that remove what was created.
    free : bool
        Whether a number goes behind the name of a folder that is there already.

    Raises
    ------
    CloudlabError
        If the folder is taken or cannot be created.
    """
    folder = _utf8(folder.absolute())
    made = [one for one in (folder, *folder.parents) if not one.exists()]
    undo.callback(_remove_folders, made)
    if free:
        folder = paths.free_folder(folder)
        undo.callback(_remove_folders, [folder])
    claim_folder(folder)
    undo.callback(_remove_files, [folder / "run.json"])
    return folder


def prepare(options: RunOptions, folder: Path, undo: contextlib.ExitStack) -> PreparedRun:
    """Write a run's files, as far as they are needed to start its machine.

    Parameters
    ----------
    options : RunOptions
    folder : Path
        Claimed for this run, see :func:`claim`.
    undo : ExitStack
        Gets the callbacks that remove what was written.

    Raises
    ------
    CloudlabError
        If the run cannot be carried out as asked.
    """
    image = options.image
    nonce = new_nonce()
    seed = with_nonce(make_seed(options), nonce)
    check_unchanged(image)
    check_safe(image.path, image.format)
    accel = accel_of(options)
    network = choose_network(image.arch) if options.network is Network.USER else None
    overlay, seed_iso = folder / "overlay.qcow2", folder / "seed.iso"
    variables = folder / "uefi-variables.fd"
    leftovers = [seed_iso, variables, *([] if options.keep_overlay else [overlay])]
    entry = undo.enter_context(
        Entry(f"cloudlab-{folder.name}", run_folder=folder, cleanup=leftovers)
    )
    texts = {folder / "user-data": seed.user_data, folder / "meta-data": seed.meta_data}
    if options.vendor_data is not None and seed.vendor_data is not None:
        texts[folder / "vendor-data"] = seed.vendor_data
    if options.network_config is not None:
        texts[folder / "network-config"] = options.network_config
    undo.callback(_remove_files, [overlay, *leftovers, *texts])
    try:
        create_overlay(image.path, image.format, overlay, options.disk_size_bytes)
        write_iso(seed, seed_iso)
        for path, text in texts.items():
            path.write_text(text, encoding="utf-8", newline="")
        # An arm64 machine has no BIOS.
        bios = "bios" in image.firmware and image.arch == "amd64"
        firmware = options.firmware or (Firmware.BIOS if bios else Firmware.UEFI)
        uefi = uefi_files(image.arch, variables) if firmware is Firmware.UEFI else None
        start_bytes = allocated_bytes(overlay)
    except OSError as error:
        raise RecordingError(
            f"The run's files could not be written to {folder}: {error.strerror}; "
            "nothing was started.",
            hint="Free some space there, or choose another folder with --output.",
        ) from error
    machine = MachineConfig(
        name=f"cloudlab-{folder.name}",
        arch=image.arch,
        accel=accel.accel,
        overlay=overlay,
        base=(Path(os.path.abspath(image.path)), image.format),  # noqa: PTH100 (links stay)
        seed=seed_iso if options.attach_seed else None,
        memory_bytes=options.memory_bytes,
        cpus=options.cpus,
        cx16=any(quirk.startswith("cpu-x86-64-v") for quirk in image.details.get("quirks", ())),
        uefi=uefi,
        network=options.network,
        passt=network is not None and network.passt,
        sandbox=accel.sandbox,
    )
    about = _about(options, folder, accel, machine)
    if network is not None:
        about["network"] = {
            "backend": "passt" if network.passt else "QEMU user networking",
            "warning": network.warning,
        }
    about["nonce"] = nonce if options.attach_seed else None
    write_run(folder, about)
    return PreparedRun(options, folder, accel, machine, entry, start_bytes, about)


def accel_of(options: RunOptions) -> AccelChoice:
    """Return the accelerator that a run uses, and why.

    Raises
    ------
    CloudlabError
        As of :func:`~cloudlab.machine.accel.choose_accel`.
    """
    choice = choose_accel(options.image.arch)
    if options.accel in {None, choice.accel}:
        return choice
    return replace(choice, accel=options.accel, reason="chosen by hand")


def prepare_cold(job: PreparedRun, why: str) -> PreparedRun:
    """Prepare a run again whose saved machine could not be restored, to boot it from the start.

    Parameters
    ----------
    job : PreparedRun
        Its machine and its entry are closed.
    why : str
        For the record.

    Raises
    ------
    CloudlabError
        As of :func:`prepare`.
    """
    names = ("user-data", "meta-data", "vendor-data", "network-config")
    _remove_files([*job.leftovers, job.machine.overlay, *(job.folder / name for name in names)])
    with contextlib.ExitStack() as undo:
        again = prepare(replace(job.options, start=Start.COLD), job.folder, undo)
        undo.pop_all()
    again.about["start"] = {"asked": job.options.start.value, "kind": "cold", "why": why}
    return again


def _utf8(folder: Path) -> Path:
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        # QEMU takes file names as JSON, which is UTF-8.
        raise UsageError(
            f"The folder's name {os.fsencode(folder)!r} is not UTF-8; nothing was started.",
            hint="Choose another folder with --output.",
        ) from None
    return folder


def _remove_files(files: Sequence[Path]) -> None:
    for path in files:
        path.unlink(missing_ok=True)


def _remove_folders(folders: Sequence[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def make_seed(options: RunOptions) -> Seed:
    """Return the seed of a run, with the warnings about what the learner wrote.

    Raises
    ------
    SeedError
        If cloud-init would not take it.
    """
    texts = (options.user_data, options.vendor_data, options.seed.extra_yaml or None)
    written = any(text is not None for text in texts)
    schema = load_schema(options.image.schema_path) if written else None
    if options.user_data is None:
        return build_seed(
            options.seed,
            schema,
            options.meta_data,
            vendor_data=options.vendor_data,
            network_config=options.network_config,
        )
    return custom_seed(
        options.user_data,
        options.meta_data,
        report=options.seed.report,
        sampler=options.seed.sampler,
        profile=options.seed.profile,
        instance_id=options.seed.instance_id,
        vendor_data=options.vendor_data,
        network_config=options.network_config,
        check=options.check_user_data,
        schema=schema,
    )


def _about(
    options: RunOptions, folder: Path, accel: AccelChoice, machine: MachineConfig
) -> dict[str, Any]:
    image = options.image
    qemu = run_tool([qemu_program(image.arch), "--version"]).stdout.splitlines()[0]
    return {
        "name": folder.name,
        "scenario": options.scenario,
        "started": now(),
        "outcome": "running",
        "error": None,
        "options": options.to_json(),
        "image": {
            "name": image.name,
            "path": str(image.path),
            "sha256": image.sha256,
            "source": image.source,
            "date": image.date,
            "trust": image.trust,
            "file_size_bytes": image.file_size_bytes,
            "virtual_size_bytes": image.virtual_size_bytes,
        },
        "start": {"asked": options.start.value, "kind": "cold", "why": ""},
        # Who grew the disk before the guest's first report can be told only from here.
        "disk_before": inspect_disk(machine.overlay, "qcow2").to_json(),
        "accelerator": {"name": accel.accel.value, "reason": accel.reason},
        "versions": {
            "cloudlab": cloudlab.__version__,
            "qemu": qemu,
            "python": platform.python_version(),
            "host": f"{platform.system()} {platform.machine()}",
        },
        "command": [qemu_program(image.arch), *qemu_argv(machine, qmp_fd=3)],
    }
