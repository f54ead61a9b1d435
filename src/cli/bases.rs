//! `stratigraph bases`.

use super::{Code, Context, show};
use crate::corpus::Corpus;
use crate::report;
use crate::rootfs::bases::{Bases, Chain, NewBase, Provenance, official_chains, read_guts};
use std::path::{Path, PathBuf};

/// Make or extend the database of known base images
///
/// Sources are path sets in the format of container-guts (JSON files, a directory or an archive of
/// them) and corpora (`corpus.h5`): from a corpus come the layer chains of all images in official
/// repositories of distributions, under whatever name they were crawled. Without sources, shows what
/// the database given by --add holds.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Path sets (.json, a directory, .tar, .tar.gz, .tar.zst) or a corpus (.h5)
    #[arg(value_name = "SOURCE")]
    sources: Vec<PathBuf>,

    /// The database to write
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Begin with what this database holds; --output may be the same file
    #[arg(long, value_name = "BASES")]
    add: Option<PathBuf>,

    /// Take this repository of a corpus as official, too
    #[arg(long, value_name = "FAMILY=REPOSITORY", value_parser = official)]
    official: Vec<(String, String)>,

    /// Write what the database holds as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn official(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((family, repository)) if !family.is_empty() && !repository.is_empty() => {
            Ok((family.to_owned(), repository.to_owned()))
        }
        _ => Err("give FAMILY=REPOSITORY, such as debian=registry.example.org/mirror/debian".into()),
    }
}

/// Runs the command; rank 0 does the work.
pub fn run(args: &Args, context: &Context) -> anyhow::Result<Code> {
    if !context.world.is_root() {
        return Ok(Code::Done);
    }
    if args.sources.is_empty() && args.add.is_none() {
        eprintln!("stratigraph: no source; give path sets or a corpus, or --add BASES to show a database");
        return Ok(Code::Usage);
    }
    let mut steps = show::Steps::begin();
    let old = match &args.add {
        Some(path) => Bases::load(path)?,
        None => Bases::new(Vec::new(), Vec::new(), Provenance::default())?,
    };
    let mut new = Sources::default();
    for source in &args.sources {
        new.read(source, &args.official, context)?;
    }
    steps.mark("read");
    let bases = old.with(new.bases, new.chains, new.sources)?;
    steps.mark("join");
    if let Some(path) = &args.output {
        bases.save(path)?;
        steps.mark("write");
    }
    if let Some(path) = &args.json {
        report::write_json(path, &listing(&bases))?;
    }
    show::line(context, report::bases_text(&bases));
    if let Some(path) = &args.output {
        show::line(context, format!("\nbases: {}", path.display()));
    }
    show::line(context, steps.summary());
    Ok(Code::Done)
}

#[derive(Default)]
struct Sources {
    bases: Vec<NewBase>,
    chains: Vec<Chain>,
    sources: Vec<String>,
}

impl Sources {
    fn read(&mut self, path: &Path, more: &[(String, String)], context: &Context) -> anyhow::Result<()> {
        if path.extension().is_some_and(|extension| extension == "h5") {
            let corpus = Corpus::load(path)?;
            let chains = official_chains(&corpus, more);
            let about = &corpus.provenance;
            let synthetic = if about.synthetic_seed.is_some() { " SYNTHETIC" } else { "" };
            self.sources.push(format!("corpus {} sha256:{}{synthetic}", about.source, about.source_sha256));
            self.chains.extend(chains);
        } else {
            let guts = read_guts(path)?;
            for skipped in &guts.skipped {
                show::line(context, format!("passed over: {skipped}"));
            }
            self.bases.extend(guts.bases);
            self.sources.push(guts.source);
        }
        Ok(())
    }
}

fn listing(bases: &Bases) -> serde_json::Value {
    let base = |b: &crate::rootfs::bases::Base| {
        serde_json::json!({
            "name": b.name, "family": b.family, "version": b.version, "paths": b.paths.len(),
            "origin": b.origin, "created": b.created,
        })
    };
    let chain = |c: &Chain| serde_json::json!({"kind": c.kind, "family": c.family, "layers": c.ids, "names": c.names});
    serde_json::json!({
        "kind": "bases",
        "sources": bases.provenance.sources,
        "paths": bases.universe.len(),
        "bases": bases.bases.iter().map(base).collect::<Vec<_>>(),
        "chains": bases.chains.iter().map(chain).collect::<Vec<_>>(),
    })
}
