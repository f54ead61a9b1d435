//! The entries of a layer in the order of its archive, and their compressed list.
//!
//! The list is what remains of a layer once it was read: names and link targets, no contents and
//! no attributes. With it a layer can be projected on another universe, and put on layers whose
//! links its names lead through, without being read again. Front coding (each path tells how much
//! of the one before it repeats) and zstd take it to a few bytes an entry.

use std::io::{Read, Write};

/// One entry of a layer, as its archive has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The path in normal form, links on the way not followed. For a whiteout the path it removes,
    /// for an opaque marker the directory it stands in.
    pub path: &'a [u8],
    /// What it is.
    pub kind: Kind<'a>,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind<'a> {
    /// A directory.
    Directory,
    /// A regular file, a device or a fifo.
    File,
    /// A symbolic link and its target as written.
    Link(&'a [u8]),
    /// A hard link to this path, in normal form.
    HardLink(&'a [u8]),
    /// `.wh.NAME`: the path is gone from the layers below.
    Whiteout,
    /// `.wh..wh..opq`: nothing of the layers below is left in the directory.
    Opaque,
}

impl Kind<'_> {
    fn code(self) -> (u8, Option<Self>) {
        match self {
            Self::Directory => (0, None),
            Self::File => (1, None),
            Self::Link(_) => (2, Some(self)),
            Self::HardLink(_) => (3, Some(self)),
            Self::Whiteout => (4, None),
            Self::Opaque => (5, None),
        }
    }
}

/// Longest path or target that a list holds, in bytes.
const LONGEST: usize = 1 << 20;

/// Compresses entries as they come, in bounded memory beside the result.
pub struct ListingWriter {
    encoder: zstd::stream::write::Encoder<'static, Vec<u8>>,
    last: Vec<u8>,
    record: Vec<u8>,
}

impl ListingWriter {
    /// An empty list.
    ///
    /// # Errors
    /// If the compressor cannot be set up.
    pub fn new() -> std::io::Result<Self> {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3)?;
        encoder.window_log(19)?;
        Ok(Self { encoder, last: Vec::new(), record: Vec::new() })
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// If the compressor fails.
    pub fn push(&mut self, entry: &Entry<'_>) -> std::io::Result<()> {
        let shared = entry.path.iter().zip(&self.last).take_while(|(a, b)| a == b).count();
        self.record.clear();
        let (code, with_target) = entry.kind.code();
        self.record.push(code);
        push_number(&mut self.record, shared);
        push_bytes(&mut self.record, &entry.path[shared..]);
        if let Some(Kind::Link(target) | Kind::HardLink(target)) = with_target {
            push_bytes(&mut self.record, target);
        }
        self.last.truncate(shared);
        self.last.extend_from_slice(&entry.path[shared..]);
        self.encoder.write_all(&self.record)
    }

    /// Bytes that the list takes so far.
    pub fn memory(&self) -> usize {
        self.encoder.get_ref().len()
    }

    /// The compressed list.
    ///
    /// # Errors
    /// If the compressor fails.
    pub fn finish(self) -> std::io::Result<Vec<u8>> {
        let mut bytes = self.encoder.finish()?;
        bytes.shrink_to_fit();
        Ok(bytes)
    }
}

fn push_number(record: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        record.push(value as u8 | 0x80);
        value >>= 7;
    }
    record.push(value as u8);
}

fn push_bytes(record: &mut Vec<u8>, bytes: &[u8]) {
    push_number(record, bytes.len());
    record.extend_from_slice(bytes);
}

/// Hands every entry of a compressed list to `visit`, in order.
///
/// # Errors
/// If the list is damaged, and whatever `visit` returns.
pub fn read_listing<E: From<std::io::Error>>(
    list: &[u8],
    mut visit: impl FnMut(Entry<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let damaged = || E::from(std::io::Error::other("damaged list of a layer's entries"));
    let mut decoder = zstd::stream::read::Decoder::with_buffer(list)?;
    decoder.window_log_max(20)?;
    let mut reader = std::io::BufReader::with_capacity(1 << 16, decoder);
    let (mut path, mut target) = (Vec::new(), Vec::new());
    let mut code = [0];
    while reader.read(&mut code)? == 1 {
        let shared = read_number(&mut reader)?;
        if shared > path.len() {
            return Err(damaged());
        }
        path.truncate(shared);
        read_bytes(&mut reader, &mut path)?;
        if matches!(code[0], 2 | 3) {
            target.clear();
            read_bytes(&mut reader, &mut target)?;
        }
        let kind = match code[0] {
            0 => Kind::Directory,
            1 => Kind::File,
            2 => Kind::Link(&target),
            3 => Kind::HardLink(&target),
            4 => Kind::Whiteout,
            5 => Kind::Opaque,
            _ => return Err(damaged()),
        };
        visit(Entry { path: &path, kind })?;
    }
    Ok(())
}

fn read_number(reader: &mut impl Read) -> std::io::Result<usize> {
    let (mut value, mut shift) = (0usize, 0);
    loop {
        let mut byte = [0];
        reader.read_exact(&mut byte)?;
        value |= usize::from(byte[0] & 0x7f) << shift;
        if byte[0] < 0x80 {
            return Ok(value);
        }
        shift += 7;
        if shift > 28 {
            return Err(std::io::Error::other("damaged list of a layer's entries"));
        }
    }
}

fn read_bytes(reader: &mut impl Read, into: &mut Vec<u8>) -> std::io::Result<()> {
    let length = read_number(reader)?;
    let start = into.len();
    if length > LONGEST || start + length > 2 * LONGEST {
        return Err(std::io::Error::other("damaged list of a layer's entries"));
    }
    into.resize(start + length, 0);
    reader.read_exact(&mut into[start..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kinds() -> impl Strategy<Value = (Vec<u8>, u8, Vec<u8>)> {
        let path = prop::collection::vec(prop::sample::select(b"ab/\xff".to_vec()), 0..200);
        (path.clone(), 0u8..6, path)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(entries in prop::collection::vec(kinds(), 0..50), cut in any::<prop::sample::Index>()) {
            let entries: Vec<_> = entries.iter().map(|(path, code, target)| {
                let kind = match code {
                    0 => Kind::Directory,
                    1 => Kind::File,
                    2 => Kind::Link(target),
                    3 => Kind::HardLink(target),
                    4 => Kind::Whiteout,
                    _ => Kind::Opaque,
                };
                Entry { path, kind }
            }).collect();
            let mut writer = ListingWriter::new().unwrap();
            entries.iter().for_each(|e| writer.push(e).unwrap());
            let list = writer.finish().unwrap();
            let mut next = 0;
            read_listing::<std::io::Error>(&list, |entry| {
                assert_eq!(entry, entries[next]);
                next += 1;
                Ok(())
            }).unwrap();
            prop_assert_eq!(next, entries.len());
            // A list that was cut is an error or a beginning, never a panic.
            let _ = read_listing::<std::io::Error>(&list[..cut.index(list.len())], |_| Ok(()));
        }
    }
}
