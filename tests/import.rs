//! `stratigraph import` and `inspect` with the real binary: any source, any number of ranks and
//! threads, and every kind of bad input.

mod support;

use sha2::{Digest, Sha256};
use std::io::Write;
use std::path::{Path, PathBuf};
use stratigraph::corpus::{Corpus, Oddity};
use support::{ranks, refused, run, sample, shared, small_disk, stratigraph, succeed};

const GOOD: &str = r#"{"manifests": {"TAG": {"schemaVersion": 2, "mediaType": "m", "layers": [
    {"digest": "sha256:aa", "size": 7}, {"digest": "sha256:TAG", "size": 9}]}}, "tags": ["TAG"],
    "configs": {"TAG": {"created": "2020-01-01T00:00:00Z", "os": "linux", "architecture": "amd64",
    "history": [{"created_by": "ADD TAG in /"}, {"created_by": "RUN true"}]}}}"#;

/// A crawl of a few repositories; also names that no shell likes.
fn crawl(directory: &Path) -> PathBuf {
    let names = ["b", "a/x", "a-b/x", "docker.io/b", "<?php", "&&\tprintf", "z"];
    for (i, name) in names.iter().enumerate() {
        put(directory, name, GOOD.replace("TAG", &format!("t{i}")).as_bytes());
    }
    directory.to_owned()
}

fn put(directory: &Path, repository: &str, content: &[u8]) {
    let place = directory.join("registry").join(repository);
    std::fs::create_dir_all(&place).unwrap();
    std::fs::write(place.join("manifests-config-layers.json"), content).unwrap();
}

/// Packs the crawl in the order of the file system's names.
fn tar(directory: &Path) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_dir_all("registry", directory.join("registry")).unwrap();
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zst(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Imports and returns exit code, both outputs and the corpus file.
fn import(source: &Path, threads: usize) -> (i32, String, PathBuf) {
    let output = source.with_extension(format!("{threads}.h5"));
    let (code, out, err) = run(stratigraph(threads).arg("import").arg(source).arg("-o").arg(&output));
    (code, out + &err, output)
}

#[test]
fn ranks_and_threads_do_not_show() {
    let dir = tempfile::tempdir().unwrap();
    let source = crawl(&dir.path().join("crawl"));
    put(&source, "broken", b"{\"manifests\": ");
    let archive = dir.path().join("crawl.tar.zst");
    std::fs::write(&archive, zst(&tar(&source))).unwrap();
    for source in [&source, &archive] {
        let (code, text, first) = import(source, 1);
        assert_eq!(code, 3, "{text}");
        let first = std::fs::read(first).unwrap();
        let (_, _, second) = import(source, 2);
        assert!(std::fs::read(second).unwrap() == first, "2 threads");
        for (n, threads) in [(2, 1), (3, 1), (2, 2)] {
            let output = dir.path().join("ranks.h5");
            let (code, out, err) = run(ranks(n, threads).arg("import").arg(source).arg("-o").arg(&output));
            assert_eq!(code, 3, "{out}{err}");
            // One job of n ranks, not n jobs of one.
            assert_eq!(out.matches("\ncorpus: ").count(), 1, "{out}");
            assert!(std::fs::read(&output).unwrap() == first, "{n} ranks, {threads} threads");
        }
    }
}

#[test]
fn any_source_gives_the_same_corpus() {
    let dir = tempfile::tempdir().unwrap();
    let source = crawl(&dir.path().join("crawl"));
    let (code, text, output) = import(&source, 2);
    assert_eq!(code, 0, "{text}");
    let corpus = Corpus::load(&output).unwrap();
    // By path bytes: `a-b/` comes before `a/`, `docker.io/` before `z/`.
    let names: Vec<_> = corpus.repositories.iter().collect();
    assert_eq!(names, ["&&\tprintf", "<?php", "a-b/x", "a/x", "b", "docker.io/b", "z"]);
    assert_eq!(corpus.oddities.count(Oddity::RepositoryNameDebris), 2);
    assert_eq!(corpus.oddities.count(Oddity::RepositoryAlias), 2);
    let tar = tar(&source);
    for (name, bytes) in [("x.tar", tar.clone()), ("x.tgz", gzip(&tar)), ("misnamed", zst(&tar))] {
        let path = dir.path().join(name);
        std::fs::write(&path, &bytes).unwrap();
        let (code, text, output) = import(&path, 2);
        assert_eq!(code, 0, "{name}: {text}");
        let other = Corpus::load(&output).unwrap();
        assert_eq!(other.id(), corpus.id(), "{name}");
        assert_eq!(other.oddities, corpus.oddities, "{name}");
        let sum = hex(&Sha256::digest(&bytes));
        assert_eq!(other.provenance.source_sha256, sum, "{name}");
    }
}

#[test]
fn a_repository_may_be_called_registry() {
    let dir = tempfile::tempdir().unwrap();
    let source = crawl(&dir.path().join("crawl"));
    put(&source, "registry", GOOD.replace("TAG", "r").as_bytes());
    put(&source, "library/registry", GOOD.replace("TAG", "r").as_bytes());
    let expected =
        ["&&\tprintf", "<?php", "a-b/x", "a/x", "b", "docker.io/b", "library/registry", "registry", "z"];
    let inside = dir.path().join("inside.tar");
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_dir_all(".", source.join("registry")).unwrap();
    std::fs::write(&inside, builder.into_inner().unwrap()).unwrap();
    let outside = dir.path().join("outside.tar");
    std::fs::write(&outside, tar(&source)).unwrap();
    let renamed = dir.path().join("renamed");
    std::fs::create_dir(&renamed).unwrap();
    std::os::unix::fs::symlink(source.join("registry"), renamed.join("link")).unwrap();
    for source in [&source, &source.join("registry"), &renamed.join("link"), &inside, &outside] {
        let output = dir.path().join("out.h5");
        let (code, out, err) = run(stratigraph(2).arg("import").arg(source).arg("-o").arg(&output));
        assert_eq!(code, 0, "{out}{err}");
        let corpus = Corpus::load(&output).unwrap();
        let names: Vec<_> = corpus.repositories.iter().collect();
        assert_eq!(names, expected, "{}", source.display());
    }
}

#[test]
fn bad_files_are_named_and_nothing_else_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let source = crawl(&dir.path().join("crawl"));
    let good = GOOD.replace("TAG", "v");
    put(&source, "bad/cut", &good.as_bytes()[..100]);
    put(&source, "bad/empty", b"");
    put(
        &source,
        "bad/utf8",
        &[&good.as_bytes()[..good.len() - 8], b"\xff\xfe", &good.as_bytes()[good.len() - 8..]].concat(),
    );
    put(&source, "bad/type", good.replace("\"linux\"", "17").as_bytes());
    put(
        &source,
        "bad/sizes",
        good.replace(": 7}", ": -7}").replace(": 9}", ": 9223372036854775808}").as_bytes(),
    );
    std::fs::write(source.join("registry/README"), "").unwrap();
    std::fs::create_dir_all(source.join("registry/bad/gone")).unwrap();
    std::os::unix::fs::symlink("/no/such", source.join("registry/bad/gone/manifests-config-layers.json"))
        .unwrap();
    let output = dir.path().join("c.h5");
    let mut command = stratigraph(2);
    let (code, out, err) =
        run(command.args(["import", "--oddities", "5"]).arg(&source).arg("-o").arg(&output));
    assert_eq!(code, 3, "{out}{err}");
    for line in [
        "bad/cut/manifests-config-layers.json: EOF while parsing a string at line 2 column",
        "bad/empty/manifests-config-layers.json: 0 bytes",
        "bad/utf8/manifests-config-layers.json: first at byte",
        "bad/type/manifests-config-layers.json tag \"v\": os: is a number",
        "bad/sizes/manifests-config-layers.json tag \"v\": layers[0].size: -7",
        "bad/sizes/manifests-config-layers.json tag \"v\": layers[1].size: 9223372036854775808",
        "README: the file's name",
        "bad/gone/manifests-config-layers.json: No such file or directory",
    ] {
        assert!(out.contains(line), "{line}\n{out}");
    }
    let corpus = Corpus::load(&output).unwrap();
    assert!(!corpus.provenance.complete);
    assert_eq!(corpus.study_images().len(), 7 + 3);
    assert_eq!(corpus.oddities.count(Oddity::BadFile), 2);
}

#[test]
fn a_broken_archive_gives_what_came_before() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("crawl");
    // Content that does not compress, so that every tenth of the archive holds some of it.
    for i in 0..20u32 {
        let salt: String =
            (0..400u32).map(|j| hex(&Sha256::digest([i.to_le_bytes(), j.to_le_bytes()].concat()))).collect();
        put(&source, &format!("r{i:02}"), GOOD.replace("TAG", &format!("t{salt}")).as_bytes());
    }
    let tar = tar(&source);
    let whole = tar.len();
    let mut flipped = tar.clone();
    // Somewhere in the second half, the checksum of a header.
    let header = (whole / 2 / 512..).find(|b| &tar[b * 512 + 257..b * 512 + 262] == b"ustar").unwrap();
    flipped[header * 512] ^= 0x55;
    let mut bad_gzip = gzip(&tar);
    let at = bad_gzip.len() * 2 / 3;
    bad_gzip.truncate(at);
    let mut bad_zst = zst(&tar);
    let at = bad_zst.len() * 2 / 3;
    bad_zst[at..].fill(0x5a);
    let cut_zst = zst(&tar)[..at].to_vec();
    for (name, bytes) in [
        ("cut.tar", tar[..whole / 2].to_vec()),
        ("no-end.tar", tar[..whole - 1024].to_vec()),
        ("flipped.tar", flipped),
        ("cut.tar.gz", bad_gzip),
        ("bad.tar.zst", bad_zst),
        ("cut.tar.zst", cut_zst),
    ] {
        let path = dir.path().join(name);
        std::fs::write(&path, &bytes).unwrap();
        let (code, text, output) = import(&path, 2);
        assert_eq!(code, 3, "{name}: {text}");
        assert!(text.contains(&format!("{name}: after registry/r")), "{name}: {text}");
        let corpus = Corpus::load(&output).unwrap();
        assert!(corpus.study_images().len() >= 5, "{name}: {text}");
        assert_eq!(corpus.oddities.count(Oddity::BrokenArchive), 1);
        let sum = hex(&Sha256::digest(&bytes));
        assert_eq!(corpus.provenance.source_sha256, sum, "{name}");
        let one = import(&path, 1).2;
        assert!(std::fs::read(one).unwrap() == std::fs::read(output).unwrap(), "{name}");
    }
}

/// What is not read is told: archives behind the first one, links, directories behind links.
#[test]
fn nothing_is_passed_over_in_silence() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let pieces = ["one", "two"].map(|name| {
        put(&at(name), name, GOOD.replace("TAG", name).as_bytes());
        tar(&at(name))
    });
    let joined = pieces.concat();
    let packed = [
        ("joined.tar", joined.clone()),
        ("joined.tar.gz", [gzip(&pieces[0]), gzip(&pieces[1])].concat()),
        ("joined.tar.zst", [zst(&pieces[0]), zst(&pieces[1])].concat()),
    ];
    for (name, bytes) in packed {
        std::fs::write(at(name), bytes).unwrap();
        let (code, text, _) = import(&at(name), 1);
        assert!(code == 3 && text.contains("another archive follows"), "{name}: {code} {text}");
    }
    // GNU tar pads with zeros, to whole records.
    std::fs::write(at("padded.tar"), [pieces[0].clone(), vec![0; 10_240]].concat()).unwrap();
    assert_eq!(import(&at("padded.tar"), 1).0, 0);
    // A second name of a file is a link in an archive.
    let (file, other) = ("registry/two/manifests-config-layers.json", at("two/registry/again"));
    std::fs::create_dir(&other).unwrap();
    std::fs::hard_link(at("two").join(file), other.join("manifests-config-layers.json")).unwrap();
    sh_tar(&at("two"), &at("links.tar"));
    let (code, text, _) = import(&at("links.tar"), 1);
    assert!(code == 3 && text.contains("is a link to another member"), "{code} {text}");
    std::os::unix::fs::symlink("two", at("two/registry/linked")).unwrap();
    let (code, text, _) = import(&at("two"), 1);
    assert!(code == 3 && text.contains("is a link to a directory"), "{code} {text}");
    // A registry of two hosts: two repositories.
    for host in ["quay.io", "ghcr.io"] {
        put(&at("hosts").join(host), "foo", GOOD.as_bytes());
    }
    sh_tar(&at("hosts"), &at("hosts.tar"));
    let (code, _, output) = import(&at("hosts.tar"), 1);
    assert_eq!((code, Corpus::load(&output).unwrap().repositories.len()), (0, 2));
}

fn sh_tar(directory: &Path, archive: &Path) {
    let mut command = std::process::Command::new("tar");
    assert!(command.arg("-cf").arg(archive).arg("-C").arg(directory).arg(".").status().unwrap().success());
}

#[test]
fn what_is_read_is_not_written_over() {
    let dir = tempfile::tempdir().unwrap();
    let crawl = crawl(&dir.path().join("crawl"));
    let archive = dir.path().join("x.tar");
    std::fs::write(&archive, tar(&crawl)).unwrap();
    let corpus = import(&archive, 1).2;
    let link = dir.path().join("link.h5");
    std::os::unix::fs::symlink(&corpus, &link).unwrap();
    let before = [&archive, &corpus].map(|path| std::fs::read(path).unwrap());
    let commands: [(&str, &Path, &str, &Path); 5] = [
        ("import", &archive, "-o", &archive),
        ("stats", &corpus, "--json", &corpus),
        ("export", &corpus, "--csv", &link),
        ("tokenize", &corpus, "-o", &link),
        ("tokenize", &link, "--json", &corpus),
    ];
    for (command, input, option, output) in commands {
        let mut command_ = stratigraph(1);
        command_.current_dir(dir.path()).arg(command).arg(input).arg(option).arg(output);
        refused(&mut command_, 4, "would be written over");
    }
    assert!([&archive, &corpus].map(|path| std::fs::read(path).unwrap()) == before);
}

#[test]
fn sources_that_are_none_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let text = dir.path().join("text");
    std::fs::write(&text, "hello").unwrap();
    let nothing = dir.path().join("nothing.tar");
    std::fs::write(&nothing, [0; 1024]).unwrap();
    let zero = dir.path().join("zero");
    std::fs::write(&zero, "").unwrap();
    for (source, says) in [
        (&dir.path().join("none"), "give a directory or a tar archive"),
        (&empty, "holds no manifests-config-layers.json"),
        (&text, "is neither a directory nor a tar archive"),
        (&nothing, "holds no manifests-config-layers.json"),
        (&zero, "is empty"),
    ] {
        let (code, output, file) = import(source, 2);
        assert_eq!(code, 4, "{output}");
        assert!(output.contains(says) && output.lines().count() == 1, "{output}");
        assert!(!file.exists());
    }
}

#[test]
fn pipes_and_devices_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("c.h5");
    let pipe = |path: &Path| {
        assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
    };
    let fifo = dir.path().join("fifo.tar");
    pipe(&fifo);
    for source in [&fifo, Path::new("/dev/null"), Path::new("/dev/zero")] {
        let mut command = stratigraph(1);
        refused(command.arg("import").arg(source).arg("-o").arg(&output), 4, "is a pipe or device; give a");
    }
    // Nobody writes to the pipe in the crawl: it is named, not waited for.
    let source = crawl(&dir.path().join("crawl"));
    let place = source.join("registry/piped");
    std::fs::create_dir(&place).unwrap();
    pipe(&place.join("manifests-config-layers.json"));
    // A directory of a corpus file's name.
    std::fs::create_dir_all(source.join("registry/dir/manifests-config-layers.json")).unwrap();
    let (code, text, output) = import(&source, 2);
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("piped/manifests-config-layers.json: is a pipe or device"), "{text}");
    assert_eq!(Corpus::load(&output).unwrap().study_images().len(), 7);
}

#[test]
fn corpora_of_no_image_and_of_one() {
    for (n, content) in
        [(0, r#"{"tags": [], "manifests": {}, "configs": {}}"#.to_owned()), (1, GOOD.replace("TAG", "t"))]
    {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "lab/tool", content.as_bytes());
        let (code, text, corpus) = import(dir.path(), 2);
        assert_eq!(code, 0, "{text}");
        assert_eq!(Corpus::load(&corpus).unwrap().study_images().len(), n);
        let (json, csv) = (dir.path().join("stats.json"), dir.path().join("table.csv"));
        succeed(stratigraph(1).arg("stats").arg(&corpus).arg("--json").arg(&json));
        let stats: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
        assert_eq!(stats["corrected"]["table"]["images"], n);
        assert_eq!(stats["corrected"]["image_size"]["mean"].as_f64(), (n == 1).then_some(16.0));
        succeed(stratigraph(1).arg("export").arg(&corpus).arg("--csv").arg(&csv));
        assert_eq!(std::fs::read_to_string(&csv).unwrap().lines().count(), 1 + 2 * n);
        succeed(stratigraph(1).arg("inspect").arg(&corpus));
    }
}

#[test]
fn what_cannot_be_written_is_told_and_what_was_there_stays() {
    let dir = tempfile::tempdir().unwrap();
    // A directory where the file should be.
    let taken = dir.path().join("taken");
    std::fs::create_dir(&taken).unwrap();
    refused(stratigraph(2).arg("import").arg(sample()).arg("-o").arg(&taken), 74, "taken");
    let nowhere = dir.path().join("no/such/c.h5");
    refused(stratigraph(2).arg("import").arg(sample()).arg("-o").arg(&nowhere), 74, "no/such");
    let place = dir.path().join("small");
    let Some(_disk) = small_disk(&place, "256k") else { return };
    let output = place.join("c.h5");
    std::fs::write(&output, "an older file").unwrap();
    refused(stratigraph(2).arg("import").arg(sample()).arg("-o").arg(&output), 74, "c.h5");
    assert_eq!(std::fs::read_to_string(&output).unwrap(), "an older file");
    assert_eq!(std::fs::read_dir(&place).unwrap().count(), 1, "something is left over");
}

#[test]
fn inspect_says_what_a_file_is() {
    let dir = tempfile::tempdir().unwrap();
    let source = crawl(&dir.path().join("crawl"));
    let (_, _, corpus) = import(&source, 1);
    let (code, out, err) = run(stratigraph(1).arg("inspect").arg(&corpus));
    assert_eq!(code, 0, "{err}");
    for part in [
        "a `corpus` file",
        "corpus_id",
        "layers/size",
        "repositories/offsets",
        "repository under several names",
    ] {
        assert!(out.contains(part), "{part}\n{out}");
    }
    let json = dir.path().join("summary.json");
    std::fs::write(&json, r#"{"kind": "jaccard", "pairs": [1, 2]}"#).unwrap();
    let (code, out, _) = run(stratigraph(1).arg("inspect").arg(&json));
    assert!(code == 0 && out.contains("a `jaccard` file") && out.contains("a list of 2"), "{out}");
    let (bytes, cut) = (std::fs::read(&corpus).unwrap(), dir.path().join("cut.h5"));
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    for path in [&source.join("registry/z/manifests-config-layers.json"), &cut, &dir.path().join("none")] {
        let (code, out, err) = run(stratigraph(1).arg("inspect").arg(path));
        let refused = code == 4 && err.lines().count() == 1;
        assert!(refused || out.contains("kind not stated"), "{out}{err}");
    }
}

#[test]
fn the_dev_pack_is_as_the_study_counts_it() {
    let Some(shared) = shared() else { return };
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("dev.h5");
    let source = shared.join("data/registry-corpus-dev.tar.zst");
    let (code, out, err) = run(stratigraph(2).arg("import").arg(source).arg("-o").arg(&output));
    assert_eq!(code, 0, "{out}{err}");
    let corpus = Corpus::load(&output).unwrap();
    let truth = std::fs::read(shared.join("truth/dev.json")).unwrap();
    let truth: serde_json::Value = serde_json::from_slice(&truth).unwrap();
    let registry = &truth["registry"];
    let filter = &registry["manifest_filter"];
    let studied = |kind: u8| corpus.manifests.study.iter().filter(|s| **s == kind).count() as u64;
    let without_history =
        (0..corpus.config_count()).filter(|c| corpus.configs.flags[*c] & 1 == 0).count() as u64;
    for (found, name) in [
        (corpus.manifest_count() as u64, "manifests"),
        (studied(0), "images_kept"),
        (studied(1), "skip_no_mediaType"),
        (studied(2), "skip_manifest_list"),
        (studied(3), "skip_no_layers"),
        (studied(4), "skip_no_config"),
        (without_history, "cfg_no_history"),
    ] {
        assert_eq!(Some(found), filter[name].as_u64(), "{name}");
    }
    assert_eq!(Some(corpus.provenance.files), registry["n_files"].as_u64());

    let mut sum = Sha256::new();
    let (mut rows, mut digests) = (0, std::collections::BTreeSet::new());
    for m in corpus.study_images() {
        let name = corpus.image_name(m as usize);
        for (number, l) in corpus.layers_of(m as usize).enumerate() {
            let digest = corpus.digests.get(corpus.layers.digest[l]);
            sum.update(format!("{name}\t{number}\t{digest}\t{}\n", corpus.layers.size[l]));
            rows += 1;
            digests.insert(digest);
        }
    }
    let table = &registry["table_unfiltered (sqlite)"];
    assert_eq!(Some(rows), table["rows"].as_u64());
    assert_eq!(Some(digests.len() as u64), table["unique_digest"].as_u64());
    let sum = hex(&sum.finalize());
    assert_eq!(Some(sum.as_str()), registry["manifest_table_sha256 (all rows, same line format)"].as_str());
}
