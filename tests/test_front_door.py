"""``import cloudlab`` is enough for a notebook, and costs nothing until a name is used."""

import json
import subprocess
import sys

import pytest

import cloudlab
from cloudlab import course


def test_at_most_30_names_and_each_can_be_had():
    assert len(cloudlab.__all__) <= 30
    assert cloudlab.__all__ == sorted(cloudlab.__all__)
    assert set(cloudlab.__all__) == set(cloudlab._HOMES)
    assert set(cloudlab.__all__) <= set(dir(cloudlab))


def test_each_name_is_documented_and_always_the_same():
    for name in cloudlab.__all__:
        value = getattr(cloudlab, name)
        assert value.__doc__, name
        assert value is getattr(cloudlab, name), name


def test_each_name_of_the_course_can_be_had():
    for name in course._HOMES:
        assert getattr(course, name) is not None, name
    assert course._HOMES.keys() <= set(dir(course))


def test_another_name_is_refused():
    with pytest.raises(AttributeError, match="no attribute 'boots'"):
        _ = cloudlab.boots


def loaded_by(code):
    """Return the modules that a fresh interpreter holds after some code."""
    script = f"import json, sys; {code}; print(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    return set(json.loads(done.stdout))


def test_importing_loads_no_room_and_no_library():
    before, after = loaded_by("pass"), loaded_by("import cloudlab")
    assert {name for name in after if name.startswith("cloudlab")} == {"cloudlab"}
    new = {name.partition(".")[0] for name in after - before}
    assert not new - set(sys.stdlib_module_names) - {"cloudlab"}


def test_a_recording_is_opened_without_pandas_and_matplotlib():
    modules = loaded_by("import cloudlab; cloudlab.recorded('default').label")
    assert not {"pandas", "matplotlib", "ipywidgets", "rich"} & modules
