"""cloudlab: how does a cloud image of a few hundred megabytes become a 20 GB disk?

Data moves one way through the package::

    image -> (overlay + seed) -> machine -> console -> sizes -> Run -> explanation, figures, widgets

Everything that a notebook needs is at the top level::

    import cloudlab as cl

    run = cl.boot(growpart="off")     # or cl.recorded("growpart-off")
    run.plot("disk-map")
    run.explain()

Each room (module or folder) owns one subject and imports only rooms below it; the architecture
page has the table.  Importing ``cloudlab`` loads nothing else: each name brings its room when
it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloudlab.disk import DiskLayout
    from cloudlab.disk import inspect_disk as inspect
    from cloudlab.errors import CloudlabError
    from cloudlab.explanation import Explanation
    from cloudlab.image.build import build_image as build
    from cloudlab.image.cache import Image
    from cloudlab.image.fetch import choose_image, fetch
    from cloudlab.run.boot import boot, boot_many
    from cloudlab.run.display import plot
    from cloudlab.run.options import Options, make_options
    from cloudlab.run.predict import atlas, predict
    from cloudlab.run.sweep import sweep
    from cloudlab.run.value import (
        Run,
        compare,
        compare_options,
        explain,
        open_run,
        recorded,
        recordings,
    )
    from cloudlab.seed import GrowpartMode, ResizeRootfs, SeedConfig, write_seed
    from cloudlab.sizes import parse_console as parse

__version__ = "0.1.0"

#: Module -> its names that are public here.
_PUBLIC = {
    "disk": "DiskLayout inspect",
    "errors": "CloudlabError",
    "explanation": "Explanation",
    "image.build": "build",
    "image.cache": "Image",
    "image.fetch": "choose_image fetch",
    "run.boot": "boot boot_many",
    "run.display": "plot",
    "run.options": "Options make_options",
    "run.predict": "atlas predict",
    "run.sweep": "sweep",
    "run.value": "Run compare compare_options explain open_run recorded recordings",
    "seed": "GrowpartMode ResizeRootfs SeedConfig write_seed",
    "sizes": "parse",
}
_HOMES = {name: module for module, names in _PUBLIC.items() for name in names.split()}
#: Names that are longer in their modules.
_LONG_NAMES = {"build": "build_image", "inspect": "inspect_disk", "parse": "parse_console"}

__all__ = [
    "CloudlabError",
    "DiskLayout",
    "Explanation",
    "GrowpartMode",
    "Image",
    "Options",
    "ResizeRootfs",
    "Run",
    "SeedConfig",
    "atlas",
    "boot",
    "boot_many",
    "build",
    "choose_image",
    "compare",
    "compare_options",
    "explain",
    "fetch",
    "inspect",
    "make_options",
    "open_run",
    "parse",
    "plot",
    "predict",
    "recorded",
    "recordings",
    "sweep",
    "write_seed",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"cloudlab.{_HOMES[name]}")
    value = getattr(module, _LONG_NAMES.get(name, name))
    globals()[name] = value
    return value


def load_ipython_extension(shell: Any) -> None:
    """Let a notebook show values with their figures; ``%load_ext cloudlab`` calls it."""
    importlib.import_module("cloudlab.run.display").load_ipython_extension(shell)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
