//! Base databases and classification through the real program.

mod support;

use serde_json::{Value, json};
use std::path::Path;
use support::layout::empty_files;
use support::{ranks, run, shared, stratigraph, succeed};

fn write_guts(directory: &Path, name: &str, paths: &[String]) {
    let file = directory.join(format!("{}.json", name.replace(['/', ':'], "-")));
    std::fs::create_dir_all(directory).expect("a directory");
    let mut object = serde_json::Map::new();
    object.insert(name.to_owned(), json!({"fs": paths, "paths": {}}));
    std::fs::write(file, serde_json::to_vec(&object).expect("JSON")).expect("written");
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("written")).expect("JSON")
}

fn numbered(place: &str, range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|i| format!("/{place}/{i}")).collect()
}

#[test]
fn a_database_is_made_extended_and_used() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    let small = [numbered("usr/bin", 0..40), numbered("etc", 0..20)].concat();
    let large = [numbered("usr/bin", 20..60), numbered("usr/share/zoneinfo", 0..200)].concat();
    write_guts(&at("guts"), "docker.io/library/small:1", &small);
    write_guts(&at("guts"), "docker.io/library/large:2", &large);
    let bases = at("bases.h5");
    succeed(stratigraph(1).arg("bases").arg(at("guts")).arg("-o").arg(&bases));
    let first = std::fs::read(&bases).expect("written");
    succeed(stratigraph(1).arg("bases").arg(at("guts")).arg("-o").arg(&bases));
    assert!(std::fs::read(&bases).expect("written") == first, "the same sources give the same bytes");

    // The small base with the time zones of the large one: the published score goes wrong.
    let image = [small.clone(), numbered("usr/share/zoneinfo", 0..200), numbered("opt", 0..9)].concat();
    write_guts(&at("images"), "me/app:1", &image);
    write_guts(&at("images"), "me/static:1", &numbered("opt", 0..3));
    let json = at("answers.json");
    let classify = |more: &[&str]| {
        let mut command = stratigraph(1);
        command.arg("classify").arg(at("images")).arg("--bases").arg(&bases).arg("--json").arg(&json);
        succeed(command.args(more));
        read(&json)
    };
    let answers = classify(&[]);
    let app = &answers["images"][0];
    assert_eq!(app["published"]["base"], "docker.io/library/large:2");
    assert_eq!(app["published"]["score"].as_f64(), Some(220.0 / 260.0));
    assert_eq!(app["likeness"]["nearest"], "docker.io/library/small:1");
    let nothing = &answers["images"][1];
    assert!(nothing.get("published").is_none());
    assert_eq!(nothing["likeness"]["abstained"], "no-paths");
    // No base here has what `docker export` adds, so that nothing changes.
    assert_eq!(classify(&["--docker-export-artefacts"])["images"][0], *app);

    write_guts(&at("more"), "docker.io/library/third:3", &numbered("srv", 0..5));
    let text =
        succeed(stratigraph(1).arg("bases").arg("--add").arg(&bases).arg(at("more")).arg("-o").arg(&bases));
    assert!(text.contains("3 bases of 3 families"), "{text}");
    write_guts(&at("more"), "docker.io/library/small:1", &numbered("srv", 0..5));
    let (code, _, error) = run(stratigraph(1).arg("bases").arg("--add").arg(&bases).arg(at("more")));
    assert_eq!(code, 4, "{error}");
    assert!(error.contains("small:1"), "{error}");
    let (code, _, error) = run(stratigraph(1).arg("classify").arg(at("images")));
    assert_eq!(code, 4, "{error}");
}

#[test]
fn the_bases_of_the_study_are_told_apart() {
    let Some(shared) = shared() else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    let (bases, guts) = (at("bases.h5"), shared.join("data/guts.tar.zst"));
    let text = succeed(stratigraph(2).arg("bases").arg(&guts).arg("-o").arg(&bases));
    assert!(text.contains("46 bases of 7 families, 45 463 paths"), "{text}");
    let json = at("answers.json");
    succeed(stratigraph(2).arg("classify").arg(&guts).arg("--bases").arg(&bases).arg("--json").arg(&json));
    let answers = read(&json);
    let images = answers["images"].as_array().expect("a list");
    assert_eq!(images.len(), 46);
    let mut ties = 0;
    for image in images {
        assert_eq!(image["published"]["score"].as_f64(), Some(1.0));
        ties += u32::from(!image["published"]["ties"].as_array().expect("a list").is_empty());
        assert_eq!(image["likeness"]["nearest"], image["image"]);
        assert!(image["likeness"]["family"].is_string(), "{image}");
    }
    // Bases that another base contains.
    assert_eq!(ties, 11);

    // The same seed gives the same bits, on one thread or two; nearly all families are right.
    let accuracy = |threads: usize, name: &str| {
        let json = at(name);
        let arguments = ["--images", "600", "--tuning", "1200", "--seed", "3"];
        let mut command = stratigraph(threads);
        succeed(command.arg("accuracy").arg(&bases).args(arguments).arg("--json").arg(&json));
        std::fs::read(json).expect("written")
    };
    let first = accuracy(1, "a.json");
    assert!(first == accuracy(2, "b.json"), "threads must not change a bit");
    let all = &read(&at("a.json"))["rows"][0];
    let count = |name: &str| all[name].as_u64().expect("a count");
    assert!(count("family_right") * 100 >= count("images") * 93, "{all}");
    assert!(count("family_right") > count("published_family_right"), "{all}");
}

/// Real images, made by umoci: a base, an image on it, and one on nothing known. The base is read from
/// its layers, the images by a campaign, and all three answers stand side by side.
#[test]
fn real_images_become_bases_and_get_three_answers() {
    if ["umoci", "sh"].iter().any(|tool| std::process::Command::new(tool).arg("--help").output().is_err()) {
        println!("skipped: no umoci");
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    let script = r#"
        umoci init --layout oci
        umoci new --image oci:base
        umoci unpack --image oci:base bundle
        mkdir -p bundle/rootfs/bin bundle/rootfs/etc/init.d bundle/rootfs/usr/lib
        for i in $(seq 40); do echo x > bundle/rootfs/bin/tool$i; echo x > bundle/rootfs/etc/init.d/s$i; done
        ln -s usr/lib bundle/rootfs/lib
        umoci repack --refresh-bundle --image oci:base bundle
        echo y > bundle/rootfs/usr/lib/app; rm bundle/rootfs/bin/tool1
        umoci repack --refresh-bundle --image oci:app bundle
        umoci new --image oci:other
        umoci unpack --image oci:other second
        mkdir -p second/rootfs/srv; for i in $(seq 30); do echo x > second/rootfs/srv/$i; done
        umoci repack --image oci:other second
    "#;
    let mut make = std::process::Command::new("timeout");
    let (code, out, err) = run(make.args(["60", "sh", "-euc", script]).current_dir(directory.path()));
    assert_eq!(code, 0, "{out}{err}");
    let layout = format!("oci:{}", at("oci").display());
    let (base, app, other) = (format!("{layout}:base"), format!("{layout}:app"), format!("{layout}:other"));
    let bases = at("bases.h5");
    let guts: Vec<String> = numbered("srv", 0..200);
    write_guts(&at("guts"), "docker.io/library/served:2", &guts);
    let mut command = stratigraph(1);
    command.arg("bases").arg(at("guts")).args(["--image", &base, "--name", &format!("{base}=real:1")]);
    let text = succeed(command.arg("-o").arg(&bases));
    assert!(text.contains("2 bases of 2 families, 280 paths"), "{text}");

    let campaign = at("campaign");
    let mut command = stratigraph(1);
    command.args(["rootfs", &app, &other, &base]).arg("--universe").arg(&bases).arg("-o").arg(&campaign);
    succeed(&mut command);
    let (results, json) = (campaign.join("rootfs.h5"), at("answers.json"));
    let mut command = stratigraph(1);
    command.arg("classify").arg(&results).arg("--bases").arg(&bases).arg("--json").arg(&json);
    succeed(&mut command);
    let answers = read(&json);
    let app = &answers["images"][0];
    assert_eq!(app["published"]["base"], "real:1", "{app}");
    assert_eq!(app["published"]["shared"], 79);
    assert_eq!(app["evidence"]["family"], "real");
    assert_eq!(app["evidence"]["kind"], "diff-ids");
    assert_eq!(app["evidence"]["whole"], true);
    assert_eq!(app["likeness"]["nearest"], "real:1");
    let other = &answers["images"][1];
    assert!(other.get("evidence").is_none(), "{other}");
    assert_eq!(other["published"]["base"], "docker.io/library/served:2");
    assert_eq!(answers["summary"]["images"], 3);
    assert_eq!(answers["summary"]["answered"][1], 2);

    // The campaign's own images as bases: the same paths and chains as by --image.
    let again = at("again.h5");
    let mut command = stratigraph(1);
    command.arg("bases").arg(&results).args(["--name", &format!("{base}=real:1")]).arg("-o").arg(&again);
    let text = succeed(&mut command);
    assert!(text.contains("3 bases of"), "{text}");
    // The campaign did not look for the paths that only those have.
    let mut command = stratigraph(1);
    command.arg("classify").arg(&results).arg("--bases").arg(&again);
    support::refused(&mut command, 4, "were not looked for in this campaign");
}

/// `stratigraph run` on a campaign with both tables: what fails is told and answered the next time, the
/// exit code is that of the stage that lost something, and ranks change nothing.
#[test]
fn a_campaign_file_reads_the_layers_and_tells_the_bases() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    let bytes =
        |paths: Vec<String>| paths.into_iter().map(|p| p.as_bytes()[1..].to_vec()).collect::<Vec<_>>();
    let base = bytes([numbered("usr/bin", 0..40), numbered("etc/init.d", 0..30)].concat());
    let app = bytes(numbered("opt/app", 0..5));
    let other = bytes(numbered("srv", 0..30));
    let images = [("base", vec![base.clone()]), ("app", vec![base, app]), ("other", vec![other])];
    empty_files(&at("mirror"), &images.map(|(name, layers)| (name.to_owned(), layers)).into());
    write_guts(&at("guts"), "docker.io/library/served:2", &numbered("srv", 0..200));
    let within = |mut command: std::process::Command| {
        command.current_dir(directory.path());
        command
    };
    let make =
        ["bases", "guts", "--image", "oci:mirror:base", "--name", "oci:mirror:base=real:1", "-o", "b.h5"];
    succeed(within(stratigraph(1)).args(make));
    let campaign = "name = 'tools'\noutput = 'out'\n[rootfs]\nimages = ['oci:mirror']\nuniverse = 'b.h5'\n[classify]\nbases = 'b.h5'\nshow = 1\n";
    std::fs::write(at("campaign.toml"), campaign).expect("written");

    // A layer that is not there: the other images are answered all the same.
    let layout = stratigraph::rootfs::source::Layout::open(&at("mirror")).expect("a layout");
    let image = stratigraph::rootfs::source::Source::image(&layout, "other", &Default::default());
    let lost = image.expect("an image").layers[0].digest;
    let blob = at("mirror/blobs/sha256").join(lost.hex());
    std::fs::rename(&blob, at("hidden")).expect("renamed");
    let (code, out, err) = run(within(ranks(2, 1)).args(["run", "campaign.toml"]));
    assert_eq!(code, 3, "{out}{err}");
    assert!(err.contains("failed: oci:mirror:other"), "{err}");
    let answers = read(&at("out/classify.json"));
    let of = |answers: &Value, name: &str| {
        let images = answers["images"].as_array().expect("a list").iter();
        let found = images.clone().find(|i| i["image"] == format!("oci:mirror:{name}"));
        found.unwrap_or_else(|| panic!("{name} is not in {answers}")).clone()
    };
    assert_eq!(answers["images"].as_array().expect("a list").len(), 3);
    let found = of(&answers, "other");
    assert!(
        found.get("published").is_none() && found["notes"][0].as_str().expect("a note").contains("not read")
    );
    assert_eq!(of(&answers, "app")["published"]["base"], "real:1");
    assert_eq!(of(&answers, "app")["evidence"]["family"], "real");
    assert_eq!(of(&answers, "app")["likeness"]["nearest"], "real:1");

    std::fs::rename(at("hidden"), &blob).expect("renamed");
    let (code, out, err) = run(within(ranks(2, 1)).args(["run", "campaign.toml"]));
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("1 read now"), "{out}");
    let answers = read(&at("out/classify.json"));
    assert_eq!(of(&answers, "other")["published"]["base"], "docker.io/library/served:2");
    succeed(within(stratigraph(2)).args(["run", "campaign.toml", "--out", "alone"]));
    let whole = |out: &str| {
        let mut answers = read(&at(out).join("classify.json"));
        answers["inputs"].take();
        answers
    };
    assert_eq!(whole("out"), whole("alone"));
    let bytes = |out: &str| std::fs::read(at(out).join("rootfs.h5")).expect("results");
    assert!(bytes("out") == bytes("alone"));

    // A stage that cannot go on ends the campaign with its own code; a place of its own for the answers.
    std::fs::write(at("no.toml"), campaign.replace("bases = 'b.h5'", "bases = 'guts'")).expect("written");
    let (code, _, err) = run(within(stratigraph(1)).args(["run", "no.toml"]));
    assert!(code == 4 && err.contains("guts"), "{code} {err}");
    std::fs::write(at("to.toml"), format!("{campaign}json = 'elsewhere.json'\n")).expect("written");
    succeed(within(stratigraph(1)).args(["run", "to.toml", "--out", "third"]));
    assert!(at("elsewhere.json").exists() && !at("third/classify.json").exists());
    support::refused(within(stratigraph(1)).args(["run", "campaign.toml", "--plan"]), 4, "takes no --plan");
}
