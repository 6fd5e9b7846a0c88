"""Interpret a bootcmd script without running any of it on this host.

Covered are lists, pipelines, groups, if, for, variables, tests and redirections.  Anything else
raises :class:`UndecidedError`, so no script is misjudged.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

#: Carries out a command: words and standard input -> exit status and output.
Command = Callable[[list[str], str], tuple[int, str]]
_Step = Callable[[str], tuple[int, str]]

NOT_FOUND = 127
_USAGE = 2
_TOKEN = re.compile(
    r"""(?P<skip>[ \t\r]+|\\\n|\#[^\n]*)
    |(?P<redirect>\d*(?:<<-?|>>|[<>]&|>\||[<>])|&>>?)
    |(?P<op>&&|\|\||;;|[;&|()\n])
    |(?P<word>(?:[^\s;&|()<>"'\\]|\\.|"(?:\\.|[^"\\])*"|'[^']*')+)""",
    re.VERBOSE | re.DOTALL,
)
_PIECE = re.compile(r"""'([^']*)'|"((?:\\.|[^"\\])*)"|\\(.)|([^'"\\]+)""", re.DOTALL)
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?::?-([^}]*))?\}|([?]))")
_RESERVED = frozenset(
    [
        "then",
        "elif",
        "else",
        "fi",
        "do",
        "done",
        "}",
        "case",
        "while",
        "until",
        "function",
        "select",
    ]
)
# bootcmd is run by sh, which does not have [[.
_CONSTANT = {"true": 0, ":": 0, "false": 1, "[[": NOT_FOUND}
_FOLDERS = ("/bin/", "/sbin/", "/usr/bin/", "/usr/sbin/", "/usr/local/bin/")


class UndecidedError(Exception):
    """The script does something that is not covered here."""


class _ExitError(Exception):
    """The script ends with this status."""


def script_of(commands: object) -> str:
    """Return the script that cloud-init makes of bootcmd's or runcmd's items."""
    if not isinstance(commands, list):
        return ""
    lines = [shlex.join(map(str, one)) if isinstance(one, list) else one for one in commands]
    return "\n".join(str(line) for line in lines if line is not None)


class Shell:
    """A shell of which every command is carried out by ``command``.

    Parameters
    ----------
    command : callable
    exists : callable
        Whether a path is there, for ``test -e`` and its like.
    write : callable
        Called with each path that a command's output goes to.
    """

    def __init__(
        self, command: Command, exists: Callable[[str], bool], write: Callable[[str], object]
    ) -> None:
        self._command, self._exists, self._write = command, exists, write
        self._variables: dict[str, str] = {}
        self._status, self._errexit, self._in_condition = 0, False, 0

    def run(self, script: str) -> int:
        """Carry out a script; return its exit status.

        Raises
        ------
        UndecidedError
            If the script holds something that is not covered.
        """
        try:
            self._status = _Parser(list(_tokens(script)), self).script()("")[0]
        except _ExitError as end:
            self._status = int(end.args[0])
        except _SyntaxError:
            self._status = _USAGE
        return self._status

    def simple(self, words: list[str], targets: list[str], stdin: str) -> tuple[int, str]:
        """Carry out one command with the files that its output goes to."""
        argv = [field for word in words for field in self.expand(word)]
        for target in targets:
            self._write("".join(self.expand(target)))
        while argv and re.fullmatch(r"[A-Za-z_]\w*=.*", argv[0], re.DOTALL):
            name, _, self._variables[name] = argv.pop(0).partition("=")
        status, output = self._builtin(argv, stdin) if argv else (0, "")
        self._status = status
        if status and self._errexit and not self._in_condition:
            raise _ExitError(status)
        return (status, "" if targets else output)

    def condition(self, step: _Step, stdin: str) -> tuple[int, str]:
        """Carry out what ``set -e`` does not watch."""
        self._in_condition += 1
        try:
            return step(stdin)
        finally:
            self._in_condition -= 1

    def loop(self, name: str, words: Sequence[str], body: _Step, stdin: str) -> tuple[int, str]:
        """Carry out the body of ``for`` once for each word."""
        status, output = 0, ""
        for value in [field for word in words for field in self.expand(word)]:
            self._variables[name] = value
            status, more = body(stdin)
            output += more
        return status, output

    def expand(self, word: str) -> list[str]:
        """Return the fields that a word becomes."""
        fields, empty = [""], "'" not in word and '"' not in word
        for single, double, escaped, plain in _PIECE.findall(word):
            if plain:
                _check_substitution(plain)
                first, *more = re.split(r"\s+", self._filled(plain)) if "$" in plain else [plain]
                fields[-1] += first
                fields += more
            elif double:
                _check_substitution(double)
                fields[-1] += re.sub(r'\\(["\\$`])|\\\n', r"\1", self._filled(double))
            else:
                fields[-1] += single or escaped.replace("\n", "")
        return [field for field in fields if field or not empty]

    def _filled(self, text: str) -> str:
        def value(match: re.Match[str]) -> str:
            if match[4]:
                return str(self._status)
            return self._variables.get(match[1] or match[2], "") or match[3] or ""

        return _VARIABLE.sub(value, text)

    def _builtin(self, argv: list[str], stdin: str) -> tuple[int, str]:
        name, *rest = argv
        name = next((name[len(one) :] for one in _FOLDERS if name.startswith(one)), name)
        status, output = _CONSTANT.get(name, 0), ""
        if name in {"[", "test"}:
            status = self._test(name, rest)
        elif name == "exit":
            raise _ExitError(rest[0] if rest else self._status)
        elif name == "set":
            for flag in rest:
                if re.fullmatch(r"[-+]\w*e\w*", flag):
                    self._errexit = flag[0] == "-"
        elif name in {"echo", "printf"}:
            output = " ".join(rest) + "\n"
        elif name in {"sh", "dash", "bash"} and rest[:1] and re.fullmatch(r"-\w*c", rest[0]):
            child = Shell(self._command, self._exists, self._write)
            status = child.run(rest[1])
        elif name in {"sudo", "command", "env"} and rest and rest[0][0] != "-":
            status, output = self._builtin(rest, stdin)
        elif name not in _CONSTANT:
            status, output = self._command([name, *rest], stdin)
        return status, output

    def _test(self, name: str, words: list[str]) -> int:
        if name == "[" and (not words or words.pop() != "]"):
            return _USAGE
        for joint, joined in (("-o", any), ("-a", all)):
            if joint in words:
                at = words.index(joint)
                parts = (words[:at], words[at + 1 :])
                return not joined([not self._test("test", part) for part in parts])
        if words[:1] == ["!"]:
            return not self._test("test", words[1:])
        match words:
            case []:
                holds = False
            case [kind, path] if re.fullmatch("-[ebfdrwsLh]", kind):
                device = path.startswith("/dev/")
                fits = {"-b": device, "-f": not device, "-d": not device}.get(kind, True)
                holds = fits and self._exists(path)
            case ["-z" | "-n" as kind, text]:
                holds = bool(text) is (kind == "-n")
            case [text]:
                holds = bool(text)
            case [one, "=" | "==" | "-eq" | "!=" | "-ne" as kind, other]:
                holds = (one == other) is (kind in {"=", "==", "-eq"})
            case _:
                raise UndecidedError(f"the test {' '.join(words)}")
        return not holds


def _check_substitution(text: str) -> None:
    if "`" in text or re.search(r"\$\(", text):
        raise UndecidedError("a command substitution")


class _SyntaxError(Exception):
    """The shell would refuse the script."""


def _tokens(script: str) -> Iterator[tuple[str, str]]:
    at = 0
    while at < len(script):
        match = _TOKEN.match(script, at)
        if match is None:
            raise _SyntaxError
        at = match.end()
        if match.lastgroup != "skip":
            yield str(match.lastgroup), match[0]


class _Parser:
    """Makes steps out of tokens: each is called with standard input."""

    def __init__(self, tokens: list[tuple[str, str]], shell: Shell) -> None:
        self._tokens, self._shell, self._at = tokens, shell, 0

    def script(self) -> _Step:
        """Return the whole script as one step."""
        step = self._list(())
        if self._text() is not None:
            raise _SyntaxError
        return step

    def _text(self) -> str | None:
        return self._tokens[self._at][1] if self._at < len(self._tokens) else None

    def _take(self, *texts: str) -> str | None:
        text = self._text()
        if text is None or (texts and text not in texts):
            return None
        self._at += 1
        return text

    def _expect(self, text: str) -> None:
        if self._take(text) is None:
            raise _SyntaxError

    def _list(self, ends: Sequence[str]) -> _Step:
        steps: list[_Step] = []
        while self._text() is not None and self._text() not in ends:
            if not self._take(";", "\n", "&"):
                steps.append(self._and_or())

        def run(stdin: str) -> tuple[int, str]:
            status, output = 0, ""
            for step in steps:
                status, more = step(stdin)
                output += more
            return status, output

        return run

    def _and_or(self) -> _Step:
        first, rest = self._pipeline(), []
        while joint := self._take("&&", "||"):
            while self._take("\n"):
                pass
            rest.append((joint, self._pipeline()))
        if not rest:
            return first

        def run(stdin: str) -> tuple[int, str]:
            status, output = self._shell.condition(first, stdin)
            for number, (joint, step) in enumerate(rest, 1):
                if (status == 0) is (joint == "&&"):
                    last = number == len(rest)
                    status, more = step(stdin) if last else self._shell.condition(step, stdin)
                    output += more
            return status, output

        return run

    def _pipeline(self) -> _Step:
        negated = self._take("!") is not None
        steps = [self._command()]
        while self._take("|"):
            steps.append(self._command())

        def run(stdin: str) -> tuple[int, str]:
            status = 0
            for step in steps:
                inner = negated or step is not steps[-1]
                status, stdin = self._shell.condition(step, stdin) if inner else step(stdin)
            return (not status if negated else status), stdin

        return run

    def _command(self) -> _Step:
        kind, text = self._tokens[self._at] if self._text() is not None else ("op", "")
        step: _Step
        if self._take("{", "("):
            end = "}" if text == "{" else ")"
            step = self._list((end,))
            self._expect(end)
        elif self._take("if"):
            step = self._if()
        elif self._take("for"):
            step = self._for()
        elif kind == "op" or text in _RESERVED - {"case", "while", "until"}:
            raise _SyntaxError
        elif text in _RESERVED:
            raise UndecidedError(f"the command {text}")
        else:
            return self._simple()
        _, targets = self._words()

        def run(stdin: str) -> tuple[int, str]:
            self._shell.simple([], targets, "")
            try:
                return step(stdin)
            except _ExitError as end:
                if text != "(":
                    raise
                return int(end.args[0]), ""

        return run

    def _simple(self) -> _Step:
        words, targets = self._words()
        if self._text() == "(":
            raise UndecidedError("a function")
        return lambda stdin: self._shell.simple(words, targets, stdin)

    def _words(self) -> tuple[list[str], list[str]]:
        """Return the words up to the next operator, and the files that output goes to."""
        words: list[str] = []
        targets: list[str] = []
        while self._at < len(self._tokens) and self._tokens[self._at][0] != "op":
            kind, text = self._tokens[self._at]
            self._at += 1
            if kind == "word":
                if text.endswith("$") and self._text() == "(":
                    raise UndecidedError("a command substitution")
                words.append(text)
                continue
            target = self._take()
            if target is None:
                raise _SyntaxError
            if text.endswith(("<<", "<<-")):
                raise UndecidedError("a here-document")
            if ">" in text and not text.endswith("&"):
                targets.append(target)
        return words, targets

    def _if(self) -> _Step:
        condition = self._list(("then",))
        self._expect("then")
        then = self._list(("elif", "else", "fi"))
        other: _Step = lambda _: (0, "")  # noqa: E731
        match self._take("elif", "else", "fi"):
            case "elif":
                other = self._if()
            case "else":
                other = self._list(("fi",))
                self._expect("fi")
            case None:
                self._fail()

        def run(stdin: str) -> tuple[int, str]:
            status, _ = self._shell.condition(condition, stdin)
            return other(stdin) if status else then(stdin)

        return run

    def _for(self) -> _Step:
        name = self._take() or self._fail()
        self._expect("in")
        words, _ = self._words()
        while self._take(";", "\n"):
            pass
        self._expect("do")
        body = self._list(("done",))
        self._expect("done")
        return lambda stdin: self._shell.loop(name, words, body, stdin)

    def _fail(self) -> NoReturn:
        raise _SyntaxError
