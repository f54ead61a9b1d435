//! Where Dockerfiles come from: a directory, or a tar archive that is read as a stream.
//!
//! A Dockerfile is a file whose name begins with `Dockerfile`, as the study looks for them. Its
//! path starts after the component `dockerfiles`, if there is one.

use super::super::{Error, Watch};
use crate::corpus::{ANOTHER_ARCHIVE, clean, is_followed_by_another};
use crate::world::World;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{BufReader, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// A Dockerfile, or why it could not be read.
pub(super) struct Found {
    pub path: Vec<u8>,
    /// Number in the source; of two with one path the greater counts.
    pub ordinal: u64,
    pub content: Result<Vec<u8>, String>,
}

/// What else there was; the same on all ranks.
#[derive(Debug, Default)]
pub(super) struct Around {
    /// Files of another name.
    pub other: u64,
    /// The first of them.
    pub other_examples: Vec<String>,
    /// Why the archive ended early.
    pub broken: Option<String>,
    /// Sha256 of the archive.
    pub sha256: Option<String>,
}

/// Places that are kept.
pub(super) const EXAMPLES: usize = 10;

fn refuse(path: &Path, reason: impl Into<String>) -> Error {
    Error::Source { path: path.to_owned(), reason: reason.into() }
}

fn is_dockerfile(path: &[u8]) -> bool {
    path.rsplit(|b| *b == b'/').next().is_some_and(|name| name.starts_with(b"Dockerfile"))
}

/// Hands out the Dockerfiles of this rank, in no particular order; ends early if the run is stopped.
/// Collective.
pub(super) fn read(
    source: &Path,
    world: &World,
    watch: &Watch<'_>,
    take: &mut dyn FnMut(Found),
) -> Result<Around, Error> {
    let unreadable = |e| refuse(source, format!("cannot be read ({e}); give a directory or a tar archive"));
    let mut around = Around::default();
    if std::fs::metadata(source).map_err(unreadable)?.is_dir() {
        read_directory(source, world, watch, &mut around, take)?;
    } else {
        read_archive(source, world, watch, &mut around, take)?;
    }
    Ok(around)
}

impl Around {
    fn note_other(&mut self, path: &[u8]) {
        self.other += 1;
        if self.other_examples.len() < EXAMPLES {
            self.other_examples.push(String::from_utf8_lossy(path).into_owned());
        }
    }
}

fn read_directory(
    source: &Path,
    world: &World,
    watch: &Watch<'_>,
    around: &mut Around,
    take: &mut dyn FnMut(Found),
) -> Result<(), Error> {
    let below = source.join("dockerfiles");
    let root = if below.is_dir() { below } else { source.to_owned() };
    // Rank 0 looks, the others hear from it: paths do not hold NUL.
    let mut listing = Vec::new();
    if world.is_root() {
        let mut paths = Vec::new();
        walk(&root, &mut Vec::new(), &mut paths)?;
        paths.sort_unstable();
        listing = paths.join(&0);
    }
    world.broadcast(&mut listing);
    let mut ordinal = 0;
    let mut listed = 0;
    for path in listing.split(|b| *b == 0).filter(|path| !path.is_empty()) {
        watch.pause();
        if watch.is_stopped() {
            break;
        }
        // Files say nothing of their sizes yet; their names stand for them.
        listed += path.len() as u64 + 1;
        (watch.progress)(listed, listing.len() as u64 + 1);
        if !is_dockerfile(path) {
            around.note_other(path);
            continue;
        }
        if ordinal % world.size() as u64 == world.rank() as u64 {
            let content = read_file(&root.join(Path::new(std::ffi::OsStr::from_bytes(path))));
            take(Found { path: path.to_vec(), ordinal, content });
            world.progress();
        }
        ordinal += 1;
    }
    Ok(())
}

/// A file, or a link to one. To open a pipe is to wait for whoever writes to it.
fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    if !std::fs::metadata(path).map_err(|e| e.to_string())?.is_file() {
        return Err("is a directory, pipe or device".into());
    }
    std::fs::read(path).map_err(|e| e.to_string())
}

fn walk(directory: &Path, below: &mut Vec<u8>, paths: &mut Vec<Vec<u8>>) -> Result<(), Error> {
    let unreadable =
        |e: std::io::Error| refuse(directory, format!("cannot be read ({e}); check its permissions"));
    for entry in std::fs::read_dir(directory).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let length = below.len();
        if length > 0 {
            below.push(b'/');
        }
        below.extend(entry.file_name().into_vec());
        if entry.file_type().map_err(unreadable)?.is_dir() {
            walk(&entry.path(), below, paths)?;
        } else {
            paths.push(below.clone());
        }
        below.truncate(length);
    }
    Ok(())
}

/// Hashes what is read through it.
struct Hashed<'p, R> {
    inner: R,
    sha256: Sha256,
    bytes: u64,
    progress: &'p dyn Fn(u64),
}

impl<R: Read> Read for Hashed<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.sha256.update(&buffer[..n]);
        self.bytes += n as u64;
        (self.progress)(self.bytes);
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

fn read_archive(
    source: &Path,
    world: &World,
    watch: &Watch<'_>,
    around: &mut Around,
    take: &mut dyn FnMut(Found),
) -> Result<(), Error> {
    let unreadable = |e| refuse(source, format!("cannot be read ({e}); check its permissions"));
    let mut head = Vec::new();
    File::open(source).and_then(|f| f.take(4).read_to_end(&mut head)).map_err(unreadable)?;
    let file = File::open(source).map_err(unreadable)?;
    let size = file.metadata().map_err(unreadable)?.len();
    let progress = |bytes| (watch.progress)(bytes, size);
    let mut hashed = Hashed { inner: file, sha256: Sha256::new(), bytes: 0, progress: &progress };
    let (mut members, mut last) = (0, "the beginning".to_owned());
    let mut read = || -> std::io::Result<()> {
        let raw = BufReader::with_capacity(1 << 20, &mut hashed);
        let unpacked: Box<dyn Read + '_> = match head.as_slice() {
            [0x28, 0xb5, 0x2f, 0xfd] => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(raw)?;
                // The largest window of the format.
                decoder.window_log_max(31)?;
                Box::new(decoder)
            }
            [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(raw)),
            _ => Box::new(raw),
        };
        let ended = std::cell::Cell::new(false);
        let mut archive = tar::Archive::new(Ending { inner: unpacked, ended: &ended });
        for entry in archive.entries()? {
            watch.pause();
            if watch.is_stopped() {
                return Ok(());
            }
            let mut entry = entry?;
            if entry.header().entry_type().is_dir() {
                continue;
            }
            let member = entry.path_bytes().into_owned();
            let mine = members % world.size() as u64 == world.rank() as u64;
            if !is_dockerfile(&member) {
                around.note_other(&member);
            } else {
                let mut content = Vec::new();
                entry.read_to_end(&mut content)?;
                if (content.len() as u64) < entry.size() {
                    return Err(std::io::Error::other("it ends in the middle of a member"));
                }
                // A link has no content here, and is not an empty Dockerfile.
                let kind = entry.header().entry_type();
                let content = match kind.is_symlink() || kind.is_hard_link() {
                    true => Err("is a link to another member, which is not followed".to_owned()),
                    false => Ok(content),
                };
                if mine {
                    take(Found { path: place(&member).to_vec(), ordinal: members, content });
                }
                members += 1;
            }
            world.progress();
            last = String::from_utf8_lossy(&member).into_owned();
        }
        if ended.get() {
            return Err(std::io::Error::other("the end marker is missing"));
        }
        // Reading the rest also lets the decompressor check its sums.
        match is_followed_by_another(BufReader::new(archive.into_inner()))? {
            true => Err(std::io::Error::other(ANOTHER_ARCHIVE)),
            false => Ok(()),
        }
    };
    let outcome = read();
    if watch.is_stopped() {
        return Ok(());
    }
    let rest = std::io::copy(&mut hashed, &mut std::io::sink()).map(|_| ());
    if let Err(e) = outcome.and(rest) {
        if members == 0 {
            let reason =
                format!("is neither a directory nor a whole tar archive (.tar, .tar.gz, .tar.zst): {e}");
            return Err(refuse(source, reason));
        }
        around.broken = Some(format!("after {last}: {e}"));
    }
    around.sha256 = Some(hashed.sha256.finalize().iter().map(|b| format!("{b:02x}")).collect());
    Ok(())
}

/// A member's path after the component `dockerfiles`, if that is the first one or the second: the name of
/// the crawl may stand before it, as it may be the directory that is given.
fn place(member: &[u8]) -> &[u8] {
    let path = clean(member);
    let below = |path: &'_ [u8]| path.strip_prefix(b"dockerfiles/").map(<[u8]>::len);
    let second = path.iter().position(|b| *b == b'/').map(|slash| &path[slash + 1..]);
    match below(path).or_else(|| below(second?)) {
        // A repository `dockerfiles` of the encyclopedia is no crawl.
        Some(length) if !path.starts_with(b"rseng/") => &path[path.len() - length..],
        _ => path,
    }
}

/// The last component of the source's path.
pub(super) fn name_of(source: &Path) -> String {
    let whole: PathBuf = std::fs::canonicalize(source).unwrap_or_else(|_| source.to_owned());
    whole.file_name().unwrap_or(source.as_os_str()).to_string_lossy().into_owned()
}
