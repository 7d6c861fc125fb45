from __future__ import annotations

from pathlib import Path

import pytest

from loadtest.options import OptionError, read_options
from loadtest.scenarios import CLOSED, SCENARIOS
from loadtest.settings import NAMES
from server.settings import Settings


def test_by_default_it_is_the_steady_scenario_against_a_server_of_our_own() -> None:
    options = read_options({"SCENARIO": "", "USERS": "", "HOST": ""})
    assert options.scenarios == (SCENARIOS["steady"],)
    assert (options.host, options.capacity, options.generator, options.seed, options.exact) == (None, None, None, 1, True)
    assert options.command[-3:] == ("-m", "commands", "serve")
    assert options.seconds(SCENARIOS["steady"]) == 20
    assert options.out == Path("dist/loadtest")


def test_all_is_the_ten_with_a_short_soak() -> None:
    options = read_options({"SCENARIO": "all"})
    assert [scenario.name for scenario in options.scenarios] == list(SCENARIOS)
    assert options.seconds(SCENARIOS["soak"]) == 60
    assert options.seconds(SCENARIOS["burst"]) == 25
    assert read_options({"SCENARIO": "all", "SOAK": "90"}).seconds(SCENARIOS["soak"]) == 90
    assert read_options({"SCENARIO": "all", "DURATION": "5"}).seconds(SCENARIOS["soak"]) == 5
    assert read_options({"SCENARIO": "soak"}).seconds(SCENARIOS["soak"]) == 1800


def test_users_mean_the_closed_loop() -> None:
    options = read_options({"USERS": "4"})
    assert (options.scenarios, options.users) == ((CLOSED,), 4)
    assert read_options({"SCENARIO": "closed"}).users == 32


def test_everything_can_be_said() -> None:
    given = {"SCENARIO": "mixed", "HOST": "http://h:1/", "CAPACITY": "250.5", "GENERATOR": "light", "SEED": "7", "ANSWERS": "label"}
    options = read_options(given | {"OUT": "/x", "SERVER": "my 'own server'", "GATES": "my.toml"})
    assert options.gates == Path("my.toml")
    assert (options.host, options.capacity, options.generator, options.seed) == ("http://h:1", 250.5, "light", 7)
    assert (options.exact, options.out, options.command) == (False, Path("/x"), ("my", "own server"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"SCENARIO": "stedy"}, "SCENARIO=stedy: must be one of steady, ramp"),
        ({"HOST": "localhost:8000"}, "HOST=localhost:8000: must be the URL"),
        ({"DURATION": "long"}, "DURATION=long: must be a number from 1 to 86400"),
        ({"DURATION": "0"}, "DURATION=0: must be"),
        ({"CAPACITY": "-1"}, "CAPACITY=-1: must be"),
        ({"CAPACITY": "nan"}, "CAPACITY=nan: must be"),
        ({"SOAK": "inf"}, "SOAK=inf: must be"),
        ({"GENERATOR": "wrk"}, "GENERATOR=wrk: must be locust or light"),
        ({"SEED": "1.5"}, "SEED=1.5: must be a whole number"),
        ({"USERS": "0"}, "USERS=0: must be"),
        ({"USERS": "3", "SCENARIO": "steady"}, "USERS=3: is for SCENARIO=closed"),
        ({"ANSWERS": "none"}, "ANSWERS=none: must be exact or label"),
        ({"SERVER": "a 'b"}, "SERVER=a 'b: must be a command"),
    ],
)
def test_a_bad_value_is_named(given: dict[str, str], said: str) -> None:
    with pytest.raises(OptionError) as caught:
        read_options(given)
    assert said in str(caught.value)


def test_every_setting_of_the_server_that_may_change_a_result_is_recorded_in_it() -> None:
    where = {"HOST", "PORT", "AIP_HTTP_PORT", "AIP_PREDICT_ROUTE", "AIP_HEALTH_ROUTE", "DIALECTS"}
    assert {name.upper() for name in Settings.model_fields} - where == NAMES - {"SERVER"}
