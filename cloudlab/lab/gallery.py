"""The gallery: one real boot for each way in which a disk grows, or does not.

``python -m cloudlab.lab.gallery`` boots the cases afresh, explains them, and compares with
the recordings that cloudlab ships, which were booted from the firmware on: so it also shows
that a warm start changes nothing.  With ``--record`` it replaces the recordings.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cloudlab import paths
from cloudlab.errors import CloudlabError, UsageError
from cloudlab.explain import Explanation, Finding, NoteKind, Subject
from cloudlab.image.build import build_image
from cloudlab.image.cache import Image
from cloudlab.image.choose import open_image
from cloudlab.lab.boot import RunEvent
from cloudlab.lab.cases import CASES, Case
from cloudlab.lab.explained import explain_run
from cloudlab.lab.options import RunOptions, Start
from cloudlab.lab.run import Run, run_many
from cloudlab.recording import (
    Recording,
    read_run,
    recordings_folder,
    refuse_taken,
    shipped_recordings,
    write_run,
)
from cloudlab.sizes import ConsoleParser
from cloudlab.tools import run as run_tool

_FILES = ("console.cast", "console.log", "extents.csv", "meta-data", "sizes.csv", "user-data")
_CONVERT_TIMEOUT_S = 600.0

#: What two boots of a case must have in common: findings, notes, and sizes in bytes.
Outcome = tuple[tuple[Finding, ...], tuple[NoteKind, ...], tuple[tuple[int | None, ...], ...]]


def case_options(name: str, image: Image, start: Start = Start.AUTO) -> RunOptions:
    """Return what a case boots with."""
    case = CASES[name]
    seed = replace(
        case.seed, sampler=True, instance_id=case.seed.instance_id or f"iid-gallery-{name}"
    )
    return RunOptions(
        image=image,
        disk_size_bytes=case.disk_size_bytes,
        seed=seed,
        user_data=case.user_data,
        check_user_data=False,
        attach_seed=case.attach_seed,
        scenario=name,
        keep_overlay=any(other.follows == name for other in CASES.values()),
        start=start,
    )


def run_cases(
    names: Iterable[str],
    folder: Path,
    *,
    side_by_side: int | None = None,
    start: Start = Start.AUTO,
) -> list[Run]:
    """Boot cases, each in a folder of its name; the ones they follow are booted first.

    Parameters
    ----------
    names : iterable of str
        Of :data:`~cloudlab.lab.cases.CASES`.
    folder : Path
        Cases that it holds already are not booted again.
    side_by_side : int, optional
        As for :func:`~cloudlab.lab.run.run_many`.
    start : Start
        As in :class:`~cloudlab.lab.options.RunOptions`.

    Raises
    ------
    UsageError
        For a name that is no case.
    CloudlabError
        If an image cannot be had.
    """
    wanted = _with_first_boots(names)
    waves = (
        [name for name in wanted if CASES[name].follows is None],
        [name for name in wanted if CASES[name].follows is not None],
    )
    done = []
    for wave in waves:
        new = [name for name in wave if not (folder / name).exists()]
        jobs = [
            (case_options(name, _image(CASES[name], folder), start), folder / name) for name in new
        ]
        done += run_many(jobs, on_event=_tell, side_by_side=side_by_side) if jobs else []
    return done


def outcome(explanation: Explanation) -> Outcome:
    """Return what must be the same in every boot of a case; times are not."""
    return (
        tuple(one.finding for one in explanation.statements),
        tuple(note.kind for note in explanation.notes),
        tuple((one.from_bytes, one.to_bytes) for one in explanation.statements),
    )


def unexpected(name: str, explanation: Explanation) -> list[str]:
    """Return in what an explanation differs from what the case must come to, in words."""
    case = CASES[name]
    expected = {Subject.PARTITION: case.partition, Subject.FILESYSTEM: case.filesystem}
    found = []
    for subject, finding in expected.items():
        findings = [one.finding for one in explanation.of(subject)]
        if findings != [finding]:
            found.append(f"{subject}: expected {_words(finding)}, found {_words(*findings)}")
    notes = tuple(note.kind for note in explanation.notes)
    if notes != case.notes:
        found.append(f"notes: expected {', '.join(case.notes)}, found {', '.join(notes)}")
    return found


def export_recording(recording: Recording, target: Path) -> None:
    """Copy a run folder as a recording to be shipped: without any path of this machine.

    Parameters
    ----------
    recording : Recording
    target : Path
        Replaced if it is there.
    """
    shutil.rmtree(target, ignore_errors=True)
    paths.make_folder(target)
    for name in _FILES:
        shutil.copyfile(recording.folder / name, target / name)
    image = Path(recording.about["image"]["path"])
    about = _without_folders(recording.about, (recording.folder.absolute(), image.parent))
    about.pop("format")
    write_run(target, about)


def _without_folders(value: Any, folders: tuple[Path, ...]) -> Any:
    if isinstance(value, dict):
        return {key: _without_folders(one, folders) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_folders(one, folders) for one in value]
    if isinstance(value, str):
        for folder in folders:
            value = value.replace(f"{folder}/", "")
    return value


def _with_first_boots(names: Iterable[str]) -> list[str]:
    wanted: list[str] = []
    for name in names:
        if name not in CASES:
            raise UsageError(
                f"The gallery has no case {name!r}.", hint=f"Its cases are {', '.join(CASES)}."
            )
        first = CASES[name].follows
        wanted += [one for one in (first, name) if one is not None and one not in wanted]
    return wanted


def _image(case: Case, folder: Path) -> Image:
    if case.follows is None:
        recipe = case.recipe
        return build_image(suite=recipe.suite, filesystem=recipe.filesystem, variant=recipe.variant)
    disk = folder / f"disk-after-{case.follows}.qcow2"
    if not disk.exists():
        # A base image is one file that needs no other.
        overlay = folder / case.follows / "overlay.qcow2"
        with paths.whole_file(disk) as part:
            formats = ("-f", "qcow2", "-O", "qcow2")
            run_tool(["qemu-img", "convert", *formats, overlay, part], timeout_s=_CONVERT_TIMEOUT_S)
    return open_image(disk)


def _tell(event: RunEvent) -> None:
    if event.note:
        sys.stderr.write(f"{event.run}: {event.note}\n")


def _words(*findings: Finding) -> str:
    grown = {True: "grown", False: "not grown", None: "not known"}
    return " and ".join(
        f"{grown[is_grown]} by {by}" + (f" ({reason})" if reason else "")
        for is_grown, by, reason in findings
    )


def modules_run(recording: Recording) -> str:
    """Return which of cloud-init's modules ran before the last report, stage by stage."""
    parser = ConsoleParser(recording.nonce)
    with recording.console_log.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            parser.feed(line, number)
    # A guest that cloud-init left alone tells nothing, and that is no error here.
    block = parser.result().block("after")
    facts = block.facts if block else ()
    return next((fact.value for fact in facts if fact.name == "modules"), "not told")


def _verdict(name: str, recording: Recording, explanation: Explanation) -> list[str]:
    """Return what is wrong with a fresh boot of a case."""
    problems = unexpected(name, explanation)
    shipped = shipped_recordings().get(name)
    if shipped is None:
        return [*problems, "no recording is shipped to compare with"]
    old = read_run(shipped)
    for new, recorded in (
        (outcome(explanation), outcome(explain_run(old))),
        (modules_run(recording), modules_run(old)),
    ):
        if new != recorded:
            problems.append(f"differs from its recording: {new} != {recorded}")
    return problems


def main(argv: Sequence[str] | None = None) -> int:
    """Boot the gallery; return 0 if every case came out as it must, else 1."""
    parser = argparse.ArgumentParser(prog="python -m cloudlab.lab.gallery", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="default: all")
    parser.add_argument("--output", type=Path, default=Path("build/gallery"), metavar="DIR")
    parser.add_argument(
        "--resume", action="store_true", help="keep the boots that DIR holds already"
    )
    parser.add_argument(
        "--start", type=Start, choices=list(Start), help="default: auto, and cold for --record"
    )
    parser.add_argument("--jobs", type=int, metavar="N", help="how many boots at a time")
    parser.add_argument("--record", action="store_true", help="replace the shipped recordings")
    args = parser.parse_args(argv)
    names = args.cases or list(CASES)
    try:
        if not args.resume:
            refuse_taken(args.output)
        start = args.start or (Start.COLD if args.record else Start.AUTO)
        run_cases(names, args.output, side_by_side=args.jobs, start=start)
        failed = 0
        for name in names:
            recording = read_run(args.output / name)
            explanation = explain_run(recording)
            if args.record:
                problems = unexpected(name, explanation)
                export_recording(recording, recordings_folder() / name)
            else:
                problems = _verdict(name, recording, explanation)
            failed += bool(problems)
            sys.stdout.write(_row(name, recording, explanation, problems))
    except CloudlabError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.write(f"{len(names) - failed} of {len(names)} cases came out as they must.\n")
    return 1 if failed else 0


def _row(name: str, recording: Recording, explanation: Explanation, problems: list[str]) -> str:
    findings = [f"  {one.subject}: {_words(one.finding)}" for one in explanation.statements] + [
        f"  noted: {note.kind}" for note in explanation.notes
    ]
    kind = recording.about.get("start", {}).get("kind", "cold")
    head = f"{'ok  ' if not problems else 'FAIL'} {name}: {CASES[name].title} ({kind})"
    lines = [head, *findings]
    return "\n".join([*lines, *(f"  ! {problem}" for problem in problems)]) + "\n"


if __name__ == "__main__":
    sys.exit(main())
