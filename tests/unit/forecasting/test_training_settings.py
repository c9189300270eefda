"""The settings offer what the forecaster and its training take, with the same defaults."""

from forecasting.training import forecaster_config, training_config
from infra.settings import Settings
from models.forecaster import ForecasterConfig
from models.optimisation import TrainingConfig
from stream.closing import Limits
from stream.ingest import IngestOptions


def test_forecaster_and_training() -> None:
    assert forecaster_config(Settings()) == ForecasterConfig()
    assert training_config(Settings()) == TrainingConfig()


def test_ingestion() -> None:
    settings, options = Settings(), IngestOptions()
    limits = Limits(settings.metrics.max_nodes, settings.metrics.max_edges, settings.ingest.max_empty_steps)
    assert limits == options.limits
    assert settings.ingest.step_us == options.step_us
    assert settings.ingest.out_of_orderness_s == options.out_of_orderness_us
    assert settings.ingest.keep_rejects == options.keep_rejects
