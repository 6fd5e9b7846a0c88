"""Interpret a bootcmd script without running any of it on this host.

Covered are lists, pipelines, groups, if, for, variables, tests and redirections.  Anything else
raises :class:`UndecidedError`, so no script is misjudged.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from typing import Any

#: Carries out a command: words and standard input -> exit status and output.
Command = Callable[[list[str], str], tuple[int, str]]
#: A parsed part of a script: its kind, and what :meth:`Shell._do` needs of it.
_Node = tuple[Any, ...]

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
# time is a word of bash; the sh that runs these scripts has no such command.
_NOT_COVERED = frozenset(["case", "while", "until", "time"])
_MISPLACED = frozenset(["then", "elif", "else", "fi", "do", "done", "}", "function", "select"])
# bootcmd is run by sh, which does not have [[.
_CONSTANT = {"true": 0, ":": 0, "false": 1, "[[": NOT_FOUND}
#: Commands that run the rest of their words, and those of their options that take no value.
_RUNNERS = {
    "sudo": "nEHSkb", "env": "i", "command": "p", "exec": "", "nohup": "", "nice": "", "timeout": "v",
}  # fmt: skip
#: Builtins of the shell for which there is no file.
_NO_FILES = frozenset([":", "cd", "command", "eval", "exec", "exit", "export", "set", "unset"])
#: What the shell reads as a number.
_NUMBER = re.compile(r"\s*[+-]?[0-9]{1,18}\s*", re.ASCII)
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=.*", re.DOTALL)
_FOLDERS = ("/bin/", "/sbin/", "/usr/bin/", "/usr/sbin/", "/usr/local/bin/")


class UndecidedError(Exception):
    """The script does something that is not covered here."""


class _ExitError(Exception):
    """The script ends with this status."""


class _SyntaxError(Exception):
    """The shell would refuse the script."""


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
        self._status, self._errexit, self._ignoring = 0, False, 0

    def run(self, script: str) -> int:
        """Carry out a script; return its exit status.

        Raises
        ------
        UndecidedError
            If the script holds something that is not covered.
        """
        try:
            self._status, _ = self._do(_Parser(script).parse(), "")
        except _ExitError as end:
            self._status = end.args[0]
        except _SyntaxError:
            self._status = _USAGE
        return self._status

    def _do(self, node: _Node, stdin: str, *, ignored: bool = False) -> tuple[int, str]:
        """Carry out a part of the script; ``set -e`` ignores its failure if ``ignored``."""
        self._ignoring += ignored
        try:
            kind, *parts = node
            do: Callable[..., tuple[int, str]] = getattr(self, f"_do_{kind}")
            return do(stdin, *parts)
        finally:
            self._ignoring -= ignored

    def _do_list(self, stdin: str, *nodes: _Node) -> tuple[int, str]:
        status, output = 0, ""
        for node in nodes:
            status, more = self._do(node, stdin)
            output += more
        return status, output

    def _do_and_or(self, stdin: str, *pairs: tuple[str, _Node]) -> tuple[int, str]:
        status, output = 0, ""
        for joint, node in pairs:
            if (status == 0) is (joint == "&&"):
                status, more = self._do(node, stdin, ignored=node is not pairs[-1][1])
                output += more
        return status, output

    def _do_pipe(self, stdin: str, negated: bool, *nodes: _Node) -> tuple[int, str]:  # noqa: FBT001
        status = 0
        for node in nodes:
            status, stdin = self._do(node, stdin, ignored=negated or node is not nodes[-1])
        return (not status if negated else status), stdin

    def _do_if(self, stdin: str, condition: _Node, then: _Node, other: _Node) -> tuple[int, str]:
        status, _ = self._do(condition, stdin, ignored=True)
        return self._do(other if status else then, stdin)

    def _do_for(self, stdin: str, name: str, words: list[str], body: _Node) -> tuple[int, str]:
        status, output = 0, ""
        for value in [field for word in words for field in self._expanded(word)]:
            self._variables[name] = value
            status, more = self._do(body, stdin)
            output += more
        return status, output

    def _do_subshell(self, stdin: str, body: _Node) -> tuple[int, str]:
        try:
            return self._do(body, stdin)
        except _ExitError as end:
            return end.args[0], ""

    def _do_redirected(self, stdin: str, targets: list[str], node: _Node) -> tuple[int, str]:
        self._do_simple("", [], targets)
        return self._do(node, stdin)

    def _do_simple(self, stdin: str, words: list[str], targets: list[str]) -> tuple[int, str]:
        argv = [field for word in words for field in self._expanded(word)]
        for target in targets:
            self._write("".join(self._expanded(target)))
        while argv and _ASSIGNMENT.fullmatch(argv[0]):
            name, _, self._variables[name] = argv.pop(0).partition("=")
        status, output = self._builtin(argv, stdin) if argv else (0, "")
        self._status = status
        if status and self._errexit and not self._ignoring:
            raise _ExitError(status)
        return (status, "" if targets else output)

    def _expanded(self, word: str) -> list[str]:
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

    def _builtin(self, argv: list[str], stdin: str, *, is_file: bool = False) -> tuple[int, str]:
        called, *rest = argv
        name = next((called[len(one) :] for one in _FOLDERS if called.startswith(one)), called)
        status, output = _CONSTANT.get(name, 0), ""
        if name in _NO_FILES and (is_file or name != called):
            status = NOT_FOUND
        elif name in {"[", "test"}:
            status = self._test(name, rest)
        elif name == "exit":
            raise _ExitError(_exit_status(rest[0]) if rest else self._status)
        elif name == "set":
            for flag in rest:
                if re.fullmatch(r"[-+]\w*e\w*", flag):
                    self._errexit = flag[0] == "-"
        elif name in {"echo", "printf"}:
            output = " ".join(rest) + "\n"
        elif name not in _CONSTANT:
            status, output = self._carried_out(name, rest, stdin)
        return status, output

    def _carried_out(self, name: str, rest: list[str], stdin: str) -> tuple[int, str]:
        """Carry out a program, or the command in the rest of its words."""
        if name in {"sh", "dash", "bash"} and rest[1:] and re.fullmatch(r"-\w*c", rest[0]):
            return Shell(self._command, self._exists, self._write).run(rest[1]), ""
        if name == "eval":
            return self._do(_Parser(" ".join(rest)).parse(), stdin)
        if name not in _RUNNERS or rest[:1] == ["-v"]:
            return self._command([name, *rest], stdin)
        argv = _run_by(name, rest)
        status, output = (0, "")
        if argv:
            status, output = self._builtin(argv, stdin, is_file=name != "command")
        if name == "sudo" and status == NOT_FOUND:
            status = 1
        if name == "exec" and argv:
            raise _ExitError(status)
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
            case [kind, path] if re.fullmatch("-[ebfdrwsLh]", kind):
                device = path.startswith("/dev/")
                fits = {"-b": device, "-f": not device, "-d": not device}.get(kind, True)
                holds = fits and self._exists(path)
            case ["-z" | "-n" as kind, text]:
                holds = bool(text) is (kind == "-n")
            case [] | [_]:
                holds = any(words)
            case [one, "=" | "==" | "-eq" | "!=" | "-ne" as kind, other]:
                pair = [_number(one), _number(other)] if kind[0] == "-" else [one, other]
                if None in pair:
                    return _USAGE
                holds = (pair[0] == pair[1]) is (kind in {"=", "==", "-eq"})
            case _:
                raise UndecidedError(f"the test {' '.join(words)}")
        return not holds


def _number(word: str) -> int | None:
    return int(word) if _NUMBER.fullmatch(word) else None


def _exit_status(word: str) -> int:
    """Return the status that ``exit WORD`` ends with."""
    number = _number(word)
    return _USAGE if number is None or number < 0 else number % 256


def _run_by(name: str, words: list[str]) -> list[str]:
    """Return the command that one of :data:`_RUNNERS` runs; nothing if it is alone."""
    left = list(words)
    while left and left[0].startswith("-"):
        if not re.fullmatch(f"-[{_RUNNERS[name]}-]+", left[0]):
            raise UndecidedError(f"the command {name} {' '.join(words)}")
        left.pop(0)
    while name in {"sudo", "env"} and left and _ASSIGNMENT.fullmatch(left[0]):
        left.pop(0)
    return left[1:] if name == "timeout" else left


def _check_substitution(text: str) -> None:
    if "`" in text or "$(" in text:
        raise UndecidedError("a command substitution")


def _tokens(script: str) -> Iterator[tuple[str, str]]:
    """Yield kind (redirect, op, word, end) and text of each token."""
    at = 0
    while at < len(script):
        match = _TOKEN.match(script, at)
        if match is None:
            raise _SyntaxError
        at = match.end()
        if match.lastgroup != "skip":
            yield str(match.lastgroup), match[0]
    yield "end", ""


class _Parser:
    """Makes nodes out of a script."""

    def __init__(self, script: str) -> None:
        self._tokens, self._at = list(_tokens(script)), 0

    def parse(self) -> _Node:
        """Return the whole script as one node."""
        node = self._list()
        self._expect("")
        return node

    def _take(self, *texts: str) -> str:
        """Return the next token and go on if it is one of ``texts``; else return nothing."""
        kind, text = self._tokens[self._at]
        if kind == "end" or text not in texts:
            return ""
        self._at += 1
        return text

    def _expect(self, *texts: str) -> str:
        """Return the next token, which must be one of ``texts``, if there are any."""
        kind, text = self._tokens[self._at]
        if (texts and text not in texts) or (not texts and kind == "end"):
            raise _SyntaxError
        self._at += 1
        return text

    def _list(self, *ends: str) -> _Node:
        nodes = []
        while self._tokens[self._at][1] not in ("", *ends):
            if not self._take(";", "\n", "&"):
                nodes.append(self._and_or())
        return ("list", *nodes)

    def _and_or(self) -> _Node:
        pairs = [("&&", self._pipe())]
        while joint := self._take("&&", "||"):
            while self._take("\n"):
                pass
            pairs.append((joint, self._pipe()))
        return ("and_or", *pairs)

    def _pipe(self) -> _Node:
        negated = bool(self._take("!"))
        nodes = [self._command()]
        while self._take("|"):
            nodes.append(self._command())
        return ("pipe", negated, *nodes)

    def _command(self) -> _Node:
        kind, text = self._tokens[self._at]
        if self._take("{"):
            node = self._list("}")
            self._expect("}")
        elif self._take("("):
            node = ("subshell", self._list(")"))
            self._expect(")")
        elif self._take("if"):
            node = self._if()
        elif self._take("for"):
            node = self._for()
        elif kind in {"op", "end"} or text in _MISPLACED:
            raise _SyntaxError
        elif text in _NOT_COVERED:
            raise UndecidedError(f"the command {text}")
        else:
            words, targets = self._words()
            if self._tokens[self._at][1] == "(":
                raise UndecidedError("a function")
            return ("simple", words, targets)
        return ("redirected", self._words()[1], node)

    def _words(self) -> tuple[list[str], list[str]]:
        """Return the words up to the next operator, and the files that output goes to."""
        words: list[str] = []
        targets: list[str] = []
        while self._tokens[self._at][0] in {"word", "redirect"}:
            kind, text = self._tokens[self._at]
            self._at += 1
            if kind == "word":
                if text.endswith("$") and self._tokens[self._at][1] == "(":
                    raise UndecidedError("a command substitution")
                words.append(text)
                continue
            target = self._expect()
            if text.endswith(("<<", "<<-")):
                raise UndecidedError("a here-document")
            if ">" in text and not text.endswith("&"):
                targets.append(target)
        return words, targets

    def _if(self) -> _Node:
        condition = self._list("then")
        self._expect("then")
        then = self._list("elif", "else", "fi")
        other: _Node = ("list",)
        match self._expect("elif", "else", "fi"):
            case "elif":
                other = self._if()
            case "else":
                other = self._list("fi")
                self._expect("fi")
        return ("if", condition, then, other)

    def _for(self) -> _Node:
        name = self._expect()
        self._expect("in")
        words, _ = self._words()
        while self._take(";", "\n"):
            pass
        self._expect("do")
        body = self._list("done")
        self._expect("done")
        return ("for", name, words, body)
