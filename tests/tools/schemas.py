"""Strict JSON schemas of what the chart renders and of the compose file, made from their makers' own Go modules.

A field that a schema does not name is an error: a misspelt one would otherwise be dropped in silence by the cluster.
"""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

KUBERNETES = "k8s.io/kubernetes@v1.34.4"
COMPOSE = "github.com/compose-spec/compose-go/v2@v2.9.1"
DEFINITIONS = {  # modules, and their custom resource definitions
    "sigs.k8s.io/gateway-api@v1.4.0": (
        "config/crd/standard/gateway.networking.k8s.io_httproutes.yaml",
        "config/crd/standard/gateway.networking.k8s.io_grpcroutes.yaml",
    ),
    "github.com/kedacore/keda/v2@v2.21.0": ("config/crd/bases/keda.sh_scaledobjects.yaml",),
    "github.com/prometheus-operator/prometheus-operator@v0.85.0": (
        "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml",
        "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
    ),
    "github.com/external-secrets/external-secrets@v1.3.2": (
        "config/crds/bases/external-secrets.io_externalsecrets.yaml",
    ),
}
KINDS = {
    *("Deployment", "StatefulSet", "Service", "ServiceAccount", "ConfigMap", "Secret", "Ingress", "NetworkPolicy"),
    *("PodDisruptionBudget", "HorizontalPodAutoscaler", "APIService", "Pod"),
}
DOWNLOAD_TIMEOUT_S = 900

Schema = dict[str, Any]


def build(folder: Path) -> None:
    """Writes `schemas/<kind>-<group>-<version>.json` for every kind, as kubeconform looks for them, and
    `schemas/compose-spec.json`."""
    schemas = folder / "schemas"
    schemas.mkdir()
    for name, schema in _schemas():
        (schemas / f"{name}.json").write_text(json.dumps(schema))


def _schemas() -> Iterator[tuple[str, Schema]]:
    swagger = json.loads((downloaded(KUBERNETES) / "api/openapi-spec/swagger.json").read_text())
    yield from _built_in(swagger["definitions"])
    for module, paths in DEFINITIONS.items():
        for path in paths:
            yield from _custom(yaml.safe_load((downloaded(module) / path).read_text()))
    yield "compose-spec", json.loads((downloaded(COMPOSE) / "schema/compose-spec.json").read_text())


def downloaded(module: str) -> Path:
    """Where Go keeps a module's files, after a download if need be."""
    output = subprocess.run(
        ["go", "mod", "download", "-json", module],
        check=True,
        stdout=subprocess.PIPE,
        timeout=DOWNLOAD_TIMEOUT_S,
        text=True,
    ).stdout
    return Path(json.loads(output)["Dir"])


def _built_in(definitions: dict[str, Schema]) -> Iterator[tuple[str, Schema]]:
    strict = {name: _strict(definition) for name, definition in definitions.items()}
    for name, definition in definitions.items():
        for kind in definition.get("x-kubernetes-group-version-kind", []):
            if kind["kind"] in KINDS:
                needed = _closure(name, strict)
                yield (
                    _file_name(kind["group"], kind["version"], kind["kind"]),
                    {
                        "$ref": f"#/definitions/{name}",
                        "definitions": {each: strict[each] for each in sorted(needed)},
                    },
                )


def _custom(definition: Schema) -> Iterator[tuple[str, Schema]]:
    spec = definition["spec"]
    for version in spec["versions"]:
        schema = _strict(version["schema"]["openAPIV3Schema"])
        schema["properties"]["metadata"] = {"type": "object"}
        yield _file_name(spec["group"], version["name"], spec["names"]["kind"]), schema


def _file_name(group: str, version: str, kind: str) -> str:
    return "-".join(part for part in (kind, group.split(".")[0], version) if part).lower()


def _strict(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {key: _strict(value) for key, value in schema.items() if not str(key).startswith("x-kubernetes")}
    if schema.get("format") == "int-or-string" or schema.get("x-kubernetes-int-or-string") is True:
        for key in ("type", "format", "anyOf"):
            strict.pop(key, None)
        strict["oneOf"] = [{"type": "string"}, {"type": "integer"}]
    open_ended = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if isinstance(schema.get("properties"), dict) and schema.get("type", "object") == "object" and not open_ended:
        strict["additionalProperties"] = False
    return strict


def _closure(name: str, definitions: dict[str, Schema]) -> set[str]:
    needed, waiting = {name}, [name]
    while waiting:
        for reference in _references(definitions[waiting.pop()]) - needed:
            needed.add(reference)
            waiting.append(reference)
    return needed


def _references(schema: Any) -> set[str]:
    if isinstance(schema, list):
        return {name for each in schema for name in _references(each)}
    if not isinstance(schema, dict):
        return set()
    found = {name for each in schema.values() for name in _references(each)}
    if isinstance(reference := schema.get("$ref"), str):
        found.add(reference.rpartition("/")[2])
    return found
