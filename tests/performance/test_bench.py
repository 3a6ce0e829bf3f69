"""The bench runs, on both faces and beside the floor, and says what it measured. Its figures are not judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.mesh.mesh import ROOT

LONGEST_S = 280  # 45 s of CPU, on a machine that may be busy with other tests
SERVICES = {"router", "provider-proxy", "cache", "accounting", "simulator"}

pytestmark = pytest.mark.timeout(LONGEST_S + 20)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Any:
    output = tmp_path_factory.mktemp("bench") / "bench.json"
    suites = ["mesh", "streams", "sustained", "cache", "hop", "profile"]
    command = [sys.executable, "-m", "tests.performance", *suites, "--quick", "--output", str(output)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LONGEST_S, check=False)
    assert done.returncode == 0, done.stderr
    assert "µs of CPU per request" in done.stdout
    return json.loads(output.read_text())


def rows(result: Any, suite: str) -> list[dict[str, Any]]:
    return [row for row in result["rows"] if row["suite"] == suite]


@pytest.mark.parametrize("suite", ["mesh", "streams", "sustained", "cache"])
def test_every_suite_answers_without_an_error_and_says_what_each_service_used(result: Any, suite: str) -> None:
    measured = rows(result, suite)
    assert measured
    for row in measured:
        assert row["errors"] == 0, row
        assert row["requests"] > 0
        assert row["cache_lookups"] > 0
        assert row["rps"] > 0
        assert 0 < row["p50_ms"] <= row["p99_ms"]
        assert row["cpu_us"].keys() == SERVICES | {"client"}
        assert row["rss_mb"].keys() == SERVICES


def test_both_faces_stand_beside_the_floor(result: Any) -> None:
    cases = {(row["case"], row["callers"]) for row in rows(result, "floor")}
    for row in rows(result, "mesh"):
        if "model chosen" not in row["case"]:
            assert (row["case"], row["callers"]) in cases
            assert row["rps_of_floor"] > 0
            assert row["rps_of_tunnel_floor"] > 0
    assert {"http unary", "grpc unary"} <= {row["case"] for row in rows(result, "mesh")}


def test_streams_tell_the_time_to_first_token_that_the_mesh_adds(result: Any) -> None:
    for row in rows(result, "streams") + rows(result, "sustained"):
        assert row["messages_per_s"] > 0
        assert row["added_ttft_p50_ms"] <= row["ttft_p50_ms"]
        assert "added_ttft_p99_ms" in row


def test_misses_miss_and_hits_hit(result: Any) -> None:
    hits = [row for row in rows(result, "cache") if "hits" in row["case"]]
    assert any(row["cache_hits"] for row in hits)  # not all of them: on a busy machine a look-up may give up in time
    others = [row for row in rows(result, "cache") + rows(result, "mesh") + rows(result, "streams") if row not in hits]
    assert not any(row["cache_hits"] for row in others)


def test_hits_stand_beside_the_misses_of_the_same_run(result: Any) -> None:
    beside = rows(result, "cache-hits")
    assert {row["case"] for row in beside} == {
        f"{store}: {face} hits" for store in ("cache", "cache-redis") for face in ("http", "grpc")
    }
    for row in beside:
        assert row["rps_of_misses"] > 0
        assert row["misses_cpu_of_hits"] > 0


def test_the_result_says_where_and_of_what_it_is(result: Any) -> None:
    assert {"date", "commit", "cores", "python", "versions", "tracing", "seconds_per_case"} <= result["metadata"].keys()


def test_the_profile_spreads_each_services_cpu_over_what_it_does(result: Any) -> None:
    (row,) = rows(result, "profile")
    assert row["errors"] == 0
    assert 0 < row["hops_of_request"] < 1
    for service in ("router", "provider-proxy"):
        assert sum(row["areas"][service].values()) == pytest.approx(1, abs=0.01)
        assert row["areas"][service]["the hop"] > 0
        assert row["hop_us_a_side"][service] > 0
