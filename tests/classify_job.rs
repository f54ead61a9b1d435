//! `slurm/classify.sbatch` under a real Slurm, against a real registry.

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use stratigraph::rootfs::store::Store;
use support::cluster::Cluster;
use support::layout::empty_files;
use support::registry::Served;
use support::{results_in, sh, stratigraph, succeed, tools};

const PROGRAM: &str = env!("CARGO_BIN_EXE_stratigraph");
const IMAGES: usize = 24;

#[test]
fn a_requeued_campaign_ends_like_one_process_and_reads_no_finished_layer_again() {
    if !tools(&["skopeo", "docker-registry"]) {
        return;
    }
    let Some(cluster) = Cluster::start() else { return };
    let directory = cluster.path("images");
    let path = |text: String| text.into_bytes();
    let shared = vec![path("bin/sh".into()), path("etc/passwd".into())];
    let image = |i: usize| (format!("v{i}"), vec![shared.clone(), vec![path(format!("opt/app/{i}"))]]);
    let base = ("base".to_owned(), vec![shared.clone()]);
    empty_files(&directory.join("oci"), &(0..IMAGES).map(image).chain([base]).collect::<BTreeMap<_, _>>());
    let served = Served::start(&directory, None);
    let address = &served.address;
    let mut bases = stratigraph(1);
    bases.current_dir(&directory).args(["bases", "--image", "oci:oci:base", "--image", "oci:oci:v17"]);
    bases.args(["--name", "oci:oci:base=lab:1", "--name", "oci:oci:v17=app:17", "-o", "bases.h5"]);
    succeed(&mut bases);
    sh(
        &directory,
        &format!(
            "for i in $(seq 0 {}); do skopeo copy -q --insecure-policy --dest-tls-verify=false oci:oci:v$i docker://{address}/lab/tool:v$i; done",
            IMAGES - 1
        ),
    );
    let campaign = directory.join("campaign.toml");
    let text = format!(
        "name = 'tools'\noutput = 'nowhere'\n[rootfs]\nimages = ['{address}/lab/tool:*']\nuniverse = '{bases}'\nplain_http = ['{address}']\nconnections = 3\n[classify]\nbases = '{bases}'\n",
        bases = directory.join("bases.h5").display()
    );
    std::fs::write(&campaign, text).expect("a file");
    let alone = cluster.path("alone");
    succeed(stratigraph(2).arg("run").arg(&campaign).arg("--out").arg(&alone));

    let before = served.blobs_sent();
    let out = cluster.path("out");
    let arguments = [campaign.as_path(), Path::new("--out"), &out];
    let slowly = [("STRATIGRAPH_LAYER_DELAY_MS", "400")];
    // One rank more than there are connections: it reads nothing.
    let job =
        cluster.submit("classify.sbatch", Path::new(PROGRAM), &["-N", "3", "-n", "4"], &arguments, &slowly);
    let finished = || Store::open(&out.join("layers")).map_or(0, |store| store.len());
    cluster.wait_in(&job, "layers are finished", || finished() > 2);
    cluster.run("scontrol", &["requeue", &job]);
    assert_eq!(cluster.end_of(&job), ("COMPLETED".into(), "0:0".into()), "{}", cluster.log());
    let log = cluster.log();
    assert!(log.contains("run 1: ended with exit code 0"), "{log}");
    let line = log.lines().rfind(|line| line.starts_with("layers: ")).unwrap_or_default();
    let numbers: Vec<usize> =
        line.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect();
    let [distinct, found, read] = numbers[..3] else { panic!("no numbers: {log}") };
    assert!(distinct == IMAGES + 1 && found > 2 && read > 0 && found + read == distinct, "{log}");
    // A layer that was on its way when the job was stopped may come twice, one for each rank.
    let after = served.blobs_sent();
    let layers = served_layers(&alone);
    let sent = |digest: &String| after[digest] - before.get(digest).copied().unwrap_or(0);
    let again: Vec<_> = layers.iter().filter(|digest| sent(digest) != 1).collect();
    assert!(again.len() <= 3 && again.iter().all(|digest| sent(digest) == 2), "{again:?}\n{log}");
    let (mut expected, mut found) = (results_in(&alone), results_in(&out));
    assert_eq!(expected.keys().collect::<Vec<_>>(), ["classify.json", "rootfs.h5", "rootfs.json"]);
    // The answers name the file that they are about.
    let [alone, requeued] = [&mut expected, &mut found].map(|results| {
        let text = results.remove("classify.json").expect("answers");
        let mut answers: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        answers["inputs"].take();
        answers
    });
    assert!(expected == found, "the results differ:\n{log}");
    assert_eq!(alone, requeued);
    assert_eq!(alone["summary"]["answered"][1], IMAGES);
    assert_eq!(alone["images"][0]["evidence"]["family"], "lab");
}

/// The digests of all layers of a campaign.
fn served_layers(results: &Path) -> Vec<String> {
    let results = stratigraph::rootfs::results::Results::read(&results.join("rootfs.h5")).expect("results");
    let mut all: Vec<_> =
        results.images.iter().flat_map(|i| i.layers.iter().map(|l| l.digest.to_string())).collect();
    all.sort();
    all.dedup();
    all
}
