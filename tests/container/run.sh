#!/usr/bin/env bash
# Build the images and use them, for real: Docker Engine and Apptainer from Debian's packages.
#
#   make test-container
#   CUDA=1 make test-container   # builds and starts the image with CUDA as well: 20 GB of disk
#
# Needs a Debian machine, root, Debian's and Python's package registries, 6 GB below WORK (default:
# a new folder in /var/tmp) and no image registry. Nothing is installed: packages are unpacked below
# WORK, and namespaces of our own hold all mounts and processes, which therefore go when we go.
#
# The base image is made here by debootstrap in place of the official one, and it carries THIS
# MACHINE'S CERTIFICATES AND APT SETTINGS, so that builds work behind its mirrors. Nothing that is
# built here may be published; all of it is removed at the end.
set -Eeuo pipefail

if [ -z "${N4AX_OWN_NAMESPACES:-}" ]; then
    [ "$(id -u)" = 0 ] || { echo "test-container: needs root, to start a Docker Engine" >&2; exit 2; }
    export N4AX_OWN_NAMESPACES=1
    exec unshare --mount --propagation private --pid --fork --kill-child --mount-proc "$0" "$@"
fi

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
here=$repository/tests/container
python=${PYTHON:-$repository/.venv/bin/python}
port=${PORT:-5017}
made=no
if [ -z "${WORK:-}" ]; then WORK=$(mktemp -d /var/tmp/n4ax-container.XXXX); made=yes; fi
mkdir -p "$WORK"
chmod 755 "$WORK"  # also for the users that the images run as
work=$(cd "$WORK" && pwd)
tools=$work/tools
started=()

say() { printf '%6.1f s  %s\n' "$(bc_seconds "$began")" "$*"; }
bc_seconds() { awk -v now="$(date +%s.%N)" -v then="$1" 'BEGIN {print now - then}'; }
began=$(date +%s.%N)
failed() { say "FAILED: $*"; exit 1; }

clean_up() {
    status=$?
    set +e
    for pid in "${started[@]}"; do kill "$pid" && wait "$pid"; done 2> /dev/null
    find /sys/fs/cgroup -depth -type d -path "*/n4ax-container*" -exec rmdir {} + 2> /dev/null
    # Were something still mounted there, removing would reach into it.
    if grep -q " $work" /proc/self/mounts; then
        awk -v work="$work" 'index($2, work) == 1 {print $2}' /proc/self/mounts | sort -r | xargs -r umount -l
    fi
    if [ $made = yes ]; then rm -rf "$work"; else say "kept: $work"; fi
    if [ $status = 0 ]; then say "all passed"; else say "stopped with status $status"; fi
    exit $status
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# shellcheck source=tests/container/setup.sh
source "$here/setup.sh"
# shellcheck source=tests/container/checks.sh
source "$here/checks.sh"

find_data
step make_tools
step make_base
step start_engine
step import_base
step lint
step build_docker
step install_plainly
step run_docker
step run_plainly
step run_development
step compare_installs
step odd_places
step devices
step ants_program
step plain_files
step stacks
step warm_start
if [ -n "${CUDA:-}" ]; then step cuda_image; fi
step make_apptainer
step build_apptainer
step run_apptainer
step slurm_array
