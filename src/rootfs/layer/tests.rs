use super::*;
use crate::rootfs::listing::read_listing;
use crate::rootfs::record::Counts;
use std::io::Write;

/// An archive of empty files, directories (`name/`) and links (`name -> target`).
fn archive(names: &[&str]) -> Vec<u8> {
    let mut builder = ::tar::Builder::new(Vec::new());
    for name in names {
        let mut header = ::tar::Header::new_gnu();
        header.set_size(0);
        header.set_mode(0o644);
        let (path, target) = name.split_once(" -> ").unwrap_or((name, ""));
        if !target.is_empty() {
            header.set_entry_type(::tar::EntryType::Symlink);
            builder.append_link(&mut header, path, target).unwrap();
        } else {
            let directory = path.ends_with('/');
            header.set_entry_type(if directory {
                ::tar::EntryType::Directory
            } else {
                ::tar::EntryType::Regular
            });
            builder.append_data(&mut header, path, [].as_slice()).unwrap();
        }
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(bytes, 3).unwrap()
}

fn describe(stored: &[u8], archive: &[u8]) -> Layer {
    Layer {
        digest: Digest::of(stored),
        size: stored.len() as u64,
        media_type: String::new(),
        diff_id: Some(Digest::of(archive)),
        unreadable: None,
        toc: None,
    }
}

fn read(stored: &[u8], layer: &Layer, limits: &Limits) -> Result<LayerRecord, Error> {
    let universe = Universe::new(["usr/bin/a", "etc/b", "etc/c/d"].map(Vec::from).to_vec());
    let [alone, helped] = [false, true]
        .map(|helped| read_layer(stored, layer, &universe, &universe.identity(), limits, helped));
    match (&alone, &helped) {
        (Ok(one), Ok(two)) => assert_eq!(one, two),
        _ => assert_eq!(
            alone.as_ref().map_err(ToString::to_string),
            helped.as_ref().map_err(ToString::to_string)
        ),
    }
    helped
}

#[test]
fn all_packings_give_the_same() {
    let tar = archive(&[
        "./usr/bin/a",
        "etc/",
        "etc/b -> ../usr",
        "etc/.wh.c",
        "etc/.wh..wh..opq",
        ".wh..wh.plnk/1",
        ".wh.",
    ]);
    let (front, back) = tar.split_at(700);
    let skippable = [b"\x50\x2a\x4d\x18\x03\0\0\0abc".as_slice(), &zstd(&tar)].concat();
    let packed = [
        tar.clone(),
        gzip(&tar),
        [gzip(front), gzip(back)].concat(),
        zstd(&tar),
        [zstd(front), zstd(back)].concat(),
        skippable,
    ];
    for stored in packed {
        let record = read(&stored, &describe(&stored, &tar), &Limits::default()).unwrap();
        assert_eq!(record.digest, Digest::of(&stored));
        assert_eq!(record.diff_id, Digest::of(&tar));
        assert_eq!((record.stored_bytes, record.archive_bytes), (stored.len() as u64, tar.len() as u64));
        let counts =
            Counts { directories: 1, files: 1, links: 1, whiteouts: 1, opaque: 1, odd: 2, hard_links: 0 };
        assert_eq!(record.counts, counts);
        // etc/b = 0, etc/c/d = 1, usr/bin/a = 2
        assert_eq!(record.delta.adds.iter().collect::<Vec<_>>(), [0, 2]);
        assert_eq!(record.delta.removes.iter().collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(record.delta.links, [(0, b"../usr".to_vec())]);
        let mut paths = Vec::new();
        read_listing::<std::io::Error>(&record.listing, |entry| {
            paths.push(String::from_utf8_lossy(entry.path).into_owned());
            Ok(())
        })
        .unwrap();
        assert_eq!(paths, ["usr/bin/a", "etc", "etc/b", "etc/c", "etc"]);
    }
}

#[test]
fn what_is_behind_the_end_of_the_archive_counts() {
    let mut tar = archive(&["a"]);
    tar.extend([7; 100_000]);
    let stored = gzip(&tar);
    assert!(read(&stored, &describe(&stored, &tar), &Limits::default()).is_ok());
    let empty = gzip(b"");
    assert_eq!(read(&empty, &describe(&empty, b""), &Limits::default()).unwrap().counts.total(), 0);
    let zeros = [0; 1024];
    assert_eq!(
        read(&gzip(&zeros), &describe(&gzip(&zeros), &zeros), &Limits::default()).unwrap().counts.total(),
        0
    );
}

#[test]
fn digests_are_checked() {
    let tar = archive(&["a", "b"]);
    let stored = gzip(&tar);
    let good = describe(&stored, &tar);
    let other = Digest::of(b"other");
    let error = read(&stored, &Layer { digest: other, ..good.clone() }, &Limits::default()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&good.digest.to_string()) && text.contains(&other.to_string()), "{text}");
    // Damage that the decoder notices first is told as what it is.
    for at in 0..stored.len() {
        let mut bad = stored.clone();
        bad[at] ^= 0x10;
        let error = read(&bad, &good, &Limits::default()).unwrap_err();
        assert!(matches!(error, Error::Digest { .. }), "byte {at}: {error}");
        let error = read(&stored[..at], &good, &Limits::default()).unwrap_err();
        assert!(matches!(error, Error::Digest { .. }), "cut at {at}: {error}");
    }
    let long = [stored.clone(), vec![0; 1 << 20]].concat();
    assert!(matches!(read(&long, &good, &Limits::default()), Err(Error::Digest { .. })));
}

#[test]
fn a_sound_blob_that_is_no_layer_is_told_so() {
    let text = b"no archive at all".repeat(100);
    for stored in [text.clone(), gzip(&text), zstd(&text)] {
        let error = read(&stored, &describe(&stored, &text), &Limits::default()).unwrap_err();
        assert!(matches!(error, Error::Archive(_)), "{error}");
    }
}

#[test]
fn bombs_are_refused() {
    let mut tar = archive(&["a"]);
    tar.resize(64 << 20, 0);
    let stored = gzip(&tar);
    let limits = Limits { archive_bytes: 1 << 20, ..Limits::default() };
    let error = read(&stored, &describe(&stored, &tar), &limits).unwrap_err();
    assert!(error.to_string().contains("passes 1048576 bytes"), "{error}");

    let names: Vec<_> = (0..200).map(|i| format!("directory-{i}/")).collect();
    let tar = archive(&names.iter().map(String::as_str).collect::<Vec<_>>());
    for (limits, told) in [
        (Limits { entries: 100, ..Limits::default() }, "100 entries"),
        (Limits { path_bytes: 12, ..Limits::default() }, "more than 12 bytes"),
        (Limits { memory: 1000, ..Limits::default() }, "memory"),
    ] {
        let error = read(&tar, &describe(&tar, &tar), &limits).unwrap_err();
        assert!(matches!(error, Error::Limit { .. }) && error.to_string().contains(told), "{error}");
    }
}

#[test]
fn a_broken_stream_is_no_wrong_digest() {
    struct Breaks(usize);
    impl Read for Breaks {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            if self.0 == 0 {
                return Err(std::io::Error::other("the line went dead"));
            }
            let read = into.len().min(self.0);
            self.0 -= read;
            into[..read].fill(0);
            Ok(read)
        }
    }
    let universe = Universe::new(Vec::new());
    let layer = Layer { size: 1 << 20, ..describe(b"", b"") };
    for helped in [false, true] {
        let error =
            read_layer(Breaks(100_000), &layer, &universe, &[0; 32], &Limits::default(), helped).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("100000 of 1048576") && text.contains("the line went dead"), "{text}");
    }
}
