//! `jaccard` and `reduce` on bad input, on the smallest corpora, and on a full disk: each has a
//! defined answer, in one line, and nothing that was there is lost.

mod support;

use serde_json::Value;
use std::path::{Path, PathBuf};
use support::{finished_bytes, ranks, results_in, run, stratigraph, succeed};

/// A corpus of so many images, each with the layers that `layers` names.
fn corpus(directory: &Path, images: &[&[u8]]) -> PathBuf {
    let crawl = directory.join("crawl/registry/lab/tool");
    std::fs::create_dir_all(&crawl).expect("a directory");
    let (mut manifests, mut configs) = (serde_json::Map::new(), serde_json::Map::new());
    for (i, layers) in images.iter().enumerate() {
        let digest = |n: &u8| format!("sha256:{:064x}", u32::from(*n) + 1);
        let media_type = "application/vnd.docker.image.rootfs.diff.tar.gzip";
        let layers = layers
            .iter()
            .map(|n| serde_json::json!({"mediaType": media_type, "size": 100, "digest": digest(n)}));
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": {"digest": digest(&200), "size": 7},
            "layers": layers.collect::<Vec<_>>(),
        });
        manifests.insert(format!("t{i}"), manifest);
        configs.insert(format!("t{i}"), serde_json::json!({"created": "2024-05-01T00:00:00Z"}));
    }
    let tags: Vec<_> = manifests.keys().cloned().collect();
    let text = serde_json::json!({"tags": tags, "manifests": manifests, "configs": configs}).to_string();
    std::fs::write(crawl.join("manifests-config-layers.json"), text).expect("a file");
    let corpus = directory.join("corpus.h5");
    succeed(stratigraph(1).arg("import").arg(directory.join("crawl")).arg("-o").arg(&corpus));
    corpus
}

fn sample(directory: &Path) -> PathBuf {
    let corpus = directory.join("sample.h5");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/sample");
    succeed(stratigraph(2).arg("import").arg(source).arg("-o").arg(&corpus));
    corpus
}

fn jaccard(corpus: &Path, output: &Path, options: &[&str]) -> (i32, String, String) {
    run(stratigraph(1).arg("jaccard").arg(corpus).arg("-o").arg(output).args(options))
}

fn summary(output: &Path) -> Value {
    let text = std::fs::read(output.join("jaccard.json")).expect("a summary");
    serde_json::from_slice(&text).expect("JSON")
}

/// The command is refused with this code, and one line of the error says `what`.
fn refused((code, out, err): (i32, String, String), expected: i32, what: &str) {
    assert_eq!(code, expected, "{out}{err}");
    assert!(err.lines().count() == 1 && err.contains(what), "expected `{what}`: {err}");
}

#[test]
fn options_out_of_range_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let (corpus, output) = (sample(dir.path()), dir.path().join("out"));
    for (options, code, what) in [
        (["--min", "1.5"], 4, "--min 1.5: a threshold is above 0 and at most 1"),
        (["--min", "0"], 4, "a threshold is above 0"),
        (["--min", "-0.5"], 4, "a threshold is above 0"),
        (["--min", "NaN"], 4, "a threshold is above 0"),
        (["--edges", "1,0"], 4, "ascending"),
        (["--edges", "0.5"], 4, "two or more"),
        (["--memory", "1K"], 5, "only 1024 may be used"),
        (["--subset", "/nonexistent"], 4, "/nonexistent"),
    ] {
        refused(jaccard(&corpus, &output, &options), code, what);
    }
    assert!(!output.join("jaccard.json").exists());
    // More neighbours than there are: each set has all others that it shares something with.
    let (code, out, err) = jaccard(&corpus, &output, &["--top-k", "1000000"]);
    assert_eq!(code, 0, "{out}{err}");
    let summary = summary(&output);
    let others = summary["distinct_sets"].as_u64().expect("a number") - 1;
    assert_eq!(summary["neighbours_per_set"], others);
}

#[test]
fn files_that_are_no_corpus_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let (corpus, output) = (sample(dir.path()), dir.path().join("out"));
    let bytes = std::fs::read(&corpus).expect("a file");
    let file = |name: &str, content: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).expect("a file");
        path
    };
    refused(jaccard(&dir.path().join("none.h5"), &output, &[]), 4, "none.h5");
    refused(jaccard(&file("empty.h5", b""), &output, &[]), 4, "the file is empty");
    refused(jaccard(&file("text.h5", b"no HDF5"), &output, &[]), 4, "cannot be read as HDF5");
    for part in 1..5 {
        refused(jaccard(&file("cut.h5", &bytes[..bytes.len() * part / 5]), &output, &[]), 4, "cut.h5");
    }
    // A bit here and there: refused with its place, or, where it is a digest's letter, another corpus.
    for seed in 0..16usize {
        let mut damaged = bytes.clone();
        for flip in 0..4 {
            let at = (seed * 7919 + flip * 104_729 + 13) * 2_654_435_761 % damaged.len();
            damaged[at] ^= 1 << (seed % 8);
        }
        let (code, out, err) = jaccard(&file("damaged.h5", &damaged), &output, &["--plan"]);
        assert!(code == 0 || code == 4 && err.lines().count() == 1, "seed {seed}: {code} {out}{err}");
    }
    succeed(stratigraph(1).arg("jaccard").arg(&corpus).arg("-o").arg(&output));
    refused(jaccard(&output.join("jaccard.h5"), &output, &[]), 4, "is a `jaccard` file, but a `corpus` file");
}

#[test]
fn results_of_another_corpus_are_kept() {
    let dir = tempfile::tempdir().expect("a directory");
    let output = dir.path().join("out");
    let other = corpus(dir.path(), &[&[0, 1], &[1, 2]]);
    succeed(stratigraph(1).arg("jaccard").arg(sample(dir.path())).arg("-o").arg(&output));
    let before = results_in(&output);
    refused(jaccard(&other, &output, &[]), 4, "holds results of another corpus");
    assert!(results_in(&output) == before);
    // Files of two runs side by side are not summed up.
    succeed(stratigraph(1).arg("jaccard").arg(&other).arg("-o").arg(dir.path().join("other")));
    std::fs::copy(dir.path().join("other/jaccard.h5"), output.join("jaccard.h5")).expect("a copy");
    refused(run(stratigraph(1).arg("reduce").arg(&output)), 4, "another run");
    assert!(!output.join("summary.json").exists());
    refused(run(stratigraph(1).arg("reduce").arg(dir.path())), 4, "holds no results");
    std::fs::write(output.join("jaccard.json"), "{").expect("a file");
    refused(run(stratigraph(1).arg("reduce").arg(&output)), 4, "jaccard.json");
}

/// Numbers that do not follow from the counts beside them are not told.
#[test]
fn a_changed_summary_is_noticed() {
    let dir = tempfile::tempdir().expect("a directory");
    let output = dir.path().join("out");
    succeed(stratigraph(1).arg("jaccard").arg(sample(dir.path())).arg("-o").arg(&output));
    succeed(stratigraph(1).arg("reduce").arg(&output));
    let whole = summary(&output);
    for (way, key) in [("images", "mean"), ("distinct_sets", "histogram"), ("images", "score_zero")] {
        let mut changed = whole.clone();
        let told = &mut changed["counts"][way][key];
        match told.as_object_mut() {
            // One pair from one bin to another.
            Some(histogram) => {
                let counts = histogram["counts"].as_array_mut().expect("counts");
                let full = counts.iter().position(|n| n.as_u64() > Some(0)).expect("a pair");
                let other = (full + 1) % counts.len();
                counts[full] = (counts[full].as_u64().unwrap() - 1).into();
                counts[other] = (counts[other].as_u64().unwrap() + 1).into();
            }
            None => *told = 1.into(),
        }
        assert!(changed != whole);
        std::fs::write(output.join("jaccard.json"), changed.to_string()).expect("a file");
        refused(run(stratigraph(1).arg("reduce").arg(&output)), 4, "another histogram or mean");
    }
}

#[test]
fn the_smallest_corpora_have_results() {
    let no_image: &[&[u8]] = &[];
    for (images, pairs, zero, one, mean) in [
        (no_image, 0, 0, 0, None),
        (&[&[0, 1]], 0, 0, 0, None),
        (&[&[0], &[0]], 1, 0, 1, Some(1.0)),
        (&[&[0], &[1], &[0]], 3, 2, 1, Some(1.0 / 3.0)),
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let corpus = corpus(dir.path(), images);
        let options = ["--matrix", "--top-k", "3", "--min", "0.5"];
        let alone = dir.path().join("alone");
        succeed(stratigraph(1).arg("jaccard").arg(&corpus).arg("-o").arg(&alone).args(options));
        let summary = summary(&alone);
        let all = &summary["counts"]["images"];
        assert_eq!(summary["images"], images.len());
        assert_eq!((&all["pairs"], &all["score_zero"]), (&pairs.into(), &zero.into()), "{summary}");
        assert_eq!(all["score_one"], one);
        assert_eq!(all["mean"], mean.map_or(Value::Null, Value::from));
        succeed(stratigraph(1).arg("reduce").arg(&alone));
        // More ranks than tiles.
        let several = dir.path().join("several");
        succeed(ranks(3, 1).arg("jaccard").arg(&corpus).arg("-o").arg(&several).args(options));
        succeed(stratigraph(1).arg("reduce").arg(&several));
        assert!(results_in(&alone) == results_in(&several));
    }
}

#[test]
fn a_full_disk_is_told_and_costs_no_finished_tile() {
    let dir = tempfile::tempdir().expect("a directory");
    let (corpus, small) = (sample(dir.path()), dir.path().join("small"));
    std::fs::create_dir(&small).expect("a directory");
    let mount = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=6m", "tmpfs"])
        .arg(&small)
        .output();
    if !mount.is_ok_and(|o| o.status.success()) {
        println!("skipped: tmpfs cannot be mounted here (needs root)");
        return;
    }
    let _mounted = Mounted(small.clone());
    let output = small.join("out");
    // Known beforehand.
    refused(jaccard(&corpus, &output, &["--tile-rows", "1"]), 5, "the results directory needs");
    // Not known beforehand: another program takes the space while the run is on its way.
    let options = ["--top-k", "0", "--tile-rows", "16"];
    let mut slow = stratigraph(1);
    slow.arg("jaccard").arg(&corpus).arg("-o").arg(&output).args(options);
    let child = slow
        .env("STRATIGRAPH_TILE_DELAY_MS", "300")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("it starts");
    while finished_bytes(&output) == 0 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let fill = small.join("fill");
    // `write` ends with the error that the disk is full; that is what it is for.
    let _ = std::fs::write(&fill, vec![1u8; 8 << 20]);
    let ended = child.wait_with_output().expect("a child");
    let err = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(74), "{err}");
    assert!(err.lines().count() == 1 && err.contains("out"), "{err}");
    assert!(!output.join("jaccard.json").exists());
    std::fs::remove_file(&fill).expect("space again");
    let (code, out, err) = jaccard(&corpus, &output, &options);
    assert_eq!(code, 0, "{out}{err}");
    assert!(support::tiles(&out)[1] > 0, "finished tiles were lost: {out}");
    let alone = dir.path().join("alone");
    succeed(stratigraph(1).arg("jaccard").arg(&corpus).arg("-o").arg(&alone).args(options));
    assert!(results_in(&output) == results_in(&alone));
}

struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
