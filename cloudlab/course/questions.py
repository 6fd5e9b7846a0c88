"""The quiz of notebook 6: question, what is said to each answer, and the right one."""

from __future__ import annotations

WHEN_IT_DOES_NOT_GROW: tuple[tuple[str, dict[str, str], str], ...] = (
    (
        "growpart is off and the disk is large. What does resize_rootfs: true do?",
        {
            "The filesystem fills the disk.": "It cannot grow beyond its partition.",
            "resizefs runs and finds nothing to do.": "The filesystem fills its partition already.",
            "resizefs is skipped.": "Its log says that it ran: see exercise 05-3.",
        },
        "resizefs runs and finds nothing to do.",
    ),
    (
        "The user-data switches growth off, yet everything grew. What do you look at first?",
        {
            "Whether cloud-init could read the user-data.": "What it cannot read it leaves out, "
            "and then its defaults hold.",
            "Whether the disk is larger than the image.": "It was, or nothing could have grown.",
            "Whether the growpart tool is there.": "Something grew the partition.",
        },
        "Whether cloud-init could read the user-data.",
    ),
    (
        "A grown disk is enlarged and booted again with the same instance-id. What happens?",
        {
            "Nothing: growth happens once per instance.": "runcmd runs once per instance.",
            "It grows again.": "growpart and resizefs run in every boot.",
        },
        "It grows again.",
    ),
    (
        "Another partition begins where root ends. The disk has 18 GiB of free space behind both.",
        {
            "growpart moves the other partition.": "growpart moves no data.",
            "Root keeps its size.": "Only space right behind a partition can be added to it.",
        },
        "Root keeps its size.",
    ),
)
