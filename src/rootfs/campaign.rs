//! A campaign over images on the ranks: what they are made of, their layers, their paths.
//!
//! Three rounds of work, each dealt from a shared counter: images (manifest and config), distinct
//! layers (largest first, so that none is left for the end), folds of distinct chains of layers.
//! What is finished is on disk before it counts: images in `images/*.jsonl` of the output, layers in
//! the [`Store`]. A campaign that was killed goes on there, on any number of ranks, and reads no
//! layer again that it had finished. What failed is listed and tried again by the same command.

use super::fold::fold;
use super::layer::{Limits, read_layer};
use super::names::Names;
use super::record::LayerRecord;
use super::source::{self, Image, Layer, PlatformChoice, Source};
use super::store::{self, Store, StoreWriter};
use super::{Digest, Universe};
use crate::world::World;
use roaring::RoaringBitmap;
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

mod deal;

use deal::deal;

/// Where the images of a target come from, opened when first needed.
pub type Opener<'a> = dyn Fn(&str) -> source::Result<(Arc<dyn Source>, String)> + Sync + 'a;

/// A campaign.
pub struct Campaign<'a> {
    /// The paths that are asked for.
    pub universe: &'a Universe,
    /// Names of the images, each once: what [`Campaign::open`] understands.
    pub targets: &'a [String],
    /// Gives a target's source, and its name there.
    pub open: &'a Opener<'a>,
    /// Which platform of an index.
    pub platform: &'a PlatformChoice,
    /// Bounds on a layer.
    pub limits: Limits,
    /// Directory of the results.
    pub output: &'a Path,
    /// Directory of the layers.
    pub layers: &'a Path,
    /// Layers that a rank reads at a time.
    pub threads: usize,
    /// Set when the run should end soon.
    pub stop: &'a AtomicBool,
    /// Waited before a layer is kept, so that tests can meet a campaign in the middle.
    pub pause: std::time::Duration,
    /// Told what is done: the round, how much of it, and its whole amount.
    pub progress: &'a (dyn Fn(Round, u64, u64) + Sync),
}

/// A round of a campaign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Round {
    /// Manifests and configs; counted in images.
    Images,
    /// Layers; counted in stored bytes.
    Layers,
    /// Folds; counted in distinct chains of layers.
    Paths,
}

/// Something that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Failure {
    /// The image.
    pub image: String,
    /// The layer, if it is one.
    pub layer: Option<String>,
    /// Why.
    pub reason: String,
}

/// How a campaign ended. The same on every rank, but for what only rank 0 has.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Images asked for.
    pub targets: u64,
    /// Distinct layers of the images.
    pub layers: u64,
    /// Layers that were read before.
    pub found: u64,
    /// Layers read now.
    pub read: u64,
    /// Stored bytes of the layers read now.
    pub bytes: u64,
    /// What could not be read, sorted; on rank 0 only.
    pub failures: Vec<Failure>,
    /// Distinct path sets; on rank 0 only.
    pub sets: Vec<RoaringBitmap>,
    /// For each target its set, or why it has none; on rank 0 only.
    pub paths: Vec<Result<u32, String>>,
    /// True if a signal ended it before it was complete.
    pub stopped: bool,
}

/// Why a campaign cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store of layers.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A file of the output.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        error: std::io::Error,
    },
}

fn at(path: &Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
    |error| Error::File { path: path.to_owned(), error }
}

/// A distinct layer, and an image that has it.
struct Distinct {
    layer: Layer,
    target: usize,
}

impl Campaign<'_> {
    /// Runs it. Collective.
    ///
    /// # Errors
    /// [`Error`] if a file cannot be read or written; the caller ends the job then.
    pub fn run(&self, world: &World) -> Result<Outcome, Error> {
        let mut outcome = Outcome { targets: self.targets.len() as u64, ..Outcome::default() };
        let (images, mut failures) = self.images(world)?;
        let stopped = |outcome: &mut Outcome| {
            let mut told = [u64::from(self.stop.load(Ordering::Relaxed))];
            world.max_u64(&mut told);
            outcome.stopped = told[0] > 0;
            outcome.stopped
        };
        if stopped(&mut outcome) {
            return Ok(outcome);
        }
        let failed = self.layers(world, &images, &mut outcome)?;
        failures.extend(failed);
        let all = world.gather(&serde_json::to_vec(&failures).unwrap_or_default());
        let mut bytes = Vec::new();
        if let Some(all) = all {
            let lists = all.iter().filter_map(|list| serde_json::from_slice::<Vec<Failure>>(list).ok());
            outcome.failures = lists.flatten().collect();
            outcome.failures.sort();
            bytes = serde_json::to_vec(&outcome.failures).unwrap_or_default();
        }
        world.broadcast(&mut bytes);
        let failures: Vec<Failure> = serde_json::from_slice(&bytes).unwrap_or_default();
        if stopped(&mut outcome) {
            return Ok(outcome);
        }
        self.paths(world, &images, &failures, &mut outcome)?;
        stopped(&mut outcome);
        Ok(outcome)
    }

    /// Every target's image, without what only the results need, or nothing if it failed.
    fn images(&self, world: &World) -> Result<(Vec<Option<Image>>, Vec<Failure>), Error> {
        let directory = self.output.join("images");
        let mut plan = Vec::new();
        if world.is_root() {
            std::fs::create_dir_all(&directory).map_err(at(&directory))?;
            let known = Journal::read(&directory, self.platform)?;
            plan.extend_from_slice(&known.attempt.to_le_bytes());
            let missing = self.targets.iter().enumerate().filter(|(_, t)| !known.images.contains_key(*t));
            missing.for_each(|(i, _)| plan.extend_from_slice(&(i as u32).to_le_bytes()));
        }
        world.broadcast(&mut plan);
        let mut numbers = plan.chunks_exact(4).map(|n| u32::from_le_bytes([n[0], n[1], n[2], n[3]]));
        let attempt = numbers.next().unwrap_or(0);
        let missing: Vec<_> = numbers.map(|n| n as usize).collect();
        let mut journal = Journal::create(&directory, world.rank(), attempt);
        let mut failures = Vec::new();
        let done = AtomicU64::new((self.targets.len() - missing.len()) as u64);
        let ask = |i: usize| {
            let target = &self.targets[missing[i]];
            let (source, name) = (self.open)(target)?;
            source.image(&name, self.platform)
        };
        deal(world, self.stop, missing.len(), self.threads, &ask, &mut |i, image| {
            let target = &self.targets[missing[i]];
            match image {
                Ok(image) => journal.append(target, self.platform, &image)?,
                Err(_) if self.stop.load(Ordering::Relaxed) => (),
                Err(e) => {
                    failures.push(Failure { image: target.clone(), layer: None, reason: e.to_string() })
                }
            }
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            (self.progress)(Round::Images, done, self.targets.len() as u64);
            Ok(())
        })?;
        journal.close()?;
        world.barrier();
        let mut known = Journal::read(&directory, self.platform)?.images;
        let images = self.targets.iter().map(|target| known.remove(target)).collect();
        Ok((images, failures))
    }

    /// Reads every distinct layer that no campaign has read yet.
    fn layers(
        &self,
        world: &World,
        images: &[Option<Image>],
        outcome: &mut Outcome,
    ) -> Result<Vec<Failure>, Error> {
        let mut seen: FxHashMap<Digest, usize> = FxHashMap::default();
        let mut distinct: Vec<Distinct> = Vec::new();
        for (target, image) in images.iter().enumerate() {
            let Some(image) = image else { continue };
            for layer in image.layers.iter().filter(|layer| layer.unreadable.is_none()) {
                match seen.entry(layer.digest) {
                    std::collections::hash_map::Entry::Vacant(entry) => {
                        entry.insert(distinct.len());
                        distinct.push(Distinct { layer: layer.clone(), target });
                    }
                    // Some configs do not tell their diff_ids; others of the same layer may.
                    std::collections::hash_map::Entry::Occupied(entry) => {
                        let known = &mut distinct[*entry.get()].layer.diff_id;
                        *known = known.or(layer.diff_id);
                    }
                }
            }
        }
        distinct.sort_by(|a, b| b.layer.size.cmp(&a.layer.size).then(a.layer.digest.cmp(&b.layer.digest)));
        // Rank 0 says which are missing: file systems may show ranks different states.
        let mut plan = Vec::new();
        if world.is_root() {
            let store = Store::open(self.layers)?;
            plan.extend_from_slice(&store.next_attempt().to_le_bytes());
            plan.extend(distinct.iter().map(|d| u8::from(store.has(&d.layer.digest))));
        }
        world.broadcast(&mut plan);
        let attempt = plan.get(..4).map_or(0, |n| u32::from_le_bytes([n[0], n[1], n[2], n[3]]));
        let missing: Vec<&Distinct> = distinct
            .iter()
            .zip(plan.iter().skip(4))
            .filter(|(_, known)| **known == 0)
            .map(|(d, _)| d)
            .collect();
        outcome.layers = distinct.len() as u64;
        outcome.found = (distinct.len() - missing.len()) as u64;

        let identity = self.universe.identity();
        let total: u64 = missing.iter().map(|d| d.layer.size).sum();
        let done = AtomicU64::new(0);
        let (beat, rank) = (world.heartbeat(), world.rank());
        let read = |i: usize| {
            let Distinct { layer, target } = missing[i];
            let image = images[*target].as_ref().ok_or("its image is not there")?;
            let (source, _) = (self.open)(&self.targets[*target]).map_err(|e| e.to_string())?;
            let stream = source.open_layer(image, layer, 0).map_err(|e| e.to_string())?;
            let tick = |bytes: u64| {
                let done = done.fetch_add(bytes, Ordering::Relaxed) + bytes;
                beat();
                (self.progress)(Round::Layers, done.min(total), total);
            };
            let watched = Watched { reader: stream, stop: self.stop, tick };
            tracing::debug!(rank, layer = %layer.digest, "reads");
            let record = read_layer(watched, layer, self.universe, &identity, &self.limits);
            std::thread::sleep(self.pause);
            record.map_err(|e| e.to_string())
        };
        let mut writer = StoreWriter::new(self.layers, world.rank(), attempt);
        let mut failures = Vec::new();
        let mut numbers = [0u64; 2];
        deal(world, self.stop, missing.len(), self.threads, &read, &mut |i, record: Result<_, String>| {
            match record {
                Ok(record) => {
                    writer.append(&record)?;
                    numbers[0] += 1;
                    numbers[1] += record.stored_bytes;
                }
                Err(_) if self.stop.load(Ordering::Relaxed) => (),
                Err(reason) => failures.push(Failure {
                    image: self.targets[missing[i].target].clone(),
                    layer: Some(missing[i].layer.digest.to_string()),
                    reason,
                }),
            }
            Ok(())
        })?;
        writer.close()?;
        world.sum_u64(&mut numbers);
        [outcome.read, outcome.bytes] = numbers;
        world.barrier();
        Ok(failures)
    }

    /// The path sets of all images whose layers are there.
    fn paths(
        &self,
        world: &World,
        images: &[Option<Image>],
        failures: &[Failure],
        outcome: &mut Outcome,
    ) -> Result<(), Error> {
        let store = Store::open(self.layers)?;
        // Images of equal layers have equal paths; neighbours in this order share lower layers.
        let mut chains: BTreeMap<Vec<Digest>, u32> = BTreeMap::new();
        let chain_of = |image: &Image| -> Vec<Digest> {
            image.layers.iter().filter(|l| l.unreadable.is_none()).map(|l| l.digest).collect()
        };
        for image in images.iter().flatten() {
            let chain = chain_of(image);
            if chain.iter().all(|digest| store.has(digest)) {
                chains.insert(chain, 0);
            }
        }
        chains.values_mut().zip(0..).for_each(|(number, i)| *number = i);
        let list: Vec<&Vec<Digest>> = chains.keys().collect();
        let identity = self.universe.identity();
        let done = AtomicU64::new(0);
        let cache = std::sync::Mutex::new(Cache::default());
        let fold_chain = |i: usize| -> Result<RoaringBitmap, String> {
            let mut cache = cache.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            cache.shrink();
            let mut layers = Vec::with_capacity(list[i].len());
            for digest in list[i] {
                layers.push(cache.record(&store, digest, self.universe, &identity)?);
            }
            let folded = fold(self.universe, &layers, &mut |layer| cache.names(layer));
            folded.map(|folded| folded.paths).map_err(|e| e.to_string())
        };
        let mut mine = Vec::new();
        deal(world, self.stop, list.len(), 1, &fold_chain, &mut |i, set: Result<_, String>| {
            let (known, bytes) = match set {
                Ok(mut set) => {
                    set.optimize();
                    let mut bytes = Vec::with_capacity(set.serialized_size());
                    set.serialize_into(&mut bytes).map_err(at(self.layers))?;
                    (1, bytes)
                }
                Err(reason) => (0, reason.into_bytes()),
            };
            mine.extend_from_slice(&(i as u32).to_le_bytes());
            mine.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            mine.push(known);
            mine.extend_from_slice(&bytes);
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            (self.progress)(Round::Paths, done, list.len() as u64);
            Ok(())
        })?;
        let Some(all) = world.gather(&mine) else { return Ok(()) };
        let mut sets: Vec<Result<RoaringBitmap, String>> = vec![Err("was not folded".into()); list.len()];
        for mut bytes in all.iter().map(Vec::as_slice) {
            while let Some((head, rest)) = bytes.split_at_checked(9) {
                let number =
                    |i: usize| u32::from_le_bytes([head[i], head[i + 1], head[i + 2], head[i + 3]]) as usize;
                let (set, rest) = rest.split_at(number(4).min(rest.len()));
                sets[number(0)] = match head[8] {
                    1 => RoaringBitmap::deserialize_from(set).map_err(|e| e.to_string()),
                    _ => Err(String::from_utf8_lossy(set).into_owned()),
                };
                bytes = rest;
            }
        }
        // Equal sets once, in the order of the images.
        let mut ids: FxHashMap<Vec<u8>, u32> = FxHashMap::default();
        let why: FxHashMap<&str, &Failure> =
            failures.iter().filter(|f| f.layer.is_none()).map(|f| (f.image.as_str(), f)).collect();
        let lost: FxHashMap<&str, &Failure> =
            failures.iter().filter_map(|f| Some((f.layer.as_deref()?, f))).collect();
        for (target, image) in self.targets.iter().zip(images) {
            let Some(image) = image else {
                let reason = why.get(target.as_str()).map_or("was not read", |f| f.reason.as_str());
                outcome.paths.push(Err(reason.to_owned()));
                continue;
            };
            let chain = chain_of(image);
            let Some(number) = chains.get(&chain) else {
                let reason = chain.iter().find_map(|digest| {
                    let name = digest.to_string();
                    lost.get(name.as_str()).map(|f| format!("layer {name}: {}", f.reason))
                });
                outcome.paths.push(Err(reason.unwrap_or_else(|| "a layer was not read".into())));
                continue;
            };
            outcome.paths.push(match &sets[*number as usize] {
                Err(reason) => Err(reason.clone()),
                Ok(set) => {
                    let mut key = Vec::new();
                    set.serialize_into(&mut key).map_err(at(self.layers))?;
                    let next = outcome.sets.len() as u32;
                    Ok(*ids.entry(key).or_insert_with(|| {
                        outcome.sets.push(set.clone());
                        next
                    }))
                }
            });
        }
        Ok(())
    }
}

/// Says that bytes came, and ends the stream when the run is to end.
struct Watched<'a, R, F> {
    reader: R,
    stop: &'a AtomicBool,
    tick: F,
}

impl<R: Read, F: Fn(u64)> Read for Watched<'_, R, F> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(std::io::Error::other("stopped"));
        }
        let read = self.reader.read(into)?;
        (self.tick)(read as u64);
        Ok(read)
    }
}

/// Records and names of the layers that the last images had.
#[derive(Default)]
struct Cache {
    records: FxHashMap<Digest, Arc<LayerRecord>>,
    names: FxHashMap<Digest, Arc<Names>>,
    bytes: usize,
}

const CACHE_BYTES: usize = 16 << 20;

impl Cache {
    fn shrink(&mut self) {
        if self.bytes > CACHE_BYTES {
            *self = Self::default();
        }
    }

    fn record(
        &mut self,
        store: &Store,
        digest: &Digest,
        universe: &Universe,
        identity: &[u8; 32],
    ) -> Result<Arc<LayerRecord>, String> {
        if let Some(record) = self.records.get(digest) {
            return Ok(Arc::clone(record));
        }
        let record = store.read(digest).map_err(|e| e.to_string())?;
        let mut record = record.ok_or_else(|| format!("layer {digest} was not read"))?;
        record.project(universe, identity).map_err(|e| format!("layer {digest}: {e}"))?;
        self.bytes += record.listing.len() + record.delta.links.len() * 64 + 1024;
        let record = Arc::new(record);
        self.records.insert(*digest, Arc::clone(&record));
        Ok(record)
    }

    fn names(&mut self, layer: &LayerRecord) -> std::io::Result<Arc<Names>> {
        if let Some(names) = self.names.get(&layer.digest) {
            return Ok(Arc::clone(names));
        }
        let names = Arc::new(layer.names()?);
        self.bytes += names.memory();
        self.names.insert(layer.digest, Arc::clone(&names));
        Ok(names)
    }
}

/// What was learnt of images: a line of JSON each, in a file for each rank and attempt.
struct Journal {
    path: PathBuf,
    file: Option<std::fs::File>,
}

/// The images of all journals.
pub(super) struct Known {
    attempt: u32,
    /// Without histories and annotations.
    images: FxHashMap<String, Image>,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Line<T> {
    target: String,
    platform: String,
    image: T,
}

fn platform_text(choice: &PlatformChoice) -> String {
    let wanted: Vec<_> = choice.wanted.iter().map(ToString::to_string).collect();
    format!("{}{}", wanted.join(","), if choice.fallback { " or any" } else { "" })
}

impl Journal {
    fn create(directory: &Path, rank: usize, attempt: u32) -> Self {
        let name = format!("attempt-{attempt:04}.rank-{rank:04}.jsonl");
        Self { path: directory.join(name), file: None }
    }

    fn append(&mut self, target: &str, platform: &PlatformChoice, image: &Image) -> Result<(), Error> {
        let line = Line { target: target.to_owned(), platform: platform_text(platform), image };
        let mut bytes = serde_json::to_vec(&line).map_err(|e| at(&self.path)(e.into()))?;
        bytes.push(b'\n');
        if self.file.is_none() {
            let file = std::fs::File::options().create_new(true).write(true).open(&self.path);
            self.file = Some(file.map_err(at(&self.path))?);
        }
        self.file.as_mut().map_or(Ok(()), |file| file.write_all(&bytes)).map_err(at(&self.path))
    }

    fn close(self) -> Result<(), Error> {
        self.file.map_or(Ok(()), |file| file.sync_all()).map_err(at(&self.path))
    }

    fn read(directory: &Path, platform: &PlatformChoice) -> Result<Known, Error> {
        let mut known = Known { attempt: 0, images: FxHashMap::default() };
        visit_images(directory, platform, &mut |attempt, found| {
            known.attempt = known.attempt.max(attempt + 1);
            if let Some((target, mut image)) = found {
                image.history.clear();
                image.annotations.clear();
                image.diff_ids.clear();
                known.images.entry(target).or_insert(image);
            }
        })?;
        Ok(known)
    }
}

/// Hands over every image of the journals, in the order of their files; `None` once for each file.
fn visit_images(
    directory: &Path,
    platform: &PlatformChoice,
    visit: &mut dyn FnMut(u32, Option<(String, Image)>),
) -> Result<(), Error> {
    let platform = platform_text(platform);
    let entries = std::fs::read_dir(directory).map_err(at(directory))?;
    let paths: std::io::Result<Vec<_>> = entries.map(|e| Ok(e?.path())).collect();
    let mut paths = paths.map_err(at(directory))?;
    paths.retain(|path| path.extension().is_some_and(|e| e == "jsonl"));
    paths.sort();
    for path in paths {
        let attempt =
            path.file_name().and_then(|n| n.to_str()?.strip_prefix("attempt-")?.get(..4)?.parse().ok());
        let attempt = attempt.unwrap_or(0);
        visit(attempt, None);
        let file = std::io::BufReader::new(std::fs::File::open(&path).map_err(at(&path))?);
        for line in std::io::BufRead::split(file, b'\n') {
            // The last line may have been cut by a kill: that image is asked for again.
            let line = line.map_err(at(&path))?;
            let Ok(line) = serde_json::from_slice::<Line<Image>>(&line) else { continue };
            if line.platform == platform {
                visit(attempt, Some((line.target, line.image)));
            }
        }
    }
    Ok(())
}

impl Campaign<'_> {
    /// All that is known of the targets' images, in the order of the targets. For rank 0, after the
    /// run.
    ///
    /// # Errors
    /// [`Error`] if a journal cannot be read.
    pub fn known_images(&self) -> Result<Vec<Option<Image>>, Error> {
        let mut all: FxHashMap<String, Image> = FxHashMap::default();
        visit_images(&self.output.join("images"), self.platform, &mut |_, found| {
            if let Some((target, image)) = found {
                all.entry(target).or_insert(image);
            }
        })?;
        Ok(self.targets.iter().map(|target| all.remove(target)).collect())
    }
}
