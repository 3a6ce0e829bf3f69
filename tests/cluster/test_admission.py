"""The quick form of `make cluster`: every example is held before a real API server, which admits or refuses it. Nothing
runs. The whole form is ``python -m tests.cluster``.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chart.charts import EXAMPLES, KEDA, template
from tests.cluster import control_plane, programs
from tests.cluster.api import Api, until
from tests.cluster.processes import Processes
from tests.tools import requires_tool

pytestmark = [requires_tool("kubernetes"), requires_tool("helm")]

NAMESPACE = "llm"
ALL_OF_IT = {"autoscaling": {"mode": "hpa", "externalMetrics": {"enabled": True}}}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """An API server that knows the kinds of other makers, and has a namespace that takes safe pods only."""
    folder = tmp_path_factory.mktemp("cluster")
    processes = Processes(folder)
    try:
        api = control_plane.start_api_server(processes, folder, control_plane.on_loopback())
        api.kubectl("apply", "--server-side", "-f", programs.kubernetes("crds"))
        labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
        api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}})
        api.apply(account, namespace=NAMESPACE)  # which a controller makes where one runs
        until("the other makers' kinds", lambda: api.answers("/apis/keda.sh/v1alpha1/scaledobjects"))
        yield api
    finally:
        processes.stop()


@pytest.mark.parametrize("apis", [[], [KEDA]], ids=["without KEDA", "with KEDA"])
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_a_real_api_server_admits_every_example_without_a_warning(api: Api, example: Path, apis: list[str]) -> None:
    manifests = template(files=[example], apis=apis)
    admitted, warnings = held_before(api, manifests)
    assert len(admitted) == manifests.count("\nkind: ")
    assert warnings == ""


def test_it_admits_the_scaler_as_a_server_of_external_metrics(api: Api) -> None:
    admitted, warnings = held_before(api, template(ALL_OF_IT))
    assert "apiservice.apiregistration.k8s.io/v1beta1.external.metrics.k8s.io" in admitted
    assert warnings == ""


@pytest.mark.parametrize(
    ("right", "wrong", "sentence"),
    [
        ("revisionHistoryLimit:", "revisonHistoryLimit:", ".spec.revisonHistoryLimit: field not declared in schema"),
        ("allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true", "violates PodSecurity"),
    ],
    ids=["a field that Kubernetes does not know", "a pod that is not safe"],
)
def test_it_refuses_what_is_wrong(api: Api, right: str, wrong: str, sentence: str) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        held_before(api, template().replace(right, wrong))
    assert sentence in refused.value.stderr


def held_before(api: Api, manifests: str) -> tuple[list[str], str]:
    """What the API server would have made of manifests, and what it warns of. Raises CalledProcessError."""
    options = ("--server-side", "--dry-run=server", "--namespace", NAMESPACE, "-o", "name", "-f", "-")
    command = [programs.kubernetes("kubectl"), "apply", *options]
    done = subprocess.run(
        command, input=manifests, env=api.environ, capture_output=True, text=True, check=True, timeout=90
    )
    return done.stdout.split(), done.stderr
