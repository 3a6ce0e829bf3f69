"""Replicas that come and go by what the scaler says of them."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from tests.cluster import release
from tests.cluster.api import ApiError, Object, until
from tests.cluster.callers import Crowd
from tests.cluster.cluster import Cluster
from tests.cluster.load import Load
from tests.cluster.release import FULL, NAMESPACE, Release
from tests.cluster.report import Report, Step

SERVICE = "provider-proxy"
LEAST, MOST = 2, 5
TAKES_CALLS_WITHIN_S = 3.0
LEAVES_WITHIN_S = 1.0
_LOOK_S = 0.05
_ANNOUNCED = "modelmuxer_journal_records_total"  # of kind announced: attempts that a replica was given

# So many that what is in flight wants five replicas of those that values.yaml sizes, four long.
CROWD = Crowd(face="tunnel", stream=True, callers=90, orders="ttft=200ms tps=5 tokens=60", pause_s=0.1)

# Work for the processor: whole answers, one after the other.
BUSY = Crowd(face="tunnel", stream=False, callers=16, orders="tokens=50")

Under = Callable[[str], AbstractContextManager[Step]]


class Scaling:
    """A release's provider-proxies under an autoscaler."""

    def __init__(self, cluster: Cluster, mesh: Release, report: Report) -> None:
        self._cluster = cluster
        self._mesh = mesh
        self._report = report

    def by_streams(self, under: Under, scaler: str) -> None:
        """2 → 5 → 2, by calls in flight, and how soon those that are new take calls."""
        with under(f"{scaler} scales {SERVICE} {LEAST} → {MOST}") as step:
            self._mesh.until_settled(SERVICE, LEAST)
            newcomers = Newcomers(self._mesh)
            crowd = Load(FULL, NAMESPACE, self._mesh.key, self._cluster.folder, [CROWD])
            crowd.__enter__()
            try:
                began = time.monotonic()
                until(f"{MOST} wanted", lambda: self._mesh.wanted(SERVICE) == MOST, 90.0)
                step.note(f"{MOST} wanted after {time.monotonic() - began:.1f} s")
                self._mesh.until_settled(SERVICE, MOST)
                step.note(f"ready after {time.monotonic() - began:.1f} s")
                taken = newcomers.take_calls(MOST - LEAST)
                step.expect(len(taken) == MOST - LEAST, f"only {len(taken)} of the new replicas took calls")
                step.note(f"calls {', '.join(f'{each:.1f}' for each in sorted(taken))} s after readiness")
                step.expect(max(taken, default=0.0) <= TAKES_CALLS_WITHIN_S, "a new replica took its time")
            finally:
                newcomers.stop()
                crowd.stop()
            failed = crowd.during(began).failed
            step.expect(not failed, f"of the crowd's calls failed: {crowd.during(began).errors()}")
        with under(f"{scaler} scales {SERVICE} {MOST} → {LEAST}") as step:
            began = time.monotonic()
            until(f"{LEAST} wanted", lambda: self._mesh.wanted(SERVICE) == LEAST, 120.0)
            step.note(f"{LEAST} wanted after {time.monotonic() - began:.1f} s")
            self._mesh.until_settled(SERVICE, LEAST, 120.0)

    def sees_every_metric(self) -> None:
        """The autoscaler has a figure for each metric that it goes by."""
        with self._report.step("the HPA reads CPU, memory and the scaler's metrics") as step:

            def read() -> list[str] | None:
                seen = self._mesh.autoscaler(SERVICE).get("status", {}).get("currentMetrics") or []
                names = [_name_of(each) for each in seen if each["type"]]  # which is empty before the first look
                return names if {"cpu", "memory", "modelmuxer-load", "modelmuxer-added-time"} <= set(names) else None

            step.note(", ".join(until("every metric read", read, 90.0)))

    def by_processor_time(self) -> None:
        """More replicas for more work, by CPU alone, and fewer when it is over."""
        with self._report.step(f"an HPA scales {SERVICE} up by CPU") as step:
            self._mesh.until_settled(SERVICE, LEAST, 120.0)
            began = time.monotonic()
            with Load(FULL, NAMESPACE, self._mesh.key, self._cluster.folder, [BUSY]) as load:
                until("more wanted", lambda: self._mesh.wanted(SERVICE) > LEAST, 90.0)
                wanted = self._mesh.wanted(SERVICE)
                step.note(f"{wanted} wanted after {time.monotonic() - began:.1f} s")
                until("more ready", lambda: len(self._mesh.ready(SERVICE)) > LEAST, 90.0)
            failed = load.during(began).failed
            step.expect(not failed, f"calls failed: {load.during(began).errors()}")
        with self._report.step(f"an HPA scales {SERVICE} down to {LEAST}"):
            self._mesh.until_settled(SERVICE, LEAST, 180.0)

    def set_aside(self, under: Under) -> None:
        """A replica that says NOT_SERVING gets no calls, and another is asked for until it is back."""
        with under(f"set aside a {SERVICE}: NOT_SERVING") as step:
            pod = self._mesh.until_settled(SERVICE, LEAST)[0]
            process = self._mesh.process_of(pod)
            until("calls at the replica", lambda: _rises(pod), 20.0)
            before = _announced(pod)
            began = time.monotonic()
            os.kill(process, signal.SIGUSR1)
            came, last = _calls_after(pod, before, began, 3.0)
            left = last - began
            step.note(f"traffic had left after {left:.2f} s ({came:.0f} calls)")
            step.expect(left <= LEAVES_WITHIN_S, f"calls came for {left:.2f} s")
            until("one more wanted", lambda: self._mesh.wanted(SERVICE) == LEAST + 1, 60.0)
            step.note(f"one more wanted after {time.monotonic() - began:.1f} s")
            until("one more ready", lambda: len(self._others_ready(pod)) == LEAST, 60.0)
            step.note(f"ready after {time.monotonic() - began:.1f} s")
            until("not ready for Kubernetes either", lambda: not release.is_ready(self._again(pod)), 20.0)
            step.expect(_restarts(self._again(pod)) == _restarts(pod), "the replica set aside was restarted")
        with under("take it back") as step:
            began = time.monotonic()
            shell = ("sh", "-c", "kill -USR2 1")
            self._mesh.api.kubectl("exec", release.name(pod), "-n", NAMESPACE, "--", *shell)
            until("calls at the replica", lambda: _rises(pod), 20.0)
            step.note(f"calls again after {time.monotonic() - began:.1f} s")
            until(f"{LEAST} wanted", lambda: self._mesh.wanted(SERVICE) == LEAST, 90.0)
            self._mesh.until_settled(SERVICE, LEAST, 120.0)

    def _others_ready(self, pod: Object) -> list[Object]:
        return [each for each in self._mesh.ready(SERVICE) if release.uid(each) != release.uid(pod)]

    def _again(self, pod: Object) -> Object:
        """The same pod as it is now."""
        return next(each for each in self._mesh.pods(SERVICE) if release.uid(each) == release.uid(pod))


def _name_of(metric: Object) -> str:
    return str(metric[metric["type"].lower()].get("name") or metric[metric["type"].lower()]["metric"]["name"])


class Newcomers:
    """Watches replicas that were not there before: when each is ready, and when it takes its first call."""

    def __init__(self, mesh: Release) -> None:
        self._mesh = mesh
        self._known = {release.uid(pod) for pod in mesh.pods(SERVICE)}
        self._pods: dict[str, Object] = {}
        self._ready: dict[str, float] = {}
        self._first: dict[str, float] = {}
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._watch, self._look)]
        for thread in self._threads:
            thread.start()

    def take_calls(self, count: int, timeout_s: float = 20.0) -> list[float]:
        """Waits until so many have taken a call, and returns how long after its readiness each did."""
        deadline = time.monotonic() + timeout_s
        while len(self._first) < count and time.monotonic() < deadline:
            self._stopping.wait(_LOOK_S)
        return [max(0.0, first - self._ready[each]) for each, first in self._first.items() if each in self._ready]

    def stop(self) -> None:
        """Looks no longer."""
        self._stopping.set()

    def _watch(self) -> None:
        path = f"/api/v1/namespaces/{NAMESPACE}/pods?watch=1&labelSelector={release.SELECTOR}"
        try:
            for event in self._mesh.api.watch(path, timeout_s=120.0):
                pod = event["object"]
                key = release.uid(pod)
                if self._stopping.is_set():
                    return
                if key not in self._known and f"{FULL}-{SERVICE}-" in release.name(pod):
                    self._pods[key] = pod
                    if release.is_ready(pod):
                        self._ready.setdefault(key, time.monotonic())
        except (ApiError, OSError):
            return

    def _look(self) -> None:
        while not self._stopping.wait(_LOOK_S):
            for key, pod in list(self._pods.items()):
                if key in self._ready and key not in self._first and _announced(pod) > 0:
                    self._first[key] = time.monotonic()


def _announced(pod: Object) -> float:
    try:
        return release.metric(pod, _ANNOUNCED, kind="announced")
    except OSError:
        return 0.0


def _rises(pod: Object) -> bool:
    before = _announced(pod)
    time.sleep(0.5)
    return _announced(pod) > before


def _calls_after(pod: Object, before: float, began: float, seconds: float) -> tuple[float, float]:
    """How many calls a replica was given within so many seconds, and when it was seen to have got the last one."""
    count, last = before, began
    while time.monotonic() < began + seconds:
        if (new := _announced(pod)) > count:
            count, last = new, time.monotonic()
        time.sleep(_LOOK_S)
    return count - before, last


def _restarts(pod: Object) -> int:
    return sum(each["restartCount"] for each in pod["status"].get("containerStatuses", []))
