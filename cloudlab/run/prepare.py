"""Everything that is done for a run before its machine starts."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cloudlab
from cloudlab import paths
from cloudlab.console import Stage
from cloudlab.disk import allocated_bytes, check_safe, create_overlay, inspect_disk
from cloudlab.errors import LaunchError, RecordingError, UsageError
from cloudlab.image.cache import Image, check_unchanged
from cloudlab.machine.accel import AccelChoice, choose_accel
from cloudlab.machine.config import (
    Firmware,
    MachineConfig,
    Network,
    UefiFiles,
    qemu_argv,
    qemu_program,
)
from cloudlab.machine.network import NetworkChoice, choose_network
from cloudlab.machine.registry import Entry
from cloudlab.run.monitor import OnEvent, RunEvent, ignore_events
from cloudlab.run.options import Options, Start
from cloudlab.run.record import (
    OverlaySizes,
    Record,
    RecordedAccelerator,
    RecordedImage,
    RecordedNetwork,
    RecordedOptions,
    RecordedStart,
    Versions,
    claim_folder,
    write_record,
)
from cloudlab.seed import (
    Seed,
    build_seed,
    load_schema,
    new_nonce,
    with_nonce,
    write_iso,
)
from cloudlab.tools import find_uefi, install_hint, now
from cloudlab.tools import run as run_tool

_OVERLAY, _SEED_ISO, _VARIABLES = "overlay.qcow2", "seed.iso", "uefi-variables.fd"


@dataclass(frozen=True)
class PreparedRun:
    """A run whose files exist and whose machine can be started.

    Attributes
    ----------
    options : Options
    folder : Path
    seed : Seed
    accel : AccelChoice
    machine : MachineConfig
    entry : Entry
        The machine's entry in the registry; the code that starts the machine closes it.
    record : Record
        What is known of the run so far.
    """

    options: Options
    folder: Path
    seed: Seed
    accel: AccelChoice
    machine: MachineConfig
    entry: Entry
    record: Record

    @property
    def leftovers(self) -> list[Path]:
        """Files that only the machine uses."""
        return [Path(path) for path in self.entry.about["cleanup"]]


def claim(folder: Path, undo: contextlib.ExitStack, *, numbered: bool = False) -> Path:
    """Make a folder the folder of one new run and return its absolute path.

    Parameters
    ----------
    folder : Path
        New or empty.
    undo : ExitStack
        Receives the callbacks that remove what was created.
    numbered : bool
        Append a number to the name of a folder that exists.

    Raises
    ------
    CloudlabError
        If the folder is taken or cannot be created.
    """
    folder = _utf8(folder.absolute())
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    undo.callback(_remove_folders, created)
    if numbered:
        folder = paths.free_folder(folder)
        undo.callback(_remove_folders, [folder])
    claim_folder(folder)
    undo.callback(_remove_files, [folder / "run.json"])
    return folder


def prepare(
    options: Options,
    folder: Path,
    undo: contextlib.ExitStack,
    on_event: OnEvent = ignore_events,
) -> PreparedRun:
    """Do everything that can fail before a machine starts.

    Parameters
    ----------
    options : Options
    folder : Path
        Claimed for this run, see :func:`claim`.
    undo : ExitStack
        Receives the callbacks that undo all of it.
    on_event : callable
        Called with notes: ``preparing``, ``warning: ...`` for each problem of the given texts,
        ``accelerator: ...`` and ``network: ...``.

    Raises
    ------
    CloudlabError
        If the run cannot be carried out.
    """

    def note(text: str) -> None:
        on_event(RunEvent(folder.name, 0.0, Stage.FIRMWARE, note=text))

    note("preparing")
    image = options.image
    nonce = new_nonce()
    seed = with_nonce(make_seed(options), nonce)
    for problem in seed.problems:
        note(f"warning: {problem}")
    check_unchanged(image)
    check_safe(image.path, image.format)
    accel = choose_accel(image.arch)
    if options.accel not in {None, accel.accel}:
        accel = replace(accel, accel=options.accel, reason="as requested")
    note(f"accelerator: {accel.accel} ({accel.reason})")
    network = choose_network(image.arch) if options.network is Network.USER else None
    if network is not None:
        note(f"warning: {network.warning}" if network.warning else "network: passt")
    overlay, variables = folder / _OVERLAY, folder / _VARIABLES
    leftovers = [folder / _SEED_ISO, variables, *([] if options.keep_overlay else [overlay])]
    entry = undo.enter_context(
        Entry(f"cloudlab-{folder.name}", run_folder=folder, cleanup=leftovers)
    )
    texts = (folder / name for name in _texts(options, seed))
    undo.callback(_remove_files, [overlay, *leftovers, *texts])
    uefi = _write_files(options, seed, folder)
    machine = _machine_config(options, folder, accel, network, uefi)
    record = _first_record(options, nonce, accel, network, machine)
    write_record(folder, record)
    return PreparedRun(options, folder, seed, accel, machine, entry, record)


def _write_files(options: Options, seed: Seed, folder: Path) -> UefiFiles | None:
    """Write a machine's overlay, seed and texts; return its firmware's files, if it has UEFI."""
    image = options.image
    try:
        create_overlay(image.path, image.format, folder / _OVERLAY, options.disk_size_bytes)
        write_iso(
            seed,
            folder / _SEED_ISO,
            label=options.seed_label,
            user_data_file=options.user_data_file,
        )
        for name, text in _texts(options, seed).items():
            (folder / name).write_text(text, encoding="utf-8", newline="")
        firmware = options.firmware or _default_firmware(image)
        if firmware is not Firmware.UEFI:
            return None
        found = find_uefi(image.arch)
        if found is None:
            raise LaunchError(
                f"No UEFI firmware for {image.arch} was found on this machine; nothing was started.",
                hint=install_hint(f"uefi-{image.arch}"),
            )
        code, template = found
        variables = folder / _VARIABLES
        shutil.copyfile(template, variables)
        variables.chmod(0o600)
        return UefiFiles(code, variables)
    except OSError as error:
        raise RecordingError(
            f"The run's files could not be written to {folder}: {error.strerror}; "
            "nothing was started.",
            hint="Free some space there, or choose another folder with --output.",
        ) from error


def _machine_config(
    options: Options,
    folder: Path,
    accel: AccelChoice,
    network: NetworkChoice | None,
    uefi: UefiFiles | None,
) -> MachineConfig:
    image = options.image
    return MachineConfig(
        name=f"cloudlab-{folder.name}",
        arch=image.arch,
        accel=accel.accel,
        overlay=folder / _OVERLAY,
        base=(Path(os.path.abspath(image.path)), image.format),  # noqa: PTH100 (links stay)
        seed=folder / _SEED_ISO if options.attach_seed else None,
        memory_bytes=options.memory_bytes,
        cpus=options.cpus,
        cx16=any(quirk.startswith("cpu-x86-64-v") for quirk in image.details.get("quirks", ())),
        uefi=uefi,
        network=options.network,
        passt=network is not None and network.passt,
        sandbox=accel.sandbox,
    )


def prepare_cold(job: PreparedRun, why: str) -> PreparedRun:
    """Prepare a run again, to boot it from the firmware because its snapshot did not resume.

    Parameters
    ----------
    job : PreparedRun
        Its machine and its entry are closed.
    why : str
        For the record.

    Raises
    ------
    CloudlabError
        As :func:`prepare`.
    """
    names = _texts(job.options, job.seed)
    _remove_files([*job.leftovers, job.machine.overlay, *(job.folder / name for name in names)])
    with contextlib.ExitStack() as undo:
        again = prepare(replace(job.options, start=Start.COLD), job.folder, undo)
        undo.pop_all()
    start = RecordedStart(asked=job.options.start, kind=Start.COLD, why=why)
    return replace(again, record=replace(again.record, start=start))


def make_seed(options: Options) -> Seed:
    """Return the seed of a run, with warnings about the texts that were given.

    Raises
    ------
    SeedError
        If cloud-init would not accept them.
    """
    given = (options.user_data, options.vendor_data, options.seed.extra_yaml or None)
    is_given = any(text is not None for text in given)
    schema = load_schema(options.image.schema_path) if is_given else None
    return build_seed(
        options.seed,
        user_data=options.user_data,
        meta_data=options.meta_data,
        vendor_data=options.vendor_data,
        network_config=options.network_config,
        check=options.check_user_data,
        schema=schema,
    )


def _texts(options: Options, seed: Seed) -> dict[str, str]:
    """Return the seed's texts that the run folder keeps, by file name."""
    texts = {"user-data": seed.user_data, "meta-data": seed.meta_data}
    if options.vendor_data is not None and seed.vendor_data is not None:
        texts["vendor-data"] = seed.vendor_data
    if options.network_config is not None:
        texts["network-config"] = options.network_config
    return texts


def _default_firmware(image: Image) -> Firmware:
    # The arm64 machine has no BIOS.
    has_bios = "bios" in image.firmware and image.arch == "amd64"
    return Firmware.BIOS if has_bios else Firmware.UEFI


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


def _first_record(
    options: Options,
    nonce: str,
    accel: AccelChoice,
    network: NetworkChoice | None,
    machine: MachineConfig,
) -> Record:
    image = options.image
    qemu = qemu_program(image.arch)
    recorded_network = None
    if network is not None:
        backend = "passt" if network.passt else "QEMU user networking"
        recorded_network = RecordedNetwork(backend, network.warning)
    return Record(
        name=machine.overlay.parent.name,
        scenario=options.scenario,
        started=now(),
        options=RecordedOptions.of(options),
        image=RecordedImage(
            name=image.name,
            path=str(image.path),
            sha256=image.sha256,
            source=image.source,
            date=image.date,
            trust=image.trust,
            file_size_bytes=image.file_size_bytes,
            virtual_size_bytes=image.virtual_size_bytes,
        ),
        start=RecordedStart(asked=options.start),
        accelerator=RecordedAccelerator(accel.accel, accel.reason),
        network=recorded_network,
        nonce=nonce if options.attach_seed else None,
        versions=Versions(
            cloudlab=cloudlab.__version__,
            qemu=run_tool([qemu, "--version"]).stdout.splitlines()[0],
            python=platform.python_version(),
            host=f"{platform.system()} {platform.machine()}",
        ),
        command=(qemu, *qemu_argv(machine, qmp_fd=3)),
        overlay=OverlaySizes(start_bytes=allocated_bytes(machine.overlay)),
        # Growth before the guest's first report can be told only from here.
        disk_before=inspect_disk(machine.overlay, "qcow2"),
    )
