//! The base database: what known base images are made of.
//!
//! Two kinds of knowledge about a base, kept in one file, because one rarely has both:
//!
//! - its **paths** ([`Base`]): which files it has. All paths of all bases are the [`Universe`];
//!   likeness and the study's score are computed over them. With them go the [`signs`] of distributions.
//! - its **chains** ([`Chain`]): the identities of its layers, lowest first. An image whose lowest
//!   layers are a base's chain is built on that base, which its config alone proves.
//!
//! Sources are path sets in the format of `container-guts` ([`read_guts`]), real images, which give
//! paths and chains at once ([`Images`]), and the official repositories of a corpus
//! ([`official_chains`]).

mod chain;
mod guts;
mod images;
mod name;
pub mod signs;
mod store;

pub use chain::{
    Chain, ChainIndex, ChainKind, Evidence, Record, is_empty_diff_id, manifests_of_configs, official_chains,
};
pub use guts::{Guts, read_guts};
pub use images::{Identities, Images, read_campaign};
pub use name::{
    DISTRIBUTIONS, family_and_version, official_family, repository_and_tag, version_of_tag, version_of_tags,
};

use super::Universe;
use roaring::RoaringBitmap;

/// Paths that `docker export` adds to every image, without a leading `/`. The study's path sets
/// were taken that way, so that every base has them and an image read from its layers has not.
pub const EXPORT_ARTEFACTS: [&str; 6] =
    [".dockerenv", "dev/console", "etc/hostname", "etc/hosts", "etc/mtab", "etc/resolv.conf"];

/// What can go wrong with a base database or its sources.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A source cannot be used.
    #[error("{}: {reason}", path.display())]
    Source {
        /// The source.
        path: std::path::PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A database that contradicts itself.
    #[error("{}: {reason}; make it again with `stratigraph bases`", path.display())]
    Unsound {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Two sources disagree about a base of the same name.
    #[error("base {name} is in {first} and in {second}; give one of them another name (--name)")]
    Twice {
        /// The base.
        name: String,
        /// Where it came from first.
        first: String,
        /// Where it came from again.
        second: String,
    },
    /// Reading or writing the database failed.
    #[error(transparent)]
    File(#[from] crate::h5::Error),
}

/// A base image whose paths are known.
#[derive(Debug, Clone, PartialEq)]
pub struct Base {
    /// Full name, `docker.io/library/debian:12`.
    pub name: String,
    /// Family, `debian`.
    pub family: String,
    /// Version inside the family, `12`.
    pub version: String,
    /// Where its paths were read: `guts.tar.zst: docker.io/library/debian/12.json`.
    pub origin: String,
    /// `created` of its config, empty if not known.
    pub created: String,
    /// Ids of its paths in the [`Universe`].
    pub paths: RoaringBitmap,
}

/// Where a database came from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Provenance {
    /// One line for each source: `guts guts.tar.zst sha256:...`, `corpus corpus.h5 sha256:...`.
    pub sources: Vec<String>,
}

/// The base database.
#[derive(Debug, Clone, PartialEq)]
pub struct Bases {
    /// Every path of every base, and every place where a distribution signs.
    pub universe: Universe,
    /// The bases with paths, by ascending name.
    pub bases: Vec<Base>,
    /// The chains, sorted by kind and identities.
    pub chains: Vec<Chain>,
    /// Where they came from.
    pub provenance: Provenance,
}

/// A base before the universe is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewBase {
    /// Full name with a tag.
    pub name: String,
    /// Where the paths were read.
    pub origin: String,
    /// `created` of the config, empty if not known.
    pub created: String,
    /// Paths in normal form ([`super::paths::normal`]).
    pub paths: Vec<Vec<u8>>,
}

impl Bases {
    /// Puts a database together. Bases are sorted by name, chains by kind and identities; chains with
    /// the same identities are joined.
    ///
    /// # Errors
    /// [`Error::Twice`] if two bases of one name have different paths.
    pub fn new(new: Vec<NewBase>, chains: Vec<Chain>, provenance: Provenance) -> Result<Self, Error> {
        let signs = signs::signs().map(|(_, path)| path.into_bytes());
        let paths = new.iter().flat_map(|base| base.paths.iter().cloned());
        // A database of chains alone needs no paths.
        let universe = Universe::new(paths.chain(signs.filter(|_| !new.is_empty())).collect());
        let mut bases: Vec<Base> = Vec::with_capacity(new.len());
        for base in new {
            let paths = base.paths.iter().filter_map(|path| universe.find(path)).collect();
            let (family, version) = name::family_and_version(&base.name);
            let NewBase { name, origin, created, .. } = base;
            match bases.iter().find(|known| known.name == name) {
                None => bases.push(Base { name, family, version, origin, created, paths }),
                Some(known) if known.paths == paths => (),
                Some(known) => {
                    return Err(Error::Twice { name, first: known.origin.clone(), second: origin });
                }
            }
        }
        bases.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self { universe, bases, chains: chain::join(chains), provenance })
    }

    /// The same database with more in it.
    ///
    /// # Errors
    /// As [`Bases::new`].
    pub fn with(self, new: Vec<NewBase>, chains: Vec<Chain>, sources: Vec<String>) -> Result<Self, Error> {
        let paths = |base: &Base| base.paths.iter().map(|id| self.universe.get(id).to_vec()).collect();
        let old = self.bases.iter().map(|base| NewBase {
            name: base.name.clone(),
            origin: base.origin.clone(),
            created: base.created.clone(),
            paths: paths(base),
        });
        let all = old.chain(new).collect();
        let mut provenance = self.provenance;
        provenance.sources.extend(sources);
        Self::new(all, self.chains.into_iter().chain(chains).collect(), provenance)
    }

    /// The same database without the bases for which `keep` is false; the universe shrinks with them.
    pub fn retain(&self, keep: impl Fn(&Base) -> bool) -> Self {
        let new = self.bases.iter().filter(|base| keep(base)).map(|base| NewBase {
            name: base.name.clone(),
            origin: base.origin.clone(),
            created: base.created.clone(),
            paths: base.paths.iter().map(|id| self.universe.get(id).to_vec()).collect(),
        });
        Self::new(new.collect(), self.chains.clone(), self.provenance.clone())
            .expect("the names of a database are distinct")
    }

    /// Bases that have exactly the paths of a base of a distribution of another name: copies, beside
    /// which nothing would be like either of them alone. Number of the copy, and of what it is.
    pub fn copies(&self) -> Vec<(usize, usize)> {
        let official: Vec<usize> =
            (0..self.bases.len()).filter(|&i| name::is_official(&self.bases[i].name)).collect();
        let of = |copy: usize| {
            let base = &self.bases[copy];
            let same = official.iter().find(|&&i| self.bases[i].paths == base.paths)?;
            (!official.contains(&copy) && self.bases[*same].family != base.family).then_some((copy, *same))
        };
        (0..self.bases.len()).filter_map(of).collect()
    }

    /// The paths that some base has.
    pub fn listed(&self) -> RoaringBitmap {
        self.bases.iter().fold(RoaringBitmap::new(), |all, base| all | &base.paths)
    }

    /// Number of families with paths.
    pub fn families(&self) -> usize {
        let mut names: Vec<_> = self.bases.iter().map(|base| base.family.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names.len()
    }

    /// The set of those of the given paths (in normal form) that some base has.
    pub fn set_of<'a>(&self, paths: impl IntoIterator<Item = &'a [u8]>) -> RoaringBitmap {
        paths.into_iter().filter_map(|path| self.universe.find(path)).collect()
    }
}

#[cfg(test)]
mod tests;
