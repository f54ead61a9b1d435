//! `stratigraph rootfs` on images that real tools made: mmdebstrap, apt-get, buildah, skopeo.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use stratigraph::rootfs::results::Results;
use support::images::images;
use support::layout::empty_files;
use support::registry::Served;
use support::walk::walk;
use support::{ranks, run, sh, stratigraph, succeed, tools};

/// The paths of the lists of `--paths`, by what follows the number in their names.
fn lists(directory: &Path) -> BTreeMap<String, BTreeSet<Vec<u8>>> {
    let files = std::fs::read_dir(directory).expect("a directory").flatten();
    let list = |file: std::fs::DirEntry| {
        let name = file.file_name().to_string_lossy()[7..].to_owned();
        let text = std::fs::read(file.path()).expect("a list");
        let lines = text.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        (name, lines.map(<[u8]>::to_vec).collect())
    };
    files.map(list).collect()
}

#[test]
fn debian_images_have_the_paths_that_umoci_unpacks() {
    let Some(images) = images() else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    std::fs::write(dir.join("universe"), "etc/skel/new\netc/skel/.bashrc\n").expect("a file");
    let mut expected = BTreeMap::new();
    for name in ["debian", "apt", "changed"] {
        let (bundle, oci) = (dir.join(name), images.join("oci"));
        sh(dir, &format!("umoci unpack --image {}:{name} {} 2>/dev/null", oci.display(), bundle.display()));
        expected.insert(name, walk(&bundle.join("rootfs")));
        std::fs::remove_dir_all(bundle).expect("it goes");
    }
    assert!(expected["debian"].contains(b"etc/skel/.bashrc".as_slice()));
    assert!(!expected["changed"].contains(b"etc/skel/.bashrc".as_slice()), "the opaque directory");
    assert!(expected["apt"].contains(b"usr/bin/hello".as_slice()), "the package");
    assert!(!expected["changed"].contains(b"etc/issue".as_slice()), "the whiteout");
    let rootfs = |output: &str, more: &[&str]| {
        let mut command = stratigraph(2);
        command.current_dir(dir).args(["rootfs", "--universe", "universe", "-o", output]);
        command.arg("--paths").arg(dir.join(output).join("lists"));
        for (layout, name) in [
            ("oci", "debian"),
            ("oci", "apt"),
            ("oci", "changed"),
            ("zstd", "changed"),
            ("chunked", "changed"),
        ] {
            command.arg(format!("oci:{}:{name}", images.join(layout).display()));
        }
        succeed(command.args(more))
    };
    let check = |output: &str| {
        let lists = lists(&dir.join(output).join("lists"));
        assert_eq!(lists.len(), 5);
        for (image, paths) in lists {
            let name = image.trim_end_matches(".paths").rsplit('_').next().expect("a name").to_owned();
            let wanted = &expected[name.as_str()];
            let differ: Vec<_> =
                paths.symmetric_difference(wanted).take(5).map(|p| String::from_utf8_lossy(p)).collect();
            assert!(differ.is_empty(), "{output}, {image}: {differ:?}");
        }
    };
    rootfs("whole", &[]);
    check("whole");
    // By tables of contents, where there are any: the same paths, a fraction of the bytes.
    let out = rootfs("toc", &["--toc"]);
    check("toc");
    let about = std::fs::read_to_string(dir.join("toc/rootfs.json")).expect("a file");
    let about: serde_json::Value = serde_json::from_str(&about).expect("JSON");
    assert_eq!(about["toc_only"], 3, "{out}");
    // Whoever wants layers that were checked does not get those.
    let again = ["--layers", "toc/layers"];
    let out = rootfs("again", &again);
    assert!(out.contains(" 3 read now"), "{out}");
    check("again");
}

#[test]
fn every_base_comes_back_from_a_registry_as_it_is_in_the_database() {
    let Some(shared) = support::shared() else { return };
    if !tools(&["skopeo", "docker-registry"]) {
        return;
    }
    let guts = shared.join("data/guts.tar.zst");
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    let bases = stratigraph::rootfs::bases::read_guts(&guts).expect("the bases").bases;
    assert_eq!(bases.len(), 46);
    let mut sets = BTreeMap::new();
    for base in &bases {
        let mut paths: BTreeSet<Vec<u8>> =
            base.paths.iter().map(|p| stratigraph::rootfs::paths::normal(p)).collect();
        // What is above another path cannot be an empty file.
        let above: BTreeSet<Vec<u8>> = paths
            .iter()
            .flat_map(|path| {
                let slashes = path.iter().enumerate().filter(|(_, b)| **b == b'/');
                slashes.map(|(i, _)| path[..i].to_vec())
            })
            .collect();
        paths.retain(|path| !path.is_empty() && !above.contains(path));
        sets.insert(base.name.rsplit('/').next().expect("a name").replace(':', "-"), paths);
    }
    assert_eq!(sets.len(), 46);
    let layers = |paths: &BTreeSet<Vec<u8>>| vec![paths.iter().cloned().collect()];
    empty_files(
        &dir.join("bases"),
        &sets.iter().map(|(name, paths)| (name.clone(), layers(paths))).collect(),
    );
    let served = Served::start(dir, None);
    let address = &served.address;
    sh(
        dir,
        &format!(
            "for name in {}; do skopeo copy -q --insecure-policy --dest-tls-verify=false oci:bases:$name docker://{address}/library/base:$name; done",
            sets.keys().cloned().collect::<Vec<_>>().join(" ")
        ),
    );
    succeed(stratigraph(2).current_dir(dir).arg("bases").arg(&guts).args(["-o", "bases.h5"]));
    let options = ["rootfs", "--universe", "bases.h5", "--plain-http", address, "-o", "out"];
    let mut command = ranks(2, 1);
    succeed(command.current_dir(dir).args(options).arg(format!("{address}/library/base:*")));
    let results = Results::read(&dir.join("out/rootfs.h5")).expect("a results file");
    assert_eq!(results.images.len(), 46);
    for (i, image) in results.images.iter().enumerate() {
        let name = image.reference.rsplit(':').next().expect("a tag");
        let set = results.set_of(i).expect("a set");
        let found: BTreeSet<Vec<u8>> = set.iter().map(|id| results.universe.get(id).to_vec()).collect();
        assert!(found == sets[name], "{name}: {} paths, {} wanted", found.len(), sets[name].len());
    }
}

#[test]
fn an_index_and_a_docker_manifest_list_are_followed_to_the_platform() {
    let Some(images) = images() else { return };
    if !tools(&["docker-registry"]) {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    let served = Served::start(dir, None);
    let address = &served.address;
    let images = images.join("oci");
    sh(
        dir,
        &format!(
            "b() {{ BUILDAH_ISOLATION=chroot buildah --storage-driver vfs --root $PWD/store --runroot $PWD/run \"$@\"; }}
             b manifest create both >/dev/null
             b manifest add both oci:{images}:debian >/dev/null
             b manifest add both oci:{images}:arm >/dev/null
             b manifest push --all --quiet --tls-verify=false both docker://{address}/lab/both:index >/dev/null
             b manifest push --all --quiet --tls-verify=false --format v2s2 both docker://{address}/lab/both:list >/dev/null
             skopeo inspect --raw --tls-verify=false docker://{address}/lab/both:list > told",
            images = images.display()
        ),
    );
    let told = std::fs::read_to_string(dir.join("told")).expect("a file");
    assert!(told.contains("manifest.list.v2+json"), "{told}");
    std::fs::write(dir.join("universe"), "etc/hostname\nbin/bash\nusr/bin/bash\n").expect("a file");
    for (platform, has_bash) in [("linux/amd64", true), ("linux/arm64", false)] {
        let output = platform.replace('/', "-");
        let options = ["rootfs", "--universe", "universe", "--plain-http", address, "--platform", platform];
        let mut command = stratigraph(2);
        command.current_dir(dir).args(options).args(["--strict-platform", "-o", &output]);
        for tag in ["index", "list"] {
            command.arg(format!("{address}/lab/both:{tag}"));
        }
        succeed(&mut command);
        let results = Results::read(&dir.join(&output).join("rootfs.h5")).expect("a results file");
        for (i, image) in results.images.iter().enumerate() {
            let set = results.set_of(i).expect("a set");
            let bash =
                ["bin/bash", "usr/bin/bash"].iter().filter_map(|p| results.universe.find(p.as_bytes()));
            assert_eq!(bash.filter(|id| set.contains(*id)).count() > 0, has_bash, "{}", image.reference);
            assert_eq!(image.platform.as_ref().map(ToString::to_string), Some(platform.to_owned()));
        }
    }
    let mut none = stratigraph(1);
    none.current_dir(dir).args(["rootfs", "--universe", "universe", "--plain-http", address, "-o", "none"]);
    none.args(["--platform", "linux/riscv64", "--strict-platform"]).arg(format!("{address}/lab/both:list"));
    let (code, out, err) = run(&mut none);
    assert!(code == 3 && err.contains("linux/amd64, linux/arm64"), "{code} {out}{err}");
    // Unless that is forbidden, the first platform of the list is taken, and the run says so.
    let mut first = stratigraph(1);
    first.current_dir(dir).args(["rootfs", "--universe", "universe", "--plain-http", address, "-o", "first"]);
    first.args(["--platform", "linux/riscv64,linux/ppc64le"]).arg(format!("{address}/lab/both:list"));
    let out = succeed(&mut first);
    assert!(out.contains("none of the wanted platforms; linux/amd64 was taken"), "{out}");
    let results = Results::read(&dir.join("first/rootfs.h5")).expect("a results file");
    assert_eq!(results.images[0].platform.as_ref().map(ToString::to_string), Some("linux/amd64".to_owned()));
    assert!(results.set_of(0).is_some());
}
