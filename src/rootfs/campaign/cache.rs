//! Records and names of layers, kept in memory while neighbours need them.

use crate::rootfs::names::Names;
use crate::rootfs::record::LayerRecord;
use crate::rootfs::store::Store;
use crate::rootfs::{Digest, Universe};
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// Records and names of the layers that the last images had.
#[derive(Default)]
pub(super) struct Cache {
    records: FxHashMap<Digest, Arc<LayerRecord>>,
    names: FxHashMap<Digest, Arc<Names>>,
    bytes: usize,
}

const CACHE_BYTES: usize = 16 << 20;

impl Cache {
    pub(super) fn shrink(&mut self) {
        if self.bytes > CACHE_BYTES {
            *self = Self::default();
        }
    }

    pub(super) fn record(
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

    pub(super) fn names(&mut self, layer: &LayerRecord) -> std::io::Result<Arc<Names>> {
        if let Some(names) = self.names.get(&layer.digest) {
            return Ok(Arc::clone(names));
        }
        let names = Arc::new(layer.names()?);
        self.bytes += names.memory();
        self.names.insert(layer.digest, Arc::clone(&names));
        Ok(names)
    }
}
