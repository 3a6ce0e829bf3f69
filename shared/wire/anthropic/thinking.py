"""How much a model thinks: ReasoningOptions to `thinking` and `output_config.effort`, and back.

What a model takes depends on its generation: a budget of tokens up to 4.6, adaptive thinking steered by effort from 4.6
on, and some of the newest cannot be told not to think. Sources: Anthropic's pages on thinking, effort and migration.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from modelmuxer.chat.v1.chat_pb2 import ReasoningOptions

from shared.wire.anthropic.blocks import unsupported
from shared.wire.json_text import Json, JsonObject

MIN_BUDGET_TOKENS = 1024
EFFORTS = ("minimal", "low", "medium", "high", "xhigh", "max")  # the least first
_UP_TO_MAX = frozenset({"low", "medium", "high", "max"})
_ALL = _UP_TO_MAX | {"xhigh"}
_BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16384, "xhigh": 32768, "max": 65536}
_DISPLAY = {"summarized": True, "omitted": False}
_MODEL = re.compile(
    r"claude-(?:(\d)(?:-(\d))?-)?(opus|sonnet|haiku|fable|mythos)(?:-(\d{1,2})(?!\d))?(?:-(\d{1,2})(?!\d))?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """What the models of one generation take."""

    adaptive: bool = True
    budget: bool = False
    default_on: bool = False  # thinks though nobody asks for it
    off: str = "disabled"  # the type that stops it; empty: nothing does
    efforts: frozenset[str] = _ALL
    system_turns: bool = True  # system messages within the conversation


_UNKNOWN = Generation(budget=True)
_BUDGET_ONLY = Generation(adaptive=False, budget=True, efforts=frozenset(), system_turns=False)
_OPUS_4_5 = Generation(adaptive=False, budget=True, efforts=frozenset({"low", "medium", "high"}), system_turns=False)
_4_6 = Generation(budget=True, efforts=_UP_TO_MAX, system_turns=False)
_4_7 = Generation(system_turns=False)
_4_8 = Generation()
_MYTHOS_PREVIEW = Generation(default_on=True, off="", efforts=_UP_TO_MAX, system_turns=False)
_SONNET_5 = Generation(default_on=True, system_turns=False)
_5 = Generation(default_on=True)
_ALWAYS_ON = Generation(default_on=True, off="")
_SONNET_5_5 = Generation(default_on=True, off="between_tools")


def generation(model: str) -> Generation:
    """The generation of a model by its name; a name that is not Anthropic's takes everything."""
    match = _MODEL.search(model)
    if match is None:
        return _UNKNOWN
    family = match[3]
    version = (int(match[1] or match[4] or 0), int(match[2] or match[5] or 0))
    if version == (0, 0):
        return _MYTHOS_PREVIEW if family == "mythos" else _UNKNOWN
    if version <= (4, 5):
        return _OPUS_4_5 if (family, version) == ("opus", (4, 5)) else _BUDGET_ONLY
    if version < (5, 0):
        return {(4, 6): _4_6, (4, 7): _4_7}.get(version, _4_8)
    if family in ("fable", "mythos") or (family == "opus" and version >= (5, 5)):
        return _ALWAYS_ON
    if family == "sonnet":
        return _SONNET_5_5 if version >= (5, 5) else _SONNET_5
    return _5


def parse_thinking(body: Json) -> tuple[ReasoningOptions | None, JsonObject]:
    """ReasoningOptions of a body, and what of it they cannot hold, as members for `provider_options`."""
    options, rest = ReasoningOptions(), JsonObject()
    thinking = body.get("thinking")
    if thinking is not None and not _read_thinking(thinking, options):
        rest["thinking"] = thinking.value
    config = body.get("output_config")
    effort = config.get("effort") if config else None
    if effort is not None:
        options.effort = effort.string()
        if thinking is None:
            options.mode = "default"
    return (options if options.ByteSize() else None), rest


def _read_thinking(thinking: Json, options: ReasoningOptions) -> bool:
    """Reads it if it is of a known form."""
    members = thinking.object()
    kind = members.get("type")
    display = members.get("display")
    known = {"type", "display", "budget_tokens"} if kind == "enabled" else {"type", "display"}
    if not members.keys() <= known or display not in (None, *_DISPLAY):
        return False
    match kind:
        case "enabled":
            budget = thinking.need("budget_tokens").integer()
            if budget < 1:
                raise thinking.need("budget_tokens").fault("must be at least 1")
            options.max_tokens = budget
        case "disabled" if display is None:
            options.max_tokens = 0
        case "adaptive" | "between_tools":
            options.mode = kind
        case _:
            return False
    if display is not None:
        options.include = _DISPLAY[display]
    return True


def render_thinking(
    options: ReasoningOptions, *, model: str, max_tokens: int, interleaved: bool = False
) -> tuple[JsonObject | None, str]:
    """`thinking` and effort for a model, None and "" where nothing is to be said.

    `interleaved` says that the budget may exceed `max_tokens`, as the beta of interleaved thinking allows.
    Raises UNSUPPORTED_FEATURE where the model cannot do as asked.
    """
    takes = generation(model)
    off = options.effort == "none" or (options.HasField("max_tokens") and options.max_tokens <= 0)
    effort = "" if options.effort == "none" else _nearest(options.effort, takes.efforts)
    if options.mode == "default":
        return None, effort
    if options.mode == "adaptive" and takes.adaptive:
        return _shown({"type": "adaptive"}, options), effort
    if options.mode == "between_tools" and (takes.off == "between_tools" or takes is _UNKNOWN):
        return _shown({"type": "between_tools"}, options), effort
    if off or options.mode == "between_tools":
        if not takes.off:
            raise unsupported("reasoning switched off, for this model always reasons", "reasoning")
        return {"type": takes.off}, effort
    if takes.budget and options.HasField("max_tokens"):
        return _budget(options, options.max_tokens, max_tokens, interleaved), effort
    wanted = options.effort or _implied(options)
    if wanted and takes.adaptive:
        return _shown({"type": "adaptive"}, options), _nearest(wanted, takes.efforts)
    if wanted:
        room = max(MIN_BUDGET_TOKENS, max_tokens // 2)  # half of the cap at least is left to the answer
        return _budget(options, min(_BUDGETS.get(wanted, _BUDGETS["high"]), room), max_tokens, interleaved), effort
    if options.HasField("include") and takes.default_on:
        return _shown({"type": "adaptive"}, options), ""
    return None, ""


def _implied(options: ReasoningOptions) -> str:
    """The effort that other options come to where the model takes effort only; empty if they say nothing."""
    if options.HasField("max_tokens"):
        return next((effort for effort, tokens in _BUDGETS.items() if options.max_tokens <= tokens), "max")
    return "high" if options.mode == "adaptive" else ""  # Anthropic's default


def _budget(options: ReasoningOptions, budget: int, max_tokens: int, interleaved: bool) -> JsonObject:
    if not interleaved:
        budget = min(budget, max_tokens - 1)
    if budget < MIN_BUDGET_TOKENS:
        raise unsupported(f"reasoning in fewer than {MIN_BUDGET_TOKENS} tokens below the cap on output", "reasoning")
    return _shown({"type": "enabled", "budget_tokens": budget}, options)


def _shown(thinking: JsonObject, options: ReasoningOptions) -> JsonObject:
    if options.HasField("include"):
        thinking["display"] = "summarized" if options.include else "omitted"
    return thinking


def _nearest(effort: str, efforts: frozenset[str]) -> str:
    """The effort itself if it is taken, else the next lower one, else the lowest; unknown words as they are."""
    if effort in efforts or not effort or not efforts:
        return effort if efforts else ""
    if effort not in EFFORTS:
        return effort
    taken = [word for word in EFFORTS if word in efforts]
    return next((word for word in reversed(taken) if EFFORTS.index(word) < EFFORTS.index(effort)), taken[0])
