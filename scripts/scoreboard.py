"""Score the explanation on the cases of ``tests/data``; write ``docs/scoreboard.md``.

    python scripts/scoreboard.py [--check]

A case is a folder with evidence and ``truth.json``.  An answer is right if grown, by and reason
are the truth's or among its ``also_``s, undecided if grown is null where the truth is not, and
otherwise wrong; a reason in ``must_not_claim`` is wrong whatever else is right.  ``order`` names
the files in the order of time, where their names do not sort so.

The cases come in rounds, one folder each.  A round's ``blind.json`` is the score on the cases
that the rules had never met, measured once: it never changes afterwards.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import cloudlab

ROOT = Path(__file__).parents[1]
DATA = ROOT / "tests" / "data"
PAGE = ROOT / "docs" / "scoreboard.md"
SUBJECTS = ("partition", "filesystem")
VERDICTS = ("right", "undecided", "wrong")


@dataclass(frozen=True)
class Round:
    """A set of cases that were written together."""

    title: str
    folder: Path
    about: str

    @property
    def cases(self) -> list[Path]:
        """The folders of its cases."""
        return sorted(path.parent for path in self.folder.glob("*/truth.json"))

    @property
    def blind(self) -> dict:
        """What the blind measurement found."""
        return json.loads((self.folder / "blind.json").read_text(encoding="utf-8"))


ROUNDS = (
    Round(
        "First round",
        DATA / "strangers",
        "Half of the cases come from public threads, half are our own. The rules were written "
        "with them at hand, except for 12 of our own (`held_out` in their truth): only these were "
        "measured blind.",
    ),
    Round(
        "Second round",
        DATA / "strangers-2",
        "All cases come from public threads, and their truth from how the thread ended. They and "
        "their truth were committed before any rule met them, and all were measured blind.",
    ),
    Round(
        "Third round",
        DATA / "strangers-3",
        "As the second round, from other threads, and written without knowledge of the rules.",
    ),
    Round(
        "Fourth round",
        DATA / "strangers-4",
        "As the third round, from other threads.",
    ),
    Round(
        "Fifth round",
        DATA / "strangers-5",
        "As the third round, from other threads.",
    ),
    Round(
        "Sixth round",
        DATA / "strangers-6",
        "As the third round, from other threads.",
    ),
    Round(
        "Seventh round",
        DATA / "strangers-7",
        "As the third round, from other threads.",
    ),
    Round(
        "Eighth round",
        DATA / "strangers-8",
        "As the third round, from other threads.",
    ),
    Round(
        "Ninth round",
        DATA / "strangers-9",
        "As the third round, from other threads.",
    ),
)


@dataclass(frozen=True)
class Score:
    """What an explanation makes of one case."""

    name: str
    verdicts: dict[str, str]
    answers: dict[str, str]
    fixed: bool


def case_folders() -> list[Path]:
    """Return the folders of all cases."""
    return [case for one in ROUNDS for case in one.cases]


def score(folder: Path) -> Score:
    """Explain the evidence of a case and compare the answer with the truth."""
    truth = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    files = sorted(path for path in folder.iterdir() if path.name != "truth.json")
    answer = cloudlab.explain(*files).to_json()
    verdicts, answers = {}, {}
    for subject in SUBJECTS:
        [found] = [one for one in answer["statements"] if one["subject"] == subject]
        verdicts[subject] = _verdict(found, truth[subject], truth["must_not_claim"])
        said = {True: "grown", False: "not grown", None: "undecided"}[found["grown"]]
        answers[subject] = ", ".join(filter(None, (said, found["by"], found["reason"])))
    claimed = {one["reason"] for one in answer["statements"]}
    if claimed & set(truth["must_not_claim"]):
        verdicts["partition"] = "wrong"
    fixes = " ".join(one["fix"] or "" for one in answer["statements"])
    mentions = truth.get("fix_mentions", ())
    return Score(
        folder.name, verdicts, answers, not mentions or any(one in fixes for one in mentions)
    )


def _verdict(found: dict, truth: dict, forbidden: list[str]) -> str:
    if found["reason"] in forbidden:
        return "wrong"
    grown = found["grown"] in (truth["grown"], *truth.get("also_grown", ()))
    by = not found["grown"] or found["by"] in (truth["by"], *truth.get("also_by", ()))
    reason = found["reason"] in (truth["reason"], *truth.get("also_ok", ()))
    if grown and by and reason:
        return "right"
    return "undecided" if found["grown"] is None or (grown and found["reason"] is None) else "wrong"


def page(scores: dict[str, Score]) -> str:
    """Return the scoreboard as Markdown, from the scores by case."""
    lines = [
        "# Scoreboard: evidence from other people's machines",
        "",
        "What `cloudlab explain` makes of root disks that grew or did not, as logs and listings show",
        "them. Each case has the right answer beside it, for the partition and for the filesystem;",
        "an answer that leaves open what the evidence decides is undecided, not wrong. A blind score",
        "was measured once, on cases that the rules had never met. Written by",
        "`python scripts/scoreboard.py`.",
        "",
        "| | answers | right | undecided | wrong | the fix is right |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for one in ROUNDS:
        lines += [_blind_row(one), _present_row(one, [scores[case.name] for case in one.cases])]
    for one in ROUNDS:
        lines += ["", f"## {one.title}", "", one.about, ""]
        lines += _misses(one)
        lines += ["| case | partition | | filesystem | |", "| --- | --- | --- | --- | --- |"]
        lines += [
            f"| {found.name} | {found.answers['partition']} | {found.verdicts['partition']} "
            f"| {found.answers['filesystem']} | {found.verdicts['filesystem']} |"
            for found in (scores[case.name] for case in one.cases)
        ]
    return "\n".join(lines) + "\n"


def _blind_row(one: Round) -> str:
    blind = one.blind
    counts = [blind["answers"][verdict] for verdict in VERDICTS]
    cells = " | ".join(f"{count} ({100 * count / sum(counts):.1f}%)" for count in counts)
    when = f"blind, {blind['date']}, commit {blind['commit']}"
    fixed = "not measured" if blind["fixed"] is None else f"{blind['fixed']} of {blind['cases']}"
    return f"| {one.title}, {when} | {sum(counts)} | {cells} | {fixed} |"


def _present_row(one: Round, scores: list[Score]) -> str:
    found = [verdict for score in scores for verdict in score.verdicts.values()]
    counts = " | ".join(str(found.count(verdict)) for verdict in VERDICTS)
    fixed = sum(score.fixed for score in scores)
    return f"| {one.title}, today | {len(found)} | {counts} | {fixed} of {len(scores)} |"


def _misses(one: Round) -> list[str]:
    """Return the table of what was not right in the blind measurement, and why."""
    misses = one.blind["misses"]
    if not misses:
        return []
    rows = [
        f"| {miss['case']} | {miss['missed']} | {miss['said']} | {miss['cause']} |"
        for miss in misses
    ]
    head = "What was not right in the blind measurement, and why:"
    return [head, "", "| case | missed | said | cause |", "| --- | --- | --- | --- |", *rows, ""]


def main() -> None:
    """Write the page, or with ``--check`` fail if it is out of date."""
    text = page({folder.name: score(folder) for folder in case_folders()})
    if "--check" in sys.argv[1:]:
        if PAGE.read_text(encoding="utf-8") != text:
            sys.exit(f"{PAGE.name} is out of date: run python scripts/scoreboard.py")
        return
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
