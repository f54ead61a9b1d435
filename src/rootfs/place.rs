//! Where the entries of a layer come to lie: what unpacking does with names, without files.
//!
//! The rules are those of the OCI image specification ("Image Layer Filesystem Changeset") and,
//! where it is silent, of the tools that unpack layers (umoci, containerd):
//!
//! - Entries apply in the order of the archive; whiteouts and opaque markers only ever concern the
//!   layers below.
//! - An entry that is not a directory replaces what stands at its path, a directory with all that is
//!   below it. A directory replaces a file or link at its path, and merges with a directory.
//! - The *parent* of an entry is looked up through symbolic links, as the kernel does: below a link
//!   to a directory an entry lands in that directory. This is so for links of the layer itself and,
//!   where the layer has no entry for the parent, for those of the layers below. A parent that is not
//!   there is made.
//! - Names below a directory that the same layer replaces by a file and then makes anew are not
//!   forgotten where links are looked up. No tool writes such archives; whiteouts and the set of paths
//!   are not concerned.
//! - A hard link to a symbolic link of the same layer is that link; any other is a file.

use super::listing::{Entry, Kind};
use super::paths;
use rustc_hash::{FxHashMap, FxHashSet};
use std::hash::{Hash, Hasher};

/// What came to lie at a path, all links on the way followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What<'a> {
    /// A directory of this layer; it merges with one of the layers below.
    Directory,
    /// Anything that is neither a directory nor a symbolic link.
    File,
    /// A symbolic link and its target.
    Link(&'a [u8]),
    /// The path is gone from the layers below.
    Whiteout,
    /// Nothing of the layers below is left below the path.
    Opaque,
}

/// Takes what a [`Placer`] placed.
pub trait Sink {
    /// `path` is in normal form and never the root.
    fn put(&mut self, path: &[u8], what: What<'_>);
}

/// The layers below, as far as placing needs them.
pub trait Lower {
    /// True if there are no layers below.
    fn is_nothing(&self) -> bool {
        false
    }

    /// The target, if a symbolic link stands at this very path.
    fn link(&self, path: &[u8]) -> Option<Vec<u8>>;
}

/// No layers below.
pub struct Nothing;

impl Lower for Nothing {
    fn is_nothing(&self) -> bool {
        true
    }

    fn link(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }
}

/// Links followed in one look-up before it counts as a loop; Linux stops at 40, too.
pub const MAX_HOPS: usize = 40;

/// The hash by which paths are known in memory: 64 bits, the same in every run of a build.
pub fn key(path: &[u8]) -> u64 {
    #[allow(deprecated)]
    let mut hasher = std::hash::SipHasher::new();
    path.hash(&mut hasher);
    hasher.finish()
}

enum Own {
    Directory,
    /// Remembered only where there are layers below, whose link at the path it hides.
    File,
    Link(Box<[u8]>),
}

/// Bytes that a directory or link of a layer costs in memory, beside its target.
const OWN_BYTES: usize = 40;

/// Places the entries of one layer.
pub struct Placer<'a> {
    lower: &'a dyn Lower,
    own: FxHashMap<u64, Own>,
    own_bytes: usize,
    implied: Vec<Vec<u8>>,
    /// Keys of those.
    known: FxHashSet<u64>,
    /// The directory of the entry before, as written and as found.
    last: Option<(Vec<u8>, Vec<u8>)>,
    path: Vec<u8>,
}

impl<'a> Placer<'a> {
    /// Places a layer on these.
    pub fn new(lower: &'a dyn Lower) -> Self {
        Self {
            lower,
            own: FxHashMap::default(),
            own_bytes: 0,
            implied: Vec::new(),
            known: FxHashSet::default(),
            last: None,
            path: Vec::new(),
        }
    }

    /// Places an entry.
    pub fn place(&mut self, entry: &Entry<'_>, sink: &mut impl Sink) {
        if entry.path.is_empty() {
            if entry.kind == Kind::Opaque {
                sink.put(b"", What::Opaque);
            }
            return;
        }
        let parent = paths::parent(entry.path);
        match entry.kind {
            Kind::Opaque => {
                let directory = self.directory(entry.path, None);
                return sink.put(&directory, What::Opaque);
            }
            Kind::Whiteout => {
                let mut path = self.directory(parent, None);
                paths::push(&mut path, paths::name(entry.path));
                return sink.put(&path, What::Whiteout);
            }
            _ => (),
        }
        let known = self.last.take().filter(|(written, _)| written == parent);
        let (written, real) = match known {
            Some(known) => known,
            None => (parent.to_vec(), self.directory(parent, Some(sink))),
        };
        let mut path = std::mem::take(&mut self.path);
        path.clear();
        path.extend_from_slice(&real);
        paths::push(&mut path, paths::name(entry.path));
        self.last = Some((written, real));
        self.put(&path, entry.kind, sink);
        self.path = path;
    }

    fn put(&mut self, path: &[u8], kind: Kind<'_>, sink: &mut impl Sink) {
        let at = key(path);
        match kind {
            Kind::Directory => {
                if !matches!(self.own.get(&at), Some(Own::Directory)) {
                    self.set(at, Own::Directory);
                }
                sink.put(path, What::Directory);
            }
            Kind::File => {
                self.clear(at);
                sink.put(path, What::File);
            }
            Kind::Link(target) => {
                self.set(at, Own::Link(target.into()));
                sink.put(path, What::Link(target));
            }
            Kind::HardLink(to) => {
                let mut to_path = self.directory(paths::parent(to), None);
                paths::push(&mut to_path, paths::name(to));
                match self.own.get(&key(&to_path)) {
                    Some(Own::Link(target)) => {
                        let target = target.clone();
                        self.set(at, Own::Link(target.clone()));
                        sink.put(path, What::Link(&target));
                    }
                    _ => {
                        self.clear(at);
                        sink.put(path, What::File);
                    }
                }
            }
            Kind::Whiteout | Kind::Opaque => (),
        }
    }

    fn set(&mut self, at: u64, own: Own) {
        // What a path leads to may be another now.
        self.last = None;
        let bytes = |own: &Own| OWN_BYTES + if let Own::Link(target) = own { target.len() } else { 0 };
        self.own_bytes += bytes(&own);
        if let Some(old) = self.own.insert(at, own) {
            self.own_bytes -= bytes(&old);
        }
    }

    fn clear(&mut self, at: u64) {
        if !self.lower.is_nothing() {
            self.set(at, Own::File);
        } else if self.own.remove(&at).is_some() {
            self.last = None;
        }
    }

    /// The directory that a path leads to; made where it is missing if there is a sink.
    fn directory(&mut self, path: &[u8], mut sink: Option<&mut dyn Sink>) -> Vec<u8> {
        let mut real = Vec::with_capacity(path.len());
        let mut rest = path.to_vec();
        let mut hops = 0;
        while !rest.is_empty() {
            let end = rest.iter().position(|b| *b == b'/').unwrap_or(rest.len());
            let name: Vec<u8> = rest.drain(..(end + 1).min(rest.len())).take(end).collect();
            match name.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    real.truncate(paths::parent(&real).len());
                    continue;
                }
                name => paths::push(&mut real, name),
            }
            let at = key(&real);
            let target = match self.own.get(&at) {
                Some(Own::Directory) => continue,
                Some(Own::Link(target)) => Some(target.to_vec()),
                Some(Own::File) => None,
                None => self.lower.link(&real),
            };
            match target {
                Some(mut target) if hops < MAX_HOPS => {
                    hops += 1;
                    real.truncate(if target.first() == Some(&b'/') { 0 } else { paths::parent(&real).len() });
                    target.push(b'/');
                    target.extend_from_slice(&rest);
                    rest = target;
                }
                _ => {
                    if self.known.insert(at) {
                        self.implied.push(real.clone());
                        self.own_bytes += OWN_BYTES + real.len();
                    }
                    if let Some(sink) = &mut sink {
                        self.set(at, Own::Directory);
                        sink.put(&real, What::Directory);
                    }
                }
            }
        }
        real
    }

    /// Bytes that the directories and links of the layer take in memory.
    pub fn memory(&self) -> usize {
        self.own_bytes
    }

    /// Directories that were needed before the layer had an entry for them. If a layer below has a
    /// link at one of them, the layer lies elsewhere and must be placed again on that layer.
    pub fn into_implied(self) -> Vec<Vec<u8>> {
        self.implied
    }
}
