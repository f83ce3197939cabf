"""The modulation that follows from the condition vector."""

from typing import cast

import torch
import torch.nn.functional as F

from anydit.model.modulation import PerBlock, PerBlockModulation, Shared, SharedModulation

WIDTH, ROWS = 16, [6, 9, 2]
C = torch.randn(2, WIDTH, generator=torch.Generator().manual_seed(0))


def test_modulation_of_every_block_is_one_product() -> None:
    module = cast("PerBlockModulation", PerBlock().build(WIDTH, ROWS))
    blocks, out = module(C)
    assert [block.shape for block in [*blocks, out]] == [(2, rows, WIDTH) for rows in (*ROWS, 2)]
    weight, bias = module.linear.weight.reshape(19, WIDTH, WIDTH), module.linear.bias.reshape(19, WIDTH)
    got = torch.cat([*blocks, out], dim=1)
    for i in range(19):
        torch.testing.assert_close(got[:, i], F.silu(C) @ weight[i].T + bias[i])


def test_shared_modulation_differs_between_blocks_by_a_table_only() -> None:
    module = cast("SharedModulation", Shared().build(WIDTH, ROWS))
    with torch.no_grad():
        for p in module.parameters():
            p.normal_()
    blocks, out = module(C)
    shared = (F.silu(C) @ module.linear.weight.T + module.linear.bias).reshape(2, 9, WIDTH)
    for n, rows in enumerate(ROWS):
        torch.testing.assert_close(blocks[n], shared[:, :rows] + module.blocks[n, :rows])
    torch.testing.assert_close(out, C[:, None] + module.out)
