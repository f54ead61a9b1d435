//! Lists of images: plain text, and shpc-registry trees.
//!
//! The Singularity Registry HPC keeps one `container.yaml` for each container: `docker:` (or `gh:`,
//! `oras:`) names a repository, `latest:` holds one `tag: digest`, `tags:` many.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The file that describes a container in an shpc-registry tree.
pub const CONTAINER_FILE: &str = "container.yaml";

/// An image that a list names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// `REPOSITORY:TAG`, with `@DIGEST` where the list gives one.
    pub reference: String,
    /// File, and line where there are many.
    pub place: String,
}

/// Why an entry of a list is not read, in classes that are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// `gh:`, ready-made files of a release on GitHub.
    Release,
    /// No repository is named.
    NoRepository,
    /// A repository without tags.
    NoTags,
    /// What stands there is no image reference.
    NoReference,
    /// No text, or no YAML.
    Unreadable,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Release => "releases (gh:)",
            Self::NoRepository => "without a repository",
            Self::NoTags => "without tags",
            Self::NoReference => "no image references",
            Self::Unreadable => "unreadable",
        })
    }
}

/// An entry of a list (a line, a container) that names no image that can be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// File, and line where there are many.
    pub place: String,
    /// The class of the reason.
    pub kind: Kind,
    /// Why.
    pub reason: String,
}

/// The images of one or more lists, in their order, each once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct List {
    /// What is to be read.
    pub images: Vec<Listed>,
    /// What is not.
    pub skipped: Vec<Skipped>,
}

/// Which tags of a container are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tags {
    /// The one under `latest:`.
    #[default]
    Latest,
    /// All under `tags:` and `latest:`.
    All,
}

/// A list that cannot be read at all.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct Error {
    path: PathBuf,
    reason: String,
}

fn failed(path: &Path, reason: impl ToString) -> Error {
    Error { path: path.to_owned(), reason: reason.to_string() }
}

impl List {
    /// Reads a list: a directory is an shpc-registry tree, a file called `container.yaml` one of its
    /// containers, any other file plain text.
    ///
    /// # Errors
    /// [`Error`] if the path cannot be read. What is wrong inside is listed as skipped.
    pub fn read(path: &Path, tags: Tags) -> Result<Self, Error> {
        let mut list = Self::default();
        if path.is_dir() {
            let mut files = Vec::new();
            find_containers(path, &mut files)?;
            if files.is_empty() {
                return Err(failed(path, format!("no {CONTAINER_FILE} below it")));
            }
            files.sort();
            for file in files {
                list.add_container(&file, &read_bytes(&file)?, tags);
            }
        } else if path.file_name().is_some_and(|name| name == CONTAINER_FILE) {
            list.add_container(path, &read_bytes(path)?, tags);
        } else {
            list.add_text(path, &read_bytes(path)?);
        }
        list.keep_first();
        Ok(list)
    }

    /// One reference a line; empty lines and what follows `#` do not count.
    fn add_text(&mut self, path: &Path, bytes: &[u8]) {
        for (number, line) in (1..).zip(bytes.split(|b| *b == b'\n')) {
            let place = format!("{}:{number}", path.display());
            let Ok(line) = std::str::from_utf8(line) else {
                self.skipped.push(Skipped { place, kind: Kind::Unreadable, reason: "is not UTF-8".into() });
                continue;
            };
            let name = line.split('#').next().unwrap_or_default().trim();
            let name = name.strip_prefix("docker://").unwrap_or(name);
            match name {
                "" => {}
                name if name.contains(char::is_whitespace) => {
                    let reason = format!("{name:?} is no image reference");
                    self.skipped.push(Skipped { place, kind: Kind::NoReference, reason });
                }
                // It may hold a password, which is not to be told.
                name if name.contains("://") => {
                    let reason = "is an address, not an image reference (HOST/REPOSITORY:TAG)".into();
                    self.skipped.push(Skipped { place, kind: Kind::NoReference, reason });
                }
                name => self.images.push(Listed { reference: name.to_owned(), place }),
            }
        }
    }

    fn add_container(&mut self, path: &Path, bytes: &[u8], tags: Tags) {
        let place = path.display().to_string();
        let skip = |kind, reason: String| Skipped { place: place.clone(), kind, reason };
        let container: Container = match std::str::from_utf8(bytes)
            .map_err(|e| e.to_string())
            .and_then(|text| serde_saphyr::from_str(text).map_err(|e| first_line(&e.to_string())))
        {
            Ok(container) => container,
            Err(e) => return self.skipped.push(skip(Kind::Unreadable, format!("cannot be read: {e}"))),
        };
        let repository = match (&container.docker, &container.oras, &container.gh) {
            (Some(docker), _, _) => docker.strip_prefix("docker://").unwrap_or(docker),
            (None, Some(oras), _) => oras.strip_prefix("oras://").unwrap_or(oras),
            (None, None, Some(gh)) => {
                let reason = format!("gh: {gh} is a release of ready-made files, not an image in a registry");
                return self.skipped.push(skip(Kind::Release, reason));
            }
            _ => {
                let reason = "names no repository (docker:, oras: or gh:)".into();
                return self.skipped.push(skip(Kind::NoRepository, reason));
            }
        };
        // `latest` first: it is what most people run.
        let mut wanted = container.latest;
        if tags == Tags::All || wanted.is_empty() {
            wanted.extend(container.tags);
        }
        if wanted.is_empty() {
            return self.skipped.push(skip(Kind::NoTags, "has no tags".into()));
        }
        for (tag, digest) in wanted {
            let digest = digest.unwrap_or_default();
            let at = if digest.starts_with("sha256:") { format!("@{digest}") } else { String::new() };
            self.images.push(Listed { reference: format!("{repository}:{tag}{at}"), place: place.clone() });
        }
    }

    fn keep_first(&mut self) {
        let mut seen = std::collections::HashSet::new();
        self.images.retain(|image| seen.insert(image.reference.clone()));
    }
}

/// The fields of a `container.yaml` that name images; the others are for people.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Container {
    docker: Option<String>,
    oras: Option<String>,
    gh: Option<String>,
    #[serde(deserialize_with = "in_order")]
    latest: Vec<(String, Option<String>)>,
    #[serde(deserialize_with = "in_order")]
    tags: Vec<(String, Option<String>)>,
}

/// A mapping as the list of its pairs; tags such as `1.10` stay the text they are. Nothing in place of
/// a mapping is an empty one.
fn in_order<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<(String, Option<String>)>, D::Error> {
    let map = Option::<BTreeMap<String, Option<String>>>::deserialize(d)?;
    Ok(map.unwrap_or_default().into_iter().collect())
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

fn read_bytes(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|e| failed(path, e))
}

fn find_containers(directory: &Path, files: &mut Vec<PathBuf>) -> Result<(), Error> {
    for entry in std::fs::read_dir(directory).map_err(|e| failed(directory, e))? {
        let entry = entry.map_err(|e| failed(directory, e))?;
        let kind = entry.file_type().map_err(|e| failed(&entry.path(), e))?;
        // Links are not followed: a tree may link to itself.
        if kind.is_dir() {
            find_containers(&entry.path(), files)?;
        } else if kind.is_file() && entry.file_name() == CONTAINER_FILE {
            files.push(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn references(list: &List) -> Vec<&str> {
        list.images.iter().map(|i| i.reference.as_str()).collect()
    }

    #[test]
    fn plain_lists_are_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text =
            b"# my images\nbusybox\n\n  docker://quay.io/a/b:1  # the second\nbusybox\ntwo words\n\xff\n";
        std::fs::write(file.path(), text).unwrap();
        let list = List::read(file.path(), Tags::Latest).unwrap();
        assert_eq!(references(&list), ["busybox", "quay.io/a/b:1"]);
        assert!(list.images[1].place.ends_with(":4"));
        let reasons: Vec<_> = list.skipped.iter().map(|s| s.reason.as_str()).collect();
        assert_eq!(reasons, ["\"two words\" is no image reference", "is not UTF-8"]);
    }

    const SHA: &str = "sha256:4f4fb700ef54461cfa02571ae0db9a0dc1e0cdb5577484a6d75e68dc38e8acc1";

    fn tree() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = directory.path().join(name).join(CONTAINER_FILE);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put(
            "quay.io/biocontainers/samtools",
            &format!(
                "url: https://example.org/samtools\nmaintainer: '@someone'\ndescription: 'a tool: for files'\n\
                 latest:\n  1.20--0: {SHA}\ntags:\n  \"1.10\":\n    {SHA}\n  1.20--0: {SHA}\n\
                 docker: quay.io/biocontainers/samtools\nfilter:\n- 1.*\naliases:\n  samtools: /bin/samtools\n"
            ),
        );
        put("ghcr/sif", "oras: ghcr.io/lab/sif\nlatest:\n  latest: x\n");
        put("github/release", "gh: lab/release\nlatest:\n  1: x\n");
        put("empty", "docker: a/b\ntags:\n");
        put("no-name", "latest:\n  1: x\n");
        put("broken", "docker: [unclosed\n");
        std::fs::write(directory.path().join("README.md"), "x").unwrap();
        directory
    }

    #[test]
    fn shpc_trees_are_read() {
        let directory = tree();
        let list = List::read(directory.path(), Tags::Latest).unwrap();
        let samtools = format!("quay.io/biocontainers/samtools:1.20--0@{SHA}");
        assert_eq!(references(&list), ["ghcr.io/lab/sif:latest", samtools.as_str()]);
        let all = List::read(directory.path(), Tags::All).unwrap();
        let older = format!("quay.io/biocontainers/samtools:1.10@{SHA}");
        assert_eq!(references(&all), ["ghcr.io/lab/sif:latest", samtools.as_str(), older.as_str()]);
        let reasons: Vec<_> = list.skipped.iter().map(|s| s.reason.as_str()).collect();
        assert_eq!(reasons.len(), 4, "{reasons:?}");
        assert!(reasons[0].starts_with("cannot be read: "), "{reasons:?}");
        assert_eq!(reasons[1], "has no tags");
        assert!(reasons[2].starts_with("gh: lab/release"), "{reasons:?}");
        assert!(reasons[3].starts_with("names no repository"), "{reasons:?}");
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        let empty = tempfile::tempdir().unwrap();
        for (path, expected) in [(Path::new("/nowhere"), "No such file"), (empty.path(), "no container.yaml")]
        {
            let error = List::read(path, Tags::All).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
