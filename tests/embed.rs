//! Vectors: the same bytes for any ranks, threads and restarts; refusals; what other programs read.

mod support;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use support::{processes_below, ranks, run, stratigraph, succeed, wait_for};

struct Fixture {
    dir: tempfile::TempDir,
    documents: PathBuf,
}

const SMALL: [&str; 12] = [
    "--dims",
    "20",
    "--min-count",
    "3",
    "--epochs",
    "3",
    "--shards",
    "3",
    "--merge-words",
    "3000",
    "--window",
    "4",
];

impl Fixture {
    fn new() -> Self {
        Self::of(300)
    }

    fn of(images: u32) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let corpus = dir.path().join("corpus.h5");
        let documents = dir.path().join("documents.h5");
        succeed(stratigraph(2).args(["synth", "--images", &images.to_string(), "-o"]).arg(&corpus));
        succeed(stratigraph(2).arg("tokenize").arg(&corpus).arg("-o").arg(&documents));
        Self { dir, documents }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn embed(&self, n: usize, threads: usize, output: &Path, more: &[&str]) -> std::process::Command {
        let mut command = if n == 1 { stratigraph(threads) } else { ranks(n, threads) };
        command.arg("embed").arg(&self.documents).arg("-o").arg(output).args(SMALL).args(more);
        command
    }

    fn made(&self, n: usize, threads: usize, name: &str, more: &[&str]) -> Vec<u8> {
        let output = self.path(name);
        succeed(&mut self.embed(n, threads, &output, more));
        std::fs::read(output).expect("vectors")
    }
}

fn checkpoint(output: &Path) -> PathBuf {
    PathBuf::from(format!("{}.checkpoint", output.display()))
}

#[test]
fn vectors_are_the_same_bytes_on_any_ranks_and_threads() {
    let fixture = Fixture::new();
    for (kind, more) in [("words", vec![]), ("documents", vec!["--preset", "top2vec", "--sample", "0.01"])] {
        let expected = fixture.made(1, 1, &format!("{kind}-1-1"), &more);
        for (n, threads) in [(1, 3), (2, 1), (3, 2), (5, 1)] {
            let found = fixture.made(n, threads, &format!("{kind}-{n}-{threads}"), &more);
            assert!(found == expected, "{kind}: {n} ranks x {threads} threads differ");
        }
        let mut other = more.clone();
        other.extend(["--seed", "2"]);
        assert!(fixture.made(1, 2, &format!("{kind}-seed"), &other) != expected, "the seed does nothing");
    }
    // Lock-free runs end, and say what they are.
    let output = fixture.path("lock-free");
    let mut command = stratigraph(2);
    command.arg("embed").arg(&fixture.documents).arg("-o").arg(&output);
    let out = succeed(command.args(["--lock-free", "--dims", "20", "--min-count", "3", "--epochs", "2"]));
    assert!(out.contains("other bits"), "{out}");
    let out = succeed(stratigraph(1).arg("inspect").arg(&output));
    let line = out.lines().find(|l| l.contains("lock_free")).expect("an attribute");
    assert!(line.trim().ends_with('1'), "{line}");
}

#[test]
fn killed_and_stopped_runs_end_in_the_same_bytes() {
    let fixture = Fixture::new();
    for more in [vec![], vec!["--preset", "top2vec", "--sample", "0.01"]] {
        let learned = !more.is_empty();
        let expected = fixture.made(1, 2, &format!("undisturbed-{learned}"), &more);
        for (signal, code) in [(libc::SIGKILL, None), (libc::SIGTERM, Some(75)), (libc::SIGUSR1, Some(75))] {
            let output = fixture.path(&format!("disturbed-{learned}-{signal}"));
            let mut command = fixture.embed(1, 1, &output, &more);
            command.env("STRATIGRAPH_EPOCH_DELAY_MS", "400");
            let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
            wait_for("a checkpoint", || checkpoint(&output).exists());
            for pid in processes_below(child.id()) {
                // SAFETY: kill(2) reads two integers; the process is one that this test started.
                unsafe { libc::kill(pid, signal) };
            }
            let ended = child.wait_with_output().expect("a child");
            assert!(!output.exists(), "it ended before the signal");
            if code.is_some() {
                assert_eq!(ended.status.code(), code, "{}", String::from_utf8_lossy(&ended.stdout));
            }
            // Other options do not go on from it.
            let (code, _, err) = run(fixture.embed(1, 1, &output, &more).args(["--alpha", "0.01"]));
            assert!(code == 4 && err.lines().count() == 1 && err.contains("another run"), "{code} {err}");
            let out = succeed(&mut fixture.embed(2, 1, &output, &more));
            assert!(out.contains("goes on after"), "{out}");
            assert!(std::fs::read(&output).expect("vectors") == expected, "signal {signal}: other bytes");
            assert!(!checkpoint(&output).exists());
        }
    }
}

#[test]
fn an_output_belongs_to_one_run() {
    let fixture = Fixture::new();
    let output = fixture.path("claimed.h5");
    let lock_free = |n: usize| {
        let mut command = ranks(n, 1);
        command.arg("embed").arg(&fixture.documents).arg("-o").arg(&output);
        command.args(["--lock-free", "--dims", "20", "--min-count", "3", "--epochs", "8"]);
        command
    };
    // Longer than the second run waits for the first to go away.
    let mut slowly = lock_free(2);
    slowly.env("STRATIGRAPH_EPOCH_DELAY_MS", "8000");
    let child = slowly.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    wait_for("a checkpoint", || checkpoint(&output).exists());
    let (code, out, err) = run(&mut lock_free(1));
    assert!(code == 4 && err.contains("another run is writing here"), "{code}: {out}{err}");
    for pid in processes_below(child.id()) {
        // SAFETY: kill(2) reads two integers; the process is one that this test started.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
    child.wait_with_output().expect("a child");
    // What it was writing when it was killed goes; what it had finished is for as many ranks.
    let litter = fixture.path(".claimed.h5.checkpoint.7.tmp");
    std::fs::write(&litter, "cut").expect("a file");
    let (code, out, err) = run(&mut lock_free(1));
    assert!(code == 4 && err.contains("lock-free run on 2 rank(s)"), "{code}: {out}{err}");
    assert!(!litter.exists() && checkpoint(&output).exists());
    let out = succeed(&mut lock_free(2));
    assert!(out.contains("goes on after"), "{out}");
    let out = succeed(&mut lock_free(1));
    assert!(out.contains("done before"), "{out}");
    // A requeued job says it again.
    let out = succeed(lock_free(1).arg("--overwrite"));
    assert!(out.contains("done before"), "{out}");
    let beside = fixture.dir.path().read_dir().expect("a directory").flatten();
    let beside: Vec<_> =
        beside.map(|e| e.file_name()).filter(|n| n.to_string_lossy().contains("claimed")).collect();
    assert_eq!(beside, ["claimed.h5"]);
}

#[test]
fn one_document_and_one_word_are_enough() {
    let fixture = Fixture::of(1);
    let smallest: [&[&str]; 4] = [
        &[],
        &["--max-vocabulary", "1"],
        &["--preset", "top2vec"],
        &["--preset", "top2vec", "--max-vocabulary", "1"],
    ];
    for (i, more) in smallest.into_iter().enumerate() {
        let bytes = fixture.made(1, 2, &format!("one-{i}"), more);
        assert!(bytes == fixture.made(3, 1, &format!("three-{i}"), more), "{more:?}: 3 ranks differ");
        let vectors = stratigraph::embed::Vectors::open(&fixture.path(&format!("one-{i}"))).expect("vectors");
        assert!(!vectors.is_empty() && !vectors.words.names.is_empty());
        for row in 0..vectors.len() {
            let length: f64 = vectors.document(row).iter().map(|x| f64::from(*x).powi(2)).sum();
            assert!((length - 1.0).abs() < 1e-6, "{more:?}: document {row} has length {length}");
        }
    }
}

#[test]
fn odd_input_is_refused_in_one_line() {
    let fixture = Fixture::new();
    let output = fixture.path("vectors.h5");
    let cases: [(&[&str], i32, &str); 9] = [
        (&["--dims", "0"], 4, "dims 0"),
        (&["--window", "0"], 4, "window 0"),
        (&["--epochs", "0"], 4, "epochs 0"),
        (&["--alpha", "-1"], 4, "alpha -1"),
        (&["--sample", "7"], 4, "sample 7"),
        (&["--shards", "0"], 4, "shards 0"),
        (&["--document-vectors", "learned"], 4, "word2vec"),
        (&["--min-count", "1000000000000"], 4, "no word occurs"),
        (&["--lock-free", "--shards", "2"], 2, "--lock-free"),
    ];
    for (more, expected, what) in cases {
        let mut command = stratigraph(1);
        let (code, out, err) =
            run(command.arg("embed").arg(&fixture.documents).arg("-o").arg(&output).args(more));
        assert!(code == expected && err.contains(what), "{more:?}: {code} {out}{err}");
        assert!(code == 2 || err.lines().count() == 1, "{err}");
        assert!(!output.exists());
    }
    // Files that are something else, cut, or not there.
    let cut = fixture.path("cut.h5");
    let bytes = std::fs::read(&fixture.documents).expect("documents");
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).expect("a file");
    for (source, what) in [
        (fixture.path("corpus.h5"), "`documents` file"),
        (cut, "cut.h5"),
        (fixture.path("none.h5"), "none.h5"),
    ] {
        let (code, out, err) = run(stratigraph(1).arg("embed").arg(&source).arg("-o").arg(&output));
        assert!(code == 4 && err.lines().count() == 1 && err.contains(what), "{code} {out}{err}");
    }
    // One dimension, and a window longer than any document, are odd but sound.
    succeed(stratigraph(2).arg("embed").arg(&fixture.documents).arg("-o").arg(&output).args([
        "--dims",
        "1",
        "--window",
        "10000",
        "--min-count",
        "1",
        "--epochs",
        "1",
        "--shards",
        "64",
    ]));
    // What is there is not replaced by something else in silence.
    let (code, _, err) = run(&mut fixture.embed(1, 1, &output, &[]));
    assert!(code == 4 && err.contains("--overwrite"), "{code} {err}");
    succeed(&mut fixture.embed(1, 1, &output, &["--overwrite"]));
    let (code, _, err) = run(stratigraph(1).arg("similar").arg(&output).arg("no-such-word"));
    assert!(code == 4 && err.contains("no-such-word"), "{code} {err}");
    let (code, _, err) = run(stratigraph(1).arg("similar").arg(&output).args(["no-such-word", "-k", "0"]));
    assert!(code == 2 && err.contains("--top-k"), "{code} {err}");
}

#[test]
fn exports_hold_the_vectors_and_neighbours_are_found() {
    let fixture = Fixture::new();
    let output = fixture.path("vectors.h5");
    let (text, binary, projector) = (fixture.path("w.txt"), fixture.path("w.bin"), fixture.path("projector"));
    let mut command = fixture.embed(1, 2, &output, &[]);
    command.arg("--word2vec-text").arg(&text).arg("--word2vec-binary").arg(&binary);
    succeed(command.arg("--projector").arg(&projector));
    let vectors = stratigraph::embed::Vectors::open(&output).expect("vectors");
    let words = vectors.words.names.len();
    assert!(words > 20 && vectors.dims == 20);
    let text = std::fs::read_to_string(text).expect("text");
    let tsv = std::fs::read_to_string(projector.join("vectors.tsv")).expect("tsv");
    let metadata = std::fs::read_to_string(projector.join("metadata.tsv")).expect("tsv");
    let binary = std::fs::read(binary).expect("binary");
    let mut rest = binary.strip_prefix(format!("{words} 20\n").as_bytes()).expect("a head line");
    assert_eq!(
        (text.lines().count(), tsv.lines().count(), metadata.lines().count()),
        (words + 1, words, words + 1)
    );
    for (row, ((line, tsv), metadata)) in
        text.lines().skip(1).zip(tsv.lines()).zip(metadata.lines().skip(1)).enumerate()
    {
        let name = vectors.words.names.get(row as u32);
        let numbers =
            |text: &str, by: char| -> Vec<f32> { text.split(by).map(|x| x.parse().unwrap()).collect() };
        let (word, values) = line.split_once(' ').expect("a word");
        assert_eq!(word, name);
        assert_eq!(numbers(values, ' '), vectors.word(row));
        assert_eq!(numbers(tsv, '\t'), vectors.word(row));
        assert_eq!(metadata, format!("{name}\t{}", vectors.words.counts[row]));
        rest = rest.strip_prefix(format!("{name} ").as_bytes()).expect("a word");
        let values: Vec<f32> =
            rest[..80].chunks(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        assert_eq!(values, vectors.word(row));
        rest = rest[80..].strip_prefix(b"\n").expect("an end");
    }
    assert!(rest.is_empty());
    // Unit length, or zero and counted.
    for row in 0..vectors.len() {
        let length: f64 = vectors.document(row).iter().map(|x| f64::from(*x).powi(2)).sum();
        assert!((length - 1.0).abs() < 1e-6 || (length == 0.0 && vectors.documents.norms[row] == 0.0));
    }
    let word = vectors.words.names.get(0).to_owned();
    let out = succeed(stratigraph(1).arg("similar").arg(&output).args([&word, "-k", "3", "--json"]));
    let found: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    let list = found[&word].as_array().expect("a list");
    assert!(list.len() == 3 && list[0][1].as_f64() >= list[1][1].as_f64());
    let other = vectors.words.names.get(1).to_owned();
    let out =
        succeed(stratigraph(1).arg("similar").arg(&output).args(["--positive", &word, "--negative", &other]));
    assert!(!out.lines().skip(1).any(|line| line.contains(&format!(" {word} "))), "{out}");
    let mut nothing = stratigraph(1);
    nothing.arg("similar").arg(&output).args(["--positive", &word, "--negative", &word]);
    let (code, _, err) = run(&mut nothing);
    assert!(code == 4 && err.contains("cancel each other out"), "{code} {err}");
    let out = succeed(
        stratigraph(1).arg("similar").arg(&output).arg(&word).arg("--documents").arg(&fixture.documents),
    );
    assert!(out.contains("layers"), "{out}");
}
