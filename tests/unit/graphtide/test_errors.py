"""What the client raises comes whole from another process: a pool hands errors over as pickles."""

import pickle

import pytest

from graphtide import ApiError, JobFailedError, UnreachableError


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            ApiError(404, "unknown-graph", "there is no graph 'toi'", {"near": ["toy"]}, 2.0),
            "there is no graph 'toi' (HTTP 404)",
        ),
        (JobFailedError("17", "failed", "the model is gone"), "the forecast 17 failed: the model is gone"),
        (JobFailedError("17", "cancelled", None), "the forecast 17 cancelled"),
        (UnreachableError("http://x cannot be reached"), "http://x cannot be reached"),
    ],
)
def test_an_error_is_the_same_behind_a_pickle(error: Exception, said: str) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error) == said
    assert vars(again) == vars(error)
