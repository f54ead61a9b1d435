//! Synthetic corpora: any size, with the marginals of the study's published corpus.
//!
//! A [`Population`] is drawn from a [`Recipe`] and its seed. It is written as a tree of corpus
//! files ([`Population::write`]) or turned into a [`Corpus`] ([`Population::corpus`]); the second
//! reads the same JSON text from memory, so that both ways give the same corpus, bit for bit, on
//! any number of threads.
//!
//! Exact are the numbers of the recipe, how often digests are repeated, and the number of tags per
//! repository (at most 500). Sizes, layers per image and years follow the published percentiles.
//! Which images share which layers is modelled on what tags are: see the `place` module.

mod draw;
mod json;
mod label;
mod layer;
mod odd;
mod place;
mod shape;
#[cfg(test)]
mod tests;

pub use label::{LABEL_FILE, Label};

use super::builder::Builder;
use super::import::{Progress, on_threads, threads};
use super::merge::{directory_sha256, merge};
use super::{CORPUS_FILE, Corpus, Error, Example, Oddities, Oddity};
use crate::h5;
use crate::strings::StringTable;
use draw::{Draw, Stream};
use layer::{Layer, TOOLS};
use odd::OddFile;
use place::{Placement, place};
use rayon::prelude::*;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// How large a synthetic corpus is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recipe {
    /// Images, that is, tags.
    pub images: u64,
    /// Repositories; each holds 1 to 500 images.
    pub repositories: u64,
    /// Distinct layer digests.
    pub digests: u64,
    /// Layers of all images (rows of the manifest table).
    pub rows: u64,
    /// Seed of all draws.
    pub seed: u64,
    /// Add repositories with at least one of every oddity that a directory can hold and that
    /// loses nothing. They come on top of the numbers above.
    pub oddities: bool,
    /// Add repositories of which something is lost on import, likewise.
    pub losses: bool,
}

impl Default for Recipe {
    fn default() -> Self {
        shape::PUBLISHED
    }
}

impl Recipe {
    /// The published corpus scaled to so many images.
    pub fn of_images(images: u64) -> Self {
        let whole = Self::default();
        let scaled = |n: u64| {
            let product = u128::from(n) * u128::from(images) + u128::from(whole.images / 2);
            u64::try_from(product / u128::from(whole.images)).unwrap_or(u64::MAX)
        };
        let fewest = images.div_ceil(shape::TAGS_PER_REPOSITORY);
        Self {
            images,
            repositories: scaled(whole.repositories).max(fewest).max(1),
            digests: scaled(whole.digests).max(1),
            rows: scaled(whole.rows).max(images),
            ..whole
        }
    }

    /// Says if there is no such corpus.
    ///
    /// # Errors
    /// [`Error::Recipe`] with the numbers that contradict each other.
    pub fn check(&self) -> Result<(), Error> {
        let Self { images, repositories, digests, rows, .. } = *self;
        let refuse = |reason: String| Err(Error::Recipe(reason));
        for (name, n) in
            [("images", images), ("repositories", repositories), ("digests", digests), ("rows", rows)]
        {
            if n == 0 {
                return refuse(format!("a corpus of 0 {name} is none; give at least 1"));
            }
            if n > u64::from(u32::MAX / 2) {
                return refuse(format!(
                    "{n} {name} are more than a corpus file can hold; give at most 2^31 - 1"
                ));
            }
        }
        if repositories > images {
            return refuse(format!(
                "{repositories} repositories need as many images; there are only {images}"
            ));
        }
        if images > repositories.saturating_mul(shape::TAGS_PER_REPOSITORY) {
            let most = shape::TAGS_PER_REPOSITORY;
            return refuse(format!(
                "{images} images do not fit into {repositories} repositories of at most {most}"
            ));
        }
        if rows < images {
            return refuse(format!(
                "{images} images need at least one layer each; there are only {rows} rows"
            ));
        }
        if digests > rows {
            return refuse(format!("{digests} distinct digests need as many rows; there are only {rows}"));
        }
        Ok(())
    }
}

/// A synthetic corpus before it is written.
pub struct Population {
    recipe: Recipe,
    /// Names of the repositories, in corpus order.
    names: Vec<String>,
    /// The images of each repository.
    ranges: Vec<Range<usize>>,
    /// True where all dates are that of 1970-01-01.
    dated_1970: Vec<bool>,
    /// One per image.
    tags: StringTable,
    /// When each image was made, in seconds since 1970.
    times: Vec<i64>,
    placement: Placement,
    /// All layers, by number.
    layers: Vec<Layer>,
    /// The time of the first image with each layer.
    first_seen: Vec<i64>,
    /// True where a layer is the first of every image that has it.
    is_base: Vec<bool>,
    odd: Vec<OddFile>,
}

/// What stands behind a file of the corpus.
#[derive(Clone, Copy)]
enum Content<'p> {
    Repository(usize),
    Odd(&'p [u8]),
}

impl Population {
    /// Draws a corpus.
    ///
    /// # Errors
    /// [`Error::Recipe`] if there is none of these numbers.
    pub fn new(recipe: &Recipe) -> Result<Self, Error> {
        recipe.check()?;
        let mut draw = Draw::new(recipe.seed, Stream::Shape, 0);
        let ranges = ranges(&shape::tags_per_repository(recipe, &mut draw));
        let heights = heights(&ranges, &shape::layers_per_image(recipe, &mut draw), &mut draw);
        let repetition = shape::repetition(recipe, &mut draw);
        let mut placement = place(recipe.seed, &ranges, &heights, &repetition);
        let times = times(&ranges, &placement, &mut draw);
        let first_seen = first_seen(&placement, &times, recipe.digests as usize);
        put_in_order(&mut placement, &first_seen, repetition.empty);
        let is_base = bases(&placement, &repetition);
        let seed = recipe.seed;
        let layers = (0..recipe.digests as usize)
            .into_par_iter()
            .map(|k| Layer::new(seed, k, repetition.empty))
            .collect();
        let dated_1970 = ranges.iter().map(|_| draw.chance(shape::DATED_1970)).collect();
        let tags = tags(&ranges, &placement, &mut draw);
        let odd = odd::files(recipe);
        let names = names(ranges.len());
        Ok(Self {
            recipe: *recipe,
            names,
            ranges,
            dated_1970,
            tags,
            times,
            placement,
            layers,
            first_seen,
            is_base,
            odd,
        })
    }

    /// The image that `image` is another tag of, or itself.
    fn original(&self, image: usize) -> usize {
        image - usize::from(self.placement.same_as_before[image])
    }

    /// Paths below `registry/` and what they hold, in corpus order.
    fn files(&self) -> Vec<(String, Content<'_>)> {
        let path = |name: &str| format!("{name}/{CORPUS_FILE}");
        let mut files: Vec<_> =
            self.names.iter().enumerate().map(|(r, name)| (path(name), Content::Repository(r))).collect();
        let odd = self.odd.iter().filter(|file| !file.is_other);
        files.extend(odd.map(|file| (path(&file.path), Content::Odd(&file.content))));
        files.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        files
    }

    fn write_content(&self, content: Content<'_>, out: &mut Vec<u8>) {
        match content {
            Content::Repository(r) => self.write_repository(r, out),
            Content::Odd(bytes) => out.extend_from_slice(bytes),
        }
    }

    /// Calls `with` for every file with its number, path and content, on all threads, and returns
    /// what `end` makes of each thread's state.
    fn each_file<S, T: Send>(
        &self,
        progress: Progress,
        begin: impl Fn() -> S + Sync,
        with: impl Fn(&mut S, usize, &str, &[u8]) + Sync,
        end: impl Fn(S) -> T + Sync,
    ) -> Vec<T> {
        let files = self.files();
        let (next, done) = (AtomicUsize::new(0), AtomicU64::new(0));
        on_threads(threads().min(files.len()), || {
            let mut state = begin();
            let mut content = Vec::new();
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                let Some((path, source)) = files.get(i) else { break };
                content.clear();
                self.write_content(*source, &mut content);
                with(&mut state, i, path, &content);
                progress(done.fetch_add(1, Ordering::Relaxed) + 1, files.len() as u64);
            }
            end(state)
        })
    }

    /// The corpus that an import of the written files gives; only the name of the source differs.
    /// Progress is in files.
    pub fn corpus(&self, progress: Progress) -> Corpus {
        let shards = self.each_file(
            progress,
            Builder::new,
            |builder, i, path, content| {
                builder.add(path.as_bytes(), i as u64, content, blake3::hash(content).into());
            },
            Builder::finish,
        );
        let mut source = Oddities::default();
        for file in self.odd.iter().filter(|file| file.is_other) {
            source.note(Oddity::OtherFile, || Example {
                kind: Oddity::OtherFile,
                file: file.path.clone(),
                tag: String::new(),
                field: "the file's name".into(),
            });
        }
        let mut corpus = merge(&shards, source);
        corpus.provenance.source = "stratigraph synth".into();
        corpus.provenance.source_sha256 = directory_sha256(&shards);
        corpus.provenance.synthetic_seed = Some(self.recipe.seed);
        corpus
    }

    /// Writes the corpus files and the label into a new directory, which appears under its name
    /// only when it is complete. Progress is in files.
    ///
    /// # Errors
    /// [`Error::Source`] if `directory` exists and is not empty, [`Error::File`] if it cannot be
    /// written.
    pub fn write(&self, directory: &Path, progress: Progress) -> Result<(), Error> {
        Self::check_target(directory)?;
        let name = directory.file_name().unwrap_or_default().to_string_lossy();
        let temporary = directory.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
        let written = self
            .write_files(&temporary, progress)
            .and_then(|()| std::fs::rename(&temporary, directory).map_err(|e| unwritable(directory, &e)));
        if written.is_err() {
            // What is left of it is of no use, and the first error is the one to tell.
            let _ = std::fs::remove_dir_all(&temporary);
        }
        written
    }

    /// Says if a directory cannot be written because there is something already.
    ///
    /// # Errors
    /// [`Error::Source`].
    pub fn check_target(directory: &Path) -> Result<(), Error> {
        let refuse = |reason: &str| Err(Error::Source { path: directory.to_owned(), reason: reason.into() });
        match std::fs::read_dir(directory) {
            Ok(mut entries) => match entries.next() {
                Some(_) => refuse("exists and is not empty; give another name or remove it first"),
                None => Ok(()),
            },
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::NotADirectory => {
                refuse("is a file; give a directory, or a name that ends in .h5")
            }
            Err(e) => refuse(&format!("cannot be read ({e})")),
        }
    }

    fn write_files(&self, directory: &Path, progress: Progress) -> Result<(), Error> {
        let put = |path: &Path, content: &[u8]| {
            let parent = path.parent().unwrap_or(directory);
            let written = std::fs::create_dir_all(parent).and_then(|()| std::fs::write(path, content));
            written.map_err(|e| unwritable(path, &e))
        };
        let registry = directory.join("registry");
        let results = self.each_file(
            progress,
            || Ok(()),
            |state: &mut Result<(), Error>, _, path, content| {
                if state.is_ok() {
                    *state = put(&registry.join(path), content);
                }
            },
            |state| state,
        );
        results.into_iter().collect::<Result<(), Error>>()?;
        for file in self.odd.iter().filter(|file| file.is_other) {
            put(&registry.join(&file.path), &file.content)?;
        }
        let label = Label::of(&self.recipe);
        let mut text = serde_json::to_vec_pretty(&label).expect("a label is plain data");
        text.push(b'\n');
        put(&directory.join(LABEL_FILE), &text)
    }
}

fn unwritable(path: &Path, e: &std::io::Error) -> Error {
    Error::File(h5::Error::Write { path: path.to_owned(), reason: e.to_string() })
}

/// Names of repositories that plainly do not exist, in the order of their paths.
fn names(n: usize) -> Vec<String> {
    // 7 has no divisor in common with the number of tools, so that a laboratory has each once.
    let tool = |k: usize| TOOLS[(k * 7 + k / 6 * 5) % TOOLS.len()];
    let mut names: Vec<String> =
        (0..n).map(|k| format!("synthetic-lab-{:03}/{}", k / 6 + 1, tool(k))).collect();
    names.sort_unstable_by_key(|name| format!("{name}/{CORPUS_FILE}"));
    names
}

fn ranges(lengths: &[u64]) -> Vec<Range<usize>> {
    let ends = lengths.iter().scan(0, |end, n| {
        *end += *n as usize;
        Some(*end)
    });
    ends.zip(lengths).map(|(end, n)| end - *n as usize..end).collect()
}

/// Gives each image its number of layers: similar ones within a repository, growing with time.
fn heights(ranges: &[Range<usize>], ascending: &[u64], draw: &mut Draw) -> Vec<u64> {
    let mut keys = Vec::with_capacity(ascending.len());
    for range in ranges {
        let level = draw.unit();
        keys.extend(range.clone().map(|i| (level + 0.3 * draw.unit(), i)));
    }
    keys.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let mut heights = vec![0; ascending.len()];
    for ((_, image), height) in keys.iter().zip(ascending) {
        heights[*image] = *height;
    }
    for range in ranges {
        heights[range.clone()].sort_by_cached_key(|h| h * 16 + draw.below(h * 4 + 1));
    }
    heights
}

/// When each image was made: over some span of the years for each repository, one after another.
fn times(ranges: &[Range<usize>], placement: &Placement, draw: &mut Draw) -> Vec<i64> {
    let mut times = Vec::with_capacity(placement.same_as_before.len());
    for range in ranges {
        let (middle, width) = (draw.unit(), 0.02 + 0.3 * draw.unit());
        let mut places: Vec<f64> = range
            .clone()
            .map(|_| {
                // What falls off at an end of time is reflected, which leaves the whole even.
                let place = (middle + width * (2.0 * draw.unit() - 1.0)).abs();
                if place > 1.0 { 2.0 - place } else { place }
            })
            .collect();
        places.sort_unstable_by(f64::total_cmp);
        for (place, i) in places.into_iter().zip(range.clone()) {
            let same = placement.same_as_before[i];
            times.push(if same { times[i - 1] } else { shape::time_at(place) });
        }
    }
    times
}

fn first_seen(placement: &Placement, times: &[i64], layers: usize) -> Vec<i64> {
    let mut first = vec![i64::MAX; layers];
    for (i, time) in times.iter().enumerate() {
        for layer in placement.layers_of(i) {
            let first = &mut first[*layer as usize];
            *first = (*first).min(*time);
        }
    }
    first
}

/// Stacks the layers of each image, older and more common ones below; so images that share layers
/// mostly share the first ones. Empty layers come in between.
fn put_in_order(placement: &mut Placement, first_seen: &[i64], empty: usize) {
    let mut stacked = Vec::new();
    for image in 0..placement.same_as_before.len() {
        let slots = &mut placement.slots[placement.offsets[image]..placement.offsets[image + 1]];
        slots.sort_unstable_by_key(|layer| {
            let is_empty = (*layer as usize) < empty;
            (!is_empty, if is_empty { 0 } else { first_seen[*layer as usize] }, *layer)
        });
        let (hollow, solid) = slots.split_at(slots.partition_point(|layer| (*layer as usize) < empty));
        stacked.clear();
        let mut done = 0;
        for (k, layer) in solid.iter().enumerate() {
            stacked.push(*layer);
            // The j-th of n empty layers stands after that part of the others.
            let due = (k + 1) * hollow.len() / solid.len();
            stacked.extend_from_slice(&hollow[done..due]);
            done = due;
        }
        stacked.extend_from_slice(&hollow[done..]);
        slots.copy_from_slice(&stacked);
    }
}

fn bases(placement: &Placement, repetition: &shape::Repetition) -> Vec<bool> {
    let mut first = vec![0; repetition.rows.len()];
    for image in 0..placement.same_as_before.len() {
        first[placement.layers_of(image)[0] as usize] += 1;
    }
    first
        .iter()
        .zip(&repetition.rows)
        .enumerate()
        .map(|(k, (n, rows))| k >= repetition.empty && n == rows)
        .collect()
}

/// The tags: versions, dates or commits, as the repository has it; often `latest` for the last.
fn tags(ranges: &[Range<usize>], placement: &Placement, draw: &mut Draw) -> StringTable {
    let mut tags = StringTable::default();
    for range in ranges {
        let (manner, major) = (draw.below(4), draw.below(4));
        let has_latest = draw.chance(0.63);
        for (k, i) in range.clone().enumerate() {
            let version = (k as u64 / 40 + major, k / 8 % 5, k % 8);
            let tag = match (manner, version) {
                _ if has_latest && i + 1 == range.end => "latest".to_owned(),
                (0, (major, minor, patch)) => format!("{major}.{minor}.{patch}"),
                (1, (major, minor, patch)) => format!("v{major}.{minor}.{patch}"),
                (2, _) => format!("build-{:04}", k + 1),
                _ => format!("{:03}-{:08x}", k + 1, draw.bits() as u32),
            };
            tags.push(&tag);
        }
    }
    assert_eq!(tags.len(), placement.same_as_before.len());
    tags
}
