# shellcheck shell=bash
# What all batch scripts share: the environment of the ranks, the way signals reach them, and what
# their exit code means for the job. To be sourced by an sbatch script, which then calls
#
#   run_ranks COMMAND...     starts COMMAND on all tasks of the job and returns its exit code
#   finish_job CODE          ends the batch script: done, failed, or back into the queue
#
# Settings, all from the environment (`sbatch --export=ALL,NAME=VALUE`):
#
#   STRATIGRAPH_HOME          the repository            [the directory sbatch was called in]
#   STRATIGRAPH               the program              [$STRATIGRAPH_HOME/target/release/stratigraph]
#   STRATIGRAPH_MODULES       modules to load, as in "openmpi hdf5"                          [none]
#   STRATIGRAPH_MPI           plug-in for srun --mpi (`srun --mpi=list` shows them)          [pmix]
#   STRATIGRAPH_STEP_RETRIES  how often ranks that were killed are started again in this job     [2]
#   STRATIGRAPH_MAX_RESTARTS  a job that was requeued this often is not requeued again         [50]

set -uo pipefail
# Every background command gets a process group of its own. Slurm sends a job's signals to the
# group of the batch script; an srun in the same group would take SIGTERM as the order to kill its
# tasks at once, instead of letting them end their tile.
set -m

log() { echo "$(date '+%F %T') job ${SLURM_JOB_ID:-?} run ${SLURM_RESTART_COUNT:-0}: $*"; }

: "${STRATIGRAPH_HOME:=${SLURM_SUBMIT_DIR:-$PWD}}"
: "${STRATIGRAPH:=$STRATIGRAPH_HOME/target/release/stratigraph}"

if [ -n "${STRATIGRAPH_MODULES:-}" ]; then
    if ! command -v module >/dev/null 2>&1; then
        log "STRATIGRAPH_MODULES is set, but there is no command 'module' here" >&2
        exit 1
    fi
    # Lmod and Tcl modules read variables that need not be set, and some return 0 whatever happens.
    set +u
    # shellcheck disable=SC2086  # a list of names
    if ! module load $STRATIGRAPH_MODULES; then
        log "'module load $STRATIGRAPH_MODULES' failed (STRATIGRAPH_MODULES)" >&2
        exit 1
    fi
    set -u
fi

if ! command -v "$STRATIGRAPH" >/dev/null 2>&1; then
    log "there is no program at $STRATIGRAPH: run 'make build' in $STRATIGRAPH_HOME, or set STRATIGRAPH" >&2
    exit 1
fi

# Slurm 22.05 and later do not hand --cpus-per-task on to srun by themselves.
if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then
    export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
    : "${STRATIGRAPH_THREADS:=$SLURM_CPUS_PER_TASK}"
    export STRATIGRAPH_THREADS
fi

# OpenMPI's waiting ranks spin; where ranks share cores they must yield, or every collective
# operation takes a time slice of the scheduler.
most_tasks=$(tr ',' '\n' <<<"${SLURM_TASKS_PER_NODE:-1}" | sed 's/(.*//' | sort -n | tail -n 1)
if [ "${most_tasks:-1}" -gt "${SLURM_CPUS_ON_NODE:-$(nproc)}" ]; then
    export OMPI_MCA_mpi_yield_when_idle=1
fi

warned=0     # USR1: the time is nearly over
terminated=0 # TERM: Slurm ends the job (scancel, requeue, preemption, time limit)
step=

# srun hands USR1 on to all tasks; its own answer to TERM would be to kill them.
forward() { [ -z "$step" ] || kill -USR1 "$step" 2>/dev/null; }
trap 'warned=1; log "USR1: the ranks are asked to stop"; forward' USR1
trap 'terminated=1; log "TERM: the ranks are asked to stop"; forward' TERM

# A code above 128 is a signal that nobody sent on purpose: a rank that crashed or that was killed
# for its memory. All that was finished is kept, so the ranks are started again in the job that is
# there; the queue may be long. (OpenMPI 4.1 itself crashes in about one of fifty starts over TCP,
# where a rank connects to another that is not ready yet.)
run_ranks() {
    log "$(printf '%q ' "$@") on ${SLURM_NTASKS:-1} task(s), node(s) ${SLURM_JOB_NODELIST:-here}"
    local code retry=0 retries=${STRATIGRAPH_STEP_RETRIES:-2}
    while start_step "$@"; code=$?; [ "$code" -gt 128 ] && [ "$warned$terminated" = 00 ]; do
        if [ "$retry" -ge "$retries" ]; then break; fi
        retry=$((retry + 1))
        log "a rank was killed by signal $((code - 128)); the ranks are started again ($retry of $retries)"
    done
    return "$code"
}

start_step() {
    [ "$warned$terminated" = 00 ] || return 75
    srun --mpi="${STRATIGRAPH_MPI:-pmix}" --kill-on-bad-exit=1 "$@" &
    step=$!
    # A signal that came while srun was being started had nobody to go to.
    [ "$warned$terminated" = 00 ] || forward
    local code
    # A trapped signal ends `wait` early, with a code above 128, while srun goes on.
    while wait "$step"; code=$?; [ "$code" -gt 128 ] && kill -0 "$step" 2>/dev/null; do :; done
    step=
    return "$code"
}

finish_job() {
    local code=$1
    # A rank that exits with 75 a moment before the others has them killed by
    # --kill-on-bad-exit; after a signal that, too, is a stop with all finished tiles kept.
    if [ "$warned$terminated" != 00 ] && [ "$code" -gt 128 ]; then code=75; fi
    if [ "$code" != 75 ]; then
        log "ended with exit code $code"
        exit "$code"
    fi
    sleep 1 # the ranks may have heard of the job's end before this script
    if [ "$terminated" = 1 ]; then
        # Whoever ended the job also said what becomes of it: scontrol requeue puts it back
        # itself, and what was cancelled stays cancelled.
        log "stopped; all that was finished is kept"
        exit 75
    fi
    if [ "${SLURM_RESTART_COUNT:-0}" -ge "${STRATIGRAPH_MAX_RESTARTS:-50}" ]; then
        log "stopped, and not requeued: ${SLURM_RESTART_COUNT:-0} restarts are enough (STRATIGRAPH_MAX_RESTARTS)" >&2
        exit 75
    fi
    log "stopped; all that was finished is kept; back into the queue"
    # Of a job array this task alone: the id of one task is that of the whole array, too.
    local id=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID:-0}}
    scontrol requeue "${id:-$SLURM_JOB_ID}" || exit 75
    # Slurm now ends what is left of this run, this script among it. Waiting for that keeps an
    # early exit from being taken for the end of the job.
    sleep 60 &
    local rest=$!
    trap 'kill "$rest" 2>/dev/null; exit 75' TERM
    wait "$rest"
    exit 75
}
