//! The layers of the images: each distinct one is read once, from whichever image has it whole.

use super::deal::{Workers, deal};
use super::{Campaign, Error, Failure, Outcome, Round};
use crate::rootfs::Digest;
use crate::rootfs::layer::read_layer;
use crate::rootfs::record::LayerRecord;
use crate::rootfs::source::Image;
use crate::rootfs::store::{Store, StoreWriter};
use crate::world::World;
use rustc_hash::FxHashMap;
use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Places that are asked for one layer before it counts as lost: more are no more likely to have it,
/// and each may take all its patience to say so.
const PLACES: usize = 8;

/// A distinct layer.
struct Distinct {
    digest: Digest,
    /// Stored bytes, as the first image says.
    size: u64,
    /// Images that have it, and where in their layers: one for each place and stated size, at most
    /// [`PLACES`].
    holders: Vec<(usize, usize)>,
}

/// The layers that can be read, largest first.
fn distinct(targets: &[String], images: &[Option<Image>]) -> Vec<Distinct> {
    let mut seen: FxHashMap<Digest, usize> = FxHashMap::default();
    let mut distinct: Vec<Distinct> = Vec::new();
    let layer_of = |(target, at): (usize, usize)| images[target].as_ref().and_then(|i| i.layers.get(at));
    for (target, image) in images.iter().enumerate() {
        let layers = image.iter().flat_map(|image| image.layers.iter().enumerate());
        for (at, layer) in layers.filter(|(_, layer)| layer.unreadable.is_none()) {
            let known = *seen.entry(layer.digest).or_insert_with(|| {
                distinct.push(Distinct { digest: layer.digest, size: layer.size, holders: Vec::new() });
                distinct.len() - 1
            });
            let holders = &mut distinct[known].holders;
            let same = |held: &(usize, usize)| {
                layer_of(*held).is_some_and(|l| l.size == layer.size)
                    && place_of(&targets[held.0]) == place_of(&targets[target])
            };
            if holders.len() < PLACES && !holders.iter().any(same) {
                holders.push((target, at));
            }
        }
    }
    distinct.sort_by(|a, b| b.size.cmp(&a.size).then(a.digest.cmp(&b.digest)));
    distinct
}

/// The place that has the blobs of a target, as far as its name tells: without tag and digest, a
/// repository or a layout.
fn place_of(target: &str) -> &str {
    let name = target.split_once("@sha256:").map_or(target, |(name, _)| name);
    let last = name.rfind('/').map_or(0, |slash| slash + 1);
    let place = name[last..].rfind(':').map_or(name, |colon| &name[..last + colon]);
    // What is left of `docker-archive:FILE` or `ubuntu:24.04` is no place.
    if place.contains(['/', ':']) { place } else { name }
}

impl Campaign<'_> {
    /// Reads every distinct layer that no campaign has read yet.
    pub(super) fn layers(
        &self,
        world: &World,
        images: &[Option<Image>],
        outcome: &mut Outcome,
    ) -> Result<Vec<Failure>, Error> {
        let distinct = distinct(self.targets, images);
        // Rank 0 says which are missing: file systems may show ranks different states.
        let mut plan = Vec::new();
        if world.is_root() {
            let store = Store::open(self.layers)?;
            plan.extend_from_slice(&store.next_attempt().to_le_bytes());
            plan.extend(distinct.iter().map(|d| u8::from(store.has(&d.digest, self.wanted()))));
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
        if !self.read_layers {
            return Ok(Vec::new());
        }

        let identity = self.universe.identity();
        let total: u64 = missing.iter().map(|d| d.size).sum();
        let done = AtomicU64::new(0);
        let (beat, rank) = (world.heartbeat(), world.rank());
        let workers = Workers { ranks: self.readers, threads: self.threads };
        let helped = workers.spare_threads(missing.len());
        let read_from = |target: usize, at: usize| {
            let image = images[target].as_ref().ok_or("its image is not there")?;
            let layer = image.layers.get(at).ok_or("its image does not have it")?;
            let name = &self.targets[target];
            let (source, _) = (self.open)(name).map_err(|e| e.beside(name))?;
            let tick = |bytes: u64| {
                let done = done.fetch_add(bytes, Ordering::Relaxed) + bytes;
                beat();
                (self.progress)(Round::Layers, done.min(total), total);
            };
            let open = |part| {
                let reader = source.open_layer(image, layer, part).map_err(|e| e.beside(name))?;
                Ok::<_, String>(Watched { reader, stop: self.stop, tick })
            };
            tracing::debug!(rank, layer = %layer.digest, "reads");
            if let Some(toc) = layer.toc.as_ref().filter(|_| self.toc) {
                let open = &mut |part| Ok(Box::new(open(Some(part))?) as Box<dyn Read + Send + '_>);
                match toc.read(open, layer, self.universe, &identity, &self.limits) {
                    Ok(found) => return Ok(found),
                    // Whatever is wrong with it, the layer itself can be checked.
                    Err(e) => tracing::warn!(layer = %layer.digest, "{e}; the whole layer is read"),
                }
            }
            let record = read_layer(open(None)?, layer, self.universe, &identity, &self.limits, helped);
            std::thread::sleep(self.pause);
            record.map(|record| (record, layer.size)).map_err(|e| e.to_string())
        };
        let read = |i: usize| {
            let mut reasons: Vec<String> = Vec::new();
            for (target, at) in &missing[i].holders {
                let outcome: Result<_, String> = read_from(*target, *at);
                match outcome {
                    Ok(found) => return Ok(found),
                    Err(reason) if reasons.is_empty() => reasons.push(reason),
                    Err(reason) => reasons.push(format!("nor from {}: {reason}", self.targets[*target])),
                }
                if self.stop.load(Ordering::Relaxed) {
                    break;
                }
            }
            Err(reasons.join("; "))
        };
        let mut writer = StoreWriter::new(self.layers, world.rank(), attempt);
        let mut failures = Vec::new();
        let mut numbers = [0u64; 2];
        let mut keep = |i: usize, read: Result<(LayerRecord, u64), String>| {
            match read {
                Ok((record, bytes)) => {
                    writer.append(&record)?;
                    numbers[0] += 1;
                    numbers[1] += bytes;
                }
                Err(_) if self.stop.load(Ordering::Relaxed) => (),
                Err(reason) => failures.push(Failure {
                    image: self.targets[missing[i].holders[0].0].clone(),
                    layer: Some(missing[i].digest.to_string()),
                    reason,
                }),
            }
            Ok(())
        };
        deal(world, self.stop, missing.len(), workers, &read, &mut keep)?;
        writer.close()?;
        world.sum_u64(&mut numbers);
        [outcome.read, outcome.bytes] = numbers;
        world.barrier();
        Ok(failures)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rootfs::source::Layer;

    #[test]
    fn places_are_told_apart_by_name() {
        for (target, place) in [
            ("quay.io/lab/tool:1.0", "quay.io/lab/tool"),
            ("localhost:5000/lab/tool", "localhost:5000/lab/tool"),
            ("quay.io/lab/tool:1@sha256:ab", "quay.io/lab/tool"),
            ("oci:oci:base", "oci:oci"),
            ("oci:/x/y@2/z:base", "oci:/x/y@2/z"),
            ("oci:/x/y", "oci:/x/y"),
            ("docker-archive:a.tar", "docker-archive:a.tar"),
            ("ubuntu:24.04", "ubuntu:24.04"),
        ] {
            assert_eq!(place_of(target), place);
        }
    }

    #[test]
    fn a_layer_has_a_holder_for_each_place_and_size() {
        let layer = |n: u8, size| Layer {
            digest: Digest([n; 32]),
            size,
            media_type: String::new(),
            diff_id: None,
            unreadable: None,
            toc: None,
        };
        let foreign = |n| Layer { unreadable: Some("elsewhere".into()), ..layer(n, 1) };
        let image = |layers: Vec<Layer>| Some(Image { layers, ..Image::default() });
        let mut targets =
            ["q.io/a:1", "q.io/a:2", "q.io/b:1", "q.io/a:3", "q.io/c:1"].map(String::from).to_vec();
        let mut images = vec![
            image(vec![layer(1, 10), layer(2, 20)]),
            image(vec![layer(1, 10)]),
            image(vec![foreign(3), layer(1, 10)]),
            image(vec![layer(1, 11)]),
            None,
        ];
        let found: Vec<_> =
            distinct(&targets, &images).into_iter().map(|d| (d.digest.0[0], d.size, d.holders)).collect();
        assert_eq!(found, [(2, 20, vec![(0, 1)]), (1, 10, vec![(0, 0), (2, 1), (3, 0)])]);
        for i in 0..20 {
            targets.push(format!("q.io/more-{i}"));
            images.push(image(vec![layer(2, 20)]));
        }
        assert_eq!(distinct(&targets, &images)[0].holders.len(), PLACES);
    }
}
