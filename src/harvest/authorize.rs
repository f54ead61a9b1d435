//! Bearer tokens and basic authentication: what to send along with a request, and how to come by it.
//!
//! A registry answers 401 with a challenge (RFC 7235). `Basic` wants name and password with each
//! request; `Bearer` names a token service, which hands out a token for one repository (Docker's
//! "Token Authentication Specification" and its OAuth 2 variant for identity tokens).

use super::registry::Host;
use super::{Credential, Error, Registry};
use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What a registry wants to see. Known after its first refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String> },
}

/// A header value and until when it may be used.
#[derive(Clone)]
pub(super) struct Permission {
    header: HeaderValue,
    until: Option<Instant>,
}

impl Permission {
    fn new(text: &str, until: Option<Instant>) -> Option<Self> {
        let mut header = HeaderValue::from_str(text).ok()?;
        header.set_sensitive(true);
        Some(Self { header, until })
    }

    fn basic(user: &str, secret: &str) -> Option<Self> {
        use base64::Engine;
        let pair = base64::prelude::BASE64_STANDARD.encode(format!("{user}:{secret}"));
        Self::new(&format!("Basic {pair}"), None)
    }

    /// The header value, unless it is about to expire.
    pub(super) fn header(&self) -> Option<&HeaderValue> {
        let usable = self.until.is_none_or(|until| Instant::now() + Duration::from_secs(5) < until);
        usable.then_some(&self.header)
    }
}

/// The challenge that this program can answer; a bearer one before a basic one.
fn challenge(headers: &HeaderMap) -> Option<Challenge> {
    let mut basic = None;
    for value in headers.get_all(WWW_AUTHENTICATE) {
        let Ok(text) = value.to_str() else { continue };
        for challenge in http_auth::ChallengeParser::new(text).flatten() {
            if challenge.scheme.eq_ignore_ascii_case("bearer") {
                let parameter = |name: &str| {
                    let (_, value) = challenge.params.iter().find(|(n, _)| n.eq_ignore_ascii_case(name))?;
                    Some(value.to_unescaped())
                };
                if let Some(realm) = parameter("realm") {
                    return Some(Challenge::Bearer { realm, service: parameter("service") });
                }
            } else if challenge.scheme.eq_ignore_ascii_case("basic") {
                basic = Some(Challenge::Basic);
            }
        }
    }
    basic
}

/// The longest answer of a token service that is read, in bytes.
const TOKEN_LIMIT: u64 = 1 << 20;

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    /// The same under its OAuth 2 name; Docker's specification allows both at once.
    access_token: Option<String>,
    #[serde(default = "sixty")]
    expires_in: u64,
}

/// The life of a token whose service names none, in seconds (Docker's specification).
fn sixty() -> u64 {
    60
}

impl Registry {
    /// Learns from a refusal what the registry wants and gets it for `repository`.
    pub(super) async fn answer_challenge(
        &self,
        host: &Host,
        repository: &str,
        what: &str,
        refusal: &reqwest::Response,
    ) -> Result<(), Error> {
        // Only the registry itself may say to whom its credentials are shown, not a storage service
        // behind a redirect.
        let own = reqwest::Url::parse(&host.url("")).is_ok_and(|u| u.origin() == refusal.url().origin());
        let Some(challenge) = challenge(refusal.headers()).filter(|_| own) else {
            return Err(self.unauthorized(host, what, None));
        };
        *host.challenge.lock().await = Some(challenge);
        host.permissions.lock().await.remove(repository);
        self.permission(host, repository, what).await.map(|_| ())
    }

    /// What to send along for `repository`: nothing before the first refusal.
    pub(super) async fn permission(
        &self,
        host: &Host,
        repository: &str,
        what: &str,
    ) -> Result<Option<HeaderValue>, Error> {
        let Some(challenge) = host.challenge.lock().await.clone() else { return Ok(None) };
        // Held while a token is fetched, so that many readers of a repository fetch one.
        let mut permissions = host.permissions.lock().await;
        if let Some(header) = permissions.get(repository).and_then(Permission::header) {
            return Ok(Some(header.clone()));
        }
        let credential = self.credentials.find(&host.registry, repository)?;
        let refused = || self.unauthorized(host, what, credential.as_ref());
        let permission = match (&challenge, &credential) {
            (_, Some(Credential::Bearer(token))) => Permission::new(&format!("Bearer {token}"), None),
            (Challenge::Basic, Some(Credential::Basic { user, secret })) => Permission::basic(user, secret),
            (Challenge::Basic, _) => return Err(refused()),
            (Challenge::Bearer { realm, service }, credential) => {
                let scope = format!("repository:{repository}:pull");
                let mut fields = BTreeMap::from([("scope", scope.as_str())]);
                fields.extend(service.as_deref().map(|s| ("service", s)));
                let token = self.token(host, realm, fields, credential.as_ref(), what).await?;
                let until = Instant::now().checked_add(Duration::from_secs(token.expires_in));
                token
                    .token
                    .or(token.access_token)
                    .and_then(|t| Permission::new(&format!("Bearer {t}"), until))
            }
        };
        let permission = permission.ok_or_else(refused)?;
        let header = permission.header.clone();
        permissions.insert(repository.to_owned(), permission);
        Ok(Some(header))
    }

    /// Asks a token service.
    async fn token(
        &self,
        host: &Host,
        realm: &str,
        fields: BTreeMap<&str, &str>,
        credential: Option<&Credential>,
        what: &str,
    ) -> Result<Token, Error> {
        let protocol = |reason: String| Error::Protocol { what: what.to_owned(), reason };
        let mut url = reqwest::Url::parse(realm)
            .map_err(|e| protocol(format!("the registry names a token service that is no address ({e})")))?;
        if !self.may_reach(&url) {
            return Err(protocol(format!(
                "the registry names a token service over plain HTTP ({}); allow it with --plain-http if this is meant",
                url.host_str().unwrap_or_default()
            )));
        }
        let request = match credential {
            Some(Credential::Identity(refresh)) => {
                let mut form = fields;
                form.extend([
                    ("grant_type", "refresh_token"),
                    ("refresh_token", refresh.as_str()),
                    ("client_id", "stratigraph"),
                ]);
                let body = url_encoded(&form);
                self.straight
                    .post(url)
                    .header(reqwest::header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(body)
            }
            other => {
                url.query_pairs_mut().extend_pairs(fields);
                let request = self.http.get(url);
                match other {
                    Some(Credential::Basic { user, secret }) => request.basic_auth(user, Some(secret)),
                    _ => request,
                }
            }
        };
        let ask = || async {
            let answer = self
                .persist(host, what, || async { request.try_clone().ok_or("the request cannot be repeated") })
                .await?;
            match answer.status().as_u16() {
                200 => Ok((answer, ())),
                401 | 403 => Err(self.unauthorized(host, what, credential)),
                status => {
                    let redirect = (300..400).contains(&status);
                    let redirect = if redirect { " (a redirect, not followed with a secret)" } else { "" };
                    let detail = format!("{redirect} from the token service of {}", host.registry);
                    Err(Error::Answer { what: what.to_owned(), status, detail })
                }
            }
        };
        let answer = self.whole(what, TOKEN_LIMIT, ask).await?;
        // The parser's message could quote the token.
        serde_json::from_slice(&answer.bytes)
            .map_err(|_| protocol("the token service answered with no token".into()))
    }

    /// The refusal, told with what was sent along but not with its contents.
    pub(super) fn unauthorized(&self, host: &Host, what: &str, credential: Option<&Credential>) -> Error {
        Error::Unauthorized {
            what: what.to_owned(),
            registry: host.registry.clone(),
            who: if credential.is_some() { "the credentials it was given" } else { "anonymous requests" },
        }
    }
}

fn url_encoded(form: &BTreeMap<&str, &str>) -> String {
    // A throw-away address does the escaping; `http://-/?` is not part of what is sent.
    let mut url = reqwest::Url::parse("http://localhost/").expect("a fixed address");
    url.query_pairs_mut().extend_pairs(form);
    url.query().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&'static str]) -> Option<Challenge> {
        let values = values.iter().map(|v| (WWW_AUTHENTICATE, HeaderValue::from_static(v)));
        challenge(&values.collect())
    }

    #[test]
    fn challenges_are_understood() {
        let bearer = Challenge::Bearer {
            realm: "https://auth.example/token".into(),
            service: Some("registry.example".into()),
        };
        let text = r#"Bearer realm="https://auth.example/token",service="registry.example",scope="x""#;
        assert_eq!(of(&[text]), Some(bearer.clone()));
        assert_eq!(of(&["Basic realm=\"r\"", text]), Some(bearer));
        assert_eq!(of(&["Basic realm=\"r\""]), Some(Challenge::Basic));
        assert_eq!(of(&["Negotiate", "Bearer service=\"no realm\""]), None);
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn forms_are_escaped() {
        let form = BTreeMap::from([("scope", "repository:a/b:pull"), ("refresh_token", "x&y=z")]);
        assert_eq!(url_encoded(&form), "refresh_token=x%26y%3Dz&scope=repository%3Aa%2Fb%3Apull");
    }
}
