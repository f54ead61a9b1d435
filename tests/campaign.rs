//! `stratigraph run` with the real binary: what is done is not done again, what changed is, and the
//! sample gives what is in `results/reference`.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;
use support::{
    finished_bytes_of, ranks, refused, results_in, run, sample, stratigraph, succeed, terminated_when, tiles,
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// `stratigraph run` of a campaign file on a source.
fn campaign(config: &Path, source: &Path, out: &Path) -> Command {
    let mut command = stratigraph(2);
    command.arg("run").arg(config).arg("--source").arg(source).arg("--out").arg(out);
    command
}

fn config() -> PathBuf {
    root().join("configs/sample.toml")
}

/// The sample's campaign with one key changed is refused, each time for this reason.
fn refused_if_changed(changes: &[(&str, &str, &str)], config_file: &Path, source: &Path, out: &Path) {
    let text = std::fs::read_to_string(config()).unwrap();
    for (from, to, reason) in changes {
        assert!(text.contains(from), "{from}");
        std::fs::write(config_file, text.replace(from, to)).unwrap();
        refused(&mut campaign(config_file, source, out), 4, reason);
    }
}

/// When the results were written.
fn written(out: &Path) -> [SystemTime; 6] {
    ["corpus.h5", "stats.json", "jaccard.h5", "documents.h5", "vectors.h5", "cosine.h5"]
        .map(|name| out.join(name).metadata().unwrap().modified().unwrap())
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-r").arg(from).arg(to).status().unwrap().success());
}

#[test]
fn the_sample_gives_the_reference() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let text = succeed(&mut campaign(&config(), &sample(), &out));
    for part in ["where the time went", "import", "stats", "tokenize", "embed", "cosine", "jaccard", "reduce"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    let reference = root().join("results/reference");
    for name in ["summary.txt", "summary.json"] {
        let (found, kept) = (std::fs::read_to_string(out.join(name)), reference.join(name));
        let (found, kept) = (found.unwrap(), std::fs::read_to_string(kept).unwrap());
        for (found, kept) in found.lines().zip(kept.lines()) {
            assert_eq!(found, kept, "{name}: `make reference` writes it anew after a deliberate change");
        }
        assert!(found == kept, "{name}: another number of lines");
    }
    let several = dir.path().join("several");
    succeed(ranks(2, 1).arg("run").arg(config()).arg("--source").arg(sample()).arg("--out").arg(&several));
    assert!(results_in(&several) == results_in(&out), "other bits on two ranks");
    // Scores of other documents are not told beside these, even without the vectors between them.
    std::fs::remove_file(several.join("vectors.h5")).unwrap();
    let tokens = several.join("tokens.json");
    let mut other: serde_json::Value = serde_json::from_slice(&std::fs::read(&tokens).unwrap()).unwrap();
    other["documents_id"] = "0".repeat(64).into();
    std::fs::write(&tokens, other.to_string()).unwrap();
    refused(stratigraph(1).arg("reduce").arg(&several), 4, "do not come of each other");
}

#[test]
fn only_what_changed_is_run_again() {
    let dir = tempfile::tempdir().unwrap();
    let (source, out) = (dir.path().join("sample"), dir.path().join("out"));
    copy(&sample(), &source);
    succeed(&mut campaign(&config(), &source, &out));
    let (first, results) = (written(&out), results_in(&out));

    let text = succeed(&mut campaign(&config(), &source, &out));
    assert_eq!(text.matches("up to date").count(), 3, "{text}");
    assert_eq!(text.matches("done before, nothing to do").count(), 3, "{text}");
    assert_eq!(written(&out), first);

    // One result is gone: it alone is made again.
    std::fs::remove_file(out.join("stats.json")).unwrap();
    succeed(&mut campaign(&config(), &source, &out));
    let second = written(&out);
    assert_eq!((second[0], &second[2..]), (first[0], &first[2..]));
    assert!(second[1] > first[1]);
    assert!(results_in(&out) == results);
    // The same documents give the same vectors, so what is made of those is still right.
    for (name, made) in [("tokens.json", 3), ("vectors.h5", 4)] {
        let before = written(&out);
        std::fs::remove_file(out.join(name)).unwrap();
        succeed(&mut campaign(&config(), &source, &out));
        let after = written(&out);
        for (k, (before, after)) in before.iter().zip(&after).enumerate() {
            assert_eq!(after > before, k == made, "{name}: file {k}");
        }
        assert!(results_in(&out) == results);
    }
    // An older file of documents beside a newer account of them, or none.
    for spoil in [&b""[..], b"no HDF5"] {
        std::fs::write(out.join("documents.h5"), spoil).unwrap();
        succeed(&mut campaign(&config(), &source, &out));
        assert!(results_in(&out) == results);
    }

    // Other options, another source, the source changed: never mixed in silence.
    let other = dir.path().join("other.toml");
    let changes = [
        ("min = 0.5", "min = 0.75", "[jaccard] differs"),
        ("as_published = true", "as_published = false", "[cosine] differs"),
        ("dims = 32", "dims = 31", "[embed] differs"),
        ("scheme = \"cumulative\"", "scheme = \"per-layer\"", "[tokenize] differs"),
    ];
    refused_if_changed(&changes, &other, &source, &out);
    // What does not come of the changed table is kept.
    let text = std::fs::read_to_string(config()).unwrap();
    for (change, made) in changes.iter().zip([&[2][..], &[5], &[4, 5], &[3, 4, 5]]) {
        std::fs::write(&other, text.replace(change.0, change.1)).unwrap();
        let before = written(&out);
        for config in [&other, &config()] {
            succeed(campaign(config, &source, &out).arg("--overwrite"));
        }
        let after = written(&out);
        for (k, (before, after)) in before.iter().zip(&after).enumerate() {
            assert_eq!(after > before, made.contains(&k), "{}: file {k}", change.0);
        }
        assert!(results_in(&out) == results, "{}", change.0);
    }
    let second = written(&out);
    refused(&mut campaign(&config(), &sample(), &out), 4, "its source differs");
    let file = source.join("registry/synthetic-lab-001/aligner/manifests-config-layers.json");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text}\n")).unwrap();
    refused(&mut campaign(&config(), &source, &out), 4, "the source has changed since");
    assert!(results_in(&out) == results);
    succeed(campaign(&config(), &source, &out).arg("--overwrite"));
    let third = written(&out);
    assert!(second.iter().zip(&third).all(|(before, after)| after > before));
}

#[test]
fn a_small_matrix_is_for_small_corpora() {
    let dir = tempfile::tempdir().unwrap();
    for (images, expected) in [(4096, true), (4097, false)] {
        let crawl = dir.path().join(format!("{images}.h5"));
        one_repository(&dir.path().join(format!("crawl-{images}")), images, &crawl);
        let out = dir.path().join(format!("out-{images}"));
        succeed(&mut campaign(&config(), &crawl, &out));
        assert_eq!(out.join("matrix.h5").exists(), expected, "{images}");
    }
}

/// A corpus of one repository with so many tags of one layer each.
fn one_repository(directory: &Path, images: usize, corpus: &Path) {
    let place = directory.join("registry/lab/tool");
    std::fs::create_dir_all(&place).unwrap();
    let rows = |row: &dyn Fn(usize) -> String| (0..images).map(row).collect::<Vec<_>>().join(",");
    let manifests = rows(&|i| {
        let digest = format!("sha256:{:064x}", i % 7);
        format!(
            r#""t{i}": {{"schemaVersion": 2, "mediaType": "m", "layers": [{{"digest": "{digest}", "size": 1}}]}}"#
        )
    });
    let configs = rows(&|i| format!(r#""t{i}": {{"created": "2024-01-01T00:00:00Z"}}"#));
    let text = format!(r#"{{"tags": [], "manifests": {{{manifests}}}, "configs": {{{configs}}}}}"#);
    std::fs::write(place.join("manifests-config-layers.json"), text).unwrap();
    succeed(stratigraph(2).arg("import").arg(directory).arg("-o").arg(corpus));
}

#[test]
fn campaigns_of_nothing_and_of_one_image() {
    for images in [0, 1] {
        let dir = tempfile::tempdir().unwrap();
        let (corpus, out) = (dir.path().join("c.h5"), dir.path().join("out"));
        one_repository(&dir.path().join("crawl"), images, &corpus);
        succeed(&mut campaign(&config(), &corpus, &out));
        let summary: serde_json::Value =
            serde_json::from_slice(&std::fs::read(out.join("summary.json")).unwrap()).unwrap();
        assert_eq!(summary["stats"]["images"], images);
        assert_eq!(summary["jaccard"]["pairs"], 0);
        assert_eq!(summary["documents"]["vocabulary"], 0);
        assert!(summary["cosine"].is_null());
    }
}

#[test]
fn a_stopped_campaign_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (out, alone) = (dir.path().join("out"), dir.path().join("alone"));
    succeed(&mut campaign(&config(), &sample(), &alone));
    let slowly = |variable: &str, delay: &str| {
        let mut command = campaign(&config(), &sample(), &out);
        command.env(variable, delay);
        command
    };
    // In the documents, in the vectors after some epochs, and in the pairs after some tiles.
    let journal = out.join("journal-cosine");
    let (code, text) = terminated_when(&mut slowly("STRATIGRAPH_PIECE_DELAY_MS", "10000"), || {
        out.join("stats.json").exists()
    });
    assert!(code == 75 && text.contains("start the same command again"), "{code}: {text}");
    assert!(!out.join("documents.h5").exists());
    let (code, text) = terminated_when(&mut slowly("STRATIGRAPH_EPOCH_DELAY_MS", "500"), || {
        out.join("vectors.h5.checkpoint").exists()
    });
    assert!(code == 75 && text.contains("start the same command again"), "{code}: {text}");
    assert!(!out.join("vectors.h5").exists());
    let mut command = slowly("STRATIGRAPH_TILE_DELAY_MS", "500");
    let (code, text) = terminated_when(&mut command, || finished_bytes_of(&journal) > 0);
    assert!(code == 75 && text.contains("goes on after"), "{code}: {text}");
    let mut several = ranks(2, 1);
    several.arg("run").arg(config()).arg("--source").arg(sample()).arg("--out").arg(&out);
    let text = succeed(&mut several);
    let [all, found, computed] = tiles(text.split("== similarity of all images").next().unwrap());
    assert!(found > 0 && computed > 0 && found + computed == all, "{text}");
    assert!(results_in(&out) == results_in(&alone), "other bits after restarts");
}

#[test]
fn a_plan_says_what_is_needed_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let planned =
        |command: &mut Command| succeed(command.args(["--plan", "--plan-ranks", "8", "--plan-threads", "4"]));
    let text = planned(&mut campaign(&config(), &sample(), &out));
    for part in
        ["plan for 8 rank(s) x 4 thread(s)", "import", "tokenize", "embed", "cosine", "jaccard", "expected"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("does not fit"), "{text}");
    let text = planned(campaign(&config(), &sample(), &out).args(["--memory", "64K"]));
    assert!(text.contains("does not fit here: ") && text.contains("64.0 KiB may be used"), "{text}");
    assert!(!out.exists());
    // Tiles and pairs are those of the run; with its vectors there, too.
    let ran = succeed(&mut campaign(&config(), &sample(), &out));
    let before = results_in(&out);
    let again = planned(&mut campaign(&config(), &sample(), &out));
    let pairs = ran.lines().find(|l| l.contains("distinct,") && l.contains("pairs,")).unwrap();
    let pairs = pairs.split(", ").find_map(|part| part.strip_suffix(" pairs")).unwrap();
    assert!(again.contains(&format!("{pairs} pairs of 32 values")), "{pairs}: {again}");
    assert!(results_in(&out) == before);
    // What is not there is named when the rest is summed up.
    let reduced = || succeed(stratigraph(1).arg("reduce").arg(&out));
    assert!(!reduced().contains("not in it"));
    std::fs::remove_file(out.join("cosine.json")).unwrap();
    let text = reduced();
    assert!(text.contains("not in it: cosine.json, which the campaign of this directory asks for"), "{text}");
    let mut several = ranks(2, 1);
    several.arg("run").arg(config()).arg("--source").arg(sample()).arg("--out").arg(&out).arg("--plan");
    let (code, _, err) = run(&mut several);
    assert!(code == 4 && err.contains("--plan is for one process"), "{code}: {err}");
}

#[test]
fn a_plan_for_a_published_table() {
    let dir = tempfile::tempdir().unwrap();
    let (table, config) = (dir.path().join("table.csv"), dir.path().join("table.toml"));
    let rows =
        [("a", "1", 'a'), ("a", "1", 'b'), ("a", "2", 'a'), ("b", "1", 'c')].map(|(name, tag, digest)| {
            let digest = digest.to_string().repeat(64);
            format!("{name}:{tag},{name},{tag},sha256:{digest},10,2023-01-01T00:00:00Z\n")
        });
    std::fs::write(&table, format!("full_uri,uri,tag,digest,size,created_at\n{}", rows.concat())).unwrap();
    let text =
        format!("name = \"t\"\nsource = \"{}\"\noutput = \"o\"\n[stats]\n[jaccard]\n", table.display());
    std::fs::write(&config, text).unwrap();
    let text = succeed(stratigraph(1).arg("run").arg(&config).arg("--plan"));
    assert!(text.contains("4 layers") && text.contains("3 pairs of sets"), "{text}");
}

#[test]
fn a_campaign_of_dockerfiles() {
    let dir = tempfile::tempdir().unwrap();
    let (files, config, out) = (dir.path().join("files"), dir.path().join("c.toml"), dir.path().join("out"));
    for (k, text) in ["FROM a\nRUN apt-get update\n", "FROM a\nRUN make\n", "FROM b\n"].iter().enumerate() {
        let place = files.join(format!("rseng/lab/tool{k}"));
        std::fs::create_dir_all(&place).unwrap();
        std::fs::write(place.join("Dockerfile"), text).unwrap();
    }
    let text = "name = 'd'\nsource = 's'\noutput = 'o'\n[tokenize]\nscheme = 'dockerfiles'\n\
                [embed]\ndims = 4\nmin_count = 1\n[cosine]\n";
    std::fs::write(&config, text).unwrap();
    succeed(&mut campaign(&config, &files, &out));
    let summary = std::fs::read_to_string(out.join("summary.txt")).unwrap();
    assert!(summary.contains("cosine of dockerfiles") && summary.contains("files without USER"), "{summary}");
    let text = succeed(&mut campaign(&config, &files, &out));
    assert!(text.contains("documents.h5: up to date"), "{text}");
    std::fs::write(files.join("rseng/lab/tool0/Dockerfile"), "FROM c\nRUN ls\n").unwrap();
    refused(&mut campaign(&config, &files, &out), 4, "the source has changed since");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{text}[stats]\n")).unwrap();
    refused(&mut campaign(&config, &files, &out), 4, "leave [stats] and [jaccard] out");
}

#[test]
fn campaign_files_and_directories_that_are_none() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    refused(&mut campaign(dir.path(), &sample(), &out), 4, "irectory");
    refused(&mut campaign(&dir.path().join("none.toml"), &sample(), &out), 4, "none.toml");
    let wrong = dir.path().join("wrong.toml");
    std::fs::write(&wrong, "name = 'a'\nsource = 'b'\noutput = 'c'\n[jaccard]\nmatrix = 'huge'\n").unwrap();
    refused(
        &mut campaign(&wrong, &sample(), &out),
        4,
        "wrong.toml: line 5: matrix is true, false or \"small\"",
    );
    refused(&mut campaign(&config(), &dir.path().join("none"), &out), 4, "none");
    // What a later stage would refuse is refused before the first.
    let changes = [
        ("[cosine]\n", "[cosine]\nedges = [1.0, 0.0]\n", "wrong.toml: [cosine] --edges"),
        ("[cosine]\n", "[cosine]\nmin = nan\n", "wrong.toml: [cosine] --min"),
        ("min = 0.5\n", "min = 7.0\n", "wrong.toml: [jaccard] --min"),
        ("dims = 32\n", "dims = 0\n", "wrong.toml: [embed]"),
    ];
    refused_if_changed(&changes, &wrong, &sample(), &out);
    assert!(!out.join("corpus.h5").exists(), "a stage has run");
    // A file where the results directory should be.
    let out = dir.path().join("file");
    std::fs::write(&out, "mine").unwrap();
    let (code, text, err) = run(&mut campaign(&config(), &sample(), &out));
    assert!(matches!(code, 4 | 74) && err.lines().count() == 1, "{code}: {text}{err}");
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "mine");
}

#[test]
fn what_is_lost_stays_told() {
    let dir = tempfile::tempdir().unwrap();
    let (source, out) = (dir.path().join("sample"), dir.path().join("out"));
    copy(&sample(), &source);
    let place = source.join("registry/lab/broken");
    std::fs::create_dir_all(&place).unwrap();
    std::fs::write(place.join("manifests-config-layers.json"), "{\"manifests\": [").unwrap();
    for start in ["first", "again"] {
        let (code, text, err) = run(&mut campaign(&config(), &source, &out));
        assert_eq!(code, 3, "{start}: {text}{err}");
    }
    let (files, config) = (dir.path().join("files"), dir.path().join("c.toml"));
    std::fs::create_dir_all(files.join("rseng/lab/tool/Dockerfile/not-a-file")).unwrap();
    std::fs::create_dir_all(files.join("rseng/lab/other")).unwrap();
    std::fs::write(files.join("rseng/lab/other/Dockerfile"), "FROM a\n").unwrap();
    std::os::unix::fs::symlink("Dockerfile", files.join("rseng/lab/tool/Dockerfile/Dockerfile")).unwrap();
    let text = "name = 'd'\nsource = 's'\noutput = 'o'\n[tokenize]\nscheme = 'dockerfiles'\n";
    std::fs::write(&config, text).unwrap();
    let out = dir.path().join("dockerfiles");
    for start in ["first", "again"] {
        let (code, text, err) = run(&mut campaign(&config, &files, &out));
        assert_eq!(code, 3, "{start}: {text}{err}");
    }
}

#[test]
fn a_list_belongs_to_the_campaign_and_results_not_to_the_source() {
    let dir = tempfile::tempdir().unwrap();
    let (out, other, list) = (dir.path().join("out"), dir.path().join("c.toml"), dir.path().join("list"));
    let corpus = dir.path().join("crawl.h5");
    one_repository(&dir.path().join("crawl"), 12, &corpus);
    let names: Vec<_> = (0..12).map(|i| format!("lab/tool:t{i}")).collect();
    let text = format!(
        "name = 'l'\nsource = 's'\noutput = 'o'\n[jaccard]\nsubset = '{}'\nmin = 0.25\n",
        list.display()
    );
    std::fs::write(&other, text).unwrap();
    refused(&mut campaign(&other, &corpus, &out), 4, "list: ");
    std::fs::write(&list, names[..5].join("\n")).unwrap();
    succeed(&mut campaign(&other, &corpus, &out));
    let before = results_in(&out);
    succeed(&mut campaign(&other, &corpus, &out));
    std::fs::write(&list, names[..6].join("\n")).unwrap();
    refused(&mut campaign(&other, &corpus, &out), 4, "the list of images has changed since");
    assert!(results_in(&out) == before);
    succeed(campaign(&other, &corpus, &out).arg("--overwrite"));
    assert!(results_in(&out) != before);

    let crawl = dir.path().join("crawl");
    refused(&mut campaign(&config(), &crawl, &crawl.join("results/a")), 4, "lies inside the source");
    assert!(!crawl.join("results").exists());
}

/// Under `mpirun` standard error is a pipe; the bars still reach the terminal behind it, and only a
/// terminal.
#[test]
fn bars_on_a_terminal_and_lines_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let bar = "\u{1b}[";
    let mut plain = ranks(2, 1);
    plain.arg("run").arg(config()).arg("--source").arg(sample()).arg("--out").arg(dir.path().join("plain"));
    let text = succeed(&mut plain);
    assert!(!text.contains(bar), "{text:?}");
    for launch in ["mpirun --oversubscribe --bind-to none -n 2", ""] {
        let out = dir.path().join(if launch.is_empty() { "alone" } else { "ranks" });
        let line = format!(
            "{launch} {} run {} --source {} --out {}",
            env!("CARGO_BIN_EXE_stratigraph"),
            config().display(),
            sample().display(),
            out.display()
        );
        let mut script = Command::new("timeout");
        script.args(["120", "script", "--quiet", "--return", "--command", &line, "/dev/null"]);
        script.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
        script.env("TERM", "xterm").stdin(std::process::Stdio::null());
        let text = succeed(&mut script);
        assert!(text.contains(bar) && text.contains("import ["), "{launch}: {text:?}");
    }
}
