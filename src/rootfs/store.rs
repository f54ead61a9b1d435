//! Layers that were read, on disk: never read twice, in this campaign or the next.
//!
//! Every rank of every attempt appends to a file of its own, `attempt-AAAA.rank-RRRR.PID.layers`:
//! 8 bytes magic, then records of `crc32 u32 | length u64 | payload` (little-endian; the checksum
//! covers the payload). A record is one write; what a kill cuts short ends its file, and that layer
//! is read again. Files are never appended to later, so a directory may be shared by any number of
//! campaigns. Records are keyed by the layer's digest. The bitmaps in them belong to one universe;
//! for another they are made anew from the list of entries beside them.

use super::Digest;
use super::delta::LayerDelta;
use super::record::{Counts, LayerRecord};
use roaring::RoaringBitmap;
use rustc_hash::FxHashMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 8] = b"STRATL02";
const FRAME: u64 = 4 + 8;

/// The store cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct Error {
    /// File or directory.
    pub path: PathBuf,
    /// What is wrong.
    pub reason: String,
}

fn failed(path: &Path, reason: impl ToString) -> Error {
    Error { path: path.to_owned(), reason: reason.to_string() }
}

/// Where a layer's record lies.
#[derive(Debug, Clone, Copy)]
struct Place {
    file: u32,
    offset: u64,
    length: u64,
    /// What reading the layer to its end proved; `None` if only its table of contents was read.
    proof: Option<Proof>,
}

/// What was found of a layer that was read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proof {
    /// Digest of the uncompressed archive.
    pub diff_id: Digest,
    /// Bytes as stored.
    pub stored_bytes: u64,
}

/// Which records will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Layers that were read to their end.
    Whole,
    /// Also those of which only the table of contents was read.
    Any,
}

/// The layers in a directory.
#[derive(Debug, Default)]
pub struct Store {
    files: Vec<PathBuf>,
    places: FxHashMap<Digest, Place>,
    attempt: u32,
}

impl Store {
    /// Reads which layers are there; a directory that is missing has none.
    ///
    /// # Errors
    /// [`Error`] if the directory or one of its files cannot be read, or a file is another kind.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        let mut store = Self::default();
        let entries = match std::fs::read_dir(directory) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(store),
            entries => entries.map_err(|e| failed(directory, e))?,
        };
        for entry in entries {
            let path = entry.map_err(|e| failed(directory, e))?.path();
            if path.extension().is_some_and(|e| e == "layers") {
                store.files.push(path);
            }
        }
        store.files.sort();
        let attempt = |path: &PathBuf| {
            path.file_name()?.to_str()?.strip_prefix("attempt-")?.get(..4)?.parse::<u32>().ok()
        };
        store.attempt = store.files.iter().filter_map(attempt).max().map_or(0, |a| a + 1);
        for file in 0..store.files.len() {
            store.scan(file)?;
        }
        Ok(store)
    }

    fn scan(&mut self, index: usize) -> Result<(), Error> {
        let path = &self.files[index];
        let file = File::open(path).map_err(|e| failed(path, e))?;
        let length = file.metadata().map_err(|e| failed(path, e))?.len();
        if length < MAGIC.len() as u64 {
            return Ok(()); // killed before it was begun
        }
        let mut reader = BufReader::with_capacity(1 << 20, file);
        let mut magic = [0; 8];
        reader.read_exact(&mut magic).map_err(|e| failed(path, e))?;
        if magic != *MAGIC {
            return Err(failed(path, "is no file of layers of this program; move it away"));
        }
        let mut offset = MAGIC.len() as u64;
        let mut payload = Vec::new();
        while length - offset >= FRAME {
            let mut head = [0; FRAME as usize];
            reader.read_exact(&mut head).map_err(|e| failed(path, e))?;
            let mut cursor = Cursor(&head);
            let (crc, bytes) = (cursor.u32().unwrap_or(0), cursor.u64().unwrap_or(0));
            offset += FRAME;
            if bytes > length - offset {
                break;
            }
            payload.resize(bytes as usize, 0);
            reader.read_exact(&mut payload).map_err(|e| failed(path, e))?;
            let mut cursor = Cursor(&payload);
            let Some(head) = Head::decode(&mut cursor).filter(|_| crc32fast::hash(&payload) == crc) else {
                break;
            };
            let proof = Proof { diff_id: head.diff_id, stored_bytes: head.stored_bytes };
            let proof = (!head.toc_only).then_some(proof);
            let place = Place { file: index as u32, offset, length: bytes, proof };
            let known = self.places.entry(head.digest).or_insert(place);
            if known.proof.is_none() {
                *known = place;
            }
            offset += bytes;
        }
        Ok(())
    }

    /// Number of layers.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// True if there is a record of this layer that will do.
    pub fn has(&self, digest: &Digest, wanted: Wanted) -> bool {
        self.places.get(digest).is_some_and(|place| wanted == Wanted::Any || place.proof.is_some())
    }

    /// What is proved of a layer, if it was read to its end.
    pub fn proof(&self, digest: &Digest) -> Option<Proof> {
        self.places.get(digest)?.proof
    }

    /// The attempt number that the next campaign uses.
    pub fn next_attempt(&self) -> u32 {
        self.attempt
    }

    /// The record of a layer, `None` if it was not read.
    ///
    /// # Errors
    /// [`Error`] if the file cannot be read or was damaged meanwhile.
    pub fn read(&self, digest: &Digest) -> Result<Option<LayerRecord>, Error> {
        let Some(place) = self.places.get(digest) else { return Ok(None) };
        let path = &self.files[place.file as usize];
        let mut payload = vec![0; place.length as usize];
        let mut file = File::open(path).map_err(|e| failed(path, e))?;
        file.seek(SeekFrom::Start(place.offset))
            .and_then(|_| file.read_exact(&mut payload))
            .map_err(|e| failed(path, e))?;
        let record = decode(&payload).filter(|record| record.digest == *digest);
        record
            .map(Some)
            .ok_or_else(|| failed(path, format!("the record of {digest} is damaged; delete the file")))
    }
}

/// A rank's own file of this attempt.
pub struct StoreWriter {
    path: PathBuf,
    directory: PathBuf,
    name: String,
    file: Option<File>,
}

impl StoreWriter {
    /// A writer; the file is made with its first record.
    pub fn new(directory: &Path, rank: usize, attempt: u32) -> Self {
        let name = format!("attempt-{attempt:04}.rank-{rank:04}.{}.layers", std::process::id());
        Self { path: directory.join(&name), directory: directory.to_owned(), name, file: None }
    }

    /// Appends a layer. One write call: a kill leaves the whole record or a cut one.
    ///
    /// # Errors
    /// [`Error`], for instance on a full disk.
    pub fn append(&mut self, record: &LayerRecord) -> Result<(), Error> {
        let payload = encode(record);
        let mut bytes = Vec::with_capacity(payload.len() + FRAME as usize);
        bytes.extend_from_slice(&crc32fast::hash(&payload).to_le_bytes());
        bytes.extend_from_slice(&(payload.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&payload);
        drop(payload);
        let path = &self.path;
        let write = |file: &mut Option<File>| -> std::io::Result<()> {
            if file.is_none() {
                std::fs::create_dir_all(&self.directory)?;
                let mut new = File::options().create_new(true).write(true).open(path)?;
                new.write_all(MAGIC)?;
                *file = Some(new);
            }
            file.as_mut().map_or(Ok(()), |file| file.write_all(&bytes))
        };
        write(&mut self.file).map_err(|e| {
            failed(path, format!("{e}; free some space and start again: finished layers are kept"))
        })
    }

    /// Brings everything to the disk.
    ///
    /// # Errors
    /// [`Error`].
    pub fn close(self) -> Result<(), Error> {
        tracing::debug!(file = self.name, "closes");
        self.file.map_or(Ok(()), |file| file.sync_all()).map_err(|e| failed(&self.path, e))
    }
}

fn push_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn push_set(out: &mut Vec<u8>, set: &RoaringBitmap) {
    let mut bytes = Vec::with_capacity(set.serialized_size());
    set.serialize_into(&mut bytes).expect("a vector takes all bytes");
    push_bytes(out, &bytes);
}

fn encode(record: &LayerRecord) -> Vec<u8> {
    let mut out = Vec::with_capacity(record.listing.len() + 4096);
    out.extend_from_slice(&record.digest.0);
    out.push(u8::from(record.toc_only));
    out.extend_from_slice(&record.diff_id.0);
    out.extend_from_slice(&record.universe);
    for number in [record.stored_bytes, record.archive_bytes].into_iter().chain(record.counts.to_array()) {
        out.extend_from_slice(&number.to_le_bytes());
    }
    push_set(&mut out, &record.delta.adds);
    push_set(&mut out, &record.delta.removes);
    out.extend_from_slice(&(record.delta.links.len() as u64).to_le_bytes());
    for (id, target) in &record.delta.links {
        out.extend_from_slice(&id.to_le_bytes());
        push_bytes(&mut out, target);
    }
    out.extend_from_slice(&(record.implied.len() as u64).to_le_bytes());
    record.implied.iter().for_each(|path| push_bytes(&mut out, path));
    push_bytes(&mut out, &record.listing);
    out
}

/// The begin of a payload: what is known without the rest.
struct Head {
    digest: Digest,
    toc_only: bool,
    diff_id: Digest,
    universe: [u8; 32],
    stored_bytes: u64,
}

impl Head {
    fn decode(cursor: &mut Cursor<'_>) -> Option<Self> {
        Some(Self {
            digest: cursor.digest()?,
            toc_only: cursor.byte()? != 0,
            diff_id: cursor.digest()?,
            universe: cursor.digest()?.0,
            stored_bytes: cursor.u64()?,
        })
    }
}

/// Reads what [`encode`] wrote; `None` for anything else.
fn decode(payload: &[u8]) -> Option<LayerRecord> {
    let mut cursor = Cursor(payload);
    let Head { digest, toc_only, diff_id, universe, stored_bytes } = Head::decode(&mut cursor)?;
    let archive_bytes = cursor.u64()?;
    let mut counts = [0; 7];
    for count in &mut counts {
        *count = cursor.u64()?;
    }
    let (adds, removes) = (cursor.set()?, cursor.set()?);
    let mut links = Vec::new();
    for _ in 0..cursor.u64()? {
        links.push((cursor.u32()?, cursor.bytes()?.to_vec()));
    }
    let mut implied = Vec::new();
    for _ in 0..cursor.u64()? {
        implied.push(cursor.bytes()?.to_vec());
    }
    let listing = cursor.bytes()?.to_vec();
    Some(LayerRecord {
        digest,
        diff_id,
        toc_only,
        stored_bytes,
        archive_bytes,
        counts: Counts::from_array(counts),
        universe,
        delta: LayerDelta { adds, removes, links },
        implied,
        listing,
    })
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn digest(&mut self) -> Option<Digest> {
        Some(Digest(self.take(32)?.try_into().ok()?))
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.u64()?).ok()?;
        self.take(length)
    }

    fn set(&mut self) -> Option<RoaringBitmap> {
        RoaringBitmap::deserialize_from(self.bytes()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(n: u8) -> LayerRecord {
        LayerRecord {
            digest: Digest([n; 32]),
            diff_id: Digest([n + 1; 32]),
            toc_only: n == 2,
            stored_bytes: u64::from(n),
            archive_bytes: 7,
            counts: Counts { files: 3, odd: 1, ..Counts::default() },
            universe: [9; 32],
            delta: LayerDelta {
                adds: (0..u32::from(n)).collect(),
                removes: [5, 500_000].into_iter().collect(),
                links: vec![(1, b"a\xff".to_vec()), (2, Vec::new())],
            },
            implied: vec![b"lib".to_vec()],
            listing: vec![n; 100],
        }
    }

    #[test]
    fn a_layer_that_was_read_whole_takes_the_place_of_its_table_of_contents() {
        let directory = tempfile::tempdir().unwrap();
        let digest = Digest([2; 32]);
        for (attempt, toc_only) in [(0, true), (1, false), (2, true)] {
            let mut writer = StoreWriter::new(directory.path(), 0, attempt);
            writer.append(&LayerRecord { toc_only, ..record(2) }).unwrap();
            writer.close().unwrap();
            let store = Store::open(directory.path()).unwrap();
            assert!(store.has(&digest, Wanted::Any));
            assert_eq!(store.has(&digest, Wanted::Whole), attempt > 0);
            assert_eq!(store.read(&digest).unwrap().unwrap().toc_only, attempt == 0);
        }
    }

    #[test]
    fn layers_come_back_and_a_cut_record_ends_its_file() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Store::open(&directory.path().join("none")).unwrap().is_empty());
        let mut writer = StoreWriter::new(directory.path(), 3, 0);
        for n in 1..4 {
            writer.append(&record(n)).unwrap();
        }
        let path = writer.path.clone();
        writer.close().unwrap();
        let whole = std::fs::read(&path).unwrap();
        let store = Store::open(directory.path()).unwrap();
        assert_eq!((store.len(), store.next_attempt()), (3, 1));
        assert_eq!(store.read(&Digest([2; 32])).unwrap(), Some(record(2)));
        assert_eq!(store.read(&Digest([9; 32])).unwrap(), None);
        for cut in (0..whole.len()).step_by(37) {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let store = Store::open(directory.path()).unwrap();
            let records = (1..4).filter(|n| store.has(&Digest([*n; 32]), Wanted::Any)).collect::<Vec<_>>();
            assert_eq!(records, (1..=store.len() as u8).collect::<Vec<_>>(), "cut at {cut}");
            for n in records {
                assert_eq!(store.read(&Digest([n; 32])).unwrap(), Some(record(n)));
            }
            let mut damaged = whole.clone();
            damaged[cut] ^= 4;
            std::fs::write(&path, &damaged).unwrap();
            if let Ok(store) = Store::open(directory.path()) {
                for n in 1..4 {
                    let read = store.read(&Digest([n; 32])).unwrap();
                    assert!(read.is_none() || read == Some(record(n)), "byte {cut}");
                }
            }
        }
    }
}
