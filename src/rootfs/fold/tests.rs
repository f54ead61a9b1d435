//! Random stacks of layers, folded as bitmaps, against files in a tree that are made and removed one
//! by one.

use super::*;
use crate::rootfs::Digest;
use crate::rootfs::listing::{Entry, Kind, ListingWriter};
use crate::rootfs::place::{MAX_HOPS, Nothing, Placer};
use crate::rootfs::record::Counts;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// A file tree as a child would build it.
#[derive(Debug, Clone)]
enum Node {
    Directory(BTreeMap<String, Node>),
    File,
    Link(String),
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Do {
    Whiteout(String),
    Opaque(String),
    Directory(String),
    File(String),
    Link(String, String),
    HardLink(String, String),
}

impl Do {
    fn entry(&self) -> Entry<'_> {
        let (path, kind) = match self {
            Self::Whiteout(path) => (path, Kind::Whiteout),
            Self::Opaque(path) => (path, Kind::Opaque),
            Self::Directory(path) => (path, Kind::Directory),
            Self::File(path) => (path, Kind::File),
            Self::Link(path, target) => (path, Kind::Link(target.as_bytes())),
            Self::HardLink(path, to) => (path, Kind::HardLink(to.as_bytes())),
        };
        Entry { path: path.as_bytes(), kind }
    }
}

/// A tree, and what the layer at hand put into it: directories, and others.
struct Files {
    root: Node,
    mine: [BTreeSet<Vec<String>>; 2],
    odd: bool,
}

impl Files {
    fn at(&self, path: &[String]) -> Option<&Node> {
        path.iter().try_fold(&self.root, |node, name| match node {
            Node::Directory(children) => children.get(name),
            _ => None,
        })
    }

    fn children(&mut self, path: &[String]) -> Option<&mut BTreeMap<String, Node>> {
        let node = path.iter().try_fold(&mut self.root, |node, name| match node {
            Node::Directory(children) => children.get_mut(name),
            _ => None,
        });
        match node {
            Some(Node::Directory(children)) => Some(children),
            _ => None,
        }
    }

    fn remove(&mut self, path: &[String]) {
        if let Some((name, parent)) = path.split_last() {
            self.children(parent).map(|c| c.remove(name));
        }
    }

    fn new(root: Node) -> Self {
        Self { root, mine: Default::default(), odd: false }
    }

    fn put(&mut self, path: &[String], node: Node) {
        // A layer that puts both a directory and something else at a path, behind a link of its own.
        let kind = usize::from(!matches!(node, Node::Directory(_)));
        self.odd |= self.mine[1 - kind].contains(path);
        self.mine[kind].insert(path.to_vec());
        let (name, parent) = path.split_last().unwrap();
        self.children(parent).unwrap().insert(name.clone(), node);
    }

    /// Follows links; makes directories, also in place of files, if asked.
    fn directory(&mut self, path: &str, make: bool) -> Vec<String> {
        let mut todo: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
        let (mut real, mut hops) = (Vec::new(), 0);
        while let Some(name) = todo.pop() {
            match name.as_str() {
                "" | "." => continue,
                ".." => {
                    real.pop();
                    continue;
                }
                _ => real.push(name),
            }
            match self.at(&real).cloned() {
                Some(Node::Directory(_)) => (),
                Some(Node::Link(target)) if hops < MAX_HOPS => {
                    hops += 1;
                    real.pop();
                    if target.starts_with('/') {
                        real.clear();
                    }
                    todo.extend(target.split('/').rev().map(str::to_owned));
                }
                _ if make => self.put(&real.clone(), Node::Directory(BTreeMap::new())),
                _ => (),
            }
        }
        real
    }

    fn is_literal(&self, parent: &str) -> bool {
        parent.is_empty() || matches!(self.at(&parts(parent)), Some(Node::Directory(_)))
    }

    fn layer(&mut self, steps: &[Do]) {
        let mut cuts: Vec<_> =
            steps.iter().filter(|s| matches!(s, Do::Whiteout(_) | Do::Opaque(_))).collect();
        // What is named without links first: it takes links away that others lead through.
        self.mine = Default::default();
        let lower = Files::new(self.root.clone());
        cuts.sort_by_key(|s| match s {
            Do::Whiteout(path) => !lower.is_literal(&split(path).0),
            _ => true,
        });
        for cut in cuts {
            match cut {
                Do::Whiteout(path) => {
                    let (parent, name) = split(path);
                    let mut real = self.directory(&parent, false);
                    real.push(name);
                    self.remove(&real);
                }
                Do::Opaque(path) => {
                    let real = self.directory(path, false);
                    if let Some(children) = self.children(&real) {
                        children.clear();
                    }
                }
                _ => (),
            }
        }
        for step in steps {
            let (Do::Directory(path) | Do::File(path) | Do::Link(path, _) | Do::HardLink(path, _)) = step
            else {
                continue;
            };
            let (parent, name) = split(path);
            let mut real = self.directory(&parent, true);
            real.push(name);
            match step {
                Do::Directory(_) => {
                    let node = self.at(&real).filter(|node| matches!(node, Node::Directory(_)));
                    self.put(&real, node.cloned().unwrap_or(Node::Directory(BTreeMap::new())));
                }
                Do::Link(_, target) => self.put(&real, Node::Link(target.clone())),
                Do::HardLink(_, to) => {
                    let (parent, name) = split(to);
                    let mut to = self.directory(&parent, false);
                    to.push(name);
                    let link = match self.at(&to) {
                        Some(Node::Link(target)) if self.mine[1].contains(&to) => Node::Link(target.clone()),
                        _ => Node::File,
                    };
                    self.put(&real, link);
                }
                _ => self.put(&real, Node::File),
            }
        }
    }

    /// All paths that are neither directories nor links to directories, and those links.
    fn paths(&self) -> (BTreeSet<String>, BTreeSet<String>) {
        fn walk(node: &Node, path: &str, all: &mut Vec<(String, Option<String>)>) {
            match node {
                Node::File => all.push((path.to_owned(), None)),
                Node::Link(target) => all.push((path.to_owned(), Some(target.clone()))),
                Node::Directory(children) => {
                    for (name, child) in children {
                        let slash = if path.is_empty() { "" } else { "/" };
                        walk(child, &format!("{path}{slash}{name}"), all);
                    }
                }
            }
        }
        let mut all = Vec::new();
        walk(&self.root, "", &mut all);
        let (mut paths, mut links) = (BTreeSet::new(), BTreeSet::new());
        for (path, target) in all {
            if target.is_some() && self.is_directory(&path, 0) { &mut links } else { &mut paths }
                .insert(path);
        }
        (paths, links)
    }

    fn is_directory(&self, path: &str, hops: usize) -> bool {
        let mut todo: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
        let (mut real, mut hops) = (Vec::new(), hops);
        while let Some(name) = todo.pop() {
            match name.as_str() {
                "" | "." => continue,
                ".." => {
                    real.pop();
                    continue;
                }
                _ => real.push(name),
            }
            match self.at(&real) {
                Some(Node::Directory(_)) => (),
                Some(Node::Link(target)) if hops < MAX_HOPS && !target.is_empty() => {
                    hops += 1;
                    real.pop();
                    if target.starts_with('/') {
                        real.clear();
                    }
                    todo.extend(target.split('/').rev().map(str::to_owned));
                }
                _ => return false,
            }
        }
        true
    }
}

fn parts(path: &str) -> Vec<String> {
    path.split('/').filter(|p| !p.is_empty()).map(str::to_owned).collect()
}

fn split(path: &str) -> (String, String) {
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    (parent.to_owned(), name.to_owned())
}

/// The record of a layer as the reader makes it.
fn record(steps: &[Do], universe: &Universe) -> LayerRecord {
    let mut listing = ListingWriter::new().unwrap();
    let mut delta = crate::rootfs::delta::DeltaBuilder::new(universe);
    let mut placer = Placer::new(&Nothing);
    for step in steps {
        listing.push(&step.entry()).unwrap();
        placer.place(&step.entry(), &mut delta);
    }
    LayerRecord {
        digest: Digest([0; 32]),
        diff_id: Digest([0; 32]),
        toc_only: false,
        stored_bytes: 0,
        archive_bytes: 0,
        counts: Counts::default(),
        universe: universe.identity(),
        delta: delta.finish(),
        implied: placer.into_implied(),
        listing: listing.finish().unwrap(),
    }
}

fn some_path() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["a", "b", "c", "a!"]);
    prop::collection::vec(name, 1..4).prop_map(|names| names.join("/"))
}

fn some_target() -> impl Strategy<Value = String> {
    (
        prop::sample::select(vec!["", "/", "../", "../../", "./"]),
        some_path(),
        prop::sample::select(vec!["", "/", "/..", "/../b"]),
    )
        .prop_map(|(start, path, end)| format!("{start}{path}{end}"))
}

fn some_layer() -> impl Strategy<Value = Vec<Do>> {
    let step = prop_oneof![
        2 => some_path().prop_map(Do::Whiteout),
        1 => prop_oneof![some_path(), Just(String::new())].prop_map(Do::Opaque),
        3 => some_path().prop_map(Do::Directory),
        5 => some_path().prop_map(Do::File),
        3 => (some_path(), some_target()).prop_map(|(path, target)| Do::Link(path, target)),
        1 => (some_path(), some_path()).prop_map(|(path, to)| Do::HardLink(path, to)),
    ];
    prop::collection::vec(step, 0..10).prop_map(tidy)
}

/// Leaves out what no tool writes: whiteouts behind other entries, a path twice, and entries below a
/// file or behind a link of the same layer that takes their place.
fn tidy(steps: Vec<Do>) -> Vec<Do> {
    let cut = |s: &Do| matches!(s, Do::Whiteout(_) | Do::Opaque(_));
    let (mut cuts, rest): (Vec<_>, Vec<_>) = steps.into_iter().partition(cut);
    cuts.sort();
    let mut seen = BTreeSet::new();
    let mut solid: Vec<String> = Vec::new();
    for step in rest {
        let (Do::Directory(path) | Do::File(path) | Do::Link(path, _) | Do::HardLink(path, _)) = &step else {
            continue;
        };
        let inside = |path: &str, top: &str| path.starts_with(&format!("{top}/"));
        if solid.iter().any(|top| inside(path, top)) || !seen.insert(path.clone()) {
            continue;
        }
        match &step {
            Do::File(path) | Do::HardLink(path, _) if seen.iter().all(|other| !inside(other, path)) => {
                solid.push(path.clone());
            }
            Do::File(_) | Do::HardLink(..) => continue,
            Do::Link(path, _) if seen.iter().any(|other| inside(other, path)) => continue,
            _ => (),
        }
        cuts.push(step);
    }
    cuts
}

fn compare(layers: &[Vec<Do>], universe: &Universe) {
    let records: Vec<_> = layers.iter().map(|steps| Arc::new(record(steps, universe))).collect();
    let folded = fold(universe, &records, &mut |layer| layer.names().map(Arc::new)).unwrap();
    let mut files = Files::new(Node::Directory(BTreeMap::new()));
    layers.iter().for_each(|steps| files.layer(steps));
    if files.odd {
        return;
    }
    let (paths, links) = files.paths();
    let text = |set: &RoaringBitmap| -> BTreeSet<String> {
        set.iter().map(|id| String::from_utf8_lossy(universe.get(id)).into_owned()).collect()
    };
    let known = |all: BTreeSet<String>| -> BTreeSet<String> {
        all.into_iter().filter(|p| universe.find(p.as_bytes()).is_some()).collect()
    };
    assert_eq!(text(&folded.paths), known(paths), "paths of {layers:?}");
    assert_eq!(text(&folded.directory_links), known(links), "links to directories of {layers:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn bitmaps_are_files(
        layers in prop::collection::vec(some_layer(), 1..5),
        known in prop::collection::vec(some_path(), 0..40),
    ) {
        let known = known.into_iter().map(String::into_bytes).collect();
        compare(&layers, &Universe::new(known));
    }
}

#[test]
fn entries_below_a_link_of_a_lower_layer_land_behind_it() {
    let s = str::to_owned;
    let universe = Universe::new(["lib/a", "usr/lib/a", "usr/lib/b", "lib/b"].map(Vec::from).to_vec());
    let base = vec![Do::Directory(s("usr/lib")), Do::Link(s("lib"), s("usr/lib")), Do::File(s("usr/lib/b"))];
    // Without an entry for lib, the file lands behind the link.
    compare(&[base.clone(), vec![Do::File(s("lib/a"))]], &universe);
    // With one, the directory takes the link's place.
    compare(&[base.clone(), vec![Do::Directory(s("lib")), Do::File(s("lib/a"))]], &universe);
    // A whiteout takes the link away first; another lands behind it.
    compare(&[base.clone(), vec![Do::Whiteout(s("lib")), Do::File(s("lib/a"))]], &universe);
    compare(&[base, vec![Do::Whiteout(s("lib/b"))]], &universe);
}
