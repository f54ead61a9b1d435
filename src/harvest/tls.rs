//! Where TLS fails for good: an answer in plain text, a certificate that nobody vouches for. Such a
//! request would fail the same way every time.

use super::Error;
use super::registry::Host;
use reqwest::Url;
use std::cell::RefCell;

/// What TLS found wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// The other side does not speak it.
    PlainText,
    /// The certificate is not trusted.
    Certificate(String),
}

/// The fault behind an error, if there is one that no later attempt can better.
pub(super) fn lasting(error: &(dyn std::error::Error + 'static)) -> Option<Fault> {
    use rustls::{Error as Tls, InvalidMessage};
    let mut cause = Some(error);
    while let Some(error) = cause {
        match error.downcast_ref::<Tls>() {
            // What every TLS message begins with; the letters of an HTTP answer are none.
            Some(Tls::InvalidMessage(InvalidMessage::InvalidContentType)) => return Some(Fault::PlainText),
            Some(Tls::InvalidCertificate(why)) => return Some(Fault::Certificate(why.to_string())),
            _ => {}
        }
        // The source of an I/O error is that of the error inside it, which would be passed over.
        cause = match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

tokio::task_local! {
    /// Where the last redirect of a request leads: its errors name the address that was asked first.
    static REDIRECTED: RefCell<Option<String>>;
}

/// `HOST` or `HOST:PORT` of an address, as users write it.
fn address(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or(host.to_owned(), |port| format!("{host}:{port}"))
}

/// Notes where a request is redirected to.
pub(super) fn redirected(to: &Url) {
    // Outside of a request there is nobody who would ask.
    let _ = REDIRECTED.try_with(|place| *place.borrow_mut() = Some(address(to)));
}

/// A request that failed, and where.
pub(super) struct Failed {
    pub(super) error: reqwest::Error,
    /// The host that was asked last.
    pub(super) host: String,
}

/// Sends a request and follows its redirects.
pub(super) async fn send(request: reqwest::RequestBuilder) -> Result<reqwest::Response, Failed> {
    let sent = async {
        request.send().await.map_err(|error| {
            let last = REDIRECTED.with(RefCell::take).or_else(|| error.url().map(address));
            Failed { host: last.unwrap_or_default(), error }
        })
    };
    REDIRECTED.scope(RefCell::default(), sent).await
}

impl Failed {
    /// The error of a request to `registry` that need not be tried again, if TLS is why it failed.
    pub(super) fn for_good(&self, registry: &Host, what: &str) -> Option<Error> {
        let (what, host) = (what.to_owned(), self.host.clone());
        Some(match lasting(&self.error)? {
            Fault::Certificate(reason) => Error::Certificate { what, host, reason },
            Fault::PlainText => {
                // Another host is asked as a redirect or a challenge of the registry says.
                let own = Url::parse(&registry.url("")).is_ok_and(|url| address(&url) == host);
                Error::PlainText { what, host, own }
            }
        })
    }
}
