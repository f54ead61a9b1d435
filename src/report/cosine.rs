//! The cosine similarity of all pairs as text.

use super::{count, table};
use crate::pairs::cosine::Summary;

/// Tables of means and the first histogram, for the terminal.
pub fn cosine_text(summary: &Summary) -> String {
    let mut parts = Vec::new();
    if let Some(label) = &summary.synthetic {
        parts.push(format!("SYNTHETIC corpus, {label}: no real images"));
    }
    let names: Vec<String> = summary.measures.iter().map(|m| m.of.replace('_', " ")).collect();
    let header: Vec<&str> =
        std::iter::once("cosine similarity of pairs of").chain(names.iter().map(String::as_str)).collect();
    let mut t = table(&header);
    let real = |x: Option<f64>| x.map_or("-".into(), |x| format!("{x:.12}"));
    let mut row = |name: &str, cell: &dyn Fn(&crate::pairs::cosine::results::Measures) -> String| {
        t.add_row(std::iter::once(name.to_owned()).chain(summary.measures.iter().map(cell)));
    };
    row("pairs", &|m| count(m.pairs));
    row("  of equal vectors", &|m| count(m.equal));
    row("mean", &|m| real(m.mean));
    row("  standard deviation", &|m| real(m.std));
    row("least", &|m| real(m.min));
    row("highest", &|m| real(m.max));
    parts.push(t.to_string());

    let header: Vec<&str> = std::iter::once("score").chain(names.iter().map(String::as_str)).collect();
    let mut t = table(&header);
    let first: Vec<_> = summary.measures.iter().filter_map(|m| m.histograms.first()).collect();
    if let Some(edges) = first.first().map(|h| &h.edges) {
        let cells = |name: String, of: &dyn Fn(&crate::pairs::Histogram) -> u64| {
            std::iter::once(name).chain(first.iter().map(|h| count(of(h)))).collect::<Vec<_>>()
        };
        t.add_row(cells("below".into(), &|h| h.underflow));
        for (bin, e) in edges.windows(2).enumerate() {
            t.add_row(cells(format!("{} - {}", e[0], e[1]), &|h| h.counts[bin]));
        }
        t.add_row(cells("above".into(), &|h| h.overflow));
        parts.push(t.to_string());
    }
    let published: Vec<_> =
        summary.measures.iter().filter_map(|m| Some((m, m.as_published.as_ref()?))).collect();
    if let Some((_, first)) = published.first() {
        let names: Vec<String> = published.iter().map(|(m, _)| m.of.replace('_', " ")).collect();
        let header: Vec<&str> = std::iter::once("as published (diagonal in, halved, edges twice)")
            .chain(names.iter().map(String::as_str))
            .collect();
        let mut t = table(&header);
        for (bin, e) in first.edges.windows(2).enumerate() {
            let counts = published.iter().map(|(_, p)| format!("{:.1}", p.counts[bin]));
            t.add_row(std::iter::once(format!("{} - {}", e[0], e[1])).chain(counts));
        }
        let sums = published.iter().map(|(_, p)| format!("{:.1}", p.sum));
        t.add_row(std::iter::once("sum".to_owned()).chain(sums));
        let halves = published.iter().map(|(_, p)| format!("{:.1}", p.half_square));
        t.add_row(std::iter::once("  half the square".to_owned()).chain(halves));
        parts.push(t.to_string());
    }
    let mut last = format!(
        "{} distinct of {} vectors of {} dimensions",
        count(summary.distinct_vectors),
        count(summary.vectors),
        count(summary.dims)
    );
    if summary.zero_vectors > 0 {
        last += &format!("; {} without direction (all zeros)", count(summary.zero_vectors));
    }
    if summary.options.get("min").is_some_and(|m| !m.is_null()) {
        last += &format!("; pairs of distinct vectors over the threshold: {}", count(summary.pairs_listed));
    }
    parts.push(last);
    parts.join("\n\n")
}
