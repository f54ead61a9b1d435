//! `rootfs.h5`: what a campaign learnt of its images.
//!
//! | dataset | type, shape | content |
//! |---|---|---|
//! | `universe/bytes`, `universe/offsets` | u8 `[b]`, u64 `[n + 1]` | the paths, sorted by components; an id is a position |
//! | `images/name` | strings `[i]` | as asked for |
//! | `images/set` | u32 `[i]` | number of the path set; 2^32 - 1 if there is none |
//! | `images/failure` | strings `[i]` | why there is none; else empty |
//! | `images/digest`, `images/config` | strings `[i]` | of manifest and config; empty where there is none |
//! | `images/platform`, `images/created` | strings `[i]` | from the config |
//! | `images/notes` | strings `[i]` | what was noticed, one a line |
//! | `images/layers`, `images/diff_ids`, `images/history`, `images/annotations` | u64 `[i + 1]` | where each image's rows begin in the next four |
//! | `layers/digest`, `layers/media_type`, `layers/unreadable`; `layers/size` | strings, u64 `[l]` | as in the manifests; `unreadable` says why a layer was skipped |
//! | `diff_ids/digest` | strings `[d]` | `rootfs.diff_ids` of the configs |
//! | `history/created_by`; `history/empty_layer` | strings, u8 `[h]` | of the configs |
//! | `annotations/key`, `annotations/value` | strings `[a]` | `org.opencontainers.*` of manifests and configs |
//! | `sets/bytes`, `sets/offsets` | u8 `[s]`, u64 `[k + 1]` | distinct path sets, each a Roaring bitmap of ids in the portable format |
//!
//! Strings are two datasets each, `NAME/bytes` and `NAME/offsets`. The attribute `universe` is the
//! identity of the universe, `options` the options of the campaign.

use super::source::{History, Image, Layer, Platform};
use super::{Digest, Universe};
use crate::h5;
use crate::strings::{NONE, StringTable};
use roaring::RoaringBitmap;
use std::path::Path;

/// The `stratigraph_format` of such files.
pub const KIND: &str = "rootfs";
const VERSION: u64 = 1;

/// Images with their evidence and their path sets.
pub struct Results {
    /// What the sets are of.
    pub universe: Universe,
    /// What is known of each image; where nothing is, only the name it was asked for.
    pub images: Vec<Image>,
    /// For each image the number of its path set, or why it has none.
    pub paths: Vec<Result<u32, String>>,
    /// The distinct path sets.
    pub sets: Vec<RoaringBitmap>,
}

impl Results {
    /// The path set of an image.
    pub fn set_of(&self, image: usize) -> Option<&RoaringBitmap> {
        self.sets.get(*self.paths.get(image)?.as_ref().ok()? as usize)
    }

    /// Writes the file.
    ///
    /// # Errors
    /// [`h5::Error::Write`].
    pub fn write(&self, path: &Path, options: &str) -> h5::Result<()> {
        let file = h5::Writer::create(path, KIND, VERSION)?;
        let identity = Digest(self.universe.identity());
        file.attribute("universe", &identity.to_string())?;
        file.attribute("options", options)?;
        file.array("universe/bytes", self.universe.bytes())?;
        file.array("universe/offsets", self.universe.offsets())?;
        let images = &self.images;
        let text = |f: &dyn Fn(&Image) -> String| images.iter().map(f).collect::<StringTable>();
        let digest = |d: &Option<Digest>| d.map(|d| d.to_string()).unwrap_or_default();
        file.strings("images/name", &text(&|i| i.reference.clone()))?;
        file.strings("images/digest", &text(&|i| digest(&i.digest)))?;
        file.strings("images/config", &text(&|i| digest(&i.config)))?;
        let platform = |i: &Image| i.platform.as_ref().map(Platform::to_string).unwrap_or_default();
        file.strings("images/platform", &text(&platform))?;
        file.strings("images/created", &text(&|i| i.created.clone()))?;
        file.strings("images/notes", &text(&|i| i.notes.join("\n")))?;
        let sets: Vec<u32> = self.paths.iter().map(|p| *p.as_ref().unwrap_or(&NONE)).collect();
        file.array("images/set", &sets)?;
        let failures = self.paths.iter().map(|p| p.as_ref().err().map_or("", String::as_str));
        file.strings("images/failure", &failures.collect())?;

        file.array("images/layers", &offsets(images, |i| i.layers.len()))?;
        let layers = || images.iter().flat_map(|i| &i.layers);
        file.strings("layers/digest", &layers().map(|l| l.digest.to_string()).collect())?;
        file.strings("layers/media_type", &layers().map(|l| l.media_type.as_str()).collect())?;
        let unreadable = layers().map(|l| l.unreadable.as_deref().unwrap_or(""));
        file.strings("layers/unreadable", &unreadable.collect())?;
        file.array("layers/size", &layers().map(|l| l.size).collect::<Vec<_>>())?;

        file.array("images/diff_ids", &offsets(images, |i| i.diff_ids.len()))?;
        let diff_ids = images.iter().flat_map(|i| &i.diff_ids).map(Digest::to_string);
        file.strings("diff_ids/digest", &diff_ids.collect())?;

        file.array("images/history", &offsets(images, |i| i.history.len()))?;
        let history = || images.iter().flat_map(|i| &i.history);
        file.strings("history/created_by", &history().map(|h| h.created_by.as_str()).collect())?;
        file.array("history/empty_layer", &history().map(|h| u8::from(h.empty_layer)).collect::<Vec<_>>())?;

        file.array("images/annotations", &offsets(images, |i| i.annotations.len()))?;
        let annotations = || images.iter().flat_map(|i| &i.annotations);
        file.strings("annotations/key", &annotations().map(|(key, _)| key).collect())?;
        file.strings("annotations/value", &annotations().map(|(_, value)| value).collect())?;

        let (mut bytes, mut ends) = (Vec::new(), vec![0]);
        for set in &self.sets {
            set.serialize_into(&mut bytes).expect("a vector takes all bytes");
            ends.push(bytes.len() as u64);
        }
        file.array("sets/bytes", &bytes)?;
        file.array("sets/offsets", &ends)?;
        file.finish()
    }

    /// Reads the file.
    ///
    /// # Errors
    /// [`h5::Error`] if it is no such file or not sound.
    pub fn read(path: &Path) -> h5::Result<Self> {
        let file = h5::Reader::open(path, KIND, VERSION)?;
        let bad = |item: &str, reason: &str| h5::Error::Item {
            path: path.to_owned(),
            item: item.to_owned(),
            reason: reason.to_owned(),
        };
        let universe = Universe::from_parts(file.array("universe/bytes")?, file.array("universe/offsets")?)
            .map_err(|reason| bad("universe", &reason))?;
        let names = file.strings("images/name")?;
        let count = names.len();
        let strings = |name: &str, length: usize| -> h5::Result<StringTable> {
            let table = file.strings(name)?;
            if table.len() == length { Ok(table) } else { Err(bad(name, "has another length")) }
        };
        let rows = |name: &str, length: usize| -> h5::Result<Vec<u64>> {
            let offsets: Vec<u64> = file.array(name)?;
            let sound = offsets.len() == count + 1
                && offsets.first() == Some(&0)
                && offsets.last() == Some(&(length as u64))
                && offsets.is_sorted();
            if sound { Ok(offsets) } else { Err(bad(name, "does not describe its rows")) }
        };
        let column = |name: &str| strings(name, count);
        let (digests, configs) = (column("images/digest")?, column("images/config")?);
        let (platforms, created) = (column("images/platform")?, column("images/created")?);
        let (notes, failures) = (column("images/notes")?, column("images/failure")?);

        let layer_digests = file.strings("layers/digest")?;
        let layers = layer_digests.len();
        let layer_rows = rows("images/layers", layers)?;
        let media_types = strings("layers/media_type", layers)?;
        let unreadable = strings("layers/unreadable", layers)?;
        let sizes: Vec<u64> = file.array("layers/size")?;
        let diff_ids = file.strings("diff_ids/digest")?;
        let diff_rows = rows("images/diff_ids", diff_ids.len())?;
        let created_by = file.strings("history/created_by")?;
        let history_rows = rows("images/history", created_by.len())?;
        let empty: Vec<u8> = file.array("history/empty_layer")?;
        let keys = file.strings("annotations/key")?;
        let annotation_rows = rows("images/annotations", keys.len())?;
        let values = strings("annotations/value", keys.len())?;
        if sizes.len() != layers || empty.len() != created_by.len() {
            return Err(bad("layers/size, history/empty_layer", "have another length"));
        }

        let bytes: Vec<u8> = file.array("sets/bytes")?;
        let ends: Vec<u64> = file.array("sets/offsets")?;
        let mut sets = Vec::new();
        for range in ends.windows(2) {
            let set = usize::try_from(range[0]).ok().zip(usize::try_from(range[1]).ok());
            let set =
                set.and_then(|(start, end)| RoaringBitmap::deserialize_from(bytes.get(start..end)?).ok());
            sets.push(set.ok_or_else(|| bad("sets", "a set is damaged"))?);
        }
        let numbers: Vec<u32> = file.array("images/set")?;
        if numbers.len() != count || numbers.iter().any(|n| *n != NONE && *n as usize >= sets.len()) {
            return Err(bad("images/set", "names sets that are not there"));
        }
        if sets.iter().any(|set| set.max().is_some_and(|id| id as usize >= universe.len())) {
            return Err(bad("sets", "a set has paths that are not in the universe"));
        }

        let digest = |table: &StringTable, id: u32, name: &str| -> h5::Result<Digest> {
            table.get(id).parse().map_err(|e: super::digest::NoDigest| bad(name, &e.to_string()))
        };
        let mut results = Self { universe, images: Vec::new(), paths: Vec::new(), sets };
        for i in 0..count {
            let id = i as u32;
            let range = |rows: &[u64]| rows[i] as u32..rows[i + 1] as u32;
            let own = |table: &StringTable| Some(table.get(id).to_owned()).filter(|t| !t.is_empty());
            let mut image = Image { reference: names.get(id).to_owned(), ..Image::default() };
            image.digest = own(&digests).and_then(|text| text.parse().ok());
            image.config = own(&configs).and_then(|text| text.parse().ok());
            image.platform = own(&platforms).map(|text| {
                let mut parts = text.splitn(3, '/').map(str::to_owned);
                let mut next = || parts.next().unwrap_or_default();
                Platform { os: next(), architecture: next(), variant: next() }
            });
            image.created = created.get(id).to_owned();
            image.notes = own(&notes).map_or(Vec::new(), |t| t.split('\n').map(str::to_owned).collect());
            for j in range(&diff_rows) {
                image.diff_ids.push(digest(&diff_ids, j, "diff_ids/digest")?);
            }
            for j in range(&history_rows) {
                let created_by = created_by.get(j).to_owned();
                image.history.push(History { created_by, empty_layer: empty[j as usize] != 0 });
            }
            for j in range(&annotation_rows) {
                image.annotations.push((keys.get(j).to_owned(), values.get(j).to_owned()));
            }
            for j in range(&layer_rows) {
                image.layers.push(Layer {
                    digest: digest(&layer_digests, j, "layers/digest")?,
                    size: sizes[j as usize],
                    media_type: media_types.get(j).to_owned(),
                    diff_id: None,
                    unreadable: Some(unreadable.get(j).to_owned()).filter(|t| !t.is_empty()),
                    toc: None,
                });
            }
            if image.diff_ids.len() == image.layers.len() {
                let ids = image.diff_ids.iter();
                image.layers.iter_mut().zip(ids).for_each(|(layer, id)| layer.diff_id = Some(*id));
            }
            let set = numbers[i];
            results.paths.push(if set == NONE { Err(failures.get(id).to_owned()) } else { Ok(set) });
            results.images.push(image);
        }
        Ok(results)
    }
}

fn offsets(images: &[Image], length: impl Fn(&Image) -> usize) -> Vec<u64> {
    let mut end = 0;
    let mut offsets = vec![0];
    offsets.extend(images.iter().map(|image| {
        end += length(image) as u64;
        end
    }));
    offsets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let layer = |n: u8, unreadable: Option<&str>| Layer {
            digest: Digest([n; 32]),
            size: u64::from(n) << 33,
            media_type: "application/vnd.oci.image.layer.v1.tar+gzip".into(),
            diff_id: Some(Digest([n + 1; 32])),
            unreadable: unreadable.map(str::to_owned),
            toc: None,
        };
        let image = Image {
            reference: "quay.io/a/b:1".into(),
            digest: Some(Digest([7; 32])),
            config: Some(Digest([8; 32])),
            platform: Some(Platform {
                os: "linux".into(),
                architecture: "arm64".into(),
                variant: "v8".into(),
            }),
            created: "2024-05-01T00:00:00Z".into(),
            diff_ids: vec![Digest([2; 32]), Digest([4; 32])],
            history: vec![
                History { created_by: "/bin/sh -c #(nop) ADD file:12 in / ".into(), empty_layer: false },
                History { created_by: String::new(), empty_layer: true },
            ],
            annotations: vec![("org.opencontainers.image.base.name".into(), "debian:12".into())],
            layers: vec![layer(1, None), layer(3, Some("foreign"))],
            notes: vec!["fell back to linux/arm64".into()],
        };
        let unknown = Image { reference: "nowhere/c".into(), ..Image::default() };
        let results = Results {
            universe: Universe::new(vec![b"bin/sh".to_vec(), b"caf\xe9".to_vec(), b"etc/passwd".to_vec()]),
            images: vec![image.clone(), unknown.clone()],
            paths: vec![Ok(0), Err("is not there".into())],
            sets: vec![[0, 2].into_iter().collect()],
        };
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rootfs.h5");
        results.write(&path, "{}").unwrap();
        let read = Results::read(&path).unwrap();
        assert_eq!(read.universe, results.universe);
        assert_eq!(read.images, [image, unknown]);
        assert_eq!((read.paths, read.sets), (results.paths, results.sets));
    }
}
