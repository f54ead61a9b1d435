//! Real images as bases: paths and layer chains at once, from the results of a campaign
//! (`rootfs.h5`) and the layers that it kept.
//!
//! A campaign looks for the paths of a given universe only. A new base has others, too; they are
//! taken from the lists of entries of its layers, so that no layer is read again.

use super::chain::{Chain, ChainKind, Record};
use super::{Error, NewBase, name};
use crate::rootfs::fold::all_paths;
use crate::rootfs::names::Names;
use crate::rootfs::results::Results;
use crate::rootfs::source::{Image, Layer};
use crate::rootfs::store::Store;
use crate::rootfs::{Digest, LayerRecord};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// What the layers and the config of an image say of it, as text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identities {
    diff_ids: Vec<String>,
    layer_digests: Vec<String>,
    first_command: Option<String>,
    base_name: Option<String>,
}

impl Identities {
    /// Those of an image that a campaign read.
    pub fn of(image: &Image) -> Self {
        let text = |digest: &Digest| digest.to_string();
        let annotation = |wanted: &str| {
            let found = image.annotations.iter().find(|(key, _)| key == wanted);
            found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
        };
        let digest = annotation("org.opencontainers.image.base.digest");
        let base_name = annotation("org.opencontainers.image.base.name").map(|name| match digest {
            Some(digest) if !name.contains('@') => format!("{name}@{digest}"),
            _ => name.to_owned(),
        });
        // A directory and an old archive have no manifest: what stands for their layers is no digest
        // of a layer.
        let digests = if image.digest.is_some() { image.layers.as_slice() } else { &[] };
        Self {
            // Where there are more or fewer of them than layers, nothing says whose they are.
            diff_ids: if image.diff_ids.len() == image.layers.len() {
                image.diff_ids.iter().map(text).collect()
            } else {
                Vec::new()
            },
            layer_digests: digests.iter().map(|layer| text(&layer.digest)).collect(),
            first_command: image.history.first().map(|entry| entry.created_by.clone()),
            base_name,
        }
    }

    /// In the form in which evidence is looked for.
    pub fn record(&self) -> Record<'_> {
        Record {
            diff_ids: self.diff_ids.iter().map(String::as_str).collect(),
            layer_digests: self.layer_digests.iter().map(String::as_str).collect(),
            first_command: self.first_command.as_deref(),
            base_name: self.base_name.as_deref(),
        }
    }
}

/// What was read of the images of a campaign.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Images {
    /// Those with paths, in the order of the campaign.
    pub bases: Vec<NewBase>,
    /// Their chains.
    pub chains: Vec<Chain>,
    /// Images that were passed over, with the reason.
    pub skipped: Vec<String>,
}

/// Gives what is kept of a layer of an image, or says why it cannot.
pub type Records<'a> = dyn FnMut(&Image, &Layer) -> Result<Arc<LayerRecord>, String> + 'a;

/// Takes the images of a campaign as bases, from the layers that it kept.
///
/// # Errors
/// [`Error::Source`] if the kept layers cannot be read.
pub fn read_campaign(
    results: &Results,
    layers: &Path,
    named: impl Fn(&str) -> String,
) -> Result<Images, Error> {
    let refuse = |reason: String| Error::Source { path: layers.to_owned(), reason };
    let store = Store::open(layers).map_err(|e| refuse(e.to_string()))?;
    let mut images = Images::default();
    for (image, paths) in results.images.iter().zip(&results.paths) {
        if let Err(reason) = paths {
            images.skipped.push(format!("{}: {reason}", image.reference));
            continue;
        }
        let added = images.add(image, named(&image.reference), &mut |_, layer| {
            let record = store.read(&layer.digest).map_err(|e| e.to_string())?;
            record.map(Arc::new).ok_or_else(|| {
                format!("layer {} is not there; give the campaign's layers by --layers", layer.digest)
            })
        });
        added.map_err(|reason| refuse(format!("{}: {reason}", image.reference)))?;
    }
    Ok(images)
}

impl Images {
    /// Takes an image as a base of this name: `docker.io/library/debian:12` for
    /// `oci:mirror:debian-12`. One with a layer that nobody can read is passed over.
    ///
    /// # Errors
    /// If a record cannot be had or is damaged; nothing is added then.
    pub fn add(&mut self, image: &Image, name: String, record: &mut Records<'_>) -> Result<(), String> {
        if let Some(layer) = image.layers.iter().find(|layer| layer.unreadable.is_some()) {
            let reason = layer.unreadable.as_deref().unwrap_or_default();
            let (image, layer) = (&image.reference, layer.digest);
            self.skipped.push(format!("{image}: layer {layer} was not read ({reason})"));
            return Ok(());
        }
        let mut records = Vec::with_capacity(image.layers.len());
        for layer in &image.layers {
            let read = record(image, layer)?;
            // What only a table of contents told proves nothing.
            let wrong = layer.contradiction(read.stored_bytes, read.diff_id);
            if let Some(wrong) = wrong.filter(|_| !read.toc_only) {
                return Err(wrong);
            }
            records.push(read);
        }
        let paths = paths_of(records).map_err(|e| e.to_string())?;
        let (family, _) = name::family_and_version(&name);
        self.chains.extend(chains(&Identities::of(image), &family, &name));
        let digest = image.digest.or(image.config).map_or(String::new(), |digest| format!(" {digest}"));
        let origin = format!("image {}{digest}", image.reference);
        self.bases.push(NewBase { name, origin, created: image.created.clone(), paths });
        Ok(())
    }
}

/// One chain for each kind of identity that the image has.
fn chains(identities: &Identities, family: &str, name: &str) -> Vec<Chain> {
    let record = identities.record();
    let of_kind = |kind: ChainKind| {
        let ids: Vec<_> = record.ids(kind).into_iter().map(str::to_owned).collect();
        let whole = Chain { kind, ids, family: family.to_owned(), names: vec![name.to_owned()] };
        Some(whole).filter(|chain| !chain.ids.is_empty())
    };
    ChainKind::ALL.into_iter().filter_map(of_kind).collect()
}

/// All paths of an image of these layers, lowest first; the names of each are read once.
fn paths_of(records: Vec<Arc<LayerRecord>>) -> std::io::Result<Vec<Vec<u8>>> {
    let mut known: BTreeMap<Digest, Arc<Names>> = BTreeMap::new();
    all_paths(records, &mut |record| {
        if let Some(names) = known.get(&record.digest) {
            return Ok(Arc::clone(names));
        }
        let names = Arc::new(record.names()?);
        known.insert(record.digest, Arc::clone(&names));
        Ok(names)
    })
}
