//! `stratigraph export` with the real binary: the study's columns, every row, in both formats; and
//! what it says to bad input.

mod support;

use std::path::{Path, PathBuf};
use stratigraph::corpus::Corpus;
use support::{refused, run, sample, small_disk, stratigraph, succeed};

const COLUMNS: [&str; 12] = [
    "id",
    "full_uri",
    "uri",
    "tag",
    "layer_number",
    "architecture",
    "digest",
    "os",
    "size",
    "schema_version",
    "category",
    "created_at",
];

fn corpus(directory: &Path) -> PathBuf {
    let corpus = directory.join("corpus.h5");
    succeed(stratigraph(2).arg("import").arg(sample()).arg("-o").arg(&corpus));
    corpus
}

fn export(corpus: &Path, format: &str, to: &Path) -> std::process::Command {
    let mut command = stratigraph(1);
    command.arg("export").arg(corpus).arg(format).arg(to);
    command
}

#[test]
fn both_formats_hold_the_study_s_table() {
    let dir = tempfile::tempdir().unwrap();
    let path = corpus(dir.path());
    let (csv, sqlite) = (dir.path().join("t.csv"), dir.path().join("t.sqlite"));
    succeed(export(&path, "--csv", &csv).arg("--sqlite").arg(&sqlite));

    let corpus = Corpus::load(&path).unwrap();
    let mut expected = Vec::new();
    for m in corpus.study_images() {
        let name = corpus.image_name(m as usize);
        for (k, l) in corpus.layers_of(m as usize).enumerate() {
            let digest = corpus.digests.get(corpus.layers.digest[l]);
            expected.push(format!("{name} {k} {digest} {}", corpus.layers.size[l]));
        }
    }
    assert!(expected.len() > 200);

    let mut reader = csv::Reader::from_path(&csv).unwrap();
    // The column without a name is pandas' index.
    let header: Vec<String> = reader.headers().unwrap().iter().map(str::to_owned).collect();
    assert_eq!(header[0], "");
    assert_eq!(header[1..], COLUMNS);
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    let key = |r: &csv::StringRecord| format!("{} {} {} {}", &r[2], &r[5], &r[7], &r[9]);
    assert_eq!(rows.iter().map(key).collect::<Vec<_>>(), expected);

    let database = rusqlite::Connection::open(&sqlite).unwrap();
    let mut all = database.prepare("SELECT * FROM manifests ORDER BY id").unwrap();
    assert_eq!(all.column_names().collect::<Vec<_>>(), COLUMNS);
    let mut found = all.query([]).unwrap();
    let mut count = 0;
    while let Some(row) = found.next().unwrap() {
        for (i, column) in COLUMNS.iter().enumerate() {
            let value = match row.get_ref(i).unwrap() {
                rusqlite::types::ValueRef::Integer(n) => n.to_string(),
                rusqlite::types::ValueRef::Text(text) => String::from_utf8(text.to_vec()).unwrap(),
                other => panic!("row {count}: {column} is {other:?}"),
            };
            assert_eq!(value, &rows[count][i + 1], "row {count}: {column}");
        }
        count += 1;
    }
    assert_eq!(count, expected.len());
}

#[test]
fn files_that_are_no_corpus_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let corpus = corpus(dir.path());
    let to = dir.path().join("t.csv");
    succeed(&mut export(&corpus, "--csv", &to));
    let whole = std::fs::read(&to).unwrap();
    let results = dir.path().join("results");
    succeed(stratigraph(2).arg("jaccard").arg(&corpus).arg("-o").arg(&results));
    for (path, says) in [
        (dir.path().join("none.h5"), "none.h5"),
        (dir.path().to_owned(), "cannot be read as HDF5"),
        (results.join("jaccard.h5"), "is a `jaccard` file, but a `corpus` file"),
        (results.join("jaccard.json"), "cannot be read as HDF5"),
    ] {
        refused(&mut export(&path, "--csv", &to), 4, says);
        refused(stratigraph(1).arg("stats").arg(&path), 4, says);
    }
    // A bit here and there is noticed, unless it is one that means nothing.
    let bytes = std::fs::read(&corpus).unwrap();
    let damaged = dir.path().join("damaged.h5");
    let mut noticed = 0;
    for seed in 0..24usize {
        let mut copy = bytes.clone();
        let at = (seed * 7919 + 13) * 2_654_435_761 % copy.len();
        copy[at] ^= 1 << (seed % 8);
        std::fs::write(&damaged, copy).unwrap();
        let (code, out, err) = run(&mut export(&damaged, "--csv", &to));
        match code {
            4 => assert_eq!(err.lines().count(), 1, "byte {at}: {out}{err}"),
            _ => assert_eq!(code, 0, "byte {at}: {out}{err}"),
        }
        noticed += usize::from(code == 4);
        assert!(std::fs::read(&to).unwrap() == whole, "byte {at}: the table differs or is gone");
    }
    assert!(noticed >= 8, "{noticed}");
}

#[test]
fn pipes_and_links_stay_what_they_are() {
    use std::os::unix::fs::FileTypeExt;
    let dir = tempfile::tempdir().unwrap();
    let corpus = corpus(dir.path());
    let (file, link, pipe) = (dir.path().join("t.csv"), dir.path().join("link.csv"), dir.path().join("pipe"));
    std::fs::write(&file, "an older file").unwrap();
    std::os::unix::fs::symlink("t.csv", &link).unwrap();
    succeed(&mut export(&corpus, "--csv", &link));
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    let table = std::fs::read(&file).unwrap();
    assert!(table.len() > 1000);
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let got = dir.path().join("got");
    let mut reading = std::process::Command::new("cat")
        .arg(&pipe)
        .stdout(std::fs::File::create(&got).unwrap())
        .spawn()
        .expect("cat starts");
    succeed(&mut export(&corpus, "--csv", &pipe));
    assert!(reading.wait().unwrap().success() && std::fs::read(&got).unwrap() == table);
    assert!(std::fs::metadata(&pipe).unwrap().file_type().is_fifo());
    // One file cannot be two.
    refused(export(&corpus, "--csv", &file).arg("--sqlite").arg(&file), 4, "would be written twice");
    refused(export(&corpus, "--csv", &link).arg("--sqlite").arg(&file), 4, "would be written twice");
    assert!(std::fs::read(&file).unwrap() == table);
}

#[test]
fn what_cannot_be_printed_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let corpus = corpus(dir.path());
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").expect("the full device");
    for arguments in [&["inspect", "corpus.h5"][..], &["stats", "corpus.h5"], &["completions", "bash"]] {
        let output = stratigraph(1).current_dir(dir.path()).args(arguments).stdout(full()).output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(74), "{arguments:?}: {err}");
        assert!(err.contains("standard output cannot be written") && err.lines().count() == 1, "{err}");
    }
    assert!(corpus.exists());
}

#[test]
fn what_cannot_be_written_is_told_and_what_was_there_stays() {
    let dir = tempfile::tempdir().unwrap();
    let corpus = corpus(dir.path());
    let place = dir.path().join("small");
    std::fs::create_dir_all(place.join("taken")).unwrap();
    for format in ["--csv", "--sqlite"] {
        refused(&mut export(&corpus, format, &place.join("taken")), 74, "taken");
        refused(&mut export(&corpus, format, &dir.path().join("no/such")), 74, "no/such");
    }
    let Some(_disk) = small_disk(&place, "64k") else { return };
    for (format, name) in [("--csv", "t.csv"), ("--sqlite", "t.sqlite")] {
        let to = place.join(name);
        std::fs::write(&to, "an older file").unwrap();
        refused(&mut export(&corpus, format, &to), 74, name);
        assert_eq!(std::fs::read_to_string(&to).unwrap(), "an older file");
    }
    assert_eq!(std::fs::read_dir(&place).unwrap().count(), 2, "something is left over");
}
