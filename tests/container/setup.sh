# Functions of run.sh: the tools, the base image and the Docker Engine, all below $work and none of
# it installed. `say`, `$work` and `$here` are run.sh's.
# shellcheck shell=bash disable=SC2154,SC2016,SC2097,SC2098

# The first Debian mirror that this machine itself is set to.
mirror() {
    local found
    found=$(sed -n 's/^URIs: *//p' /etc/apt/sources.list.d/*.sources 2> /dev/null | grep /debian | head -1)
    [ -n "$found" ] || found=$(sed -nE 's/^deb (\[[^]]*\] )?(\S+) .*/\2/p' /etc/apt/sources.list | head -1)
    echo "${found%% *}"
}

# Unpack Debian packages, with what they need and this machine lacks: unpack FOLDER PACKAGE...
unpack() {
    local into=$1 debs
    shift
    debs=$(mktemp -d "$work/debs.XXXX")
    apt-get install --simulate --no-install-recommends "$@" | awk '/^Inst/ {print $2}' | sort -u > "$debs/names"
    printf '%s\n' "$@" >> "$debs/names"
    (cd "$debs" && sort -u names | xargs apt-get -qq -o APT::Sandbox::User=root download)
    for deb in "$debs"/*.deb; do dpkg -x "$deb" "$into"; done
    rm -r "$debs"
}

# Use the tools of a folder before the machine's.
use_tools() {
    export PATH=$1/usr/sbin:$1/usr/bin:$PATH
    LD_LIBRARY_PATH=$1/usr/lib/$(uname -m)-linux-gnu
    export LD_LIBRARY_PATH
}

# Make a Debian root with this machine's mirror, apt settings and certificates: root FOLDER SUITE
make_root() {
    local root=$1 suite=$2
    DEBOOTSTRAP_DIR=$tools/usr/share/debootstrap debootstrap --variant=minbase \
        --include=ca-certificates "$suite" "$root" "$(mirror)" > "$work/debootstrap.log" 2>&1 \
        || { tail -5 "$work/debootstrap.log" >&2; return 1; }
    apt-config dump | grep -E '^Acquire::(Check-|https?::|AllowInsecure)' > "$root/etc/apt/apt.conf.d/10machine" || true
    cp /usr/local/share/ca-certificates/*.crt "$root/usr/local/share/ca-certificates/" 2> /dev/null || true
    inside "$root" sh -c 'update-ca-certificates > /dev/null 2>&1; apt-get clean'
}

# Run a command in a root that has /proc, /dev and this machine's names of hosts.
inside() {
    local root=$1
    shift
    cp /etc/resolv.conf /etc/hosts "$root/etc/"
    mount --rbind /dev "$root/dev"
    mount -t proc proc "$root/proc"
    local status=0
    env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
        DEBIAN_FRONTEND=noninteractive chroot "$root" "$@" || status=$?
    umount -l "$root/dev" "$root/proc"
    return $status
}

# Start a Docker Engine on a private socket, without touching the machine's network.
start_engine() {
    export DOCKER_HOST=unix://$work/docker.sock DOCKER_CONFIG=$work/docker-config DOCKER_BUILDKIT=1
    local plugins=$tools/usr/libexec/docker/cli-plugins
    mkdir -p "$DOCKER_CONFIG"
    if [ -d "$plugins" ]; then ln -sfn "$plugins" "$DOCKER_CONFIG/cli-plugins"; fi
    dockerd --iptables=false --ip6tables=false --bridge=none --storage-driver=overlay2 --cgroup-parent n4ax-container \
        --host "$DOCKER_HOST" --data-root "$work/docker" --exec-root "$work/docker-run" \
        --pidfile "$work/docker.pid" > "$work/dockerd.log" 2>&1 &
    started+=($!)
    for _ in $(seq 60); do
        if docker version > /dev/null 2>&1; then return; fi
        sleep 0.5
    done
    tail -20 "$work/dockerd.log" >&2
    say "the Docker Engine did not start"
    return 1
}

# Start a registry on the loopback address that holds the base image, for Apptainer to pull.
start_registry() {
    cat > "$work/registry.yml" <<END
version: 0.1
storage: {filesystem: {rootdirectory: $work/registry}}
http: {addr: "127.0.0.1:$port"}
END
    docker-registry serve "$work/registry.yml" > "$work/registry.log" 2>&1 &
    started+=($!)
    sleep 1
    docker tag debian:trixie-slim "localhost:$port/library/debian:trixie-slim"
    docker push --quiet "localhost:$port/library/debian:trixie-slim" > /dev/null
}

# Make a root with Apptainer, which only Debian's suite sid has: apptainer_root FOLDER
make_apptainer_root() {
    local root=$1
    cp -a "$work/trixie" "$root"
    printf 'deb %s sid main\n' "$(mirror)" > "$root/etc/apt/sources.list.d/sid.list"
    printf 'Package: %s\nPin: release n=sid\nPin-Priority: %s\n\n' '*' 50 apptainer 990 \
        > "$root/etc/apt/preferences.d/sid"
    inside "$root" sh -ec 'apt-get -qq update
        apt-get -qq install -y --no-install-recommends apptainer > /dev/null 2>&1
        useradd --create-home --uid 1000 bids
        apt-get clean'
    printf 'root:100000:65536\n' | tee -a "$root/etc/subuid" >> "$root/etc/subgid"
    mkdir -p "$root/etc/containers"
    cat > "$root/etc/containers/registries.conf" <<END
[[registry]]
location = "docker.io"
[[registry.mirror]]
location = "localhost:$port"
insecure = true
END
}

# Run a command in that root, where $work is /w; Apptainer asks for a root that is a mount point.
in_apptainer_root() {
    root=$work/apptainer work=$work unshare --mount bash -ec 'mount --make-rprivate /
        cp /etc/hosts /etc/resolv.conf "$root/etc/"
        mount --bind "$root" "$root"
        cd "$root"
        mkdir -p w old
        mount --bind /proc proc
        mount --rbind /sys sys
        mount --rbind /dev dev
        mount -t tmpfs tmpfs tmp
        mount --bind "$work" w
        pivot_root . old
        umount -l /old
        cd /w
        exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 "$@"' - "$@"
}
