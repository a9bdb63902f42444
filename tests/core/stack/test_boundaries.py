import pytest

from n4ax_bids.core.stack.boundaries import section_bounds


@pytest.mark.parametrize(("n", "m"), [(20, 2), (7, 3), (10, 4), (5, 5), (256, 50)])
def test_sections_are_complete_disjoint_and_alike(n, m):
    bounds = section_bounds(n, m)
    assert [k for start, stop in bounds for k in range(start, stop)] == list(range(n))
    sizes = [stop - start for start, stop in bounds]
    assert len(sizes) == m and max(sizes) - min(sizes) <= 1


def test_halves_are_rounded_to_even():
    assert section_bounds(10, 4) == ((0, 2), (2, 5), (5, 8), (8, 10))


def test_every_plane_is_a_section_without_a_number():
    assert section_bounds(3) == ((0, 1), (1, 2), (2, 3))


def test_first_planes_can_be_listed():
    assert section_bounds(9, (0, 4, 5)) == ((0, 4), (4, 5), (5, 9))


@pytest.mark.parametrize("sections", [0, 6, -1, 1.5, True, (), (1, 3), (0, 3, 3), (0, 5), "2"])
def test_what_does_not_fit_is_refused(sections):
    with pytest.raises(ValueError, match="sections is"):
        section_bounds(5, sections)
