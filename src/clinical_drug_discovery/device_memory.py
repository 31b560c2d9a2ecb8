"""What a GPU's allocator may take, and the most that it took.

On Apple silicon the GPU's memory is the machine's; on CUDA it is the card's own. Nothing here
concerns the CPU, whose peak is `runtime.peak_memory_bytes`.
"""

from __future__ import annotations

import torch


def limit_memory(device: torch.device, budget: int) -> None:
    """Have the allocator of a GPU refuse what goes beyond a budget, with an error of its own.

    Args:
        device: nothing happens on the CPU, which has no such limit.
        budget: bytes.
    """
    if device.type == "mps":  # a share of what Metal recommends, which may be exceeded up to twice
        share = budget / torch.mps.recommended_max_memory()
        torch.mps.set_per_process_memory_fraction(min(2.0, share))
    elif device.type == "cuda":
        share = budget / torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, share), device)


class PeakMemory:
    """The most that the allocator of a device held since this was made."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._highest = device, 0
        self.source = "none"  #: "reported" by torch, or the highest of the "samples" taken
        if device.type == "cpu":
            return
        try:
            torch.accelerator.reset_peak_memory_stats(device)
            self.source = "reported"
        except (AttributeError, NotImplementedError, RuntimeError):  # MPS before torch 2.13
            self.source = "samples"

    def sample(self) -> None:
        """Look at what is held now; needed where nothing is reported."""
        if self.source == "samples" and self._device.type == "mps":
            self._highest = max(self._highest, torch.mps.current_allocated_memory())

    def num_bytes(self) -> int | None:
        """The peak; of samples it is a lower bound. None on the CPU."""
        if self.source == "none":
            return None
        if self.source == "reported":
            return int(torch.accelerator.max_memory_allocated(self._device))
        return self._highest
