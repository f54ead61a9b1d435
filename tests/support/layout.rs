//! OCI layouts that tests write themselves.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use stratigraph::rootfs::Digest;

/// The paths of a layer.
pub type Paths = Vec<Vec<u8>>;

/// A layout with an image for each name; its layers are archives of empty files.
pub fn empty_files(directory: &Path, images: &BTreeMap<String, Vec<Paths>>) {
    let blobs = directory.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).expect("a directory");
    let put = |bytes: &[u8], media_type: &str| {
        let digest = Digest::of(bytes);
        std::fs::write(blobs.join(digest.hex()), bytes).expect("a file");
        let media_type = format!("application/vnd.oci.image.{media_type}");
        serde_json::json!({"mediaType": media_type, "digest": digest.to_string(), "size": bytes.len()})
    };
    let mut index = Vec::new();
    for (name, layers) in images {
        let layers: Vec<_> = layers.iter().map(|paths| put(&archive(paths), "layer.v1.tar")).collect();
        let diff_ids: Vec<_> = layers.iter().map(|layer| layer["digest"].clone()).collect();
        let config = serde_json::json!({
            "os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = put(config.to_string().as_bytes(), "config.v1+json");
        let manifest = serde_json::json!({"schemaVersion": 2, "config": config, "layers": layers});
        let mut entry = put(manifest.to_string().as_bytes(), "manifest.v1+json");
        entry["annotations"] = serde_json::json!({"org.opencontainers.image.ref.name": name});
        index.push(entry);
    }
    let index = serde_json::json!({"schemaVersion": 2, "manifests": index});
    std::fs::write(directory.join("index.json"), index.to_string()).expect("a file");
    std::fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).expect("a file");
}

/// An image of a layout.
pub fn image_of(layout: &Path, name: &str) -> stratigraph::rootfs::source::Image {
    let layout = stratigraph::rootfs::source::Layout::open(layout).expect("a layout");
    stratigraph::rootfs::source::Source::image(&layout, name, &Default::default()).expect("an image")
}

/// Changes the config of a layout's first image, and manifest and index with it.
pub fn rewrite_config(directory: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    let blobs = directory.join("blobs");
    let read = |file: &Path| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(file).expect("a file")).expect("JSON")
    };
    let blob = |descriptor: &serde_json::Value| {
        read(&blobs.join(descriptor["digest"].as_str().expect("a digest").replace(':', "/")))
    };
    let put = |descriptor: &mut serde_json::Value, document: &serde_json::Value| {
        let bytes = document.to_string();
        let digest = Digest::of(bytes.as_bytes());
        std::fs::write(blobs.join("sha256").join(digest.hex()), &bytes).expect("a file");
        descriptor["digest"] = digest.to_string().into();
        descriptor["size"] = bytes.len().into();
    };
    let mut index = read(&directory.join("index.json"));
    let mut manifest = blob(&index["manifests"][0]);
    let mut config = blob(&manifest["config"]);
    change(&mut config);
    put(&mut manifest["config"], &config);
    put(&mut index["manifests"][0], &manifest);
    std::fs::write(directory.join("index.json"), index.to_string()).expect("a file");
}

fn archive(paths: &Paths) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for path in paths {
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        header.set_mode(0o644);
        archive.append_data(&mut header, OsStr::from_bytes(path), [].as_slice()).expect("a vector takes all");
    }
    archive.into_inner().expect("a vector")
}
