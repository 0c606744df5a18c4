"""What cotguard is shipped with: licences of all that it needs to run, and the pins of the image."""

import re
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PINS = (ROOT / "deploy" / "constraints.txt").read_text(encoding="utf-8")
PINNED = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", PINS, re.MULTILINE))
EXTRAS = re.findall(r"--extra=([a-z]+)", PINS)

PERMISSIVE = {
    "0BSD",
    "3-Clause BSD License",
    "Apache 2.0",
    "Apache-2.0",
    "Apache Software License",
    "BSD License",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CC0-1.0",
    "MIT",
    "MIT License",
    "MIT-0",
    "PSF-2.0",
    "Python Software Foundation License",
    "Zlib",
}
OTHERS = {
    "certifi": "MPL-2.0: a list of authorities, of the extra otel, which is used as it is",
    "orjson": "MPL-2.0: of its own files, which are used as they are",
    "python-stdnum": "LGPL-2.1 or later: a library of its own, which is used as it is and can be replaced",
    "tqdm": "MPL-2.0: of its own files, which are used as they are",
}


def required() -> dict[str, Distribution]:
    """All that the image's extras need, directly or not, as it is installed here."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *(each for extra in EXTRAS for each in project["optional-dependencies"][extra])]
    todo = [Requirement(each) for each in wanted]
    seen: set[str] = set()
    found: dict[str, Distribution] = {}
    while todo:
        requirement = todo.pop()
        if str(requirement) not in seen:
            seen.add(str(requirement))
            there = found[canonicalize_name(requirement.name)] = distribution(requirement.name)
            todo += needed(there.requires or (), requirement.extras)
    return found


def needed(requires: Iterable[str], extras: Iterable[str]) -> Iterator[Requirement]:
    """Those of a package's requirements that apply here with ``extras``."""
    for each in map(Requirement, requires):
        if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield each


REQUIRED = required()


def licences(package: Distribution) -> set[str]:
    """The names that its metadata gives: an expression, else classifiers, else free text."""
    told = package.metadata
    for expression in told.get_all("License-Expression") or ():
        return {each for each in re.split(r"[()\s]+|\bAND\b|\bOR\b", expression) if each}
    classifiers = [each for each in told.get_all("Classifier") or () if each.startswith("License ::")]
    if classifiers:
        return {each.rpartition(" :: ")[2] for each in classifiers}
    return {name for text in told.get_all("License") or ["none"] for name in text.split(" AND ")}


def test_licences_are_permissive() -> None:
    others = {name: told for name, each in REQUIRED.items() if not (told := licences(each)) <= PERMISSIVE}
    assert others.keys() == OTHERS.keys(), others


def test_everything_is_pinned() -> None:
    """`make constraints` writes the pins anew."""
    assert {"remote", "bedrock", "redis"} <= set(EXTRAS)
    assert REQUIRED.keys() <= PINNED.keys()


def test_every_pin_has_its_hashes() -> None:
    blocks = re.split(r"^(?=[a-z0-9-]+==)", PINS, flags=re.MULTILINE)[1:]
    assert len(blocks) == len(PINNED)
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}\b", block) for block in blocks)


def test_pins_are_what_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for requirement in map(Requirement, project["dependencies"]):
        pin = PINNED[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(pin), requirement.name
