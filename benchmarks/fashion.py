"""Quality at equal time on Fashion-MNIST: a recipe of ours and diffusers' U-Net, trained for the same wall-clock.

    python benchmarks/fashion.py                          # CPU: the recipe `fashion`, about 10 minutes each
    python benchmarks/fashion.py --recipe fashion-gpu     # one GPU

The U-Net is trained as diffusers' training example does it: DDPM with noise prediction, AdamW, an average of the
weights; and sampled by DPM-Solver++ in 25 steps. Both are judged by the same classifier, trained in this run or before.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from results import PAGES, publish, table
from torch import Tensor, nn

from anydit.data import FashionMNIST, Images
from anydit.data.loader import Order
from anydit.evaluate.classifier import Classifier, trained
from anydit.evaluate.distances import frechet, moments
from anydit.evaluate.features import in_parts
from anydit.inference.device import find_device
from anydit.recipes import find
from anydit.train.ema import EMA
from anydit.train.log import LOG_FILE, read
from anydit.train.loop import train

STEPS = 25
BATCH = {"cpu": 64, "cuda": 256}
CHANNELS = {"cpu": (32, 64, 128), "cuda": (128, 256, 256)}
"""The U-Net's width: what a user with that machine would take; on a CPU the wider ones see too few images."""


def ours(name: str, device: torch.device, labels: Tensor, out: Path) -> tuple[Tensor, float, list[object]]:
    """Samples of a recipe, the seconds that it trained, and its row."""
    recipe = find(name)()
    recipe = replace(recipe, train=replace(recipe.train, sample_every=recipe.train.steps))
    pipeline = train(recipe, out, device)
    seconds = sum(entry["seconds"] for entry in read(out / LOG_FILE))
    x = pipeline.sample(len(labels), {"label": labels}, steps=STEPS, guidance=1.0)
    parameters = sum(p.numel() for p in pipeline.model.parameters()) / 1e6
    calls = recipe.sampling.sampler.calls(STEPS)
    images = recipe.train.steps * recipe.train.batch
    return x, seconds, [f"anydit, {name}", parameters, images / seconds, calls]


def unet(device: torch.device, seconds: float, labels: Tensor) -> tuple[Tensor, list[object]]:
    """Samples of diffusers' U-Net after so many seconds of training, and its row."""
    from diffusers import DDPMScheduler, DPMSolverMultistepScheduler, UNet2DModel

    torch.manual_seed(0)
    channels = CHANNELS[device.type]
    plain = ("DownBlock2D", "UpBlock2D")
    model: nn.Module = UNet2DModel(
        sample_size=28, in_channels=1, out_channels=1, block_out_channels=channels, layers_per_block=2,
        down_block_types=(plain[0], "AttnDownBlock2D", plain[0]), up_block_types=(plain[1], "AttnUpBlock2D", plain[1]),
        num_class_embeds=10, norm_num_groups=8 if min(channels) < 32 * 2 else 32,
    ).to(device)  # fmt: skip
    schedule = DDPMScheduler(num_train_timesteps=1000)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3 if device.type == "cpu" else 3e-4, fused=True)
    average = EMA(model, 0.999)
    samples, batch = FashionMNIST().open("train"), BATCH[device.type]
    order, bf16, step, spent = Order(len(samples), batch, 0), device.type == "cuda", 0, 0.0
    while spent < seconds:
        began = time.perf_counter()
        data = samples.read(order.ids(step)).to(device)
        x0, noise = data.x / 127.5 - 1, torch.randn(data.x.shape, device=device)
        t = torch.randint(1000, (batch,), device=device)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            answer = model(schedule.add_noise(x0, noise, t), t, class_labels=data.cond["label"]).sample
        loss = torch.nn.functional.mse_loss(answer.float(), noise)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        average.update(step, torch.ones((), device=device))
        step += 1
        if device.type == "cuda":
            torch.cuda.synchronize()
        spent += time.perf_counter() - began
        if step % 100 == 0:
            print(f"U-Net: step {step}, loss {loss.item():.4f}, {spent:.0f} of {seconds:.0f} s", flush=True)
    solver, parts = DPMSolverMultistepScheduler.from_config(schedule.config), list[Tensor]()
    with torch.inference_mode():
        for label in labels.to(device).split(250):
            solver.set_timesteps(STEPS)
            x = torch.randn(len(label), 1, 28, 28, device=device)
            for timestep in solver.timesteps:
                answer = average.module(x, timestep.to(device), class_labels=label).sample
                x = solver.step(answer, timestep, x).prev_sample
            parts.append(x.clamp(-1, 1).cpu())
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    row: list[object] = ["diffusers U-Net, DDPM", parameters, step * batch / spent, STEPS]
    return (torch.cat(parts) + 1) * 127.5, row


def judged(classifier: Classifier, x: Tensor, labels: Tensor, against: Tensor) -> list[object]:
    """Fréchet distance and accuracy."""
    distance = frechet(moments(in_parts(classifier, x.clamp(0, 255))), moments(in_parts(classifier, against)))
    return [distance, float((classifier.predict(x.clamp(0, 255)) == labels).float().mean())]


def main() -> None:
    """Train both, publish the table and a sheet of each one's samples."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="fashion")
    parser.add_argument("--samples", type=int, default=2000)
    arguments = parser.parse_args()
    device, data = find_device(), FashionMNIST()
    training, held_out = data.open("train"), data.open("held_out")
    classifier = trained(data, training, "label", device, lambda done: None)
    labels = torch.arange(arguments.samples) % 10
    real = held_out.read(torch.arange(len(held_out)))
    some = training.read(torch.arange(arguments.samples))
    with tempfile.TemporaryDirectory() as folder:
        x, seconds, own = ours(arguments.recipe, device, labels, Path(folder) / "run")
    y, theirs = unet(device, seconds, labels)
    rows = [["real (training images)", "", "", "", *judged(classifier, some.x, some.cond["label"], real.x)]]
    rows += [[*own, *judged(classifier, x, labels, real.x)], [*theirs, *judged(classifier, y, labels, real.x)]]
    head = ["", "M parameters", "training images/s", "calls", "Fréchet distance", "accuracy of samples"]
    note = f"{seconds:.0f} s of training each; {arguments.samples} samples against 10,000 test images."
    pictures = "\n\n".join(f"![{name}]({arguments.recipe}-{name}.png)" for name in ("anydit", "unet"))
    body = f"{table(head, rows)}\n\n{note} Samples of anydit, then of the U-Net:\n\n{pictures}"
    publish(arguments.recipe, "Fashion-MNIST at equal time", body)
    for name, samples in (("anydit", x), ("unet", y)):
        Images(low=0, high=255).picture(samples[:60], columns=10).save(PAGES / f"{arguments.recipe}-{name}.png")


if __name__ == "__main__":
    main()
