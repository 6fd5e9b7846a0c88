"""What all tests share."""

import gc
import os
import shutil
import signal
import types
from pathlib import Path

import hypothesis
import pytest

from cloudlab.image.cache import Image
from cloudlab.machine.accel import choose_accel
from cloudlab.yamltext import load_jsonschema

# nbformat would load it with grammars that take over a second to compile.
load_jsonschema()

# On a busy host any example may take long, and so may making it up.
BUSY = hypothesis.settings(deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.register_profile("busy", BUSY)
# `make test-fast` chooses it.
hypothesis.settings.register_profile("few", BUSY, max_examples=20)
hypothesis.settings.load_profile("busy")


def pytest_configure():
    """Undo what the caller's shell would change in tests and their children.

    A shell has what it starts in the background ignore Ctrl-C, nohup a hang-up, and children
    inherit that.  A learner's own mode, catalogue, mirror, class, slots and shared cache, a
    terminal's width, a wish for colours and the language of programs are none of the tests'.
    """
    for name in ("MODE", "CATALOGUE", "MIRROR", "CLASS", "SLOTS", "SHARED"):
        os.environ.pop(f"CLOUDLAB_{name}", None)
    for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"):
        os.environ.pop(name, None)
    for name in [name for name in os.environ if name.startswith(("LANG", "LC_"))]:
        del os.environ[name]
    os.environ["LANG"] = "C.UTF-8"
    for number, handler in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGHUP, signal.SIG_DFL),
    ):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


def names_used(code):
    """Return the global names that a function uses, also within its comprehensions."""
    inner = [const for const in code.co_consts if isinstance(const, types.CodeType)]
    return {*code.co_names, *(name for one in inner for name in names_used(one))}


def pytest_collection_modifyitems(items):
    """Mark the tests that execute a notebook, with ``executed`` of their module, as slow."""
    for item in items:
        if "executed" in names_used(item.function.__code__):
            item.add_marker("slow")


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Spare the garbage collector what is imported and collected: it lasts as long as the tests."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session")
def lab_image() -> Image:
    """The lab image, from the user's own cache: building one takes a minute or two."""
    from cloudlab.image.build import build_image

    return build_image()


@pytest.fixture(scope="session")
def probed(tmp_path_factory) -> Path:
    """A cache in which this host's accelerator has been found out: that may take seconds."""
    folder = tmp_path_factory.mktemp("probed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLOUDLAB_CACHE", str(folder))
        choose_accel()
    return folder


@pytest.fixture
def own_cache(tmp_path, monkeypatch, request) -> Path:
    """A cache folder of the test's own, which child processes use as well."""
    folder = tmp_path / "cache"
    if any(request.node.get_closest_marker(name) for name in ("vm", "boots")):
        shutil.copytree(request.getfixturevalue("probed"), folder)
    else:
        folder.mkdir()
    monkeypatch.setenv("CLOUDLAB_CACHE", str(folder))
    return folder
