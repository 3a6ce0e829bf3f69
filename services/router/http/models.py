"""The list of models, in the form of whichever SDK asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from modelmuxer.router.v1 import router_pb2 as router

from services.router.http.fields import malformed
from shared.errors import MeshError, Reason

_DEFAULT_LIMIT = 1000  # a whole catalogue; Anthropic's own default of 20 would hide models from those who do not page


def find(models: Sequence[router.Model], name: str) -> router.Model:
    """Returns the model of that id, or of that bare name where only one provider has it."""
    for model in models:
        if model.id == name:
            return model
    bare = [model for model in models if model.id.partition("/")[2] == name]
    if len(bare) == 1:
        return bare[0]
    raise MeshError(Reason.UNKNOWN_MODEL, f"There is no model {name!r}; GET /v1/models lists those there are.")


def openai_model(model: router.Model) -> dict[str, Any]:
    """Returns OpenAI's model object, with what a gateway knows beside it."""
    return {
        "id": model.id,
        "object": "model",
        "created": model.create_time.seconds,
        "owned_by": model.provider or "modelmuxer",
        "description": model.description,
        "targets": list(model.targets),
        "context_window": model.context_tokens,
        "max_output_tokens": model.max_output_tokens,
        "input_nanos_per_million": model.input_nanos_per_million,
        "output_nanos_per_million": model.output_nanos_per_million,
        "capabilities": list(model.capabilities),
    }


def openai_list(models: Sequence[router.Model]) -> dict[str, Any]:
    """Returns OpenAI's list of models."""
    return {"object": "list", "data": [openai_model(model) for model in models]}


def anthropic_model(model: router.Model) -> dict[str, Any]:
    """Returns Anthropic's model object."""
    return {
        "type": "model",
        "id": model.id,
        "display_name": model.description or model.id,
        "created_at": datetime.fromtimestamp(model.create_time.seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "max_input_tokens": model.context_tokens,
        "max_tokens": model.max_output_tokens,
    }


def anthropic_page(models: Sequence[router.Model], query: Mapping[str, str]) -> dict[str, Any]:
    """Returns a page of Anthropic's list: ``limit`` models after ``after_id`` or before ``before_id``."""
    limit = query.get("limit", str(_DEFAULT_LIMIT))
    if not limit.isdecimal() or not 1 <= int(limit) <= _DEFAULT_LIMIT:
        raise malformed("limit", f"must be a whole number from 1 to {_DEFAULT_LIMIT}")
    places = {model.id: place for place, model in enumerate(models)}
    begin, end = 0, len(models)
    if after := query.get("after_id"):
        begin = places.get(after, end) + 1
    if before := query.get("before_id"):
        end = places.get(before, 0)
        begin = max(begin, end - int(limit))
    page = models[begin : min(end, begin + int(limit))]
    return {
        "data": [anthropic_model(model) for model in page],
        "has_more": begin > 0 if before else begin + len(page) < end,
        "first_id": page[0].id if page else None,
        "last_id": page[-1].id if page else None,
    }
