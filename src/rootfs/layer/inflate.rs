//! The archive inside the stored bytes of a layer: gzip, zstd, or as it is.

use flate2::{Decompress, FlushDecompress, Status};
use std::io::{BufRead, Error, ErrorKind, Read, Result};

/// How the archive of a layer is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packing {
    None,
    Gzip,
    Zstd,
}

/// Largest zstd window that is believed, as a power of two: 32 MiB. Up to level 20 none is larger.
const ZSTD_WINDOW: u32 = 25;

/// The archive, as the first stored bytes say how it is packed.
pub(crate) fn unpacked<'a>(mut stored: impl BufRead + Send + 'a) -> Result<Box<dyn Read + Send + 'a>> {
    Ok(match packing(stored.fill_buf()?) {
        Packing::None => Box::new(stored),
        Packing::Gzip => Box::new(Gzip::new(stored)),
        Packing::Zstd => Box::new(zstd(stored)?),
    })
}

/// The content of zstd frames.
pub(crate) fn zstd<'a>(stored: impl BufRead + Send + 'a) -> Result<impl Read + Send + 'a> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(stored)?;
    decoder.window_log_max(ZSTD_WINDOW)?;
    Ok(decoder)
}

fn packing(start: &[u8]) -> Packing {
    match start {
        [0x1f, 0x8b, ..] => Packing::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Packing::Zstd,
        // A skippable frame (RFC 8878, 3.1.2).
        [low, 0x2a, 0x4d, 0x18, ..] if low & 0xf0 == 0x50 => Packing::Zstd,
        _ => Packing::None,
    }
}

/// The content of a gzip stream (RFC 1952) of any number of members.
///
/// flate2 has a reader of its own. This one takes the checksum with `crc32fast`, eight times as fast
/// as that of zlib-rs.
pub(crate) struct Gzip<R> {
    stored: R,
    inflate: Decompress,
    crc: crc32fast::Hasher,
    length: u32,
    inside: bool,
    begun: bool,
}

const EXTRA: u8 = 4;
const NAME: u8 = 8;
const COMMENT: u8 = 16;
const HEADER_CRC: u8 = 2;

fn damaged(reason: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("damaged gzip stream: {reason}"))
}

impl<R: BufRead> Gzip<R> {
    pub(crate) fn new(stored: R) -> Self {
        let (inflate, crc) = (Decompress::new(false), crc32fast::Hasher::new());
        Self { stored, inflate, crc, length: 0, inside: false, begun: false }
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.stored.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Reads the header of the next member; false at the end.
    fn header(&mut self) -> Result<bool> {
        if self.begun && self.stored.fill_buf()?.is_empty() {
            return Ok(false);
        }
        let [0x1f, 0x8b, 8, flags, ..] = self.bytes::<10>()? else {
            return Err(damaged("no header where one should be"));
        };
        if flags & EXTRA != 0 {
            let length = u16::from_le_bytes(self.bytes()?);
            for _ in 0..length {
                self.bytes::<1>()?;
            }
        }
        for flag in [NAME, COMMENT] {
            if flags & flag != 0 {
                while self.bytes::<1>()? != [0] {}
            }
        }
        if flags & HEADER_CRC != 0 {
            self.bytes::<2>()?;
        }
        if self.begun {
            self.inflate.reset(false);
            self.crc = crc32fast::Hasher::new();
            self.length = 0;
        }
        (self.begun, self.inside) = (true, true);
        Ok(true)
    }

    fn trailer(&mut self) -> Result<()> {
        self.inside = false;
        let [crc, length] = [u32::from_le_bytes(self.bytes()?), u32::from_le_bytes(self.bytes()?)];
        if crc != self.crc.clone().finalize() {
            return Err(damaged("wrong checksum"));
        }
        if length != self.length {
            return Err(damaged("wrong length"));
        }
        Ok(())
    }
}

impl<R: BufRead> Read for Gzip<R> {
    fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        while !into.is_empty() && (self.inside || self.header()?) {
            let stored = self.stored.fill_buf()?;
            let ended = stored.is_empty();
            let (before_in, before_out) = (self.inflate.total_in(), self.inflate.total_out());
            let status = self
                .inflate
                .decompress(stored, into, FlushDecompress::None)
                .map_err(|_| damaged("what was deflated cannot be inflated"))?;
            self.stored.consume((self.inflate.total_in() - before_in) as usize);
            let made = (self.inflate.total_out() - before_out) as usize;
            self.crc.update(&into[..made]);
            self.length = self.length.wrapping_add(made as u32);
            if status == Status::StreamEnd {
                self.trailer()?;
            } else if made == 0 && ended {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            if made > 0 {
                return Ok(made);
            }
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::{BufReader, Write};

    fn member(content: &[u8], name: bool) -> Vec<u8> {
        let mut builder = flate2::GzBuilder::new();
        if name {
            builder = builder.filename("layer.tar").comment("none").extra(vec![7; 300]);
        }
        let mut encoder = builder.write(Vec::new(), flate2::Compression::new(1));
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn read(stored: &[u8], piece: usize, buffer: usize) -> Result<Vec<u8>> {
        let mut reader = Gzip::new(BufReader::with_capacity(piece, stored));
        let (mut all, mut into) = (Vec::new(), vec![0; buffer]);
        loop {
            match reader.read(&mut into)? {
                0 => return Ok(all),
                n => all.extend_from_slice(&into[..n]),
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn members_are_joined_and_damage_is_noticed(
            parts in prop::collection::vec((prop::collection::vec(0u8..4, 0..3000), any::<bool>()), 1..4),
            piece in 1usize..200,
            buffer in 1usize..5000,
            flip in any::<(prop::sample::Index, u8)>(),
        ) {
            let mut stored: Vec<u8> = parts.iter().flat_map(|(content, name)| member(content, *name)).collect();
            let content: Vec<u8> = parts.iter().flat_map(|(content, _)| content.clone()).collect();
            prop_assert_eq!(read(&stored, piece, buffer).unwrap(), content.clone());
            let cut = flip.0.index(stored.len());
            if let Ok(found) = read(&stored[..cut], piece, buffer) {
                prop_assert!(content.starts_with(&found) && found.len() < content.len() || cut > 0);
            }
            stored[cut] ^= flip.1;
            // Names, times and the like may change unnoticed; contents may not.
            if let Ok(found) = read(&stored, piece, buffer) {
                prop_assert_eq!(found, content);
            }
        }
    }

    #[test]
    fn an_empty_stream_is_no_gzip_stream() {
        assert!(read(b"", 10, 10).is_err());
    }
}
