"""Realignment as a nipype interface that replaces nipype's own for FSL's MCFLIRT."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from nipype import logging
from nipype.interfaces.base import SimpleInterface, isdefined
from nipype.interfaces.fsl.base import Info
from nipype.interfaces.fsl.preprocess import MCFLIRT as FslMCFLIRT
from nipype.interfaces.fsl.preprocess import MCFLIRTInputSpec, MCFLIRTOutputSpec
from nipype.utils.filemanip import fname_presuffix

from n4ax_bids.options.realign import RealignOptions

_log = logging.getLogger("nipype.interface")

DEGREES = {"nn": 0, "spline": 3, "sinc": 4}
"""degree of the spline that resamples, by MCFLIRT's words"""
OF_MCFLIRT = ("args", "bins", "cost", "rotation", "scaling", "smooth", "stages")
OF_ITS_SEARCH = ("use_contour", "use_gradient")
"""inputs that steer MCFLIRT's own search and have no effect here"""


class MCFLIRT(SimpleInterface):
    """Rigid realignment of a series, with the inputs and outputs of nipype's node for MCFLIRT.

    Replaces `nipype.interfaces.fsl.MCFLIRT`. The motion is estimated by least squares
    (`n4ax_bids.realign`); the files have FSL's names, formats and conventions. Without `ref_vol`
    and `ref_file` the reference is the middle volume, as in MCFLIRT. The series is resampled by a
    spline of degree 4, unless `interpolation` says otherwise. No program is started: `cmdline`
    shows nipype's command line.

    Examples
    --------
    >>> from n4ax_bids.interfaces import MCFLIRT
    >>> node = MCFLIRT(in_file="bold.nii.gz", save_mats=True)  # doctest: +SKIP
    >>> node.run().outputs.mat_file  # doctest: +SKIP
    """

    # There is no `_cmd`, because fMRIPrep and others check that a program of that name exists.
    input_spec = MCFLIRTInputSpec
    output_spec = MCFLIRTOutputSpec

    def __init__(
        self, from_file: Any = None, resource_monitor: bool | None = None, **inputs: Any
    ) -> None:
        super().__init__(from_file=from_file, resource_monitor=resource_monitor, **inputs)
        if not isdefined(self.inputs.output_type):
            self.inputs.output_type = Info.output_type()

    @property
    def cmdline(self) -> str:
        """The command line that nipype's own class returns for the same inputs."""
        self._check_mandatory_inputs()
        theirs = FslMCFLIRT()
        theirs.inputs = self.inputs
        return str(theirs.cmdline)

    def _run_interface(self, runtime: Any) -> Any:
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        from n4ax_bids.realign import Realign

        inputs, cwd = self.inputs, Path(runtime.cwd)
        self._refuse()
        source = cwd / inputs.in_file
        run = Realign(
            source,
            reference_image=cwd / inputs.ref_file if isdefined(inputs.ref_file) else None,
            options=self._options(),
        )
        files, outputs = self._files(cwd)
        done = run.write(**files)
        if "fsl_matrices" in files:
            folder = files["fsl_matrices"]
            outputs["mat_file"] = [str(folder / f"MAT_{i:04d}") for i in range(done.n_volumes)]
        self._results.update(outputs)
        return runtime

    def _refuse(self) -> None:
        """Refuse what would change the result in a way that is not ours; note what is ignored."""
        inputs = self.inputs
        if isdefined(inputs.dof) and inputs.dof != 6:
            raise ValueError(f"{inputs.in_file}: dof is {inputs.dof}; expected 6, a rigid motion")
        if isdefined(inputs.init):
            raise ValueError(f"{inputs.in_file}: init is {inputs.init}; expected no such input")
        ignored = [name for name in OF_MCFLIRT if isdefined(getattr(inputs, name))]
        ignored += [name for name in OF_ITS_SEARCH if getattr(inputs, name) is True]
        if ignored:
            _log.warning(
                "MCFLIRT: %s: %s steer FSL's search and have no effect",
                inputs.in_file,
                ", ".join(ignored),
            )

    def _options(self) -> RealignOptions:
        inputs = self.inputs
        return RealignOptions(
            reference=inputs.ref_vol if isdefined(inputs.ref_vol) else "middle",
            register_to_mean=inputs.mean_vol is True,
            write_degree=DEGREES.get(inputs.interpolation, 4),
        )

    def _files(self, cwd: Path) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the arguments of `write` and the outputs, named as by FSL 6."""
        inputs = self.inputs
        out = self._out_file(cwd)
        files: dict[str, Any] = {"output_image": out}
        outputs: dict[str, Any] = {"out_file": str(out)}
        wanted = {
            "mean_vol": (("mean_image", "mean_img", "_mean_reg"),),
            "stats_imgs": (
                ("variance_image", "variance_img", "_variance"),
                ("sd_image", "std_img", "_sigma"),
            ),
        }
        for trait, images in wanted.items():
            if getattr(inputs, trait) is True:
                for name, output, suffix in images:
                    files[name] = Path(fname_presuffix(str(out), suffix=suffix))
                    outputs[output] = str(files[name])
        if inputs.save_mats is True:
            files["fsl_matrices"] = Path(f"{out}.mat")
        if inputs.save_plots is True:
            files["fsl_parameters"] = Path(f"{out}.par")
            outputs["par_file"] = str(files["fsl_parameters"])
        if inputs.save_rms is True:
            files["fsl_absolute_rms"] = Path(f"{out}_abs.rms")
            files["fsl_relative_rms"] = Path(f"{out}_rel.rms")
            names = ("fsl_absolute_rms", "fsl_relative_rms")
            outputs["rms_files"] = [str(files[name]) for name in names]
        return files, outputs

    def _out_file(self, cwd: Path) -> Path:
        inputs = self.inputs
        if isdefined(inputs.out_file):
            return (cwd / inputs.out_file).absolute()
        extension = Info.output_type_to_ext(inputs.output_type)
        return cwd / fname_presuffix(
            os.path.basename(inputs.in_file), suffix=f"_mcf{extension}", use_ext=False
        )
