//! A blob as a stream that goes on where a connection broke.

use super::patience::Attempts;
use super::registry::{header, plain, range};
use super::{Error, Reference, Registry};
use reqwest::header::{CONTENT_RANGE, HeaderName};
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::OwnedSemaphorePermit;

/// How often one blob is taken up again: enough for a bad line, not for a server that breaks every
/// connection after a few bytes.
const RESUMPTIONS: u32 = 64;

/// The bytes of a blob, or a part of them, read as they arrive. If the connection breaks or stands
/// still, the stream goes on from the same byte (`Range`, RFC 9110 section 14).
///
/// Nothing is read ahead of the caller but what the sockets hold. The digest is not checked here;
/// the length is, against the descriptor.
pub struct Blob {
    registry: Arc<Registry>,
    image: Reference,
    path: String,
    what: String,
    /// Next byte to hand out.
    at: u64,
    /// One past the last byte wanted.
    end: u64,
    /// True if `end` is the end of the blob and not only of the part wanted.
    whole: bool,
    open: Option<(reqwest::Response, OwnedSemaphorePermit)>,
    chunk: bytes::Bytes,
    attempts: Attempts,
    resumptions: u32,
}

impl Registry {
    /// Opens the blob `digest` of `size` bytes (from its descriptor) as a stream.
    pub fn blob(self: &Arc<Self>, image: &Reference, digest: &str, size: u64) -> Blob {
        self.blob_part(image, digest, 0, size, true)
    }

    /// Opens the bytes `first..end` of a blob.
    pub fn blob_range(self: &Arc<Self>, image: &Reference, digest: &str, first: u64, end: u64) -> Blob {
        self.blob_part(image, digest, first, end, false)
    }

    fn blob_part(
        self: &Arc<Self>,
        image: &Reference,
        digest: &str,
        first: u64,
        end: u64,
        whole: bool,
    ) -> Blob {
        Blob {
            registry: Arc::clone(self),
            path: format!("{}/blobs/{digest}", image.repository()),
            what: format!("blob {digest} of {}", image.whole()),
            image: image.clone(),
            at: first,
            end,
            whole,
            open: None,
            chunk: bytes::Bytes::new(),
            attempts: Attempts::new(self.settings.patience),
            resumptions: 0,
        }
    }
}

/// What a wait for the next bytes came to.
enum Next {
    Bytes(bytes::Bytes),
    End,
    Broken(String),
}

impl Blob {
    fn fail(&self, reason: String) -> Error {
        Error::Protocol { what: self.what.clone(), reason }
    }

    /// Waits until there are bytes to hand out; false at the end.
    async fn fill(&mut self) -> Result<bool, Error> {
        while self.chunk.is_empty() {
            if self.at >= self.end && !(self.whole && self.open.is_some()) {
                return Ok(false);
            }
            match self.next().await? {
                Next::Bytes(bytes) => {
                    self.registry.counters.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                    self.chunk = bytes;
                    if !self.chunk.is_empty() {
                        self.attempts.begin_again();
                    }
                    let left = self.end - self.at;
                    if self.chunk.len() as u64 > left {
                        if self.whole {
                            return Err(
                                self.fail(format!("is longer than the {} bytes of its descriptor", self.end))
                            );
                        }
                        self.chunk.truncate(left as usize);
                    }
                }
                Next::End if self.at == self.end => self.open = None,
                Next::End => {
                    let missing = self.end - self.at;
                    self.take_up_again(format!("ended {missing} bytes early")).await?;
                }
                Next::Broken(reason) => self.take_up_again(reason).await?,
            }
        }
        Ok(true)
    }

    async fn next(&mut self) -> Result<Next, Error> {
        if self.open.is_none() {
            match self.connect().await {
                Ok(skipped) => self.chunk = skipped,
                Err(Skip::Error(e)) => return Err(*e),
                Err(Skip::Broken(reason)) => return Ok(Next::Broken(reason)),
            }
            if !self.chunk.is_empty() {
                return Ok(Next::Bytes(std::mem::take(&mut self.chunk)));
            }
        }
        let Some((answer, _)) = &mut self.open else { return Ok(Next::End) };
        Ok(match self.registry.unless_stopped(&self.what, answer.chunk()).await? {
            Ok(Some(bytes)) => Next::Bytes(bytes),
            Ok(None) => Next::End,
            Err(e) => Next::Broken(plain(e)),
        })
    }

    /// Opens the stream at the next byte. A server that ignores `Range` sends the blob from its
    /// start; then what is known is passed over, and what remains of that chunk is returned.
    async fn connect(&mut self) -> Result<bytes::Bytes, Skip> {
        let part = self.at > 0 || !self.whole;
        let (name, value) = range(self.at, (!self.whole).then_some(self.end));
        let headers: &[(HeaderName, &str)] = if part { &[(name, &value)] } else { &[] };
        let (mut answer, permit) = self.registry.get(&self.image, &self.path, &self.what, headers).await?;
        let mut skip = match answer.status().as_u16() {
            206 => {
                let told = header(answer.headers(), CONTENT_RANGE.as_str()).unwrap_or_default();
                let first =
                    told.strip_prefix("bytes ").and_then(|t| t.split_once('-')).map(|(f, _)| f.trim());
                if first != Some(self.at.to_string().as_str()) {
                    let asked = self.at;
                    return Err(self
                        .fail(format!("asked from byte {asked} on, the answer is {told:?}"))
                        .into());
                }
                0
            }
            _ => self.at,
        };
        let mut rest = bytes::Bytes::new();
        while skip > 0 {
            match self.registry.unless_stopped(&self.what, answer.chunk()).await? {
                Ok(Some(mut bytes)) => {
                    let known = skip.min(bytes.len() as u64);
                    rest = bytes.split_off(known as usize);
                    skip -= known;
                }
                Ok(None) => return Err(Skip::Broken("ended before the byte where it broke off".into())),
                Err(e) => return Err(Skip::Broken(plain(e))),
            }
        }
        self.open = Some((answer, permit));
        Ok(rest)
    }

    async fn take_up_again(&mut self, reason: String) -> Result<(), Error> {
        self.open = None;
        self.resumptions += 1;
        if self.resumptions > RESUMPTIONS {
            return Err(Error::GivenUp { what: self.what.clone(), reason, attempts: self.resumptions });
        }
        tracing::debug!(blob = self.what, at = self.at, reason, "goes on");
        let pause = self.attempts.pause(&self.what, reason, None)?;
        self.registry.wait(&self.what, pause).await
    }
}

/// Why a stream could not be opened.
enum Skip {
    Error(Box<Error>),
    Broken(String),
}

impl From<Error> for Skip {
    fn from(error: Error) -> Self {
        Self::Error(Box::new(error))
    }
}

impl Read for Blob {
    /// Errors carry an [`Error`] inside.
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.chunk.is_empty() {
            let registry = Arc::clone(&self.registry);
            if !registry.block_on(self.fill()).map_err(std::io::Error::other)? {
                return Ok(0);
            }
        }
        let n = self.chunk.len().min(buffer.len());
        buffer[..n].copy_from_slice(&self.chunk.split_to(n));
        self.at += n as u64;
        Ok(n)
    }
}
