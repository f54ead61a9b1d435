//! The paths of an image: the fold of its layers.
//!
//! The bulk is bitmap algebra: `(set - removes) | adds`, lowest layer first. Two things need more
//! than that, and both concern links: entries that a link of a lower layer leads elsewhere, and
//! links that lead to directories, which do not count as paths. For them the names of the layers
//! are looked at, and only where the bitmaps leave a doubt.

use super::delta::{DeltaBuilder, LayerDelta};
use super::names::{At, Names, Tree};
use super::place::{Sink, What};
use super::record::LayerRecord;
use super::{PathId, Universe, paths};
use roaring::RoaringBitmap;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The paths of an image over a universe.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Folded {
    /// All paths that count: neither directories nor links to directories.
    pub paths: RoaringBitmap,
    /// The links that lead to a directory of the image.
    pub directory_links: RoaringBitmap,
}

/// Folds an image's layers, lowest first. Their deltas are of `universe`
/// ([`LayerRecord::project`]). `names` gives the names of the layer at an index; it is asked only
/// where needed.
///
/// # Errors
/// If a layer's list of entries is damaged.
pub fn fold(
    universe: &Universe,
    layers: &[Arc<LayerRecord>],
    names: &mut dyn FnMut(&LayerRecord) -> std::io::Result<Arc<Names>>,
) -> std::io::Result<Folded> {
    let mut set = RoaringBitmap::new();
    let mut links: BTreeMap<PathId, Vec<u8>> = BTreeMap::new();
    let mut tree = LazyTree { layers, tree: Tree::default(), names };
    for (i, layer) in layers.iter().enumerate() {
        let mut moved = DeltaBuilder::new(universe);
        let delta =
            if tree.place(i, &mut moved)? { Cow::Owned(moved.finish()) } else { Cow::Borrowed(&layer.delta) };
        apply(&delta, &mut set, &mut links);
    }
    let mut directory_links = RoaringBitmap::new();
    for (id, target) in &links {
        let leads = match guess(universe, &set, &links, *id, target) {
            Some(leads) => leads,
            None => tree.up_to(layers.len())?.leads_to_directory(universe.get(*id), target),
        };
        if leads {
            directory_links.insert(*id);
        }
    }
    Ok(Folded { paths: set - &directory_links, directory_links })
}

/// All paths that count of an image, sorted by components, whatever universe its layers were read for.
///
/// # Errors
/// If a layer's list of entries is damaged.
pub fn all_paths(
    mut layers: Vec<Arc<LayerRecord>>,
    names: &mut dyn FnMut(&LayerRecord) -> std::io::Result<Arc<Names>>,
) -> std::io::Result<Vec<Vec<u8>>> {
    let mut paths = Paths::default();
    let mut tree = LazyTree { layers: &layers, tree: Tree::default(), names };
    for (i, layer) in layers.iter().enumerate() {
        if !tree.place(i, &mut paths)? {
            layer.replay(&mut paths)?;
        }
    }
    let universe = Universe::new(paths.0);
    let identity = universe.identity();
    for layer in &mut layers {
        Arc::make_mut(layer).project(&universe, &identity)?;
    }
    let folded = fold(&universe, &layers, names)?;
    Ok(folded.paths.iter().map(|id| universe.get(id).to_vec()).collect())
}

/// Whatever is put somewhere.
#[derive(Default)]
struct Paths(Vec<Vec<u8>>);

impl Sink for Paths {
    fn put(&mut self, path: &[u8], what: What<'_>) {
        if matches!(what, What::File | What::Link(_)) {
            self.0.push(path.to_vec());
        }
    }
}

/// Puts a layer's delta on the paths and links below it.
fn apply(delta: &LayerDelta, set: &mut RoaringBitmap, links: &mut BTreeMap<PathId, Vec<u8>>) {
    delta.apply(set);
    links.retain(|id, _| !delta.removes.contains(*id) && !delta.adds.contains(*id));
    links.extend(delta.links.iter().cloned());
}

/// Whether a link leads to a directory, as far as the set of paths tells: what has paths below it is
/// a directory, and what is a path and no link is none.
fn guess(
    universe: &Universe,
    set: &RoaringBitmap,
    links: &BTreeMap<PathId, Vec<u8>>,
    id: PathId,
    target: &[u8],
) -> Option<bool> {
    // `..` after a name may lead back from where a link went: only leading ones are plain.
    let mut plain = target;
    while let Some(rest) = plain.strip_prefix(b"../") {
        plain = rest;
    }
    if target.is_empty() || plain.split(|b| *b == b'/').any(|part| part == b"..") {
        return None;
    }
    let mut path = if target[0] == b'/' { Vec::new() } else { paths::parent(universe.get(id)).to_vec() };
    path.push(b'/');
    path.extend_from_slice(target);
    let path = paths::normal(&path);
    let found = universe.find(&path).filter(|id| set.contains(*id) && !target.ends_with(b"/"));
    if let Some(id) = found {
        return if links.contains_key(&id) { None } else { Some(false) };
    }
    let below = universe.below(&path);
    if !below.is_empty() && set.range_cardinality(below) > 0 { Some(true) } else { None }
}

/// The names of the image's layers, made when they are needed.
struct LazyTree<'a> {
    layers: &'a [Arc<LayerRecord>],
    tree: Tree,
    names: &'a mut dyn FnMut(&LayerRecord) -> std::io::Result<Arc<Names>>,
}

impl LazyTree<'_> {
    /// Looks where the entries of layer `i` come to lie. If a link of a layer below leads some of them
    /// elsewhere, `sink` is handed all of them, and the answer is true; else they lie as they are
    /// written.
    fn place(&mut self, i: usize, sink: &mut impl Sink) -> std::io::Result<bool> {
        let layer = &self.layers[i];
        if i == 0 || layer.implied.is_empty() {
            return Ok(false);
        }
        self.up_to(i)?;
        let own = (self.names)(layer)?;
        self.tree.push(Arc::new(own.cuts()));
        let led_away = layer.implied.iter().any(|path| matches!(self.tree.at(path), At::Link(_)));
        let names = if led_away { Arc::new(layer.on(&mut self.tree, sink)?) } else { own };
        self.tree.pop();
        self.tree.push(names);
        Ok(led_away)
    }

    /// The tree with the lowest `depth` layers.
    fn up_to(&mut self, depth: usize) -> std::io::Result<&mut Tree> {
        while self.tree.depth() < depth {
            let names = (self.names)(&self.layers[self.tree.depth()])?;
            self.tree.push(names);
        }
        Ok(&mut self.tree)
    }
}

#[cfg(test)]
mod tests;
