"""What the client raises."""

from collections.abc import Mapping
from typing import Any


class ApiError(Exception):
    """The service answered with a problem (RFC 9457).

    Attributes:
        status: of HTTP.
        kind: the last part of the problem's `type`, such as `unknown-graph`; "" where the answer is none.
        detail: what is wrong, for people.
        document: the whole problem, with `errors` where a parameter is at fault.
        retry_after_s: when to try again; None where the service did not say.
    """

    def __init__(
        self, status: int, kind: str, detail: str, document: Mapping[str, Any], retry_after_s: float | None
    ) -> None:
        # All of them, by which an error comes whole from a process of a pool.
        super().__init__(status, kind, detail, document, retry_after_s)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.document = dict(document)
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"{self.detail} (HTTP {self.status})"


class UnreachableError(Exception):
    """The service could not be reached, or a stream broke again and again; the cause is chained."""


class JobFailedError(Exception):
    """A long-range forecast failed or was cancelled.

    Attributes:
        job_id: which one.
        status: `failed` or `cancelled`.
        problem: why, where the service knows.
    """

    def __init__(self, job_id: str, status: str, problem: str | None) -> None:
        super().__init__(job_id, status, problem)
        self.job_id = job_id
        self.status = status
        self.problem = problem

    def __str__(self) -> str:
        return f"the forecast {self.job_id} {self.status}{f': {self.problem}' if self.problem else ''}"
