"""The seed: cloud-init options as the small disk that cloud-init reads.

::

    SeedConfig, or a user-data text ── build_seed ──> Seed (the files' texts) ── write_iso ──> ISO

:func:`write_seed` does both; :func:`check_user_data` finds the problems of a user-data text.  The
guest's measurements come from ``report.sh``, which is on the same disk.
"""

from cloudlab.seed.check import Problem, Severity, check_meta_data, check_user_data, load_schema
from cloudlab.seed.config import (
    GrowpartMode,
    Profile,
    ResizeRootfs,
    Seed,
    SeedConfig,
    User,
    build_seed,
    new_instance_id,
    new_nonce,
    parse_public_keys,
    to_user_data,
    with_nonce,
)
from cloudlab.seed.iso import write_iso, write_seed

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
    "load_schema",
    "new_instance_id",
    "new_nonce",
    "parse_public_keys",
    "to_user_data",
    "with_nonce",
    "write_iso",
    "write_seed",
]
