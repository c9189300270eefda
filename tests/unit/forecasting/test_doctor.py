"""What doctor says of the compiled parts."""

import os
import sys

import pytest

from forecasting.doctor import Status, examine
from infra.configuration import load_settings
from models.mamba2.kernels import registry


def kernels() -> dict[str, tuple[Status, str]]:
    findings = [finding for finding in examine(load_settings()) if finding.name == "kernels"]
    return {finding.found.partition(":")[0]: (finding.status, finding.found) for finding in findings}


@pytest.mark.usefixtures("clean_environment")
def test_one_backend_is_used_and_the_others_say_why_not() -> None:
    found = kernels()
    assert list(found) == ["cuda", "cpu", "reference", "mamba_ssm"]
    assert [name for name, (status, _) in found.items() if status is Status.OK] == [registry.get_backend().name]
    assert all(status is not Status.FAIL for status, _ in found.values())


@pytest.mark.usefixtures("clean_environment")
def test_a_forced_backend_is_named_and_an_impossible_one_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHTIDE_BACKEND", "reference")
    assert kernels()["reference"] == (Status.OK, "reference: named by GRAPHTIDE_BACKEND")
    monkeypatch.setenv("GRAPHTIDE_BACKEND", "tpu")
    found = kernels()
    assert found["GRAPHTIDE_BACKEND=tpu cannot be used"][0] is Status.FAIL
    assert found["reference"][1] == "reference: available, but GRAPHTIDE_BACKEND names tpu"


@pytest.mark.usefixtures("clean_environment")
def test_missing_compiled_kernels_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.mamba2.kernels.cpu.backend._IMPORT_ERROR", ImportError("no _native"))
    status, text = kernels()["cpu"]
    assert status is Status.WARN
    assert "unavailable" in text


@pytest.mark.usefixtures("clean_environment")
@pytest.mark.parametrize("name", ["GRAPHTIDE_CPU_ISA", "GRAPHTIDE_CPU_THREADS"])
def test_a_wrong_setting_of_the_kernels_fails(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.mamba2.kernels.cpu.backend._IMPORT_ERROR", None)
    monkeypatch.setenv(name, "sse9")
    found = kernels()
    assert [backend for backend, (status, _) in found.items() if status is Status.FAIL] == ["cpu"]
    assert f"{name}=sse9" in found["cpu"][1]
    monkeypatch.setenv("GRAPHTIDE_BACKEND", "reference")
    assert all(status is not Status.FAIL for status, _ in kernels().values())


def test_a_gpu_that_another_process_holds_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(_index: int) -> str:
        raise RuntimeError("CUDA error: device is busy\nadvice for developers of torch")

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.get_device_name", busy)
    [finding] = [finding for finding in examine(load_settings()) if finding.name == "gpu"]
    assert (finding.status, finding.found) == (
        Status.WARN,
        "one that cannot be used: CUDA error: device is busy",
    )


def test_a_decoder_that_is_not_compiled_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def decoder() -> tuple[Status, str]:
        [finding] = [finding for finding in examine(load_settings()) if finding.name == "decoder"]
        return finding.status, finding.found

    monkeypatch.setattr("stream.native.unavailable", lambda: None)
    assert decoder() == (Status.OK, "compiled")
    monkeypatch.setattr("stream.native.unavailable", lambda: "no such module")
    assert decoder() == (
        Status.WARN,
        "its compiled part is missing (no such module), so records are read more slowly",
    )


@pytest.mark.usefixtures("clean_environment")
def test_a_system_without_affinities_has_the_cores_that_it_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 10)
    monkeypatch.setattr(sys, "platform", "darwin")
    [finding] = [finding for finding in examine(load_settings()) if finding.name == "cpu"]
    assert "10 usable cores" in finding.found
