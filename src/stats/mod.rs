//! Sizes, years, layer counts, percentiles and digest sharing, in two readings.
//!
//! *As published* follows the definitions of the study's scripts (`plot-layers.py`,
//! `layer_digest_similarity.py`) to the last digit where the data allow. *Corrected* asks the same
//! questions of what they are about: images instead of repositories, tags instead of layer rows,
//! images that the study skips for a missing media type, and layers that hold something.

mod digests;
mod numbers;
mod years;

pub use digests::{MadeBy, PerRepository, Repetition, Sharing, SizeOf, Sizes, TableSize, TopDigest};
pub use numbers::{Percentiles, Summary, compensated, pairwise_sum, percentile};
pub use years::{ByYear, Dates, MeanOf, YearOfImages};

use crate::corpus::{Configs, Corpus, PublishedTable, StudyFilter, Table};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// All statistics of a corpus or a published table: `stats.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// `stratigraph stats`.
    pub kind: String,
    /// Version of the program.
    pub program_version: String,
    /// [`Corpus::id`], or the sha256 of a published table.
    pub corpus_id: String,
    /// Says that the corpus was generated, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub synthetic: Option<String>,
    /// What becomes of the manifests; `null` for a published table.
    pub manifests: Option<ManifestCounts>,
    /// The study's definitions.
    pub as_published: AsPublished,
    /// What they should have been.
    pub corrected: Corrected,
}

/// What the study's filter does with the manifests, and what it should have done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestCounts {
    /// All manifests.
    pub manifests: u64,
    /// Images in the study's table.
    pub kept: u64,
    /// Skipped: no `mediaType`.
    pub skipped_no_media_type: u64,
    /// Skipped: docker manifest lists.
    pub skipped_manifest_list: u64,
    /// Skipped: no layers (indexes, or an empty list of them), or schema 1.
    pub skipped_no_layers: u64,
    /// Skipped: no config of the same tag.
    pub skipped_no_config: u64,
    /// Configs without a history.
    pub configs_without_history: u64,
    /// Images in the corrected reading.
    pub corrected_images: u64,
    /// Layers by media type, over the study's table.
    pub layer_media_types: BTreeMap<String, u64>,
}

/// The study's numbers by the study's definitions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AsPublished {
    /// The whole manifest table.
    pub table: TableSize,
    /// Sha256 over `full_uri TAB layer_number TAB digest TAB size LF` of all its rows.
    pub table_sha256: String,
    /// What became of the dates.
    pub dates: Dates,
    /// The rows whose date converts: the published counts are of these.
    pub dated_table: TableSize,
    /// Tables by year.
    pub by_year: ByYear,
    /// One image per repository.
    pub subset: Subset,
    /// Its percentile tables.
    pub subset_percentiles: PercentileTables,
    /// The digests with the most rows.
    pub top_digests: Vec<TopDigest>,
    /// The same among rows whose date converts.
    pub dated_top_digests: Vec<TopDigest>,
}

/// One image per repository: `latest`, else the first tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subset {
    /// Rows.
    pub rows: u64,
    /// Images, one per repository.
    pub images: u64,
    /// Images with the tag `latest`.
    pub with_latest: u64,
    /// Distinct digests.
    pub distinct_digests: u64,
    /// Sha256 over its rows, as for the whole table.
    pub sha256: String,
}

/// Percentiles of layer sizes, image sizes (bytes) and layers per image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PercentileTables {
    /// Layer sizes, one per row.
    pub layers: Option<Percentiles>,
    /// Image sizes.
    pub images: Option<Percentiles>,
    /// Layers per image.
    pub number_of_layers: Option<Percentiles>,
}

/// The same questions asked of images, tags and layers with content.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Corrected {
    /// All images with layers, signatures aside.
    pub table: TableSize,
    /// Bytes per image.
    pub image_size: Summary,
    /// Layers per image, empty ones included.
    pub layers_per_image: Summary,
    /// Layers with content per image.
    pub layers_with_content_per_image: Summary,
    /// Percentiles over all images.
    pub percentiles: PercentileTables,
    /// The same without empty layers.
    pub percentiles_without_empty_layers: PercentileTables,
    /// Sizes of the distinct layers with content.
    pub distinct_layer_percentiles: Option<Percentiles>,
    /// Images without a usable date, or dated before 2010.
    pub images_without_year: u64,
    /// Images by year.
    pub by_year: BTreeMap<u16, YearOfImages>,
    /// Bytes saved by sharing, empty layers included.
    pub sharing: Sharing,
    /// Bytes saved by sharing content.
    pub sharing_without_empty_layers: Sharing,
    /// The digests with content that have the most rows.
    pub top_digests_with_content: Vec<TopDigest>,
}

/// How many digests are listed.
const TOP: usize = 20;

impl Stats {
    /// Statistics of a whole corpus.
    pub fn of_corpus(corpus: &Corpus) -> Self {
        let study = Table::of(corpus, &corpus.study_images());
        let all = Table::of(corpus, &corpus.corrected_images());
        let (as_published, corrected) =
            rayon::join(|| AsPublished::of(&study, Some(corpus)), || Corrected::of(&all, Some(corpus)));
        Self {
            kind: "stratigraph stats".into(),
            program_version: env!("CARGO_PKG_VERSION").into(),
            corpus_id: corpus.id(),
            synthetic: corpus.synthetic_label(),
            manifests: Some(ManifestCounts::of(corpus)),
            as_published,
            corrected,
        }
    }

    /// Statistics of a published table, as far as it knows.
    pub fn of_table(read: &PublishedTable) -> Self {
        let table = read.table();
        Self {
            kind: "stratigraph stats".into(),
            program_version: env!("CARGO_PKG_VERSION").into(),
            corpus_id: read.id.clone(),
            synthetic: None,
            manifests: None,
            as_published: AsPublished::of(&table, None),
            corrected: Corrected::of(&table, None),
        }
    }
}

impl ManifestCounts {
    fn of(corpus: &Corpus) -> Self {
        let count = |filter: StudyFilter| {
            corpus.manifests.study.iter().filter(|s| **s == filter as u8).count() as u64
        };
        let study = corpus.study_images();
        let mut layer_media_types = BTreeMap::new();
        for row in study.iter().flat_map(|m| corpus.layers_of(*m as usize)) {
            let name = corpus.media_types.get_or(corpus.layers.media_type[row], "(none)");
            // Few distinct names in millions of rows: look before a name is copied.
            match layer_media_types.get_mut(name) {
                Some(n) => *n += 1,
                None => {
                    layer_media_types.insert(name.to_owned(), 1);
                }
            }
        }
        let no_history = |flags: &&u8| **flags & Configs::HAS_HISTORY == 0;
        Self {
            manifests: corpus.manifest_count() as u64,
            kept: study.len() as u64,
            skipped_no_media_type: count(StudyFilter::NoMediaType),
            skipped_manifest_list: count(StudyFilter::ManifestList),
            // An empty list passes the study's filter and gives no row.
            skipped_no_layers: count(StudyFilter::NoLayers) + count(StudyFilter::Kept) - study.len() as u64,
            skipped_no_config: count(StudyFilter::NoConfig),
            configs_without_history: corpus.configs.flags.iter().filter(no_history).count() as u64,
            corrected_images: corpus.corrected_images().len() as u64,
            layer_media_types,
        }
    }
}

impl AsPublished {
    fn of(table: &Table<'_>, corpus: Option<&Corpus>) -> Self {
        let dated = table.select(&years::dated(table));
        let chosen = table.one_per_repository();
        let subset = table.select(&chosen);
        let [sizes, dated_sizes, subset_sizes] =
            [table, &dated, &subset].map(|table| Sizes::new(table, SizeOf::FirstRow));
        Self {
            table: digests::table_size(table, &sizes),
            table_sha256: rows_sha256(table),
            dates: years::dates(table),
            dated_table: digests::table_size(&dated, &dated_sizes),
            by_year: years::by_year(&dated),
            subset: Subset {
                rows: subset.digest.len() as u64,
                images: chosen.len() as u64,
                with_latest: subset.images.iter().filter(|i| table.tags.get(i.tag) == "latest").count()
                    as u64,
                distinct_digests: digests::table_size(&subset, &subset_sizes).distinct_digests,
                sha256: rows_sha256(&subset),
            },
            subset_percentiles: PercentileTables::of(&subset, true),
            top_digests: digests::top_digests(table, &sizes, corpus, TOP, true),
            dated_top_digests: digests::top_digests(&dated, &dated_sizes, corpus, TOP, true),
        }
    }
}

impl Corrected {
    fn of(table: &Table<'_>, corpus: Option<&Corpus>) -> Self {
        let images = 0..table.images.len();
        let sizes = Sizes::new(table, SizeOf::Largest);
        let by_year = years::images_by_year(table);
        let with_year: u64 = by_year.values().map(|year| year.image_size.n).sum();
        Self {
            table: digests::table_size(table, &sizes),
            image_size: Summary::of(images.clone().map(|i| table.image_size(i)).collect()),
            layers_per_image: Summary::of(images.clone().map(|i| table.rows_of(i).len() as u64).collect()),
            layers_with_content_per_image: Summary::of(
                images.clone().map(|i| rows_with_content(table, i).count() as u64).collect(),
            ),
            percentiles: PercentileTables::of(table, true),
            percentiles_without_empty_layers: PercentileTables::of(table, false),
            distinct_layer_percentiles: Percentiles::of(&distinct_sizes(table, &sizes)),
            images_without_year: table.images.len() as u64 - with_year,
            by_year,
            sharing: digests::sharing(table, &sizes, true),
            sharing_without_empty_layers: digests::sharing(table, &sizes, false),
            top_digests_with_content: digests::top_digests(table, &sizes, corpus, TOP, false),
        }
    }
}

impl PercentileTables {
    fn of(table: &Table<'_>, with_empty: bool) -> Self {
        let images = 0..table.images.len();
        let rows = |i: usize| {
            table.rows_of(i).filter(move |r| with_empty || table.digest_empty[table.digest[*r] as usize] == 0)
        };
        let sizes: Vec<_> = images.clone().flat_map(rows).map(|r| table.size[r]).collect();
        // The study groups by image name, which sorts them; the deviation's last digit shows it.
        let mut by_name: Vec<_> = images.clone().map(|i| (table.name(i), i)).collect();
        by_name.sort_unstable();
        // A manifest can claim any size; two of 2^63 bytes have no sum in 64 bits.
        let size_of = |i: usize| rows(i).fold(0u64, |sum, r| sum.saturating_add(table.size[r]));
        let of_images: Vec<_> = by_name.iter().map(|(_, i)| size_of(*i)).collect();
        let numbers: Vec<_> = images.map(|i| rows(i).count() as u64).collect();
        Self {
            layers: Percentiles::of(&sizes),
            images: Percentiles::of(&of_images),
            number_of_layers: Percentiles::of(&numbers),
        }
    }
}

fn rows_with_content<'a>(table: &'a Table<'_>, i: usize) -> impl Iterator<Item = usize> + 'a {
    table.rows_of(i).filter(|row| table.digest_empty[table.digest[*row] as usize] == 0)
}

/// Sizes of the distinct layers with content, in order of their first row.
fn distinct_sizes(table: &Table<'_>, sizes: &Sizes) -> Vec<u64> {
    let mut seen = vec![false; table.digests.len()];
    let new = |digest: &u32| {
        let seen = &mut seen[*digest as usize];
        let counts = table.digest_empty[*digest as usize] == 0 && !std::mem::replace(seen, true);
        counts.then(|| sizes.of(*digest))
    };
    table.digest.iter().filter_map(new).collect()
}

/// Sha256 over `full_uri TAB layer_number TAB digest TAB size LF` of all rows, in hex.
pub fn rows_sha256(table: &Table<'_>) -> String {
    use std::fmt::Write;
    let mut sum = Sha256::new();
    let mut line = String::new();
    for i in 0..table.images.len() {
        let name = table.name(i);
        for (k, row) in table.rows_of(i).enumerate() {
            line.clear();
            // Writing to a String cannot fail.
            let _ =
                writeln!(line, "{name}\t{k}\t{}\t{}", table.digests.get(table.digest[row]), table.size[row]);
            sum.update(&line);
        }
    }
    sum.finalize().iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
