"""How long the state machines run: about so many steps each as `PROPERTY_STEPS` says; the default suits every run of the suite."""

import os

from hypothesis import HealthCheck, settings

STEPS_OF_AN_EXAMPLE = 50


def property_settings(default_steps: int) -> settings:
    """For a state machine that takes about `default_steps` steps, unless the environment asks for another number."""
    steps = int(os.environ.get("PROPERTY_STEPS", default_steps))
    return settings(
        max_examples=max(1, round(steps / STEPS_OF_AN_EXAMPLE)),
        stateful_step_count=STEPS_OF_AN_EXAMPLE,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
