"""The seed: cloud-init options as the small disk that cloud-init reads.

::

    SeedConfig, or a user-data text ── build_seed ──> Seed (the files' texts) ── write_iso ──> ISO

:func:`write_seed` does both; :func:`check_user_data` finds the problems of a user-data text.  The
guest's measurements come from ``report.sh``, which is on the same disk.
"""

from cloudlab.seed.check import Problem as Problem
from cloudlab.seed.check import Severity as Severity
from cloudlab.seed.check import check_meta_data as check_meta_data
from cloudlab.seed.check import check_user_data as check_user_data
from cloudlab.seed.check import load_schema as load_schema
from cloudlab.seed.config import GrowpartMode as GrowpartMode
from cloudlab.seed.config import Profile as Profile
from cloudlab.seed.config import ResizeRootfs as ResizeRootfs
from cloudlab.seed.config import Seed as Seed
from cloudlab.seed.config import SeedConfig as SeedConfig
from cloudlab.seed.config import User as User
from cloudlab.seed.config import build_seed as build_seed
from cloudlab.seed.config import new_instance_id as new_instance_id
from cloudlab.seed.config import new_nonce as new_nonce
from cloudlab.seed.config import parse_public_keys as parse_public_keys
from cloudlab.seed.config import to_user_data as to_user_data
from cloudlab.seed.config import with_nonce as with_nonce
from cloudlab.seed.iso import write_iso as write_iso
from cloudlab.seed.iso import write_seed as write_seed
