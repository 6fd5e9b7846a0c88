"""What each command takes.  The commands themselves are loaded when they are carried out."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudlab

Parser = argparse.ArgumentParser


def make_parser() -> Parser:
    """Return the parser of the whole command line."""
    parser = Parser(
        prog="cloudlab",
        description="How does a cloud image of a few hundred megabytes become a 20 GB disk? "
        "Boot one and see.",
        epilog="Exit codes: 0 done, 1 it failed, 2 wrong usage, 130 interrupted. "
        "The cache moves with the variable CLOUDLAB_CACHE.",
    )
    parser.add_argument("--version", action="version", version=f"cloudlab {cloudlab.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for add in (_doctor, _images, _disks, _runs, _reading, _machines, _course):
        add(commands)
    return parser


def _lazily(module: str, function: str) -> Callable[[argparse.Namespace], None]:
    def carry_out(args: argparse.Namespace) -> None:
        getattr(importlib.import_module(f"cloudlab.cli.{module}"), function)(args)

    return carry_out


def _command(commands: Any, name: str, summary: str, where: str) -> Parser:
    parser: Parser = commands.add_parser(
        name, help=summary, description=f"{summary[0].upper()}{summary[1:]}."
    )
    parser.set_defaults(carry_out=_lazily(where, name), command=name)
    return parser


def _json(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def _doctor(commands: Any) -> None:
    doctor = _command(commands, "doctor", "check what a real boot needs on this host", "hosts")
    _json(doctor)
    doctor.add_argument("--refresh", action="store_true", help="try the accelerators again")


def _images(commands: Any) -> None:
    images = _command(commands, "images", "list the images that cloudlab knows", "images")
    _json(images)
    fetch = _command(commands, "fetch", "print the path of a verified, cached image", "images")
    fetch.add_argument("image", metavar="NAME_OR_URL")
    fetch.add_argument("--checksum", metavar="ALGO:HEX", help="what the image must hash to")
    fetch.add_argument("--refresh", action="store_true", help="look for a newer one")
    fetch.add_argument("--arch", choices=("amd64", "arm64"), help="default: this host's")
    _mirror(fetch)
    build = _command(commands, "build", "build the lab image from Debian packages", "images")
    build.add_argument("--suite", default="bookworm", help="bookworm, trixie or bullseye")
    build.add_argument("--filesystem", default="ext4", help="ext4, btrfs or xfs")
    build.add_argument("--variant", default="plain", help="'help' lists what can be different")
    build.add_argument("--output", type=Path, metavar="FILE", help="put a copy there")
    verify = _command(commands, "verify", "hash cached images in full", "images")
    verify.add_argument("image", nargs="*", metavar="NAME", help="default: all of them")
    share = _command(commands, "share", "serve the image cache to a classroom", "images")
    share.add_argument("--address", help="address to listen on; default: the local network's")
    share.add_argument("--port", type=_port, help="default: 8765, or a free one")


def _disks(commands: Any) -> None:
    inspect = _command(commands, "inspect", "show partitions and filesystems of a disk", "disks")
    inspect.add_argument("disk", type=Path, metavar="DISK")
    inspect.add_argument("--format", choices=("qcow2", "raw"), help="default: told from the file")
    _json(inspect)
    seed = _command(commands, "seed", "write a cloud-init seed", "disks")
    seed.add_argument("output", type=Path, metavar="OUT.iso")
    _seed_options(seed)
    seed.add_argument("--instance-id", metavar="ID", help="default: a fresh one")


def _runs(commands: Any) -> None:
    run = _command(commands, "run", "boot one machine and record it", "runs")
    _seed_options(run)
    _machine_options(run)
    run.add_argument("--keep-overlay", action="store_true", help="leave the overlay in the folder")
    run.add_argument("--output", type=Path, metavar="DIR", help="the run folder")
    demo = _command(commands, "demo", "boot the article's three scenarios", "runs")
    _machine_options(demo)
    demo.add_argument("--output", type=Path, default=Path("build/demo"), metavar="DIR")


def _reading(commands: Any) -> None:
    parse = _command(commands, "parse", "read sizes from a console log or a paste", "reading")
    parse.add_argument("log", type=Path, metavar="CONSOLE.log", help="'-' reads standard input")
    _json(parse)
    replay = _command(commands, "replay", "play a recorded run", "reading")
    replay.add_argument("run", type=Path, metavar="RUN")
    replay.add_argument("--speed", type=_positive, default=1.0, help="times as fast; default 1")
    explain = _command(
        commands, "explain", "say what grew a machine's disk, or why it did not grow", "reading"
    )
    explain.formatter_class = argparse.RawDescriptionHelpFormatter
    explain.epilog = (
        "Logs, lsblk, df, fdisk -l, pvs and the like, user-data, archives and disk images are\n"
        "recognised by their content.\n\n"
        "examples:\n"
        "  cloudlab explain growpart-off                      # a recording, or a run folder\n"
        "  cloudlab explain cloud-init.log lsblk.txt\n"
        "  (lsblk; df -h /; sudo cat /var/log/cloud-init.log) | cloudlab explain -\n"
        "  cloudlab explain --redact cloud-init.log > for-the-bug-report.log"
    )
    explain.add_argument(
        "sources",
        nargs="+",
        metavar="FILE",
        help="a file, folder, archive or disk image of any machine, - for standard input; or a run",
    )
    explain.add_argument(
        "--redact",
        action="store_true",
        help="print the files instead, without host names, addresses, keys and UUIDs",
    )
    _json(explain)
    figure = _command(commands, "figure", "draw a figure of recorded runs", "reading")
    figure.add_argument("runs", type=Path, nargs="*", metavar="RUN")
    figure.add_argument("--kind", default="disk-map", help="'help' lists the kinds")
    figure.add_argument("--output", type=Path, metavar="FILE", help=".svg .png .pdf")
    figure.add_argument(
        "--size",
        choices=("screen", "slide", "page"),
        default="screen",
        help="screen (default), slide (1600 x 900) or page (half a page's width)",
    )
    figure.add_argument(
        "--style",
        choices=("light", "dark", "print"),
        default="light",
        help="light (default), dark, or print (grey, with patterns)",
    )
    figure.add_argument(
        "--title", metavar="TEXT", help="instead of the finding; empty for a figure without one"
    )
    figure.add_argument(
        "--predict",
        metavar="PARTITION,FILESYSTEM",
        help="what you expected, as lsblk and df write it: 19.9G,20G; for --kind prediction",
    )
    figure.add_argument("--data", type=Path, metavar="FILE.csv", help="the numbers behind it")


def _machines(commands: Any) -> None:
    ps = _command(commands, "ps", "list the machines that run", "hosts")
    _json(ps)
    stop = _command(commands, "stop", "end running machines", "hosts")
    stop.add_argument("machine", nargs="*", metavar="ID")
    stop.add_argument("--all", action="store_true", help="all of this user's")


def _course(commands: Any) -> None:
    lab = _command(commands, "lab", "open JupyterLab on your copy of the course", "course")
    lab.add_argument("--folder", type=Path, metavar="DIR", help="default: ~/cloudlab-course")
    lab.add_argument("--copy-only", action="store_true", help="copy the course and stop there")
    lab.add_argument(
        "jupyter", nargs="*", metavar="-- OPTION", help="for JupyterLab, such as -- --no-browser"
    )


def _seed_options(parser: Parser) -> None:
    group = parser.add_argument_group("cloud-init")
    group.add_argument("--growpart", metavar="MODE", help="auto, growpart, gpart or off")
    group.add_argument("--resize-rootfs", metavar="VALUE", help="true, false or noblock")
    group.add_argument("--growpart-device", action="append", default=[], metavar="DEV")
    group.add_argument(
        "--ignore-growroot-disabled", action="store_true", default=None, help="see cloud-init"
    )
    group.add_argument("--bootcmd", action="append", default=[], metavar="COMMAND")
    group.add_argument("--runcmd", action="append", default=[], metavar="COMMAND")
    group.add_argument("--hostname")
    group.add_argument(
        "--user", action="append", default=[], metavar="NAME", help="one more user, who has sudo"
    )
    group.add_argument(
        "--ssh-key",
        action="append",
        default=[],
        type=Path,
        metavar="FILE.pub",
        help="for the default user",
    )
    group.add_argument(
        "--password-hash-file", type=Path, metavar="FILE", help="a crypt hash, for the default user"
    )
    group.add_argument("--extra", type=Path, metavar="FILE", help="further keys, as YAML")
    group.add_argument(
        "--user-data", type=Path, metavar="FILE", help="your own, instead of all this"
    )
    group.add_argument("--meta-data", type=Path, metavar="FILE")
    group.add_argument("--vendor-data", type=Path, metavar="FILE", help="a cloud-config, too")
    group.add_argument("--network-config", type=Path, metavar="FILE")
    group.add_argument("--no-check", action="store_true", help="take user-data with errors, too")
    group.add_argument("--profile", default=None, metavar="P", help="lean (default) or full")
    group.add_argument("--sampler", action="store_true", help="report every change of size")


def _machine_options(parser: Parser) -> None:
    group = parser.add_argument_group("machine")
    group.add_argument("--image", default="auto", help="auto (default), a name, a path or a URL")
    group.add_argument("--arch", choices=("amd64", "arm64"), help="of a published image")
    group.add_argument("--disk-size", default="20G", metavar="SIZE", help="default 20G")
    group.add_argument("--memory", default="1G", metavar="SIZE", help="default 1G")
    group.add_argument("--cpus", type=int, default=1)
    group.add_argument("--firmware", choices=("bios", "uefi"))
    group.add_argument("--network", choices=("none", "user"), default="none")
    group.add_argument("--accel", choices=("kvm", "hvf", "tcg"), help="default: what works here")
    group.add_argument(
        "--start",
        choices=("cold", "warm", "auto"),
        default="auto",
        help="from the firmware on, or from a machine saved amid its boot",
    )
    group.add_argument("--timeout", type=_positive, metavar="SECONDS")
    group.add_argument(
        "--console", action="store_true", help="print the guest's console, line by line"
    )
    _mirror(group)


def _mirror(parser: Any) -> None:
    parser.add_argument("--mirror", metavar="URL", help="a classroom's 'cloudlab share'")


def _port(text: str) -> int:
    value = int(text)
    if not 0 < value < 1 << 16:
        raise argparse.ArgumentTypeError(f"{text} is no port")
    return value


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value
