"""A stream whose last bytes may not be delivered, as what they follow from is not recorded, ends in its error shape."""

import random
import re
from itertools import pairwise

import pytest
from conversations import CLIENTS, Client, Reply, Said, conversation
from dialect_kit import exchange, policy
from hypothesis import assume, given
from hypothesis import strategies as st

from cotguard.dialects.contract import ErrorKind, Translator, Undelivered

TALK = conversation(1)
MODERATION = policy("redact", entity="EMAIL_ADDRESS")
TEXT = "plain words that pass, and no more of them"
VALUE = "ann.lee@example.com"
MESSAGE = "constant text"


def translator_of(client: Client) -> Translator:
    prepared = client.prepared(client.request(TALK, streamed=True), client.fields(TALK), streamed=True)
    translator = client.dialect.stream(prepared, exchange(MODERATION, prepared.facts), client.content_type)
    assert translator is not None
    return translator


def streamed(client: Client, more: str = "") -> bytes:
    said = Said(f"{TEXT} {more}")
    return client.stream(Reply(said, said, Said('{"note": "x"}')), random.Random(1))


def unnumbered(data: bytes) -> bytes:
    """Without the numbers of events, which go on over those that were lost."""
    return re.sub(rb'"sequence_number":[0-9]+', b"", data)


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_nothing_was_delivered(client: Client) -> None:
    translator = translator_of(client)
    assert translator.receive(streamed(client)) + (b"" if translator.finished else translator.end())
    failed = translator.fail(ErrorKind.MODERATION_FAILED, MESSAGE, Undelivered.ALL)
    assert unnumbered(failed) == unnumbered(translator_of(client).fail(ErrorKind.MODERATION_FAILED, MESSAGE))
    assert b"plain words" not in failed
    assert translator.finished


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_the_last_bytes_were_not_delivered(client: Client) -> None:
    data = streamed(client)
    translator = translator_of(client)
    half = len(data) // 2
    first = translator.receive(data[:half])
    last = translator.receive(data[half:])
    last += b"" if translator.finished else translator.end()
    assert last
    failed = translator.fail(ErrorKind.MODERATION_FAILED, MESSAGE, Undelivered.LAST)
    assert MESSAGE.encode() in failed
    assert b"plain words" not in failed
    fresh = translator_of(client)
    fresh.receive(data[:half])
    if first:  # the same as if the second half had never come
        assert unnumbered(failed) == unnumbered(fresh.fail(ErrorKind.MODERATION_FAILED, MESSAGE))


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
@given(data=st.data())
def test_wherever_it_is_that_a_record_fails(client: Client, data: st.DataObject) -> None:
    """The exchange ends as if what came last had never come, however the stream was cut before (G1, G5)."""
    whole = streamed(client, VALUE)
    cuts = data.draw(st.lists(st.integers(1, len(whole) - 1), unique=True, min_size=1, max_size=12).map(sorted))
    pieces = [whole[start:end] for start, end in pairwise([0, *cuts, len(whole)])]
    kept = data.draw(st.integers(0, len(pieces) - 1))
    translator, fresh = translator_of(client), translator_of(client)
    delivered = b"".join(map(translator.receive, pieces[:kept]))
    for piece in pieces[:kept]:
        fresh.receive(piece)
    assume(not translator.finished)
    translator.receive(pieces[kept])
    if kept == len(pieces) - 1 and not translator.finished:
        translator.end()
    failed = translator.fail(ErrorKind.MODERATION_FAILED, MESSAGE, Undelivered.LAST if delivered else Undelivered.ALL)
    expected = (fresh if delivered else translator_of(client)).fail(ErrorKind.MODERATION_FAILED, MESSAGE)
    assert VALUE.encode() not in delivered + failed
    assert unnumbered(failed) == unnumbered(expected)
