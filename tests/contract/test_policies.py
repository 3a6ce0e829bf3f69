"""What rules callers: policies leave to each what all of them allow, and who is suspended is nobody."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from modelmuxer.accounting.v1 import accounting_pb2 as pb

from shared.errors import MeshError, Reason
from tests.contract.test_accounting import Accounting, serving


@pytest.fixture
async def accounting(tmp_path: Path) -> AsyncIterator[Accounting]:
    async with serving(tmp_path) as started:
        yield started


async def key(accounting: Accounting, **fields: Any) -> bytes:
    request = pb.CreateKeyRequest(**{"name": "k", "tenant": "acme", "team": "core", "user": "ada", **fields})
    return hashlib.sha256((await accounting.admin.CreateKey(request)).secret.encode()).digest()


async def caller(accounting: Accounting, sha256: bytes) -> pb.AuthenticateResponse:
    return await accounting.rpc.Authenticate(pb.AuthenticateRequest(key_sha256=sha256))


async def policy(accounting: Accounting, **fields: Any) -> pb.Policy:
    wanted = pb.Policy(**{"tenant": "acme", "scope": pb.CEILING_SCOPE_TENANT, **fields})
    return (await accounting.admin.CreatePolicy(pb.CreatePolicyRequest(policy=wanted))).policy


async def test_of_several_policies_all_hold(accounting: Accounting) -> None:
    sha256 = await key(accounting, models=["fast", "cheap", "own"], max_output_tokens=500)
    await policy(accounting, models=["fast", "cheap", "best"], max_output_tokens=900)
    await policy(accounting, scope=pb.CEILING_SCOPE_USER, subject="*", models=["cheap", "fast"], max_output_tokens=100)
    await policy(accounting, scope=pb.CEILING_SCOPE_TEAM, subject="other", models=["none"], max_output_tokens=1)
    principal = (await caller(accounting, sha256)).principal
    assert (list(principal.models), principal.max_output_tokens) == (["fast", "cheap"], 100)
    apart = await policy(accounting, scope=pb.CEILING_SCOPE_TEAM, subject="core", models=["best"])
    assert list((await caller(accounting, sha256)).principal.models) == ["(nothing)"]
    await accounting.admin.DeletePolicy(pb.DeletePolicyRequest(id=apart.id))
    assert list((await caller(accounting, sha256)).principal.models) == ["fast", "cheap"]


async def test_calls_go_on_without_accounting_only_where_a_policy_says_so_and_none_says_otherwise(
    accounting: Accounting,
) -> None:
    sha256 = await key(accounting)
    assert (await caller(accounting, sha256)).on_outage == pb.ON_OUTAGE_CLOSED
    await policy(accounting, on_outage=pb.ON_OUTAGE_OPEN)
    assert (await caller(accounting, sha256)).on_outage == pb.ON_OUTAGE_OPEN
    await policy(accounting, scope=pb.CEILING_SCOPE_USER, subject="ada", on_outage=pb.ON_OUTAGE_CLOSED)
    assert (await caller(accounting, sha256)).on_outage == pb.ON_OUTAGE_CLOSED


async def test_keys_of_a_suspended_team_or_user_are_nobodys_and_other_tenants_are_not_touched(
    accounting: Accounting,
) -> None:
    sha256, elsewhere = await key(accounting), await key(accounting, tenant="other")
    admin, suspended = accounting.admin, FieldMask(paths=["suspended"])
    await admin.CreateTeam(pb.CreateTeamRequest(team=pb.Team(id="core", tenant="acme", name="The core")))
    await admin.CreateUser(pb.CreateUserRequest(user=pb.User(id="ada", tenant="acme")))
    await caller(accounting, sha256)

    async def refused() -> bool:
        try:
            await caller(accounting, sha256)
        except grpc.aio.AioRpcError as error:
            return MeshError.from_rpc(error).reason == Reason.INVALID_KEY
        return False

    for change in (True, False):
        team = pb.Team(id="core", tenant="acme", suspended=change)
        answer = await admin.UpdateTeam(pb.UpdateTeamRequest(team=team, update_mask=suspended))
        assert (answer.team.name, await refused()) == ("The core", change)
    user = pb.User(id="ada", tenant="acme", suspended=True)
    await admin.UpdateUser(pb.UpdateUserRequest(user=user, update_mask=suspended))
    assert await refused()
    await caller(accounting, elsewhere)
    assert [each.id for each in (await admin.ListUsers(pb.ListUsersRequest(tenant="acme"))).users] == ["ada"]
    await admin.DeleteUser(pb.DeleteUserRequest(id="ada", tenant="acme"))
    assert not await refused()


@pytest.mark.parametrize(
    "fields",
    [
        {"scope": pb.CEILING_SCOPE_RUN, "subject": "*"},
        {"scope": pb.CEILING_SCOPE_USER},
        {"max_output_tokens": 0},
        {"models": [""]},
        {"on_outage": 9},
    ],
)
async def test_a_policy_that_cannot_be_is_refused(accounting: Accounting, fields: dict[str, Any]) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await policy(accounting, **fields)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
