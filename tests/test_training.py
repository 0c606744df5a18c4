"""The tagger: alignment, case, batches, resuming, distilling, calibration, export. Needs the extra ``train``."""

import json
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

for module in ("torch", "transformers", "onnxruntime", "matplotlib"):
    pytest.importorskip(module, reason="needs the extra `train`")

import tokenizers
import torch
import yaml
from tokenizers import models as tokenizer_models
from tokenizers import normalizers, pre_tokenizers
from transformers import BertConfig

import models.train as train_module
from cotguard.classifier.tokens import Case, Tokenizer, case_of
from models.export import export
from models.tagger.bundle import checksums
from models.tagger.calibration import NEVER, Limits, calibrate_entities, calibrate_hazards
from models.tagger.checkpoint import Checkpoint, save_checkpoint
from models.tagger.examples import Example, read, write
from models.tagger.judging import DEFAULT_GEOMETRY, Answers, Judged, TorchRunner, judge
from models.tagger.labels import ENTITIES, ENTITY_OF_TAG, HAZARDS, TAGS
from models.tagger.losses import loss
from models.tagger.model import Logits, Tagger, load, load_tokenizer, save, shrink
from models.tagger.scores import Table, altered, flagged, masking, table
from models.tagger.synthetic import write_corpus
from models.tagger.windows import IGNORED, MAX_PIECES, Batches, align
from models.train import Options, train

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,:;@+-_=/'()[]{}!?"


def make_tokenizer() -> Tokenizer:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "user", "name", "mar", "##ia", *LETTERS]
    vocabulary = {word: index for index, word in enumerate([*words, *(f"##{letter}" for letter in LETTERS)])}
    tokenizer = tokenizers.Tokenizer(tokenizer_models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(words[:4])
    return Tokenizer(tokenizer)


TOKENIZER = make_tokenizer()


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of six layers that has learned nothing."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("start")
    config = BertConfig(
        vocab_size=TOKENIZER.size,
        hidden_size=16,
        num_hidden_layers=6,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=128,
        type_vocab_size=len(Case),
        initializer_range=0.2,
    )
    save(Tagger(config), folder)
    TOKENIZER.save(folder / "tokenizer.json")
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder, 60)
    return folder


@pytest.mark.parametrize(
    ("piece", "case"),
    [
        ("maria", Case.LOWER),
        ("@", Case.LOWER),
        ("", Case.LOWER),
        ("中", Case.LOWER),
        ("Maria", Case.TITLE),
        ("M", Case.TITLE),
        ("Élodie", Case.TITLE),
        ("E\u0301lodie", Case.TITLE),
        ("MARIA", Case.UPPER),
        ("ÖL", Case.UPPER),
        ("McKay", Case.MIXED),
        ("iPhone", Case.MIXED),
        ("42", Case.DIGITS),
        ("4.2", Case.DIGITS),
        ("a1", Case.ALPHANUMERIC),
        ("B2B", Case.ALPHANUMERIC),
    ],
)
def test_case(piece: str, case: Case) -> None:
    assert case_of(piece) is case


def test_case_is_that_of_the_original_text() -> None:
    pieces = TOKENIZER("The USER Maria 42")
    assert pieces.types.tolist() == [Case.TITLE, Case.UPPER, Case.TITLE, Case.LOWER, Case.DIGITS, Case.DIGITS]


def test_special_tokens_in_a_text_are_text() -> None:
    ids = TOKENIZER("a [SEP] b [PAD]").ids
    assert {TOKENIZER.sep_id, TOKENIZER.pad_id}.isdisjoint(ids.tolist())


def test_an_empty_text_has_no_pieces() -> None:
    assert [len(array) for array in TOKENIZER(" ")] == [0] * 4


@pytest.mark.parametrize(
    ("text", "spans", "unlabelled", "expected"),
    [
        ("the user", (), (), ["O", "O"]),
        ("the maria", ((4, 9, "PERSON"),), (), ["O", "B-PERSON", "E-PERSON"]),
        ("the name", ((4, 8, "PERSON"),), (), ["O", "S-PERSON"]),
        ("the maria", ((4, 6, "PERSON"),), (), ["O", "S-PERSON", "O"]),
        ("the maria", ((8, 9, "PERSON"),), (), ["O", "O", "S-PERSON"]),
        ("the  user", ((3, 5, "PERSON"),), (), ["O", "O"]),
        ("user a:b", ((5, 8, "SECRET"),), (), ["O", "B-SECRET", "I-SECRET", "E-SECRET"]),
        ("the user", ((0, 3, "AGE"), (4, 8, "NRP")), (), ["S-AGE", "S-NRP"]),
        ("maria", ((0, 2, "AGE"), (1, 5, "NRP")), (), ["S-AGE", "S-NRP"]),
        ("the user", ((0, 3, "AGE"),), ((4, 5),), ["S-AGE", None]),
        ("the user", (), ((3, 4),), ["O", "O"]),
    ],
)
def test_alignment(
    text: str,
    spans: tuple[tuple[int, int, str], ...],
    unlabelled: tuple[tuple[int, int], ...],
    expected: list[str | None],
) -> None:
    tags = align(TOKENIZER(text), Example(text, spans, unlabelled))
    assert [None if tag == IGNORED else TAGS[tag] for tag in tags] == expected


@given(st.text(st.sampled_from(f"{LETTERS} ÄMé\n中"), min_size=1, max_size=40), st.data())
def test_tags_cover_every_span(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=6)))
    spans = tuple((start, end, data.draw(st.sampled_from(ENTITIES))) for start, end in list(pairwise(cuts))[::2])
    pieces = TOKENIZER(text)
    tags = align(pieces, Example(text, spans))
    for start, end, tag in zip(pieces.starts, pieces.ends, tags, strict=True):
        assert bool(tag > 0) is any(start < last and first < end for first, last, _ in spans)
    names = ["O", *(TAGS[tag] for tag in tags), "O"]
    for before, after in pairwise(names):
        inside = before[0] in "BI"
        assert inside is (after[0] in "IE"), names
        assert not inside or before[1:] == after[1:], names


def test_a_corpus_survives_its_file(tmp_path: Path) -> None:
    examples = [Example("é maria", ((2, 7, "PERSON"),), ((0, 1),), ("S1",), "here"), Example("x", hazards=None)]
    write(tmp_path, "dev", examples)
    assert read(tmp_path, "dev") == examples


@pytest.mark.parametrize(
    "fields",
    [
        {"text": "abc", "spans": [[1, 4, "PERSON"]]},
        {"text": "abc", "spans": [[1, 1, "PERSON"]]},
        {"text": "abc", "spans": [[0, 1, "NOBODY"]]},
        {"text": "abc", "hazards": ["S99"]},
        {"spans": []},
    ],
)
def test_a_wrong_line_is_named(fields: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "dev.jsonl").write_text('{"text": "fine"}\n' + json.dumps(fields) + "\n")
    with pytest.raises(ValueError, match=r"dev.jsonl:2"):
        read(tmp_path, "dev")


def test_batches_can_be_taken_up_anywhere(corpus: Path) -> None:
    batches = Batches([*read(corpus, "train"), Example("maria, the user. " * 200)], TOKENIZER, size=4, seed=3)
    count = 2 * batches.per_epoch + 3
    whole = list(islice(batches.after(0), count))
    for batch in whole:
        assert batch.ids.shape[1] <= MAX_PIECES + 2
        assert all((row == TOKENIZER.cls_id).sum() == (row == TOKENIZER.sep_id).sum() == 1 for row in batch.ids)
        assert (batch.tags[batch.mask == 0] == IGNORED).all()
    for step in (1, batches.per_epoch, count - 2):
        rest = list(islice(batches.after(step), count - step))
        for one, other in zip(whole[step:], rest, strict=True):
            assert all(torch.equal(left, right) for left, right in zip(one[:4], other[:4], strict=True))


def test_what_nobody_knows_costs_nothing() -> None:
    text = "the user maria"
    known, unknown = Example(text, hazards=()), Example(text, unlabelled=((0, len(text)),))
    for example, costs in ((known, True), (unknown, False)):
        batch = next(Batches([example], TOKENIZER, size=1, seed=0).after(0))
        logits = Logits(torch.randn(*batch.ids.shape, len(TAGS)), torch.randn(1, len(HAZARDS)))
        assert (loss(logits, batch, None).item() > 0) is costs


def test_a_teacher_who_agrees_adds_little() -> None:
    batch = next(Batches([Example("the user")], TOKENIZER, size=1, seed=0).after(0))
    logits = Logits(torch.randn(*batch.ids.shape, len(TAGS)), torch.full((1, len(HAZARDS)), 50.0))
    alone = loss(logits, batch, None).item()
    assert loss(logits, batch, logits).item() == pytest.approx(alone, abs=1e-5)
    other = Logits(-logits.tags, -logits.hazards)
    assert loss(logits, batch, other).item() > alone + 1


@pytest.mark.parametrize(("layers", "kept"), [(6, [0, 1, 2, 3, 4, 5]), (4, [0, 2, 3, 5]), (3, [0, 2, 5])])
def test_fewer_layers_are_some_of_the_layers(start: Path, layers: int, kept: list[int]) -> None:
    model = load(start)
    small = shrink(model, layers)
    for new, old in enumerate(kept):
        ours, theirs = small.encoder.encoder.layer[new], model.encoder.encoder.layer[old]
        assert torch.equal(ours.output.dense.weight, theirs.output.dense.weight)
    assert torch.equal(small.tags.weight, model.tags.weight)


class Killed(BaseException):
    """As abrupt as it gets within a process."""


def test_a_killed_run_goes_on_exactly(
    start: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def options(out: str, minutes: float) -> Options:
        return Options(
            corpus=corpus, out=tmp_path / out, init=start, layers=4, steps=5, batch=4, checkpoint_minutes=minutes
        )

    whole = train(options("whole", 99))

    def kill_after_keeping(checkpoint: Checkpoint, path: Path) -> None:
        save_checkpoint(checkpoint, path)
        if checkpoint.step == 2:
            raise Killed

    monkeypatch.setattr(train_module, "save_checkpoint", kill_after_keeping)
    with pytest.raises(Killed):
        train(options("killed", 0))
    record = train(options("killed", 99))
    assert record["steps"] == whole["steps"] == 5
    ours, theirs = (load(tmp_path / name).state_dict() for name in ("killed", "whole"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert not all(torch.equal(ours[name], weights) for name, weights in shrink(load(start), 4).state_dict().items())
    assert train(options("whole", 99)) == whole, "what is finished stays"


def test_a_run_goes_on_only_as_it_began(start: Path, corpus: Path, tmp_path: Path) -> None:
    train(Options(corpus=corpus, out=tmp_path, init=start, layers=3, steps=1, batch=4))
    (tmp_path / "record.json").unlink()
    with pytest.raises(ValueError, match="other seed, until"):
        train(Options(corpus=corpus, out=tmp_path, init=start, layers=3, steps=2, batch=4, seed=9))


def test_a_student_learns_from_a_teacher(start: Path, corpus: Path, tmp_path: Path) -> None:
    record = train(Options(corpus=corpus, out=tmp_path, teacher=start, layers=3, steps=2, batch=4))
    assert load(tmp_path).config.num_hidden_layers == 3
    assert record["teacher"] == str(start)
    assert {"loss", "step", "seconds"} <= set(record["curve"][0])


def test_every_piece_is_judged_once_in_its_own_window(start: Path) -> None:
    asked: list[int] = []

    class Echo:
        """Says of each piece how often it has been seen in a core, through the probability of `O`."""

        windows = 3

        def __call__(self, ids: np.ndarray, mask: np.ndarray, types: np.ndarray, /) -> Answers:
            asked.append(int(mask.sum(-1).max()))
            tags = np.zeros((*ids.shape, len(TAGS)), dtype=np.float32)
            tags[..., 0] = ids / 1000
            return Answers(tags, np.full((len(ids), len(HAZARDS)), 0.25, dtype=np.float32))

    text = "maria, the user. " * 40
    (judged,) = judge(Echo(), TOKENIZER, [Example(text)], DEFAULT_GEOMETRY)
    assert judged.outside == pytest.approx(judged.pieces.ids / 1000)
    assert max(asked) == sum(DEFAULT_GEOMETRY) + 2
    assert judged.hazards == pytest.approx(0.25)
    alone, together = (
        judge(TorchRunner(load(start), exact=True), TOKENIZER, texts, DEFAULT_GEOMETRY)[0]
        for texts in ([Example(text)], [Example(text), Example("user"), Example(text * 2)])
    )
    assert alone.entities == pytest.approx(together.entities, abs=1e-5)


def rows(*cells: tuple[str | None, str, float, int]) -> Table:
    gold = [-1 if cell[0] is None else ENTITIES.index(cell[0]) for cell in cells]
    entity = [ENTITIES.index(cell[1]) for cell in cells]
    mass = np.array([cell[2] for cell in cells], dtype=np.float32)
    return Table(np.array(gold), np.array(entity), mass, np.array([cell[3] for cell in cells]))


def test_masking_does_not_look_at_labels() -> None:
    half = np.full(len(ENTITIES), 0.5, dtype=np.float32)
    found = masking(
        rows(("AGE", "NRP", 0.9, 6), ("AGE", "AGE", 0.4, 2), (None, "URL", 0.5, 1), (None, "URL", 0.1, 3)), half
    )
    assert (found.recall, found.over, found.score) == (0.75, 0.25, 0.5)


def test_thresholds_find_what_is_there_and_leave_alone_what_is_not() -> None:
    dev = rows(
        ("AGE", "AGE", 0.3, 5), (None, "AGE", 0.2, 5), ("SECRET", "SECRET", 0.6, 5), ("SECRET", "SECRET", 0.9, 5)
    )
    quiet = rows((None, "URL", 0.01, 1000))
    noisy = rows((None, "SECRET", 0.7, 10), (None, "URL", 0.995, 10), (None, "PERSON", 0.9, 50), (None, "NRP", 0, 930))
    thresholds = dict(zip(ENTITIES, calibrate_entities(dev, noisy, quiet, Limits()).tolist(), strict=True))
    assert 0.2 < thresholds["AGE"] < 0.301
    assert 0.7 < thresholds["SECRET"] < 0.901
    assert thresholds["URL"] == pytest.approx(NEVER)
    assert thresholds["NRP"] == pytest.approx(0.5)


def test_many_small_harms_are_limited_together() -> None:
    dev = rows(*((entity, entity, 0.6, 1) for entity in ENTITIES))
    benign = rows(*((None, entity, 0.7, 4) for entity in ENTITIES), (None, "AGE", 0.0, 10_000))
    thresholds = calibrate_entities(dev, benign, benign, Limits())
    others = np.delete(altered(benign, thresholds), ENTITIES.index("PERSON"))
    assert others.sum() <= Limits().benign_all


def judged_as(hazards: dict[str, float]) -> Judged:
    (text,) = judge(
        TorchRunner(
            Tagger(
                BertConfig(
                    vocab_size=TOKENIZER.size,
                    hidden_size=8,
                    num_hidden_layers=1,
                    num_attention_heads=1,
                    intermediate_size=8,
                    type_vocab_size=len(Case),
                )
            ),
            exact=True,
        ),
        TOKENIZER,
        [Example("user")],
        DEFAULT_GEOMETRY,
    )
    return text._replace(hazards=np.array([hazards.get(code, 0.0) for code in HAZARDS], dtype=np.float32))


def test_hazards_keep_to_their_share_of_benign_texts() -> None:
    benign = [judged_as({"S1": 0.6 + index / 1000, "S2": 0.3}) for index in range(100)]
    refusing = [judged_as({"S3": 0.9}) for _ in range(10)]
    thresholds = calibrate_hazards(benign, refusing, Limits())
    assert flagged([*benign, *refusing], thresholds) <= Limits().hazards
    named = dict(zip(HAZARDS, thresholds.tolist(), strict=True))
    assert named["S1"] == pytest.approx(0.699, abs=0.002)
    assert named["S2"] == 0.5
    assert named["S3"] > 0.9


def test_a_bundle_says_what_the_model_says(start: Path, corpus: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    train(Options(corpus=corpus, out=model, init=start, steps=3, batch=4, lr=1e-3))
    bundle = tmp_path / "bundle"
    manifest = export(model, corpus, bundle)
    parity = manifest["training"]["parity"]
    assert parity["float32"]["agree"] == 1
    assert parity["float32"]["pieces"] < 1e-4
    assert parity["int8"]["agree"] > 0.9
    assert yaml.safe_load((bundle / "bundle.yaml").read_text()) == manifest
    assert manifest["sha256"] == checksums(bundle)
    assert manifest["labels"] == list(TAGS)
    assert {path.name for path in bundle.iterdir()} == {
        "README.md",
        "bundle.yaml",
        "curves.png",
        "model.onnx",
        "record.json",
        "tokenizer.json",
    }
    assert load_tokenizer(bundle)("The user").ids.tolist() == TOKENIZER("The user").ids.tolist()


def test_figures_leave_out_what_nobody_knows(start: Path) -> None:
    text = "the user maria"
    example = Example(text, ((9, 14, "PERSON"),), ((0, 3),))
    judged = judge(TorchRunner(load(start), exact=True), TOKENIZER, [example], DEFAULT_GEOMETRY)
    known = table(judged)
    assert known.size.tolist() == [4, 3, 2]
    assert known.gold.tolist() == [-1, 0, 0]
    assert len(ENTITY_OF_TAG) == len(TAGS)
