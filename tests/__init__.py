"""The tests of the mesh."""

import services  # noqa: F401 - gRPC runs here as it does in the services
