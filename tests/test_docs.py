"""Pages say what is so: what is generated is current, and what they name is there. What is not known is refused."""

import ast
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError

from cotguard.callers.document import CallersDocument, OidcDocument, RoleDocument, load_callers
from cotguard.callers.keys import KeyStore
from cotguard.classifier.bundle import Manifest
from cotguard.cli import command_line
from cotguard.config.routes import RouteDocument
from cotguard.config.settings import FILE_ONLY, Settings
from cotguard.config.sources import Sources, variable
from cotguard.detectors.contract import RequestFacts
from cotguard.detectors.patterns import PatternDetector
from cotguard.detectors.rules import contact
from cotguard.moderation.exchange import Exchange
from cotguard.moderation.view import PlainView
from cotguard.policy.document import KnownValuesDocument, PolicyDocument, RequestDocument, RuleDocument
from cotguard.policy.loading import parse
from cotguard.spans import ChannelKind
from cotguard.upstreams.document import BreakerDocument, HealthDocument, PoolDocument, ServerDocument, TlsDocument
from docs_build.commands import options
from docs_build.nav import PAPERS, listed
from docs_build.pages import DOCS, ROOT, Block, Page, pages
from docs_build.parts import PARTS, filled
from docs_build.pictures import FOLDER, LOOKS, PICTURES

PAGES = [Page.read(path) for path in pages()]
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)

FOREIGN_FLAGS = {
    "--build-arg": "docker",
    "--enable-feature": "Prometheus",
    "--from-literal": "kubectl",
    "--set-file": "Helm",
}
"""Flags of other programs that pages name without a command line."""

FOREIGN_NAMES = {
    "OTEL_EXPORTER_OTLP_CERTIFICATE": "OpenTelemetry",
    "OTEL_EXPORTER_OTLP_HEADERS": "OpenTelemetry",
    "OTEL_RESOURCE_ATTRIBUTES": "OpenTelemetry",
    "block_only": "LiteLLM",
    "fail_closed": "LiteLLM",
    "fail_on_error": "LiteLLM",
    "unreachable_fallback": "LiteLLM",
    "generation_settings": "llama.cpp, stripped",
    "input_transformations": "Anthropic, stripped",
    "provider_specific_fields": "LiteLLM, stripped",
    "top_tokens": "TGI, stripped",
}
"""Names in the code of others."""

FOREIGN_YAML = {
    "apiVersion": "Kubernetes",
    "guardrails": "LiteLLM",
    "image": "values of the chart",
    "scrape_configs": "Prometheus",
}
"""Keys by which YAML of other programs is known."""

MODELS: tuple[type[BaseModel], ...] = (
    PolicyDocument,
    RuleDocument,
    RequestDocument,
    KnownValuesDocument,
    Settings,
    PoolDocument,
    ServerDocument,
    HealthDocument,
    BreakerDocument,
    TlsDocument,
    RouteDocument,
    CallersDocument,
    RoleDocument,
    OidcDocument,
    Manifest,
)


REDACTING = "version: 1\nname: shown\nrules: [{entities: [EMAIL_ADDRESS], action: redact}]\n"


@every_page
def test_generated_parts_are_current(page: Page) -> None:
    assert filled(page.text) == page.text, "run python -m docs_build"


def test_every_generated_part_has_its_place() -> None:
    assert [name for name in PARTS if not any(f"<!-- {name} -->\n" in page.text for page in PAGES)] == []


def test_every_picture_of_the_console_is_there() -> None:
    found = {path.name: path.stat().st_size for path in (DOCS / FOLDER).iterdir()}
    assert found.keys() == {picture.file(*look) for picture in PICTURES for look in LOOKS}, "run make pictures"
    assert sum(found.values()) < 3 * 2**20


def test_every_page_is_in_the_navigation() -> None:
    there = {path.name for path in DOCS.glob("*.md")} | PAPERS.keys()
    assert sorted(there - set(listed())) == [], "add these to nav in mkdocs.yml, and run python -m docs_build"
    assert sorted(set(listed()) - there) == [], "these are in nav in mkdocs.yml, and not there"


# What pages name


@cache
def source_words() -> frozenset[str]:
    """All words of the code and its data."""
    folders = ("cotguard", "deploy", "loadtest", "models")
    found = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".yaml")]
    texts = [path.read_text(encoding="utf-8") for path in found]
    tests = (path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob("*.py"))
    return frozenset(re.findall(r"\w+", "\n".join(texts)) + re.findall(r"def (test_\w+)", "\n".join(tests)))


@cache
def variables() -> frozenset[str]:
    """All variables of the environment that something reads."""
    code = [*(ROOT / "cotguard").rglob("*.py"), *(ROOT / "tests").glob("*.py"), ROOT / "setup.py", ROOT / "Makefile"]
    quoted = re.compile(r'"(COTGUARD_[A-Z_]+)"')
    read = {name for path in code for name in quoted.findall(path.read_text(encoding="utf-8"))}
    return frozenset(read | {variable(name) for name in Settings.model_fields.keys() - FILE_ONLY})


@cache
def metrics() -> frozenset[str]:
    """All metrics; that page is compared with the code in another test."""
    rows = Page.read(DOCS / "metrics.md").rows
    return frozenset(name for row in rows if row.head == "metric" for name in row.codes)


@every_page
def test_variables_are_read_by_something(page: Page) -> None:
    assert set(re.findall(r"\bCOTGUARD_[A-Z_]*[A-Z]\b", page.text)) - variables() == set()


@every_page
def test_metrics_are_exported(page: Page) -> None:
    named = re.findall(r"(?<![\w.])cotguard_[a-z_]*[a-z]\b(?![*(/.])", page.text)
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in named} - metrics() == set()


@every_page
def test_flags_are_those_of_a_command(page: Page) -> None:
    flag = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
    shown = {name for line in command_lines(page) if not is_ours(line) for name in flag.findall(line)}
    own = (text for text in page.words if not re.match(r"(?!cotguard )[a-z]\S* .*--", text))
    assert {name for text in own for name in flag.findall(text)} - options() - FOREIGN_FLAGS.keys() - shown == set()


@every_page
def test_names_are_those_of_the_code(page: Page) -> None:
    names = [code for code in page.codes if re.fullmatch(r"[A-Za-z]\w*_\w*[A-Za-z0-9]", code)]
    known = source_words() | variables() | metrics() | FOREIGN_NAMES.keys()
    assert [name for name in names if name not in known] == []


@every_page
def test_tables_name_settings_and_keys(page: Page) -> None:
    of = {
        "setting": Settings.model_fields.keys(),
        "key": {name for model in MODELS for name in model.model_fields},
        "field": source_words(),
        "metric": metrics(),
    }
    named = [(row.head, re.sub(r"(\{|: ).*", "", name)) for row in page.rows if row.head in of for name in row.codes]
    assert [name for head, name in named if name not in of[head] and "." not in name] == []


@every_page
def test_settings_that_are_shown_do(page: Page) -> None:
    for code in page.codes:
        if found := re.fullmatch(r"([a-z][a-z_]*): (?!\.\.\.)(.+)", code):
            fields = [model.model_fields[found[1]] for model in MODELS if found[1] in model.model_fields]
            assert fields or found[1] in source_words() | FOREIGN_NAMES.keys(), code
            value = yaml.safe_load(found[2])
            assert not fields or any(takes(field.annotation, field.metadata, value) for field in fields), code


def takes(annotation: Any, metadata: list[Any], value: object) -> bool:
    try:
        TypeAdapter(Annotated[annotation, None, *metadata]).validate_python(value)
    except ValidationError:
        return False
    return True


@cache
def functions(path: Path) -> frozenset[str]:
    return frozenset(re.findall(r"^(?:async )?def (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE))


@every_page
def test_tests_and_modules_are_there(page: Page) -> None:
    for path, name in re.findall(r"`(tests/\w+\.py)(?:::(\w+))?`", page.text):
        assert not name or name in functions(ROOT / path), name
        assert (ROOT / path).exists(), path
    for module in re.findall(r"python -m ((?:cotguard|docs_build|loadtest|models)[\w.]*\w)", page.text):
        assert find_spec(module), module


def test_every_setting_key_and_word_is_told() -> None:
    configuration, policies = (Page.read(DOCS / name) for name in ("configuration.md", "policies.md"))
    told = {name for row in configuration.rows if row.head == "setting" for name in row.codes}
    assert told == Settings.model_fields.keys() - FILE_ONLY
    assert set(configuration.headings) >= FILE_ONLY
    keys = {name for model in (PolicyDocument, RuleDocument, RequestDocument) for name in model.model_fields}
    words = {word for each in PolicyDocument.model_json_schema()["$defs"].values() for word in each.get("enum", ())}
    assert (keys | words) - set(policies.codes) == set()


# Links


@cache
def anchors(path: Path) -> frozenset[str]:
    slugs = (re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in Page.read(path).headings)
    return frozenset(slugs)


@every_page
def test_links_lead_somewhere(page: Page) -> None:
    for link in page.links:
        if not re.match(r"[a-z]+:", link):
            target, _, anchor = link.partition("#")
            path = (page.path.parent / target).resolve() if target else page.path
            assert path.exists(), link
            assert path.is_relative_to(ROOT), link
            assert not anchor or anchor in anchors(path), link


# Blocks of code


def command_lines(page: Page) -> Iterator[str]:
    """Lines of blocks, joined where they go on, without prompts and what is set before a command."""
    for block in page.blocks:
        if block.language in ("", "sh", "console"):
            for line in re.sub(r"\\\n\s*", "", block.text).splitlines():
                for part in re.split(r" (?:\||&&) ", line):
                    yield re.sub(r"^(\$ )?(\w+=\S* )*", "", part.strip())


parser = cache(command_line)


def is_ours(line: str) -> bool:
    return re.match(r"cotguard( |$)", line) is not None


@every_page
def test_commands_can_be_typed(page: Page) -> None:
    for line in filter(is_ours, command_lines(page)):
        words = shlex.split(re.sub(r"SEQ:HASH", f"1:{'0' * 64}", re.sub(r"\s(>|<|2>).*", "", line)), comments=True)[1:]
        try:
            parser().parse_args([word for word in words if word != "..."])
        except SystemExit:
            pytest.fail(line)
        assert {word.partition("=")[0] for word in words if word.startswith("--")} <= options(), line


YAML_BLOCKS = [
    pytest.param(block, id=f"{page.name}:{block.line}")
    for page in PAGES
    for block in page.blocks
    if block.language == "yaml"
]


@every_page
def test_files_that_are_shown_say_that_they_are_yaml(page: Page) -> None:
    keys = {name for model in MODELS for name in model.model_fields}
    for block in page.blocks:
        if not block.language and (shown := re.findall(r"^([a-z_]+):(?: |$)", block.text, re.MULTILINE)):
            assert not keys.issuperset(shown) or is_message(block.text), block


def is_message(text: str) -> bool:
    """Whether it is what a command says of a key."""
    try:
        yaml.safe_load(text)
    except yaml.YAMLError:
        return True
    return False


@pytest.mark.parametrize("block", YAML_BLOCKS)
def test_files_that_are_shown_can_be_loaded(block: Block, etc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(etc)
    text = block.text.replace("/etc/cotguard/", f"{etc}/")
    keys = yaml.safe_load(text).keys()
    if not keys & FOREIGN_YAML.keys():
        load(text, keys, etc)


def load(text: str, keys: set[str], folder: Path) -> None:
    """Load what a block shows by what reads it; what is left out of a part of a file is put in."""
    path = folder / "shown.yaml"
    if keys <= PolicyDocument.model_fields.keys() - {"version"} or {"version", "rules"} <= keys:
        missing = {"version": "1", "name": "shown", "rules": "[]"}
        parse(text + complete(missing, keys), "shown", folder)
    elif keys <= Settings.model_fields.keys():
        path.write_text(text + complete({"upstream": "http://127.0.0.1:8000"}, keys))
        named = dict.fromkeys(re.findall(r"\$\{([A-Z_]+)\}", text), "a-value-of-more-than-32-characters")
        Sources({}, named, str(path)).load()
    elif keys <= CallersDocument.model_fields.keys():
        roles = set(re.findall(r"\b(?:admin|reader)\b", text))
        path.write_text(text + complete({"roles": f"{{{', '.join(f'{role}: {{}}' for role in roles)}}}"}, keys))
        load_callers(str(path))
    else:
        Manifest.model_validate(yaml.safe_load(text))


def complete(missing: Mapping[str, str], keys: set[str]) -> str:
    return "".join(f"\n{key}: {value}" for key, value in missing.items() if key not in keys)


@pytest.fixture(scope="module")
def etc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that configurations name."""
    folder = tmp_path_factory.mktemp("etc")
    (folder / "admin-token").write_text("0123456789abcdef")
    (folder / "callers.yaml").write_text("roles: {reader: {}}\n")
    KeyStore(str(folder / "keys.db"), create=True).close()
    return folder


@every_page
def test_python_that_is_shown_is_python(page: Page) -> None:
    for block in page.blocks:
        if block.language == "python":
            for node in ast.walk(ast.parse(block.text)):
                if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "cotguard":
                    module = import_module(str(node.module))
                    assert all(hasattr(module, name.name) for name in node.names), ast.unparse(node)


def test_the_detector_that_is_shown_keeps_the_contract() -> None:
    shown: dict[str, Any] = {}
    for block in Page.read(DOCS / "adding-a-detector.md").blocks:
        if block.language == "python":
            exec(block.text, shown)
    tests = [value for name, value in shown.items() if name.startswith("test_")]
    assert len(tests) == 2
    for test in tests:
        test()


def test_the_stream_that_is_shown_is_moderated_so() -> None:
    rows = list(Page.read(DOCS / "concepts.md").rows)
    comes, goes = (["".join(row.codes) for row in rows if row.head == head] for head in ("comes", "goes"))
    exchange = Exchange(parse(REDACTING, "shown", None), [PatternDetector(contact.RULES)], RequestFacts(), b"key")
    lane = exchange.lane(0)
    lane.open(ChannelKind.OUTPUT, PlainView(ChannelKind.OUTPUT))
    for piece, expected in zip(comes, goes, strict=True):
        lane.feed(ChannelKind.OUTPUT, piece) if piece else lane.finish()
        assert "".join(emission.text for emission in lane.take()) == expected


def test_the_site_can_be_built(tmp_path: Path) -> None:
    if find_spec("mkdocs") is None:
        pytest.skip("mkdocs is not installed: pip install 'cotguard[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "threat-model" / "index.html").exists()
