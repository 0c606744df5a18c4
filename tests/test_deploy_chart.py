"""The chart: what it renders to, what it refuses, and that the gateway takes what it writes."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from deploy_kit import CHART, GOLDEN, ROOT, accepted, containers, documents, gateway, kinds, pods, run

VALUES = sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml"))


def values(name: str) -> Path:
    return CHART / "ci" / f"{name}-values.yaml"


def template(*options: str | Path) -> Any:
    return run("helm", "template", "cotguard", CHART, "--namespace", "llm", *options)


def golden(name: str) -> str:
    return (GOLDEN / f"helm-{name}.yaml").read_text(encoding="utf-8")


def schema() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((CHART / "values.schema.json").read_text(encoding="utf-8"))
    return found


def defaults() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    return found


def test_there_are_values_for_every_kind_of_use() -> None:
    assert VALUES == ["default", "gpu", "locked-down", "sidecar"]


@pytest.mark.parametrize("name", VALUES)
def test_it_renders_to_the_golden_file(name: str) -> None:
    rendered = template("--values", values(name))
    assert (rendered.returncode, rendered.stderr) == (0, "")
    assert rendered.stdout == golden(name)
    assert run("helm", "lint", "--strict", CHART, "--values", values(name)).returncode == 0


@pytest.mark.parametrize("name", VALUES)
def test_the_notes_render(name: str) -> None:
    told = run("helm", "install", "cotguard", CHART, "--namespace", "llm", "--dry-run=client", "--values", values(name))
    assert told.returncode == 0, told.stderr
    assert f"http{'s' if name == 'locked-down' else ''}://cotguard.llm:" in told.stdout


@pytest.mark.parametrize("name", VALUES)
def test_the_gateway_takes_the_configuration(name: str, tmp_path: Path) -> None:
    manifests = documents(golden(name))
    ((config,), (pod,)) = (kinds(manifests, "ConfigMap"), list(pods(manifests)))
    (volume,) = (each["configMap"] for each in pod["volumes"] if each["name"] == "config")
    assert {item["key"] for item in volume["items"]} == set(config["data"])
    accepted({item["path"]: config["data"][item["key"]] for item in volume["items"]}, tmp_path)


@pytest.mark.parametrize("name", VALUES)
def test_services_and_policies_find_the_pods_and_their_ports(name: str) -> None:
    manifests = documents(golden(name))
    (deployment,) = kinds(manifests, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    (pod,) = pods(manifests)
    container = gateway(pod)
    assert container is not None
    ports = {port["containerPort"] for port in container["ports"]}
    for service in kinds(manifests, "Service"):
        assert service["spec"]["selector"].items() <= labels
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    (policy,) = kinds(manifests, "NetworkPolicy")
    for selector in (policy["spec"]["podSelector"], deployment["spec"]["selector"]):
        assert selector["matchLabels"].items() <= labels
    assert {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]} <= ports
    (budget,) = kinds(manifests, "PodDisruptionBudget")
    assert budget["spec"]["selector"]["matchLabels"].items() <= labels


def test_beside_a_model_the_gateway_comes_first_and_is_the_only_way_in() -> None:
    manifests = documents(golden("sidecar"))
    (pod,) = pods(manifests)
    first, model = containers(pod)
    assert (first["name"], first["restartPolicy"], model["name"]) == ("cotguard", "Always", "vllm")
    assert "127.0.0.1" in model["args"]
    assert first["startupProbe"]["httpGet"]["path"] == "/healthz"  # the model is started only after it
    (policy,) = kinds(manifests, "NetworkPolicy")
    assert [port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]] == [8080]
    # The model goes on while streams end, and then the gateway has its own time.
    waits = model["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] == 2 * waits == 150


def test_a_gpu_comes_with_its_image() -> None:
    (pod,) = pods(documents(golden("gpu")))
    container = gateway(pod)
    assert container is not None
    assert container["image"].endswith("-cuda")
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    (scaler,) = kinds(documents(golden("gpu")), "HorizontalPodAutoscaler")
    assert [metric["type"] for metric in scaler["spec"]["metrics"]] == ["ContainerResource", "Pods"]
    (deployment,) = kinds(documents(golden("gpu")), "Deployment")
    assert "replicas" not in deployment["spec"]  # they are the scaler's


def test_locked_down_leaves_nothing_open() -> None:
    manifests = documents(golden("locked-down"))
    (policy,) = kinds(manifests, "NetworkPolicy")
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert all(rule["from"] for rule in policy["spec"]["ingress"])
    assert all(rule["to"] for rule in policy["spec"]["egress"])
    (pod,) = pods(manifests)
    container = gateway(pod)
    assert container is not None
    assert "@sha256:" in container["image"]
    assert {container[probe]["httpGet"]["scheme"] for probe in container if probe.endswith("Probe")} == {"HTTPS"}
    text = golden("locked-down")
    assert "allow_anonymous" not in text
    secrets = {each["valueFrom"]["secretKeyRef"]["name"] for each in container["env"] if each["name"] != "POD_NAME"}
    assert secrets == {"cotguard-admin", "audit", "seals", "upstream"}
    assert "upstream_key: ${UPSTREAM_KEY}" in text  # in the ConfigMap only the name


@pytest.mark.long  # loading the models takes seconds
def test_what_the_prometheus_operator_reads_has_its_form() -> None:
    models = pytest.importorskip("cloudcoil.models.prometheus_operator.v1")
    manifests = documents(golden("locked-down"))
    for kind in ("ServiceMonitor", "PrometheusRule"):
        (manifest,) = kinds(manifests, kind)
        read = getattr(models, kind).model_validate(manifest)
        assert read.model_dump(mode="json", by_alias=True, exclude_none=True)["spec"] == manifest["spec"]


@pytest.mark.parametrize("version", ["1.30", kubernetes_validate.latest_version()])
def test_golden_files_are_valid_for_kubernetes(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read = kubernetes_validate.utils.schema_contents  # for every document again
    monkeypatch.setattr(kubernetes_validate.utils, "schema_contents", cache(read))
    for path in sorted(GOLDEN.glob("*.yaml")):
        for manifest in documents(path.read_text(encoding="utf-8")):
            if not manifest["apiVersion"].startswith("monitoring.coreos.com/"):
                kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("image.repository=", "image.repository: write where"),
        ("config.upstream=", "config.upstream: write the model server's URL"),
        ("config.allow_anonymous=false", "callers: nobody is asked who he is"),
        ("config.listen=0.0.0.0:80", "config.listen: the chart sets it itself"),
        ("admin.existingSecret=", "admin.existingSecret: name a Secret"),
        ("terminationGracePeriodSeconds=30", "30 seconds cut the drain off; it needs 75"),
        ("prometheusRule.enabled=true", "prometheusRule.file: give the rules with --set-file"),
        ("replicas=3", "additional properties 'replicas' not allowed"),
        ("networkPolicy.enabled=yes", "got string, want boolean"),
        ("image.digest=latest", "does not match pattern"),
    ],
)
def test_wrong_values_are_told(change: str, told: str) -> None:
    refused = template("--values", values("default"), "--set", change)
    assert refused.returncode == 1
    assert told in refused.stderr


@pytest.mark.parametrize("callers", ["roles: {}\noidc: {issuer: https://x}", "roles: {}"])
def test_an_openid_provider_is_enough_to_know_callers(callers: str, tmp_path: Path) -> None:
    given = tmp_path / "values.yaml"
    given.write_text(yaml.safe_dump({"config": {"allow_anonymous": False}, "callers": {"file": callers}}))
    assert template("--values", values("default"), "--values", given).returncode == int("oidc" not in callers)


def test_the_schema_knows_every_value_and_no_other() -> None:
    def known(properties: dict[str, Any], given: dict[str, Any], ignored: frozenset[str] = frozenset()) -> None:
        assert properties.keys() - ignored == given.keys()
        for name, value in given.items():
            if "properties" in properties[name]:
                known(properties[name]["properties"], value)

    known(schema()["properties"], defaults(), frozenset({"global"}))  # which Helm itself adds
    jsonschema.validate(defaults(), schema())


@pytest.mark.parametrize("name", VALUES)
def test_the_schema_admits_the_values(name: str) -> None:
    jsonschema.validate(yaml.safe_load(values(name).read_text(encoding="utf-8")), schema())


def test_what_the_documentation_shows_works(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    given = tmp_path / "values.yaml"
    given.write_text(shown, encoding="utf-8")
    rendered = template("--values", given)
    assert rendered.returncode == 0, rendered.stderr
    (config,) = kinds(documents(rendered.stdout), "ConfigMap")
    accepted(config["data"], tmp_path)


def test_the_documentation_names_values_and_files_that_are_there() -> None:
    text = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    paths = {path.rstrip(".") for path in re.findall(r"deploy/[\w./-]+", text)}
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []
    rows = re.findall(r"^\| (`[^|]+`) \|", text.partition("| values |")[2].partition("\n\n")[0], re.MULTILINE)
    told = {name.split(".")[0] for row in rows for name in re.findall(r"`([\w.]+)`", row)}
    assert len(told) > 10
    assert told <= defaults().keys()
