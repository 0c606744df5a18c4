"""Manifests that need no Helm, and what holds for every one: hardening, drain, probes, configurations."""

import re
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from deploy_kit import CHART, DEPLOY, GOLDEN, Manifest, accepted, containers, documents, gateway, kinds, pods, run

FOLDERS = {
    "kustomize-base": DEPLOY / "kustomize" / "base",
    "kustomize-gpu": DEPLOY / "kustomize" / "overlays" / "gpu",
    "kustomize-production": DEPLOY / "kustomize" / "overlays" / "production",
    "sidecar": DEPLOY / "sidecar",
}
RENDERED = sorted(path.stem for path in GOLDEN.glob("*.yaml"))
MODELS = sorted((DEPLOY / "examples").glob("*/model.yaml"))


def golden(name: str) -> list[Manifest]:
    return documents((GOLDEN / f"{name}.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", FOLDERS)
def test_it_renders_to_the_golden_file(name: str) -> None:
    rendered = run("kubectl", "kustomize", FOLDERS[name])
    assert (rendered.returncode, rendered.stderr) == (0, "")
    assert rendered.stdout == (GOLDEN / f"{name}.yaml").read_text(encoding="utf-8")


def test_every_folder_and_every_golden_file_is_checked() -> None:
    assert {path.parent for path in DEPLOY.rglob("kustomization.yaml")} == set(FOLDERS.values())
    charts = {f"helm-{path.name.removesuffix('-values.yaml')}" for path in (CHART / "ci").iterdir()}
    assert set(RENDERED) == FOLDERS.keys() | charts


@pytest.mark.parametrize("name", FOLDERS)
def test_the_gateway_takes_the_configuration(name: str, tmp_path: Path) -> None:
    (config,) = kinds(golden(name), "ConfigMap")
    accepted(config["data"], tmp_path)


@pytest.mark.parametrize("name", RENDERED)
def test_pods_are_hardened(name: str) -> None:
    for pod in pods(golden(name)):
        assert pod["automountServiceAccountToken"] is False
        assert not pod.keys() & {"hostNetwork", "hostPID", "hostIPC"}
        context = pod["securityContext"]
        assert context["runAsNonRoot"]
        assert context["runAsUser"] == 65532
        assert context["seccompProfile"] == context["appArmorProfile"] == {"type": "RuntimeDefault"}
        for container in containers(pod):
            own = container["securityContext"]
            assert (own["allowPrivilegeEscalation"], own["capabilities"]) == (False, {"drop": ["ALL"]})
            assert "memory" in container["resources"]["limits"]
            assert re.search(r"@sha256:|:(?!latest)[^:/]+$", container["image"])
        moderating = gateway(pod)
        assert moderating is not None
        assert moderating["securityContext"]["readOnlyRootFilesystem"]


@pytest.mark.parametrize("name", RENDERED)
def test_a_drain_is_given_its_time(name: str) -> None:
    manifests = golden(name)
    (config,) = kinds(manifests, "ConfigMap")
    settings = yaml.safe_load(config["data"]["cotguard.yaml"])
    drain = settings["drain_delay"] + settings["drain_timeout"] + 10
    (pod,) = pods(manifests)
    waits = [each["lifecycle"]["preStop"]["sleep"]["seconds"] for each in containers(pod) if each["name"] != "cotguard"]
    assert pod["terminationGracePeriodSeconds"] >= drain + sum(waits)
    (deployment,) = kinds(manifests, "Deployment")
    strategy = deployment["spec"].get("strategy")
    assert "sidecar" in name or strategy == {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}


@pytest.mark.parametrize("name", RENDERED)
def test_probes_ask_the_admin_port(name: str) -> None:
    (pod,) = pods(golden(name))
    container = gateway(pod)
    assert container is not None
    probes = {each.removesuffix("Probe"): container[each]["httpGet"] for each in container if each.endswith("Probe")}
    assert {each: probe["path"] for each, probe in probes.items()} == {
        "startup": "/healthz",
        "readiness": "/readyz",
        "liveness": "/healthz",
    }
    assert {probe["port"] for probe in probes.values()} == {"admin"}
    assert {"name": "admin", "containerPort": 9090} in container["ports"]


@pytest.mark.parametrize("name", RENDERED)
def test_configuration_is_mounted_so_that_changes_arrive(name: str) -> None:
    """A file mounted by subPath never changes, and a hash in the name or on the pod would restart it instead."""
    manifests = golden(name)
    (config,) = kinds(manifests, "ConfigMap")
    (pod,) = pods(manifests)
    container = gateway(pod)
    assert container is not None
    (mount,) = (each for each in container["volumeMounts"] if each["name"] == "config")
    assert mount == {"name": "config", "mountPath": "/etc/cotguard", "readOnly": True}
    assert config["metadata"]["name"] == "cotguard"
    (deployment,) = kinds(manifests, "Deployment")
    assert "annotations" not in deployment["spec"]["template"]["metadata"]


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.parent.name)
def test_models_are_reached_by_the_gateway_alone(path: Path) -> None:
    manifests = documents(path.read_text(encoding="utf-8"))
    for manifest in manifests:
        kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)
    (policy,) = kinds(manifests, "NetworkPolicy")
    ((rule,), (service,), (deployment,)) = (
        policy["spec"]["ingress"],
        kinds(manifests, "Service"),
        kinds(manifests, "Deployment"),
    )
    assert rule["from"] == [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "cotguard"}}}]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert labels == policy["spec"]["podSelector"]["matchLabels"] == service["spec"]["selector"]
    name, port = service["metadata"]["name"], rule["ports"][0]["port"]
    values = yaml.safe_load((path.parent / "values.yaml").read_text(encoding="utf-8"))
    local = yaml.safe_load((path.parent / "cotguard.yaml").read_text(encoding="utf-8"))
    assert values["config"]["upstream"] == local["upstream"] == f"http://{name}:{port}"
    (out,) = values["networkPolicy"]["egress"]
    assert (out["ports"], out["to"]) == (rule["ports"], [{"podSelector": {"matchLabels": labels}}])


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.parent.name)
def test_the_chart_takes_the_values_of_the_examples(path: Path) -> None:
    rendered = run("helm", "template", "cotguard", CHART, "--values", path.parent / "values.yaml")
    assert rendered.returncode == 0, rendered.stderr
