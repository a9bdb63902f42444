"""Several images in one solve, memory that is not there, and how often something is compiled."""

import sys

import jax
import numpy as np
import pytest

from n4ax_bids import n4, n4_batch
from n4ax_bids.core.n4 import compiled, levels
from n4ax_bids.core.n4 import estimate as n4_module
from n4ax_bids.core.n4.estimate import estimate, estimate_batch
from n4ax_bids.core.n4.plan import plan
from n4ax_bids.core.n4.solve import _fields, _groups, _program, _start, solve_batch
from n4ax_bids.core.n4.take import take
from n4ax_bids.options import N4Options, preset
from n4ax_bids.phantoms import phantom

SHORT = N4Options(shrink_factor=2, n_iterations=(3, 2))


def heads(*shapes, options=SHORT):
    made = [
        phantom(shape, seed=i, field="coils", amplitude=0.3 + 0.1 * i, noise=0.02)
        for i, shape in enumerate(shapes)
    ]
    return [head.image for head in made], [head.mask for head in made]


@pytest.mark.parametrize(
    "options",
    [SHORT, N4Options(shrink_factor=2, n_iterations=(5, 5), convergence_threshold=3e-3)],
    ids=("every iteration", "ITK's statistic"),
)
@pytest.mark.parametrize("together", (True, False))
def test_batch_equals_images_one_by_one(options, together):
    images, masks = heads((40, 42, 38), (40, 42, 38), (30, 44, 36), (64, 20))
    found, fields = n4_batch(images, masks, options=options, return_bias=True, together=together)
    for image, mask, corrected, field in zip(images, masks, found, fields, strict=True):
        alone, log_bias = n4(image, mask, options=options, return_bias=True)
        np.testing.assert_allclose(corrected, alone, rtol=1e-6)
        np.testing.assert_allclose(field, log_bias, atol=1e-6)


def test_batch_where_the_exact_statistic_ends_levels():
    """Each image ends its levels by itself."""
    options = N4Options(
        shrink_factor=2,
        n_iterations=(9, 9),
        convergence_threshold=3e-3,
        convergence_statistic="exact",
    )
    images, masks = heads((40, 42, 38), (40, 42, 38))
    found = n4_batch(images, masks, options=options, together=True)
    for image, mask, corrected in zip(images, masks, found, strict=True):
        np.testing.assert_allclose(corrected, n4(image, mask, options=options), rtol=1e-6)


def test_batch_takes_one_mask_for_all_and_refuses_a_wrong_number():
    images, _ = heads((24, 26, 22), (24, 26, 22))
    np.testing.assert_array_equal(
        n4_batch(images, "otsu", options=SHORT)[1], n4(images[1], "otsu", options=SHORT)
    )
    with pytest.raises(ValueError, match="1 masks for 2 images"):
        n4_batch(images, [None], options=SHORT)


@pytest.mark.parametrize("together", (None, True, False))
def test_images_are_solved_together_where_that_is_faster(together, monkeypatch):
    images, masks = heads((24, 26, 22), (24, 26, 22))
    plans = [plan(SHORT, image.shape) for image in images]
    solved = []
    monkeypatch.setattr(n4_module, "solve_batch", lambda *a: solved.append(1) or solve_batch(*a))
    estimate_batch(images, masks, [None] * 2, plans=plans, together=together)
    on_gpu = jax.local_devices()[0].platform != "cpu"
    assert bool(solved) is (on_gpu if together is None else together)


def test_too_little_memory_is_said():
    (image,), (mask,) = heads((40, 42, 38))
    with pytest.raises(MemoryError, match="bytes for .* voxels; expected at most 10"):
        estimate(image, mask, plan=plan(SHORT, image.shape), memory=10)


FULL_DEVICE = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes")


def refusing(real, times, asked):
    """A function that the device refuses memory for, so many times."""

    def call(voxels, *given, **more):
        asked.append(voxels)
        if len(asked) <= times:
            raise FULL_DEVICE
        return real(voxels, *given, **more)

    return call


@pytest.mark.parametrize("on_device", (None, False))
def test_a_solve_is_done_in_slabs_if_the_device_refuses_the_memory(on_device, monkeypatch):
    """Other programs may use a device after it has reported its free memory."""
    (image,), (mask,) = heads((40, 42, 38))
    its = plan(SHORT, image.shape)
    alone = estimate(image, mask, plan=its).log_field.lattice
    asked = []
    monkeypatch.setattr(n4_module, "solve", refusing(n4_module.solve, 2, asked))
    found = estimate(image, mask, plan=its, on_device=on_device).log_field.lattice
    np.testing.assert_allclose(found, alone, atol=1e-6)
    sizes = [sum(leaf.nbytes for leaf in jax.tree.leaves(each)) for each in asked]
    assert len(asked) == 3 and len({type(each) for each in asked}) == 2, sizes


def test_a_device_that_refuses_every_amount_is_said(monkeypatch):
    (image,), (mask,) = heads((40, 42, 38))
    monkeypatch.setattr(n4_module, "solve", refusing(n4_module.solve, 99, []))
    with pytest.raises(MemoryError, match="bytes for .* voxels; expected at most"):
        estimate(image, mask, plan=plan(SHORT, image.shape))


def test_another_error_of_the_device_is_raised_at_once(monkeypatch):
    (image,), (mask,) = heads((40, 42, 38))
    asked = []

    def broken(*given):
        asked.append(1)
        raise jax.errors.JaxRuntimeError("INTERNAL: broken")

    monkeypatch.setattr(n4_module, "solve", broken)
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        estimate(image, mask, plan=plan(SHORT, image.shape))
    assert len(asked) == 1


def test_images_of_a_batch_are_solved_alone_if_the_device_refuses_the_memory(monkeypatch):
    images, masks = heads((40, 42, 38), (40, 42, 38))
    plans = [plan(SHORT, image.shape) for image in images]
    asked, alone_solve = [], n4_module.solve

    def solve(*given):
        assert sys.exc_info()[0] is None  # an error that is handled holds the batch's samples
        return alone_solve(*given)

    monkeypatch.setattr(n4_module, "solve", solve)
    monkeypatch.setattr(n4_module, "solve_batch", refusing(solve_batch, 99, asked))
    found = estimate_batch(images, masks, [None] * 2, plans=plans, together=True)
    assert len(asked) == 1
    for image, mask, its, one in zip(images, masks, plans, found, strict=True):
        alone = estimate(image, mask, plan=its).log_field.lattice
        np.testing.assert_array_equal(one.log_field.lattice, alone)


@pytest.mark.parametrize("slabs", (0, 16))
def test_memory_is_known_before_the_solve(slabs):
    """What XLA sets aside is what was reckoned; in slabs at most 3 float32 volumes of the box.

    Without a mask: then the box is the image.
    """
    (image,), _ = heads((96, 96, 96))
    solve = plan(N4Options(shrink_factor=1, n_iterations=(2, 2)), image.shape)
    taken = take(image, None, None, solve)
    with jax.enable_x64(True):
        rows, layout = taken.lay_out(slabs, 1024)
        (group,) = _groups(solve, layout)
        bias = None if slabs else np.zeros(rows.log_image.shape, np.float32)
        state = _start(group, _fields(solve)[0], bias)
        numbers, program = _program(solve.options, False, rows, group)
        made = compiled.run.lower(rows, state, group.levels, numbers, program).compile()
    used = made.memory_analysis()
    lattices = 4 * sum(np.size(leaf) for leaf in jax.tree.leaves(group.levels))
    total = used.argument_size_in_bytes + used.temp_size_in_bytes + used.output_size_in_bytes
    assert 0.7 <= (total - 4 * lattices) / taken.n_bytes(slabs) <= 1.1
    if slabs:
        assert total - 4 * lattices <= 3 * image.nbytes


REAL = """176x256x256 160x256x256 192x256x256 170x256x256 208x300x320 256x256x150 256x256x176
182x218x182 193x229x193 160x240x256 176x240x256 192x192x160 240x240x155 160x512x512 256x256x256
224x256x224 144x256x256 208x256x256 160x192x192 260x311x260"""


def test_heads_of_twenty_shapes_share_four_programs():
    """Ellipsoids in boxes of the sizes that protocols and templates have, at shrink 4."""
    durations = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, seconds, **_: durations.append(name.rpartition("/")[2])
    )
    before, sizes = compiled.run._cache_size(), set()
    shapes = [tuple(map(int, word.split("x"))) for word in REAL.split()]
    assert len(shapes) == 20
    for shape in shapes:
        grid = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij", sparse=True)
        radius = (grid[0] / 0.8) ** 2 + (grid[1] / 0.85) ** 2 + (grid[2] / 0.9) ** 2
        image = (5 + grid[2] + np.sin(9 * grid[0] * grid[1])).astype(np.float32)
        solve = plan(preset("ants", n_iterations=(1,) * 4), shape)
        sizes.add(take(image, radius < 1, None, solve).size)
        del durations[:]
        estimate(image, radius < 1, plan=solve)
        assert durations.count("backend_compile_duration") <= 1 or len(sizes) == 1
    assert len(sizes) <= 4
    assert compiled.run._cache_size() - before <= 4


def test_padding_of_lattices_to_one_size_ends_where_they_are_large():
    fine = N4Options(shrink_factor=1, n_iterations=(1,), n_control_points=(70, 8, 8))
    field = _fields(plan(fine, (80, 30, 30)))[-1]
    assert levels.lattice_sizes(field) == (8, 8, 70)


@pytest.mark.parametrize("together", [True, False])
def test_an_image_that_cannot_be_solved_is_named_by_its_number(together):
    good = np.arange(4096.0).reshape(16, 16, 16) % 97 + 1
    bad = np.where(good > 50, np.nan, good)
    for other, words in ((bad, "not finite"), (np.ones_like(good), "constant")):
        with pytest.raises(ValueError, match=rf"images\[1\]: .*{words}"):
            n4_batch([good, other], None, together=together)
