"""The arguments of one call of `correct`, as one value, and their checks."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from n4ax_bids import arguments
from n4ax_bids.arguments import is_among, require_bools, shown
from n4ax_bids.image.outputs import Outputs, checked
from n4ax_bids.methods import Method
from n4ax_bids.options import FIELD_SCALES, MASK_PROGRAMS, MASK_WORDS

File = str | Path | None


@dataclass(frozen=True)
class CallArguments:
    """The arguments of one call of `correct`; the fields are its parameters."""

    input_image: str | Path
    output_image: File
    bias_image: File
    lattice_image: File
    mask_image: File
    auto_mask: str | None
    weight_image: File
    method: Method
    options: Any
    rescale_intensities: bool
    output_dtype: str
    copy_header: bool
    dimension: int | None
    report: Callable[[int, int, float], None] | None
    shift_negative: bool
    correct_outside: bool
    mask_transform: File
    weight_transform: File
    found_mask_image: File
    method_images: Mapping[str, str | Path]
    field_scale: str

    def checked(self) -> Outputs:
        """Check every argument before any file is read, and return the paths of the outputs.

        Raises
        ------
        OSError, TypeError, ValueError
            If an argument does not fit; one line that names it and its value.
        """
        self._require_labels()
        self._require_paths()
        require_bools(
            rescale_intensities=self.rescale_intensities,
            copy_header=self.copy_header,
            shift_negative=self.shift_negative,
            correct_outside=self.correct_outside,
        )
        self._require_words()
        self._require_company()
        inputs: dict[str, File] = {
            "input image": self.input_image,
            "mask": self.mask_image,
            "weight": self.weight_image,
        }
        return checked(
            self.output_image,
            self.bias_image,
            self.lattice_image,
            self.found_mask_image,
            further=self.method_images,
            inputs=inputs,
        )

    def _require_labels(self) -> None:
        """Refuse images that the method does not make."""
        known = [output.label for output in self.method.written(self.options)]
        for label in self.method_images:
            if label not in known:
                has = ", ".join(known) or "none"
                raise ValueError(
                    f"method_images has {label!r}; expected outputs of {self.method.name}: {has}"
                )

    def _require_paths(self) -> None:
        further = {f"method_images[{label!r}]": p for label, p in self.method_images.items()}
        _require_paths(
            "a NIfTI file",
            input_image=self.input_image,
            output_image=self.output_image,
            bias_image=self.bias_image,
            lattice_image=self.lattice_image,
            mask_image=self.mask_image,
            weight_image=self.weight_image,
            found_mask_image=self.found_mask_image,
            **further,
        )
        _require_paths(
            "an ITK transform",
            mask_transform=self.mask_transform,
            weight_transform=self.weight_transform,
        )

    def _require_words(self) -> None:
        dtype, word, report = self.output_dtype, self.auto_mask, self.report
        if not is_among(dtype, ("float32", "source")):
            raise ValueError(f"output_dtype is {shown(dtype)}; expected float32 or source")
        scale = self.field_scale
        if not is_among(scale, FIELD_SCALES):
            raise ValueError(
                f"field_scale is {shown(scale)}; expected one of {', '.join(FIELD_SCALES)}"
            )
        known = (*MASK_WORDS, *MASK_PROGRAMS)
        if not (word is None or is_among(word, known)):
            words = ", ".join(known)
            raise ValueError(f"auto_mask is {shown(word)}; expected one of {words} or None")
        if not (report is None or callable(report)):
            raise TypeError(f"report is {shown(report)}; expected a function or None")

    def _require_company(self) -> None:
        """Refuse files that are of no use without another argument."""
        for name, transform, file in (
            ("mask", self.mask_transform, self.mask_image),
            ("weight", self.weight_transform, self.weight_image),
        ):
            if transform is not None and file is None:
                raise ValueError(
                    f"{transform}: {name}_transform without {name}_image; expected both"
                )
        if self.found_mask_image is not None and self.auto_mask is None:
            raise ValueError(
                f"{self.found_mask_image}: no mask is found without auto_mask; expected it too"
            )


def _require_paths(what: str, /, **files: File) -> None:
    """Refuse arrays and images in place of a path; all but the input may be None."""
    for name, value in files.items():
        if not (isinstance(value, str | os.PathLike) or (value is None and name != "input_image")):
            raise TypeError(
                f"{name} is {arguments.kind(value)}; expected the path of {what} "
                "(for arrays call n4ax_bids.n4)"
            )
        if isinstance(value, str) and not value:
            raise ValueError(f"{name} is ''; expected the path of a file")
