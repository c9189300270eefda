"""What an answer says it rests on: as its schema has it, also where it was kept from before a member was added."""

import json
from dataclasses import replace
from typing import Any

import pytest
from jsonschema_rs import ValidationError, validator_for

from forecasting.api.bodies import encode, provenance
from forecasting.api.results import public_ground
from forecasting.api.schemas import COMPONENTS
from forecasting.jobs import Job, JobRequest, Status
from forecasting.live import LiveState
from forecasting.resolving import CalibratedOn, Resolved, calibrated_on
from infra.steps import HOUR_US
from models.baselines import ProfileLevel
from models.calibration import Calibration

FLOOR = LiveState("toy", HOUR_US, 1_600_002_000_000_000, 3, "d", ProfileLevel(), None, None, "too few steps")
MODEL = replace(FLOOR, model_digest="ab", degraded_reason=None, calibrated_until_step=2048, skill_until_step=2048)
SCHEMA = validator_for(COMPONENTS["Provenance"])


def kept(ground: dict[str, Any]) -> Job:
    """A job as it is read from the table, where what it rests on is JSON."""
    request = JobRequest(5, ("events",), (0.5,), 0)
    read = json.loads(json.dumps(ground | {"first_step_us": 0, "step_us": HOUR_US, "chunk_steps": 100}))
    return Job("0" * 32, "o", "toy", request, Status.DONE, 5, 1, 1, 0, 0, 0, None, read)


@pytest.mark.parametrize("on", [None, *CalibratedOn])
def test_answers_and_jobs_tell_on_which_graphs_a_model_was_calibrated(on: CalibratedOn | None) -> None:
    live = FLOOR if on is None else replace(MODEL, calibrated_on=on)
    answered = json.loads(encode(provenance(live, seed=0)))
    assert answered["calibrated_on"] == (None if on is None else on.value)
    assert (answered["calibrated_on"] is None) == (answered["calibrated_until_step"] is None)
    SCHEMA.validate(answered)
    assert public_ground(kept(provenance(live, seed=0))) == answered


def test_the_values_are_stable() -> None:
    assert [str(on) for on in CalibratedOn] == ["this graph", "other graphs"]
    with pytest.raises(ValidationError):
        SCHEMA.validate(provenance(MODEL, seed=0) | {"calibrated_on": "some graphs"})


def test_a_job_from_before_it_was_told_is_answered_as_the_schema_says() -> None:
    ground = provenance(MODEL, seed=0)
    del ground["calibrated_on"]
    answered = public_ground(kept(ground))
    assert answered == ground
    SCHEMA.validate(answered)


def test_what_is_calibrated_for_no_graph_in_particular_was_so_on_others() -> None:
    own, general = {"name": "mamba2"}, {"name": "mamba2-general", "steps_us": [HOUR_US]}
    floor = Resolved(ProfileLevel(), (None, None, True))
    trained = replace(floor, digest="ab", calibration=Calibration.none())
    assert calibrated_on(floor) is None
    assert calibrated_on(replace(trained, card=own)) is CalibratedOn.THIS_GRAPH
    assert calibrated_on(replace(trained, card=general)) is CalibratedOn.OTHER_GRAPHS
