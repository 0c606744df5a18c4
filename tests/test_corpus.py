"""The training corpus: spans stand where values are, what is held out is held out. Needs the extra ``train``."""

import json
from pathlib import Path

import pytest

for module in ("faker", "tqdm"):
    pytest.importorskip(module, reason="needs the extra `train`")

from models.corpus import frames, readers
from models.corpus.__main__ import main
from models.corpus.fields import Fields
from models.corpus.names import benign
from models.corpus.planting import fill, plant
from models.corpus.refill import refill
from models.corpus.values import HELD_OUT_LOCALES, LOCALES, NEGATIVES, VALUES, Values, luhn
from models.tagger.examples import Example, read
from models.tagger.labels import ENTITIES

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "train"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the shared training data is not here")
KINDS = ("RECALL", "CHAT", "RECORDS", "CODE", "POSTS", "NEGATIVE")


@pytest.fixture
def values() -> Values:
    return Values(3, ["en_GB", "de_DE"])


def lines_of(kind: str) -> list[str]:
    return str(getattr(frames, kind)).strip("\n").split("\n")


@pytest.mark.parametrize("kind", KINDS)
def test_every_frame_is_filled(values: Values, kind: str) -> None:
    for frame in lines_of(kind):
        text, _ = fill(frame, values)
        for slot in (*VALUES, *NEGATIVES, "FIRST", "LAST", "SPELT", "INITIALS"):
            assert f"{{{slot}}}" not in text.text
        assert {entity for *_, entity in text.spans} <= set(ENTITIES)
        assert all(text.text[start:end].strip() for start, end, _ in text.spans)


def test_frames_of_negatives_hold_no_value(values: Values) -> None:
    assert not [frame for frame in lines_of("NEGATIVE") if fill(frame, values)[0].spans]


def test_no_frame_stands_twice() -> None:
    every = [frame for kind in KINDS for frame in lines_of(kind)]
    assert len(every) == len(set(every))


def test_a_name_goes_on_in_parts(values: Values) -> None:
    text, name = fill("{PERSON} said so. {FIRST} did. {LAST} too.", values)
    first, last = (text.text[start:end] for start, end, _ in text.spans[1:])
    assert first in name
    assert last in name


def test_planting_keeps_the_carrier(values: Values) -> None:
    carrier = "One sentence. Another one! A third?"
    text = plant(carrier, ["The number is {PHONE_NUMBER}.", "So {PERSON} it is."], values)
    assert [entity for *_, entity in text.spans] == ["PHONE_NUMBER", "PERSON"]
    for sentence in ("One sentence.", "Another one!", "A third?"):
        assert sentence in text.text


def test_fields_of_either_side_have_their_own_labels_and_notations(values: Values) -> None:
    train, dev = Fields(values, dev=False), Fields(values, dev=True)
    assert not {*train._notations} & {*dev._notations}
    shared = {kind for kind, labels in train._labels.items() if {*labels} & {*dev._labels[kind]}}
    assert all(len(dev._labels[kind]) == 1 for kind in shared)  # lists too short to hold anything out
    for fields in (train, dev):
        for _ in range(200):
            for text in (fields.record(), fields.record(secret=True), fields.table()):
                assert all(text.text[start:end] for start, end, _ in text.spans)


def test_refilled_names_stay_the_same_person(values: Values) -> None:
    text = "Jane Roe called. Roe, that is Jane, owes 5."
    example = Example(text, ((0, 8, "PERSON"), (17, 20, "PERSON"), (30, 34, "PERSON")), ((41, 42),))
    new = refill(example, values)
    full, last, first = (new.text[start:end] for start, end, _ in new.spans)
    assert full.split()[0] == first
    assert full.split()[-1] == last
    assert "Jane" not in new.text
    assert [new.text[start:end] for start, end in new.unlabelled] == ["5"]


def test_first_names_in_carriers_are_nobody_s_labels() -> None:
    text = "Michael has 5 apples. The apples are red."
    assert [text[start:end] for start, end in benign(text, "benign").unlabelled] == ["Michael"]


def test_check_digits() -> None:
    assert luhn("411111111111111") == "4111111111111111"
    assert luhn("37828224631000") == "378282246310005"


@needs_data
def test_labels_of_real_messages_are_spread_to_every_mention() -> None:
    for example in readers.agent_messages(DATA)[:300]:
        names = {example.text[start:end] for start, end, entity in example.spans if entity == "PERSON"}
        for name in names:
            covered = [(start, end) for start, end, _ in example.spans]
            at = example.text.find(name)
            assert any(start <= at < end for start, end in covered)


@needs_data
def test_a_corpus_is_made_again_from_its_seed(tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert main(["--data", str(DATA), "--out", str(tmp_path / name), "--sample"]) == 0
    first, second = (json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("one", "two"))
    assert first == second
    train, dev = read(tmp_path / "one", "train"), read(tmp_path / "one", "dev")
    made = [example for example in train if example.hazards is None]
    assert sum(not example.spans for example in made) >= 0.4 * len(made)
    assert not {example.text for example in train if example.source != "wnut"} & {example.text for example in dev}


def test_held_out_locales_are_a_fifth() -> None:
    assert set(LOCALES) >= HELD_OUT_LOCALES
    assert 0.15 < len(HELD_OUT_LOCALES) / len(LOCALES) < 0.25
