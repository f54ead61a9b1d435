//! The batch scripts under a real Slurm: a private cluster of three nodes on this machine.
//!
//! A job that is stopped goes on where it was and ends with the results of an undisturbed run in
//! one process; what is cancelled stays cancelled. Every wait has a limit, and the daemons end with
//! the test, however it ends.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::cluster::{Cluster, text_of, wait_until};
use support::{finished_bytes, finished_bytes_of, results_in, run, stratigraph, succeed, tiles};

const PROGRAM: &str = env!("CARGO_BIN_EXE_stratigraph");
const SCRIPT: &str = "jaccard.sbatch";

#[test]
fn a_warned_job_goes_back_into_the_queue() {
    let Some(cluster) = Cluster::start() else { return };
    let program = cluster.stub(
        "trap 'exit 75' USR1\n\
         if [ \"$SLURM_RESTART_COUNT\" = 1 ]; then echo finished > \"$4.$SLURM_PROCID\"; exit 0; fi\n\
         touch \"$4.begun.$SLURM_PROCID\"\n\
         for i in $(seq 600); do sleep 0.1; done",
    );
    let out = cluster.path("out");
    let job = cluster.submit(SCRIPT, &program, &["-N", "3", "-n", "3"], &[Path::new("corpus.h5"), &out], &[]);
    wait_until("all tasks run", || (0..3).all(|i| cluster.path(&format!("out.begun.{i}")).exists()));
    // What Slurm sends by itself when the time limit comes near (`--signal=B:USR1@180`).
    cluster.run("scancel", &["--batch", "--signal=USR1", &job]);
    assert_eq!(cluster.end_of(&job), ("COMPLETED".into(), "0:0".into()), "{}", cluster.log());
    for rank in 0..3 {
        let text =
            fs::read_to_string(cluster.path(&format!("out.{rank}"))).expect("written by the second run");
        assert_eq!(text, "finished\n");
    }
    // The log of the first run is still there.
    assert!(cluster.log().contains("run 0: stopped"), "{}", cluster.log());
    assert!(cluster.log().contains("run 1: ended with exit code 0"), "{}", cluster.log());
}

#[test]
fn a_cancelled_job_stays_cancelled_and_a_failed_one_failed() {
    let Some(cluster) = Cluster::start() else { return };
    let stopping = cluster.stub(
        "trap 'exit 75' USR1 TERM\n\
         touch \"$4.begun\"\n\
         for i in $(seq 600); do sleep 0.1; done",
    );
    let out = cluster.path("out");
    let job = cluster.submit(SCRIPT, &stopping, &["-n", "1"], &[Path::new("corpus.h5"), &out], &[]);
    wait_until("the task runs", || cluster.path("out.begun").exists());
    cluster.run("scancel", &[&job]);
    assert_eq!(cluster.end_of(&job).0, "CANCELLED", "{}", cluster.log());
    assert!(!cluster.log().contains("back into the queue"), "{}", cluster.log());

    let failing = cluster.stub("exit 4");
    let job = cluster.submit(SCRIPT, &failing, &["-n", "2"], &[Path::new("corpus.h5"), &out], &[]);
    assert_eq!(cluster.end_of(&job), ("FAILED".into(), "4:0".into()), "{}", cluster.log());
}

#[test]
fn a_job_without_its_arguments_says_how_to_call_it() {
    let Some(cluster) = Cluster::start() else { return };
    let job = cluster.submit(SCRIPT, Path::new(PROGRAM), &["-n", "1"], &[], &[]);
    assert_eq!(cluster.end_of(&job), ("FAILED".into(), "2:0".into()));
    assert!(cluster.log().contains("usage: sbatch slurm/jaccard.sbatch"), "{}", cluster.log());
}

#[test]
fn a_requeued_run_ends_with_the_results_of_one_process() {
    let Some(cluster) = Cluster::start() else { return };
    let run = Run::submit(&cluster);
    cluster.wait_in(&run.job, "a tile is finished", || finished_bytes(&run.output) > 0);
    cluster.run("scontrol", &["requeue", &run.job]);
    run.ends_like_one_process();
    assert!(cluster.log().contains("run 1: ended with exit code 0"), "{}", cluster.log());
    let [all, found, computed] = tiles(&cluster.log());
    assert!(found > 0 && computed > 0 && found + computed == all, "{}", cluster.log());
}

#[test]
fn a_killed_rank_costs_no_place_in_the_queue() {
    let Some(cluster) = Cluster::start() else { return };
    let run = Run::submit(&cluster);
    cluster.wait_in(&run.job, "a tile is finished", || finished_bytes(&run.output) > 0);
    let rank = run.ranks().pop().expect("ranks are running");
    // SAFETY: kill(2) reads two integers; the process is a rank of this test's own job.
    unsafe { libc::kill(rank, libc::SIGKILL) };
    run.ends_like_one_process();
    let log = cluster.log();
    assert!(log.contains("the ranks are started again") && !log.contains("run 1:"), "{log}");
    let [all, found, computed] = tiles(&log);
    assert!(found > 0 && found + computed == all, "{log}");

    // A rank that always dies is the job's end, after as many attempts as were asked for.
    let dying = cluster
        .stub("echo started >>\"$4.$SLURM_PROCID\"; [ \"$SLURM_PROCID\" != 1 ] || kill -SEGV $$; sleep 60");
    let out = cluster.path("out");
    let arguments = [Path::new("corpus.h5"), &out];
    let retries = [("STRATIGRAPH_STEP_RETRIES", "1")];
    let job = cluster.submit(SCRIPT, &dying, &["-N", "2", "-n", "2"], &arguments, &retries);
    let (state, code) = cluster.end_of(&job);
    // Which of the killed ranks srun tells of is its own choice.
    assert!(state == "FAILED" && ["139:0", "143:0", "137:0"].contains(&&*code), "{code} {}", cluster.log());
    let started = fs::read_to_string(cluster.path("out.1")).expect("the rank has started");
    assert_eq!(started, "started\nstarted\n");
}

#[test]
fn a_similarity_campaign_that_is_requeued_twice_ends_with_the_results_of_one_process() {
    let Some(cluster) = Cluster::start() else { return };
    let (config, alone, output) = (cluster.path("c.toml"), cluster.path("alone"), cluster.path("ranks"));
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/sample");
    let text = format!(
        "name = 'similarity'\nsource = '{}'\noutput = 'nowhere'\n[tokenize]\n[embed]\ndims = 16\nwindow = 3\n\
         min_count = 5\nepochs = 8\nshards = 6\n[cosine]\ntop_k = 5\nas_published = true\ntile_rows = 512\n",
        sample.display()
    );
    fs::write(&config, text).expect("the campaign is written");
    succeed(stratigraph(1).arg("run").arg(&config).arg("--out").arg(&alone));
    let arguments = [config.as_path(), Path::new("--out"), &output];
    let slowly = [("STRATIGRAPH_EPOCH_DELAY_MS", "500"), ("STRATIGRAPH_TILE_DELAY_MS", "1000")];
    let options = ["-N", "3", "-n", "6"];
    let job = cluster.submit("similarity.sbatch", Path::new(PROGRAM), &options, &arguments, &slowly);
    cluster.wait_in(&job, "an epoch is finished", || output.join("vectors.h5.checkpoint").exists());
    cluster.run("scontrol", &["requeue", &job]);
    let journal = output.join("journal-cosine");
    cluster.wait_in(&job, "a tile is finished", || finished_bytes_of(&journal) > 0);
    cluster.run("scontrol", &["requeue", &job]);
    let end = cluster.end_of(&job);
    let log = cluster.log();
    assert_eq!(end, ("COMPLETED".into(), "0:0".into()), "{log}");
    // Each run begins where the one before it ended.
    let runs: Vec<&str> = log.split("on 6 task(s)").collect();
    assert_eq!(runs.len(), 4, "{log}");
    assert!(runs[2].contains("corpus.h5: up to date") && runs[2].contains("goes on after"), "{log}");
    assert!(runs[3].contains("vectors.h5: done before"), "{log}");
    let [all, found, computed] = tiles(&log);
    assert!(found > 0 && computed > 0 && found + computed == all, "{log}");
    let (expected, found) = (results_in(&alone), results_in(&output));
    assert_eq!(expected.keys().collect::<Vec<_>>(), found.keys().collect::<Vec<_>>(), "{log}");
    for name in ["documents.h5", "vectors.h5", "cosine.h5", "summary.json"] {
        assert!(expected.contains_key(name), "{name} is not written: {log}");
    }
    for (name, bytes) in &expected {
        assert!(bytes == &found[name], "{name} differs from the run in one process:\n{log}");
    }

    let job =
        cluster.submit("similarity.sbatch", Path::new(PROGRAM), &["-n", "1"], &[Path::new("none.toml")], &[]);
    assert_eq!(cluster.end_of(&job), ("FAILED".into(), "2:0".into()));
    assert!(cluster.log().contains("usage: sbatch slurm/similarity.sbatch"), "{}", cluster.log());
}

/// The sample's pairs on six ranks of three nodes, slowly, so that there is a middle to meet it in.
struct Run<'a> {
    cluster: &'a Cluster,
    job: String,
    alone: PathBuf,
    output: PathBuf,
}

impl<'a> Run<'a> {
    fn submit(cluster: &'a Cluster) -> Self {
        let (corpus, alone, output) =
            (cluster.path("corpus.h5"), cluster.path("alone"), cluster.path("ranks"));
        let options = ["--top-k", "5", "--min", "0.5", "--matrix"];
        let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/sample");
        succeed(stratigraph(1).arg("import").arg(sample).arg("-o").arg(&corpus));
        succeed(stratigraph(1).arg("jaccard").arg(&corpus).arg("-o").arg(&alone).args(options));
        let mut arguments = vec![corpus.as_path(), output.as_path()];
        // Some 50 tiles: a second each, whatever the load, for every rank.
        arguments.extend(options.iter().chain(&["--tile-rows", "4"]).map(Path::new));
        let slowly = [("STRATIGRAPH_TILE_DELAY_MS", "1000")];
        let job = cluster.submit(SCRIPT, Path::new(PROGRAM), &["-N", "3", "-n", "6"], &arguments, &slowly);
        Self { cluster, job, alone, output }
    }

    fn ends_like_one_process(&self) {
        let end = self.cluster.end_of(&self.job);
        let log = self.cluster.log();
        assert_eq!(end, ("COMPLETED".into(), "0:0".into()), "{log}");
        let (expected, found) = (results_in(&self.alone), results_in(&self.output));
        assert_eq!(expected.keys().collect::<Vec<_>>(), found.keys().collect::<Vec<_>>(), "{log}");
        assert!(expected.len() >= 3, "too few results to compare: {:?}", expected.keys());
        for (name, bytes) in &expected {
            assert!(bytes == &found[name], "{name} differs from the run in one process:\n{log}");
        }
    }

    /// Processes of the program that write into this run's directory.
    fn ranks(&self) -> Vec<i32> {
        let output = self.output.to_string_lossy().into_owned();
        let processes = fs::read_dir("/proc").expect("/proc").flatten();
        let pids = processes.filter_map(|p| p.file_name().to_str()?.parse::<i32>().ok());
        let read = |pid: i32, name: &str| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let is_rank = |pid: &i32| {
            let arguments = String::from_utf8_lossy(&read(*pid, "cmdline")).into_owned();
            read(*pid, "comm") == b"stratigraph\n" && arguments.split('\0').any(|a| a == output)
        };
        pids.filter(is_rank).collect()
    }
}

#[test]
fn ranks_that_do_not_find_each_other_are_refused() {
    let Some(cluster) = Cluster::start() else { return };
    let launch = |plugin: &str| cluster.srun(&["-n", "3", "-N", "3", plugin], &[PROGRAM, "ranks"]);
    let right = launch("--mpi=pmix");
    assert!(right.status.success(), "{}", text_of(&right));
    let wrong = launch("--mpi=none");
    assert_eq!(wrong.status.code(), Some(6), "{}", text_of(&wrong));
    assert!(text_of(&wrong).contains("srun --mpi=pmix"), "{}", text_of(&wrong));
}

/// What sites call `module` reads variables that need not be set.
#[test]
fn modules_are_loaded_or_the_job_ends() {
    let prologue = |module: &str| {
        let script = format!(
            "module() {{ {module}; }}; STRATIGRAPH=true STRATIGRAPH_MODULES='mpi hdf5'; . slurm/prologue.sh; echo on"
        );
        run(Command::new("bash").args(["-c", &script]).current_dir(env!("CARGO_MANIFEST_DIR")))
    };
    let (code, out, _) = prologue("echo \"$1 $2 $3 $NOT_SET\"");
    assert_eq!((code, out.as_str()), (0, "load mpi hdf5 \non\n"));
    let (code, out, err) = prologue("return 1");
    assert!(code == 1 && out.is_empty() && err.contains("module load mpi hdf5"), "{code}: {out}{err}");
}
