#!/bin/sh
# Write container/constraints.txt: the newest versions that fit together, for the Python of the
# base image on x86_64. `make constraints` runs it. Any Python 3.8 or newer that has venv will do,
# because uv, which it fetches, can resolve versions for another Python than its own.
#
# One file serves both images: it is resolved with the extra cuda12, which asks for all that the
# extra cpu asks for. No address is written, so that any index can provide the packages.
set -eu
here=$(dirname "$0")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip --quiet --disable-pip-version-check install uv
{
    echo "# Made by container/constrain.sh for Python 3.13 on x86_64."
    "$work/venv/bin/uv" pip compile --no-config --quiet --native-tls \
        --python-version 3.13 --python-platform x86_64-manylinux_2_28 \
        --extra cuda12 --extra app --extra stack --extra validate --no-header --no-annotate --no-emit-index-url \
        "$here/../pyproject.toml"
} > "$work/constraints.txt"
cp "$work/constraints.txt" "$here/constraints.txt"
