"""``make cluster``: the chart's life in a real Kubernetes, and a table of it; exit status 1 if a promise broke.

--json prints the table for machines. --only takes words of steps' names ("roll,kill"): the release is installed anyway.
"""

import argparse
import json
import signal
import sys
import time
from contextlib import ExitStack
from types import FrameType

from tests.cluster import cluster, images, keda, programs, steps
from tests.cluster.host import HostTaken, traces
from tests.cluster.network import NetworkTaken
from tests.cluster.node import Node
from tests.cluster.report import Report


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    parser.add_argument("--only", default="", help="words of the names of steps, with commas between")
    parser.add_argument("--hold", action="store_true", help="leave the cluster up at the end, until an interrupt")
    options = parser.parse_args()
    if missing := list(programs.missing()):
        print("There can be no cluster on this machine:", *missing, sep="\n  ", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, _interrupt)
    report = Report()
    try:
        _run(report, [word for word in options.only.split(",") if word], hold=options.hold)
    except (HostTaken, NetworkTaken) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        report.say("interrupted: everything was put back")
    if options.json:
        print(json.dumps(report.json(), indent=2))
    else:
        report.show()
    return 0 if report.ok else 1


def _run(report: Report, only: list[str], *, hold: bool) -> None:
    with report.step("build the image from the Dockerfile") as step:
        names = [images.ours(), images.pause()]
        step.note(names[0])
    if not step.ok:
        return

    def load(node: Node) -> None:
        for at, name in enumerate(names):
            archive = cluster.FOLDER / f"image-{at}.tar"
            images.save(name, archive)
            node.load_image(archive)
            archive.unlink()

    with ExitStack() as stack:
        with report.step("start the cluster: control plane, node, KEDA") as step:
            running = stack.enter_context(cluster.up(report.say, load))
            keda.start(running)
        if step.ok:
            steps.run(running, report, only)
            if hold:
                report.say(f"KUBECONFIG={running.api.kubeconfig}; interrupt to end it")
                signal.pause()
        if not report.ok:
            report.say(f"logs: {cluster.keep_logs()}")
        ending = time.monotonic()
    with report.step("end the cluster") as last:
        last.seconds = time.monotonic() - ending
        left = traces(cluster.FOLDER)
        last.expect(not left, f"left on this machine: {', '.join(left)}")


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
