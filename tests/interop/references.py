"""The published networks, equation by equation, written for the tests alone; loops where they are clearest."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def published_table(width: int, side: int) -> Tensor:
    """The stored positions: half of the channels for the column, half for the row, each sines then cosines."""

    def line(places: np.ndarray) -> np.ndarray:
        omega = 1.0 / 10000 ** (np.arange(width // 4, dtype=np.float64) / (width / 4))
        angles = np.outer(places, omega)
        return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)

    row, column = np.divmod(np.arange(side * side), side)
    return torch.from_numpy(np.concatenate([line(column), line(row)], axis=1)).float()[None]


def random_state(
    width: int, depth: int, patch: int, channels: int, side: int, rows: int, out: int
) -> dict[str, Tensor]:
    """A state dict of the published names and shapes; no weight is zero."""
    g = torch.Generator().manual_seed(width + depth)
    shapes: dict[str, tuple[int, ...]] = {
        "x_embedder.proj": (width, channels, patch, patch),
        "t_embedder.mlp.0": (width, 256),
        "t_embedder.mlp.2": (width, width),
        "final_layer.linear": (patch * patch * out, width),
        "final_layer.adaLN_modulation.1": (2 * width, width),
    }
    for n in range(depth):
        shapes |= {
            f"blocks.{n}.attn.qkv": (3 * width, width),
            f"blocks.{n}.attn.proj": (width, width),
            f"blocks.{n}.mlp.fc1": (4 * width, width),
            f"blocks.{n}.mlp.fc2": (width, 4 * width),
            f"blocks.{n}.adaLN_modulation.1": (6 * width, width),
        }
    state = {}
    for name, shape in shapes.items():
        state[f"{name}.weight"] = torch.randn(shape, generator=g) / math.sqrt(math.prod(shape[1:]))
        state[f"{name}.bias"] = torch.randn(shape[0], generator=g) * 0.1
    state["y_embedder.embedding_table.weight"] = torch.randn(rows, width, generator=g)
    state["pos_embed"] = published_table(width, side)
    return state


def published_forward(s: dict[str, Tensor], x: Tensor, index: Tensor, label: Tensor, heads: int) -> Tensor:
    """The published DiT from its state dict; as a SiT's, `index` is its time, and the second half is not used."""

    def linear(name: str, v: Tensor) -> Tensor:
        return v @ s[f"{name}.weight"].T + s[f"{name}.bias"]

    def norm(v: Tensor) -> Tensor:
        centred = v - v.mean(-1, keepdim=True)
        return centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()

    def attention(name: str, v: Tensor) -> Tensor:
        q, k, u = linear(f"{name}.qkv", v).chunk(3, dim=-1)
        out = []
        for qh, kh, uh in zip(*(part.chunk(heads, dim=-1) for part in (q, k, u)), strict=True):
            out.append((qh @ kh.transpose(1, 2) / math.sqrt(qh.shape[-1])).softmax(-1) @ uh)
        return linear(f"{name}.proj", torch.cat(out, dim=-1))

    def gelu(v: Tensor) -> Tensor:
        return 0.5 * v * (1 + torch.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3)))

    weight = s["x_embedder.proj.weight"]
    p = weight.shape[-1]
    tokens = F.conv2d(x, weight, s["x_embedder.proj.bias"], stride=p)
    rows, columns = tokens.shape[2:]
    tokens = tokens.flatten(2).transpose(1, 2) + s["pos_embed"].to(x.dtype)
    omega = torch.exp(-math.log(10000) * torch.arange(128, dtype=torch.float32) / 128)
    angles = index.float()[:, None] * omega
    wave = torch.cat([angles.cos(), angles.sin()], dim=1).to(x.dtype)
    c = linear("t_embedder.mlp.2", F.silu(linear("t_embedder.mlp.0", wave)))
    c = F.silu(c + s["y_embedder.embedding_table.weight"][label])
    depth = sum(name.endswith("attn.qkv.bias") for name in s)
    for n in range(depth):
        m = linear(f"blocks.{n}.adaLN_modulation.1", c)[:, None].chunk(6, dim=-1)
        tokens = tokens + m[2] * attention(f"blocks.{n}.attn", norm(tokens) * (1 + m[1]) + m[0])
        hidden = gelu(linear(f"blocks.{n}.mlp.fc1", norm(tokens) * (1 + m[4]) + m[3]))
        tokens = tokens + m[5] * linear(f"blocks.{n}.mlp.fc2", hidden)
    shift, scale = linear("final_layer.adaLN_modulation.1", c)[:, None].chunk(2, dim=-1)
    values = linear("final_layer.linear", norm(tokens) * (1 + scale) + shift)
    out = torch.empty(len(x), values.shape[-1] // p**2, rows * p, columns * p, dtype=x.dtype)
    for place in range(rows * columns):
        r, q = divmod(place, columns)
        out[:, :, r * p : (r + 1) * p, q * p : (q + 1) * p] = (
            values[:, place].unflatten(1, (p, p, -1)).permute(0, 3, 1, 2)
        )
    return out


def random_lightning_state(
    depth: int = 2, patch: int = 1, channels: int = 5, side: int = 3, rows: int = 7, head: int = 12, heads: int = 2
) -> dict[str, Tensor]:
    """A LightningDiT's state dict with all its options; no weight is zero, and no norm's weight is one."""
    width = head * heads
    g = torch.Generator().manual_seed(depth)
    state = random_state(width, depth, patch, channels, side, rows, channels)
    hidden = int(2 / 3 * 4 * width)
    for n in range(depth):
        for name, rows_, columns in (("w12", 2 * hidden, width), ("w3", width, hidden)):
            state[f"blocks.{n}.mlp.{name}.weight"] = torch.randn(rows_, columns, generator=g) / math.sqrt(columns)
            state[f"blocks.{n}.mlp.{name}.bias"] = torch.randn(rows_, generator=g) * 0.1
        for name, size in (("norm1", width), ("norm2", width), ("attn.q_norm", head), ("attn.k_norm", head)):
            state[f"blocks.{n}.{name}.weight"] = 1 + 0.3 * torch.randn(size, generator=g)
        for name in ("fc1", "fc2"):
            del state[f"blocks.{n}.mlp.{name}.weight"], state[f"blocks.{n}.mlp.{name}.bias"]
    state["final_layer.norm_final.weight"] = 1 + 0.3 * torch.randn(width, generator=g)
    angles = lightning_angles(side, head)
    state["feat_rope.freqs_cos"] = angles.cos().repeat_interleave(2, dim=1).float()
    state["feat_rope.freqs_sin"] = angles.sin().repeat_interleave(2, dim=1).float()
    return state


def lightning_angles(side: int, head: int) -> Tensor:
    """By how much each pair of a head's values is turned: first the pairs for the row, then those for the column."""
    omega = 10000.0 ** (-torch.arange(0, head // 2, 2, dtype=torch.float64) / (head // 2))
    places = [divmod(n, side) for n in range(side * side)]
    return torch.stack([torch.cat([row * omega, column * omega]) for row, column in places])


def lightning_forward(s: dict[str, Tensor], x: Tensor, time: Tensor, label: Tensor, head: int) -> Tensor:
    """LightningDiT from its state dict, with whatever options the keys show (Yao 2025, section 4); patch 1 or more."""

    def linear(name: str, v: Tensor) -> Tensor:
        return v @ s[f"{name}.weight"].T + s[f"{name}.bias"]

    def norm(name: str, v: Tensor) -> Tensor:
        if f"{name}.weight" in s:
            return s[f"{name}.weight"] * v / (v.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()
        return F.layer_norm(v, v.shape[-1:], eps=1e-6)

    def qk(name: str, v: Tensor) -> Tensor:
        if f"{name}.bias" in s:
            return F.layer_norm(v, v.shape[-1:], s[f"{name}.weight"], s[f"{name}.bias"])
        return norm(name, v) if f"{name}.weight" in s else v

    side = math.isqrt(s["pos_embed"].shape[1])
    turns = torch.polar(torch.ones_like(angles := lightning_angles(side, head)), angles)

    def turned(v: Tensor) -> Tensor:
        if "feat_rope.freqs_cos" not in s:
            return v
        pairs = torch.view_as_complex(v.double().unflatten(-1, (-1, 2)).contiguous())
        return torch.view_as_real(pairs * turns).flatten(-2).to(v.dtype)

    def attention(name: str, v: Tensor) -> Tensor:
        q, k, u = (part.split(head, dim=-1) for part in linear(f"{name}.qkv", v).chunk(3, dim=-1))
        out = []
        for qh, kh, uh in zip(q, k, u, strict=True):
            qh, kh = turned(qk(f"{name}.q_norm", qh)), turned(qk(f"{name}.k_norm", kh))
            out.append((qh @ kh.transpose(1, 2) / math.sqrt(head)).softmax(-1) @ uh)
        return linear(f"{name}.proj", torch.cat(out, dim=-1))

    def mlp(name: str, v: Tensor) -> Tensor:
        if f"{name}.w12.weight" not in s:
            return linear(f"{name}.fc2", F.gelu(linear(f"{name}.fc1", v), approximate="tanh"))
        gate, up = linear(f"{name}.w12", v).chunk(2, dim=-1)
        return linear(f"{name}.w3", gate * torch.sigmoid(gate) * up)

    p = s["x_embedder.proj.weight"].shape[-1]
    tokens = F.conv2d(x, s["x_embedder.proj.weight"], s["x_embedder.proj.bias"], stride=p).flatten(2).transpose(1, 2)
    tokens = tokens + s["pos_embed"]
    angles = time[:, None].float() * torch.exp(-math.log(10000) * torch.arange(128, dtype=torch.float32) / 128)
    wave = torch.cat([angles.cos(), angles.sin()], dim=1).to(x.dtype)
    c = linear("t_embedder.mlp.2", F.silu(linear("t_embedder.mlp.0", wave)))
    c = F.silu(c + s["y_embedder.embedding_table.weight"][label])
    for n in range(sum(name.endswith("attn.qkv.bias") for name in s)):
        m = list(linear(f"blocks.{n}.adaLN_modulation.1", c)[:, None].split(tokens.shape[-1], dim=-1))
        if len(m) == 4:
            zero = torch.zeros_like(m[0])
            m = [zero, m[0], m[1], zero, m[2], m[3]]
        tokens = tokens + m[2] * attention(f"blocks.{n}.attn", norm(f"blocks.{n}.norm1", tokens) * (1 + m[1]) + m[0])
        tokens = tokens + m[5] * mlp(f"blocks.{n}.mlp", norm(f"blocks.{n}.norm2", tokens) * (1 + m[4]) + m[3])
    shift, scale = linear("final_layer.adaLN_modulation.1", c)[:, None].chunk(2, dim=-1)
    values = linear("final_layer.linear", norm("final_layer.norm_final", tokens) * (1 + scale) + shift)
    return F.fold(
        values.unflatten(2, (p * p, -1)).transpose(2, 3).flatten(2).transpose(1, 2), side * p, kernel_size=p, stride=p
    )
