"""The methods text follows the options."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from n4ax_bids.app import boilerplate, cli
from n4ax_bids.app.request import Request
from n4ax_bids.options import PRESETS, N4Options

REQUEST = Request(Path("/raw"), Path("/out"), derivatives={"fmriprep": Path("/prep")})

CHANGED = N4Options(
    shrink_factor=3,
    n_iterations=(7, 6),
    convergence_threshold=1e-4,
    bspline_order=2,
    histogram_sharpening=(0.2, 0.03, 150),
    over_relaxation=1.4,
    refine=False,
    convergence_statistic="exact",
    itk_version="6",
    shrink_start=(0, 2, 1),
    precision="float64",
)
SPECIAL = {"shrink_mm": 3.5, "bspline_fitting_distance": 120.0, "n_control_points": (5, 6, 7)}


@pytest.mark.parametrize("item", fields(N4Options), ids=lambda item: item.name)
def test_every_solver_option_is_in_the_text(item):
    value = SPECIAL.get(item.name, getattr(CHANGED, item.name))
    changed = replace(REQUEST, options=replace(N4Options(), **{item.name: value}))
    assert boilerplate.markdown(changed) != boilerplate.markdown(REQUEST)
    numbers = value if isinstance(value, tuple) else (value,)
    for number in numbers:
        if isinstance(number, int | float) and not isinstance(number, bool):
            assert re.search(rf"\b{re.escape(f'{number:g}')}\b", boilerplate.markdown(changed))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mask": "otsu"}, "above Otsu's threshold (Otsu, 1979)"),
        ({"mask": "none"}, "in all voxels."),
        ({"mask": "derivatives"}, "inside the brain masks of fmriprep"),
        ({"weight": "WM"}, "weighted by the probability of WM tissue of fmriprep"),
        ({"rescale": True, "mask": "derivatives"}, "rescaled to the range"),
        ({"output_dtype": "source"}, "stored in the type of the source"),
        ({"sloppy": True}, "are no result"),
        ({"modalities": ("T1w", "FLAIR")}, "The T1w and FLAIR images"),
        ({"preset": "robust", "options": PRESETS["robust"]}, "those of the preset robust."),
        ({"preset": "robust"}, "those of the preset robust, some of them changed."),
    ],
)
def test_the_text_says_what_was_done(change, words):
    assert words in boilerplate.markdown(replace(REQUEST, **change))


def test_what_is_cited_is_listed_and_nothing_else():
    for mask in ("otsu", "none"):
        request = replace(REQUEST, mask=mask)
        text, bib = boilerplate.markdown(request), boilerplate.bibtex(request)
        cited, listed = text.split("## References")
        names = set(re.findall(r"\(([A-Z]\w+)(?: et al\.)?, (\d{4})\)", cited))
        assert names == set(re.findall(r"^- (\w+).*[ .](\d{4})\.", listed, flags=re.MULTILINE))
        assert ("otsu" in bib) == (mask == "otsu") == (("Otsu", "1979") in names)
        assert bib.count("@") == len(names) + 1  # and the software's own
        assert bib.count("{") == bib.count("}")


class _Text(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found, self.open = [], []

    def handle_starttag(self, tag, attrs):
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.found.append(data)


def test_the_page_says_the_same_and_escapes_names():
    request = replace(
        REQUEST, mask="derivatives", derivatives={"<script>x</script>": Path("/prep")}
    )
    page = boilerplate.html(request)
    assert "<script>" not in page
    reader = _Text()
    reader.feed(page)
    assert reader.open == []
    words = " ".join("".join(reader.found).split())
    for paragraph in boilerplate.markdown(request).split("\n\n")[1:4]:
        assert paragraph in words


def test_a_dry_run_writes_no_boilerplate(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main([str(tmp_path), str(tmp_path), "participant", "--dry-run", "--boilerplate-only"])
    assert "--dry-run writes nothing" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_boilerplate_only(make_dataset, tmp_path, fake_node):
    root, out = make_dataset("sub-01/anat/sub-01_T1w.nii.gz"), tmp_path / "out"
    words = [str(root), str(out), "participant", "--boilerplate-only", "--preset", "fast"]
    assert cli.main(words) == 0
    assert not fake_node
    found = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    assert found == ["logs/CITATION.bib", "logs/CITATION.html", "logs/CITATION.md"]
    assert "preset fast" in (out / "logs/CITATION.md").read_text()
