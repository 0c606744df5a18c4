"""The evaluation: readers, the audit, scores worked out by hand, and the command through the real ``cotguard scan``."""

import json
from pathlib import Path

import pytest

from models.evaluate import main
from models.evaluation.audit import audit
from models.evaluation.gold import Gold, GoldError, Item
from models.evaluation.predictions import Predicted
from models.evaluation.report import figures
from models.evaluation.scoring import family, score

POLICY = """
version: 1
name: mail
classifier: false
rules:
  - entities: [EMAIL_ADDRESS]
    action: redact
"""


def said(*spans: tuple[int, int, str], acted: bool = True) -> list[Predicted]:
    return [Predicted(start, end, entity, 0.9, acted) for start, end, entity in spans]


# --- Scores ------------------------------------------------------------------------------------------------------

#          0         1         2
#          0123456789012345678901234
TEXT = "ann lee rang 555 0142 now"


def test_masking_is_counted_in_characters_without_spaces() -> None:
    item = Item("1", TEXT, ((0, 7, "PERSON"), (13, 21, "PHONE_NUMBER")))
    found = score([item], {"1": said((0, 3, "PERSON"), (13, 25, "PERSON"))})
    masking = found.masking
    assert (masking.gold, masking.masked, masking.others, masking.wrongly) == (13, 10, 7, 3)
    assert masking.recall == pytest.approx(10 / 13)
    assert masking.over == pytest.approx(3 / 7)
    assert masking.score == pytest.approx(10 / 13 - 3 / 7)
    assert found.leaked == 3
    assert masking.control.recall == masking.control.over == 1
    assert masking.control.score == 0
    assert masking.control.f2 == pytest.approx(5 * 13 / 20 / (4 * 13 / 20 + 1))


def test_entities_are_counted_strictly() -> None:
    item = Item("1", TEXT, ((0, 7, "PERSON"), (13, 21, "PHONE_NUMBER")))
    entities = score([item], {"1": said((0, 3, "PERSON"), (13, 25, "PERSON"))}).entities
    person, phone = entities["PERSON"], entities["PHONE_NUMBER"]
    assert (person.gold, person.found, person.right) == (6, 13, 3)
    assert person.precision == pytest.approx(3 / 13)
    assert person.recall == pytest.approx(0.5)
    assert person.f1 == pytest.approx(2 * 3 / 19)
    assert (phone.recall, phone.masked, phone.leaking) == (0, 7, 0)
    assert (person.spans, person.leaking) == (1, 1)


def test_refinements_count_as_what_they_refine() -> None:
    assert family("US_SSN") == family("GOVERNMENT_ID") == "GOVERNMENT_ID"
    assert family("SECRET_PASSWORD") == "SECRET"
    assert family("IBAN_CODE") == "BANK_ACCOUNT"
    item = Item("1", "ssn 536-22-8471", ((4, 15, "US_SSN"),))
    assert score([item], {"1": said((4, 15, "GOVERNMENT_ID"))}).entities["GOVERNMENT_ID"].f1 == 1


def test_unlabelled_ranges_count_nowhere() -> None:
    item = Item("1", TEXT, ((0, 3, "PERSON"),), ((4, 12),))
    masking = score([item], {"1": said((0, 12, "PERSON"))}).masking
    assert (masking.gold, masking.masked, masking.others, masking.wrongly) == (3, 3, 10, 0)


def test_what_is_altered_where_nothing_is_to_be_found() -> None:
    items = [Item("1", "abcd efgh"), Item("2", "ann", ((0, 3, "PERSON"),))]
    found = score(items, {"1": said((0, 2, "PERSON"), (5, 6, "AGE")), "2": said((0, 3, "PERSON"))})
    assert (found.clean, found.altered) == (8, {"PERSON": 2, "AGE": 1})
    assert figures(found)["altered"]["without_person"] == pytest.approx(1 / 8)


def test_what_a_policy_lets_pass_masks_nothing() -> None:
    item = Item("1", TEXT, ((0, 7, "PERSON"),))
    passed = {"1": said((0, 7, "PERSON"), acted=False)}
    assert score([item], passed).masking.recall == 1
    assert score([item], passed, acted_only=True).masking.recall == 0


def test_hazards_are_counted_by_text() -> None:
    items = [
        Item("1", "a", hazards=frozenset({"HATE"})),
        Item("2", "b", hazards=frozenset()),
        Item("3", "c", hazards=frozenset({"HATE", "PRIVACY"})),
        Item("4", "d"),
    ]
    hate = said((0, 1, "HATE"), acted=False)
    found = score(items, {"1": hate, "2": hate, "3": [], "4": hate}, acted_only=True)
    assert (found.harmless, found.flagged) == (1, 1)
    assert (found.hazards["HATE"].precision, found.hazards["HATE"].recall) == (0.5, 0.5)
    assert (found.any_hazard.gold, found.any_hazard.found, found.any_hazard.right) == (2, 2, 1)
    assert found.masking.wrongly == 0


# --- Readers -----------------------------------------------------------------------------------------------------


def read(tmp_path: Path, form: str, text: str, gold: Gold | None = None) -> list[Item]:
    path = tmp_path / "gold"
    path.write_text(text, encoding="utf-8")
    return (gold or Gold()).read(path, form)


def test_formats(tmp_path: Path) -> None:
    ours = {"text": "Ann", "spans": [[0, 3, "PERSON"]], "unlabelled": [], "hazards": ["S10"], "source": "s"}
    (item,) = read(tmp_path, "ours", json.dumps(ours))
    assert (item.spans, item.hazards, item.source) == (((0, 3, "PERSON"),), frozenset({"HATE"}), "s")

    span = {"entity_type": "PERSON", "start_position": 4, "end_position": 7}
    (item,) = read(tmp_path, "presidio", json.dumps([{"full_text": "The Ann.", "spans": [span]}]))
    assert item.spans == ((4, 7, "PERSON"),)

    first, second = read(tmp_path, "conll", "Ann\tB-PERSON\nLee\tI-PERSON\nof O\nRome\tB-location\n\nx\tO\n")
    assert (first.text, first.spans) == ("Ann Lee of Rome", ((0, 7, "PERSON"), (11, 15, "LOCATION")))
    assert second.spans == ()

    mask = json.dumps([{"start": 0, "end": 3, "label": "FIRSTNAME"}])
    gold = Gold({"firstname": "PERSON"})
    (item,) = read(tmp_path, "masking", json.dumps({"source_text": "Ann", "privacy_mask": mask}), gold)
    assert item.spans == ((0, 3, "PERSON"),)

    items = read(tmp_path, "moderation", '{"prompt": "a", "S": 0, "SH": 1}\n{"prompt": "b", "S": 0}\n')
    assert [item.hazards for item in items] == [{"SUICIDE_SELF_HARM"}, frozenset()]

    items = read(tmp_path, "prompts", "text,label\nhello,safe\nbad,unsafe\nworse,hate\n")
    assert [item.hazards for item in items] == [frozenset(), {"HAZARD"}, {"HATE"}]


def test_labels_without_an_entity_are_counted_and_left_out(tmp_path: Path) -> None:
    gold = Gold()
    mask = [{"start": 0, "end": 3, "label": "TITLE"}]
    (item,) = read(tmp_path, "masking", json.dumps({"source_text": "Mrs Lee", "privacy_mask": mask}), gold)
    assert (item.spans, item.unlabelled, gold.unknown) == ((), ((0, 3),), {"TITLE": 1})


@pytest.mark.parametrize(
    ("form", "text", "message"),
    [
        ("ours", '{"text": "a", "spans": []}\n{oops', "line 2"),
        ("presidio", '[{"text": "a"}]', "spans"),
        ("conll", "Ann\n", "a token without a tag"),
        ("masking", '{"source_text": "a", "privacy_mask": [{"start": 0, "end": 5, "label": "X"}]}', "outside the text"),
    ],
)
def test_bad_files_are_told(tmp_path: Path, form: str, text: str, message: str) -> None:
    with pytest.raises(GoldError, match=message):
        read(tmp_path, form, text)


# --- The audit and the command -----------------------------------------------------------------------------------

SENTENCE = "The quick brown fox jumps over the lazy dog while twelve old men look on and say nothing at all."


def trained(tmp_path: Path, *texts: str) -> Path:
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps({"text": text, "spans": [[0, 8, "PERSON"]]}) + "\n" for text in texts))
    return path


@pytest.mark.parametrize(
    ("text", "caught"),
    [
        (SENTENCE, True),
        (SENTENCE.upper().replace(" ", "\n"), True),
        (f"{SENTENCE} And one more.", True),
        ("A short text.", True),
        ("a  SHORT text.", True),
        ("A short text!", False),
        ("Nothing of what stands here was ever trained on, not by anybody that we know of.", False),
    ],
)
def test_the_audit(tmp_path: Path, text: str, caught: bool) -> None:
    found = audit([Item("1", text)], [trained(tmp_path, SENTENCE, "A short text.")])
    assert bool(found.contaminated) is caught


def test_values_that_training_has_seen_are_counted(tmp_path: Path) -> None:
    items = [Item("1", "John Doe and Jane Roe", ((0, 8, "PERSON"), (13, 21, "PERSON")))]
    assert audit(items, [trained(tmp_path, "john doe is here")]).values == 0.5


@pytest.fixture
def gold(tmp_path: Path) -> Path:
    texts = [("write to ann.lee@example.com now", ((9, 28, "EMAIL_ADDRESS"),)), (SENTENCE, ()), ("Ann", ())]
    path = tmp_path / "gold.jsonl"
    path.write_text("".join(json.dumps({"text": text, "spans": spans}) + "\n" for text, spans in texts))
    return path


def test_a_contaminated_set_gets_no_score(tmp_path: Path, gold: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [str(gold), "--format", "ours", "--bundle", "none", "--trained-on", str(trained(tmp_path, SENTENCE))]
    assert main(command) == 3
    told = capsys.readouterr()
    assert "1 of 3 texts" in told.err
    assert not told.out


def test_a_set_is_scored_through_the_command_line(
    tmp_path: Path, gold: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = tmp_path / "mail.yaml"
    policy.write_text(POLICY)
    command = [str(gold), "--format", "ours", "--bundle", "none", "--policy", str(policy), "--out", str(tmp_path)]
    command += ["--trained-on", str(trained(tmp_path, SENTENCE)), "--leave-out-contaminated"]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "1 of 3 texts were trained on" in told
    report = json.loads((tmp_path / "gold.json").read_text())
    assert report["masking"]["score"] == 1
    assert report["entities"]["EMAIL_ADDRESS"]["f1"] == 1
    assert report["altered"]["characters"] == 3
    assert (tmp_path / "gold.md").read_text() == told


def test_a_scan_that_fails_is_told(gold: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(gold), "--format", "ours", "--bundle", "none", "--policy", "nowhere.yaml"]) == 2
    assert "status 2" in capsys.readouterr().err
