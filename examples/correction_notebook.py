"""Makes docs/correction-steps.ipynb and a picture: python examples/correction_notebook.py"""

from __future__ import annotations

from notebook import write

CELLS = (
    (
        "markdown",
        "# Correction, step by step\n\n"
        "The ICBM 152 brain is put under known fields and corrected; the result is compared with "
        "the truth. The last cells apply the field to another image and take a gradient through "
        "the correction.",
    ),
    (
        "code",
        """\
import numpy as np
from matplotlib.figure import Figure

from n4ax_bids import n4, preset
from n4ax_bids.core.metrics import coefficient_of_variation, joint_variation
from n4ax_bids.phantoms import GREY, WHITE, mni152

step = 2  # mm
subjects = {
    "T1w, two coils": mni152("T1w", 1, "coils", 0.6, step=step),
    "T1w, polynomial": mni152("T1w", 2, "polynomial", 0.5, step=step),
    "T2w-like, dome": mni152("T2w", 3, "dome", 0.5, step=step),
}
for name, made in subjects.items():
    print(f"{name}: {made.image.shape}, true field {np.exp(made.log_field).min():.2f} to "
          f"{np.exp(made.log_field).max():.2f}")""",
    ),
    (
        "markdown",
        "Correct each of them in its brain, with samples about 4 mm apart. The level of a field "
        "is open, so the mean of its logarithm in the brain is set to 0 before it is compared.",
    ),
    (
        "code",
        """\
found = {}
for name, made in subjects.items():
    brain = made.mask
    corrected, log_bias = n4(
        made.image, brain, zooms=(step,) * 3, options=preset("standard"), return_bias=True
    )
    log_bias = log_bias - log_bias[brain].mean()
    found[name] = made.image / np.exp(log_bias), log_bias
    r = np.corrcoef(log_bias[brain], made.log_field[brain])[0, 1]
    white, grey = made.labels == WHITE, made.labels == GREY
    before, after = made.image, found[name][0]
    print(f"{name}: correlation with the true log field {r:.3f}")
    for label, tissue in (("white", white), ("grey", grey)):
        print(f"    CV of {label} matter {coefficient_of_variation(before, tissue):.3f} to "
              f"{coefficient_of_variation(after, tissue):.3f}")
    print(f"    CJV {joint_variation(before, white, grey):.3f} to "
          f"{joint_variation(after, white, grey):.3f}")""",
    ),
    (
        "markdown",
        "Before, after, the field that was found and the true one. All are drawn at the same "
        "medians; colours go from 0.6 (blue) to 1.7 (red).",
    ),
    (
        "code",
        """\
figure = Figure(figsize=(12, 10.5), facecolor="black")
panels = figure.subplots(3, 4, gridspec_kw={"wspace": 0.02, "hspace": 0.02, "left": 0, "right": 1,
                                            "bottom": 0, "top": 0.95})
heads = ("before", "after", "field that was found", "true field")
for row, (name, made) in zip(panels, subjects.items(), strict=True):
    corrected, log_bias = found[name]
    brain, k = made.mask, made.image.shape[2] // 2
    top = np.percentile(corrected[brain], 99)
    gain = np.median(corrected[brain]) / np.median(made.image[brain])
    fields = [np.where(brain, each, np.nan) for each in (log_bias, made.log_field)]
    for axes, shown in zip(row, (made.image * gain, corrected, *fields), strict=True):
        is_field = shown is fields[0] or shown is fields[1]
        look = {"cmap": "RdBu_r", "vmin": -0.53, "vmax": 0.53} if is_field else {
            "cmap": "gray", "vmin": 0, "vmax": 1.15 * top}
        axes.imshow(shown[:, :, k].T, origin="lower", **look)
        axes.axis("off")
    row[0].text(2, 2, name, color="white", fontsize=13)
for axes, head in zip(panels[0], heads, strict=True):
    axes.set_title(head, color="white", fontsize=14)
figure""",
    ),
    (
        "markdown",
        "A gradient through the correction: which voxels decide how even white matter becomes? "
        "The derivative of its variance after the correction, on a small copy of the first brain.",
    ),
    (
        "code",
        """\
import jax
import jax.numpy as jnp

from n4ax_bids import N4Options
from n4ax_bids.core.n4.differentiable import differentiable_n4

small = mni152("T1w", 1, "coils", 0.6, step=6)
options = N4Options(shrink_factor=1, n_iterations=(10, 10))


@jax.jit
def unevenness(image):
    corrected, _ = differentiable_n4(image, small.mask, options=options)
    values = corrected[small.labels == WHITE]
    return values.std() / values.mean()


image = jnp.asarray(small.image)
value, gradient = jax.value_and_grad(unevenness)(image)
length = jnp.sqrt((gradient**2).sum())
less = unevenness(image - 0.02 * gradient / length)
print(f"CV of white matter {value:.4f}; a small step down the gradient makes it {less:.4f}")""",
    ),
)
PICTURES = {3: "correction.webp"}


def main() -> None:
    """Write the notebook and its figure."""
    write("correction-steps.ipynb", CELLS, PICTURES)


if __name__ == "__main__":
    main()
