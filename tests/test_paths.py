"""Files that appear whole or not at all, and folders that can be written to."""

import pytest

from cloudlab import paths
from cloudlab.errors import CloudlabError


def test_the_cache_moves_with_the_variable(monkeypatch, tmp_path):
    monkeypatch.setenv("CLOUDLAB_CACHE", str(tmp_path / "c"))
    assert paths.images_folder() == tmp_path / "c" / "images"


def test_a_whole_file_replaces_the_old_one(tmp_path):
    target = tmp_path / "f"
    target.write_text("old")
    with paths.whole_file(target) as part:
        part.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "f"
    target.write_text("old")

    def fail():
        with paths.whole_file(target) as part:
            part.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_private_folder_is_its_owners(tmp_path):
    folder = paths.make_folder(tmp_path / "a" / "b", private=True)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_cannot_be_made_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CloudlabError, match="CLOUDLAB_CACHE"):
        paths.make_folder(tmp_path / "file" / "sub")
