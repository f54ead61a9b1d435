//! Whole documents through builder and merge: what is kept, what is noted, and that damage stays
//! in the file it is in.

use crate::corpus::builder::Builder;
use crate::corpus::merge::merge;
use crate::corpus::shard::Shard;
use crate::corpus::{Corpus, Layers, Oddities, Oddity, StudyFilter};
use crate::strings::NONE;
use proptest::prelude::*;

/// A document in the form of the crawl, with most of what is met in one.
const REAL_LIKE: &str = r#"{
    "manifests": {
        "v1": {"schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "size": 7023, "digest": "sha256:cc"},
            "layers": [
                {"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "size": 5000000000, "digest": "sha256:aa"},
                {"mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "size": 32, "digest": "sha256:bb",
                    "urls": ["https://example.org/bb"]}]},
        "multi": {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [
            {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": "sha256:dd", "size": 527,
                "platform": {"architecture": "arm64", "os": "linux", "variant": "v8"}},
            {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": "sha256:ee", "size": 566,
                "platform": {"architecture": "unknown", "os": "unknown"}}]},
        "old": {"schemaVersion": 1, "name": "x", "tag": "old", "fsLayers": [{"blobSum": "sha256:a3"}]}
    },
    "tags": ["v1", "multi", "old"],
    "configs": {
        "v1": {"architecture": "amd64", "os": "windows", "os.version": "10.0.17763.1", "created": "2021-03-04T05:06:07.8+02:00",
            "config": {"Env": ["PATH=/bin"]}, "rootfs": {"type": "layers", "diff_ids": ["sha256:d1",
            "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"]},
            "history": [
                {"created": "2021-03-04T05:06:05Z", "created_by": "ADD file:1 in / "},
                {"created": "2021-03-04T05:06:06Z", "created_by": "/bin/sh -c #(nop)  CMD [\"sh\"]", "empty_layer": true},
                {"created": "2021-03-04T05:06:07Z", "created_by": "WORKDIR /\u0061pp", "comment": "buildkit"}]},
        "multi": {"architecture": "arm64", "os": "linux", "rootfS": {"diff_ids": []}}
    }
}"#;

const OTHER: &str = r#"{"manifests": {"w": {"schemaVersion": 2, "mediaType": "m", "layers": [{"digest": "sha256:aa",
    "size": 7}]}}, "tags": ["w"], "configs": {"w": {"created": "2020-01-01T00:00:00Z", "os": "linux",
    "history": [{"created_by": "ADD file:1 in / "}]}}}"#;

fn path(name: &str) -> Vec<u8> {
    format!("{name}/manifests-config-layers.json").into_bytes()
}

fn shard(files: &[(&str, &[u8])]) -> Shard {
    let mut builder = Builder::new();
    for (i, (name, content)) in files.iter().enumerate() {
        builder.add(&path(name), i as u64, content, [0; 32]);
    }
    builder.finish()
}

fn corpus(files: &[(&str, &[u8])]) -> Corpus {
    let corpus = merge(&[shard(files)], Oddities::default());
    assert_eq!(corpus.check(), Ok(()));
    corpus
}

fn one(document: &str) -> Corpus {
    corpus(&[("a", document.as_bytes())])
}

#[test]
fn a_document_is_read() {
    let c = one(REAL_LIKE);
    assert_eq!(c.manifest_count(), 3);
    assert_eq!(c.study_filter(0), StudyFilter::Kept);
    assert_eq!(c.study_filter(1), StudyFilter::NoLayers);
    assert_eq!(c.study_filter(2), StudyFilter::NoMediaType);
    assert_eq!(c.image_name(0), "a:v1");
    assert_eq!(c.layers.size, [5_000_000_000, 32]);
    assert_eq!(c.layers.flags, [0, Layers::FOREIGN]);
    // The empty diff_id stands at the place of the second layer.
    assert_eq!(c.digest_empty, [0, 1]);
    assert_eq!(
        c.platforms.iter().collect::<Vec<_>>(),
        ["linux/arm64/v8", "unknown/unknown", "windows/amd64:10.0.17763.1", "linux/arm64"]
    );
    assert_eq!(c.commands.get(c.history.created_by[2]), "WORKDIR /app");
    assert_eq!(c.history.empty_layer, [0, 1, 0]);
    assert_eq!(c.history.created[0], 1_614_834_365);
    assert_eq!(c.history_of_layer(0, 1), Some(2));
    for (kind, count) in [
        (Oddity::OciIndex, 1),
        (Oddity::SchemaOne, 1),
        (Oddity::UnknownPlatform, 1),
        (Oddity::ForeignLayer, 1),
        (Oddity::SizeOver32Bits, 1),
        (Oddity::DateWithOffset, 1),
        (Oddity::DateMissing, 1),
        (Oddity::RootfsMisspelt, 1),
        (Oddity::ConfigWithoutHistory, 1),
        (Oddity::WrongType, 0),
        (Oddity::TagsDiffer, 0),
    ] {
        assert_eq!(c.oddities.count(kind), count, "{kind:?}");
    }
    assert!(c.provenance.complete);
}

/// A document with one image whose manifest and config are these.
fn image(manifest: &str, config: &str) -> Corpus {
    one(&format!(r#"{{"manifests": {{"t": {manifest}}}, "configs": {{"t": {config}}}}}"#))
}

fn sizes(size: &str) -> Corpus {
    image(
        &format!(
            r#"{{"mediaType": "m", "schemaVersion": 2, "layers": [{{"digest": "d:1", "size": {size}}}]}}"#
        ),
        "{}",
    )
}

#[test]
fn sizes_are_integers_below_2_to_the_63() {
    for (size, value) in [("0", 0), ("1125899906842624", 1 << 50)] {
        let c = sizes(size);
        assert_eq!((c.layers.size[0], c.layers.flags[0]), (value, 0), "{size}");
    }
    for size in [
        "-5",
        "1125899906842625",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551616",
        "1.5",
        "1e3",
        "1e999",
        "-1e999",
        "null",
        "\"7\"",
    ] {
        let c = sizes(size);
        assert_eq!((c.layers.size[0], c.layers.flags[0]), (0, Layers::SIZE_INVALID), "{size}");
        assert_eq!(c.oddities.count(Oddity::SizeInvalid), 1, "{size}");
        assert_eq!(c.oddities.count(Oddity::BadFile), 0, "{size}");
    }
}

#[test]
fn wrong_types_are_noted_with_their_place() {
    let c = image(
        r#"{"mediaType": 5, "schemaVersion": "2", "layers": [7, {"digest": [], "size": {}}, {"digest": "d:1",
            "size": 1, "urls": 3}], "manifests": {}}"#,
        r#"{"created": {}, "os": 3, "history": [{"created_by": 4, "empty_layer": "yes"}, 5], "rootfs": {"diff_ids": [6]}}"#,
    );
    let fields: Vec<_> = c
        .oddities
        .examples()
        .iter()
        .filter(|e| e.kind == Oddity::WrongType)
        .map(|e| e.field.as_str())
        .collect();
    assert_eq!(
        fields,
        [
            "mediaType: is a number",
            "schemaVersion: is a string",
            "layers[0]: is a number",
            "layers[1].digest: is a list",
            "layers[1].size: is an object",
            "layers[2].urls: is a number",
            "manifests: is an object",
            "created: is an object",
            "os: is a number",
            "history[0].created_by: is a number",
        ]
    );
    assert_eq!(c.oddities.count(Oddity::WrongType), 13);
    assert_eq!(c.oddities.count(Oddity::LayerWithoutDigest), 2);
    assert_eq!((c.layers.digest.len(), c.history.created_by.len()), (1, 2));
    assert_eq!(c.manifests.media_type, [NONE]);
    assert!(c.oddities.examples().iter().filter(|e| e.kind == Oddity::WrongType).all(|e| e.tag == "t"));
}

#[test]
fn of_repeated_keys_the_last_counts_at_the_place_of_the_first() {
    let c = one(r#"{"manifests": {"a": {"mediaType": "x", "layers": [{"digest": "d:1", "size": 1}]},
            "b": {"mediaType": "y", "layers": [{"digest": "d:2", "size": 2, "size": 3}]},
            "a": {"mediaType": "z", "layers": [{"digest": "d:3", "size": 4}]}, "c": {}, "c": 5},
        "configs": {"b": {"os": "1"}, "a": {"os": "2"}, "b": {"os": "3"}}}"#);
    assert_eq!(c.tags.iter().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(c.media_types.iter().collect::<Vec<_>>(), ["z", "y"]);
    assert_eq!(c.layers.size, [4, 3]);
    let platform = |m| c.platforms.get(c.configs.platform[c.config_of(m).unwrap()]);
    assert_eq!((platform(0), platform(1)), ("2/", "3/"));
    assert_eq!(c.oddities.count(Oddity::RepeatedKey), 4);

    let c = one(
        r#"{"manifests": {"a": {"mediaType": "x"}}, "configs": {}, "manifests": {"b": {"mediaType": "y"}}}"#,
    );
    assert_eq!(c.tags.iter().collect::<Vec<_>>(), ["b"]);
}

#[test]
fn bad_documents_are_named() {
    for (document, kind) in [
        ("", Oddity::EmptyFile),
        ("{", Oddity::BadFile),
        ("{\"manifests\": {\n\"a\" 5}}", Oddity::BadFile),
        ("{} x", Oddity::BadFile),
        ("[]", Oddity::NoTopLevelObject),
        ("{}", Oddity::NoTopLevelObject),
        ("{\"manifests\": 5, \"configs\": {}}", Oddity::NoTopLevelObject),
    ] {
        let c = one(document);
        assert!(c.oddities.count(kind) > 0, "{document}");
        assert_eq!(c.manifest_count(), 0);
        assert_eq!(c.provenance.complete, kind == Oddity::NoTopLevelObject, "{document}");
    }
    let c = one("{\"manifests\": {\n\"a\" 5}}");
    assert!(c.oddities.examples()[0].field.ends_with("at line 2 column 5"), "{:?}", c.oddities.examples());
    let deep = "[".repeat(100_000);
    one(&deep);
    one(&format!("{{\"manifests\": {{\"a\": {{\"mediaType\": {deep}"));
}

#[test]
fn invalid_utf8_loses_only_the_bad_bytes() {
    let mut bytes = OTHER.as_bytes().to_vec();
    let at = OTHER.find("linux").unwrap();
    bytes[at] = 0xff;
    let c = corpus(&[("a", &bytes)]);
    assert_eq!(c.oddities.count(Oddity::InvalidUtf8), 1);
    assert_eq!(c.platforms.get(0), "\u{fffd}inux/");
    assert_eq!(c.layers.size, [7]);
    assert!(!c.provenance.complete);
    // The same for half a surrogate pair, which JSON can spell but UTF-8 cannot.
    let c = one(&OTHER.replace("linux", "\\ud800linux\\ud83d\\ude00"));
    assert_eq!(c.oddities.count(Oddity::InvalidUtf8), 1);
    assert_eq!(c.platforms.get(0), "\u{fffd}linux\u{1f600}/");
}

/// What a corpus says about one repository, in words instead of ids.
fn described(c: &Corpus, repository: &str) -> Vec<String> {
    let text = |t: &crate::strings::StringTable, id| t.get_or(id, "-").to_owned();
    let mut lines = Vec::new();
    for m in (0..c.manifest_count()).filter(|m| c.repositories.get(c.manifests.repository[*m]) == repository)
    {
        lines.push(format!(
            "{} {} {:?}",
            c.image_name(m),
            text(&c.media_types, c.manifests.media_type[m]),
            c.study_filter(m)
        ));
        lines.extend(c.layers_of(m).map(|l| {
            format!("{} {} {}", c.digests.get(c.layers.digest[l]), c.layers.size[l], c.layers.flags[l])
        }));
        lines.extend(c.entries_of(m).map(|e| {
            format!(
                "{} {}",
                c.manifest_digests.get(c.entries.digest[e]),
                text(&c.platforms, c.entries.platform[e])
            )
        }));
    }
    for k in (0..c.config_count()).filter(|k| c.repositories.get(c.configs.repository[*k]) == repository) {
        lines.push(format!("{} {}", c.tags.get(c.configs.tag[k]), text(&c.dates, c.configs.created[k])));
        lines.extend(c.history_of(k).map(|h| text(&c.commands, c.history.created_by[h])));
        lines.extend(c.diff_ids_of(k).map(|d| c.diff_ids.get(c.config_diff_ids[d]).to_owned()));
    }
    lines
}

/// One way to damage a document.
#[derive(Debug, Clone)]
enum Damage {
    Flip(usize, u8),
    Delete(usize, usize),
    Cut(usize),
    Double(usize, usize),
    Swap(usize, &'static str),
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = 0..REAL_LIKE.len();
    let values = prop::sample::select(vec![
        "null",
        "-1",
        "1e999",
        "\"\"",
        "[]",
        "{}",
        "true",
        "18446744073709551616",
        "\"\\ud800\"",
        "[[]]",
        "0.5",
    ]);
    prop_oneof![
        (at.clone(), any::<u8>()).prop_map(|(i, b)| Damage::Flip(i, b)),
        (at.clone(), 1..60usize).prop_map(|(i, n)| Damage::Delete(i, n)),
        at.clone().prop_map(Damage::Cut),
        (at.clone(), 1..400usize).prop_map(|(i, n)| Damage::Double(i, n)),
        (at, values).prop_map(|(i, v)| Damage::Swap(i, v)),
    ]
}

fn apply(bytes: &mut Vec<u8>, damage: &Damage) {
    let length = bytes.len();
    match *damage {
        Damage::Flip(i, b) if i < length => bytes[i] = b,
        Damage::Delete(i, n) if i < length => drop(bytes.drain(i..(i + n).min(length))),
        Damage::Cut(i) => bytes.truncate(i),
        Damage::Double(i, n) if i < length => {
            let copy = bytes[i..(i + n).min(length)].to_vec();
            bytes.splice(i..i, copy);
        }
        // The next value after a colon becomes another one; the document stays JSON as a rule.
        Damage::Swap(i, value) if i < length => {
            let Some(start) = bytes[i..].iter().position(|b| *b == b':').map(|p| i + p + 1) else { return };
            let end = bytes[start..].iter().position(|b| b",}]".contains(b)).map_or(length, |p| start + p);
            bytes.splice(start..end, value.bytes());
        }
        _ => (),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn damage_stays_in_its_file(damages in prop::collection::vec(damage(), 1..4)) {
        let mut bad = REAL_LIKE.as_bytes().to_vec();
        for d in &damages {
            apply(&mut bad, d);
        }
        let c = corpus(&[("a", REAL_LIKE.as_bytes()), ("b", &bad), ("c", OTHER.as_bytes())]);
        let whole = corpus(&[("a", REAL_LIKE.as_bytes()), ("c", OTHER.as_bytes())]);
        for name in ["a", "c"] {
            prop_assert_eq!(described(&c, name), described(&whole, name));
        }
    }

    #[test]
    fn who_reads_what_does_not_show(owner in prop::collection::vec((0..3usize, any::<u32>()), 6)) {
        let files: [(&str, &[u8]); 6] = [
            ("a", REAL_LIKE.as_bytes()), ("b", OTHER.as_bytes()), ("c", b"{"), ("d", b"{}"),
            ("library/b", REAL_LIKE.as_bytes()), ("E", OTHER.as_bytes()),
        ];
        let mut order: Vec<usize> = (0..6).collect();
        order.sort_by_key(|i| owner[*i].1);
        let mut builders = [Builder::new(), Builder::new(), Builder::new()];
        for i in order {
            builders[owner[i].0].add(&path(files[i].0), i as u64, files[i].1, [0; 32]);
        }
        let mut packed = Vec::new();
        for builder in builders {
            builder.finish().pack(&mut packed);
        }
        let mut rest = packed.as_slice();
        let shards: Vec<_> = std::iter::from_fn(|| Shard::unpack(&mut rest)).collect();
        prop_assert_eq!(shards.len(), 3);
        prop_assert_eq!(merge(&shards, Oddities::default()), corpus(&files));
    }
}

#[test]
fn of_a_repeated_file_the_last_counts() {
    let again = OTHER.replace("sha256:aa", "sha256:zz");
    let c = corpus(&[("a", REAL_LIKE.as_bytes()), ("a", again.as_bytes())]);
    assert_eq!((c.manifest_count(), c.oddities.count(Oddity::RepeatedFile)), (1, 1));
    assert_eq!(c.digests.iter().collect::<Vec<_>>(), ["sha256:zz"]);
    assert_eq!(c.oddities.count(Oddity::SchemaOne), 0);
}
