"""How the state machines of hypothesis run: everything but their size is the same for all."""

import os

from hypothesis import HealthCheck, Phase, settings


def machine_settings(*, examples: int, steps: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        derandomize="CI" in os.environ,  # elsewhere every run looks further
        phases=[Phase.explicit, Phase.reuse, Phase.generate],  # to shrink takes minutes; print_blob repeats it
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
