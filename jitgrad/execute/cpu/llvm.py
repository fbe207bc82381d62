"""LLVM as a service: IR text to object bytes, object bytes to addresses."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from functools import cache
from typing import TypeAlias

import llvmlite
import llvmlite.binding as llvm

from jitgrad.execute.cpu.lifetime import immortal

Code: TypeAlias = llvm.ResourceTracker

_serial = itertools.count()
_linked: list[Code] = immortal([])     # code lives as long as the process


@cache
def _target() -> llvm.Target:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_triple(llvm.get_process_triple())


@cache
def _machine(level: int) -> llvm.TargetMachine:
    return _target().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(),
        opt=level, jit=True, reloc="default", codemodel="jitdefault")


@cache
def _jit() -> llvm.LLJIT:
    return immortal(llvm.create_lljit_compiler(_machine(2), use_jit_link=False))


@cache
def host() -> str:
    """What an object file depends on besides its source: the CPU, its features, the compiler."""
    _target()
    return "/".join((llvm.get_process_triple(), llvm.get_host_cpu_name(),
                     llvm.get_host_cpu_features().flatten(), llvmlite.__version__))


@cache
def has_feature(name: str) -> bool:
    """Whether the CPU has a feature, by LLVM's name."""
    return bool(llvm.get_host_cpu_features().get(name))


def processor() -> tuple[str, list[str]]:
    """LLVM's name of this CPU, and the features that code is built for."""
    return llvm.get_host_cpu_name(), sorted(name for name, there in llvm.get_host_cpu_features().items() if there)


def emit(ir: str | Iterable[str], *, optimise: str = "") -> bytes:
    """Object bytes of IR text (several texts are linked into one module).

    ``optimise``: "" for code that was written as vectors, "loops" for LLVM's O2 pipeline, "branches" for code that is
    all calls and branches: variables to registers, inlining where the text says so, redundant loads; a tenth of O2's
    time.
    """
    llvm.initialize_native_asmparser()
    target = _machine(2)
    modules = [llvm.parse_assembly(text) for text in ([ir] if isinstance(ir, str) else ir)]
    module = modules[0]
    for other in modules[1:]:
        module.link_in(other)
    module.triple = llvm.get_process_triple()
    module.data_layout = str(target.target_data)
    module.verify()
    if optimise:
        builder = llvm.create_pass_builder(target, llvm.create_pipeline_tuning_options(speed_level=2))
        passes = builder.getModulePassManager() if optimise == "loops" else _branches()
        passes.run(module, builder)
    return target.emit_object(module)


def _branches() -> llvm.ModulePassManager:
    passes = llvm.create_new_module_pass_manager()
    for name in ("sroa", "simplify_cfg", "instruction_combine", "always_inliner", "sroa", "instruction_combine",
                 "jump_threading", "simplify_cfg", "reassociate", "new_gvn", "instruction_combine", "jump_threading",
                 "dead_store_elimination", "aggressive_dce", "simplify_cfg", "instruction_combine",
                 "global_dead_code_eliminate"):
        getattr(passes, f"add_{name}_pass")()
    return passes


def link(obj: bytes, exports: Iterable[str], imports: Mapping[str, int] = {}) -> dict[str, int]:
    """Load an object file; the addresses of ``exports``. ``imports`` name data and functions of ours."""
    addresses, code = load(obj, exports, imports)
    _linked.append(code)
    return addresses


def load(obj: bytes, exports: Iterable[str], imports: Mapping[str, int] = {}) -> tuple[dict[str, int], Code]:
    """The same, and what keeps the code: it is freed with that."""
    library = llvm.JITLibraryBuilder().add_object_img(obj).add_current_process()
    for symbol, address in imports.items():
        library.import_symbol(symbol, address)
    names = list(exports)
    for symbol in names:
        library.export_symbol(symbol)
    tracker = library.link(_jit(), f"jitgrad{next(_serial)}")
    return {symbol: tracker[symbol] for symbol in names}, tracker
