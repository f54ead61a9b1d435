//! All paths of every image, in a file for each, on request.
//!
//! A campaign knows the paths of its universe only. For the others the names of an image's layers are
//! made a universe of their own, over which the same fold gives all of them.

use super::cache::Cache;
use super::deal::{Workers, deal};
use super::paths::chain_of;
use super::{Campaign, Error, Round, at};
use crate::rootfs::Digest;
use crate::rootfs::fold::all_paths;
use crate::rootfs::source::Image;
use crate::rootfs::store::Store;
use crate::world::World;
use std::collections::HashSet;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

impl Campaign<'_> {
    /// Writes `NNNNNN-NAME.paths` for every image whose layers are there: one path a line, sorted by
    /// components, `\\` and `\n` for a backslash and a line feed in a name.
    pub(super) fn write_lists(
        &self,
        world: &World,
        images: &[Option<Image>],
        store: &Store,
        directory: &Path,
    ) -> Result<(), Error> {
        std::fs::create_dir_all(directory).map_err(at(directory))?;
        let chains = images.iter().enumerate().filter_map(|(i, image)| Some((i, chain_of(image.as_ref()?))));
        let known = |digest: &Digest| store.has(digest, self.wanted());
        let todo: Vec<_> = chains.filter(|(_, chain)| chain.iter().all(known)).collect();
        if world.is_root() {
            let expected = todo.iter().map(|(i, _)| file_name(*i, &self.targets[*i])).collect();
            remove_other_lists(directory, &expected).map_err(at(directory))?;
        }
        let list = |number: usize| -> Result<(), Error> {
            let (i, chain) = &todo[number];
            let mut cache = Cache::default();
            let mut layers = Vec::with_capacity(chain.len());
            for digest in chain {
                layers.extend(store.read(digest)?.map(Arc::new));
            }
            let path = directory.join(file_name(*i, &self.targets[*i]));
            let paths = all_paths(layers, &mut |layer| cache.names(layer)).map_err(at(self.layers))?;
            write(&path, paths).map_err(at(&path))
        };
        let done = AtomicU64::new(0);
        let workers = Workers { ranks: world.size(), threads: 1 };
        deal(world, self.stop, todo.len(), workers, &list, &mut |_, written| {
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            (self.progress)(Round::Lists, done, todo.len() as u64);
            written
        })
    }
}

/// Removes the lists of earlier runs that would pass for this one's: of other images, or of one that
/// has failed since.
fn remove_other_lists(directory: &Path, expected: &HashSet<String>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let numbered = name
            .split_once('-')
            .is_some_and(|(number, _)| number.len() == 6 && number.bytes().all(|b| b.is_ascii_digit()));
        if numbered && name.ends_with(".paths") && !expected.contains(&name) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// The image's number and its name, with `_` for what file names had better not hold.
fn file_name(number: usize, target: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    let name: String = target.chars().map(plain).collect();
    // Longer names are cut: 255 bytes is what file systems take.
    format!("{number:06}-{}.paths", &name[name.len().saturating_sub(200)..])
}

fn write(path: &Path, paths: Vec<Vec<u8>>) -> std::io::Result<()> {
    let temporary = path.with_extension("partial");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&temporary)?);
    for path in paths {
        for byte in path {
            match byte {
                b'\\' => file.write_all(b"\\\\")?,
                b'\n' => file.write_all(b"\\n")?,
                byte => file.write_all(&[byte])?,
            }
        }
        file.write_all(b"\n")?;
    }
    file.into_inner()?.sync_all()?;
    std::fs::rename(temporary, path)
}
