"""One mesh for all tests that do not kill it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.mesh.mesh import Mesh


@pytest.fixture(scope="session")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with Mesh(tmp_path_factory.mktemp("mesh") / "home") as mesh:
        yield mesh
