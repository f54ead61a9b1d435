//! The path sets of images: folds of distinct chains of layers, dealt to the ranks.

use super::cache::Cache;
use super::deal::{Workers, deal};
use super::{Campaign, Error, Failure, Outcome, Round, at};
use crate::rootfs::Digest;
use crate::rootfs::fold::fold;
use crate::rootfs::source::Image;
use crate::rootfs::store::{Store, Wanted};
use crate::world::World;
use roaring::RoaringBitmap;
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// The layers of an image that can be read, lowest first.
pub(super) fn chain_of(image: &Image) -> Vec<Digest> {
    image.layers.iter().filter(|l| l.unreadable.is_none()).map(|l| l.digest).collect()
}

impl Campaign<'_> {
    /// The path sets of all images whose layers are there.
    pub(super) fn paths(
        &self,
        world: &World,
        images: &[Option<Image>],
        store: &Store,
        failures: &[Failure],
        outcome: &mut Outcome,
    ) -> Result<(), Error> {
        // Images of equal layers have equal paths; neighbours in this order share lower layers.
        let mut chains: BTreeMap<Vec<Digest>, u32> = BTreeMap::new();
        for image in images.iter().flatten() {
            let chain = chain_of(image);
            if chain.iter().all(|digest| store.has(digest, self.wanted())) {
                chains.insert(chain, 0);
            }
        }
        chains.values_mut().zip(0..).for_each(|(number, i)| *number = i);
        let list: Vec<&Vec<Digest>> = chains.keys().collect();
        let distinct: std::collections::BTreeSet<&Digest> = list.iter().copied().flatten().collect();
        outcome.toc_only =
            distinct.into_iter().filter(|digest| !store.has(digest, Wanted::Whole)).count() as u64;
        let identity = self.universe.identity();
        let done = AtomicU64::new(0);
        let cache = std::sync::Mutex::new(Cache::default());
        let fold_chain = |i: usize| -> Result<RoaringBitmap, String> {
            let mut cache = cache.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            cache.shrink();
            let mut layers = Vec::with_capacity(list[i].len());
            for digest in list[i] {
                layers.push(cache.record(store, digest, self.universe, &identity)?);
            }
            let folded = fold(self.universe, &layers, &mut |layer| cache.names(layer));
            folded.map(|folded| folded.paths).map_err(|e| e.to_string())
        };
        let mut mine = Vec::new();
        let workers = Workers { ranks: world.size(), threads: 1 };
        deal(world, self.stop, list.len(), workers, &fold_chain, &mut |i, set: Result<_, String>| {
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
                let untold =
                    if self.read_layers { "a layer was not read" } else { "layers were not to be read" };
                outcome.paths.push(Err(reason.unwrap_or_else(|| untold.into())));
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
