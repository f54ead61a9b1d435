//! A results directory belongs to one campaign: `run.json` says to which.

use super::campaign::{Campaign, source_state};
use super::{files, is_same};
use crate::cli::choice::Choice;
use crate::cli::results::{Results, remove, remove_leftovers};
use crate::cli::{cosine, hex, jaccard};
use crate::corpus;
use crate::pairs::Error;
use crate::report;
use anyhow::Context as _;
use sha2::{Digest, Sha256};
use std::path::Path;

/// What identifies the campaign in its results directory.
const RECORD: &str = "run.json";

/// Files that a campaign writes into its directory, besides those of the comparisons of all pairs.
const STAGES: [&str; 9] = [
    RECORD,
    "summary.json",
    "summary.txt",
    files::STATS,
    files::TOKENS,
    files::VECTORS,
    CHECKPOINT,
    files::DOCUMENTS,
    files::CORPUS,
];

/// What all stages are told in.
const SUMMARY: [&str; 2] = ["summary.json", "summary.txt"];

/// Keys of the record that can change without the source, the files that come of each, and the comparison.
const TABLES: [(&str, &[&str], Option<&Results>); 6] = [
    ("stats", &[files::STATS], None),
    ("tokenize", &[files::TOKENS, files::DOCUMENTS, files::VECTORS, CHECKPOINT], Some(&cosine::FILES)),
    ("embed", &[files::VECTORS, CHECKPOINT], Some(&cosine::FILES)),
    ("cosine", &[], Some(&cosine::FILES)),
    ("jaccard", &[], Some(&jaccard::FILES)),
    ("jaccard_list", &[], Some(&jaccard::FILES)),
];

/// What `embed` leaves beside an unfinished vectors file.
const CHECKPOINT: &str = "vectors.h5.checkpoint";

/// Results of single commands are as good as a campaign's: not to be mixed with it.
const FOREIGN: [&str; 10] = [
    files::STATS,
    files::TOKENS,
    files::VECTORS,
    CHECKPOINT,
    files::DOCUMENTS,
    files::CORPUS,
    jaccard::FILES.summary,
    jaccard::FILES.journal,
    cosine::FILES.summary,
    cosine::FILES.journal,
];

fn record_of(campaign: &Campaign, source: &Path) -> anyhow::Result<serde_json::Value> {
    let mut record = serde_json::json!({
        "kind": "stratigraph campaign",
        "name": campaign.name,
        "program_version": env!("CARGO_PKG_VERSION"),
        "source": source,
        "source_state": source_state(source)?,
        "stats": campaign.stats.is_some(),
        "tokenize": campaign.tokenize,
        "embed": campaign.embed,
        "cosine": campaign.cosine,
        "jaccard": campaign.jaccard,
    });
    // The name of a list is not what it lists.
    if let Some(list) = campaign.jaccard.as_ref().and_then(|table| Choice::list(&table.subset)) {
        let bytes = std::fs::read(list)
            .map_err(|e| corpus::Error::Source { path: list.to_owned(), reason: e.to_string() })?;
        record["jaccard_list"] = hex(&Sha256::digest(bytes)).into();
    }
    Ok(record)
}

/// Refuses results inside of what is read: they would be read as a part of it the next time. For rank 0,
/// before the directory is made.
///
/// # Errors
/// [`Error::Refused`].
pub fn keep_outside(source: &Path, out: &Path) -> Result<(), Error> {
    let out = std::path::absolute(out).unwrap_or_else(|_| out.to_owned());
    let there = out.ancestors().find_map(|above| above.canonicalize().ok());
    match (source.canonicalize(), there) {
        (Ok(inside), Some(there)) if inside.is_dir() && there.starts_with(&inside) => Err(Error::Refused(
            format!("{}: lies inside the source, {}; choose another --out", out.display(), source.display()),
        )),
        _ => Ok(()),
    }
}

/// What a directory is to a campaign.
enum Owner {
    Nobody,
    This,
    /// Why, and how it is recorded if it is.
    Another(&'static str, Option<serde_json::Value>),
}

fn owner(record: &serde_json::Value, source: &Path, out: &Path) -> anyhow::Result<Owner> {
    let path = out.join(RECORD);
    let known = match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice::<serde_json::Value>(&bytes).ok(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let mut old = FOREIGN.iter().map(|name| out.join(name));
            let found = old.any(|old| old.exists() && !is_same(&old, source));
            return Ok(if found { Owner::Another("of single commands", None) } else { Owner::Nobody });
        }
        Err(e) => return Err(e).with_context(|| path.display().to_string()),
    };
    Ok(match known {
        Some(known) if known == *record => Owner::This,
        Some(known) => Owner::Another(difference(&known, record), Some(known)),
        None => Owner::Another("its run.json cannot be read", None),
    })
}

/// True if the directory holds what this campaign has done so far.
///
/// # Errors
/// If the source or the record cannot be read.
pub fn is_of(campaign: &Campaign, source: &Path, out: &Path) -> anyhow::Result<bool> {
    Ok(matches!(owner(&record_of(campaign, source)?, source, out)?, Owner::This))
}

/// Checks that the directory is this campaign's and records that it is. Of a campaign that differs in some
/// tables only, what does not come of those is kept. True if nothing of this one has been done so far. For
/// rank 0.
///
/// # Errors
/// [`Error::Refused`] if it holds other results and they are not to be overwritten; else if a file
/// cannot be read, written or removed.
pub fn begin(campaign: &Campaign, source: &Path, out: &Path, overwrite: bool) -> anyhow::Result<bool> {
    let record = record_of(campaign, source)?;
    std::fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    remove_leftovers(out, &STAGES)?;
    let known = match owner(&record, source, out)? {
        Owner::This => return Ok(false),
        Owner::Another(difference, _) if !overwrite => {
            return Err(Error::Refused(format!(
                "{}: holds other results ({difference}); choose another --out, or give --overwrite",
                out.display(),
            ))
            .into());
        }
        Owner::Another(_, known) => known,
        Owner::Nobody => None,
    };
    // A source in the directory stays.
    let remove_all = |names: &[&str]| {
        let mut old = names.iter().map(|name| out.join(name)).filter(|old| !is_same(old, source));
        old.try_for_each(|old| remove(&old))
    };
    if let Some(known) = known.filter(|known| is_same_but_for_tables(known, &record)) {
        for (_, made, compared) in TABLES.iter().filter(|(key, ..)| known.get(key) != record.get(key)) {
            remove_all(made)?;
            compared.map_or(Ok(()), |files| files.remove(out))?;
        }
        remove_all(&SUMMARY)?;
        report::write_json(&out.join(RECORD), &record)?;
        return Ok(false);
    }
    // The record goes first and comes last: between, the directory is nobody's.
    remove_all(&STAGES)?;
    jaccard::FILES.remove(out)?;
    cosine::FILES.remove(out)?;
    report::write_json(&out.join(RECORD), &record)?;
    Ok(true)
}

/// Results that the campaign of a directory asks for and that are not there: not yet, or because the documents
/// have no word that is frequent enough. None of a directory without a campaign.
pub fn missing(out: &Path) -> Vec<&'static str> {
    let record = std::fs::read(out.join(RECORD)).ok();
    let record = record.and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
    let results = [
        ("stats", files::STATS),
        ("tokenize", files::TOKENS),
        ("cosine", cosine::FILES.summary),
        ("jaccard", jaccard::FILES.summary),
    ];
    let is_wanted = |key| {
        let table = record.as_ref().and_then(|record| record.get(key));
        table.is_some_and(|table| !table.is_null() && *table != false)
    };
    let missing = results.into_iter().filter(|(key, file)| is_wanted(*key) && !out.join(file).exists());
    missing.map(|(_, file)| file).collect()
}

/// True if two records are of the same source, read by the same program.
fn is_same_but_for_tables(known: &serde_json::Value, record: &serde_json::Value) -> bool {
    let of_source = ["kind", "program_version", "source", "source_state"];
    of_source.iter().all(|key| known.get(key).is_some() && known.get(key) == record.get(key))
}

/// What the user changed, in a word.
fn difference(known: &serde_json::Value, record: &serde_json::Value) -> &'static str {
    let names = [
        ("name", "its name differs"),
        ("program_version", "made by another version"),
        ("source", "its source differs"),
        ("source_state", "the source has changed since"),
        ("stats", "[stats] differs"),
        ("tokenize", "[tokenize] differs"),
        ("embed", "[embed] differs"),
        ("cosine", "[cosine] differs"),
        ("jaccard", "[jaccard] differs"),
        ("jaccard_list", "the list of images has changed since"),
    ];
    names.iter().find(|(n, _)| known.get(n) != record.get(n)).map_or("of another version", |n| n.1)
}
