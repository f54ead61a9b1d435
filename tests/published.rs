//! The published score against the program that published it, `container-guts` 0.0.17.

mod support;

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use support::images::{images, made};
use support::layout::{Paths, empty_files};
use support::{run, sh, shared, stratigraph, succeed, tools};

const HOME: &str = env!("CARGO_MANIFEST_DIR");

/// What `docker export` adds to an image.
const EXPORTED: [&str; 6] =
    [".dockerenv", "dev/console", "etc/hostname", "etc/hosts", "etc/mtab", "etc/resolv.conf"];

/// Python with container-guts, or `None`, with a word, where it cannot be had.
fn python() -> Option<std::path::PathBuf> {
    let home = Path::new(HOME);
    let directory = home.join("target/test-venv");
    let (code, out, err) =
        run(Command::new("timeout").arg("400").arg(home.join("tests/support/guts.sh")).arg(&directory));
    made(code, "container-guts", &(out + &err)).then(|| directory.join("bin/python"))
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("a file")).expect("JSON")
}

fn unpack(archive: &Path, directory: &Path) {
    std::fs::create_dir(directory).expect("a directory");
    sh(directory, &format!("zstd -dcq {} | tar -x", archive.display()));
}

/// Path sets of the bases, by family and version.
fn bases(guts: &Path) -> BTreeMap<String, BTreeSet<Vec<u8>>> {
    let found = stratigraph::rootfs::bases::read_guts(guts).expect("the bases").bases;
    let named = found.into_iter().map(|base| {
        let name = base.name.rsplit('/').next().expect("a name").to_owned();
        (name, base.paths.iter().map(|p| stratigraph::rootfs::paths::normal(p)).collect())
    });
    named.collect()
}

/// Every one of their answers is ours: the same bits, the same counts, the same bases at the top.
fn compare(theirs: &Value, ours: &Value, name_of: impl Fn(&str) -> String) -> usize {
    let theirs = theirs.as_object().expect("an object");
    let mut compared = 0;
    for image in ours["images"].as_array().expect("a list") {
        let name = name_of(image["image"].as_str().expect("a name"));
        let their = &theirs[&name];
        let our = &image["published"];
        assert_eq!(their["our_score"], their["score"], "{name}: {our} {their}");
        assert_eq!((&our["shared"], &our["paths"]), (&their["shared"], &their["paths"]), "{name}");
        let mut best: Vec<&str> =
            our["ties"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
        best.push(our["base"].as_str().expect("a name"));
        best.sort_unstable();
        assert_eq!(json!(best), their["best"], "{name}");
        // The rule for ties: the first by name, whatever the directory gave them.
        assert_eq!(our["base"], best[0], "{name}");
        compared += 1;
    }
    assert_eq!(compared, theirs.len());
    compared
}

#[test]
fn path_sets_get_the_scores_of_container_guts_to_the_last_bit() {
    let (Some(shared), Some(python)) = (shared(), python()) else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    let guts = shared.join("data/guts.tar.zst");
    unpack(&guts, &dir.join("database"));
    let bases = bases(&guts);
    std::fs::create_dir(dir.join("images")).expect("a directory");
    let names: Vec<&String> = bases.keys().collect();
    let mut arguments = Vec::new();
    for (i, name) in names.iter().enumerate() {
        // Each base with a part of another, without a part of its own, with files of nobody.
        let (own, other) = (&bases[*name], &bases[names[(i * 7 + 3) % names.len()]]);
        let kept = own.iter().enumerate().filter(|(n, _)| i % 3 == 0 || n % (i % 5 + 2) != 0);
        let mut paths: BTreeSet<Vec<u8>> = kept.map(|(_, path)| path.clone()).collect();
        paths.extend(other.iter().step_by(i % 4 + 2).cloned());
        paths.extend((0..i).map(|n| format!("opt/app/{n}").into_bytes()));
        let text = |path: &Vec<u8>| format!("/{}", String::from_utf8_lossy(path));
        let mut manifest = serde_json::Map::new();
        manifest.insert(
            format!("image-{i}"),
            json!({"fs": paths.iter().map(text).collect::<Vec<_>>(), "paths": {}}),
        );
        let file = format!("images/image-{i}.json");
        std::fs::write(dir.join(&file), Value::from(manifest).to_string()).expect("written");
        arguments.push(format!("image-{i}={file}"));
    }
    let script = Path::new(HOME).join("tests/support/guts_scores.py");
    succeed(stratigraph(2).arg("bases").arg(&guts).args(["-o", "bases.h5"]).current_dir(dir));
    let classify = ["classify", "images", "--bases", "bases.h5", "--json", "ours.json"];
    succeed(stratigraph(2).args(classify).current_dir(dir));
    let mut theirs = Command::new("timeout");
    theirs.arg("120").arg(python).arg(script).args(["database", "ours.json", "theirs.json"]).args(arguments);
    succeed(theirs.current_dir(dir));
    let compared = compare(&read(&dir.join("theirs.json")), &read(&dir.join("ours.json")), str::to_owned);
    assert_eq!(compared, 46);
}

#[test]
fn images_get_the_scores_that_container_guts_gives_their_unpacked_files() {
    let (Some(shared), Some(images)) = (shared(), images()) else { return };
    // SAFETY: geteuid(2) takes nothing and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        println!("skipped: chroot needs root");
        return;
    }
    let Some(python) = python().filter(|_| tools(&["umoci", "zstd"])) else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    let guts = shared.join("data/guts.tar.zst");
    unpack(&guts, &dir.join("database"));
    // Of other families, as images of empty files: a base, and on it a part of another one.
    let bases = bases(&guts);
    let layer = |name: &str, step: usize| -> Paths {
        let set = &bases[name];
        let below = |path: &Vec<u8>| [path.as_slice(), b"/"].concat();
        // What is above another path cannot be an empty file.
        let is_above = |path: &Vec<u8>| {
            set.range(below(path)..).next().is_some_and(|next| next.starts_with(&below(path)))
        };
        set.iter().filter(|path| !path.is_empty() && !is_above(path)).step_by(step).cloned().collect()
    };
    let first = |family: &str| {
        let found = bases.keys().find(|name| name.starts_with(family));
        found.unwrap_or_else(|| panic!("no {family}")).clone()
    };
    let mut others = BTreeMap::new();
    for (i, family) in ["alpine", "busybox", "ubuntu"].iter().enumerate() {
        let name = first(family);
        let layers = vec![layer(&name, 1), layer(&first("debian"), 9 * i + 5)];
        others.insert(name.replace(':', "-"), layers);
    }
    empty_files(&dir.join("made"), &others);
    let real = images.join("oci").display().to_string();
    let mut all = vec![(format!("{real}:changed"), "changed".to_owned())];
    all.extend(others.keys().map(|name| (format!("made:{name}"), name.clone())));

    succeed(stratigraph(2).arg("bases").arg(&guts).args(["-o", "bases.h5"]).current_dir(dir));
    let mut rootfs = stratigraph(2);
    rootfs.current_dir(dir).args(["rootfs", "--universe", "bases.h5", "-o", "out"]);
    succeed(rootfs.args(all.iter().map(|(image, _)| format!("oci:{image}"))));
    let script = Path::new(HOME).join("tests/support/guts_scores.py");
    let mut unpacked = Vec::new();
    for (image, name) in &all {
        sh(dir, &format!("umoci unpack --image {image} bundle-{name} 2>/dev/null"));
        unpacked.push(format!("{name}=bundle-{name}/rootfs"));
    }
    let last = |image: &str| image.rsplit(':').next().expect("a name").to_owned();
    let mut answers = Vec::new();
    for exported in [false, true] {
        if exported {
            for (_, name) in &all {
                let root = dir.join(format!("bundle-{name}/rootfs"));
                for path in EXPORTED {
                    let path = root.join(path);
                    std::fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
                    if std::fs::symlink_metadata(&path).is_err() {
                        std::fs::write(path, "").expect("a file");
                    }
                }
            }
        }
        let mut ours = stratigraph(2);
        ours.args(["classify", "out/rootfs.h5", "--bases", "bases.h5", "--json", "ours.json"]);
        ours.args(exported.then_some("--docker-export-artefacts"));
        succeed(ours.current_dir(dir));
        let mut theirs = Command::new("timeout");
        theirs.arg("120").arg(&python).arg(&script).args(["database", "ours.json", "theirs.json"]);
        succeed(theirs.args(&unpacked).current_dir(dir));
        let ours = read(&dir.join("ours.json"));
        assert_eq!(compare(&read(&dir.join("theirs.json")), &ours, last), 4);
        answers.push(ours["images"].clone());
    }
    assert_ne!(answers[0], answers[1], "the six files are told");
}
