"""The modulation of all blocks, from the condition vector."""

from typing import cast

import torch

from anydit.model.modulation import PerBlock, PerBlockModulation, Shared, SharedModulation

WIDTH = 16


def test_modulation_of_every_block_is_one_product() -> None:
    module = cast("PerBlockModulation", PerBlock().build(WIDTH, depth=3))
    c = torch.randn(2, WIDTH)
    blocks, out = module(c)
    weight, bias = module.linear.weight.reshape(20, WIDTH, WIDTH), module.linear.bias.reshape(20, WIDTH)
    for i in range(20):
        row = torch.nn.functional.silu(c) @ weight[i].T + bias[i]
        torch.testing.assert_close(blocks[:, i // 6, i % 6] if i < 18 else out[:, i - 18], row)


def test_shared_modulation_differs_between_blocks_by_a_table_only() -> None:
    module = cast("SharedModulation", Shared().build(WIDTH, depth=3))
    with torch.no_grad():
        for p in module.parameters():
            p.normal_()
    c = torch.randn(2, WIDTH)
    blocks, out = module(c)
    shared = (torch.nn.functional.silu(c) @ module.linear.weight.T + module.linear.bias).reshape(2, 6, WIDTH)
    for n in range(3):
        torch.testing.assert_close(blocks[:, n], shared + module.blocks[n])
    torch.testing.assert_close(out, c[:, None] + module.out)
