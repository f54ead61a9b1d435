//! `stratigraph synth`.

use super::show::{self, Progress, Steps};
use super::{Code, Context, import};
use crate::corpus::{Error, Population, Recipe};
use std::path::{Path, PathBuf};

/// Write a synthetic corpus with the study's marginals, of any size
///
/// By default of the size of the published corpus: 256970 images in 1521 repositories, 528449
/// distinct layer digests, 2872188 layers. These numbers and how often digests are repeated are
/// met exactly; sizes, layers per image and years follow the published percentiles. With --images
/// alone, the other numbers are scaled with it. The same seed gives the same bits.
///
/// The result is labelled as synthetic, and so is everything made of it: the corpus file by its
/// attributes, a directory by its SYNTHETIC.json.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// NAME.h5 for a corpus file, or else a new directory of corpus files for `stratigraph import`
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,

    /// Images (tags) [default: 256970]
    #[arg(long, value_name = "N")]
    images: Option<u64>,

    /// Distinct layer digests [default: 528449, scaled with the images]
    #[arg(long, value_name = "N")]
    digests: Option<u64>,

    /// Layers of all images [default: 2872188, scaled with the images]
    #[arg(long, value_name = "N")]
    rows: Option<u64>,

    /// Repositories, of at most 500 images each [default: 1521, scaled with the images]
    #[arg(long, value_name = "N")]
    repositories: Option<u64>,

    /// Seed of the generator
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,

    /// Add repositories with every oddity of real crawls that loses nothing
    #[arg(long)]
    oddities: bool,

    /// Add repositories that cannot be read whole (import of them ends with exit code 3)
    #[arg(long)]
    losses: bool,
}

impl Args {
    fn recipe(&self) -> Recipe {
        let scaled = Recipe::of_images(self.images.unwrap_or(Recipe::default().images));
        Recipe {
            images: scaled.images,
            repositories: self.repositories.unwrap_or(scaled.repositories),
            digests: self.digests.unwrap_or(scaled.digests),
            rows: self.rows.unwrap_or(scaled.rows),
            seed: self.seed,
            oddities: self.oddities,
            losses: self.losses,
        }
    }
}

/// Runs the command. Rank 0 does it all.
pub fn run(args: &Args, context: &Context) -> anyhow::Result<Code> {
    let recipe = args.recipe();
    recipe.check()?;
    if context.world.is_root() {
        let is_file = args.output.extension().is_some_and(|extension| extension == "h5");
        check_place(&args.output, is_file)?;
        write(&recipe, &args.output, is_file, context)?;
    }
    context.world.barrier();
    Ok(Code::Done)
}

/// Looks where the result shall go before the work begins.
fn check_place(output: &Path, is_file: bool) -> Result<(), Error> {
    let refuse = |reason: &str| Err(Error::Source { path: output.to_owned(), reason: reason.into() });
    if !is_file {
        return Population::check_target(output);
    }
    if output.is_dir() {
        return refuse("is a directory; give a file");
    }
    match output.parent() {
        Some(parent) if !parent.as_os_str().is_empty() && !parent.is_dir() => {
            refuse("is in a directory that does not exist; make it first")
        }
        _ => Ok(()),
    }
}

fn write(recipe: &Recipe, output: &Path, is_file: bool, context: &Context) -> anyhow::Result<()> {
    let mut steps = Steps::begin();
    let population = Population::new(recipe)?;
    steps.mark("draw");
    let progress = Progress::begin(context, "synth", 0, "files");
    let heartbeat = context.world.heartbeat();
    heartbeat();
    let report = |done, total| {
        progress.set_total(total);
        progress.set(done);
        heartbeat();
    };
    if is_file {
        let corpus = population.corpus(&report);
        drop(population);
        steps.mark("fill");
        corpus.save(output)?;
        steps.mark("write");
        drop(progress);
        import::summarise(&corpus, context);
        show::line(context, "");
        import::print_oddities(&corpus.oddities, 0, context);
        show::line(context, format!("corpus: {}", output.display()));
    } else {
        population.write(output, &report)?;
        steps.mark("write");
        drop(progress);
        show::line(context, format!("SYNTHETIC corpus (seed {}): generated, no real images", recipe.seed));
        let mut table = show::table(&["corpus", ""]);
        let counts = [
            ("repositories", recipe.repositories),
            ("images", recipe.images),
            ("  their layers", recipe.rows),
            ("distinct digests", recipe.digests),
        ];
        for (name, n) in counts {
            table.add_row([name.to_owned(), show::count(n)]);
        }
        show::line(context, table);
        show::line(context, "");
        show::line(context, format!("crawl: {}", output.display()));
    }
    show::line(context, steps.summary());
    Ok(())
}
