"""Where arrays lie, and where arrays of the host are copied to."""

from __future__ import annotations

from typing import Any

import jax


def is_on_gpu(array: Any) -> bool:
    """Return whether an array lies on a device other than the CPU."""
    return isinstance(array, jax.Array) and next(iter(array.devices())).platform != "cpu"


def default_device() -> jax.Device:
    """Return the device that arrays of the host are copied to."""
    config: Any = jax.config  # its settings are not annotated
    chosen: jax.Device = config.jax_default_device or jax.local_devices()[0]
    return chosen
