"""``python -m cloudlab``."""

from cloudlab.cli import entry_point

entry_point()
