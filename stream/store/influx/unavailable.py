"""What is raised where InfluxDB is away; apart from its client, which takes half a second to import."""

from infra.errors import StoreError


class UnavailableError(StoreError):
    """InfluxDB cannot be reached, or is too busy: the same request can succeed later.

    Args:
        retry_after_s: how long the server asks to wait, 0 where it says nothing.
        may_go_on: the server may still be at work on the request.
    """

    def __init__(self, message: str, *, fix: str, retry_after_s: float = 0.0, may_go_on: bool = False) -> None:
        super().__init__(message, fix=fix)
        self.retry_after_s = retry_after_s
        self.may_go_on = may_go_on
