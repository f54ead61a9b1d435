//! `stratigraph bases`.

use super::registries::RegistryArgs;
use super::rootfs::{Sources as Places, local, split};
use super::{Code, Context, show};
use crate::corpus::Corpus;
use crate::h5;
use crate::report;
use crate::rootfs::bases::{
    Bases, Chain, Error, Images, NewBase, Provenance, official_chains, read_campaign, read_guts,
};
use crate::rootfs::layer::{Limits, read_layer};
use crate::rootfs::results::{KIND as ROOTFS, Results};
use crate::rootfs::source::{Image, Layer, PlatformChoice};
use crate::rootfs::{Digest, LayerRecord, Universe};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Make or extend the database of known base images
///
/// Sources are path sets in the format of container-guts (JSON files, a directory or an archive of
/// them), corpora (`corpus.h5`) and campaigns of `stratigraph rootfs` (`rootfs.h5`). From a corpus come
/// the layer chains of all images in official repositories of distributions, under whatever name they
/// were crawled; from a campaign all of its images, with all of their paths and their chains. Single
/// images are given by --image. Without sources, shows what the database given by --add holds.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Path sets (.json, a directory, .tar, .tar.gz, .tar.zst), a corpus or a campaign (.h5)
    #[arg(value_name = "SOURCE")]
    sources: Vec<PathBuf>,

    /// The database to write
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Begin with what this database holds; --output may be the same file
    #[arg(long, value_name = "BASES")]
    add: Option<PathBuf>,

    /// Read this image as a base: as for `stratigraph rootfs`, from a registry, `oci:DIR:NAME`,
    /// `docker-archive:FILE:NAME` or `rootfs:DIR`
    #[arg(long, value_name = "IMAGE")]
    image: Vec<String>,

    /// Call the base made of an image so, FAMILY:VERSION or a full name; without it, it has the name of
    /// the image in its registry, layout or archive
    #[arg(long, value_name = "IMAGE=NAME", value_parser = renamed)]
    name: Vec<(String, String)>,

    /// Where a campaign keeps its layers [default: `layers` beside its rootfs.h5]
    #[arg(long, value_name = "DIR")]
    layers: Option<PathBuf>,

    /// Take this repository of a corpus as official, too
    #[arg(long, value_name = "FAMILY=REPOSITORY", value_parser = official)]
    official: Vec<(String, String)>,

    /// Write what the database holds as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    #[command(flatten)]
    registries: RegistryArgs,
}

fn renamed(text: &str) -> Result<(String, String), String> {
    match text.rsplit_once('=') {
        Some((image, name)) if !image.is_empty() && !name.is_empty() => {
            Ok((image.to_owned(), name.to_owned()))
        }
        _ => Err("give IMAGE=NAME, such as oci:mirror:debian-12=docker.io/library/debian:12".into()),
    }
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
    if args.sources.is_empty() && args.image.is_empty() && args.add.is_none() {
        eprintln!(
            "stratigraph: no source; give path sets, a corpus, a campaign or --image, or --add BASES to show \
             a database"
        );
        return Ok(Code::Usage);
    }
    let mut steps = show::Steps::begin();
    refuse_idle_options(args)?;
    let old = match &args.add {
        Some(path) => Bases::load(path)?,
        None => Bases::new(Vec::new(), Vec::new(), Provenance::default())?,
    };
    let mut new = Sources::default();
    for source in &args.sources {
        new.read(source, args, context)?;
    }
    new.images(args, context)?;
    steps.mark("read");
    if let Some((name, _)) = args.name.iter().find(|(name, _)| !new.named.contains(name)) {
        return Err(refuse(format!("--name {name}=...: no image of that name was read")));
    }
    let bases = old.with(new.bases, new.chains, new.sources)?;
    let copies = bases.copies();
    for (copy, of) in &copies {
        let [copy, of] = [copy, of].map(|i| &bases.bases[*i].name);
        show::line(
            context,
            format!("passed over: {copy} has exactly the paths of {of}, whose name answers will give"),
        );
    }
    let named: Vec<&String> = copies.iter().map(|(copy, _)| &bases.bases[*copy].name).collect();
    let bases = if copies.is_empty() { bases } else { bases.retain(|base| !named.contains(&&base.name)) };
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
    Ok(if new.lost { Code::DoneWithLosses } else { Code::Done })
}

fn refuse(reason: String) -> anyhow::Error {
    crate::pairs::Error::Refused(reason).into()
}

/// True for an HDF5 file with the results of a campaign.
fn is_campaign(path: &Path) -> Result<bool, h5::Error> {
    Ok(h5::Reader::open_any(path)?.kind().as_deref() == Some(ROOTFS))
}

/// Options that could do nothing are mistakes.
fn refuse_idle_options(args: &Args) -> anyhow::Result<()> {
    let mut kinds = Vec::new();
    for source in args.sources.iter().filter(|source| source.extension().is_some_and(|e| e == "h5")) {
        kinds.push(is_campaign(source)?);
    }
    if args.layers.is_some() && !kinds.contains(&true) {
        return Err(refuse("--layers is of a campaign (rootfs.h5), and none is given".into()));
    }
    if !args.official.is_empty() && !kinds.contains(&false) {
        return Err(refuse("--official is of a corpus (corpus.h5), and none is given".into()));
    }
    Ok(())
}

#[derive(Default)]
struct Sources {
    bases: Vec<NewBase>,
    chains: Vec<Chain>,
    sources: Vec<String>,
    /// Images that were read.
    named: BTreeSet<String>,
    /// Whether something that was asked for is passed over.
    lost: bool,
}

impl Sources {
    fn read(&mut self, path: &Path, args: &Args, context: &Context) -> anyhow::Result<()> {
        if path.extension().is_none_or(|extension| extension != "h5") {
            let guts = read_guts(path)?;
            tell(&guts.skipped, context);
            self.bases.extend(guts.bases);
            self.sources.push(guts.source);
        } else if is_campaign(path)? {
            let results = Results::read(path)?;
            let beside = path.with_file_name("layers");
            let images = read_campaign(&results, args.layers.as_ref().unwrap_or(&beside), args.names())?;
            let universe = Digest(results.universe.identity());
            let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
            let count = images.bases.len();
            self.named.extend(results.images.iter().map(|image| image.reference.clone()));
            self.sources.push(format!("campaign {name} universe {universe} ({count} bases)"));
            self.take(images, context);
        } else {
            let corpus = Corpus::load(path)?;
            let chains = official_chains(&corpus, &args.official);
            let about = &corpus.provenance;
            let synthetic = if about.synthetic_seed.is_some() { " SYNTHETIC" } else { "" };
            self.sources.push(format!("corpus {} sha256:{}{synthetic}", about.source, about.source_sha256));
            self.chains.extend(chains);
        }
        Ok(())
    }

    /// Reads the images of --image, each layer once.
    fn images(&mut self, args: &Args, context: &Context) -> anyhow::Result<()> {
        let asks = args.image.iter().any(|name| local(name).is_none());
        let registries = if asks { args.registries.source(context)?.map(Arc::new) } else { None };
        let places = Places::new(registries);
        let nothing = Universe::new(Vec::new());
        let identity = nothing.identity();
        let mut known: BTreeMap<Digest, Arc<LayerRecord>> = BTreeMap::new();
        for target in
            args.image.iter().map(|name| places.expand(name)).collect::<Result<Vec<_>, _>>()?.concat()
        {
            let (source, inside) = places.open(&target)?;
            let image = source.image(&inside, &PlatformChoice::default())?;
            let image = Image { reference: target.clone(), ..image };
            self.named.insert(target.clone());
            for note in &image.notes {
                show::line(context, format!("note: {target}: {note}"));
            }
            let mut record = |image: &Image, layer: &Layer| {
                if let Some(record) = known.get(&layer.digest) {
                    return Ok(Arc::clone(record));
                }
                let stream = source.open_layer(image, layer, None).map_err(|e| e.to_string())?;
                let record = read_layer(stream, layer, &nothing, &identity, &Limits::default(), false);
                let record = record.map_err(|e| format!("layer {}: {e}", layer.digest))?;
                let record = Arc::new(record);
                known.insert(layer.digest, Arc::clone(&record));
                Ok(record)
            };
            let mut images = Images::default();
            if image.layers.is_empty() {
                return Err(refuse(format!("{target}: has no layers")));
            }
            images
                .add(&image, args.names()(&target), &mut record)
                .map_err(|reason| Error::Source { path: target.clone().into(), reason })?;
            if let Some(reason) = images.skipped.first() {
                return Err(refuse(reason.clone()));
            }
            self.sources.extend(images.bases.iter().map(|base| base.origin.clone()));
            self.take(images, context);
        }
        Ok(())
    }

    fn take(&mut self, images: Images, context: &Context) {
        tell(&images.skipped, context);
        self.lost |= !images.skipped.is_empty();
        self.bases.extend(images.bases);
        self.chains.extend(images.chains);
    }
}

impl Args {
    /// The name of the base made of an image.
    fn names(&self) -> impl Fn(&str) -> String {
        |image| {
            let given = self.name.iter().find(|(of, _)| of == image);
            given.map_or_else(|| name_inside(image), |(_, name)| name.clone())
        }
    }
}

/// What an image is called in its place on this machine, if it has a name there.
fn name_inside(image: &str) -> String {
    let inside = match local(image) {
        Some(("rootfs", directory)) => directory.trim_end_matches('/').rsplit('/').next().map(str::to_owned),
        Some((_, rest)) => split(image, rest).ok().map(|(_, name)| name),
        None => None,
    };
    inside.filter(|name| !name.is_empty()).unwrap_or_else(|| image.to_owned())
}

fn tell(skipped: &[String], context: &Context) {
    for skipped in skipped {
        show::line(context, format!("passed over: {skipped}"));
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
        "paths": bases.listed().len(),
        "bases": bases.bases.iter().map(base).collect::<Vec<_>>(),
        "chains": bases.chains.iter().map(chain).collect::<Vec<_>>(),
    })
}
