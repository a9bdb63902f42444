"""The numbers of a stack's field, at the samples in the tissue."""

from __future__ import annotations

import numpy as np

from n4ax_bids.core.field import sample
from n4ax_bids.core.stack.correction import StackCorrection


def thin_log_field(done: StackCorrection, plane: int) -> np.ndarray:
    """Return ln of the field at the samples of one plane.

    Parameters
    ----------
    done : StackCorrection
    plane : number of the plane in the stack
    """
    rows, columns = done.how.positions
    found = np.full((len(rows), len(columns)), -np.log(done.scales[plane]), np.float32)
    for section in done.sections:
        if section.start <= plane < section.stop:
            place = np.array([plane - section.start])
            found += sample(section.log_field, [place, rows, columns])[0]
    if done.whole is not None:
        found += sample(done.whole, [np.array([plane]), rows, columns])[0]
    return found


def field_numbers(done: StackCorrection) -> dict[str, float | int]:
    """Return number of samples in the tissue, and range and CV of the field there.

    The names are those of `n4ax_bids.image.record.FieldNumbers`. Without any tissue the field
    counts everywhere.
    """
    mask = done.thin_mask if done.thin_mask.any() else np.ones_like(done.thin_mask)
    low, high, total, squares, n = np.inf, 0.0, 0.0, 0.0, 0
    for plane, inside in enumerate(mask):
        if not inside.any():
            continue
        field = np.exp(thin_log_field(done, plane)[inside].astype(np.float64))
        low, high = min(low, float(field.min())), max(high, float(field.max()))
        total, squares = total + float(field.sum()), squares + float((field**2).sum())
        n += field.size
    mean = total / n
    variation = max(0.0, squares / n - mean**2) ** 0.5 / mean
    return {"n_samples": n, "field_min": low, "field_max": high, "field_cv": variation}
