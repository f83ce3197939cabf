"""Where a pipeline computes."""

import torch


def find_device(name: torch.device | str | None = None) -> torch.device:
    """The device called `name`; None takes the accelerator that PyTorch finds, else the CPU.

    Apple's GPUs ("mps") are never taken unasked: nobody has tried anydit on one yet, and they cannot train (see
    `anydit.train.loop.train`). What is computed in doubles, which they have not, is computed on the CPU then.

    Raises:
        ValueError: this machine has no such device.
    """
    found = torch.accelerator.current_accelerator(check_available=True)
    if name is None:
        return torch.device("cpu") if found is None or found.type == "mps" else found
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError):
        names = "cpu" if found is None else f"cpu or {found.type}"
        raise ValueError(f"device: got {str(name)!r}, expected one that this machine has: {names}") from None
    return device
