"""Everything that is rendered or written for other programs holds before their own strict schemas and linters."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.chart.charts import EXAMPLES, KEDA, KUBERNETES, template
from tests.mesh.mesh import ROOT
from tests.tools import TOOLS, requires_tool, schemas, tool

EVERY_SWITCH: dict[str, Any] = {
    "redis": {"enabled": True},
    "mongodb": {"enabled": True},
    "stores": {"cache": "redis", "ledger": "mongodb"},
    "journals": {"volume": "claim"},
    "secrets": {
        "auth": {"externalSecret": {"secretStoreRef": {"name": "vault"}, "dataFrom": [{"extract": {"key": "k"}}]}},
        "providers": {"data": {"OPENAI_API_KEY": "sk"}},
    },
    "ingress": {"http": {"enabled": True, "hosts": ["a.example"]}, "grpc": {"enabled": True, "hosts": ["b.example"]}},
    "gateway": {
        "parentRefs": [{"name": "public"}],
        "http": {"enabled": True, "timeouts": {"request": "0s"}},
        "grpc": {"enabled": True, "hostnames": ["b.example"]},
    },
    "monitoring": {
        "serviceMonitor": {"enabled": True},
        "prometheusRule": {"enabled": True},
        "dashboards": {"enabled": True},
    },
    "defaults": {
        "priorityClassName": "high",
        "tolerations": [{"key": "llm", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
        "extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
        "extraVolumeMounts": [{"name": "ca", "mountPath": "/etc/ssl/certs"}],
        "podAnnotations": {"a": "b"},
    },
}


def _hold(manifests: str) -> None:
    """Holds manifests before strict schemas: a field that Kubernetes does not know, or a kind, is an error."""
    location = f"{tool('schemas')}/{{{{ .ResourceKind }}}}{{{{ .KindSuffix }}}}.json"
    command = [tool("kubeconform"), "-strict", "-output", "json", "-summary", "-schema-location", location, "-"]
    done = subprocess.run(command, input=manifests, capture_output=True, text=True, timeout=60)
    report = json.loads(done.stdout)
    assert "\n".join(f"{each['kind']} {each['name']}: {each['msg']}" for each in report["resources"]) == ""
    assert report["summary"]["valid"] == manifests.count("\nkind: ")
    assert done.returncode == 0


@requires_tool("helm")
@requires_tool("kubeconform")
@requires_tool("schemas")
@pytest.mark.parametrize("apis", [[], [KEDA]], ids=["without KEDA", "with KEDA"])
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_is_what_kubernetes_takes(example: Path, apis: list[str]) -> None:
    _hold(template(files=[example], apis=apis))


@requires_tool("helm")
@requires_tool("kubeconform")
@requires_tool("schemas")
@pytest.mark.parametrize(
    "values",
    [{}, EVERY_SWITCH, {"monitoring": {"podMonitor": {"enabled": True}}, "autoscaling": {"mode": "keda"}}],
    ids=["defaults", "every switch", "pod monitor and KEDA"],
)
def test_what_the_switches_render_is_what_kubernetes_takes(values: dict[str, Any]) -> None:
    _hold(template(values))


@requires_tool("helm")
@requires_tool("kubeconform")
@requires_tool("schemas")
def test_a_field_that_kubernetes_does_not_know_is_found() -> None:
    manifests = template().replace("terminationGracePeriodSeconds", "terminationGraceSeconds")
    with pytest.raises(AssertionError, match="terminationGraceSeconds"):
        _hold(manifests)


def test_the_schemas_are_of_the_kubernetes_that_is_rendered_for() -> None:
    assert f"k8s.io/kubernetes@v{KUBERNETES}" == schemas.KUBERNETES
    assert TOOLS["schemas"].version.startswith(f"v{KUBERNETES}-")


@requires_tool("schemas")
def test_the_compose_file_is_one() -> None:
    schema = json.loads((Path(tool("schemas")) / "compose-spec.json").read_text())
    jsonschema.Draft7Validator(schema).validate(yaml.safe_load((ROOT / "compose.yaml").read_text()))


def test_the_skaffold_file_is_one() -> None:
    schema = json.loads((Path(__file__).parent / "skaffold.schema.json").read_text())
    jsonschema.validate(yaml.safe_load((ROOT / "skaffold.yaml").read_text()), schema)


@requires_tool("helm")
@pytest.mark.parametrize("profile", [None, "dev", "local"])
def test_skaffolds_values_are_the_charts(profile: str | None) -> None:
    config = yaml.safe_load((ROOT / "skaffold.yaml").read_text())
    (release,) = config["deploy"]["helm"]["releases"]
    values = {**release["setValueTemplates"]}
    for each in config["profiles"]:
        if each["name"] == profile:
            (patch,) = each["patches"]
            assert (patch["op"], patch["path"]) == ("add", "/deploy/helm/releases/0/setValues")
            values |= patch["value"]
    nested: dict[str, Any] = {}
    for name, value in values.items():
        *path, last = name.split(".")
        place = nested
        for key in path:
            place = place.setdefault(key, {})
        place[last] = value
    rendered = template(nested, files=[ROOT / path for path in release["valuesFiles"]])
    services = {each["metadata"]["name"] for each in yaml.safe_load_all(rendered) if each and each["kind"] == "Service"}
    assert {forward["resourceName"] for forward in config["portForward"]} <= services


def test_the_dockerfile_is_linted() -> None:
    linter = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([linter, ROOT / "Dockerfile"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")
