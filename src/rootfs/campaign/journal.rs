//! What was learnt of images, on disk: a line of JSON each, in a file for each rank and attempt.

use super::{Campaign, Error, at};
use crate::rootfs::source::{Image, PlatformChoice};
use rustc_hash::FxHashMap;
use std::io::Write;
use std::path::{Path, PathBuf};

/// A rank's own file of this attempt.
pub(super) struct Journal {
    path: PathBuf,
    file: Option<std::fs::File>,
}

/// The images of all journals.
pub(super) struct Known {
    /// The number of the next attempt.
    pub(super) attempt: u32,
    /// Without histories and annotations.
    pub(super) images: FxHashMap<String, Image>,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Line<T> {
    target: String,
    platform: String,
    image: T,
}

fn platform_text(choice: &PlatformChoice) -> String {
    let wanted: Vec<_> = choice.wanted.iter().map(ToString::to_string).collect();
    format!("{}{}", wanted.join(","), if choice.fallback { " or any" } else { "" })
}

impl Journal {
    pub(super) fn create(directory: &Path, rank: usize, attempt: u32) -> Self {
        let name = format!("attempt-{attempt:04}.rank-{rank:04}.jsonl");
        Self { path: directory.join(name), file: None }
    }

    pub(super) fn append(
        &mut self,
        target: &str,
        platform: &PlatformChoice,
        image: &Image,
    ) -> Result<(), Error> {
        let line = Line { target: target.to_owned(), platform: platform_text(platform), image };
        let mut bytes = serde_json::to_vec(&line).map_err(|e| at(&self.path)(e.into()))?;
        bytes.push(b'\n');
        if self.file.is_none() {
            let file = std::fs::File::options().create_new(true).write(true).open(&self.path);
            self.file = Some(file.map_err(at(&self.path))?);
        }
        self.file.as_mut().map_or(Ok(()), |file| file.write_all(&bytes)).map_err(at(&self.path))
    }

    pub(super) fn close(self) -> Result<(), Error> {
        self.file.map_or(Ok(()), |file| file.sync_all()).map_err(at(&self.path))
    }

    pub(super) fn read(directory: &Path, platform: &PlatformChoice) -> Result<Known, Error> {
        let mut known = Known { attempt: 0, images: FxHashMap::default() };
        visit_images(directory, platform, &mut |attempt, found| {
            known.attempt = known.attempt.max(attempt + 1);
            if let Some((target, mut image)) = found {
                image.history.clear();
                image.annotations.clear();
                image.diff_ids.clear();
                known.images.insert(target, image);
            }
        })?;
        Ok(known)
    }
}

/// Hands over every image of the journals, in the order of their files, so that what was learnt last
/// comes last; `None` once for each file.
fn visit_images(
    directory: &Path,
    platform: &PlatformChoice,
    visit: &mut dyn FnMut(u32, Option<(String, Image)>),
) -> Result<(), Error> {
    let platform = platform_text(platform);
    let entries = std::fs::read_dir(directory).map_err(at(directory))?;
    let paths: std::io::Result<Vec<_>> = entries.map(|e| Ok(e?.path())).collect();
    let mut paths = paths.map_err(at(directory))?;
    paths.retain(|path| path.extension().is_some_and(|e| e == "jsonl"));
    paths.sort();
    for path in paths {
        let attempt =
            path.file_name().and_then(|n| n.to_str()?.strip_prefix("attempt-")?.get(..4)?.parse().ok());
        let attempt = attempt.unwrap_or(0);
        visit(attempt, None);
        let file = std::io::BufReader::new(std::fs::File::open(&path).map_err(at(&path))?);
        for line in std::io::BufRead::split(file, b'\n') {
            // The last line may have been cut by a kill: that image is asked for again.
            let line = line.map_err(at(&path))?;
            let Ok(line) = serde_json::from_slice::<Line<Image>>(&line) else { continue };
            if line.platform == platform {
                visit(attempt, Some((line.target, line.image)));
            }
        }
    }
    Ok(())
}

impl Campaign<'_> {
    /// All that is known of the targets' images, in the order of the targets. For rank 0, after the
    /// run.
    ///
    /// # Errors
    /// [`Error`] if a journal cannot be read.
    pub fn known_images(&self) -> Result<Vec<Option<Image>>, Error> {
        let mut all: FxHashMap<String, Image> = FxHashMap::default();
        visit_images(&self.output.join("images"), self.platform, &mut |_, found| {
            if let Some((target, image)) = found {
                all.insert(target, image);
            }
        })?;
        Ok(self.targets.iter().map(|target| all.remove(target)).collect())
    }
}
