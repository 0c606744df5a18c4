"""A stream whose last bytes may not be delivered, as what they follow from is not recorded, ends in its error shape."""

import random
import re

import pytest
from conversations import CLIENTS, Client, Reply, Said, conversation
from dialect_kit import exchange, policy

from cotguard.dialects.contract import ErrorKind, Translator, Undelivered

TALK = conversation(1)
MODERATION = policy("redact", entity="EMAIL_ADDRESS")
TEXT = "plain words that pass, and no more of them"
MESSAGE = "constant text"


def translator_of(client: Client) -> Translator:
    prepared = client.prepared(client.request(TALK, streamed=True), client.fields(TALK), streamed=True)
    translator = client.dialect.stream(prepared, exchange(MODERATION, prepared.facts), client.content_type)
    assert translator is not None
    return translator


def streamed(client: Client) -> bytes:
    said = Said(TEXT)
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
