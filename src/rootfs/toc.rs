//! Layers with a table of contents: eStargz and zstd:chunked.
//!
//! Both formats are layers like any other, with a list of their entries at the end that can be read
//! alone, by a range of their bytes. Where it is, and its digest, stand in the annotations of the
//! layer's descriptor: so it is checked against the manifest, but neither the digest of the layer nor
//! its diff_id is, and what the list says of the archive is believed. Formats as described by
//! containerd's stargz-snapshotter ("eStargz: Standard-Compatible Extension to Container Image Layers
//! for Lazy Image Pulling") and by containers/storage (`pkg/chunked`).

use super::layer::inflate::{self, Gzip};
use super::layer::recorder::Recorder;
use super::layer::{Hashing, Limits};
use super::record::LayerRecord;
use super::source::Layer;
use super::tar::{Member, Members};
use super::{Digest, Universe};
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{BufReader, Read};
use std::ops::Range;

/// A table of contents that a manifest tells of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Toc {
    /// eStargz: the last bytes of the layer say where it is.
    Stargz {
        /// Digest of the uncompressed table.
        digest: Digest,
    },
    /// zstd:chunked.
    Chunked {
        /// Digest of the compressed table.
        digest: Digest,
        /// First of its bytes in the layer.
        offset: u64,
        /// Its compressed bytes.
        stored: u64,
        /// Its uncompressed bytes.
        length: u64,
    },
}

/// Why a table of contents cannot be used. The layer itself may be sound.
#[derive(Debug, thiserror::Error)]
#[error("its table of contents: {0}")]
pub struct Error(String);

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

const STARGZ_DIGEST: &str = "containerd.io/snapshot/stargz/toc.digest";
/// Before version 1.0 of the format, and since.
const CHUNKED_PREFIXES: [&str; 2] = ["io.github.containers.zstd-chunked.", "io.containers.zstd-chunked."];

/// The entry that holds the table of an eStargz layer. It is part of the file system as well.
const STARGZ_ENTRY: &str = "stargz.index.json";
/// An empty gzip member with an extra field that holds 16 hexadecimal digits and `STARGZ`. Its extra
/// field has a header of 4 bytes, which the format's first version lacked.
const STARGZ_FOOTERS: [u64; 2] = [51, 47];

impl Toc {
    /// What the annotations of a layer's descriptor tell.
    pub fn from_annotations(annotations: &BTreeMap<String, String>) -> Option<Self> {
        let chunked = CHUNKED_PREFIXES.iter().find_map(|prefix| {
            let digest = annotations.get(&format!("{prefix}manifest-checksum"))?.parse().ok()?;
            let position = annotations.get(&format!("{prefix}manifest-position"))?;
            let numbers: Result<Vec<u64>, _> = position.split(':').map(str::parse).collect();
            // The last number is the version of the table: JSON.
            let Ok([offset, stored, length, 1]) = <[u64; 4]>::try_from(numbers.ok()?) else { return None };
            Some(Self::Chunked { digest, offset, stored, length })
        });
        let stargz = || Some(Self::Stargz { digest: annotations.get(STARGZ_DIGEST)?.parse().ok()? });
        chunked.or_else(stargz)
    }

    /// Reads the table; `open` gives ranges of the layer's stored bytes. Returns the record and how
    /// many bytes were asked for.
    ///
    /// # Errors
    /// [`Error`] if it cannot be read, is not what its digest says, passes a limit, or holds names
    /// that JSON cannot.
    pub fn read<'s>(
        &self,
        open: &mut dyn FnMut(Range<u64>) -> Result<Box<dyn Read + Send + 's>, String>,
        layer: &Layer,
        universe: &Universe,
        identity: &[u8; 32],
        limits: &Limits,
    ) -> Result<(LayerRecord, u64), Error> {
        let mut recorder = Recorder::new(universe, limits).map_err(|e| Error(e.to_string()))?;
        let mut asked = 0;
        let mut open = |range: Range<u64>| {
            if range.start >= range.end || range.end > layer.size {
                return Err(Error(format!("is at {range:?} of {} bytes", layer.size)));
            }
            asked += range.end - range.start;
            open(range).map_err(Error)
        };
        match *self {
            Self::Chunked { digest, offset, stored, length } => {
                let end =
                    offset.checked_add(stored).ok_or_else(|| Error("has an impossible place".into()))?;
                let mut table = BufReader::new(Hashing::new(open(offset..end)?, stored));
                read_entries(inflate::zstd(&mut table)?.take(length), &mut recorder)?;
                std::io::copy(&mut table, &mut std::io::sink())?;
                check(digest, table.get_ref().digest())?;
            }
            Self::Stargz { digest } => {
                let (begin, end) = stargz_place(layer.size, &mut open)?;
                let archive = Gzip::new(BufReader::new(open(begin..end)?));
                let mut members = Members::new(BufReader::new(archive));
                let mut member = Member::default();
                let found = members.next(&mut member).map_err(|e| Error(e.to_string()))?;
                if !found || member.path != STARGZ_ENTRY.as_bytes() {
                    return Err(Error(format!("there is no {STARGZ_ENTRY} where it should be")));
                }
                let content = members.into_inner().take(member.size);
                let mut table = BufReader::new(Hashing::new(content, member.size));
                read_entries(&mut table, &mut recorder)?;
                std::io::copy(&mut table, &mut std::io::sink())?;
                check(digest, table.get_ref().digest())?;
                recorder.push(b'0', STARGZ_ENTRY.as_bytes(), b"").map_err(|e| Error(e.to_string()))?;
            }
        }
        let mut record = recorder.finish().map_err(|e| Error(e.to_string()))?;
        record.digest = layer.digest;
        record.diff_id = layer.diff_id.unwrap_or(record.diff_id);
        record.toc_only = true;
        record.stored_bytes = layer.size;
        record.universe = *identity;
        Ok((record, asked))
    }
}

fn check(expected: Digest, found: Digest) -> Result<(), Error> {
    if expected == found { Ok(()) } else { Err(Error(format!("should be {expected}, but is {found}"))) }
}

/// Where the table of an eStargz layer begins and ends, from its footer.
fn stargz_place<'s>(
    size: u64,
    open: &mut impl FnMut(Range<u64>) -> Result<Box<dyn Read + Send + 's>, Error>,
) -> Result<(u64, u64), Error> {
    let longest = size.min(STARGZ_FOOTERS[0]);
    let mut tail = Vec::new();
    open(size - longest..size)?.read_to_end(&mut tail)?;
    for length in STARGZ_FOOTERS {
        let Some(footer) = (tail.len() as u64).checked_sub(length).and_then(|i| tail.get(i as usize..))
        else {
            continue;
        };
        // Ten bytes of gzip header and two of length come before the extra field.
        let field = &footer[if length == 51 { 16 } else { 12 }..];
        let sound = footer.starts_with(&[0x1f, 0x8b, 8, 4]) && field[16..].starts_with(b"STARGZ");
        let offset = std::str::from_utf8(&field[..16]).ok().and_then(|t| u64::from_str_radix(t, 16).ok());
        if let Some(offset) = offset.filter(|_| sound) {
            return Ok((offset, size - length));
        }
    }
    Err(Error("there is no footer that says where it is".into()))
}

/// An entry of the table, in both formats.
#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, default, rename = "linkName")]
    link: Cow<'a, str>,
}

/// Hands every entry on while the table is read: it may be larger than memory allows.
fn read_entries(table: impl Read, recorder: &mut Recorder<'_>) -> Result<(), Error> {
    let mut json = serde_json::Deserializer::from_reader(BufReader::new(table));
    let read = Document(recorder).deserialize(&mut json).and_then(|()| json.end());
    read.map_err(|e| Error(e.to_string()))
}

fn push(recorder: &mut Recorder<'_>, entry: &Entry<'_>) -> Result<(), String> {
    let kind = match &*entry.kind {
        "reg" => b'0',
        "hardlink" => b'1',
        "symlink" => b'2',
        "char" => b'3',
        "block" => b'4',
        "dir" => b'5',
        "fifo" => b'6',
        // Further parts of the file before.
        "chunk" => return Ok(()),
        other => return Err(format!("an entry of unknown type {other:?}")),
    };
    // What was no UTF-8 was replaced when the table was written.
    if let Some(text) =
        [&entry.name, &entry.link].into_iter().find(|t| t.contains(char::REPLACEMENT_CHARACTER))
    {
        return Err(format!("has lost the bytes of a name ({text:?})"));
    }
    recorder.push(kind, entry.name.as_bytes(), entry.link.as_bytes()).map_err(|e| e.to_string())
}

struct Document<'r, 'u>(&'r mut Recorder<'u>);

impl<'de> DeserializeSeed<'de> for Document<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Document<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a table of contents")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut listed = false;
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "entries" if !listed => {
                    map.next_value_seed(Entries(self.0))?;
                    listed = true;
                }
                "version" => {
                    let version: u64 = map.next_value()?;
                    if version != 1 {
                        return Err(A::Error::custom(format!("is of version {version}; known is 1")));
                    }
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        if listed { Ok(()) } else { Err(A::Error::missing_field("entries")) }
    }
}

struct Entries<'r, 'u>(&'r mut Recorder<'u>);

impl<'de> DeserializeSeed<'de> for Entries<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Entries<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list of entries")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(entry) = list.next_element::<Entry<'_>>()? {
            push(self.0, &entry).map_err(A::Error::custom)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
