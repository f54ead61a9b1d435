//! `stratigraph classify`.

use super::{Code, Context, show};
use crate::corpus::{Corpus, Error};
use crate::h5;
use crate::report;
use crate::rootfs::Bases;
use crate::rootfs::bases::{ChainIndex, read_guts};
use crate::rootfs::classify::{
    Answer, Calibration, Classifier, StudyCheck, StudyEntry, Summary, by_evidence, by_results,
};
use crate::rootfs::results::{KIND as ROOTFS, Results};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Tell which base each image is built on: as published, by evidence, by likeness
///
/// From a corpus (.h5) comes the answer by evidence: the longest chain of layers shared with a known
/// base, from the configs alone. From path sets (container-guts JSON files or an archive of them, as
/// for `stratigraph bases`) come the study's score, bit for bit, and the likeness: with a confidence,
/// the runner-up, the paths that decided, and the right to say "none of these". From a campaign of
/// `stratigraph rootfs` (`rootfs.h5`) come all three for each image.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// A campaign or a corpus (.h5), or path sets (.json, a directory, .tar, .tar.gz, .tar.zst)
    #[arg(value_name = "INPUT", required = true)]
    inputs: Vec<PathBuf>,

    /// The base database (from `stratigraph bases`) [default: for a corpus, the official images in it]
    #[arg(long, value_name = "BASES")]
    bases: Option<PathBuf>,

    /// Add to every path set the six files that `docker export` adds, as in the study
    #[arg(long)]
    docker_export_artefacts: bool,

    /// The study's `container-guts-image-bases.json`, to be compared with the evidence
    #[arg(long, value_name = "FILE")]
    study: Option<PathBuf>,

    /// Write everything as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Print the answers of the first N images
    #[arg(long, value_name = "N", default_value_t = 20)]
    show: usize,
}

/// What `--json` writes.
#[derive(Serialize)]
struct Outcome<'a> {
    kind: &'static str,
    program_version: &'static str,
    inputs: Vec<String>,
    bases: Vec<String>,
    docker_export_artefacts: bool,
    summary: &'a Summary,
    #[serde(skip_serializing_if = "Option::is_none")]
    study: Option<&'a StudyCheck>,
    images: &'a [Answer],
}

/// Runs the command; rank 0 does the work.
pub fn run(args: &Args, context: &Context) -> anyhow::Result<Code> {
    if !context.world.is_root() {
        return Ok(Code::Done);
    }
    let mut steps = show::Steps::begin();
    let study = args.study.as_deref().map(read_study).transpose()?;
    let known = args.bases.as_deref().map(Bases::load).transpose()?;
    let mut answers = Vec::new();
    let mut sources = known.as_ref().map_or_else(Vec::new, |bases| bases.provenance.sources.clone());
    for (i, input) in args.inputs.iter().enumerate() {
        let place = input.canonicalize().ok();
        if place.is_some() && args.inputs[..i].iter().any(|other| other.canonicalize().ok() == place) {
            return Err(refused(input, "is given twice, and its images would count twice".into()).into());
        }
        let is_hdf5 = input.extension().is_some_and(|extension| extension == "h5");
        let kind = if is_hdf5 { h5::Reader::open_any(input)?.kind() } else { None };
        if kind.as_deref() == Some(ROOTFS) {
            let bases =
                database(known.as_ref(), input, |bases| bases.bases.is_empty() && bases.chains.is_empty())?;
            let results = Results::read(input)?;
            steps.mark("read");
            let classifier = Classifier::new(bases, Calibration::default());
            let found = by_results(&results, bases, &classifier, args.docker_export_artefacts);
            answers.extend(found.map_err(|e| refused(input, e.to_string()))?);
            steps.mark("score");
        } else if is_hdf5 {
            let corpus = Corpus::load(input)?;
            steps.mark("read");
            let own;
            let chains = match known.as_ref().map(|bases| &bases.chains).filter(|chains| !chains.is_empty()) {
                Some(chains) => chains,
                None => {
                    let about = &corpus.provenance;
                    sources.push(format!("corpus {} sha256:{}", about.source, about.source_sha256));
                    own = Bases::new(
                        Vec::new(),
                        crate::rootfs::bases::official_chains(&corpus, &[]),
                        Default::default(),
                    )?;
                    &own.chains
                }
            };
            answers.extend(by_evidence(&corpus, &ChainIndex::new(chains)));
            steps.mark("evidence");
        } else {
            let bases = database(known.as_ref(), input, |bases| bases.bases.is_empty())?;
            let classifier = Classifier::new(bases, Calibration::default());
            let images = read_guts(input)?;
            steps.mark("read");
            let mut tally = classifier.model.tally();
            for image in images.bases {
                let mut set = bases.set_of(image.paths.iter().map(Vec::as_slice));
                if args.docker_export_artefacts {
                    set = classifier.with_export_artefacts(&set);
                }
                let found = classifier.classify(&set, &mut tally);
                answers.push(Answer::by_paths(image.name, &classifier, found));
            }
            steps.mark("score");
        }
    }
    let summary = Summary::new(&answers);
    let check = study.map(|study| StudyCheck::new(&study, &answers));
    if args.show > 0 {
        show::line(context, report::answers_text(&answers, args.show));
        show::line(context, "");
    }
    show::line(context, report::classification_text(&summary));
    if let Some(check) = &check {
        show::line(context, "");
        show::line(context, report::study_text(check));
    }
    if let Some(path) = &args.json {
        let outcome = Outcome {
            kind: "classification",
            program_version: env!("CARGO_PKG_VERSION"),
            inputs: args.inputs.iter().map(|input| input.display().to_string()).collect(),
            bases: sources,
            docker_export_artefacts: args.docker_export_artefacts,
            summary: &summary,
            study: check.as_ref(),
            images: &answers,
        };
        report::write_json(path, &outcome)?;
        steps.mark("write");
        show::line(context, format!("\nanswers: {}", path.display()));
    }
    show::line(context, steps.summary());
    Ok(Code::Done)
}

/// The database, which must hold what an input is compared with.
fn database<'a>(
    known: Option<&'a Bases>,
    input: &Path,
    lacks: impl Fn(&Bases) -> bool,
) -> Result<&'a Bases, Error> {
    known.filter(|bases| !lacks(bases)).ok_or_else(|| {
        let reason = "path sets are compared with a base database; give one by --bases (made by \
                      `stratigraph bases`)";
        refused(input, reason.into())
    })
}

fn refused(input: &Path, reason: String) -> Error {
    Error::Source { path: input.to_owned(), reason }
}

fn read_study(path: &Path) -> Result<BTreeMap<String, StudyEntry>, Error> {
    let refuse = |reason: String| Error::Source { path: path.to_owned(), reason };
    let text = std::fs::read(path).map_err(|e| refuse(format!("cannot be read ({e})")))?;
    serde_json::from_slice(&text).map_err(|e| {
        refuse(format!("is not the study's list of image bases, {{repository: {{base_image, score}}}} ({e})"))
    })
}
