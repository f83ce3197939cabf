"""A small classifier trained on the spot: features that know the data, and a judge of whether classes are met."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from anydit.config import to_json
from anydit.data import Data, Samples, cache_folder
from anydit.evaluate.features import AT_ONCE, CONV, NORM, POOL, See, as_it_is, refuse_rank
from anydit.weights import load_strictly, load_tensors, save_tensors

DIM = 64
"""Features: enough to tell samples apart, few enough for the covariance of some hundred held-out samples."""

RESOLUTION = {1: 256, 2: 32, 3: 16}
"""Samples longer than this along an axis are strided over by the first layer, by the number of axes."""

LEAST_SEEN, MOST_SEEN, EPOCHS = 30_000, 150_000, 20
"""Training sees each sample `EPOCHS` times, but as many samples in all as these bounds say."""

MOST_SEEN_3D = 40_000
"""Of samples with three axes, each of which takes ten times as long."""

NOISE, SHIFT = 0.1, 1 / 32
"""Augmentation: noise in units of the data's deviation, shifts as a part of each axis."""

Progress = Callable[[float], None]


class Network(nn.Module):
    """Convolutions with halvings down to a few positions, `DIM` features, classes. Samples are standardised first."""

    def __init__(self, channels: int, size: Sequence[int], classes: int) -> None:
        super().__init__()
        rank = len(size)
        refuse_rank(rank)
        self.mean, self.std = (nn.Buffer(torch.full((channels, *[1] * rank), v)) for v in (0.0, 1.0))
        stride = [max(1, s // RESOLUTION[rank]) for s in size]
        width, space = 32, [-(-s // by) for s, by in zip(size, stride, strict=True)]
        layers: list[nn.Module] = [CONV[rank](channels, width, [2 * s + 1 for s in stride], stride, stride)]
        layers += [NORM[rank](width), nn.ReLU()]
        while max(space) >= 8:
            by = [2 if s >= 8 else 1 for s in space]
            wider = min(2 * width, 128)
            layers += [POOL[rank](by), CONV[rank](width, wider, 3, padding=1, bias=False), NORM[rank](wider), nn.ReLU()]
            width, space = wider, [s // b for s, b in zip(space, by, strict=True)]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.2))
        self.features = nn.Linear(width * int(torch.tensor(space).prod()), DIM)
        self.head = nn.Linear(DIM, classes)

    def forward(self, x: Float[Tensor, "b c *space"]) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b k"]]:
        """Features and logits."""
        features = self.features(self.body((x - self.mean) / self.std))
        return features, self.head(F.relu(features))


class Classifier:
    """A trained `Network` as features, and as a judge of classes; it looks at what `see` makes of samples."""

    def __init__(self, network: Network, classes: Sequence[str], device: torch.device, see: See = as_it_is) -> None:
        self.name = f"{DIM} features of a classifier trained on the training part"
        self.classes = tuple(classes)
        self.network = network.to(device).eval()
        self.device, self.see = device, see

    def __call__(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b d"]:
        with torch.inference_mode():
            return self.network(self.see(x).to(self.device))[0].float().cpu()

    def predict(self, x: Float[Tensor, "n c *space"]) -> Int[Tensor, " n"]:
        """The most likely class of each sample."""
        with torch.inference_mode():
            return torch.cat(
                [self.network(self.see(part).to(self.device))[1].argmax(1).cpu() for part in x.split(AT_ONCE)]
            )


def trained(
    data: Data,
    samples: Samples,
    label: str,
    device: torch.device,
    progress: Progress = lambda done: None,
    see: See = as_it_is,
) -> Classifier:
    """The classifier of `label` for this data's training part: trained now, or read from the cache.

    `see`: what it is shown of samples.
    """
    classes = samples.facts.classes[label]
    channels, *size = see(samples.read(torch.tensor([0])).x).shape[1:]
    with torch.random.fork_rng(devices=[]):
        network = Network(channels, size, len(classes))
    path = cache_folder() / "classifiers" / f"{_key(data, samples, label, see)}.safetensors"
    if path.is_file():
        load_strictly(network, load_tensors(path), path)
    else:
        train(network, samples, label, device, progress, see)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_tensors(path, network.state_dict())
    return Classifier(network, classes, device, see)


def train(
    network: Network,
    samples: Samples,
    label: str,
    device: torch.device,
    progress: Progress,
    see: See = as_it_is,
) -> None:
    """Train in place; the same data give the same weights on the same machine."""
    count = len(samples)
    batch = min(128, max(8, count // 8))
    most = MOST_SEEN if network.mean.ndim < 4 else MOST_SEEN_3D
    steps = min(max(EPOCHS * count, LEAST_SEEN), most) // batch
    random = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        for module in network.modules():
            if isinstance(module, (nn.modules.conv._ConvNd, nn.Linear, nn.modules.batchnorm._BatchNorm)):
                module.reset_parameters()
        _standardise(network, samples, see)
        network.to(device).train()
        optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3, weight_decay=0.02)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
        std, order = network.std.cpu(), torch.empty(0, dtype=torch.long)
        for step in range(steps):
            if len(order) < batch:
                order = torch.cat([order, torch.randperm(count, generator=random)])
            ids, order = order[:batch], order[batch:]
            read = samples.read(ids)
            x = augmented(see(read.x), std, random).to(device)
            loss = F.cross_entropy(network(x)[1], read.tensor(label).to(device), label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            progress((step + 1) / steps)
    network.eval()


def augmented(x: Float[Tensor, "b c *space"], std: Tensor, random: torch.Generator) -> Float[Tensor, "b c *space"]:
    """Samples shifted a little, all of a batch alike, and with a little noise, of another strength for each."""
    space = x.shape[2:]
    for axis, length in enumerate(space, start=2):
        reach = max(1, round(length * SHIFT)) if length > 4 else 0
        by = int(torch.randint(-reach, reach + 1, (), generator=random))
        places = (torch.arange(length) + by).clamp(0, length - 1)
        x = x.index_select(axis, places)
    strength = torch.rand(len(x), *[1] * (x.ndim - 1), generator=random) * NOISE
    return x + torch.randn(x.shape, generator=random) * strength * std


def _standardise(network: Network, samples: Samples, see: See, at_most: int = 10_000) -> None:
    """Measure each channel's mean and deviation."""
    ids = torch.linspace(0, len(samples) - 1, min(len(samples), at_most)).long()
    rank = network.mean.ndim - 1
    axes = (0, *range(2, 2 + rank))
    total = square = torch.zeros(1, dtype=torch.float64)
    for part in ids.split(AT_ONCE):
        x = see(samples.read(part).x).double()
        total, square = total + x.mean(axes) * len(x), square + x.square().mean(axes) * len(x)
    mean = total / len(ids)
    std = (square / len(ids) - mean.square()).clamp(min=0).sqrt()
    network.mean.copy_(mean.reshape(network.mean.shape))
    network.std.copy_(torch.where(std > 0, std, torch.ones_like(std)).reshape(network.std.shape))


def _key(data: Data, samples: Samples, label: str, see: See) -> str:
    """What the classifier depends on: the data's config and some of its content, this file, PyTorch's version."""
    digest = hashlib.sha256(json.dumps([to_json(data), label, len(samples), torch.__version__]).encode())
    digest.update(Path(__file__).read_bytes())
    some = samples.read(torch.linspace(0, len(samples) - 1, min(len(samples), AT_ONCE)).long())
    for tensor in (see(some.x), some.tensor(label)):
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]
