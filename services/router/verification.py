"""Verdicts on answers that stood, or nearly stood, for like questions: a share of them is compared with a fresh answer.

A model that the alias names judges; it and the fresh answer are requests like any other, of the same caller, with
entries in the ledger that carry a tag. What it may cost is bounded by the share, by a rate, and by the caller's own
ceilings.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextvars import Context

from modelmuxer.cache.v1.cache_pb2 import CacheKey
from modelmuxer.chat.v1.chat_pb2 import ROLE_SYSTEM, ROLE_USER, Block, ChatRequest, ChatResponse, Message, Text

from services.router.call import Call
from services.router.semantic import SemanticCache, last_said, policy_of
from services.router.walk import Similar, Walk
from shared.catalogue import Semantic
from shared.errors import MeshError

CALLER = "caller"
TAG = "modelmuxer.purpose"
PURPOSE = "verify"
MAX_RUNNING = 4
MAX_ANSWER_CHARS = 8_000
JUDGE_TOKENS = 256  # a model that reasons needs some before it says a word
INSTRUCTION = (
    "You compare two answers to a question. Reply with one word. Reply SAME if answer A serves whoever asks the "
    "question as well as answer B does, whatever its wording. Reply DIFFERENT if answer A is about something else, or "
    "says something else that matters."
)

Stored = Callable[[CacheKey], Awaitable[ChatResponse | None]]
Answer = Callable[[Call, ChatRequest], Awaitable[ChatResponse]]

log = logging.getLogger("modelmuxer.router")


class Rate:
    """So many a minute, in bursts of no more."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._left = float(per_minute)
        self._seen_s = clock()

    def take(self) -> bool:
        """Takes one, if one is left."""
        now_s = self._clock()
        self._left = min(self._per_minute, self._left + (now_s - self._seen_s) * self._per_minute / 60)
        self._seen_s = now_s
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class Verifier:
    """Has samples judged, behind the callers' backs."""

    def __init__(
        self,
        semantic: SemanticCache,
        answer: Answer,
        *,
        per_minute: int,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`answer` answers a chat without a look-up in any cache."""
        self._semantic = semantic
        self._answer = answer
        self._rate = Rate(per_minute)
        self._chance = chance
        self._tasks: set[asyncio.Task[None]] = set()

    def hit(self, walk: Walk, similar: Similar, served: ChatResponse) -> None:
        """A like question's answer was served: it may be compared with a fresh one."""
        policy = self._sampled(walk)
        if policy is not None:
            kept = ChatResponse()
            kept.CopyFrom(served)
            self._start(self._judge(walk, policy, similar, kept, None))

    def near(self, walk: Walk, similar: Similar, stored: Stored, fresh: ChatResponse) -> None:
        """A like question's answer was nearly served; a fresh one is there already."""
        policy = self._sampled(walk)
        if policy is not None:
            kept = ChatResponse()
            kept.CopyFrom(fresh)  # the caller's own goes on its way
            self._start(self._judge_near(walk, policy, similar, stored, kept))

    async def drain(self) -> None:
        """Ends what is under way."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _sampled(self, walk: Walk) -> Semantic | None:
        policy = policy_of(walk.chat, walk.asked.alias)
        if policy is None or not _has_judge(policy) or len(self._tasks) >= MAX_RUNNING:
            return None
        return policy if self._chance() < policy.sample and self._rate.take() else None

    def _start(self, work: Coroutine[None, None, None]) -> None:
        # In a context of its own: begun by a call, it must end neither with that call's deadline nor in its trace.
        task = asyncio.get_running_loop().create_task(work, name="verification", context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _judge_near(
        self, walk: Walk, policy: Semantic, similar: Similar, stored: Stored, fresh: ChatResponse
    ) -> None:
        answer = await stored(similar.found.near)
        if answer is not None:
            await self._judge(walk, policy, similar, answer, fresh)

    async def _judge(
        self, walk: Walk, policy: Semantic, similar: Similar, stored: ChatResponse, fresh: ChatResponse | None
    ) -> None:
        """Compares, and tells the verdict. What cannot be compared counts for nothing."""
        principal, policies = walk.call.principal, walk.call.policies
        try:
            if fresh is None:
                call = Call(principal=principal, policies=policies, face="verify", run_id=walk.call.run_id)
                fresh = await self._answer(call, _again(walk.chat))
            question = last_said(walk.chat) or ""
            asked = _question(policy.judge, question, _text(stored.content), _text(fresh.content))
            call = Call(principal=principal, policies=policies, face="verify", run_id=walk.call.run_id)
            word = _text((await self._answer(call, asked)).content).strip().upper()
            if word.startswith(("SAME", "DIFFERENT")):
                await self._semantic.judge(principal.tenant, similar.hit, word.startswith("DIFFERENT"))
            else:
                log.warning("the judge %s of a semantic hit said neither SAME nor DIFFERENT", policy.judge)
        except MeshError as error:
            log.info("a semantic hit could not be verified: %s", error.reason)


def _has_judge(policy: Semantic) -> bool:
    return policy.judge not in ("", CALLER)


def _again(chat: ChatRequest) -> ChatRequest:
    again = ChatRequest()
    again.CopyFrom(chat)
    again.cache.Clear()
    again.cache.no_store = True
    again.tags[TAG] = PURPOSE
    return again


def _question(judge: str, question: str, stored: str, fresh: str) -> ChatRequest:
    text = f"Question:\n{question}\n\nAnswer A:\n{stored}\n\nAnswer B:\n{fresh}"
    asked = ChatRequest(
        model=judge,
        messages=[
            Message(role=ROLE_SYSTEM, content=[Block(text=Text(text=INSTRUCTION))]),
            Message(role=ROLE_USER, content=[Block(text=Text(text=text))]),
        ],
        max_output_tokens=JUDGE_TOKENS,
        tags={TAG: PURPOSE},
    )
    asked.cache.no_store = True
    return asked


def _text(content: Sequence[Block]) -> str:
    return "".join(block.text.text for block in content if block.HasField("text"))[:MAX_ANSWER_CHARS]
