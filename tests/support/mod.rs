//! What the integration tests share: the real binary, `mpirun`, and the data packs.
#![allow(dead_code)] // not every test file uses all of it

pub mod cluster;
pub mod images;
pub mod layout;
pub mod registry;
pub mod walk;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// The directory of the data packs, if it is there.
pub fn shared() -> Option<PathBuf> {
    let given = std::env::var_os("STRATIGRAPH_SHARED").map(PathBuf::from);
    let path = given.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared"));
    if path.is_dir() {
        return Some(path);
    }
    println!("skipped: no ../shared");
    None
}

/// The binary under test, as one process with so many threads.
pub fn stratigraph(threads: usize) -> Command {
    let mut command = Command::new("timeout");
    command.args(["120", env!("CARGO_BIN_EXE_stratigraph"), "--threads", &threads.to_string()]);
    command.env_remove("STRATIGRAPH_THREADS");
    command
}

/// The binary under test on so many ranks.
pub fn ranks(ranks: usize, threads: usize) -> Command {
    let mut command = Command::new("timeout");
    command.args([
        "--kill-after=10",
        "120",
        "mpirun",
        "--oversubscribe",
        "--bind-to",
        "none",
        "-n",
        &ranks.to_string(),
    ]);
    command.args([env!("CARGO_BIN_EXE_stratigraph"), "--threads", &threads.to_string()]);
    command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    command.env_remove("STRATIGRAPH_THREADS");
    command
}

/// Runs a command and returns its exit code, standard output and standard error.
pub fn run(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("the command starts");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (status.code().unwrap_or(-1), text(stdout), text(stderr))
}

/// Runs a command that must succeed (a source with losses is fine) and returns what it printed.
pub fn succeed(command: &mut Command) -> String {
    let (code, out, err) = run(command);
    assert!(matches!(code, 0 | 3), "{command:?}: exit code {code}\n{out}{err}");
    out + &err
}

/// Runs a script that must succeed, in a directory.
pub fn sh(directory: &Path, script: &str) {
    let mut command = Command::new("timeout");
    let (code, out, err) = run(command.args(["120", "sh", "-euc", script]).current_dir(directory));
    assert_eq!(code, 0, "{script}\n{out}{err}");
}

/// True if these programs are there; else says which are not.
pub fn tools(names: &[&str]) -> bool {
    let missing: Vec<_> =
        names.iter().filter(|name| Command::new(name).arg("--help").output().is_err()).copied().collect();
    if !missing.is_empty() {
        println!("skipped: no {}", missing.join(", "));
    }
    missing.is_empty()
}

/// The command is refused with this code, and one line of the error says `what`.
pub fn refused(command: &mut Command, code: i32, what: &str) {
    let (found, out, err) = run(command);
    assert_eq!(found, code, "{command:?}\n{out}{err}");
    assert!(err.lines().count() == 1 && err.contains(what), "{command:?}: expected `{what}`: {err}");
}

/// A small disk, until it is dropped; `None`, with a word, where tmpfs cannot be mounted.
pub fn small_disk(place: &Path, size: &str) -> Option<SmallDisk> {
    std::fs::create_dir_all(place).expect("a directory");
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(place);
    if !mount.output().is_ok_and(|o| o.status.success()) {
        println!("skipped: tmpfs cannot be mounted here (needs root)");
        return None;
    }
    Some(SmallDisk(place.to_owned()))
}

/// A mounted tmpfs.
pub struct SmallDisk(PathBuf);

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// The small corpus of this repository.
pub fn sample() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/sample")
}

/// The results in a directory by name, without the accounts of single runs and without journals.
pub fn results_in(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(directory).expect("a directory");
    let files = entries.map(|e| e.expect("an entry").path()).filter(|path| path.is_file());
    let named = files.map(|path| {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        (name, std::fs::read(&path).expect("a file"))
    });
    named.filter(|(name, _)| !name.starts_with("run")).collect()
}

/// Bytes of finished tiles in the journals of a results directory.
pub fn finished_bytes(directory: &Path) -> u64 {
    finished_bytes_of(&directory.join("journal"))
}

/// The same of a directory of journals.
pub fn finished_bytes_of(journals: &Path) -> u64 {
    let header = 40; // a journal without a record
    let journals = std::fs::read_dir(journals).into_iter().flatten().flatten();
    journals.filter_map(|j| j.metadata().ok()).map(|j| j.len().saturating_sub(header)).sum()
}

/// Reads `tiles: A in all, B found in the journal, C computed now` from the last run in a log.
pub fn tiles(log: &str) -> [u64; 3] {
    let line = log.lines().rfind(|l| l.starts_with("tiles: ")).unwrap_or_else(|| panic!("no tiles: {log}"));
    let mut numbers = line.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok());
    [(); 3].map(|()| numbers.next().expect("three numbers"))
}

/// Starts a command, sends SIGTERM to all processes of the program once `ready` says so, and gives exit
/// code and output. Before they catch the signal it would just kill them, so that is waited for.
pub fn terminated_when(command: &mut Command, ready: impl Fn() -> bool) -> (i32, String) {
    use std::process::Stdio;
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the command starts");
    let catches = |pid: &i32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let mask = status.lines().find_map(|l| l.strip_prefix("SigCgt:"));
        mask.and_then(|m| u64::from_str_radix(m.trim(), 16).ok()).is_some_and(|m| m & (1 << 14) != 0)
    };
    cluster::wait_until("the program runs and catches signals", || {
        let pids = processes_below(child.id());
        !pids.is_empty() && pids.iter().all(catches) && ready()
    });
    for pid in processes_below(child.id()) {
        // SAFETY: kill(2) reads two integers; the processes are this test's own.
        unsafe { libc::kill(pid, libc::SIGTERM) };
    }
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout) + &text(&output.stderr))
}

/// Processes of the program below this one: `timeout` and `mpirun` stand between.
pub fn processes_below(root: u32) -> Vec<i32> {
    let (mut found, mut todo) = (Vec::new(), vec![root]);
    while let Some(pid) = todo.pop() {
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { continue };
        for task in tasks.flatten() {
            let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            todo.extend(children.split_whitespace().filter_map(|c| c.parse::<u32>().ok()));
        }
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        if name.trim() == "stratigraph" {
            found.push(pid as i32);
        }
    }
    found
}

/// Waits for what a run in another process does, for a minute at most.
pub fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < until, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(3));
    }
}
