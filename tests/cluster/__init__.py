"""A real Kubernetes on this machine, and the chart in it: control plane, kubelet, containerd, CoreDNS, KEDA.

Everything runs in a network namespace of its own, from programs that `make tools` builds and images made here; what it
changes on the host is put back. ``make cluster``.
"""
