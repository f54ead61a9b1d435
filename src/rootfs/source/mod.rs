//! Where images come from: a registry, an OCI layout, a `docker save` archive, a directory.
//!
//! A [`Source`] answers two questions: what an image is made of ([`Source::image`], cheap: manifest
//! and config only), and what bytes a layer is ([`Source::open_layer`], a stream). Everything else,
//! digest checks included, is the reader's work and the same for all sources.

mod archive;
mod layout;
mod manifest;
mod registry;
mod tree;

pub use archive::{Archive, PlainArchive, is_compressed};
pub use layout::Layout;
pub use registry::Registries;
pub use tree::Tree;

use super::Digest;
use super::toc::Toc;
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::ops::Range;

/// The platform of an image: `os/architecture` and, for some, a variant.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// Operating system, as in Go's GOOS: `linux`, `windows`.
    pub os: String,
    /// Architecture, as in Go's GOARCH: `amd64`, `arm64`, `ppc64le`.
    pub architecture: String,
    /// Variant (`v8` of arm64), empty for most.
    pub variant: String,
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

/// A layer of an image, as its manifest describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Digest of the bytes as they are stored, compressed or not. It is the layer's name.
    pub digest: Digest,
    /// Size of these bytes.
    pub size: u64,
    /// Media type; the compression is found from the bytes, not from this.
    pub media_type: String,
    /// Digest of the uncompressed tar, from the config; `None` if the config does not say.
    pub diff_id: Option<Digest>,
    /// Why the layer cannot be read here (a foreign layer), if so.
    pub unreadable: Option<String>,
    /// Its table of contents, if the manifest tells of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toc: Option<Toc>,
}

impl Layer {
    /// What manifest or config say wrongly of a layer that proved to be of this size and content.
    pub fn contradiction(&self, stored_bytes: u64, diff_id: Digest) -> Option<String> {
        let digest = self.digest;
        if self.size != stored_bytes {
            let told = self.size;
            return Some(format!("layer {digest}: has {stored_bytes} bytes, but the manifest says {told}"));
        }
        let told = self.diff_id.filter(|told| *told != diff_id)?;
        Some(format!(
            "layer {digest}: the uncompressed archive is {diff_id}, but the config's diff_id is {told}"
        ))
    }
}

/// One entry of a config's history.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct History {
    /// The command that made the layer; empty if it is not told.
    pub created_by: String,
    /// True if the command made no layer.
    pub empty_layer: bool,
}

/// What is known of an image without reading a layer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Image {
    /// The reference under which it was asked for.
    pub reference: String,
    /// Digest of the manifest (of the platform's one, if the reference names an index); `None` where
    /// there is none (a directory, an old archive).
    pub digest: Option<Digest>,
    /// Digest of the config.
    pub config: Option<Digest>,
    /// Platform as the config says.
    pub platform: Option<Platform>,
    /// `created` of the config.
    pub created: String,
    /// `rootfs.diff_ids` of the config.
    pub diff_ids: Vec<Digest>,
    /// `history` of the config.
    pub history: Vec<History>,
    /// Annotations of the manifest and labels of the config with the prefix `org.opencontainers.`,
    /// sorted by key.
    pub annotations: Vec<(String, String)>,
    /// The layers, lowest first.
    pub layers: Vec<Layer>,
    /// What was noticed and does not hinder (the platform fell back to another one).
    pub notes: Vec<String>,
}

/// Which platform to take from an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlatformChoice {
    /// Wanted platforms, best first. A variant that is empty matches every variant.
    pub wanted: Vec<Platform>,
    /// Take the first platform of the index if none of them is there; else that is an error.
    pub fallback: bool,
}

impl Default for PlatformChoice {
    /// linux/amd64, else the first of the index.
    fn default() -> Self {
        let amd64 = Platform { os: "linux".into(), architecture: "amd64".into(), variant: String::new() };
        Self { wanted: vec![amd64], fallback: true }
    }
}

/// Why an image or layer could not be had from its source: place and reason.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such image, layer, file.
    Missing {
        /// The source.
        place: String,
        /// What was asked for.
        what: String,
    },
    /// What is there is of a kind that cannot be read: schema 1, an artifact that is no image.
    Unsupported {
        /// The source and image.
        place: String,
        /// What it is.
        reason: String,
    },
    /// What is there is damaged or no such thing.
    Damaged {
        /// The source and the part of it.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// The registry refused: not allowed, or too often asked.
    Refused {
        /// The registry and repository.
        place: String,
        /// What it said.
        reason: String,
    },
    /// Reading failed; trying again later may help.
    Io {
        /// The source and the part of it.
        place: String,
        /// What the system said.
        #[source]
        error: std::io::Error,
    },
}

impl Error {
    /// The source, and the image or part of it: where it went wrong.
    pub fn place(&self) -> &str {
        match self {
            Self::Missing { place, .. }
            | Self::Unsupported { place, .. }
            | Self::Damaged { place, .. }
            | Self::Refused { place, .. }
            | Self::Io { place, .. } => place,
        }
    }

    /// What went wrong there, without the place.
    pub fn reason(&self) -> String {
        match self {
            Self::Missing { what, .. } => format!("{what} is not there"),
            Self::Unsupported { reason, .. }
            | Self::Damaged { reason, .. }
            | Self::Refused { reason, .. } => reason.clone(),
            Self::Io { error, .. } => error.to_string(),
        }
    }

    /// What to say beside the name of an image: the reason, after the place if that is another.
    pub fn beside(&self, name: &str) -> String {
        if self.place() == name { self.reason() } else { self.to_string() }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.place(), self.reason())
    }
}

/// The result of asking a source.
pub type Result<T> = std::result::Result<T, Error>;

/// Stored bytes of a layer.
pub type Stream = Box<dyn Read + Send>;

/// A place that has images.
pub trait Source: Send + Sync {
    /// What the image is made of. Reads manifest and config, and checks their digests.
    ///
    /// # Errors
    /// [`Error`]; the campaign lists it and goes on with the other images.
    fn image(&self, reference: &str, platform: &PlatformChoice) -> Result<Image>;

    /// The stored bytes of a layer of `image`, all or a part of them. Nothing is checked here: the
    /// reader checks digest and size. A source that can go on after a broken connection does so
    /// inside the stream.
    ///
    /// # Errors
    /// [`Error`] if the stream cannot begin; what breaks later is an error of the stream.
    fn open_layer(&self, image: &Image, layer: &Layer, part: Option<Range<u64>>) -> Result<Stream>;
}
