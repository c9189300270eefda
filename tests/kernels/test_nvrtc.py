"""Compilation of the kernels for every architecture, and the cache of what was compiled."""

import importlib
import logging
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from models.mamba2.config import Mamba2Config
from models.mamba2.kernels.contract import BackendUnavailableError, StackSizes
from models.mamba2.kernels.cuda import driver, nvrtc
from models.mamba2.kernels.cuda.backend import CudaBackend
from models.mamba2.kernels.cuda.cache import CubinCache, default_folder
from models.mamba2.kernels.cuda.device import why_unavailable
from models.mamba2.kernels.cuda.plan import DeviceLimits, plan_prefill
from models.mamba2.kernels.cuda.rollout_plan import plan_rollouts, widen
from tests.conftest import lacking

SIZES = StackSizes(Mamba2Config(d_model=128, n_layers=4), 12, 1, True)
LIMITS = {
    "sm_80": DeviceLimits(shared_bytes=163 << 10, has_clusters=False),
    "sm_90": DeviceLimits(shared_bytes=227 << 10, has_clusters=True),
    "sm_100": DeviceLimits(shared_bytes=227 << 10, has_clusters=True),
}


@pytest.fixture(scope="module")
def real_compiler(require: Callable[[str, bool, str], None]) -> nvrtc.Nvrtc:
    try:
        return nvrtc.Nvrtc()
    except BackendUnavailableError as error:
        require("nvrtc", False, str(error))
        raise


@pytest.mark.parametrize("architecture", LIMITS)
class TestCompilation:
    @pytest.mark.parametrize("source", ["products.cu", "scan.cu"])
    def test_prefill_compiles_without_local_memory(
        self, real_compiler: nvrtc.Nvrtc, architecture: str, source: str
    ) -> None:
        plan = plan_prefill(SIZES, 4, LIMITS[architecture])
        compiled = real_compiler.compile(source, architecture, plan.defines())
        assert compiled.cubin[:4] == b"\x7fELF"
        self.check_usage(compiled, plan.gemm_threads, 4)

    @pytest.mark.parametrize("weight_bytes", [2, 4])
    def test_rollout_compiles_without_local_memory(
        self, real_compiler: nvrtc.Nvrtc, architecture: str, weight_bytes: int
    ) -> None:
        plan = next(plan_rollouts(SIZES, weight_bytes, LIMITS[architecture]))
        widest = widen(plan, LIMITS[architecture])[-1]
        compiled = real_compiler.compile("rollout.cu", architecture, (widest if weight_bytes == 4 else plan).defines())
        assert compiled.cubin[:4] == b"\x7fELF"
        self.check_usage(compiled, plan.threads, 1)

    @staticmethod
    def check_usage(compiled: nvrtc.Compiled, threads: int, kernels: int) -> None:
        usage = compiled.usage()
        assert len(usage) == kernels, compiled.log
        for name, one in usage.items():
            assert (one.stack_bytes, one.spill_store_bytes, one.spill_load_bytes) == (0, 0, 0), name
            assert one.registers * threads <= 65536, name


def test_the_compiler_knows_the_architectures(real_compiler: nvrtc.Nvrtc) -> None:
    assert {80, 90, 100} <= set(real_compiler.architectures())


def test_a_refusal_shows_the_log(real_compiler: nvrtc.Nvrtc) -> None:
    with pytest.raises(nvrtc.KernelBuildError, match="SERIES"):
        real_compiler.compile("rollout.cu", "sm_90", {"WIDTH": "8"})


class CountingCompiler:
    """Stands for NVRTC: the cubin names what went in."""

    version = "13.2"

    def __init__(self) -> None:
        self.compiled: list[str] = []

    def compile(self, source: str, architecture: str, defines: Mapping[str, str]) -> nvrtc.Compiled:
        self.compiled.append(f"{source} {architecture} {sorted(defines.items())}")
        return nvrtc.Compiled(self.compiled[-1].encode(), "made now")


class TestCache:
    def build(
        self, compiler: CountingCompiler, folder: Path, architecture: str = "sm_90", **defines: str
    ) -> nvrtc.Compiled:
        return nvrtc.compile_cached(compiler, CubinCache(folder), "rollout.cu", architecture, defines)

    def test_a_second_process_finds_the_cubin(self, tmp_path: Path) -> None:
        compiler = CountingCompiler()
        first = self.build(compiler, tmp_path / "new" / "folder", WIDTH="8")
        second = self.build(compiler, tmp_path / "new" / "folder", WIDTH="8")
        assert len(compiler.compiled) == 1
        assert second == nvrtc.Compiled(first.cubin, "")
        assert [path.suffix for path in (tmp_path / "new" / "folder").iterdir()] == [".cubin"]

    def test_all_that_matters_is_in_the_key(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        compiler = CountingCompiler()
        self.build(compiler, tmp_path, WIDTH="8")
        self.build(compiler, tmp_path, WIDTH="9")
        self.build(compiler, tmp_path, architecture="sm_80", WIDTH="8")
        compiler.version = "13.3"
        self.build(compiler, tmp_path, WIDTH="8")
        texts = nvrtc.source_texts()
        monkeypatch.setattr(nvrtc, "source_texts", lambda: {**texts, "matvec.cuh": texts["matvec.cuh"] + " "})
        self.build(compiler, tmp_path, WIDTH="8")
        assert len(compiler.compiled) == 5

    @pytest.mark.parametrize("damage", [b"", b"junk", None])
    def test_a_broken_entry_is_compiled_again(
        self, tmp_path: Path, damage: bytes | None, caplog: pytest.LogCaptureFixture
    ) -> None:
        compiler = CountingCompiler()
        whole = self.build(compiler, tmp_path)
        (entry,) = tmp_path.iterdir()
        entry.write_bytes(entry.read_bytes()[:-1] if damage is None else damage)
        assert self.build(compiler, tmp_path).cubin == whole.cubin
        assert "broken" in caplog.text
        assert self.build(compiler, tmp_path).cubin == whole.cubin
        assert len(compiler.compiled) == 2

    def test_a_folder_that_cannot_be_written_is_survived(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        # A file in the place of the folder refuses every user, root too.
        (tmp_path / "cache").write_text("in the way")
        assert self.build(CountingCompiler(), tmp_path / "cache").cubin
        assert "not kept" in caplog.text

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write into read-only folders")
    def test_a_read_only_folder_is_survived(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        tmp_path.chmod(0o500)
        assert self.build(CountingCompiler(), tmp_path).cubin
        assert "not kept" in caplog.text

    def test_a_full_disk_is_survived_and_leaves_no_scratch(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def full(self: Path, target: Path) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "replace", full)
        with caplog.at_level(logging.WARNING):
            assert self.build(CountingCompiler(), tmp_path).cubin
        assert "No space left" in caplog.text
        assert list(tmp_path.iterdir()) == []

    def test_the_folder_can_be_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.delenv("GRAPHTIDE_KERNEL_CACHE", raising=False)
        assert default_folder() == tmp_path / "graphtide" / "kernels"
        monkeypatch.setenv("GRAPHTIDE_KERNEL_CACHE", str(tmp_path / "mine"))
        assert default_folder() == tmp_path / "mine"

    def test_a_user_without_a_home_keeps_nothing(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def homeless() -> Path:
            raise RuntimeError("Could not determine home directory.")

        for name in ("XDG_CACHE_HOME", "GRAPHTIDE_KERNEL_CACHE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(Path, "home", homeless)
        folder, compiler = default_folder(), CountingCompiler()
        assert folder is None
        for _ in range(2):
            assert nvrtc.compile_cached(compiler, CubinCache(folder), "rollout.cu", "sm_90", {}).cubin
        assert len(compiler.compiled) == 2
        assert "GRAPHTIDE_KERNEL_CACHE" in caplog.text


def test_no_lambda_leaves_its_parameters_open() -> None:
    # NVRTC 13.0, which torch brings for CUDA 13.0, takes such a lambda for a function of the host, and refuses it.
    for name, text in nvrtc.source_texts().items():
        assert not re.search(r"\[[&=]?\]\s*\([^)]*\bauto\b", text), name


def test_without_a_gpu_the_backend_says_why() -> None:
    reason = why_unavailable()
    if reason is None:
        pytest.skip("this machine has a GPU")
    assert CudaBackend().unavailable() == reason
    assert reason


def test_without_nvrtc_the_reason_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvrtc, "_candidates", lambda: iter(()))
    with pytest.raises(BackendUnavailableError, match="nvidia-cuda-nvrtc"):
        nvrtc.Nvrtc()


def test_the_driver_s_numbers_are_those_of_cuda() -> None:
    try:
        bindings = importlib.import_module("cuda.bindings.driver")
    except ImportError:
        lacking("nvrtc", "cuda-bindings is not installed")
    function, device = bindings.CUfunction_attribute, bindings.CUdevice_attribute
    for ours, theirs in (
        (driver.MAX_DYNAMIC_SHARED_SIZE_BYTES, function.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES),
        (driver.NON_PORTABLE_CLUSTER_SIZE_ALLOWED, function.CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED),
        (driver.MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, device.CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN),
        (driver.CLUSTER_DIMENSION, bindings.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION),
        (driver.INVALID_CLUSTER_SIZE, bindings.CUresult.CUDA_ERROR_INVALID_CLUSTER_SIZE),
    ):
        assert ours == int(theirs), theirs


def test_the_kernel_of_the_barrier_costs_compiles(real_compiler: nvrtc.Nvrtc) -> None:
    text = (Path(__file__).parents[2] / "benchmarks" / "cuda_costs.cu").read_text()
    alone = {"block_barriers", "cluster_barriers", "barrier_exchanges"}
    for architecture, cluster in (("sm_80", "1"), ("sm_90", "8"), ("sm_100", "16")):
        defines = {"CLUSTER": cluster, "WORDS": "128"}
        compiled = real_compiler.compile("costs.cu", architecture, defines, text=text)
        assert alone | ({"counted_exchanges"} if cluster != "1" else set()) == set(compiled.usage())
