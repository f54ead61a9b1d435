//! The statistics as text.

use super::{bytes, count, table};
use crate::stats::{PerRepository, Percentiles, Stats, Summary, TopDigest};

/// Tables of all that matters in the statistics, for the terminal.
pub fn stats_text(stats: &Stats) -> String {
    let mut parts = Vec::new();
    if let Some(label) = &stats.synthetic {
        parts.push(format!("SYNTHETIC corpus, {label}: no real images"));
    }
    parts.extend([readings(stats), percentiles(stats)]);
    if !stats.corrected.by_year.is_empty() {
        parts.push(years(stats));
    }
    parts.push(sharing(stats));
    // The columns above count the same rows.
    parts
        .push(top_digests("digests with the most rows, as published", &stats.as_published.dated_top_digests));
    parts.push(top_digests("corrected, empty layers left out", &stats.corrected.top_digests_with_content));
    parts.join("\n\n")
}

fn size(value: Option<f64>) -> String {
    value.map_or_else(|| "-".into(), |v| bytes(v.round() as u128))
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "-".into(), |v| format!("{v:.2}"))
}

/// The two readings side by side.
fn readings(stats: &Stats) -> String {
    let (published, corrected) = (&stats.as_published, &stats.corrected);
    let (old, new) = (&published.dated_table, &corrected.table);
    let mut t = table(&["", "as published", "corrected"]);
    let mut row = |name: &str, old: String, new: String| {
        t.add_row([name.to_owned(), old, new]);
    };
    row("repositories", count(old.repositories), count(new.repositories));
    row("images", count(old.images), count(new.images));
    row("layers of all images", count(old.rows), count(new.rows));
    row("distinct layer digests", count(old.distinct_digests), count(new.distinct_digests));
    row("bytes of all layers", bytes(old.total_bytes), bytes(new.total_bytes));
    row("bytes of distinct layers", bytes(old.distinct_bytes), bytes(new.distinct_bytes));
    let of_repository =
        |p: &PerRepository| format!("{} (most {}: {})", number(p.mean), count(p.max), p.argmax);
    row(
        "\"tags per manifest\": rows, not tags",
        of_repository(&old.rows_per_repository),
        of_repository(&new.tags_per_repository),
    );
    row(
        "\"mean by image\": all tags of a year, not images",
        size(published.by_year.repository_year_sum.mean),
        size(corrected.image_size.mean),
    );
    row("  median", size(published.by_year.repository_year_sum.median), size(corrected.image_size.median));
    row(
        "  standard deviation",
        size(published.by_year.repository_year_sum.std_ddof1),
        size(corrected.image_size.std_ddof1),
    );
    row(
        "layers per image",
        number(ratio(old.rows, old.images)),
        format!(
            "{} ({} with content)",
            number(corrected.layers_per_image.mean),
            number(corrected.layers_with_content_per_image.mean)
        ),
    );
    let (rows, images) = (&old.repetition, &new.repetition_in_images);
    row("digests in one row / image", count(rows.once), count(images.once));
    for (name, old, new) in [
        ("  more than 1", rows.more_than_1, images.more_than_1),
        ("  more than 2", rows.more_than_2, images.more_than_2),
        ("  more than 50", rows.more_than_50, images.more_than_50),
        ("  more than 100", rows.more_than_100, images.more_than_100),
        ("  more than 500", rows.more_than_500, images.more_than_500),
        ("  more than 1000", rows.more_than_1000, images.more_than_1000),
        ("  more than 3000", rows.more_than_3000, images.more_than_3000),
    ] {
        row(name, count(old), count(new));
    }
    row("rows without a usable date", count(published.dates.rows_dropped), String::new());
    t.to_string()
}

fn ratio(a: u64, b: u64) -> Option<f64> {
    (b > 0).then(|| a as f64 / b as f64)
}

fn percentiles(stats: &Stats) -> String {
    let old = &stats.as_published.subset_percentiles;
    let new = &stats.corrected.percentiles_without_empty_layers;
    let mut t = table(&[
        "percentile",
        "layer, one image\nper repository",
        "image",
        "layers",
        "layer with content,\nall images",
        "image",
        "layers",
    ]);
    let at = |p: &Option<Percentiles>, i: usize| p.as_ref().map(|p| p.percentiles[i].1);
    let lists =
        [&old.layers, &old.images, &old.number_of_layers, &new.layers, &new.images, &new.number_of_layers];
    let cells = |name: String, values: [Option<f64>; 6]| {
        let shown = values.iter().enumerate().map(|(i, v)| if i % 3 == 2 { number(*v) } else { size(*v) });
        std::iter::once(name).chain(shown).collect::<Vec<_>>()
    };
    t.add_row(cells("mean".into(), lists.map(|p| p.as_ref().map(|p| p.mean))));
    for (i, p) in (25..=100).step_by(5).enumerate().filter(|(_, p)| [25, 50, 75, 90, 95, 100].contains(p)) {
        t.add_row(cells(p.to_string(), lists.map(|list| at(list, i))));
    }
    t.to_string()
}

fn years(stats: &Stats) -> String {
    let mut t = table(&[
        "year",
        "as published:\nall tags of a repository",
        "images",
        "mean\nimage",
        "median\nimage",
        "mean of\nrepositories",
        "layers",
        "with\ncontent",
        "median\nlayer",
    ]);
    let published = &stats.as_published.by_year.repository_year_sum_by_year;
    let mean = |s: &Summary| number(s.mean);
    for (year, images) in &stats.corrected.by_year {
        t.add_row([
            year.to_string(),
            size(published.get(year).and_then(|s| s.mean)),
            count(images.image_size.n),
            size(images.image_size.mean),
            size(images.image_size.median),
            size(Some(images.image_size_mean_of_repositories)),
            mean(&images.layers),
            mean(&images.layers_with_content),
            size(images.layer_size.median),
        ]);
    }
    let none = stats.corrected.images_without_year;
    if none > 0 {
        t.add_row(["none or < 2010".to_owned(), String::new(), count(none)]);
    }
    t.to_string()
}

fn sharing(stats: &Stats) -> String {
    let (all, content) = (&stats.corrected.sharing, &stats.corrected.sharing_without_empty_layers);
    let mut t = table(&["to store", "bytes", "layers", "layers with content"]);
    for (name, bytes_of, layers, with_content) in [
        ("every layer of every image", all.row_bytes, all.rows, content.rows),
        ("each image on its own", all.image_bytes, all.image_layers, content.image_layers),
        ("one store per repository", all.repository_bytes, all.repository_layers, content.repository_layers),
        ("one store for all", all.distinct_bytes, all.distinct_layers, content.distinct_layers),
    ] {
        t.add_row([name.to_owned(), bytes(bytes_of), count(layers), count(with_content)]);
    }
    let saved = |b: u128| bytes(b);
    format!(
        "{t}\nsaved by sharing within repositories: {} ({} without empty layers); across repositories: {} ({})",
        saved(all.saved_within_repositories),
        saved(content.saved_within_repositories),
        saved(all.saved_across_repositories),
        saved(content.saved_across_repositories),
    )
}

fn top_digests(title: &str, digests: &[TopDigest]) -> String {
    let mut t = table(&[title, "rows", "images", "repositories", "size", "made by"]);
    if let Some(column) = t.column_mut(5) {
        column.set_cell_alignment(comfy_table::CellAlignment::Left);
    }
    for digest in digests.iter().take(10) {
        let short: String = digest.digest.chars().take(19).collect();
        let command = digest.made_by.first().map_or("", |made| &made.command);
        let more = match digest.commands {
            0 | 1 => String::new(),
            n => format!(" (+{} others)", n - 1),
        };
        t.add_row([
            format!("{short}{}", if digest.empty { " (empty)" } else { "" }),
            count(digest.rows),
            count(digest.images),
            count(digest.repositories),
            bytes(digest.size),
            format!("{}{more}", cut(command)),
        ]);
    }
    t.to_string()
}

/// One line of at most 60 characters, without control characters.
fn cut(command: &str) -> String {
    let line: String = command.split_whitespace().collect::<Vec<_>>().join(" ");
    let line: String = line.chars().filter(|c| !c.is_control()).collect();
    match line.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}
