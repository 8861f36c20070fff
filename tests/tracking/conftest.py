from collections.abc import Iterator

import pytest

from cldmray.tracking import Tracker, TrackingConfig


@pytest.fixture(scope="session")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracker]:
    """A checked tracker on one SQLite file for the session: making it takes seconds."""
    path = tmp_path_factory.mktemp("tracking") / "mlflow.db"
    made = Tracker(TrackingConfig(uri=f"sqlite:///{path}", experiment="an audit/1"))
    made.check()
    yield made
