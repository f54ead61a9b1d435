//! Repositories with what real crawls have, too: one file for each kind of trouble.

use super::Recipe;
use super::draw::{Draw, Stream};
use crate::corpus::KNOWN_EMPTY_LAYERS;
use crate::corpus::merge::hex;
use serde_json::{Value, json};

/// A file that is not as the others are.
pub(super) struct OddFile {
    /// Repository name; for other files, the path below `registry/`.
    pub path: String,
    pub content: Vec<u8>,
    /// True if it is no corpus file.
    pub is_other: bool,
}

/// The repositories of this name hold nothing else.
const LAB: &str = "synthetic-lab-000";
const LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
const FOREIGN: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// The files that the recipe asks for.
pub(super) fn files(recipe: &Recipe) -> Vec<OddFile> {
    let mut odd = Odd { draw: Draw::new(recipe.seed, Stream::Odd, 0), files: Vec::new() };
    if recipe.oddities {
        odd.indexes();
        odd.manifests();
        odd.layers();
        odd.configs();
        odd.dates();
        odd.documents();
        odd.names();
    }
    if recipe.losses {
        odd.losses();
    }
    odd.files
}

struct Odd {
    draw: Draw,
    files: Vec<OddFile>,
}

/// A tag with its manifest and config, as far as there are any.
type Image = (&'static str, Option<Value>, Option<Value>);

fn document(images: &[Image]) -> Value {
    let tags: Vec<_> = images.iter().filter(|i| i.1.is_some()).map(|i| i.0).collect();
    let mut document = json!({"tags": tags, "manifests": {}, "configs": {}});
    for (tag, manifest, config) in images {
        for (object, value) in [("manifests", manifest), ("configs", config)] {
            if let Some(value) = value {
                document[object][*tag] = value.clone();
            }
        }
    }
    document
}

impl Odd {
    fn put(&mut self, path: &str, content: impl Into<Vec<u8>>) {
        let mut content = content.into();
        if content.last() == Some(&b'}') {
            content.push(b'\n');
        }
        self.files.push(OddFile { path: path.to_owned(), content, is_other: false });
    }

    fn put_images(&mut self, name: &str, images: &[Image]) {
        self.put(&format!("{LAB}/{name}"), document(images).to_string());
    }

    fn sha256(&mut self) -> String {
        format!("sha256:{}", hex(&self.draw.bytes::<32>()))
    }

    fn layer(&mut self) -> Value {
        json!({"mediaType": LAYER, "size": 100_000 + self.draw.below(50_000_000), "digest": self.sha256()})
    }

    fn manifest(&mut self, layers: Vec<Value>) -> Value {
        let config = json!({"mediaType": CONFIG, "size": 2_000, "digest": self.sha256()});
        json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers})
    }

    fn config(&mut self, layers: usize) -> Value {
        let diff_ids: Vec<_> = (0..layers).map(|_| self.sha256()).collect();
        let created = "2022-02-22T22:22:22Z";
        let step =
            |k| json!({"created": created, "created_by": format!("COPY part-{k} /opt/odd # buildkit")});
        let history: Vec<_> = (0..layers).map(step).collect();
        json!({
            "architecture": "amd64", "os": "linux", "created": created, "history": history,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        })
    }

    /// An image of two layers, as it should be.
    fn good(&mut self, tag: &'static str) -> Image {
        let layers = vec![self.layer(), self.layer()];
        (tag, Some(self.manifest(layers)), Some(self.config(2)))
    }

    fn with_manifest(&mut self, tag: &'static str, change: impl FnOnce(&mut Value)) -> Image {
        let mut image = self.good(tag);
        image.1.iter_mut().for_each(change_once(change));
        image
    }

    fn with_config(&mut self, tag: &'static str, change: impl FnOnce(&mut Value)) -> Image {
        let mut image = self.good(tag);
        image.2.iter_mut().for_each(change_once(change));
        image
    }

    fn entry(&mut self, media_type: &str, platform: Value) -> Value {
        json!({"mediaType": media_type, "size": 1_500, "digest": self.sha256(), "platform": platform})
    }

    fn indexes(&mut self) {
        let linux = [
            json!({"architecture": "amd64", "os": "linux"}),
            json!({"architecture": "arm", "os": "linux", "variant": "v7"}),
            json!({"architecture": "arm64", "os": "linux", "variant": "v8"}),
        ];
        let mut entries: Vec<_> = linux.iter().map(|p| self.entry(MANIFEST, p.clone())).collect();
        let windows = json!({"architecture": "amd64", "os": "windows", "os.version": "10.0.20348.2402"});
        entries.push(self.entry(MANIFEST, windows));
        let list = json!({"schemaVersion": 2, "mediaType": LIST, "manifests": entries});
        let mut entries: Vec<_> = linux.iter().map(|p| self.entry(OCI_MANIFEST, p.clone())).collect();
        let mut attestation = self.entry(OCI_MANIFEST, json!({"architecture": "unknown", "os": "unknown"}));
        attestation["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest"});
        entries.push(attestation);
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries});
        let nameless = json!({"schemaVersion": 2, "manifests": [self.entry(OCI_MANIFEST, linux[0].clone())]});
        let configs: Vec<_> = (0..3).map(|_| self.config(4)).collect();
        let images: Vec<Image> = ["list", "index", "nameless"]
            .into_iter()
            .zip([list, index, nameless])
            .zip(configs)
            .map(|((tag, manifest), config)| (tag, Some(manifest), Some(config)))
            .collect();
        self.put_images("indexes", &images);
    }

    fn manifests(&mut self) {
        let blobs: Vec<_> = (0..3).map(|_| json!({"blobSum": self.sha256()})).collect();
        let history: Vec<_> = (0..3).map(|_| json!({"v1Compatibility": "{\"os\":\"linux\"}"})).collect();
        let schema_one = json!({
            "schemaVersion": 1, "name": format!("{LAB}/manifests"), "tag": "schema-1", "architecture": "amd64",
            "fsLayers": blobs, "history": history,
        });
        let artifact_type = "application/vnd.oci.artifact.manifest.v1+json";
        let artifact = json!({"schemaVersion": 2, "mediaType": artifact_type, "blobs": []});
        let no_media_type = self.with_manifest("no-media-type", |m| remove(m, "mediaType"));
        let mut no_config = self.good("no-config");
        no_config.2 = None;
        let mut no_manifest = self.good("no-manifest");
        no_manifest.1 = None;
        let no_layers = self.manifest(Vec::new());
        let config = self.config(0);
        self.put_images(
            "manifests",
            &[
                ("schema-1", Some(schema_one), None),
                ("artifact", Some(artifact), None),
                no_media_type,
                no_config,
                no_manifest,
                ("no-layers", Some(no_layers), Some(config)),
            ],
        );
    }

    fn layers(&mut self) {
        let url = "https://registry.example.org/foreign/layer";
        let foreign = self.with_manifest("foreign", |m| {
            m["layers"][0]["mediaType"] = FOREIGN.into();
            m["layers"][0]["urls"] = json!([url]);
        });
        let signature_type = "application/vnd.dev.cosign.simplesigning.v1+json";
        let signature = self.with_manifest("sha256-0000.sig", |m| {
            m["mediaType"] = OCI_MANIFEST.into();
            m["layers"].as_array_mut().into_iter().for_each(|layers| layers.truncate(1));
            m["layers"][0]["mediaType"] = signature_type.into();
            m["layers"][0]["size"] = 243.into();
        });
        let signature = (signature.0, signature.1, Some(self.config(1)));
        let large = self.with_manifest("large", |m| m["layers"][1]["size"] = 5_368_709_120_u64.into());
        let negative = self.with_manifest("negative-size", |m| m["layers"][1]["size"] = (-1).into());
        let no_size = self.with_manifest("no-size", |m| remove(&mut m["layers"][0], "size"));
        let mut layers = vec![self.layer(), self.layer(), self.layer(), self.layer()];
        for k in [1, 3] {
            layers[k]["digest"] = KNOWN_EMPTY_LAYERS[0].into();
            layers[k]["size"] = 32.into();
        }
        let repeated = ("repeated", Some(self.manifest(layers)), Some(self.config(4)));
        self.put_images("layers", &[foreign, signature, large, negative, no_size, repeated]);
    }

    fn configs(&mut self) {
        let no_history = self.with_config("no-history", |c| remove(c, "history"));
        let no_command = self.with_config("no-command", |c| {
            c["history"][1] = json!({"created": "2022-02-22T22:22:22Z", "comment": "Imported from -"});
        });
        let misspelt = self.with_config("misspelt", |c| {
            c["rootfS"] = c["rootfs"].take();
            remove(c, "rootfs");
        });
        let misaligned = self.with_config("misaligned", |c| {
            c["history"].as_array_mut().into_iter().for_each(|steps| steps.truncate(1));
        });
        let wrong_type = self.with_config("wrong-type", |c| c["os"] = 17.into());
        self.put_images("configs", &[no_history, no_command, misspelt, misaligned, wrong_type]);
    }

    fn dates(&mut self) {
        let dates = [
            ("year-1", "0001-01-01T00:00:00Z"),
            ("year-1970", "1970-01-01T00:00:00Z"),
            ("year-1980", "1980-01-01T00:00:01Z"),
            ("offset", "2019-05-06T07:08:09.123456789+02:00"),
            ("unreadable", "some time in May"),
        ];
        let mut images: Vec<Image> = dates
            .into_iter()
            .map(|(tag, date)| self.with_config(tag, |c| c["created"] = date.into()))
            .collect();
        images.push(self.with_config("missing", |c| remove(c, "created")));
        self.put_images("dates", &images);
    }

    fn documents(&mut self) {
        let (first, second) = (self.good("twice"), self.good("twice"));
        let mut text = document(&[first]).to_string();
        let again = second.1.map(|m| format!("\"manifests\":{{\"twice\":{m},")).unwrap_or_default();
        text = text.replacen("\"manifests\":{", &again, 1);
        self.put(&format!("{LAB}/again"), text);
        let mut differ = document(&[self.good("here")]);
        differ["tags"] = json!(["here", "gone"]);
        self.put(&format!("{LAB}/tags-differ"), differ.to_string());
        self.put(&format!("{LAB}/nothing"), "{}");
        self.files.push(OddFile {
            path: format!("{LAB}/NOTES"),
            content: b"no corpus file\n".to_vec(),
            is_other: true,
        });
    }

    fn names(&mut self) {
        let debris = document(&[self.good("latest")]).to_string();
        self.put(&format!("--platform=linux/amd64/{LAB}/debris"), debris);
        let alias = document(&[self.good("latest")]).to_string();
        self.put(&format!("{LAB}/alias"), alias.clone());
        self.put(&format!("docker.io/{LAB}/alias"), alias);
    }

    fn losses(&mut self) {
        let cut = document(&[self.good("latest")]).to_string();
        self.put(&format!("{LAB}/cut"), &cut.as_bytes()[..cut.len() / 2]);
        self.put(&format!("{LAB}/empty"), "");
        let text = document(&[self.good("latest")]).to_string();
        let mut bad = text.clone().into_bytes();
        let at = text.find("part-0").unwrap_or(0);
        bad[at] = 0xff;
        self.put(&format!("{LAB}/no-utf-8"), bad);
        let no_digest = self.with_manifest("latest", |m| remove(&mut m["layers"][1], "digest"));
        self.put_images("no-digest", &[no_digest]);
    }
}

/// Applies a change that is made to one value only.
fn change_once(change: impl FnOnce(&mut Value)) -> impl FnMut(&mut Value) {
    let mut change = Some(change);
    move |value| {
        if let Some(change) = change.take() {
            change(value);
        }
    }
}

fn remove(object: &mut Value, key: &str) {
    if let Some(fields) = object.as_object_mut() {
        fields.shift_remove(key);
    }
}
