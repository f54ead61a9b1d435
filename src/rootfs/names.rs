//! All names of a layer, as hashes: what the fold asks to find out where a link leads.

use super::paths;
use super::place::{Lower, MAX_HOPS, Sink, What, key};
use rustc_hash::FxHashMap;
use std::cell::RefCell;
use std::sync::Arc;

/// What a layer itself has at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Own {
    Nothing = 0,
    Directory = 1,
    Link = 2,
    File = 3,
}

const OWN: u64 = 3;
/// What the layers below have at the path is hidden.
const CUT: u64 = 4;
/// What the layers below have in the directory is hidden.
const OPAQUE: u64 = 8;
const BITS: u64 = 15;

/// The names of one layer: 8 bytes each.
///
/// A name is known by 60 bits of its hash. Two names of one image that agree in them would be taken
/// for each other, which could only matter where a link leads through one of them: for a look-up in
/// a layer of a million entries the chance is below 10^-12.
#[derive(Debug, Default)]
pub struct Names {
    /// Hash and, in the lowest four bits, what is there; ascending, each hash once.
    table: Vec<u64>,
    links: FxHashMap<u64, Box<[u8]>>,
}

impl Names {
    fn at(&self, key: u64) -> Option<(Own, u64)> {
        let i = self.table.partition_point(|entry| *entry < key & !BITS);
        let entry = *self.table.get(i).filter(|entry| **entry & !BITS == key & !BITS)?;
        let own = match entry & OWN {
            0 => Own::Nothing,
            1 => Own::Directory,
            2 => Own::Link,
            _ => Own::File,
        };
        Some((own, entry & (CUT | OPAQUE)))
    }

    /// The whiteouts and opaque markers alone: the layers below, seen through them, are what the
    /// layer's other entries meet.
    pub fn cuts(&self) -> Self {
        let cuts = self.table.iter().filter(|entry| **entry & (CUT | OPAQUE) != 0);
        Self { table: cuts.map(|entry| entry & !OWN).collect(), links: FxHashMap::default() }
    }

    /// Bytes in memory.
    pub fn memory(&self) -> usize {
        self.table.len() * 8 + self.links.values().map(|target| target.len() + 48).sum::<usize>()
    }
}

/// Collects the names of a layer.
#[derive(Default, Clone)]
pub struct NamesBuilder {
    /// In the order in which they came: the last word on a name counts.
    table: Vec<u64>,
    links: FxHashMap<u64, Box<[u8]>>,
}

impl Sink for NamesBuilder {
    fn put(&mut self, path: &[u8], what: What<'_>) {
        let key = key(path) & !BITS;
        let bits = match what {
            What::Directory => Own::Directory as u64,
            What::File => Own::File as u64,
            What::Link(target) => {
                self.links.insert(key, target.into());
                Own::Link as u64
            }
            What::Whiteout => CUT,
            What::Opaque => OPAQUE,
        };
        self.table.push(key | bits);
    }
}

impl NamesBuilder {
    /// The table, sorted.
    pub fn finish(self) -> Names {
        let Self { mut table, links } = self;
        table.sort_by_key(|entry| entry & !BITS);
        table.dedup_by(|later, kept| {
            let same = *later & !BITS == *kept & !BITS;
            if same {
                let own = if *later & OWN == 0 { *kept & OWN } else { *later & OWN };
                *kept = *kept & !OWN | own | *later & (CUT | OPAQUE);
            }
            same
        });
        table.shrink_to_fit();
        Names { table, links }
    }
}

/// What an image has at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum At {
    /// Nothing.
    Missing,
    /// A directory; layers below this one do not show in it.
    Directory(usize),
    /// A symbolic link and its target.
    Link(Vec<u8>),
    /// Something else.
    File,
}

/// The names of an image: those of its layers, lowest first, seen through each other.
#[derive(Default)]
pub struct Tree {
    layers: Vec<Arc<Names>>,
    known: RefCell<FxHashMap<u64, At>>,
}

impl Tree {
    /// Puts a layer on top.
    pub fn push(&mut self, names: Arc<Names>) {
        self.layers.push(names);
        self.known.borrow_mut().clear();
    }

    /// Takes the topmost layer off.
    pub fn pop(&mut self) {
        self.layers.pop();
        self.known.borrow_mut().clear();
    }

    /// Number of layers.
    pub fn depth(&self) -> usize {
        self.layers.len()
    }

    /// What stands at this very path: links on the way are not followed.
    pub fn at(&self, path: &[u8]) -> At {
        if path.is_empty() {
            return At::Directory(self.root_floor());
        }
        let at_key = key(path);
        if let Some(at) = self.known.borrow().get(&at_key) {
            return at.clone();
        }
        let at = match self.at(paths::parent(path)) {
            At::Directory(floor) => self.in_directory(at_key & !BITS, floor),
            _ => At::Missing,
        };
        self.known.borrow_mut().insert(at_key, at.clone());
        at
    }

    /// An opaque marker in the root hides all layers below.
    fn root_floor(&self) -> usize {
        let root = key(b"");
        self.layers.iter().rposition(|names| names.at(root).is_some()).unwrap_or(0)
    }

    fn in_directory(&self, key: u64, floor: usize) -> At {
        let (mut directory, mut hidden) = (false, floor);
        for (i, names) in self.layers.iter().enumerate().skip(floor).rev() {
            let Some((own, flags)) = names.at(key) else { continue };
            if flags & OPAQUE != 0 {
                hidden = hidden.max(i);
            }
            match own {
                Own::File if !directory => return At::File,
                Own::Link if !directory => {
                    return At::Link(names.links.get(&key).map(|t| t.to_vec()).unwrap_or_default());
                }
                // A directory of a layer above took its place.
                Own::File | Own::Link => return At::Directory(hidden.max(i + 1)),
                Own::Directory => directory = true,
                Own::Nothing => (),
            }
            if flags & CUT != 0 {
                hidden = hidden.max(i);
                break;
            }
        }
        if directory { At::Directory(hidden) } else { At::Missing }
    }

    /// True if the symbolic link at `path` leads to a directory inside the image.
    pub fn leads_to_directory(&self, path: &[u8], target: &[u8]) -> bool {
        let mut real = paths::parent(path).to_vec();
        let mut rest = target.to_vec();
        if rest.is_empty() {
            return false;
        }
        if rest[0] == b'/' {
            real.clear();
        }
        let mut hops = 1;
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
            match self.at(&real) {
                At::Directory(_) => (),
                At::Link(mut target) if hops < MAX_HOPS && !target.is_empty() => {
                    hops += 1;
                    real.truncate(if target[0] == b'/' { 0 } else { paths::parent(&real).len() });
                    target.push(b'/');
                    target.extend_from_slice(&rest);
                    rest = target;
                }
                _ => return false,
            }
        }
        true
    }
}

impl Lower for Tree {
    fn link(&self, path: &[u8]) -> Option<Vec<u8>> {
        match self.at(path) {
            At::Link(target) => Some(target),
            _ => None,
        }
    }
}
