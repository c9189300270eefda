"""Reports as PDF: printed when first asked for, kept beside the page from then on."""

import asyncio
import logging

from forecasting.api.problems import Problem, unavailable
from forecasting.reports.pdf import PrintError, print_page
from forecasting.reports.records import HTML, PDF, Reports
from infra.errors import StoreError
from infra.settings import ReportSettings

RETRY_AFTER_S = 10
_log = logging.getLogger(__name__)


class Printing:
    """Prints the pages of one process, one at a time: a browser takes a core and much memory.

    Args:
        reports: where pages are.
        settings: which browser prints, and how long it may take.
    """

    def __init__(self, reports: Reports, settings: ReportSettings) -> None:
        self._reports = reports
        self._settings = settings
        self._busy = asyncio.Lock()

    async def pdf(self, report_id: str) -> bytes | None:
        """Return a report as PDF; None where it has no page.

        Raises:
            Problem: 503 while another one is printed or where it cannot be printed.
            StoreError: the service's file cannot be used.
        """
        found = await asyncio.to_thread(self._reports.body, report_id, PDF)
        if found is not None:
            return found
        if self._busy.locked():
            raise unavailable("overloaded", "another report is being printed", retry_after_s=RETRY_AFTER_S)
        async with self._busy:
            page = await asyncio.to_thread(self._reports.body, report_id, HTML)
            return None if page is None else await asyncio.to_thread(self._print, report_id, page)

    def _print(self, report_id: str, page: bytes) -> bytes:
        settings = self._settings
        try:
            content = print_page(page, program=settings.browser, timeout_s=settings.print_timeout_s)
        except PrintError as error:
            # What a browser says names places of this machine: it is for the log.
            _log.warning("the report %s was not printed: %s (%s)", report_id, error.message, error.fix)
            raise Problem(
                503,
                "not-printed",
                "this service cannot print reports: its operator finds out why in the log; text/html is the page",
                headers={"Retry-After": str(RETRY_AFTER_S)},
            ) from None
        try:
            self._reports.keep_file(report_id, PDF, content)
        except StoreError as error:
            _log.warning("the report %s was printed, but not kept: %s", report_id, error.message)
        return content
