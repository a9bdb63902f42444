#!/usr/bin/env bash
# SLURM on this machine alone, for a test.
#   slurm.sh install      Debian's packages, as root
#   slurm.sh start DIR    starts it; all its files are in DIR; export SLURM_CONF=DIR/slurm.conf
#   slurm.sh stop DIR     ends it
set -euo pipefail
export PATH="$PATH:/usr/sbin:/sbin"

start() {
    local dir=$1 port=$((20000 + $$ % 20000))
    for program in munged slurmctld slurmd sbatch; do
        command -v "$program" > /dev/null || { echo "no $program; see slurm.sh install" >&2; exit 1; }
    done
    mkdir -p "$dir/state" "$dir/spool" "$dir/munge"
    chmod 700 "$dir/munge"
    head -c 1024 /dev/urandom > "$dir/munge/munge.key"
    chmod 400 "$dir/munge/munge.key"
    cat > "$dir/slurm.conf" <<END
ClusterName=n4ax
SlurmctldHost=localhost(127.0.0.1)
AuthType=auth/munge
AuthInfo=socket=$dir/munge/munge.socket
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
NodeName=localhost NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=1000 State=UNKNOWN
PartitionName=main Nodes=localhost Default=YES MaxTime=INFINITE State=UP
END
    export SLURM_CONF=$dir/slurm.conf
    # The daemons go on; they must not hold the pipes of whoever started them.
    munged --force --key-file="$dir/munge/munge.key" --socket="$dir/munge/munge.socket" \
        --pid-file="$dir/munge/munged.pid" --log-file="$dir/munge/munged.log" \
        --seed-file="$dir/munge/munged.seed" > /dev/null 2>&1
    slurmctld > /dev/null 2>&1
    slurmd -N localhost > /dev/null 2>&1
    for _ in $(seq 150); do
        if sinfo -h -o %T 2> /dev/null | grep -q idle; then exit 0; fi
        sleep 0.1
    done
    tail -n 5 "$dir"/*.log >&2
    stop "$dir"
    exit 1
}

stop() {
    local dir=$1
    for pid in "$dir/slurmd.pid" "$dir/slurmctld.pid" "$dir/munge/munged.pid"; do
        if [ -s "$pid" ]; then kill "$(cat "$pid")" 2> /dev/null || true; fi
    done
}

case "${1:-}" in
    install) apt-get update -q && apt-get install -qy --no-install-recommends slurm-wlm munge ;;
    start) start "$(realpath -m "$2")" ;;
    stop) stop "$(realpath -m "$2")" ;;
    *) sed -n '2,5p' "$0" >&2; exit 2 ;;
esac
