"""Commands that boot, and the seed that they boot with: run, demo, sweep, seed."""

from __future__ import annotations

import argparse
import inspect
from pathlib import Path
from typing import Any

from cloudlab import paths
from cloudlab.cli import terminal
from cloudlab.cli.images import check_output, image_for, print_path
from cloudlab.errors import CloudlabError, SeedError, UsageError
from cloudlab.machine.config import check_shape
from cloudlab.run.boot import boot_many, dated_folder
from cloudlab.run.display import save_demo
from cloudlab.run.options import Options, article_options, scenario_name, typed_values
from cloudlab.run.record import check_new_folder
from cloudlab.run.sweep import BUILD_OPTIONS
from cloudlab.run.sweep import sweep as run_sweep
from cloudlab.run.value import Run
from cloudlab.seed import SeedConfig, User, parse_public_keys, write_seed
from cloudlab.units import format_bytes
from cloudlab.yamltext import YamlFault, read_yaml

_LONGEST_SETTING = 10_000


def run(args: argparse.Namespace) -> None:
    """Boot one machine: a run folder, a table, an explanation, a figure."""
    seed, texts = seed_config(args), own_texts(args)
    machine = _machine_values(args)
    scenario = args.user_data.name if args.user_data else scenario_name(seed)
    folder = args.output or dated_folder(scenario)
    check_new_folder(folder)
    check_output(folder)
    options = Options(
        image=image_for(args),
        seed=seed,
        check_user_data=not args.no_check,
        scenario=scenario,
        keep_overlay=args.keep_overlay,
        **texts,
        **machine,
    )
    [done] = _boot([(options, folder)], args, numbered=args.output is None)
    if done.error is not None:
        raise done.error
    figure = done.plot("disk-map")
    for form in (".png", ".svg"):
        figure.save(done.folder / f"disk-map{form}")
    _print_results([done])
    terminal.OUT.print(done.explain().to_text())
    terminal.say(f"Run folder: {done.folder}")
    print_path(done.folder / "disk-map.svg")


def demo(args: argparse.Namespace) -> None:
    """Boot the article's three scenarios: one table, figures, report.html."""
    machine = _machine_values(args)
    output = args.output or Path("build/demo")
    check_new_folder(output)
    check_output(output)
    # The sampler reports the moment between the partition's growth and the filesystem's.
    base = Options(image=image_for(args), seed=SeedConfig(sampler=True), **machine)
    runs = article_options(base)
    done = _boot([(one, output / one.scenario.replace(" ", "-")) for one in runs], args)
    failed = [one for one in done if one.error is not None]
    for one in failed:
        terminal.say(f"{one.name}: {one.error}")
    if failed:
        raise CloudlabError(
            f"{len(failed)} of {len(done)} runs failed; what they recorded is in {output}."
        )
    report = save_demo(done, output)
    _print_results(done)
    terminal.say("Open this in a browser:")
    print_path(report.absolute())


def sweep(args: argparse.Namespace) -> None:
    """Boot a machine for each combination of options: one table, two figures."""
    names = ("image", *BUILD_OPTIONS, "disk_size", "growpart", "resize_rootfs")
    values = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    values |= dict(_setting(text) for text in args.set)
    if own := values.keys() & inspect.signature(run_sweep).parameters:
        raise UsageError(
            f"--set takes options of the boot only, not: {', '.join(sorted(own))}.",
            hint="'cloudlab sweep --help' has the sweep's own options.",
        )
    with terminal.sweep_view() as show:
        done = run_sweep(
            args.output, pairwise=args.pairwise, most=args.most, executor=args.scheduler,
            parallel=args.parallel, mirror=args.mirror, on_progress=show, **values,
        )  # fmt: skip
    sizes = {run.name: map(format_bytes, run.root_sizes("after")) for run in done.runs}
    rows = [
        [*map(str, words), *sizes.get(name, ("-", "-")), outcome]
        for name, *words, outcome, _ in done.table.itertuples(index=False)
    ]
    columns = (*done.table.columns[1:-2], "partition", "filesystem", "outcome")
    terminal.print_table(columns, rows, right="partition,filesystem")
    for kind in ("growth", "matrix") if done.runs else ():
        print_path(done.plot(kind).save(done.folder / f"{kind}.svg"))
    print_path(done.folder / "sizes.csv")
    for row in done.failed.itertuples():
        terminal.say(f"{row.run}: {row.reason}")
    if len(done.failed):
        raise CloudlabError(
            f"{len(done.failed)} of {len(rows)} runs failed.",
            hint="The same command repeats the runs that failed, and no others.",
        )


def _setting(text: str) -> tuple[str, list[Any]]:
    """Return name and values of a text such as ``cpus=1,2``."""
    name, _, listed = text.partition("=")
    try:
        return name.replace("-", "_"), read_yaml(
            f"[{listed}]", max_characters=_LONGEST_SETTING
        ).value
    except YamlFault as fault:
        raise UsageError(
            f"--set {text}: {fault.message}.", hint="Write NAME=VALUE,VALUE."
        ) from None


def _boot(
    jobs: list[tuple[Options, Path]], args: argparse.Namespace, *, numbered: bool = False
) -> list[Run]:
    with terminal.RunView(console=args.console, named=len(jobs) > 1) as view:
        return boot_many(jobs, on_event=view, numbered=numbered)


def _machine_values(args: argparse.Namespace) -> dict[str, Any]:
    """Return the machine's options; wrong ones are refused before any download."""
    names = ("disk_size", "enlarge_to", "memory", "cpus", "firmware", "network", "accel", "start")
    values = typed_values(**{name: getattr(args, name) for name in names}, timeout_s=args.timeout)
    check_shape(values["memory_bytes"], values["cpus"])
    return values


def _print_results(done: list[Run]) -> None:
    import pandas as pd

    sizes = pd.concat([run.sizes for run in done], ignore_index=True)
    terminal.print_table(
        terminal.SIZES_HEAD, terminal.sizes_rows(sizes), right="before,after,console line"
    )
    for run in done:
        terminal.say(f"{run.name}: {run.took}")
    for run in done:
        for warning in run.record.warnings:
            terminal.say(f"warning: {run.name}: {warning}")


def seed(args: argparse.Namespace) -> None:
    """Write a seed ISO."""
    written = write_seed(
        args.output,
        seed_config(args, report=False, instance_id=args.instance_id),
        **own_texts(args),
        check=not args.no_check,
        overwrite=args.force,
    )
    for problem in written.problems:
        terminal.say(f"warning: {problem}")
    print_path(args.output)


def seed_config(
    args: argparse.Namespace, *, report: bool = True, instance_id: str | None = None
) -> SeedConfig:
    """Return the cloud-init options that the arguments make."""
    # A seed for another machine, and the user's own user-data, run as a cloud would.
    lean = report and args.user_data is None
    password_file = args.password_hash_file
    names = ("growpart", "resize_rootfs", "bootcmd", "runcmd", "hostname", "sampler")
    values = typed_values(
        **{name: getattr(args, name) for name in names},
        growpart_devices=args.growpart_device,
        ignore_growroot_disabled=args.ignore_growroot_disabled or None,
        ssh_authorized_keys=[key for path in args.ssh_key for key in _public_keys(path)],
        password_hash=paths.read_text(password_file).strip() if password_file else None,
        extra_yaml=args.extra,
        profile=args.profile or ("lean" if lean else "full"),
        report=report,
        instance_id=instance_id,
    )
    return SeedConfig(users=tuple(User(name) for name in args.user), **values)


def _public_keys(path: Path) -> tuple[str, ...]:
    try:
        return parse_public_keys(paths.read_text(path))
    except SeedError as error:
        beside = path.with_name(f"{path.name}.pub")
        hint = f"The public key is in {beside}." if beside.is_file() else error.hint
        raise UsageError(f"{path}: {error.message} Nothing was done.", hint=hint) from error


#: File of the user's own -> the options that have no effect beside it.
_REPLACED = {
    "user_data": (
        "growpart", "resize_rootfs", "growpart_device", "ignore_growroot_disabled", "bootcmd",
        "runcmd", "hostname", "user", "ssh_key", "password_hash_file", "extra",
    ),
    "meta_data": ("hostname", "instance_id"),
    "vendor_data": (),
    "network_config": (),
}  # fmt: skip


def own_texts(args: argparse.Namespace) -> dict[str, Any]:
    """Return the user's own user-data, meta-data, vendor-data and network-config, by argument.

    Raises
    ------
    UsageError
        If another option would have no effect beside one of them.
    """
    texts: dict[str, Any] = {}
    for name, options in _REPLACED.items():
        path = getattr(args, name)
        replaced = [_option(one) for one in options if getattr(args, one, None)]
        if path is not None and replaced:
            raise UsageError(
                f"{', '.join(replaced)} would have no effect beside {_option(name)}; "
                "nothing was done.",
                hint=f"Write it into your {name.replace('_', '-')}, or leave {_option(name)} out.",
            )
        texts[name] = None if path is None else paths.read_text(path)
    return texts


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
