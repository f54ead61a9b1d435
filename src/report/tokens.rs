//! Documents and practices as text.

use super::{count, table};
use crate::tokens::{Apt, DockerfileShares, HistoryShares, Practices, Spread};

fn share(part: u64, whole: u64) -> String {
    if whole == 0 { "-".into() } else { format!("{:.4}", part as f64 / whole as f64) }
}

/// Tables of the shares that histories give.
pub fn history_shares_text(shares: &HistoryShares) -> String {
    let study = &shares.study;
    let p = &study.published;
    let columns: [&Apt; 3] = [&study.first_version, &study.cumulative, &study.per_layer];
    let mut t =
        table(&["apt in layers (the study's tests)", "published", "as published", "cumulative", "corrected"]);
    let mut row = |name: &str, published: String, of: &dyn Fn(&Apt) -> String| {
        let mut cells = vec![name.to_owned(), published];
        cells.extend(columns.iter().map(|apt| of(apt)));
        t.add_row(cells);
    };
    row("layers", count(p.lines), &|a| count(a.lines));
    row("with `apt` and `get`", "-".into(), &|a| count(a.apt_get));
    row("  that have `install`, share", format!("{:.4}", p.install_of_apt_get), &|a| {
        share(a.apt_get_with_install, a.apt_get)
    });
    row("with `apt`, share", share(p.apt, p.lines), &|a| share(a.apt, a.lines));
    row("  cleaned (`rm` or `clean`)", share(p.apt_cleaned, p.apt), &|a| share(a.apt_cleaned, a.apt));
    row("  autoremoved", share(p.apt_autoremove, p.apt), &|a| share(a.apt_autoremove, a.apt));
    row("  both", share(p.apt_cleaned_and_autoremoved, p.apt), &|a| {
        share(a.apt_cleaned_and_autoremoved, a.apt)
    });
    let mut images = table(&["images", "", ""]);
    let without = share(shares.images_without_user, shares.images);
    images.add_row(["histories".to_owned(), count(shares.images), String::new()]);
    images.add_row(["  without USER".to_owned(), count(shares.images_without_user), without]);
    add_spread(&mut images, "RUN layers", &shares.run_layers_per_image);
    let practices = [("cumulative", &shares.layers_cumulative), ("corrected", &shares.layers)];
    format!("{t}\n\n{}\n\n{images}", practices_text("layers", &practices))
}

fn add_spread(table: &mut comfy_table::Table, what: &str, spread: &Spread) {
    let mean = spread.mean.map_or("-".into(), |mean| format!("{mean:.2}"));
    table.add_row([format!("{what}: mean"), mean, String::new()]);
    for (name, n) in [("median", spread.median), ("95th percentile", spread.p95), ("most", spread.max)] {
        table.add_row([format!("  {name}"), count(n), String::new()]);
    }
}

/// Tables of the shares that Dockerfiles give.
pub fn dockerfile_shares_text(shares: &DockerfileShares) -> String {
    let mut t = table(&["Dockerfiles", "count", "share"]);
    let mut row = |name: &str, n: u64, whole: Option<u64>| {
        t.add_row([name.to_owned(), count(n), whole.map_or(String::new(), |whole| share(n, whole))]);
    };
    row("files", shares.files, None);
    for (group, n) in &shares.by_group {
        row(&format!("  in {group}"), *n, Some(shares.files));
    }
    row("repositories", shares.repositories, None);
    row("  of the Research Software Encyclopedia", shares.encyclopedia_repositories, None);
    if let Some(c) = &shares.coverage {
        row("projects of the list", c.projects, None);
        row("  with a Dockerfile", c.with_dockerfile, Some(c.projects));
        row("repositories with a Dockerfile that it lacks", c.not_listed, None);
    }
    let b = &shares.bases;
    let all = b.untagged + b.latest + b.tagged + b.digest + b.variable + b.scratch + b.stage;
    row("FROM instructions", all, None);
    for (name, n) in [
        ("  without tag", b.untagged),
        ("  of `latest`", b.latest),
        ("  of another tag", b.tagged),
        ("  of a digest", b.digest),
        ("  by build argument", b.variable),
        ("  of scratch", b.scratch),
        ("  of an earlier stage", b.stage),
    ] {
        row(name, n, Some(all));
    }
    row("files with FROM without tag or of `latest`", shares.unpinned_files, Some(shares.files));
    row("files with several stages", shares.multi_stage, Some(shares.files));
    row("files that COPY from a stage", shares.copy_from_stage, Some(shares.files));
    row("files without USER", shares.without_user, Some(shares.files));
    add_spread(&mut t, "RUN in a file", &shares.run_per_file);
    let mut from = table(&["FROM as the study counts", "distinct", "all", "most frequent"]);
    for (group, counts) in &shares.from {
        let top: Vec<_> = counts.top.iter().take(3).map(|(image, n)| format!("{image} {n}")).collect();
        // The study's names; the files of the group `machine-learning` above are in its `rseng`.
        let files = if group == "rseng" { "all other files" } else { "files in orgs" };
        from.add_row([
            format!("{group}: {files}"),
            count(counts.distinct),
            count(counts.total),
            top.join(", "),
        ]);
    }
    format!("{t}\n\n{}\n\n{from}", practices_text("instructions", &[("count", &shares.instructions)]))
}

/// A table of practices in one or two readings.
fn practices_text(what: &str, readings: &[(&str, &Practices)]) -> String {
    let title = format!("practices in {what}");
    let mut header = vec![title.as_str()];
    for (name, _) in readings {
        header.extend([*name, "share"]);
    }
    let mut t = table(&header);
    type Part = fn(&Practices) -> u64;
    let rows: [(&str, Part, Option<Part>); 12] = [
        (what, |p| p.commands, None),
        ("  that are RUN", |p| p.run, Some(|p| p.commands)),
        ("RUN with `apt-get update`", |p| p.apt_update, Some(|p| p.run)),
        ("  and no `apt-get install`", |p| p.apt_update_alone, Some(|p| p.apt_update)),
        ("RUN with `apt-get install`", |p| p.apt_install, Some(|p| p.run)),
        ("  and `update`", |p| p.apt_install_with_update, Some(|p| p.apt_install)),
        ("  and the package lists removed", |p| p.apt_install_lists_removed, Some(|p| p.apt_install)),
        ("  and `--no-install-recommends`", |p| p.apt_install_no_recommends, Some(|p| p.apt_install)),
        ("RUN with `pip install`", |p| p.pip_install, Some(|p| p.run)),
        ("  and `--no-cache-dir`", |p| p.pip_install_no_cache, Some(|p| p.pip_install)),
        ("ADD", |p| p.add, Some(|p| p.commands)),
        ("  of an address", |p| p.add_of_url, Some(|p| p.add)),
    ];
    for (name, part, whole) in rows {
        let mut cells = vec![name.to_owned()];
        for (_, p) in readings {
            cells.push(count(part(p)));
            cells.push(whole.map_or(String::new(), |whole| share(part(p), whole(p))));
        }
        t.add_row(cells);
    }
    t.to_string()
}
