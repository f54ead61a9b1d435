//! `stratigraph rootfs` on images in a real registry on loopback.

#[path = "support/fake_registry.rs"]
#[allow(dead_code)]
mod fake_registry;
mod support;

use fake_registry::{FakeRegistry, Fault};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use stratigraph::rootfs::results::Results;
use support::layout::{empty_files, image_of};
use support::registry::Served;
use support::{ranks, run, sh, stratigraph, succeed, terminated_when, tools};

/// Three images on one base, and an index of two platforms, in the layout `oci`.
fn images(directory: &Path) {
    sh(
        directory,
        r#"
        umoci init --layout oci
        umoci new --image oci:start
        umoci unpack --image oci:start bundle 2>/dev/null
        mkdir -p bundle/rootfs/etc bundle/rootfs/bin
        seq 20000 > bundle/rootfs/etc/base; echo sh > bundle/rootfs/bin/sh
        umoci repack --refresh-bundle --image oci:a bundle
        echo b > bundle/rootfs/etc/b; umoci repack --refresh-bundle --image oci:b bundle
        rm bundle/rootfs/bin/sh; umoci repack --refresh-bundle --image oci:c bundle
        umoci rm --image oci:start; rm -rf bundle
        printf 'bin/sh\netc/base\netc/b\n' > universe
        "#,
    );
}

fn push(directory: &Path, registry: &str, credentials: &str) {
    let script = format!(
        "for i in a b c; do skopeo copy -q --insecure-policy --dest-tls-verify=false {credentials} oci:oci:$i docker://{registry}/lab/tool:$i; done
         skopeo copy -q --insecure-policy --dest-tls-verify=false {credentials} -f v2s2 oci:oci:b docker://{registry}/lab/docker:b"
    );
    sh(directory, &script);
}

/// Paths of each image, by its last part.
fn paths(results: &Path) -> BTreeMap<String, Vec<String>> {
    let results = Results::read(&results.join("rootfs.h5")).expect("a results file");
    let name =
        |i: usize| results.images[i].reference.rsplit(['/', ':']).next().unwrap_or_default().to_owned();
    // An image that was not read has no paths; its failure is told elsewhere.
    (0..results.images.len())
        .filter(|i| results.paths[*i].is_ok())
        .map(|i| {
            let set = results.set_of(i).expect("a set");
            let path = |id| String::from_utf8_lossy(results.universe.get(id)).into_owned();
            (name(i), set.iter().map(path).collect())
        })
        .collect()
}

#[test]
fn a_real_registry_gives_what_the_layout_gives_and_each_layer_once() {
    if !tools(&["umoci", "skopeo", "docker-registry", "htpasswd"]) {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    images(dir);
    let served = Served::start(dir, None);
    push(dir, &served.address, "");
    let before = served.blobs_sent();
    succeed(stratigraph(2).current_dir(dir).args([
        "rootfs",
        "--universe",
        "universe",
        "-o",
        "here",
        "oci:oci",
    ]));
    let all_tags = format!("{}/lab/tool:*", served.address);
    let docker = format!("{}/lab/docker:b", served.address);
    let options = ["rootfs", "--universe", "universe", "--plain-http", &served.address];
    let mut command = ranks(3, 1);
    let out = succeed(command.current_dir(dir).args(options).args(["-o", "there", &all_tags, &docker]));
    let expected = paths(&dir.join("here"));
    assert_eq!(expected["c"], ["etc/b", "etc/base"]);
    assert_eq!(paths(&dir.join("there")), expected, "{out}");
    let results = Results::read(&dir.join("there/rootfs.h5")).expect("a results file");
    assert_eq!(results.images.len(), 4);
    let layers: std::collections::BTreeSet<String> =
        results.images.iter().flat_map(|i| i.layers.iter().map(|l| l.digest.to_string())).collect();
    let sent = served.blobs_sent();
    for layer in &layers {
        let times = sent[layer] - before.get(layer).copied().unwrap_or(0);
        assert_eq!(times, 1, "{layer} was sent {times} times");
    }
    // Another campaign with the same layers asks for none.
    succeed(stratigraph(1).current_dir(dir).args(options).args([
        "-o",
        "again",
        "--layers",
        "there/layers",
        &all_tags,
    ]));
    assert_eq!(layers.iter().map(|l| served.blobs_sent()[l] - sent[l]).sum::<usize>(), 0);
    // A rank without a connection reads nothing, and is no reason not to start.
    let mut command = ranks(3, 1);
    let few = ["-o", "few", "--connections", "2", &all_tags, &docker];
    let out =
        succeed(command.current_dir(dir).args(options).args(few).env("STRATIGRAPH_LOG", "stratigraph=debug"));
    assert!(out.contains("1 of them read no layers"), "{out}");
    assert!(out.contains("rank=0") && !out.contains("rank=2"), "{out}");
    assert_eq!(paths(&dir.join("few")), expected, "{out}");
}

#[test]
fn a_registry_with_passwords_is_read_with_them_and_none_is_printed() {
    if !tools(&["umoci", "skopeo", "docker-registry", "htpasswd"]) {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    images(dir);
    sh(dir, "htpasswd -Bbn user hunter2 > htpasswd");
    let served = Served::start(dir, Some("htpasswd"));
    push(dir, &served.address, "--dest-creds user:hunter2");
    sh(
        dir,
        &format!(
            "skopeo login -u user -p hunter2 --tls-verify=false --authfile auth.json {}",
            served.address
        ),
    );
    let image = format!("{}/lab/tool:b", served.address);
    let options = ["rootfs", "--universe", "universe", "--plain-http", &served.address, &image];
    let (code, out, err) =
        run(stratigraph(1).current_dir(dir).args(options).args(["-o", "no"]).env("HOME", dir));
    assert!(code == 3 && err.contains("refuses anonymous requests"), "{code} {out}{err}");
    let with = ["-o", "yes", "--authfile", "auth.json"];
    let out =
        succeed(stratigraph(1).current_dir(dir).args(options).args(with).env("STRATIGRAPH_LOG", "trace"));
    assert_eq!(paths(&dir.join("yes"))["b"].len(), 3, "{out}");
    for secret in ["hunter2", "dXNlcjpodW50ZXIy"] {
        assert!(!out.contains(secret), "{out}");
        let everything = Command::new("grep").args(["-rl", secret, "yes"]).current_dir(dir).output();
        assert!(everything.expect("grep runs").stdout.is_empty());
    }
}

fn blob_of(layout: &Path, digest: &str) -> Vec<u8> {
    std::fs::read(layout.join("blobs").join(digest.replace(':', "/"))).expect("a blob")
}

/// Puts an image of a layout into a registry that misbehaves; gives the digests of its layers.
fn serve(fake: &FakeRegistry, layout: &Path, name: &str) -> Vec<String> {
    let image = image_of(layout, name);
    let blob = |digest: &str| blob_of(layout, digest);
    let manifest = image.digest.expect("a digest").to_string();
    fake.add_manifest("lab/tool", name, "application/vnd.oci.image.manifest.v1+json", &blob(&manifest));
    let layers: Vec<_> = image.layers.iter().map(|l| l.digest.to_string()).collect();
    for digest in layers.iter().cloned().chain(image.config.map(|c| c.to_string())) {
        fake.add_blob("lab/tool", &blob(&digest));
    }
    layers
}

#[test]
fn a_table_of_contents_is_read_by_a_range_and_the_layer_where_that_fails() {
    if !tools(&["umoci", "skopeo"]) {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    images(dir);
    sh(
        dir,
        "skopeo copy -q --insecure-policy --dest-compress --dest-compress-format zstd:chunked oci:oci:b oci:chunked:b",
    );
    let fake = FakeRegistry::start();
    let layers = serve(&fake, &dir.join("chunked"), "b");
    let name = format!("{}/lab/tool:b", fake.address());
    let run_it = |out: &str, more: &[&str]| {
        let options = ["--universe", "universe", "--plain-http", fake.address(), "-o", out];
        let mut command = stratigraph(1);
        let out = succeed(command.current_dir(dir).arg("rootfs").args(options).args(more).arg(&name));
        let asked: Vec<_> = layers.iter().map(|layer| fake.asked(layer)).collect();
        (out, asked)
    };
    run_it("whole", &[]);
    let (_, asked) = run_it("toc", &["--toc"]);
    for asked in asked {
        let ranges: Vec<_> = asked.into_iter().map(|a| a.range).collect();
        assert!(matches!(ranges.as_slice(), [None, Some(_)]), "{ranges:?}");
    }
    assert_eq!(paths(&dir.join("toc")), paths(&dir.join("whole")));
    let about = |out: &str| {
        let text = std::fs::read(dir.join(out).join("rootfs.json")).expect("a file");
        let about: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        about["toc_only"].as_u64().expect("a number") as usize
    };
    assert_eq!((about("whole"), about("toc")), (0, layers.len()));
    // A table that is not what the manifest says: the layer itself can be checked.
    fake.fault(&layers[0], Fault::Corrupt);
    let (out, asked) = run_it("corrupt", &["--toc"]);
    assert!(out.contains("the whole layer is read"), "{out}");
    assert_eq!(asked[0].iter().filter(|a| a.range.is_none()).count(), 2);
    assert_eq!(paths(&dir.join("corrupt")), paths(&dir.join("whole")));
    assert_eq!(about("corrupt"), layers.len() - 1);
}

#[test]
fn faults_on_the_way_do_not_show_in_the_results() {
    if !tools(&["umoci", "skopeo", "docker-registry", "htpasswd"]) {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    images(dir);
    let fake = FakeRegistry::start();
    let layers = serve(&fake, &dir.join("oci"), "b");
    let name = format!("{}/lab/tool:b", fake.address());
    let run_it = |out: &str| {
        let options =
            ["--universe", "universe", "--plain-http", fake.address(), "--stall-timeout", "1", "-o", out];
        run(stratigraph(1).current_dir(dir).arg("rootfs").args(options).arg(&name))
    };
    assert_eq!(run_it("sound").0, 0);
    fake.fault("manifests", Fault::Status(429, vec!["Retry-After: 0".into()]));
    fake.fault(&layers[0], Fault::Cut(100));
    fake.fault(&layers[0], Fault::Stall(10));
    fake.fault(&layers[1], Fault::Status(503, vec![]));
    let (code, out, err) = run_it("faulty");
    assert_eq!(code, 0, "{out}{err}");
    let bytes = |out: &str| std::fs::read(dir.join(out).join("rootfs.h5")).expect("a file");
    assert!(bytes("sound") == bytes("faulty"));
    // A layer that is not what its digest says is an error with both digests, and no other is lost.
    fake.fault(&layers[0], Fault::Corrupt);
    let (code, out, err) = run_it("corrupt");
    assert!(code == 3 && err.contains(&layers[0]), "{code} {out}{err}");
    assert_eq!(run_it("corrupt").0, 0);
    assert!(bytes("sound") == bytes("corrupt"));
}

#[test]
fn a_killed_campaign_asks_a_registry_for_no_finished_layer_again() {
    if !tools(&["skopeo", "docker-registry"]) {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    let layers = (0..24).map(|i| vec![format!("opt/app/{i}").into_bytes()]).collect();
    empty_files(&dir.join("oci"), &[("many".to_owned(), layers)].into());
    std::fs::write(dir.join("universe"), "opt/app/3\nopt/app/17\nopt/none\n").expect("a file");
    let served = Served::start(dir, None);
    let name = format!("{}/lab/many:1", served.address);
    sh(
        dir,
        &format!("skopeo copy -q --insecure-policy --dest-tls-verify=false oci:oci:many docker://{name}"),
    );
    let before = served.blobs_sent();
    let campaign = |n: usize, out: &str| {
        let mut command = ranks(n, 1);
        command.current_dir(dir).args(["rootfs", "--universe", "universe", "-o", out]);
        command.args(["--plain-http", &served.address, "--request-rate", "1e6", &name]);
        command
    };
    let mut first = campaign(2, "out");
    first.env("STRATIGRAPH_LAYER_DELAY_MS", "150").stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = first.spawn().expect("the command starts");
    let store = || stratigraph::rootfs::store::Store::open(&dir.join("out/layers"));
    support::cluster::wait_until("layers are finished", || store().is_ok_and(|store| store.len() > 4));
    for pid in support::processes_below(child.id()) {
        // SAFETY: kill(2) reads two integers; the process is one that this test started.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
    assert!(!child.wait().expect("a child").success());
    let finished = store().expect("a store");
    assert!(finished.len() > 4 && finished.len() < 24, "{}", finished.len());
    succeed(&mut campaign(3, "out"));
    let results = Results::read(&dir.join("out/rootfs.h5")).expect("a results file");
    let after = served.blobs_sent();
    assert_eq!(results.images[0].layers.len(), 24);
    let mut again = 0;
    for layer in &results.images[0].layers {
        let name = layer.digest.to_string();
        let sent = after[&name] - before.get(&name).copied().unwrap_or(0);
        match finished.has(&layer.digest, stratigraph::rootfs::store::Wanted::Whole) {
            true => assert_eq!(sent, 1, "{name} was finished"),
            false => again += sent - 1,
        }
    }
    // What was on its way on either rank.
    assert!(again <= 2, "{again} layers came twice");
    assert_eq!(paths(&dir.join("out"))["1"], ["opt/app/17", "opt/app/3"]);
    succeed(&mut campaign(1, "alone"));
    let bytes = |out: &str| std::fs::read(dir.join(out).join("rootfs.h5")).expect("a file");
    assert!(bytes("out") == bytes("alone"));
}

/// A registry with `lab/tool:many`, an image of 16 layers, and a universe in this directory that the fourth
/// has a path of.
fn sixteen_layers(dir: &Path) -> FakeRegistry {
    let layers = (0..16).map(|i| vec![format!("opt/{i}").into_bytes()]).collect();
    empty_files(&dir.join("oci"), &[("many".to_owned(), layers)].into());
    std::fs::write(dir.join("universe"), "opt/3\nopt/none\n").expect("a file");
    let fake = FakeRegistry::start();
    serve(&fake, &dir.join("oci"), "many");
    fake
}

#[test]
fn the_limit_on_connections_holds_for_all_ranks_together() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    let fake = sixteen_layers(dir);
    fake.slowly(std::time::Duration::from_millis(150));
    let name = format!("{}/lab/tool:many", fake.address());
    // Two ranks of three threads, which would read six layers at a time.
    let mut command = ranks(2, 3);
    command.current_dir(dir).args(["rootfs", "--universe", "universe", "-o", "out", "--connections", "3"]);
    succeed(command.args(["--plain-http", fake.address(), "--request-rate", "1e6", &name]));
    assert_eq!(paths(&dir.join("out"))["many"], ["opt/3"]);
    // Two of the three are one rank's.
    assert!((2..=3).contains(&fake.most_in_flight()), "{}", fake.most_in_flight());
}

#[test]
fn the_rate_of_requests_holds_for_all_ranks_together() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    let fake = sixteen_layers(dir);
    let mut command = ranks(2, 1);
    command.current_dir(dir).args(["rootfs", "--universe", "universe", "-o", "out", "--request-rate", "10"]);
    succeed(command.args(["--plain-http", fake.address(), &format!("{}/lab/tool:many", fake.address())]));
    assert_eq!(paths(&dir.join("out"))["many"], ["opt/3"]);
    let mut times: Vec<_> = fake.asked("/blobs/").iter().map(|asked| asked.at).collect();
    times.sort();
    // The config and 16 layers. A rank's first request waits for nothing, each further one for its turn; a
    // rank that took the whole rate for itself would be through in half of that.
    assert!(times.len() >= 17, "{}", times.len());
    let span = (times[times.len() - 1] - times[0]).as_secs_f64();
    let least = (times.len() - 2) as f64 / 10.0;
    assert!(span > 0.8 * least, "{} requests in {span:.2} s", times.len());
}

#[test]
fn evidence_needs_no_layer_and_a_repository_that_is_gone_is_one_failure() {
    if !tools(&["skopeo", "docker-registry"]) {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    let shared = vec![b"bin/sh".to_vec(), b"etc/passwd".to_vec()];
    let tool = vec![shared.clone(), vec![b"opt/tool".to_vec()]];
    empty_files(&dir.join("oci"), &[("base".to_owned(), vec![shared]), ("tool".to_owned(), tool)].into());
    let served = Served::start(dir, None);
    let address = &served.address;
    sh(
        dir,
        &format!(
            "skopeo copy -q --insecure-policy --dest-tls-verify=false oci:oci:tool docker://{address}/lab/tool:1"
        ),
    );
    std::fs::write(dir.join("list"), format!("{address}/lab/tool:*\n{address}/lab/gone:*\n"))
        .expect("a file");
    let named = ["--name", "oci:oci:base=lab:1"];
    succeed(
        stratigraph(1).current_dir(dir).args(["bases", "--image", "oci:oci:base", "-o", "b.h5"]).args(named),
    );
    let before = served.blobs_sent();
    let options = ["rootfs", "--universe", "b.h5", "--list", "list", "--plain-http", address, "-o", "out"];
    let rootfs = |more: &[&str]| run(stratigraph(1).current_dir(dir).args(options).args(more));
    let answer = || -> serde_json::Value {
        let command = ["classify", "out/rootfs.h5", "--bases", "b.h5", "--json", "answers.json"];
        succeed(stratigraph(1).current_dir(dir).args(command));
        let text = std::fs::read(dir.join("answers.json")).expect("a file");
        serde_json::from_slice::<serde_json::Value>(&text).expect("JSON")["images"][0].clone()
    };
    let (code, out, err) = rootfs(&["--no-layers"]);
    let gone = format!("failed: {address}/lab/gone:*: ");
    assert!(code == 3 && err.lines().count() == 1 && err.starts_with(&gone), "{code} {out}{err}");
    // The config alone was sent.
    let sent: usize = served.blobs_sent().iter().map(|(d, n)| n - before.get(d).copied().unwrap_or(0)).sum();
    assert_eq!(sent, 1);
    let evidence = answer();
    assert_eq!(
        (&evidence["evidence"]["family"], &evidence["evidence"]["kind"]),
        (&"lab".into(), &"diff-ids".into())
    );
    assert_eq!(evidence["notes"][0], "paths not read: layers were not to be read");
    // The layers can be read later; then there are paths, also where none is to be read.
    for more in [&[][..], &["--no-layers"]] {
        let (code, out, err) = rootfs(more);
        assert!(code == 3 && err.starts_with(&gone), "{code} {out}{err}");
        assert_eq!(answer()["published"]["family"], "lab");
    }
    let about = std::fs::read_to_string(dir.join("out/rootfs.json")).expect("a file");
    assert!(about.contains("lab/gone:*"), "{about}");
}

#[test]
fn tags_are_waited_for_with_patience_and_a_signal_ends_the_wait() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    empty_files(&dir.join("oci"), &[("b".to_owned(), vec![vec![b"bin/sh".to_vec()]])].into());
    std::fs::write(dir.join("universe"), "bin/sh\n").expect("a file");
    let fake = FakeRegistry::start();
    serve(&fake, &dir.join("oci"), "b");
    fake.add_page("/v2/lab/tool/tags/list?n=1000", &["b"], None);
    let rootfs = |ranks: Command, out: &str| {
        let mut command = ranks;
        command.current_dir(dir).args(["--stall-seconds", "1", "rootfs", "--universe", "universe"]);
        command.args(["--plain-http", fake.address(), "-o", out, &format!("{}/lab/tool:*", fake.address())]);
        command
    };
    // To wait as long as one is told to is no stall, whoever waits for whom.
    fake.fault("tags", Fault::Status(429, vec!["Retry-After: 4".into()]));
    let (code, out, err) = run(&mut rootfs(ranks(2, 1), "out"));
    assert!(code == 0 && out.contains("1 read now"), "{code} {out}{err}");
    assert_eq!(fake.asked("tags").len(), 2);
    fake.fault("tags", Fault::Status(429, vec!["Retry-After: 60".into()]));
    let begun = std::time::Instant::now();
    let (code, text) =
        terminated_when(&mut rootfs(stratigraph(1), "again"), || fake.asked("tags").len() == 3);
    assert_eq!(code, 75, "{text}");
    assert!(begun.elapsed().as_secs() < 50 && fake.asked("tags").len() == 3, "{text}");
}

#[test]
fn passwords_in_a_list_are_not_repeated() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    std::fs::write(dir.join("universe"), "bin/sh\n").expect("a file");
    std::fs::write(dir.join("list"), "https://user:hunter2@registry.example/lab/tool:1\n").expect("a file");
    let options = ["rootfs", "--universe", "universe", "--list", "list", "-o", "out"];
    let (code, out, err) = run(stratigraph(1).current_dir(dir).args(options));
    assert!(code != 0 && !format!("{out}{err}").contains("hunter2"), "{code} {out}{err}");
    assert!(err.contains("list:1: "), "{err}");
    let kept = std::fs::read_to_string(dir.join("out/rootfs.json")).unwrap_or_default();
    assert!(!kept.contains("hunter2"), "{kept}");
}

#[test]
fn trees_of_shpc_and_images_that_cannot_be_read_whole() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    let layers = vec![vec![b"bin/sh".to_vec(), b"etc/base".to_vec()], vec![b"etc/b".to_vec()]];
    empty_files(&dir.join("oci"), &["b", "c"].map(|name| (name.to_owned(), layers.clone())).into());
    std::fs::write(dir.join("universe"), "bin/sh\netc/base\netc/b\n").expect("a file");
    let fake = FakeRegistry::start();
    serve(&fake, &dir.join("oci"), "b");
    serve(&fake, &dir.join("oci"), "c");
    let digest = image_of(&dir.join("oci"), "b").digest.expect("a digest").to_string();
    let manifest = blob_of(&dir.join("oci"), &digest);
    // One of its layers is distributed elsewhere; one image is of the old schema.
    let mut foreign: serde_json::Value = serde_json::from_slice(&manifest).expect("JSON");
    foreign["layers"][1]["mediaType"] = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip".into();
    foreign["layers"][1]["urls"] = serde_json::json!(["https://elsewhere.example/layer"]);
    let oci = "application/vnd.oci.image.manifest.v1+json";
    fake.add_manifest("lab/tool", "foreign", oci, foreign.to_string().as_bytes());
    let old = br#"{"schemaVersion": 1, "name": "lab/tool", "fsLayers": []}"#;
    fake.add_manifest("lab/tool", "old", "application/vnd.docker.distribution.manifest.v1+prettyjws", old);
    let address = fake.address();
    let write = |name: &str, text: String| {
        let place = dir.join("registry").join(name);
        std::fs::create_dir_all(&place).expect("a directory");
        std::fs::write(place.join("container.yaml"), text).expect("a file");
    };
    // The digest stands beside its tag, or on the line below.
    write(
        "a/tool",
        format!(
            "docker: {address}/lab/tool\nurl: https://x.example\nmaintainer: '@me'\ndescription: a tool\nfilter: ['b*']\nlatest:\n  b:\n    {digest}\ntags:\n  b: {digest}\n  c: ''\naliases:\n  tool: /bin/tool\n"
        ),
    );
    write(
        "b/oras",
        format!("oras: oras://{address}/lab/tool\nlatest:\n  foreign: ''\ntags:\n  foreign: ''\n  old: ''\n"),
    );
    write("c/gh", "gh: someone/project\nlatest:\n  '1': sha256:00\n".into());
    let run_it = |out: &str, more: &[&str]| {
        let mut command = stratigraph(1);
        command.current_dir(dir).args(["rootfs", "--list", "registry", "--universe", "universe", "-o", out]);
        run(command.args(["--plain-http", address]).args(more))
    };
    let (code, out, err) = run_it("latest", &[]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(err.contains("skipped: ") && err.contains("gh: someone/project is a release"), "{err}");
    assert!(out.contains("foreign layer") || err.contains("foreign layer"), "{out}{err}");
    let about = |out: &str| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(dir.join(out).join("rootfs.json")).expect("a file"))
            .expect("JSON")
    };
    let latest = about("latest");
    assert_eq!(
        (&latest["images"], &latest["images_with_skipped_layers"]),
        (&2.into(), &1.into()),
        "{latest}"
    );
    assert!(out.contains("list entries passed over: 1 (releases (gh:) 1)"), "{out}");
    assert_eq!(latest["list_entries_passed_over"], 1, "{latest}");
    let gh = &latest["passed_over"][0];
    assert!(gh["place"].as_str().is_some_and(|p| p.ends_with("c/gh/container.yaml")), "{gh}");
    assert!(gh["reason"].as_str().is_some_and(|r| r.starts_with("gh: someone/project is a")), "{gh}");
    // So are the lines of a plain list that are no references; the others are read.
    std::fs::write(dir.join("plain"), format!("{address}/lab/tool:b\n{address}/Lab/NO:x\ntwo words\n"))
        .expect("a file");
    let mut command = stratigraph(1);
    command.current_dir(dir).args(["rootfs", "--list", "plain", "--universe", "universe", "-o", "lines"]);
    let (code, out, err) = run(command.args(["--plain-http", address]));
    assert!(code == 0 && out.contains("list entries passed over: 2 (no image references 2)"), "{out}{err}");
    assert_eq!(
        (about("lines")["images_with_paths"].clone(), about("lines")["list_entries_passed_over"].clone()),
        (1.into(), 2.into())
    );
    let (code, out, err) = run_it("all", &["--all-tags"]);
    assert!(code == 3 && err.contains("lab/tool:old: ") && err.contains("schema 1"), "{code} {out}{err}");
    assert_eq!(about("all")["failures"].as_array().map(Vec::len), Some(1), "{out}{err}");
    let found = paths(&dir.join("all"));
    assert_eq!(found["c"], ["bin/sh", "etc/b", "etc/base"]);
    assert_eq!(found["foreign"], ["bin/sh", "etc/base"]);
    // Layers that pass a bound are failures that name it; the others are read.
    let (code, _, err) = run_it("bounded", &["--max-entries", "1"]);
    assert!(code == 3 && err.contains("raise the limit if this is no decompression bomb"), "{code} {err}");
    assert_eq!(run_it("bounded", &[]).0, 0);
    assert!(std::fs::read(dir.join("bounded/rootfs.json")).is_ok());
}
