"""What is refused in a policy, where, and what people are told to write instead."""

import contextlib
import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cotguard.policy import Policy, PolicyError, load, parse
from cotguard.policy.source import MAX_CHARS, MAX_DEPTH

HEAD = "version: 1\nname: x\n"
GOOD = HEAD + "rules:\n  - entities: [SECRET]\n    action: redact\n"


def broken(text: str) -> PolicyError:
    with pytest.raises(PolicyError) as caught:
        parse(text, "p.yaml", None)
    return caught.value


def rule(*lines: str) -> str:
    return HEAD + "rules:\n  - " + "\n    ".join(lines) + "\n"


ONE_MISTAKE = [
    # the file as a whole
    pytest.param("", 1, 1, "nothing in this policy", "version: 1", id="empty"),
    pytest.param("# only\n", 1, 1, "nothing in this policy", "version: 1", id="only a comment"),
    pytest.param("- a\n", 1, 1, "a policy must be a mapping", "rules:", id="a list"),
    pytest.param("hello\n", 1, 1, "a policy must be a mapping", "rules:", id="a text"),
    pytest.param(GOOD + "x: 1\n---\nversion: 1\n", 7, 1, "second document", "---", id="two documents"),
    # syntax
    pytest.param(GOOD + "\tdefault: allow\n", 6, 1, "tab", "spaces", id="tab"),
    pytest.param(GOOD + "notice: gone: for good\n", 6, 13, '":" stands', "quotes", id="colon in a text"),
    pytest.param(GOOD + "default: [allow\n", 7, 1, "not valid YAML", "line 6", id="open bracket"),
    pytest.param(GOOD + "\ndefault: 'allow\n\n", 9, 1, "not valid YAML", "line 7", id="open quote"),
    pytest.param(GOOD + "notice: a\x07b\n", 6, 10, "control character", "remove", id="control character"),
    pytest.param(GOOD + "default: &a allow\n", 6, 10, "anchors", "quotes", id="anchor"),
    pytest.param(GOOD + "notice: *\n", 6, 10, "not valid YAML", "quotes", id="star"),
    pytest.param(GOOD + "notice: *a\n", 6, 9, "aliases", "quotes", id="alias"),
    pytest.param(GOOD + "default: !!str allow\n", 6, 10, "tags", "plain", id="tag"),
    pytest.param(GOOD + "notice: !!python/object:os.system x\n", 6, 9, "tags", "plain", id="python tag"),
    pytest.param(GOOD + "<<: {default: allow}\n", 6, 1, '"<<" is no key', "version, name", id="merge key"),
    pytest.param(GOOD + "1: 2\n", 6, 1, "no text", "quotes", id="number as key"),
    pytest.param(GOOD + "? [a]\n: b\n", 6, 3, "no text", "word", id="list as key"),
    pytest.param(GOOD + "name: y\n", 6, 1, "second time, first on line 2", "one of the two", id="duplicate key"),
    pytest.param(rule("entities: [SECRET]", "action: mask", "action: hash"), 6, 5, "second time", "keep", id="in rule"),
    # keys
    pytest.param(HEAD, 1, 1, '"rules" is missing', "rules: [", id="no rules"),
    pytest.param(HEAD + "ruels: []\n", 3, 1, '"ruels" is no key', '"rules"', id="misspelt key"),
    pytest.param(GOOD + "colour: red\n", 6, 1, '"colour" is no key', "on_error", id="unknown key"),
    pytest.param(GOOD + "On-Error: open\n", 6, 1, '"On-Error" is no key', '"on_error"', id="other spelling"),
    pytest.param(rule("entites: [SECRET]", "action: mask"), 4, 5, '"entites" is no key', '"entities"', id="rule key"),
    pytest.param(rule("entities: [SECRET]"), 4, 5, '"action" is missing', "action: redact", id="no action"),
    pytest.param(rule("entities: [SECRET]", "action: mask", "when: now"), 6, 5, "no key", "min_score", id="rule extra"),
    pytest.param(HEAD + "rules:\n  - SECRET\n", 4, 5, 'entry of "rules" must be a mapping', "rules: [", id="bare rule"),
    # words
    pytest.param(rule("entities: [EMAIL]", "action: mask"), 4, 16, '"EMAIL"', "EMAIL_ADDRESS?", id="short name"),
    pytest.param(rule("entities: [US_SNN]", "action: mask"), 4, 16, '"US_SNN"', "US_SSN", id="slip"),
    pytest.param(rule("entities: [URL, person]", "action: mask"), 4, 21, '"person"', "PERSON?", id="lower case"),
    pytest.param(rule("entities: [MOOD]", "action: mask"), 4, 16, '"MOOD"', "one of: ALL, PII,", id="no entity"),
    pytest.param(rule("entities: [FINANCAIL]", "action: mask"), 4, 16, "entity or a group", "FINANCIAL", id="group"),
    pytest.param(rule("entities: [URL]", "action: redct"), 5, 13, '"redct" is not an action', "redact?", id="action"),
    pytest.param(
        rule("entities: [URL]", "action: none"), 5, 13, "not an action", "one of: allow, flag", id="no action"
    ),
    pytest.param(rule("entities: [URL]", "action: [mask]"), 5, 13, "this is not an action", "allow", id="action list"),
    pytest.param(
        rule("entities: [URL]", "channels: [output, reasonning]", "action: mask"),
        *(5, 24, '"reasonning" is not a channel', "reasoning?"),
        id="channel",
    ),
    pytest.param(
        rule("entities: [URL]", "action: mask", "unless_origin: [reasoning]"),
        *(6, 21, "not an origin", "system, user, assistant, tool_result, tool_description"),
        id="outbound origin",
    ),
    pytest.param(GOOD + "mode: observe\n", 6, 7, "not a mode", "enforce, shadow", id="mode"),
    pytest.param(GOOD + "on_error: close\n", 6, 11, "faults", "closed?", id="on_error"),
    pytest.param(GOOD + 'default: "\\e[31m"\n', 6, 10, "this is not an action", "allow", id="terminal escape"),
    # shapes and bounds
    pytest.param("version: 2\nname: x\nrules: []\n", 1, 10, "version 1", "version: 1", id="version 2"),
    pytest.param("version: true\nname: x\nrules: []\n", 1, 10, "version 1", "version: 1", id="version true"),
    pytest.param("version: 1.0\nname: x\nrules: []\n", 1, 10, "version 1", "version: 1", id="version 1.0"),
    pytest.param("version: 1\nname: Foo Bar\nrules: []\n", 2, 7, "lower-case", "support-desk", id="name"),
    pytest.param("version: 1\nname: 5\nrules: []\n", 2, 7, "a text", "quotes", id="number as name"),
    pytest.param(HEAD + "rules:\n", 3, 7, '"rules" must be a list', "rules: [", id="rules left empty"),
    pytest.param(rule("entities: SECRET", "action: mask"), 4, 15, "a list", "[SECRET, EMAIL_ADDRESS]", id="no list"),
    pytest.param(rule("entities: []", "action: mask"), 4, 15, "at least one", "SECRET", id="no entities"),
    pytest.param(rule("entities: [URL]", "channels: []", "action: mask"), 5, 15, "at least one", "output", id="none"),
    pytest.param(rule("entities: [URL]", "min_score: 70", "action: mask"), 5, 16, "0 to 1", "0.7", id="per cent"),
    pytest.param(rule("entities: [URL]", "min_score: -1", "action: mask"), 5, 16, "0 to 1", "0.7", id="below 0"),
    pytest.param(rule("entities: [URL]", "min_score: high", "action: mask"), 5, 16, "0 to 1", "0.7", id="word"),
    pytest.param(rule("entities: [URL]", "min_score: true", "action: mask"), 5, 16, "0 to 1", "0.7", id="true"),
    pytest.param(rule("entities: [URL]", "min_score: .nan", "action: mask"), 5, 16, "0 to 1", "0.7", id="nan"),
    pytest.param(rule("entities: [URL]", "min_score: " + "9" * 999, "action: mask"), 5, 16, "0 to 1", "0.7", id="inf"),
    pytest.param(GOOD + "classifier: no\n", 6, 13, "true or false", "classifier: false", id="yaml 1.1 boolean"),
    pytest.param(GOOD + "notice: ''\n", 6, 9, "not empty", "[withheld]", id="empty notice"),
    pytest.param(GOOD + "notice: " + "x" * 501, 6, 9, "at most 500", "shorten", id="long notice"),
    pytest.param(GOOD + "description:\n", 6, 13, "a text", "description: ", id="description left empty"),
    # what looks like protection and is none
    pytest.param(
        GOOD + "  - entities: [SECRET_OTP]\n    action: allow\n", 6, 5, "never decides", "move it up", id="idle rule"
    ),
    # known values
    pytest.param(GOOD + "known_values: [a]\n", 6, 15, "must be a mapping", "values: [", id="bare values"),
    pytest.param(GOOD + "known_values: {values: [ab]}\n", 6, 25, "at least 3", "longer", id="short"),
    pytest.param(GOOD + "known_values: {values: ['- - -']}\n", 6, 25, "at least 3 letters", "longer", id="no letters"),
    pytest.param(GOOD + f"known_values: {{values: [{'x' * 1025}]}}\n", 6, 25, "1024", "a part", id="long"),
    pytest.param(GOOD + "known_values: {values: [12345]}\n", 6, 25, "must be a text", "quotes", id="number"),
    pytest.param(GOOD + "known_values: {file: a.txt}\n", 6, 22, "no folder", "absolute", id="nowhere"),
    pytest.param(
        GOOD + "known_values: {values: [Bluebird]}\n", 6, 1, "no rule", "entities: [KNOWN_VALUE]", id="no rule for them"
    ),
]


@pytest.mark.parametrize(("text", "line", "column", "reason", "hint"), ONE_MISTAKE)
def test_one_mistake_is_told_once_and_where_it_stands(
    text: str, line: int, column: int, reason: str, hint: str
) -> None:
    error = broken(text)
    (problem,) = error.problems
    assert (problem.line, problem.column) == (line, column)
    assert reason in problem.reason
    assert hint in problem.hint
    assert str(error) == f"p.yaml:{line}:{column}: {problem.reason}; {problem.hint}"


def test_all_mistakes_are_told_at_once_in_the_order_of_the_text() -> None:
    error = broken(rule("entities: [SECRETS, FOO]", "min_score: 2") + "default: nothing\nmood: good\n")
    assert [(problem.line, problem.column) for problem in error.problems] == [
        *((4, 5), (4, 16), (4, 25), (5, 16), (6, 10), (7, 1))
    ]
    assert len(str(error).splitlines()) == 6


def test_positions_count_characters() -> None:
    (problem,) = broken(GOOD + 'known_values: {values: ["ключ 🗝", ab]}\n').problems
    assert (problem.line, problem.column) == (6, 35)


def test_nesting_is_bounded() -> None:
    (problem,) = broken(GOOD + "notice: " + "[" * 100_000).problems
    assert (problem.line, problem.column) == (6, 9 + MAX_DEPTH - 1)


def test_expansion_bombs_are_refused() -> None:
    bomb = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"
    assert "anchors" in str(broken(GOOD + bomb))


def test_length_is_bounded() -> None:
    error = broken(GOOD + "#" * (MAX_CHARS - len(GOOD) + 1))
    assert str(error).startswith("p.yaml: longer than 1048576 characters; ")
    parse(GOOD + "#" * (MAX_CHARS - len(GOOD)), "p.yaml", None)


@pytest.mark.parametrize(
    "text",
    [
        "known_values: {values: [Wolverine: x]}",
        "known_values: {Wolverine: x}",
        "known_values: {values: Wolverine}",
        "known_values: Wolverine",
        "known_values: {values: [*Wolverine]}",
        "known_values: {values: [!Wolverine!x y]}",
        "known_values: {values: [%Wolverine]}",
        "known_values: {values: ['Wolverine]}",
        "known_values: {values: [Wolverine, Wolverine\x00]}",
        "known_values: {Wolverine: 1, Wolverine: 2}",
        "known_values: {values: [" + "Wolverine" * 129 + "]}",
        "known_values: {values: [Wolverine]}",
        "known_values: {values: [Wolverine\n@Wolverine]}",
    ],
)
def test_errors_never_show_known_values(text: str) -> None:
    error = broken(GOOD + text + "\n")
    assert error.__cause__ is None
    assert error.__suppress_context__ or error.__context__ is None
    assert "Wolverine" not in f"{error}{error!r}"


KEYS = "version name rules entities action channels min_score unless_origin known_values values file default odd"

json_like = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.floats() | st.sampled_from(["SECRET", "redact", "user", "x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS.split()), inner, max_size=5),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["rules", "known_values", "default", "notice", "mode"]), json_like))
def test_any_shape_is_either_a_policy_or_explained(shape: dict[str, object]) -> None:
    text = yaml.safe_dump({"version": 1, "name": "x", "rules": [], **shape}, sort_keys=False)
    try:
        assert isinstance(parse(text, "p.yaml", None), Policy)
    except PolicyError as error:
        lines = text.splitlines()
        for problem in error.problems:
            assert 1 <= problem.column <= len(lines[problem.line - 1])
            assert problem.reason
            assert problem.hint


@given(st.text(alphabet="ab:-[]{}'\"&*!|>%@#,? \n\t\\x0\x85\ufeff", max_size=40))
def test_any_text_is_either_a_policy_or_explained(text: str) -> None:
    for beginning in ("", GOOD):
        with contextlib.suppress(PolicyError):
            parse(beginning + text, "p.yaml", None)


class TestFiles:
    def test_a_missing_file_names_the_ready_policies(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(
            PolicyError, match="balanced, contextual, egress, observe, patterns-only, secrets-only, strict"
        ):
            load("nowhere.yaml")
        with pytest.raises(PolicyError, match=r"^balancd: .*; did you mean balanced\?$"):
            load("balancd")

    @pytest.mark.parametrize(
        ("data", "place", "reason"),
        [
            (GOOD.encode() + b"notice: \xff\n", ":6:9", "not UTF-8"),
            (GOOD.encode("utf-16"), ":1:1", "not UTF-8"),
            (b"#" * (MAX_CHARS + 1), "", "larger than 1048576 bytes"),
        ],
    )
    def test_bytes_that_are_no_policy(self, tmp_path: Path, data: bytes, place: str, reason: str) -> None:
        path = tmp_path / "p.yaml"
        path.write_bytes(data)
        with pytest.raises(PolicyError) as caught:
            load(str(path))
        assert str(caught.value).startswith(f"{path}{place}: {reason}")

    def test_what_is_no_file(self, tmp_path: Path) -> None:
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        for path in (tmp_path, fifo, tmp_path / ("x" * 300)):
            with pytest.raises(PolicyError, match=r"no such file|cannot be read: File name too long"):
                load(str(path))

    def test_a_byte_order_mark_and_crlf_are_read(self, tmp_path: Path) -> None:
        path = tmp_path / "p.yaml"
        path.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
        assert load(str(path)).name == "x"
        path.write_bytes(b"\xef\xbb\xbf" + (GOOD + "default: no\n").replace("\n", "\r\n").encode())
        with pytest.raises(PolicyError, match=":6:10: "):
            load(str(path))


class TestKnownValuesFile:
    POLICY = rule("entities: [PROMPT]", "action: mask") + "known_values:\n  values: [Project Bluebird]\n  file: v.txt\n"

    def policy(self, folder: Path, values: bytes | None) -> Policy:
        if values is not None:
            (folder / "v.txt").write_bytes(values)
        (folder / "p.yaml").write_text(self.POLICY)
        return load(str(folder / "p.yaml"))

    def test_lines_are_values_but_for_blanks_and_comments(self, tmp_path: Path) -> None:
        values = "\ufeff# ours\n\n  Night Owl \r\nProject Bluebird\n \t\nсокол\x85нет\n".encode()
        assert self.policy(tmp_path, values).known_values == ("Project Bluebird", "Night Owl", "сокол\x85нет")

    def test_it_stands_beside_the_policy_wherever_cotguard_runs(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.policy(tmp_path, b"Night Owl")
        monkeypatch.chdir("/")
        assert "Night Owl" in load(str(tmp_path / "p.yaml")).known_values

    def test_every_bad_line_is_told_in_the_file_s_own_lines(self, tmp_path: Path) -> None:
        with pytest.raises(PolicyError) as caught:
            self.policy(tmp_path, b"# ours\nok then\n  ab\n--\n")
        assert [(p.source, p.line, p.column) for p in caught.value.problems] == [
            (str(tmp_path / "v.txt"), 3, 3),
            (str(tmp_path / "v.txt"), 4, 1),
        ]

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            (None, "{folder}/p.yaml:8:9: {folder}/v.txt: no such file; "),
            (b"fine\nnot \xff\n", "{folder}/v.txt:2:5: not UTF-8 text from here; "),
        ],
    )
    def test_unreadable(self, tmp_path: Path, values: bytes | None, message: str) -> None:
        with pytest.raises(PolicyError) as caught:
            self.policy(tmp_path, values)
        assert str(caught.value).startswith(message.format(folder=tmp_path))
