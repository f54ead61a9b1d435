//! The batch scripts under a real Slurm: a private cluster of three nodes on this machine.
//!
//! A job that is stopped goes on where it was and ends with the results of an undisturbed run in
//! one process; what is cancelled stays cancelled. Every wait has a limit, and the daemons end with
//! the test, however it ends.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_stratigraph");
const HOME: &str = env!("CARGO_MANIFEST_DIR");

/// Longer than a requeue takes: Slurm waits for old credentials to expire before it starts again.
const PATIENCE: Duration = Duration::from_secs(120);

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
    let job = cluster.submit(&program, &["-N", "3", "-n", "3"], &[Path::new("corpus.h5"), &out]);
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
    let job = cluster.submit(&stopping, &["-n", "1"], &[Path::new("corpus.h5"), &out]);
    wait_until("the task runs", || cluster.path("out.begun").exists());
    cluster.run("scancel", &[&job]);
    assert_eq!(cluster.end_of(&job).0, "CANCELLED", "{}", cluster.log());
    assert!(!cluster.log().contains("back into the queue"), "{}", cluster.log());

    let failing = cluster.stub("exit 4");
    let job = cluster.submit(&failing, &["-n", "2"], &[Path::new("corpus.h5"), &out]);
    assert_eq!(cluster.end_of(&job), ("FAILED".into(), "4:0".into()), "{}", cluster.log());
}

#[test]
fn a_job_without_its_arguments_says_how_to_call_it() {
    let Some(cluster) = Cluster::start() else { return };
    let job = cluster.submit(Path::new(PROGRAM), &["-n", "1"], &[]);
    assert_eq!(cluster.end_of(&job), ("FAILED".into(), "2:0".into()));
    assert!(cluster.log().contains("usage: sbatch slurm/jaccard.sbatch"), "{}", cluster.log());
}

#[test]
fn a_requeued_run_ends_with_the_results_of_one_process() {
    let Some(cluster) = Cluster::start() else { return };
    let (corpus, alone, ranks) = (cluster.path("corpus.h5"), cluster.path("alone"), cluster.path("ranks"));
    let options = ["--top-k", "5", "--min", "0.5", "--matrix"];
    let sample = Path::new(HOME).join("data/sample");
    in_one_process(Command::new(PROGRAM).arg("import").arg(sample).arg("-o").arg(&corpus));
    in_one_process(Command::new(PROGRAM).arg("jaccard").arg(&corpus).arg("-o").arg(&alone).args(options));

    let mut arguments = vec![corpus.as_path(), ranks.as_path()];
    arguments.extend(options.iter().map(Path::new));
    let slowly = [("STRATIGRAPH_TILE_DELAY_MS", "700")];
    let job = cluster.submit_with(Path::new(PROGRAM), &["-N", "3", "-n", "6"], &arguments, &slowly);
    wait_until("a tile is finished", || finished_bytes(&ranks) > 0);
    cluster.run("scontrol", &["requeue", &job]);
    assert_eq!(cluster.end_of(&job), ("COMPLETED".into(), "0:0".into()), "{}", cluster.log());

    let log = cluster.log();
    assert!(log.contains("run 1: ended with exit code 0"), "{log}");
    let (expected, found) = (results_in(&alone), results_in(&ranks));
    assert_eq!(expected.keys().collect::<Vec<_>>(), found.keys().collect::<Vec<_>>());
    assert!(expected.len() >= 2, "too few results to compare: {:?}", expected.keys());
    for (name, bytes) in &expected {
        assert!(bytes == &found[name], "{name} differs from the run in one process:\n{log}");
    }
}

#[test]
fn ranks_that_do_not_find_each_other_are_refused() {
    let Some(cluster) = Cluster::start() else { return };
    let launch = |plugin: &str| {
        without_slurm(Command::new("timeout").args(["60", "srun", "-n", "3", "-N", "3", plugin]))
            .args([PROGRAM, "ranks"])
            .env("SLURM_CONF", cluster.path("slurm.conf"))
            .env("OMPI_MCA_btl", "self,tcp")
            .env("OMPI_MCA_mpi_yield_when_idle", "1")
            .output()
            .expect("srun starts")
    };
    let right = launch("--mpi=pmix");
    assert!(right.status.success(), "{}", text_of(&right));
    let wrong = launch("--mpi=none");
    assert_eq!(wrong.status.code(), Some(6), "{}", text_of(&wrong));
    assert!(text_of(&wrong).contains("srun --mpi=pmix"), "{}", text_of(&wrong));
}

/// A running cluster; dropping it ends its daemons.
struct Cluster {
    directory: tempfile::TempDir,
}

impl Cluster {
    /// Three nodes with two CPUs each; `None`, with a line that says so, without Slurm.
    fn start() -> Option<Self> {
        let installed = |name: &str| {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
            places.push("/usr/sbin".into());
            places.iter().any(|place| place.join(name).exists())
        };
        if !["slurmctld", "slurmd", "munged", "srun"].into_iter().all(installed) {
            println!("skipped: no Slurm (make setup-test installs it)");
            return None;
        }
        let directory = tempfile::Builder::new().prefix("stratigraph-slurm-").tempdir().expect("a directory");
        let cluster = Self { directory };
        let output = cluster.control(&["up"], &["3", "2"]);
        assert!(output.status.success(), "the cluster does not start: {}", text_of(&output));
        Some(cluster)
    }

    fn control(&self, verb: &[&str], rest: &[&str]) -> Output {
        without_slurm(Command::new("timeout").arg("60").arg(Path::new(HOME).join("tests/slurm/cluster.sh")))
            .args(verb)
            .arg(self.directory.path())
            .args(rest)
            .output()
            .expect("bash and timeout are there")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A program that stands in for `stratigraph`.
    fn stub(&self, body: &str) -> PathBuf {
        let path = self.path(&format!("stub-{}", body.len()));
        fs::write(&path, format!("#!/usr/bin/env bash\n{body}\n")).expect("the stub is written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("the stub is executable");
        path
    }

    /// Submits `slurm/jaccard.sbatch`; gives the job's id. All jobs write to one log.
    fn submit(&self, program: &Path, options: &[&str], arguments: &[&Path]) -> String {
        self.submit_with(program, options, arguments, &[])
    }

    fn submit_with(
        &self,
        program: &Path,
        options: &[&str],
        arguments: &[&Path],
        environment: &[(&str, &str)],
    ) -> String {
        let output = without_slurm(Command::new("timeout").args(["30", "sbatch", "--parsable"]))
            .arg(format!("--output={}", self.path("job.log").display()))
            .args(options)
            .arg(Path::new(HOME).join("slurm/jaccard.sbatch"))
            .args(arguments)
            .current_dir(self.directory.path())
            .env("SLURM_CONF", self.path("slurm.conf"))
            .env("STRATIGRAPH_HOME", HOME)
            .env("STRATIGRAPH", program)
            // The three nodes are one host: OpenMPI's shared-memory segments would meet, and the
            // ranks outnumber the cores.
            .env("OMPI_MCA_btl", "self,tcp")
            .env("OMPI_MCA_mpi_yield_when_idle", "1")
            .envs(environment.iter().copied())
            .output()
            .expect("sbatch starts");
        assert!(output.status.success(), "sbatch: {}", text_of(&output));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn run(&self, command: &str, arguments: &[&str]) -> String {
        let output = without_slurm(Command::new("timeout").args(["30", command]))
            .args(arguments)
            .env("SLURM_CONF", self.path("slurm.conf"))
            .output()
            .expect("the command starts");
        assert!(output.status.success(), "{command} {arguments:?}: {}", text_of(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// `JobState` and `ExitCode` of a job, as `scontrol` shows them now.
    fn state_of(&self, job: &str) -> (String, String) {
        let shown = self.run("scontrol", &["--oneliner", "show", "job", job]);
        let field = |name: &str| {
            let found = shown.split_whitespace().find_map(|word| word.strip_prefix(name));
            found.unwrap_or_else(|| panic!("no {name} in: {shown}")).to_owned()
        };
        (field("JobState="), field("ExitCode="))
    }

    /// Waits for a job's end; gives its last state and exit code.
    fn end_of(&self, job: &str) -> (String, String) {
        let begun = Instant::now();
        loop {
            let state = self.state_of(job);
            if ["COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"].contains(&state.0.as_str()) {
                return state;
            }
            assert!(begun.elapsed() < PATIENCE, "job {job} is still {}:\n{}", state.0, self.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("job.log")).unwrap_or_default()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let output = self.control(&["down"], &[]);
        if !output.status.success() {
            eprintln!("the cluster does not end: {}", text_of(&output));
        }
    }
}

/// The tests may themselves run in a Slurm job; its variables are not for this cluster.
fn without_slurm(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        let foreign = ["SLURM_", "SBATCH_", "SRUN_", "PMIX_"];
        if foreign.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn text_of(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs a command of the program without ranks; a source with losses is fine.
fn in_one_process(command: &mut Command) {
    let output = without_slurm(command).output().expect("the program starts");
    assert!(matches!(output.status.code(), Some(0 | 3)), "{command:?}: {}", text_of(&output));
}

/// Bytes of finished tiles in all journals below a results directory.
fn finished_bytes(directory: &Path) -> u64 {
    let header = 40; // a journal without a record
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(about) if about.is_dir() => finished_bytes(&entry.path()),
            Ok(about) if entry.path().extension().is_some_and(|e| e == "tiles") => {
                about.len().saturating_sub(header)
            }
            _ => 0,
        })
        .sum()
}

/// Every file of a results directory that the results consist of, by name: not the journals, logs
/// and accounts of single runs.
fn results_in(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let is_result =
        |name: &str| !(name.starts_with("run-") || name.contains("journal") || name.ends_with(".log"));
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).expect("a results directory") {
        let entry = entry.expect("a directory entry");
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_file() && is_result(&name) {
            found.insert(name, fs::read(entry.path()).expect("a readable result"));
        }
    }
    found
}
