//! OCI image layouts (OCI image specification, "Image Layout"), as a directory or inside an archive.

use super::manifest::{self, Documents, damaged};
use super::{Error, Image, Layer, PlatformChoice, Result, Source, Stream};
use crate::rootfs::Digest;
use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The annotation that holds an image's name in a layout.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The whole name, where containerd and docker save wrote the index; theirs of the specification is the tag alone.
const IMAGE_NAME: &str = "io.containerd.image.name";

/// The largest document that is read as a whole.
const DOCUMENT_LIMIT: u64 = 16 << 20;

/// Files by name: a directory, or an archive.
pub(super) trait Files: Send + Sync {
    /// A name for messages.
    fn place(&self) -> &str;

    /// Opens a file at an offset.
    fn open(&self, name: &str, offset: u64) -> Result<Stream>;
}

/// Opens a file, or a part of it.
pub(super) fn open_part(
    files: &(impl Files + ?Sized),
    name: &str,
    part: Option<Range<u64>>,
) -> Result<Stream> {
    match part {
        None => files.open(name, 0),
        Some(part) => Ok(Box::new(files.open(name, part.start)?.take(part.end.saturating_sub(part.start)))),
    }
}

/// Reads a document as a whole.
pub(super) fn read(files: &(impl Files + ?Sized), name: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let place = || format!("{}: {name}", files.place());
    let reading = files.open(name, 0)?.take(DOCUMENT_LIMIT + 1).read_to_end(&mut bytes);
    reading.map_err(|error| Error::Io { place: place(), error })?;
    if bytes.len() as u64 > DOCUMENT_LIMIT {
        return Err(damaged(&place(), format!("is longer than {DOCUMENT_LIMIT} bytes")));
    }
    Ok(bytes)
}

/// An OCI image layout. References are the names in its `index.json`
/// (`org.opencontainers.image.ref.name`) or digests; the empty one stands for its only image.
pub struct Layout {
    files: Box<dyn Files>,
    index: Vec<manifest::Descriptor>,
    /// Where in the index the image of a name is; nowhere if several have it.
    by_name: BTreeMap<String, Option<usize>>,
}

impl Layout {
    /// Opens a layout directory.
    ///
    /// # Errors
    /// [`Error`] if it has no `oci-layout` or no `index.json` that can be read.
    pub fn open(directory: &Path) -> Result<Self> {
        let place = directory.display().to_string();
        Self::of(Box::new(Directory { root: directory.to_owned(), place }))
    }

    pub(super) fn of(files: Box<dyn Files>) -> Result<Self> {
        read(&*files, "oci-layout")?;
        let index = read(&*files, "index.json")?;
        let index = manifest::entries(&format!("{}: index.json", files.place()), &index)?;
        let mut by_name = BTreeMap::<String, Option<usize>>::new();
        for (at, entry) in index.iter().enumerate() {
            for name in names(entry).into_iter().flatten() {
                let known = by_name.entry(name.to_owned()).or_insert(Some(at));
                *known = known.filter(|first| index[*first].digest == entry.digest);
            }
        }
        Ok(Self { files, index, by_name })
    }

    /// The references of all images: names where they have one of their own, else digests.
    pub fn references(&self) -> Vec<String> {
        let lone = |name: &&str| self.by_name.get(*name).is_some_and(Option::is_some);
        let of = |entry| names(entry).into_iter().flatten().find(lone);
        self.index.iter().map(|entry| of(entry).unwrap_or(&entry.digest).to_owned()).collect()
    }

    fn find(&self, reference: &str) -> Result<&manifest::Descriptor> {
        let missing = |what: String| Error::Missing { place: self.files.place().to_owned(), what };
        if reference.is_empty() {
            return match self.index.as_slice() {
                [only] => Ok(only),
                [] => Err(missing("an image".into())),
                _ => Err(missing(format!("a lone image (name one of {})", self.references().join(", ")))),
            };
        }
        match self.by_name.get(reference) {
            Some(Some(at)) => return Ok(&self.index[*at]),
            Some(None) => {
                let all = self.references().join(", ");
                return Err(missing(format!("one image alone of the name {reference} (there are: {all})")));
            }
            None => {}
        }
        let by_digest = self.index.iter().find(|e| e.digest == reference);
        by_digest.ok_or_else(|| missing(format!("{reference} (there are: {})", self.references().join(", "))))
    }
}

/// The whole name, and the one of the specification.
fn names(entry: &manifest::Descriptor) -> [Option<&str>; 2] {
    [IMAGE_NAME, REF_NAME].map(|name| entry.annotations.as_ref()?.get(name).map(String::as_str))
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

impl Documents for Layout {
    fn place(&self) -> &str {
        self.files.place()
    }

    fn manifest(&self, digest: &Digest) -> Result<Vec<u8>> {
        read(&*self.files, &blob_name(digest))
    }

    fn config(&self, digest: &Digest) -> Result<Vec<u8>> {
        read(&*self.files, &blob_name(digest))
    }
}

impl Source for Layout {
    fn image(&self, reference: &str, platform: &PlatformChoice) -> Result<Image> {
        let digest = manifest::digest(self.files.place(), &self.find(reference)?.digest)?;
        let bytes = self.manifest(&digest)?;
        manifest::check(self.files.place(), "manifest", &digest, &bytes)?;
        manifest::image(self, reference, &bytes, platform)
    }

    fn open_layer(&self, _: &Image, layer: &Layer, part: Option<Range<u64>>) -> Result<Stream> {
        open_part(&*self.files, &blob_name(&layer.digest), part)
    }
}

struct Directory {
    root: PathBuf,
    place: String,
}

impl Files for Directory {
    fn place(&self) -> &str {
        &self.place
    }

    fn open(&self, name: &str, offset: u64) -> Result<Stream> {
        let fail = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                Error::Missing { place: self.place.clone(), what: name.to_owned() }
            }
            _ => Error::Io { place: format!("{}/{name}", self.place), error },
        };
        let mut file = std::fs::File::open(self.root.join(name)).map_err(fail)?;
        if offset > 0 {
            file.seek(SeekFrom::Start(offset)).map_err(fail)?;
        }
        Ok(Box::new(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn put(root: &Path, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        let path = root.join(blob_name(&digest));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
        digest
    }

    /// A layout with images of these names, each with one layer.
    fn layout(names: &[&str]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let mut entries = Vec::new();
        for name in names {
            let layer = put(root, format!("layer of {name}").as_bytes());
            let config =
                put(root, json!({"rootfs": {"diff_ids": [layer.to_string()]}}).to_string().as_bytes());
            let manifest = json!({
                "schemaVersion": 2,
                "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config.to_string()},
                "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer.to_string()}],
            });
            let digest = put(root, manifest.to_string().as_bytes());
            entries.push(json!({"digest": digest.to_string(), "annotations": {REF_NAME: name}}));
        }
        std::fs::write(root.join("oci-layout"), "{}").unwrap();
        std::fs::write(
            root.join("index.json"),
            json!({"schemaVersion": 2, "manifests": entries}).to_string(),
        )
        .unwrap();
        directory
    }

    #[test]
    fn images_that_share_a_tag_are_two() {
        let directory = layout(&["1", "2"]);
        let path = directory.path().join("index.json");
        let mut index: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        for (i, name) in ["docker.io/library/a:latest", "docker.io/library/b:latest"].into_iter().enumerate()
        {
            index["manifests"][i]["annotations"] = json!({REF_NAME: "latest", IMAGE_NAME: name});
        }
        std::fs::write(&path, index.to_string()).unwrap();
        let choice = PlatformChoice::default();
        let two = Layout::open(directory.path()).unwrap();
        assert_eq!(two.references(), ["docker.io/library/a:latest", "docker.io/library/b:latest"]);
        let digests =
            two.references().iter().map(|r| two.image(r, &choice).unwrap().digest).collect::<Vec<_>>();
        assert_ne!(digests[0], digests[1]);
        let error = two.image("latest", &choice).unwrap_err().to_string();
        assert!(error.contains("one image alone of the name latest"), "{error}");
        for i in 0..2 {
            index["manifests"][i]["annotations"] = json!({REF_NAME: "latest"});
        }
        std::fs::write(&path, index.to_string()).unwrap();
        let two = Layout::open(directory.path()).unwrap();
        assert!(two.references().iter().all(|r| r.starts_with("sha256:")), "{:?}", two.references());
    }

    #[test]
    fn images_are_found_by_name_and_by_digest() {
        let directory = layout(&["a", "b"]);
        let layout = Layout::open(directory.path()).unwrap();
        assert_eq!(layout.references(), ["a", "b"]);
        let choice = PlatformChoice::default();
        let image = layout.image("b", &choice).unwrap();
        let mut text = String::new();
        layout.open_layer(&image, &image.layers[0], Some(6..10)).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "of b");
        let digest = image.digest.unwrap().to_string();
        assert_eq!(layout.image(&digest, &choice).unwrap().layers, image.layers);
        for (reference, expected) in [("", "name one of a, b"), ("c", "there are: a, b")] {
            let error = layout.image(reference, &choice).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_lone_image_needs_no_name() {
        let directory = layout(&["a"]);
        let layout = Layout::open(directory.path()).unwrap();
        assert_eq!(layout.image("", &PlatformChoice::default()).unwrap().layers.len(), 1);
    }

    #[test]
    fn what_is_no_layout_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let error = Layout::open(directory.path()).err().unwrap().to_string();
        assert!(error.ends_with("oci-layout is not there"), "{error}");
    }
}
