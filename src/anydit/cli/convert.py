"""Turn published weights into a folder that anydit opens, and back.

anydit convert dit DiT-XL-2-256x256.pt --to models/dit-xl
anydit convert diffusers facebook-dit/ --to models/dit-xl
anydit convert to-diffusers runs/digits --to exported/
anydit convert safetensors inception.pth --to inception.safetensors
"""

import argparse
from collections.abc import Callable
from pathlib import Path

from anydit.interop import convert

FORMS: dict[str, tuple[str, Callable[[Path, Path], object]]] = {
    "dit": ("a checkpoint of facebookresearch/DiT (.pt) to a folder", convert.from_dit),
    "diffusers": ("a folder of DiTTransformer2DModel or DiTPipeline to a folder", convert.from_diffusers),
    "to-dit": ("a run or folder to a checkpoint of facebookresearch/DiT (.pt)", convert.to_dit),
    "safetensors": ("a file of plain tensors (.pt, .pth, .bin) to .safetensors", convert.to_safetensors),
    "to-diffusers": ("a run or folder to a folder that diffusers' DiTPipeline loads", convert.to_diffusers),
}


def run(argv: list[str]) -> int:
    """The command; returns its exit code."""
    forms = "\n".join(f"  {name:14}{what}" for name, (what, _) in FORMS.items())
    parser = argparse.ArgumentParser(
        "anydit convert",
        description=f"{__doc__}\nforms:\n{forms}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("form", choices=FORMS, metavar="FORM", help="one of the above")
    parser.add_argument("source", type=Path, metavar="FROM", help="what to read")
    parser.add_argument("--to", type=Path, required=True, help="what to write; must not exist yet")
    parser.add_argument("--heads", type=int, help="form dit: attention heads, for a width that no published size has")
    parser.add_argument("--raw", action="store_true", help="form dit: the trained weights instead of their average")
    known = parser.parse_args(argv)
    if known.to.exists():
        raise ValueError(f"to: got {known.to}, which exists; expected a path to write anew")
    if not known.source.exists():
        raise ValueError(f"from: got {known.source}, which does not exist; expected what to convert")
    if known.form == "dit":
        convert.from_dit(known.source, known.to, heads=known.heads, ema=not known.raw)
    else:
        FORMS[known.form][1](known.source, known.to)
    print(f"Wrote {known.to}")
    if known.form in {"dit", "diffusers"}:
        print(f"Sample from it: anydit sample {known.to} -n 4 --out latents/")
    return 0
