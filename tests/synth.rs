//! `stratigraph synth` with the real binary: the committed sample is what it makes, and what it
//! makes is imported with every oddity counted.
//!
//! After a deliberate change of the generator, `STRATIGRAPH_BLESS=1` writes the sample anew.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use stratigraph::corpus::{Corpus, Oddity};
use support::{run, stratigraph, succeed};

/// What cannot be imported without loss, and what only an archive can have.
const LOSSES: [Oddity; 4] =
    [Oddity::LayerWithoutDigest, Oddity::BadFile, Oddity::InvalidUtf8, Oddity::EmptyFile];
const ARCHIVES: [Oddity; 2] = [Oddity::RepeatedFile, Oddity::BrokenArchive];

fn sample() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/sample")
}

fn synth(output: &Path, options: &[&str]) -> String {
    succeed(stratigraph(2).arg("synth").arg("-o").arg(output).args(options))
}

/// Every file below a directory: path and content.
fn tree(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut todo = vec![directory.to_owned()];
    while let Some(place) = todo.pop() {
        for entry in std::fs::read_dir(&place).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                todo.push(path);
            } else {
                let name = path.strip_prefix(directory).expect("below").to_owned();
                found.insert(name, std::fs::read(&path).expect("a file"));
            }
        }
    }
    found
}

#[test]
fn the_sample_is_what_the_generator_writes() {
    let options = ["--images", "200", "--repositories", "24", "--oddities"];
    let dir = tempfile::tempdir().expect("a directory");
    let made = dir.path().join("sample");
    synth(&made, &options);
    if std::env::var_os("STRATIGRAPH_BLESS").is_some() {
        // Absent the first time.
        let _ = std::fs::remove_dir_all(sample());
        synth(&sample(), &options);
    }
    let (made, kept) = (tree(&made), tree(&sample()));
    assert!(made.keys().eq(kept.keys()), "other files");
    for (name, content) in &made {
        assert!(kept[name] == *content, "{} differs", name.display());
    }
    let bytes: usize = kept.values().map(Vec::len).sum();
    assert!(bytes < 2_000_000, "{bytes} bytes");
}

#[test]
fn the_sample_holds_every_oddity_and_is_labelled() {
    let dir = tempfile::tempdir().expect("a directory");
    let output = dir.path().join("corpus.h5");
    let (code, out, err) =
        run(stratigraph(2).args(["import", "--oddities", "1"]).arg(sample()).arg("-o").arg(&output));
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("SYNTHETIC"), "{out}");
    let corpus = Corpus::load(&output).expect("a corpus");
    for kind in Oddity::ALL {
        let expected = !LOSSES.contains(&kind) && !ARCHIVES.contains(&kind);
        assert_eq!(corpus.oddities.count(kind) > 0, expected, "{kind:?}");
    }
    for command in [["stats"], ["inspect"]] {
        let out = succeed(stratigraph(1).args(command).arg(&output));
        assert!(out.to_lowercase().contains("synthetic"), "{command:?}\n{out}");
    }
}

#[test]
fn losses_are_listed_and_end_with_their_own_code() {
    let dir = tempfile::tempdir().expect("a directory");
    let source = dir.path().join("losses");
    synth(&source, &["--images", "30", "--losses"]);
    let output = dir.path().join("corpus.h5");
    let (code, out, err) = run(stratigraph(2).arg("import").arg(&source).arg("-o").arg(&output));
    assert_eq!(code, 3, "{out}{err}");
    let corpus = Corpus::load(&output).expect("a corpus");
    for kind in LOSSES {
        assert!(corpus.oddities.count(kind) > 0, "{kind:?}");
    }
    assert!(corpus.study_images().len() >= 30);
}

#[test]
fn numbers_that_cannot_be_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let output = dir.path().join("x.h5");
    let occupied = dir.path().join("occupied");
    std::fs::create_dir(&occupied).expect("a directory");
    std::fs::write(occupied.join("mine"), "precious").expect("a file");
    for (options, place) in [
        (["--images", "0"], &output),
        (["--images", "10000000000000"], &output),
        (["--digests", "4000000"], &output),
        (["--repositories", "3"], &output),
        (["--images", "10"], &occupied),
        (["--images", "10"], &dir.path().join("no/such/place.h5")),
    ] {
        let (code, out, err) = run(stratigraph(1).arg("synth").arg("-o").arg(place).args(options));
        assert!(matches!(code, 2 | 4), "{options:?} {}: {code} {out}{err}", place.display());
        assert_eq!(err.lines().count(), 1, "{err}");
        assert!(out.is_empty(), "{out}");
    }
    assert!(!output.exists());
    assert_eq!(tree(&occupied).len(), 1);
}
