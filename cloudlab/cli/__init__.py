"""The command line: arguments, exit codes, tables for a terminal.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.  The modules of this room have the
commands, and are imported when one of theirs is carried out.
"""

from __future__ import annotations

import argparse
import codecs
import contextlib
import importlib
import io
import keyword
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import cloudlab
from cloudlab.errors import CloudlabError, UsageError, suggest

INTERRUPTED = 130

_MACHINES = "; no machine is left running, and the recorded part is kept"
#: Command -> what Ctrl-C leaves behind.
_INTERRUPTED = {
    "run": _MACHINES,
    "demo": _MACHINES,
    "sweep": "; the finished runs are kept, and the same command continues",
    "fetch": "; the received part is kept, and the same command resumes the download",
    "build": "; the unfinished image was removed",
    "share": "; images and site are no longer served",
}

#: Command -> the module of this room that has it, and what it does.
_COMMANDS = {
    "doctor": ("hosts", "check what a boot needs on this host"),
    "ps": ("hosts", "list running machines"),
    "stop": ("hosts", "stop running machines"),
    "lab": ("hosts", "open JupyterLab on your copy of the course"),
    "class": ("hosts", "show who passed what in a class, and who is stuck"),
    "images": ("images", "list published and cached images"),
    "fetch": ("images", "download and verify an image, and print its path"),
    "build": ("images", "build an image from Debian packages, and print its path"),
    "verify": ("images", "verify checksums of cached images"),
    "share": ("images", "serve the image cache and the course's site to a classroom"),
    "inspect": ("images", "show partitions and filesystems of a disk image"),
    "seed": ("runs", "write a cloud-init seed (ISO) for any virtual machine"),
    "run": ("runs", "boot one machine and record it"),
    "demo": ("runs", "boot the article's three scenarios and write a report"),
    "sweep": ("runs", "boot a machine for each combination of options, and compare them"),
    "parse": ("reading", "read sizes from a console log or from pasted lsblk and df output"),
    "replay": ("reading", "play the console of a recorded run"),
    "explain": ("reading", "explain what grew a machine's disk, or why it did not grow"),
    "figure": ("reading", "draw a figure of one or more runs"),
}

#: What the help of each command shows.
_EXAMPLES = """
cloudlab doctor
cloudlab ps
cloudlab ps --json
cloudlab stop default
cloudlab stop --all
cloudlab lab
cloudlab lab --folder ~/course -- --no-browser --port 8899
cloudlab class
cloudlab class /srv/class --csv results.csv
cloudlab images
cloudlab images --json
cloudlab fetch ubuntu-24.04
cloudlab fetch https://example.org/my.qcow2 --checksum sha256:HEX
cloudlab build
cloudlab build --suite bookworm --filesystem btrfs
cloudlab build --variant help
cloudlab verify
cloudlab verify ubuntu-24.04
cloudlab share
cloudlab share --class
cloudlab share --site build/docs --address 192.168.1.20 --port 9000
cloudlab inspect disk.qcow2
cloudlab inspect disk.img --format raw --json
cloudlab seed seed.iso --growpart off --hostname node-1
cloudlab seed seed.iso --user-data my-user-data.yaml
cloudlab run --growpart off
cloudlab run --image ubuntu-24.04 --disk-size 30G --resize-rootfs false
cloudlab run --user-data my-user-data.yaml --console
cloudlab demo
cloudlab demo --image debian-12-generic --output my-demo
cloudlab sweep --disk-size 4G,20G,100G --growpart auto,off
cloudlab sweep --filesystem ext4,xfs,btrfs --set cpus=1,2
cloudlab sweep --disk-size 4G,20G --scheduler tcp://192.168.1.20:8786
cloudlab parse console.log
cloudlab parse - --json < pasted.txt
cloudlab replay default --speed 10
cloudlab replay runs/2026-11-26-101500-default --from growth
cloudlab explain growpart-off
cloudlab explain cloud-init.log lsblk.txt --json
cloudlab explain --redact cloud-init.log
cloudlab figure default --kind disk-map
cloudlab figure default growpart-off --kind scenarios --output scenarios.svg
cloudlab figure default --kind prediction --predict 19.9G,20G
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out one command and return its exit code."""
    _open_what_is_closed()
    _accept_any_text()
    args = make_parser().parse_args(argv)
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup
        signal.signal(signal.SIGHUP, _interrupt)
    try:
        args.carry_out(args)
    except CloudlabError as error:
        _say(f"cloudlab: {error}")
        return error.exit_code
    except BrokenPipeError:
        # The reader of our output has gone; Python must not complain when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        # A file or folder of the user's has a fault that no room translates.
        where = f"{error.filename}: " if error.filename else ""
        _say(f"cloudlab: {where}{error.strerror or error}.")
        return 1
    except KeyboardInterrupt:
        _say(f"cloudlab: interrupted{_INTERRUPTED.get(args.command, '')}.")
        return INTERRUPTED
    return 0


def entry_point() -> None:
    """Run the command line and exit; the console script."""
    sys.exit(main())


def _open_what_is_closed() -> None:
    """Open closed standard streams on the null device.

    Otherwise the next files get their numbers, and child processes use these as streams.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None and os.open(os.devnull, os.O_RDWR) == number:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8"))


def _accept_any_text() -> None:
    """Let standard output replace what its encoding lacks: a guest prints any character.

    A handler of PYTHONIOENCODING that replaces it as well stays.
    """
    codecs.register_error("cloudlab", _replaced)
    stops = {"strict", "surrogateescape", "surrogatepass"}
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors in stops:
        sys.stdout.reconfigure(errors="cloudlab")


def _replaced(error: UnicodeError) -> tuple[str | bytes, int]:
    """Return undecodable bytes unchanged, and ``?`` for any other character."""
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end]
    # Python reads a byte that is no text as a surrogate.
    return b"".join(
        bytes([ord(one) - 0xDC00]) if "\udc80" <= one <= "\udcff" else b"?" for one in text
    ), error.end


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _say(text: str) -> None:
    from cloudlab.console import printable

    # The reader may have gone; the exit code says the same.
    with contextlib.suppress(BrokenPipeError):
        for line in text.splitlines():
            sys.stderr.write(printable(line) + "\n")
        sys.stderr.flush()


class Parser(argparse.ArgumentParser):
    """A parser that suggests a command, option or value in place of a mistyped one."""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            what = "command" if action.dest == argparse.SUPPRESS else "value"
            raise argparse.ArgumentError(
                action,
                f"unknown {what} {value!r}. {suggest(str(value), action.choices)}\n"
                f"Choose one of: {', '.join(action.choices)}.",
            )

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Parse arguments; unknown ones are an error of the command that they were given to."""
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            options = [name.split("=")[0] for name in unknown if name.startswith("-")]
            # The dashes alone do not make two options similar.
            known = [
                name
                for name in self._option_string_actions
                if options and suggest(options[0].strip("-"), [name.strip("-")])
            ]
            hint = suggest(options[0], known) if options else ""
            self.error(f"unknown argument: {' '.join(unknown)}. {hint}".rstrip())
        return parsed, unknown

    def error(self, message: str) -> NoReturn:
        """Print the error and where to find help, and exit with code 2."""
        self.exit(2, f"{self.prog}: {message}\nTry: {self.prog} --help\n")


def make_parser() -> Parser:
    """Return the parser of the whole command line."""
    parser = Parser(
        prog="cloudlab",
        description="How does a cloud image of a few hundred megabytes become a 20 GB disk?",
        epilog="examples:\n  cloudlab demo\n  cloudlab run --growpart off --disk-size 30G\n"
        "  cloudlab explain growpart-off\n\n"
        "Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.\n"
        "The environment variable CLOUDLAB_CACHE sets the folder of the image cache,\n"
        "CLOUDLAB_SHARED another one that is only read.\n"
        "CLOUDLAB_SLOTS=/srv/cloudlab/slots:10 lets all users of a host together run at\n"
        "most ten machines at a time; further boots wait. All must be able to write to\n"
        "the folder: sudo install -d -m 1777 /srv/cloudlab/slots",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"cloudlab {cloudlab.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for add in (_hosts, _images, _disks, _runs, _reading):
        add(commands)
    return parser


def _command(commands: Any, name: str) -> Parser:
    module, summary = _COMMANDS[name]

    def carry_out(args: argparse.Namespace) -> None:
        function = f"{name}_" if keyword.iskeyword(name) else name
        getattr(importlib.import_module(f"cloudlab.cli.{module}"), function)(args)

    lines = _EXAMPLES.splitlines()
    examples = [line for line in lines if line.split()[1:2] == [name]]
    parser: Parser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog="\n  ".join(["examples:", *examples]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(carry_out=carry_out, command=name)
    return parser


def _flag(group: Any, name: str, text: str) -> None:
    group.add_argument(name, action="store_true", help=text)


def _file(group: Any, name: str, text: str, metavar: str | None = "FILE") -> None:
    group.add_argument(name, type=_path, metavar=metavar, help=text)


def _choice(group: Any, name: str, words: str, text: str, default: str | None = None) -> None:
    choices = tuple(words.split())
    group.add_argument(name, type=str.lower, choices=choices, default=default, help=text)


def _many(group: Any, name: str, metavar: str, text: str, kind: Callable[[str], Any] = str) -> None:
    text = f"{text}; repeatable"
    group.add_argument(name, action="append", default=[], type=kind, metavar=metavar, help=text)


def _json(parser: Any) -> None:
    _flag(parser, "--json", "print JSON instead of a table")


def _hosts(commands: Any) -> None:
    doctor = _command(commands, "doctor")
    _json(doctor)
    _flag(doctor, "--refresh", "test the accelerators again")
    ps = _command(commands, "ps")
    _json(ps)
    stop = _command(commands, "stop")
    stop.add_argument("machine", nargs="*", metavar="MACHINE", help="id or name, as in 'ps'")
    _flag(stop, "--all", "stop all machines of this user")
    lab = _command(commands, "lab")
    _file(lab, "--folder", "default: ~/cloudlab-course", "DIR")
    _flag(lab, "--copy-only", "copy the course, open nothing")
    lab.add_argument("jupyter", nargs="*", metavar="-- OPTION", help="options for JupyterLab")

    board = _command(commands, "class")
    words = "the class's folder; default: the newest of 'share --class'"
    board.add_argument("folder", nargs="?", default="", metavar="FOLDER", help=words)
    output = board.add_mutually_exclusive_group()
    _file(output, "--csv", "also write all that is known; - is standard output, and no table")
    _json(output)


def _images(commands: Any) -> None:
    _json(_command(commands, "images"))
    fetch = _command(commands, "fetch")
    fetch.add_argument("image", metavar="NAME_OR_URL", help="a name from 'images', or a URL")
    fetch.add_argument("--checksum", metavar="ALGO:HEX", help="checksum that the image must have")
    _flag(fetch, "--refresh", "check for a newer version")
    _choice(fetch, "--arch", "amd64 arm64", "default: this host's")
    _mirror(fetch)
    build = _command(commands, "build")
    build.add_argument(
        "--suite", default="trixie", help="trixie (default), bookworm, bullseye, sid"
    )
    build.add_argument("--filesystem", default="ext4", help="ext4 (default), btrfs or xfs")
    build.add_argument("--variant", default="plain", help="what differs; 'help' lists the variants")
    _choice(build, "--arch", "amd64 arm64", "default: this host's; another one takes long")
    _file(build, "--output", "copy the image to FILE")
    verify = _command(commands, "verify")
    verify.add_argument("image", nargs="*", metavar="NAME", help="default: all cached images")
    share = _command(commands, "share")
    share.add_argument("--address", help="address to listen on; default: the local network's")
    share.add_argument("--port", type=_port, help="default: 8765, or a free port")
    _file(share, "--site", "folder of web pages; default: what 'make docs' built", "DIR")
    text = "collect the class's answers, too; default: in the cache"
    share.add_argument(
        "--class", dest="class_folder", nargs="?", const="", metavar="DIR", help=text
    )


def _disks(commands: Any) -> None:
    inspect = _command(commands, "inspect")
    _file(inspect, "disk", "a raw or qcow2 file", "DISK")
    _choice(inspect, "--format", "qcow2 raw", "default: detect the format")
    _json(inspect)
    seed = _command(commands, "seed")
    _file(seed, "output", "the file to write", "OUT.iso")
    seed.add_argument("--instance-id", metavar="ID", help="default: a new one")
    _flag(seed, "--force", "replace OUT.iso if it exists")
    _seed_options(seed)


def _runs(commands: Any) -> None:
    run = _command(commands, "run")
    _file(run, "--output", "the run folder; default: a new one in runs/", "DIR")
    _flag(run, "--keep-overlay", "keep the overlay, in the run folder")
    _machine_options(run)
    _seed_options(run)
    demo = _command(commands, "demo")
    _file(demo, "--output", "folder of the results; default: build/demo", "DIR")
    _machine_options(demo)
    sweep = _command(commands, "sweep")
    group = sweep.add_argument_group("options to combine, each with values separated by commas")
    build = ("suite", "filesystem", "variant")
    for name in ("image", *build, "disk-size", "growpart", "resize-rootfs"):
        words = f"as for '{'build' if name in build else 'run'}'"
        group.add_argument(f"--{name}", type=_words, metavar="VALUES", help=words)
    _many(group, "--set", "NAME=VALUES", "any other option of cloudlab.make_options, as YAML")
    _flag(sweep, "--pairwise", "a few runs that cover each pair of values, not all combinations")
    add = sweep.add_argument
    add("--most", type=_count, default=500, metavar="N", help="refuse more runs; default: 500")
    _file(sweep, "--output", "default: in runs/, the same for the same values", "DIR")
    add("--parallel", type=_count, metavar="N", help="default: as cores and memory allow")
    add("--scheduler", metavar="ADDRESS", help="a Dask scheduler whose workers do the runs")
    _mirror(sweep)


def _reading(commands: Any) -> None:
    parse = _command(commands, "parse")
    _file(parse, "log", "a text file; - is standard input")
    _json(parse)
    replay = _command(commands, "replay")
    _run(replay)
    replay.add_argument("--speed", type=_positive, default=1.0, help="factor; default: 1")
    replay.add_argument(
        "--from",
        dest="start",
        choices=("before", "growth", "report"),
        help="start at the report before growth, at growth, or at the report after it",
    )
    explain = _command(commands, "explain")
    explain.add_argument(
        "sources",
        type=_source,
        nargs="+",
        metavar="FILE",
        help="logs, lsblk, df, fdisk -l, pvs and the like, user-data, archives, folders and disk "
        "images of any machine, recognised by content; - is standard input; or a run",
    )
    words = "print the files instead, without host names, addresses, keys and UUIDs"
    _flag(explain, "--redact", words)
    _json(explain)
    figure = _command(commands, "figure")
    _run(figure, nargs="*")
    figure.add_argument("--kind", default="disk-map", help="default: disk-map; 'help' lists them")
    _file(figure, "--output", ".svg, .png or .pdf; default: KIND.svg")
    words = "screen (default), slide (1600 x 900) or page (half a page's width)"
    _choice(figure, "--size", "screen slide page", words, "screen")
    words = "light (default), dark, or print (grey, with patterns)"
    _choice(figure, "--style", "light dark print", words, "light")
    words = "default: the finding; '' for no title"
    figure.add_argument("--title", type=_text, metavar="TEXT", help=words)
    words = "expected sizes, such as 19.9G,20G; for --kind prediction"
    figure.add_argument("--predict", metavar="PARTITION,FILESYSTEM", help=words)
    _file(figure, "--data", "also write the data behind it", "FILE.csv")


def _run(parser: Parser, **options: Any) -> None:
    text = "a run folder, or the name of a shipped recording"
    parser.add_argument("run", type=_path, metavar="RUN", help=text, **options)


def _seed_options(parser: Parser) -> None:
    group = parser.add_argument_group("cloud-init")
    words = "what grows the partition; default: auto"
    _choice(group, "--growpart", "auto growpart gpart off", words)
    words = "whether to grow the root filesystem; default: true"
    _choice(group, "--resize-rootfs", "true false noblock", words)
    _many(group, "--growpart-device", "DEV", "mount point or device to grow; default: /")
    _flag(group, "--ignore-growroot-disabled", "grow even if /etc/growroot-disabled exists")
    _many(group, "--bootcmd", "COMMAND", "run before growth", _text)
    _many(group, "--runcmd", "COMMAND", "run at the end of the boot", _text)
    group.add_argument("--hostname", metavar="NAME", help="host name of the guest")
    _many(group, "--user", "NAME", "add a user with sudo rights")
    _many(group, "--ssh-key", "FILE.pub", "public key of the default user", _path)
    _file(group, "--password-hash-file", "crypt hash of the default user's password")
    _file(group, "--extra", "further cloud-config keys, as YAML")
    _file(group, "--user-data", "your own user-data, plain or gzip, instead of the options above")
    _file(group, "--meta-data", "your own meta-data")
    _file(group, "--vendor-data", "vendor-data; user-data keys override it")
    _file(group, "--network-config", "network configuration, version 1 or 2")
    _flag(group, "--no-check", "accept user-data with errors")
    words = (
        "lean: only the modules that growth needs; full: all of them (default for 'seed' and for "
        "your own user-data)"
    )
    _choice(group, "--profile", "lean full", words)
    _flag(group, "--sampler", "also report every change of size during the boot")


def _machine_options(parser: Parser) -> None:
    group = parser.add_argument_group("machine")
    add = group.add_argument
    add("--image", default="auto", help="a name from 'images', a file or a URL; default: auto")
    _choice(group, "--arch", "amd64 arm64", "of the image; default: this host's")
    add("--disk-size", default="20G", metavar="SIZE", help="default: 20G")
    add("--enlarge-to", metavar="SIZE", help="enlarge the disk at the end of the boot, and grow")
    add("--memory", default="1G", metavar="SIZE", help="default: 1G")
    add(
        "--cpus",
        type=int,
        default=1,
        metavar="N",
        help="default: 1; under TCG more are faster, but Linux may panic",
    )
    _choice(group, "--firmware", "bios uefi", "default: BIOS where the image supports it")
    words = "none (default), or user for outgoing connections"
    _choice(group, "--network", "none user", words, "none")
    _choice(group, "--accel", "kvm hvf tcg", "default: the fastest that works here")
    words = "boot from the firmware (cold) or resume from a snapshot (warm); default: auto"
    _choice(group, "--start", "cold warm auto", words, "auto")
    add("--timeout", type=_positive, metavar="SECONDS", help="how long the boot may take")
    _flag(group, "--console", "print the guest's console while it boots")
    _mirror(group)


def _mirror(parser: Any) -> None:
    parser.add_argument("--mirror", metavar="URL", help="address shown by 'cloudlab share'")


def _path(text: str) -> Path:
    from cloudlab.paths import expand

    try:
        return expand(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(" ".join(str(error).split())) from error


def _source(text: str) -> str:
    path = _path(text)
    return str(path) if text.startswith("~") else text


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 1 << 16:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port number (1 to 65535)")
    return int(text)


def _text(argument: str) -> str:
    """Return an argument as text; what Python could not decode is read as UTF-8."""
    return argument.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _words(text: str) -> list[str]:
    return text.split(",")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value
