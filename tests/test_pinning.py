"""Definitions of tools in requests, and whether they are what they were."""

import sqlite3
import stat
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from cotguard.dialects.catalogue import dialects
from cotguard.dialects.definitions import Definitions, Tool
from cotguard.gateway.pinning import Pins, PinsError

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
FUNCTION = {"name": "weather", "description": "Tells the weather.", "parameters": SCHEMA}
BLOCK = {"name": "weather", "description": "Tells the weather.", "input_schema": SCHEMA}
SPEC = {"name": "weather", "description": "Tells the weather.", "inputSchema": {"json": SCHEMA}}
DIALECTS = {dialect.name: dialect for dialect in dialects()}

DOCUMENTS: list[tuple[str, dict[str, Any]]] = [
    ("chat_completions", {"tools": [{"type": "function", "function": {**FUNCTION, "strict": True}}]}),
    ("chat_completions", {"functions": [FUNCTION]}),
    ("responses", {"tools": [{"type": "function", **FUNCTION}]}),
    ("anthropic", {"tools": [{**BLOCK, "cache_control": {"type": "ephemeral"}}]}),
    (
        "anthropic",
        {"messages": [{"content": "x"}, {"content": [{"type": "tool_addition", "tool": {"definition": BLOCK}}]}]},
    ),
    ("gemini", {"tools": [{"functionDeclarations": [FUNCTION]}]}),
    ("gemini", {"tools": {"function_declarations": FUNCTION}}),
    ("interactions", {"tools": [{"type": "function", **FUNCTION}]}),
    ("bedrock", {"toolConfig": {"tools": [{"toolSpec": SPEC}, {"cachePoint": {"type": "default"}}]}}),
    ("bedrock", {"tools": [BLOCK]}),
    ("cohere", {"tools": [{"type": "function", "function": FUNCTION}]}),
    ("ollama", {"tools": [{"type": "function", "function": FUNCTION}]}),
    ("mistral_conversations", {"tools": [{"type": "function", "function": FUNCTION}]}),
]


@pytest.mark.parametrize(("dialect", "document"), DOCUMENTS)
def test_a_tool_has_one_definition_in_every_dialect(dialect: str, document: dict[str, Any]) -> None:
    (tool,) = DIALECTS[dialect].tools(document)
    assert (tool.name, tool.definition) == ("weather", {"description": "Tells the weather.", "schema": SCHEMA})
    described: Any = document
    for step in tool.path:
        described = described[step]
    assert described["name"] == "weather"


def test_tools_of_servers_and_namespaces_have_names_too() -> None:
    document = {
        "tools": [
            {"type": "mcp", "server_label": "files", "server_url": "https://a.example", "headers": {"X": "secret"}},
            {"type": "namespace", "name": "crm", "tools": [{"type": "function", "name": "find", "parameters": {}}]},
            {"type": "web_search"},
        ]
    }
    tools = DIALECTS["responses"].tools(document)
    assert [tool.name for tool in tools] == ["files", "crm", "crm/find"]
    assert tools[0].definition == {"type": "mcp", "server_url": "https://a.example"}
    assert tools[2].path == ("tools", 1, "tools", 0)


@pytest.mark.parametrize("document", [{}, {"tools": None}, {"tools": "x"}, {"tools": [1, None, {"function": []}]}])
def test_other_shapes_hold_no_tools(document: dict[str, Any]) -> None:
    assert DIALECTS["chat_completions"].tools(document) == []


def test_a_dialect_without_tools_has_none() -> None:
    assert DIALECTS["completions"].tools({"tools": [{"function": FUNCTION}]}) == []


def test_a_schema_that_is_missing_is_not_told() -> None:
    assert Definitions({"t": "a.b"}).read({"t": {"name": "n", "a": 1}}) == [Tool("n", ("t",), {})]


OLD, NEW = {"description": "Adds.", "schema": {"b": 1, "a": 2}}, {"description": "Adds. <IMPORTANT>", "schema": {}}


@pytest.fixture(params=["memory", "file"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "pins.sqlite") if request.param == "file" else ""


def test_what_changed_is_told_every_time(file: str) -> None:
    pins = Pins(file)
    assert pins.changed("ann", [("add", OLD), ("sub", OLD)]) == []
    assert pins.changed("ann", [("add", NEW), ("sub", OLD)]) == ["add"]
    assert pins.changed("ann", [("add", NEW), ("add", NEW)]) == ["add"]
    assert pins.changed("ann", [("add", OLD)]) == []
    pins.close()


def test_order_and_unpaired_surrogates_do_not_matter(file: str) -> None:
    pins = Pins(file)
    assert pins.changed("ann", [("add", {"a": 1, "b": "\ud83d"})]) == []
    assert pins.changed("ann", [("add", {"b": "\ud83d", "a": 1})]) == []
    pins.close()


def test_every_caller_has_pins_of_its_own(file: str) -> None:
    pins = Pins(file)
    assert pins.changed("ann", [("add", OLD)]) == []
    assert pins.changed("bob", [("add", NEW)]) == []
    assert pins.changed("ann", [("add", NEW)]) == ["add"]
    pins.close()


def test_the_least_recently_used_is_forgotten(file: str) -> None:
    now = 0.0
    pins = Pins(file, capacity=2, clock=lambda: now)
    for name in ("a", "b"):
        now += 10
        pins.changed("ann", [(name, OLD)])
    now += 3600
    pins.changed("ann", [("a", OLD)])
    pins.changed("ann", [("c", OLD)])
    assert pins.changed("ann", [("a", NEW)]) == ["a"]
    assert pins.changed("ann", [("b", NEW)]) == []
    pins.close()


def test_pins_of_a_file_outlive_the_process_and_are_shared(tmp_path: Path) -> None:
    file = tmp_path / "pins.sqlite"
    first, second = Pins(str(file)), Pins(str(file))
    assert first.changed("ann", [("add", OLD)]) == []
    assert second.changed("ann", [("add", NEW)]) == ["add"]
    first.close()
    second.close()
    third = Pins(str(file))
    assert third.changed("ann", [("add", NEW)]) == ["add"]
    third.close()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert not any(word in each.read_bytes() for each in tmp_path.iterdir() for word in (b"ann", b"add", b"Adds"))


def test_threads_may_share_pins(file: str) -> None:
    pins = Pins(file)
    told: list[list[str]] = []

    def use() -> None:
        told.append(pins.changed("ann", [(f"t{number}", OLD) for number in range(50)]))

    threads = [Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told == [[]] * 4
    pins.close()


def test_a_file_that_cannot_be_used_is_told_without_its_content(tmp_path: Path) -> None:
    file = tmp_path / "pins.sqlite"
    file.write_bytes(b"not a database, but long enough to be read as one " * 40)
    with pytest.raises(PinsError, match="DatabaseError"):
        Pins(str(file))
    with pytest.raises(PinsError, match="FileNotFoundError"):
        Pins(str(tmp_path / "none" / "pins.sqlite"))


def test_a_fault_later_on_is_told_too(tmp_path: Path) -> None:
    file = str(tmp_path / "pins.sqlite")
    pins = Pins(file)
    other = sqlite3.connect(file)
    other.execute("DROP TABLE pins")
    other.close()
    with pytest.raises(PinsError, match="OperationalError") as raised:
        pins.changed("ann", [("add", OLD)])
    assert "add" not in str(raised.value)
    pins.close()
