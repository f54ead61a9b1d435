//! Images in container registries.

use super::manifest::{self, Documents};
use super::{Error, Image, Layer, PlatformChoice, Result, Source, Stream};
use crate::harvest;
use crate::rootfs::Digest;
use rustc_hash::FxHashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// The registries of the world as one source; references are names such as
/// `quay.io/biocontainers/samtools:1.20--h50ea8bc_0`.
pub struct Registries {
    client: Arc<harvest::Registry>,
    /// Names that were parsed before: an image has many layers.
    references: Mutex<FxHashMap<String, harvest::Reference>>,
}

impl Registries {
    /// A source that asks through `client`.
    pub fn new(client: Arc<harvest::Registry>) -> Self {
        Self { client, references: Mutex::default() }
    }

    fn reference(&self, name: &str) -> Result<harvest::Reference> {
        let mut known = self.references.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reference) = known.get(name) {
            return Ok(reference.clone());
        }
        let reference = harvest::Registry::reference(name).map_err(|e| translate(name, e))?;
        known.insert(name.to_owned(), reference.clone());
        Ok(reference)
    }

    /// The images that a name stands for: itself, or for `REPOSITORY:*` every tag of the repository.
    ///
    /// # Errors
    /// If the name is none, or the tags cannot be had.
    pub fn expand(&self, name: &str) -> Result<Vec<String>> {
        let Some(repository) = name.strip_suffix(":*") else {
            self.reference(name)?;
            return Ok(vec![name.to_owned()]);
        };
        let image = harvest::Registry::reference(repository).map_err(|e| translate(name, e))?;
        let tags = self.client.tags(&image).map_err(|e| translate(name, e))?;
        Ok(tags.into_iter().map(|tag| format!("{repository}:{tag}")).collect())
    }
}

/// The documents of one repository.
struct Repository<'a> {
    client: &'a harvest::Registry,
    image: harvest::Reference,
    name: String,
}

impl Documents for Repository<'_> {
    fn place(&self) -> &str {
        &self.name
    }

    fn manifest(&self, digest: &Digest) -> Result<Vec<u8>> {
        let image = self.image.clone_with_digest(digest.to_string());
        let document = self.client.manifest(&image).map_err(|e| translate(&self.name, e))?;
        Ok(document.bytes)
    }

    fn config(&self, digest: &Digest) -> Result<Vec<u8>> {
        let document = self.client.small_blob(&self.image, &digest.to_string());
        Ok(document.map_err(|e| translate(&self.name, e))?.bytes)
    }
}

impl Source for Registries {
    fn image(&self, reference: &str, platform: &PlatformChoice) -> Result<Image> {
        let image = self.reference(reference)?;
        let document = self.client.manifest(&image).map_err(|e| translate(reference, e))?;
        // Some registries answer with schema 1 in spite of what is accepted.
        if document.media_type.starts_with("application/vnd.docker.distribution.manifest.v1") {
            return Err(manifest::unsupported(reference, "has only a manifest of schema 1"));
        }
        let repository = Repository { client: &self.client, image, name: reference.to_owned() };
        manifest::image(&repository, reference, &document.bytes, platform)
    }

    fn open_layer(&self, image: &Image, layer: &Layer, part: Option<Range<u64>>) -> Result<Stream> {
        let reference = self.reference(&image.reference)?;
        let digest = layer.digest.to_string();
        Ok(match part {
            None => Box::new(self.client.blob(&reference, &digest, layer.size)),
            Some(part) => Box::new(self.client.blob_range(&reference, &digest, part.start, part.end)),
        })
    }
}

fn translate(place: &str, error: harvest::Error) -> Error {
    use harvest::Error as E;
    let place = place.to_owned();
    let reason = error.to_string();
    match error {
        E::Answer { status: 404, what, .. } => Error::Missing { place, what },
        E::Unauthorized { .. }
        | E::Answer { .. }
        | E::Credentials { .. }
        | E::Settings(_)
        | E::PlainText { .. }
        | E::Certificate { .. } => Error::Refused { place, reason },
        E::Reference { .. } => Error::Unsupported { place, reason },
        E::Protocol { .. } | E::Digest { .. } => Error::Damaged { place, reason },
        E::GivenUp { .. } | E::TooLong { .. } | E::Stopped { .. } => {
            Error::Io { place, error: std::io::Error::other(reason) }
        }
    }
}
