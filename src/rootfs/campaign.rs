//! A campaign over images on the ranks: what they are made of, their layers, their paths.
//!
//! Three rounds of work, each dealt from a shared counter: images (manifest and config), distinct
//! layers (largest first, so that none is left for the end), folds of distinct chains of layers.
//! What is finished is on disk before it counts: images in `images/*.jsonl` of the output, layers in
//! the [`Store`](store::Store). A campaign that was killed goes on there, on any number of ranks, and reads no
//! layer again that it had finished. What failed is listed and tried again by the same command.

use super::Universe;
use super::layer::Limits;
use super::source::{self, Image, PlatformChoice, Source};
use super::store::{self, Wanted};
use crate::world::World;
use journal::Journal;
use roaring::RoaringBitmap;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

mod cache;
mod deal;
mod journal;
mod layers;
mod lists;
mod paths;
mod view;

use deal::{Workers, deal};

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
    /// Whether a target is asked again what it is, though an earlier run in this directory knows.
    pub again: &'a (dyn Fn(&str) -> bool + Sync),
    /// Which platform of an index.
    pub platform: &'a PlatformChoice,
    /// Bounds on a layer.
    pub limits: Limits,
    /// Read the layers that are not kept yet; else only what images are made of is read, which is enough for
    /// evidence, and images whose layers are all kept have paths.
    pub read_layers: bool,
    /// Read tables of contents instead of layers where there are any ([`super::toc`]).
    pub toc: bool,
    /// Directory of the results.
    pub output: &'a Path,
    /// Directory of the layers.
    pub layers: &'a Path,
    /// Where to write all paths of every image, if wanted.
    pub lists: Option<&'a Path>,
    /// Layers that a rank reads at a time.
    pub threads: usize,
    /// Ranks that read images and layers: the first ones. The others only fold.
    pub readers: usize,
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
    /// Lists of all paths; counted in images.
    Lists,
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

/// The images that failed as a whole, not for a layer.
pub fn failed_images(failures: &[Failure]) -> HashSet<&str> {
    failures.iter().filter(|f| f.layer.is_none()).map(|f| f.image.as_str()).collect()
}

/// How a campaign ended. The same on every rank, but for what only rank 0 has.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Images asked for.
    pub targets: u64,
    /// Images that are as an earlier run found them.
    pub images_found: u64,
    /// Distinct layers of the images.
    pub layers: u64,
    /// Layers that were read before.
    pub found: u64,
    /// Layers read now.
    pub read: u64,
    /// Bytes that were read for them.
    pub bytes: u64,
    /// Layers of which only the table of contents was ever read: neither the digest of their stored
    /// bytes nor their diff_id is checked.
    pub toc_only: u64,
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
    /// The ranks do not read the same there.
    #[error(
        "{}: the ranks read different contents there, even after {seconds} s; start again when all nodes see the same, finished work is kept",
        path.display()
    )]
    Views {
        /// The directory.
        path: PathBuf,
        /// How long they waited for it.
        seconds: u32,
    },
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

impl Campaign<'_> {
    /// Runs it. Collective.
    ///
    /// # Errors
    /// [`Error`] if a file cannot be read or written; the caller ends the job then.
    pub fn run(&self, world: &World) -> Result<Outcome, Error> {
        let mut outcome = Outcome { targets: self.targets.len() as u64, ..Outcome::default() };
        let (mut images, mut failures) = self.images(world, &mut outcome)?;
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
        let mut failures: Vec<Failure> = serde_json::from_slice(&bytes).unwrap_or_default();
        // What an earlier run found of an image that cannot be had any more does not count.
        let gone = failed_images(&failures);
        for (target, image) in self.targets.iter().zip(&mut images) {
            if gone.contains(target.as_str()) {
                *image = None;
            }
        }
        if stopped(&mut outcome) {
            return Ok(outcome);
        }
        let store = self.store(world, &images)?;
        let belied = self.belied(&mut images, &store);
        failures.extend_from_slice(&belied);
        if world.is_root() {
            outcome.failures.extend(belied);
            outcome.failures.sort();
        }
        self.paths(world, &images, &store, &failures, &mut outcome)?;
        if !stopped(&mut outcome)
            && let Some(lists) = self.lists
        {
            self.write_lists(world, &images, &store, lists)?;
            stopped(&mut outcome);
        }
        Ok(outcome)
    }

    /// Which records of layers will do.
    fn wanted(&self) -> Wanted {
        if self.toc { Wanted::Any } else { Wanted::Whole }
    }

    /// Every target's image, without what only the results need, or nothing if it failed.
    fn images(
        &self,
        world: &World,
        outcome: &mut Outcome,
    ) -> Result<(Vec<Option<Image>>, Vec<Failure>), Error> {
        let directory = self.output.join("images");
        let mut plan = Vec::new();
        if world.is_root() {
            std::fs::create_dir_all(&directory).map_err(at(&directory))?;
            let known = Journal::read(&directory, self.platform)?;
            plan.extend_from_slice(&known.attempt.to_le_bytes());
            let missing = self
                .targets
                .iter()
                .enumerate()
                .filter(|(_, t)| (self.again)(t) || !known.images.contains_key(*t));
            missing.for_each(|(i, _)| plan.extend_from_slice(&(i as u32).to_le_bytes()));
        }
        world.broadcast(&mut plan);
        let mut numbers = plan.chunks_exact(4).map(|n| u32::from_le_bytes([n[0], n[1], n[2], n[3]]));
        let attempt = numbers.next().unwrap_or(0);
        let missing: Vec<_> = numbers.map(|n| n as usize).collect();
        outcome.images_found = (self.targets.len() - missing.len()) as u64;
        let mut journal = Journal::create(&directory, world.rank(), attempt);
        let mut failures = Vec::new();
        let done = AtomicU64::new((self.targets.len() - missing.len()) as u64);
        let ask = |i: usize| {
            let target = &self.targets[missing[i]];
            let (source, name) = (self.open)(target)?;
            source.image(&name, self.platform)
        };
        let workers = Workers { ranks: self.readers, threads: self.threads };
        deal(world, self.stop, missing.len(), workers, &ask, &mut |i, image| {
            let target = &self.targets[missing[i]];
            match image {
                Ok(image) => journal.append(target, self.platform, &image)?,
                Err(_) if self.stop.load(Ordering::Relaxed) => (),
                Err(e) => {
                    failures.push(Failure { image: target.clone(), layer: None, reason: e.beside(target) });
                }
            }
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            (self.progress)(Round::Images, done, self.targets.len() as u64);
            Ok(())
        })?;
        journal.close()?;
        world.barrier();
        Ok((self.journaled(world, &directory)?, failures))
    }
}
