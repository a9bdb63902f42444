"""Pictures for the documents: the middle plane of several images side by side."""

from __future__ import annotations

import numpy as np


def draw(path: str, shown: dict[str, np.ndarray], mask: np.ndarray) -> None:
    """Draw the middle plane of the last axis of each image, in one window of grey.

    Parameters
    ----------
    path : a WebP file
    shown : titles and images of one shape, (I, J, K)
    mask : bool, what is shown
    """
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(2.1 * len(shown), 2.6), layout="tight")
    for place, (name, image) in zip(drawn.subplots(1, len(shown)), shown.items(), strict=True):
        cut = np.where(mask, image, 0)[:, :, image.shape[2] // 2]
        place.imshow(cut.T, origin="lower", cmap="gray", vmin=0, vmax=np.percentile(cut, 99))
        place.set_title(name, fontsize=9)
        place.axis("off")
    drawn.savefig(path, dpi=90, pil_kwargs={"quality": 75})
