"""Schedules of reports and alert rules that stand in the settings become those of the service's file.

Apart from the processes that make reports: what makes plots takes a second to import, and the service only plans them.
"""

from forecasting.alerts.rulebook import RuleBook
from forecasting.reports.schedules import Schedules, of_settings
from forecasting.reports.targets import kinds
from forecasting.service_file import ServiceFile
from infra.settings import Settings


def take_schedules(settings: Settings) -> None:
    """Check the targets of the settings, and make their schedules and alert rules those of the service's file.

    Raises:
        UsageError: a target, a schedule or a rule cannot work.
        StoreError: the service's file cannot be used.
    """
    kinds.check_targets(settings.reports.targets)
    with ServiceFile(settings.api.service_db) as file:
        Schedules(file, settings.reports).take_settings(
            [
                of_settings(name, given, settings.reports, seed=settings.forecast.seed)
                for name, given in settings.reports.schedules.items()
            ]
        )
        RuleBook(file).take_settings(settings.alerts, settings.reports.targets)
