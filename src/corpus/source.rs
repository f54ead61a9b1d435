//! Where corpus files come from: a directory, or a tar archive that is read as a stream.

use super::merge::hex;
use super::{CORPUS_FILE, Error, Example, LABEL_FILE, Label, Oddities, Oddity};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

pub(super) fn refuse(path: &Path, reason: impl Into<String>) -> Error {
    Error::Source { path: path.to_owned(), reason: reason.into() }
}

/// A source that can be read.
#[derive(Debug)]
pub(super) enum Source {
    /// Corpus files below a directory.
    Directory(Listing),
    /// A tar archive.
    Archive {
        /// The file.
        path: PathBuf,
        /// How its bytes are packed.
        packing: Packing,
        /// Its size in bytes.
        bytes: u64,
    },
}

/// How a tar archive is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    Plain,
    Gzip,
    Zstd,
}

/// The corpus files of a directory, by ascending path bytes.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// The directory that the paths start from.
    pub root: PathBuf,
    /// Path below the root, and size in bytes.
    pub files: Vec<(Vec<u8>, u64)>,
    /// Seed of the generator, if a label says that the files are synthetic; known after the walk.
    pub synthetic_seed: Option<u64>,
}

impl Source {
    /// Looks at `path`: a directory or an archive (decided by its first bytes)?
    ///
    /// # Errors
    /// [`Error::Source`] if it is neither.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let about = std::fs::metadata(path)
            .map_err(|e| refuse(path, format!("cannot be read ({e}); give a directory or a tar archive")))?;
        if about.is_dir() {
            return Ok(Self::Directory(Listing { root: crawl_root(path), ..Listing::default() }));
        }
        // Every rank reads an archive for itself, from its start: a pipe has no second reading.
        if !about.is_file() {
            return Err(refuse(path, "is a pipe or device; give a directory or a tar archive (a file)"));
        }
        let packing = Packing::of(path)?;
        Ok(Self::Archive { path: path.to_owned(), packing, bytes: about.len() })
    }
}

/// Where the names of repositories begin: at `registry/` below the directory, or at the directory
/// itself if it is that, or if `registry` is a repository in it.
fn crawl_root(path: &Path) -> PathBuf {
    let below = path.join("registry");
    let is_root = std::fs::canonicalize(path).is_ok_and(|path| path.ends_with("registry"));
    if below.is_dir() && !is_root && !below.join(CORPUS_FILE).exists() { below } else { path.to_owned() }
}

impl Listing {
    /// Finds the corpus files below the root; other files and unreadable directories are noted.
    ///
    /// # Errors
    /// [`Error::Source`] if there are none or the root cannot be read.
    pub fn walk(&mut self, oddities: &mut Oddities) -> Result<(), Error> {
        let mut odd = Vec::new();
        self.read_label();
        let mut directories = vec![Vec::new()];
        while let Some(directory) = directories.pop() {
            if let Err(e) = self.list(&directory, &mut directories, &mut odd) {
                if directory.is_empty() {
                    return Err(refuse(&self.root, format!("cannot be read ({e}); check its permissions")));
                }
                odd.push((Oddity::BadFile, directory, e.to_string()));
            }
        }
        self.files.sort_unstable();
        odd.sort_unstable();
        for (kind, path, field) in odd {
            note(oddities, kind, &path, field);
        }
        if self.files.is_empty() {
            return Err(nothing_found(&self.root, ""));
        }
        Ok(())
    }

    fn list(
        &mut self,
        directory: &[u8],
        directories: &mut Vec<Vec<u8>>,
        odd: &mut Vec<(Oddity, Vec<u8>, String)>,
    ) -> std::io::Result<()> {
        for entry in std::fs::read_dir(self.path(directory))? {
            let entry = entry?;
            let name = entry.file_name().into_vec();
            let path = if directory.is_empty() { name.clone() } else { [directory, b"/", &name].concat() };
            if entry.file_type()?.is_dir() {
                directories.push(path);
            } else if name == CORPUS_FILE.as_bytes() {
                // Follows a link to a file; one that leads nowhere is found out when it is read.
                let about = std::fs::metadata(entry.path());
                if about.as_ref().is_ok_and(|about| !about.is_file() && !about.is_dir()) {
                    // To open a pipe is to wait for whoever writes to it.
                    odd.push((Oddity::BadFile, path, "is a pipe or device".into()));
                } else {
                    self.files.push((path, about.map_or(0, |about| about.len())));
                }
            } else if !(path == LABEL_FILE.as_bytes() && self.synthetic_seed.is_some()) {
                let to_directory = std::fs::metadata(entry.path()).is_ok_and(|about| about.is_dir());
                odd.push(match to_directory && entry.file_type()?.is_symlink() {
                    true => (Oddity::BadFile, path, "is a link to a directory, which is not followed".into()),
                    false => (Oddity::OtherFile, path, "the file's name".into()),
                });
            }
        }
        Ok(())
    }

    /// Looks for a label in the root, and beside it if it is the `registry/` of a crawl.
    fn read_label(&mut self) {
        let mut places = vec![self.root.join(LABEL_FILE)];
        if let Ok(root) = std::fs::canonicalize(&self.root)
            && root.ends_with("registry")
        {
            places.push(root.with_file_name(LABEL_FILE));
        }
        let labels = places.iter().filter_map(|place| Label::read(&std::fs::read(place).ok()?));
        self.synthetic_seed = labels.map(|label| label.seed).next();
    }

    /// Path of a file below the root.
    pub fn path(&self, below: &[u8]) -> PathBuf {
        self.root.join(Path::new(std::ffi::OsStr::from_bytes(below)))
    }
}

pub(super) fn nothing_found(path: &Path, more: &str) -> Error {
    let reason = format!("holds no {CORPUS_FILE}{more}; give the directory or archive of a crawl");
    refuse(path, reason)
}

fn note(oddities: &mut Oddities, kind: Oddity, path: &[u8], field: String) {
    let file = String::from_utf8_lossy(path).into_owned();
    oddities.note(kind, || Example { kind, file, tag: String::new(), field });
}

/// A member's path without `./` and `/` before it.
pub(crate) fn clean(member: &[u8]) -> &[u8] {
    let mut path = member;
    while let Some(rest) = path.strip_prefix(b"./").or_else(|| path.strip_prefix(b"/")) {
        path = rest;
    }
    path
}

/// Where a member belongs in the corpus: its path after the prefix that the first member has.
fn corpus_path<'m>(member: &'m [u8], prefix: &[u8]) -> &'m [u8] {
    let path = clean(member);
    path.strip_prefix(prefix).unwrap_or(path)
}

/// What stands before the names of repositories, from the first corpus file: all up to the first component
/// `registry`, if there is one and it is not itself a repository. Others of that name are parts of names.
fn crawl_prefix(member: &[u8]) -> &[u8] {
    let path = clean(member);
    let mut start = 0;
    while let Some(length) = path[start..].iter().position(|b| *b == b'/') {
        let rest = &path[start + length + 1..];
        if &path[start..start + length] == b"registry" && rest != CORPUS_FILE.as_bytes() {
            return &path[..start + length + 1];
        }
        start += length + 1;
    }
    b""
}

/// What is said of archives that were joined by their bytes.
pub(crate) const ANOTHER_ARCHIVE: &str =
    "another archive follows, which is not read; join archives with `tar --concatenate`";

/// No label is larger than that, in bytes.
const LARGEST_LABEL: u64 = 1 << 16;

/// True if a label may be there: not inside the crawl itself.
fn is_label_place(member: &[u8]) -> bool {
    let mut parts = member.rsplit(|b| *b == b'/');
    parts.next() == Some(LABEL_FILE.as_bytes()) && parts.all(|part| part != b"registry")
}

fn is_corpus_file(path: &[u8]) -> bool {
    path.rsplit(|b| *b == b'/').next() == Some(CORPUS_FILE.as_bytes())
}

impl Packing {
    fn of(path: &Path) -> Result<Self, Error> {
        let unreadable = |e| refuse(path, format!("cannot be read ({e}); check its permissions"));
        let mut file = File::open(path).map_err(unreadable)?;
        let mut head = Vec::new();
        file.by_ref().take(512).read_to_end(&mut head).map_err(unreadable)?;
        match head.as_slice() {
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(Self::Zstd),
            [0x1f, 0x8b, ..] => Ok(Self::Gzip),
            block if is_tar_header(block) => Ok(Self::Plain),
            [] => Err(refuse(path, "is empty; give a directory or a tar archive")),
            _ => Err(refuse(
                path,
                "is neither a directory nor a tar archive (.tar, .tar.gz, .tar.zst) of corpus files",
            )),
        }
    }
}

/// True if the sum of the header's bytes is the one it states, or if it is an end marker.
fn is_tar_header(block: &[u8]) -> bool {
    if block.len() < 512 {
        return false;
    }
    let stated = std::str::from_utf8(&block[148..156]).unwrap_or_default();
    let stated = u32::from_str_radix(stated.trim_matches(|c| c == ' ' || c == '\0'), 8).ok();
    // The field of the sum itself counts as eight spaces.
    let sum: u32 =
        block.iter().enumerate().map(|(i, b)| if (148..156).contains(&i) { 32 } else { u32::from(*b) }).sum();
    stated == Some(sum) || block.iter().all(|b| *b == 0)
}

/// Reads what follows the end of a tar archive, which is padding; true if another archive follows.
pub(crate) fn is_followed_by_another(mut rest: impl Read) -> std::io::Result<bool> {
    let (mut block, mut another) = (Vec::with_capacity(512), false);
    loop {
        block.clear();
        if rest.by_ref().take(512).read_to_end(&mut block)? == 0 {
            return Ok(another);
        }
        another |= is_tar_header(&block) && block.iter().any(|b| *b != 0);
    }
}

/// Counts and hashes what is read through it.
struct Metered<R> {
    inner: R,
    sha256: Option<Sha256>,
    bytes: u64,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buffer)?;
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(&buffer[..n]);
        }
        self.bytes += n as u64;
        Ok(n)
    }
}

/// Remembers whether the end of the stream was reached.
struct Ending<'e, R> {
    inner: R,
    ended: &'e std::cell::Cell<bool>,
}

impl<R: Read> Read for Ending<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buffer)?;
        if n == 0 && !buffer.is_empty() {
            self.ended.set(true);
        }
        Ok(n)
    }
}

/// A corpus file of an archive.
pub(super) struct Member<'a> {
    /// Its place in the corpus ([`corpus_path`]).
    pub path: &'a [u8],
    /// Its number among the corpus files of the archive.
    pub ordinal: u64,
    /// Its content; may be taken and another buffer left in its place.
    pub content: &'a mut Vec<u8>,
    /// Bytes of the archive that were read so far.
    pub archive_bytes: u64,
}

/// Reads an archive as a stream and hands out its corpus files one by one. Other files and a
/// broken archive are noted, and the seed that a label gives is kept. Returns the sha256 of the
/// archive, if that was asked for.
///
/// # Errors
/// [`Error::Source`] if the file cannot be opened, or if it holds no corpus file.
pub(super) fn read_archive(
    path: &Path,
    packing: Packing,
    with_sha256: bool,
    oddities: &mut Oddities,
    synthetic_seed: &mut Option<u64>,
    mut take: impl FnMut(Member),
) -> Result<Option<String>, Error> {
    let mut file =
        File::open(path).map_err(|e| refuse(path, format!("cannot be read ({e}); check its permissions")))?;
    let _ = file.rewind();
    let mut metered = Metered { inner: file, sha256: with_sha256.then(Sha256::new), bytes: 0 };
    let bytes = std::cell::Cell::new(0);
    let mut members = 0;
    let broken = {
        let counted = BufReader::with_capacity(1 << 20, Counted { inner: &mut metered, bytes: &bytes });
        let unpacked: Result<Box<dyn Read + '_>, _> = match packing {
            Packing::Plain => Ok(Box::new(counted)),
            Packing::Gzip => Ok(Box::new(flate2::bufread::MultiGzDecoder::new(counted))),
            // 2^31 bytes is the largest window of the format; decoders stop at 2^27 by default.
            Packing::Zstd => zstd::stream::read::Decoder::with_buffer(counted).and_then(|mut decoder| {
                decoder.window_log_max(31)?;
                Ok(Box::new(decoder) as Box<dyn Read + '_>)
            }),
        };
        match unpacked {
            Err(e) => Some(("the beginning".to_owned(), e.to_string())),
            Ok(unpacked) => read_members(unpacked, oddities, synthetic_seed, |member, content| {
                take(Member { path: member, ordinal: members, content, archive_bytes: bytes.get() });
                members += 1;
            }),
        }
    };
    // What the archive's reader left over belongs to the file's sha256, too.
    let rest = std::io::copy(&mut metered, &mut std::io::sink());
    let reading = rest.err().map(|e| ("the last member".to_owned(), e.to_string()));
    let mut hint = String::new();
    if let Some((place, reason)) = broken.or(reading) {
        hint = format!(" (the archive is broken after {place}: {reason})");
        note(
            oddities,
            Oddity::BrokenArchive,
            path.file_name().unwrap_or_default().as_bytes(),
            format!("after {place}: {reason}"),
        );
    }
    if members == 0 {
        return Err(nothing_found(path, &hint));
    }
    Ok(metered.sha256.map(|sha256| hex(&sha256.finalize())))
}

struct Counted<'a, R> {
    inner: R,
    bytes: &'a std::cell::Cell<u64>,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.bytes.set(self.bytes.get() + n as u64);
        Ok(n)
    }
}

/// Walks the members; if the archive is broken, after which member and why.
fn read_members(
    unpacked: Box<dyn Read + '_>,
    oddities: &mut Oddities,
    synthetic_seed: &mut Option<u64>,
    mut take: impl FnMut(&[u8], &mut Vec<u8>),
) -> Option<(String, String)> {
    let ended = std::cell::Cell::new(false);
    let mut archive = tar::Archive::new(Ending { inner: unpacked, ended: &ended });
    let mut last = "the beginning".to_owned();
    let mut content = Vec::new();
    let mut prefix: Option<Vec<u8>> = None;
    let entries = match archive.entries() {
        Ok(entries) => entries,
        Err(e) => return Some((last, e.to_string())),
    };
    for entry in entries {
        let mut entry = match entry {
            Ok(entry) => entry,
            Err(e) => return Some((last, e.to_string())),
        };
        let member = entry.path_bytes().into_owned();
        if !entry.header().entry_type().is_dir() {
            let size = entry.size();
            content.clear();
            let may_be_label = is_label_place(&member) && size <= LARGEST_LABEL;
            if !is_corpus_file(&member) && !may_be_label {
                note(oddities, Oddity::OtherFile, &member, "the member's name".into());
            }
            // Other members are read as well: only so can a cut one be told from a whole one.
            let read = if is_corpus_file(&member) || may_be_label {
                entry.read_to_end(&mut content).map(|n| n as u64)
            } else {
                std::io::copy(&mut entry, &mut std::io::sink())
            };
            match read {
                Err(e) => return Some((last, e.to_string())),
                Ok(n) if n < size => return Some((last, "ends in the middle of a member".into())),
                Ok(_) => (),
            }
            let kind = entry.header().entry_type();
            if is_corpus_file(&member) && (kind.is_symlink() || kind.is_hard_link()) {
                let reason = "is a link to another member, which is not followed; write the archive with \
                    `tar --dereference --hard-dereference`";
                note(oddities, Oddity::BadFile, &member, reason.into());
            } else if is_corpus_file(&member) {
                let prefix = prefix.get_or_insert_with(|| crawl_prefix(&member).to_vec());
                take(corpus_path(&member, prefix), &mut content);
            } else if may_be_label {
                match Label::read(&content) {
                    Some(label) => *synthetic_seed = Some(label.seed),
                    None => note(oddities, Oddity::OtherFile, &member, "the member's name".into()),
                }
            }
        }
        last = String::from_utf8_lossy(&member).into_owned();
    }
    if ended.get() {
        return Some((last, "the end marker is missing".into()));
    }
    // Reading the rest also lets the decompressor check its sums.
    match is_followed_by_another(BufReader::new(archive.into_inner())) {
        Ok(false) => None,
        Ok(true) => Some((last, ANOTHER_ARCHIVE.into())),
        Err(e) => Some((last, e.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_placed_after_registry() {
        let place = |member: &str| {
            let prefix = crawl_prefix(member.as_bytes());
            String::from_utf8(corpus_path(member.as_bytes(), prefix).to_vec()).unwrap()
        };
        assert_eq!(place("registry/a/b/f"), "a/b/f");
        assert_eq!(place("./registry/a/f"), "a/f");
        assert_eq!(place("x/registry/a/registry/f"), "a/registry/f");
        assert_eq!(place("registry.io/a/f"), "registry.io/a/f");
        assert_eq!(place("./a/f"), "a/f");
        assert_eq!(place("f"), "f");
        let repository = format!("library/registry/{CORPUS_FILE}");
        assert_eq!(place(&repository), repository);
        assert_eq!(place(&format!("registry/{repository}")), repository);
        // Two hosts have a `registry` each: not one repository.
        assert_eq!(
            corpus_path(b"ghcr.io/registry/a/f", crawl_prefix(b"quay.io/registry/a/f")),
            b"ghcr.io/registry/a/f"
        );
    }
}
