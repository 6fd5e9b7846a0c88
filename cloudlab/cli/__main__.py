"""``python -m cloudlab.cli``."""

from cloudlab.cli import entry_point

entry_point()
