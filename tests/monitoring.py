"""What is exported for Prometheus, and which of it an expression asks for."""

import re
from pathlib import Path

import pynvml
from prometheus_client import CollectorRegistry

from forecasting.api.gpu_meters import GpuMeters
from forecasting.api.scraped import Scraped
from forecasting.api.telemetry import Telemetry
from forecasting.service_file import ServiceFile
from stream.metrics import IngestMetrics

FOLDER = Path(__file__).parents[1] / "infra" / "prometheus"
RULES = sorted((FOLDER / "rules").glob("*.yml"))
# Of Prometheus itself.
OF_OTHERS = {"up"}
_STRING = re.compile(r'"[^"]*"')
_SELECTOR = re.compile(r"\{[^}]*\}")
_NAME = re.compile(r"\b(?:graphtide[a-z0-9_]*(?::[a-z0-9_]+)*|up)\b")
_SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}


def metrics_of(expression: str) -> set[str]:
    """Return the names of the metrics and recorded series that an expression asks for."""
    return set(_NAME.findall(_SELECTOR.sub("", _STRING.sub("", expression))))


def names_of(registry: CollectorRegistry) -> set[str]:
    """Return the names of the series that a registry can have, with the endings that Prometheus sees."""
    return {family.name + ending for family in registry.collect() for ending in _SUFFIXES[family.type]}


def exported_names(folder: Path) -> set[str]:
    """Return the names of all series that the service and ingestion export.

    Args:
        folder: for a service's file.
    """
    scraped = CollectorRegistry()
    # Without a GPU the series have names and no values.
    scraped.register(GpuMeters(pynvml))
    with ServiceFile(folder / "service.db") as file:
        scraped.register(Scraped(dict, file))
        found = names_of(scraped)
    return found | names_of(Telemetry().registry) | names_of(IngestMetrics().registry) | OF_OTHERS
