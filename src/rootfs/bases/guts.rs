//! Path sets in the format of `container-guts`: one JSON file for each base,
//! `{"docker.io/library/debian:12": {"fs": ["/bin/bash", ...], "paths": {...}}}`.

use super::{Error, NewBase};
use crate::rootfs::paths::normal;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, Visitor};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::{Path, PathBuf};

/// What was read from a source of path sets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Guts {
    /// The bases, by ascending name.
    pub bases: Vec<NewBase>,
    /// Source, its sha256 and the number of bases, as one line.
    pub source: String,
    /// Files that were passed over, with the reason.
    pub skipped: Vec<String>,
}

/// A path as bytes. Python writes bytes that are no UTF-8 as lone surrogates `\udc80`..`\udcff`;
/// they become these bytes again.
struct PathBytes(Vec<u8>);

impl<'de> Deserialize<'de> for PathBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Vec<u8>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a path")
            }
            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(unescape(bytes))
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Vec<u8>, E> {
                Ok(text.as_bytes().to_vec())
            }
        }
        deserializer.deserialize_bytes(Bytes).map(Self)
    }
}

/// Lone low surrogates U+DC80..U+DCFF, which serde_json gives as three bytes ED B2 80 .. ED B3 BF,
/// to the bytes 0x80..0xFF that they stand for.
fn unescape(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, tail)) = rest.split_first() {
        match rest {
            [0xed, high @ 0xb2..=0xb3, low @ 0x80..=0xbf, after @ ..] => {
                out.push(((high & 3) << 6) | (low & 0x3f));
                rest = after;
            }
            _ => {
                out.push(first);
                rest = tail;
            }
        }
    }
    out
}

#[derive(Deserialize)]
struct Manifest {
    fs: Option<Vec<PathBytes>>,
}

/// Reads all `*.json` files of a directory (recursively), of a tar archive (plain, gzip, zstd), or a
/// single file. As in `container-guts`, a file's first image counts; files without `fs` are passed
/// over and told.
///
/// # Errors
/// [`Error::Source`] if the source cannot be read, holds no base, or a file of it is no such JSON.
pub fn read_guts(path: &Path) -> Result<Guts, Error> {
    let mut reader = GutsReader { path, bases: BTreeMap::new(), skipped: Vec::new() };
    let about = std::fs::metadata(path).map_err(|e| reader.refuse(format!("cannot be read ({e})")))?;
    let sha256 = if about.is_dir() { reader.directory()? } else { reader.file()? };
    let GutsReader { bases, skipped, .. } = reader;
    let bases: Vec<_> = bases.into_values().collect();
    if bases.is_empty() {
        let reason = "holds no path set; give the JSON files of container-guts or an archive of them";
        return Err(Error::Source { path: path.to_owned(), reason: reason.into() });
    }
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    let source = format!("guts {name} sha256:{sha256} ({} bases)", bases.len());
    Ok(Guts { bases, source, skipped })
}

struct GutsReader<'a> {
    path: &'a Path,
    bases: BTreeMap<String, NewBase>,
    skipped: Vec<String>,
}

impl GutsReader<'_> {
    fn refuse(&self, reason: impl Into<String>) -> Error {
        Error::Source { path: self.path.to_owned(), reason: reason.into() }
    }

    fn directory(&mut self) -> Result<String, Error> {
        let mut files = Vec::new();
        let mut directories = vec![self.path.to_owned()];
        while let Some(directory) = directories.pop() {
            let entries = std::fs::read_dir(&directory)
                .map_err(|e| self.refuse(format!("{}: {e}", directory.display())))?;
            for entry in entries {
                let entry = entry.map_err(|e| self.refuse(format!("{}: {e}", directory.display())))?;
                let kind = entry.file_type().map_err(|e| self.refuse(e.to_string()))?;
                match kind.is_dir() {
                    true => directories.push(entry.path()),
                    false if is_json(&entry.path()) => files.push(entry.path()),
                    false => (),
                }
            }
        }
        files.sort();
        let mut sum = Sha256::new();
        for file in files {
            let text = std::fs::read(&file).map_err(|e| self.refuse(format!("{}: {e}", file.display())))?;
            let below = file.strip_prefix(self.path).unwrap_or(&file).to_string_lossy().into_owned();
            sum.update(below.as_bytes());
            sum.update([0]);
            sum.update(Sha256::digest(&text));
            self.add(&below, &text)?;
        }
        Ok(hex(&sum.finalize()))
    }

    fn file(&mut self) -> Result<String, Error> {
        let unreadable = |e: std::io::Error| Error::Source {
            path: self.path.to_owned(),
            reason: format!("cannot be read ({e}); is it complete?"),
        };
        let mut file = File::open(self.path).map_err(unreadable)?;
        let mut sum = Sha256::new();
        let mut buffer = vec![0; 1 << 16];
        loop {
            let n = file.read(&mut buffer).map_err(unreadable)?;
            if n == 0 {
                break;
            }
            sum.update(&buffer[..n]);
        }
        file.rewind().map_err(unreadable)?;
        let mut head = [0; 4];
        let read = file.read(&mut head).map_err(unreadable)?;
        file.rewind().map_err(unreadable)?;
        let file = BufReader::new(file);
        match &head[..read] {
            [0x28, 0xb5, 0x2f, 0xfd] => self.archive(zstd::Decoder::new(file).map_err(unreadable)?)?,
            [0x1f, 0x8b, ..] => self.archive(flate2::bufread::MultiGzDecoder::new(file))?,
            _ if is_json(self.path) => {
                let text = std::fs::read(self.path).map_err(unreadable)?;
                let name = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                self.add(&name, &text)?;
            }
            _ => self.archive(file)?,
        }
        Ok(hex(&sum.finalize()))
    }

    fn archive(&mut self, stream: impl Read) -> Result<(), Error> {
        let broken = |e: std::io::Error| Error::Source {
            path: self.path.to_owned(),
            reason: format!("is no whole tar archive of JSON files ({e})"),
        };
        let mut archive = tar::Archive::new(stream);
        let mut texts: Vec<(PathBuf, Vec<u8>)> = Vec::new();
        for entry in archive.entries().map_err(broken)? {
            let mut entry = entry.map_err(broken)?;
            let path = entry.path().map_err(broken)?.into_owned();
            if entry.header().entry_type().is_file() && is_json(&path) {
                let mut text = Vec::new();
                entry.read_to_end(&mut text).map_err(broken)?;
                texts.push((path, text));
            }
        }
        texts.sort();
        texts.iter().try_for_each(|(path, text)| self.add(&path.to_string_lossy(), text))
    }

    fn add(&mut self, file: &str, text: &[u8]) -> Result<(), Error> {
        let (name, manifest) =
            first_of_map(text).map_err(|e| self.refuse(format!("{file}: is no path set ({e})")))?;
        let Some(fs) = manifest.fs else {
            self.skipped.push(format!("{file}: {name} has no `fs`"));
            return Ok(());
        };
        let mut paths: Vec<_> = fs.iter().map(|path| normal(&path.0)).filter(|p| !p.is_empty()).collect();
        paths.sort();
        paths.dedup();
        let archive = self.path.file_name().unwrap_or_default().to_string_lossy();
        let origin = format!("{archive}: {file}");
        let base = NewBase { name: name.clone(), origin, created: String::new(), paths };
        match self.bases.get(&name) {
            Some(known) if known.paths != base.paths => {
                Err(Error::Twice { name, first: known.origin.clone(), second: base.origin })
            }
            _ => {
                self.bases.insert(name, base);
                Ok(())
            }
        }
    }
}

fn is_json(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "json")
}

/// The first entry of a JSON object; the others are read over.
fn first_of_map(text: &[u8]) -> serde_json::Result<(String, Manifest)> {
    struct First;
    impl<'de> Visitor<'de> for First {
        type Value = (String, Manifest);
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object with one image")
        }
        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let first = map.next_entry()?.ok_or_else(|| A::Error::custom("an empty object"))?;
            while map.next_entry::<serde::de::IgnoredAny, serde::de::IgnoredAny>()?.is_some() {}
            Ok(first)
        }
    }
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let found = serde::Deserializer::deserialize_map(&mut deserializer, First)?;
    deserializer.end()?;
    Ok(found)
}

pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
