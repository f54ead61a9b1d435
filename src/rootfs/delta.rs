//! What a layer does to the paths of a [`Universe`].

use super::place::{Sink, What};
use super::{PathId, Universe};
use roaring::RoaringBitmap;
use std::collections::BTreeMap;

/// The effect of one layer on a set of paths of a universe: `(set - removes) | adds`.
///
/// It does not depend on the layers below, so that a layer is read once for all images. What does
/// depend on them (where a link leads) is left to the fold.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LayerDelta {
    /// Entries of the layer other than directories: files, hard links, devices, symbolic links.
    pub adds: RoaringBitmap,
    /// What it takes away from the layers below: whiteouts and opaque markers with all that is below
    /// them, what a file hides that stands where a directory was, and the reverse.
    pub removes: RoaringBitmap,
    /// The symbolic links among `adds` and their targets as they are written, ascending by id.
    pub links: Vec<(PathId, Vec<u8>)>,
}

impl LayerDelta {
    /// Applies the layer to the set of the layers below it.
    pub fn apply(&self, set: &mut RoaringBitmap) {
        *set -= &self.removes;
        *set |= &self.adds;
    }
}

/// Collects a layer's delta from what its entries do.
pub struct DeltaBuilder<'a> {
    universe: &'a Universe,
    adds: RoaringBitmap,
    removes: RoaringBitmap,
    links: BTreeMap<PathId, Vec<u8>>,
}

impl<'a> DeltaBuilder<'a> {
    /// Nothing done yet.
    pub fn new(universe: &'a Universe) -> Self {
        Self { universe, adds: RoaringBitmap::new(), removes: RoaringBitmap::new(), links: BTreeMap::new() }
    }

    /// The delta.
    pub fn finish(self) -> LayerDelta {
        let Self { mut adds, mut removes, links, .. } = self;
        adds.optimize();
        removes.optimize();
        LayerDelta { adds, removes, links: links.into_iter().collect() }
    }

    /// Takes away a path itself, of this layer and of those below.
    fn replace(&mut self, id: PathId) {
        self.adds.remove(id);
        self.links.remove(&id);
        self.removes.insert(id);
    }
}

impl Sink for DeltaBuilder<'_> {
    fn put(&mut self, path: &[u8], what: What<'_>) {
        let id = self.universe.find(path);
        match what {
            What::Directory => {
                if let Some(id) = id {
                    self.replace(id);
                }
            }
            What::File | What::Link(_) => {
                let below = self.universe.below(path);
                if !below.is_empty() {
                    self.adds.remove_range(below.clone());
                    let gone: Vec<_> = self.links.range(below.clone()).map(|(id, _)| *id).collect();
                    gone.iter().for_each(|id| drop(self.links.remove(id)));
                    self.removes.insert_range(below);
                }
                if let Some(id) = id {
                    self.replace(id);
                    self.adds.insert(id);
                    if let What::Link(target) = what {
                        self.links.insert(id, target.to_vec());
                    }
                }
            }
            What::Whiteout => {
                self.removes.extend(id);
                self.removes.insert_range(self.universe.below(path));
            }
            What::Opaque => {
                self.removes.insert_range(self.universe.below(path));
            }
        }
    }
}
