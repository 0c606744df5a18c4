"""What the tests of deploy/ share: its files, the tools that render them, and what every manifest must say.

Rendered manifests are kept in ``golden/``. They are always checked; that they are what the sources render to is checked
where helm and kubectl are found (``deploy_tools.py`` fetches both).
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from tls_kit import Authority

from cotguard.config.commands import check_config
from cotguard.config.settings import Settings

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "cotguard"
GOLDEN = Path(__file__).parent / "golden"
Manifest = dict[str, Any]
"""Any document of Kubernetes."""


def tool(name: str) -> str:
    """The path of a program, of this environment or the machine; skips the test if there is none."""
    found = shutil.which(name, path=Path(sys.executable).parent) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def run(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """What a program says."""
    return subprocess.run([tool(name), *map(str, arguments)], capture_output=True, text=True, check=False)


def documents(text: str) -> list[Manifest]:
    """The documents of a YAML file; they must be objects."""
    found = [document for document in yaml.safe_load_all(text) if document is not None]
    assert all(isinstance(document, dict) for document in found)
    return found


def kinds(manifests: Sequence[Manifest], kind: str) -> list[Manifest]:
    """Those of one kind."""
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def pods(manifests: Sequence[Manifest]) -> Iterator[Manifest]:
    """The pods that deployments make."""
    for deployment in kinds(manifests, "Deployment"):
        yield deployment["spec"]["template"]["spec"]


def containers(pod: Manifest) -> list[Manifest]:
    """All containers of a pod that go on, in the order of their start."""
    return [*pod.get("initContainers", ()), *pod["containers"]]


def gateway(pod: Manifest) -> Manifest | None:
    """The gateway's container, if the pod has one."""
    return next((each for each in containers(pod) if each["name"] == "cotguard"), None)


def accepted(files: Mapping[str, str], folder: Path) -> Settings:
    """The settings of ``cotguard.yaml`` among files of /etc/cotguard, as the gateway reads them, with all they name."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        text = text.replace("/etc/cotguard", str(folder)).replace("/run/cotguard", str(folder / "run"))
        path.write_text(text, encoding="utf-8")
    config = folder / "cotguard.yaml"
    certificate, key = Authority(folder).server("server")
    for name, value in yaml.safe_load(config.read_text(encoding="utf-8")).items():
        if str(value).startswith(str(folder / "run")):
            Path(value).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(key if name.endswith("_key") else certificate, value)
    environment = dict.fromkeys(re.findall(r"\$\{(\w+)\}", files["cotguard.yaml"]), "value")
    environment["COTGUARD_ADMIN_TOKEN"] = "0" * 64
    found = check_config(str(config), environment).settings
    assert found.callers is None or found.authenticates
    return found
