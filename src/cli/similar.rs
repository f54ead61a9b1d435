//! `stratigraph similar`.

use super::{Code, Context, show};
use crate::embed::similar::{Unknown, direction, nearest};
use crate::embed::{Error, Vectors};
use crate::tokens::{Documents, Reading};
use std::path::PathBuf;

/// Show the words nearest to words, by cosine
///
/// Each WORD gets a list of its own. With --positive and --negative there is one list: of what is
/// near to the sum of the positive words less the negative ones (`--positive yum debian --negative
/// centos` asks what is to Debian as yum is to CentOS).
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The vectors (from `stratigraph embed`)
    #[arg(value_name = "VECTORS")]
    vectors: PathBuf,

    /// Words; each gets a list
    #[arg(value_name = "WORD", required_unless_present_any = ["positive", "negative"])]
    words: Vec<String>,

    /// Words to be near to, together
    #[arg(long, value_name = "WORD", num_args = 1.., conflicts_with = "words")]
    positive: Vec<String>,

    /// Words to be far from
    #[arg(long, value_name = "WORD", num_args = 1.., conflicts_with = "words")]
    negative: Vec<String>,

    /// Neighbours in each list
    #[arg(short = 'k', long, value_name = "K", default_value = "20")]
    top_k: std::num::NonZeroUsize,

    /// List the nearest documents instead, by where they first occur in this documents file
    #[arg(long, value_name = "FILE")]
    documents: Option<PathBuf>,

    /// Print one JSON object instead: a list of [name, score] for each query
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> anyhow::Result<Code> {
    if !context.world.is_root() {
        return Ok(Code::Done);
    }
    let vectors = Vectors::open(&args.vectors)?;
    let documents = args.documents.as_ref().map(|path| named_documents(path, &vectors)).transpose()?;
    let together = (args.positive.iter().cloned())
        .chain(args.negative.iter().map(|word| format!("-{word}")))
        .collect::<Vec<_>>()
        .join(" ");
    let queries: Vec<(String, &[String], &[String])> = match args.words.is_empty() {
        true => vec![(together, &args.positive, &args.negative)],
        false => args.words.iter().map(|w| (w.clone(), std::slice::from_ref(w), &[][..])).collect(),
    };
    let mut unknown = Vec::new();
    let mut found = serde_json::Map::new();
    for (query, positive, negative) in queries {
        let (unit, rows) = match direction(&vectors, positive, negative) {
            Ok(direction) => direction,
            Err(terms) => {
                unknown.extend(terms);
                continue;
            }
        };
        if unit.iter().all(|v| *v == 0.0) {
            let all = "the terms cancel each other out, so nothing is near";
            return Err(Error::Refused(format!("{}: `{query}`: {all}", args.vectors.display())).into());
        }
        let list: Vec<(String, f64)> = match &documents {
            None => nearest(&vectors.words.vectors, &unit, args.top_k.get(), &rows)
                .into_iter()
                .map(|n| (vectors.words.names.get(n.row).to_owned(), n.score))
                .collect(),
            Some(documents) => nearest(&vectors.documents.vectors, &unit, args.top_k.get(), &[])
                .into_iter()
                .map(|n| (name(documents, vectors.documents.document[n.row as usize] as usize), n.score))
                .collect(),
        };
        if args.json {
            found.insert(query, serde_json::to_value(list)?);
            continue;
        }
        let mut table = show::table(&[&query, "score"]);
        for (name, score) in list {
            table.add_row([super::import::visible(&name), format!("{score:.4}")]);
        }
        show::print(table);
    }
    if args.json {
        show::print(serde_json::Value::Object(found));
    }
    if unknown.is_empty() {
        return Ok(Code::Done);
    }
    Err(Error::Refused(unknown.iter().map(|term| tell(term, args)).collect::<Vec<_>>().join("; ")).into())
}

fn tell(unknown: &Unknown, args: &Args) -> String {
    let like = match unknown.like.is_empty() {
        true => String::new(),
        false => format!(" (there are {})", unknown.like.join(", ")),
    };
    format!("{}: does not know the word `{}`{like}", args.vectors.display(), unknown.term)
}

fn named_documents(path: &std::path::Path, vectors: &Vectors) -> anyhow::Result<Documents> {
    let documents = Documents::load(path)?;
    let within = vectors.documents.document.iter().all(|i| (*i as usize) < documents.len());
    if !within || documents.id() != vectors.origin.documents_id {
        let message = format!("{}: are not the documents that were embedded", path.display());
        return Err(Error::Refused(message).into());
    }
    Ok(documents)
}

/// Where a document first occurs, and how often it does.
fn name(documents: &Documents, i: usize) -> String {
    let source = documents.sources().get(documents.first_occurrence(i).0 as u32);
    let counts = [Reading::Layers, Reading::Images].map(|reading| documents.multiplicities(reading)[i]);
    format!("{source} ({} layers, {} images)", counts[0], counts[1])
}
