"""The page on quality says what its rows say."""

import csv

from benchmarks import quality_files, quality_page

FIGURES = {"r": 0.9, "cv of the ratio": 0.1, "cv white": 0.05, "cv grey": 0.06, "contrast": 1.0}


def of(rmse, cjv=0.5):
    return {**FIGURES, "rmse": rmse, "cjv": cjv, "seconds": 1.0}


ROWS = {
    "T1w coils 0.5, noise 3%, brain": {
        "none, label": of(0.2),
        "n4 ants, label": of(0.1),
        "n4 as SimpleITK, label": of(0.1234),
        "tissue, label": of(0.05, cjv=0.6),
        "SimpleITK, label": of(0.1236),
    },
    "T1w coils 0.2, noise 3%, brain": {
        "none, label": of(0.1),
        "n4 ants, label": of(0.04),
        "n4 as SimpleITK, label": of(0.04),
        "tissue, label": of(0.06, cjv=0.4),
    },
    "head: one": {"none, label": {"cjv": 0.7}, "tissue, label": {"cjv": 0.65}},
}


def test_wins_and_losses_are_counted():
    page = "\n".join(quality_page.lines(ROWS))
    assert "| tissue | label | 50% of 2 | 50% of 2 | 1.00 |" in page
    assert "| n4 ants | 0.900 | 0.070 |" in page  # the mean over both cases
    assert "| SimpleITK |" not in page.partition("## Beside")[0]  # it has one case of two


def test_heads_have_a_row_for_each_mask_and_a_mean_over_what_ran_on_all():
    rows = {
        "head: one": {
            "none, label": {"cjv": 0.7, "rmse": 0.4, "r": 0.0},
            "tissue, label": {"cjv": 0.65, "rmse": 0.1, "rmse of the difference": 0.05},
            "tissue, auto": {"cjv": 0.66, "rmse": 0.12},
        },
        "head: two": {"none, label": {"cjv": 0.5}, "SimpleITK, label": {"cjv": 0.6}},
    }
    page = "\n".join(quality_page.lines(rows))
    fields, _, rest = page.partition("## The difference of a pair")
    difference, _, labelled = rest.partition("## Labelled heads")
    assert "| one | own | 0.400 | 0.100 |\n| one | auto |  | 0.120 |" in fields
    assert "| one | own | 0.050 |" in difference
    assert "| one | own | 0.700 | 0.650 |  |" in labelled
    assert "| two | own | 0.500 |  | 0.600 |\n| *mean* | own | 0.600 |  |  |" in labelled


def test_it_says_how_many_cases_everything_has_run_on():
    slow = ("zero-shot, label", "SimpleITK, label", "ANTs, label", "dipy B-splines, label")
    known = ROWS["T1w coils 0.5, noise 3%, brain"] | {name: of(0.1) for name in slow}
    whole = {"T1w dome 0.2, noise 3%, brain": known}
    page = "\n".join(quality_page.lines(ROWS | whole))
    assert "have run on 1 of 3 cases with known fields" in page


def test_measures_that_are_worse_on_average_are_named():
    rows = {
        "T1w coils 0.5, noise 3%, brain": {
            "n4 ants, label": of(0.1) | {"contrast": 0.9},
            "tissue, label": of(0.05, cjv=0.6) | {"contrast": 1.05},
        },
        "T1w coils 0.2, noise 3%, brain": {
            "n4 ants, label": of(0.04) | {"contrast": 1.1},
            "tissue, label": of(0.06, cjv=0.6) | {"contrast": 1.05, "r": 0.8},
        },
    }
    page = "\n".join(quality_page.lines(rows))
    assert "| tissue | r, cjv |  |  |" in page  # errors of the contrast do not cancel


def test_a_difference_from_simpleitk_is_said():
    page = "\n".join(quality_page.lines(ROWS))
    assert "Of 7 figures of this package with SimpleITK's settings, 6 are SimpleITK's" in page
    assert "1.6e-03 (rmse of “T1w coils 0.5, noise 3%, brain”: 0.1234 and 0.1236)" in page


def test_every_figure_is_in_the_table_and_the_picture_is_drawn(tmp_path):
    quality_files.write_csv(ROWS, tmp_path / "quality.csv")
    with (tmp_path / "quality.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 11
    assert rows[3]["method"] == "tissue" and rows[3]["mask"] == "label" and rows[3]["cjv"] == "0.6"
    quality_files.draw(ROWS, tmp_path / "quality.png")
    assert (tmp_path / "quality.png").read_bytes().startswith(b"\x89PNG")
