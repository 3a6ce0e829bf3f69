"""The services of the mesh, each a package of its own."""

import os

# gRPC reads this while it is imported, so it is said here, before any service imports it. Its older poller hands a
# message to Python by one thread less than its EventEngine does: a lone call through a tunnel takes two thirds of the
# time, and of the CPU on either side. Whoever sets the variable decides.
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client,-event_engine_listener")
