"""The models and aliases that a caller may name."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.timestamp_pb2 import Timestamp
from modelmuxer.router.v1.router_pb2 import ListModelsResponse
from modelmuxer.router.v1.router_pb2 import Model as Listed

from services.router.providers import LiveModels
from shared.catalogue import Alias, Catalogue, Model


def list_models(catalogue: Catalogue, live: LiveModels, allowed: Sequence[str]) -> ListModelsResponse:
    """Aliases, then models, each with whether it can be called now. `allowed`: what the key may name; empty for all."""
    models = {model.id: _model(model, live) for model in catalogue.models.values()}
    aliases = [_alias(alias, models) for alias in catalogue.aliases.values()]
    names = {_id(catalogue, name) for name in allowed}
    listed = [entry for entry in (*aliases, *models.values()) if not names or entry.id in names]
    return ListModelsResponse(models=listed, catalogue_version=catalogue.version)


def _id(catalogue: Catalogue, name: str) -> str:
    found = catalogue.resolve(name)
    return found.id if isinstance(found, Model) else name


def _alias(alias: Alias, models: dict[str, Listed]) -> Listed:
    targets = [models[target] for target in alias.models]
    available = [target for target in targets if target.available]
    return Listed(
        id=alias.name,
        targets=alias.models,
        description=alias.description,
        context_tokens=max(target.context_tokens for target in targets),
        max_output_tokens=max(target.max_output_tokens for target in targets),
        capabilities=sorted({name for target in targets for name in target.capabilities}),
        available=bool(available),
        unavailable_reason="" if available else "none of its models can be called",
    )


def _model(model: Model, live: LiveModels) -> Listed:
    reason = _unavailable(model, live)
    listed = Listed(
        id=model.id,
        provider=model.provider,
        description=model.description,
        context_tokens=model.context_tokens,
        max_output_tokens=model.max_output_tokens,
        capabilities=sorted(model.capabilities),
        available=not reason,
        unavailable_reason=reason,
    )
    if model.price is not None and model.price.rows:
        listed.input_nanos_per_million = model.price.rows[0].input
        listed.output_nanos_per_million = model.price.rows[0].output
    if model.created is not None:
        listed.create_time.CopyFrom(Timestamp(seconds=int(model.created.timestamp())))
    return listed


def _unavailable(model: Model, live: LiveModels) -> str:
    if model.price is None:
        return "it has no price"
    state = live.of(model.id)
    return state.unavailable_reason if state is not None and not state.available else ""
