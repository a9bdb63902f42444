"""The packages of the extra `app`, which the BIDS-App needs besides a plain installation."""

from __future__ import annotations

from importlib.util import find_spec

from n4ax_bids.app.status import Refusal, Status

PACKAGES = {
    "bids": "pybids",
    "bidsschematools": "bidsschematools",
    "jinja2": "jinja2",
    "markupsafe": "markupsafe",
    "matplotlib": "matplotlib",
    "PIL": "pillow",
    "tomli_w": "tomli-w",
    "tqdm": "tqdm",
    "yaml": "pyyaml",
}
"""modules and the packages that contain them, as in the extra `app` of pyproject.toml"""
REMEDY = "pip install 'n4ax_bids[app]'"


def require(program: str = "n4ax-bids") -> None:
    """Refuse to run if the extra is not installed; this check imports nothing.

    Raises
    ------
    Refusal
        If any package of the extra is missing.
    """
    missing = [package for module, package in PACKAGES.items() if find_spec(module) is None]
    if missing:
        raise Refusal(
            Status.USAGE,
            f"{program} needs {', '.join(missing)}, which a plain installation does not have; "
            f"type: {REMEDY}",
        )
