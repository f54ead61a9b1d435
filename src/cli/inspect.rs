//! `stratigraph inspect`.

use super::{Code, Context, import, show, tokenize};
use crate::corpus::Corpus;
use crate::h5::{self, Reader};
use crate::tokens::Documents;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Show what a corpus or results file holds
///
/// For HDF5 files of this program: kind, versions, attributes, and all datasets with shape, type
/// and size; for a corpus also a summary. For JSON results: their kind and top level.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The file
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// For a corpus: print the first N places of each oddity (at most 10 are kept)
    #[arg(long, value_name = "N", default_value_t = 0)]
    oddities: usize,
}

/// The first bytes of every HDF5 file.
const HDF5_MAGIC: &[u8] = b"\x89HDF\r\n\x1a\n";

/// Why a file cannot be shown.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
struct Refused {
    path: PathBuf,
    reason: String,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> anyhow::Result<Code> {
    if !context.world.is_root() {
        return Ok(Code::Done);
    }
    let path = args.file.as_path();
    let outcome = match beginning(path) {
        Ok(head) if head.starts_with(HDF5_MAGIC) => hdf5(args, context)?,
        Ok(head) if head.trim_ascii_start().starts_with(b"{") => json(path, context),
        Ok(head) if head.is_empty() => refuse(path, "the file is empty"),
        Ok(_) => refuse(path, "is neither an HDF5 nor a JSON file; give a file that stratigraph wrote"),
        Err(e) => refuse(path, format!("cannot be read ({e})")),
    };
    match outcome {
        Ok(()) => Ok(Code::Done),
        Err(refused) => {
            eprintln!("stratigraph: {refused}");
            Ok(Code::Refused)
        }
    }
}

fn refuse(path: &Path, reason: impl Into<String>) -> Result<(), Refused> {
    Err(Refused { path: path.to_owned(), reason: reason.into() })
}

fn beginning(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut head = Vec::new();
    File::open(path)?.take(64).read_to_end(&mut head)?;
    Ok(head)
}

fn hdf5(args: &Args, context: &Context) -> anyhow::Result<Result<(), Refused>> {
    let reader = Reader::open_any(&args.file)?;
    let Some(kind) = reader.kind() else {
        return Ok(refuse(&args.file, "is an HDF5 file of another program; h5dump can show it"));
    };
    let listing = h5::list(&reader)?;
    drop(reader);
    show::line(context, format!("{}: a `{kind}` file", args.file.display()));
    if listing.attributes.iter().any(|(name, _)| name == "synthetic") {
        show::line(context, "SYNTHETIC: generated data, no real images");
    }
    show::line(context, "");
    let mut attributes = show::table(&["attribute", "value"]);
    attributes.column_mut(1).into_iter().for_each(left_aligned);
    for (name, value) in &listing.attributes {
        attributes.add_row([name.clone(), import::visible(value)]);
    }
    show::line(context, attributes);
    show::line(context, "");
    let mut datasets = show::table(&["dataset", "shape", "type", "size"]);
    for entry in &listing.datasets {
        let shape: Vec<_> = entry.shape.iter().map(usize::to_string).collect();
        datasets.add_row([
            entry.name.clone(),
            shape.join(" x "),
            entry.element.clone(),
            show::bytes(entry.bytes),
        ]);
    }
    show::line(context, datasets);
    if kind == "documents" {
        show::line(context, "");
        tokenize::summarise(&Documents::load(&args.file)?, context);
    }
    if kind == "corpus" {
        show::line(context, "");
        let corpus = Corpus::load(&args.file)?;
        import::summarise(&corpus, context);
        show::line(context, "");
        import::print_oddities(&corpus.oddities, args.oddities, context);
    }
    Ok(Ok(()))
}

fn left_aligned(column: &mut comfy_table::Column) {
    column.set_cell_alignment(comfy_table::CellAlignment::Left);
}

/// Prints the top level of a JSON file.
fn json(path: &Path, context: &Context) -> Result<(), Refused> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(e) => return refuse(path, format!("cannot be read ({e})")),
    };
    let value: serde_json::Value = match serde_json::from_slice(&text) {
        Ok(value) => value,
        Err(e) => return refuse(path, format!("is no JSON ({e}); is it complete?")),
    };
    let Some(object) = value.as_object() else {
        return refuse(path, "holds no JSON object");
    };
    let kind = object.get(h5::FORMAT_ATTRIBUTE).or_else(|| object.get("kind")).and_then(|k| k.as_str());
    match kind {
        Some(kind) => show::line(context, format!("{}: a `{kind}` file (JSON)", path.display())),
        None => show::line(context, format!("{}: a JSON file, kind not stated", path.display())),
    }
    let mut table = show::table(&["field", "value"]);
    table.column_mut(1).into_iter().for_each(left_aligned);
    for (name, value) in object {
        table.add_row([name.clone(), brief(value)]);
    }
    show::line(context, table);
    Ok(())
}

fn brief(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Array(items) => format!("a list of {}", items.len()),
        serde_json::Value::Object(fields) => {
            let names: Vec<_> = fields.keys().take(6).map(String::as_str).collect();
            let more = if fields.len() > names.len() { ", ..." } else { "" };
            format!("{{{}{more}}}", names.join(", "))
        }
        other => other.to_string().chars().take(72).collect(),
    }
}
