"""The seed: what the learner chose, as the small disk that cloud-init reads.

::

    SeedConfig ── build_seed ──┐
                               ├──> Seed (the files' texts) ── write_iso ──> seed.iso
    user-data ── custom_seed ──┘

:func:`check_user_data` says what is wrong in a user-data text, with line and column.
The guest's measurements come from ``report.sh``, which travels on the same disk.
"""

from cloudlab.seed.check import check_meta_data, check_user_data, load_schema
from cloudlab.seed.config import (
    GrowpartMode,
    Profile,
    ResizeRootfs,
    Seed,
    SeedConfig,
    User,
    build_seed,
    custom_seed,
    new_instance_id,
    new_nonce,
    parse_public_keys,
    to_user_data,
    with_nonce,
)
from cloudlab.seed.iso import read_iso, write_iso
from cloudlab.seed.text import Problem, Severity

__all__ = [
    "GrowpartMode",
    "Problem",
    "Profile",
    "ResizeRootfs",
    "Seed",
    "SeedConfig",
    "Severity",
    "User",
    "build_seed",
    "check_meta_data",
    "check_user_data",
    "custom_seed",
    "load_schema",
    "new_instance_id",
    "new_nonce",
    "parse_public_keys",
    "read_iso",
    "to_user_data",
    "with_nonce",
    "write_iso",
]
