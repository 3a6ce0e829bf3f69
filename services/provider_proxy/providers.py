"""The providers of one version of the catalogue: deployments, their adapters, and which of them have a key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.provider_proxy.adapters import Adapter
from services.provider_proxy.adapters.anthropic import AnthropicAdapter
from services.provider_proxy.adapters.gemini import GeminiAdapter
from services.provider_proxy.adapters.openai import OpenAIAdapter
from shared.catalogue import Catalogue, Deployment, Provider
from shared.errors import MeshError, Reason


@dataclass(frozen=True, slots=True)
class Providers:
    """One version of the catalogue, ready to be called."""

    catalogue: Catalogue
    adapters: Mapping[str, Adapter]
    environ: Mapping[str, str]

    @classmethod
    def of(cls, catalogue: Catalogue, environ: Mapping[str, str]) -> Providers:
        """Makes each provider's adapter."""
        adapters = {name: _adapter(provider) for name, provider in catalogue.providers.items()}
        return cls(catalogue, adapters, environ)

    def adapter(self, deployment: Deployment) -> Adapter:
        """The deployment's wire format."""
        return self.adapters[deployment.provider]

    def key(self, deployment: Deployment) -> str:
        """The key of the deployment's provider. Raises NO_PROVIDER_KEY."""
        provider = self.catalogue.providers[deployment.provider]
        key = provider.key(self.environ)
        if key is None:
            raise MeshError(Reason.NO_PROVIDER_KEY, self.unavailable_reason(deployment))
        return key

    def unavailable_reason(self, deployment: Deployment) -> str:
        """Why a deployment cannot be called; empty if it can."""
        provider = self.catalogue.providers[deployment.provider]
        if provider.key(self.environ) is not None:
            return ""
        wanted = " or ".join(provider.key_env)
        return f"{provider.name} has no API key: set {wanted} in the provider-proxy's environment."

    def candidates(self, model: str, allowed: Sequence[str]) -> list[Deployment]:
        """The model's deployments that may and can be called. Raises UNKNOWN_MODEL or NO_PROVIDER_KEY."""
        known = self.catalogue.models.get(model)
        if known is None:
            raise MeshError(Reason.UNKNOWN_MODEL, f'The catalogue has no model "{model}".', metadata={"model": model})
        named = [self.catalogue.deployments[name] for name in known.deployments if not allowed or name in allowed]
        if not named:
            wanted = ", ".join(allowed) or "any"
            raise MeshError(Reason.UNKNOWN_MODEL, f'The model "{model}" has no deployment of these: {wanted}.')
        callable_ones = [deployment for deployment in named if not self.unavailable_reason(deployment)]
        if not callable_ones:
            raise MeshError(Reason.NO_PROVIDER_KEY, self.unavailable_reason(named[0]), metadata={"model": model})
        return callable_ones


def _adapter(provider: Provider) -> Adapter:
    match provider.format:
        case "anthropic":
            return AnthropicAdapter()
        case "gemini":
            return GeminiAdapter()
        case _:
            return OpenAIAdapter(provider)
