"""Settings are read once, checked whole, and wrong ones are refused by name with what to do."""

from collections.abc import Iterator
from dataclasses import FrozenInstanceError, dataclass
from enum import StrEnum
from pathlib import Path
from typing import ClassVar

import pytest

from shared.settings import (
    MEANINGLESS,
    PREFIX,
    ServiceSettings,
    Settings,
    SettingsError,
    known_names,
    setting,
    unknown_variables,
)


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True, kw_only=True)
class TeapotSettings(ServiceSettings):
    service: ClassVar[str] = "teapot"
    lid: str = setting(env="TEAPOT_LID", help="the lid")
    brew_s: int = setting(180, env="TEAPOT_BREW_S", guide=True, minimum=1, maximum=600, help="how long it brews")
    store: str = setting("pot", env="TEAPOT_STORE", guide="TEAPOT_BACKEND", choices=("pot",), help="where")
    code: str | None = setting(None, env="TEAPOT_CODE", secret=True, help="the code")
    cups: tuple[str, ...] = setting((), env="TEAPOT_CUPS", help="cups")
    colour: Colour = setting(Colour.RED, env="TEAPOT_COLOUR", help="colour")
    warmth: float = setting(0.5, env="TEAPOT_WARMTH", help="warmth")
    warm: bool = setting(False, env="TEAPOT_WARM", help="warm")

    def check(self) -> Iterator[str]:
        yield from super().check()
        if self.warm and not self.cups:
            yield "MODELMUXER_TEAPOT_WARM wants MODELMUXER_TEAPOT_CUPS to be set"


LID = {"MODELMUXER_TEAPOT_LID": "tight"}


def problems(**environ: str) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        TeapotSettings.load(LID | environ)
    return caught.value.problems


def test_values_are_read_by_type_and_the_rest_is_default() -> None:
    settings = TeapotSettings.load(
        LID
        | {
            "MODELMUXER_TEAPOT_CUPS": "blue, green,",
            "MODELMUXER_TEAPOT_COLOUR": "red",
            "MODELMUXER_TEAPOT_WARMTH": "1.5",
            "MODELMUXER_TEAPOT_WARM": "On",
            "MODELMUXER_HOME": "/tmp/x",
            "MODELMUXER_GRACE_S": " ",
        }
    )
    assert settings.cups == ("blue", "green")
    assert settings.colour is Colour.RED
    assert (settings.warmth, settings.warm, settings.home) == (1.5, True, Path("/tmp/x"))
    assert settings.grace_s == 30.0
    with pytest.raises(FrozenInstanceError):
        settings.warm = False  # type: ignore[misc]


def test_every_wrong_variable_is_reported_at_once_by_name() -> None:
    with pytest.raises(SettingsError) as caught:
        TeapotSettings.load(
            {
                "MODELMUXER_TEAPOT_BREW_S": "0",
                "MODELMUXER_TEAPOT_WARMTH": "nan",
                "MODELMUXER_TEAPOT_WARM": "maybe",
                "MODELMUXER_TEAPOT_COLOUR": "blue",
                "MODELMUXER_TEAPOT_PORT": "65536",
            }
        )
    assert caught.value.problems == (
        "MODELMUXER_TEAPOT_PORT='65536' must be a whole number from 0 to 65535",
        "MODELMUXER_TEAPOT_LID is not set: the lid",
        "MODELMUXER_TEAPOT_BREW_S='0' must be a whole number from 1 to 600",
        "MODELMUXER_TEAPOT_COLOUR='blue' must be one of: red",
        "MODELMUXER_TEAPOT_WARMTH='nan' must be a number",
        "MODELMUXER_TEAPOT_WARM='maybe' must be true or false",
    )


def test_the_guides_names_work_and_twins_may_agree_but_not_disagree() -> None:
    assert TeapotSettings.load(LID | {"TEAPOT_BREW_S": "60"}).brew_s == 60
    assert TeapotSettings.load(LID | {"TEAPOT_BACKEND": "pot"}).store == "pot"
    agreeing = TeapotSettings.load(LID | {"TEAPOT_BREW_S": "060", "MODELMUXER_TEAPOT_BREW_S": "60"})
    assert agreeing.brew_s == 60
    assert problems(TEAPOT_BREW_S="60", MODELMUXER_TEAPOT_BREW_S="61") == (
        "MODELMUXER_TEAPOT_BREW_S and TEAPOT_BREW_S disagree: unset one of them",
    )


def test_provenance_says_where_each_value_came_from_and_masks_secrets() -> None:
    settings = TeapotSettings.load(LID | {"TEAPOT_BREW_S": "60", "MODELMUXER_TEAPOT_CODE": "hush-hush"})
    rows = {row.name: (row.value, row.source) for row in settings.provenance()}
    assert rows["MODELMUXER_TEAPOT_BREW_S"] == ("60", "TEAPOT_BREW_S")
    assert rows["MODELMUXER_TEAPOT_CODE"] == ("********", "MODELMUXER_TEAPOT_CODE")
    assert rows["MODELMUXER_TEAPOT_WARM"] == ("false", "default")
    assert "hush-hush" not in repr(settings)


def test_a_secret_that_is_wrong_is_not_printed() -> None:
    assert problems(MODELMUXER_MESH_TOKEN="hush") == (
        "MODELMUXER_MESH_TOKEN is too short: use at least 16 random characters",
    )


def test_a_misspelt_variable_is_refused_with_the_name_that_was_meant() -> None:
    assert problems(MODELMUXER_TEAPOT_BREWS="60") == (
        "MODELMUXER_TEAPOT_BREWS is not a setting: did you mean MODELMUXER_TEAPOT_BREW_S?",
    )


def test_a_variable_unlike_any_other_is_only_worth_a_word() -> None:
    environ = LID | {"MODELMUXER_XYZZY": "1", "MODELMUXER_API_KEY": "k", "OTHER": "1"}
    TeapotSettings.load(environ)
    assert unknown_variables(environ) == ["MODELMUXER_XYZZY"]


def test_settings_of_other_services_in_the_same_environment_are_no_error() -> None:
    @dataclass(frozen=True, kw_only=True)
    class KettleSettings(Settings):
        service: ClassVar[str] = "kettle"
        volts: int = setting(230, env="KETTLE_VOLTS", help="volts")

    environ = LID | {"MODELMUXER_KETTLE_VOLTS": "high", "MODELMUXER_ROUTER_PORT": "1", "MODELMUXER_CACHE_PORT": "2"}
    assert TeapotSettings.load(environ).lid == "tight"
    assert unknown_variables(environ) == []
    assert KettleSettings.load(LID).volts == 230


def test_what_the_guide_names_and_this_release_has_not_is_refused_with_what_to_do() -> None:
    assert problems(CELERY_BROKER_URL="redis://:pw@h/1", MODELMUXER_MAX_WORKERS="4") == (
        "CELERY_BROKER_URL is set, but this release has no background worker; unset it",
        "MODELMUXER_MAX_WORKERS is set, but each service is one process in this release; set MAX_WORKERS=1 or unset it",
    )
    TeapotSettings.load(LID | {"MAX_WORKERS": "1", "ENABLE_REQUEST_BATCHING": "False", "REDIS_URL": ""})


def test_a_guides_name_that_a_service_obeys_is_not_also_called_meaningless() -> None:
    obeyed = {name.removeprefix(PREFIX) for name in known_names()} & set(MEANINGLESS)
    assert obeyed <= {"CACHE_BACKEND"}, f"take {sorted(obeyed)} out of MEANINGLESS"


def test_what_is_wrong_between_settings_is_said_too() -> None:
    assert problems(MODELMUXER_TEAPOT_WARM="yes") == ("MODELMUXER_TEAPOT_WARM wants MODELMUXER_TEAPOT_CUPS to be set",)


def test_a_listener_beyond_loopback_wants_a_mesh_token() -> None:
    (problem,) = problems(MODELMUXER_HOST="0.0.0.0")
    assert problem.startswith("MODELMUXER_MESH_TOKEN is not set although MODELMUXER_HOST is not loopback")
    TeapotSettings.load(LID | {"MODELMUXER_HOST": "0.0.0.0", "MODELMUXER_MESH_TOKEN": "m" * 32})
    TeapotSettings.load(LID | {"MODELMUXER_HOST": "::1"})


def test_a_port_that_kubernetes_put_there_is_recognised() -> None:
    (problem,) = problems(MODELMUXER_TEAPOT_PORT="tcp://10.0.0.1:50053")
    assert "enableServiceLinks: false" in problem
    TeapotSettings.load(LID | {"MODELMUXER_TEAPOT_SERVICE_HOST": "10.0.0.1", "MODELMUXER_TEAPOT_PORT_1_TCP": "x"})


def test_a_peers_address_follows_the_port_that_the_same_environment_gives_it() -> None:
    assert TeapotSettings.load(LID).cache_address == "127.0.0.1:50053"
    assert TeapotSettings.load(LID | {"MODELMUXER_CACHE_PORT": "7"}).cache_address == "127.0.0.1:7"
    named = TeapotSettings.load(LID | {"MODELMUXER_CACHE_PORT": "7", "MODELMUXER_CACHE_ADDRESS": "cache:1"})
    assert named.cache_address == "cache:1"
