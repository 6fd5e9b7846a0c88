"""Read a seed back, for tests."""

import io
from pathlib import Path

import pycdlib
from pycdlib.pycdlibexception import PyCdlibException

from cloudlab.seed import Seed


def read_iso(path: Path) -> Seed:
    """Return the texts of a seed image, by their Rock Ridge names."""
    names = {
        "user_data": "user-data",
        "meta_data": "meta-data",
        "vendor_data": "vendor-data",
        "network_config": "network-config",
        "report_sh": "report.sh",
    }
    iso = pycdlib.PyCdlib()
    iso.open(str(path))
    texts = {}
    for field, name in names.items():
        stream = io.BytesIO()
        try:
            iso.get_file_from_iso_fp(stream, rr_path=f"/{name}")
        except PyCdlibException:
            continue
        texts[field] = stream.getvalue().decode()
    iso.close()
    return Seed(**texts)
