"""Which models could answer a chat, and why the others could not. Pure.

What depends only on the catalogue and the request's class (what it names, what it needs) is told apart from what
depends on this very moment and length, so that the former can be kept (see decisions.py).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from modelmuxer.chat.v1.chat_pb2 import Block, ChatRequest, Exclusion, RoutingOptions

from services.router.providers import Live
from shared.catalogue import EMBEDDING, Alias, Catalogue, Model
from shared.errors import MeshError, Reason

LEAST_ROOM_TOKENS = 1024
CAN = {
    "tools": "call tools",
    "vision": "see images",
    "documents": "read documents",
    "audio": "hear audio",
    "json_object": "answer in JSON",
    "json_schema": "answer in JSON of a schema",
    "reasoning": "be told how much to reason",
    "logprobs": "give log probabilities",
    "seed": "take a seed",
    "top_k": "sample from the k likeliest tokens",
    "temperature": "take a temperature",
    "stop": "take stop sequences",
    "citations": "cite documents",
    "embeddings": "make embeddings",
    "dimensions": "shorten its vectors",
}
# If every model is out, the error tells the reason that is nearest to working.
_NEAREST_FIRST = (
    Reason.NO_PROVIDER_KEY,
    Reason.CONTEXT_TOO_LONG,
    Reason.UNSUPPORTED_FEATURE,
    Reason.UNPRICED_MODEL,
    Reason.KEY_NOT_ALLOWED,
)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request names: an alias or a pinned model, and the models behind it in order."""

    name: str
    models: tuple[Model, ...]
    fallbacks: tuple[str, ...] = ()
    """Of the models, those that come after all others, in this order."""
    alias: Alias | None = None

    @property
    def identity(self) -> str:
        """What an answer's key holds: the pinned model's id, or the alias with the version of its definition."""
        return self.name if self.alias is None else f"{self.name}@{self.alias.version}"


@dataclass(frozen=True, slots=True)
class Excluded:
    """A model that could not answer."""

    model: str
    reason: Reason
    sentence: str

    def to_proto(self) -> Exclusion:
        """As the decision shows it."""
        return Exclusion(model=self.model, reason=self.sentence)


@dataclass(frozen=True, slots=True)
class Shortlist:
    """Candidates in the alias's order, and those that are out."""

    candidates: tuple[Model, ...]
    excluded: tuple[Excluded, ...]


def resolve(catalogue: Catalogue, name: str, fallbacks: Sequence[str]) -> Asked:
    """What is asked for. Fallbacks that the request names stand in place of the alias's own. Raises UNKNOWN_MODEL."""
    found = catalogue.resolve(name)
    if found is None:
        raise unknown_model(catalogue, name, "model")
    last = [_model(catalogue, fallback, f"routing.fallbacks[{place}]") for place, fallback in enumerate(fallbacks)]
    if isinstance(found, Model):
        return _asked(found.id, [found], last)
    targets = [catalogue.models[target] for target in found.targets]
    return _asked(found.name, targets, last or [catalogue.models[name] for name in found.fallbacks], found)


def needs(chat: ChatRequest) -> frozenset[str]:
    """Capabilities that a model must have to answer the chat."""
    needed: set[str] = set()
    if chat.tools:
        needed.add("tools")
    for message in chat.messages:
        _content_needs(message.content, needed)
    if form := chat.response_format.WhichOneof("kind"):
        needed.add(form)
    if chat.reasoning.max_tokens > 0 or chat.reasoning.effort not in ("", "none"):
        needed.add("reasoning")
    if chat.HasField("top_logprobs"):
        needed.add("logprobs")
    needed.update(name for name in ("seed", "top_k", "temperature") if chat.HasField(name))
    if chat.stop_sequences:
        needed.add("stop")
    return frozenset(needed)


def static_shortlist(
    catalogue: Catalogue, asked: Asked, needed: frozenset[str], routing: RoutingOptions, allowed: Sequence[str]
) -> Shortlist:
    """What the catalogue, the key and the request's options allow, at whatever length and moment."""
    _check_providers(catalogue, routing.only_providers, "routing.only_providers")
    _check_providers(catalogue, routing.exclude_providers, "routing.exclude_providers")
    named = asked.alias is not None and asked.alias.name in allowed
    allowed_models = {found.id for name in allowed if isinstance(found := catalogue.resolve(name), Model)}

    def why_not(model: Model) -> Excluded | None:
        if allowed and not named and model.id not in allowed_models:
            return Excluded(model.id, Reason.KEY_NOT_ALLOWED, "the key may not name it")
        if routing.only_providers and model.provider not in routing.only_providers:
            return Excluded(model.id, Reason.UNSUPPORTED_FEATURE, f"{model.provider} is not among only_providers")
        if model.provider in routing.exclude_providers:
            return Excluded(model.id, Reason.UNSUPPORTED_FEATURE, f"{model.provider} is among exclude_providers")
        if model.price is None:
            return Excluded(model.id, Reason.UNPRICED_MODEL, "it has no price")
        if EMBEDDING not in needed and not model.chats:
            return Excluded(model.id, Reason.UNSUPPORTED_FEATURE, "it makes embeddings and answers no chats")
        if missing := sorted(needed - model.capabilities):
            cannot = " or ".join(CAN.get(name, name) for name in missing)
            return Excluded(model.id, Reason.UNSUPPORTED_FEATURE, f"it cannot {cannot}")
        return None

    return _sift(Shortlist(asked.models, ()), why_not)


def narrow(shortlist: Shortlist, live: Callable[[str], Live | None], input_tokens: int) -> Shortlist:
    """What this moment and this length leave of a shortlist."""

    def why_not(model: Model) -> Excluded | None:
        state = live(model.id)
        if state is not None and not state.available:
            return Excluded(model.id, Reason.NO_PROVIDER_KEY, state.unavailable_reason)
        if model.context_tokens and input_tokens > model.context_tokens:
            # The estimate may be off: only an input that alone is too long puts a model out.
            fits = f"about {input_tokens:,} input tokens are more than its context of {model.context_tokens:,}"
            return Excluded(model.id, Reason.CONTEXT_TOO_LONG, fits)
        return None

    return _sift(shortlist, why_not)


def no_candidate(asked: Asked, excluded: Sequence[Excluded]) -> MeshError:
    """The error for a shortlist without candidates: what stands in the way of each model."""
    nearest = min(excluded, key=lambda each: _NEAREST_FIRST.index(each.reason))
    if asked.alias is None and len(excluded) == 1:
        return MeshError(nearest.reason, f"{nearest.model} cannot answer this: {nearest.sentence}.", field="model")
    reasons = "; ".join(f"{each.model}: {each.sentence}" for each in excluded)
    return MeshError(nearest.reason, f'No model of "{asked.name}" can answer this ({reasons}).', field="model")


def effective_cap(model: Model, input_tokens: int, *caps: int | None) -> int | None:
    """The least of the caps (the request's, the key's, the alias's) and of what the model can write."""
    own = model.max_output_tokens or None
    if own and model.context_tokens:
        # Providers refuse an input and a cap that exceed the context together. The estimate may be off by an eighth;
        # where it leaves little room, the provider knows better how much there is.
        room = model.context_tokens - input_tokens - input_tokens // 8
        own = min(own, room) if room >= LEAST_ROOM_TOKENS else None
    return min((cap for cap in (own, *caps) if cap), default=None)


def unknown_model(catalogue: Catalogue, name: str, field: str) -> MeshError:
    """The error for a name that the catalogue does not have, with the nearest that it has."""
    names = [*catalogue.aliases, *catalogue.models]
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    advice = f"did you mean {' or '.join(near)}?" if near else "`mux models` lists those there are."
    return MeshError(Reason.UNKNOWN_MODEL, f'There is no model or alias "{name[:128]}"; {advice}', field=field)


def _model(catalogue: Catalogue, name: str, field: str) -> Model:
    found = catalogue.resolve(name)
    if not isinstance(found, Model):
        raise unknown_model(catalogue, name, field)
    return found


def _check_providers(catalogue: Catalogue, named: Sequence[str], field: str) -> None:
    for place, name in enumerate(named):
        if name not in catalogue.providers:
            known = ", ".join(catalogue.providers)
            message = f'There is no provider "{name[:64]}"; there are {known}.'
            raise MeshError(Reason.MALFORMED_REQUEST, message, field=f"{field}[{place}]")


def _asked(name: str, targets: Sequence[Model], last: Sequence[Model], alias: Alias | None = None) -> Asked:
    models = {model.id: model for model in (*targets, *last)}
    return Asked(name, tuple(models.values()), tuple(models)[len({model.id for model in targets}) :], alias)


def _sift(shortlist: Shortlist, why_not: Callable[[Model], Excluded | None]) -> Shortlist:
    candidates: list[Model] = []
    excluded = list(shortlist.excluded)
    for model in shortlist.candidates:
        if out := why_not(model):
            excluded.append(out)
        else:
            candidates.append(model)
    return Shortlist(tuple(candidates), tuple(excluded))


def _content_needs(content: Iterable[Block], needed: set[str]) -> None:
    for block in content:
        match block.WhichOneof("kind"):
            case "image":
                needed.add("vision")
            case "audio":
                needed.add("audio")
            case "document":
                needed.add("documents")
                if block.document.citations:
                    needed.add("citations")
                _content_needs(block.document.content, needed)
            case "tool_use":
                needed.add("tools")
            case "tool_result":
                needed.add("tools")
                _content_needs(block.tool_result.content, needed)
