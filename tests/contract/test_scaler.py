"""The scaler against real services in processes: what KEDA reads is right whatever becomes of them."""

from __future__ import annotations

import json
import signal
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from modelmuxer.provider.v1.provider_pb2 import WatchProvidersRequest
from modelmuxer.provider.v1.provider_pb2_grpc import ProviderServiceStub

from tests.contract.scaler_fleet import TOKEN, Fleet, Process, fleet, until

CALM = {"cpuPercent": "100", "queueMs": "100000"}  # so that a busy machine does not load the fleet


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Fleet]:
    with fleet(tmp_path, 3) as started:
        started.until("serving", "serving", "serving")
        yield started


@contextmanager
def calls(proxy: Process, count: int) -> Iterator[None]:
    """Holds slots of a proxy by open streams."""
    with ExitStack() as stack:
        channel = stack.enter_context(grpc.insecure_channel(proxy.listening["grpc"]))
        stub = ProviderServiceStub(channel)
        for _ in range(count):
            stream = stub.WatchProviders(WatchProvidersRequest(), metadata=(("x-mesh-token", TOKEN),))
            stack.callback(stream.cancel)
            next(stream)
        yield


def test_kill_one_and_one_more_is_asked_for_until_it_is_back(three: Fleet) -> None:
    keda = three.keda(minReplicas="3", **CALM)
    assert keda.read() == 300
    victim = three.proxies[0]
    victim.send(signal.SIGKILL)
    three.until("sick", "serving", "serving")
    assert keda.read() == 400
    assert keda.replicas() == 4
    three.proxies[0] = Process(victim.module, victim.environ)
    try:
        three.proxies[0].started()
        three.until("serving", "serving", "serving")
        assert keda.read() == 300
    finally:
        three.proxies[0].close()


def test_one_that_stands_still_is_sick_though_its_connection_stands(three: Fleet) -> None:
    keda = three.keda(minReplicas="3", **CALM)
    three.proxies[1].send(signal.SIGSTOP)
    three.until("serving", "sick", "serving")
    assert keda.read() == 400
    assert "silent" in next(each.trouble for each in three.explain().replicas if each.state == "sick")
    three.proxies[1].send(signal.SIGCONT)
    three.until("serving", "serving", "serving")
    assert keda.read() == 300


def test_one_that_is_full_is_load_and_not_sickness(three: Fleet) -> None:
    keda = three.keda(slotsPercent="20", **CALM)
    assert keda.read() == 200
    with calls(three.proxies[2], 10):
        until(lambda: keda.read() == 500)  # 100 % of the slots of one, at 20 % a replica
        assert three.states() == ["serving"] * 3
        assert keda.replicas() == 5
    until(lambda: keda.read() == 200)


def test_one_that_drains_is_neither_sick_nor_load(three: Fleet) -> None:
    keda = three.keda(minReplicas="3", slotsPercent="20", **CALM)
    with calls(three.proxies[0], 10):
        until(lambda: keda.read() == 500)
        three.proxies[0].send(signal.SIGTERM)
        three.until("draining", "serving", "serving")
        assert keda.read() == 300
    three.proxies[0].process.wait(30)
    assert three.states() == ["draining", "serving", "serving"]  # and gone it is no sick one either
    assert keda.read() == 300
    assert three.explain().current == 2


def test_all_that_stand_still_change_nothing(three: Fleet) -> None:
    keda = three.keda(**CALM)
    for proxy in three.proxies:
        proxy.send(signal.SIGSTOP)
    three.until("sick", "sick", "sick")
    assert keda.read() == 300
    assert three.explain().panic


def test_one_that_has_not_served_yet_is_starting(tmp_path: Path) -> None:
    with fleet(tmp_path, 1) as started:
        started.until("serving")
        started.proxies[0].send(signal.SIGSTOP)
        environ = {**started.scaler.environ, "MODELMUXER_SCALER_PORT": "0"}
        newcomer = Process("services.scaler", environ).started()  # which has not seen it serve
        try:
            with grpc.insecure_channel(newcomer.listening["grpc"]) as channel:
                seen = Fleet(started.proxies, newcomer, channel)
                assert seen.states() == ["starting"]
                assert seen.keda(**CALM).read() == 100  # nothing has served: nothing is changed
                started.proxies[0].send(signal.SIGCONT)
                seen.until("serving")
                assert seen.keda(**CALM).read() == 200
        finally:
            newcomer.close()


def test_a_scaler_that_knows_no_replica_gives_an_error_and_no_number(three: Fleet, tmp_path: Path) -> None:
    environ = {**three.scaler.environ, "MODELMUXER_PROVIDER_PROXY_ADDRESS": "nowhere.invalid:50052"}
    lost = Process("services.scaler", environ).started()
    try:
        with grpc.insecure_channel(lost.listening["grpc"]) as channel:
            keda = Fleet([], lost, channel).keda()
            with pytest.raises(grpc.RpcError) as refused:
                keda.read()
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
            assert not keda.stub.IsActive(keda.object, timeout=10).result
    finally:
        lost.close()


def test_a_scaled_object_that_says_something_wrong_hears_what(three: Fleet) -> None:
    for metadata, sentence in (
        ({"minReplica": "2"}, "'minReplica' means nothing here"),
        ({"service": "worker"}, "service must be one of accounting, cache, provider-proxy, router"),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            three.keda(**metadata)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert sentence in str(refused.value.details())
    with pytest.raises(grpc.RpcError) as refused:
        three.keda().read("load")
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


def test_the_streams_tell_at_once_and_end_when_the_scaler_drains(three: Fleet) -> None:
    keda = three.keda()
    active, specs = keda.stub.StreamIsActive(keda.object), keda.stub.StreamMetricSpec(keda.object)
    assert next(active).result
    assert {spec.metricName: spec.targetSizeFloat for spec in next(specs).metricSpecs} == keda.specs
    three.scaler.send(signal.SIGTERM)
    assert list(active) == []
    assert list(specs) == []
    assert three.scaler.process.wait(10) == 0


def test_a_plain_autoscaler_reads_the_same_from_the_external_metrics_api(three: Fleet) -> None:
    base = f"https://{three.scaler.listening['external-metrics']}/apis/external.metrics.k8s.io/v1beta1"
    described = fetched(base)
    assert (described["kind"], described["groupVersion"]) == ("APIResourceList", "external.metrics.k8s.io/v1beta1")
    selector = "service%3Dprovider-proxy,minReplicas%3D3,cpuPercent%3D100,queueMs%3D100000"
    metric = f"{base}/namespaces/default/modelmuxer-load?labelSelector={selector}"
    (item,) = fetched(metric)["items"]
    assert (item["metricName"], item["value"]) == ("modelmuxer-load", "300000m")
    three.proxies[0].send(signal.SIGKILL)
    until(lambda: fetched(metric)["items"][0]["value"] == "400000m")
    for wrong, code in (
        (f"{base}/namespaces/default/modelmuxer-load", 400),
        (f"{base}/namespaces/default/modelmuxer-load?labelSelector=service+in+(a,b)", 400),
        (f"{base}/namespaces/default/load?labelSelector={selector}", 404),
    ):
        with pytest.raises(urllib.error.HTTPError) as refused:
            fetched(wrong)
        assert refused.value.code == code
        assert json.load(refused.value)["kind"] == "Status"


def test_mux_scale_shows_what_the_scaler_sees(three: Fleet) -> None:
    three.proxies[0].send(signal.SIGKILL)
    three.until("sick", "serving", "serving")
    shown = mux(three, "scale", "provider-proxy", "--explain")
    assert "1 sick: as many more are asked for." in shown
    assert three.proxies[0].listening["grpc"] in shown
    (demand,) = json.loads(mux(three, "scale", "provider-proxy", "--json"))["services"]
    assert (demand["service"], demand["sick"], demand["serving"], demand["current"]) == ("provider-proxy", 1, 2, 3)
    assert demand["wanted"] >= 3


def mux(fleet: Fleet, *arguments: str) -> str:
    command = [str(Path(sys.executable).with_name("mux")), *arguments]
    environ = {"MODELMUXER_SCALER_ADDRESS": fleet.scaler.listening["grpc"], "COLUMNS": "200"}
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=True, timeout=60).stdout


def fetched(url: str) -> dict[str, Any]:
    trusting = ssl.create_default_context()
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE
    with urllib.request.urlopen(url, timeout=10, context=trusting) as answer:
        return dict(json.load(answer))
