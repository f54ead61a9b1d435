//! Base databases, classification and accuracy as text.

use super::{count, table};
use crate::rootfs::Bases;
use crate::rootfs::bases::ChainKind;
use crate::rootfs::classify::accuracy::Accuracy;
use crate::rootfs::classify::{Answer, StudyCheck, Summary};
use std::collections::BTreeMap;

/// A table of what a base database holds.
pub fn bases_text(bases: &Bases) -> String {
    let mut families: BTreeMap<&str, (Vec<&str>, u64, u64)> = BTreeMap::new();
    for base in &bases.bases {
        let row = families.entry(&base.family).or_default();
        row.0.push(&base.version);
        row.1 = row.1.max(base.paths.len());
    }
    for chain in &bases.chains {
        families.entry(&chain.family).or_default().2 += u64::from(chain.kind == ChainKind::DiffIds);
    }
    let mut t = table(&["family", "with paths", "largest", "diff_id chains", "versions"]);
    if let Some(column) = t.column_mut(4) {
        column.set_cell_alignment(comfy_table::CellAlignment::Left);
    }
    for (family, (versions, largest, chains)) in families {
        t.add_row([
            family.to_owned(),
            count(versions.len() as u64),
            count(largest),
            count(chains),
            versions.join(" "),
        ]);
    }
    let sources = bases.provenance.sources.join("\n  ");
    format!(
        "{t}\n\n{} bases of {} families, {} paths, {} chains\nsources:\n  {sources}",
        bases.bases.len(),
        bases.families(),
        count(bases.listed().len()),
        count(bases.chains.len() as u64),
    )
}

fn percent(part: u64, whole: u64) -> String {
    if whole == 0 { "-".into() } else { format!("{:.2} %", part as f64 / whole as f64 * 100.0) }
}

/// The result of the accuracy benchmark.
pub fn accuracy_text(accuracy: &Accuracy) -> String {
    let mut t = table(&[
        "images of the report part",
        "",
        "family\nright",
        "wrong",
        "abstained",
        "wrong above\n0.95",
        "version right\nof answered",
        "version\nabstained",
        "as published:\nfamily right",
        "version\nright",
    ]);
    for row in accuracy.rows.iter().chain([&accuracy.unlisted]) {
        t.add_row([
            row.kind.clone(),
            count(row.images),
            percent(row.family_right, row.images),
            count(row.family_wrong),
            count(row.family_abstained),
            count(row.confidently_wrong),
            percent(row.version_right, row.version_answered),
            percent(row.version_abstained, row.versions),
            percent(row.published_family_right, row.images),
            percent(row.published_version_right, row.versions),
        ]);
    }
    let mut c = table(&["confidence", "families", "right", "versions", "right"]);
    for bin in &accuracy.confidence {
        c.add_row([
            format!("{} to {}", bin.from, bin.to),
            count(bin.families),
            percent(bin.families_right, bin.families),
            count(bin.versions),
            percent(bin.versions_right, bin.versions),
        ]);
    }
    let goals: Vec<_> = accuracy
        .goals
        .iter()
        .map(|g| {
            format!("{} {} (reached: {:.4})", if g.met { "met    " } else { "NOT MET" }, g.goal, g.reached)
        })
        .collect();
    format!(
        "packages: {}\nfitted on {} images of {} other bases; seed {}\n\n{t}\n\n{c}\n\n{}",
        accuracy.packages,
        count(accuracy.tuning_images),
        accuracy.tuning_bases.len(),
        accuracy.seed,
        goals.join("\n")
    )
}

/// The answers of a campaign in tables.
pub fn classification_text(summary: &Summary) -> String {
    let mut parts = Vec::new();
    let mut t = table(&["family", "version", "as published", "by evidence", "by likeness"]);
    for (family, versions) in &summary.bases {
        let total = versions.values().fold([0; 3], |sum, n| [sum[0] + n[0], sum[1] + n[1], sum[2] + n[2]]);
        let row = |a: &str, b: &str, n: [u64; 3]| {
            [a.to_owned(), b.to_owned(), count(n[0]), count(n[1]), count(n[2])]
        };
        t.add_row(row(family, "", total));
        for (version, n) in versions {
            t.add_row(row("", version, *n));
        }
    }
    let [published, evidence, likeness] = summary.answered;
    t.add_row([
        "answered".into(),
        format!("of {}", count(summary.images)),
        count(published),
        count(evidence),
        count(likeness),
    ]);
    parts.push(t.to_string());
    if summary.evidence.values().sum::<u64>() > 0 {
        parts.push(counts("evidence", &summary.evidence));
    }
    if summary.agreement.iter().sum::<u64>() > 0 {
        let mut t = table(&["families of the three answers", "images"]);
        let how = ["all agree", "as published differs", "evidence differs", "likeness differs", "all differ"];
        for (how, n) in how.into_iter().zip(summary.agreement) {
            t.add_row([how.to_owned(), count(n)]);
        }
        parts.push(t.to_string());
    }
    if published > 0 {
        let mut t = table(&["", "published score", "confidence"]);
        for (i, (score, confidence)) in summary.published_scores.iter().zip(&summary.confidences).enumerate()
        {
            let range = if i == 10 {
                "1".into()
            } else {
                format!("{:.1} to {:.1}", i as f64 / 10.0, (i + 1) as f64 / 10.0)
            };
            t.add_row([range, count(*score), count(*confidence)]);
        }
        parts.push(format!("{t}\npublished scores with a tie: {}", count(summary.ties)));
    }
    for (title, pairs) in [
        (["by evidence", "as published"], &summary.evidence_and_published),
        (["by evidence", "by likeness"], &summary.evidence_and_likeness),
        (["by likeness", "as published"], &summary.likeness_and_published),
    ] {
        if !pairs.is_empty() {
            parts.push(confusion(title, pairs));
        }
    }
    if !summary.unanswered.is_empty() {
        parts.push(counts("not answered, or not wholly", &summary.unanswered));
    }
    parts.join("\n\n")
}

fn counts(title: &str, of: &BTreeMap<String, u64>) -> String {
    let mut t = table(&[title, "images"]);
    for (name, n) in of {
        t.add_row([name.clone(), count(*n)]);
    }
    t.to_string()
}

fn confusion(title: [&str; 2], pairs: &[(String, String, u64)]) -> String {
    let mut t = table(&[title[0], title[1], "images", ""]);
    for (a, b, n) in pairs {
        t.add_row([a.clone(), b.clone(), count(*n), if a == b { String::new() } else { "differ".into() }]);
    }
    t.to_string()
}

/// The study's answers against evidence.
pub fn study_text(check: &StudyCheck) -> String {
    format!(
        "{}\n\nthe study classified {} repositories; {} of them are in this corpus, evidence decides {}, \
         and {} published families are wrong",
        confusion(["by evidence", "as published"], &check.confusion),
        check.classified,
        check.in_corpus,
        check.decided,
        check.wrong
    )
}

/// One line for each image, at most `most` of them.
pub fn answers_text(answers: &[Answer], most: usize) -> String {
    let mut t =
        table(&["image", "as published", "score", "by evidence", "by likeness", "confidence", "runner-up"]);
    for i in [1, 3, 4, 6] {
        if let Some(column) = t.column_mut(i) {
            column.set_cell_alignment(comfy_table::CellAlignment::Left);
        }
    }
    let versioned = |family: &str, version: Option<&String>| match version {
        Some(version) => format!("{family}:{version}"),
        None => format!("{family}:?"),
    };
    let none = || "-".to_owned();
    for answer in answers.iter().take(most) {
        let likeness = answer.likeness.as_ref();
        let tie = |n: usize| if n > 0 { format!(" (tie of {})", n + 1) } else { String::new() };
        t.add_row([
            answer.image.clone(),
            answer
                .published
                .as_ref()
                .map_or_else(none, |p| format!("{}:{}{}", p.family, p.version, tie(p.ties.len()))),
            answer.published.as_ref().map_or_else(none, |p| format!("{:.4}", p.score)),
            answer.evidence.as_ref().map_or_else(none, |e| versioned(&e.family, e.version.as_ref())),
            likeness
                .and_then(|l| Some(versioned(l.family.as_ref()?, l.version.as_ref())))
                .unwrap_or_else(|| if likeness.is_some() { "none of these".into() } else { none() }),
            likeness.map_or_else(none, |l| format!("{:.4}", l.confidence)),
            likeness.and_then(|l| l.runner_up.clone()).map_or_else(none, |name| short(&name)),
        ]);
    }
    let more = answers.len().saturating_sub(most);
    if more > 0 { format!("{t}\n({} more)", count(more as u64)) } else { t.to_string() }
}

fn short(name: &str) -> String {
    name.rsplit('/').next().unwrap_or(name).to_owned()
}
