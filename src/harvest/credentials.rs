//! Credentials from the files that docker, podman, buildah and skopeo write on log-in
//! (containers-auth.json(5); docker's `config.json`).

use super::Error;
use base64::Engine;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// How to prove to a registry who is asking.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// A user's name and password (or access token in its place).
    Basic {
        /// Name.
        user: String,
        /// Password.
        secret: String,
    },
    /// A refresh token, which the token service changes into a short-lived one.
    Identity(String),
    /// A ready bearer token.
    Bearer(String),
}

impl std::fmt::Debug for Credential {
    /// Names the kind only: what is printed by accident must not be secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Basic { .. } => "Basic(...)",
            Self::Identity(_) => "Identity(...)",
            Self::Bearer(_) => "Bearer(...)",
        })
    }
}

/// The credentials of a user, by registry or by part of one.
#[derive(Debug, Default)]
pub struct Credentials {
    files: Vec<(PathBuf, AuthFile)>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct AuthFile {
    auths: BTreeMap<String, Entry>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

impl std::fmt::Debug for AuthFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AuthFile({} registries)", self.auths.len())
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    auth: String,
    identitytoken: String,
    registrytoken: String,
}

impl Credentials {
    /// Reads the given file; without one, that of `$REGISTRY_AUTH_FILE`; without that, those of the usual
    /// places that exist, in the order in which podman looks: `$XDG_RUNTIME_DIR/containers/auth.json` (where
    /// that variable is not set, the places that stand for it), `$XDG_CONFIG_HOME/containers/auth.json`,
    /// `$DOCKER_CONFIG/config.json`, `~/.docker/config.json`, `~/.dockercfg`. `variable` looks up the
    /// environment.
    ///
    /// # Errors
    /// [`Error::Credentials`] if a file cannot be read or is no such file.
    pub fn load(file: Option<&Path>, variable: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let set = |name: &str| variable(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let must_exist: Vec<PathBuf> =
            file.map(Path::to_owned).or_else(|| set("REGISTRY_AUTH_FILE")).into_iter().collect();
        let home = set("HOME");
        let in_home = |name: &str| home.as_ref().map(|h| h.join(name));
        let usual = || {
            let runtime = match set("XDG_RUNTIME_DIR") {
                Some(directory) => vec![directory.join("containers/auth.json")],
                None => without_runtime_dir(set("TMPDIR")),
            };
            let settings = set("XDG_CONFIG_HOME").or_else(|| in_home(".config"));
            let docker = set("DOCKER_CONFIG").or_else(|| in_home(".docker"));
            let others = [
                settings.map(|d| d.join("containers/auth.json")),
                docker.map(|d| d.join("config.json")),
                in_home(".dockercfg"),
            ];
            runtime.into_iter().chain(others.into_iter().flatten()).filter(|p| p.exists()).collect()
        };
        let paths: Vec<PathBuf> = if must_exist.is_empty() { usual() } else { must_exist };
        let mut files = Vec::new();
        for path in paths {
            let refuse = |reason: String| Error::Credentials { path: path.clone(), reason };
            let text = std::fs::read(&path).map_err(|e| refuse(e.to_string()))?;
            // The message of the parser may quote the text, so only the place is told.
            let no_such = |e: serde_json::Error| {
                refuse(format!("is no file of credentials (line {}, column {})", e.line(), e.column()))
            };
            let auth = match path.ends_with(".dockercfg") {
                // The oldest format of docker has the entries alone.
                true => {
                    AuthFile { auths: serde_json::from_slice(&text).map_err(no_such)?, ..AuthFile::default() }
                }
                false => serde_json::from_slice(&text).map_err(no_such)?,
            };
            files.push((path, auth));
        }
        Ok(Self { files })
    }

    /// The credential for a repository: the entry whose key is the longest part of
    /// `registry/repository`, from the first file that has one.
    ///
    /// # Errors
    /// [`Error::Credentials`] if the entry is damaged or its helper program fails.
    pub fn find(&self, registry: &str, repository: &str) -> Result<Option<Credential>, Error> {
        let full = format!("{}/{repository}", canonical(registry));
        for (path, file) in &self.files {
            let refuse = |reason: String| Error::Credentials { path: path.clone(), reason };
            let parts = std::iter::successors(Some(full.as_str()), |p| p.rsplit_once('/').map(|(p, _)| p));
            for part in parts {
                if let Some((key, entry)) = file.auths.iter().find(|(key, _)| canonical(key) == part)
                    && let Some(credential) =
                        entry.credential().map_err(|why| refuse(format!("{key}: {why}")))?
                {
                    return Ok(Some(credential));
                }
                let helper = file.cred_helpers.iter().find(|(key, _)| canonical(key) == part);
                if let Some((key, name)) = helper {
                    return ask_helper(name, key).map_err(refuse);
                }
            }
            if let Some(name) = &file.creds_store {
                let server = if canonical(registry) == DOCKER_HUB { DOCKER_HUB_KEY } else { registry };
                if let Some(credential) = ask_helper(name, server).map_err(refuse)? {
                    return Ok(Some(credential));
                }
            }
        }
        Ok(None)
    }
}

/// Where log-ins are written without `XDG_RUNTIME_DIR`, as in batch jobs and by root in a container:
/// `/run/containers/UID` (skopeo; podman as root), `/run/user/UID` and `podman-run-UID` in the directory
/// for temporary files (podman as another user). The last one counts if it is the user's own: everybody
/// may make it.
fn without_runtime_dir(temporary: Option<PathBuf>) -> Vec<PathBuf> {
    use std::os::unix::fs::MetadataExt;
    let owner = |path: &Path| Some(std::fs::metadata(path).ok()?.uid());
    let Some(user) = owner(Path::new("/proc/self")) else { return Vec::new() };
    let temporary = temporary.unwrap_or_else(|| "/tmp".into()).join(format!("podman-run-{user}"));
    let own = (owner(&temporary) == Some(user)).then(|| temporary.join("containers/auth.json"));
    let run = [format!("/run/containers/{user}/auth.json"), format!("/run/user/{user}/containers/auth.json")];
    run.into_iter().map(PathBuf::from).chain(own).collect()
}

/// One name for the names of Docker's own registry.
const DOCKER_HUB: &str = "docker.io";
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// A key without what docker adds to it: scheme, API version, final slash.
fn canonical(key: &str) -> &str {
    let key = key.split_once("://").map_or(key, |(_, rest)| rest);
    let key = key.trim_end_matches('/');
    let key = key.strip_suffix("/v1").or_else(|| key.strip_suffix("/v2")).unwrap_or(key);
    match key {
        "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com" => DOCKER_HUB,
        other => other,
    }
}

impl Entry {
    /// `None` where the entry is empty, as docker leaves it when a helper holds the secret.
    fn credential(&self) -> Result<Option<Credential>, String> {
        if !self.registrytoken.is_empty() {
            return Ok(Some(Credential::Bearer(self.registrytoken.clone())));
        }
        if !self.identitytoken.is_empty() {
            return Ok(Some(Credential::Identity(self.identitytoken.clone())));
        }
        if self.auth.is_empty() {
            return Ok(None);
        }
        let bytes = base64::prelude::BASE64_STANDARD
            .decode(self.auth.trim())
            .map_err(|_| "its auth is not base64; log in again")?;
        let text = String::from_utf8(bytes).map_err(|_| "its auth is not UTF-8; log in again")?;
        let (user, secret) = text.split_once(':').ok_or("its auth is not USER:PASSWORD; log in again")?;
        // Some versions of docker ended the password with a NUL.
        let secret = secret.trim_end_matches('\0');
        Ok(Some(Credential::Basic { user: user.to_owned(), secret: secret.to_owned() }))
    }
}

#[derive(Deserialize)]
struct HelperAnswer {
    #[serde(rename = "Username")]
    user: String,
    #[serde(rename = "Secret")]
    secret: String,
}

/// Asks the program `docker-credential-NAME` (docker's credential helper protocol).
fn ask_helper(name: &str, server: &str) -> Result<Option<Credential>, String> {
    let program = format!("docker-credential-{name}");
    let failed = |e: &dyn std::fmt::Display| format!("{program}: {e}");
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| failed(&e))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that does not read its input tells by its answer.
        let _ = stdin.write_all(server.as_bytes());
    }
    let output = child.wait_with_output().map_err(|e| failed(&e))?;
    if !output.status.success() {
        // This is how helpers say that they know no such server; other troubles end in a refusal by
        // the registry, which names it.
        return Ok(None);
    }
    let answer: HelperAnswer =
        serde_json::from_slice(&output.stdout).map_err(|_| failed(&"answered with no credentials"))?;
    Ok(Some(match answer.user.as_str() {
        "<token>" => Credential::Identity(answer.secret),
        _ => Credential::Basic { user: answer.user, secret: answer.secret },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(user: &str, secret: &str) -> Option<Credential> {
        Some(Credential::Basic { user: user.into(), secret: secret.into() })
    }

    fn load(text: &str) -> Result<Credentials, Error> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("auth.json");
        std::fs::write(&path, text).unwrap();
        Credentials::load(Some(&path), |_| None)
    }

    #[test]
    fn the_longest_part_of_the_name_decides() {
        // user:pass and other:word
        let text = r#"{"auths": {
            "registry.example": {"auth": "dXNlcjpwYXNz"},
            "https://registry.example/team/": {"auth": "b3RoZXI6d29yZA=="},
            "https://index.docker.io/v1/": {"identitytoken": "long-lived"},
            "empty.example": {}}}"#;
        let credentials = load(text).unwrap();
        let find = |registry, repository| credentials.find(registry, repository).unwrap();
        assert_eq!(find("registry.example", "team/tool"), basic("other", "word"));
        assert_eq!(find("registry.example", "teams/tool"), basic("user", "pass"));
        assert_eq!(find("docker.io", "library/debian"), Some(Credential::Identity("long-lived".into())));
        assert_eq!(find("index.docker.io", "x"), Some(Credential::Identity("long-lived".into())));
        assert_eq!(find("empty.example", "x"), None);
        assert_eq!(find("registry.example.org", "team/tool"), None);
    }

    #[test]
    fn files_are_found_where_the_tools_put_them() {
        let home = tempfile::tempdir().unwrap();
        let write = |path: &str, auth: &str| {
            let path = home.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            let auth = base64::prelude::BASE64_STANDARD.encode(auth);
            std::fs::write(path, format!(r#"{{"auths": {{"r.example": {{"auth": "{auth}"}}}}}}"#)).unwrap();
        };
        let user = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(home.path()).unwrap());
        // A runtime directory that is set and empty, so that this user's own log-ins do not count.
        let temporary = std::cell::Cell::new(false);
        let variable = |name: &str| match name {
            "HOME" => Some(home.path().display().to_string()),
            "XDG_RUNTIME_DIR" if !temporary.get() => Some(home.path().join("none").display().to_string()),
            "TMPDIR" => Some(home.path().join("tmp").display().to_string()),
            _ => None,
        };
        let find = || Credentials::load(None, variable).unwrap().find("r.example", "x").unwrap();
        assert_eq!(find(), None);
        let auth = base64::prelude::BASE64_STANDARD.encode("old:0");
        std::fs::write(home.path().join(".dockercfg"), format!(r#"{{"r.example": {{"auth": "{auth}"}}}}"#))
            .unwrap();
        assert_eq!(find(), basic("old", "0"));
        write(".docker/config.json", "docker:1");
        assert_eq!(find(), basic("docker", "1"));
        write(".config/containers/auth.json", "podman:2:3");
        assert_eq!(find(), basic("podman", "2:3"));
        write(&format!("tmp/podman-run-{user}/containers/auth.json"), "rootless:4");
        assert_eq!(find(), basic("podman", "2:3"));
        temporary.set(true);
        assert_eq!(find(), basic("rootless", "4"));
    }

    #[test]
    fn damaged_files_are_refused_without_quoting_them() {
        for (text, expected) in [
            (r#"{"auths": {"r.example": {"auth": "hunter2"#, "line 1"),
            (r#"{"auths": {"r.example": {"auth": "hunter2!"}}}"#, "not base64"),
            (r#"{"auths": {"r.example": {"auth": "aHVudGVyMg=="}}}"#, "USER:PASSWORD"),
        ] {
            let error = load(text).and_then(|c| c.find("r.example", "x")).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        let error = Credentials::load(Some(Path::new("/nowhere/auth.json")), |_| None).unwrap_err();
        assert!(error.to_string().starts_with("/nowhere/auth.json: "), "{error}");
    }

    #[test]
    fn a_helper_that_is_missing_is_named() {
        let error = load(r#"{"credHelpers": {"r.example": "no-such-helper"}}"#)
            .and_then(|c| c.find("r.example", "x"))
            .unwrap_err();
        assert!(error.to_string().contains("docker-credential-no-such-helper"), "{error}");
    }

    #[test]
    fn debug_output_is_not_secret() {
        let text = format!("{:?} {:?}", basic("user", "hunter2"), load(r#"{"auths":{"r":{"auth":"aHVu"}}}"#));
        assert!(!text.contains("hunter2") && !text.contains("aHVu"), "{text}");
    }
}
