//! Statistics of real corpora against independently computed answers: whole numbers exactly,
//! floats to 1e-12 of their value.

mod support;

use serde_json::Value;
use std::path::{Path, PathBuf};
use support::{shared, stratigraph, succeed};

/// Statistics of a corpus pack, as the program writes them.
fn stats_of(source: &Path, directory: &Path) -> Value {
    let corpus = directory.join("corpus.h5");
    if source.extension().is_some_and(|e| e == "csv") {
        return json_of(source, directory);
    }
    let text = succeed(stratigraph(2).arg("import").arg(source).arg("-o").arg(&corpus));
    assert!(text.contains("corpus: "), "{text}");
    json_of(&corpus, directory)
}

fn json_of(corpus: &Path, directory: &Path) -> Value {
    let json = directory.join("stats.json");
    let text = succeed(stratigraph(2).arg("stats").arg(corpus).arg("--json").arg(&json));
    assert!(text.contains("as published"), "{text}");
    serde_json::from_slice(&std::fs::read(json).expect("written")).expect("JSON")
}

fn truth(shared: &Path, name: &str) -> Value {
    let text = std::fs::read(shared.join("truth").join(name)).expect("a truth file");
    serde_json::from_slice(&text).expect("JSON")
}

/// Collects what differs, so that one run tells all.
#[derive(Default)]
struct Differences(Vec<String>, usize);

impl Differences {
    fn compare(&mut self, place: &str, ours: &Value, truth: &Value) {
        self.1 += 1;
        let same = match (ours, truth) {
            (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
                (Some(a), Some(b)) => a == b,
                _ => {
                    let (a, b) = (a.as_f64().unwrap_or(f64::NAN), b.as_f64().unwrap_or(f64::NAN));
                    (a - b).abs() <= 1e-12 * b.abs()
                }
            },
            _ => ours == truth,
        };
        if !same {
            self.0.push(format!("{place}: {ours} instead of {truth}"));
        }
    }

    /// Every field of the truth's object, under our names for them.
    fn compare_all(&mut self, place: &str, ours: &Value, truth: &Value, names: &[(&str, &str)]) {
        for (theirs, value) in truth.as_object().expect("an object") {
            let name = names.iter().find(|n| n.0 == theirs).map_or(theirs.as_str(), |n| n.1);
            self.compare(&format!("{place}/{theirs}"), &ours[name], value);
        }
    }

    fn end(self, least: usize) {
        assert!(self.0.is_empty(), "{} differences:\n{}", self.0.len(), self.0.join("\n"));
        assert!(self.1 >= least, "only {} values were compared", self.1);
    }
}

const REPETITION: [(&str, &str); 8] = [
    ("==1", "once"),
    (">1", "more_than_1"),
    (">2", "more_than_2"),
    (">50", "more_than_50"),
    (">100", "more_than_100"),
    (">500", "more_than_500"),
    (">1000", "more_than_1000"),
    (">3000", "more_than_3000"),
];

const TABLE: [(&str, &str); 6] = [
    ("rows", "rows"),
    ("unique_uri", "repositories"),
    ("unique_full_uri", "images"),
    ("unique_digest", "distinct_digests"),
    ("total_size_bytes", "total_bytes"),
    ("unique_digest_size_bytes", "distinct_bytes"),
];

fn compare_table(found: &mut Differences, place: &str, ours: &Value, top: &Value, truth: &Value) {
    for (theirs, name) in TABLE {
        found.compare(&format!("{place}/{theirs}"), &ours[name], &truth[theirs]);
    }
    let rows = &truth["rows_per_uri (seed calls this tags per manifest)"];
    found.compare_all(&format!("{place}/rows_per_uri"), &ours["rows_per_repository"], rows, &[]);
    let tags = &truth["distinct_tags_per_uri"];
    found.compare_all(&format!("{place}/tags_per_uri"), &ours["tags_per_repository"], tags, &[]);
    let repetition = &truth["digest_repetition"];
    found.compare_all(&format!("{place}/repetition"), &ours["repetition"], repetition, &REPETITION);
    let digests = truth["top20_digests"].as_array().expect("a list");
    assert_eq!(digests.len(), 20);
    for (i, digest) in digests.iter().enumerate() {
        found.compare_all(&format!("{place}/top/{i}"), &top[i], digest, &[("uris", "repositories")]);
    }
}

fn compare_years(found: &mut Differences, ours: &Value, truth: &Value) {
    for (theirs, name) in [
        ("layer_size_year>=2010", "layer_size"),
        ("uri_year_sum_all (seed calls this 'by image')", "repository_year_sum"),
    ] {
        found.compare_all(theirs, &ours[name], &truth[theirs], &[]);
    }
    for (theirs, name) in [
        ("uri_year_sum_by_year", "repository_year_sum_by_year"),
        ("uri_year_mean_layer_size_by_year", "repository_year_mean_layer_size_by_year"),
        ("layers_per_image_by_year", "layers_per_image_by_year"),
        ("extra_true_image_size_by_year (sum of layers of one tag)", "image_size_by_year"),
    ] {
        let years = truth[theirs].as_object().expect("years");
        let ours = ours[name].as_object().expect("years");
        assert!(ours.keys().eq(years.keys()), "{theirs}: {:?}", ours.keys());
        for (year, summary) in years {
            found.compare_all(&format!("{theirs}/{year}"), &ours[year], summary, &[]);
        }
    }
}

fn compare_percentiles(found: &mut Differences, ours: &Value, truth: &Value) {
    for (theirs, name) in
        [("Layers", "layers"), ("Images", "images"), ("Number of Layers", "number_of_layers")]
    {
        let ours = &ours[name];
        for (key, value) in truth[theirs].as_object().expect("percentiles") {
            let mine = match key.strip_prefix('p').and_then(|p| p.parse::<u64>().ok()) {
                Some(p) => {
                    let list = ours["percentiles"].as_array().expect("a list");
                    list.iter().find(|pair| pair[0] == p).map_or(&Value::Null, |pair| &pair[1])
                }
                None => match key.as_str() {
                    "median+p25" => &ours["median_plus_p25"],
                    "median-p25" => &ours["median_minus_p25"],
                    key => &ours[key],
                },
            };
            found.compare(&format!("{theirs}/{key}"), mine, value);
        }
    }
}

fn compare_registry(ours: &Value, truth: &Value) {
    let mut found = Differences::default();
    let published = &ours["as_published"];
    let filter = [
        ("images_kept", "kept"),
        ("skip_no_mediaType", "skipped_no_media_type"),
        ("skip_manifest_list", "skipped_manifest_list"),
        ("skip_no_layers", "skipped_no_layers"),
        ("skip_no_config", "skipped_no_config"),
        ("cfg_no_history", "configs_without_history"),
    ];
    found.compare_all("filter", &ours["manifests"], &truth["manifest_filter"], &filter);
    let unfiltered = &truth["table_unfiltered (sqlite)"];
    compare_table(&mut found, "table", &published["table"], &published["top_digests"], unfiltered);
    let dated = &truth["table_date_filtered (published metrics use this)"];
    let top = &published["dated_top_digests"];
    compare_table(&mut found, "dated", &published["dated_table"], top, dated);
    found.compare("bad dates", &published["dates"]["unusable"], &truth["bad_dates"]["as_written"]);
    for (key, months) in [
        ("dates_as_written_%Y-%M-%d", "distinct_months_as_written"),
        ("dates_corrected_%Y-%m-%d", "distinct_months"),
    ] {
        for name in ["rows_kept", "rows_dropped"] {
            found.compare(&format!("{key}/{name}"), &published["dates"][name], &truth[key][name]);
        }
        found.compare(key, &published["dates"][months], &truth[key]["distinct_months"]);
        compare_years(&mut found, &published["by_year"], &truth[key]["by_year"]);
    }
    let subset = [("uris", "images"), ("unique_digest", "distinct_digests")];
    for (key, value) in truth["full_uri_subset"].as_object().expect("an object") {
        let name = if key.starts_with("sha256") { "sha256" } else { key };
        let name = subset.iter().find(|n| n.0 == name).map_or(name, |n| n.1);
        found.compare(&format!("subset/{key}"), &published["subset"][name], value);
    }
    compare_percentiles(&mut found, &published["subset_percentiles"], &truth["percentiles_subset"]);
    let sum = &truth["manifest_table_sha256 (all rows, same line format)"];
    found.compare("table sha256", &published["table_sha256"], sum);
    let media_types = &truth["extra_all_images"]["layer_media_types"];
    found.compare("media types", &ours["manifests"]["layer_media_types"], media_types);
    found.end(400);
}

#[test]
fn the_dev_corpus_gives_the_reference_numbers() {
    let Some(shared) = shared() else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let ours = stats_of(&shared.join("data/registry-corpus-dev.tar.zst"), dir.path());
    compare_registry(&ours, &truth(&shared, "dev.json")["registry"]);
    // What the dated tables leave out is in the corrected column.
    let (published, corrected) = (&ours["as_published"], &ours["corrected"]);
    let by_year = corrected["by_year"].as_object().expect("years");
    let dated: u64 = by_year.values().filter_map(|year| year["image_size"]["n"].as_u64()).sum();
    let without = corrected["images_without_year"].as_u64().expect("a count");
    assert_eq!(Some(dated + without), corrected["table"]["images"].as_u64());
    assert!(published["top_digests"][0]["made_by"][0]["command"].as_str().is_some_and(|c| c.contains("RUN")));
}

#[test]
fn the_sample_corpus_gives_the_reference_numbers() {
    let Some(shared) = shared() else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let ours = stats_of(&shared.join("data/registry-sample.tar.zst"), dir.path());
    compare_registry(&ours, &truth(&shared, "sample.json"));
}

#[test]
fn the_published_table_gives_the_published_percentiles_to_the_last_digit() {
    let Some(shared) = shared() else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let ours = stats_of(&shared.join("data/published/full_uri_subset.csv"), dir.path());
    let truth = &truth(&shared, "published.json")["percentiles"];
    let ours = &ours["as_published"]["subset_percentiles"];
    let mut compared = 0;
    for (theirs, name) in
        [("Layers", "layers"), ("Images", "images"), ("Number of Layers", "number_of_layers")]
    {
        for pair in ours[name]["percentiles"].as_array().expect("a list") {
            let key = format!("p{}", pair[0]);
            assert_eq!(pair[1].to_string(), truth[theirs][&key].to_string(), "{theirs} {key}");
            compared += 1;
        }
        for (key, mine) in [
            ("mean", "mean"),
            ("std_ddof0", "std_ddof0"),
            ("median", "median"),
            ("median+p25", "median_plus_p25"),
            ("median-p25", "median_minus_p25"),
        ] {
            assert_eq!(ours[name][mine].to_string(), truth[theirs][key].to_string(), "{theirs} {key}");
            compared += 1;
        }
    }
    assert_eq!(compared, 3 * 21);
}

/// Jaccard summary of a source under some options.
fn jaccard_of(source: &Path, output: PathBuf, options: &[&str]) -> Value {
    succeed(stratigraph(2).arg("jaccard").arg(source).arg("-o").arg(&output).args(options));
    let text = std::fs::read(output.join("jaccard.json")).expect("a summary");
    serde_json::from_slice(&text).expect("JSON")
}

#[test]
fn one_image_per_repository_has_the_published_similarity() {
    let Some(shared) = shared() else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let table = shared.join("data/published/full_uri_subset.csv");
    let ours = jaccard_of(&table, dir.path().join("published"), &["--matrix"]);
    let truth_published = &truth(&shared, "published.json")["jaccard"];
    // To the last digit.
    let published = &ours["as_published"];
    assert_eq!(published["mean"].to_string(), truth_published["published_mean"].to_string());
    assert_eq!(published["std"].to_string(), truth_published["published_std"].to_string());
    let mut found = Differences::default();
    let compare = |found: &mut Differences, ours: &Value, truth: &Value| {
        for (mine, theirs) in [("mean", "mean_excluding_diagonal"), ("std", "std_excluding_diagonal")] {
            found.compare(theirs, &ours["counts"]["images"][mine], &truth[theirs]);
        }
    };
    compare(&mut found, &ours, truth_published);
    let images = &ours["counts"]["images"];
    found.compare("overlapping", &images["overlapping"], &truth_published["nonzero_unordered_offdiag_pairs"]);
    found.compare("equal", &images["score_one"], &truth_published["identical_unordered_offdiag_pairs"]);

    let corpus = dir.path().join("dev.h5");
    let pack = shared.join("data/registry-corpus-dev.tar.zst");
    succeed(stratigraph(2).arg("import").arg(pack).arg("-o").arg(&corpus));
    let ours = jaccard_of(&corpus, dir.path().join("dev"), &["--subset", "one-per-repository"]);
    let truth_dev = &truth(&shared, "dev.json")["registry"]["jaccard_subset"];
    for (mine, theirs) in
        [("mean", "mean_numpy_object_as_in_script"), ("std", "std_numpy_object_as_in_script")]
    {
        assert_eq!(ours["as_published"][mine].to_string(), truth_dev[theirs].to_string(), "{theirs}");
    }
    compare(&mut found, &ours, truth_dev);
    let images = &ours["counts"]["images"];
    found.compare("overlapping", &images["overlapping"], &truth_dev["pairs_nonzero_offdiag_unordered"]);
    found.compare("equal", &images["score_one"], &truth_dev["pairs_equal_1_offdiag_unordered"]);
    found.end(8);
}
