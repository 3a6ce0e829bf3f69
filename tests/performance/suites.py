"""What is measured, suite by suite. Every prompt is new unless the case is about the cache, so every look-up misses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from tests.performance.load import NUMBER

Face = Literal["http", "grpc"]

MODEL = "gpt-4o-mini"
_PROMPT = f"Explain in a few words what happens when a TCP connection starts slowly. Question {NUMBER}."
_FACES: tuple[Face, ...] = ("http", "grpc")


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much of everything: all of it, or the least that still takes every path."""

    callers: tuple[int, ...] = (1, 8, 32, 64)
    few_callers: tuple[int, ...] = (1, 8, 32)
    cache_callers: tuple[int, ...] = (1, 64)
    entries: int = 100_000
    """Of which the memory that a store takes is measured."""
    tokens: int = 100
    tokens_per_s: int = 20
    turns: int = 2
    sustained_callers: tuple[int, ...] = (100, 1000)
    ramp_s: float = 4.0


QUICK = Scale(
    callers=(2,),
    few_callers=(4,),
    cache_callers=(4,),
    entries=2_000,
    tokens=10,
    tokens_per_s=100,
    turns=1,
    sustained_callers=(20,),
    ramp_s=0.1,
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One line of the table."""

    suite: str
    name: str
    face: Face
    callers: int
    model: str = MODEL
    orders: str = ""
    """To the simulated provider (services/simulator/README.md)."""
    distinct: bool = True
    stream: bool = False
    targets: tuple[str, ...] = ("floor", "mesh")
    """In the order in which they take turns."""
    ramp_s: float = 0.0
    once: bool = False
    """Each caller asks once, so that the number of callers is that of streams."""
    turns: int = 1
    redis: bool = False
    """Whether answers are kept in a Redis, in place of the cache's own memory."""

    @property
    def prompt(self) -> str:
        return f"{_PROMPT} {self.orders}".strip()


def mesh(scale: Scale) -> list[Case]:
    """Whole answers on both faces, everything switched on."""
    plain = [
        Case(
            suite="mesh",
            name=f"{face} unary",
            face=face,
            callers=callers,
            turns=scale.turns,
            targets=("floor", "tunnel floor", "mesh"),
        )
        for face in _FACES
        for callers in scale.callers
    ]
    hybrid = [
        Case(
            suite="mesh",
            name="http unary, model chosen",
            face="http",
            callers=callers,
            model="",
            targets=("mesh",),
            turns=scale.turns,
        )
        for callers in scale.few_callers[-1:]
    ]
    return plain + hybrid


def streams(scale: Scale) -> list[Case]:
    """Streams as fast as they go, and at a provider's pace: that is where the added time to first token counts."""
    at_once, paced = f"[[sim tokens={scale.tokens}]]", f"[[sim ttft=50ms tokens={scale.tokens} tps=200]]"
    return [
        Case(
            suite="streams",
            name=f"{face} stream{pace}",
            face=face,
            callers=callers,
            orders=orders,
            stream=True,
            targets=("direct", "floor", "mesh"),
            turns=scale.turns,
        )
        for face in _FACES
        for pace, orders in (("", at_once), (", paced", paced))
        for callers in scale.few_callers
    ]


def sustained(scale: Scale) -> list[Case]:
    """Many streams at once at a model's usual pace, each opened once. No error is allowed."""
    return [
        Case(
            suite="sustained",
            name=f"http stream, {scale.tokens} tokens at {scale.tokens_per_s}/s",
            face="http",
            callers=callers,
            orders=f"[[sim tokens={scale.tokens} tps={scale.tokens_per_s}]]",
            stream=True,
            targets=("direct", "floor", "mesh"),
            ramp_s=scale.ramp_s,
            once=True,
        )
        for callers in scale.sustained_callers
    ]


def cache(scale: Scale) -> list[Case]:
    """The same question again and again, beside questions that are always new, over either store."""
    return [
        Case(
            suite="cache-redis" if redis else "cache",
            name=f"{face} {'misses' if distinct else 'hits'}",
            face=face,
            callers=callers,
            distinct=distinct,
            turns=scale.turns,
            targets=("mesh",) if redis else ("floor", "mesh"),
            redis=redis,
        )
        for redis in (False, True)
        for face in _FACES
        for distinct in (True, False)
        for callers in scale.cache_callers
    ]


SUITES: dict[str, Callable[[Scale], list[Case]]] = {
    "mesh": mesh,
    "streams": streams,
    "sustained": sustained,
    "cache": cache,
}
