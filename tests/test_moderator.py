"""The public Python API: whole texts, streams, exchanges; its guarantees, faults and threads."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cotguard
from cotguard import ModerationFault, Moderator, RequestBlocked, TextBlocked
from cotguard.detectors.contract import Detector, Scope, Session
from cotguard.spans import Action, Span

FRAGMENTS = [
    "ann.lee@example.com",
    "4111 1111 1111 1111",
    "AKIAIOSFODNN7EXAMPLE",
    "plain words",
    "ssn 536-22-8145",
    "é",
]
TEXTS = st.lists(st.tuples(st.sampled_from(FRAGMENTS), st.sampled_from([" ", ", ", ""])), max_size=5).map(
    lambda parts: "".join(map("".join, parts))
)
CUTS = st.lists(st.integers(1, 7), min_size=1, max_size=20)
POLICY = "version: 1\nname: t\nclassifier: false\nrules:\n  - entities: [EMAIL_ADDRESS]\n    action: "


@pytest.fixture(scope="module")
def moderator() -> Iterator[Moderator]:
    with Moderator("patterns-only") as made:
        yield made


@pytest.fixture(scope="module")
def classifying() -> Iterator[Moderator]:
    with Moderator("balanced") as made:
        yield made


def policy(folder: Path, action: str, rest: str = "") -> str:
    path = folder / f"{action}.yaml"
    path.write_text(f"{POLICY}{action}\n{rest}", encoding="utf-8")
    return str(path)


async def chunks(texts: Sequence[str]) -> AsyncIterator[str]:
    for text in texts:
        yield text


async def pairs(texts: Sequence[tuple[str, str]]) -> AsyncIterator[tuple[str, str]]:
    for each in texts:
        yield each


def pieces(text: str, widths: list[int]) -> list[str]:
    found, at, turn = [], 0, 0
    while at < len(text):
        width = widths[turn % len(widths)]
        found.append(text[at : at + width])
        at, turn = at + width, turn + 1
    return found


def test_importing_the_package_loads_nothing() -> None:
    code = "import cotguard, sys; print(len([name for name in sys.modules if name.startswith('cotguard')]))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "1\n"
    assert all(hasattr(cotguard, name) for name in cotguard.__all__)
    with pytest.raises(AttributeError, match="nothing_here"):
        cotguard.nothing_here  # noqa: B018  # asked for, and not there


def test_a_whole_text(moderator: Moderator) -> None:
    found = moderator.moderate("mail ann.lee@example.com now")
    assert (found.text, found.blocked) == ("mail [EMAIL_ADDRESS] now", False)
    (span,) = found.spans
    assert (span.start, span.end, span.entity, span.action) == (5, 24, "EMAIL_ADDRESS", Action.REDACT)
    ((verdict, count),) = found.verdicts.items()
    assert (verdict.entity, verdict.kind, count) == ("EMAIL_ADDRESS", "output", 1)
    assert "ann.lee" not in repr(found)
    assert "now" not in repr(found)


def test_arguments_of_tools_stay_json(moderator: Moderator) -> None:
    found = moderator.moderate('{"card": 4111111111111111, "to": "ann.lee\\u0040example.com"}', "tool_call")
    assert found.text == '{"card": "[CREDIT_CARD]", "to": "[EMAIL_ADDRESS]"}'


@settings(max_examples=40, deadline=None)
@given(text=TEXTS, widths=CUTS)
def test_g1_and_g2_of_an_exchange(moderator: Moderator, text: str, widths: list[int]) -> None:
    whole = moderator.moderate(text, "reasoning").text
    exchange = moderator.exchange()
    delivered = ""
    for piece in pieces(text, widths):
        delivered += "".join(released.text for released in exchange.feed("reasoning", piece))
        assert whole.startswith(delivered)
    assert delivered + "".join(released.text for released in exchange.finish()) == whole
    assert exchange.held == 0


@settings(max_examples=25, deadline=None)
@given(text=TEXTS, widths=CUTS)
def test_g1_and_g2_of_a_stream(classifying: Moderator, text: str, widths: list[int]) -> None:
    async def streamed() -> None:
        whole = (await classifying.amoderate(text)).text
        delivered = ""
        async for released in classifying.stream(chunks(pieces(text, widths))):
            delivered += released
            assert whole.startswith(delivered)
        assert delivered == whole

    asyncio.run(streamed())


async def test_values_across_the_seam_of_channels(moderator: Moderator) -> None:
    said = [("reasoning", "write to ann.lee"), ("output", "@example.com. "), ("output", "That is all there is to say.")]
    found = [piece async for piece in moderator.stream_channels(pairs(said))]
    by_channel = {kind: "".join(piece.text for piece in found if piece.channel == kind) for kind, _ in said}
    assert "ann" not in "".join(by_channel.values())
    assert by_channel["output"].endswith("That is all there is to say.")


async def test_a_stream_delivers_while_it_goes_on(moderator: Moderator) -> None:
    asked: asyncio.Queue[str] = asyncio.Queue()

    async def endless() -> AsyncIterator[str]:
        while True:
            yield await asked.get()

    stream = moderator.stream(endless())
    await asked.put("The result is 4, which was to be shown. And then there is this: ")
    async with asyncio.timeout(5):
        assert (await anext(stream)).startswith("The result is 4")


async def test_the_loop_goes_on_while_the_classifier_works(classifying: Moderator) -> None:
    text = "Ann Lee of 12 Main Street wrote to Bob Miller about the house. " * 40
    working = asyncio.create_task(classifying.amoderate(text))
    turns = 0
    while not working.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 100  # a call that does not give way leaves two or three
    assert (await working).text == classifying.moderate(text).text


async def test_without_an_answer_of_the_classifier_nothing_leaves() -> None:
    with Moderator("balanced", deadline=1e-6) as late:
        with pytest.raises(ModerationFault, match="TimeoutError"):
            await late.amoderate("Ann Lee lives in Paris")
        assert late.moderate("mail ann.lee@example.com").text == "mail [EMAIL_ADDRESS]"
    with pytest.raises(ModerationFault, match="RuntimeError"):  # it is closed
        await late.amoderate("Ann Lee lives in Paris")


async def test_a_block_ends_texts_and_streams(tmp_path: Path) -> None:
    with Moderator(policy(tmp_path, "block")) as blocking:
        found = blocking.moderate("before ann.lee@example.com after, bo@example.com")
        assert (found.text, found.blocked) == ("before ", True)
        assert [(span.start, span.end) for span in found.spans] == [(7, 26)]  # what stands behind it was not read
        got: list[str] = []

        async def take() -> None:
            async for text in blocking.stream(chunks(["before ", "ann.lee@example.com", " after"])):
                got.append(text)  # noqa: PERF401  # what came before the block counts

        with pytest.raises(TextBlocked):
            await take()
        assert "".join(got) == "before "


def test_a_request_is_known(moderator: Moderator) -> None:
    secret = "The launch code is kept by the harbour master of the northern port and never spoken aloud."
    request = [("system", secret), ("user", "What is it?")]
    assert "harbour" not in moderator.moderate(f"I was told: {secret}", request=request).text
    assert moderator.moderate(f"I was told: {secret}").text.endswith(secret)


def test_the_users_own_values_come_back_and_others_do_not() -> None:
    with Moderator("contextual", bundle="none") as contextual:
        request = [("system", "Owner: bob.kay@example.org"), ("user", "I am ann.lee@example.com")]
        found = contextual.moderate("You are ann.lee@example.com, he is bob.kay@example.org", request=request)
        assert "ann.lee@example.com" in found.text
        assert "bob" not in found.text


def test_values_are_hidden_from_the_model_and_restored() -> None:
    with Moderator("egress", bundle="none") as egress:
        exchange = egress.exchange([("user", "Write to ann.lee@example.com")])
        assert exchange.request == ("Write to [EMAIL_ADDRESS_1]",)
        said = [*exchange.feed("output", "Dear [EMAIL_ADD"), *exchange.feed("output", "RESS_1]!"), *exchange.finish()]
        assert "".join(piece.text for piece in said) == "Dear ann.lee@example.com!"


def test_a_request_may_be_blocked(tmp_path: Path) -> None:
    name = policy(tmp_path, "block", "request: {texts: moderate}\n")
    with Moderator(name) as blocking, pytest.raises(RequestBlocked):
        blocking.exchange([("user", "ann.lee@example.com")])


def test_pseudonyms_of_one_key_are_the_same(tmp_path: Path) -> None:
    with Moderator(policy(tmp_path, "pseudonymize")) as naming:

        def named(key: bytes | None) -> str:
            exchange = naming.exchange(pseudonym_key=key)
            return "".join(piece.text for piece in exchange.feed("output", "ann.lee@example.com ") + exchange.finish())

        assert named(b"k" * 16) == named(b"k" * 16) != named(None)


def test_what_is_wrong_is_told(moderator: Moderator) -> None:
    with pytest.raises(ValueError, match="a channel is one of: assistant, other, output"):
        moderator.moderate("x", "answer")
    with pytest.raises(ValueError, match="a channel is one of: assistant, system"):
        moderator.exchange([("output", "x")])
    exchange = moderator.exchange()
    exchange.finish()
    with pytest.raises(ValueError, match="begin another"):
        exchange.feed("output", "x")


class Failing:
    """A detector that fails at a word."""

    name: Final = "failing"
    entities = frozenset({"EMAIL_ADDRESS"})

    def open(self, scope: Scope) -> Session:
        return self

    def advance(self, text: str, final: bool) -> tuple[Sequence[Span], int]:
        if "fail" in text:
            raise RuntimeError(text)
        return (), 0


async def test_a_fault_ends_an_exchange_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    with Moderator("patterns-only") as faulty:
        detectors: tuple[Detector, ...] = (*faulty.detectors, Failing())
        monkeypatch.setattr(faulty, "detectors", detectors)
        exchange = faulty.exchange()
        assert exchange.feed("output", "held ") == []
        for _ in range(2):
            with pytest.raises(ModerationFault, match="a detector raised RuntimeError"):
                exchange.feed("output", "fail ")
        with pytest.raises(ModerationFault):
            exchange.finish()
        with pytest.raises(ModerationFault):
            [text async for text in faulty.stream(chunks(["held ", "fail"]))]


def test_threads_take_turns(moderator: Moderator) -> None:
    texts = [f"user{number}@example.com and {'words ' * number}" for number in range(40)]
    expected = [moderator.moderate(text).text for text in texts]

    def in_pieces(text: str) -> str:
        exchange = moderator.exchange()
        said = [piece for each in pieces(text, [3]) for piece in exchange.feed("output", each)]
        return "".join(piece.text for piece in said + exchange.finish())

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(in_pieces, texts)) == expected
        assert [found.text for found in pool.map(moderator.moderate, texts)] == expected
