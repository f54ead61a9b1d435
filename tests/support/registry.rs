//! Debian's `docker-registry` on loopback.

use std::collections::BTreeMap;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Debian's `docker-registry`, for as long as this lives.
pub struct Served {
    child: Child,
    /// `127.0.0.1:PORT`.
    pub address: String,
    log: PathBuf,
}

impl Served {
    /// Starts one with its files in `directory`; names and passwords from a file there, if given.
    pub fn start(directory: &Path, htpasswd: Option<&str>) -> Self {
        Self::start_with(directory, htpasswd, None)
    }

    /// Starts one that answers in TLS, with the files of its certificate and key.
    pub fn start_in_tls(directory: &Path, certificate: &str, key: &str) -> Self {
        Self::start_with(directory, None, Some([certificate, key]))
    }

    fn start_with(directory: &Path, htpasswd: Option<&str>, tls: Option<[&str; 2]>) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = free.local_addr().expect("an address").to_string();
        drop(free);
        let auth = htpasswd.map_or(String::new(), |file| {
            format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", directory.join(file).display())
        });
        let tls = tls.map_or(String::new(), |files| {
            let [certificate, key] = files.map(|file| directory.join(file).display().to_string());
            format!("  tls:\n    certificate: {certificate}\n    key: {key}\n")
        });
        let storage = directory.join(format!("storage-{address}"));
        let config = format!(
            "version: 0.1\nlog:\n  accesslog:\n    disabled: false\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n{tls}{auth}",
            storage.display()
        );
        let file = directory.join(format!("registry-{address}.yml"));
        std::fs::write(&file, config).expect("a file");
        let log = directory.join(format!("registry-{address}.log"));
        let out = std::fs::File::create(&log).expect("a file");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(file)
            .stderr(out.try_clone().expect("a handle"))
            .stdout(out)
            .stdin(Stdio::null())
            .spawn()
            .expect("the registry starts");
        for _ in 0..600 {
            if TcpStream::connect(&address).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Self { child, address, log }
    }

    /// How often each blob was sent.
    pub fn blobs_sent(&self) -> BTreeMap<String, usize> {
        let log = std::fs::read_to_string(&self.log).expect("a log");
        let mut sent = BTreeMap::new();
        for line in log.lines().filter(|l| l.contains("\"GET /v2/") && l.contains("/blobs/sha256:")) {
            let digest = line.split("/blobs/").nth(1).and_then(|l| l.split([' ', '"', '?']).next());
            *sent.entry(digest.unwrap_or_default().to_owned()).or_default() += 1;
        }
        sent
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
