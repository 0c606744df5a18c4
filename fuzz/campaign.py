"""One target's run: seeds written to a folder, libFuzzer told for how long, its figures on the terminal.

A finding ends the run; the input that made it lies beside the corpus, for ``--input``.
"""

import argparse
import sys
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path

import atheris

__all__ = ["run"]

_BUILD = Path(__file__).parent.parent / "build" / "fuzz"
_LONGEST = 16_384
"""Bytes of an input: a dozen events. Limits of size have tests of their own."""

Mutate = Callable[[bytes, int, int], bytes]


def run(target: str, check: Callable[[bytes], None], seeds: Iterable[bytes], mutate: Mutate) -> None:
    """Run ``check`` on mutated ``seeds`` for as long as the command line says. Does not return.

    ``mutate(data, most bytes, seed)`` makes one input from another.
    """
    parser = argparse.ArgumentParser(prog=f"python -m fuzz.{target}")
    parser.add_argument("seconds", nargs="?", type=int, default=600, help="run time (default 600)")
    parser.add_argument("--input", type=Path, help="run this one input, a finding's, and nothing else")
    options = parser.parse_args()
    if options.input is not None:
        check(options.input.read_bytes())
        sys.exit(0)
    corpus = _BUILD / target
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        (corpus / sha256(seed).hexdigest()[:32]).write_bytes(seed)

    def checked(data: bytes) -> None:
        try:
            check(data)
        except Exception:
            finding = _BUILD / f"{target}-finding-{sha256(data).hexdigest()[:16]}"
            finding.write_bytes(data)  # libFuzzer's own way loses it where its alarm comes first
            raise

    arguments = [
        f"-max_total_time={options.seconds}",
        f"-max_len={_LONGEST}",
        "-timeout=10",
        "-print_final_stats=1",
        f"-artifact_prefix={_BUILD}/{target}-",
    ]
    atheris.Setup([target, *arguments, str(corpus)], checked, custom_mutator=mutate)
    atheris.Fuzz()
