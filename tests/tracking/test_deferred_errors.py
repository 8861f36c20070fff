import pytest

from cldmray.tracking import DeferredErrors, TrackingError


def test_nothing_is_held_back_before_the_results_are_written() -> None:
    with pytest.raises(TrackingError, match="^no server$"), DeferredErrors():
        raise TrackingError("no server")


def test_a_failure_of_mlflow_is_raised_at_the_end() -> None:
    printed = []
    with DeferredErrors() as deferred:
        deferred.written("out")
        raise TrackingError("MLflow at x cannot be used: gone; see that it runs")
    printed.append("report")
    with pytest.raises(TrackingError) as caught:
        deferred.end()
    assert printed == ["report"]
    assert str(caught.value) == (
        "the results are complete in out, but not in MLflow. MLflow at x cannot be used: gone; see "
        "that it runs. To record them, run the same command again: what is finished is reused"
    )
    assert caught.value.__cause__ is None


def test_other_errors_pass() -> None:
    with pytest.raises(KeyboardInterrupt), DeferredErrors() as deferred:
        deferred.written("out")
        raise KeyboardInterrupt


def test_nothing_failed() -> None:
    with DeferredErrors() as deferred:
        deferred.written("out")
    deferred.end()
