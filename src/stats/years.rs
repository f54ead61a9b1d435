//! Tables by year of creation.
//!
//! The study parses `created` with `%Y-%M-%d`: minutes where the month belongs. So every date falls
//! into January; years and days survive, and the year tables come out as they should. Dates outside
//! the range of 64-bit nanoseconds (year 1, which some builders write) fail to convert and leave
//! the table.

use super::numbers::{Summary, compensated};
use crate::corpus::{Date, Table};
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The study's tables by year (`plot-layers.py`), for years from 2010 on where not said otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ByYear {
    /// Layer sizes in bytes, one per row.
    pub layer_size: Summary,
    /// Bytes of all layers of **all tags** of a repository in a year; the study calls it "by image".
    pub repository_year_sum: Summary,
    /// The same for each year.
    pub repository_year_sum_by_year: BTreeMap<u16, Summary>,
    /// Mean over repositories of their mean layer size in a year.
    pub repository_year_mean_layer_size_by_year: BTreeMap<u16, MeanOf>,
    /// Layers per image, all years.
    pub layers_per_image_by_year: BTreeMap<u16, Summary>,
    /// Bytes per image (the sum of one tag's layers), all years.
    pub image_size_by_year: BTreeMap<u16, Summary>,
}

/// A mean of means.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MeanOf {
    /// How many.
    pub n: u64,
    /// Their mean.
    pub mean: f64,
}

/// Images by year, each image once: what "they are getting larger" has to be asked of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct YearOfImages {
    /// Bytes per image.
    pub image_size: Summary,
    /// Layers per image, empty ones included.
    pub layers: Summary,
    /// Layers with content per image.
    pub layers_with_content: Summary,
    /// Bytes per layer with content.
    pub layer_size: Summary,
    /// Repositories with an image of the year.
    pub repositories: u64,
    /// Mean over these repositories of their mean image size, so that one with 500 tags does not
    /// speak for all.
    pub image_size_mean_of_repositories: f64,
}

/// What became of the dates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Dates {
    /// Rows whose date converts.
    pub rows_kept: u64,
    /// Rows that leave the dated tables.
    pub rows_dropped: u64,
    /// Distinct months as the study reads them: all January.
    pub distinct_months_as_written: Vec<u8>,
    /// Distinct months.
    pub distinct_months: Vec<u8>,
    /// Distinct dates that do not convert as written in the study; an empty text stands for none.
    pub unusable: Vec<String>,
}

/// The year of a date as the study reads it: the part before `T` as `%Y-%M-%d`; `None` if it does
/// not convert.
pub fn published_year(created: &str) -> Option<u16> {
    let (year, minute, day) = fields(created)?;
    (minute <= 59 && in_nanoseconds(year)).then_some(year).filter(|_| (1..=31).contains(&day))
}

/// Year and month of a date read as `%Y-%m-%d`, under the same limits.
pub fn corrected_year_and_month(created: &str) -> Option<(u16, u8)> {
    let (year, month, day) = fields(created)?;
    let sound = Date::parse(&format!("{year:04}-{month:02}-{day:02}")).is_some();
    (sound && in_nanoseconds(year)).then_some((year, month))
}

fn fields(created: &str) -> Option<(u16, u8, u8)> {
    let date = created.split(['T', ' ']).next()?;
    let mut parts = date.split('-');
    let mut part = |digits: std::ops::RangeInclusive<usize>| {
        let text = parts.next()?;
        (digits.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())).then_some(text)
    };
    let (year, middle, day) = (part(4..=4)?, part(1..=2)?, part(1..=2)?);
    if parts.next().is_some() {
        return None;
    }
    Some((year.parse().ok()?, middle.parse().ok()?, day.parse().ok()?))
}

/// Years that a count of nanoseconds since 1970 in 64 bits covers from January to December.
fn in_nanoseconds(year: u16) -> bool {
    (1678..=2261).contains(&year)
}

/// Images of the table whose date converts as the study reads it.
pub fn dated(table: &Table<'_>) -> Vec<usize> {
    (0..table.images.len()).filter(|&i| table.created(i).and_then(published_year).is_some()).collect()
}

/// What became of the dates of a table.
pub fn dates(table: &Table<'_>) -> Dates {
    let (mut kept, mut dropped) = (0, 0);
    let (mut as_written, mut months, mut unusable) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for i in 0..table.images.len() {
        let created = table.created(i).unwrap_or("");
        let rows = table.rows_of(i).len() as u64;
        if published_year(created).is_some() {
            kept += rows;
            as_written.insert(1);
        } else {
            dropped += rows;
            unusable.insert(created.split('T').next().unwrap_or("").to_owned());
        }
        months.extend(corrected_year_and_month(created).map(|(_, month)| month));
    }
    Dates {
        rows_kept: kept,
        rows_dropped: dropped,
        distinct_months_as_written: as_written.into_iter().collect(),
        distinct_months: months.into_iter().collect(),
        unusable: unusable.into_iter().collect(),
    }
}

/// The study's tables of images that [`dated`] chose.
pub fn by_year(table: &Table<'_>) -> ByYear {
    let mut layer_sizes = Vec::new();
    let mut sums: FxHashMap<(u32, u16), (u64, u64)> = FxHashMap::default();
    let mut layers: BTreeMap<u16, Vec<u64>> = BTreeMap::new();
    let mut images: BTreeMap<u16, Vec<u64>> = BTreeMap::new();
    for (i, image) in table.images.iter().enumerate() {
        let Some(year) = table.created(i).and_then(published_year) else { continue };
        let rows = table.rows_of(i);
        layers.entry(year).or_default().push(rows.len() as u64);
        images.entry(year).or_default().push(table.image_size(i));
        if year >= 2010 {
            layer_sizes.extend_from_slice(&table.size[rows.clone()]);
            let sum = sums.entry((image.repository, year)).or_default();
            sum.0 = sum.0.saturating_add(table.image_size(i));
            sum.1 += rows.len() as u64;
        }
    }
    let mut by_year: BTreeMap<u16, Vec<(u64, u64)>> = BTreeMap::new();
    let mut keys: Vec<_> = sums.into_iter().collect();
    keys.sort_unstable();
    for ((_, year), sum) in keys {
        by_year.entry(year).or_default().push(sum);
    }
    let summaries = |lists: BTreeMap<u16, Vec<u64>>| {
        lists.into_iter().map(|(year, values)| (year, Summary::of(values))).collect()
    };
    ByYear {
        layer_size: Summary::of(layer_sizes),
        repository_year_sum: Summary::of(by_year.values().flatten().map(|sum| sum.0).collect()),
        repository_year_mean_layer_size_by_year: by_year
            .iter()
            .map(|(year, sums)| {
                (*year, mean_of(sums.iter().map(|(bytes, rows)| *bytes as f64 / *rows as f64)))
            })
            .collect(),
        repository_year_sum_by_year: summaries(
            by_year.into_iter().map(|(year, sums)| (year, sums.into_iter().map(|s| s.0).collect())).collect(),
        ),
        layers_per_image_by_year: summaries(layers),
        image_size_by_year: summaries(images),
    }
}

/// Images by the year of their date, from 2010 on; others were dated by tools that write a fixed
/// date to build the same bits twice.
pub fn images_by_year(table: &Table<'_>) -> BTreeMap<u16, YearOfImages> {
    let mut years: BTreeMap<u16, Vec<usize>> = BTreeMap::new();
    for i in 0..table.images.len() {
        if let Some((year, _)) = table.created(i).and_then(corrected_year_and_month).filter(|y| y.0 >= 2010) {
            years.entry(year).or_default().push(i);
        }
    }
    years.into_iter().map(|(year, images)| (year, year_of_images(table, &images))).collect()
}

fn year_of_images(table: &Table<'_>, images: &[usize]) -> YearOfImages {
    let with_content =
        |i: usize| table.rows_of(i).filter(|row| table.digest_empty[table.digest[*row] as usize] == 0);
    let mut of_repository: BTreeMap<u32, (u128, u64)> = BTreeMap::new();
    for &i in images {
        let sum = of_repository.entry(table.images[i].repository).or_default();
        sum.0 += u128::from(table.image_size(i));
        sum.1 += 1;
    }
    let means = mean_of(of_repository.values().map(|(bytes, n)| *bytes as f64 / *n as f64));
    YearOfImages {
        image_size: Summary::of(images.iter().map(|i| table.image_size(*i)).collect()),
        layers: Summary::of(images.iter().map(|i| table.rows_of(*i).len() as u64).collect()),
        layers_with_content: Summary::of(images.iter().map(|i| with_content(*i).count() as u64).collect()),
        layer_size: Summary::of(
            images.iter().flat_map(|i| with_content(*i)).map(|row| table.size[row]).collect(),
        ),
        repositories: means.n,
        image_size_mean_of_repositories: means.mean,
    }
}

fn mean_of(values: impl ExactSizeIterator<Item = f64>) -> MeanOf {
    let n = values.len();
    MeanOf { n: n as u64, mean: compensated(values) / n as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_study_reads_months_as_minutes() {
        for (text, as_written, corrected) in [
            ("2021-05-17T01:02:03Z", Some(2021), Some((2021, 5))),
            ("2021-05-17 00:00:00", Some(2021), Some((2021, 5))),
            ("2021-02-31", Some(2021), None),
            ("2021-45-31", Some(2021), None),
            ("2021-60-31", None, None),
            ("2021-01-32", None, None),
            ("0001-01-01T00:00:00Z", None, None),
            ("1970-01-01T00:00:00Z", Some(1970), Some((1970, 1))),
            ("2021-1-7", Some(2021), Some((2021, 1))),
            ("21-01-07", None, None),
            ("2021-01-07-01", None, None),
            ("", None, None),
        ] {
            assert_eq!(published_year(text), as_written, "{text}");
            assert_eq!(corrected_year_and_month(text), corrected, "{text}");
        }
    }
}
