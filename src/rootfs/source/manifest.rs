//! Manifests, indexes and configs (OCI image specification v1.1; Docker image manifest v2 schema 2)
//! to an [`Image`]. The same for every source that has such documents.

use super::{Digest, Error, History, Image, Layer, Platform, PlatformChoice, Result};
use crate::rootfs::toc::Toc;
use serde::Deserialize;
use std::collections::BTreeMap;

/// A source that keeps documents by digest.
pub(super) trait Documents {
    /// A name for messages.
    fn place(&self) -> &str;

    /// The manifest with this digest.
    fn manifest(&self, digest: &Digest) -> Result<Vec<u8>>;

    /// The config with this digest.
    fn config(&self, digest: &Digest) -> Result<Vec<u8>>;
}

/// How deep indexes may point at indexes.
const DEPTH: usize = 3;

/// Annotations and labels that say where an image came from.
const TOLD_PREFIX: &str = "org.opencontainers.";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawManifest {
    #[serde(default)]
    schema_version: u64,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

/// A content descriptor (OCI image specification, "Descriptors").
#[derive(Deserialize, Clone)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    pub(super) media_type: String,
    pub(super) digest: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    urls: Option<Vec<String>>,
    #[serde(default)]
    platform: Option<RawPlatform>,
    #[serde(default)]
    pub(super) annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize, Clone, Default)]
#[serde(default)]
struct RawPlatform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

impl RawPlatform {
    fn platform(self) -> Platform {
        let variant = self.variant.unwrap_or_default();
        Platform { os: self.os, architecture: self.architecture, variant }
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawConfig {
    created: Option<String>,
    rootfs: RawRootfs,
    history: Option<Vec<RawHistory>>,
    config: Option<RawRun>,
    #[serde(flatten)]
    platform: RawPlatform,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawRootfs {
    diff_ids: Option<Vec<String>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawHistory {
    created_by: Option<String>,
    empty_layer: bool,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawRun {
    #[serde(rename = "Labels")]
    labels: Option<BTreeMap<String, Option<String>>>,
}

/// The image that `first`, a manifest or an index, stands for on the chosen platform.
///
/// # Errors
/// [`Error::Unsupported`] for schema 1, artifacts that are no images, and indexes without a platform
/// that will do; [`Error::Damaged`] for documents that are no such thing or not what their digest
/// says.
pub(super) fn image(
    documents: &impl Documents,
    reference: &str,
    first: &[u8],
    choice: &PlatformChoice,
) -> Result<Image> {
    let place = if reference.is_empty() { documents.place() } else { reference };
    let mut notes = Vec::new();
    let mut bytes = first.to_vec();
    for depth in 0..=DEPTH {
        let manifest = parse(place, &bytes)?;
        let Some(entries) = manifest.manifests else {
            let mut image = describe(documents, reference, place, &bytes, manifest, notes)?;
            // An image that no index led to was not chosen yet.
            if depth == 0
                && let Some(note) = unwanted(place, image.platform.as_ref(), choice)?
            {
                image.notes.push(note);
            }
            return Ok(image);
        };
        let (digest, note) = choose(place, &entries, choice)?;
        notes.extend(note);
        bytes = documents.manifest(&digest)?;
        check(place, "manifest", &digest, &bytes)?;
    }
    Err(damaged(place, format!("its indexes point at indexes more than {DEPTH} deep")))
}

/// The entries of an index document.
pub(super) fn entries(place: &str, bytes: &[u8]) -> Result<Vec<Descriptor>> {
    parse(place, bytes)?.manifests.ok_or_else(|| damaged(place, "is no index".into()))
}

fn parse(place: &str, bytes: &[u8]) -> Result<RawManifest> {
    let manifest: RawManifest = serde_json::from_slice(bytes)
        .map_err(|e| damaged(place, format!("the manifest cannot be read: {e}")))?;
    if manifest.schema_version == 1 {
        return Err(unsupported(
            place,
            "has a manifest of schema 1, which names no config and no sizes; push the image again with a newer tool",
        ));
    }
    Ok(manifest)
}

fn fits(wanted: &Platform, has: &Platform) -> bool {
    wanted.os == has.os
        && wanted.architecture == has.architecture
        && (wanted.variant.is_empty() || wanted.variant == has.variant)
}

/// A note if the platform of a lone image is known and none of the wanted ones; an error if that is not
/// to be.
fn unwanted(place: &str, has: Option<&Platform>, choice: &PlatformChoice) -> Result<Option<String>> {
    let suits =
        |has: &Platform| choice.wanted.is_empty() || choice.wanted.iter().any(|wanted| fits(wanted, has));
    let Some(has) = has.filter(|has| !suits(has)) else { return Ok(None) };
    if choice.fallback {
        return Ok(Some(format!("none of the wanted platforms; it is of {has}")));
    }
    Err(unsupported(place, &format!("is of {has}, which is none of the wanted platforms")))
}

/// The digest of the best entry, and a note if it is not what was wanted.
fn choose(place: &str, entries: &[Descriptor], choice: &PlatformChoice) -> Result<(Digest, Option<String>)> {
    let images: Vec<(&Descriptor, Platform)> = entries
        .iter()
        .filter(|e| !is_attestation(e))
        .map(|e| (e, e.platform.clone().unwrap_or_default().platform()))
        .collect();
    let best = choice.wanted.iter().find_map(|w| images.iter().find(|(_, has)| fits(w, has)));
    let digest = |e: &Descriptor| digest(place, &e.digest);
    if let Some((entry, _)) = best {
        return Ok((digest(entry)?, None));
    }
    match images.first() {
        // A lone entry that names no platform is no choice at all.
        Some((entry, has)) if images.len() == 1 && has.os.is_empty() => Ok((digest(entry)?, None)),
        Some((entry, has)) if choice.fallback => {
            Ok((digest(entry)?, Some(format!("none of the wanted platforms; {has} was taken"))))
        }
        _ => {
            let has: Vec<String> = images.iter().map(|(_, p)| p.to_string()).collect();
            Err(unsupported(place, &format!("has none of the wanted platforms, only [{}]", has.join(", "))))
        }
    }
}

/// BuildKit puts attestations into the index as entries of an unknown platform.
fn is_attestation(entry: &Descriptor) -> bool {
    let unknown = entry.platform.as_ref().is_some_and(|p| p.os == "unknown" && p.architecture == "unknown");
    unknown || entry.annotations.as_ref().is_some_and(|a| a.contains_key("vnd.docker.reference.type"))
}

fn describe(
    documents: &impl Documents,
    reference: &str,
    place: &str,
    bytes: &[u8],
    manifest: RawManifest,
    mut notes: Vec<String>,
) -> Result<Image> {
    let (Some(config), Some(descriptors)) = (manifest.config, manifest.layers) else {
        return Err(match manifest.artifact_type {
            Some(kind) => unsupported(place, &format!("is an artifact of type {kind}, not an image")),
            None => damaged(place, "the manifest names no config or no layers".into()),
        });
    };
    if !is_image_config(&config.media_type) {
        let kind = config.media_type;
        return Err(unsupported(
            place,
            &format!("is an artifact with a config of type {kind}, not an image"),
        ));
    }
    let config_digest = digest(place, &config.digest)?;
    let text = documents.config(&config_digest)?;
    check(place, "config", &config_digest, &text)?;
    let known = from_config(place, &text)?;
    let diff_ids = &known.diff_ids;
    let aligned = diff_ids.len() == descriptors.len();
    if !aligned {
        let (layers, ids) = (descriptors.len(), diff_ids.len());
        notes.push(format!("{layers} layers but {ids} diff_ids; the layers' contents are not checked"));
    }
    let layers = (0..)
        .zip(descriptors)
        .map(|(i, layer): (usize, Descriptor)| {
            Ok(Layer {
                digest: digest(place, &layer.digest)?,
                size: layer.size,
                unreadable: unreadable(&layer),
                toc: layer.annotations.as_ref().and_then(Toc::from_annotations),
                media_type: layer.media_type,
                diff_id: aligned.then(|| diff_ids[i]),
            })
        })
        .collect::<Result<_>>()?;
    // An annotation of the manifest is nearer to the image than a label, which children inherit.
    let mut told: BTreeMap<String, String> = known.annotations.into_iter().collect();
    told.extend(manifest.annotations.unwrap_or_default());
    told.retain(|key, _| key.starts_with(TOLD_PREFIX));
    Ok(Image {
        reference: reference.to_owned(),
        digest: Some(Digest::of(bytes)),
        annotations: told.into_iter().collect(),
        layers,
        notes,
        ..known
    })
}

/// The parts of an image that its config alone tells, for sources without manifests.
pub(super) fn from_config(place: &str, text: &[u8]) -> Result<Image> {
    let config: RawConfig = serde_json::from_slice(text)
        .map_err(|e| damaged(place, format!("the config cannot be read: {e}")))?;
    let diff_ids = config.rootfs.diff_ids.unwrap_or_default();
    let labels = config.config.and_then(|c| c.labels).unwrap_or_default();
    let labels = labels.into_iter().filter_map(|(key, value)| Some((key, value?)));
    let platform = config.platform.platform();
    Ok(Image {
        config: Some(Digest::of(text)),
        platform: (!platform.os.is_empty()).then_some(platform),
        created: config.created.unwrap_or_default(),
        diff_ids: diff_ids.iter().map(|d| digest(place, d)).collect::<Result<_>>()?,
        history: history(config.history),
        annotations: labels.filter(|(key, _)| key.starts_with(TOLD_PREFIX)).collect(),
        ..Image::default()
    })
}

fn history(raw: Option<Vec<RawHistory>>) -> Vec<History> {
    let entries = raw.unwrap_or_default().into_iter();
    entries
        .map(|h| History { created_by: h.created_by.unwrap_or_default(), empty_layer: h.empty_layer })
        .collect()
}

fn is_image_config(media_type: &str) -> bool {
    matches!(
        media_type,
        "" | "application/vnd.oci.image.config.v1+json" | "application/vnd.docker.container.image.v1+json"
    )
}

/// Why a layer is not to be read from where the image is: it is distributed elsewhere, or no tar.
fn unreadable(layer: &Descriptor) -> Option<String> {
    let kind = layer.media_type.as_str();
    if kind.contains("foreign") || kind.contains("nondistributable") {
        let from = layer.urls.as_ref().and_then(|u| u.first()).map(|u| format!(" from {u}"));
        return Some(format!("a foreign layer, distributed elsewhere{}", from.unwrap_or_default()));
    }
    if kind.ends_with("+encrypted") {
        return Some(format!("an encrypted layer ({kind})"));
    }
    (!kind.is_empty() && !kind.contains(".tar")).then(|| format!("no tar archive ({kind})"))
}

/// A digest as given in a document.
pub(super) fn digest(place: &str, text: &str) -> Result<Digest> {
    text.parse().map_err(|e| damaged(place, format!("{e}")))
}

/// Refuses bytes that are not what their digest says.
pub(super) fn check(place: &str, what: &str, expected: &Digest, bytes: &[u8]) -> Result<()> {
    match Digest::of(bytes) {
        found if found == *expected => Ok(()),
        found => Err(damaged(place, format!("the {what}'s digest should be {expected}, but is {found}"))),
    }
}

pub(super) fn damaged(place: &str, reason: String) -> Error {
    Error::Damaged { place: place.to_owned(), reason }
}

pub(super) fn unsupported(place: &str, reason: &str) -> Error {
    Error::Unsupported { place: place.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::collections::HashMap;

    #[derive(Default)]
    struct Shelf(HashMap<Digest, Vec<u8>>);

    impl Shelf {
        fn put(&mut self, document: &Value) -> String {
            let bytes = document.to_string().into_bytes();
            let digest = Digest::of(&bytes);
            self.0.insert(digest, bytes);
            digest.to_string()
        }

        fn image(&self, document: &Value, choice: &PlatformChoice) -> Result<Image> {
            image(self, "lab/tool:1", document.to_string().as_bytes(), choice)
        }
    }

    impl Documents for Shelf {
        fn place(&self) -> &str {
            "shelf"
        }

        fn manifest(&self, digest: &Digest) -> Result<Vec<u8>> {
            let missing = || Error::Missing { place: "shelf".into(), what: digest.to_string() };
            self.0.get(digest).cloned().ok_or_else(missing)
        }

        fn config(&self, digest: &Digest) -> Result<Vec<u8>> {
            self.manifest(digest)
        }
    }

    fn id(n: u8) -> String {
        Digest([n; 32]).to_string()
    }

    fn manifest(shelf: &mut Shelf, architecture: &str) -> Value {
        let config = shelf.put(&json!({
            "os": "linux", "architecture": architecture, "created": "2024-05-01T00:00:00Z",
            "rootfs": {"type": "layers", "diff_ids": [id(1), id(2)]},
            "history": [{"created_by": "ADD file:1"}, {"created_by": "ENV", "empty_layer": true}, {}],
            "config": {"Labels": {"org.opencontainers.image.version": "12", "other": "x", "none": null}},
        }));
        json!({
            "schemaVersion": 2,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 1},
            "layers": [
                {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": id(3), "size": 30},
                {"mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "digest": id(4),
                 "size": 40, "urls": ["https://elsewhere.example/x"]},
            ],
            "annotations": {"org.opencontainers.image.base.name": "debian:12"},
        })
    }

    #[test]
    fn a_lone_image_of_another_platform_is_told_or_refused() {
        let mut shelf = Shelf::default();
        let document = manifest(&mut shelf, "arm64");
        let mut choice = PlatformChoice::default();
        let notes = shelf.image(&document, &choice).unwrap().notes;
        assert_eq!(notes, ["none of the wanted platforms; it is of linux/arm64"]);
        choice.fallback = false;
        let error = shelf.image(&document, &choice).unwrap_err().to_string();
        assert!(error.contains("is of linux/arm64"), "{error}");
        let arm64 = Platform { os: "linux".into(), architecture: "arm64".into(), variant: String::new() };
        choice.wanted.push(arm64);
        assert!(shelf.image(&document, &choice).unwrap().notes.is_empty());
    }

    #[test]
    fn an_image_is_described() {
        let mut shelf = Shelf::default();
        let document = manifest(&mut shelf, "amd64");
        let image = shelf.image(&document, &PlatformChoice::default()).unwrap();
        assert_eq!(image.platform.unwrap().to_string(), "linux/amd64");
        assert_eq!(image.diff_ids, [Digest([1; 32]), Digest([2; 32])]);
        assert_eq!(image.layers[0].diff_id, Some(Digest([1; 32])));
        assert_eq!((image.layers[0].size, &image.layers[0].unreadable), (30, &None));
        assert!(image.layers[1].unreadable.as_ref().unwrap().contains("elsewhere.example"));
        assert_eq!(image.history.len(), 3);
        assert!(image.history[1].empty_layer);
        let told: Vec<_> = image.annotations.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(
            told,
            ["org.opencontainers.image.base.name=debian:12", "org.opencontainers.image.version=12"]
        );
    }

    fn index(shelf: &mut Shelf, architectures: &[&str]) -> Value {
        let mut entries =
            vec![json!({"digest": id(9), "platform": {"os": "unknown", "architecture": "unknown"}})];
        for architecture in architectures {
            let document = manifest(shelf, architecture);
            let digest = shelf.put(&document);
            entries
                .push(json!({"digest": digest, "platform": {"os": "linux", "architecture": architecture}}));
        }
        json!({"schemaVersion": 2, "manifests": entries})
    }

    #[test]
    fn the_wanted_platform_is_taken_else_the_first_that_is_an_image() {
        let mut shelf = Shelf::default();
        let mut choice = PlatformChoice::default();
        let both = index(&mut shelf, &["arm64", "amd64"]);
        let image = shelf.image(&both, &choice).unwrap();
        assert_eq!(image.platform.unwrap().architecture, "amd64");
        assert!(image.notes.is_empty());
        let other = index(&mut shelf, &["ppc64le", "arm64"]);
        let image = shelf.image(&other, &choice).unwrap();
        assert_eq!(image.platform.unwrap().architecture, "ppc64le");
        assert!(image.notes[0].contains("linux/ppc64le was taken"), "{:?}", image.notes);
        choice.fallback = false;
        let error = shelf.image(&other, &choice).unwrap_err().to_string();
        assert!(error.contains("only [linux/ppc64le, linux/arm64]"), "{error}");
        // An index in an index.
        let digest = shelf.put(&both);
        let outer = json!({"schemaVersion": 2, "manifests": [{"digest": digest}]});
        assert_eq!(shelf.image(&outer, &choice).unwrap().platform.unwrap().architecture, "amd64");
    }

    #[test]
    fn what_is_no_image_is_told() {
        let mut shelf = Shelf::default();
        let mut artifact = manifest(&mut shelf, "amd64");
        artifact["config"]["mediaType"] = json!("application/vnd.sylabs.sif.config.v1+json");
        let mut changed = manifest(&mut shelf, "amd64");
        changed["config"]["digest"] = json!(id(7));
        let mut loop_of_indexes = json!({"schemaVersion": 2, "manifests": []});
        for _ in 0..6 {
            let digest = shelf.put(&loop_of_indexes);
            loop_of_indexes = json!({"schemaVersion": 2, "manifests": [{"digest": digest}]});
        }
        for (document, expected) in [
            (json!({"schemaVersion": 1, "fsLayers": []}), "schema 1"),
            (json!({"schemaVersion": 2}), "no config or no layers"),
            (json!({"schemaVersion": 2, "artifactType": "text/x"}), "artifact of type text/x"),
            (json!([1]), "cannot be read"),
            (json!({"schemaVersion": 2, "manifests": []}), "only []"),
            (artifact, "sylabs.sif"),
            (changed, "is not there"),
            (loop_of_indexes, "more than 3 deep"),
        ] {
            let error = shelf.image(&document, &PlatformChoice::default()).unwrap_err().to_string();
            assert!(error.contains(expected), "{document}: {error}");
        }
    }

    #[test]
    fn a_config_that_was_changed_is_refused() {
        let mut shelf = Shelf::default();
        let document = manifest(&mut shelf, "amd64");
        let digest: Digest = document["config"]["digest"].as_str().unwrap().parse().unwrap();
        shelf.0.get_mut(&digest).unwrap().push(b' ');
        let error = shelf.image(&document, &PlatformChoice::default()).unwrap_err().to_string();
        assert!(error.contains("the config's digest should be"), "{error}");
    }
}
