"""``jitgrad info``: what runs here, for users who look and for reports of bugs."""

from __future__ import annotations

import argparse
import glob
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence

from jitgrad import config
from jitgrad._version import __version__
from jitgrad.commands.cache import described
from jitgrad.execute.cpu import blas, llvm, threads
from jitgrad.execute.cuda import toolkit

PACKAGES = ("numpy", "numba", "llvmlite", "scipy", "optree", "tqdm")
VECTOR = ("sse", "avx", "fma", "f16c", "neon", "sve", "asimd", "vsx", "rvv")     # how names of vector features begin
PATIENCE = 3.0                 # seconds that another program may take to list the GPUs


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    argparse.ArgumentParser(prog="jitgrad info", description=__doc__).parse_args(argv)
    parts: dict[str, Callable[[], Iterator[str]]] = {
        "versions": versions, "processor": processor, "BLAS": products, "object cache": lambda: iter(described()),
        "switches": switches, "CUDA": cuda}
    for title, lines in parts.items():
        print(title)
        for line in lines():
            print(f"  {line}")
    return 0


def versions() -> Iterator[str]:
    """Ours, Python's and those of the packages that we need."""
    yield f"jitgrad   {__version__}"
    yield f"python    {platform.python_version()} ({platform.python_implementation()}, {sys.executable})"
    yield f"system    {platform.platform()}"
    for name in PACKAGES:
        try:
            yield f"{name:<9} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            yield f"{name:<9} not installed"


def processor() -> Iterator[str]:
    """Its name, the vector features that kernels are built for, and how many threads there are."""
    name, features = llvm.processor()
    yield f"name      {_model() or platform.processor() or 'unknown'}"
    yield f"built for {name}"
    yield f"vectors   {' '.join(f for f in features if f.startswith(VECTOR)) or 'none'}"
    yield (f"threads   {threads.usable()} usable of {os.cpu_count()}; "
           f"{threads.get_num_threads()} share a large operation")


def _model() -> str:
    """The processor's name as its maker has it, or ''."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.lower().startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return ""


def products() -> Iterator[str]:
    """The BLAS behind matrix products."""
    found = blas.described()
    if found is None:
        yield "none found in NumPy: matrix products run on jitgrad's own kernel"
        return
    path, configuration, threads = found
    yield f"library   {path}"
    if configuration:
        yield f"build     {configuration}"
    if threads:
        yield f"threads   {threads}"


def switches() -> Iterator[str]:
    """The settings in the environment that are ours."""
    found = {name: value for name, value in sorted(os.environ.items()) if name.startswith("JITGRAD_")}
    for name, value in found.items():
        yield f"{name}={value} ({config.SWITCHES.get(name, 'jitgrad knows no such switch')})"
    if not found:
        yield f"none set; there are {', '.join(config.SWITCHES)}"


def cuda() -> Iterator[str]:
    """Which of NVIDIA's packages are installed, and the devices. No driver is loaded: that can take seconds."""
    found = [text for text in toolkit.versions().split(", ") if not text.endswith(" -")]
    yield f"packages  {', '.join(found) if found else 'none of NVIDIA'}"
    if toolkit.missing():
        yield f"missing   {toolkit.missing()}"
    devices = list(_devices())
    yield f"devices   {', '.join(devices) if devices else 'none found'}"


def _devices() -> Iterator[str]:
    """NVIDIA's GPUs, with memory and driver, by the driver's own tool; else names by the files it keeps."""
    tool = shutil.which("nvidia-smi")
    if tool:
        try:
            query = [tool, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
            done = subprocess.run(query, capture_output=True, text=True,
                                  timeout=PATIENCE, check=True, stdin=subprocess.DEVNULL)
        except (OSError, subprocess.SubprocessError, UnicodeError):
            pass
        else:
            for line in filter(str.strip, done.stdout.splitlines()):
                name, *more = map(str.strip, line.split(","))
                yield f"{name} ({more[0]}, driver {more[1]})" if len(more) == 2 else name
            return
    for path in sorted(glob.glob("/proc/driver/nvidia/gpus/*/information")):
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                yield from (line.partition(":")[2].strip() for line in file if line.startswith("Model:"))
        except OSError:
            continue
