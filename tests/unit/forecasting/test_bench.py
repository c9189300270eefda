"""The harness of the benchmarks: what it times computes what it should, and what it reports is what it timed."""

import json
import re
import sys
import venv
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from forecasting.bench import rollout
from forecasting.bench.chart import write_chart
from forecasting.bench.measure import Lane, measure_group
from forecasting.bench.processes import PeerError, WorkerProcess, peer_python
from forecasting.bench.report import Missing, Report, Row
from forecasting.bench.stacks import FORECASTER_INPUTS, FORECASTER_OUTPUTS, StackSpec
from forecasting.bench.systems import make_system
from forecasting.cli.bench import _bench
from infra.errors import GraphtideError
from models.columns import N_LEVELS, N_MODELLED
from models.outlook import N_FEATURES, N_LEANS

SMALL = StackSpec(d_model=64, n_layers=1)


@pytest.mark.parametrize("places", [("file/below.json", None), (None, "file/below.html")])
def test_what_could_not_be_written_is_not_measured(tmp_path, monkeypatch, places):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("in the way")
    output, chart = (None if place is None else Path(place) for place in places)
    with pytest.raises(GraphtideError, match="cannot write file/below"):
        _bench(lambda: pytest.fail("it was measured"), output, chart, as_json=False)


def test_the_forecasters_stack_has_the_forecasters_sizes():
    assert (FORECASTER_INPUTS, FORECASTER_OUTPUTS) == (N_FEATURES, N_MODELLED * (N_LEVELS + N_LEANS))


@pytest.mark.parametrize("head", ["scalar", "forecaster", "quantiles"])
@pytest.mark.parametrize("batch", [1, 3])
def test_the_hand_written_step_computes_what_the_reference_does(head, batch):
    spec = replace(SMALL, head=head, batch=batch)
    inputs = spec.inputs(20)
    eager, reference = (make_system(name, spec, "rollout", "", "fp32") for name in ("torch-eager", "torch-reference"))
    with torch.inference_mode():
        first, seconds = eager.run(inputs[:, :12], 5)
        second, _ = eager.run(inputs[:, 12:], 8)
        expected, _ = reference.run(inputs, 20)
        assert len(seconds) == 3
        torch.testing.assert_close(torch.cat([first, second], 1), expected, rtol=1e-4, atol=1e-5)
        eager.reset()
        again, _ = eager.run(inputs[:, :12], 12)
    assert torch.equal(again, first)


def test_the_seed_alone_decides_weights_and_inputs():
    first, second = SMALL.weights(), SMALL.weights()
    assert all(torch.equal(first.core[name], second.core[name]) for name in first.core)
    assert torch.equal(first.head_weight_RD, second.head_weight_RD)
    spec = replace(SMALL, head="forecaster", batch=2)
    assert torch.equal(spec.inputs(9)[:, :4], spec.inputs(4))
    assert StackSpec.from_json(json.loads(json.dumps(spec.as_json()))) == spec


def test_a_worker_answers_errors_and_lives_on():
    with WorkerProcess(sys.executable) as worker:
        with pytest.raises(PeerError, match="no system was made"):
            worker.ask(do="run", steps=1, windows=1)
        request = {"do": "make", "spec": SMALL.as_json(), "backend": "reference", "precision": "fp32"}
        with pytest.raises(PeerError, match="there is no system 'jax'"):
            worker.ask(**request, system="jax", task="rollout")
        with pytest.raises(PeerError, match="no prefill"):
            worker.ask(**request, system="torch-eager", task="prefill")
        made = worker.ask(**request, system="graphtide", task="rollout")
        assert made["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
        answer = worker.ask(do="run", steps=3, windows=4)
        assert len(answer["seconds"]) == 4
        assert 0 < sum(answer["seconds"]) <= answer["total_s"]
        with pytest.raises(PeerError, match="floor"):
            worker.ask(do="floor")
        assert worker.ask(do="memory")["peak_bytes"] > 10_000_000


def test_a_worker_that_dies_is_told_from_one_that_answers():
    with WorkerProcess("/bin/false") as worker, pytest.raises(PeerError, match="ended with code 1"):
        worker.ask(do="memory")


def test_lanes_are_timed_in_turns_and_failures_are_named():
    said = []
    lanes = [
        Lane("ours", "graphtide"),
        Lane("unknown", "jax"),
        Lane("other numbers", "graphtide", precision="int8", tolerance=1e-9),
        Lane("floor", "floor", of="ours"),
    ]
    result = measure_group(lanes, SMALL.as_json(), "rollout", budget_s=0, say=said.append)
    assert result.timings.keys() == {"ours"}
    assert all(0 < timing.best <= timing.usual for timing in result.timings.values())
    assert len(result.timings["ours"].seconds) >= 5
    assert "there is no system" in result.missing["unknown"]
    assert "computes something else" in result.missing["other numbers"]
    assert "floor" in result.missing["floor"]


def test_a_prefill_is_timed_whole():
    result = measure_group(
        [Lane("ours", "graphtide")], SMALL.as_json(), "prefill", budget_s=0, prefill_steps=300, say=lambda _text: None
    )
    assert len(result.timings["ours"].seconds) == 2


def test_an_environment_that_cannot_be_made_is_told(monkeypatch, tmp_path):
    def fail(*_arguments, **_options):
        raise OSError("no space left")

    monkeypatch.setenv("GRAPHTIDE_BENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(venv, "create", fail)
    with pytest.raises(PeerError, match="no space left"):
        peer_python("huggingface", lambda _text: None)
    assert peer_python("torch-eager", lambda _text: None) == sys.executable


def test_ratios_above_one_mean_that_we_are_ahead(tmp_path):
    report = Report("rollout", "graphtide bench rollout")
    for system, value in (("graphtide", 25.0), ("huggingface", 2000.0), ("floor", 20.0), ("guide", 1000.0)):
        report.add(Row("b1-d128l4-fp32", system, value, "us/step"))
    report.missing.append(Missing("b1-d128l4-fp32", "torch-compile", "no compiler"))
    for peer in rollout.PEERS:
        report.compare("b1-d128l4-fp32", peer, rollout.TARGETS["b1-d128l4-fp32"].get(peer))
    found = {ratio.peer: (ratio.ratio, ratio.met) for ratio in report.ratios}
    assert found == {"huggingface": (80, True), "floor": (0.8, True), "guide": (40, True)}
    fields = json.loads(json.dumps(report.as_json()))
    assert fields.keys() == {"bench", "command", "hardware", "versions", "rows", "ratios", "missing"}
    assert {"case", "system", "value", "unit"} <= fields["rows"][0].keys()
    assert fields["ratios"][0].keys() == {"case", "peer", "ratio", "target", "met"}
    assert fields["hardware"]["cores"] >= 1
    write_chart(report, tmp_path / "chart.html")
    page = (tmp_path / "chart.html").read_text()
    assert "huggingface" in page
    assert not re.search(r"<(script|link)[^>]+(src|href)=", page), "the chart needs the network"


def test_a_missed_target_is_not_met():
    report = Report("rollout", "")
    report.add(Row("case", "graphtide", 30.0, "us/step"))
    report.add(Row("case", "floor", 20.0, "us/step"))
    report.compare("case", "floor", 0.8)
    report.compare("case", "huggingface", 80)
    assert [(ratio.peer, ratio.met) for ratio in report.ratios] == [("floor", False)]


def test_case_names_are_the_fixed_ones():
    cases = [group.case(precision) for group in rollout.CPU_GROUPS for precision in ("fp32", "bf16")]
    assert {"b1-d128l4-fp32", "b1-d128l4-bf16", "b64-d128l4-fp32", "b64-d128l4-bf16"} <= set(cases)
    assert rollout.TARGETS.keys() - {"b1-d128l4-fp32-avx2", "b1-d128l4-fp32-365000"} <= set(cases)
    assert rollout.CUDA_GROUPS[0].case("bf16") == "b1-d128l4-bf16-cuda"


def test_the_command_refuses_what_names_nothing(graphtide):
    wrong = graphtide("bench", "rollout", "--only", "b7")
    assert (wrong.code, "--only names no case" in wrong.err) == (2, True)
    wrong = graphtide("bench", "prefill", "--chart", "chart.png")
    assert (wrong.code, ".html" in wrong.err) == (2, True)
