"""What the learner typed is checked before the guest stumbles over it."""

import http.server
import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudlab.errors import SeedError
from cloudlab.seed import Problem, Severity, check_user_data, load_schema
from cloudlab.seed.check import MAX_CHARACTERS

#: cloud-init's own schema, cut to a few modules; written as its versions 22.4 to 25.1 are.
SCHEMA = {
    "$schema": "http://json-schema.org/draft-04/schema#",
    "$defs": {
        "cc_growpart": {
            "type": "object",
            "properties": {
                "growpart": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "mode": {"oneOf": [{"enum": ["auto", "off"]}, {"enum": [False]}]},
                        "devices": {"type": "array", "items": {"type": "string"}},
                    },
                }
            },
        },
        "cc_ntp": {
            "type": "object",
            "properties": {
                "ntp": {"type": "object", "required": ["servers"]},
                "byobu_by_default": {"type": "string", "enum": ["enable", "disable"]},
            },
        },
    },
    "allOf": [{"$ref": "#/$defs/cc_growpart"}, {"$ref": "#/$defs/cc_ntp"}],
}


def check(text: str, schema: dict | None = None) -> list[Problem]:
    return check_user_data(text, schema)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("#cloud-config\n", id="header alone"),
        pytest.param("#cloud-config\r\nresize_rootfs: false\r\n", id="Windows line ends"),
        pytest.param("#cloud-config\nresize_rootfs: noblock\n", id="noblock"),
        pytest.param("#cloud-config\ngrowpart: {mode: 'off', devices: [/]}\n", id="quoted off"),
        pytest.param("#cloud-config\nruncmd:\n- ls\n- [df, -h]\n-\n", id="commands"),
        pytest.param("#cloud-config\nlxd: &a {init: 1}\nchef: *a\n", id="anchor"),
        pytest.param("#cloud-config\npassword: $6$s$h\n", id="hash"),
        pytest.param("#cloud-config\nchpasswd: {list: 'root:RANDOM'}\n", id="random"),
        pytest.param("#cloud-config\nchpasswd: {list: ['a:$6$s$h', 'b:R']}\n", id="hashes"),
        pytest.param(
            "#cloud-config\nchpasswd: {users: [{name: a, type: RANDOM}, {name: b, password: $6$}]}\n",
            id="users",
        ),
        pytest.param("#cloud-config\nusers: [default, {name: a, passwd: '!'}]\n", id="locked"),
    ],
)
def test_good_user_data_has_no_problems(text):
    assert check(text) == []


@pytest.mark.parametrize(
    ("text", "line", "column", "word", "severity"),
    [
        pytest.param("runcmd: [ls]\n", 1, 1, "first line", "error", id="no header"),
        pytest.param("# cloud-config\n", 1, 1, "first line", "error", id="blank in header"),
        pytest.param("\ufeff#cloud-config\n", 1, 1, "byte order", "error", id="byte order mark"),
        pytest.param("\n#cloud-config\n", 1, 1, "very start", "warning", id="header too late"),
        pytest.param("", 1, 1, "empty", "warning", id="empty"),
        pytest.param("#!/bin/sh\n", 1, 1, "a script", "warning", id="script"),
        pytest.param(
            "#cloud-config-archive\n", 1, 1, "a cloud-config archive", "warning", id="archive"
        ),
        pytest.param("#cloud-config\na:\n\t- b\n", 3, 1, "a tab", "error", id="tab"),
        pytest.param("#cloud-config\na: b: c\n", 2, 5, "second ': '", "error", id="two colons"),
        pytest.param("#cloud-config\na: [1\n", 3, 1, "never closed", "error", id="open bracket"),
        pytest.param("#cloud-config\na: @b\n", 2, 4, "in quotes", "error", id="at sign"),
        pytest.param("#cloud-config\na: {{ b }}\n", 2, 5, "'{{ ... }}'", "error", id="braces"),
        pytest.param("#cloud-config\na: 1\n---\nb: 2\n", 3, 1, "second", "error", id="documents"),
        pytest.param("#cloud-config\na: &x 1\nb: &x 2\n", 3, 4, "twice", "error", id="anchors"),
        pytest.param("#cloud-config\na: | b\n", 2, 6, "next line", "error", id="block text"),
        pytest.param('#cloud-config\na: "\\d"\n', 2, 6, "single", "error", id="backslash"),
        pytest.param("#cloud-config\na: !!int x\n", 2, 4, "tagged", "error", id="false number"),
        pytest.param("#cloud-config\na: 'x\n", 3, 1, "never closed", "error", id="open quote"),
        pytest.param("#cloud-config\n- a\n", 2, 1, "found a list", "error", id="list"),
        pytest.param("#cloud-config\nhello\n", 2, 1, "found text", "error", id="text"),
        pytest.param("#cloud-config\na: !x 1\n", 2, 4, "an unknown tag", "error", id="tag"),
        pytest.param("#cloud-config\na: *x\n", 2, 4, "alias", "error", id="alias"),
        pytest.param("#cloud-config\na: &x [*x]\n", 2, 4, "contains itself", "error", id="cycle"),
        pytest.param("#cloud-config\na: \x07\n", 2, 4, "character", "error", id="control"),
        pytest.param("#cloud-config\na: 2020-99-99\n", 2, 4, "date", "error", id="false date"),
        pytest.param(
            "#cloud-config\nntp: {}\napt: {}\nntp: {}\n", 4, 1, "twice", "warning", id="twice"
        ),
        pytest.param(
            "#cloud-config\ngrowpart:\n  mode: off\n", 3, 9, "boolean", "warning", id="bare off"
        ),
        pytest.param(
            "#cloud-config\ngrowpart: off\n", 2, 11, "{mode: 'off'}", "error", id="growpart: off"
        ),
        pytest.param(
            "#cloud-config\ngrowpart: {mode: none}\n", 2, 18, "must be", "error", id="bad mode"
        ),
        pytest.param(
            "#cloud-config\nresize_rootfs: maybe\n", 2, 16, "noblock", "error", id="bad resize"
        ),
        pytest.param(
            "#cloud-config\nresize_rootf: no\n",
            2,
            1,
            "did you mean 'resize_rootfs'",
            "warning",
            id="misspelt key",
        ),
        pytest.param("#cloud-config\nruncmd: ls\n", 2, 9, "a list", "error", id="runcmd is text"),
        pytest.param(
            "#cloud-config\nruncmd:\n- ls\n- echo a: b\n", 4, 3, "quotes", "error", id="colon"
        ),
        pytest.param("#cloud-config\nbootcmd: [true]\n", 2, 11, "text or", "error", id="true"),
        pytest.param(
            "#cloud-config\nusers:\n- plain_text_passwd: hunter2\n",
            3,
            22,
            "plain text",
            "warning",
            id="user's password",
        ),
        pytest.param(
            "#cloud-config\npassword: hunter2\n", 2, 11, "plain text", "warning", id="password"
        ),
    ],
)
def test_trap_is_told_with_its_place(text, line, column, word, severity):
    (problem,) = check(text)
    assert (problem.line, problem.column, problem.severity.value) == (line, column, severity)
    assert word in problem.message
    assert "hunter2" not in str(problem)


@pytest.mark.parametrize(
    ("text", "line", "word", "severity"),
    [
        pytest.param("growpart: {modes: auto}", 2, "did you mean 'mode'", "warning", id="misspelt"),
        pytest.param("growpart: {hunter: 2}", 2, "unknown key 'hunter'", "warning", id="unknown"),
        pytest.param("growpart:\n  devices: /", 3, "expected a list", "warning", id="type"),
        pytest.param("ntp: {}", 2, "lacks servers", "warning", id="required"),
        pytest.param("byobu_by_default: 1", 2, "byobu_by_default", "warning", id="enum"),
        pytest.param("hunter2: 1", 2, "unknown key", "warning", id="unknown at the top"),
        pytest.param("ntpp: {}", 2, "did you mean 'ntp'", "warning", id="misspelt at the top"),
        pytest.param("byobu_by_default: 2020-01-01", 2, "expected", "warning", id="date"),
    ],
)
def test_schema_of_the_image_is_applied(text, line, word, severity):
    problems = check("#cloud-config\n" + text, SCHEMA)
    assert word in " ".join(problem.message for problem in problems)
    assert {(problem.line, problem.severity.value) for problem in problems} == {(line, severity)}


def test_schema_takes_any_key_that_yaml_takes():
    assert check("#cloud-config\nntp: {servers: [a], 1: 2, null: {3: 4}}\n", SCHEMA) == []


def test_problems_come_in_the_order_of_lines():
    problems = check("#cloud-config\nruncmd: ls\nresize_rootfs: x\nbootcmd: ls\n")
    assert [problem.line for problem in problems] == [2, 3, 4]


def test_aliases_cannot_blow_up():
    lines = ["#cloud-config", "a0: &a0 [1, 2, 3, 4, 5, 6, 7, 8, 9]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 20)]
    (problem,) = check("\n".join(lines), SCHEMA)
    assert "too many values" in problem.message


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("a: " + "[" * 3000, id="unclosed"),
        pytest.param("a: " + "[" * 60 + "]" * 60, id="closed"),
        pytest.param("x" * (MAX_CHARACTERS + 1), id="too long"),
    ],
)
def test_oversized_text_is_one_problem(text):
    (problem,) = check("#cloud-config\n" + text)
    assert problem.severity is Severity.ERROR


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("", id="empty"),
        pytest.param("[]", id="list"),
        pytest.param("{", id="cut off"),
        pytest.param('{"type": 7}', id="no schema"),
        pytest.param('{"properties": []}', id="list of properties"),
        pytest.param('{"$defs": []}', id="list of definitions"),
        pytest.param('{"$defs": {"a": []}}', id="definition is a list"),
        pytest.param('{"$defs": {"a": {"properties": []}}}', id="definition's properties"),
        pytest.param('{"$defs": {"a": {"type": "foo"}}}', id="definition's type"),
    ],
)
def test_broken_schema_file_is_refused(tmp_path, content):
    path = tmp_path / "schema.json"
    path.write_text(content)
    with pytest.raises(SeedError):
        load_schema(path)


@pytest.mark.parametrize(
    "schema",
    [
        pytest.param({"$ref": "#/nope"}, id="nowhere"),
        pytest.param({"$ref": "#"}, id="itself"),
        pytest.param({"$ref": "http://["}, id="malformed"),
        pytest.param({"id": "http://[", "allOf": [{"$ref": "x"}]}, id="malformed base"),
        pytest.param({"patternProperties": {"((": {}}}, id="pattern"),
    ],
)
def test_schema_that_cannot_be_applied_is_refused(tmp_path, schema):
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(schema))
    with pytest.raises(SeedError, match="schema of cloud-init cannot be used") as refusal:
        check("#cloud-config\nruncmd: [ls]\n", load_schema(path))
    assert "again" in refusal.value.hint


def test_schema_never_makes_cloudlab_read_other_files_or_the_network(tmp_path):
    requests = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            self.send_error(404)

        def log_message(self, *_):
            pass

    other = tmp_path / "other.json"
    other.write_text("{}")
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for url in (f"http://127.0.0.1:{server.server_port}/x", other.as_uri()):
            with pytest.raises(SeedError, match="Unresolvable"):
                check("#cloud-config\nruncmd: [ls]\n", {"$ref": url})
        server.shutdown()
    assert requests == []


@pytest.mark.parametrize("keywords", [{"message": 5}, {"message": "x", "severity": "x"}])
def test_our_own_keywords_in_an_images_schema_are_harmless(keywords):
    (problem,) = check("#cloud-config\nruncmd: [ls]\n", {"type": "string", **keywords})
    assert problem.severity is Severity.WARNING


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"anyOf": [{"type": "string"}, {"type": "array"}]}, "has none of the forms"),
        ({"minimum": 9}, "breaks the rule minimum of cloud-init's schema: 9"),
    ],
)
def test_a_rule_of_the_images_schema_is_named(rule, words):
    (problem,) = check("#cloud-config\nzz: 5\n", {"properties": {"zz": rule}})
    assert words in problem.message


def test_schema_is_read_from_the_image_s_record(tmp_path):
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(SCHEMA))
    assert load_schema(path) == SCHEMA
    assert load_schema(None) is None


yaml_pieces = st.text(alphabet="a:-[]{}\"'&*!|>%@`#,?\n\t 0123", max_size=80)


@given(yaml_pieces | st.text(max_size=80))
def test_any_text_can_be_checked(text):
    lines = len(text.splitlines()) + 3  # YAML knows other line breaks, too
    for problem in check("#cloud-config\n" + text, SCHEMA):
        assert 1 <= problem.line <= lines
        assert problem.column >= 1


def test_our_own_examples_pass_the_schema_of_a_real_image(tmp_path):
    schema = _schema_of_a_cached_image()
    if schema is None:
        pytest.skip("no image with a schema in the cache yet (cloudlab build makes one)")
    text = "#cloud-config\ngrowpart: {mode: 'off'}\nresize_rootfs: false\nruncmd: [[lsblk]]\n"
    assert check(text, load_schema(schema)) == []
    assert check(text.replace("mode", "mood"), load_schema(schema)) != []


def _schema_of_a_cached_image() -> Path | None:
    from cloudlab.image.cache import cached_images

    return next((image.schema_path for image in cached_images() if image.schema_path), None)


PLAIN = {
    "list as text": "chpasswd:\n  list: |\n    a:R\n    root:hunter2\n",
    "list": "chpasswd:\n  list:\n  - root:hunter2\n",
    "users": "chpasswd:\n  users:\n  - {name: root, password: hunter2, type: text}\n",
    "users, a hash by default": "chpasswd:\n  users:\n  - {name: root, password: hunter2}\n",
    "a hash as text": "chpasswd:\n  users:\n  - {name: a, password: $6$s$hunter2, type: text}\n",
    "passwd": "users:\n- {name: a, passwd: hunter2}\n",
    "user": "user: {name: a, plain_text_passwd: hunter2}\n",
}


@pytest.mark.parametrize("keys", PLAIN.values(), ids=PLAIN)
def test_passwords_in_plain_text_are_warned_of_wherever_they_stand(keys):
    [problem] = check("#cloud-config\n" + keys)
    assert problem.severity is Severity.WARNING
    assert problem.line in {2, 3, 4}
    assert "openssl passwd -6" in problem.message
    assert "hunter2" not in problem.message


def test_a_key_that_overrides_a_merged_one_does_not_stand_there_twice():
    text = "#cloud-config\nx: &x {mode: auto, devices: [/]}\ngrowpart: {<<: *x, mode: 'off'}\n"
    assert "twice" not in " ".join(str(problem) for problem in check_user_data(text))


#: Keys -> the place of each problem in the order of lines, its severity, and a word of it.
FACTS = {
    "growpart: {mdoe: 'off'}": [(2, 12, "warning", "did you mean 'mode'?")],
    "growpart: {mode: 'no'}": [(2, 18, "warning", "schema rejects it")],
    "growpart: {mode: ' OFF '}": [(2, 18, "warning", "schema rejects it")],
    "growpart: {mode: 0}": [(2, 18, "warning", "schema rejects it")],
    "growpart: {mode: no}": [(2, 18, "warning", "deprecated")],
    "growpart: {mode: on}": [(2, 18, "error", "growpart fail")],
    "growpart: {mode: }": [(2, 17, "error", "growpart fail")],
    "growpart:": [(2, 10, "error", "found nothing")],
    "growpart: {ignore_growroot_disabled: 'no'}": [(2, 38, "warning", "true or false")],
    "resize_rootfs: 'false'": [(2, 16, "warning", "this works")],
    "resize_rootfs: 0": [(2, 16, "warning", "this works")],
    "resize_rootfs: flase": [(2, 16, "error", "as false")],
    "resize_rootfs: ture": [(2, 16, "error", "as false")],
    "resize_rootfs:": [(2, 15, "error", "as false")],
    "resize_rootfs: 'yes'": [(2, 16, "warning", "this works")],
    "resize_rootfs: ' TRUE'": [(2, 16, "warning", "this works")],
    "resize_rootfs: 1": [(2, 16, "warning", "this works")],
    "runcmd:": [(2, 8, "warning", "leave the key out")],
    "runcmd: [{a: b}, 3]": [(2, 10, "error", "quotes"), (2, 18, "error", "found a number")],
    "disk_setup: {/dev/vdb: {table: gpt}}": [(2, 25, "warning", "'table_type'")],
    "disk_setup: {/dev/vdb: {layout: [50, [50, 82]], table_type: gpt}}": [],
    "fs_setup: [{device: /dev/vdb1, filesystm: ext4}]": [(2, 32, "warning", "'filesystem'")],
    "fs_setup: [{device: /dev/vdb, partition: 1, filesystem: ext4}]": [],
    "mounts: [[/dev/vdb, /mnt, auto, defaults, '0', 2]]": [(2, 48, "warning", "quotes")],
    "swap: {size: 1GB}": [(2, 14, "warning", "as in 1G")],
    "swap: {size: auto, maxsize: 1.5G}": [],
    "write_files: [{pth: /a}]": [(2, 15, "warning", "lacks path"), (2, 16, "warning", "'path'")],
    "users: [{name: a, expiredate: 2038-01-19}]": [],
    "users: [{name: a, expiredate: '2038-02-30'}]": [(2, 31, "warning", "expiry")],
    "password: 123456": [(2, 11, "warning", "plain text")],
    "vendor_data2: {enabled: false}\ndatasource: {NoCloud: {}}": [],
}


@pytest.mark.parametrize(("keys", "facts"), FACTS.items(), ids=FACTS)
def test_what_cloud_init_does_with_each_value(keys, facts):
    problems = check("#cloud-config\n" + keys)
    assert [(one.line, one.column, one.severity.value) for one in problems] == [
        fact[:3] for fact in facts
    ]
    for problem, (*_, word) in zip(problems, facts, strict=True):
        assert word in problem.message


def test_a_duplicate_hides_no_other_problem():
    text = "#cloud-config\ngrowpart: {mdoe: 'off'}\ngrowpart: {mode: off}\nruncmd: ls\n"
    assert [(one.line, one.column) for one in check(text)] == [(2, 12), (3, 1), (3, 18), (4, 9)]
    nested = "#cloud-config\ngrowpart:\n  mode: never\n  mode: 'off'\nresize_rootfs: flase\n"
    assert [(one.line, one.column) for one in check(nested)] == [(3, 9), (4, 3), (5, 16)]


MIME = "Content-Type: text/cloud-config\nMIME-Version: 1.0\n\n#cloud-config\n"


@pytest.mark.parametrize(
    ("text", "word", "severity"),
    [
        pytest.param(MIME, "a MIME message", "warning", id="another header first"),
        pytest.param("X: " + "x" * 4000 + "\n" + MIME, "a MIME message", "warning", id="later"),
        pytest.param("X: " + "x" * 4096 + "\n" + MIME, "first line", "error", id="too late"),
        pytest.param("X: " + "ä" * 2048 + "\n" + MIME, "first line", "error", id="in bytes"),
        pytest.param("Content-Type: multipart/mixed\n\n", "first line", "error", id="no version"),
        pytest.param("## template: jinja\n#cloud-config\n", "a template", "warning", id="jinja"),
    ],
)
def test_other_kinds_are_recognized_as_cloud_init_does(text, word, severity):
    (problem,) = check(text)
    assert word in problem.message
    assert problem.severity.value == severity


def test_a_template_header_below_a_blank_line_makes_no_template():
    problems = check("\n## template: jinja\n#cloud-config\nhostname: '{{ v1.region }}'\n")
    assert [(one.line, one.severity.value) for one in problems] == [(1, "warning"), (2, "warning")]


def test_every_key_of_a_real_images_schema_is_known():
    schema = load_schema(_schema_of_a_cached_image())
    if schema is None:
        pytest.skip("no image with a schema in the cache yet (cloudlab build makes one)")
    modules = [part for name, part in schema["$defs"].items() if name.startswith("cc_")]
    keys = sorted({key for module in modules for key in module["properties"]})
    text = "#cloud-config\n" + "".join(f"{key}: 1\n" for key in keys)
    assert len(keys) > 80
    assert [one.message for one in check(text) if one.unknown_key] == []


def test_checking_compiles_no_grammar_of_iris():
    """In a process of its own, because other tests may have imported jsonschema already."""
    code = (
        "import importlib.util, sys; from cloudlab.seed.check import check_user_data\n"
        "check_user_data('#cloud-config\\ngrowpart: {mode: auto}\\n')\n"
        "found = importlib.util.find_spec('rfc3987_syntax') is not None\n"
        "print('jsonschema' in sys.modules, 'lark' in sys.modules, found)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True False True\n"
