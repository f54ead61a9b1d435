//! The similarity of all pairs as text.

use super::{bytes, count, table};
use crate::pairs::jaccard::Summary;

/// Tables of means, counts and the histogram, for the terminal.
pub fn jaccard_text(summary: &Summary) -> String {
    let counts = &summary.counts;
    let (all, full) = (&counts.images, &counts.images_without_empty_layers);
    let mut parts = Vec::new();
    if let Some(label) = &summary.synthetic {
        parts.push(format!("SYNTHETIC corpus, {label}: no real images"));
    }
    let real = |x: Option<f64>| x.map_or("-".into(), |x| format!("{x:.12}"));
    let mut t = table(&["similarity of image pairs (Jaccard)", "all layers", "without empty layers"]);
    for (name, a, b) in [
        ("pairs of images", count(all.pairs), count(full.pairs)),
        ("  that share a layer", count(all.overlapping), count(full.overlapping)),
        ("  of equal sets", count(all.score_one), count(full.score_one)),
        ("mean score", real(all.mean), real(full.mean)),
        ("  standard deviation", real(all.std), real(full.std)),
        ("mean with the diagonal", real(all.mean_with_diagonal), real(full.mean_with_diagonal)),
        ("  standard deviation", real(all.std_with_diagonal), real(full.std_with_diagonal)),
        (
            "mean over distinct sets",
            real(counts.distinct_sets.mean),
            real(counts.distinct_sets_without_empty_layers.mean),
        ),
    ] {
        t.add_row([name.to_owned(), a, b]);
    }
    if let Some(p) = &summary.as_published {
        t.add_row(["mean as published (summed in order)".to_owned(), p.mean.to_string(), String::new()]);
        t.add_row(["  standard deviation".to_owned(), p.std.to_string(), String::new()]);
    }
    parts.push(t.to_string());
    let mut t = table(&["score", "pairs", "without empty layers"]);
    let (a, b) = (&all.histogram, &full.histogram);
    let bins = a.edges.windows(2).map(|edges| format!("{} - {}", edges[0], edges[1]));
    let names = std::iter::once("below".to_owned()).chain(bins).chain(["above".to_owned()]);
    let counts_of = |h: &crate::pairs::Histogram| {
        let ends = (h.underflow, h.overflow);
        std::iter::once(ends.0).chain(h.counts.clone()).chain([ends.1]).collect::<Vec<_>>()
    };
    for ((name, a), b) in names.zip(counts_of(a)).zip(counts_of(b)) {
        // Scores lie in 0..1: beyond the edges there is nothing unless the edges are narrower.
        if a + b > 0 || name.contains('-') {
            t.add_row([name, count(a), count(b)]);
        }
    }
    parts.push(t.to_string());
    let mut last = format!(
        "{} distinct sets of {} images; bytes shared, summed over pairs of images: {}",
        count(summary.distinct_sets),
        count(summary.images),
        bytes(counts.image_bytes.total_bytes)
    );
    if summary.pairs_listed > 0 {
        let listed = count(summary.pairs_listed);
        last += &format!("; pairs of distinct sets over the threshold: {listed}");
    }
    parts.push(last);
    parts.join("\n\n")
}
