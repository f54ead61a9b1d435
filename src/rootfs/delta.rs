//! What a layer does to the paths of a [`Universe`](super::Universe).

use roaring::RoaringBitmap;

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
    pub links: Vec<(super::PathId, Vec<u8>)>,
}

impl LayerDelta {
    /// Applies the layer to the set of the layers below it.
    pub fn apply(&self, set: &mut RoaringBitmap) {
        *set -= &self.removes;
        *set |= &self.adds;
    }
}
