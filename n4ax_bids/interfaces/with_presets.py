"""A node for one method, with a preset and a trait for each option."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from nipype.interfaces.base import isdefined, traits
from nipype.utils.filemanip import fname_presuffix

from n4ax_bids.interfaces.bias import BiasFieldCorrection, path_or_none
from n4ax_bids.interfaces.spec import add_option_traits, read_options


def add_preset_traits(spec: Any, options: type, presets: Mapping[str, Any]) -> None:
    """Add preset, save_bias and a trait for each option to an input spec."""
    named = traits.Enum(
        *presets, usedefault=True, desc="named options, which the other options change"
    )
    save_bias = traits.Bool(
        False, usedefault=True, desc="write the field, by default as the input's name with _bias"
    )
    for name, trait in (("preset", named), ("save_bias", save_bias)):
        spec.add_class_trait(name, trait)
    add_option_traits(spec, options)


class MethodCorrection(BiasFieldCorrection):
    """What the nodes for one method share; files are named as by `N4BiasFieldCorrection`."""

    _options_type: ClassVar[type]
    _presets: ClassVar[Mapping[str, Any]]

    def _arguments(self, cwd: Path) -> dict[str, Any]:
        return super()._arguments(cwd) | {"options": self._options()}

    def _options(self) -> Any:
        """Return the options: those given as a whole, or a preset with changes."""
        inputs = self.inputs
        if isdefined(inputs.options):
            names = [field.name for field in dataclasses.fields(self._options_type)]
            also = [name for name in names if isdefined(getattr(inputs, name))]
            if also:
                raise ValueError(
                    f"{inputs.input_image}: options is given together with {', '.join(also)}; "
                    "expected one or the other"
                )
            return inputs.options
        preset = dataclasses.asdict(self._presets[inputs.preset])
        try:
            return read_options(inputs, self._options_type, preset)
        except ValueError as error:
            raise ValueError(f"{inputs.input_image}: {error}") from error

    def _output_paths(self, cwd: Path) -> dict[str, Path | None]:
        inputs, paths = self.inputs, super()._output_paths(cwd)
        if inputs.save_bias and not isdefined(inputs.bias_image):
            name = fname_presuffix(Path(inputs.input_image).name, suffix="_bias")
            paths["bias_image"] = path_or_none(cwd, name)
        return paths
