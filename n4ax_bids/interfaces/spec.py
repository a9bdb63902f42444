"""Options to traits and back, so that names, defaults and help texts are written only once."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any

from nipype.interfaces.base import BaseTraitedSpec, isdefined, traits

from n4ax_bids.options import N4Options


def add_option_traits(spec: type[BaseTraitedSpec], options: type) -> None:
    """Add a trait for each option that an input spec lacks; undefined means the default.

    Parameters
    ----------
    spec : class of nipype inputs
    options : dataclass whose fields are made with `n4ax_bids.options.base.option`
    """
    hints = typing.get_type_hints(options)
    there = spec.class_trait_names()
    for field in dataclasses.fields(options):
        if field.name not in there:
            spec.add_class_trait(field.name, _trait(field, hints[field.name]))


def _trait(field: dataclasses.Field[Any], hint: Any) -> Any:
    unit = field.metadata["unit"]
    desc = field.metadata["help"] + (f" ({unit})" if unit else "")
    if field.metadata["choices"]:
        return traits.Enum(*field.metadata["choices"], desc=desc)
    if isinstance(hint, types.UnionType):
        hint = next(kind for kind in typing.get_args(hint) if kind is not type(None))
    simple = {bool: traits.Bool, int: traits.Int, float: traits.Float, str: traits.Str}
    if hint in simple:
        return simple[hint](desc=desc)
    kinds = typing.get_args(hint)
    if typing.get_origin(hint) is tuple and kinds[1:] == (Ellipsis,):
        return traits.List(simple[kinds[0]](), desc=desc)
    raise TypeError(f"{field.name} is {hint}; there is no trait for that")


def read_options(
    inputs: BaseTraitedSpec,
    options: type,
    settings: Mapping[str, Any] = types.MappingProxyType({}),
) -> Any:
    """Build the options from the traits that are defined.

    Parameters
    ----------
    inputs : nipype inputs
    options : dataclass
    settings : values of fields whose traits are not defined

    Raises
    ------
    ValueError
        If a value is outside its option's range.
    """
    names = [field.name for field in dataclasses.fields(options)]
    values = {name: value for name, value in settings.items() if name in names}
    for name in names:
        value = getattr(inputs, name)
        if isdefined(value):
            values[name] = tuple(value) if isinstance(value, list) else value
    return options(**values)


def six_digits(number: float) -> float:
    """Round a number as nipype does when it writes it for the ANTs program."""
    return float(f"{number:g}")


def node_inputs(options: N4Options, n_axes: int = 3) -> dict[str, Any]:
    """Return the inputs that make a `N4BiasFieldCorrection` node use these options.

    Values that are ANTs' defaults are left out. nipype requires a spline distance with an order
    and iterations with a threshold, so an order alone goes into `args`. So do numbers of more than
    six digits, to which the node would round them.

    Parameters
    ----------
    options : N4Options
    n_axes : number of axes of the image
    """
    default = N4Options()
    inputs: dict[str, Any] = {}
    args: list[str] = []
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if value != getattr(default, field.name):
            inputs[field.name] = value
    if "convergence_threshold" in inputs:
        inputs["n_iterations"] = options.n_iterations
    distance, threshold = options.bspline_fitting_distance, options.convergence_threshold
    if distance is not None and distance != six_digits(distance):
        del inputs["bspline_fitting_distance"]
        args.append(f"-b [{distance!r},{inputs.pop('bspline_order', default.bspline_order)}]")
    if threshold != six_digits(threshold):
        del inputs["convergence_threshold"]
        iterations = "x".join(map(str, inputs.pop("n_iterations")))
        args.append(f"-c [{iterations},{threshold!r}]")
    if any(number != six_digits(number) for number in options.histogram_sharpening[:2]):
        fwhm, noise, n_bins = inputs.pop("histogram_sharpening")
        args.append(f"-t [{fwhm!r},{noise!r},{n_bins}]")
    if "bspline_order" in inputs and distance is None:
        order = inputs.pop("bspline_order")
        points = inputs.pop("n_control_points", (max(4, order + 1),))
        points = points * (n_axes if len(points) == 1 else 1)
        args.append(f"-b [{'x'.join(str(n - order) for n in points)},{order}]")
    if args:
        inputs["args"] = " ".join(args)
    for name in ("n_iterations", "n_control_points", "shrink_start"):
        if name in inputs:
            inputs[name] = list(inputs[name])
    return inputs
