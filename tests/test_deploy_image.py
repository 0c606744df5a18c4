"""The image: what its definition says, what goes into it, and that the gateway takes how it is started."""

import fnmatch
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from deploy_kit import DEPLOY, ROOT, accepted, run

from cotguard.cli import main
from cotguard.policy import ready_policies

DOCKERFILE = DEPLOY / "docker" / "Dockerfile"
COMPOSE = [DEPLOY / "docker" / "compose.yaml", *sorted((DEPLOY / "examples").glob("*/compose.yaml"))]


class Instruction(NamedTuple):
    name: str
    value: str


def instructions() -> list[Instruction]:
    """Of the Dockerfile, lines joined and comments left out."""
    lines = [line for line in DOCKERFILE.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\s*\\\n\s*", " ", "\n".join(lines)).splitlines()
    return [Instruction(*line.split(maxsplit=1)) for line in joined if line]


def stages() -> dict[str, list[Instruction]]:
    """By their names; each begins with its FROM."""
    found: dict[str, list[Instruction]] = {}
    stage: list[Instruction] = []
    for each in instructions():
        if each.name == "FROM":
            stage = found.setdefault(each.value.rpartition(" AS ")[2], [])
        stage.append(each)
    return found


def copied() -> list[str]:
    """The paths of this repository that the Dockerfile copies."""
    values = [each.value.split() for each in instructions() if each.name == "COPY" and "--from" not in each.value]
    return sorted({path for *paths, _ in values for path in paths})


def let_in() -> list[str]:
    """The paths that .dockerignore lets in."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert lines[1] == "*"  # after the comment: what is not named stays out
    return sorted(line.removeprefix("!") for line in lines if line.startswith("!"))


def test_every_stage_is_of_a_named_base_or_of_another_stage() -> None:
    found = stages()
    known = {"${PYTHON_IMAGE}", "core-${CORE}", *found}
    assert all(stage[0].value.partition(" AS ")[0] in known for stage in found.values())
    defaults = dict(each.value.split("=", 1) for each in instructions()[:2])
    assert f"core-{defaults['CORE']}" in found
    image, _, tag = defaults["PYTHON_IMAGE"].rpartition(":")
    assert image
    assert tag not in ("", "latest")
    assert list(found)[-1] == "cpu"  # what is built when no target is named


def test_what_runs_is_no_root_and_holds_no_tools_and_no_secrets() -> None:
    found = stages()
    running = [each for name in ("base", "cpu", "cuda") for each in found[name]]
    assert not [each for each in running if each.name in ("RUN", "ADD", "VOLUME")]
    (user,) = (each.value for each in running if each.name == "USER")
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user)  # numbers: only of those can Kubernetes tell that it is not root
    assert ("STOPSIGNAL", "SIGTERM") in running
    assert [each.value for name in ("cpu", "cuda") for each in found[name] if each.name == "COPY"] == [
        "--from=installed /opt/cotguard /opt/cotguard",
        "--from=installed-cuda /opt/cotguard /opt/cotguard",
    ]
    for name in ("HEALTHCHECK", "ENTRYPOINT", "CMD"):  # the form that needs no shell
        assert any(each.name == name and each.value.endswith("]") for each in running)


def test_nothing_is_fetched_but_packages_and_nothing_secret_is_written() -> None:
    assert not [each for each in instructions() if each.name == "ADD"]
    for each in instructions():
        if each.name in ("ENV", "ARG", "LABEL"):
            assert not re.search(r"(?i)key|token|secret|password", each.value)
        if each.name == "RUN":
            assert not re.search(r"\bcurl\b|\bwget\b|https?://|\bsudo\b|chmod -R \S*(777|o\+w)", each.value)


def test_hadolint_finds_nothing() -> None:
    found = run("hadolint", DOCKERFILE)
    assert (found.stdout, found.returncode) == ("", 0)


def test_rules_of_every_ready_policy_are_compiled_into_it() -> None:
    (compiled,) = (each.value for each in stages()["installed"] if "cotguard scan" in each.value)
    listed = re.search(r"for policy in ([\w -]+);", compiled)
    assert listed is not None
    assert listed[1].split() == sorted(ready_policies())


def test_the_context_is_what_is_copied() -> None:
    assert let_in() == copied()
    ignored = [line for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if "**" in line]
    assert ignored == ["**/__pycache__", "**/*.pyc", "**/*.so"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built as in the image, from the same files: elsewhere than here, where older builds lie about."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in (name for name in copied() if "/" not in name):
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        else:
            shutil.copy(path, folder)
    options = {"--build-option": ["--compression=stored"]}  # packing the models takes seconds
    build = f"import setuptools.build_meta as backend; backend.build_wheel('.', {options})"
    subprocess.run([sys.executable, "-c", build], cwd=folder, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return zipfile.ZipFile(built)


def test_the_wheel_is_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "cotguard").rglob("*") if path.is_file()}
    here = {name for name in sources if "__pycache__" not in name and not name.endswith(".so")}
    assert names <= here
    # Of what is here only how the bundles compare is left out.
    assert {name for name in here - names if not fnmatch.fnmatch(name, "cotguard/bundles/trade-off.*")} == set()
    assert {name.partition("/")[0] for name in names} == {"cotguard"}


def test_the_wheel_has_all_that_is_no_code(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    assert {f"cotguard/policy/ready/{name}.yaml" for name in ready_policies()} <= names
    assert {"cotguard/py.typed", "cotguard/policy/schema.json", "cotguard/moderation/markers.yaml"} <= names
    for bundle in ("tagger-3", "tagger-4"):
        assert {
            f"cotguard/bundles/{bundle}/{name}" for name in ("bundle.yaml", "model.onnx", "tokenizer.json")
        } <= names
    assert "cotguard/dialects/chat/chat_completions.yaml" in names
    assert not [name for name in names if re.search(r"(^|/)(tests?|models|loadtest)/", name)]
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_the_command_takes_how_it_is_started(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (command,) = (each.value for each in stages()["base"] if each.name == "CMD")
    serve, option, _ = yaml.safe_load(command)
    config = tmp_path / "cotguard.yaml"
    config.write_text("upstream: http://127.0.0.1:8000\nlistn: x\n", encoding="utf-8")
    assert main([serve, option, str(config)]) == 2
    assert capsys.readouterr().err.endswith("listn: no such setting; did you mean listen?\n")


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.parent.name)
def test_compose_closes_what_it_can(path: Path, tmp_path: Path) -> None:
    services = yaml.safe_load(path.read_text(encoding="utf-8"))["services"]
    own = services.pop("cotguard")
    if path.parent == DOCKERFILE.parent:
        assert (path.parent / own["build"]["context"] / own["build"]["dockerfile"]).resolve() == DOCKERFILE
        assert own["read_only"]
        assert own["cap_drop"] == ["ALL"]
        assert own["security_opt"] == ["no-new-privileges:true"]
        assert all(port.startswith("127.0.0.1:") for port in own["ports"])
    else:
        base = own["extends"]
        assert ((path.parent / base["file"]).resolve(), base["service"]) == (COMPOSE[0], "cotguard")
        (model,) = services.values()
        assert model["networks"] == ["models"]  # which leads nowhere but to the gateway
        assert yaml.safe_load(path.read_text(encoding="utf-8"))["networks"]["models"] == {"internal": True}
        assert not model.keys() & {"ports", "privileged", "network_mode"}
    for service in services.values():
        assert re.fullmatch(r"[\w./-]+:(?!latest)[\w.-]+", service["image"])
    (volume,) = own["volumes"]
    source, target, mode = volume.split(":")
    assert (target, mode) == ("/etc/cotguard/cotguard.yaml", "ro")
    accepted({"cotguard.yaml": (path.parent / source).read_text(encoding="utf-8")}, tmp_path)
