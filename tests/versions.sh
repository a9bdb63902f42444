#!/usr/bin/env bash
# Try each Python with the oldest JAX that pyproject.toml allows and with the newest there is:
#
#   tests/versions.sh [PYTHON ...]      # default: python3.11 python3.12 python3.13
#
# Each pair gets an environment of its own in a temporary folder, by uv where that is installed,
# else by venv and pip. It has the plain installation and pytest. A table in Markdown is printed at
# the end; the exit status is 1 where a pair fails. TESTS='...' runs other tests.
set -uo pipefail
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
read -ra tests <<< "${TESTS:-tests/core tests/test_package.py}"
oldest=$(sed -n 's/^ *"jax>=\([0-9.]*\)".*/\1/p' "$repository/pyproject.toml")
case $oldest in *.*.*) ;; *) oldest=$oldest.0 ;; esac

# install PYTHON FOLDER REQUIREMENT...
install() {
    local python=$1 folder=$2
    shift 2
    if command -v uv > /dev/null; then
        uv venv --quiet --python "$python" "$folder" && uv pip install --quiet --python "$folder/bin/python" "$@"
    else
        "$python" -m venv "$folder" && "$folder/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
    fi
}

# The versions of jax and numpy that are installed, as cells of the table.
versions() {
    "$1/bin/python" -c 'import platform; from importlib.metadata import version
print(platform.python_version(), version("jax"), version("numpy"), version("scipy"), sep=" | ")'
}

failed=0
table=()
for python in "${@:-python3.11 python3.12 python3.13}"; do
    for each in $python; do
        for jax in "jax==$oldest" jax; do
            folder=$work/$(basename "$each")-$jax
            if ! install "$each" "$folder" --editable "$repository" "$jax" pytest > "$folder.log" 2>&1; then
                tail -n 5 "$folder.log" >&2
                table+=("| $each | $jax | – | – | not installed |")
                failed=1
                continue
            fi
            (cd "$repository" && "$folder/bin/python" -m pytest -q -x -m "not slow and not large and not gpu" -p no:cacheprovider "${tests[@]}") \
                > "$folder.log" 2>&1 || { failed=1; grep -E "^(FAILED|ERROR|E  )" "$folder.log" | head -n 20 >&2; }
            table+=("| $(versions "$folder") | $(tail -n 1 "$folder.log") |")
            echo "${table[-1]}" >&2
            rm -rf "$folder"
        done
    done
done
printf '%s\n' "| Python | jax | numpy | scipy | tests |" "| --- | --- | --- | --- | --- |" "${table[@]}"
exit $failed
