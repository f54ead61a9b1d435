//! Entries of a layer, one after another, to its record.

use super::super::delta::DeltaBuilder;
use super::super::listing::{Entry, Kind, ListingWriter};
use super::super::place::{Nothing, Placer};
use super::super::record::{Counts, LayerRecord};
use super::super::{Digest, Universe, paths};
use super::{Error, Limits};

/// Collects what a layer is made of, within limits.
pub(crate) struct Recorder<'a> {
    limits: &'a Limits,
    counts: Counts,
    listing: ListingWriter,
    placer: Placer<'static>,
    delta: DeltaBuilder<'a>,
    number: u64,
}

fn io(error: std::io::Error) -> Error {
    Error::Archive(error.into())
}

impl<'a> Recorder<'a> {
    pub(crate) fn new(universe: &'a Universe, limits: &'a Limits) -> Result<Self, Error> {
        Ok(Self {
            limits,
            counts: Counts::default(),
            listing: ListingWriter::new().map_err(io)?,
            placer: Placer::new(&Nothing),
            delta: DeltaBuilder::new(universe),
            number: 0,
        })
    }

    /// Takes an entry: the type flag of tar, path and link target as written.
    pub(crate) fn push(&mut self, kind: u8, path: &[u8], target: &[u8]) -> Result<(), Error> {
        self.number += 1;
        self.check(path.len().max(target.len()))?;
        let path = paths::normal(path);
        let hard_link;
        let Some(entry) = (match kind {
            b'0' | b'3' | b'4' | b'6' => entry(&path, Kind::File),
            b'5' | b'D' => entry(&path, Kind::Directory),
            b'2' => entry(&path, Kind::Link(target)),
            b'1' => {
                hard_link = paths::normal(target);
                entry(&path, Kind::HardLink(&hard_link))
            }
            _ => None,
        }) else {
            self.counts.odd += 1;
            return Ok(());
        };
        let counts = &mut self.counts;
        let count = match entry.kind {
            Kind::Directory => &mut counts.directories,
            Kind::File => &mut counts.files,
            Kind::Link(_) => &mut counts.links,
            Kind::HardLink(_) => &mut counts.hard_links,
            Kind::Whiteout => &mut counts.whiteouts,
            Kind::Opaque => &mut counts.opaque,
        };
        *count += 1;
        let path;
        let entry = match entry.kind {
            // Of `.wh.NAME` the list keeps what it removes.
            Kind::Whiteout => {
                let (parent, name) = (paths::parent(entry.path), paths::name(entry.path));
                path = joined(parent, &name[WHITEOUT.len()..]);
                Entry { path: &path, kind: Kind::Whiteout }
            }
            Kind::Opaque => Entry { path: paths::parent(entry.path), kind: Kind::Opaque },
            _ => entry,
        };
        self.listing.push(&entry).map_err(io)?;
        self.placer.place(&entry, &mut self.delta);
        Ok(())
    }

    fn check(&self, longest: usize) -> Result<(), Error> {
        let (limits, memory) = (self.limits, self.placer.memory() + self.listing.memory());
        let what = if self.number > limits.entries {
            format!("more than {} entries", limits.entries)
        } else if longest > limits.path_bytes {
            format!("a path of more than {} bytes", limits.path_bytes)
        } else if memory > limits.memory {
            format!("its names take more than {} bytes of memory", limits.memory)
        } else {
            return Ok(());
        };
        Err(Error::Limit { what })
    }

    /// The record; digests and sizes are still to be filled in.
    pub(crate) fn finish(self) -> Result<LayerRecord, Error> {
        // What the last entry brought is not looked at yet.
        self.check(0)?;
        Ok(LayerRecord {
            digest: Digest([0; 32]),
            diff_id: Digest([0; 32]),
            toc_only: false,
            stored_bytes: 0,
            archive_bytes: 0,
            counts: self.counts,
            universe: [0; 32],
            delta: self.delta.finish(),
            implied: self.placer.into_implied(),
            listing: self.listing.finish().map_err(io)?,
        })
    }
}

fn joined(parent: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = parent.to_vec();
    paths::push(&mut path, name);
    path
}

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// What aufs kept for itself; never a part of the file system.
const AUFS: &[u8] = b".wh..wh.";

/// The entry of a path as written, whiteouts and opaque markers told by their names; `None` for what
/// names no path.
fn entry<'a>(path: &'a [u8], kind: Kind<'a>) -> Option<Entry<'a>> {
    let name = paths::name(path);
    if name == OPAQUE {
        return Some(Entry { path, kind: Kind::Opaque });
    }
    if path.split(|b| *b == b'/').any(|part| part.starts_with(AUFS)) {
        return None;
    }
    let Some(removed) = name.strip_prefix(WHITEOUT) else {
        let named = !path.is_empty() || kind == Kind::Directory;
        return named.then_some(Entry { path, kind });
    };
    let sound = !matches!(removed, b"" | b"." | b"..");
    sound.then_some(Entry { path, kind: Kind::Whiteout })
}
