import itertools
import json
import time
from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cotguard.moderation.json_view import MAX_DEPTH, JsonView
from cotguard.moderation.view import Edit
from cotguard.spans import ChannelKind

# Not written out, because mypy's parser does not survive half an escape in a raw string.
HALF = "\\" + "u00"
AT = "\\" + "u0040"
HIGH = "\\" + "ud83d"


def view(pieces: Sequence[str]) -> tuple[JsonView, str]:
    """A view that was fed ``pieces`` and then told that nothing follows, and its text."""
    found = JsonView()
    text = "".join([found.feed(piece, final=False) for piece in pieces] + [found.feed("", final=True)])
    return found, text


def rewrite(raw: str, edits: Sequence[Edit] = ()) -> str:
    found, text = view([raw])
    assert found.settled == len(text)
    return found.render(0, len(text), edits)


def cut(raw: str, places: Sequence[int]) -> list[str]:
    at = [0, *sorted(min(place, len(raw)) for place in places), len(raw)]
    return [raw[start:end] for start, end in itertools.pairwise(at)]


def shape(value: object) -> object:
    """The structure of a document: what no edit may change."""
    if isinstance(value, dict):
        return [shape(each) for each in value.values()]
    if isinstance(value, list):
        return [shape(each) for each in value]
    return value if isinstance(value, bool) or value is None else ""


def pairs(found: list[tuple[str, object]]) -> list[object]:
    """Members of an object, even where edits made their keys equal."""
    return [shape(value) if not isinstance(value, list) else value for _, value in found]


def skeleton(raw: str) -> object:
    return shape(json.loads(raw, object_pairs_hook=pairs))


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (r'{"a": "b"}', '{"a": "b"}'),
        (r'{"a\u0040b": "c\u0040d"}', '{"a@b": "c@d"}'),
        (r'["\"\\\/\b\f\n\r\t"]', '["' + '"\\/\b\f\n\r\t"]'),
        (r'["\ud83d\ude00\uD83D\uDE00"]', '["😀😀"]'),
        (r'["\ud83d", "\ude00", "\ud83dx", "\ud83d\n", "\ud83d\u0041"]', '["�", "�", "�x", "�\n", "�A"]'),
        (r'["\ud83d\ud83d\ude00"]', '["�😀"]'),
        ('["\ud83d", "\ud83d\ude00", "é"]', '["�", "😀", "é"]'),
        (' { "n" : [ -1.5e+3 , 0, true,\tfalse,\r\nnull ] } ', ' { "n" : [ -1.5e+3 , 0, true,\tfalse,\r\nnull ] } '),
        ('"top"', '"top"'),
        ("4111111111111111", "4111111111111111"),
        ('["a\nb"]', '["a\nb"]'),
        ("", ""),
    ],
)
def test_the_text_is_the_document_with_its_strings_decoded(raw: str, text: str) -> None:
    assert view([raw])[1] == text
    assert view(list(raw))[1] == text


@pytest.mark.parametrize(
    ("raw", "value", "replacement", "written"),
    [
        (r'{"mail": "x a\u0040b.cd y"}', "a@b.cd", "[E]", '{"mail": "x [E] y"}'),
        ('{"a@b.cd": 1}', "a@b.cd", "[E]", '{"[E]": 1}'),
        ('{"card": 4111111111111111, "n": 1}', "4111111111111111", "[C]", '{"card": "[C]", "n": 1}'),
        ('{"card": 4111111111111111, "n": 1}', "1111", "[C]", '{"card": "[C]", "n": 1}'),
        ("[12, 34, 56]", "2, 34, 5", "[N]", '["[N]", "[N]", "[N]"]'),
        ('{"a": "b", "c": {"d": null}}', '"b", "c": {"d": null}', "[X]", '{"a": "[X]", "[X]": {"[X]": null}}'),
        ('{"a": "", "b": true}', ': "", "b": true}', "[X]", '{"a": "", "[X]": true}'),
        ('["a\\"b\\\\c"]', '"b\\', "[X]", '["a[X]c"]'),
        ('["abc"]', "b", 'q"\\\n\u2028\ud83d', '["aq\\"\\\\\\n\\u2028\\ud83dc"]'),
        ("[1]", "1", 'q"', '["q\\""]'),
        ('["ab", tru', '"ab", tru', "[X]", '["[X]", [X]'),
        ("{'pass': 'hunter2'}", "hunter2", '"X', "{'pass': '\"X'}"),
    ],
)
def test_an_edit_applies_to_the_leaves_it_covers(raw: str, value: str, replacement: str, written: str) -> None:
    _, text = view([raw])
    start = text.index(value)
    assert rewrite(raw, [(start, start + len(value), replacement)]) == written


def test_edits_of_one_string_and_one_number() -> None:
    assert rewrite('["abcdef", 123456]', [(2, 3, "X"), (4, 6, "Y"), (11, 12, "P"), (14, 16, "Q")]) == '["XbYef", "P"]'


@pytest.mark.parametrize(
    ("raw", "text", "written"),
    [
        (r'{"a": 01, "b": "\u0040"}', r'{"a": 01, "b": "\u0040"}', '{"[X]": [X]'),
        (r'{"a": tru, "b": "\u0040"}', r'{"a": tru, "b": "\u0040"}', '{"[X]": [X]'),
        (r'{"a" "\u0040"}', r'{"a" "\u0040"}', '{"[X]" [X]'),
        (r'{"a":1,}', '{"a":1,}', '{"[X]":"[X]",[X]'),
        (r'["a\q\u0040"]', r'["a\q\u0040"]', '["[X][X]'),
        (f'["{AT}{HALF}', f'["@{HALF}', '["[X][X]'),
        (f'["{HIGH}{HALF}', f'["�{HALF}', '["[X][X]'),
        ('["a', '["a', '["[X]'),
        ('["a"]x', '["a"]x', '["[X]"][X]'),
        ('["a"}', '["a"}', '["[X]"[X]'),
        ("[1 2]", "[1 2]", '["[X]" [X]'),
        ("]", "]", "[X]"),
        ("NaN", "NaN", "[X]"),
        ("{1: 2}", "{1: 2}", "{[X]"),
        ("[-]", "[-]", "[[X]"),
        ("The answer", "The answer", "[X]"),
        ("[" * (MAX_DEPTH + 2), "[" * (MAX_DEPTH + 2), "[" * MAX_DEPTH + "[X]"),
    ],
)
def test_from_a_syntax_error_on_the_text_is_plain(raw: str, text: str, written: str) -> None:
    assert view([raw])[1] == text
    assert rewrite(raw) == (text if "�" in text or "@" in text else raw)
    assert rewrite(raw, [(0, len(text), "[X]")]) == written
    assert json_view_by_character(raw, len(text)) == written


def json_view_by_character(raw: str, size: int) -> str:
    found, text = view(list(raw))
    assert len(text) == size
    return found.render(0, size, [(0, size, "[X]")])


def test_a_span_widens_to_the_numbers_it_touches() -> None:
    found, text = view(['{"a": -12.5e3, "b": "12", "c": [78, 90]}'])
    start = text.index("-12.5e3")
    assert found.widen(start + 2, start + 3) == (start, start + 7)
    assert found.widen(start - 1, start + 1) == (start - 1, start + 7)
    assert found.widen(start, start + 7) == (start, start + 7)
    assert found.widen(start - 2, start) == (start - 2, start)
    assert found.widen(start + 7, start + 8) == (start + 7, start + 8)
    string = text.index('12"')
    assert found.widen(string, string + 1) == (string, string + 1)
    seven = text.index("78")
    assert found.widen(seven + 1, seven + 5) == (seven, seven + 6)


def test_what_is_replaced_has_a_part_for_each_string_and_number_it_touches() -> None:
    found, text = view(['{"first": "Ann", "": 12, "last": "Lee"}'])
    parts = [text[start:end] for start, end in found.parts(text.index("nn"), text.index("ee"))]
    assert parts == ["nn", "12", "last", "L"]
    assert found.parts(text.index(": 12"), text.index("12")) == []
    start = text.index("Ann")
    found.render(0, start + 1, [])
    assert list(found.parts(start + 1, start + 3)) == [(start + 1, start + 3)]


def test_nothing_is_settled_inside_a_number_or_literal() -> None:
    found = JsonView()
    assert found.feed('{"a": 41', final=False) == '{"a": 41'
    assert found.settled == 6
    assert found.feed("11", final=False) == "11"
    assert found.settled == 6
    found.feed(", ", final=False)
    assert found.settled == 12
    found.feed('"b": tr', final=False)
    assert found.settled == 17
    found.feed("ue", final=False)
    assert found.settled == 17
    found.feed("}", final=False)
    assert found.settled == 22


def test_half_an_escape_waits() -> None:
    found = JsonView()
    assert found.feed('"a\\', final=False) == '"a'
    assert found.feed("u00", final=False) == ""
    assert found.feed("40", final=False) == "@"
    assert found.feed("\\ud83d", final=False) == ""
    assert found.feed("\\ude", final=False) == ""
    assert found.settled == 3
    assert found.feed("00b", final=False) == "😀b"
    assert found.feed("\\ud83d", final=True) == "�"
    assert found.render(0, 6, []) == '"a@😀b�'


def test_the_kind_is_that_of_tool_calls() -> None:
    assert JsonView().kind_at(0) is ChannelKind.TOOL_CALL


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
STRINGS = st.text(st.characters(codec="utf-8") | st.sampled_from('"\\/\n\u2028😀@'), max_size=8)
VALUES = st.recursive(
    SCALARS | STRINGS,
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(STRINGS, inside, max_size=4),
    max_leaves=10,
)
INDENTS = st.sampled_from([None, 1])
EDITS = st.lists(
    st.tuples(st.integers(0, 60), st.integers(1, 12), st.sampled_from(["", "[X]", 'a"\\b', "é\n"])), max_size=4
)


def placed(edits: Sequence[tuple[int, int, str]], size: int) -> list[Edit]:
    """Edits that do not overlap, from gaps and lengths."""
    found: list[Edit] = []
    at = 0
    for gap, length, replacement in edits:
        start = at + gap
        if start < size:
            at = min(start + length, size)
            found.append((start, at, replacement))
    return found


@given(VALUES, INDENTS, st.booleans())
def test_without_edits_the_document_keeps_its_value(value: object, indent: int | None, ascii_only: bool) -> None:
    raw = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    assert json.loads(rewrite(raw)) == json.loads(raw)


@given(VALUES, INDENTS, EDITS)
@example({"": ""}, None, [(0, 12, "[X]")])
def test_edits_keep_a_document_valid_and_its_structure(
    value: object, indent: int | None, edits: list[tuple[int, int, str]]
) -> None:
    raw = json.dumps(value, indent=indent)
    size = len(view([raw])[1])
    assert skeleton(rewrite(raw, placed(edits, size))) == skeleton(raw)


def outcome(pieces: Sequence[str], edits: Sequence[tuple[int, int, str]]) -> tuple[object, ...]:
    """All that may not depend on cuts."""
    found, text = view(pieces)
    assert found.settled == len(text)
    fitting = placed(edits, len(text))
    widened = [found.widen(start, end) for start, end, _ in fitting]
    return text, widened, found.render(0, len(text), fitting)


BROKEN = st.text(st.sampled_from('{}[]:,"\\u0dD8cC1e-. \ntfnal😀\ud83d\ude00'), max_size=40)


@given(BROKEN | VALUES.map(json.dumps), EDITS, st.lists(st.integers(0, 80), max_size=6))
def test_nothing_depends_on_cuts(raw: str, edits: list[tuple[int, int, str]], places: list[int]) -> None:
    assert outcome(cut(raw, places), edits) == outcome([raw], edits) == outcome(list(raw), edits)


@pytest.mark.parametrize("raw", [r'{"a\u0040":"\ud83d\ude00\n","b":[-1.5e3,true,""]}', r'{"x": 12, "\ud83d": nul}'])
def test_every_cut_in_two(raw: str) -> None:
    edits = [(3, 4, "[X]"), (10, 9, "[Y]")]
    whole = outcome([raw], edits)
    for place in range(len(raw) + 1):
        assert outcome([raw[:place], raw[place:]], edits) == whole


@given(BROKEN | VALUES.map(json.dumps), EDITS)
def test_stretches_are_written_as_the_whole_is(raw: str, edits: list[tuple[int, int, str]]) -> None:
    found, text = view([raw])
    groups: list[Edit] = []
    for edit_start, edit_end, replacement in placed(edits, len(text)):
        start, end = found.widen(edit_start, edit_end)
        if groups and start < groups[-1][1]:
            groups[-1] = (groups[-1][0], max(end, groups[-1][1]), groups[-1][2])
        else:
            groups.append((start, end, replacement))
    written = ""
    at = 0
    for group in groups:
        written += found.render(at, group[1], [group])
        at = group[1]
    written += found.render(at, len(text), ())
    assert written == view([raw])[0].render(0, len(text), groups)


@given(VALUES.map(json.dumps), st.lists(st.integers(1, 9), max_size=20))
def test_what_is_written_early_is_a_prefix(raw: str, steps: list[int]) -> None:
    found = JsonView()
    written, at, place = "", 0, 0
    whole = rewrite(raw)
    for step in [*steps, len(raw)]:
        found.feed(raw[place : place + step], final=place + step >= len(raw))
        place += step
        if found.settled > at:
            written += found.render(at, found.settled, ())
            at = found.settled
        assert whole.startswith(written)
    assert written == whole


def test_long_documents_take_linear_time() -> None:
    def seconds(count: int) -> float:
        raw = json.dumps([{"key": "va\nlue", "number": 12345}] * count)
        best = float("inf")
        for _ in range(3):
            begun = time.process_time()
            found = JsonView()
            at = 0
            for place in range(0, len(raw), 4):
                found.feed(raw[place : place + 4], final=False)
                if found.settled > at:
                    found.render(at, found.settled, ())
                    at = found.settled
            best = min(best, time.process_time() - begun)
        return best

    assert seconds(1600) < 8 * seconds(400)


def test_many_edits_in_many_leaves_take_linear_time() -> None:
    def seconds(count: int) -> float:
        found, text = view([json.dumps(["ab", 12] * count)])
        edits = [(at, at + 1, "X") for at in range(0, len(text), 2)]
        begun = time.process_time()
        found.render(0, len(text), edits)
        return time.process_time() - begun

    assert min(seconds(4000) for _ in range(3)) < 10 * min(seconds(1000) for _ in range(3))
