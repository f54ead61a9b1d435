//! Whom registries let in: TLS and its certificates, and log-ins where the tools leave them.

mod support;

use std::path::Path;
use stratigraph::rootfs::results::Results;
use support::layout::empty_files;
use support::registry::Served;
use support::{run, sh, stratigraph, succeed, tools};

/// One image in the layout `oci`, and what of it counts.
fn image(directory: &Path) {
    let layers = vec![vec![b"bin/sh".to_vec(), b"etc/base".to_vec()]];
    empty_files(&directory.join("oci"), &[("a".to_owned(), layers)].into());
    std::fs::write(directory.join("universe"), "bin/sh\netc/base\netc/none\n").expect("a file");
}

/// Pushes it, and gives its name.
fn push(directory: &Path, registry: &Served, options: &str) -> String {
    let name = format!("{}/lab/tool:a", registry.address);
    let copy = format!("skopeo copy -q --insecure-policy {options} oci:oci:a docker://{name}");
    sh(directory, &copy);
    name
}

/// How many paths of the image were found.
fn found(results: &Path) -> u64 {
    let results = Results::read(&results.join("rootfs.h5")).expect("a results file");
    results.set_of(0).expect("a set").len()
}

#[test]
fn a_registry_without_tls_is_told_at_once_and_how_to_name_it() {
    if !tools(&["skopeo", "docker-registry"]) {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    image(dir);
    let served = Served::start(dir, None);
    let name = push(dir, &served, "--dest-tls-verify=false");
    let options = ["rootfs", "--universe", "universe", "-o", "out", &name];
    let (code, out, err) = run(stratigraph(1).current_dir(dir).args(options));
    let address = &served.address;
    let expected = format!(
        "manifest of {name}: {address} does not answer in TLS; if plain HTTP is meant, say so with --plain-http {address}\n"
    );
    assert!(code == 3 && err.contains(&expected) && !err.contains("attempts"), "{code} {out}{err}");
    // The remedy is one, and so is the name of the host alone.
    for name in [address.as_str(), "127.0.0.1"] {
        succeed(stratigraph(1).current_dir(dir).args(options).args(["--plain-http", name]));
        assert_eq!(found(&dir.join("out")), 2);
    }
}

#[test]
fn certificates_are_checked_and_more_can_be_trusted() {
    if !tools(&["skopeo", "docker-registry", "openssl"]) {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    image(dir);
    sh(
        dir,
        r#"
        openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 30 -subj "/CN=lab" \
            -addext basicConstraints=critical,CA:TRUE 2>/dev/null
        openssl req -newkey rsa:2048 -nodes -keyout host.key -out host.csr -subj "/CN=registry" 2>/dev/null
        printf 'subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth\n' > extensions
        openssl x509 -req -in host.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 \
            -extfile extensions -out host.pem 2>/dev/null
        printf 'no certificate' > none.pem
        "#,
    );
    let served = Served::start_in_tls(dir, "host.pem", "host.key");
    let name = push(dir, &served, "--dest-tls-verify=false");
    let options = ["rootfs", "--universe", "universe", "-o", "out", &name];
    let (code, out, err) = run(stratigraph(1).current_dir(dir).args(options));
    let expected = format!("the certificate of {} is not trusted (", served.address);
    assert!(code == 3 && err.contains(&expected) && err.contains("--ca FILE"), "{code} {out}{err}");
    assert!(!err.contains("attempts"), "{err}");
    succeed(stratigraph(1).current_dir(dir).args(options).args(["--ca", "ca.pem"]));
    assert_eq!(found(&dir.join("out")), 2);
    // The certificate is for an address, and no other name is believed to be its host.
    let other = name.replace("127.0.0.1", "localhost");
    let options = ["rootfs", "--universe", "universe", "-o", "other", "--ca", "ca.pem", &other];
    let (code, out, err) = run(stratigraph(1).current_dir(dir).args(options));
    assert!(code == 3 && err.contains("not valid for name"), "{code} {out}{err}");
    // Asked without TLS it says what it wants.
    let plain = ["rootfs", "--universe", "universe", "-o", "plain", "--plain-http", "127.0.0.1", &name];
    let (code, out, err) = run(stratigraph(1).current_dir(dir).args(plain));
    let told = "the answer was 400 (Client sent an HTTP request to an HTTPS server.)";
    assert!(code == 3 && err.contains(told), "{code} {out}{err}");
    support::refused(
        stratigraph(1)
            .current_dir(dir)
            .args(["rootfs", "--universe", "universe", "-o", "none"])
            .args(["--ca", "none.pem", &name]),
        4,
        "none.pem: holds no certificate in PEM form",
    );
}

#[test]
fn log_ins_are_found_without_a_runtime_directory() {
    if !tools(&["skopeo", "docker-registry", "htpasswd", "unshare"]) {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    image(dir);
    sh(dir, "htpasswd -Bbn user hunter2 > htpasswd; mkdir home");
    let served = Served::start(dir, Some("htpasswd"));
    let name = push(dir, &served, "--dest-tls-verify=false --dest-creds user:hunter2");
    // A /run of its own, so that no log-in of whoever runs this is touched.
    let script = format!(
        r#"
        unset XDG_RUNTIME_DIR XDG_CONFIG_HOME DOCKER_CONFIG REGISTRY_AUTH_FILE
        export HOME=$PWD/home
        program="{} --threads 1 rootfs --universe universe --plain-http {} {name}"
        $program -o before > before.log 2>&1 && exit 1
        skopeo login -u user -p hunter2 --tls-verify=false {}
        test -e /run/containers/$(id -u)/auth.json
        $program -o after
        "#,
        env!("CARGO_BIN_EXE_stratigraph"),
        served.address,
        served.address,
    );
    std::fs::write(dir.join("script"), script).expect("a file");
    let isolated = "unshare --map-root-user --mount sh -euc 'mount -t tmpfs none /run;";
    if !run(std::process::Command::new("sh").args(["-c", &format!("{isolated}'")])).0.eq(&0) {
        println!("skipped: no mount namespace can be made here");
        return;
    }
    sh(dir, &format!("{isolated} sh -eu script'"));
    let before = std::fs::read_to_string(dir.join("before.log")).expect("a file");
    assert!(before.contains("refuses anonymous requests"), "{before}");
    assert_eq!(found(&dir.join("after")), 2);
}
