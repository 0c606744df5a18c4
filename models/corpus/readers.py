"""Readers of the public data in the folder given: labelled messages and posts, and carriers to plant values in.

Labels of agent messages come from exact matches, so partial and repeated names are missing: names that a message
labels once are labelled wherever they, or their parts, stand in it.
"""

import csv
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from models.tagger.examples import Example

__all__ = ["agent_messages", "carriers", "hazard_texts", "judged_lines", "posts", "refusing", "secret_lines"]

_AGENT_LABELS = {
    **dict.fromkeys(
        ("patient_name", "name", "customer_name", "client_name", "opposing_party", "employee_name", "candidate_name"),
        "PERSON",
    ),
    **dict.fromkeys(("witness_list", "provider"), "PERSON"),
    **dict.fromkeys(("case_id", "case_number", "dispute_id", "employee_id"), "CUSTOMER_ID"),
    **dict.fromkeys(("account_last4", "account_number_real", "account_number"), "BANK_ACCOUNT"),
    **dict.fromkeys(("diagnosis_real", "diagnosis"), "MEDICAL_CONDITION"),
    **dict.fromkeys(("insurance_id", "patient_id"), "MEDICAL_ID"),
    **dict.fromkeys(("ssn_real", "ssn"), "GOVERNMENT_ID"),
    **dict.fromkeys(("phone_real", "phone"), "PHONE_NUMBER"),
    **dict.fromkeys(("credit_card_real", "credit_card"), "CREDIT_CARD"),
    "dob": "DATE_OF_BIRTH",
    "address": "STREET_ADDRESS",
    "email": "EMAIL_ADDRESS",
}
_NOT_SENSITIVE = frozenset({"visit_date", "hire_date", "salary", "income", "balance", "settlement_amount"})
_NAME = re.compile(r"[A-Z][\w'’-]+(?: [A-Z][\w'’.-]*){0,3}")
_NAME_PART = re.compile(r"[A-Z][\w'’-]{2,}")
_TITLES = frozenset({"The", "And", "Mrs", "Miss", "Inc", "LLC", "Ltd", "Group", "Company", "Corp", "Sons", "Bank"})
_POST_LABELS = {"person": "PERSON", "location": "LOCATION", "corporation": "ORGANIZATION", "group": "ORGANIZATION"}
_HAZARDS = {
    "vcr": "S1",
    "ncr": "S2",
    "src": "S3",
    "cse": "S4",
    "dfm": "S5",
    "spc": "S6",
    "prv": "S7",
    "ipv": "S8",
    "iwp": "S9",
    "hte": "S10",
    "ssh": "S11",
    "sxc": "S12",
}
_SCORED = {"exploits": "S2", "violence": "S1", "self_harm": "S11", "sexual": "S12", "hate_speech": "S10"}
_LITERAL = re.compile(r"""["']([^"'\s]{6,})["']""")
_RUN = re.compile(r"[^\s\"'<>=:]{12,}")
_WORKED_OUT = re.compile(r"<<[^<>]*>>")

Span = tuple[int, int, str]


def _records(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def agent_messages(data: Path) -> list[Example]:
    """Messages of agents at work in clinics, banks and offices."""
    return [_agent_message(record) for record in _records(data / "pii" / "agentleak_agent_messages.jsonl")]


def _agent_message(record: dict[str, Any]) -> Example:
    text: str = record["text"]
    spans: list[Span] = []
    unlabelled: list[tuple[int, int]] = []
    for span in record["spans"]:
        start, end, label = span["start"], span["end"], span["label"]
        entity = _AGENT_LABELS.get(label)
        if entity == "PERSON" and not _NAME.fullmatch(text[start:end]):
            entity = None
        if entity is not None:
            spans.append((start, end, entity))
        elif label not in _NOT_SENSITIVE:
            unlabelled.append((start, end))
    spans = apart([*spans, *_namesakes(text, spans)])
    return Example(text, tuple(spans), tuple(unlabelled), None, "agentleak")


def _namesakes(text: str, spans: Iterable[Span]) -> Iterator[Span]:
    """Every place of a labelled name or of one of its parts."""
    names = {text[start:end] for start, end, entity in spans if entity == "PERSON"}
    parts = {part for name in names for part in _NAME_PART.findall(name)} - _TITLES
    for name in sorted(names | parts, key=len, reverse=True):
        for match in re.finditer(rf"(?<!\w){re.escape(name)}(?!\w)", text):
            yield match.start(), match.end(), "PERSON"


def apart(spans: Iterable[Span]) -> list[Span]:
    """Spans in order, without those that overlap a longer one."""
    kept: list[Span] = []
    for span in sorted(spans, key=lambda span: (span[0] - span[1], span)):
        if all(span[1] <= other[0] or other[1] <= span[0] for other in kept):
            kept.append(span)
    return sorted(kept)


def posts(data: Path, name: str) -> list[Example]:
    """Noisy posts in CoNLL columns: ``wnut17_train.conll``, ``wnut17_dev.conll``. One token in two is left out."""
    found: list[Example] = []
    words: list[tuple[str, str]] = []
    for line in [*(data / "pii" / name).read_text(encoding="utf-8").splitlines(), ""]:
        if line.strip():
            word, _, tag = line.rpartition("\t")
            words.append((word, tag.strip()))
        elif words:
            found.append(_post(words))
            words = []
    return found


def _post(words: Iterable[tuple[str, str]]) -> Example:
    text = ""
    spans: list[Span] = []
    unlabelled: list[tuple[int, int]] = []
    for word, tag in words:
        if text and not re.match(r"[.,!?;:'’)]", word):
            text += " "
        start, end = len(text), len(text) + len(word)
        text += word
        kind = tag[2:]
        entity = _POST_LABELS.get(kind)
        if entity is None and re.fullmatch(r"@\w{2,}", word):
            entity = "USERNAME"
        elif entity is None and re.match(r"https?://", word):
            entity = "URL"
        if entity is None:
            if kind:
                unlabelled.append((start, end))
        elif tag.startswith("I-") and spans and spans[-1][2] == entity:
            spans[-1] = (spans[-1][0], end, entity)
        else:
            spans.append((start, end, entity))
    return Example(text, tuple(spans), tuple(unlabelled), None, "wnut")


def carriers(data: Path) -> list[str]:
    """Prose to plant values in: reasoning traces and worked answers."""
    texts = [_thought(record["response"]) for record in _records(data / "reasoning" / "star1.jsonl")]
    texts += [record["response"] for record in _records(data / "reasoning" / "r1_distill_advbench_traces.jsonl")]
    for record in _records(data / "reasoning" / "gsm8k_train.jsonl"):
        answer = _WORKED_OUT.sub("", record["answer"].partition("####")[0])
        texts.append(f"{record['question']}\n\n{answer}".strip())
    return texts


def _thought(response: str) -> str:
    return response.replace("<think>", "").replace("</think>", "").strip()


def refusing(data: Path) -> list[Example]:
    """Traces that name a danger in order to refuse it, and harmless requests that sound like one: no hazards."""
    texts = [_thought(record["response"]) for record in _records(data / "reasoning" / "star1.jsonl")]
    frr = json.loads((data / "harm" / "cyberseceval_mitre_frr.json").read_text(encoding="utf-8"))
    texts += [record["mutated_prompt"] for record in frr]
    scored = _records(data / "harm" / "pyrit_scored_responses.jsonl")
    texts += [record["response"] for record in scored if record["score"] == "0"]
    return [Example(text, hazards=(), source="refusing") for text in texts if text]


def hazard_texts(data: Path) -> list[Example]:
    """Texts that do what a hazard names."""
    found: list[Example] = []
    for name in ("ailuminate_demo_en_us.csv", "ailuminate_demo_fr_fr.csv"):
        with (data / "harm" / name).open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            found += [_hazard(row["prompt_text"], _HAZARDS[row["hazard"].partition("_")[0]]) for row in rows]
    for record in _records(data / "harm" / "pyrit_scored_responses.jsonl"):
        code = _SCORED.get(record["hazard"] or "")
        if code and record["score"] == "1":
            found.append(_hazard(record["response"], code))
    with (data / "harm" / "davidson_hate_offensive.csv").open(encoding="utf-8", newline="") as file:
        found += [_hazard(row["tweet"], "S10") for row in csv.DictReader(file) if row["class"] == "0"]
    for name in ("bipia_text_attack_train.json", "bipia_code_attack_train.json"):
        attacks = json.loads((data / "injection" / name).read_text(encoding="utf-8"))
        for texts in attacks.values():
            found += [_hazard(text, "X2") for text in texts]
    return found


def _hazard(text: str, code: str) -> Example:
    # Spans of these texts are unknown: only the hazard head learns from them.
    return Example(text, unlabelled=((0, len(text)),), hazards=(code,), source="hazard")


def secret_lines(data: Path) -> list[Example]:
    """Lines that published rules give as examples, with the secret that the rule captures in them.

    Rules capture one of several values: what else could be one is left out.
    """
    found: dict[str, Example] = {}
    for name in ("kingfisher_rules.jsonl", "noseyparker_rules.jsonl"):
        for record in _records(data / "secrets" / name):
            try:
                pattern = re.compile(record["pattern"])
            except re.error:
                continue  # written for another engine
            for line in record.get("examples") or ():
                match = pattern.search(line)
                if match is not None and len(line) < 600:
                    start, end = match.span(1 if pattern.groups and match.group(1) else 0)
                    if end - start >= 12 and not line.startswith("http", start):
                        around = [(0, start), (end, len(line))]
                        unknown = [
                            (at + run.start(), at + run.end())
                            for at, to in around
                            for run in _RUN.finditer(line[at:to])
                        ]
                        found[line] = Example(line, ((start, end, "SECRET"),), tuple(unknown), source="secrets")
    return [found[line] for line in sorted(found)]


def judged_lines(data: Path) -> list[Example]:
    """Lines of code with a verdict: those without a secret, and those whose only literal is one."""
    found: list[Example] = []
    for record in _records(data / "secrets" / "smart_secrets_scanner_v2.jsonl"):
        text = record["input"]
        literals = [match.span(1) for match in _LITERAL.finditer(text)]
        if record["output"].startswith("No secrets"):
            found.append(Example(text, source="secrets"))
        elif record["output"].startswith("ALERT") and len(literals) == 1:
            found.append(Example(text, ((*literals[0], "SECRET"),), source="secrets"))
    return found
