"The scale that a report recommends."

from rcg.metrics import Interval
from rcg.running.report import recommended_scale


def share(value: float, error: float) -> Interval:
    return Interval(value, value - error, value + error)


def test_the_smallest_scale_that_is_not_below_the_best():
    shares = {0.0: share(0.5, 0.05), 1.0: share(0.78, 0.05), 8.0: share(0.8, 0.05)}
    assert recommended_scale(shares) == 1.0
    assert recommended_scale(shares | {1.0: share(0.7, 0.05)}) == 8.0
    assert recommended_scale({0.0: share(0.5, 0.3), 4.0: share(0.6, 0.3)}) == 0.0
