"""Turn published weights into a folder that anydit opens, and back.

anydit convert dit DiT-XL-2-256x256.pt --to models/dit-xl --vae sd-vae-ft-ema/
anydit convert sit SiT-XL-2-256x256.pt --to models/sit-xl
anydit convert diffusers facebook-dit/ --to models/dit-xl
anydit convert pixart PixArt-Sigma-XL-2-512-MS/ --to models/pixart
anydit convert to-diffusers runs/digits --to exported/
anydit convert merge runs/adapted --to models/adapted
anydit convert safetensors inception.pth --to inception.safetensors
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from anydit.cli import Parser
from anydit.interop import convert, flow


class Form(NamedTuple):
    """What it reads and writes, what does it, the flags that it takes, and whether it makes a folder to sample from."""

    about: str
    convert: Callable[..., object]
    flags: frozenset[str] = frozenset()
    folder: bool = False


VAE = frozenset({"vae"})
CHECKPOINT = frozenset({"heads", "raw"}) | VAE
"""Flags of forms in one file, which may hold averaged weights beside the trained ones, and say nothing of heads."""

FOR_DIFFUSERS = frozenset({"vae", "round_time"})
PARTS = frozenset({"parts"})

FORMS = {
    "dit": Form("a checkpoint of facebookresearch/DiT (.pt) to a folder", convert.from_dit, CHECKPOINT, True),
    "sit": Form("a checkpoint of willisma/SiT (.pt) to a folder", flow.from_sit, CHECKPOINT, True),
    "lightningdit": Form(
        "a checkpoint of hustvl/LightningDiT (.pt) to a folder", flow.from_lightningdit, CHECKPOINT | {"latents"}, True
    ),
    "diffusers": Form(
        "a folder of DiTTransformer2DModel or DiTPipeline to a folder", convert.from_diffusers, VAE, True
    ),
    "pixart": Form("a folder of diffusers' PixArt (-alpha, -Sigma) to a folder", convert.from_pixart, VAE, True),
    "sd3": Form("a folder of diffusers' Stable Diffusion 3 to a folder", convert.from_sd3, VAE, True),
    "to-dit": Form("a run or folder to a checkpoint of facebookresearch/DiT (.pt)", convert.to_dit),
    "to-sit": Form("a run or folder to a checkpoint of willisma/SiT (.pt)", flow.to_sit),
    "to-lightningdit": Form("a run or folder to a checkpoint of hustvl/LightningDiT (.pt)", flow.to_lightningdit),
    "to-diffusers": Form(
        "a run or folder to a folder that diffusers' DiTPipeline loads", convert.to_diffusers, FOR_DIFFUSERS
    ),
    "to-pixart": Form("a run or folder to a folder of diffusers' PixArtSigmaPipeline", convert.to_pixart, PARTS),
    "to-sd3": Form("a run or folder to a folder of diffusers' StableDiffusion3Pipeline", convert.to_sd3, PARTS),
    "merge": Form("a run, or an adapter and its base, to a folder that needs neither", convert.merge),
    "safetensors": Form("a file of plain tensors (.pt, .pth, .bin) to .safetensors", convert.to_safetensors),
}


def run(argv: list[str]) -> int:
    """The command; returns its exit code."""
    forms = "\n".join(f"  {name:17}{form.about}" for name, form in FORMS.items())
    parser = Parser(
        "anydit convert",
        description=f"{__doc__}\nforms:\n{forms}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("form", choices=FORMS, metavar="FORM", help="one of the above")
    parser.add_argument("source", type=Path, metavar="FROM", help="what to read")
    parser.add_argument("--to", type=Path, required=True, help="what to write; must not exist yet")
    parser.add_argument("--heads", type=int, help="checkpoints: attention heads, of a width that was not published")
    parser.add_argument("--raw", action="store_true", help="checkpoints: the trained weights instead of their average")
    parser.add_argument("--latents", type=Path, help="form lightningdit: latents_stats.pt, mean and std by channel")
    parser.add_argument("--vae", type=Path, help="a folder of diffusers' autoencoder: for images in place of latents")
    parser.add_argument("--parts", type=Path, help="to-pixart, to-sd3: a pipeline whose encoders and vae go along")
    parser.add_argument("--round-time", action="store_true", help="form to-diffusers: accept other time frequencies")
    known = parser.parse_args(argv)
    if known.to.exists():
        raise ValueError(f"to: got {known.to}, which exists; expected a path to write anew")
    if not known.source.exists():
        raise ValueError(f"from: got {known.source}, which does not exist; expected what to convert")
    form = FORMS[known.form]
    flags = frozenset[str]().union(*(f.flags for f in FORMS.values()))
    given = {name: value for name in flags if (value := getattr(known, name)) not in (None, False)}
    for name in sorted(given.keys() - form.flags):
        takers = ", ".join(other for other, f in FORMS.items() if name in f.flags)
        flag = name.replace("_", "-")
        raise ValueError(f"--{flag}: got it with the form {known.form}, expected it with {takers} alone")
    if given.pop("raw", False):
        given["ema"] = False
    form.convert(known.source, known.to, **given)
    print(f"Wrote {known.to}")
    if form.folder:
        print(f"Sample from it: anydit sample {known.to} -n 4 --out {'latents/' if known.vae is None else 'images/'}")
    return 0
