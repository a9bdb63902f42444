#!/bin/sh
# Make the Python environment of the images in /opt/n4ax_bids; Dockerfile and Singularity.def both
# run this, so they cannot drift apart. Needs python3 and python3-venv of the base, and network.
#
#   container/python.sh dependencies EXTRA   what pyproject.toml asks for with an extra, as pinned
#   container/python.sh package ROOT         n4ax_bids itself, below ROOT instead of /
set -eu
umask 022
home=/opt/n4ax_bids
here=$(dirname "$0")
pip="/tmp/pip/bin/pip --python $home/bin/python --disable-pip-version-check --no-cache-dir --no-input --quiet"

dependencies() {
    python3 -m venv --without-pip "$home"
    python3 -m venv /tmp/pip
    python3 "$here/asked.py" "$here/../pyproject.toml" "$1" app stack validate > /tmp/asked.txt
    $pip install --prefer-binary --requirement /tmp/asked.txt --constraint "$here/constraints.txt"
    # Tests of other packages: 130 MB.
    find "$home/lib" -type d -name tests -prune -exec rm -rf {} +
    # ANTs' program under its own name, in a folder that is not on PATH.
    mkdir "$home/ants"
    ln -s ../bin/n4ax-n4 "$home/ants/N4BiasFieldCorrection"
}

package() {
    $pip install --no-deps --no-compile --root "$1" "$here/.."
    "$home/bin/python" -m compileall -q -s "$1" "$1"
}

"$@"
