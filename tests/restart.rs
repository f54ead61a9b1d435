//! Runs that are killed, stopped and started again, on other numbers of ranks: the results are
//! those of an undisturbed run, byte for byte, and little is computed twice.

mod support;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::{
    finished_bytes, processes_below, ranks, results_in, run, stratigraph, succeed, tiles, wait_for,
};

/// Arguments of all runs, so that they have many tiles that take a while.
const OPTIONS: [&str; 7] = ["--top-k", "5", "--min", "0.5", "--matrix", "--tile-rows", "24"];
const DELAY: (&str, &str) = ("STRATIGRAPH_TILE_DELAY_MS", "25");

/// A corpus, and the results of one undisturbed process.
struct Fixture {
    dir: tempfile::TempDir,
    corpus: PathBuf,
    expected: std::collections::BTreeMap<String, Vec<u8>>,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let corpus = dir.path().join("corpus.h5");
        succeed(stratigraph(2).args(["synth", "--images", "1500", "-o"]).arg(&corpus));
        let output = dir.path().join("undisturbed");
        succeed(stratigraph(1).arg("jaccard").arg(&corpus).arg("-o").arg(&output).args(OPTIONS));
        let expected = results_in(&output);
        assert_eq!(expected.len(), 3, "{:?}", expected.keys());
        Self { dir, corpus, expected }
    }

    fn command(&self, n: usize, output: &Path) -> Command {
        let mut command = if n == 1 { stratigraph(1) } else { ranks(n, 1) };
        command.arg("jaccard").arg(&self.corpus).arg("-o").arg(output).args(OPTIONS);
        command.env(DELAY.0, DELAY.1);
        command
    }

    /// Finishes the run without delay and compares. Returns tiles: in all, found, computed.
    fn finish(&self, n: usize, output: &Path) -> [u64; 3] {
        let out = succeed(self.command(n, output).env(DELAY.0, "0"));
        for (name, bytes) in &self.expected {
            let found = std::fs::read(output.join(name)).expect("a result");
            assert!(found == *bytes, "{name} differs from the undisturbed run\n{out}");
        }
        assert_eq!(
            results_in(output).into_keys().collect::<Vec<_>>(),
            self.expected.keys().cloned().collect::<Vec<_>>()
        );
        assert!(!output.join("journal").exists());
        tiles(&out)
    }
}

fn signal(pid: i32, signal: i32) {
    // SAFETY: kill(2) reads two integers; the process is one that this test started.
    unsafe { libc::kill(pid, signal) };
}

fn start(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the command starts")
}

#[test]
fn killed_ranks_cost_a_tile_each_and_no_bit() {
    let fixture = Fixture::new();
    let seed = Instant::now().elapsed().as_nanos() as u64
        ^ std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |t| t.as_nanos() as u64);
    println!("seed {seed}");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let sizes = [1, 2, 3, 4, 7];
    for (case, n) in sizes.into_iter().enumerate() {
        let output = fixture.dir.path().join(format!("killed-{n}"));
        // Tiles whose computation began, over all attempts.
        let (mut begun, mut lost, mut kills) = (0, 0, 0);
        for attempt in 0..3 {
            let n = if attempt == 0 { n } else { sizes[random.next_u32() as usize % sizes.len()] };
            let mut command = fixture.command(n, &output);
            let log = fixture.dir.path().join("log");
            command.env("STRATIGRAPH_LOG", "stratigraph=debug").stdout(Stdio::null());
            let mut child =
                command.stderr(std::fs::File::create(&log).expect("a file")).spawn().expect("it starts");
            wait_for("ranks", || {
                processes_below(child.id()).len() == n || child.try_wait().expect("a child").is_some()
            });
            // From before the first tile to after the last one.
            let tiles_ms = 25 * 60 / n as u64;
            std::thread::sleep(Duration::from_millis(u64::from(random.next_u32()) % (400 + tiles_ms)));
            let processes = processes_below(child.id());
            if !processes.is_empty() {
                signal(processes[random.next_u32() as usize % processes.len()], libc::SIGKILL);
                kills += 1;
                lost += n as u64;
            }
            let status = child.wait().expect("a child");
            let log = std::fs::read_to_string(&log).expect("a log");
            begun += log.matches("begins").count() as u64;
            if status.success() {
                break;
            }
        }
        let [all, found, computed] = match output.join("jaccard.json").exists() {
            // The kill came too late to hurt; that the directory is whole is still to be seen.
            true => {
                let out = succeed(&mut fixture.command(n, &output));
                assert!(out.contains("nothing to do"), "{out}");
                assert!(results_in(&output) == fixture.expected, "seed {seed}");
                continue;
            }
            false => fixture.finish(sizes[(case + 2) % sizes.len()], &output),
        };
        assert_eq!(found + computed, all, "seed {seed}");
        assert!(kills > 0);
        // What was begun and is not found was lost: at most one tile for each rank that died.
        assert!(begun >= found && begun - found <= lost, "seed {seed}: {begun} begun, {found} found");
    }
}

#[test]
fn signals_end_a_run_cleanly() {
    let fixture = Fixture::new();
    for (n, number, all) in [
        (1, libc::SIGTERM, true),
        (1, libc::SIGUSR1, true),
        (3, libc::SIGUSR1, false),
        (3, libc::SIGTERM, true),
    ] {
        let output = fixture.dir.path().join(format!("stopped-{n}-{number}"));
        let child = start(&mut fixture.command(n, &output));
        wait_for("a finished tile", || finished_bytes(&output) > 0);
        let processes = processes_below(child.id());
        assert_eq!(processes.len(), n);
        // One rank that is told is enough: all stop.
        processes.iter().take(if all { n } else { 1 }).for_each(|pid| signal(*pid, number));
        let begun = Instant::now();
        let ended = child.wait_with_output().expect("a child");
        let out = String::from_utf8_lossy(&ended.stdout);
        assert_eq!(ended.status.code(), Some(75), "{n} ranks, signal {number}: {out}");
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        assert!(out.contains("stopped by a signal"), "{out}");
        let [all, found, computed] = tiles(&out);
        assert!(found == 0 && computed > 0 && computed < all, "{out}");
        // Nothing that was finished is computed again.
        assert_eq!(fixture.finish(2, &output), [all, computed, all - computed]);
    }
}

#[test]
fn journals_of_other_runs_are_refused() {
    let fixture = Fixture::new();
    let output = fixture.dir.path().join("stopped");
    let child = start(&mut fixture.command(1, &output));
    wait_for("a finished tile", || finished_bytes(&output) > 0);
    processes_below(child.id()).iter().for_each(|pid| signal(*pid, libc::SIGTERM));
    assert_eq!(child.wait_with_output().expect("a child").status.code(), Some(75));
    let before = finished_bytes(&output);
    let (code, out, err) =
        run(stratigraph(1).arg("jaccard").arg(&fixture.corpus).arg("-o").arg(&output).args(["--top-k", "3"]));
    assert_eq!(code, 4, "{out}{err}");
    assert!(err.lines().count() == 1 && err.contains("another run"), "{err}");
    assert_eq!(finished_bytes(&output), before, "nothing is lost");
    // A damaged end costs the tiles behind it, no more.
    let journal = std::fs::read_dir(output.join("journal")).expect("a directory").next();
    let journal = journal.expect("a file").expect("a file").path();
    let mut bytes = std::fs::read(&journal).expect("a file");
    let last = bytes.len() - 3;
    bytes[last] ^= 1;
    std::fs::write(&journal, bytes).expect("a file");
    let [all, found, computed] = fixture.finish(1, &output);
    assert!(found + computed == all && computed >= 1);
}

#[test]
fn two_runs_do_not_write_into_one_directory() {
    let fixture = Fixture::new();
    let output = fixture.dir.path().join("claimed");
    // Longer than the second run waits for the first to go away.
    let mut child = start(fixture.command(2, &output).env(DELAY.0, "2000"));
    wait_for("a finished tile", || finished_bytes(&output) > 0);
    let (code, out, err) = run(&mut fixture.command(1, &output));
    assert_eq!(code, 4, "{out}{err}");
    assert!(err.lines().count() == 1 && err.contains("another run is writing here"), "{err}");
    // The claim dies with its process.
    processes_below(child.id()).iter().for_each(|pid| signal(*pid, libc::SIGKILL));
    assert!(!child.wait().expect("a child").success());
    let [all, found, computed] = fixture.finish(3, &output);
    assert!(found > 0 && found + computed == all);
}

#[test]
fn overwriting_replaces_other_runs_and_keeps_this_one() {
    let fixture = Fixture::new();
    let output = fixture.dir.path().join("overwritten");
    let child = start(fixture.command(1, &output).arg("--overwrite"));
    wait_for("a finished tile", || finished_bytes(&output) > 0);
    processes_below(child.id()).iter().for_each(|pid| signal(*pid, libc::SIGTERM));
    let out = child.wait_with_output().expect("a child").stdout;
    let [all, _, computed] = tiles(&String::from_utf8_lossy(&out));
    // What a batch script does that was requeued: the same command again.
    let out = succeed(fixture.command(1, &output).env(DELAY.0, "0").arg("--overwrite"));
    assert_eq!(tiles(&out), [all, computed, all - computed]);
    assert!(results_in(&output) == fixture.expected);
    let other = |overwrite: &[&str]| {
        let mut command = stratigraph(1);
        run(command.arg("jaccard").arg(&fixture.corpus).arg("-o").arg(&output).args(overwrite))
    };
    let (code, out, err) = other(&[]);
    assert!(code == 4 && err.lines().count() == 1 && err.contains("--overwrite"), "{code} {out}{err}");
    assert!(results_in(&output) == fixture.expected, "nothing is lost");
    let (code, out, err) = other(&["--overwrite"]);
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(results_in(&output).into_keys().collect::<Vec<_>>(), ["jaccard.h5", "jaccard.json"]);
}
