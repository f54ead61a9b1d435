//! Clusters: the universe of paths cut into directories that come and go together.
//!
//! Evidence from paths is not independent: one package brings hundreds, one `rm -r` takes
//! thousands. A cluster is the unit that is trusted only so far, however many paths it has
//! ([`super::Model`]). Clusters follow from the universe alone: a directory with at most
//! [`SMALL`] paths is one cluster with all that is below it; a larger one is split into its own files
//! and its sub-directories, down to [`DEPTH`] components.

use crate::rootfs::Universe;
use roaring::RoaringBitmap;
use rustc_hash::FxHashMap;

/// Directories with at most so many paths are not split.
const SMALL: u32 = 80;
/// Directories this deep are not split.
const DEPTH: usize = 4;
/// Volatile directories this deep are not split.
const VOLATILE_DEPTH: usize = 3;

/// How paths of a cluster usually change in images built on a base.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Programs, libraries, configuration, package data bases: what makes a distribution.
    Core = 0,
    /// Documentation, translations, time zones, type and terminal tables: what slimming removes and
    /// packages of every sort add.
    Volatile = 1,
    /// Caches, logs, byte code, build ids: what running programs leave behind.
    State = 2,
}

/// Places of [`Kind::Volatile`], after the file system hierarchy standard.
const VOLATILE: [&str; 21] = [
    "usr/share/doc",
    "usr/share/man",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/i18n",
    "usr/share/zoneinfo",
    "usr/share/licenses",
    "usr/share/lintian",
    "usr/share/groff",
    "usr/share/bug",
    "usr/lib/locale",
    "usr/share/gtk-doc",
    "usr/share/help",
    "usr/share/common-licenses",
    "usr/share/perl5",
    "usr/share/mime",
    "usr/share/icons",
    "usr/share/vim",
    "usr/share/terminfo",
    "usr/share/bash-completion",
    "usr/share/cracklib",
];

/// Places of [`Kind::State`].
const STATE: [&str; 16] = [
    "var/cache",
    "var/log",
    "tmp",
    "run",
    "var/lib/yum",
    "usr/lib/.build-id",
    "var/lib/apt",
    "root",
    "var/spool",
    "boot",
    "home",
    "dev",
    "proc",
    "sys",
    "var/tmp",
    "var/lib/dnf",
];

impl Kind {
    /// The kind of a path.
    pub fn of(path: &[u8]) -> Self {
        let below = |place: &&str| {
            path.strip_prefix(place.as_bytes()).is_some_and(|rest| rest.first() == Some(&b'/'))
        };
        if VOLATILE.iter().any(&below) {
            return Self::Volatile;
        }
        let byte_code = path.ends_with(b".pyc") || path.ends_with(b".pyo");
        if STATE.iter().any(below) || byte_code { Self::State } else { Self::Core }
    }
}

/// A universe cut into clusters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clusters {
    /// Cluster of each path.
    pub of: Vec<u32>,
    /// Kind of each cluster.
    pub kinds: Vec<Kind>,
}

impl Clusters {
    /// Cuts the universe. How large directories are goes by the paths that are `listed`, those of the
    /// bases.
    pub fn new(universe: &Universe, listed: &RoaringBitmap) -> Self {
        let mut below: FxHashMap<&[u8], u32> = FxHashMap::default();
        for path in listed.iter().map(|id| universe.get(id)) {
            for directory in directories(path) {
                *below.entry(directory).or_default() += 1;
            }
        }
        let mut ids: FxHashMap<(&[u8], Kind), u32> = FxHashMap::default();
        let mut kinds = Vec::new();
        let of = universe.iter().map(|path| {
            let kind = Kind::of(path);
            let deepest = if kind == Kind::Core { DEPTH } else { VOLATILE_DEPTH };
            let mut place: &[u8] = b"";
            for (depth, directory) in directories(path).enumerate() {
                place = directory;
                if depth == deepest || below.get(directory).is_none_or(|n| *n <= SMALL) {
                    break;
                }
            }
            *ids.entry((place, kind)).or_insert_with(|| {
                kinds.push(kind);
                kinds.len() as u32 - 1
            })
        });
        let of = of.collect();
        Self { of, kinds }
    }
}

/// The directories of a path, from the root (empty) down to its parent.
fn directories(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let slashes = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(i, _)| i);
    std::iter::once(0).chain(slashes).map(|end| &path[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_directories_stay_whole_and_large_ones_are_split() {
        let mut paths: Vec<Vec<u8>> = (0..100).map(|i| format!("usr/bin/p{i}").into_bytes()).collect();
        paths.extend((0..10).map(|i| format!("usr/lib/a/{i}").into_bytes()));
        paths.extend((0..10).map(|i| format!("usr/lib/b/{i}").into_bytes()));
        paths.push(b"usr/share/doc/x/copyright".to_vec());
        paths.push(b"usr/lib/a/b/c.pyc".to_vec());
        let universe = Universe::new(paths);
        let clusters = Clusters::new(&universe, &(0..universe.len() as u32).collect());
        let of = |path: &str| clusters.of[universe.find(path.as_bytes()).unwrap() as usize];
        assert_eq!(of("usr/bin/p1"), of("usr/bin/p2"));
        assert_eq!(of("usr/lib/a/1"), of("usr/lib/b/1"));
        assert_ne!(of("usr/lib/a/1"), of("usr/bin/p1"));
        assert_ne!(of("usr/lib/a/1"), of("usr/lib/a/b/c.pyc"));
        assert_eq!(clusters.kinds[of("usr/share/doc/x/copyright") as usize], Kind::Volatile);
        assert_eq!(clusters.kinds[of("usr/lib/a/b/c.pyc") as usize], Kind::State);
        assert_eq!(Kind::of(b"usr/share/docs"), Kind::Core);
        assert_eq!(directories(b"a/b/c").collect::<Vec<_>>(), [b"".as_slice(), b"a", b"a/b"]);
    }
}
