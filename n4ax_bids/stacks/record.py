"""The record of a corrected stack, with the keys of `n4ax_bids.image.record.Correction`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from n4ax_bids.core.stack.numbers import field_numbers
from n4ax_bids.io.trees import sha256
from n4ax_bids.runtime import device as devices
from n4ax_bids.stacks.streaming import Streamed


def record(done: Streamed, source: Path, mask: str, device: str) -> dict[str, Any]:
    """Return what was done to a stack; the whole source is read for its digest.

    Parameters
    ----------
    done : what `stream` returned
    source : file or folder of the stack
    mask : word or path, as it was passed
    device : name of the device, as it was passed
    """
    correction = done.correction
    numbers = field_numbers(correction)
    fields = [each.log_field for each in correction.sections]
    fields += [] if correction.whole is None else [correction.whole]
    return {
        "mask": mask,
        "mask_found": {},
        "device": devices.describe(devices.resolve(device)),
        "method": "stack",
        "details": {
            "n_sections": len(correction.sections) or 1,
            "n_samples": numbers.pop("n_samples"),
            "shape": correction.shape,
            "voxel_size_mm": done.zooms,
            "scales": sorted({float(scale) for scale in correction.scales}),
        },
        "lattice": {
            "order": int(fields[0].order),
            "shape": correction.shape,
            "control_points": [each.lattice.shape for each in fields],
        },
        **numbers,
        "non_positive": None,
        "rescaled": False,
        "notes": done.notes,
        "sha256": {"input_image": sha256(source)},
        "seconds": done.seconds,
    }
