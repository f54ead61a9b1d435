//! A private Slurm cluster for tests of batch scripts.
//!
//! ```ignore
//! let Some(cluster) = Cluster::start() else { return };
//! let job = cluster.submit("jaccard.sbatch", Path::new(PROGRAM), &["-N", "3", "-n", "6"], &[..], &[]);
//! assert_eq!(cluster.end_of(&job), ("COMPLETED".into(), "0:0".into()), "{}", cluster.log());
//! ```

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

const HOME: &str = env!("CARGO_MANIFEST_DIR");

/// Longer than a requeue takes: Slurm waits for old credentials to expire before it starts again.
const PATIENCE: Duration = Duration::from_secs(120);

/// States of a job that has ended.
const OVER: [&str; 6] = ["COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"];

/// A running cluster; dropping it ends its daemons.
pub struct Cluster {
    directory: tempfile::TempDir,
}

impl Cluster {
    /// Three nodes with two CPUs each; `None`, with a line that says so, without Slurm.
    pub fn start() -> Option<Self> {
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

    /// A path in the cluster's own directory, which goes with it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A program that stands in for `stratigraph`.
    pub fn stub(&self, body: &str) -> PathBuf {
        let path = self.path(&format!("stub-{}", body.len()));
        fs::write(&path, format!("#!/usr/bin/env bash\n{body}\n")).expect("the stub is written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("the stub is executable");
        path
    }

    /// Submits a batch script of `slurm/` that runs `program`; gives the job's id. All jobs write to
    /// one log ([`Cluster::log`]).
    pub fn submit(
        &self,
        script: &str,
        program: &Path,
        options: &[&str],
        arguments: &[&Path],
        environment: &[(&str, &str)],
    ) -> String {
        let mut command = Command::new("timeout");
        let output = self
            .on_one_host(without_slurm(command.args(["30", "sbatch", "--parsable"])))
            .arg(format!("--output={}", self.path("job.log").display()))
            .args(options)
            .arg(Path::new(HOME).join("slurm").join(script))
            .args(arguments)
            .current_dir(self.directory.path())
            .env("STRATIGRAPH_HOME", HOME)
            .env("STRATIGRAPH", program)
            .envs(environment.iter().copied())
            .output()
            .expect("sbatch starts");
        assert!(output.status.success(), "sbatch: {}", text_of(&output));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Runs a client command of Slurm, which must succeed; gives what it printed.
    pub fn run(&self, command: &str, arguments: &[&str]) -> String {
        let output = without_slurm(Command::new("timeout").args(["30", command]))
            .args(arguments)
            .env("SLURM_CONF", self.path("slurm.conf"))
            .output()
            .expect("the command starts");
        assert!(output.status.success(), "{command} {arguments:?}: {}", text_of(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// `srun` with options, and the environment that ranks need here.
    pub fn srun(&self, options: &[&str], program: &[&str]) -> Output {
        let mut command = Command::new("timeout");
        let command = without_slurm(command.args(["60", "srun"]).args(options).args(program));
        self.on_one_host(command).output().expect("srun starts")
    }

    /// The three nodes are one host: OpenMPI's shared-memory segments would meet, and the ranks
    /// outnumber the cores.
    fn on_one_host<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .env("SLURM_CONF", self.path("slurm.conf"))
            .env("OMPI_MCA_btl", "self,tcp")
            .env("OMPI_MCA_mpi_yield_when_idle", "1")
    }

    /// `JobState` and `ExitCode` of a job, as `scontrol` shows them now.
    pub fn state_of(&self, job: &str) -> (String, String) {
        let shown = self.run("scontrol", &["--oneliner", "show", "job", job]);
        let field = |name: &str| {
            let found = shown.split_whitespace().find_map(|word| word.strip_prefix(name));
            found.unwrap_or_else(|| panic!("no {name} in: {shown}")).to_owned()
        };
        (field("JobState="), field("ExitCode="))
    }

    /// Waits until something happens while a job runs; tells at once if the job is over before.
    pub fn wait_in(&self, job: &str, what: &str, condition: impl Fn() -> bool) {
        wait_until(what, || {
            let happened = condition();
            let (state, code) = self.state_of(job);
            let over = OVER.contains(&state.as_str());
            assert!(happened || !over, "{what}: the job was over before ({state}, {code}):\n{}", self.log());
            happened
        });
    }

    /// Waits for a job's end; gives its last state and exit code.
    pub fn end_of(&self, job: &str) -> (String, String) {
        let begun = Instant::now();
        loop {
            let state = self.state_of(job);
            if OVER.contains(&state.0.as_str()) {
                return state;
            }
            assert!(begun.elapsed() < PATIENCE, "job {job} is still {}:\n{}", state.0, self.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// What all jobs printed so far.
    pub fn log(&self) -> String {
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
pub fn without_slurm(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        let foreign = ["SLURM_", "SBATCH_", "SRUN_", "PMIX_"];
        if foreign.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command
}

/// Waits for a condition, for a limited time.
pub fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What a command printed, on both channels.
pub fn text_of(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
