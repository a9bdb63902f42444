"""Figure files: what they show, and that equal ones are equal files."""

from __future__ import annotations

import math
import re
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from PIL import Image

from n4ax_bids.report import convergence, figures, mosaic

SHAPE = (40, 44, 36)
DETAILS = {"n_iterations": [50, 7], "convergence": [3e-4, 9e-5], "converged": [False, True]}


def panel(threshold, details=DETAILS):
    """N4's own figure: 50 iterations allowed at each level."""
    options = {"n_iterations": [50, 50], "convergence_threshold": threshold}
    return partial(convergence.draw, options=options, details=details)


def sample(volume):
    return lambda indices: volume[np.ix_(*indices)]


@pytest.fixture
def views():
    return mosaic.plan(np.ones(SHAPE, bool), (1, 1, 1))


def drawn_field(path, views, log_field, limits, inside=None):
    inside = np.ones(SHAPE, bool) if inside is None else inside
    figures.field(path, views, sample(log_field), sample(inside), limits, 1.0)
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def test_an_image_at_its_window(tmp_path, views):
    path = tmp_path / "a.webp"
    figures.image(path, views, sample(np.full(SHAPE, 30.0)), (0, 60))
    shades = np.asarray(Image.open(path).convert("L"))
    assert np.median(shades[shades > 20]) == pytest.approx(127, abs=3)  # lossy


def test_the_outline_of_a_mask_lies_on_its_rim_alone(tmp_path, views):
    inside = np.zeros(SHAPE, bool)
    inside[10:30, 10:34, 8:28] = True
    path, plain = tmp_path / "a.webp", tmp_path / "b.webp"
    volume = sample(np.full(SHAPE, 30.0))
    figures.image(path, views, volume, (0, 60), sample(inside))
    figures.image(plain, views, volume, (0, 60))
    colours, grey = (np.asarray(Image.open(p).convert("RGB")).astype(int) for p in (path, plain))
    assert colours.shape == grey.shape
    yellow = colours[..., 0] - colours[..., 2] > 60
    assert 0.002 < yellow.mean() < 0.1
    assert not (grey[..., 0] - grey[..., 2] > 60).any()
    assert np.median(np.abs(colours - grey)[~yellow]) <= 3  # lossy
    full = np.ones(SHAPE, bool)  # a mask that goes on beyond the cuts has no rim in them
    figures.image(path, views, volume, (0, 60), sample(full))
    colours = np.asarray(Image.open(path).convert("RGB")).astype(int)
    assert not (colours[..., 0] - colours[..., 2] > 60).any()


def test_the_field_goes_from_blue_to_red_and_is_pale_outside(tmp_path, views):
    log_field = np.linspace(-0.4, 0.4, SHAPE[0])[:, None, None] * np.ones(SHAPE)
    limits = math.exp(-0.4), math.exp(0.4)
    colours = drawn_field(tmp_path / "a.webp", views, log_field, limits)
    bar = len(colours) - 62  # beneath it is the bar, which has all colours
    difference = colours[:bar, :, 0] - colours[:bar, :, 2]
    assert difference.max() > 90 and difference.min() < -90
    outside = drawn_field(tmp_path / "b.webp", views, log_field, limits, np.zeros(SHAPE, bool))
    pale = outside[:bar, :, 0] - outside[:bar, :, 2]
    assert 0 < pale.max() < 0.5 * difference.max()


def test_a_weak_field_is_pale(tmp_path, views):
    log_field = np.linspace(-0.01, 0.01, SHAPE[0])[:, None, None] * np.ones(SHAPE)
    colours = drawn_field(tmp_path / "a.webp", views, log_field, (0.99, 1.01))[:-62]
    assert abs(colours[..., 0] - colours[..., 2]).max() < 40


def test_an_outer_edge_is_not_drawn_around_holes(tmp_path, views):
    """Otsu's mask of a head has a hole at every dark voxel."""
    inside = np.zeros(SHAPE, bool)
    inside[6:34, 6:38, 4:32] = True
    holed = inside.copy()
    holed[14:26, 16:28, 12:24] = False
    counts = []
    for mask, filled in ((inside, True), (holed, True), (holed, False)):
        volume = sample(np.full(SHAPE, 30.0))
        figures.image(tmp_path / "a.webp", views, volume, (0, 60), sample(mask), filled)
        colours = np.asarray(Image.open(tmp_path / "a.webp").convert("RGB")).astype(int)
        counts.append((colours[..., 0] - colours[..., 2] > 60).sum())
    assert counts[1] == pytest.approx(counts[0], rel=0.01) and counts[2] > 1.1 * counts[0]


def test_scale_has_the_median_in_the_middle():
    scale = figures._Scale.of((0.5, 2.0), 1.0)
    assert [scale.place(math.log(b)) for b in (0.5, 1, 2)] == pytest.approx([0, 0.5, 1])
    assert scale.value(1) == pytest.approx(2)
    far = figures._Scale.of((1.4, 2.5), 1.5)  # N4 leaves the level of a field open
    assert far.place(math.log(1.5)) == pytest.approx(0.5)
    assert far.place(math.log(2.5)) == pytest.approx(1) and 0 < far.place(math.log(1.4)) < 0.5


def test_convergence_in_words():
    def words(threshold, converged):
        options = {"n_iterations": [50, 50], "convergence_threshold": threshold}
        return convergence.in_words(options, DETAILS | {"converged": converged})

    assert "used all its iterations" in words(0.0, [False, False])
    assert "1 of 2 levels ended because" in words(1e-4, [False, True])
    assert "Every level ended because" in words(1e-4, [True, True])
    assert all("0.009 %" in words(t, [True, True]) for t in (0.0, 1e-4))  # the last change
    unknown = {"n_iterations": [0], "convergence": [None], "converged": [False]}
    options = {"n_iterations": [50], "convergence_threshold": 0}
    assert convergence.in_words(options, unknown) == ""


def test_histogram_keeps_the_counts_and_is_smooth():
    rng = np.random.default_rng(0)
    whole = np.rint(rng.normal(50, 8, 200_000))  # whole numbers on narrower bins: a comb
    counts = figures.histogram(whole, whole, (0, 100))
    assert counts.before.sum() == pytest.approx(whole.size, rel=1e-3)
    mean = np.average(counts.centres, weights=counts.before)
    assert mean == pytest.approx(50, abs=0.4)  # a bin
    middle = counts.before[(counts.centres > 45) & (counts.centres < 55)]
    assert np.abs(np.diff(middle)).max() < 0.1 * middle.max()
    beyond = figures.histogram(np.full(9, 1e6), np.full(9, -1e6), (0, 100))
    assert beyond.before.sum() == beyond.after.sum() == 0


def test_curves_tell_levels_and_threshold(tmp_path):
    path = tmp_path / "a.svg"
    counts = figures.histogram(np.arange(99.0), np.arange(99.0), (0, 100))
    figures.curves(path, counts, panel(1e-4))
    text = re.sub(r"<[^>]+>", " ", path.read_text())
    for words in (
        "50 of 50",
        "7 of 50, met",
        "threshold 0.0001",
        "before",
        "after",
        "Convergence",
    ):
        assert words in text


def test_convergence_that_is_not_known(tmp_path):
    counts = figures.histogram(np.arange(99.0), np.arange(99.0), (0, 100))
    unknown = {"n_iterations": [0], "convergence": [None], "converged": [False]}
    figures.curves(tmp_path / "a.svg", counts, panel(0, unknown))
    assert "no value recorded" in (tmp_path / "a.svg").read_text()


def test_a_method_without_a_figure_of_its_own_has_histograms_alone(tmp_path):
    counts = figures.histogram(np.arange(99.0), np.arange(99.0), (0, 100))
    figures.curves(tmp_path / "a.svg", counts)
    text = (tmp_path / "a.svg").read_text()
    assert "Intensities inside the mask" in text and "Convergence" not in text


def test_equal_figures_are_equal_files_in_threads_too(tmp_path, views):
    volume = np.random.default_rng(0).uniform(0, 60, SHAPE)
    counts = figures.histogram(volume.ravel(), volume.ravel(), (0, 60))

    def make(number):
        image, field, svg = (tmp_path / f"{number}.{end}" for end in ("webp", "f.webp", "svg"))
        figures.image(image, views, sample(volume), (0, 60))
        figures.field(field, views, sample(volume / 99), sample(volume > 9), (0.9, 1.6), 1.2)
        figures.curves(svg, counts, panel(0))
        return [path.read_bytes() for path in (image, field, svg)]

    with ThreadPoolExecutor(4) as threads:
        first, *others = threads.map(make, range(6))
    assert all(other == first for other in others)
