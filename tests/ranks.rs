//! Ranks under a real `mpirun`: they find each other, and a job never hangs on one that is gone.

mod support;

use std::time::{Duration, Instant};
use support::{processes_below, ranks, run, stratigraph};

#[test]
fn any_number_of_ranks_find_each_other() {
    for n in [1, 2, 3, 7] {
        let (code, out, err) = run(ranks(n, 1).arg("ranks"));
        assert_eq!(code, 0, "{out}{err}");
        assert!(out.contains(&format!("ok: {n} rank(s) find each other")), "{out}");
    }
}

#[test]
fn the_counter_works_without_one_sided_communication() {
    for kind in ["window", "requests", "dealt"] {
        let (code, out, err) = run(ranks(3, 1).arg("ranks").env("STRATIGRAPH_COUNTER", kind));
        assert_eq!(code, 0, "{kind}: {out}{err}");
    }
}

#[test]
fn a_panic_on_any_rank_ends_the_job_at_once() {
    let begun = Instant::now();
    let (code, ..) = run(ranks(3, 1).arg("ranks"));
    assert_eq!(code, 0);
    let undisturbed = begun.elapsed();
    for rank in ["0", "2"] {
        let begun = Instant::now();
        let (code, out, err) = run(ranks(3, 1).args(["ranks", "--panic", rank]));
        let took = begun.elapsed();
        assert_eq!(code, 70, "{out}{err}");
        assert!(err.contains(&format!("rank {rank}")) && err.contains("asked to panic"), "{err}");
        // What starting and ending a job takes is mpirun's.
        assert!(took < undisturbed + Duration::from_secs(2), "{took:?} after {undisturbed:?}");
    }
    let (code, _, err) = run(stratigraph(1).args(["ranks", "--panic", "0"]));
    assert!(code == 70 && err.contains("asked to panic"), "{code} {err}");
}

#[test]
fn a_rank_without_progress_is_told_and_ends_the_job() {
    let begun = Instant::now();
    let (code, out, err) = run(ranks(3, 1).args(["ranks", "--stall", "1", "--stall-seconds", "1"]));
    assert_eq!(code, 6, "{out}{err}");
    assert!(err.contains("rank 1") && err.contains("progress"), "{err}");
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[test]
fn waiting_for_a_rank_that_works_is_no_stall() {
    for rank in ["0", "1"] {
        let (code, out, err) = run(ranks(3, 1).args(["ranks", "--work", rank, "--stall-seconds", "1"]));
        assert_eq!(code, 0, "{rank}: {out}{err}");
    }
}

#[test]
fn a_suspended_job_has_not_stalled() {
    let mut child = ranks(2, 1)
        .args(["ranks", "--work", "0", "--stall-seconds", "1"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_secs(2));
    let pids: Vec<_> = processes_below(child.id()).iter().map(ToString::to_string).collect();
    assert!(pids.len() >= 2 && child.try_wait().unwrap().is_none(), "it must be met at work: {pids:?}");
    for (signal, pause) in [("-STOP", 4), ("-CONT", 0)] {
        assert!(std::process::Command::new("kill").arg(signal).args(&pids).status().unwrap().success());
        std::thread::sleep(Duration::from_secs(pause));
    }
    let ended = child.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
}

#[test]
fn a_size_that_slurm_does_not_know_is_refused() {
    let slurm = [("SLURM_JOB_ID", "7"), ("SLURM_NTASKS", "4"), ("SLURM_PROCID", "0")];
    let (code, out, err) = run(stratigraph(1).arg("ranks").envs(slurm));
    assert_eq!(code, 6, "{out}{err}");
    assert!(err.contains("srun --mpi=") && err.contains('4'), "{err}");
    let (code, out, err) = run(ranks(2, 1).arg("ranks").envs(slurm));
    assert_eq!(code, 6, "{out}{err}");
    assert_eq!(err.matches("stratigraph: MPI sees").count(), 1, "told once: {err}");
}
