"""Live or replay: what decides it."""

from __future__ import annotations

import pytest

from cloudlab.course.runs import live_problem, mode
from cloudlab.errors import UsageError


@pytest.mark.parametrize(
    ("wish", "problem", "live"),
    [
        pytest.param("", "", True, id="live where it works"),
        pytest.param("auto", "", True, id="auto is the default"),
        pytest.param("", "no QEMU", False, id="replay where it does not"),
        pytest.param("live", "", True, id="live as asked"),
        pytest.param("live", "no QEMU", False, id="asked for live in vain"),
        pytest.param("replay", "", False, id="replay as asked"),
    ],
)
def test_decides(wish, problem, live):
    choice = mode(wish, problem)
    assert choice.live is live
    assert problem in choice.reason
    assert choice.reason


def test_refuses_another_word():
    with pytest.raises(UsageError, match="expected live, replay or auto"):
        mode("recorded", "")


def test_replay_does_not_look_for_qemu(monkeypatch, tmp_path):
    cache = tmp_path / "cache"
    monkeypatch.setenv("CLOUDLAB_CACHE", str(cache))
    monkeypatch.setenv("CLOUDLAB_MODE", "replay")
    assert not mode().live
    assert not cache.exists(), "looking for QEMU would have recorded what it found"


@pytest.mark.vm
def test_an_empty_cache_is_in_the_way(own_cache):
    assert "no image is in the cache" in live_problem()


def test_a_host_without_qemu_is_told_what_to_install(monkeypatch, own_cache, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("cloudlab.tools._SYSTEM_FOLDERS", ())
    assert "qemu-system" in live_problem()
    assert not mode().live
