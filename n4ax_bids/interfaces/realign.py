"""Realignment as a nipype interface with the inputs and outputs of nipype's node for SPM."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, InputMultiPath, SimpleInterface, isdefined, traits
from nipype.interfaces.spm.preprocess import RealignInputSpec as SpmInputSpec
from nipype.interfaces.spm.preprocess import RealignOutputSpec
from nipype.utils.filemanip import fname_presuffix

from n4ax_bids.options.realign import RealignOptions

NAMES = {
    "quality": "quality",
    "fwhm": "fwhm",
    "separation": "separation",
    "register_to_mean": "register_to_mean",
    "interp": "degree",
    "write_interp": "write_degree",
    "write_mask": "write_mask",
}
"""SPM's inputs and the options that they are"""


class RealignInputSpec(SpmInputSpec):
    """nipype's traits; files may also be compressed."""

    in_files = InputMultiPath(
        traits.Either(File(exists=True), traits.List(File(exists=True))),
        field="data",
        mandatory=True,
        copyfile=True,
        desc="series to realign, each one NIfTI file with all of its volumes",
    )


class Realign(SimpleInterface):
    """Rigid realignment of one or more series, as nipype's node for SPM.

    Several series are realigned to the first one. The parameters of each series are in SPM's
    convention (mm and radians about the scanner's origin, relative to its first volume). Neither
    SPM nor Matlab is started, and headers are never changed: `modified_in_files` are the files as
    they were given, and with the jobtype "estimate" only the parameters are written.

    Examples
    --------
    >>> from n4ax_bids.interfaces import Realign
    >>> node = Realign(in_files=["bold.nii.gz"], register_to_mean=True)  # doctest: +SKIP
    >>> node.run().outputs.realignment_parameters  # doctest: +SKIP
    """

    input_spec = RealignInputSpec
    output_spec = RealignOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        from n4ax_bids.realign import Realign as Run

        inputs, cwd = self.inputs, Path(runtime.cwd)
        options, sources = self._options(), self._sources(cwd)
        weight = cwd / inputs.weight_img if isdefined(inputs.weight_img) else None
        writes = inputs.jobtype == "estwrite"
        results: dict[str, list[str]] = {"realignment_parameters": [], "realigned_files": []}
        reference: Path | None = None
        for number, source in enumerate(sources):
            run = Run(source, reference_image=reference, weight_image=weight, options=options)
            files: dict[str, Any] = {"spm_parameters": self._named(cwd, source, "rp_", ".txt")}
            if writes and inputs.write_which[0] > 0:
                files["output_image"] = self._named(cwd, source, inputs.out_prefix)
                results["realigned_files"].append(str(files["output_image"]))
            if writes and inputs.write_which[1] > 0 and number == 0:
                files["mean_image"] = self._named(cwd, source, "mean")
                self._results["mean_image"] = str(files["mean_image"])
            if len(sources) > 1 and number == 0:
                reference = self._named(cwd, source, "reference_")
                files["reference_image"] = reference
            run.write(**files)
            results["realignment_parameters"].append(str(files["spm_parameters"]))
        if not writes:
            results["realigned_files"] = list(map(str, sources))
        self._results.update({name: value for name, value in results.items() if value})
        self._results["modified_in_files"] = list(map(str, sources))
        return runtime

    def _sources(self, cwd: Path) -> list[Path]:
        for each in self.inputs.in_files:
            if isinstance(each, list):
                raise ValueError(
                    f"{each[0]}: a list of {len(each)} files for one series; expected one file "
                    "with all of its volumes"
                )
        names = [Path(each).name for each in self.inputs.in_files]
        for each, name in zip(self.inputs.in_files, names, strict=True):
            if names.count(name) > 1:
                raise ValueError(
                    f"{each}: another series has the name {name} as well, and would have the same "
                    "outputs; expected different names"
                )
        return [cwd / each for each in self.inputs.in_files]

    def _options(self) -> RealignOptions:
        inputs = self.inputs
        first = inputs.in_files[0]
        if inputs.jobtype == "write":
            raise ValueError(f"{first}: jobtype is write; expected estimate or estwrite")
        for name in ("wrap", "write_wrap"):
            value = getattr(inputs, name)
            if isdefined(value) and any(value):
                raise ValueError(f"{first}: {name} is {value}; expected [0, 0, 0]")
        if isdefined(inputs.write_which) and inputs.write_which[0] == 1:
            raise ValueError(
                f"{first}: write_which is {inputs.write_which}; expected [2, ...] for all volumes "
                "or [0, ...] for none"
            )
        given = {
            option: getattr(inputs, name)
            for name, option in NAMES.items()
            if isdefined(getattr(inputs, name))
        }
        return RealignOptions(**given)

    def _named(self, cwd: Path, source: Path, prefix: str, extension: str = "") -> Path:
        return cwd / fname_presuffix(
            source.name, prefix=prefix, suffix=extension, use_ext=not extension
        )
