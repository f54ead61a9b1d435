//! Dockerfiles -> documents, and what they tell about good practice.
//!
//! Each rank reads its share of the files and tokenises them with all threads; rank 0 joins them by
//! ascending path. A file is one document ("parse_dockerfile.py" of the study); practices are
//! looked for instruction by instruction.

mod coverage;
mod instructions;
mod read;

use super::facts::{Facts, Scanner};
use super::rules::{Rules, is_python_space};
use super::shard::{Rows, RowsBuilder, join, pack, unpack};
use super::shares::{DockerfileShares, FromGroup, Odd, Practices, Spread};
use super::{Builder, Documents, Error, Origin, Scheme, Watch};
use crate::world::World;
use bytemuck::{Pod, Zeroable};
use instructions::{Base, base_of, copies_from_stage, each_instruction};
use rayon::prelude::*;
use read::{Around, EXAMPLES, Found};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Bytes of Dockerfiles that are in memory at a time, on each rank.
const BATCH_BYTES: usize = 64 << 20;

/// What one file is and tells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Pod, Zeroable)]
#[repr(C)]
struct FileFacts {
    ordinal: u64,
    bytes: u64,
    sha256: [u8; 32],
    flags: u32,
    /// Lines that contain `FROM`.
    from_lines: u32,
    /// FROM instructions.
    stages: u32,
    /// By [`Base`].
    bases: [u32; 7],
    /// As in [`Practices`], in the order of its fields.
    practices: [u32; 12],
}

impl FileFacts {
    const NOT_UTF8: u32 = 1;
    const UNREADABLE: u32 = 2;
    const USER: u32 = 4;
    /// COPY from an earlier stage.
    const COPY_FROM: u32 = 8;
}

/// Files of one thread.
#[derive(Debug)]
struct Shard {
    paths: Vec<u8>,
    path_ends: Vec<u64>,
    documents: Rows,
    /// What the study counts as FROM in each file.
    froms: Rows,
    facts: Vec<FileFacts>,
}

impl Shard {
    fn of(files: &[Found]) -> Self {
        let rules = Rules::dockerfiles();
        let (mut documents, mut froms) = (RowsBuilder::default(), RowsBuilder::default());
        let (mut words, mut scanner) = (RowsBuilder::default(), Scanner::default());
        let (mut paths, mut path_ends, mut facts) = (Vec::new(), Vec::new(), Vec::new());
        let mut scratch = String::new();
        for file in files {
            paths.extend_from_slice(&file.path);
            path_ends.push(paths.len() as u64);
            let mut about = FileFacts { ordinal: file.ordinal, ..FileFacts::default() };
            if let Ok(content) = &file.content {
                about.bytes = content.len() as u64;
                about.sha256 = Sha256::digest(content).into();
                let text = String::from_utf8_lossy(content);
                if matches!(text, std::borrow::Cow::Owned(_)) {
                    about.flags |= FileFacts::NOT_UTF8;
                }
                rules.each(&text, &mut scratch, |t| documents.push(t));
                count_froms(&text, &mut about, &mut froms);
                count_practices(&text, &mut about, |arguments| {
                    rules.each(arguments, &mut scratch, |t| words.push(t));
                    scanner.learn(&words.strings);
                    let facts = scanner.of_command(words.current());
                    words.clear();
                    facts
                });
            } else {
                about.flags |= FileFacts::UNREADABLE;
            }
            documents.end();
            froms.end();
            facts.push(about);
        }
        Self { paths, path_ends, documents: documents.finish(), froms: froms.finish(), facts }
    }

    fn path(&self, file: usize) -> &[u8] {
        let start = file.checked_sub(1).map_or(0, |before| self.path_ends[before]);
        &self.paths[start as usize..self.path_ends[file] as usize]
    }
}

/// `summarize_dockerfile.py`: `FROM` anywhere in the line; all of them removed; the first word,
/// unless it holds `$` or `#`.
fn count_froms(text: &str, about: &mut FileFacts, froms: &mut RowsBuilder) {
    for line in text.split(['\n', '\r']).filter(|line| line.contains("FROM")) {
        about.from_lines += 1;
        let line = line.trim_matches(is_python_space).replace("FROM", "");
        let word = line.trim_matches(is_python_space).split(' ').next().unwrap_or_default();
        let word = word.trim_matches(is_python_space);
        if !word.contains(['$', '#']) {
            froms.push(word);
        }
    }
}

fn count_practices(text: &str, about: &mut FileFacts, mut facts_of: impl FnMut(&str) -> Facts) {
    let mut stages = Vec::new();
    let mut practices = Practices::default();
    each_instruction(text.trim_start_matches('\u{feff}'), |keyword, arguments| {
        let kind = match keyword {
            "FROM" => {
                if let Some(base) = base_of(arguments, &mut stages) {
                    about.stages += 1;
                    about.bases[base as usize] += 1;
                }
                Facts::default()
            }
            "RUN" => Facts::RUN,
            "ADD" => Facts::ADD,
            "USER" => {
                about.flags |= FileFacts::USER;
                Facts::USER
            }
            "COPY" => {
                if copies_from_stage(arguments, &stages, about.stages) {
                    about.flags |= FileFacts::COPY_FROM;
                }
                Facts::default()
            }
            _ => Facts::default(),
        };
        practices.add(facts_of(arguments).and(kind));
    });
    about.practices = practices.as_array().map(|n| n as u32);
}

/// All Dockerfiles of a source, tokenised, by ascending path.
#[derive(Debug)]
pub struct Dockerfiles {
    names: Vec<String>,
    documents: Rows,
    froms: Rows,
    facts: Vec<FileFacts>,
    around: Around,
    repeated: Vec<String>,
    source: String,
    source_id: String,
}

impl Dockerfiles {
    /// Reads a directory or archive on all ranks; they come out on rank 0. Collective.
    ///
    /// # Errors
    /// [`Error::Source`] if it cannot be read or holds no Dockerfile; [`Error::Stopped`], on all
    /// ranks, if a signal reached one of them.
    pub fn read(source: &Path, world: &World, watch: &Watch<'_>) -> Result<Option<Self>, Error> {
        let (mut shards, mut batch, mut bytes) = (Vec::new(), Vec::new(), 0);
        let work = |batch: &mut Vec<Found>, shards: &mut Vec<Shard>| {
            let size = batch.len().div_ceil(4 * rayon::current_num_threads()).max(1);
            shards.par_extend(batch.par_chunks(size).map(Shard::of));
            batch.clear();
            world.progress();
        };
        let around = read::read(source, world, watch, &mut |found| {
            bytes += found.content.as_ref().map_or(0, Vec::len) + found.path.len();
            batch.push(found);
            if bytes > BATCH_BYTES {
                work(&mut batch, &mut shards);
                bytes = 0;
            }
        })?;
        watch.agree(world)?;
        work(&mut batch, &mut shards);
        watch.agree(world)?;
        let Some(shards) = gather(shards, world) else { return Ok(None) };
        let all = Self::joined(&shards, around, source);
        if all.names.is_empty() {
            return Err(Error::Source {
                path: source.to_owned(),
                reason: "holds no Dockerfile; give a directory or archive of them, or a corpus file".into(),
            });
        }
        Ok(Some(all))
    }

    fn joined(shards: &[Shard], around: Around, source: &Path) -> Self {
        let mut order: Vec<(usize, usize)> =
            (0..shards.len()).flat_map(|s| (0..shards[s].facts.len()).map(move |f| (s, f))).collect();
        let key =
            |&(s, f): &(usize, usize)| (shards[s].path(f), std::cmp::Reverse(shards[s].facts[f].ordinal));
        order.sort_unstable_by(|a, b| key(a).cmp(&key(b)));
        let name = |&(s, f): &(usize, usize)| String::from_utf8_lossy(shards[s].path(f)).into_owned();
        let mut repeated = Vec::new();
        order.dedup_by(|later, kept| {
            let same = key(later).0 == key(kept).0;
            if same {
                repeated.push(name(kept));
            }
            same
        });
        let mut listing = Sha256::new();
        for &(s, f) in &order {
            let (path, facts) = (shards[s].path(f), &shards[s].facts[f]);
            listing.update(path);
            let sum: String = facts.sha256.iter().map(|b| format!("{b:02x}")).collect();
            listing.update(format!("\0{}\0{sum}\n", facts.bytes));
        }
        let listing: String = listing.finalize().iter().map(|b| format!("{b:02x}")).collect();
        let lists =
            |of: fn(&Shard) -> &Rows| join(&shards.iter().map(of).collect::<Vec<_>>(), order.iter().copied());
        Self {
            names: order.iter().map(name).collect(),
            documents: lists(|s| &s.documents),
            froms: lists(|s| &s.froms),
            facts: order.iter().map(|&(s, f)| shards[s].facts[f]).collect(),
            repeated,
            source: read::name_of(source),
            source_id: around.sha256.clone().unwrap_or(listing),
            around,
        }
    }

    /// The documents: one for each file.
    pub fn documents(&self) -> Documents {
        let mut builder = Builder::new(Scheme::Dockerfiles);
        for (row, name) in self.names.iter().enumerate().filter(|(row, _)| self.is_read(*row)) {
            builder.flat(name, self.documents.get(row));
        }
        let origin =
            Origin { source: self.source.clone(), source_id: self.source_id.clone(), synthetic: None };
        builder.finish(self.documents.strings.clone(), origin)
    }

    fn is_read(&self, row: usize) -> bool {
        self.facts[row].flags & FileFacts::UNREADABLE == 0
    }

    /// What the Dockerfiles tell.
    pub fn shares(&self) -> DockerfileShares {
        let mut shares = DockerfileShares { odd: self.odd(), ..DockerfileShares::default() };
        let (mut repositories, mut encyclopedia) = (BTreeSet::new(), BTreeSet::new());
        let mut practices = [0; 12];
        let mut runs = Vec::new();
        for (row, name) in self.names.iter().enumerate().filter(|(row, _)| self.is_read(*row)) {
            let facts = &self.facts[row];
            shares.files += 1;
            let parts: Vec<&str> = name.split('/').collect();
            *shares.by_group.entry(parts[0].to_owned()).or_default() += 1;
            let depth = if parts[0] == "orgs" { 4 } else { 3 };
            repositories.insert(parts[..depth.min(parts.len())].to_vec());
            if parts[0] == "rseng" {
                encyclopedia.insert(parts[..depth.min(parts.len())].to_vec());
            }
            for (sum, n) in practices.iter_mut().zip(facts.practices) {
                *sum += u64::from(n);
            }
            runs.push(u64::from(facts.practices[Practices::RUN]));
            let has = |flag: u32| u64::from(facts.flags & flag != 0);
            shares.without_user += 1 - has(FileFacts::USER);
            shares.multi_stage += u64::from(facts.stages > 1);
            shares.copy_from_stage += has(FileFacts::COPY_FROM);
            let [untagged, latest, tagged, digest, variable, scratch, stage] = facts.bases.map(u64::from);
            let bases = &mut shares.bases;
            bases.untagged += untagged;
            bases.latest += latest;
            bases.tagged += tagged;
            bases.digest += digest;
            bases.variable += variable;
            bases.scratch += scratch;
            bases.stage += stage;
            shares.unpinned_files += u64::from(untagged + latest > 0);
            shares.from_lines += u64::from(facts.from_lines);
        }
        shares.repositories = repositories.len() as u64;
        shares.encyclopedia_repositories = encyclopedia.len() as u64;
        shares.instructions = Practices::from_array(practices);
        shares.run_per_file = Spread::of(&mut runs);
        shares.from =
            self.from_counts().iter().map(|(group, counts)| (group.clone(), FromGroup::of(counts))).collect();
        shares
    }

    /// The study's counts of FROM: for `machine-learning` (what lies under `orgs/`) and `rseng` (all
    /// else), each image with its count, the most frequent first, then by first occurrence.
    pub fn from_counts(&self) -> BTreeMap<String, Vec<(String, u64)>> {
        let strings = self.froms.strings.len();
        let groups = [("machine-learning", true), ("rseng", false)];
        let of_group = |orgs: bool| {
            let (mut counts, mut first) = (vec![0u64; strings], Vec::new());
            for (row, name) in self.names.iter().enumerate() {
                if format!("/{name}").contains("/orgs/") != orgs {
                    continue;
                }
                for &id in self.froms.get(row) {
                    if counts[id as usize] == 0 {
                        first.push(id);
                    }
                    counts[id as usize] += 1;
                }
            }
            first.sort_by_key(|id| std::cmp::Reverse(counts[*id as usize]));
            first.iter().map(|id| (self.froms.strings.get(*id).to_owned(), counts[*id as usize])).collect()
        };
        groups.into_iter().map(|(name, orgs)| (name.to_owned(), of_group(orgs))).collect()
    }

    fn odd(&self) -> Odd {
        let flagged = |flag: u32| {
            let rows = (0..self.names.len()).filter(move |row| self.facts[*row].flags & flag != 0);
            (rows.clone().count() as u64, rows.map(|row| self.names[row].clone()).take(EXAMPLES).collect())
        };
        let (not_utf8, not_utf8_examples) = flagged(FileFacts::NOT_UTF8);
        let (unreadable, unreadable_examples) = flagged(FileFacts::UNREADABLE);
        Odd {
            other_files: self.around.other,
            other_examples: self.around.other_examples.clone(),
            repeated_files: self.repeated.len() as u64,
            repeated_examples: self.repeated.iter().take(EXAMPLES).cloned().collect(),
            not_utf8,
            not_utf8_examples,
            unreadable,
            unreadable_examples,
            broken_archive: self.around.broken.clone(),
        }
    }
}

/// Brings all shards to rank 0.
fn gather(shards: Vec<Shard>, world: &World) -> Option<Vec<Shard>> {
    if world.size() == 1 {
        return Some(shards);
    }
    let mut packed = Vec::new();
    for shard in &shards {
        pack(&mut packed, &shard.paths);
        pack(&mut packed, &shard.path_ends);
        shard.documents.pack(&mut packed);
        shard.froms.pack(&mut packed);
        pack(&mut packed, &shard.facts);
    }
    drop(shards);
    let mut all = Vec::new();
    for bytes in world.gather(&packed)? {
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let mut shard = || {
                let (paths, path_ends) = (unpack(&mut rest)?, unpack(&mut rest)?);
                let (documents, froms) = (Rows::unpack(&mut rest)?, Rows::unpack(&mut rest)?);
                Some(Shard { paths, path_ends, documents, froms, facts: unpack(&mut rest)? })
            };
            all.push(shard().expect("a shard arrives as it was packed"));
        }
    }
    Some(all)
}

/// The order of [`Base`] is that of [`FileFacts::bases`].
const _: () = assert!(Base::Untagged as usize == 0 && Base::Stage as usize == 6);
