"""Answers by meaning: embeds the last thing that the user said, and asks the cache for a like question's answer.

Everything else that shapes the answer has to be equal: it names the partition. What goes wrong on the way is a miss,
and never the request's failure; what the embedding cost stands in the answer and in the ledger.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import struct
from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING

import grpc
from modelmuxer.cache.v1.cache_pb2 import (
    CacheKey,
    FindSimilarRequest,
    JudgeRequest,
    RememberRequest,
    SemanticQuestion,
)
from modelmuxer.chat.v1.chat_pb2 import ROLE_USER, ChatRequest
from modelmuxer.embedding.v1.embedding_pb2 import EmbedRequest, Input
from modelmuxer.tunnel import KEY_METADATA

from services.router.embedder import Embedder
from services.router.walk import Similar, Walk
from shared.catalogue import Alias, Catalogue, Semantic
from shared.errors import MeshError, Reason

if TYPE_CHECKING:
    from modelmuxer.cache.v1.cache_pb2_grpc import CacheServiceAsyncStub

FORM = b"modelmuxer partition 1"
MAX_TEXT_CHARS = 4_000
REMEMBER_TIMEOUT_S = 5.0
MAX_TASKS = 64
_HIT = struct.Struct("<f")

log = logging.getLogger("modelmuxer.router")

KeyOf = Callable[[ChatRequest], CacheKey]


class SemanticCache:
    """Look-ups by meaning, and what makes them possible later."""

    def __init__(
        self, cache: CacheServiceAsyncStub, embedder: Embedder, *, timeout_s: float, embedding_timeout_s: float
    ) -> None:
        """`timeout_s` bounds the look-up, `embedding_timeout_s` the embedding before it."""
        self._cache = cache
        self._embedder = embedder
        self._timeout_s = timeout_s
        self._embedding_timeout_s = embedding_timeout_s
        self._tasks: set[asyncio.Task[None]] = set()

    async def find(self, walk: Walk, catalogue: Catalogue, key_of: KeyOf) -> Similar | None:
        """A like question's answer, or one that is nearly like enough; None if the request wants none or there is none.

        `key_of` names what has to be equal, of the chat without the last thing that was said.
        """
        policy = policy_of(walk.chat, walk.asked.alias)
        if policy is None or (said := last_said(walk.chat)) is None:
            return None
        vector = await self._embed(walk, catalogue, policy, said)
        if vector is None:
            return None
        partition = _partition(key_of(_without_last(walk.chat)), policy)
        question = SemanticQuestion(partition=partition, text=said, vector=vector, **{"class": walk.asked.name})
        walk.question = question
        request = FindSimilarRequest(
            question=question, threshold=_threshold(walk.chat, policy), most_wrong=policy.most_wrong
        )
        try:
            found = await self._cache.FindSimilar(request, timeout=self._timeout_s, metadata=_home(question))
        except grpc.aio.AioRpcError as error:
            log.info("the semantic cache did not answer: %s", error.code().name)
            return None
        return Similar(found, _hit_name(walk.asked.name, found.score))

    def remember_later(self, walk: Walk, key: CacheKey) -> None:
        """Lets like questions find an answer that is being stored, behind the caller's back."""
        if walk.question is None or len(self._tasks) >= MAX_TASKS:
            return
        request = RememberRequest(
            question=walk.question,
            key=key,
            ttl=walk.plan.ttl,
            alias=walk.asked.name if walk.asked.alias is not None else "",
            model=walk.attempts[-1].model if walk.attempts else "",
            tags=[f"{name}={value}" for name, value in walk.chat.tags.items()],
        )
        task = asyncio.create_task(self._remember(request), name="semantic fill")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def judge(self, tenant: str, hit: str, wrong: bool) -> None:
        """Takes a caller's verdict on a hit. Raises MALFORMED_REQUEST, CACHE_UNAVAILABLE."""
        name, score = _read_hit(hit)
        request = JudgeRequest(tenant=tenant, score=score, wrong=wrong, **{"class": name})
        try:
            await self._cache.Judge(request, timeout=REMEMBER_TIMEOUT_S, metadata=_class_home(tenant, name))
        except grpc.aio.AioRpcError as error:
            raise MeshError.from_rpc(error, Reason.CACHE_UNAVAILABLE) from None

    async def drain(self) -> None:
        """Waits for what is still to be remembered."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=REMEMBER_TIMEOUT_S)

    async def _embed(self, walk: Walk, catalogue: Catalogue, policy: Semantic, said: str) -> bytes | None:
        """The vector of what was said, as an attempt of the request's own."""
        request = EmbedRequest(model=policy.model, inputs=[Input(text=said)], tags=walk.chat.tags)
        if policy.dimensions is not None:
            request.dimensions = policy.dimensions
        try:
            async with asyncio.timeout(self._embedding_timeout_s):
                answer = await self._embedder.embed(catalogue, walk.call, request)
        except (MeshError, TimeoutError) as error:
            log.info("a question could not be embedded: %s", getattr(error, "reason", "it took too long"))
            return None
        walk.look_ups.extend(answer.attempts)
        values = array("f", answer.embeddings[0].values)
        return values.tobytes()

    async def _remember(self, request: RememberRequest) -> None:
        try:
            await self._cache.Remember(request, timeout=REMEMBER_TIMEOUT_S, metadata=_home(request.question))
        except grpc.aio.AioRpcError as error:
            log.info("the semantic cache did not take a question: %s", error.code().name)


def wants_like(chat: ChatRequest, alias: Alias | None) -> bool:
    """Whether a request takes a like question's answer, and asks one that can have any."""
    return policy_of(chat, alias) is not None and last_said(chat) is not None


def policy_of(chat: ChatRequest, alias: Alias | None) -> Semantic | None:
    """How a request may be answered by a like question's answer; None if it may not."""
    control, own = chat.cache, alias.semantic if alias is not None else None
    if control.HasField("semantic"):
        return (own or Semantic()) if control.semantic else None
    return own


def last_said(chat: ChatRequest) -> str | None:
    """What the user said last, if that is all text and nothing is to be done with tools; else None."""
    last = chat.messages[-1]
    if chat.tools or last.role != ROLE_USER or not all(block.HasField("text") for block in last.content):
        return None
    text = "\n".join(block.text.text for block in last.content)
    return text if text.strip() and len(text) <= MAX_TEXT_CHARS else None


def _threshold(chat: ChatRequest, policy: Semantic) -> float:
    return chat.cache.similarity if chat.cache.HasField("similarity") else policy.threshold


def _without_last(chat: ChatRequest) -> ChatRequest:
    """The chat without what was said last; how many blocks it stood in still counts."""
    rest = ChatRequest()
    rest.CopyFrom(chat)
    for block in rest.messages[-1].content:
        block.text.text = ""
    return rest


def _partition(rest: CacheKey, policy: Semantic) -> CacheKey:
    """Vectors of different models or lengths never meet."""
    digest = hashlib.sha256(FORM + rest.digest + f"{policy.model} {policy.dimensions or 0}".encode()).digest()
    return CacheKey(tenant=rest.tenant, digest=digest)


def _home(question: SemanticQuestion) -> tuple[tuple[str, str], ...]:
    return _class_home(question.partition.tenant, getattr(question, "class"))


def _class_home(tenant: str, name: str) -> tuple[tuple[str, str], ...]:
    """All that is known of a tenant's class stands at one replica."""
    return ((KEY_METADATA, hashlib.sha256(f"{len(tenant)} {tenant} {name}".encode()).hexdigest()),)


def _hit_name(name: str, score: float) -> str:
    return base64.urlsafe_b64encode(_HIT.pack(score) + name.encode()).decode("ascii")


def _read_hit(hit: str) -> tuple[str, float]:
    try:
        packed = base64.urlsafe_b64decode(hit.encode("ascii"))
        (score,) = _HIT.unpack_from(packed)
        return packed[_HIT.size :].decode(), float(score)
    except (ValueError, struct.error):
        raise MeshError(Reason.MALFORMED_REQUEST, "hit is not the name of a hit.", field="hit") from None
