"""When a run gives up."""

import pytest

from diffdis_ms.train.loop import MOST_SKIPPED, Skipped, TrainingError


def test_a_run_that_only_skips_steps_ends():
    skipped = Skipped(500, 3)
    for step in range(510, 500 + MOST_SKIPPED, 10):
        skipped.check(step, 1.0, step - 497)
    with pytest.raises(TrainingError, match=f'step 600: the last {MOST_SKIPPED} steps were all skipped.*scale 1'):
        skipped.check(600, 1.0, 103)


def test_one_step_that_counts_is_enough():
    skipped = Skipped(0, 0)
    for step in range(10, 1000, 10):
        skipped.check(step, 1.0, 9 * step // 10)
    for step in range(1000, 2000, 10):  # no overflow at all, as in float32
        skipped.check(step, 1.0, 891)
