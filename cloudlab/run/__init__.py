"""From options to a :class:`~cloudlab.run.value.Run`: prepare, start, monitor, record, report.

===========  ================================================================
module       owns
===========  ================================================================
options      the options of a run, the article's scenarios
record       ``run.json`` as typed values, the run folder
tables       the tables of a run
display      figures of runs; values in notebooks; the report page
value        ``Run``, the one value; opening runs and recordings
monitor      watching one boot until its report is complete
prepare      everything before the machine starts
start        cold from the firmware, or warm from a snapshot
boot         one run and many runs, from options to ``Run``
sweep        a grid of options, on this host or on a cluster
predict      what a boot will come to, by arithmetic and from the atlas
===========  ================================================================

Each imports only modules above it.
"""
