"""The client span of an attempt, in the words of the GenAI conventions. Never holds a prompt or an answer."""

from __future__ import annotations

from contextlib import AbstractContextManager
from urllib.parse import urlsplit

from opentelemetry.trace import Span, SpanKind
from opentelemetry.util.types import AttributeValue

from services.provider_proxy.attempt import Attempt
from shared.telemetry import names, tracing


def attempt(call: Attempt) -> AbstractContextManager[Span]:
    """The span of an upstream call, from before it is sent to its end."""
    place = tracing.current()
    if place is None or place.tracing is None:
        return tracing.span(call.operation)  # does nothing, so its attributes need not be gathered
    model = call.deployment.upstream_model
    return tracing.span(f"{call.operation} {model}", kind=SpanKind.CLIENT, attributes=_asked(call, model))


def _asked(call: Attempt, model: str) -> dict[str, AttributeValue]:
    chat, deployment = call.chat, call.deployment
    address = urlsplit(deployment.base_url)
    attributes: dict[str, AttributeValue] = {
        names.GEN_AI_OPERATION: call.operation,
        names.GEN_AI_PROVIDER: names.GEN_AI_PROVIDERS.get(deployment.provider, deployment.provider),
        names.GEN_AI_REQUEST_MODEL: model,
        names.GEN_AI_REQUEST_STREAM: call.streams,
        names.MUX_ATTEMPT_ID: call.request.attempt_id,
        names.MUX_DEPLOYMENT: deployment.name,
        names.SERVER_ADDRESS: address.hostname or "",
        names.SERVER_PORT: address.port or (443 if address.scheme == "https" else 80),
    }
    optional = {
        "max_output_tokens": names.GEN_AI_REQUEST_MAX_TOKENS,
        "temperature": names.GEN_AI_REQUEST_TEMPERATURE,
        "top_p": names.GEN_AI_REQUEST_TOP_P,
        "seed": names.GEN_AI_REQUEST_SEED,
    }
    attributes |= {name: getattr(chat, field) for field, name in optional.items() if chat.HasField(field)}
    return attributes


def describe(span: Span, call: Attempt) -> None:
    """Adds what a whole answer told."""
    completed = call.completed
    if completed is None or not span.is_recording():
        return
    usage = completed.usage
    span.set_attributes(
        {
            names.GEN_AI_RESPONSE_ID: completed.provider_request_id,
            names.GEN_AI_RESPONSE_MODEL: call.provider_model or call.deployment.upstream_model,
            names.GEN_AI_RESPONSE_FINISH_REASONS: (completed.provider_finish_reason,),
            names.GEN_AI_USAGE_INPUT_TOKENS: usage.input_tokens,
            names.GEN_AI_USAGE_OUTPUT_TOKENS: usage.output_tokens,
            names.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: usage.cached_input_tokens,
            names.GEN_AI_USAGE_CACHE_CREATION_INPUT_TOKENS: usage.cache_write_tokens,
            names.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS: usage.reasoning_tokens,
        }
    )
    if call.first_token_s is not None and call.streams:
        span.set_attribute(names.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK, call.first_token_s)
