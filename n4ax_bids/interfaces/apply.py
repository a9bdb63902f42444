"""The node that divides images by a field that was estimated before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    InputMultiObject,
    OutputMultiObject,
    SimpleInterface,
    TraitedSpec,
    traits,
)
from nipype.utils.filemanip import fname_presuffix


class ApplyBiasFieldInputSpec(BaseInterfaceInputSpec):
    """Images, and a field of the same scan."""

    in_files = InputMultiObject(
        File(exists=True), mandatory=True, desc="images or series, NIfTI; all get the same field"
    )
    field = File(
        exists=True,
        mandatory=True,
        desc="a lattice, an image of the field, or a corrected image with one of them beside it",
    )
    multiply = traits.Bool(False, usedefault=True, desc="multiply by the field instead")


class ApplyBiasFieldOutputSpec(TraitedSpec):
    """What was written."""

    out_files = OutputMultiObject(File(exists=True), desc="the images divided by the field")
    bias_images = OutputMultiObject(File(exists=True), desc="the field on the grid of each image")
    n_outside = OutputMultiObject(
        traits.Int, desc="voxels of each image outside the image in which it was estimated"
    )


class ApplyBiasField(SimpleInterface):
    """One bias field for several images of a scan.

    Examples
    --------
    >>> from n4ax_bids.interfaces.apply import ApplyBiasField
    >>> node = ApplyBiasField(field="sub-01_desc-biaslattice_T1w.nii.gz")  # doctest: +SKIP
    >>> node.inputs.in_files = ["sub-01_FLAIR.nii.gz", "sub-01_bold.nii.gz"]  # doctest: +SKIP
    """

    input_spec = ApplyBiasFieldInputSpec
    output_spec = ApplyBiasFieldOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from n4ax_bids.apply import apply_field, load_field

        given = self.inputs
        field = load_field(given.field)
        done, fields, taken = [], [], set()
        for number, image in enumerate(given.in_files):
            name = Path(fname_presuffix(image, suffix="_biascorr", newpath=runtime.cwd))
            if name in taken:  # images of several folders may have the same name
                name = name.with_name(f"{number:03}_{name.name}")
            taken.add(name)
            fields.append(name.with_name(f"field_{name.name}"))
            done.append(
                apply_field(image, field, name, bias_image=fields[-1], multiply=given.multiply)
            )
        self._results["out_files"] = [str(each.output) for each in done]
        self._results["bias_images"] = [str(each) for each in fields]
        self._results["n_outside"] = [each.n_outside for each in done]
        return runtime
