"""cloudlab: how does a cloud image of a few hundred megabytes become a 20 GB disk?

The package follows the way of the data::

    image -> (overlay + seed) -> machine -> console -> sizes -> explanation, figures, widgets

Each room (module) is named after what it owns and imports only rooms above it;
``CONTRIBUTING.md`` has the table.  Nothing is loaded before it is used: importing
``cloudlab`` costs milliseconds, pandas and matplotlib come with the first call that
needs them.
"""

__version__ = "0.1.0"
