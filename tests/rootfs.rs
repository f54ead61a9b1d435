//! `stratigraph rootfs` on real images, path by path against `umoci unpack` and a walk.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use stratigraph::rootfs::results::Results;
use support::layout::{Paths, empty_files, image_of, rewrite_config};
use support::walk::walk;
use support::{ranks, run, sh, stratigraph, succeed, tools};

const TOOLS: [&str; 3] = ["umoci", "skopeo", "busybox"];

/// `stratigraph rootfs` in this directory, on `universe` in it; one process with two threads, or so
/// many ranks.
fn rootfs(directory: &Path, ranks_: usize, output: &str) -> Command {
    let mut command = if ranks_ == 1 { stratigraph(2) } else { ranks(ranks_, 1) };
    command.current_dir(directory).args(["rootfs", "--universe", "universe", "-o", output]);
    command
}

/// Images of busybox: `base`, `more` (an upper layer), `gone` (whiteouts), `swap` (files for directories
/// and the reverse), `names` (long, odd and non-UTF-8 names), `hand`, with layers that no tool writes but
/// the specification allows, and `insert`, with an archive that just stops.
fn images(directory: &Path) {
    sh(
        directory,
        r#"
        umoci init --layout oci
        umoci new --image oci:empty
        mkdir tree && cd tree
        mkdir -p bin usr/lib/deep etc/ssl var/log run/lock proc
        cp "$(command -v busybox)" bin/busybox
        for applet in sh ls cat cp mv rm; do ln -s busybox bin/$applet; done
        ln bin/busybox usr/lib/hard
        ln -s usr/lib lib
        ln -s ../run/lock var/lock
        ln -s /proc/mounts etc/mtab
        ln -s nowhere etc/dangling
        ln -s loop etc/loop
        ln -s ../etc/../usr/lib/deep var/deep
        echo x > usr/lib/deep/x; echo x > etc/passwd; echo x > etc/thing; echo x > var/log/a; echo x > var/log/b
        mkfifo run/fifo
        cd ..
        umoci unpack --image oci:empty bundle 2>/dev/null
        cp -a tree/. bundle/rootfs/
        umoci repack --image oci:base bundle
        cp -a oci oci-more-work; rm -rf oci-more-work
        cd bundle/rootfs && echo y > usr/lib/y && mkdir -p opt/app && echo z > opt/app/z && ln -s ../opt/app usr/app && cd ../..
        umoci repack --refresh-bundle --image oci:more bundle
        rm -r bundle/rootfs/usr/lib/deep bundle/rootfs/var/log/a bundle/rootfs/bin/cat
        umoci repack --refresh-bundle --image oci:gone bundle
        cd bundle/rootfs && rm -r opt/app etc/thing && echo f > opt/app && mkdir etc/thing && echo p > etc/thing/p && rm lib && mkdir lib && echo l > lib/l && cd ../..
        umoci repack --refresh-bundle --image oci:swap bundle
        cd bundle/rootfs && mkdir -p "$(printf 'long%.0s' $(seq 40))" && cd long* && echo 1 > "$(printf 'name%.0s' $(seq 50))" && ln -s "$(printf '../x/%.0s' $(seq 60))" link && cd ..
        printf x > "$(printf 'caf\351')"; printf x > 'new
line'; printf x > ' '; cd ../..
        umoci repack --refresh-bundle --image oci:names bundle
        rm -rf bundle tree
        "#,
    );
    // A layer without entries for its directories, below a link of the base; opaque; whiteout.
    let mut layer = tar::Builder::new(Vec::new());
    for path in ["lib/through", "var/log/.wh..wh..opq", "var/log/fresh", "bin/.wh.ls", "usr/./lib//dots"] {
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        header.set_mode(0o644);
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        layer.append(&header, [].as_slice()).expect("a vector takes all bytes");
    }
    std::fs::write(directory.join("hand.tar"), layer.into_inner().expect("a vector")).expect("a file");
    sh(directory, "umoci raw add-layer --image oci:base --tag hand hand.tar");
    // This writes no padding behind the last file, and no end.
    sh(
        directory,
        "printf odd > file; umoci insert --image oci:base --tag insert file /etc/inserted 2>/dev/null",
    );
}

fn unpacked(directory: &Path, layout: &str, name: &str) -> BTreeSet<Vec<u8>> {
    let bundle = directory.join(format!("unpacked-{layout}-{name}"));
    sh(directory, &format!("umoci unpack --image {layout}:{name} {} 2>/dev/null", bundle.display()));
    walk(&bundle.join("rootfs"))
}

/// The path sets of a results file by image.
fn results(file: &Path) -> BTreeMap<String, Result<BTreeSet<Vec<u8>>, String>> {
    let results = stratigraph::rootfs::results::Results::read(file).expect("a results file");
    let sets = (0..results.images.len()).map(|i| {
        let paths = results.paths[i].as_ref().map_err(Clone::clone).map(|_| {
            let set = results.set_of(i).expect("a set");
            set.iter().map(|id| results.universe.get(id).to_vec()).collect()
        });
        (results.images[i].reference.clone(), paths)
    });
    sets.collect()
}

/// A universe of every path of these sets that has no newline, and of some that nobody has.
fn universe(file: &Path, sets: &BTreeMap<String, BTreeSet<Vec<u8>>>) -> BTreeSet<Vec<u8>> {
    let mut all: BTreeSet<Vec<u8>> = sets.values().flatten().cloned().collect();
    all.retain(|path| !path.contains(&b'\n'));
    for more in [
        "lib/through",
        "lib/l",
        "lib/y",
        "var/lock",
        "etc/passwd",
        "opt/app",
        "usr/lib/deep",
        "var/deep",
        "lib",
        "no/where",
    ] {
        all.insert(more.into());
    }
    std::fs::write(file, all.iter().flat_map(|p| [p.as_slice(), b"\n"].concat()).collect::<Vec<_>>())
        .expect("a file");
    all
}

/// A line of a list as a path.
fn unescaped(line: &[u8]) -> Vec<u8> {
    let mut path = Vec::new();
    let mut bytes = line.iter();
    while let Some(byte) = bytes.next() {
        path.push(match byte {
            b'\\' if bytes.next() == Some(&b'n') => b'\n',
            byte => *byte,
        });
    }
    path
}

const NAMES: [&str; 7] = ["base", "more", "gone", "swap", "names", "hand", "insert"];

#[test]
fn paths_are_those_of_umoci_and_a_walk() {
    if !tools(&TOOLS) {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    images(dir);
    // The same images with zstd layers, and one as `docker save` writes it.
    sh(
        dir,
        "for name in base more gone swap names hand insert; do
            skopeo copy -q --insecure-policy --dest-compress-format zstd --dest-compress oci:oci:$name oci:zstd:$name
         done
         skopeo copy -q --insecure-policy oci:oci:gone docker-archive:gone.tar:example/gone:1",
    );
    let mut expected = BTreeMap::new();
    for name in NAMES {
        expected.insert(name.to_owned(), unpacked(dir, "oci", name));
    }
    let known = universe(&dir.join("universe"), &expected);
    let wanted = |name: &str| -> BTreeSet<Vec<u8>> { expected[name].intersection(&known).cloned().collect() };
    assert!(wanted("hand").contains(b"usr/lib/through".as_slice()), "umoci follows links");
    assert!(
        !wanted("base").contains(b"var/lock".as_slice()) && wanted("base").contains(b"etc/mtab".as_slice())
    );
    sh(dir, "umoci unpack --image oci:gone tree-of-gone 2>/dev/null");
    let places = ["oci:oci", "oci:zstd", "docker-archive:gone.tar", "rootfs:tree-of-gone/rootfs"];
    let out = succeed(rootfs(dir, 1, "results").args(places).args(["--paths", "lists"]));
    let found = results(&dir.join("results/rootfs.h5"));
    for (image, paths) in &found {
        let name = image.rsplit(':').next().expect("a name");
        let name = if image.contains("gone") { "gone" } else { name };
        if name == "empty" {
            assert_eq!(paths.as_ref().map(BTreeSet::len), Ok(0));
            continue;
        }
        assert_eq!(paths.as_ref(), Ok(&wanted(name)), "{image}\n{out}");
    }
    assert_eq!(found.len(), 2 * NAMES.len() + 1 + 2, "{:?}", found.keys());
    // The lists have all paths, known or not.
    let lists: Vec<_> = std::fs::read_dir(dir.join("lists")).expect("a directory").flatten().collect();
    assert_eq!(lists.len(), found.len());
    for list in lists {
        let file = list.file_name().to_string_lossy().into_owned();
        let name = file.strip_suffix(".paths").and_then(|name| name.rsplit('_').next()).expect("a list");
        let name = if file.contains("gone") { "gone" } else { name };
        let lines = std::fs::read(list.path()).expect("a list");
        let lines = lines.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        let paths: BTreeSet<Vec<u8>> = lines.map(unescaped).collect();
        assert_eq!(Some(&paths), expected.get(name).or(Some(&BTreeSet::new())), "{file}");
    }
    // What was read is not read again, whoever asks.
    let out = succeed(rootfs(dir, 2, "again").args(["--layers", "results/layers", "oci:oci"]));
    assert!(out.contains(" 0 read now"), "{out}");
    // Another universe is a projection, not another campaign.
    std::fs::write(dir.join("other"), "usr/lib/through\nbin/sh\n").expect("a file");
    let mut other = stratigraph(1);
    other.current_dir(dir).args(["rootfs", "--universe", "other", "-o", "other-results"]);
    let out = succeed(other.args(["--layers", "results/layers", "oci:oci:hand"]));
    assert!(out.contains(" 0 read now"), "{out}");
    let found = results(&dir.join("other-results/rootfs.h5"));
    assert_eq!(found["oci:oci:hand"].as_ref().map(BTreeSet::len), Ok(2));
}

#[test]
fn failures_are_listed_and_tried_again_alone() {
    if !tools(&TOOLS) {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    images(dir);
    std::fs::write(dir.join("universe"), "bin/sh\nopt/app/z\n").expect("a file");
    // The topmost layer of `more` is damaged: some images have it, some not.
    let image = image_of(&dir.join("oci"), "more");
    let layer = dir.join("oci/blobs/sha256").join(image.layers.last().expect("a layer").digest.hex());
    let sound = std::fs::read(&layer).expect("a blob");
    let mut bad = sound.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    std::fs::write(&layer, &bad).expect("a blob");
    let (code, out, err) = run(rootfs(dir, 2, "results").arg("oci:oci"));
    assert_eq!(code, 3, "{out}{err}");
    let digest = image.layers.last().expect("a layer").digest.to_string();
    let line = err.lines().find(|l| l.starts_with("failed: ")).unwrap_or_default();
    assert!(line.contains(&digest) && line.matches("sha256:").count() >= 3, "{out}{err}");
    let found = results(&dir.join("results/rootfs.h5"));
    assert!(found["oci:oci:base"].is_ok() && found["oci:oci:hand"].is_ok());
    for name in ["more", "gone", "swap", "names"] {
        assert!(found[&format!("oci:oci:{name}")].as_ref().is_err_and(|e| e.contains(&digest)), "{found:?}");
    }
    std::fs::write(&layer, &sound).expect("a blob");
    let out = succeed(rootfs(dir, 3, "results").arg("oci:oci"));
    assert!(out.contains(" 1 read now"), "{out}");
    let repaired = std::fs::read(dir.join("results/rootfs.h5")).expect("a file");
    // The same bytes as a campaign that nothing disturbed.
    succeed(rootfs(dir, 1, "fresh").arg("oci:oci"));
    assert!(repaired == std::fs::read(dir.join("fresh/rootfs.h5")).expect("a file"));
    for bad in ["oci:nowhere", "No Name", "oci:oci:no-such-tag"] {
        let (code, out, err) = run(rootfs(dir, 1, "x").arg(bad));
        assert!(matches!(code, 3 | 4) && err.lines().count() == 1, "{bad}: {code} {out}{err}");
    }
}

#[test]
fn a_layer_is_read_where_it_is_whole_and_belies_the_images_that_are_wrong_about_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    let layers: Vec<Paths> = vec![vec![b"bin/sh".to_vec()], vec![b"opt/app/z".to_vec()]];
    std::fs::write(dir.join("universe"), "bin/sh\nopt/app/z\n").expect("a file");
    let layout = |name: &str| empty_files(&dir.join(name), &[("x".to_owned(), layers.clone())].into());
    ["gone", "bent", "lies", "good"].iter().for_each(|name| layout(name));
    let image = image_of(&dir.join("good"), "x");
    let [lower, upper] = [&image.layers[0], &image.layers[1]].map(|layer| layer.digest);
    let blob = |layout: &str| dir.join(layout).join("blobs/sha256").join(lower.hex());
    // One layout has lost the lower layer, in another it is damaged, the config of a third is wrong
    // about the upper one.
    std::fs::remove_file(blob("gone")).expect("a blob");
    let mut bytes = std::fs::read(blob("bent")).expect("a blob");
    bytes[0] ^= 1;
    std::fs::write(blob("bent"), &bytes).expect("a blob");
    let other = stratigraph::rootfs::Digest::of(b"other").to_string();
    rewrite_config(&dir.join("lies"), |config| config["rootfs"]["diff_ids"][1] = other.clone().into());
    let orders = [["gone", "bent", "lies", "good"], ["good", "lies", "bent", "gone"]];
    for (ranks, order) in [(1, orders[0]), (1, orders[1]), (2, orders[0])] {
        let output = format!("out-{ranks}-{}", order[0]);
        let run_it = || run(rootfs(dir, ranks, &output).args(order.map(|name| format!("oci:{name}:x"))));
        for read in [2, 0] {
            let (code, out, err) = run_it();
            let failed: Vec<&str> = err.lines().filter(|line| line.starts_with("failed: ")).collect();
            assert!(code == 3 && failed.len() == 1, "{order:?}: {code} {out}{err}");
            assert!(
                failed[0].starts_with("failed: oci:lies:x: layer ") && failed[0].contains(&other),
                "{err}"
            );
            assert!(failed[0].contains(&upper.to_string()), "{err}");
            assert!(out.contains(&format!(" {read} read now")), "{out}");
            let found = results(&dir.join(&output).join("rootfs.h5"));
            let of = |name: &str| found[&format!("oci:{name}:x")].clone();
            assert!(of("lies").is_err_and(|e| e.contains("the config's diff_id is")), "{found:?}");
            // What it says of its layers proves nothing any more.
            let written = Results::read(&dir.join(&output).join("rootfs.h5")).expect("results");
            let lies = written.images.iter().find(|image| image.reference == "oci:lies:x").expect("it");
            assert!(lies.diff_ids.is_empty() && lies.layers.is_empty(), "{lies:?}");
            for name in ["gone", "bent", "good"] {
                assert_eq!(of(name).map(|set| set.len()), Ok(2), "{name}: {found:?}");
            }
        }
    }
    let base = |layout: &str| {
        let mut command = stratigraph(1);
        command.current_dir(dir).args(["bases", "-o", "bases.h5", "--image"]).arg(format!("oci:{layout}:x"));
        command
    };
    let (code, out, err) = run(&mut base("lies"));
    assert!(code == 4 && err.contains("the config's diff_id is"), "{code} {out}{err}");
    assert!(!dir.join("bases.h5").exists());
    for idle in [["--name", "oci:good:y=a:1"], ["--layers", "out-1-good"], ["--official", "a=b"]] {
        let (code, out, err) = run(base("good").args(idle));
        assert!(code == 4 && err.contains(idle[0]), "{code} {out}{err}");
    }
    // With no sound copy the reasons of all places are told.
    let (code, out, err) = run(rootfs(dir, 1, "none").args(["oci:gone:x", "oci:bent:x"]));
    assert!(
        code == 3 && err.contains("is not there; nor from oci:bent:x: the stored bytes are"),
        "{out}{err}"
    );
}

#[test]
fn what_is_on_this_machine_is_looked_at_each_time() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    let tree = dir.join("tree");
    std::fs::create_dir_all(tree.join("bin")).expect("a directory");
    std::fs::write(tree.join("bin/a"), "").expect("a file");
    std::fs::write(dir.join("universe"), "bin/a\r\nbin/b\r\n").expect("a file");
    let layout = |path: &[u8]| {
        empty_files(&dir.join("oci"), &[("x".to_owned(), vec![vec![path.to_vec()]])].into());
    };
    let found = |ranks: usize| {
        succeed(rootfs(dir, ranks, "out").args(["rootfs:tree", "oci:oci:x"]));
        let found = results(&dir.join("out/rootfs.h5"));
        ["rootfs:tree", "oci:oci:x"].map(|name| found[name].clone().expect("paths"))
    };
    let set = |path: &[u8]| BTreeSet::from([path.to_vec()]);
    layout(b"bin/b");
    assert_eq!(found(1), [set(b"bin/a"), set(b"bin/b")]);
    std::fs::rename(tree.join("bin/a"), tree.join("bin/b")).expect("renamed");
    layout(b"bin/a");
    assert_eq!(found(2), [set(b"bin/b"), set(b"bin/a")]);
    // What is gone is not answered from what an earlier run found.
    std::fs::remove_dir_all(dir.join("oci")).expect("removed");
    empty_files(&dir.join("oci"), &[("y".to_owned(), vec![vec![b"bin/a".to_vec()]])].into());
    let (code, out, err) = run(rootfs(dir, 1, "out").args(["rootfs:tree", "oci:oci:x"]));
    assert!(code == 3 && err.contains("failed: oci:oci:x"), "{code} {out}{err}");
    assert!(results(&dir.join("out/rootfs.h5"))["oci:oci:x"].is_err());
    // Lists of images that are not asked for any more, or failed, do not stay beside the others.
    for (images, expected) in [(vec!["rootfs:tree", "oci:oci:y"], 2), (vec!["oci:oci:y"], 1)] {
        succeed(rootfs(dir, 2, "out").args(images).args(["--paths", "lists"]));
        assert_eq!(dir.join("lists").read_dir().expect("lists").count(), expected);
    }
    for (bytes, what) in [(&b"{}"[..], "JSON"), (b"a\0b", "binary"), (b"\x1f\x8b.", "compressed")] {
        std::fs::write(dir.join("universe"), bytes).expect("a file");
        let (code, out, err) = run(rootfs(dir, 1, "other").arg("oci:oci:y"));
        assert!(code == 4 && err.contains(what), "{code} {out}{err}");
    }
}

#[test]
fn bounds_stop_a_layer_and_nothing_else() {
    if !tools(&TOOLS) {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    images(dir);
    // 64 MiB of zeros, a path of 300 bytes and 500 entries; each a small blob.
    sh(
        dir,
        r#"
        mkdir layers && cd layers
        truncate -s 64M zeros && tar cf ../zeros.tar zeros
        long=$(printf 'ten-bytes/%.0s' $(seq 30)); mkdir -p "$long" && touch "$long/file" && tar cf ../long.tar ten-bytes
        mkdir many && (cd many && seq 500 | xargs touch) && tar cf ../many.tar many
        cd ..
        for name in zeros long many; do umoci raw add-layer --image oci:base --tag $name $name.tar; done
        "#,
    );
    std::fs::write(dir.join("universe"), "bin/sh\nopt/app/z\n").expect("a file");
    let all: Vec<String> =
        ["base", "zeros", "long", "many"].iter().map(|name| format!("oci:oci:{name}")).collect();
    for (case, option, value, says) in [
        ("zeros", "--max-layer", "32M", "33554432 bytes"),
        ("long", "--max-path", "250", "a path of more than 250 bytes"),
        ("many", "--max-entries", "400", "more than 400 entries"),
    ] {
        let (code, out, err) = run(rootfs(dir, 2, case).args([option, value]).args(&all));
        let failed: Vec<&str> = err.lines().filter(|line| line.starts_with("failed: ")).collect();
        assert!(code == 3 && failed.len() == 1, "{case}: {code} {out}{err}");
        assert!(failed[0].contains(&format!("oci:oci:{case} layer sha256:")), "{case}: {err}");
        assert!(failed[0].contains(says) && failed[0].contains("raise the limit"), "{case}: {err}");
        let found = results(&dir.join(case).join("rootfs.h5"));
        let lost: Vec<_> = found.iter().filter(|(_, set)| set.is_err()).map(|(image, _)| image).collect();
        assert_eq!(lost, [&format!("oci:oci:{case}")], "{case}");
        // With the usual bounds the same directory is completed: only that layer is read.
        let out = succeed(rootfs(dir, 2, case).args(&all));
        assert!(out.contains(" 1 read now"), "{case}: {out}");
    }
}

/// Bytes of layers that are on disk.
fn kept(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory);
    entries.map_or(0, |entries| entries.flatten().filter_map(|e| e.metadata().ok()).map(|m| m.len()).sum())
}

#[test]
fn killed_and_stopped_campaigns_read_no_finished_layer_again() {
    if !tools(&TOOLS) {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    images(dir);
    // Many small layers.
    sh(
        dir,
        "for i in $(seq 30); do echo $i > f$i; tar cf l$i.tar f$i; umoci raw add-layer --image oci:base --tag many$i l$i.tar; done",
    );
    std::fs::write(dir.join("universe"), "bin/sh\nf3\nf17\nopt/app/z\n").expect("a file");
    succeed(rootfs(dir, 1, "whole").arg("oci:oci"));
    let whole = std::fs::read(dir.join("whole/rootfs.h5")).expect("a file");
    for (case, signal, code) in [("kill", libc::SIGKILL, None), ("stop", libc::SIGUSR1, Some(75))] {
        let log = dir.join(format!("{case}.log"));
        let mut begun = 0;
        let mut first = rootfs(dir, 2, case);
        first.arg("oci:oci").env("STRATIGRAPH_LAYER_DELAY_MS", "60");
        first.env("STRATIGRAPH_LOG", "stratigraph=debug").stdout(std::process::Stdio::null());
        let mut child =
            first.stderr(std::fs::File::create(&log).expect("a file")).spawn().expect("the command starts");
        let store = dir.join(case).join("layers");
        let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while kept(&store) < 5000 && std::time::Instant::now() < until {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        for pid in support::processes_below(child.id()) {
            // SAFETY: kill(2) reads two integers; the process is one that this test started.
            unsafe { libc::kill(pid, signal) };
        }
        let status = child.wait().expect("a child");
        assert!(!status.success() && (code.is_none() || status.code() == code), "{case}: {status}");
        let finished = stratigraph::rootfs::store::Store::open(&store).expect("a store").len();
        begun += std::fs::read_to_string(&log).expect("a log").matches(" reads ").count();
        let out = succeed(rootfs(dir, 3, case).arg("oci:oci").env("STRATIGRAPH_LOG", "stratigraph=debug"));
        let again = out.matches(" reads ").count();
        assert!(out.contains(&format!(" {finished} read before, {again} read now")), "{case}: {out}");
        assert!(finished > 0 && again > 0, "{case}: {finished} finished, {again} read");
        // At most one layer a rank was begun in vain.
        assert!(begun >= finished && begun - finished <= 2, "{case}: {begun} begun, {finished} finished");
        assert!(std::fs::read(dir.join(case).join("rootfs.h5")).expect("a file") == whole, "{case}");
    }
}
