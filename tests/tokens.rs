//! Tokenising the real packs: the text corpora are those of the study byte for byte, and documents
//! do not depend on ranks or threads.

mod support;

use serde_json::Value;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{ranks, run, shared, stratigraph, succeed, terminated_when};

fn truth(shared: &Path, name: &str) -> Value {
    let text = std::fs::read(shared.join("truth").join(name)).expect("a truth file");
    serde_json::from_slice(&text).expect("JSON")
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("written")).expect("JSON")
}

fn sha256(path: &Path) -> String {
    let mut file = std::fs::File::open(path).expect("written");
    let (mut sha256, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match std::io::Read::read(&mut file, &mut buffer).expect("readable") {
            0 => return sha256.finalize().iter().map(|b| format!("{b:02x}")).collect(),
            n => sha256.update(&buffer[..n]),
        }
    }
}

/// A directory for gigabytes that nobody keeps: in memory if there is room.
fn scratch() -> tempfile::TempDir {
    let room = Command::new("df").args(["--output=avail", "-k", "/dev/shm"]).output().ok();
    let room =
        room.and_then(|out| String::from_utf8_lossy(&out.stdout).lines().nth(1)?.trim().parse::<u64>().ok());
    match room {
        Some(4_000_000..) => tempfile::tempdir_in("/dev/shm").expect("a directory"),
        _ => tempfile::tempdir().expect("a directory"),
    }
}

/// Imports a pack, tokenises it with texts, and compares everything with the truth.
fn check_histories(pack: &str, truth: &Value) {
    let Some(shared) = shared() else { return };
    let directory = scratch();
    let at = |name: &str| directory.path().join(name);
    succeed(stratigraph(2).arg("import").arg(shared.join("data").join(pack)).arg("-o").arg(at("corpus.h5")));
    let tokenize = |scheme: &str| {
        let mut command = stratigraph(2);
        command
            .arg("tokenize")
            .arg(at("corpus.h5"))
            .arg("-o")
            .arg(at("documents.h5"))
            .arg("--text")
            .arg(at("text"));
        succeed(command.args(["--scheme", scheme, "--json"]).arg(at("tokens.json")));
        read_json(&at("tokens.json"))
    };
    let ours = tokenize("cumulative");
    let corpora = &truth["corpora_HEAD_parse_configs"];
    for name in
        ["dockerfile-layer-corpus.txt", "dockerfile-unique-layer-corpus.txt", "dockerfile-image-corpus.txt"]
    {
        let path = at("text").join(name);
        assert_eq!(std::fs::metadata(&path).expect("written").len(), corpora[name]["bytes"], "{name}");
        assert_eq!(sha256(&path), corpora[name]["sha256"], "{name}");
        std::fs::remove_file(&path).expect("there");
    }
    let first = &truth["corpus_v0_dockerfile-corpus.txt (commit 7a51a64f, non-cumulative, other tokenizer)"];
    assert_eq!(sha256(&at("text/dockerfile-corpus.txt")), first["sha256"]);
    assert_eq!(ours["distinct_layer_documents"], corpora["unique_layer_lines"]);
    let repeats =
        ours["layer_documents"].as_u64().unwrap() - ours["distinct_layer_documents"].as_u64().unwrap();
    assert_eq!(repeats, corpora["sum_of_repeat_counts"]);
    assert_eq!(ours["layer_documents"], corpora["dockerfile-layer-corpus.txt"]["lines"]);
    assert_eq!(ours["image_documents"], corpora["dockerfile-image-corpus.txt"]["lines"]);
    for (reading, place) in [
        ("cumulative", "on_HEAD_cumulative_layer_corpus"),
        ("first_version", "on_v0_dockerfile-corpus"),
        ("per_layer", "on_per_layer_HEAD_tokenizer"),
    ] {
        let counts = ours["practices"]["study"][reading].as_object().expect("counts");
        assert_eq!(counts.len(), 7);
        for (name, count) in counts {
            assert_eq!(*count, truth["apt"][place][name], "{reading}/{name}");
        }
    }

    // Both readings look at the same layers, and what is in a layer is in all that it ends.
    let (layers, cumulative) = (&ours["practices"]["layers"], &ours["practices"]["layers_cumulative"]);
    assert_eq!(layers["commands"], cumulative["commands"]);
    for name in ["run", "apt_update", "apt_install", "apt_install_with_update", "pip_install", "add_of_url"] {
        assert!(
            layers[name].as_u64() <= cumulative[name].as_u64() && layers[name].as_u64() > Some(0),
            "{name}"
        );
    }

    let ours = tokenize("per-layer");
    let corrected = &truth["corpus_variant_per_layer_HEAD_tokenizer"];
    assert_eq!(sha256(&at("text/per-layer-corpus.txt")), corrected["sha256"]);
    assert_eq!(ours["distinct_layer_documents"], corrected["unique_lines"]);
    assert_eq!(ours["image_documents"], 0);
}

#[test]
fn histories_of_the_sample_pack() {
    let Some(shared) = shared() else { return };
    check_histories("registry-sample.tar.zst", &truth(&shared, "sample.json"));
}

#[test]
fn histories_of_the_dev_pack() {
    let Some(shared) = shared() else { return };
    check_histories("registry-corpus-dev.tar.zst", &truth(&shared, "dev.json")["registry"]);
}

/// The small corpus that the project made.
fn sample(directory: &Path) -> PathBuf {
    let corpus = directory.join("sample.h5");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/sample");
    succeed(stratigraph(2).arg("import").arg(source).arg("-o").arg(&corpus));
    corpus
}

#[test]
fn documents_are_the_same_on_any_number_of_ranks_and_threads() {
    let directory = tempfile::tempdir().expect("a directory");
    let corpus = sample(directory.path());
    let one = directory.path().join("one.h5");
    let other = directory.path().join("other.h5");
    succeed(stratigraph(1).arg("tokenize").arg(&corpus).arg("-o").arg(&one));
    for mut command in [stratigraph(3), ranks(2, 1), ranks(3, 2)] {
        succeed(command.arg("tokenize").arg(&corpus).arg("-o").arg(&other));
        assert!(std::fs::read(&one).unwrap() == std::fs::read(&other).unwrap(), "{command:?}");
    }
    let text = succeed(stratigraph(1).arg("inspect").arg(&one));
    assert!(text.contains("a `documents` file") && text.contains("documents of layers"), "{text}");
}

#[test]
fn a_signal_ends_it_cleanly() {
    let directory = tempfile::tempdir().expect("a directory");
    let corpus = sample(directory.path());
    let root = write_odd(directory.path());
    let documents = directory.path().join("documents.h5");
    for source in [&corpus, &root] {
        for mut command in [stratigraph(1), ranks(2, 1)] {
            command.arg("tokenize").arg(source).arg("-o").arg(&documents);
            let (code, text) = terminated_when(command.env("STRATIGRAPH_PIECE_DELAY_MS", "10000"), || true);
            assert!(code == 75 && text.contains("stopped by a signal"), "{source:?} {code}: {text}");
            assert!(!documents.exists());
        }
    }
}

#[test]
fn what_is_no_corpus_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let corpus = sample(directory.path());
    let documents = directory.path().join("documents.h5");
    succeed(stratigraph(1).arg("tokenize").arg(&corpus).arg("-o").arg(&documents));
    let whole = std::fs::read(&documents).unwrap();
    for (name, content) in
        [("cut.h5", &whole[..whole.len() / 2]), ("documents.h5", &whole[..]), ("none.h5", &b"no HDF5"[..])]
    {
        let path = directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        let (code, _, err) =
            run(stratigraph(1).arg("tokenize").arg(&path).arg("-o").arg(directory.path().join("x")));
        assert_eq!(code, 4, "{name}: {err}");
        assert!(err.contains(name), "{err}");
        assert!(!directory.path().join("x").exists());
    }
    let nowhere = Path::new("/proc/documents.h5");
    let (code, _, err) = run(stratigraph(1).arg("tokenize").arg(&corpus).arg("-o").arg(nowhere));
    assert_eq!(code, 74, "{err}");
}

/// Python's own `lower` and `split` on hostile texts, each a history entry.
#[test]
fn python_cuts_the_same_tokens() {
    let script = r#"
import json, random, sys, unicodedata
random.seed(1)
odd = "ΣσςİıßŒǅ\u0345\u00ad\u200d\ufeff\u0130\u1e9e\u03f4\u2126\u212a" + "".join(map(chr, range(1, 0x30)))
odd += "\x85\xa0\u1680\u2000\u200a\u200b\u2028\u2029\u202f\u205f\u3000\u180e'\";:=_-#.*&<>{}|()[]$/@"
def text():
    # Characters that this Python's version of Unicode does not know yet have no case in it.
    plain = lambda c: c if unicodedata.category(c) != "Cn" else "x"
    pick = lambda: random.choice(odd) if random.random() < 0.6 else plain(chr(random.randrange(0x20, 0x2fff)))
    return "".join(pick() for _ in range(random.randrange(80)))
texts = [text() for _ in range(3000)] + ["a" * n for n in (1, 2, 39, 40, 41, 63, 64, 65)]
history = [{"created_by": t} for t in texts]
json.dump({"manifests": {}, "configs": {"t": {"history": history}}}, open(sys.argv[1], "w"))
with open(sys.argv[2], "w", newline="") as out:
    for t in texts:
        for c in "'\";:=_-\n\t#.*&<>{}|()[]$/":
            t = t.replace(c, " ")
        words = [w for w in t.lower().split() if len(w) not in (1, 40, 64)]
        out.write(" ".join(words) + "\n")
"#;
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    std::fs::create_dir_all(at("crawl/odd")).unwrap();
    let file = at("crawl/odd/manifests-config-layers.json");
    let python = Command::new("/usr/bin/python3").args(["-c", script]).arg(&file).arg(at("theirs")).status();
    assert!(python.expect("python3 is installed by `.ci/setup.sh test`").success());
    succeed(stratigraph(2).arg("import").arg(at("crawl")).arg("-o").arg(at("corpus.h5")));
    let mut command = stratigraph(2);
    command.arg("tokenize").arg(at("corpus.h5")).arg("-o").arg(at("d.h5")).args(["--scheme", "per-layer"]);
    succeed(command.arg("--text").arg(at("text")));
    let (ours, theirs) = (
        std::fs::read_to_string(at("text/per-layer-corpus.txt")).unwrap(),
        std::fs::read_to_string(at("theirs")).unwrap(),
    );
    for (k, (a, b)) in ours.split('\n').zip(theirs.split('\n')).enumerate() {
        assert_eq!(a, b, "text {k}");
    }
    assert_eq!(ours.len(), theirs.len());
}

#[test]
fn dockerfiles_of_the_dev_pack() {
    let Some(shared) = shared() else { return };
    let truth = &truth(&shared, "dev.json")["dockerfiles"];
    let directory = scratch();
    let at = |name: &str| directory.path().join(name);
    let mut command = stratigraph(2);
    command.arg("tokenize").arg(shared.join("data/dockerfiles-dev.tar.zst")).arg("-o").arg(at("d.h5"));
    succeed(command.arg("--text").arg(at("text")).arg("--json").arg(at("tokens.json")));
    let ours = read_json(&at("tokens.json"));
    let name = "scientific-dockerfile-image-corpus.txt";
    assert_eq!(sha256(&at("text").join(name)), truth[name]["sha256"]);
    assert_eq!(ours["image_documents"], truth["n_files"]);
    assert_eq!(ours["distinct_image_documents"], truth[name]["unique_lines"]);
    let shares = &ours["practices"];
    assert_eq!(shares["by_group"], truth["by_group"]);
    assert_eq!(shares["repositories"], truth["n_repos"]);
    assert_eq!(
        shares["encyclopedia_repositories"],
        truth["rse"]["owner/repo dirs under rseng/ with >=1 Dockerfile"]
    );
    assert_eq!(shares["odd"]["not_utf8"], truth["n_undecodable_utf8"]);
    assert_eq!(shares["from_lines"], truth["from"]["lines_containing_FROM"]);
    for group in ["machine-learning", "rseng"] {
        for count in ["distinct", "total"] {
            assert_eq!(shares["from"][group][count], truth["from"][group][count], "{group}/{count}");
        }
    }
    let mut lines = Vec::new();
    for (group, counts) in read_json(&at("text/dockerfile-counts.json")).as_object().unwrap() {
        let images = counts.as_object().unwrap();
        lines.extend(images.iter().map(|(image, n)| format!("{group}\t{image}\t{n}\n")));
    }
    lines.sort_unstable();
    let sum: String = Sha256::digest(lines.concat()).iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(sum, truth["from"]["sha256_sorted 'group TAB image TAB count NL' (bytes order)"]);
}

/// A few Dockerfiles with one of every oddity, as (path, content).
const ODD: [(&str, &[u8]); 6] = [
    (
        "orgs/o/u/r/Dockerfile",
        b"FROM a AS b\nRUN apt-get update\nRUN apt-get install -y x\nFROM b\nUSER me\n",
    ),
    ("rseng/u/r/Dockerfile.gpu", b"FROM a:latest\nADD https://example.org/x /x\n"),
    ("rseng/u/r/Dockerfile", b"FROM \xff\xfe:1\nRUN pip install --no-cache-dir x \\\n && true\n"),
    ("machine-learning/u/r/Dockerfile", b""),
    ("machine-learning/u/r/README", b"FROM no"),
    (
        "machine-learning/u/q/Dockerfile",
        b"FROM a AS b\nRUN apt-get update\nRUN apt-get install -y x\nFROM b\nUSER me\n",
    ),
];

fn write_odd(directory: &Path) -> PathBuf {
    let root = directory.join("dockerfiles");
    for (path, content) in ODD {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    root
}

#[test]
fn odd_dockerfiles_are_read_and_told() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    let root = write_odd(directory.path());
    let tar = at("odd.tar");
    let packed =
        Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(directory.path()).arg("dockerfiles").status();
    assert!(packed.expect("tar").success());
    let (code, _, err) =
        run(stratigraph(1).arg("tokenize").arg(&root).args(["--scheme", "per-layer", "-o"]).arg(at("d.h5")));
    assert!(code == 4 && err.contains("leave it out") && !at("d.h5").exists(), "{code} {err}");
    let tokenize = |mut command: Command, source: &Path| {
        command.arg("tokenize").arg(source).arg("-o").arg(at("d.h5")).arg("--text").arg(at("text"));
        let outcome = run(command.arg("--json").arg(at("tokens.json")));
        (
            outcome,
            std::fs::read_to_string(at("text/scientific-dockerfile-image-corpus.txt")).unwrap_or_default(),
        )
    };
    let ((code, out, err), text) = tokenize(stratigraph(2), &root);
    assert_eq!(code, 0, "{out}{err}");
    assert!(
        out.contains("not UTF-8") && out.contains("rseng/u/r/Dockerfile") && out.contains("README"),
        "{out}"
    );
    let wanted = [
        "from as run apt get update run apt get install from user me",
        "",
        "from as run apt get update run apt get install from user me",
        "from \u{fffd}\u{fffd} run pip install no cache dir true",
        "from latest add https example org",
    ];
    assert_eq!(text.lines().collect::<Vec<_>>(), wanted);
    let shares = read_json(&at("tokens.json"))["practices"].take();
    let expect =
        [("files", 5), ("repositories", 4), ("without_user", 3), ("multi_stage", 2), ("unpinned_files", 3)];
    for (name, n) in expect {
        assert_eq!(shares[name], n, "{name}");
    }
    for (name, n) in [("apt_update_alone", 2), ("pip_install_no_cache", 1), ("add_of_url", 1), ("run", 5)] {
        assert_eq!(shares["instructions"][name], n, "{name}");
    }
    assert_eq!(shares["bases"]["stage"], 2);

    // Which projects of a list have one.
    let list = at("list");
    std::fs::write(&list, "github/u/R\n{\"uid\": \"gitlab/u/none\", \"url\": \"x\"}\n\n").unwrap();
    let covered = |list: &Path| {
        let mut command = stratigraph(1);
        command.arg("tokenize").arg(&root).arg("-o").arg(at("d.h5")).arg("--json").arg(at("tokens.json"));
        run(command.arg("--coverage").arg(list))
    };
    assert_eq!(covered(&list).0, 0);
    let coverage = read_json(&at("tokens.json"))["practices"]["coverage"].take();
    assert_eq!(coverage, serde_json::json!({"projects": 2, "with_dockerfile": 1, "not_listed": 0}));
    // Hosts are other projects; groups may lie within groups.
    std::fs::write(&list, "github/u/r\ngitlab/u/r\ngitlab/u/r/s\ngitlab/u/r/s\n").unwrap();
    assert_eq!(covered(&list).0, 0);
    let coverage = read_json(&at("tokens.json"))["practices"]["coverage"].take();
    assert_eq!(coverage, serde_json::json!({"projects": 3, "with_dockerfile": 1, "not_listed": 0}));
    // The name of the crawl may stand before, as the directory that is given may be the crawl.
    let nested = at("nested.tar");
    let mut packed = Command::new("tar");
    packed.arg("-cf").arg(&nested).arg("-C").arg(directory.path());
    packed.args(["--transform=s,^,crawl/,", "dockerfiles"]);
    assert!(packed.status().expect("tar").success());
    let ((code, ..), same) = tokenize(stratigraph(1), &nested);
    assert_eq!((code, same), (0, text.clone()));
    // A pipe is no file: nobody writes into it.
    let pipe = root.join("rseng/u/r/sub/Dockerfile");
    std::fs::create_dir_all(pipe.parent().unwrap()).unwrap();
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
    let ((code, out, err), _) = tokenize(stratigraph(1), &root);
    assert!(code == 3 && out.contains("lost: files that cannot be read: 1"), "{code} {out}{err}");
    std::fs::remove_file(&pipe).unwrap();
    assert_eq!(tokenize(stratigraph(1), &root).0.0, 0);
    std::fs::write(&list, "github/u/r\nnothing\n").unwrap();
    let (code, _, err) = covered(&list);
    assert!(code == 4 && err.contains("list: line 2 names no project"), "{code} {err}");

    // The same from an archive, on ranks, and with sha256 of its own.
    let whole = std::fs::read(at("d.h5")).unwrap();
    for command in [stratigraph(1), ranks(2, 1), ranks(3, 2)] {
        let ((code, ..), again) = tokenize(command, &root);
        assert_eq!((code, &again), (0, &text));
        assert!(whole == std::fs::read(at("d.h5")).unwrap());
        let ((code, ..), again) = tokenize(ranks(2, 2), &tar);
        assert_eq!((code, &again), (0, &text));
    }

    // What is cut short is told, with what could be read.
    let bytes = std::fs::read(&tar).unwrap();
    let header = |at: &usize| bytes[*at..].starts_with(b"ustar");
    let last = (0..bytes.len()).rev().find(header).expect("a header") - 257;
    // In the middle of a header, and before one.
    for end in [last + 100, last] {
        std::fs::write(at("cut.tar"), &bytes[..end]).unwrap();
        let ((code, _, err), _) = tokenize(stratigraph(1), &at("cut.tar"));
        assert!(code == 3 && err.contains("cut.tar") && err.contains("broken"), "{code} {err}");
    }
    std::fs::write(at("none.tar"), b"no tar").unwrap();
    let ((code, _, err), _) = tokenize(stratigraph(1), &at("none.tar"));
    assert!(code == 4 && err.contains("none.tar"), "{code} {err}");
    std::fs::create_dir(at("empty")).unwrap();
    let ((code, _, err), _) = tokenize(stratigraph(1), &at("empty"));
    assert!(code == 4 && err.contains("no Dockerfile"), "{code} {err}");
}
