//! `stratigraph accuracy`.

use super::{Code, Context, show};
use crate::report;
use crate::rootfs::Bases;
use crate::rootfs::classify::accuracy::{Options, Packages, measure, score_many, sets};
use crate::rootfs::classify::{Calibration, Classifier};
use std::path::PathBuf;

/// Measure how right the classification by paths is, on images whose base is known
///
/// Makes images from the bases of a database: as they are, with packages added, slimmed, squashed,
/// multi-stage, mixed, without any base, on families and versions that the classifier is not told of.
/// Confidence is fitted on one part of the bases and packages, and everything is measured on the other.
/// The same seed gives the same bits.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The base database (from `stratigraph bases`)
    #[arg(value_name = "BASES")]
    bases: PathBuf,

    /// A Contents index of a Debian distribution, uncompressed (may be given several times); without
    /// one, packages are made from the bases' own paths
    #[arg(long, value_name = "FILE")]
    contents: Vec<PathBuf>,

    /// Images to measure on
    #[arg(long, value_name = "N", default_value_t = Options::default().images)]
    images: u64,

    /// Images to fit the confidence on
    #[arg(long, value_name = "N", default_value_t = Options::default().tuning)]
    tuning: u64,

    /// Seed of all draws
    #[arg(long, value_name = "S", default_value_t = Options::default().seed)]
    seed: u64,

    /// Measure speed instead: score N path sets, those of 2000 made images again and again
    #[arg(long, value_name = "N")]
    speed: Option<u64>,

    /// Write all of it as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Runs the command; rank 0 does the work.
pub fn run(args: &Args, context: &Context) -> anyhow::Result<Code> {
    if !context.world.is_root() {
        return Ok(Code::Done);
    }
    let mut steps = show::Steps::begin();
    let bases = Bases::load(&args.bases)?;
    let families = bases.families();
    if families < 2 {
        let reason = format!("has path sets of {families} families; at least two can be told apart");
        return Err(crate::rootfs::bases::Error::Source { path: args.bases.clone(), reason }.into());
    }
    let packages = match args.contents.as_slice() {
        [] => Packages::make(&bases.universe, args.seed),
        files => Packages::read(files, &bases.universe).map_err(|e| {
            let path = files[0].clone();
            crate::rootfs::bases::Error::Source { path, reason: format!("cannot be used ({e})") }
        })?,
    };
    steps.mark("read");
    if let Some(count) = args.speed {
        return speed(&bases, &packages, args.seed, count, context);
    }
    let options = Options { seed: args.seed, images: args.images, tuning: args.tuning };
    let progress = show::Progress::begin(context, "accuracy", args.images + args.tuning, "images");
    let heartbeat = context.world.heartbeat();
    let report = |done| {
        progress.set(done);
        heartbeat();
    };
    let accuracy = measure(&bases, &packages, options, &report);
    drop(progress);
    steps.mark("measure");
    show::line(context, report::accuracy_text(&accuracy));
    if let Some(path) = &args.json {
        report::write_json(path, &accuracy)?;
    }
    show::line(context, steps.summary());
    Ok(Code::Done)
}

fn speed(
    bases: &Bases,
    packages: &Packages,
    seed: u64,
    count: u64,
    context: &Context,
) -> anyhow::Result<Code> {
    let sets = sets(bases, packages, seed, 2000);
    let paths: u64 = sets.iter().map(roaring::RoaringBitmap::len).sum();
    let begun = std::time::Instant::now();
    let classifier = Classifier::new(bases, Calibration::default());
    let answered = score_many(&classifier, &sets, count);
    let seconds = begun.elapsed().as_secs_f64();
    show::print(format!(
        "{} path sets of {} paths on average against {} bases: {seconds:.2} s, {} answered, {} threads",
        show::count(count),
        paths / sets.len().max(1) as u64,
        bases.bases.len(),
        show::count(answered),
        rayon::current_num_threads(),
    ));
    context.world.barrier();
    Ok(Code::Done)
}
