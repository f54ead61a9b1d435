use super::*;
use crate::rootfs::layer::read_layer;
use std::io::Write;

/// A layer of these entries (`name/`, `name -> target`, or a file of some bytes) as a plain archive.
fn archive(names: &[&str]) -> Vec<Vec<u8>> {
    let member = |name: &&str| {
        let mut builder = ::tar::Builder::new(Vec::new());
        let mut header = ::tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(0);
        let (path, target) = name.split_once(" -> ").unwrap_or((name, ""));
        if !target.is_empty() {
            header.set_entry_type(::tar::EntryType::Symlink);
            builder.append_link(&mut header, path, target).unwrap();
        } else if path.ends_with('/') {
            header.set_entry_type(::tar::EntryType::Directory);
            builder.append_data(&mut header, path, [].as_slice()).unwrap();
        } else {
            header.set_size(5000);
            builder.append_data(&mut header, path, [b'x'; 5000].as_slice()).unwrap();
        }
        let bytes = builder.into_inner().unwrap();
        bytes[..bytes.len() - 1024].to_vec()
    };
    names.iter().map(member).collect()
}

const NAMES: [&str; 8] = [
    "etc/",
    "etc/b",
    "etc/.wh.c",
    "usr/",
    "usr/bin/",
    "usr/bin/a",
    "lib -> usr/lib",
    ".no.prefetch.landmark",
];

fn table(names: &[&str]) -> String {
    let mut entries = Vec::new();
    for name in names {
        let (path, target) = name.split_once(" -> ").unwrap_or((name, ""));
        let kind = if !target.is_empty() {
            "symlink"
        } else if path.ends_with('/') {
            "dir"
        } else {
            "reg"
        };
        entries.push(
            serde_json::json!({"name": path, "type": kind, "linkName": target, "size": 5000, "mode": 420}),
        );
        if kind == "reg" {
            entries
                .push(serde_json::json!({"name": path, "type": "chunk", "offset": 9, "chunkOffset": 4096}));
        }
    }
    serde_json::json!({"version": 1, "entries": entries}).to_string()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An eStargz layer: a gzip member for each entry, one for the table, the footer.
fn stargz(names: &[&str], json: &str, footer: u64) -> (Vec<u8>, Layer) {
    let members = archive(names);
    let mut stored: Vec<u8> = members.iter().flat_map(|member| gzip(member)).collect();
    let offset = stored.len();
    let mut builder = ::tar::Builder::new(Vec::new());
    let mut header = ::tar::Header::new_gnu();
    header.set_size(json.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, STARGZ_ENTRY, json.as_bytes()).unwrap();
    let last = builder.into_inner().unwrap();
    stored.extend(gzip(&last));
    let mark = format!("{offset:016x}STARGZ");
    let extra = if footer == 51 { [b"SG\x16\0".as_slice(), mark.as_bytes()].concat() } else { mark.into() };
    stored.extend([0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255]);
    stored.extend((extra.len() as u16).to_le_bytes());
    stored.extend(extra);
    // An empty stored block, checksum and length 0.
    stored.extend([1, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0]);
    let whole = [members.concat(), last].concat();
    let annotations = BTreeMap::from([(STARGZ_DIGEST.to_owned(), Digest::of(json.as_bytes()).to_string())]);
    let layer = describe(&stored, &whole, &annotations);
    (stored, layer)
}

fn describe(stored: &[u8], archive: &[u8], annotations: &BTreeMap<String, String>) -> Layer {
    Layer {
        digest: Digest::of(stored),
        size: stored.len() as u64,
        media_type: String::new(),
        diff_id: Some(Digest::of(archive)),
        unreadable: None,
        toc: Toc::from_annotations(annotations),
    }
}

/// A zstd:chunked layer: frames, and the table in a frame that decoders skip.
fn chunked(names: &[&str], json: &str, prefix: &str) -> (Vec<u8>, Layer) {
    let archive = [archive(names).concat(), vec![0; 1024]].concat();
    let mut stored = zstd::stream::encode_all(archive.as_slice(), 3).unwrap();
    let packed = zstd::stream::encode_all(json.as_bytes(), 3).unwrap();
    stored.extend([0x50, 0x2a, 0x4d, 0x18]);
    stored.extend((packed.len() as u32).to_le_bytes());
    let offset = stored.len();
    stored.extend(&packed);
    let position = format!("{offset}:{}:{}:1", packed.len(), json.len());
    let annotations = BTreeMap::from([
        (format!("{prefix}manifest-checksum"), Digest::of(&packed).to_string()),
        (format!("{prefix}manifest-position"), position),
    ]);
    let layer = describe(&stored, &archive, &annotations);
    (stored, layer)
}

fn universe() -> Universe {
    Universe::new(["usr/bin/a", "etc/b", "etc/c/d", "lib", "stargz.index.json"].map(Vec::from).to_vec())
}

fn read(stored: &[u8], layer: &Layer) -> Result<(LayerRecord, u64), Error> {
    let universe = universe();
    let mut open = |part: Range<u64>| {
        let part = stored.get(part.start as usize..part.end as usize).ok_or("out of range")?;
        Ok(Box::new(part) as Box<dyn Read + Send + '_>)
    };
    let toc = layer.toc.as_ref().expect("a table of contents");
    toc.read(&mut open, layer, &universe, &universe.identity(), &Limits::default())
}

fn layers(json: &str) -> Vec<(Vec<u8>, Layer)> {
    let stargz = STARGZ_FOOTERS.map(|footer| stargz(&NAMES, json, footer));
    let chunked = CHUNKED_PREFIXES.map(|prefix| chunked(&NAMES, json, prefix));
    stargz.into_iter().chain(chunked).collect()
}

#[test]
fn the_table_tells_what_the_layer_does() {
    for (stored, layer) in layers(&table(&NAMES)) {
        let universe = universe();
        let whole =
            read_layer(stored.as_slice(), &layer, &universe, &universe.identity(), &Limits::default(), false)
                .unwrap();
        let (record, bytes) = read(&stored, &layer).unwrap();
        assert!(record.toc_only && !whole.toc_only);
        assert!(bytes < layer.size, "{bytes} of {}", layer.size);
        assert_eq!((record.archive_bytes, record.stored_bytes), (0, layer.size));
        assert_eq!(record, LayerRecord { toc_only: true, archive_bytes: 0, ..whole });
    }
}

#[test]
fn a_table_that_was_changed_is_refused() {
    let json = table(&NAMES);
    for (stored, layer) in layers(&json) {
        let (other, _) = layers(&json.replace("etc/b", "etc/x"))
            .into_iter()
            .find(|(other, _)| other.len() == stored.len() || other[..4] == stored[..4])
            .unwrap();
        let error =
            read(&other, &Layer { size: other.len() as u64, ..layer.clone() }).unwrap_err().to_string();
        assert!(error.starts_with("its table of contents: "), "{error}");
        // Every byte of the table matters: damage is noticed, wherever it is.
        let begin = stored.len() - read(&stored, &layer).unwrap().1 as usize;
        for at in (begin..stored.len()).step_by(7) {
            let mut bad = stored.clone();
            bad[at] ^= 0x20;
            if let Ok((record, _)) = read(&bad, &layer) {
                assert_eq!(record, read(&stored, &layer).unwrap().0, "byte {at}");
            }
            assert!(read(&stored[..at], &layer).is_err());
        }
    }
}

#[test]
fn what_a_table_cannot_tell_is_an_error() {
    for (json, told) in [
        (r#"{"version": 2, "entries": []}"#.to_owned(), "version 2"),
        (r#"{"version": 1}"#.to_owned(), "entries"),
        (r#"{"version": 1, "entries": [{"type": "door", "name": "a"}]}"#.to_owned(), "unknown type"),
        (r#"{"version": 1, "entries": [{"type": "reg", "name": "caf\ufffd"}]}"#.to_owned(), "lost the bytes"),
        ("[]".to_owned(), "a table of contents"),
        (format!("{} x", table(&NAMES)), "trailing"),
    ] {
        for (stored, layer) in layers(&json) {
            let error = read(&stored, &layer).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }
}

#[test]
fn annotations_that_tell_of_no_table_are_passed_over() {
    let digest = Digest::of(b"x").to_string();
    for (digest, position, there) in [
        (digest.as_str(), "10:20:30:1", true),
        (&digest, "10:20:30:2", false),
        (&digest, "10:20:30", false),
        (&digest, "-1:20:30:1", false),
        ("md5:00", "10:20:30:1", false),
    ] {
        let annotations = BTreeMap::from([
            ("io.github.containers.zstd-chunked.manifest-checksum".to_owned(), digest.to_owned()),
            ("io.github.containers.zstd-chunked.manifest-position".to_owned(), position.to_owned()),
        ]);
        assert_eq!(Toc::from_annotations(&annotations).is_some(), there, "{digest} {position}");
    }
    assert_eq!(Toc::from_annotations(&BTreeMap::from([(STARGZ_DIGEST.to_owned(), "none".to_owned())])), None);
}
