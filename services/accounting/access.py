"""Who may call what: the mesh's own RPCs want the mesh token; reports and keys want it or a key of admin scope."""

from collections.abc import Callable

from modelmuxer.accounting.v1.accounting_pb2 import SCOPE_ADMIN

from services.accounting.keys import sha256
from services.accounting.stores import Store
from shared.errors import MeshError, Reason
from shared.interceptors import Context

MESH = "mesh"


class Access:
    """Checks callers. `from_mesh` says whether a call shows the mesh token."""

    def __init__(self, store: Store, from_mesh: Callable[[Context], bool]) -> None:
        self._store = store
        self._from_mesh = from_mesh

    def mesh(self, context: Context) -> None:
        """Lets the mesh's own services pass. Raises MESH_TOKEN."""
        if not self._from_mesh(context):
            raise MeshError(Reason.MESH_TOKEN, "This call is for the mesh's own services and wants the mesh token.")

    async def admin(self, context: Context) -> str:
        """Who manages: a key's id, or "mesh". Raises MISSING_KEY, INVALID_KEY, KEY_NOT_ALLOWED."""
        if self._from_mesh(context):
            return MESH
        key = await self._store.key_by_sha256(sha256(_bearer(context)))
        if key is None:
            raise MeshError(Reason.INVALID_KEY, "The key is unknown or revoked.")
        if SCOPE_ADMIN not in key.scopes:
            raise MeshError(Reason.KEY_NOT_ALLOWED, "This call wants a key of admin scope.")
        return key.id


def _bearer(context: Context) -> str:
    for name, value in context.invocation_metadata() or ():
        if name == "authorization" and isinstance(value, str):
            scheme, _, secret = value.partition(" ")
            if scheme.lower() == "bearer" and secret.strip():
                return secret.strip()
    raise MeshError(Reason.MISSING_KEY, "This call wants a key of admin scope as metadata: authorization: Bearer mm-…")
