"""What the chart promises: safe pods, the map's hops, stores that decide the shape, values that cannot be misspelt."""

import importlib
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from charts import values_table
from services.scaler import demand, targets
from shared.settings import PORTS, unknown_variables
from tests.chart.charts import CHART, EXAMPLES, KEDA, Release, RenderError, helm, template
from tests.mesh.mesh import ROOT
from tests.tools import requires_tool

pytestmark = requires_tool("helm")

MESH = ("router", "provider-proxy", "cache", "accounting")
EVERYTHING: dict[str, Any] = {
    "stores": {"cache": "redis", "ledger": "mongodb"},
    "redis": {"enabled": True},
    "mongodb": {"enabled": True},
}
HOPS: dict[str, set[str]] = {  # who calls whom, in the architecture's map
    "router": {"provider-proxy", "cache", "accounting"},
    "provider-proxy": {"accounting", "simulator"},
    "cache": {"redis"},
    "accounting": {"mongodb"},
    "simulator": set(),
    "scaler": set(MESH),
    "redis": set(),
    "mongodb": set(),
}
MONGODB: dict[str, Any] = {"stores": {"ledger": "mongodb"}, "mongodb": {"enabled": True}}


@pytest.fixture(scope="module")
def release() -> Release:
    """The chart as it is without any values."""
    return Release()


def test_helm_lint_is_content() -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", CHART)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_lints(example: Any) -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", CHART, "--values", example)


# --- values ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"services": {"router": {"replcias": 3}}}, "additional properties 'replcias' not allowed"),
        ({"serivces": {}}, "additional properties 'serivces' not allowed"),
        ({"services": {"roter": {}}}, "additional properties 'roter' not allowed"),
        ({"env": {"WORKER_CONNECTIONS": 500}}, "at '/env/WORKER_CONNECTIONS': got number, want string"),
        ({"autoscaling": {"mode": "kedda"}}, "at '/autoscaling/mode': value must be one of"),
        ({"secrets": {"auth": {"data": {"admin-key": "short"}}}}, "at '/secrets/auth/data/admin-key'"),
    ],
)
def test_a_misspelt_value_is_refused_by_name(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RenderError, match=re.escape(sentence)):
        template(values)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"services": {"accounting": {"replicas": 2}}}, "a SQLite ledger has one process, and 2 replicas"),
        ({"services": {"accounting": {"autoscaling": {"enabled": True}}}}, "a SQLite ledger has one process"),
        ({"services": {"simulator": {"replicas": 2}}}, "they keep one bill"),
        (
            {"services": {"scaler": {"replicas": 2}}, "autoscaling": {"mode": "keda"}},
            "the scaler is one process, so that autoscalers hear one voice",
        ),
        (
            {"autoscaling": {"mode": "keda", "externalMetrics": {"enabled": True}}},
            "KEDA serves external.metrics.k8s.io itself",
        ),
        ({"stores": {"cache": "redis"}}, "stores.cache is redis, but nothing says where it is"),
        ({"stores": {"ledger": "mongodb"}}, "stores.ledger is mongodb, but nothing says where it is"),
        ({"redis": {"enabled": True}, "secrets": {"stores": {"existingSecret": "mine"}}}, "redis.enabled: the chart's"),
        ({"ingress": {"http": {"enabled": True}}}, "ingress.http.hosts: name at least one host"),
        ({"gateway": {"grpc": {"enabled": True}}}, "gateway.parentRefs: name the Gateway"),
        (
            {"monitoring": {"podMonitor": {"enabled": True}, "serviceMonitor": {"enabled": True}}},
            "both would scrape every replica twice",
        ),
        (
            {"secrets": {"auth": {"existingSecret": "a", "externalSecret": {"refreshInterval": "1h"}}}},
            "give existingSecret or externalSecret, not both",
        ),
    ],
)
def test_values_that_cannot_be_together_fail_with_a_sentence(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RenderError, match=re.escape(sentence)):
        template(values)


def test_the_table_of_values_is_not_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["values_table.py", "--check"])
    assert values_table.main() == 0


def test_a_value_that_nothing_describes_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"does not describe a\.c"):
        values_table.table("a:\n  # -- Described\n  b: 1\n  c: 2\n")


# --- security --------------------------------------------------------------------------------------------------------
POD_SECURITY = {
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "runAsGroup": 65532,
    "fsGroup": 65532,
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}
CONTAINER_SECURITY = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def test_every_pod_is_locked_down() -> None:
    pods = dict(Release({**EVERYTHING, "autoscaling": {"mode": "keda"}}).pods())
    assert set(pods) == {*MESH, "scaler", "simulator", "redis", "mongodb", "test"}
    for name, pod in pods.items():
        spec = pod["spec"]
        foreign = name in ("redis", "mongodb")  # their images' own user
        owner = {"runAsUser": 999, "runAsGroup": 999, "fsGroup": 999} if foreign else {}
        assert spec["securityContext"] == {**POD_SECURITY, **owner}, name
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["enableServiceLinks"] is False, name
        for container in spec["containers"]:
            assert container["securityContext"] == CONTAINER_SECURITY, name
            assert "memory" in container["resources"]["limits"], name
            assert "cpu" not in container["resources"]["limits"], name


def test_accounts_have_no_token(release: Release) -> None:
    accounts = release.all("ServiceAccount")
    assert set(accounts) == {*MESH, "simulator"}
    assert all(each["automountServiceAccountToken"] is False for each in accounts.values())


def test_secrets_reach_only_those_who_need_them() -> None:
    release = Release({**EVERYTHING, "secrets": {"providers": {"data": {"OPENAI_API_KEY": "sk-test"}}}})
    sources = {
        name: str([container.get("env", []) + container.get("envFrom", []) for container in pod["spec"]["containers"]])
        for name, pod in release.pods()
    }
    assert {name for name, text in sources.items() if "mux-modelmuxer-providers" in text} == {"provider-proxy"}
    assert {name for name, text in sources.items() if "'REDIS_URL'" in text} == {"cache"}
    assert {name for name, text in sources.items() if "'MONGODB_URL'" in text} == {"accounting"}
    assert {name for name, text in sources.items() if "'mesh-token'" in text} == set(MESH)
    assert "sk-test" not in str(list(release.pods()))


# --- probes and stops ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", MESH)
def test_probes_ask_health_over_grpc(release: Release, name: str) -> None:
    container = release.pod(name)["spec"]["containers"][0]
    port = PORTS[name.replace("-", "_")]
    assert container["startupProbe"]["grpc"] == {"port": port, "service": ""}
    assert container["livenessProbe"]["grpc"] == {"port": port, "service": ""}
    assert container["readinessProbe"]["grpc"] == {"port": port, "service": "readiness"}


@pytest.mark.parametrize("name", MESH)
def test_a_pod_has_more_time_to_stop_than_the_drain_takes(name: str) -> None:
    drain = {"waitSeconds": 7.5, "graceSeconds": 33}
    release = Release({"services": {name: {"drain": drain}}})
    environ = release.environ(name)
    assert (environ["MODELMUXER_DRAIN_WAIT_S"], environ["MODELMUXER_GRACE_S"]) == ("7.5", "33")
    # shared.runner: the wait, a grace each for tunnels and HTTP, plain gRPC, and others' flights, then calls settle.
    assert release.pod(name)["spec"]["terminationGracePeriodSeconds"] >= math.ceil(7.5) + 3 * 33 + 10


def test_a_roll_out_takes_no_replica_before_its_successor_is_ready(release: Release) -> None:
    for name in ("router", "provider-proxy", "cache"):
        assert release.one("Deployment", name)["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


# --- settings --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["embedded stores", "Redis and MongoDB"])
@pytest.mark.parametrize("name", [*MESH, "scaler"])
def test_each_service_takes_the_environment_that_it_is_given(name: str, values: dict[str, Any]) -> None:
    """The service's own settings class reads what the chart writes: a renamed variable would be refused here."""
    module = name.replace("-", "_")
    settings = importlib.import_module(f"services.{module}.settings")
    (own,) = (each for each in vars(settings).values() if getattr(each, "service", "") == module)
    switches = {"telemetry": {"otlpEndpoint": "http://collector:4317"}, "autoscaling": {"mode": "keda"}}
    environ = Release({**switches, **values}).resolved(name)
    loaded = own.load(environ)
    assert unknown_variables(environ) == []
    assert (loaded.replica, loaded.port) == ("the-pods-name", PORTS[module])
    assert len(loaded.mesh_token) == 43
    behind = "-replicas" if name == "scaler" else ""
    for called in HOPS[name] & set(MESH):
        port = PORTS[called.replace("-", "_")]
        assert getattr(loaded, f"{called.replace('-', '_')}_address") == f"mux-modelmuxer-{called}{behind}:{port}"


def test_environment_is_laid_over_in_order() -> None:
    release = Release(
        {
            "env": {"CACHE_TTL": "1", "WORKER_CONNECTIONS": "10"},
            "services": {"cache": {"env": {"CACHE_TTL": "2", "MODELMUXER_LOG_FORMAT": "text"}}},
        }
    )
    environ = release.environ("cache")
    assert (environ["CACHE_TTL"], environ["WORKER_CONNECTIONS"]) == ("2", "10")
    assert environ["MODELMUXER_LOG_FORMAT"] == "text"
    assert release.environ("router")["CACHE_TTL"] == "1"


# --- shape -----------------------------------------------------------------------------------------------------------
def test_sqlite_makes_accounting_a_stateful_set_of_one(release: Release) -> None:
    accounting = release.one("StatefulSet", "accounting")
    assert accounting["spec"]["replicas"] == 1
    assert accounting["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"] == "10Gi"


def test_mongodb_lets_accounting_have_replicas() -> None:
    release = Release({**MONGODB, "services": {"accounting": {"replicas": 3}}})
    assert release.one("Deployment", "accounting")["spec"]["replicas"] == 3
    assert release.environ("accounting")["MODELMUXER_LEDGER_STORE"] == "mongodb"


def test_journals_on_claims_make_stateful_sets() -> None:
    release = Release({"journals": {"volume": "claim", "size": "3Gi", "storageClassName": "fast"}})
    for name in ("router", "provider-proxy"):
        claim = release.one("StatefulSet", name)["spec"]["volumeClaimTemplates"][0]["spec"]
        assert (claim["resources"]["requests"]["storage"], claim["storageClassName"]) == ("3Gi", "fast")
    scaled = release.one("HorizontalPodAutoscaler", "router")["spec"]["scaleTargetRef"]
    assert scaled["kind"] == "StatefulSet"


def test_zero_replicas_can_be_said() -> None:
    release = Release({"services": {"cache": {"replicas": 0}, "provider-proxy": {"replicas": 0}}})
    assert release.one("Deployment", "cache")["spec"]["replicas"] == 0
    assert release.one("Deployment", "provider-proxy")["spec"]["replicas"] == 0
    assert "provider-proxy" not in release.all("HorizontalPodAutoscaler")


def test_providers_are_simulated_until_there_is_a_key() -> None:
    assert "simulator" in Release().all("Deployment")
    for values in (
        {"secrets": {"providers": {"existingSecret": "keys"}}},
        {"secrets": {"providers": {"data": {"OPENAI_API_KEY": "sk"}}}},
        {"services": {"provider-proxy": {"env": {"VLLM_BASE_URL": "http://vllm:8000/v1"}}}},
        {"simulate": "never"},
    ):
        real = Release(values)
        assert "simulator" not in real.all("Deployment"), values
        assert "MODELMUXER_SIMULATOR_URL" not in real.environ("provider-proxy"), values
    both = Release({"simulate": "always", "secrets": {"providers": {"existingSecret": "keys"}}})
    assert both.environ("router")["MODELMUXER_SIMULATOR_URL"] == "http://mux-modelmuxer-simulator:8090"


def test_the_catalogue_is_mounted_as_a_folder_so_that_a_change_arrives() -> None:
    content = {"aliases": {"support": {"targets": ["openai/gpt-4o-mini"], "strategy": "ordered"}}}
    release, other = Release({"catalogue": {"content": content}}), Release()
    assert yaml.safe_load(release.one("ConfigMap", "catalogue")["data"]["catalogue.yaml"]) == content
    for name in ("router", "provider-proxy"):
        (mount,) = [
            each for each in release.pod(name)["spec"]["containers"][0]["volumeMounts"] if each["name"] == "catalogue"
        ]
        assert "subPath" not in mount  # the kubelet never updates one
        assert release.environ(name)["MODELMUXER_CONFIG"] == mount["mountPath"] + "/catalogue.yaml"
        assert release.pod(name) == other.pod(name), "a change of the catalogue must not restart pods"
    mine = Release({"catalogue": {"existingConfigMap": "mine"}})
    assert "catalogue" not in mine.all("ConfigMap")
    assert {"name": "catalogue", "configMap": {"name": "mine"}} in mine.pod("router")["spec"]["volumes"]


def test_redis_and_mongodb_bring_their_passwords() -> None:
    release = Release(EVERYTHING)
    data = release.one("Secret", "stores")["stringData"]
    assert data["REDIS_URL"] == f"redis://:{data['redis-password']}@mux-modelmuxer-redis:6379/0"
    assert f"modelmuxer:{data['mongodb-password']}@mux-modelmuxer-mongodb:27017/modelmuxer" in data["MONGODB_URL"]
    assert release.one("Service", "redis")["spec"]["ports"][0]["port"] == 6379


def test_secrets_of_ones_own_replace_the_charts() -> None:
    release = Release({"secrets": {"auth": {"existingSecret": "mine"}, "providers": {"existingSecret": "keys"}}})
    assert not release.all("Secret")
    assert release.environ("router")["MODELMUXER_MESH_TOKEN"]["secretKeyRef"]["name"] == "mine"
    assert release.pod("provider-proxy")["spec"]["containers"][0]["envFrom"] == [{"secretRef": {"name": "keys"}}]


def test_external_secrets_make_the_secrets() -> None:
    spec = {"secretStoreRef": {"name": "vault", "kind": "ClusterSecretStore"}, "dataFrom": [{"extract": {"key": "k"}}]}
    release = Release({"secrets": {"auth": {"externalSecret": spec}}})
    made = release.one("ExternalSecret", "auth")["spec"]
    assert made == {**spec, "target": {"name": "mux-modelmuxer-auth"}}
    assert "auth" not in release.all("Secret")


# --- network ---------------------------------------------------------------------------------------------------------
def test_network_policies_allow_the_maps_hops_and_no_other() -> None:
    policies = Release({**EVERYTHING, "autoscaling": {"mode": "keda"}}).all("NetworkPolicy")
    assert {name: set(_components(policy["spec"]["egress"], "to")) for name, policy in policies.items()} == HOPS
    for name, policy in policies.items():
        callers = {caller for caller, called in HOPS.items() if name in called}
        assert set(_components(policy["spec"]["ingress"], "from")) == callers, name


def test_tunnels_have_a_port_that_policies_let_through(release: Release) -> None:
    policies = release.all("NetworkPolicy")
    for name in MESH:
        service = name.replace("-", "_")
        (container,) = release.pod(name)["spec"]["containers"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert ports["tunnel"] == PORTS[service] + 2000
        assert release.environ(name)[f"MODELMUXER_{service.upper()}_TUNNEL_PORT"] == str(ports["tunnel"])
        assert policies[name]["spec"]["ingress"][0]["ports"][:2] == [{"port": "grpc"}, {"port": "tunnel"}]
    leaves = policies["router"]["spec"]["egress"][1:4]
    assert [rule["ports"] for rule in leaves] == [[{"port": "grpc"}, {"port": "tunnel"}]] * 3


def test_only_the_proxy_leaves_the_cluster(release: Release) -> None:
    for name, policy in release.all("NetworkPolicy").items():
        leaves = "ipBlock" in str(policy["spec"]["egress"])
        assert leaves == (name == "provider-proxy"), name


def test_callers_of_the_faces_can_be_named() -> None:
    peer = {"namespaceSelector": {"matchLabels": {"team": "apps"}}}
    rules = Release({"networkPolicy": {"callers": [peer]}}).one("NetworkPolicy", "router")["spec"]["ingress"]
    faces = [rule for rule in rules if {"port": "http"} in rule["ports"]]
    assert peer in faces[0]["from"]
    assert _components(faces, "from") == ["test"]  # `helm test` still calls


def test_network_policies_can_be_switched_off() -> None:
    assert not Release({"networkPolicy": {"enabled": False}}).all("NetworkPolicy")


def test_services_are_headless_and_the_faces_have_an_address(release: Release) -> None:
    services = release.all("Service")
    for name in MESH:
        assert services[name]["spec"]["clusterIP"] == "None"
        ports = {port["name"]: port["port"] for port in services[name]["spec"]["ports"]}
        assert ports["grpc"] == PORTS[name.replace("-", "_")]
        assert ports["metrics"] == ports["grpc"] + 1000
    assert "clusterIP" not in services[""]["spec"]
    assert {port["name"]: port["port"] for port in services[""]["spec"]["ports"]} == {"grpc": 50051, "http": 8000}


def test_every_selector_finds_exactly_its_pods() -> None:
    release = Release({**EVERYTHING, "autoscaling": {"mode": "keda"}})
    labels = {name: pod["metadata"]["labels"] for name, pod in release.pods()}
    for kind in ("Service", "NetworkPolicy", "PodDisruptionBudget"):
        for name, each in release.all(kind).items():
            spec = each["spec"]
            wanted = spec.get("podSelector", spec.get("selector"))
            wanted = wanted.get("matchLabels", wanted)
            found = {pod for pod, given in labels.items() if wanted.items() <= given.items()}
            assert found == {name.removesuffix("-replicas") or "router"}, (kind, name)


def test_ingresses_lead_to_the_faces() -> None:
    release = Release(
        {
            "ingress": {
                "http": {
                    "enabled": True,
                    "className": "nginx",
                    "hosts": ["a.example"],
                    "tls": [{"hosts": ["a.example"]}],
                },
                "grpc": {"enabled": True, "hosts": ["b.example"]},
            }
        }
    )
    for face in ("http", "grpc"):
        (rule,) = release.one("Ingress", face)["spec"]["rules"]
        backend = rule["http"]["paths"][0]["backend"]["service"]
        assert backend == {"name": "mux-modelmuxer", "port": {"name": face}}
    assert release.one("Ingress", "http")["spec"]["ingressClassName"] == "nginx"


def test_routes_of_the_gateway_api_lead_to_the_faces() -> None:
    gateway = {"parentRefs": [{"name": "public"}], "http": {"enabled": True}, "grpc": {"enabled": True}}
    release = Release({"gateway": gateway})
    for kind, port in (("HTTPRoute", 8000), ("GRPCRoute", 50051)):
        spec = release.one(kind, "")["spec"]
        assert spec["parentRefs"] == [{"name": "public"}]
        assert spec["rules"][0]["backendRefs"] == [{"name": "mux-modelmuxer", "port": port}]


# --- scaling ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("mode", "apis", "kind"),
    [
        ("auto", [], "HorizontalPodAutoscaler"),
        ("auto", [KEDA], "ScaledObject"),
        ("keda", [], "ScaledObject"),
        ("hpa", [KEDA], "HorizontalPodAutoscaler"),
        ("off", [KEDA], None),
    ],
)
def test_the_mode_decides_what_scales(mode: str, apis: list[str], kind: str | None) -> None:
    release = Release({"autoscaling": {"mode": mode}}, apis=apis)
    made = {each for each in ("HorizontalPodAutoscaler", "ScaledObject") if release.all(each)}
    assert made == ({kind} if kind else set())
    for name in ("router", "provider-proxy"):
        # An upgrade must not undo what the autoscaler did.
        assert ("replicas" in release.one("Deployment", name)["spec"]) == (kind is None)


def test_hpas_are_the_users_guides(release: Release) -> None:
    spec = release.one("HorizontalPodAutoscaler", "router")["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 10)
    targets = {each["resource"]["name"]: each["resource"]["target"]["averageUtilization"] for each in spec["metrics"]}
    assert targets == {"cpu": 70, "memory": 80}
    assert spec["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 300


def test_keda_asks_the_scaler() -> None:
    release = Release({"autoscaling": {"mode": "keda"}})
    spec = release.one("ScaledObject", "provider-proxy")["spec"]
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (2, 10)
    (trigger,) = spec["triggers"]
    assert (trigger["type"], trigger["metricType"]) == ("external", "AverageValue")
    address = trigger["metadata"]["scalerAddress"]
    assert address == "mux-modelmuxer-scaler.llm:50055"  # from another namespace
    assert release.one("Service", "scaler")["spec"]["ports"][0] == {
        "name": "grpc",
        "port": 50055,
        "targetPort": "grpc",
        "appProtocol": "kubernetes.io/h2c",
    }
    service, wanted = targets.read(trigger["metadata"], MESH, targets.Targets())
    assert service == "provider-proxy"
    assert wanted == targets.Targets()  # the chart's defaults are the scaler's own


def test_the_scaler_sees_replicas_that_are_not_ready() -> None:
    release = Release({"autoscaling": {"mode": "keda"}})
    for name in MESH:
        replicas = release.one("Service", f"{name}-replicas")["spec"]
        assert (replicas["clusterIP"], replicas["publishNotReadyAddresses"]) == ("None", True)
        assert replicas["selector"] == release.one("Service", name)["spec"]["selector"]
    assert not any("replicas" in name for name in Release().all("Service"))


def test_hpas_go_by_health_without_keda_where_the_scaler_serves_the_metrics() -> None:
    release = Release({"autoscaling": {"externalMetrics": {"enabled": True}}})
    metrics = release.one("HorizontalPodAutoscaler", "router")["spec"]["metrics"]
    external = {each["external"]["metric"]["name"]: each["external"] for each in metrics if each["type"] == "External"}
    assert set(external) == {demand.LOAD_METRIC, demand.TIME_METRIC}
    assert external[demand.LOAD_METRIC]["target"] == {"type": "AverageValue", "averageValue": f"{demand.LOAD_TARGET:g}"}
    service, wanted = targets.read(
        external[demand.LOAD_METRIC]["metric"]["selector"]["matchLabels"], MESH, targets.Targets()
    )
    assert (service, wanted.least_replicas) == ("router", 2)
    (api,) = (each for each in release.objects if each["kind"] == "APIService")
    assert api["spec"]["service"] == {"name": "mux-modelmuxer-scaler", "namespace": "llm", "port": 443}
    ports = {each["name"]: each["targetPort"] for each in release.one("Service", "scaler")["spec"]["ports"]}
    assert ports["external"] == "external"
    assert release.environ("scaler")["MODELMUXER_EXTERNAL_METRICS_PORT"] == "8443"


def test_no_scaler_runs_where_nobody_asks_it(release: Release) -> None:
    assert "scaler" not in release.all("Deployment")
    assert "scaler" not in Release({"autoscaling": {"mode": "off", "externalMetrics": {"enabled": True}}}).all(
        "Deployment"
    )


def test_disruption_budgets_stand_where_there_are_replicas(release: Release) -> None:
    assert set(release.all("PodDisruptionBudget")) == {"router", "provider-proxy"}
    two = Release({"services": {"cache": {"replicas": 2}, "router": {"podDisruptionBudget": {"enabled": False}}}})
    assert set(two.all("PodDisruptionBudget")) == {"provider-proxy", "cache"}


def test_replicas_spread_over_nodes_and_zones(release: Release) -> None:
    spread = release.pod("router")["spec"]["topologySpreadConstraints"]
    assert [each["topologyKey"] for each in spread] == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
    assert all(each["labelSelector"]["matchLabels"]["app.kubernetes.io/component"] == "router" for each in spread)


# --- monitoring ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("switch", "kind"),
    [("podMonitor", "PodMonitor"), ("serviceMonitor", "ServiceMonitor"), ("prometheusRule", "PrometheusRule")],
)
def test_each_monitor_has_its_switch(release: Release, switch: str, kind: str) -> None:
    assert not release.all(kind)
    made = Release({"monitoring": {switch: {"enabled": True, "labels": {"release": "prometheus"}}}}).one(kind, "")
    assert made["metadata"]["labels"]["release"] == "prometheus"


def test_monitors_select_the_mesh_and_only_once() -> None:
    release = Release({"monitoring": {"serviceMonitor": {"enabled": True}}})
    wanted = release.one("ServiceMonitor", "")["spec"]["selector"]["matchLabels"]
    found = {
        name
        for name, service in release.all("Service").items()
        if wanted.items() <= service["metadata"]["labels"].items()
        and any(port["name"] == "metrics" for port in service["spec"]["ports"])
    }
    assert found == set(MESH)


def test_rules_and_dashboards_come_whole() -> None:
    release = Release(
        {
            "monitoring": {
                "prometheusRule": {"enabled": True, "runbookBaseUrl": "https://git.example/"},
                "dashboards": {"enabled": True},
            }
        }
    )
    rules = [rule for group in release.one("PrometheusRule", "")["spec"]["groups"] for rule in group["rules"]]
    assert rules
    assert all(rule["annotations"]["runbook_url"].startswith("https://git.example/docs/runbooks/") for rule in rules)
    dashboards = release.one("ConfigMap", "dashboards")
    assert dashboards["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert set(dashboards["data"]) == {path.name for path in (CHART / "dashboards").iterdir()}


# --- helm test and notes ---------------------------------------------------------------------------------------------
def test_helm_test_calls_both_faces(release: Release) -> None:
    pod = release.one("Pod", "test")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    commands = {container["name"]: container["command"] for container in pod["spec"]["containers"]}
    assert commands["grpc"][:2] == ["mux", "chat"]
    compile(commands["http"][2], "call.py", "exec")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({}, "because this cluster has no KEDA"),
        ({"autoscaling": {"mode": "off"}}, "Nothing scales by itself"),
        ({}, "simulated providers answer"),
        ({"stores": {"ledger": "sqlite"}}, "set stores.ledger=mongodb"),
    ],
)
def test_the_notes_say_what_one_got(tmp_path: Path, values: dict[str, Any], sentence: str) -> None:
    notes = " ".join(
        Release(values, chart=_with_notes_as_an_object(tmp_path)).one("ConfigMap", "notes")["data"]["text"].split()
    )
    assert "mux chat" in notes
    assert sentence in notes


def _with_notes_as_an_object(folder: Path) -> Path:
    """A copy of the chart which renders its notes where `helm template` shows them: it prints none itself."""
    chart = folder / "modelmuxer"
    shutil.copytree(CHART, chart)
    notes = (chart / "templates" / "NOTES.txt").read_text()
    (chart / "templates" / "notes.yaml").write_text(
        '{{- define "notes" }}' + notes + "{{ end }}\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: notes}\n"
        'data:\n  text: |\n    {{- include "notes" . | nindent 4 }}\n'
    )
    return chart


def _components(rules: list[dict[str, Any]], side: str) -> list[str]:
    """Whom rules name by component."""
    return [
        peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
        for rule in rules
        for peer in rule.get(side, [])
        if "podSelector" in peer
    ]


# --- the capacity plan -----------------------------------------------------------------------------------------------
def test_the_capacity_plan_is_what_the_guides_examples_ask_for() -> None:
    plan = (ROOT / "docs" / "capacity.md").read_text()
    releases = [Release(files=[CHART / "examples" / f"{rate}-per-minute.yaml"]) for rate in ("1000", "5000", "50000")]
    asked = [_requested(release) for release in releases]
    columns = " | ".join(f"{cpu:.3g} vCPU, {gib:.1f} GiB" for cpu, gib in asked)
    assert f"| requested of the cluster, at the least replicas | {columns} |" in plan
    for name in ("router", "provider-proxy"):
        row = next(line for line in plan.splitlines() if line.startswith(f"| **{name} replicas**"))
        assert [int(each) for each in re.findall(r"\*\*(\d+)\*\*", row)] == [each.replicas(name) for each in releases]


def _requested(release: Release) -> tuple[float, float]:
    """CPU and GiB of memory of all replicas."""
    cpu = gib = 0.0
    for name, pod in release.pods():
        if name == "test":
            continue
        requests = pod["spec"]["containers"][0]["resources"]["requests"]
        cpu += release.replicas(name) * float(requests["cpu"].removesuffix("m")) / 1000
        gib += release.replicas(name) * float(requests["memory"].removesuffix("Mi")) / 1024
    return cpu, gib
