//! What is odd about the records of a file that could be read, and what the study does with them.

use super::builder::{Builder, Slot};
use super::shard::Table;
use super::{Configs, Date, Layers, Oddity, StudyFilter, repository_of};
use crate::strings::{NONE, StringId};

/// Media type of docker's manifest list, which the study skips by name.
const MANIFEST_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Media type of an OCI index.
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// True if blobs of this media type are signatures or attestations, no file system.
pub(super) fn is_signature_type(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.dev.cosign") || media_type.contains("in-toto")
}

/// True if layers of this media type are distributed elsewhere.
pub(super) fn is_foreign_type(media_type: &str) -> bool {
    media_type.contains(".foreign.") || media_type.contains("nondistributable")
}

impl Builder {
    /// Matches manifests and configs of the file at hand and notes what is odd.
    pub(super) fn look_around(&mut self, path: &[u8]) {
        self.tag = NONE;
        let repository = String::from_utf8_lossy(repository_of(path)).into_owned();
        if !is_repository_name(&repository) {
            self.note(Oddity::RepositoryNameDebris, format_args!("{repository}"));
        }
        for m in self.mark.manifests..self.records.manifests.tag.len() {
            self.tag = self.records.manifests.tag[m];
            self.look_at_manifest(m);
        }
        for c in self.mark.configs..self.records.configs.tag.len() {
            self.tag = self.records.configs.tag[c];
            self.look_at_config(c);
        }
        self.tag = NONE;
        self.compare_tags();
    }

    fn look_at_manifest(&mut self, m: usize) {
        let manifests = &mut self.records.manifests;
        let config = self.slots[Slot::Config as usize].row(self.tag);
        manifests.config[m] = config.unwrap_or(NONE);
        let media_type = manifests.media_type[m];
        let schema_one = manifests.schema_version[m] == 1;
        let has_layers = manifests.has_layers[m] == 1;
        let layers = manifests.layers[m] as usize..manifests.layers[m + 1] as usize;
        let kind = if media_type == NONE { None } else { Some(self.text(Table::MediaTypes, media_type)) };
        let is_list = kind == Some(MANIFEST_LIST);
        let has_entries = self.index_like[m - self.mark.manifests];
        let is_index = kind == Some(OCI_INDEX) || (has_entries && !has_layers && !is_list);
        // The order of these tests is the study's.
        let study = match () {
            () if media_type == NONE => StudyFilter::NoMediaType,
            () if is_list => StudyFilter::ManifestList,
            () if !has_layers || schema_one => StudyFilter::NoLayers,
            () if config.is_none() => StudyFilter::NoConfig,
            () => StudyFilter::Kept,
        };
        self.records.manifests.study[m] = study as u8;

        let field = format_args!("mediaType");
        match () {
            () if is_list => self.note(Oddity::ManifestList, field),
            () if is_index => self.note(Oddity::OciIndex, field),
            () if schema_one => self.note(Oddity::SchemaOne, format_args!("schemaVersion: 1")),
            () if !has_layers => self.note(Oddity::ManifestWithoutLayers, format_args!("layers")),
            () if media_type == NONE => self.note(Oddity::ImageWithoutMediaType, field),
            () => (),
        }
        if has_layers && config.is_none() {
            self.note(Oddity::ManifestWithoutConfig, format_args!("configs"));
        }
        if has_layers && layers.is_empty() {
            self.note(Oddity::ZeroLayers, format_args!("layers: []"));
        }
        self.look_at_layers(layers.clone());
        if let Some(c) = config.map(|c| c as usize).filter(|_| has_layers) {
            let configs = &self.records.configs;
            let steps = configs.history[c] as usize..configs.history[c + 1] as usize;
            let steps = self.records.history.empty_layer[steps].iter().filter(|e| **e == 0).count();
            if self.records.configs.flags[c] & Configs::HAS_HISTORY != 0 && steps != layers.len() {
                let text = format_args!("history: {steps} steps for {} layers", layers.len());
                self.note(Oddity::HistoryMisaligned, text);
            }
        }
    }

    fn look_at_layers(&mut self, layers: std::ops::Range<usize>) {
        for (i, l) in layers.clone().enumerate() {
            let media_type = self.records.layers.media_type[l];
            let (foreign, signature) = self.media_type_kind(media_type);
            if foreign {
                self.records.layers.flags[l] |= Layers::FOREIGN;
            }
            if self.records.layers.flags[l] & Layers::FOREIGN != 0 {
                self.note(Oddity::ForeignLayer, format_args!("layers[{i}]"));
            }
            if signature {
                self.note(Oddity::SignatureLayer, format_args!("layers[{i}].mediaType"));
            }
            let size = self.records.layers.size[l];
            if size > u64::from(u32::MAX) {
                self.note(Oddity::SizeOver32Bits, format_args!("layers[{i}].size: {size}"));
            }
        }
        let digests = &self.records.layers.digest[layers];
        // The first in the order of the layers: ids differ from thread to thread.
        let repeated = if digests.len() <= 32 {
            digests.iter().enumerate().find(|(i, d)| digests[..*i].contains(d)).map(|(_, d)| *d)
        } else {
            let mut seen = rustc_hash::FxHashSet::default();
            digests.iter().copied().find(|d| !seen.insert(*d))
        };
        if let Some(digest) = repeated {
            let digest = self.text(Table::Digests, digest).chars().take(80).collect::<String>();
            self.note(Oddity::RepeatedDigest, format_args!("layers: {digest}"));
        }
    }

    /// Whether a layer media type is foreign, and whether it is a signature's; kept by id.
    fn media_type_kind(&mut self, media_type: StringId) -> (bool, bool) {
        if media_type == NONE {
            return (false, false);
        }
        for id in self.media_type_kinds.len()..=media_type as usize {
            let text = self.text(Table::MediaTypes, id as StringId);
            let kind = (is_foreign_type(text), is_signature_type(text));
            self.media_type_kinds.push(kind);
        }
        self.media_type_kinds[media_type as usize]
    }

    fn look_at_config(&mut self, c: usize) {
        let flags = self.records.configs.flags[c];
        if self.slots[Slot::Manifest as usize].row(self.tag).is_none() {
            self.records.configs.flags[c] |= Configs::NO_MANIFEST;
            self.note(Oddity::ConfigWithoutManifest, format_args!("manifests"));
        }
        if flags & Configs::HAS_HISTORY == 0 {
            self.note(Oddity::ConfigWithoutHistory, format_args!("history"));
        }
        let created = self.records.configs.created[c];
        if created == NONE {
            self.note(Oddity::DateMissing, format_args!("created"));
            return;
        }
        let text = self.text(Table::Dates, created);
        let date = Date::parse(text);
        let text: String = text.chars().take(40).collect();
        match date {
            None => self.note(Oddity::DateUnreadable, format_args!("created: {text}")),
            Some(date) => {
                if date.year <= 1 {
                    self.note(Oddity::YearOne, format_args!("created: {text}"));
                } else if date.year < 2010 {
                    self.note(Oddity::YearBefore2010, format_args!("created: {text}"));
                }
                if date.offset_minutes != 0 {
                    self.note(Oddity::DateWithOffset, format_args!("created: {text}"));
                }
            }
        }
    }

    /// `tags` against the keys of `manifests`, as sets.
    fn compare_tags(&mut self) {
        let Some(mut listed) = self.listed_tags.take() else { return };
        let mut given = self.records.manifests.tag[self.mark.manifests..].to_vec();
        for tags in [&mut listed, &mut given] {
            tags.sort_unstable();
            tags.dedup();
        }
        if listed != given {
            let missing = listed.iter().filter(|t| given.binary_search(t).is_err()).count();
            let more = given.iter().filter(|t| listed.binary_search(t).is_err()).count();
            let text = format_args!("tags: {missing} without a manifest, {more} not listed");
            self.note(Oddity::TagsDiffer, text);
        }
    }
}

/// True if `name` is a repository name by the grammar of the OCI distribution specification,
/// with a host (and port) allowed as its first component.
pub(super) fn is_repository_name(name: &str) -> bool {
    let mut parts = name.split('/');
    let Some(first) = parts.next() else { return false };
    let has_rest = name.len() > first.len();
    (is_component(first) || (has_rest && is_host(first))) && parts.all(is_component)
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(part: &str) -> bool {
    let is_alphanumeric = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let b = part.as_bytes();
    let (Some(first), Some(last)) = (b.first(), b.last()) else { return false };
    is_alphanumeric(*first)
        && is_alphanumeric(*last)
        && part.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()).all(|separator| {
            matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|c| c == b'-')
        })
}

/// A host name with a dot, or `localhost`, or any with a port.
fn is_host(part: &str) -> bool {
    let (host, port) = match part.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (part, None),
    };
    let label = |l: &str| {
        !l.is_empty()
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
    };
    let port_is_one = port.is_none_or(|p| !p.is_empty() && p.bytes().all(|c| c.is_ascii_digit()));
    (host.contains('.') || host == "localhost" || port.is_some()) && host.split('.').all(label) && port_is_one
}

#[cfg(test)]
mod tests {
    use super::is_repository_name;

    #[test]
    fn repository_names_follow_the_grammar() {
        for good in [
            "ubuntu",
            "library/ubuntu",
            "docker.io/library/ubuntu",
            "localhost:5000/a",
            "Example.COM/a",
            "a__b/c-d.e_f",
            "a--b",
            "registry.access.redhat.com/rhscl/httpd-24-rhel7",
        ] {
            assert!(is_repository_name(good), "{good}");
        }
        for bad in [
            "",
            "--platform=linux/amd64",
            "<?php",
            "\"mcr.microsoft.com/x",
            "&&\tprintf",
            "ENV",
            "{{DEPENDS}}",
            "a/",
            "/a",
            "a//b",
            "a___b",
            "a..b",
            "a/B",
            "-a",
            "\u{feff}",
            "host:port/a",
            "EXAMPLE.com",
            "a.-b",
        ] {
            assert!(!is_repository_name(bad), "{bad}");
        }
    }
}
