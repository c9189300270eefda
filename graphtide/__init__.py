"""The public face of Graphtide: a client of the forecast service. Imports none of the four packages.

`Client` and `AsyncClient` have the same methods; `results` holds what they return, `errors` what they raise.
"""

from graphtide.aio import AsyncClient
from graphtide.client import Client
from graphtide.errors import ApiError, JobFailedError, UnreachableError
from graphtide.results import Chunk, Forecast, Graph, Job, News, Taken

__all__ = [
    "ApiError",
    "AsyncClient",
    "Chunk",
    "Client",
    "Forecast",
    "Graph",
    "Job",
    "JobFailedError",
    "News",
    "Taken",
    "UnreachableError",
]
