"""What all tests share."""

import shutil
from pathlib import Path

import pytest

from cloudlab.image.cache import Image
from cloudlab.machine.accel import choose_accel


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
def own_cache(tmp_path, monkeypatch, probed) -> Path:
    """A cache folder of the test's own, which child processes use as well."""
    folder = tmp_path / "cache"
    shutil.copytree(probed, folder)
    monkeypatch.setenv("CLOUDLAB_CACHE", str(folder))
    return folder
