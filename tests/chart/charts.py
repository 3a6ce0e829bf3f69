"""Renders the chart with real helm, as `helm install` would on a cluster of a given kind."""

import functools
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.mesh.mesh import ROOT
from tests.tools import tool

CHART = ROOT / "charts" / "modelmuxer"
EXAMPLES = sorted((CHART / "examples").glob("*.yaml"))
KUBERNETES = "1.34.4"
KEDA = "keda.sh/v1alpha1/ScaledObject"

Object = dict[str, Any]


class RenderError(Exception):
    """What helm said."""


def helm(*arguments: str | Path, stdin: str | None = None) -> str:
    """Runs helm and returns what it printed. Raises RenderError."""
    command = [tool("helm"), *map(str, arguments)]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise RenderError(done.stdout + done.stderr)
    return done.stdout


def template(
    values: Mapping[str, Any] | None = None,
    *,
    files: Sequence[Path] = (),
    apis: Sequence[str] = (),
    chart: Path = CHART,
) -> str:
    """The manifests, tests' hooks included."""
    return _rendered(yaml.safe_dump(values or {}), tuple(files), tuple(apis), chart)


@functools.cache
def _rendered(values: str, files: tuple[Path, ...], apis: tuple[str, ...], chart: Path) -> str:
    arguments: list[str | Path] = ["template", "mux", chart, "--namespace", "llm", "--kube-version", KUBERNETES]
    for file in files:
        arguments += ["--values", file]
    for api in apis:
        arguments += ["--api-versions", api]
    return helm(*arguments, "--values", "-", stdin=values)


class Release:
    """What one set of values renders to."""

    def __init__(
        self,
        values: Mapping[str, Any] | None = None,
        *,
        files: Sequence[Path] = (),
        apis: Sequence[str] = (),
        chart: Path = CHART,
    ) -> None:
        manifests = template(values, files=files, apis=apis, chart=chart)
        self.objects: list[Object] = [each for each in yaml.load_all(manifests, yaml.CSafeLoader) if each]

    def all(self, kind: str) -> dict[str, Object]:
        """The objects of a kind, by name without the release's part ("" for the one that bears only that)."""
        return {_short(each["metadata"]["name"]): each for each in self.objects if each["kind"] == kind}

    def one(self, kind: str, name: str) -> Object:
        """One object."""
        return self.all(kind)[name]

    def pods(self) -> Iterator[tuple[str, Object]]:
        """The pod template of every workload, and the pods of tests."""
        for kind in ("Deployment", "StatefulSet"):
            for name, each in self.all(kind).items():
                yield name, each["spec"]["template"]
        yield from self.all("Pod").items()

    def pod(self, name: str) -> Object:
        """The pod template of a workload."""
        return dict(self.pods())[name]

    def environ(self, name: str) -> dict[str, Any]:
        """The environment of a workload's container: values, or what they come from."""
        container = self.pod(name)["spec"]["containers"][0]
        return {each["name"]: each.get("value", each.get("valueFrom")) for each in container["env"]}

    def resolved(self, name: str) -> dict[str, str]:
        """The same with what the kubelet puts in: the Secrets of this release, and the pod's name."""
        return {variable: self._value(value) for variable, value in self.environ(name).items()}

    def _value(self, value: Any) -> str:
        if isinstance(value, str):
            return value
        if "fieldRef" in value:
            return "the-pods-name"
        wanted = value["secretKeyRef"]
        return str(self.one("Secret", _short(wanted["name"]))["stringData"][wanted["key"]])

    def replicas(self, name: str) -> int:
        """The least replicas of a service."""
        scaled = self.all("HorizontalPodAutoscaler")
        workload = {**self.all("Deployment"), **self.all("StatefulSet")}[name]
        return int(scaled[name]["spec"]["minReplicas"] if name in scaled else workload["spec"]["replicas"])


def _short(name: str) -> str:
    return name.removeprefix("mux-modelmuxer").removeprefix("-")
