//! The similarity of all pairs as text.

use super::{bytes, count, table};
use crate::pairs::jaccard::Summary;
use std::collections::BTreeMap;

/// Tables of means, counts and the histogram, for the terminal.
pub fn jaccard_text(summary: &Summary) -> String {
    let counts = &summary.counts;
    let (all, full) = (&counts.images, &counts.images_without_empty_layers);
    let mut parts = Vec::new();
    if let Some(label) = &summary.synthetic {
        parts.push(format!("SYNTHETIC corpus, {label}: no real images"));
    }
    let real = |x: Option<f64>| x.map_or("-".into(), |x| format!("{x:.12}"));
    let first = if summary.ignores_empty_layers() { "empty layers ignored" } else { "all layers" };
    let mut t = table(&["similarity of image pairs (Jaccard)", first, "without empty layers"]);
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
        t.add_row([
            "mean as the study sums: full square, in order".to_owned(),
            p.mean.to_string(),
            String::new(),
        ]);
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
    parts.push(shared_layers(&all.pairs_by_shared_layers, &full.pairs_by_shared_layers));
    parts.push(shared_bytes(&counts.image_bytes.pairs_by_least_bytes));
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

/// Pairs by the number of layers they share, in classes that double: 0, 1, 2, 3-4, 5-8, ...
fn shared_layers(all: &[(u32, u64)], full: &[(u32, u64)]) -> String {
    let class = |shared: u32| if shared < 2 { shared } else { 2 + (shared - 1).ilog2() };
    let sums = |pairs: &[(u32, u64)]| {
        let mut sums = BTreeMap::new();
        pairs.iter().for_each(|(shared, n)| *sums.entry(class(*shared)).or_insert(0) += n);
        sums
    };
    let (all, full) = (sums(all), sums(full));
    let mut t = table(&["layers that a pair shares", "pairs", "without empty layers"]);
    let classes: std::collections::BTreeSet<u32> = all.keys().chain(full.keys()).copied().collect();
    let of = |sums: &BTreeMap<u32, u64>, class| count(sums.get(&class).copied().unwrap_or(0));
    for class in classes {
        let name = match class {
            0..3 => class.to_string(),
            _ => format!("{} - {}", (1u64 << (class - 3)) * 2 + 1, 1u64 << (class - 1)),
        };
        t.add_row([name, of(&all, class), of(&full, class)]);
    }
    t.to_string()
}

/// Pairs by the bytes of the layers they share (empty ones count nothing), in steps of 16.
fn shared_bytes(pairs: &[(u64, u64)]) -> String {
    const STEPS: [u64; 5] = [1, 1 << 20, 1 << 24, 1 << 28, 1 << 32];
    let mut sums = [0; STEPS.len() + 1];
    pairs.iter().for_each(|(least, n)| sums[STEPS.partition_point(|step| step <= least)] += n);
    let mut t = table(&["bytes of layers that a pair shares", "pairs"]);
    for (i, n) in sums.into_iter().enumerate() {
        let name = match i {
            0 => "none".to_owned(),
            1 => format!("below {}", bytes(STEPS[1])),
            _ if i == STEPS.len() => format!("{} and more", bytes(STEPS[i - 1])),
            _ => format!("{} - {}", bytes(STEPS[i - 1]), bytes(STEPS[i])),
        };
        t.add_row([name, count(n)]);
    }
    t.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_told_in_classes_that_double() {
        let pairs: Vec<(u32, u64)> = (0..10).map(|shared| (shared, 1)).collect();
        let told = shared_layers(&pairs, &pairs[..1]);
        let rows: Vec<Vec<&str>> = told.lines().skip(1).map(|l| l.split_whitespace().collect()).collect();
        let expected = [
            vec!["0", "1", "1"],
            vec!["1", "1", "0"],
            vec!["2", "1", "0"],
            vec!["3", "-", "4", "2", "0"],
            vec!["5", "-", "8", "4", "0"],
            vec!["9", "-", "16", "1", "0"],
        ];
        assert_eq!(rows, expected, "{told}");
    }

    #[test]
    fn classes_of_either_column_are_told() {
        let told = shared_layers(&[(2, 10)], &[(1, 10)]);
        let rows: Vec<Vec<&str>> = told.lines().skip(1).map(|l| l.split_whitespace().collect()).collect();
        assert_eq!(rows, [["1", "0", "10"], ["2", "10", "0"]], "{told}");
    }

    #[test]
    fn bytes_are_told_in_steps() {
        let told = shared_bytes(&[(0, 5), (1, 1), (1 << 19, 1), (1 << 20, 7), (1 << 40, 2)]);
        let last: Vec<&str> = told.lines().skip(1).filter_map(|l| l.split_whitespace().last()).collect();
        assert_eq!(last, ["5", "2", "7", "0", "0", "2"], "{told}");
    }
}
