//! Archives of `docker save`: the old form (`manifest.json`, one directory for each layer) and the
//! new one, which is an OCI layout as well.

use super::layout::{Files, Layout, open_part, read};
use super::manifest::{self, damaged};
use super::{Error, Image, Layer, PlatformChoice, Result, Source, Stream};
use crate::rootfs::Digest;
use crate::rootfs::layer::Hashing;
use serde::Deserialize;
use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A `docker save` archive. References are its `RepoTags`; the empty one stands for its only image.
pub enum Archive {
    /// With an OCI layout inside, which has digests and media types.
    Layout(Layout),
    /// Of the old form.
    Plain(PlainArchive),
}

impl Archive {
    /// Opens an archive and lists its files; their contents stay where they are.
    ///
    /// # Errors
    /// [`Error`] if it is no such archive, or compressed: its parts must be found by position.
    pub fn open(path: &Path) -> Result<Self> {
        let files = TarFiles::list(path)?;
        if files.entries.contains_key("oci-layout") {
            return Ok(Self::Layout(Layout::of(Box::new(files))?));
        }
        let place = files.place.clone();
        let text = read(&files, "manifest.json").map_err(|e| match e {
            Error::Missing { .. } => {
                damaged(&place, "is no archive of `docker save` (no manifest.json)".into())
            }
            other => other,
        })?;
        let images = serde_json::from_slice(&text)
            .map_err(|e| damaged(&place, format!("manifest.json cannot be read: {e}")))?;
        Ok(Self::Plain(PlainArchive { files, images }))
    }

    /// The references of all images.
    pub fn references(&self) -> Vec<String> {
        match self {
            Self::Layout(layout) => layout.references(),
            Self::Plain(plain) => plain.names(),
        }
    }
}

impl Source for Archive {
    fn image(&self, reference: &str, platform: &PlatformChoice) -> Result<Image> {
        match self {
            Self::Layout(layout) => layout.image(reference, platform),
            Self::Plain(plain) => plain.image(reference),
        }
    }

    fn open_layer(&self, image: &Image, layer: &Layer, part: Option<Range<u64>>) -> Result<Stream> {
        match self {
            Self::Layout(layout) => layout.open_layer(image, layer, part),
            Self::Plain(plain) => plain.open_layer(image, layer, part),
        }
    }
}

/// An archive of the old form. Docker keeps layers uncompressed, so a layer's digest is its diff_id;
/// crane and kaniko keep them as a registry has them, and their digests are found by reading them.
pub struct PlainArchive {
    files: TarFiles,
    images: Vec<Saved>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Saved {
    fn name(&self) -> String {
        self.repo_tags.as_ref().and_then(|t| t.first()).unwrap_or(&self.config).clone()
    }
}

impl PlainArchive {
    /// A name for each image; that of its config where a tag is that of several.
    fn names(&self) -> Vec<String> {
        let mut times: HashMap<String, u32> = HashMap::new();
        self.images.iter().for_each(|image| *times.entry(image.name()).or_default() += 1);
        let name = |image: &Saved| if times[&image.name()] > 1 { image.config.clone() } else { image.name() };
        self.images.iter().map(name).collect()
    }

    fn find(&self, reference: &str) -> Result<&Saved> {
        let names = || self.names().join(", ");
        let missing = |what: String| Error::Missing { place: self.files.place.clone(), what };
        if reference.is_empty() {
            return match self.images.as_slice() {
                [only] => Ok(only),
                _ => Err(missing(format!("a lone image (name one of {})", names()))),
            };
        }
        // Skopeo writes the names that docker leaves short in full.
        let full = [
            reference.to_owned(),
            format!("docker.io/{reference}"),
            format!("docker.io/library/{reference}"),
        ];
        let has =
            |i: &&Saved| i.config == reference || i.repo_tags.iter().flatten().any(|tag| full.contains(tag));
        let mut found = self.images.iter().filter(has);
        match (found.next(), found.next()) {
            (Some(only), None) => Ok(only),
            (Some(_), Some(_)) => Err(missing(format!("a lone image {reference} (there are: {})", names()))),
            (None, _) => Err(missing(format!("{reference} (there are: {})", names()))),
        }
    }

    fn image(&self, reference: &str) -> Result<Image> {
        let saved = self.find(reference)?;
        let place = &self.files.place;
        let mut image = manifest::from_config(place, &read(&self.files, &saved.config)?)?;
        image.reference = reference.to_owned();
        if image.diff_ids.len() != saved.layers.len() {
            let (layers, ids) = (saved.layers.len(), image.diff_ids.len());
            return Err(damaged(place, format!("{} has {layers} layers but {ids} diff_ids", saved.name())));
        }
        for (diff_id, name) in image.diff_ids.iter().zip(&saved.layers) {
            let digest = self.digest_if_compressed(name)?;
            let suffix = if digest.is_some() { ".gzip" } else { "" };
            image.layers.push(Layer {
                digest: digest.unwrap_or(*diff_id),
                size: self.files.find(name)?.length,
                media_type: format!("application/vnd.docker.image.rootfs.diff.tar{suffix}"),
                diff_id: Some(*diff_id),
                unreadable: None,
                toc: None,
            });
        }
        Ok(image)
    }

    /// The digest of a layer's stored bytes, `None` for an archive that is not compressed.
    fn digest_if_compressed(&self, name: &str) -> Result<Option<Digest>> {
        let io = |error| Error::Io { place: format!("{}: {name}", self.files.place), error };
        let mut begin = Vec::new();
        self.files.open(name, 0)?.take(4).read_to_end(&mut begin).map_err(io)?;
        if !is_compressed(&begin) {
            return Ok(None);
        }
        let mut stored = Hashing::new(self.files.open(name, 0)?, u64::MAX);
        std::io::copy(&mut stored, &mut std::io::sink()).map_err(io)?;
        Ok(Some(stored.digest()))
    }

    fn open_layer(&self, image: &Image, layer: &Layer, part: Option<Range<u64>>) -> Result<Stream> {
        let saved = self.find(&image.reference)?;
        let at = image.layers.iter().position(|l| l.digest == layer.digest);
        let name = at.and_then(|at| saved.layers.get(at));
        let what = || Error::Missing { place: self.files.place.clone(), what: layer.digest.to_string() };
        open_part(&self.files, name.ok_or_else(what)?, part)
    }
}

#[derive(Clone)]
struct Entry {
    offset: u64,
    length: u64,
    /// Old archives link equal layers to each other.
    link: Option<String>,
}

/// The files of a tar archive by name.
struct TarFiles {
    path: PathBuf,
    place: String,
    entries: Arc<HashMap<String, Entry>>,
}

impl TarFiles {
    fn list(path: &Path) -> Result<Self> {
        let place = path.display().to_string();
        let io = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::Missing { place: place.clone(), what: "the file".into() },
            _ => Error::Io { place: place.clone(), error },
        };
        let mut file = std::fs::File::open(path).map_err(io)?;
        let mut magic = Vec::new();
        file.by_ref().take(4).read_to_end(&mut magic).map_err(io)?;
        if is_compressed(&magic) {
            return Err(damaged(
                &place,
                "is compressed, but layers are read by position; decompress it first".into(),
            ));
        }
        file.seek(SeekFrom::Start(0)).map_err(io)?;
        let mut archive = tar::Archive::new(std::io::BufReader::new(file));
        let broken = |e: std::io::Error| damaged(&place, format!("is no sound tar archive: {e}"));
        let mut entries = HashMap::new();
        for entry in archive.entries_with_seek().map_err(broken)? {
            let entry = entry.map_err(broken)?;
            let clean = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_start_matches("./").to_owned();
            let name = clean(&entry.path_bytes());
            let link =
                entry.link_name_bytes().map(|target| resolve(&name, &String::from_utf8_lossy(&target)));
            let link = link.filter(|_| !entry.header().entry_type().is_file());
            entries.insert(name, Entry { offset: entry.raw_file_position(), length: entry.size(), link });
        }
        Ok(Self { path: path.to_owned(), place, entries: Arc::new(entries) })
    }

    fn find(&self, name: &str) -> Result<&Entry> {
        let mut name = name;
        for _ in 0..8 {
            match self.entries.get(name) {
                Some(Entry { link: Some(target), .. }) => name = target,
                Some(entry) => return Ok(entry),
                None => break,
            }
        }
        Err(Error::Missing { place: self.place.clone(), what: name.to_owned() })
    }
}

/// True for the first bytes of gzip and zstd.
pub fn is_compressed(begin: &[u8]) -> bool {
    begin.starts_with(&[0x1f, 0x8b]) || begin.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
}

/// A link's target, relative to the directory of `name`, as a name in the archive.
fn resolve(name: &str, target: &str) -> String {
    let mut parts: Vec<&str> = name.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

impl Files for TarFiles {
    fn place(&self) -> &str {
        &self.place
    }

    fn open(&self, name: &str, offset: u64) -> Result<Stream> {
        let entry = self.find(name)?;
        let io = |error| Error::Io { place: format!("{}: {name}", self.place), error };
        let mut file = std::fs::File::open(&self.path).map_err(io)?;
        let offset = offset.min(entry.length);
        file.seek(SeekFrom::Start(entry.offset + offset)).map_err(io)?;
        Ok(Box::new(file.take(entry.length - offset)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn archive(files: &[(&str, &[u8])], links: &[(&str, &str)]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut builder = tar::Builder::new(file.reopen().unwrap());
        for (name, bytes) in files {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            builder.append_data(&mut header, name, *bytes).unwrap();
        }
        for (name, target) in links {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            builder.append_link(&mut header, name, target).unwrap();
        }
        builder.finish().unwrap();
        file
    }

    #[test]
    fn the_old_form_is_read_with_its_links() {
        let (one, two) = (b"the first layer".as_slice(), b"the second".as_slice());
        let ids = [one, two, one].map(|l| Digest::of(l).to_string());
        let config = json!({"os": "linux", "rootfs": {"diff_ids": ids}}).to_string();
        let manifest = json!([{"Config": "c.json", "RepoTags": ["lab/tool:1"],
            "Layers": ["a/layer.tar", "b/layer.tar", "c/layer.tar"]}]);
        let file = archive(
            &[
                ("a/layer.tar", one),
                ("b/layer.tar", two),
                ("c.json", config.as_bytes()),
                ("manifest.json", manifest.to_string().as_bytes()),
            ],
            &[("c/layer.tar", "../a/layer.tar")],
        );
        let archive = Archive::open(file.path()).unwrap();
        assert_eq!(archive.references(), ["lab/tool:1"]);
        for reference in ["", "lab/tool:1"] {
            let image = archive.image(reference, &PlatformChoice::default()).unwrap();
            let read = |layer: &Layer, part| {
                let mut bytes = Vec::new();
                archive.open_layer(&image, layer, part).unwrap().read_to_end(&mut bytes).unwrap();
                bytes
            };
            assert_eq!(image.layers.iter().map(|l| read(l, None)).collect::<Vec<_>>(), [one, two, one]);
            assert_eq!(image.layers[1].size, 10);
            assert_eq!(read(&image.layers[1], Some(4..8)), b"seco");
        }
        let error = archive.image("lab/tool:2", &PlatformChoice::default()).unwrap_err().to_string();
        assert!(error.contains("there are: lab/tool:1"), "{error}");
    }

    #[test]
    fn images_of_one_tag_are_told_apart_by_their_configs() {
        let layers = [b"one".as_slice(), b"two"];
        let configs =
            layers.map(|layer| json!({"rootfs": {"diff_ids": [Digest::of(layer).to_string()]}}).to_string());
        let manifest = json!([
            {"Config": "1.json", "RepoTags": ["lab/x:1"], "Layers": ["1.tar"]},
            {"Config": "2.json", "RepoTags": ["lab/x:1"], "Layers": ["2.tar"]},
        ]);
        let file = archive(
            &[
                ("1.tar", layers[0]),
                ("2.tar", layers[1]),
                ("1.json", configs[0].as_bytes()),
                ("2.json", configs[1].as_bytes()),
                ("manifest.json", manifest.to_string().as_bytes()),
            ],
            &[],
        );
        let archive = Archive::open(file.path()).unwrap();
        assert_eq!(archive.references(), ["1.json", "2.json"]);
        for (name, layer) in ["1.json", "2.json"].iter().zip(layers) {
            let image = archive.image(name, &PlatformChoice::default()).unwrap();
            assert_eq!(image.layers[0].digest, Digest::of(layer));
        }
        let error = archive.image("lab/x:1", &PlatformChoice::default()).unwrap_err().to_string();
        assert!(error.contains("1.json, 2.json"), "{error}");
    }

    #[test]
    fn compressed_layers_have_the_digests_of_their_stored_bytes() {
        let (one, two) = (b"the first layer".as_slice(), b"the second".as_slice());
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut gzip, one).unwrap();
        let packed = gzip.finish().unwrap();
        let ids = [one, two].map(|l| Digest::of(l).to_string());
        let config = json!({"os": "linux", "rootfs": {"diff_ids": ids}}).to_string();
        let tags = ["docker.io/lab/tool:1", "docker.io/library/tool:1"];
        let manifest = json!([{"Config": "c.json", "RepoTags": tags, "Layers": ["1.tar.gz", "2.tar"]}]);
        let manifest = manifest.to_string();
        let files = [
            ("1.tar.gz", packed.as_slice()),
            ("2.tar", two),
            ("c.json", config.as_bytes()),
            ("manifest.json", manifest.as_bytes()),
        ];
        let file = archive(&files, &[]);
        let archive = Archive::open(file.path()).unwrap();
        let image = archive.image("", &PlatformChoice::default()).unwrap();
        let found: Vec<_> = image.layers.iter().map(|l| (l.digest, l.size, l.diff_id)).collect();
        let expected = [
            (Digest::of(&packed), packed.len() as u64, Some(Digest::of(one))),
            (Digest::of(two), 10, Some(Digest::of(two))),
        ];
        assert_eq!(found, expected);
        for short in ["lab/tool:1", "tool:1", tags[0]] {
            assert_eq!(archive.image(short, &PlatformChoice::default()).unwrap().layers, image.layers);
        }
        assert!(archive.image("library/other:1", &PlatformChoice::default()).is_err());
    }

    #[test]
    fn what_is_no_archive_of_images_is_refused() {
        let compressed = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(compressed.path(), [0x1f, 0x8b, 8, 0]).unwrap();
        let text = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(text.path(), "hello".repeat(200)).unwrap();
        let other = archive(&[("x", b"y")], &[]);
        let looped = archive(&[], &[("manifest.json", "manifest.json")]);
        for (path, expected) in [
            (compressed.path(), "decompress it first"),
            (text.path(), "no sound tar"),
            (other.path(), "no manifest.json"),
            (looped.path(), "no manifest.json"),
            (Path::new("/nowhere"), "is not there"),
        ] {
            let error = Archive::open(path).err().unwrap().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
