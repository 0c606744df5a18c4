"""The classifier without a gateway: pieces, windows, joining, bundles, engines, and the detector contract."""

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cotguard.classifier.bundle import DEFAULT, Bundle, BundleError, Manifest, find, load, ready_bundles
from cotguard.classifier.detector import Classifier
from cotguard.classifier.engine import Answer, Engine, InferenceError, Window
from cotguard.classifier.joining import Joiner, Labelled, Labels
from cotguard.classifier.tensors import Tensors
from cotguard.classifier.tokens import LONGEST_RUN, Tokenizer
from cotguard.classifier.verify import verify
from cotguard.cli import main
from cotguard.detectors import conformance
from cotguard.detectors.contract import Scope
from cotguard.spans import ChannelKind, Span

TEXT = (
    "Okay, the ticket was opened by Margaret Okonkwo, who lives at 12 Harbour Lane in Leeds. Let me think: Okonkwo "
    'wrote "my password is tulip-River-99" and asked for a refund. {"user": "m_okonkwo84", "id": 7714} So I should '
    "answer Margaret politely, and leave all of that out.\n\nThe sum is 3 + 4 = 7, and "
    + "x" * 300
    + " é́ ab\x1ccd 東京都 İi."
)
AWKWARD = "ab \n,.'\"_-x1é\u0301\u200b\x1c\x00İß東ﬁ\U0001f600[SEP]##A"


@pytest.fixture(scope="module", params=ready_bundles())
def classifier(request: pytest.FixtureRequest) -> Classifier:
    return Classifier.load(request.param)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load(DEFAULT)


def found(classifier: Classifier, text: str) -> set[tuple[str, str]]:
    return {(span.entity, text[span.start : span.end]) for span in conformance.find(classifier, text)}


# --- The contract ------------------------------------------------------------------------------------------------


def test_it_finds_what_patterns_cannot(classifier: Classifier) -> None:
    spans = found(classifier, TEXT)
    assert {("PERSON", "Margaret Okonkwo"), ("PERSON", "Okonkwo"), ("SECRET", "tulip-River-99")} <= spans
    assert {entity for entity, _ in spans} >= {"PERSON", "SECRET", "STREET_ADDRESS", "LOCATION"}
    assert not any("sum" in value or "refund" in value for _, value in spans)


def test_the_same_spans_for_every_cut(classifier: Classifier) -> None:
    rng = random.Random(3)
    conformance.check_cuts(classifier, TEXT, range(1, len(TEXT)))
    for _ in range(30):
        conformance.check_cuts(classifier, TEXT, rng.sample(range(len(TEXT)), rng.randint(0, 60)))
    conformance.check_every_cut(classifier, TEXT[30:130])


def test_the_same_spans_after_other_text(classifier: Classifier) -> None:
    scope = Scope(ChannelKind.OUTPUT, context="I asked for the name. The name is")
    for cut in range(0, len(TEXT), 7):
        conformance.check_cuts(classifier, TEXT, [cut], scope)


@given(st.text(st.sampled_from(AWKWARD), max_size=400), st.data())
@settings(max_examples=40, deadline=None)
def test_the_same_spans_of_awkward_texts(text: str, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=12))
    conformance.check_cuts(loud(), text, cuts)


@pytest.mark.long
@given(st.text(st.sampled_from(AWKWARD), max_size=400), st.data())
@settings(max_examples=20_000, deadline=None)
def test_the_same_spans_of_many_awkward_texts(text: str, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=12))
    conformance.check_cuts(loud(), text, cuts)


@cache
def loud() -> Classifier:
    """A classifier that finds something everywhere: what a piece is depends on its window, as a model's answer does."""
    return Classifier(_Loud(load(DEFAULT)))


class _Loud(Engine):
    batch = 1

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle

    def run(self, windows: Sequence[Window]) -> list[Answer]:
        return [self._answer(window) for window in windows]

    def _answer(self, window: Window) -> Answer:
        manifest = self.bundle.manifest
        labels = np.zeros((len(window.ids), len(manifest.labels)), dtype=np.float32)
        around = np.cumsum(window.ids) + np.arange(len(window.ids)) * int(window.ids.sum() % 7)
        labels[np.arange(len(window.ids)), around % 12] = 1
        hazards = np.zeros(len(manifest.hazards), dtype=np.float32)
        hazards[int(window.ids.sum()) % len(hazards)] = window.ids.sum() % 3 == 0
        return Answer(labels, hazards)


def test_what_stands_alone_and_among_others_is_judged_alike(classifier: Classifier) -> None:
    tokenizer = classifier.engine.bundle.tokenizer
    texts = [TEXT[at : at + 90] for at in range(0, 64 * 4, 4)]
    windows = [Window(pieces.ids, pieces.types) for pieces in map(tokenizer, texts)]
    together = classifier.engine.run(windows)
    for window, among in zip(windows, together, strict=True):
        (alone,) = classifier.engine.run([window])
        assert np.array_equal(alone.labels, among.labels)
        assert np.array_equal(alone.hazards, among.hazards)


def test_stable_follows_within_a_window(classifier: Classifier) -> None:
    window = classifier.engine.bundle.manifest.window
    session = classifier.open(Scope(ChannelKind.REASONING))
    received, behind = "", 0
    for word in ("a", "man", "of", "no", "one", "sort", "is", "on", "his", "way", "to", "the", "inn") * 40:
        received += word + " "
        _, stable = session.advance(word + " ", final=False)
        behind = max(behind, len(received[stable:].split()))
    assert behind <= window.core + window.right + 1


# --- Pieces ------------------------------------------------------------------------------------------------------


@given(st.text(st.sampled_from(AWKWARD + " " * 3), max_size=300), st.data())
@settings(max_examples=200, deadline=None)
def test_stretches_have_the_pieces_of_the_whole(text: str, data: st.DataObject) -> None:
    tokenizer = loud().engine.bundle.tokenizer
    cut = data.draw(st.integers(0, len(text)))
    at = tokenizer.settled(text[:cut])
    whole, first, rest = tokenizer(text), tokenizer(text[:at]), tokenizer(text[at:])
    assert np.array_equal(whole.ids, np.concatenate((first.ids, rest.ids)))
    assert np.array_equal(whole.starts, np.concatenate((first.starts, rest.starts + at)))
    assert np.array_equal(whole.types, np.concatenate((first.types, rest.types)))


def test_a_run_without_an_end_is_cut(bundle: Bundle) -> None:
    assert bundle.tokenizer.settled("a" * (2 * LONGEST_RUN + 5)) == 2 * LONGEST_RUN
    assert bundle.tokenizer.settled("a" * (LONGEST_RUN - 1)) == 0


def test_special_tokens_are_those_of_the_manifest(bundle: Bundle) -> None:
    with pytest.raises(ValueError, match="no token <s>"):
        Tokenizer.from_file(bundle.folder / "tokenizer.json", special=("<s>", "[SEP]", "[PAD]"))


# --- Joining -----------------------------------------------------------------------------------------------------

OUTSIDE = Labelled(-1, 0.1, begins=False)
NAME = Labelled(0, 0.9, begins=False)
FIRST = Labelled(0, 0.8, begins=True)
PLACE = Labelled(1, 0.7, begins=True)


def joined(pieces: Sequence[tuple[str, Labelled]]) -> list[tuple[str, str]]:
    """Spans of pieces; a space before a piece's text is white space before the piece."""
    text, spans = "", []
    joiner = Joiner(("PERSON", "LOCATION"))
    for raw, label in pieces:
        piece = raw.lstrip()
        spaced = raw != piece
        glued = bool(text) and not spaced and text[-1].isalnum() and piece[0].isalnum()
        text += raw
        worded = any(map(str.isalnum, piece))
        closed = joiner.take(len(text) - len(piece), len(text), label, glued=glued, spaced=spaced, worded=worded)
        spans += [closed] if closed else []
    last = joiner.close()
    spans += [last] if last else []
    return [(span.entity, text[span.start : span.end]) for span in spans]


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([("ann", FIRST), (" lee", NAME)], [("PERSON", "ann lee")]),
        ([("ok", FIRST), ("onk", OUTSIDE), ("wo", OUTSIDE)], [("PERSON", "okonkwo")]),
        ([("ok", OUTSIDE), ("onk", OUTSIDE), ("wo", NAME)], [("PERSON", "okonkwo")]),
        ([("ann", FIRST), (".", OUTSIDE), ("lee", NAME)], [("PERSON", "ann.lee")]),
        ([("ann", FIRST), (".", OUTSIDE), (" lee", NAME)], [("PERSON", "ann"), ("PERSON", "lee")]),
        ([("ann", FIRST), (" lee", FIRST)], [("PERSON", "ann"), ("PERSON", "lee")]),
        ([("ann", FIRST), (" leeds", PLACE)], [("PERSON", "ann"), ("LOCATION", "leeds")]),
        ([("ann", FIRST), *[("-", OUTSIDE)] * 3, ("y", NAME)], [("PERSON", "ann"), ("PERSON", "y")]),
        ([("a", OUTSIDE), (" b", OUTSIDE)], []),
        ([("ann", FIRST), (" \U0001f642", FIRST), (".", NAME)], [("PERSON", "ann")]),
        ([("\U0001f642", FIRST), ("ann", NAME), ("!", NAME)], [("PERSON", "\U0001f642ann!")]),
    ],
    ids=range(11),
)  # fmt: skip
def test_joining(pieces: Sequence[tuple[str, Labelled]], expected: list[tuple[str, str]]) -> None:
    assert joined(pieces) == expected


def test_a_place_with_a_number_is_an_address() -> None:
    joiner = Joiner(("LOCATION",))
    for start, end, number in ((0, 2, True), (3, 10, False), (11, 15, False)):
        assert joiner.take(start, end, NAME, glued=False, spaced=start > 0, number=number) is None
    closed = joiner.close()
    assert closed is not None
    assert (closed.start, closed.end, closed.entity) == (0, 15, "STREET_ADDRESS")
    assert joiner.take(16, 20, NAME, glued=False, spaced=True) is None
    assert (closed := joiner.close()) is not None
    assert closed.entity == "LOCATION"


def test_a_span_does_not_grow_for_ever() -> None:
    spans = joined([("a", FIRST), *[("b" * 50, NAME)] * 100])
    assert "".join(value for _, value in spans) == "a" + "b" * 5000
    assert max(len(value) for _, value in spans) <= 1024


# --- Bundles -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ready_bundles())
def test_ready_bundles_are_whole(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bundle", "verify", name]) == 0
    assert f"{name}: ok (" in capsys.readouterr().out
    folder = find(name)
    assert {path.name for path in folder.iterdir()} >= {"README.md", "record.json", "bundle.yaml", "model.onnx"}


def test_the_default_bundle_is_ready() -> None:
    assert DEFAULT in ready_bundles()


@pytest.fixture
def copy(bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle.folder, tmp_path / "copy"))


def edited(folder: Path, **changes: Any) -> None:
    path = folder / "bundle.yaml"
    manifest = yaml.safe_load(path.read_text())
    manifest.update(changes)
    path.write_text(yaml.safe_dump(manifest))


def test_a_damaged_file_is_refused(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = bytearray((copy / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (copy / "model.onnx").write_bytes(data)
    assert main(["bundle", "verify", str(copy)]) == 2
    assert "damaged or exchanged" in capsys.readouterr().err
    assert main(["serve", "--upstream", "http://127.0.0.1:1", "--bundle", str(copy)]) == 2
    assert "damaged or exchanged" in capsys.readouterr().err


def test_a_missing_file_is_told(copy: Path) -> None:
    (copy / "tokenizer.json").unlink()
    with pytest.raises(BundleError, match="No such file"):
        load(str(copy))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"entities": {"PERSON": "PERSONS"}, "thresholds": {"PERSON": 0.5}}, "did you mean PERSON"),
        ({"entities": {"NAME": "PERSON"}}, "nothing is called NAME"),
        ({"thresholds": {}}, "has none"),
        ({"window": {"left": 1, "core": 0, "right": 1}}, "window.core"),
        ({"colour": "red"}, "colour"),
        ({"sha256": {}}, "no checksum of model.onnx"),
        ({"entities": {}, "thresholds": {}, "hazard_entities": {}, "hazard_thresholds": {}}, "find nothing"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_manifest_is_told(copy: Path, changes: dict[str, Any], message: str) -> None:
    edited(copy, **changes)
    with pytest.raises(BundleError, match=message):
        load(str(copy))


def test_a_manifest_that_does_not_fit_the_model_is_told(copy: Path) -> None:
    edited(copy, outputs=["logits", "hazards"])
    with pytest.raises(BundleError, match="no output logits"):
        verify(str(copy))


def test_a_self_test_that_fails_is_told(copy: Path) -> None:
    edited(copy, self_test={"text": "Nothing to see.", "entities": ["PERSON"]})
    with pytest.raises(BundleError, match="did not find PERSON"):
        verify(str(copy))


def test_an_unknown_bundle_is_told() -> None:
    with pytest.raises(BundleError, match=f"did you mean {DEFAULT}"):
        load(DEFAULT + "x")
    with pytest.raises(BundleError, match="no such bundle"):
        load("/nowhere")


# --- Other people's exports --------------------------------------------------------------------------------------


def foreign(**fields: Any) -> Manifest:
    return Manifest.model_validate(
        {
            "version": 1,
            "name": "foreign",
            "kind": "token-classification",
            "licence": "MIT",
            "base": "-",
            "window": {"left": 4, "core": 8, "right": 4},
            "sha256": {},
            "self_test": {"text": "", "entities": []},
            **fields,
        }
    )


def test_other_labels_are_read() -> None:
    manifest = foreign(
        labels=["B-PER", "I-PER", "O", "LOC", "MISC"],
        entities={"PER": "PERSON", "LOC": "LOCATION"},
        thresholds={"PER": 0.5, "LOC": 0.4},
    )
    rows = np.array([[0.4, 0.3, 0.3, 0, 0], [0, 0.2, 0.2, 0.5, 0.1], [0, 0.1, 0.1, 0.2, 0.6]], dtype=np.float32)
    labels = Labels(manifest)
    assert labels.entities == ("PERSON", "LOCATION")
    assert [(piece.entity, piece.begins) for piece in labels.read(rows)] == [(0, True), (1, False), (-1, False)]


class _Session:
    """Stands in for ONNX Runtime's."""

    def __init__(self, found: Sequence[object]) -> None:
        self.found = found
        self.given: dict[str, object] = {}

    def run(self, outputs: Sequence[str], given: dict[str, object]) -> Sequence[object]:
        self.given = given
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


def answering(bundle: Bundle, manifest: Manifest, inputs: set[str], found: object) -> tuple[Engine, _Session]:
    """An engine of a stand-in model."""
    engine = Engine(Bundle(bundle.folder, bundle.manifest))
    engine.bundle = Bundle(bundle.folder, manifest)
    session = _Session(found)  # type: ignore[arg-type]  # an exception is raised
    engine._session = session
    engine.inputs = inputs
    engine._tensors = Tensors(engine.bundle)
    return engine, session


WINDOW = Window(np.array([2000, 2001]), np.array([1, 0]))


def test_a_sequence_classifier_is_asked_for_hazards(bundle: Bundle) -> None:
    manifest = foreign(
        kind="sequence-classification",
        hazards=["safe", "harm"],
        hazard_entities={"harm": "HATE"},
        hazard_thresholds={"harm": 0.5},
        outputs=["", "logits"],
        hazard_activation="softmax",
        token_types="none",
    )
    engine, session = answering(
        bundle, manifest, {"input_ids", "attention_mask"}, [np.array([[0.0, 2.0]], dtype=np.float32)]
    )
    classifier = Classifier(engine)
    assert classifier.entities == {"HATE"}
    spans = conformance.find(classifier, "one two three")
    assert spans == [Span(0, 13, "HATE", 0.8808, "classifier/HATE")]
    assert set(session.given) == {"input_ids", "attention_mask"}


@pytest.mark.parametrize(
    "found",
    [
        [np.full((1, 4, 89), np.nan, dtype=np.float32), np.zeros((1, 15), dtype=np.float32)],
        [np.zeros((1, 3, 89), dtype=np.float32), np.zeros((1, 15), dtype=np.float32)],
        [np.zeros((1, 4, 89), dtype=np.float32), np.full((1, 15), np.inf, dtype=np.float32)],
        [None, None],
        RuntimeError("text of the user"),
        MemoryError(),
    ],
    ids=["no numbers", "shape", "infinite", "nothing", "raises", "out of memory"],
)
def test_nonsense_is_a_fault(bundle: Bundle, found: object) -> None:
    engine, _ = answering(bundle, bundle.manifest, {"input_ids", "attention_mask", "token_type_ids"}, found)
    with pytest.raises(InferenceError) as caught:
        engine.run([WINDOW])
    assert "user" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_windows_of_a_batch_come_back_in_their_order(bundle: Bundle) -> None:
    engine = Engine(bundle)
    engine.batch = 8
    tokenizer = bundle.tokenizer
    windows = [Window(pieces.ids, pieces.types) for pieces in map(tokenizer, ("a b c", "a", "one two", "x y z w v"))]
    assert [len(answer.labels) for answer in engine.run(windows)] == [len(window.ids) for window in windows]


def test_manifests_in_the_documentation_are_right() -> None:
    text = (Path(__file__).parents[1] / "docs" / "bundles.md").read_text(encoding="utf-8")
    blocks = [block.partition("```")[0] for block in text.split("```yaml\n")[1:]]
    assert len(blocks) == 3
    for block in blocks:
        manifest = Manifest.model_validate(yaml.safe_load(block))
        assert manifest.entities or manifest.hazard_entities
        Labels(manifest)


def test_the_engine_tells_its_makers_nothing(tmp_path: Path) -> None:
    """ONNX Runtime would, under a number that it keeps in the user's cache folder."""
    script = "import cotguard.classifier.engine as e, cotguard.classifier.bundle as b; e.Engine(b.load('tagger-3'))"
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)
    assert list(tmp_path.iterdir()) == []
