//! How often digests repeat, which ones the most, and what made them.

use crate::corpus::{Corpus, Table};
use crate::strings::NONE;
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

/// Sizes of a manifest table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TableSize {
    /// Rows: pairs of an image and one of its layers.
    pub rows: u64,
    /// Repositories with rows.
    pub repositories: u64,
    /// Images.
    pub images: u64,
    /// Distinct layer digests.
    pub distinct_digests: u64,
    /// Bytes of all rows.
    pub total_bytes: u128,
    /// Bytes of the distinct digests, each with one size ([`SizeOf`]).
    pub distinct_bytes: u128,
    /// Rows per repository. The study calls this "tags per manifest".
    pub rows_per_repository: PerRepository,
    /// Tags per repository, counted as such.
    pub tags_per_repository: PerRepository,
    /// Digests by their number of rows.
    pub repetition: Repetition,
    /// Digests by the number of images that have them: repeats inside an image do not count.
    pub repetition_in_images: Repetition,
}

/// A count per repository.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PerRepository {
    /// Largest.
    pub max: u64,
    /// The repository with the largest, first by name.
    pub argmax: String,
    /// Mean over repositories.
    pub mean: Option<f64>,
    /// Sample standard deviation.
    pub std_ddof1: Option<f64>,
    /// Smallest.
    pub min: u64,
}

/// Number of digests that occur once, and more often than each bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // the names say it
pub struct Repetition {
    pub once: u64,
    pub more_than_1: u64,
    pub more_than_2: u64,
    pub more_than_50: u64,
    pub more_than_100: u64,
    pub more_than_500: u64,
    pub more_than_1000: u64,
    pub more_than_3000: u64,
}

impl Repetition {
    fn of(counts: &[u64]) -> Self {
        let over = |bound: u64| counts.iter().filter(|n| **n > bound).count() as u64;
        Self {
            once: counts.iter().filter(|n| **n == 1).count() as u64,
            more_than_1: over(1),
            more_than_2: over(2),
            more_than_50: over(50),
            more_than_100: over(100),
            more_than_500: over(500),
            more_than_1000: over(1000),
            more_than_3000: over(3000),
        }
    }
}

/// One of the digests with the most rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TopDigest {
    /// The digest.
    pub digest: String,
    /// Rows of the table that have it.
    pub rows: u64,
    /// Its size in bytes.
    pub size: u64,
    /// Repositories that have it.
    pub repositories: u64,
    /// Images that have it.
    pub images: u64,
    /// True for a layer without content.
    pub empty: bool,
    /// The history commands that made it, by rows, the most frequent first: the steps that are not
    /// marked `empty_layer`, counted along with the layers. At most three are listed.
    pub made_by: Vec<MadeBy>,
    /// Distinct commands that made it.
    pub commands: u64,
    /// Rows whose history does not align with the layers, or names no command.
    pub rows_without_command: u64,
    /// What the study's look-up gives for its first image: the history entry with the number of
    /// the layer, though steps that made no layer stand between them.
    pub as_published: Option<String>,
}

/// A command and how many rows it made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MadeBy {
    /// `created_by` as given.
    pub command: String,
    /// Rows.
    pub rows: u64,
}

/// Where bytes are saved when equal layers are kept once. Each level's bytes are those of the one
/// before without what repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sharing {
    /// Layers of all images, repeats inside an image included.
    pub rows: u64,
    /// Their bytes.
    pub row_bytes: u128,
    /// Layers if each image keeps each digest once.
    pub image_layers: u64,
    /// Their bytes: what images cost that share nothing.
    pub image_bytes: u128,
    /// Layers if each repository keeps each digest once.
    pub repository_layers: u64,
    /// Their bytes: what a store per repository costs.
    pub repository_bytes: u128,
    /// Distinct digests.
    pub distinct_layers: u64,
    /// Their bytes: what one store for everything costs.
    pub distinct_bytes: u128,
    /// Bytes saved inside images: `row_bytes - image_bytes`.
    pub saved_within_images: u128,
    /// Bytes saved by sharing within repositories: `image_bytes - repository_bytes`.
    pub saved_within_repositories: u128,
    /// Bytes saved by sharing across repositories: `repository_bytes - distinct_bytes`.
    pub saved_across_repositories: u128,
    /// Digests that rows give with several sizes; the largest counts.
    pub digests_with_several_sizes: u64,
}

/// The size of a digest that rows give with several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SizeOf {
    /// That of its first row, as published: the study drops the later ones as duplicates.
    FirstRow,
    /// The largest: none is known to be right, and savings by sharing are never negative.
    Largest,
}

/// One size for each digest.
#[derive(Debug, Clone)]
pub struct Sizes {
    of: Vec<u64>,
    /// Digests that rows give with several.
    several: u64,
}

impl Sizes {
    /// Of all digests of a table; 0 for those without rows.
    pub fn new(table: &Table<'_>, which: SizeOf) -> Self {
        let mut size: Vec<Option<u64>> = vec![None; table.digests.len()];
        let mut several = vec![false; table.digests.len()];
        for (digest, bytes) in table.digest.iter().zip(&table.size) {
            let d = *digest as usize;
            let known = *size[d].get_or_insert(*bytes);
            several[d] |= known != *bytes;
            if which == SizeOf::Largest {
                size[d] = Some(known.max(*bytes));
            }
        }
        let of = size.into_iter().map(|size| size.unwrap_or(0)).collect();
        Self { of, several: several.iter().filter(|several| **several).count() as u64 }
    }

    /// Of one.
    pub fn of(&self, digest: u32) -> u64 {
        self.of[digest as usize]
    }
}

/// Distinct (image, digest) pairs as sorted keys, image in the upper half.
fn image_digests(table: &Table<'_>) -> Vec<u64> {
    let mut keys = Vec::with_capacity(table.digest.len());
    for i in 0..table.images.len() {
        let start = keys.len();
        keys.extend(table.digest[table.rows_of(i)].iter().map(|d| (i as u64) << 32 | u64::from(*d)));
        keys[start..].sort_unstable();
    }
    keys.dedup();
    keys
}

/// Distinct (repository, digest) pairs as sorted keys.
fn repository_digests(table: &Table<'_>, image_digests: &[u64]) -> Vec<u64> {
    use rayon::prelude::*;
    let repository = |key: &u64| u64::from(table.images[(key >> 32) as usize].repository) << 32;
    let mut keys: Vec<u64> = image_digests.iter().map(|key| repository(key) | (key & 0xffff_ffff)).collect();
    keys.par_sort_unstable();
    keys.dedup();
    keys
}

/// Sizes, repetition and per-repository counts of a table.
pub fn table_size(table: &Table<'_>, sizes: &Sizes) -> TableSize {
    let mut rows_of_digest = vec![0u64; table.digests.len()];
    table.digest.iter().for_each(|digest| rows_of_digest[*digest as usize] += 1);
    let mut images_of_digest = vec![0u64; table.digests.len()];
    for key in image_digests(table) {
        images_of_digest[key as u32 as usize] += 1;
    }
    let mut rows_of_repository = vec![0u64; table.repositories.len()];
    let mut tags_of_repository = vec![0u64; table.repositories.len()];
    for (i, image) in table.images.iter().enumerate() {
        rows_of_repository[image.repository as usize] += table.rows_of(i).len() as u64;
        tags_of_repository[image.repository as usize] += 1;
    }
    let sum = |sizes: &[u64]| sizes.iter().map(|s| u128::from(*s)).sum();
    TableSize {
        rows: table.digest.len() as u64,
        repositories: tags_of_repository.iter().filter(|n| **n > 0).count() as u64,
        images: table.images.len() as u64,
        distinct_digests: rows_of_digest.iter().filter(|n| **n > 0).count() as u64,
        total_bytes: sum(&table.size),
        distinct_bytes: sum(&sizes.of),
        rows_per_repository: per_repository(table, &rows_of_repository),
        tags_per_repository: per_repository(table, &tags_of_repository),
        repetition: Repetition::of(&rows_of_digest),
        repetition_in_images: Repetition::of(&images_of_digest),
    }
}

fn per_repository(table: &Table<'_>, counts: &[u64]) -> PerRepository {
    let counted: Vec<_> = counts
        .iter()
        .zip(0..)
        .filter(|(n, _)| **n > 0)
        .map(|(n, r)| (*n, table.repositories.get(r)))
        .collect();
    let most = counted.iter().max_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(a.1)));
    let summary = super::Summary::of(counted.iter().map(|c| c.0).collect());
    PerRepository {
        max: summary.max.unwrap_or(0),
        argmax: most.map_or_else(String::new, |m| m.1.to_owned()),
        mean: summary.mean,
        std_ddof1: summary.std_ddof1,
        min: summary.min.unwrap_or(0),
    }
}

/// Where bytes are saved, over all layers or those with content. With the largest sizes no saving is negative.
pub fn sharing(table: &Table<'_>, sizes: &Sizes, with_empty: bool) -> Sharing {
    let mut seen = vec![false; table.digests.len()];
    table.digest.iter().for_each(|digest| seen[*digest as usize] = true);
    let counts = |d: usize| with_empty || table.digest_empty[d] == 0;
    let sum = |digests: &mut dyn Iterator<Item = usize>| {
        digests
            .filter(|d| counts(*d))
            .fold((0u64, 0u128), |(n, bytes), d| (n + 1, bytes + u128::from(sizes.of[d])))
    };
    let images = image_digests(table);
    let repositories = repository_digests(table, &images);
    let low = |key: &u64| *key as u32 as usize;
    let (rows, row_bytes) = sum(&mut table.digest.iter().map(|d| *d as usize));
    let (image_layers, image_bytes) = sum(&mut images.iter().map(low));
    let (repository_layers, repository_bytes) = sum(&mut repositories.iter().map(low));
    let (distinct_layers, distinct_bytes) = sum(&mut (0..seen.len()).filter(|d| seen[*d]));
    Sharing {
        rows,
        row_bytes,
        image_layers,
        image_bytes,
        repository_layers,
        repository_bytes,
        distinct_layers,
        distinct_bytes,
        saved_within_images: row_bytes - image_bytes,
        saved_within_repositories: image_bytes - repository_bytes,
        saved_across_repositories: repository_bytes - distinct_bytes,
        digests_with_several_sizes: sizes.several,
    }
}

/// The `most` digests with the most rows, ties by digest, with or without those of empty layers;
/// with their commands if a corpus is given.
pub fn top_digests(
    table: &Table<'_>,
    sizes: &Sizes,
    corpus: Option<&Corpus>,
    most: usize,
    with_empty: bool,
) -> Vec<TopDigest> {
    let mut rows = vec![0u64; table.digests.len()];
    table.digest.iter().for_each(|d| rows[*d as usize] += 1);
    let counts = |d: usize| rows[d] > 0 && (with_empty || table.digest_empty[d] == 0);
    let mut order: Vec<u32> = (0..table.digests.len() as u32).filter(|d| counts(*d as usize)).collect();
    order.sort_by(|a, b| {
        rows[*b as usize]
            .cmp(&rows[*a as usize])
            .then_with(|| table.digests.get(*a).cmp(table.digests.get(*b)))
    });
    order.truncate(most);
    let place: FxHashMap<u32, usize> = order.iter().enumerate().map(|(place, d)| (*d, place)).collect();
    let mut places = vec![Vec::new(); order.len()];
    for i in 0..table.images.len() {
        for (k, row) in table.rows_of(i).enumerate() {
            if let Some(&place) = place.get(&table.digest[row]) {
                places[place].push((i, k));
            }
        }
    }
    let each = order.iter().zip(places);
    each.map(|(digest, places)| top_digest(table, corpus, *digest, sizes.of(*digest), &places)).collect()
}

/// `places`: image and number of the layer in it, in table order.
fn top_digest(
    table: &Table<'_>,
    corpus: Option<&Corpus>,
    digest: u32,
    size: u64,
    places: &[(usize, usize)],
) -> TopDigest {
    let mut images: Vec<_> = places.iter().map(|p| p.0).collect();
    images.dedup();
    let mut repositories: Vec<_> = images.iter().map(|i| table.images[*i].repository).collect();
    repositories.sort_unstable();
    repositories.dedup();
    let mut commands: FxHashMap<u32, u64> = FxHashMap::default();
    let mut without = places.len() as u64;
    if let Some(corpus) = corpus {
        for (i, k) in places {
            let step = corpus.history_of_layer(table.images[*i].origin as usize, *k);
            if let Some(command) = step.map(|h| corpus.history.created_by[h]).filter(|c| *c != NONE) {
                *commands.entry(command).or_default() += 1;
                without -= 1;
            }
        }
    }
    let mut by_rows: Vec<_> = commands.iter().map(|(command, n)| (*n, *command)).collect();
    // Command ids are given in corpus order: ties are broken the same way each time.
    by_rows.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    let made_by = corpus.map_or_else(Vec::new, |corpus| {
        let top = by_rows.iter().take(3);
        top.map(|(rows, c)| MadeBy { command: corpus.commands.get(*c).to_owned(), rows: *rows }).collect()
    });
    TopDigest {
        digest: table.digests.get(digest).to_owned(),
        rows: places.len() as u64,
        size,
        repositories: repositories.len() as u64,
        images: images.len() as u64,
        empty: table.digest_empty[digest as usize] != 0,
        made_by,
        commands: by_rows.len() as u64,
        rows_without_command: without,
        as_published: corpus.and_then(|corpus| {
            let (i, k) = *places.first()?;
            let config = corpus.config_of(table.images[i].origin as usize)?;
            let step = corpus.history_of(config).nth(k)?;
            Some(corpus.commands.get_or(corpus.history.created_by[step], "").to_owned())
        }),
    }
}

#[cfg(test)]
mod tests {
    use crate::corpus::PublishedTable;
    use crate::stats::Stats;

    #[test]
    fn a_digest_with_several_sizes_has_one_in_each_reading() {
        let file = tempfile::Builder::new().suffix(".csv").tempfile().unwrap();
        let row = |tag: &str, digest: char, size: u64| {
            let digest = digest.to_string().repeat(64);
            format!("r:{tag},r,{tag},sha256:{digest},{size},2023-01-01T00:00:00Z\n")
        };
        let rows =
            [row("1", 'a', 5), row("1", 'b', 10), row("2", 'a', 7), row("3", 'a', 6), row("4", 'b', 10)];
        std::fs::write(file.path(), format!("full_uri,uri,tag,digest,size,created_at\n{}", rows.concat()))
            .unwrap();
        let stats = Stats::of_table(&PublishedTable::read(file.path()).unwrap());
        let (published, corrected) = (&stats.as_published, &stats.corrected);
        assert_eq!(published.table.distinct_bytes, 15);
        assert_eq!(published.top_digests[0].size, 5);
        assert_eq!(corrected.table.distinct_bytes, 17);
        assert_eq!(corrected.sharing.distinct_bytes, 17);
        assert_eq!(corrected.sharing.digests_with_several_sizes, 1);
        assert_eq!(corrected.top_digests_with_content[0].size, 7);
        assert_eq!(corrected.distinct_layer_percentiles.as_ref().unwrap().mean, 8.5);
    }
}
