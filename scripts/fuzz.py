"""``make fuzz``: coverage-guided fuzzing of everything that reads what others wrote.

    python scripts/fuzz.py [TARGET] [libFuzzer options, such as -max_total_time=600]

A finding is an exception that is not ours, or an input that takes unreasonably long;
libFuzzer writes it to the current folder.  The corpus starts from ``tests/data``.
"""

import contextlib
import sys
import tempfile
from pathlib import Path

import atheris
from disks import Bytes

with atheris.instrument_imports(include=["cloudlab"]):
    from cloudlab import formats
    from cloudlab.console import read_cast
    from cloudlab.disk import layout, table
    from cloudlab.errors import CloudlabError
    from cloudlab.explanation import explain_files
    from cloudlab.image import cache, catalogue
    from cloudlab.seed import check_user_data
    from cloudlab.sizes import check_sizes, parse_console, to_json

_ROOT = Path(__file__).parents[1]
_PACKAGE = _ROOT / "cloudlab"
_PLACE = Path(tempfile.mkdtemp(prefix="cloudlab-fuzz-"))


def console(data: bytes) -> None:
    parsed = parse_console(data)
    to_json(parsed)
    check_sizes(parsed)


def checksums(data: bytes) -> None:
    text = data.decode("utf-8", errors="replace")
    for style in ("gnu", "bsd", "bare"):
        catalogue.parse_checksums(text, style, "sha256")
    catalogue.parse_digest(text)


def published(data: bytes) -> None:
    # As a user's own file on top of the shipped one, which nobody else writes.
    text = data.decode("utf-8", errors="replace")
    catalogue.parse_catalogue(text, Path("fuzzed.yaml"), catalogue._shipped())


def index(data: bytes) -> None:
    cache.parse_index(data, "fuzzed")


def cast(data: bytes) -> None:
    path = _PLACE / "console.cast"
    path.write_bytes(data)
    list(read_cast(path))


def user_data(data: bytes) -> None:
    check_user_data(data.decode("utf-8", errors="replace"))


def evidence(data: bytes) -> None:
    path = _PLACE / "evidence"
    path.write_bytes(data)
    explain_files([path]).to_json()


def tables(data: bytes) -> None:
    table.parse_mbr(data)
    formats.parse_qcow2_header(data)
    table.parse_gpt_header(data)
    layout.read_layout(Bytes(data))


TARGETS = {
    one.__name__: one
    for one in (console, checksums, published, index, cast, user_data, evidence, tables)
}


def main() -> None:
    name = next((word for word in sys.argv[1:] if word in TARGETS), "console")
    target = TARGETS[name]

    def once(data: bytes) -> None:
        # Ours are clear words for bad input, which is what is wanted.
        with contextlib.suppress(CloudlabError):
            target(data)

    options = [word for word in sys.argv[1:] if word not in TARGETS]
    corpus = _PLACE / "corpus"
    corpus.mkdir()
    samples = [*(_ROOT / "tests" / "data").rglob("*"), *_PACKAGE.rglob("*.yaml")]
    samples += [
        *_PACKAGE.glob("recordings/*/console.cast"),
        *_PACKAGE.glob("recordings/*/user-data"),
    ]
    for number, sample in enumerate(samples):
        if sample.is_file():
            (corpus / str(number)).write_bytes(sample.read_bytes()[:65536])
    atheris.Setup([sys.argv[0], "-timeout=20", *options, str(corpus)], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
