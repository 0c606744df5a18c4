"""Settings of a classifier that is served elsewhere: what is accepted, and what is told about the rest."""

import importlib.util
import shutil
from pathlib import Path

import oip
import pytest
import yaml

from cotguard.classifier.remote import address
from cotguard.classifier.remote.address import Address, addresses
from cotguard.classifier.triton import config
from cotguard.cli import main
from cotguard.config.errors import SettingsError
from cotguard.config.sources import load_settings

UPSTREAM = {"upstream": "http://127.0.0.1:8000"}
HOW = "write grpc://HOST:PORT, grpcs://HOST:PORT, http://HOST:PORT or https://HOST:PORT, several with commas between"


def test_replicas() -> None:
    text = "grpc://a:8001, grpcs://[::1]:8001,http://b/prefix/v2/,https://c:8443"
    found = addresses(text)
    assert found == (
        Address("grpc", "a:8001"),
        Address("grpcs", "[::1]:8001"),
        Address("http", "b", "/prefix"),
        Address("https", "c:8443"),
    )
    assert [each.secure for each in found] == [False, True, False, True]
    assert str(found[2]) == "http://b/prefix"
    settings = load_settings(UPSTREAM | {"classifier_url": text, "classifier_model": "m"}, {}, None)
    assert settings.served is not None
    assert (settings.served.replicas, settings.served.model) == (found, "m")
    assert load_settings(UPSTREAM, {}, None).served is None


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8001",
        "tcp://a:1",
        "grpc://a",
        "grpc://a:x",
        "grpc://a:1/v2",
        "http://",
        "http://a:1?x=1",
        "http://me:secret@a:1",
        "grpc://a:1,",
    ],
)
def test_what_is_no_replica(url: str) -> None:
    with pytest.raises(SettingsError) as raised:
        load_settings(UPSTREAM | {"classifier_url": url}, {}, None)
    assert str(raised.value) == f"classifier_url: {HOW}"


def test_other_wrong_settings(tmp_path: Path) -> None:
    message = ""
    for wrong, told in (
        ({"classifier_url": "grpc://a:1,grpc://a:1"}, "classifier_url: names a replica twice"),
        ({"classifier_url": "grpc://a:1", "bundle": "none"}, "classifier_url: name the bundle whose model is served"),
        ({"classifier_ca": str(tmp_path / "no.pem")}, f"classifier_ca: {tmp_path}/no.pem: no such file"),
        ({"classifier_url": "grpc://a:1", "classifier_ca": __file__}, "classifier_url: certificates are of use with"),
        ({"classifier_ca": __file__}, "classifier_url: certificates are of use with"),
        ({"classifier_url": "grpcs://a:1", "classifier_key": __file__}, "classifier_key: name its certificate too"),
        ({"classifier_url": "grpcs://a:1", "classifier_ca": __file__}, f"{__file__}: "),
    ):
        with pytest.raises(SettingsError) as raised:
            load_settings(UPSTREAM | wrong, {}, None)
        message = str(raised.value)
        assert message.startswith(told)
    assert "write paths of PEM files" in message


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make certificates")
def test_a_key_of_another_certificate(tmp_path: Path) -> None:
    server, client = oip.certificates(tmp_path)
    wrong = {"classifier_url": "https://a", "classifier_cert": client.certificate, "classifier_key": server.key}
    with pytest.raises(SettingsError, match="PEM files that fit together"):
        load_settings(UPSTREAM | wrong, {}, None)


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "grpc" else find(name))
    with pytest.raises(SettingsError, match=r"pip install 'cotguard\[remote\]', or use the server's http:// port"):
        load_settings(UPSTREAM | {"classifier_url": "grpc://a:1"}, {}, None)
    assert load_settings(UPSTREAM | {"classifier_url": "http://a:1"}, {}, None).served is not None
    assert not address._installed("cotguard.nowhere.at_all")


# --- What is served ----------------------------------------------------------------------------------------------


def test_a_triton_repository(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bundle", "export-triton", "tagger-3", str(tmp_path), "--instances", "4"]) == 0
    folder = tmp_path / "tagger-3"
    assert f"{folder}: written; tritonserver --model-repository={tmp_path}" in capsys.readouterr().out
    assert (folder / "1" / "model.onnx").stat().st_size > 10**6
    assert len((folder / "labels.txt").read_text().splitlines()) == 89
    assert len((folder / "hazards.txt").read_text().splitlines()) == 15
    lines = (folder / "config.pbtxt").read_text().splitlines()
    assert "max_batch_size: 1" in lines
    assert "instance_group [ { kind: KIND_CPU, count: 4 } ]" in lines
    assert not [line for line in lines if "dynamic_batching" in line]
    assert main(["bundle", "export-triton", "tagger-3", str(tmp_path)]) == 2
    assert "is there already; remove it" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert main(["bundle", "export-triton", "tagger-3", str(tmp_path / "file")]) == 2
    assert "choose another directory" in capsys.readouterr().err


def test_a_float_model_is_batched(tmp_path: Path) -> None:
    lines = config(oip.batching_bundle(tmp_path), 1).splitlines()
    assert "max_batch_size: 32" in lines
    assert "dynamic_batching { max_queue_delay_microseconds: 500 }" in lines
    assert "instance_group [ { kind: KIND_AUTO, count: 1 } ]" in lines


def test_the_inference_service_is_a_document() -> None:
    path = Path(__file__).parents[1] / "deploy" / "kserve" / "inferenceservice.yaml"
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert document["kind"] == "InferenceService"
    assert document["spec"]["predictor"]["model"]["modelFormat"] == {"name": "triton"}
