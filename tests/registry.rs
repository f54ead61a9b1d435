//! The registry client against a registry that misbehaves on request.

#[path = "support/fake_registry.rs"]
#[allow(dead_code)]
mod fake_registry;

use fake_registry::{FakeRegistry, Fault, Guard, digest};
use proptest::prelude::*;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use stratigraph::harvest::{Blob, Credentials, Error, Limits, Patience, Registry, Settings};

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn quick(plain_http: &[&str]) -> Settings {
    let share = Limits { requests_per_second: f64::INFINITY, ..Limits::default() }.share(0, 1).unwrap();
    Settings {
        plain_http: plain_http.iter().map(|h| (*h).to_owned()).collect(),
        patience: Patience { first_pause: Duration::from_millis(1), ..Patience::default() },
        read_timeout: Duration::from_millis(400),
        ..Settings::new(share)
    }
}

fn client(settings: Settings) -> Arc<Registry> {
    client_with(settings, "{}")
}

fn client_with(settings: Settings, auth_file: &str) -> Arc<Registry> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), auth_file).unwrap();
    let credentials = Credentials::load(Some(file.path()), |_| None).unwrap();
    Arc::new(Registry::new(settings, credentials, Arc::default()).unwrap())
}

fn auth_file(registry: &str, entry: &str) -> String {
    format!(r#"{{"auths": {{"{registry}": {entry}}}}}"#)
}

/// `{"auth": ...}` of user:hunter2.
const USER: &str = r#"{"auth": "dXNlcjpodW50ZXIy"}"#;

fn contents(mut blob: Blob) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    blob.read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    Ok(bytes)
}

fn noise(n: usize) -> Vec<u8> {
    (0..n as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// A registry with one manifest and one blob, and a client for it.
fn pair() -> (FakeRegistry, Arc<Registry>, stratigraph::harvest::Reference, String, Vec<u8>) {
    let fake = FakeRegistry::start();
    let client = client(quick(&[fake.address()]));
    let image = Registry::reference(&format!("{}/lab/tool:1", fake.address())).unwrap();
    let bytes = noise(200_000);
    let digest = fake.add_blob("lab/tool", &bytes);
    fake.add_manifest("lab/tool", "1", OCI_MANIFEST, b"{\"schemaVersion\": 2}");
    (fake, client, image, digest, bytes)
}

#[test]
fn manifests_and_blobs_are_fetched() {
    let (fake, client, image, blob, bytes) = pair();
    let manifest = client.manifest(&image).unwrap();
    assert_eq!(manifest.media_type, OCI_MANIFEST);
    assert_eq!(manifest.digest, digest(b"{\"schemaVersion\": 2}"));
    let by_digest = Registry::reference(&format!("{}/lab/tool@{}", fake.address(), manifest.digest)).unwrap();
    assert_eq!(client.manifest(&by_digest).unwrap(), manifest);
    assert_eq!(contents(client.blob(&image, &blob, 200_000)).unwrap(), bytes);
    assert_eq!(contents(client.blob_range(&image, &blob, 1000, 1010)).unwrap(), bytes[1000..1010]);
    assert_eq!(client.small_blob(&image, &blob).unwrap().bytes, bytes);
    let traffic = client.traffic();
    assert_eq!((traffic.requests, traffic.repeated), (5, 0));
}

#[test]
fn what_is_not_there_is_told_as_the_registry_tells_it() {
    let (fake, client, _, _, _) = pair();
    let image = Registry::reference(&format!("{}/lab/other:1", fake.address())).unwrap();
    let error = client.manifest(&image).unwrap_err().to_string();
    assert!(error.ends_with("lab/other:1: the answer was 404 (not here)"), "{error}");
    // Not what a storage service may quote of a signed address.
    fake.fault("other", Fault::Text(400, "no /blob?signature=hunter2"));
    let error = client.manifest(&image).unwrap_err().to_string();
    assert!(error.ends_with("lab/other:1: the answer was 400"), "{error}");
    fake.fault("other", Fault::Text(400, "denied, signature hunter2"));
    let error = client.manifest(&image).unwrap_err().to_string();
    assert!(error.ends_with("lab/other:1: the answer was 400"), "{error}");
    fake.fault("other", Fault::Text(400, "Client sent an HTTP request to an HTTPS server.\nhere"));
    let error = client.manifest(&image).unwrap_err().to_string();
    assert!(
        error.ends_with("the answer was 400 (Client sent an HTTP request to an HTTPS server.)"),
        "{error}"
    );
    assert!(matches!(Registry::reference("UPPER case"), Err(Error::Reference { .. })));
}

#[test]
fn an_overloaded_registry_is_asked_again_when_it_says() {
    let (fake, client, image, blob, bytes) = pair();
    fake.fault("manifests", Fault::Status(429, vec!["Retry-After: 1".into()]));
    fake.fault("manifests", Fault::Status(503, vec![]));
    client.manifest(&image).unwrap();
    assert_eq!(fake.asked("manifests").len(), 3);
    fake.fault("blobs", Fault::Status(502, vec![]));
    assert_eq!(contents(client.blob(&image, &blob, 200_000)).unwrap(), bytes);
    assert_eq!(client.traffic().repeated, 3);
    fake.fault("manifests", Fault::Status(429, vec!["Retry-After: 4000".into()]));
    let error = client.manifest(&image).unwrap_err();
    assert!(matches!(error, Error::TooLong { wait, .. } if wait.as_secs() == 4000), "{error}");
    for _ in 0..6 {
        fake.fault("manifests", Fault::Status(500, vec![]));
    }
    let error = client.manifest(&image).unwrap_err().to_string();
    assert!(error.contains("given up after 6 attempts"), "{error}");
    assert_eq!(fake.asked("manifests").len(), 3 + 1 + 6);
}

#[test]
fn an_answer_that_breaks_off_is_asked_for_again() {
    let (fake, client, image, blob, bytes) = pair();
    bearer(&fake, None, 300);
    fake.add_page("/v2/lab/tool/tags/list?n=1000", &["1", "2"], None);
    fake.fault("/token", Fault::Cut(5));
    fake.fault("manifests", Fault::Cut(3));
    fake.fault("manifests", Fault::Stall(0));
    fake.fault("blobs", Fault::Cut(199_999));
    fake.fault("tags", Fault::Cut(10));
    // The first request is refused for want of a token, and takes one of the faults along.
    fake.fault("manifests", Fault::Cut(1));
    assert_eq!(client.manifest(&image).unwrap().bytes, b"{\"schemaVersion\": 2}");
    assert_eq!(client.small_blob(&image, &blob).unwrap().bytes, bytes);
    assert_eq!(client.tags(&image).unwrap(), ["1", "2"]);
    assert_eq!(client.traffic().repeated, 5);
    for _ in 0..6 {
        fake.fault("manifests", Fault::Cut(2));
    }
    let error = client.manifest(&image).unwrap_err();
    assert!(matches!(error, Error::GivenUp { attempts: 6, .. }), "{error}");
    assert!(error.to_string().contains("broke off"), "{error}");
}

#[test]
fn a_stream_goes_on_where_it_broke() {
    let (fake, client, image, blob, bytes) = pair();
    for fault in [Fault::Cut(1234), Fault::Cut(0), Fault::Lie(70_000), Fault::Stall(5)] {
        fake.fault("blobs", fault);
    }
    assert_eq!(contents(client.blob(&image, &blob, 200_000)).unwrap(), bytes);
    let ranges: Vec<_> = fake.asked("blobs").into_iter().map(|a| a.range).collect();
    let from = |n: u32| Some(format!("bytes={n}-"));
    assert_eq!(ranges, [None, from(1234), from(1234), from(71_234), from(71_239)]);
}

#[test]
fn a_server_without_ranges_is_read_again_from_the_start() {
    let (fake, client, image, blob, bytes) = pair();
    fake.fault("blobs", Fault::Cut(150_001));
    fake.fault("blobs", Fault::IgnoreRange);
    assert_eq!(contents(client.blob(&image, &blob, 200_000)).unwrap(), bytes);
    fake.fault("blobs", Fault::IgnoreRange);
    assert_eq!(contents(client.blob_range(&image, &blob, 10, 20)).unwrap(), bytes[10..20]);
}

#[test]
fn wrong_lengths_and_ranges_are_refused() {
    let (fake, client, image, blob, _) = pair();
    fake.fault("blobs", Fault::Longer(7));
    let error = contents(client.blob(&image, &blob, 200_000)).unwrap_err();
    assert!(error.contains("longer than the 200000 bytes of its descriptor"), "{error}");
    let error = contents(client.blob(&image, &blob, 199_999)).unwrap_err();
    assert!(error.contains("longer than the 199999 bytes"), "{error}");
    let error = contents(client.blob(&image, &blob, 200_001)).unwrap_err();
    assert!(error.contains("416") || error.contains("early"), "{error}");
    fake.fault("blobs", Fault::WrongRange);
    let error = contents(client.blob_range(&image, &blob, 10, 20)).unwrap_err();
    assert!(error.contains("asked from byte 10 on"), "{error}");
}

#[test]
fn a_corrupt_document_is_refused_with_both_digests() {
    let (fake, client, image, _, _) = pair();
    fake.fault("manifests", Fault::Corrupt);
    let right = digest(b"{\"schemaVersion\": 2}");
    let error = client.manifest(&image).unwrap_err().to_string();
    assert!(error.contains(&right) && error.contains("but is sha256:"), "{error}");
}

#[test]
fn a_registry_with_passwords_gets_the_one_that_is_its_own() {
    let (fake, client, image, _, _) = pair();
    fake.guard(Guard::Basic("user:hunter2".into()));
    let error = client.manifest(&image).unwrap_err().to_string();
    assert!(error.contains("refuses anonymous requests") && error.contains("docker login"), "{error}");
    let known = client_with(quick(&[fake.address()]), &auth_file(fake.address(), USER));
    known.manifest(&image).unwrap();
    known.manifest(&image).unwrap();
    assert_eq!(fake.asked("manifests").iter().filter(|a| a.authorization.is_none()).count(), 2);
    fake.guard(Guard::Basic("user:other".into()));
    let error = known.manifest(&image).unwrap_err().to_string();
    assert!(error.contains("refuses the credentials it was given"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
}

fn bearer(fake: &FakeRegistry, pair: Option<&str>, life: u64) {
    let realm = format!("http://{}/token", fake.address());
    fake.guard(Guard::Bearer { realm, pair: pair.map(str::to_owned), life });
}

#[test]
fn a_token_is_fetched_once_for_a_repository_and_again_when_it_expires() {
    let (fake, client, image, blob, bytes) = pair();
    bearer(&fake, None, 300);
    client.manifest(&image).unwrap();
    assert_eq!(contents(client.blob(&image, &blob, 200_000)).unwrap(), bytes);
    assert_eq!(fake.asked("/token").len(), 1);
    fake.revoke();
    client.manifest(&image).unwrap();
    assert_eq!(fake.asked("/token").len(), 2);
    // Another repository is another scope.
    fake.add_manifest("lab/other", "1", OCI_MANIFEST, b"{}");
    let other = Registry::reference(&format!("{}/lab/other:1", fake.address())).unwrap();
    client.manifest(&other).unwrap();
    assert!(fake.asked("/token")[2].path.contains("lab%2Fother"));
    // A life shorter than the margin: every request fetches one.
    let hasty = client_with(quick(&[fake.address()]), "{}");
    bearer(&fake, None, 1);
    hasty.manifest(&image).unwrap();
    hasty.manifest(&image).unwrap();
    assert!(fake.asked("/token").len() >= 5);
}

#[test]
fn token_services_get_passwords_and_refresh_tokens() {
    let (fake, _, image, _, _) = pair();
    bearer(&fake, Some("user:hunter2"), 300);
    client_with(quick(&[fake.address()]), &auth_file(fake.address(), USER)).manifest(&image).unwrap();
    let identity = auth_file(fake.address(), r#"{"identitytoken": "refresh-me"}"#);
    client_with(quick(&[fake.address()]), &identity).manifest(&image).unwrap();
    let posted = fake.asked("/token").pop().unwrap();
    assert!(posted.method == "POST" && posted.body.contains("grant_type=refresh_token"), "{posted:?}");
    let wrong = auth_file(fake.address(), r#"{"auth": "dXNlcjpvdGhlcg=="}"#);
    let error = client_with(quick(&[fake.address()]), &wrong).manifest(&image).unwrap_err();
    assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
    fake.fault("/token", Fault::Status(429, vec!["Retry-After: 0".into()]));
    client_with(quick(&[fake.address()]), &auth_file(fake.address(), USER)).manifest(&image).unwrap();
}

#[test]
fn credentials_do_not_follow_a_redirect_to_another_host() {
    let (fake, _, image, blob, bytes) = pair();
    let storage = FakeRegistry::start();
    storage.add_blob("lab/tool", &bytes);
    fake.guard(Guard::Basic("user:hunter2".into()));
    fake.redirect("blobs", &format!("http://{}", storage.other_name()));
    let hosts = [fake.address(), &storage.other_name()];
    let client = client_with(quick(&hosts), &auth_file(fake.address(), USER));
    storage.fault("blobs", Fault::Cut(1000));
    assert_eq!(contents(client.blob(&image, &blob, 200_000)).unwrap(), bytes);
    assert!(fake.asked("blobs").iter().skip(1).all(|a| a.authorization.is_some()));
    let stored = storage.asked("blobs");
    assert_eq!(stored.len(), 2);
    assert!(stored.iter().all(|a| a.authorization.is_none()), "{stored:?}");
    assert_eq!(stored[1].range.as_deref(), Some("bytes=1000-"));
    // A storage service that asks for a password does not get that of the registry.
    let realm = format!("http://{}/token", storage.other_name());
    storage.guard(Guard::Bearer { realm, pair: None, life: 300 });
    let error = contents(client.blob(&image, &blob, 200_000)).unwrap_err();
    assert!(error.contains("refuses"), "{error}");
    assert!(storage.asked("/token").is_empty());
}

#[test]
fn plain_http_is_for_hosts_that_the_user_named() {
    let (fake, _, image, blob, _) = pair();
    let unnamed = client(quick(&[]));
    let error = unnamed.manifest(&image).unwrap_err().to_string();
    let expected = format!(
        "{0} does not answer in TLS; if plain HTTP is meant, say so with --plain-http {0}",
        fake.address()
    );
    assert!(error.ends_with(&expected), "{error}");
    // That would not get better: it is asked once.
    assert_eq!((unnamed.traffic().requests, unnamed.traffic().repeated, fake.hellos()), (1, 0, 1));
    let storage = FakeRegistry::start();
    fake.redirect("blobs", &format!("http://{}", storage.address()));
    let named = || client(quick(&[fake.address()]));
    let error = contents(named().blob(&image, &blob, 200_000)).unwrap_err();
    assert!(error.contains("redirected to plain HTTP"), "{error}");
    fake.guard(Guard::Bearer { realm: format!("http://{}/token", storage.address()), pair: None, life: 60 });
    let error = named().manifest(&image).unwrap_err().to_string();
    assert!(error.contains("token service over plain HTTP"), "{error}");
    assert!(storage.asked("").is_empty());
    // Where a registry sends on to TLS that is none, the place is named, and no remedy that is none.
    fake.guard(Guard::Bearer { realm: format!("https://{}/token", storage.address()), pair: None, life: 60 });
    let error = named().manifest(&image).unwrap_err().to_string();
    assert!(error.ends_with(&format!("{} does not answer in TLS", storage.address())), "{error}");
    fake.guard(Guard::Nobody);
    let elsewhere = FakeRegistry::start();
    fake.redirect("manifests", &format!("https://{}", elsewhere.address()));
    let error = named().manifest(&image).unwrap_err().to_string();
    assert!(error.ends_with(&format!("{} does not answer in TLS", elsewhere.address())), "{error}");
    assert_eq!((storage.hellos(), elsewhere.hellos()), (1, 1));
}

#[test]
fn tags_are_listed_over_all_pages() {
    let (fake, client, image, _, _) = pair();
    let first = "/v2/lab/tool/tags/list?n=1000";
    fake.add_page(first, &["1", "2"], Some("</v2/lab/tool/tags/list?last=2>; rel=\"next\""));
    fake.add_page("/v2/lab/tool/tags/list?last=2", &["3"], None);
    assert_eq!(client.tags(&image).unwrap(), ["1", "2", "3"]);
    // A page without tags in the middle.
    fake.add_page(
        "/v2/lab/tool/tags/list?last=2",
        &[],
        Some("</v2/lab/tool/tags/list?last=3>; rel=\"next\""),
    );
    fake.add_page("/v2/lab/tool/tags/list?last=3", &["4"], None);
    assert_eq!(client.tags(&image).unwrap(), ["1", "2", "4"]);
    // The same page for ever, as from a registry that ignores `last`.
    fake.add_page("/v2/lab/tool/tags/list?last=2", &["3"], Some("</v2/lab/tool/tags/list?last=2>; rel=next"));
    assert_eq!(client.tags(&image).unwrap(), ["1", "2", "3"]);
    fake.add_page(first, &["1"], Some("<http://elsewhere.example/v2/other/tags/list>; rel=\"next\""));
    let error = client.tags(&image).unwrap_err().to_string();
    assert!(error.contains("not of the same repository"), "{error}");
}

#[test]
fn a_stop_ends_a_wait() {
    let stop = Arc::new(AtomicBool::new(false));
    let (fake, _, image, blob, _) = pair();
    let settings = Settings { read_timeout: Duration::from_secs(3600), ..quick(&[fake.address()]) };
    let client = Arc::new(Registry::new(settings, Credentials::default(), Arc::clone(&stop)).unwrap());
    fake.fault("blobs", Fault::Stall(10));
    let mut stream = client.blob(&image, &blob, 200_000);
    let mut ten = [0; 10];
    stream.read_exact(&mut ten).unwrap();
    stop.store(true, Ordering::Relaxed);
    let error = contents(stream).unwrap_err();
    assert!(error.ends_with("stopped"), "{error}");
}

#[test]
fn a_server_that_breaks_every_connection_is_given_up() {
    let (fake, client, image, blob, _) = pair();
    for _ in 0..70 {
        fake.fault("blobs", Fault::Cut(3));
    }
    let error = contents(client.blob(&image, &blob, 200_000)).unwrap_err();
    assert!(error.contains("given up after 65 attempts"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn wherever_it_breaks_the_bytes_are_the_same(
        size in 1usize..40_000,
        faults in prop::collection::vec((0usize..50_000, 0u8..3), 0..5),
    ) {
        let (fake, client, image, _, _) = pair();
        let bytes = noise(size);
        let blob = fake.add_blob("lab/tool", &bytes);
        for (at, kind) in faults {
            fake.fault("blobs", match kind {
                0 => Fault::Cut(at),
                1 => Fault::Lie(at),
                _ => Fault::IgnoreRange,
            });
        }
        prop_assert_eq!(contents(client.blob(&image, &blob, size as u64)).unwrap(), bytes);
    }
}
