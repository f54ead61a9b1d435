//! `stratigraph export`.

use super::choice::Choice;
use super::claim::keep_apart;
use super::{Code, Context, show};
use crate::corpus::{Corpus, Rows};
use crate::report::replace_file;
use std::path::PathBuf;

/// Write the manifest table for other tools: CSV, SQLite
///
/// One row per image and layer, with the study's columns: id, full_uri, uri, tag, layer_number,
/// architecture, digest, os, size, schema_version, category, created_at. In SQLite the table is
/// called `manifests`.
#[derive(Debug, Clone, clap::Args)]
#[command(group(clap::ArgGroup::new("format").required(true).multiple(true)))]
pub struct Args {
    /// The corpus (from `stratigraph import` or `synth`)
    #[arg(value_name = "CORPUS")]
    corpus: PathBuf,

    /// Write CSV
    #[arg(long, value_name = "FILE", group = "format")]
    csv: Option<PathBuf>,

    /// Write a SQLite database
    #[arg(long, value_name = "FILE", group = "format")]
    sqlite: Option<PathBuf>,

    #[command(flatten)]
    choice: Choice,
}

/// Runs the command; rank 0 does the work.
pub fn run(args: &Args, context: &Context) -> anyhow::Result<Code> {
    keep_apart(context, &args.corpus, args.csv.iter().chain(&args.sqlite))?;
    if context.world.is_root() {
        let mut steps = show::Steps::begin();
        let corpus = Corpus::load(&args.corpus)?;
        let table = args.choice.of_corpus(&corpus)?;
        steps.mark("read");
        let rows = Rows::new(&corpus, &table);
        let written =
            |path: &PathBuf| format!("{}: {} rows", path.display(), show::count(table.digest.len() as u64));
        if let Some(path) = &args.csv {
            replace_file(path, |temporary| {
                let file = std::fs::File::create(temporary)?;
                rows.write_csv(&file)?;
                Ok(file.sync_all()?)
            })?;
            steps.mark("csv");
            show::line(context, written(path));
        }
        if let Some(path) = &args.sqlite {
            replace_file(path, |temporary| Ok(rows.write_sqlite(temporary)?))?;
            steps.mark("sqlite");
            show::line(context, written(path));
        }
        show::line(context, steps.summary());
    }
    context.world.barrier();
    Ok(Code::Done)
}
