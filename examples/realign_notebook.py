"""Makes docs/realign-steps.ipynb and the figures of docs/realign.md.

Run it with `python examples/realign_notebook.py`.
"""

from __future__ import annotations

from notebook import write

CELLS: tuple[tuple[str, str], ...] = (
    (
        "markdown",
        "# Realignment, step by step\n\n"
        "A small head is moved by known motions with a spline, realigned, and compared with the "
        "truth. Then derivatives are taken through a spline and through a whole realignment.",
    ),
    (
        "code",
        """\
import jax
import jax.numpy as jnp
import nibabel as nb
import numpy as np

from n4ax_bids import BSpline, Realign, RealignOptions, show
from n4ax_bids.core.motion import rigid

shape, affine = (32, 36, 24), np.diag([5.0, 5.0, 5.0, 1.0])
x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
inside = 1 / (1 + np.exp(25 * (np.sqrt((x / 0.8) ** 2 + (y / 0.85) ** 2 + (z / 0.75) ** 2) - 1)))
head = inside * (100 + 30 * np.sin(7 * x + y) * np.cos(6 * y) + 20 * np.sin(8 * z + 2 * x))
show(head, plane=12, grid=True)""",
    ),
    (
        "markdown",
        "A series of eight volumes: up to 2 mm and 2°, and 1 % noise. `BSpline` moves the head; "
        "points off the grid get the value 0.",
    ),
    (
        "code",
        """\
rng = np.random.default_rng(1)
true = rng.uniform(-2, 2, (8, 6)) * ([1] * 3 + [np.pi / 180] * 3)
true[0] = 0
spline, grid = BSpline(head, degree=5), np.stack(np.indices(shape), axis=-1)
volumes = []
for mapping in rigid.mapping(true, affine, shape):
    back = np.linalg.inv(affine) @ np.linalg.inv(mapping) @ affine
    points = grid @ back[:3, :3].T + back[:3, 3]
    volumes.append(np.asarray(spline(points.astype(np.float32))) + rng.standard_normal(shape))
series = np.stack(volumes, axis=-1).astype(np.float32)
nb.Nifti1Image(series, affine).to_filename("bold.nii.gz")
series.shape""",
    ),
    ("markdown", "Estimate all motion, compare it with the truth, and resample once."),
    (
        "code",
        """\
run = Realign("bold.nii.gz", options=RealignOptions(register_to_mean=False))
done = run.write(output_image="realigned.nii.gz", motion_table="motion.tsv", figures="figures")
error = done.motion.q - true
mm, degrees = np.abs(error[:, :3]).max(), np.degrees(np.abs(error[:, 3:]).max())
print(f"largest error: {mm:.3f} mm, {degrees:.3f} degrees")""",
    ),
    (
        "code",
        """\
from n4ax_bids.report import motion as figures

figures.motion_figure(done.table)""",
    ),
    (
        "code",
        """\
after = nb.load("realigned.nii.gz").get_fdata()
figures.slices_figure(figures.look_at(series), figures.look_at(after), (5.0, 5.0, 5.0))""",
    ),
    (
        "markdown",
        "## Derivatives\n\nThrough a spline: in the points, and in the data. Both agree with "
        "differences.",
    ),
    (
        "code",
        """\
point, step = jnp.array([16.3, 17.8, 12.1]), 0.05
slope = jax.grad(lambda at: spline(at[None])[0])(point)
ahead, behind = (spline((point + d * jnp.eye(3)[0])[None])[0] for d in (step, -step))
print("in the point:", slope[0], "difference:", (ahead - behind) / (2 * step))

in_data = jax.grad(lambda data: BSpline(data, degree=3)(point[None])[0])(jnp.asarray(head))
print("in the data: the weights of", int((jnp.abs(in_data) > 1e-3).sum()), "voxels, sum",
      round(float(in_data.sum()), 5))""",
    ),
    (
        "markdown",
        "Through one realignment: how the residual that is left after eight steps depends on each "
        "voxel of the volume. A step along this gradient changes it as predicted.",
    ),
    (
        "code",
        """\
from n4ax_bids.core.motion import register, samples, smoothing

options, box = RealignOptions(), smoothing.grid_of(affine, shape)
model = samples.model_of(series[..., 0], box, options)
residual = jax.jit(lambda volume: register.final_residual(volume, model, box, options))
volume = jnp.asarray(series[..., 3])
gradient = jax.jit(jax.grad(residual))(volume)
length = float(jnp.sqrt((gradient**2).sum()))
step = 30 / length
change = (residual(volume + step * gradient) - residual(volume - step * gradient)) / (2 * step)
print(f"predicted {length**2:.6g}, found {float(change):.6g}")
show(jnp.abs(gradient), plane=12)""",
    ),
)
PICTURES = {4: "realign-motion.webp", 5: "realign-slices.webp"}
"""cells with code, counted from 1, whose figures the page shows"""


def main() -> None:
    """Write the notebook and its figures."""
    write("realign-steps.ipynb", CELLS, PICTURES)


if __name__ == "__main__":
    main()
