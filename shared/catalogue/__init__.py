"""The catalogue: which models there are, what they cost, where they are served, and which names stand for several.

Data only: which model answers is the router's choice, how a provider is spoken to is the proxy's. Shipped are
`catalogue.yaml` (providers, aliases) and `prices.yaml` (models, prices); a user's file extends and overrides both.
"""

from shared.catalogue.catalogue import (
    DEFAULT_EMBEDDING_ALIAS,
    EMBEDDING,
    Alias,
    CacheScope,
    Catalogue,
    Deployment,
    Dialect,
    Model,
    Provider,
    Semantic,
)
from shared.catalogue.documents import CatalogueError
from shared.catalogue.loading import load
from shared.catalogue.watching import watch

__all__ = [
    "DEFAULT_EMBEDDING_ALIAS",
    "EMBEDDING",
    "Alias",
    "CacheScope",
    "Catalogue",
    "CatalogueError",
    "Deployment",
    "Dialect",
    "Model",
    "Provider",
    "Semantic",
    "load",
    "watch",
]
