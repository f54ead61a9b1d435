#!/usr/bin/env bash
# A private Slurm cluster on this machine, for tests: its own munge, one controller, N node daemons.
#
#   cluster.sh up DIR [NODES] [CPUS]     starts it (3 nodes with 2 CPUs) and waits until it is ready
#   cluster.sh down DIR                  ends exactly what `up DIR` started
#
# Everything is in DIR (configuration, keys, state, logs); clients need SLURM_CONF=DIR/slurm.conf.
# Neither systemd nor the system's own munge or Slurm is touched.
set -euo pipefail

PATH=$PATH:/usr/sbin:/sbin
usage() { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
[ $# -ge 2 ] || usage
dir=$(realpath -m "$2")
export SLURM_CONF=$dir/slurm.conf

# poll SECONDS COMMAND...: until the command succeeds
poll() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        if [ $SECONDS -ge $end ]; then
            echo "cluster: gave up waiting for: $*" >&2
            tail -n 5 "$dir"/log/*.log >&2
            return 1
        fi
        sleep 0.1
    done
}

# The first port of a run of $1 that nobody listens on; the start differs from process to process,
# so that clusters of tests that run side by side do not meet.
free_ports() {
    local base i taken
    taken=" $(awk 'FNR > 1 { split($2, a, ":"); print a[2] }' /proc/net/tcp /proc/net/tcp6 2>/dev/null | tr '\n' ' ')"
    for base in $(seq $((20000 + $$ % 1000 * 10)) 10 32000); do
        for i in $(seq "$base" $((base + $1 - 1))); do
            [[ $taken != *" $(printf %04X "$i") "* ]] || continue 2
        done
        echo "$base"
        return
    done
    echo "cluster: no free ports" >&2
    return 1
}

configure() { # NODES CPUS
    local host port
    host=$(hostname -s)
    port=$(free_ports $(($1 + 1)))
    if ! getent hosts "$host" >/dev/null; then
        echo "cluster: the name of this machine, $host, does not resolve; adding it to /etc/hosts" >&2
        echo "127.0.0.1 $host" >>/etc/hosts
    fi
    cat >"$SLURM_CONF" <<CONF
ClusterName=stratigraph-test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
CredType=cred/munge
# A requeued job starts again only after old credentials have expired: by default two minutes.
AuthInfo=socket=$dir/munge.socket,cred_expire=5
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool/%n
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd-%n.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/slurmd-%n.log
# PMIx keeps its rendezvous files in TmpFS: the nodes share a host, so each needs its own.
TmpFS=$dir/tmp/%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,bf_interval=1,sched_interval=1,sched_min_interval=100000
MailProg=/bin/true
AccountingStorageType=accounting_storage/none
JobRequeue=1
KillWait=5
ReturnToService=2
SlurmdTimeout=30
SlurmdParameters=config_overrides
NodeName=n[1-$1] NodeHostname=$host NodeAddr=127.0.0.1 Port=[$((port + 1))-$((port + $1))] CPUs=$2 RealMemory=2000
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
}

up() { # NODES CPUS
    mkdir -p "$dir"/{state,spool,log}
    configure "$1" "$2"
    (umask 077 && head -c 256 /dev/urandom >"$dir/munge.key")
    munged --force --num-threads=2 --key-file="$dir/munge.key" --seed-file="$dir/munge.seed" \
        --socket="$dir/munge.socket" --pid-file="$dir/munged.pid" --log-file="$dir/log/munged.log"
    poll 10 munge -n -S "$dir/munge.socket"
    slurmctld -c
    local i
    for i in $(seq "$1"); do
        mkdir -p "$dir/spool/n$i" "$dir/tmp/n$i"
        slurmd -N "n$i"
    done
    poll 20 scontrol ping
    poll 20 eval "[ \$(sinfo -h -N -t idle -o %N | wc -l) = $1 ]"
}

# Ends the daemon of a pid file, if that process still is the daemon.
end() { # PIDFILE NAME
    local pid
    pid=$(cat "$1" 2>/dev/null) || return 0
    is_running() { [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$2" ]; }
    is_running "$@" || return 0
    kill "$pid" 2>/dev/null || return 0
    local i
    for i in $(seq 80); do
        is_running "$@" || return 0
        sleep 0.1
    done
    kill -9 "$pid" 2>/dev/null || true
}

down() {
    local file
    # Jobs first: a node daemon leaves its steps running when it ends.
    timeout 5 scancel --full --user="$(id -un)" >/dev/null 2>&1 || true
    for _ in $(seq 100); do
        [ -n "$(timeout 5 squeue -h -t running,completing 2>/dev/null)" ] || break
        sleep 0.1
    done
    for file in "$dir"/slurmd-*.pid; do end "$file" slurmd; done
    end "$dir/slurmctld.pid" slurmctld
    end "$dir/munged.pid" munged
}

case $1 in
    up) up "${3:-3}" "${4:-2}" ;;
    down) down ;;
    *) usage ;;
esac
