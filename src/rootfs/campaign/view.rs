//! What all ranks read of finished work, and what it proves of the images.

use super::journal::Journal;
use super::paths::chain_of;
use super::{Campaign, Error, Failure};
use crate::rootfs::source::Image;
use crate::rootfs::store::{Store, Wanted};
use crate::world::World;
use std::hash::{Hash, Hasher};
use std::path::Path;
use std::time::Duration;

/// How often ranks look again, a second apart, until they read the same: NFS keeps what it knows of a
/// directory for up to a minute (`acdirmax`, nfs(5)).
const LOOKS: u32 = 120;

/// Reads what the ranks wrote, again and again until all ranks read the same, and so everything: each
/// sees what it wrote itself. `read` gives a fingerprint beside the value. Collective.
fn agreed<T>(world: &World, path: &Path, read: impl Fn() -> Result<(T, u64), Error>) -> Result<T, Error> {
    for look in 0..LOOKS {
        let (value, mark) = read()?;
        let mut marks = [mark, !mark];
        world.max_u64(&mut marks);
        if marks[0] == !marks[1] {
            return Ok(value);
        }
        if look == 0 && world.is_root() {
            tracing::warn!("{}: the ranks read different contents; they look again", path.display());
        }
        std::thread::sleep(Duration::from_secs(1));
        world.progress();
    }
    Err(Error::Views { path: path.to_owned(), seconds: LOOKS })
}

impl Campaign<'_> {
    /// Every target's image from the journals, without what only the results need. Collective.
    pub(super) fn journaled(&self, world: &World, directory: &Path) -> Result<Vec<Option<Image>>, Error> {
        agreed(world, directory, || {
            let mut known = Journal::read(directory, self.platform)?.images;
            let images: Vec<Option<Image>> = self.targets.iter().map(|target| known.remove(target)).collect();
            let mut hash = rustc_hash::FxHasher::default();
            for image in &images {
                let layers =
                    |image: &Image| image.layers.iter().map(|l| (l.digest, l.diff_id)).collect::<Vec<_>>();
                image.as_ref().map(layers).hash(&mut hash);
            }
            Ok((images, hash.finish()))
        })
    }

    /// The store, with what is there of the images' layers. Collective.
    pub(super) fn store(&self, world: &World, images: &[Option<Image>]) -> Result<Store, Error> {
        agreed(world, self.layers, || {
            let store = Store::open(self.layers)?;
            let mut hash = rustc_hash::FxHasher::default();
            for digest in images.iter().flatten().flat_map(chain_of) {
                let has = |wanted| store.has(&digest, wanted);
                (has(Wanted::Any), has(Wanted::Whole)).hash(&mut hash);
            }
            Ok((store, hash.finish()))
        })
    }

    /// Takes out the images of which a layer that was read proves that their manifest or config is
    /// wrong about it.
    pub(super) fn belied(&self, images: &mut [Option<Image>], store: &Store) -> Vec<Failure> {
        let mut failures = Vec::new();
        for (target, slot) in self.targets.iter().zip(images) {
            let Some(image) = slot else { continue };
            let wrong = image.layers.iter().find_map(|layer| {
                let proof = store.proof(&layer.digest).filter(|_| layer.unreadable.is_none())?;
                layer.contradiction(proof.stored_bytes, proof.diff_id)
            });
            if let Some(reason) = wrong {
                failures.push(Failure { image: target.clone(), layer: None, reason });
                *slot = None;
            }
        }
        failures
    }
}
