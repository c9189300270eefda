"""What is measured of alerts: another process judges them, so it is read from the service's file when asked for."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from forecasting.alerts.records import Alerts
from forecasting.alerts.rulebook import RuleBook
from infra.errors import StoreError


class AlertMeters(Collector):
    """Meters by rule; none while the file cannot be read.

    Args:
        rules, alerts: in the service's file.
    """

    def __init__(self, rules: RuleBook, alerts: Alerts) -> None:
        self._rules = rules
        self._alerts = alerts

    def collect(self) -> Iterator[Metric]:
        """Yield the meters as they stand now."""
        firing = GaugeMetricFamily("graphtide_alerts_firing", "Alerts that fire", labels=["rule"])
        evaluations = CounterMetricFamily("graphtide_alert_evaluations", "Judgements of a rule", labels=["rule"])
        failures = CounterMetricFamily(
            "graphtide_alert_failures", "Times that a rule could not be judged", labels=["rule"]
        )
        try:
            rows, counts = self._rules.all(), self._alerts.firing()
        except StoreError:
            return
        for row in rows:
            name = row.rule.name
            firing.add_metric([name], counts.get(name, 0))
            evaluations.add_metric([name], row.evaluations)
            failures.add_metric([name], row.failures)
        yield from (firing, evaluations, failures)
