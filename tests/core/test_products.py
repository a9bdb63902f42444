"""Every product of float32 matrices asks for all digits; a GPU would take 10 of them otherwise."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
METHODS = """
from benchmarks.gpu import inputs, methods
from benchmarks.gpu.day import Day, QUICK
from n4ax_bids.core.n4.estimate import estimate
from n4ax_bids.core.n4.plan import plan
day = Day(True, float("inf"))
for make in (methods._tissue, methods._zero_shot, methods._stack, methods._realign):
    make(day)()
image, mask = inputs.head(QUICK.small_shape, QUICK.small_semi_axes)
for on_device in (False, True):
    estimate(image, mask, plan=plan(QUICK.fmriprep, image.shape), on_device=on_device)
"""
PRODUCT = re.compile(r"stablehlo\.(?:dot|dot_general|convolution)\b.*")


def test_no_product_of_any_method_is_rounded(tmp_path):
    """As the compiler gets them, since JAX can be told in several ways."""
    changed = {"JAX_DUMP_IR_TO": str(tmp_path), "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", METHODS], env=os.environ | changed, check=True)
    products = [
        line
        for path in tmp_path.rglob("*.mlir")
        for line in PRODUCT.findall(path.read_text(encoding="utf-8"))
        if re.search(r"xf32>", line)
    ]
    assert len(products) >= 30
    rounded = [line for line in products if "precision = [HIGHEST, HIGHEST]" not in line]
    assert rounded == []
