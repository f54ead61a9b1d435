//! Chains of layer identities: proof, from a config alone, of what an image is built on.

use super::name::{is_official, official_family, repository_and_tag, version_of_tags};
use crate::corpus::{Corpus, EMPTY_DIFF_IDS, is_known_empty};
use crate::strings::NONE;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};

/// What the identities of a chain are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum ChainKind {
    /// `rootfs.diff_ids` of the config: sha256 of each layer's tar. Proof.
    DiffIds = 0,
    /// Layer digests of the manifest: sha256 of each layer as compressed. Proof.
    LayerDigests = 1,
    /// The checksum that `docker build` wrote into the first entry of the history
    /// (`ADD file:... in /`): proof of the lowest layer's content, as far as histories are honest.
    AddFile = 2,
    /// `org.opencontainers.image.base.name`: what the builder of the image says.
    Annotation = 3,
}

impl ChainKind {
    /// All kinds, strongest first.
    pub const ALL: [Self; 4] = [Self::DiffIds, Self::LayerDigests, Self::AddFile, Self::Annotation];

    /// The value stored in a file, read back.
    pub fn from_u8(value: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == value)
    }
}

/// The identities of a known base's layers, lowest first, without empty layers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Chain {
    /// What the identities are.
    pub kind: ChainKind,
    /// The identities; at least one.
    pub ids: Vec<String>,
    /// Family of the base.
    pub family: String,
    /// Images that consist of exactly this chain, `repository:tag`, sorted.
    pub names: Vec<String>,
}

impl Chain {
    /// True if a distribution's own image is this chain.
    fn is_official(&self) -> bool {
        self.names.iter().any(|name| is_official(name))
    }
}

/// True for the diff_id of a layer without content.
pub fn is_empty_diff_id(id: &str) -> bool {
    EMPTY_DIFF_IDS.contains(&id)
}

/// Joins chains with the same identities; the names are collected. A chain that two families claim
/// belongs to the family of the first official name, else of the first name: a copy of a distribution's
/// image under another name is still that.
pub(super) fn join(chains: Vec<Chain>) -> Vec<Chain> {
    type NameAndFamily = (String, String);
    let mut joined: BTreeMap<(ChainKind, Vec<String>), Vec<NameAndFamily>> = BTreeMap::new();
    for chain in chains {
        let Chain { kind, ids, family, names } = chain;
        let names = names.into_iter().map(|name| (name, family.clone()));
        joined.entry((kind, ids)).or_default().extend(names);
    }
    let whole = joined.into_iter().filter_map(|((kind, ids), mut names)| {
        names.sort();
        names.dedup();
        let owner = names.iter().find(|(name, _)| is_official(name)).or(names.first())?;
        let family = owner.1.clone();
        Some(Chain { kind, ids, family, names: names.into_iter().map(|(name, _)| name).collect() })
    });
    whole.collect()
}

/// What a config (and manifest) says about the layers of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record<'a> {
    /// `rootfs.diff_ids` of the config.
    pub diff_ids: Vec<&'a str>,
    /// Layer digests of the manifest.
    pub layer_digests: Vec<&'a str>,
    /// `created_by` of the first entry of the history.
    pub first_command: Option<&'a str>,
    /// `org.opencontainers.image.base.name`.
    pub base_name: Option<&'a str>,
}

impl<'a> Record<'a> {
    /// The record of a config of a corpus, with the manifest of the same tag if it has layers.
    /// (A corpus keeps no annotations.)
    pub fn of_corpus(corpus: &'a Corpus, config: usize, manifest: Option<usize>) -> Self {
        let diff_ids = &corpus.config_diff_ids[corpus.diff_ids_of(config)];
        let digests = manifest.map_or(0..0, |m| corpus.layers_of(m));
        let first = corpus.history_of(config).next().map(|h| corpus.history.created_by[h]);
        Self {
            diff_ids: diff_ids.iter().filter(|id| **id != NONE).map(|id| corpus.diff_ids.get(*id)).collect(),
            layer_digests: corpus.layers.digest[digests].iter().map(|id| corpus.digests.get(*id)).collect(),
            first_command: first.filter(|id| *id != NONE).map(|id| corpus.commands.get(id)),
            base_name: None,
        }
    }

    /// True if a layer with content is known.
    pub fn has_content(&self) -> bool {
        ChainKind::ALL.into_iter().any(|kind| !self.ids(kind).is_empty())
    }

    /// The identities of one kind, empty layers left out.
    pub(super) fn ids(&self, kind: ChainKind) -> Vec<&'a str> {
        let content = |ids: &[&'a str]| ids.iter().copied().filter(|id| !is_known_empty(id)).collect();
        match kind {
            ChainKind::DiffIds => content(&self.diff_ids),
            ChainKind::LayerDigests => content(&self.layer_digests),
            ChainKind::AddFile => self.first_command.and_then(add_file).into_iter().collect(),
            ChainKind::Annotation => Vec::new(),
        }
    }
}

/// `file:0123...` of `/bin/sh -c #(nop) ADD file:0123... in /`.
fn add_file(command: &str) -> Option<&str> {
    let mut words = command.split_whitespace().skip_while(|word| *word != "ADD");
    let (_, what, _, place) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let hash = what.strip_prefix("file:").or_else(|| what.strip_prefix("multi:"))?;
    let sound = hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit());
    (sound && place == "/").then_some(what)
}

/// For each config of a corpus the manifest of its tag that has layers, if there is one.
pub fn manifests_of_configs(corpus: &Corpus) -> Vec<Option<u32>> {
    let mut of = vec![None; corpus.config_count()];
    for m in 0..corpus.manifest_count() {
        if let Some(config) = corpus.config_of(m)
            && !corpus.layers_of(m).is_empty()
        {
            of[config].get_or_insert(m as u32);
        }
    }
    of
}

/// The chains of all images in official repositories of distributions ([`official_family`]), and in
/// those named in `more` (as family and repository).
pub fn official_chains(corpus: &Corpus, more: &[(String, String)]) -> Vec<Chain> {
    let families: Vec<Option<&str>> = corpus
        .repositories
        .iter()
        .map(|name| {
            let named = more.iter().find(|(_, repository)| repository == name);
            named.map(|(family, _)| family.as_str()).or_else(|| official_family(name))
        })
        .collect();
    let mut chains = Vec::new();
    for (config, manifest) in manifests_of_configs(corpus).into_iter().enumerate() {
        let repository = corpus.configs.repository[config];
        let Some(family) = families[repository as usize] else { continue };
        let name = format!(
            "{}:{}",
            corpus.repositories.get(repository),
            corpus.tags.get(corpus.configs.tag[config])
        );
        let record = Record::of_corpus(corpus, config, manifest.map(|m| m as usize));
        for kind in ChainKind::ALL {
            let ids: Vec<_> = record.ids(kind).into_iter().map(str::to_owned).collect();
            if !ids.is_empty() {
                chains.push(Chain { kind, ids, family: family.to_owned(), names: vec![name.clone()] });
            }
        }
    }
    chains
}

/// What the layers of an image prove.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// By what.
    pub kind: ChainKind,
    /// Family of the base.
    pub family: String,
    /// Its release, if the tags of the chain agree on one.
    pub version: Option<String>,
    /// True if the image has all layers of the chain, so that it is built on exactly that image;
    /// false if it shares only the lowest ones, so that both are built on the same root.
    pub whole: bool,
    /// Number of layers shared, empty ones not counted.
    pub shared: usize,
    /// Number of layers of the chain.
    pub length: usize,
    /// Images that are this chain.
    pub names: Vec<String>,
}

impl Evidence {
    /// True if layers prove it: not what the image merely says of itself.
    pub fn is_proof(&self) -> bool {
        matches!(self.kind, ChainKind::DiffIds | ChainKind::LayerDigests)
    }

    /// By what it is, in words.
    pub fn describe(&self) -> String {
        let what = match self.kind {
            ChainKind::DiffIds => "diff_ids",
            ChainKind::LayerDigests => "layer digests",
            ChainKind::AddFile => return "`ADD file:` of the history".into(),
            ChainKind::Annotation => return "annotation base.name".into(),
        };
        format!("{what}, {}", if self.whole { "whole chain" } else { "lowest layers" })
    }
}

/// Chains by their lowest identity.
pub struct ChainIndex<'a> {
    chains: &'a [Chain],
    by_first: HashMap<(ChainKind, &'a str), Vec<u32>>,
}

impl<'a> ChainIndex<'a> {
    /// Indexes the chains of a database.
    pub fn new(chains: &'a [Chain]) -> Self {
        let mut by_first: HashMap<_, Vec<u32>> = HashMap::new();
        for (i, chain) in chains.iter().enumerate() {
            if let Some(first) = chain.ids.first() {
                by_first.entry((chain.kind, first.as_str())).or_default().push(i as u32);
            }
        }
        Self { chains, by_first }
    }

    /// The strongest evidence that a record gives: of the kinds in their order the first that shares a
    /// whole chain; else the first that shares a beginning; else what the image says of itself. Of
    /// several chains the longest shared; of equals the shortest chain, then the first in order. Where
    /// equal beginnings are those of several families, those of one distribution decide, and nothing
    /// else does.
    pub fn evidence(&self, record: &Record<'_>) -> Option<Evidence> {
        let found: Vec<_> =
            ChainKind::ALL.into_iter().filter_map(|kind| self.longest(kind, record)).collect();
        let best = found.iter().find(|e| e.whole).or(found.first());
        best.cloned().or_else(|| stated(record))
    }

    fn longest(&self, kind: ChainKind, record: &Record<'_>) -> Option<Evidence> {
        let ids = record.ids(kind);
        let candidates = self.by_first.get(&(kind, *ids.first()?))?;
        let shared = |chain: &Chain| chain.ids.iter().zip(&ids).take_while(|(a, b)| a == b).count();
        let scored = candidates.iter().map(|&i| {
            let chain = &self.chains[i as usize];
            let n = shared(chain);
            let whole = n == chain.ids.len();
            // Greatest first: whole chains, then more layers, then shorter chains, then the first.
            ((whole, n, std::cmp::Reverse(chain.ids.len()), std::cmp::Reverse(i)), chain)
        });
        let ((whole, n, ..), first) = scored.max_by_key(|(key, _)| *key)?;
        // A distribution's releases are what its own tags say, not those of copies.
        let tags = |c: &'a Chain| {
            let official = c.is_official();
            let names = c.names.iter().filter(move |name| !official || is_official(name));
            names.filter_map(|name| repository_and_tag(name).1)
        };
        let (chain, version) = if whole {
            (first, version_of_tags(&first.family, tags(first)))
        } else {
            let tied = || candidates.iter().map(|&i| &self.chains[i as usize]).filter(|c| shared(c) == n);
            let official = || tied().filter(|c| c.is_official());
            let chain = if tied().all(|c| c.family == first.family) {
                first
            } else {
                let chain = official().min_by_key(|c| c.ids.len())?;
                official().all(|c| c.family == chain.family).then_some(chain)?
            };
            let same = tied().filter(|c| c.family == chain.family);
            (chain, version_of_tags(&chain.family, same.flat_map(tags)))
        };
        Some(Evidence {
            kind,
            family: chain.family.clone(),
            version,
            whole,
            shared: n,
            length: chain.ids.len(),
            names: chain.names.clone(),
        })
    }
}

/// What the image says of its base in its annotations.
fn stated(record: &Record<'_>) -> Option<Evidence> {
    let name = record.base_name?;
    let (repository, tag) = repository_and_tag(name);
    let family = official_family(repository)?;
    Some(Evidence {
        kind: ChainKind::Annotation,
        family: family.to_owned(),
        version: version_of_tags(family, tag),
        whole: false,
        shared: 0,
        length: 0,
        names: vec![name.to_owned()],
    })
}
