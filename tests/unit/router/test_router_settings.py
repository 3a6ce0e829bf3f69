"""The guide's settings mean what they say in the router."""

from __future__ import annotations

import pytest

from services.router.settings import RouterSettings
from shared.settings import SettingsError


def test_the_guides_names_are_read() -> None:
    settings = RouterSettings.load(
        {"ENABLE_ROUTING_CACHE": "false", "ROUTING_CACHE_TTL": "60", "ENABLE_GZIP": "no", "GZIP_MINIMUM_SIZE": "500"}
    )
    assert not settings.enable_routing_cache
    assert settings.routing_cache_ttl_s == 60
    assert not settings.enable_gzip
    assert settings.gzip_minimum_bytes == 500


def test_defaults_are_the_guides() -> None:
    settings = RouterSettings.load({})
    assert (settings.port, settings.http_port) == (50051, 8000)
    assert (settings.enable_cache, settings.enable_routing_cache, settings.routing_cache_ttl_s) == (True, True, 300)
    assert settings.cache_timeout_s == 0.02


def test_twins_that_disagree_are_an_error() -> None:
    with pytest.raises(SettingsError, match="ROUTING_CACHE_TTL"):
        RouterSettings.load({"ROUTING_CACHE_TTL": "60", "MODELMUXER_ROUTING_CACHE_TTL": "61"})
