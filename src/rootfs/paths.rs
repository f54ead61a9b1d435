//! The universe of paths U: every path that some base image has, with an id.

use rustc_hash::FxHasher;
use sha2::{Digest as _, Sha256};
use std::cmp::Ordering;
use std::hash::Hasher;
use std::ops::Range;

/// Id of a path in a [`Universe`]: its place in the order.
pub type PathId = u32;

/// A sorted, duplicate-free list of paths.
///
/// Paths are bytes (not necessarily UTF-8) relative to the root of the image, without a leading or
/// trailing `/`, without `.` and `..`. They are sorted *by components*: the separator orders before
/// every other byte, so that a directory and all that is below it are one contiguous range of ids,
/// and removing a directory (a whiteout) is removing a range.
#[derive(Debug, Clone)]
pub struct Universe {
    bytes: Vec<u8>,
    offsets: Vec<u64>,
    ids: hashbrown::HashTable<PathId>,
    directories: hashbrown::HashTable<Directory>,
}

/// A directory of some path: the first `length` bytes of the path with the first of its ids.
#[derive(Debug, Clone)]
struct Directory {
    length: u32,
    below: Range<PathId>,
}

impl PartialEq for Universe {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes && self.offsets == other.offsets
    }
}

/// Orders paths by components: `/` before every other byte.
pub fn compare(a: &[u8], b: &[u8]) -> Ordering {
    let rank = |byte: u8| if byte == b'/' { 0 } else { u16::from(byte) + 1 };
    match a.iter().zip(b).position(|(x, y)| x != y) {
        Some(i) => rank(a[i]).cmp(&rank(b[i])),
        None => a.len().cmp(&b.len()),
    }
}

/// The form in which a path stands in a [`Universe`]: without leading and trailing `/` and without
/// empty and `.` components; `..` takes back one component and stops at the root, which is empty.
pub fn normal(path: &[u8]) -> Vec<u8> {
    let mut normal = Vec::with_capacity(path.len());
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => (),
            b".." => normal.truncate(parent(&normal).len()),
            name => push(&mut normal, name),
        }
    }
    normal
}

/// The directory that a path in normal form is in; that of the root is the root.
pub fn parent(path: &[u8]) -> &[u8] {
    &path[..path.iter().rposition(|b| *b == b'/').unwrap_or(0)]
}

/// The last component of a path in normal form; empty for the root.
pub fn name(path: &[u8]) -> &[u8] {
    path.rsplit(|b| *b == b'/').next().unwrap_or(path)
}

/// Appends a component to a path in normal form.
pub fn push(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

fn hash(path: &[u8]) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(path);
    hasher.finish()
}

impl Universe {
    /// Sorts the paths and drops duplicates. Panics beyond 2^32 - 1 paths.
    pub fn new(mut paths: Vec<Vec<u8>>) -> Self {
        paths.sort_unstable_by(|a, b| compare(a, b));
        paths.dedup();
        let mut offsets = Vec::with_capacity(paths.len() + 1);
        offsets.push(0);
        offsets.extend(paths.iter().scan(0, |end, path| {
            *end += path.len() as u64;
            Some(*end)
        }));
        Self::indexed(paths.concat(), offsets)
    }

    /// Puts a universe together from its two arrays, as stored in a file.
    ///
    /// # Errors
    /// Says what is wrong if the offsets do not describe the bytes, or if the paths are not sorted
    /// by components without duplicates.
    pub fn from_parts(bytes: Vec<u8>, offsets: Vec<u64>) -> Result<Self, String> {
        let sound = offsets.first() == Some(&0)
            && offsets.last() == Some(&(bytes.len() as u64))
            && offsets.is_sorted()
            && offsets.len() <= PathId::MAX as usize;
        if !sound {
            return Err("offsets do not describe the bytes".into());
        }
        let path = |i: usize| &bytes[offsets[i] as usize..offsets[i + 1] as usize];
        let wrong = (1..offsets.len() - 1).find(|&i| compare(path(i - 1), path(i)) != Ordering::Less);
        match wrong {
            Some(i) => Err(format!("path {i} is out of order")),
            None => Ok(Self::indexed(bytes, offsets)),
        }
    }

    fn indexed(bytes: Vec<u8>, offsets: Vec<u64>) -> Self {
        assert!(offsets.len() <= PathId::MAX as usize, "fewer than 2^32 - 1 paths");
        let count = offsets.len() - 1;
        let (ids, directories) = (hashbrown::HashTable::new(), hashbrown::HashTable::new());
        let mut universe = Self { bytes, offsets, ids, directories };
        let mut ids = hashbrown::HashTable::with_capacity(count);
        for id in 0..count as PathId {
            ids.insert_unique(hash(universe.get(id)), id, |id| hash(universe.get(*id)));
        }
        universe.ids = ids;
        let mut directories: hashbrown::HashTable<Directory> = hashbrown::HashTable::new();
        let text = |d: &Directory| &universe.get(d.below.start)[..d.length as usize];
        for id in 0..count as PathId {
            let mut path = parent(universe.get(id));
            while !path.is_empty() {
                let new = Directory { length: path.len() as u32, below: id..id };
                let entry = directories.entry(hash(path), |d| text(d) == path, |d| hash(text(d)));
                entry.or_insert(new).into_mut().below.end = id + 1;
                path = parent(path);
            }
        }
        universe.directories = directories;
        universe
    }

    /// Number of paths.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The path with this id. Panics if there is none.
    pub fn get(&self, id: PathId) -> &[u8] {
        let i = id as usize;
        &self.bytes[self.offsets[i] as usize..self.offsets[i + 1] as usize]
    }

    /// All paths in id order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|i| self.get(i as PathId))
    }

    /// The id of a path in normal form, if some base has it.
    pub fn find(&self, path: &[u8]) -> Option<PathId> {
        self.ids.find(hash(path), |id| self.get(*id) == path).copied()
    }

    /// Ids of the path itself (if some base has it as a file) and of everything below it: what a
    /// whiteout of `path` removes. The empty path is the root.
    pub fn subtree(&self, path: &[u8]) -> Range<PathId> {
        let below = self.below(path);
        match self.find(path) {
            Some(id) => id..below.end.max(id + 1),
            None => below,
        }
    }

    /// Ids of everything below the directory `path`, without itself: what an opaque marker in it,
    /// or a file that replaces it, removes. One look-up.
    pub fn below(&self, path: &[u8]) -> Range<PathId> {
        if path.is_empty() {
            return 0..self.len() as PathId;
        }
        let text = |d: &Directory| &self.get(d.below.start)[..d.length as usize];
        self.directories.find(hash(path), |d| text(d) == path).map_or(0..0, |d| d.below.clone())
    }

    /// Sha256 over all paths in order, each after its length (u64, little-endian). Ids that are stored
    /// somewhere belong to one identity.
    pub fn identity(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        for path in self.iter() {
            digest.update((path.len() as u64).to_le_bytes());
            digest.update(path);
        }
        digest.finalize().into()
    }

    /// The concatenated paths.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where each path starts, and the end of the last.
    pub fn offsets(&self) -> &[u64] {
        &self.offsets
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// True if `path` is `top` or below it.
    fn within(path: &[u8], top: &[u8]) -> bool {
        path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
    }

    fn paths() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let name = prop::sample::select(vec!["a", "b", "a-", "a.b", "A", "\u{1}", "ab", "\u{ff}"]);
        let path = prop::collection::vec(name, 1..4).prop_map(|parts| parts.join("/").into_bytes());
        prop::collection::vec(path, 0..60)
    }

    proptest! {
        /// Against a filter over all paths.
        #[test]
        fn a_directory_is_a_range(all in paths(), asked in paths()) {
            let universe = Universe::new(all.clone());
            for path in all.iter().chain(&asked).chain([&Vec::new()]) {
                let inside = |p: &[u8]| path.is_empty() || within(p, path);
                let wanted: Vec<_> =
                    (0..universe.len() as PathId).filter(|id| inside(universe.get(*id))).collect();
                prop_assert_eq!(universe.subtree(path).collect::<Vec<_>>(), wanted.clone());
                let below: Vec<_> =
                    wanted.into_iter().filter(|id| universe.get(*id) != path.as_slice()).collect();
                prop_assert_eq!(universe.below(path).collect::<Vec<_>>(), below);
                let found = universe.find(path);
                prop_assert_eq!(found.is_some(), all.contains(path));
                prop_assert!(found.is_none_or(|id| universe.get(id) == path.as_slice()));
            }
        }

        #[test]
        fn parts_give_it_back(all in paths()) {
            let universe = Universe::new(all);
            let again = Universe::from_parts(universe.bytes().to_vec(), universe.offsets().to_vec());
            prop_assert_eq!(again.as_ref(), Ok(&universe));
        }
    }

    #[test]
    fn unsound_parts_are_refused() {
        for (bytes, offsets) in [
            ("ab", vec![]),
            ("ab", vec![0, 1]),
            ("ba", vec![0, 1, 2]),
            ("aa", vec![0, 1, 2]),
            ("a-a/", vec![0, 2, 4]),
            ("ab", vec![0, 2, 1, 2]),
        ] {
            assert!(Universe::from_parts(bytes.into(), offsets.clone()).is_err(), "{bytes} {offsets:?}");
        }
    }

    #[test]
    fn normal_form() {
        for (given, wanted) in [
            ("/usr//bin/./ls/", "usr/bin/ls"),
            ("./etc", "etc"),
            ("/", ""),
            (".", ""),
            ("a/../b", "b"),
            ("../../a", "a"),
            ("a/b/../../../c", "c"),
            ("..a/.b", "..a/.b"),
        ] {
            let path = normal(given.as_bytes());
            assert_eq!(path, wanted.as_bytes());
            let mut again = parent(&path).to_vec();
            push(&mut again, name(&path));
            assert_eq!(again, path);
        }
    }
}
