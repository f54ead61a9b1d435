//! Answers that are small enough for memory: manifests, indexes, configs, and what else is JSON.

use super::patience::Attempts;
use super::registry::{header, plain};
use super::{Error, Reference, Registry};
use reqwest::Response;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName};
use sha2::{Digest, Sha256};
use std::sync::atomic::Ordering;

/// The media types of manifests and indexes, as Docker and OCI name them; schema 1 last, so that a
/// registry that has nothing else tells it by what it serves.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.v1+prettyjws;q=0.1";

/// The largest manifest or config, in bytes: four times what registries accept.
const DOCUMENT_LIMIT: u64 = 16 << 20;

/// A manifest, index or config, with its digest checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// As the registry served it.
    pub bytes: Vec<u8>,
    /// The `Content-Type` without parameters; empty where there is none.
    pub media_type: String,
    /// `sha256:HEX` of the bytes.
    pub digest: String,
}

/// An answer that came whole.
pub(super) struct Answer {
    pub(super) headers: HeaderMap,
    pub(super) bytes: Vec<u8>,
}

impl Answer {
    fn document(self, what: &str, expected: Option<&str>) -> Result<Document, Error> {
        let media_type = header(&self.headers, CONTENT_TYPE.as_str()).unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap_or_default().trim().to_owned();
        let digest = sha256_digest(&self.bytes);
        match expected {
            Some(expected) if expected != digest => {
                Err(Error::Digest { what: what.to_owned(), expected: expected.to_owned(), found: digest })
            }
            _ => Ok(Document { bytes: self.bytes, media_type, digest }),
        }
    }
}

impl Registry {
    /// The manifest or index of an image, its digest checked against the reference's, or else
    /// against what the registry says.
    ///
    /// # Errors
    /// All but [`Error::Reference`] and [`Error::Settings`].
    pub fn manifest(&self, image: &Reference) -> Result<Document, Error> {
        let version = image.digest().or(image.tag()).unwrap_or("latest");
        let what = format!("manifest of {}", image.whole());
        self.block_on(async {
            let path = format!("{}/manifests/{version}", image.repository());
            let headers = [(ACCEPT, MANIFESTS)];
            let answer = self.get_whole(image, &path, &what, &headers, DOCUMENT_LIMIT).await?;
            let told = header(&answer.headers, "docker-content-digest").map(str::to_owned);
            let told = told.filter(|told| told.starts_with("sha256:"));
            answer.document(&what, image.digest().or(told.as_deref()))
        })
    }

    /// A small blob as a whole, such as a config, its digest checked.
    ///
    /// # Errors
    /// All but [`Error::Reference`] and [`Error::Settings`].
    pub fn small_blob(&self, image: &Reference, digest: &str) -> Result<Document, Error> {
        let what = format!("blob {digest} of {}", image.whole());
        self.block_on(async {
            let path = format!("{}/blobs/{digest}", image.repository());
            let answer = self.get_whole(image, &path, &what, &[], DOCUMENT_LIMIT).await?;
            answer.document(&what, Some(digest))
        })
    }

    /// What `ask` answers, to its end: asked again where the body breaks off. The connection counts as
    /// used until the permit is dropped.
    pub(super) async fn whole<P>(
        &self,
        what: &str,
        limit: u64,
        ask: impl AsyncFn() -> Result<(Response, P), Error>,
    ) -> Result<Answer, Error> {
        let mut attempts = Attempts::new(self.settings.patience);
        loop {
            let (answer, permit) = ask().await?;
            let headers = answer.headers().clone();
            let broken = match self.body(answer, what, limit).await? {
                Ok(bytes) => return Ok(Answer { headers, bytes }),
                Err(reason) => format!("the answer broke off: {reason}"),
            };
            drop(permit);
            let pause = attempts.pause(what, broken, None)?;
            self.counters.repeated.fetch_add(1, Ordering::Relaxed);
            self.wait(what, pause).await?;
        }
    }

    /// [`Registry::get`] with the whole body.
    pub(super) async fn get_whole(
        &self,
        image: &Reference,
        path: &str,
        what: &str,
        headers: &[(HeaderName, &str)],
        limit: u64,
    ) -> Result<Answer, Error> {
        self.whole(what, limit, || self.get(image, path, what, headers)).await
    }

    /// The whole body of an answer, up to a limit, or why it broke off.
    pub(super) async fn body(
        &self,
        mut answer: Response,
        what: &str,
        limit: u64,
    ) -> Result<Result<Vec<u8>, String>, Error> {
        let mut bytes = Vec::new();
        loop {
            let chunk = match self.unless_stopped(what, answer.chunk()).await? {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break,
                Err(e) => return Ok(Err(plain(e))),
            };
            if (bytes.len() + chunk.len()) as u64 > limit {
                let reason = format!("the answer is longer than {limit} bytes");
                return Err(Error::Protocol { what: what.to_owned(), reason });
            }
            bytes.extend_from_slice(&chunk);
        }
        self.counters.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(Ok(bytes))
    }
}

fn sha256_digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}
