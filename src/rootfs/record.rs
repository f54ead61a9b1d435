//! What is kept of a layer that was read.

use super::delta::{DeltaBuilder, LayerDelta};
use super::listing::{Entry, Kind, read_listing};
use super::names::{Names, NamesBuilder, Tree};
use super::place::{Lower, Nothing, Placer, Sink};
use super::{Digest, Universe};
use std::sync::Arc;

/// How many entries of each kind a layer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Directories.
    pub directories: u64,
    /// Regular files, devices, fifos.
    pub files: u64,
    /// Symbolic links.
    pub links: u64,
    /// Hard links.
    pub hard_links: u64,
    /// Whiteouts.
    pub whiteouts: u64,
    /// Opaque markers.
    pub opaque: u64,
    /// Entries that name no path: of unknown types, of aufs, without a name.
    pub odd: u64,
}

impl Counts {
    /// All entries.
    pub fn total(&self) -> u64 {
        self.to_array().iter().sum()
    }

    /// In the order of the fields.
    pub fn to_array(&self) -> [u64; 7] {
        [self.directories, self.files, self.links, self.hard_links, self.whiteouts, self.opaque, self.odd]
    }

    /// The reverse of [`Counts::to_array`].
    pub fn from_array(counts: [u64; 7]) -> Self {
        let [directories, files, links, hard_links, whiteouts, opaque, odd] = counts;
        Self { directories, files, links, hard_links, whiteouts, opaque, odd }
    }
}

/// A layer that was read to its end and whose digests were found right; or, if `toc_only`, one of which
/// only the table of contents was read.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerRecord {
    /// Digest of the bytes as stored: the layer's name.
    pub digest: Digest,
    /// Digest of the uncompressed archive.
    pub diff_id: Digest,
    /// True if only its table of contents was read and found right: neither the digest of the stored
    /// bytes nor the `diff_id`, which is what the config says (or zeros), was checked.
    pub toc_only: bool,
    /// Bytes as stored.
    pub stored_bytes: u64,
    /// Bytes of the uncompressed archive.
    pub archive_bytes: u64,
    /// Its entries.
    pub counts: Counts,
    /// Identity of the universe that `delta` is of.
    pub universe: [u8; 32],
    /// What it does to the paths of that universe, if no link of a layer below interferes.
    pub delta: LayerDelta,
    /// Directories that its entries are in and that it has no entry for, or a later one. A link of a
    /// layer below at one of them would lead the entries elsewhere.
    pub implied: Vec<Vec<u8>>,
    /// All its entries, compressed.
    pub listing: Vec<u8>,
}

/// Two sinks at once.
struct Both<'a, A, B>(&'a mut A, &'a mut B);

impl<A: Sink, B: Sink> Sink for Both<'_, A, B> {
    fn put(&mut self, path: &[u8], what: super::place::What<'_>) {
        self.0.put(path, what);
        self.1.put(path, what);
    }
}

impl LayerRecord {
    /// Places the entries on nothing and hands what they do to `sink`.
    ///
    /// # Errors
    /// If the list of entries is damaged.
    pub fn replay(&self, sink: &mut impl Sink) -> std::io::Result<()> {
        self.replay_some(&Nothing, |_| true, sink)
    }

    fn replay_some(
        &self,
        lower: &dyn Lower,
        wanted: impl Fn(&Kind<'_>) -> bool,
        sink: &mut impl Sink,
    ) -> std::io::Result<()> {
        let mut placer = Placer::new(lower);
        read_listing(&self.listing, |entry: Entry<'_>| {
            if wanted(&entry.kind) {
                placer.place(&entry, sink);
            }
            Ok(())
        })
    }

    /// The names of the layer, if no link of a layer below interferes.
    ///
    /// # Errors
    /// If the list of entries is damaged.
    pub fn names(&self) -> std::io::Result<Names> {
        let mut names = NamesBuilder::default();
        self.replay(&mut names)?;
        Ok(names.finish())
    }

    /// Places the layer on top of these layers, links followed: whiteouts and opaque markers first,
    /// then what is added. Hands what its entries do to `sink` and returns its names. On top of the
    /// tree lie, before and after the call, the layer's own cuts ([`Names::cuts`]).
    ///
    /// # Errors
    /// If the list of entries is damaged.
    pub fn on(&self, tree: &mut Tree, sink: &mut impl Sink) -> std::io::Result<Names> {
        let is_cut = |kind: &Kind<'_>| matches!(kind, Kind::Whiteout | Kind::Opaque);
        let mut cuts = NamesBuilder::default();
        self.replay_some(tree, is_cut, &mut Both(sink, &mut cuts))?;
        tree.pop();
        let mut names = cuts.clone();
        tree.push(Arc::new(cuts.finish()));
        self.replay_some(tree, |kind| !is_cut(kind), &mut Both(sink, &mut names))?;
        Ok(names.finish())
    }

    /// The delta on another universe.
    ///
    /// # Errors
    /// If the list of entries is damaged.
    pub fn project(&mut self, universe: &Universe, identity: &[u8; 32]) -> std::io::Result<()> {
        if self.universe != *identity {
            let mut delta = DeltaBuilder::new(universe);
            self.replay(&mut delta)?;
            self.delta = delta.finish();
            self.universe = *identity;
        }
        Ok(())
    }
}
