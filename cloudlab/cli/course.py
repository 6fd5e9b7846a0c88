"""Command lab: JupyterLab on the learner's copy of the course."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys

from cloudlab import paths
from cloudlab.cli import terminal
from cloudlab.course.notebooks import copy_course, default_folder
from cloudlab.errors import CloudlabError


def lab(args: argparse.Namespace) -> None:
    """Copy the course, then become JupyterLab."""
    missing = [
        name
        for name in ("jupyterlab", "ipykernel", "ipywidgets", "anywidget")
        if importlib.util.find_spec(name) is None
    ]
    if missing and not args.copy_only:
        raise CloudlabError(
            f"The course needs {', '.join(missing)}, which this Python does not have.",
            hint=f"Install it with: {sys.executable} -m pip install 'cloudlab[notebook]'",
        )
    course = copy_course(paths.expand(args.folder or default_folder()).absolute())
    terminal.say(f"The course is in {course.folder}; {len(course.written)} files were written.")
    for name in course.kept:
        terminal.say(f"Yours was kept, though cloudlab has a new version: {name}")
    if args.copy_only:
        return
    first = next(iter(sorted(course.folder.glob("00-*.ipynb"))), None)
    options = [f"--ServerApp.root_dir={course.folder}"]
    if first is not None:
        options.append(f"--LabApp.default_url=/lab/tree/{first.name}")
    # In place of this process: Ctrl-C and everything else is between the user and JupyterLab.
    os.execv(sys.executable, [sys.executable, "-m", "jupyterlab", *options, *args.jupyter])  # noqa: S606
