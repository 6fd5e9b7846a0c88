"""The gallery: one real boot for each way in which a disk grows, or does not.

``python scripts/gallery.py`` boots the cases, explains them, and compares with the recordings
that cloudlab ships, which were booted cold: so it also shows that a warm start changes
nothing.  With ``--record`` it replaces the recordings.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cloudlab import paths
from cloudlab.course.cases import CASES, Case, case_options
from cloudlab.errors import CloudlabError, UsageError
from cloudlab.explanation import Explanation, Finding, Grower, NoteKind, Subject
from cloudlab.image.build import build_image
from cloudlab.image.cache import Image, open_image
from cloudlab.run.boot import boot_many
from cloudlab.run.monitor import RunEvent
from cloudlab.run.options import Start
from cloudlab.run.record import check_new_folder, record_from_json, write_record
from cloudlab.run.value import Run, recorded, recording_names, recordings_folder
from cloudlab.tools import run as run_tool

_FILES = ("console.cast", "console.log", "extents.csv", "meta-data", "sizes.csv", "user-data")
_CONVERT_TIMEOUT_S = 600.0

_BY_HAND: Finding = (True, Grower.OTHER, None)

#: What two boots of a case must have in common: findings, notes, and sizes in bytes.
Outcome = tuple[tuple[Finding, ...], tuple[NoteKind, ...], tuple[tuple[int | None, ...], ...]]


def run_cases(
    names: Iterable[str],
    folder: Path,
    *,
    parallel: int | None = None,
    start: Start = Start.AUTO,
) -> list[Run]:
    """Boot cases, each in a folder of its name; the ones they follow are booted first.

    Parameters
    ----------
    names : iterable of str
        Of :data:`~cloudlab.course.cases.CASES`.
    folder : Path
        Cases that it holds already are not booted again.
    parallel : int, optional
        As for :func:`~cloudlab.run.boot.boot_many`.
    start : Start
        As in :class:`~cloudlab.run.options.Options`.

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
        done += boot_many(jobs, on_event=_print_note, parallel=parallel) if jobs else []
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
        # After the growth at the boot comes that by hand.
        by_hand = [_BY_HAND] if case.enlarge_to_bytes else []
        if findings != [finding, *by_hand]:
            found.append(f"{subject}: expected {_words(finding)}, found {_words(*findings)}")
    notes = tuple(note.kind for note in explanation.notes)
    if notes != case.notes:
        found.append(f"notes: expected {', '.join(case.notes)}, found {', '.join(notes)}")
    return found


def export_recording(run: Run, target: Path) -> None:
    """Copy a run folder as a recording that can ship: without any path of this machine.

    Parameters
    ----------
    run : Run
    target : Path
        Replaced if it exists.
    """
    shutil.rmtree(target, ignore_errors=True)
    paths.make_folder(target)
    for name in _FILES:
        shutil.copyfile(run.folder / name, target / name)
    folders = (run.folder.absolute(), Path(run.image.path).parent)
    write_record(target, record_from_json(_without_folders(run.record.to_json(), folders)))


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
        return build_image(
            suite=recipe.suite,
            filesystem=recipe.filesystem,
            variant=recipe.variant,
            arch=recipe.arch,
        )
    disk = folder / f"disk-after-{case.follows}.qcow2"
    if not disk.exists():
        # A base image is one file that needs no other.
        overlay = folder / case.follows / "overlay.qcow2"
        with paths.whole_file(disk) as part:
            formats = ("-f", "qcow2", "-O", "qcow2")
            run_tool(["qemu-img", "convert", *formats, overlay, part], timeout_s=_CONVERT_TIMEOUT_S)
    return open_image(disk)


def _print_note(event: RunEvent) -> None:
    if event.note:
        sys.stderr.write(f"{event.run}: {event.note}\n")


def _words(*findings: Finding) -> str:
    grown = {True: "grown", False: "not grown", None: "not known"}
    return " and ".join(
        f"{grown[is_grown]} by {by}" + (f" ({reason})" if reason else "")
        for is_grown, by, reason in findings
    )


def modules_run(run: Run) -> list[tuple[str, str]]:
    """Return which of cloud-init's modules ran before the last report, with their stages."""
    modules = run.modules
    return list(zip(modules["stage"], modules["module"], strict=True))


def _verdict(name: str, run: Run) -> list[str]:
    """Return what is wrong with a fresh boot of a case."""
    problems = unexpected(name, run.explain())
    if name not in recording_names():
        return [*problems, "no recording is shipped to compare with"]
    old = recorded(name)
    for new, before in (
        (outcome(run.explain()), outcome(old.explain())),
        (modules_run(run), modules_run(old)),
    ):
        if new != before:
            problems.append(f"differs from its recording: {new} != {before}")
    return problems


def main(argv: Sequence[str] | None = None) -> int:
    """Boot the gallery; return 0 if every case came out as it must, else 1."""
    parser = argparse.ArgumentParser(description=__doc__)
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
            check_new_folder(args.output)
        start = args.start or (Start.COLD if args.record else Start.AUTO)
        run_cases(names, args.output, parallel=args.jobs, start=start)
        failed = 0
        for name in names:
            run = Run(args.output / name)
            if args.record:
                problems = unexpected(name, run.explain())
                export_recording(run, recordings_folder() / name)
            else:
                problems = _verdict(name, run)
            failed += bool(problems)
            sys.stdout.write(_row(name, run, problems))
    except CloudlabError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.write(f"{len(names) - failed} of {len(names)} cases came out as they must.\n")
    return 1 if failed else 0


def _row(name: str, run: Run, problems: list[str]) -> str:
    explanation = run.explain()
    findings = [f"  {one.subject}: {_words(one.finding)}" for one in explanation.statements] + [
        f"  noted: {note.kind}" for note in explanation.notes
    ]
    verdict = "FAIL" if problems else "ok  "
    head = f"{verdict} {name}: {CASES[name].title} ({run.record.start.kind})"
    return "\n".join([head, *findings, *(f"  ! {problem}" for problem in problems)]) + "\n"


if __name__ == "__main__":
    sys.exit(main())
