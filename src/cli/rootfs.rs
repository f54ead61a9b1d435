//! `stratigraph rootfs`.

use super::claim::Claim;
use super::registries::RegistryArgs;
use super::show::{self, Progress, Steps};
use super::{Code, Context, limits};
use crate::h5;
use crate::report;
use crate::rootfs::campaign::{Campaign, Failure, Outcome, Round, failed_images};
use crate::rootfs::layer::Limits;
use crate::rootfs::list::{self, List, Skipped, Tags};
use crate::rootfs::results::Results;
use crate::rootfs::source::{
    self, Archive, Image, Layout, Platform, PlatformChoice, Registries, Source, Tree,
};
use crate::rootfs::{Digest, Universe};
use anyhow::{Context as _, bail};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

/// Read the layers of images as streams: which paths of the bases each image has
///
/// IMAGE is the name of an image in a registry (`HOST/REPOSITORY:TAG`, or `HOST/REPOSITORY:*` for all
/// its tags), `oci:DIR` or `oci:DIR:NAME` (an OCI layout), `docker-archive:FILE` or
/// `docker-archive:FILE:NAME` (an archive of `docker save`), or `rootfs:DIR` (a root file system in
/// a directory). Without NAME, all images of the place are taken. What a list names that is no image in a
/// registry (the `gh:` releases of shpc-registry, lines that are no reference) is passed over, counted and
/// told.
///
/// Each distinct layer is read once, whichever images share it, its digests are checked, and nothing
/// is unpacked. What was read is kept in --layers; a campaign that was stopped or killed goes on
/// there, on any number of ranks, and the next campaign starts with it. Writes rootfs.h5 (evidence
/// and path sets of all images) and rootfs.json (counts, and everything that failed or was passed
/// over, with the reason). The same command tries again what failed, and only that.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The images
    #[arg(value_name = "IMAGE")]
    images: Vec<String>,

    /// A list of images: a text file with one a line, or an shpc-registry tree
    #[arg(long, value_name = "PATH")]
    list: Vec<PathBuf>,

    /// Take all tags of an shpc-registry tree, not only the latest
    #[arg(long)]
    all_tags: bool,

    /// The paths to look for: the base database (bases.h5), an earlier rootfs.h5, or a file with one
    /// path a line
    #[arg(long, value_name = "FILE")]
    universe: PathBuf,

    /// Directory for the results; made if it is missing
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,

    /// Directory where layers are kept, for this campaign and others [default: OUTPUT/layers]
    #[arg(long, value_name = "DIR")]
    layers: Option<PathBuf>,

    /// Platforms to take from an index, best first
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", value_delimiter = ',', default_value = "linux/amd64", value_parser = parse_platform)]
    platform: Vec<Platform>,

    /// Refuse images that have none of these platforms, rather than take their first
    #[arg(long)]
    strict_platform: bool,

    /// Largest uncompressed layer; more counts as a decompression bomb
    #[arg(long, value_name = "BYTES", value_parser = limits::parse_size, default_value = "1T")]
    max_layer: u64,

    /// Most entries of a layer
    #[arg(long, value_name = "N", default_value_t = Limits::default().entries)]
    max_entries: u64,

    /// Longest path, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().path_bytes)]
    max_path: usize,

    /// Write all paths of every image (not only those of the universe) to files in this directory, one
    /// path a line
    #[arg(long, value_name = "DIR")]
    paths: Option<PathBuf>,

    /// Read the table of contents of eStargz and zstd:chunked layers instead of the layer. It is checked
    /// against the manifest; the digest of the layer and its diff_id then are not. rootfs.json counts
    /// such layers (toc_only)
    #[arg(long)]
    toc: bool,

    /// Read no layer, only manifests and configs: enough for the answer by evidence. Images whose layers are
    /// kept from earlier campaigns have paths all the same
    #[arg(long, conflicts_with_all = ["toc", "paths"])]
    no_layers: bool,

    /// Ask registries again for images that an earlier run in this directory knows: tags move. What is on
    /// this machine is looked at each time
    #[arg(long)]
    refresh: bool,

    /// Wait after each layer (for tests of restarts)
    #[arg(long, hide = true, env = "STRATIGRAPH_LAYER_DELAY_MS", default_value_t = 0)]
    layer_delay_ms: u64,

    #[command(flatten)]
    registries: RegistryArgs,
}

fn parse_platform(text: &str) -> Result<Platform, String> {
    let mut parts = text.split('/');
    let (os, architecture, variant) = (parts.next(), parts.next(), parts.next().unwrap_or(""));
    match (os, architecture, parts.next()) {
        (Some(os), Some(architecture), None) if !os.is_empty() && !architecture.is_empty() => {
            Ok(Platform { os: os.into(), architecture: architecture.into(), variant: variant.into() })
        }
        _ => Err("write OS/ARCHITECTURE or OS/ARCHITECTURE/VARIANT, such as linux/arm64/v8".into()),
    }
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> anyhow::Result<Code> {
    let mut steps = Steps::begin();
    let universe = read_universe(&args.universe)?;
    let _claim = Claim::take(context, &args.output)?;
    let asks = !args.list.is_empty() || args.images.iter().any(|name| local(name).is_none());
    let registries = if asks { args.registries.source(context)?.map(Arc::new) } else { None };
    let readers = if asks { args.registries.ranks(context) } else { context.world.size() };
    if readers < context.world.size() {
        let idle = context.world.size() - readers;
        show::line(
            context,
            format!("{readers} connections (--connections) for more ranks: {idle} of them read no layers"),
        );
    }
    let sources = Sources::new(registries);
    let Some(Targets { images: targets, passed_over, failures }) = targets(args, context, &sources)? else {
        show::line(context, crate::pairs::Error::Stopped);
        return Ok(Code::Requeue);
    };
    let layers = args.layers.clone().unwrap_or_else(|| args.output.join("layers"));
    let platform = PlatformChoice { wanted: args.platform.clone(), fallback: !args.strict_platform };
    let bars = Bars::new(context);
    let campaign = Campaign {
        universe: &universe,
        targets: &targets,
        open: &|target| sources.open(target),
        again: &|target| args.refresh || local(target).is_some(),
        platform: &platform,
        limits: Limits {
            archive_bytes: args.max_layer,
            entries: args.max_entries,
            path_bytes: args.max_path,
            ..Limits::default()
        },
        read_layers: !args.no_layers,
        toc: args.toc,
        output: &args.output,
        layers: &layers,
        lists: args.paths.as_deref(),
        readers,
        threads: rayon::current_num_threads(),
        stop: context.stop.flag(),
        pause: std::time::Duration::from_millis(args.layer_delay_ms),
        progress: &|round, done, total| bars.set(round, done, total),
    };
    let mut outcome = campaign.run(&context.world)?;
    outcome.failures.extend(failures);
    outcome.failures.sort();
    steps.mark("campaign");
    let code = conclude(args, context, &campaign, outcome, &passed_over, steps)?;
    // All ranks end with the same code.
    let mut shared = [code as u64];
    context.world.max_u64(&mut shared);
    Ok([Code::Done, Code::DoneWithLosses, Code::Requeue]
        .into_iter()
        .find(|c| *c as u64 == shared[0])
        .unwrap_or(Code::Failed))
}

fn conclude(
    args: &Args,
    context: &Context,
    campaign: &Campaign<'_>,
    outcome: Outcome,
    passed_over: &[Skipped],
    mut steps: Steps,
) -> anyhow::Result<Code> {
    show::line(
        context,
        format!(
            "layers: {} distinct, {} read before, {} read now ({}){}",
            show::count(outcome.layers),
            show::count(outcome.found),
            show::count(outcome.read),
            show::bytes(outcome.bytes),
            match outcome.toc_only {
                0 => String::new(),
                n => format!(", {} by their tables of contents alone", show::count(n)),
            },
        ),
    );
    if outcome.stopped {
        show::line(context, crate::pairs::Error::Stopped);
        return Ok(Code::Requeue);
    }
    if !context.world.is_root() {
        return Ok(Code::Done);
    }
    // Of an image that failed as a whole, or is not what it says, nothing counts as known.
    let failed = failed_images(&outcome.failures);
    let images = campaign.known_images()?;
    let unknown = |target: &String| Image { reference: target.clone(), ..Image::default() };
    let images = campaign.targets.iter().zip(images).map(|(target, image)| {
        let named = |image: Image| Image { reference: target.clone(), ..image };
        image.filter(|_| !failed.contains(target.as_str())).map_or_else(|| unknown(target), named)
    });
    let options = serde_json::json!({
        "platform": args.platform.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "strict_platform": args.strict_platform,
        "max_layer": args.max_layer,
        "max_entries": args.max_entries,
        "max_path": args.max_path,
        "toc": args.toc,
        "no_layers": args.no_layers,
    });
    let results = Results {
        universe: Universe::from_parts(
            campaign.universe.bytes().to_vec(),
            campaign.universe.offsets().to_vec(),
        )
        .map_err(anyhow::Error::msg)?,
        images: images.collect(),
        paths: outcome.paths,
        sets: outcome.sets,
    };
    results.write(&args.output.join("rootfs.h5"), &options.to_string())?;
    let with_set = results.paths.iter().filter(|p| p.is_ok()).count();
    let skipped = |image: &&Image| image.layers.iter().any(|l| l.unreadable.is_some());
    let summary = serde_json::json!({
        "kind": "stratigraph rootfs",
        "program_version": env!("CARGO_PKG_VERSION"),
        "universe": Digest(results.universe.identity()).to_string(),
        "universe_paths": results.universe.len(),
        "options": options,
        "images": outcome.targets,
        "images_with_paths": with_set,
        "images_with_skipped_layers": results.images.iter().filter(skipped).count(),
        "distinct_path_sets": results.sets.len(),
        "distinct_layers": outcome.layers,
        "toc_only": outcome.toc_only,
        "failures": outcome.failures,
        "list_entries_passed_over": passed_over.len(),
        "passed_over": passed_over,
    });
    // Last: a directory with this file is complete.
    report::write_json(&args.output.join("rootfs.json"), &summary)?;
    steps.mark("write");
    show::line(
        context,
        format!(
            "images: {} in all, {} with paths, {} distinct path sets",
            show::count(outcome.targets),
            show::count(with_set as u64),
            show::count(results.sets.len() as u64),
        ),
    );
    if outcome.images_found > 0 {
        let known = show::count(outcome.images_found);
        show::line(
            context,
            format!("{known} of them as an earlier run found them (--refresh asks the registries again)"),
        );
    }
    if !passed_over.is_empty() {
        show::line(context, passed_over_text(passed_over));
    }
    for image in results.images.iter().filter(|i| !i.notes.is_empty()) {
        show::line(context, format!("note: {}: {}", image.reference, image.notes.join("; ")));
    }
    for image in results.images.iter() {
        for (layer, why) in image.layers.iter().filter_map(|layer| Some((layer, layer.unreadable.as_ref()?)))
        {
            show::line(
                context,
                format!("note: {}: layer {} is passed over: {why}", image.reference, layer.digest),
            );
        }
    }
    show::line(context, steps.summary());
    for failure in &outcome.failures {
        let layer = failure.layer.as_ref().map(|l| format!(" layer {l}")).unwrap_or_default();
        eprintln!("failed: {}{layer}: {}", failure.image, failure.reason);
    }
    show::line(context, format!("results: {}", args.output.display()));
    let lost = !outcome.failures.is_empty() || passed_over.iter().any(|p| p.kind == list::Kind::Unreadable);
    Ok(if lost { Code::DoneWithLosses } else { Code::Done })
}

/// How many entries of the lists were passed over, by the class of the reason.
fn passed_over_text(passed_over: &[Skipped]) -> String {
    let mut kinds = BTreeMap::<list::Kind, u64>::new();
    for skipped in passed_over {
        *kinds.entry(skipped.kind).or_default() += 1;
    }
    let kinds: Vec<_> = kinds.iter().map(|(kind, n)| format!("{kind} {}", show::count(*n))).collect();
    format!("list entries passed over: {} ({})", show::count(passed_over.len() as u64), kinds.join(", "))
}

fn read_universe(path: &Path) -> anyhow::Result<Universe> {
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    let refuse = |reason: String| crate::pairs::Error::Refused(format!("{}: {reason}", path.display()));
    let universe = if bytes.starts_with(b"\x89HDF\r\n") {
        let file = h5::Reader::open_any(path)?;
        Universe::from_parts(file.array("universe/bytes")?, file.array("universe/offsets")?)
            .map_err(refuse)?
    } else {
        if let Some(what) = no_list(&bytes) {
            bail!(refuse(format!("is {what}, not a list of paths, one a line")));
        }
        let lines = bytes.split(|b| *b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        Universe::new(lines.map(crate::rootfs::paths::normal).filter(|p| !p.is_empty()).collect())
    };
    if universe.is_empty() {
        bail!(refuse("holds no paths".into()));
    }
    Ok(universe)
}

/// What a file is that cannot be a list of paths.
fn no_list(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [b'{' | b'[', ..] => Some("JSON (`stratigraph bases` makes a database of path sets)"),
        bytes if source::is_compressed(bytes) => Some("compressed"),
        bytes if bytes.contains(&0) => Some("a binary file"),
        _ => None,
    }
}

/// What is asked for.
#[derive(Default)]
struct Targets {
    /// All images, each once, in the order given; the same on all ranks.
    images: Vec<String>,
    /// What the lists name that is no image; on rank 0 only.
    passed_over: Vec<Skipped>,
    /// Repositories whose tags could not be had; on rank 0 only.
    failures: Vec<Failure>,
}

/// The same images on all ranks; `None` if a signal came while registries were asked. Collective.
fn targets(args: &Args, context: &Context, sources: &Sources) -> anyhow::Result<Option<Targets>> {
    let (mut targets, mut message) = (Targets::default(), Vec::new());
    if context.world.is_root() {
        targets = match list_targets(args, context, sources) {
            Err(_) if context.stop.flag().load(Ordering::Relaxed) => Targets::default(),
            listed => listed?,
        };
        message = serde_json::to_vec(&targets.images)?;
    }
    context.world.broadcast(&mut message);
    if context.stop.anywhere(&context.world) {
        return Ok(None);
    }
    Ok(Some(Targets { images: serde_json::from_slice(&message)?, ..targets }))
}

fn list_targets(args: &Args, context: &Context, sources: &Sources) -> anyhow::Result<Targets> {
    let Targets { images: mut all, mut passed_over, mut failures } = Targets::default();
    let fail = |image: &str, reason: String| Failure { image: image.to_owned(), layer: None, reason };
    let empty = |image: &str| fail(image, "there are no images there".into());
    for name in &args.images {
        match sources.expand(name)? {
            names if names.is_empty() => failures.push(empty(name)),
            names => all.extend(names),
        }
    }
    let tags = if args.all_tags { Tags::All } else { Tags::Latest };
    for path in &args.list {
        let list = List::read(path, tags)?;
        passed_over.extend(list.skipped);
        for image in list.images {
            if context.stop.flag().load(Ordering::Relaxed) {
                bail!(crate::pairs::Error::Stopped);
            }
            context.world.progress();
            // One odd line, or one repository that is gone, must not end a campaign of thousands.
            match sources.expand(&image.reference) {
                Ok(names) if names.is_empty() => failures.push(empty(&image.reference)),
                Ok(names) => all.extend(names),
                Err(e @ source::Error::Unsupported { .. }) => passed_over.push(Skipped {
                    place: image.place,
                    kind: list::Kind::NoReference,
                    reason: e.beside(&image.reference),
                }),
                Err(e) => failures.push(fail(&image.reference, e.beside(&image.reference))),
            }
        }
    }
    for Skipped { place, reason, .. } in &passed_over {
        eprintln!("skipped: {place}: {reason}");
    }
    let mut seen = HashSet::new();
    all.retain(|target| seen.insert(target.clone()));
    if all.is_empty() {
        let reason = match failures.first() {
            None => "no images: name some, or give --list".into(),
            Some(failure) => format!("no images: {}: {}", failure.image, failure.reason),
        };
        bail!(crate::pairs::Error::Refused(reason));
    }
    Ok(Targets { images: all, passed_over, failures })
}

/// The places that images come from, each opened once.
pub(super) struct Sources {
    open: Mutex<HashMap<String, Arc<dyn Source>>>,
    registries: Option<Arc<Registries>>,
}

impl Sources {
    /// Nothing is opened yet; `registries` is asked for what is not on this machine.
    pub(super) fn new(registries: Option<Arc<Registries>>) -> Self {
        Self { open: Mutex::default(), registries }
    }

    /// A target's source and its name there.
    pub(super) fn open(&self, target: &str) -> source::Result<(Arc<dyn Source>, String)> {
        let Some((kind, rest)) = local(target) else {
            return Ok((Arc::clone(self.registries(target)?) as Arc<dyn Source>, target.to_owned()));
        };
        let (place, name) = split(target, rest)?;
        let key = format!("{kind}:{}", place.display());
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(source) = open.get(&key) {
            return Ok((Arc::clone(source), name));
        }
        let source: Arc<dyn Source> = match kind {
            "oci" => Arc::new(Layout::open(&place)?),
            "docker-archive" => Arc::new(Archive::open(&place)?),
            _ => Arc::new(Tree::open(&place)?),
        };
        open.insert(key, Arc::clone(&source));
        Ok((source, name))
    }

    fn registries(&self, target: &str) -> source::Result<&Arc<Registries>> {
        self.registries.as_ref().ok_or_else(|| source::Error::Unsupported {
            place: target.to_owned(),
            reason: "is in a registry, and none was asked for".into(),
        })
    }

    /// The targets that a name stands for: one, or all images of its place.
    pub(super) fn expand(&self, name: &str) -> source::Result<Vec<String>> {
        let Some((kind, rest)) = local(name) else { return self.registries(name)?.expand(name) };
        let (place, inside) = split(name, rest)?;
        if !inside.is_empty() || kind == "rootfs" {
            return Ok(vec![name.to_owned()]);
        }
        let references = match kind {
            "oci" => Layout::open(&place)?.references(),
            _ => Archive::open(&place)?.references(),
        };
        Ok(references.into_iter().map(|r| format!("{kind}:{}:{r}", place.display())).collect())
    }
}

/// The kind of a place that is on this machine, and what follows it; `None` for an image in a registry.
pub(super) fn local(target: &str) -> Option<(&str, &str)> {
    target.split_once(':').filter(|(kind, _)| matches!(*kind, "oci" | "docker-archive" | "rootfs"))
}

/// `PLACE` or `PLACE:NAME`: the place is the longest one that exists.
pub(super) fn split(target: &str, rest: &str) -> source::Result<(PathBuf, String)> {
    let ends = std::iter::once(rest.len()).chain(rest.rmatch_indices(':').map(|(i, _)| i));
    for end in ends {
        if Path::new(&rest[..end]).exists() {
            return Ok((PathBuf::from(&rest[..end]), rest.get(end + 1..).unwrap_or("").to_owned()));
        }
    }
    Err(source::Error::Missing { place: target.to_owned(), what: "its file or directory".into() })
}

/// A bar for each round.
struct Bars {
    images: Progress,
    layers: Progress,
    paths: Progress,
    lists: Progress,
}

impl Bars {
    fn new(context: &Context) -> Self {
        Self {
            images: Progress::begin(context, "images", 0, "images"),
            layers: Progress::begin(context, "layers", 0, "bytes"),
            paths: Progress::begin(context, "paths", 0, "chains of layers"),
            lists: Progress::begin(context, "lists", 0, "images"),
        }
    }

    fn set(&self, round: Round, done: u64, total: u64) {
        let progress = match round {
            Round::Images => &self.images,
            Round::Layers => &self.layers,
            Round::Paths => &self.paths,
            Round::Lists => &self.lists,
        };
        progress.set_total(total);
        progress.set(done);
    }
}
