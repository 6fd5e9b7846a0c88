"""Commands that boot: run, demo."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from cloudlab.cli import terminal
from cloudlab.cli.disks import (
    other_texts,
    own_meta_data,
    own_user_data,
    say_problems,
    seed_config,
)
from cloudlab.cli.images import check_output, image_for, print_path
from cloudlab.disk import parse_disk_size
from cloudlab.errors import CloudlabError
from cloudlab.lab import RunOptions, article_runs, run_many, scenario_name, typical
from cloudlab.lab.explained import explain_run
from cloudlab.lab.options import Start
from cloudlab.lab.prepare import accel_of, make_seed
from cloudlab.lab.run import Run
from cloudlab.machine.config import Accel, Firmware, Network, check_shape
from cloudlab.machine.network import choose_network
from cloudlab.recording import dated_folder, refuse_taken
from cloudlab.seed import SeedConfig


def run(args: argparse.Namespace) -> None:
    """Boot one machine: a run folder, a table, a figure."""
    seed = seed_config(args)
    own = own_user_data(args)
    machine = _machine_values(args)
    meta_data = own_meta_data(args)
    others = other_texts(args)
    scenario = scenario_name(seed) if own is None else args.user_data.name
    folder = args.output or dated_folder(Path("runs"), scenario)
    refuse_taken(folder)
    check_output(folder)
    options = RunOptions(
        image=image_for(args),
        seed=seed,
        user_data=own,
        meta_data=meta_data,
        check_user_data=not args.no_check,
        scenario=scenario,
        keep_overlay=args.keep_overlay,
        vendor_data=others["vendor_data"],
        network_config=others["network_config"],
        **machine,
    )
    say_problems(make_seed(options))
    [done] = _boot([(options, folder)], args, free=args.output is None)
    if done.error is not None:
        raise done.error
    from cloudlab.lab.report import draw_run

    figure = draw_run(done.recording)
    _print_sizes([done])
    _say_start([done])
    terminal.OUT.print(explain_run(done.recording).to_text())
    _say_warnings([done])
    terminal.say(f"Run folder: {folder.with_name(done.name)}")
    print_path(figure)


def demo(args: argparse.Namespace) -> None:
    """Boot the article's three scenarios: one table, figures, report.html."""
    machine = _machine_values(args)
    refuse_taken(args.output)
    check_output(args.output)
    # The sampler sees the moment between the partition's growth and the filesystem's.
    base = RunOptions(image=image_for(args), seed=SeedConfig(sampler=True), **machine)
    runs = article_runs(base)
    done = _boot([(one, args.output / one.scenario.replace(" ", "-")) for one in runs], args)
    failed = [one for one in done if one.error is not None]
    for one in failed:
        terminal.say(f"{one.name}: {one.error}")
    if failed:
        raise CloudlabError(
            f"{len(failed)} of {len(done)} runs failed; what they recorded is in {args.output}."
        )
    from cloudlab.lab.report import write_demo

    report = write_demo([one.recording for one in done], args.output)
    _print_sizes(done)
    _say_start(done)
    _say_warnings(done)
    terminal.say("Open this in a browser:")
    print_path(report.absolute())


def _boot(
    jobs: list[tuple[RunOptions, Path]], args: argparse.Namespace, *, free: bool = False
) -> list[Run]:
    options = jobs[0][0]
    accel = accel_of(options)
    terminal.say(f"Accelerator: {accel.accel} ({accel.reason}).")
    if options.network is Network.USER:
        network = choose_network(options.image.arch)
        terminal.say(f"warning: {network.warning}" if network.warning else "Network: passt.")
    expected_s = typical.expected_s(options, accel.accel)
    with terminal.RunView(expected_s, console=args.console, named=len(jobs) > 1) as view:
        return run_many(jobs, on_event=view, free=free)


def _machine_values(args: argparse.Namespace) -> dict[str, Any]:
    """Return what the arguments make of RunOptions; wrong ones are refused before any download."""
    memory_bytes = parse_disk_size(args.memory, "memory size")
    check_shape(memory_bytes, args.cpus)
    return {
        "disk_size_bytes": parse_disk_size(args.disk_size),
        "memory_bytes": memory_bytes,
        "cpus": args.cpus,
        "firmware": Firmware(args.firmware) if args.firmware else None,
        "network": Network(args.network),
        "accel": Accel(args.accel) if args.accel else None,
        "timeout_s": args.timeout,
        "start": Start(args.start),
    }


def _say_start(done: list[Run]) -> None:
    for one in done:
        about = one.recording.about
        start = about["start"]
        terminal.say(f"{one.name}: {about['took_s']:.1f} s, {start['kind']} start: {start['why']}")


def _say_warnings(done: list[Run]) -> None:
    for one in done:
        for warning in one.recording.about.get("warnings", ()):
            terminal.say(f"warning: {one.name}: {warning}")


def _print_sizes(done: list[Run]) -> None:
    import pandas as pd

    sizes = pd.concat([one.sizes() for one in done], ignore_index=True)
    terminal.print_table(
        terminal.SIZES_HEAD, terminal.sizes_rows(sizes), right="before,after,console line"
    )
