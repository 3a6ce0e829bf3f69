"""What is done with the chart in the cluster, one step after the other, and what each promises."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from shared.telemetry import names
from tests.cluster import keda, metrics_server, release
from tests.cluster.api import ApiError, NotInTime, Object, until
from tests.cluster.cluster import Cluster
from tests.cluster.load import STEADY, Load, Tally
from tests.cluster.release import ACCOUNTING, NAMESPACE, SERVICES, Release
from tests.cluster.report import Report, Step
from tests.cluster.scaling import LEAST, SERVICE, Scaling

CALLERS = sum(crowd.callers for crowd in STEADY)
# What an HPA's percentages are of: enough that it has something to count, little enough that the node has room.
REQUESTS = (
    *("defaults.resources.requests.cpu=150m", "defaults.resources.requests.memory=256Mi"),
    "services.router.autoscaling.maxReplicas=3",
)
AT_THE_KILL_S = 0.1  # a call may be sent to a dead peer for as long as nobody has heard of its death


def run(cluster: Cluster, report: Report, only: list[str]) -> None:
    """Lives a release's life with KEDA in the cluster, then another's without."""
    mesh = Release(cluster)
    mesh.prepare()
    _with_keda(cluster, mesh, report, only)
    if not only or "HPA" in only:
        keda.stop(cluster)
        _with_plain_autoscalers(cluster, mesh, report)


def _with_keda(cluster: Cluster, mesh: Release, report: Report, only: list[str]) -> None:
    with report.step("install the chart, until all are ready by their gRPC probes") as step:
        mesh.install()
        for service in ("router", SERVICE):
            mesh.until_settled(service, LEAST)
        step.note(_readiness(mesh))
    if not step.ok:
        step.note(_troubles(mesh))
        return
    life = _Life(cluster, mesh, report, only)
    life.calls()
    with Load(release.FULL, NAMESPACE, mesh.key, cluster.folder, STEADY) as load:
        life.faces(load)
        life.rolls(load)
        life.kills(load)
        life.scales(load)
        life.sets_aside(load)
        life.rolls_back(load)
    life.uninstalls()


def _with_plain_autoscalers(cluster: Cluster, mesh: Release, report: Report) -> None:
    """HorizontalPodAutoscalers by what they are told of CPU and memory, and by the scaler without KEDA.

    The ledger is the one that the last release has left.
    """
    with ExitStack() as stack:
        with report.step("install where there is no KEDA, with a metrics server") as step:
            stack.enter_context(metrics_server.serving(cluster))
            mesh.install("autoscaling.externalMetrics.enabled=true", *REQUESTS)
            step.expect("ScaledObject" not in mesh.manifest(), "the chart has made ScaledObjects")
        if not step.ok:
            return
        scaling = Scaling(cluster, mesh, report)
        scaling.sees_every_metric()
        with Load(release.FULL, NAMESPACE, mesh.key, cluster.folder, STEADY) as load:
            load.wait_for(CALLERS)
            life = _Life(cluster, mesh, report, [])
            scaling.by_streams(lambda name: life.under(load, name), "an HPA by the scaler's metric")
        with report.step("upgrade to HPAs on CPU and memory alone"):
            mesh.upgrade("autoscaling.externalMetrics.enabled=false")
        scaling.by_processor_time()
        _Life(cluster, mesh, report, []).uninstalls()


class _Life:
    """Steps of one release, those that were asked for."""

    def __init__(self, cluster: Cluster, mesh: Release, report: Report, only: list[str]) -> None:
        self._cluster = cluster
        self._mesh = mesh
        self._report = report
        self._only = only

    def calls(self) -> None:
        """`helm test`, and calls from outside the cluster's pods."""
        if self._wanted("helm test"):
            with self._report.step("helm test: a call through each face from a pod") as step:
                said = self._mesh.test()
                step.expect("Phase:          Succeeded" in said, said)

    def faces(self, load: Load) -> None:
        """Waits for answers through every face."""
        with self.under(load, "calls and streams through both faces") as step:
            until("an answer of each kind", lambda: len(_kinds(load)) == len(STEADY), 60.0)
            step.note(", ".join(sorted({face for face, _ in _kinds(load)})))
            tunnels = {carrier: self._tunnels(carrier) for carrier in ("direct", "grpc")}
            step.note(f"tunnels of routers: {tunnels['direct']} direct, {tunnels['grpc']} on gRPC")
            step.expect(not tunnels["grpc"], "some of the routers' tunnels did not get their own connections")

    def _tunnels(self, carrier: str) -> int:
        pods = self._mesh.pods("router")
        return int(sum(release.metric(pod, names.TUNNELS, side="client", carrier=carrier) for pod in pods))

    def rolls(self, load: Load) -> None:
        """Replaces all pods of each service, one service after the other."""
        for service in SERVICES:
            if not self._wanted(f"roll {service}"):
                continue
            with self.under(load, f"roll {service}") as step:
                replicas = len(self._mesh.ready(service))
                self._mesh.restart(service)
                step.note(f"{replicas} replaced")

    def kills(self, load: Load) -> None:
        """Kills a process of each service as a crash would."""
        for service in SERVICES:
            if self._wanted(f"kill {service}"):
                self._kill(load, service)

    def scales(self, load: Load) -> None:
        """Lets KEDA add and take away replicas, by what the scaler tells it."""
        if self._wanted("scale"):
            Scaling(self._cluster, self._mesh, self._report).by_streams(lambda name: self.under(load, name), "KEDA")

    def sets_aside(self, load: Load) -> None:
        """Makes a replica that runs say that it is not ready."""
        if self._wanted("set aside"):
            Scaling(self._cluster, self._mesh, self._report).set_aside(lambda name: self.under(load, name))

    def rolls_back(self, load: Load) -> None:
        """Upgrades to what cannot run, and goes back."""
        if not self._wanted("roll back"):
            return
        with self.under(load, "upgrade to a router that cannot start; roll back") as step:
            before = {release.uid(pod) for pod in self._mesh.ready("router")}
            try:
                self._mesh.upgrade("services.router.env.MODELMUXER_LOG_LEVEL=nonsense", timeout_s=15)
                step.expect(False, "helm took it for ready")
            except ApiError as error:
                step.note(f"helm: {str(error).splitlines()[0][:120]}")
            kept = {release.uid(pod) for pod in self._mesh.ready("router")}
            step.expect(kept == before, "routers that served have gone before their successors were ready")
            began = time.monotonic()
            self._mesh.rollback()
            self._mesh.until_settled("router")
            step.note(f"rolled back in {time.monotonic() - began:.1f} s, revision {self._mesh.revision()}")

    def uninstalls(self) -> None:
        """Uninstalls, and looks for what is left."""
        with self._report.step("uninstall") as step:
            self._mesh.uninstall()
            until("all pods gone", lambda: not self._mesh.pods(), 90.0)
            claim = {f"persistentvolumeclaim/home-{release.FULL}-{ACCOUNTING}-0"}
            with contextlib.suppress(NotInTime):
                until("nothing left but the claim", lambda: self._mesh.leftovers() == claim, 30.0)
            left = self._mesh.leftovers()
            step.expect(left <= claim, f"left: {', '.join(sorted(left - claim))}")
            step.expect(left >= claim, "the ledger's claim has gone, and with it the ledger")
            step.note("left: the ledger's claim, which a StatefulSet leaves")
            until("all containers gone", lambda: not self._cluster.node.containers(), 60.0)

    def _kill(self, load: Load, service: str) -> None:
        with self._report.step(f"kill a {service}") as step:
            load.wait_for(CALLERS)
            began = time.monotonic()
            pod = self._mesh.ready(service)[0]
            restarts = _restarts(pod)
            process = self._mesh.process_of(pod)
            os.kill(process, signal.SIGKILL)
            killed = time.monotonic()

            def back() -> bool:
                now = next((each for each in self._mesh.pods(service) if release.uid(each) == release.uid(pod)), None)
                return now is not None and _restarts(now) > restarts and release.is_ready(now)

            until(f"{release.name(pod)} back", back, 90.0)
            step.note(f"serves again after {time.monotonic() - killed:.1f} s")
            step.seconds = time.monotonic() - began
            load.until_ended(time.monotonic(), CALLERS)
            tally = _count(step, load.during(began))
            late = [call for call in tally.failed if call.began > killed + AT_THE_KILL_S]
            step.expect(not late, f"failed though they began later: {Tally(late).errors()}")
            step.expect(service in ("router", "provider-proxy") or not tally.failed, f"calls failed: {tally.errors()}")
            flying = [call for call in tally.calls if call.began <= killed <= call.ended]
            if tally.failed:
                step.note(f"{len(flying)} in flight; failed: {tally.errors()}")

    @contextmanager
    def under(self, load: Load, name: str) -> Iterator[Step]:
        """A step during which no call may fail: those that ran at any moment of it count, once they have ended."""
        with self._report.step(name) as step:
            began = time.monotonic()
            try:
                yield step
            finally:
                step.seconds = time.monotonic() - began
                step.expect(load.running, "the callers have ended")
                load.until_ended(time.monotonic(), CALLERS)
                tally = _count(step, load.during(began))
                step.expect(not tally.failed, f"calls failed: {tally.errors()}")

    def _wanted(self, name: str) -> bool:
        return not self._only or any(word in name for word in self._only)


def _kinds(load: Load) -> set[tuple[str, bool]]:
    return {(call.face, call.stream) for call in load.during(0.0).calls if not call.error}


def _count(step: Step, tally: Tally) -> Tally:
    step.calls, step.streams, step.failed, step.cut = len(tally.calls), tally.streams, len(tally.failed), tally.cut
    return tally


def _readiness(mesh: Release) -> str:
    pods = mesh.pods()
    probes = {
        container["readinessProbe"].get("grpc", {}).get("service", "HTTP")
        for pod in pods
        for container in pod["spec"]["containers"]
    }
    return f"{sum(map(release.is_ready, pods))} of {len(pods)} pods ready; probes: {', '.join(sorted(probes))}"


def _troubles(mesh: Release) -> str:
    starving = [release.name(pod) for pod in mesh.pods() if not release.is_ready(pod)]
    return "\n".join(mesh.api.kubectl("describe", "pod", name, "-n", NAMESPACE)[-800:] for name in starving)


def _restarts(pod: Object) -> int:
    return sum(each["restartCount"] for each in pod["status"].get("containerStatuses", []))
