"""What the BIDS-App needs beyond a plain installation: the packages of the extra `app`."""

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
"""modules and the packages that they come from; pyproject.toml has the same under `app`"""
REMEDY = "pip install 'n4ax_bids[app]'"


def require() -> None:
    """Ask for the extra where it is not installed.

    Raises
    ------
    Refusal
        If any of its packages is missing; nothing is imported to find out.
    """
    missing = [package for module, package in PACKAGES.items() if find_spec(module) is None]
    if missing:
        raise Refusal(
            Status.USAGE,
            f"n4ax-bids needs {', '.join(missing)}, which a plain installation does not have; "
            f"type: {REMEDY}",
        )
