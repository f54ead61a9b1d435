//! A root file system in a directory, as an image of one layer.
//!
//! The directory is walked in the order of names and handed to the reader as an archive of headers
//! without contents. The digest of that archive stands for the layer: it is a fingerprint of names,
//! types and link targets.

use super::{Error, Image, Layer, PlatformChoice, Result, Source, Stream};
use crate::rootfs::layer::Hashing;
use std::ffi::OsString;
use std::io::Read;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// A directory that holds a root file system.
pub struct Tree {
    root: PathBuf,
}

impl Tree {
    /// The file system below `root`.
    ///
    /// # Errors
    /// [`Error::Missing`] if that is no directory.
    pub fn open(root: &Path) -> Result<Self> {
        if root.is_dir() {
            return Ok(Self { root: root.to_owned() });
        }
        Err(Error::Missing { place: root.display().to_string(), what: "a directory".into() })
    }
}

impl Source for Tree {
    fn image(&self, reference: &str, _: &PlatformChoice) -> Result<Image> {
        let mut walk = Hashing::new(Walk::begin(&self.root), u64::MAX);
        let size = std::io::copy(&mut walk, &mut std::io::sink())
            .map_err(|error| Error::Io { place: self.root.display().to_string(), error })?;
        let digest = walk.digest();
        let layer = Layer {
            digest,
            size,
            media_type: "directory".into(),
            diff_id: Some(digest),
            unreadable: None,
            toc: None,
        };
        Ok(Image { reference: reference.to_owned(), layers: vec![layer], ..Image::default() })
    }

    fn open_layer(&self, _: &Image, _: &Layer, part: Option<Range<u64>>) -> Result<Stream> {
        let mut walk = Walk::begin(&self.root);
        let Some(part) = part else { return Ok(Box::new(walk)) };
        std::io::copy(&mut walk.by_ref().take(part.start), &mut std::io::sink())
            .map_err(|error| Error::Io { place: self.root.display().to_string(), error })?;
        Ok(Box::new(walk.take(part.end.saturating_sub(part.start))))
    }
}

/// The archive, made while it is read.
struct Walk {
    root: PathBuf,
    /// For each open directory its path and the names still to come, last one first.
    open: Vec<(PathBuf, Vec<OsString>)>,
    buffer: Vec<u8>,
    at: usize,
    begun: bool,
    ended: bool,
}

impl Walk {
    fn begin(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            open: Vec::new(),
            buffer: Vec::new(),
            at: 0,
            begun: false,
            ended: false,
        }
    }

    fn enter(&mut self, path: PathBuf) -> std::io::Result<()> {
        let place = |e: std::io::Error| std::io::Error::new(e.kind(), format!("{}: {e}", path.display()));
        let entries = std::fs::read_dir(self.root.join(&path)).map_err(place)?;
        let names: std::io::Result<Vec<_>> = entries.map(|e| Ok(e?.file_name())).collect();
        let mut names = names.map_err(place)?;
        names.sort_unstable_by(|a, b| b.cmp(a));
        self.open.push((path, names));
        Ok(())
    }

    /// Writes the next header into the buffer; false at the end.
    fn next(&mut self) -> std::io::Result<bool> {
        self.buffer.clear();
        self.at = 0;
        if !self.begun {
            self.begun = true;
            self.enter(PathBuf::new())?;
        }
        while let Some((directory, names)) = self.open.last_mut() {
            let Some(name) = names.pop() else {
                self.open.pop();
                continue;
            };
            let path = directory.join(name);
            let full = self.root.join(&path);
            let kind = std::fs::symlink_metadata(&full)?.file_type();
            let mut target = Vec::new();
            let flag = if kind.is_dir() {
                b'5'
            } else if kind.is_symlink() {
                target = std::fs::read_link(&full)?.as_os_str().as_bytes().to_vec();
                b'2'
            } else if kind.is_char_device() {
                b'3'
            } else if kind.is_block_device() {
                b'4'
            } else if kind.is_fifo() || kind.is_socket() {
                b'6'
            } else {
                b'0'
            };
            header(&mut self.buffer, path.as_os_str().as_bytes(), flag, &target);
            if flag == b'5' {
                self.enter(path)?;
            }
            return Ok(true);
        }
        if !self.ended {
            self.ended = true;
            self.buffer.resize(1024, 0);
            return Ok(true);
        }
        Ok(false)
    }
}

impl Read for Walk {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if self.at == self.buffer.len() && !self.next()? {
            return Ok(0);
        }
        let length = into.len().min(self.buffer.len() - self.at);
        into[..length].copy_from_slice(&self.buffer[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}

/// A header without content; long names in the way of GNU.
fn header(out: &mut Vec<u8>, path: &[u8], flag: u8, target: &[u8]) {
    for (kind, text) in [(b'L', path), (b'K', target)] {
        if text.len() > 100 {
            block(out, b"././@LongLink", kind, b"", text.len());
            let end = (out.len() + text.len()).next_multiple_of(512);
            out.extend_from_slice(text);
            out.resize(end, 0);
        }
    }
    block(out, &path[..path.len().min(100)], flag, &target[..target.len().min(100)], 0);
}

fn block(out: &mut Vec<u8>, path: &[u8], flag: u8, target: &[u8], size: usize) {
    let mut block = [0u8; 512];
    block[..path.len()].copy_from_slice(path);
    block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    block[156] = flag;
    block[157..157 + target.len()].copy_from_slice(target);
    block[257..265].copy_from_slice(b"ustar  \0");
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    out.extend_from_slice(&block);
}
