"""The file of keys and the command that makes it."""

import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from callers_kit import make_key

from cotguard.callers.denied import Denied, Reason
from cotguard.callers.document import KeyScope
from cotguard.callers.keys import KeyStore, KeyStoreError, is_key
from cotguard.cli import main


def reason_of(store: KeyStore, credential: str) -> Reason:
    with pytest.raises(Denied) as raised:
        store.find(credential)
    assert "cg_" not in repr(raised.value)
    return raised.value.reason


def test_a_key_is_found_by_its_text_alone(tmp_path: Path) -> None:
    path = str(tmp_path / "keys.db")
    identifier, text = make_key(path, "reader", models=["llama-*"])
    _, other = make_key(path, "reader")
    with KeyStore(path) as store:
        key = store.find(text)
        assert (key.id, key.role, key.scope.models) == (identifier, "reader", ("llama-*",))
        changed = text[:-1] + ("A" if text[-1] != "A" else "B")
        assert reason_of(store, changed) is Reason.UNKNOWN
        assert reason_of(store, f"cg_{identifier}_{other.split('_', 2)[2]}") is Reason.UNKNOWN
        assert reason_of(store, f"cg_{'0' * 16}_{'A' * 43}") is Reason.UNKNOWN
        for spoilt in ("", "cg_", text + "A", text.upper(), f" {text}", "cg_é" + text[4:]):
            assert not is_key(spoilt)
            assert reason_of(store, spoilt) is Reason.UNKNOWN


def test_keys_expire_and_are_revoked(tmp_path: Path) -> None:
    path = str(tmp_path / "keys.db")
    now = 1_000_000.0
    with KeyStore(path, create=True, clock=lambda: now) as store, KeyStore(path) as other:
        brief, brief_text = store.create("brief", "reader", KeyScope(), 10)
        now += 1
        lasting, lasting_text = store.create("lasting", "reader", KeyScope())
        now += 8.5
        assert store.find(brief_text).id == brief.id
        now += 0.5
        assert reason_of(store, brief_text) is Reason.EXPIRED
        assert other.revoke(lasting.id)
        assert not other.revoke(lasting.id)
        assert not other.revoke("0" * 16)
        assert reason_of(store, lasting_text) is Reason.REVOKED
        assert [key.name for key in store.list()] == ["brief", "lasting"]


def test_the_file_is_its_owners_and_holds_no_key(tmp_path: Path) -> None:
    path = tmp_path / "keys.db"
    _, text = make_key(str(path), "reader")
    with KeyStore(str(path)) as store:
        store.revoke("x")  # what is written stands in more files while it is open
        files = list(tmp_path.iterdir())
        assert {file.name for file in files} >= {"keys.db", "keys.db-wal"}
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
        secret = text.split("_", 2)[2]
        assert all(secret.encode() not in file.read_bytes() for file in files)
        assert secret not in repr(store.list())


def test_files_that_are_none_of_keys(tmp_path: Path) -> None:
    with pytest.raises(KeyStoreError, match="no such file; make it with `cotguard keys create --store"):
        KeyStore(str(tmp_path / "nothing.db"))
    text = tmp_path / "text.db"
    text.write_text("no database at all, but long enough to be read as one" * 9, encoding="utf-8")
    with pytest.raises(KeyStoreError, match="is this the file of `cotguard keys`"):
        KeyStore(str(text))
    foreign = tmp_path / "foreign.db"
    database = sqlite3.connect(foreign)
    database.execute("CREATE TABLE keys (id)")
    database.close()
    with pytest.raises(KeyStoreError, match="no file of `cotguard keys` of this release"):
        KeyStore(str(foreign), create=True)
    with pytest.raises(KeyStoreError, match="a directory that you may write"):
        KeyStore(str(tmp_path / "nowhere" / "keys.db"), create=True)


def test_a_file_that_breaks_while_it_is_open(tmp_path: Path) -> None:
    path = str(tmp_path / "keys.db")
    _, text = make_key(path, "reader")
    with KeyStore(path) as store:
        database = sqlite3.connect(path)
        database.execute("DROP TABLE keys")
        database.close()
        assert reason_of(store, text) is Reason.UNAVAILABLE
        with pytest.raises(KeyStoreError, match="no such table"):
            store.list()


def test_a_file_in_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """As a Secret is mounted: a link to a folder, which is exchanged at once."""
    texts = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        texts.append(make_key(str(tmp_path / name / "keys.db"), name)[1])
        (tmp_path / name).chmod(0o500)
    (tmp_path / "data").symlink_to("first")
    path = tmp_path / "data" / "keys.db"
    script = (
        "import sys\nfrom cotguard.callers.denied import Denied\nfrom cotguard.callers.keys import KeyStore\n"
        f"store = KeyStore({str(path)!r})\n"
        "for line in sys.stdin:\n"
        "    try:\n        print(store.find(line.strip()).role, flush=True)\n"
        "    except Denied as denied:\n        print(denied.reason, flush=True)\n"
    )
    bounded = ["setpriv", "--bounding-set=-dac_override"] if os.geteuid() == 0 else []  # root may write everywhere else
    command = [*bounded, sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        asked, told = process.stdin, process.stdout
        assert asked is not None
        assert told is not None

        def found() -> list[str]:
            answers = []
            for text in texts:
                asked.write(text + "\n")
                asked.flush()
                answers.append(told.readline().strip())
            return answers

        assert found() == ["first", "unknown"]
        (tmp_path / "new").symlink_to("second")
        (tmp_path / "new").rename(tmp_path / "data")
        assert found() == ["unknown", "second"]
        (tmp_path / "data").unlink()
        assert found() == ["unavailable", "unavailable"]
        (tmp_path / "data").symlink_to("first")
        assert found() == ["first", "unknown"]
        asked.close()
    for name in ("first", "second"):
        assert [each.name for each in (tmp_path / name).iterdir()] == ["keys.db"]
        (tmp_path / name).chmod(0o700)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "keys.db")
    monkeypatch.setenv("COTGUARD_KEYS", path)
    narrowing = ["--models", "llama-*", "gpt-4o-mini", "--requests-per-minute", "30", "--reasoning", "hidden"]
    assert main(["keys", "create", "--name", "Ann", "--role", "reader", "--expires", "90", *narrowing]) == 0
    shown = capsys.readouterr()
    text = shown.out.strip()
    assert is_key(text)
    assert text not in shown.err
    with KeyStore(path) as store:
        key = store.find(text)
    assert key.expires is not None
    assert key.expires - key.created == 90 * 86_400
    assert key.scope == KeyScope.model_validate(
        {"models": ("llama-*", "gpt-4o-mini"), "requests_per_minute": 30, "reasoning": "hidden"}
    )
    assert main(["keys", "list"]) == 0
    listed = capsys.readouterr().out
    assert f'{key.id} role=reader name="Ann"' in listed
    assert 'models=["llama-*", "gpt-4o-mini"]' in listed
    assert text.split("_", 2)[2] not in listed
    assert main(["keys", "revoke", key.id]) == 0
    assert main(["keys", "revoke", key.id]) == 1
    assert "no such key, or it is revoked already" in capsys.readouterr().err
    assert main(["keys", "list"]) == 0
    assert "revoked=" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dialects", "chat"], "--dialects: chat: no such dialect; write some of: chat_completions, "),
        (["--concurrency", "0"], "--concurrency: Input should be greater than or equal to 1"),
        (["--reasoning", "seen"], "--reasoning: Input should be 'visible' or 'hidden'"),
        (["--expires", "0"], "--expires: write a number of days above 0"),
    ],
)
def test_wrong_options(tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str) -> None:
    path = tmp_path / "keys.db"
    assert main(["keys", "create", "--store", str(path), "--name", "x", "--role", "reader", *options]) == 2
    assert message in capsys.readouterr().err
    assert not path.exists()


def test_many_make_the_file_at_once(tmp_path: Path) -> None:
    path = str(tmp_path / "keys.db")
    command = [sys.executable, "-m", "cotguard", "keys", "create", "--store", path, "--name", "x", "--role", "reader"]
    makers = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    texts = [maker.communicate(timeout=60)[0].strip() for maker in makers]
    assert [maker.returncode for maker in makers] == [0] * 4
    with KeyStore(path) as store:
        assert {store.find(text).id for text in texts} == {key.id for key in store.list()}
    assert {file.name for file in tmp_path.iterdir()} <= {"keys.db", "keys.db-wal", "keys.db-shm"}
