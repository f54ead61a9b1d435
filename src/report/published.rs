//! The study's cosine histograms, and ours beside them.
//!
//! Published counts: converged-computing/container-chonks, `experiments/dockerfile`, the files that
//! each constant names. They are halves of the counts of ordered pairs with the diagonal; scores on
//! an edge count twice and scores outside the ranges are lost.

use super::{count, table};
use crate::pairs::Histogram;
use crate::pairs::cosine::{Options, Summary};
use crate::tokens::Scheme;
use serde::{Deserialize, Serialize};

/// A published histogram over -0.5, -0.4, ..., 1.
struct Published {
    source: &'static str,
    items: u64,
    counts: [f64; 15],
}

const IMAGES: Published = Published {
    source: "image-similarity-histogram.csv",
    items: 309_317,
    counts: [
        26580.0,
        10214756.0,
        434408772.0,
        4817538814.0,
        14237460310.0,
        12876001621.0,
        6396681060.0,
        4004250693.0,
        2690671058.0,
        1312054910.0,
        632519754.0,
        283613155.0,
        100464254.0,
        32083760.0,
        10451894.5,
    ],
};

const LAYERS: Published = Published {
    source: "layer-sims-counts.csv",
    items: 582_391,
    counts: [
        23657.0,
        1749815.0,
        227718219.5,
        6600296115.5,
        45205700896.5,
        74274076055.5,
        32441185751.5,
        6559598154.0,
        2078925693.0,
        1054815970.0,
        565084620.0,
        313054712.5,
        162684342.5,
        84916716.0,
        19687835.0,
    ],
};

const DOCKERFILES: Published = Published {
    source: "scientific-dockerfile-image-similarity.csv",
    items: 77_449,
    counts: [
        6021.0,
        52369.0,
        2234893.0,
        97720069.0,
        743491101.0,
        1021001023.0,
        539479840.0,
        247478870.0,
        121312259.0,
        89570875.0,
        67942953.0,
        42674298.0,
        20280721.0,
        5373667.0,
        538436.0,
    ],
};

/// One histogram three times: published, as published, corrected.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Columns {
    /// `images`, `layers` (each distinct layer document once, as published) or `dockerfiles`.
    pub of: String,
    /// The study's file.
    pub published_source: String,
    /// Items that the study compared.
    pub published_items: u64,
    /// Its counts between -0.5, -0.4, ..., 1.
    pub published: Vec<f64>,
    /// Items compared here.
    pub items: u64,
    /// Ours by the study's way to count, if it was asked for.
    pub as_published: Option<Vec<f64>>,
    /// Ours, each pair once; with under- and overflow they sum to all pairs.
    pub corrected: Histogram,
    /// For layers: by multiplicity, each pair of layers of the corpus once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corrected_all: Option<Histogram>,
}

/// The histograms of a run that have a published counterpart. `scheme` says what the vectors'
/// documents are.
pub fn columns(summary: &Summary, scheme: Scheme) -> Vec<Columns> {
    let measures = |of: &str| summary.measures.iter().find(|m| m.of == of);
    let study = |of: &str| {
        let histograms = measures(of)?.histograms.iter();
        histograms.clone().find(|h| h.edges == Options::study_edges()).cloned()
    };
    let column = |of: &str, way: &str, all: Option<&str>, published: &Published| {
        let m = measures(way)?;
        Some(Columns {
            of: of.to_owned(),
            published_source: published.source.to_owned(),
            published_items: published.items,
            published: published.counts.to_vec(),
            items: m.items,
            as_published: m.as_published.as_ref().map(|p| p.counts.clone()).filter(|c| c.len() == 15),
            corrected: study(way)?,
            corrected_all: all.and_then(study),
        })
    };
    let found = match scheme {
        Scheme::Cumulative => [
            column("images", "images", None, &IMAGES),
            column("layers", "documents", Some("layers"), &LAYERS),
        ],
        Scheme::PerLayer => [column("layers", "documents", Some("layers"), &LAYERS), None],
        Scheme::Dockerfiles => [column("dockerfiles", "images", None, &DOCKERFILES), None],
    };
    found.into_iter().flatten().collect()
}

/// The columns side by side.
pub fn columns_text(columns: &Columns) -> String {
    let name = format!("cosine of {}", columns.of);
    let mut header = vec![name.as_str(), "published", "as published", "corrected"];
    if columns.corrected_all.is_some() {
        header.push("all layers");
    }
    let mut t = table(&header);
    let mut row =
        |name: String, published: Option<f64>, as_published: Option<f64>, of: &dyn Fn(&Histogram) -> u64| {
            let real = |x: Option<f64>| x.map_or("-".to_owned(), |x| format!("{x:.1}"));
            let mut cells = vec![name, real(published), real(as_published), count(of(&columns.corrected))];
            cells.extend(columns.corrected_all.iter().map(|h| count(of(h))));
            t.add_row(cells);
        };
    let ours = columns.as_published.as_ref();
    row("below".into(), None, None, &|h| h.underflow);
    for (bin, edges) in columns.corrected.edges.windows(2).enumerate() {
        let name = format!("{} - {}", edges[0], edges[1]);
        row(name, columns.published.get(bin).copied(), ours.map(|c| c[bin]), &|h| h.counts[bin]);
    }
    row("above".into(), None, None, &|h| h.overflow);
    row("sum".into(), Some(columns.published.iter().sum()), ours.map(|c| c.iter().sum()), &Histogram::total);
    t.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_sums_are_those_that_do_not_close() {
        let sum = |p: &Published| p.counts.iter().sum::<f64>();
        assert_eq!(sum(&IMAGES), 47_838_441_391.5);
        // What a closed count would give, without and with half the diagonal.
        let pairs = IMAGES.items * (IMAGES.items - 1) / 2;
        assert_eq!(pairs, 47_838_348_586);
        for p in [&LAYERS, &DOCKERFILES] {
            let half_square = (p.items * p.items) as f64 / 2.0;
            assert!((sum(p) / half_square - 1.0).abs() < 0.05, "{}", p.source);
        }
    }

    #[test]
    fn published_counts_are_those_of_the_files() {
        let place = std::env::var_os("STRATIGRAPH_SHARED").map(std::path::PathBuf::from);
        let place =
            place.unwrap_or_else(|| std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"));
        if !place.is_dir() {
            println!("skipped: no ../shared");
            return;
        }
        for p in [&IMAGES, &LAYERS, &DOCKERFILES] {
            let text = std::fs::read_to_string(place.join("data/published").join(p.source)).unwrap();
            let counts = text.lines().skip(1).map(|l| l.split(',').nth(1).unwrap().parse().unwrap());
            assert_eq!(counts.collect::<Vec<f64>>(), p.counts, "{}", p.source);
        }
    }
}
