//! The headers of a tar stream: names, types, link targets; contents are passed over.
//!
//! Reads what layers are written in: ustar (POSIX.1-1988), pax (POSIX.1-2001, also global headers),
//! and GNU (long names, base-256 numbers, sparse files). Where these leave room it does as Go's
//! `archive/tar` does, with which most layers are written and unpacked. Memory is bounded, whatever
//! the headers claim.

use std::io::Read;

/// Size of a block.
const BLOCK: usize = 512;
/// Longest extended header that is believed, in bytes; that is Go's limit, too.
const LONGEST_EXTENSION: u64 = 1 << 20;

/// What is wrong with an archive.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is no tar archive, or damaged.
    #[error("{reason}, at byte {offset} of the archive")]
    Damaged {
        /// What is wrong.
        reason: String,
        /// Place in the uncompressed archive.
        offset: u64,
    },
    /// Reading or uncompressing failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// A member of the archive. Names are as written.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// The type flag; `b'0'` for regular files of all kinds.
    pub kind: u8,
    /// The path.
    pub path: Vec<u8>,
    /// Target of a symbolic or hard link.
    pub target: Vec<u8>,
    /// Bytes of content.
    pub size: u64,
}

/// Reads members one after another.
pub struct Members<R> {
    reader: R,
    offset: u64,
    /// Content and padding of the member before.
    pending: u64,
    /// Of these, the padding.
    padding: u64,
    global: Extension,
}

/// What extended headers say of the member that follows.
#[derive(Debug, Default, Clone)]
struct Extension {
    path: Option<Vec<u8>>,
    /// The real name of a sparse file: `path` and the header hold a made-up one, for readers that do
    /// not know such files (GNU tar manual, "Storing Sparse Files").
    sparse: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    size: Option<u64>,
}

impl<R: Read> Members<R> {
    /// Reads from the start of an archive. Each member costs few, small reads: give a reader that
    /// has a buffer.
    pub fn new(reader: R) -> Self {
        Self { reader, offset: 0, pending: 0, padding: 0, global: Extension::default() }
    }

    /// The reader, for what comes behind the archive's end.
    pub fn into_inner(self) -> R {
        self.reader
    }

    fn damaged(&self, reason: impl Into<String>) -> Error {
        Error::Damaged { reason: reason.into(), offset: self.offset }
    }

    /// The next member; false at the end.
    ///
    /// # Errors
    /// [`Error`]; the archive cannot be read further.
    pub fn next(&mut self, member: &mut Member) -> Result<bool, Error> {
        let mut extension = self.global.clone();
        loop {
            self.skip_pending()?;
            let Some(header) = self.header()? else { return Ok(false) };
            let size = number(&header[124..136]).ok_or_else(|| self.damaged("a size is no number"))?;
            match header[156] {
                b'x' => self.pax(size, &mut extension)?,
                b'g' => {
                    let mut global = self.global.clone();
                    self.pax(size, &mut global)?;
                    // A length or a real name that all members share would make no sense.
                    (global.size, global.sparse) = (None, None);
                    self.global = global.clone();
                    extension = global;
                }
                b'L' => extension.path = Some(self.long_name(size)?),
                b'K' => extension.target = Some(self.long_name(size)?),
                kind => return self.finish(&header, kind, size, extension, member),
            }
        }
    }

    fn finish(
        &mut self,
        header: &[u8; BLOCK],
        kind: u8,
        size: u64,
        extension: Extension,
        member: &mut Member,
    ) -> Result<bool, Error> {
        let size = extension.size.unwrap_or(size);
        member.path.clear();
        match extension.sparse.or(extension.path) {
            Some(path) => member.path = path,
            None => header_path(header, &mut member.path),
        }
        member.target.clear();
        match extension.target {
            Some(target) => member.target = target,
            None => member.target.extend_from_slice(text(&header[157..257])),
        }
        if member.path.contains(&0) || member.target.contains(&0) {
            return Err(self.damaged("a path with a NUL byte"));
        }
        // Before POSIX a directory was a file whose name ends in a slash.
        let slash = member.path.last() == Some(&b'/');
        member.kind = match kind {
            0 | b'0' if slash => b'5',
            0 | b'0' | b'7' | b'S' => b'0',
            kind => kind,
        };
        let has_content = !matches!(kind, b'1'..=b'6');
        member.size = if has_content { size } else { 0 };
        if kind == b'S' && header[482] != 0 {
            self.skip_sparse_map()?;
        }
        self.pending = padded(member.size).ok_or_else(|| self.damaged("an impossible size"))?;
        self.padding = self.pending - member.size;
        Ok(true)
    }

    /// A header block; `None` at the end of the archive.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>, Error> {
        let mut block = [0; BLOCK];
        for zeros in 0..2 {
            let read = self.fill(&mut block)?;
            if read == 0 {
                return Ok(None);
            }
            if read < BLOCK {
                return Err(self.damaged("the archive is cut inside a header"));
            }
            if block.iter().any(|b| *b != 0) {
                if zeros > 0 {
                    return Err(self.damaged("a single block of zeros"));
                }
                break;
            }
            if zeros == 1 {
                return Ok(None);
            }
        }
        let told = number(&block[148..156]);
        let byte = |i: usize| if (148..156).contains(&i) { b' ' } else { block[i] };
        let unsigned: u64 = (0..BLOCK).map(|i| u64::from(byte(i))).sum();
        let signed: i64 = (0..BLOCK).map(|i| i64::from(byte(i) as i8)).sum();
        if told != Some(unsigned) && told.map(|t| t as i64) != Some(signed) {
            self.offset -= BLOCK as u64;
            return Err(self.damaged("no tar header where one should be (wrong checksum)"));
        }
        Ok(Some(block))
    }

    fn fill(&mut self, into: &mut [u8]) -> Result<usize, Error> {
        let mut read = 0;
        while read < into.len() {
            match self.reader.read(&mut into[read..]) {
                Ok(0) => break,
                Ok(n) => read += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => (),
                Err(e) => return Err(e.into()),
            }
        }
        self.offset += read as u64;
        Ok(read)
    }

    fn skip_pending(&mut self) -> Result<(), Error> {
        let mut buffer = [0; 1 << 14];
        while self.pending > 0 {
            let want = self.pending.min(buffer.len() as u64) as usize;
            let read = self.fill(&mut buffer[..want])?;
            self.pending -= read as u64;
            if read < want && self.pending > self.padding {
                return Err(self.damaged("the archive is cut inside a file"));
            }
            if read < want {
                // The last padding, and the end behind it, some writers leave out and readers do not miss.
                self.pending = 0;
            }
        }
        Ok(())
    }

    fn skip_sparse_map(&mut self) -> Result<(), Error> {
        let mut block = [0; BLOCK];
        loop {
            if self.fill(&mut block)? < BLOCK {
                return Err(self.damaged("the archive is cut inside a sparse map"));
            }
            if block[504] == 0 {
                return Ok(());
            }
        }
    }

    /// The content of an extended header.
    fn content(&mut self, size: u64) -> Result<Vec<u8>, Error> {
        if size > LONGEST_EXTENSION {
            return Err(self.damaged(format!("an extended header of {size} bytes (the limit is 1 MiB)")));
        }
        let mut content = vec![0; size as usize];
        if self.fill(&mut content)? < content.len() {
            return Err(self.damaged("the archive is cut inside an extended header"));
        }
        self.padding = padded(size).unwrap_or(size) - size;
        self.pending = self.padding;
        Ok(content)
    }

    fn long_name(&mut self, size: u64) -> Result<Vec<u8>, Error> {
        let content = self.content(size)?;
        Ok(text(&content).to_vec())
    }

    /// Records `LENGTH KEY=VALUE\n`, the length that of the whole record in decimal digits.
    fn pax(&mut self, size: u64, extension: &mut Extension) -> Result<(), Error> {
        let content = self.content(size)?;
        let mut rest = content.as_slice();
        while !rest.is_empty() && rest.iter().any(|b| *b != 0) {
            let record = pax_record(rest).ok_or_else(|| self.damaged("a damaged pax record"))?;
            let (length, key, value) = record;
            // An empty value takes back what a global header said.
            let text = (!value.is_empty()).then(|| value.to_vec());
            match key {
                b"path" => extension.path = text,
                b"GNU.sparse.name" => extension.sparse = text,
                b"linkpath" => extension.target = text,
                b"size" if !value.is_empty() => {
                    let size = std::str::from_utf8(value).ok().and_then(|v| v.parse().ok());
                    extension.size = Some(size.ok_or_else(|| self.damaged("a pax size is no number"))?);
                }
                _ => (),
            }
            rest = &rest[length..];
        }
        Ok(())
    }
}

fn pax_record(rest: &[u8]) -> Option<(usize, &[u8], &[u8])> {
    let space = rest.iter().take(20).position(|b| *b == b' ')?;
    let length: usize = std::str::from_utf8(&rest[..space]).ok()?.parse().ok()?;
    let record = rest.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|b| *b == b'=')?;
    Some((length, &record[..equals], &record[equals + 1..]))
}

/// The bytes before the first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|b| *b == 0).next().unwrap_or(field)
}

fn header_path(header: &[u8; BLOCK], path: &mut Vec<u8>) {
    // GNU's magic is `ustar  `, and its bytes there are other things.
    let prefix = if &header[257..263] == b"ustar\0" { text(&header[345..500]) } else { b"" };
    if !prefix.is_empty() {
        path.extend_from_slice(prefix);
        path.push(b'/');
    }
    path.extend_from_slice(text(&header[..100]));
}

/// A number in octal digits between blanks, or in base 256 with the highest bit set.
fn number(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        let mut value = u64::from(field[0] & 0x7f);
        if field[0] & 0x40 != 0 {
            return None; // negative
        }
        for byte in &field[1..] {
            if value >> 55 != 0 {
                return None;
            }
            value = value << 8 | u64::from(*byte);
        }
        return Some(value);
    }
    let blank = |b: &u8| *b == b' ' || *b == 0;
    let start = field.iter().position(|b| !blank(b)).unwrap_or(field.len());
    let digits = field[start..].split(blank).next().unwrap_or_default();
    digits.iter().try_fold(0u64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8).map(|v| v + u64::from(digit - b'0')),
        _ => None,
    })
}

fn padded(size: u64) -> Option<u64> {
    size.checked_next_multiple_of(BLOCK as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn members(archive: &[u8]) -> Result<Vec<Member>, Error> {
        let mut reader = Members::new(archive);
        let mut all = Vec::new();
        loop {
            let mut member = Member::default();
            if !reader.next(&mut member)? {
                return Ok(all);
            }
            all.push(member);
        }
    }

    fn archive(entries: &[(String, u8, String, usize)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, kind, target, size) in entries {
            let mut header = if size % 2 == 0 { tar::Header::new_gnu() } else { tar::Header::new_ustar() };
            header.set_entry_type(tar::EntryType::new(*kind));
            header.set_size(if *kind == b'0' { *size as u64 } else { 0 });
            header.set_mode(0o644);
            header.set_cksum();
            let content = vec![b'x'; if *kind == b'0' { *size } else { 0 }];
            match kind {
                b'1' | b'2' => {
                    builder.append_link(&mut tar::Header::new_gnu().clone_kind(*kind), path, target)
                }
                _ => {
                    let mut gnu = tar::Header::new_gnu().clone_kind(*kind);
                    gnu.set_size(content.len() as u64);
                    builder.append_data(&mut gnu, path, content.as_slice())
                }
            }
            .unwrap();
        }
        builder.into_inner().unwrap()
    }

    trait Kinded {
        fn clone_kind(&self, kind: u8) -> tar::Header;
    }

    impl Kinded for tar::Header {
        fn clone_kind(&self, kind: u8) -> tar::Header {
            let mut header = self.clone();
            header.set_entry_type(tar::EntryType::new(kind));
            header.set_size(0);
            header.set_mode(0o644);
            header
        }
    }

    fn entries() -> impl Strategy<Value = Vec<(String, u8, String, usize)>> {
        let path = "[a-z]{1,8}(/[a-zé]{1,60}){0,6}";
        let kind = prop::sample::select(b"01235".to_vec());
        prop::collection::vec((path, kind, path, 0usize..2000), 0..12)
    }

    proptest! {
        #[test]
        fn reads_what_the_tar_crate_writes(entries in entries(), cut in any::<prop::sample::Index>(), flip in any::<(prop::sample::Index, u8)>()) {
            let mut bytes = archive(&entries);
            let found = members(&bytes).unwrap();
            prop_assert_eq!(found.len(), entries.len());
            for (member, (path, kind, target, size)) in found.iter().zip(&entries) {
                prop_assert_eq!(&member.path, path.as_bytes());
                prop_assert_eq!(member.kind, *kind);
                if matches!(kind, b'1' | b'2') {
                    prop_assert_eq!(&member.target, target.as_bytes());
                }
                prop_assert_eq!(member.size, if *kind == b'0' { *size as u64 } else { 0 });
            }
            // Damage is an error or other members, never a panic.
            let _ = members(&bytes[..cut.index(bytes.len())]);
            let at = flip.0.index(bytes.len());
            bytes[at] ^= flip.1;
            let _ = members(&bytes);
        }

        #[test]
        fn numbers_never_overflow(field in prop::collection::vec(any::<u8>(), 12)) {
            let _ = number(&field);
        }
    }

    /// A header of our own, for what the tar crate does not write.
    fn block(name: &[u8], kind: u8, size: u64) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        block[..name.len()].copy_from_slice(name);
        block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
        block[156] = kind;
        block[257..265].copy_from_slice(b"ustar\x0000");
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    }

    fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
        let mut content = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length = (rest + 1..).find(|n| rest + n.to_string().len() == *n).unwrap();
            content.extend_from_slice(format!("{length} {key}=").as_bytes());
            content.extend_from_slice(value);
            content.push(b'\n');
        }
        content
    }

    fn with_content(kind: u8, mut content: Vec<u8>) -> Vec<u8> {
        let mut bytes = block(b"extension", kind, content.len() as u64).to_vec();
        content.resize(content.len().next_multiple_of(BLOCK), 0);
        bytes.extend(content);
        bytes
    }

    #[test]
    fn pax_records_and_old_directories() {
        let name = b"caf\xe9/\xff".repeat(60);
        let mut bytes = with_content(b'g', pax(&[("comment", b"all"), ("size", b"7")]));
        bytes.extend(with_content(b'x', pax(&[("path", &name), ("size", b"513"), ("linkpath", b"t")])));
        bytes.extend(block(b"short", b'0', 0));
        bytes.extend([1; 1024]);
        bytes.extend(block(b"old/", 0, 0));
        bytes.extend(block(b"contiguous", b'7', 0));
        bytes.extend([0; 1024]);
        bytes.extend(b"whatever is behind the end");
        let found = members(&bytes).unwrap();
        assert_eq!(found.len(), 3);
        assert_eq!((&found[0].path, found[0].size), (&name, 513));
        assert_eq!((found[1].kind, found[1].path.as_slice()), (b'5', b"old/".as_slice()));
        assert_eq!(found[2].kind, b'0');
    }

    #[test]
    fn sparse_files_have_their_real_names() {
        let made_up = ("path", b"GNUSparseFile.7/caf\xc3\xa9".as_slice());
        let real = ("GNU.sparse.name", b"caf\xc3\xa9".as_slice());
        for records in [[made_up, real], [real, made_up]] {
            let mut bytes = with_content(b'x', pax(&records));
            bytes.extend(block(b"GNUSparseFile.7/caf", b'0', 0));
            bytes.extend(block(b"next", b'0', 0));
            let found = members(&bytes).unwrap();
            assert_eq!([&found[0].path, &found[1].path], ["caf\u{e9}".as_bytes(), b"next"]);
        }
    }

    #[test]
    fn the_last_padding_may_be_missing() {
        let archive = [block(b"x", b'0', 600).as_slice(), &[1; 1024]].concat();
        for whole in [1112, 1113, 1535, 1536] {
            let found = members(&archive[..whole]).unwrap();
            assert_eq!((found.len(), found[0].size), (1, 600), "{whole} bytes");
        }
        assert!(members(&archive[..1111]).is_err());
    }

    #[test]
    fn bombs_and_nonsense_are_errors() {
        let mut huge = block(b"long", b'L', 1 << 30).to_vec();
        huge.extend([b'a'; 4096]);
        let nul = [with_content(b'x', pax(&[("path", b"a\0b")])), block(b"x", b'0', 0).to_vec()].concat();
        for (bytes, told) in [
            (huge, "1 MiB"),
            (nul, "NUL"),
            (with_content(b'x', b"99 path=a\n".to_vec()), "pax record"),
            (b"no tar at all".repeat(100), "checksum"),
            (block(b"cut", b'0', 4096).to_vec(), "cut inside a file"),
            (block(b"x", b'0', 0)[..100].to_vec(), "cut inside a header"),
            ([[0; BLOCK], block(b"x", b'0', 0)].concat(), "single block of zeros"),
        ] {
            let error = members(&bytes).unwrap_err().to_string();
            assert!(error.contains(told) && error.contains("at byte"), "{error}");
        }
        assert_eq!(members(&[]).unwrap(), []);
        assert_eq!(members(&[0; 1024]).unwrap(), []);
    }
}
