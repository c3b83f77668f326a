"""A short soak: what `make soak` does for minutes."""

import random

from ..soak.soak import Soak


def test_random_requests_under_random_kills_show_what_the_model_says(tmp_path):
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    Soak(tmp_path, seed=seed, tenants=2, say=print).run(seconds=15.0, every_s=(1.0, 4.0))
