//! Requests to registries: one client for all that a rank pulls.

use super::authorize::{Challenge, Permission};
use super::limits::{Pace, Share};
use super::patience::{Attempts, Patience, may_pass, retry_after};
use super::tls::{self, Failed};
use super::{Credentials, Error, Reference};
use reqwest::header::{AUTHORIZATION, HeaderMap, RANGE, RETRY_AFTER};
use reqwest::{Response, StatusCode, Url};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};

/// How registries are asked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Hosts (`HOST` or `HOST:PORT`) that may be asked without encryption; all others need TLS.
    pub plain_http: Vec<String>,
    /// Files of certificates (PEM) that are trusted besides those of the system.
    pub certificates: Vec<PathBuf>,
    /// What this rank may ask of each registry.
    pub share: Share,
    /// How failing requests are tried again.
    pub patience: Patience,
    /// How long a connection may take to come about.
    pub connect_timeout: Duration,
    /// How long a stream may stand still.
    pub read_timeout: Duration,
}

impl Settings {
    /// The usual settings with this share.
    pub fn new(share: Share) -> Self {
        Self {
            plain_http: Vec::new(),
            certificates: Vec::new(),
            share,
            patience: Patience::default(),
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(30),
        }
    }
}

/// Requests made so far, over all registries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Requests sent.
    pub requests: u64,
    /// Requests that failed and were tried again.
    pub repeated: u64,
    /// Bytes of blobs and documents received.
    pub bytes: u64,
}

#[derive(Default)]
pub(super) struct Counters {
    requests: AtomicU64,
    pub(super) repeated: AtomicU64,
    pub(super) bytes: AtomicU64,
}

/// What is known of one registry.
pub(super) struct Host {
    /// Name, with port if any.
    pub(super) registry: String,
    scheme: &'static str,
    connections: Arc<Semaphore>,
    pace: Pace,
    pub(super) challenge: Mutex<Option<Challenge>>,
    pub(super) permissions: Mutex<HashMap<String, Permission>>,
}

impl Host {
    /// The address of `path` in the registry's API.
    pub(super) fn url(&self, path: &str) -> String {
        format!("{}://{}/v2/{path}", self.scheme, self.registry)
    }
}

/// A client of container registries. May be used by many threads at a time.
pub struct Registry {
    pub(super) http: reqwest::Client,
    /// Follows no redirect: for requests with a secret in their body, which a redirect would repeat.
    pub(super) straight: reqwest::Client,
    pub(super) credentials: Credentials,
    pub(super) settings: Settings,
    pub(super) counters: Counters,
    stop: Arc<AtomicBool>,
    beat: Box<dyn Fn() + Send + Sync>,
    hosts: std::sync::Mutex<HashMap<String, Arc<Host>>>,
    // Last, so that it outlives the client whose connections it drives.
    runtime: tokio::runtime::Runtime,
}

/// Redirects followed for one request.
const REDIRECTS: usize = 5;
/// How often a wait looks whether the run is being stopped.
const GLANCE: Duration = Duration::from_millis(100);

impl Registry {
    /// A client with these settings. Set `stop` to end all its waits soon.
    ///
    /// # Errors
    /// [`Error::Settings`] if a certificate cannot be read or the system refuses threads.
    pub fn new(settings: Settings, credentials: Credentials, stop: Arc<AtomicBool>) -> Result<Self, Error> {
        // Fails if another part of the program chose one before, which does as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let refuse = |e: &dyn std::fmt::Display| Error::Settings(e.to_string());
        let allowed = settings.plain_http.clone();
        let policy = reqwest::redirect::Policy::custom(move |attempt| {
            if attempt.previous().len() > REDIRECTS {
                attempt.error("redirected too often")
            } else if !encrypted_or_allowed(attempt.url(), &allowed) {
                attempt.error("redirected to plain HTTP")
            } else {
                tls::redirected(attempt.url());
                attempt.follow()
            }
        });
        let mut certificates = Vec::new();
        for path in &settings.certificates {
            let refuse = |reason: String| Error::Settings(format!("{}: {reason}", path.display()));
            let pem = std::fs::read(path).map_err(|e| refuse(e.to_string()))?;
            match reqwest::Certificate::from_pem_bundle(&pem) {
                Ok(bundle) if !bundle.is_empty() => certificates.extend(bundle),
                _ => return Err(refuse("holds no certificate in PEM form".into())),
            }
        }
        let client = |policy| {
            reqwest::Client::builder()
                .user_agent(concat!("stratigraph/", env!("CARGO_PKG_VERSION")))
                .redirect(policy)
                .referer(false)
                .connect_timeout(settings.connect_timeout)
                .read_timeout(settings.read_timeout)
                .tls_certs_merge(certificates.clone())
                .build()
                .map_err(|e| refuse(&e))
        };
        let http = client(policy)?;
        let straight = client(reqwest::redirect::Policy::none())?;
        // Connections are driven by whichever thread waits for them: a thread of their own would have to
        // be woken, and wake the reader, for every piece of a blob.
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| refuse(&e))?;
        let (counters, hosts) = Default::default();
        let beat = Box::new(|| ());
        Ok(Self { http, straight, credentials, settings, counters, stop, beat, hosts, runtime })
    }

    /// Calls `beat` again and again while it waits: an overloaded registry may ask for minutes of
    /// patience, and every wait has an end of its own.
    pub fn beating(self, beat: impl Fn() + Send + Sync + 'static) -> Self {
        Self { beat: Box::new(beat), ..self }
    }

    /// Parses an image reference; a name without a host is one of docker.io, as for docker.
    ///
    /// # Errors
    /// [`Error::Reference`].
    pub fn reference(name: &str) -> Result<Reference, Error> {
        name.parse().map_err(|e: oci_client::ParseError| Error::Reference {
            name: name.to_owned(),
            reason: e.to_string(),
        })
    }

    /// Requests so far.
    pub fn traffic(&self) -> Traffic {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Traffic {
            requests: load(&self.counters.requests),
            repeated: load(&self.counters.repeated),
            bytes: load(&self.counters.bytes),
        }
    }

    /// Runs one wait of a stream, on the calling thread. Several threads may wait at a time.
    pub(super) fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// Asks for `path` until there is an answer that means something, with credentials where they
    /// are wanted. The connection counts as used until the permit is dropped.
    pub(super) async fn get(
        &self,
        image: &Reference,
        path: &str,
        what: &str,
        headers: &[(reqwest::header::HeaderName, &str)],
    ) -> Result<(Response, OwnedSemaphorePermit), Error> {
        let host = self.host(image.resolve_registry());
        let permit = self
            .unless_stopped(what, Arc::clone(&host.connections).acquire_owned())
            .await?
            .map_err(|e| Error::Settings(e.to_string()))?;
        let mut challenged = false;
        loop {
            let answer = self
                .persist(&host, what, || async {
                    let mut request = self.http.get(host.url(path));
                    for (name, value) in headers {
                        request = request.header(name, *value);
                    }
                    if let Some(permission) = self.permission(&host, image.repository(), what).await? {
                        request = request.header(AUTHORIZATION, permission);
                    }
                    Ok::<_, Error>(request)
                })
                .await?;
            match answer.status() {
                StatusCode::UNAUTHORIZED if !challenged => {
                    challenged = true;
                    self.answer_challenge(&host, image.repository(), what, &answer).await?;
                }
                StatusCode::UNAUTHORIZED => {
                    let credential = self.credentials.find(&host.registry, image.repository())?;
                    return Err(self.unauthorized(&host, what, credential.as_ref()));
                }
                status if status.is_success() => return Ok((answer, permit)),
                status => {
                    let body = self.body(answer, what, 1 << 16).await;
                    let detail = body.ok().and_then(Result::ok).map(|b| detail(&b)).unwrap_or_default();
                    return Err(Error::Answer { what: what.to_owned(), status: status.as_u16(), detail });
                }
            }
        }
    }

    /// Sends what `request` makes, again and again while the failure may pass.
    pub(super) async fn persist<E: Into<Cause>>(
        &self,
        host: &Host,
        what: &str,
        request: impl AsyncFn() -> Result<reqwest::RequestBuilder, E>,
    ) -> Result<Response, Error> {
        let mut attempts = Attempts::new(self.settings.patience);
        loop {
            self.wait(what, host.pace.book()).await?;
            let request = match request().await.map_err(Into::into) {
                Ok(request) => request,
                Err(Cause::Error(error)) => return Err(*error),
                Err(Cause::Reason(reason)) => {
                    return Err(Error::Protocol { what: what.to_owned(), reason: reason.to_owned() });
                }
            };
            self.counters.requests.fetch_add(1, Ordering::Relaxed);
            let (reason, server) = match self.unless_stopped(what, tls::send(request)).await? {
                Ok(answer) if may_pass(answer.status().as_u16()) => {
                    let server = header(answer.headers(), RETRY_AFTER.as_str())
                        .and_then(|v| retry_after(v, SystemTime::now()));
                    (format!("{} answered {}", host.registry, answer.status()), server)
                }
                Ok(answer) => return Ok(answer),
                Err(Failed { error: e, .. }) if e.is_redirect() || e.is_builder() => {
                    return Err(Error::Protocol { what: what.to_owned(), reason: plain(e) });
                }
                Err(failed) => match failed.for_good(host, what) {
                    Some(error) => return Err(error),
                    None => (format!("{}: {}", failed.host, plain(failed.error)), None),
                },
            };
            let pause = attempts.pause(what, reason, server)?;
            self.counters.repeated.fetch_add(1, Ordering::Relaxed);
            self.wait(what, pause).await?;
        }
    }

    /// Waits, but not past a stop.
    pub(super) async fn wait(&self, what: &str, pause: Duration) -> Result<(), Error> {
        self.unless_stopped(what, tokio::time::sleep(pause)).await
    }

    /// The outcome of `future`, unless the run is stopped before.
    pub(super) async fn unless_stopped<F: Future>(&self, what: &str, future: F) -> Result<F::Output, Error> {
        let stopped = async {
            while !self.stop.load(Ordering::Relaxed) {
                (self.beat)();
                tokio::time::sleep(GLANCE).await;
            }
        };
        tokio::select! {
            biased;
            output = future => Ok(output),
            () = stopped => Err(Error::Stopped { what: what.to_owned() }),
        }
    }

    /// True if this address is encrypted or the user named its host.
    pub(super) fn may_reach(&self, url: &Url) -> bool {
        encrypted_or_allowed(url, &self.settings.plain_http)
    }

    fn host(&self, registry: &str) -> Arc<Host> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || {
            let plain = Url::parse(&format!("http://{registry}/"))
                .is_ok_and(|url| encrypted_or_allowed(&url, &self.settings.plain_http));
            let Share { connections, requests_per_second } = self.settings.share;
            Arc::new(Host {
                registry: registry.to_owned(),
                scheme: if plain { "http" } else { "https" },
                connections: Arc::new(Semaphore::new(connections.get().min(Semaphore::MAX_PERMITS))),
                pace: Pace::new(requests_per_second),
                challenge: Mutex::default(),
                permissions: Mutex::default(),
            })
        };
        Arc::clone(hosts.entry(registry.to_owned()).or_insert_with(new))
    }
}

/// Why a request could not even be made.
pub(super) enum Cause {
    Error(Box<Error>),
    Reason(&'static str),
}

impl From<Error> for Cause {
    fn from(error: Error) -> Self {
        Self::Error(Box::new(error))
    }
}

impl From<&'static str> for Cause {
    fn from(reason: &'static str) -> Self {
        Self::Reason(reason)
    }
}

fn encrypted_or_allowed(url: &Url, plain_http: &[String]) -> bool {
    let host = url.host_str().unwrap_or_default();
    let with_port = format!("{host}:{}", url.port_or_known_default().unwrap_or(80));
    url.scheme() == "https"
        || url.scheme() == "http" && plain_http.iter().any(|p| *p == host || *p == with_port)
}

pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// A `Range` header from this byte on (RFC 9110, section 14.1.2).
pub(super) fn range(first: u64, end: Option<u64>) -> (reqwest::header::HeaderName, String) {
    let last = end.map(|end| end.saturating_sub(1).to_string()).unwrap_or_default();
    (RANGE, format!("bytes={first}-{last}"))
}

/// An error of the HTTP library with its causes, without the address: that of a storage service
/// holds a signature.
pub(super) fn plain(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// What a registry says about a refusal: the first message of its JSON (OCI distribution
/// specification, "Error codes"), or that it wants TLS; short and on one line. Other texts may be those of
/// a storage service that it led to, which repeat what a signed address holds.
fn detail(body: &[u8]) -> String {
    let json: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let error = json.as_ref().map(|json| &json["errors"][0]);
    let text = match error {
        Some(error) => error["message"].as_str().or(error["code"].as_str()).unwrap_or_default(),
        None => {
            let first = std::str::from_utf8(body).ok().and_then(|text| text.lines().next());
            first.filter(|text| text.contains("HTTPS")).unwrap_or_default()
        }
    };
    // Pages for people are not quoted, nor addresses with a query, which may be signed.
    let text = if text.starts_with('<') || text.contains('?') { "" } else { text };
    let text: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
    if text.is_empty() { text } else { format!(" ({text})") }
}
