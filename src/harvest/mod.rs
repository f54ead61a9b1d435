//! Bringing images in over the network: what container registries serve. The only module that
//! speaks HTTP.
//!
//! [`Registry`] follows the OCI distribution specification v1.1 (manifests, blobs, tags) and the
//! token protocol of Docker's registry ("Token Authentication Specification"). References are
//! parsed by `oci-client`; the requests are made here, because a campaign of ten thousand images
//! needs what that client keeps to itself: the `Retry-After` of a 429, the `Link` of a page of
//! tags, the moment a stream breaks so that it can go on by `Range`, and one limit for all.
//!
//! - [`Credentials`] come from the files that docker, podman and skopeo write on log-in. They go to
//!   the registry they are for and to the token service it names, never along a redirect to another
//!   host, and never into a message.
//! - [`Limits`] on connections and requests hold for the whole job: each rank has its share.
//! - [`Blob`] is a stream that survives stalls and broken connections; it counts bytes but checks no
//!   digest, which is for the reader that sees all of them.

mod authorize;
mod blob;
mod credentials;
mod document;
mod limits;
mod patience;
mod registry;
mod tags;
mod tls;

pub use blob::Blob;
pub use credentials::{Credential, Credentials};
pub use document::Document;
pub use limits::{Limits, Share};
pub use oci_client::Reference;
pub use patience::Patience;
pub use registry::{Registry, Settings, Traffic};

use std::time::Duration;

/// Why something could not be fetched. Messages hold no credentials and no query strings, in which
/// storage services put signatures.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name is no image reference.
    #[error("{name:?} is no image reference ({reason}); write HOST/REPOSITORY:TAG or HOST/REPOSITORY@DIGEST")]
    Reference {
        /// What was given.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file of credentials cannot be used.
    #[error("{}: {reason}", path.display())]
    Credentials {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A setting does not fit.
    #[error("{0}")]
    Settings(String),
    /// The registry refused for want of the right credentials.
    #[error(
        "{what}: {registry} refuses {who}; log in with `docker login {registry}` or `podman login {registry}`, or name the file with --authfile"
    )]
    Unauthorized {
        /// What was asked for.
        what: String,
        /// The registry.
        registry: String,
        /// As whom it was asked: "anonymous requests" or "the credentials it was given".
        who: &'static str,
    },
    /// The registry answered, but not with what was asked for.
    #[error("{what}: the answer was {status}{detail}")]
    Answer {
        /// What was asked for.
        what: String,
        /// HTTP status.
        status: u16,
        /// What the registry said about it, or nothing.
        detail: String,
    },
    /// The answer breaks the protocol.
    #[error("{what}: {reason}")]
    Protocol {
        /// What was asked for.
        what: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// A host that should be asked in TLS does not speak it.
    #[error("{what}: {host} does not answer in TLS{}", if *own { format!("; if plain HTTP is meant, say so with --plain-http {host}") } else { String::new() })]
    PlainText {
        /// What was asked for.
        what: String,
        /// The host, with port if any.
        host: String,
        /// True if it is the registry itself and not one that it names.
        own: bool,
    },
    /// A host's certificate is not trusted.
    #[error(
        "{what}: the certificate of {host} is not trusted ({reason}); if it is the right one, trust its issuer with --ca FILE"
    )]
    Certificate {
        /// What was asked for.
        what: String,
        /// The host, with port if any.
        host: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Contents are not what their digest says.
    #[error("{what}: the digest should be {expected}, but is {found}")]
    Digest {
        /// What was asked for.
        what: String,
        /// The digest asked for.
        expected: String,
        /// That of what came.
        found: String,
    },
    /// No attempt succeeded.
    #[error("{what}: {reason} (given up after {attempts} attempts)")]
    GivenUp {
        /// What was asked for.
        what: String,
        /// How the last attempt failed.
        reason: String,
        /// Number of attempts.
        attempts: u32,
    },
    /// The registry asks for a longer pause than the user allows.
    #[error("{what}: {reason}, and asks to wait {} s; try later, or allow it with --max-wait", wait.as_secs())]
    TooLong {
        /// What was asked for.
        what: String,
        /// The answer.
        reason: String,
        /// The pause that it asks for.
        wait: Duration,
    },
    /// The run is being stopped (SIGTERM, SIGUSR1).
    #[error("{what}: stopped")]
    Stopped {
        /// What was asked for.
        what: String,
    },
}
