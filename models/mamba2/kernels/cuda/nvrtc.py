"""NVRTC, NVIDIA's compiler as a library, by way of ctypes: kernel text in, cubin out, with no GPU, driver or header."""

import ctypes
import ctypes.util
import functools
import hashlib
import importlib.util
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from models.mamba2.kernels.contract import BackendUnavailableError
from models.mamba2.kernels.cuda.cache import CubinCache

SOURCES = Path(__file__).parent

# Contraction is off so that a sum has the same bits wherever the compiler meets it; the sources say fmaf themselves.
_OPTIONS = ("--std=c++17", "--fmad=false", "--ptxas-options=-v")
_USAGE = re.compile(
    r"Function properties for (\w+)\s+ptxas\W+(\d+) bytes stack frame, "
    r"(\d+) bytes spill stores, (\d+) bytes spill loads"
    r".*?Used (\d+) registers",
    re.DOTALL,
)


class KernelBuildError(RuntimeError):
    """NVRTC refused a kernel; the message holds its log."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What the assembler says about one kernel.

    Attributes:
        registers: of a thread.
        stack_bytes, spill_store_bytes, spill_load_bytes: local memory of a thread; 0 where all is in registers.
    """

    registers: int
    stack_bytes: int
    spill_store_bytes: int
    spill_load_bytes: int


@dataclass(frozen=True, slots=True)
class Compiled:
    """A cubin, and the log of its making (empty if it came from a cache)."""

    cubin: bytes
    log: str

    def usage(self) -> dict[str, Usage]:
        """Return what the log says about each kernel."""
        found = _USAGE.findall(self.log)
        return {
            name: Usage(int(registers), int(stack), int(stores), int(loads))
            for name, stack, stores, loads, registers in found
        }


class Nvrtc:
    """The compiler.

    Raises:
        BackendUnavailableError: the library is not there or cannot be loaded.
    """

    def __init__(self) -> None:
        self._library = _load()
        self.version = self._version()

    def architectures(self) -> tuple[int, ...]:
        """Return the compute capabilities that it compiles for: 90 for sm_90."""
        count = ctypes.c_int()
        self._check(self._library.nvrtcGetNumSupportedArchs(ctypes.byref(count)))
        numbers = (ctypes.c_int * count.value)()
        self._check(self._library.nvrtcGetSupportedArchs(numbers))
        return tuple(numbers)

    def compile(
        self, source: str, architecture: str, defines: Mapping[str, str], *, text: str | None = None
    ) -> Compiled:
        """Compile one of the `.cu` files of this package, or a text that may include its headers.

        Args:
            source: name of the file.
            architecture: the GPU, such as "sm_90".
            defines: macros.
            text: what to compile, if not the file.

        Raises:
            KernelBuildError: the compiler refused.
        """
        texts = source_texts()
        headers = {name: text for name, text in texts.items() if name.endswith(".cuh")}
        program = ctypes.c_void_p()
        self._check(
            self._library.nvrtcCreateProgram(
                ctypes.byref(program),
                (texts[source] if text is None else text).encode(),
                source.encode(),
                len(headers),
                _strings(headers.values()),
                _strings(headers),
            )
        )
        try:
            options = compile_options(architecture, defines)
            status = self._library.nvrtcCompileProgram(program, len(options), _strings(options))
            log = self._text(program, "ProgramLog").decode(errors="replace").rstrip("\0")
            if status != 0:
                raise KernelBuildError(f"NVRTC {self.version} refused {source} for {architecture}:\n{log}")
            return Compiled(self._text(program, "CUBIN"), log)
        finally:
            self._library.nvrtcDestroyProgram(ctypes.byref(program))

    def _text(self, program: ctypes.c_void_p, what: str) -> bytes:
        size = ctypes.c_size_t()
        self._check(getattr(self._library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
        buffer = ctypes.create_string_buffer(size.value)
        self._check(getattr(self._library, f"nvrtcGet{what}")(program, buffer))
        return buffer.raw

    def _version(self) -> str:
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._check(self._library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
        return f"{major.value}.{minor.value}"

    def _check(self, status: int) -> None:
        if status != 0:
            self._library.nvrtcGetErrorString.restype = ctypes.c_char_p
            raise KernelBuildError(f"NVRTC: {self._library.nvrtcGetErrorString(status).decode()}")


def compile_cached(
    compiler: Nvrtc, cache: CubinCache, source: str, architecture: str, defines: Mapping[str, str]
) -> Compiled:
    """Return the cubin from the cache, else compile it and keep it.

    Raises:
        KernelBuildError: the compiler refused.
    """
    key = cache_key(compiler.version, source, architecture, defines)
    cubin = cache.get(key)
    if cubin is not None:
        return Compiled(cubin, "")
    compiled = compiler.compile(source, architecture, defines)
    cache.put(key, compiled.cubin)
    return compiled


def cache_key(version: str, source: str, architecture: str, defines: Mapping[str, str]) -> str:
    """Return a name for all that a cubin depends on."""
    digest = hashlib.sha256()
    parts = [version, source, *compile_options(architecture, defines)]
    for name, text in sorted(source_texts().items()):
        parts += [name, text]
    for part in parts:
        digest.update(f"{len(part)}:{part}".encode())
    return digest.hexdigest()[:40]


def compile_options(architecture: str, defines: Mapping[str, str]) -> list[str]:
    """Return the options of a compilation."""
    return [f"--gpu-architecture={architecture}", *_OPTIONS, *(f"-D{name}={defines[name]}" for name in sorted(defines))]


@functools.cache
def source_texts() -> dict[str, str]:
    """Return all kernel texts by file name."""
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(SOURCES.glob("*.cu*"))}


def _strings(texts: Iterable[str]) -> ctypes.Array[ctypes.c_char_p]:
    encoded = [text.encode() for text in texts]
    return (ctypes.c_char_p * len(encoded))(*encoded)


def _load() -> ctypes.CDLL:
    reasons = []
    for name in _candidates():
        try:
            return ctypes.CDLL(name)
        except OSError as error:
            reasons.append(str(error))
    why = f" ({reasons[0]})" if reasons else ""
    raise BackendUnavailableError(
        f"NVRTC is not installed{why}; a torch wheel for CUDA brings it, as does the package nvidia-cuda-nvrtc"
    )


def _candidates() -> Iterator[str]:
    """Yield where the library may be: the wheels of CUDA 13 and 12, torch's own folder, the system."""
    for package, pattern in (("nvidia", "*/lib/libnvrtc.so.*"), ("torch", "lib/libnvrtc*.so*")):
        spec = importlib.util.find_spec(package)
        for place in (spec and spec.submodule_search_locations) or ():
            for path in sorted(Path(place).glob(pattern), reverse=True):
                if "builtins" not in path.name and ".alt." not in path.name:
                    yield str(path)
    system = ctypes.util.find_library("nvrtc")
    if system is not None:
        yield system
