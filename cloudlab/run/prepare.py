"""Everything that is done for a run before its machine starts."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import cloudlab
from cloudlab import paths
from cloudlab.disk import allocated_bytes, check_safe, create_overlay, inspect_disk
from cloudlab.errors import LaunchError, UsageError
from cloudlab.image.cache import check_unchanged
from cloudlab.machine.accel import AccelChoice, choose_accel
from cloudlab.machine.config import (
    Firmware,
    MachineConfig,
    Network,
    UefiFiles,
    qemu_argv,
    qemu_program,
)
from cloudlab.machine.network import network_warning
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
    writing,
)
from cloudlab.seed import Seed, build_seed, load_schema, new_nonce, with_nonce, write_iso
from cloudlab.tools import find_uefi, install_hint, now
from cloudlab.tools import run as run_tool


@dataclass(frozen=True)
class PreparedRun:
    """A run whose files exist and whose machine can be started."""

    options: Options
    folder: Path
    machine: MachineConfig
    #: The machine's entry in the registry; the code that starts the machine closes it.
    entry: Entry
    #: What is known of the run so far.
    record: Record
    #: All files that were written for the machine, and those that nothing else uses.
    files: list[Path]
    leftovers: list[Path]


def claim(folder: Path | str, undo: contextlib.ExitStack, *, numbered: bool) -> Path:
    """Make a folder, new or empty, the folder of one new run and return its absolute path.

    ``undo`` receives the callbacks that remove what was created; ``numbered`` appends a number
    to the name of a folder that exists.

    Raises
    ------
    CloudlabError
        If the folder is taken or cannot be created.
    """
    folder = paths.expand(folder).absolute()
    if not paths.is_utf8(folder):
        raise UsageError(
            f"The folder's name {os.fsencode(folder)!r} is not UTF-8; nothing was started.",
            hint="Choose another folder with --output.",
        )
    # Not Path.exists, which raises for a name that is too long.
    created = [path for path in (folder, *folder.parents) if not os.path.exists(path)]  # noqa: PTH110
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
    """Do everything that can fail before a machine starts, in a folder from :func:`claim`.

    ``undo`` receives the callbacks that undo all of it.  ``on_event`` is called with notes:
    ``preparing``, ``warning: ...`` for each problem of the given texts, ``accelerator: ...``
    and ``network: ...``.

    Raises
    ------
    CloudlabError
        If the run cannot be carried out.
    """

    def note(text: str) -> None:
        on_event(RunEvent(folder.name, note=text))

    note("preparing")
    image, nonce = options.image, new_nonce()
    seed = with_nonce(_seed(options), nonce)
    for problem in seed.problems:
        note(f"warning: {problem}")
    check_unchanged(image)
    check_safe(image.path, image.format)
    accel = choose_accel(image.arch)
    if options.accel not in {None, accel.accel}:
        accel = replace(accel, accel=options.accel, reason="as requested")
    note(f"accelerator: {accel.accel} ({accel.reason})")
    network = None
    if options.network is Network.USER:
        warning = network_warning(image.arch)
        note(f"warning: {warning}" if warning else "network: passt")
        network = RecordedNetwork("QEMU user networking" if warning else "passt", warning)
    passt = network is not None and network.backend == "passt"
    machine = _machine_config(options, folder, accel, passt=passt)
    iso, variables, texts = folder / "seed.iso", folder / "uefi-variables.fd", _texts(options, seed)
    leftovers = [iso, variables, *([] if options.keep_overlay else [machine.overlay])]
    files = [machine.overlay, *leftovers, *(folder / name for name in texts)]
    entry = undo.enter_context(Entry(machine.name, run_folder=folder, cleanup=leftovers))
    undo.callback(_remove_files, files)
    with writing(f"Nothing was started: the run's files could not be written to {folder}"):
        create_overlay(image.path, image.format, machine.overlay, options.disk_size_bytes)
        write_iso(seed, iso, label=options.seed_label, user_data_file=options.user_data_file)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8", newline="")
        machine = replace(machine, uefi=_uefi_files(options, variables))
    record = _first_record(
        options,
        machine,
        accelerator=RecordedAccelerator(accel.accel, accel.reason),
        network=network,
        nonce=nonce if options.attach_seed else None,
    )
    write_record(folder, record)
    return PreparedRun(options, folder, machine, entry, record, files, leftovers)


def prepare_cold(job: PreparedRun, why: str) -> PreparedRun:
    """Prepare a run again, to boot it from the firmware because its snapshot did not resume.

    The machine and the entry of ``job`` are closed; ``why`` is for the record.

    Raises
    ------
    CloudlabError
        As :func:`prepare`.
    """
    _remove_files(job.files)
    with contextlib.ExitStack() as undo:
        again = prepare(replace(job.options, start=Start.COLD), job.folder, undo)
        undo.pop_all()
    start = RecordedStart(asked=job.options.start, kind=Start.COLD, why=why)
    return replace(again, record=replace(again.record, start=start))


def _machine_config(
    options: Options, folder: Path, accel: AccelChoice, *, passt: bool
) -> MachineConfig:
    image = options.image
    return MachineConfig(
        name=f"cloudlab-{folder.name}",
        arch=image.arch,
        accel=accel.accel,
        overlay=folder / "overlay.qcow2",
        base=(Path(os.path.abspath(image.path)), image.format),  # noqa: PTH100 (links stay)
        seed=folder / "seed.iso" if options.attach_seed else None,
        memory_bytes=options.memory_bytes,
        cpus=options.cpus,
        cx16=any(quirk.startswith("cpu-x86-64-v") for quirk in image.details.get("quirks", ())),
        network=options.network,
        passt=passt,
        sandbox=accel.sandbox,
    )


def _seed(options: Options) -> Seed:
    """Return the seed of a run, with warnings about the texts that were given."""
    given = (options.user_data, options.vendor_data, options.seed.extra_yaml or None)
    is_given = any(text is not None for text in given)
    larger = options.enlarge_to_bytes is not None
    return build_seed(
        # The sampler shows the disk, the partition and the filesystem growing one by one.
        replace(options.seed, enlarge=larger, sampler=options.seed.sampler or larger),
        user_data=options.user_data,
        meta_data=options.meta_data,
        vendor_data=options.vendor_data,
        network_config=options.network_config,
        check=options.check_user_data,
        schema=load_schema(options.image.schema_path) if is_given else None,
    )


def _texts(options: Options, seed: Seed) -> dict[str, str]:
    """Return the seed's texts that the run folder keeps, by file name."""
    texts = {"user-data": seed.user_data, "meta-data": seed.meta_data}
    if options.vendor_data is not None and seed.vendor_data is not None:
        texts["vendor-data"] = seed.vendor_data
    if options.network_config is not None:
        texts["network-config"] = options.network_config
    return texts


def _uefi_files(options: Options, variables: Path) -> UefiFiles | None:
    """Return the firmware's files, its variables copied for this machine; None for BIOS."""
    image = options.image
    # The arm64 machine has no BIOS.
    has_bios = "bios" in image.firmware and image.arch == "amd64"
    if (options.firmware or (Firmware.BIOS if has_bios else Firmware.UEFI)) is Firmware.BIOS:
        return None
    found = find_uefi(image.arch)
    if found is None:
        raise LaunchError(
            f"No UEFI firmware for {image.arch} was found on this machine; nothing was started.",
            hint=install_hint(f"uefi-{image.arch}"),
        )
    code, template = found
    try:
        content = template.read_bytes()
    except OSError as error:
        raise LaunchError(
            f"The UEFI firmware's variables in {template} cannot be read: {error.strerror}; "
            "nothing was started.",
            hint="Make the file readable, or install the firmware's package again.",
        ) from error
    variables.touch(mode=0o600)
    variables.write_bytes(content)
    return UefiFiles(code, variables)


def _remove_files(files: Iterable[Path]) -> None:
    for path in files:
        path.unlink(missing_ok=True)


def _remove_folders(folders: Iterable[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _first_record(options: Options, machine: MachineConfig, **known: Any) -> Record:
    """Return what is known of a run from its options and its files."""
    image = vars(options.image)
    qemu = qemu_program(options.image.arch)
    recorded = {field.name: image[field.name] for field in fields(RecordedImage)}
    return Record(
        name=machine.overlay.parent.name,
        scenario=options.scenario,
        started=now(),
        options=RecordedOptions.of(options),
        image=RecordedImage(**recorded | {"path": str(options.image.path)}),
        start=RecordedStart(asked=options.start),
        versions=Versions(
            cloudlab=cloudlab.__version__,
            qemu=run_tool([qemu, "--version"]).stdout.splitlines()[0],
            python=platform.python_version(),
            host=f"{platform.system()} {platform.machine()}",
        ),
        command=(qemu, *qemu_argv(machine, qmp_fd=3)),
        overlay=OverlaySizes(start_bytes=allocated_bytes(machine.overlay)),
        # Growth before the guest's first report can be told only from here.
        disk_before=inspect_disk(machine.overlay, "qcow2", check_backing=False),
        **known,
    )
