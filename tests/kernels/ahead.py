"""Compiles the kernels for an H100 on a machine without one: `python tests/kernels/ahead.py` tells what each takes.

They are loaded by path, since importing anydit imports PyTorch, which takes longer than all of this.
"""

import json
import re
import subprocess
import tempfile
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

KERNELS = Path(__file__).parents[2] / "src" / "anydit" / "kernels"
H100, ARCHITECTURE = GPUTarget("cuda", 90, 32), "sm_90a"
WIDTH, LANES, WARPS = 1152, 2048, 4
"""Of DiT-XL."""

BF16, FLOAT, WHOLE, NONE = "*bf16", "*fp32", "i32", "constexpr"


def main() -> None:
    """Print, of each kernel, the registers of a thread, bytes spilled, and bytes of shared memory."""
    rows, weights = module("rows"), module("weights")
    tile = {"width": WIDTH, "tall": 1, "lanes": LANES}
    sizes, two, three, four = {"n": WHOLE, "step": WHOLE, "chunk": WHOLE}, (BF16,) * 2, (BF16,) * 3, (FLOAT,) * 2
    read, made = (*two, *four), (*two, *(FLOAT,) * 3)
    forward = {"tokens": two, "modulation": three, "made": read, "eps": "fp32", **sizes}
    backward = {"given": two, "kept": read, "modulation": two, "made": made, **sizes}
    gate = {"given": three, "made": (BF16, FLOAT), **sizes}
    update = {"rows": "*i64", "places": "*i32", "told": FLOAT, "rates": ("fp32",) * 9}
    told = {
        "norm_forward": taken(rows.norm_forward, forward, tile),
        "norm_backward": taken(rows.norm_backward, backward, tile),
        "gate_backward": taken(rows.gate_backward, gate, tile),
        "update": taken(weights.update, update, {"aligned": True, "lanes": 1024}),
    }
    print(json.dumps(told, indent=2))


def module(name: str) -> Any:
    """A file of kernels."""
    spec = spec_from_file_location(name, KERNELS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    made = module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def taken(kernel: Any, types: dict[str, Any], constants: dict[str, Any]) -> dict[str, int]:
    """What a kernel takes, of arguments that are all aligned."""
    signature = {name: NONE if name in constants else types[name] for name in kernel.arg_names}
    values = {(i,): constants[name] for i, name in enumerate(kernel.arg_names) if name in constants}
    places = dict(pair for i, name in enumerate(kernel.arg_names) for pair in leaves(signature[name], (i,)))
    aligned = {at: [["tt.divisibility", 16]] for at, kind in places.items() if kind == WHOLE or kind.startswith("*")}
    made = triton.compile(ASTSource(kernel, signature, values, aligned), H100, {"num_warps": WARPS})
    said = assembled(made.asm["ptx"])
    found = {name: int(re.search(rf"(\d+) {words}", said)[1]) for name, words in SAID.items()}
    return found | {"shared": made.metadata.shared, "wide": len(re.findall(r"global[.\w:]*\.v4", made.asm["ptx"]))}


SAID = {"registers": "registers", "spilled": "bytes spill stores"}


def leaves(kind: Any, at: tuple[int, ...]) -> Any:
    """The types in a signature, by where they are in it."""
    if not isinstance(kind, tuple):
        return [(at, kind)]
    return [leaf for i, each in enumerate(kind) for leaf in leaves(each, (*at, i))]


def assembled(ptx: str) -> str:
    """What the assembler says of it."""
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(ptx)
        file.flush()
        command = [triton.knobs.nvidia.ptxas.path, "-v", f"--gpu-name={ARCHITECTURE}", file.name, "-o", "/dev/null"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stderr


if __name__ == "__main__":
    main()
