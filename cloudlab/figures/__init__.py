"""Every picture, from tables alone.

``plot(kind, tables)`` draws one of :data:`KINDS` and returns a :class:`Plot`, which knows its
title, its alternative text and its data, and saves itself::

    plot("disk-map", {"sizes": sizes}, style="dark").save("disk-map.svg")

One layer of modules for each concern: ``tables`` and ``data`` turn tables into the table behind
a figure, ``words`` writes its text, ``charts`` and ``disks`` draw it on a ``canvas`` in a
``style``.  A further kind may have a module of its own with these three functions.

Importing this costs nothing: pandas and matplotlib come with the first use.
"""

from cloudlab.figures.plot import KINDS, Kind, Plot, plot

__all__ = ["KINDS", "Kind", "Plot", "plot"]
