//! The tile journal: what each rank has finished, safe against a kill at any moment.
//!
//! Every rank of every attempt appends to a file of its own, `rank-RRRR.attempt-AAA.tiles`:
//! 8 bytes magic, 32 bytes fingerprint of the run, then records of
//! `tile u32 | crc32 u32 | length u64 | payload` (little-endian; the checksum covers tile, length
//! and payload). A record that is cut or damaged ends its file: it was being written when the
//! rank was killed, and its tile is computed again. Files are never appended to by a later attempt.

use super::Error;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 8] = b"STRATJ01";
const HEADER: u64 = 8 + 32;
const RECORD: u64 = 4 + 4 + 8;

/// Identity of a run: sha256 over the program version, the corpus, the options and the tile plan.
pub type Fingerprint = [u8; 32];

fn failed(path: &Path, error: impl ToString) -> Error {
    Error::Journal { path: path.to_owned(), reason: error.to_string() }
}

fn checksum(tile: u32, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&tile.to_le_bytes());
    hasher.update(&(payload.len() as u64).to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

/// A rank's own journal file of this attempt, open for appending.
pub struct Journal {
    file: File,
    path: PathBuf,
}

impl Journal {
    /// Begins a file in `directory`; `attempt` is one that no earlier run used.
    ///
    /// # Errors
    /// [`Error::Journal`] if it cannot be made.
    pub fn create(
        directory: &Path,
        rank: usize,
        attempt: u32,
        fingerprint: &Fingerprint,
    ) -> Result<Self, Error> {
        let path = directory.join(format!("rank-{rank:04}.attempt-{attempt:03}.tiles"));
        let begin = || {
            let mut file = File::options().create_new(true).write(true).open(&path)?;
            file.write_all(&[MAGIC.as_slice(), fingerprint].concat())?;
            Ok::<_, std::io::Error>(file)
        };
        let file = begin().map_err(|e| failed(&path, e))?;
        Ok(Self { file, path })
    }

    /// Records a finished tile. One write call: a kill leaves the whole record or a cut one.
    ///
    /// # Errors
    /// [`Error::Journal`], for instance on a full disk.
    pub fn record(&mut self, tile: u32, payload: &[u8]) -> Result<(), Error> {
        let mut record = Vec::with_capacity(RECORD as usize + payload.len());
        record.extend_from_slice(&tile.to_le_bytes());
        record.extend_from_slice(&checksum(tile, payload).to_le_bytes());
        record.extend_from_slice(&(payload.len() as u64).to_le_bytes());
        record.extend_from_slice(payload);
        self.file.write_all(&record).map_err(|e| {
            failed(&self.path, format!("{e}; free some space and start again: finished tiles are kept"))
        })
    }

    /// Brings everything to the disk and closes the file.
    ///
    /// # Errors
    /// [`Error::Journal`].
    pub fn close(self) -> Result<(), Error> {
        self.file.sync_all().map_err(|e| failed(&self.path, e))
    }
}

/// True if the directory holds a journal with another fingerprint, or something that is no journal.
/// False if it is missing or empty.
///
/// # Errors
/// [`Error::Journal`] if it cannot be read.
pub fn is_of_another_run(directory: &Path, fingerprint: &Fingerprint) -> Result<bool, Error> {
    if !directory.exists() {
        return Ok(false);
    }
    for path in files_in(directory)? {
        let mut header = Vec::new();
        let file = File::open(&path).map_err(|e| failed(&path, e))?;
        file.take(HEADER).read_to_end(&mut header).map_err(|e| failed(&path, e))?;
        if header.len() as u64 == HEADER && !is_header(&header, fingerprint) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_header(header: &[u8], fingerprint: &Fingerprint) -> bool {
    header.starts_with(MAGIC) && header.ends_with(fingerprint)
}

/// The journal files of a directory, sorted.
fn files_in(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(|e| failed(directory, e))? {
        let path = entry.map_err(|e| failed(directory, e))?.path();
        if path.extension().is_some_and(|e| e == "tiles") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Where the payload of a finished tile lies.
#[derive(Debug, Clone, Copy)]
struct Place {
    file: u32,
    offset: u64,
    length: u64,
}

/// All finished tiles of a run, over all its attempts and ranks.
pub struct Finished {
    files: Vec<PathBuf>,
    places: Vec<Option<Place>>,
    next_attempt: u32,
}

impl Finished {
    /// Reads all journals in `directory`.
    ///
    /// # Errors
    /// [`Error::Refused`] if one belongs to another run, [`Error::Journal`] if one cannot be read.
    pub fn scan(directory: &Path, tiles: u32, fingerprint: &Fingerprint) -> Result<Self, Error> {
        let files = files_in(directory)?;
        let next_attempt = files.iter().filter_map(|p| attempt_of(p)).max().map_or(0, |a| a + 1);
        let mut finished = Self { files, places: vec![None; tiles as usize], next_attempt };
        for file in 0..finished.files.len() {
            finished.read(file, fingerprint)?;
        }
        Ok(finished)
    }

    fn read(&mut self, index: usize, fingerprint: &Fingerprint) -> Result<(), Error> {
        let path = &self.files[index];
        let file = File::open(path).map_err(|e| failed(path, e))?;
        let length = file.metadata().map_err(|e| failed(path, e))?.len();
        let mut reader = BufReader::with_capacity(1 << 20, file);
        let mut header = [0; HEADER as usize];
        if length < HEADER {
            return Ok(()); // killed before the header was whole: no tile was recorded
        }
        reader.read_exact(&mut header).map_err(|e| failed(path, e))?;
        if !is_header(&header, fingerprint) {
            return Err(Error::Refused(format!(
                "{}: belongs to another run (another corpus, other options or another tile size); \
                 give the same ones, another output directory, or --overwrite",
                path.display()
            )));
        }
        let mut offset = HEADER;
        let mut payload = Vec::new();
        while length - offset >= RECORD {
            let mut head = [0; RECORD as usize];
            reader.read_exact(&mut head).map_err(|e| failed(path, e))?;
            let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
            let (tile, crc) = (word(0), word(4));
            let bytes = u64::from(word(8)) | u64::from(word(12)) << 32;
            offset += RECORD;
            if bytes > length - offset {
                break;
            }
            payload.resize(bytes as usize, 0);
            reader.read_exact(&mut payload).map_err(|e| failed(path, e))?;
            if checksum(tile, &payload) != crc || tile as usize >= self.places.len() {
                break;
            }
            // A tile that two ranks finished (one after a restart) has equal payloads.
            self.places[tile as usize].get_or_insert(Place { file: index as u32, offset, length: bytes });
            offset += bytes;
        }
        Ok(())
    }

    /// The attempt number that the next run uses.
    pub fn next_attempt(&self) -> u32 {
        self.next_attempt
    }

    /// Tiles that are not finished yet, ascending.
    pub fn missing(&self) -> Vec<u32> {
        (0u32..).zip(&self.places).filter(|(_, p)| p.is_none()).map(|(i, _)| i).collect()
    }

    /// Hands every payload to `visit` in tile order.
    ///
    /// # Errors
    /// [`Error::Journal`] if a tile is missing or cannot be read, and whatever `visit` returns.
    pub fn replay(&self, mut visit: impl FnMut(u32, &[u8]) -> Result<(), Error>) -> Result<(), Error> {
        let mut open = Vec::new();
        for path in &self.files {
            open.push(File::open(path).map_err(|e| failed(path, e))?);
        }
        let mut payload = Vec::new();
        for (tile, place) in (0u32..).zip(&self.places) {
            let Some(place) = place else {
                let directory = self.files.first().map_or(Path::new("journal"), PathBuf::as_path);
                return Err(failed(
                    directory,
                    format!("tile {tile} is missing; run the job to its end first"),
                ));
            };
            let path = &self.files[place.file as usize];
            let file = &mut open[place.file as usize];
            payload.resize(place.length as usize, 0);
            file.seek(SeekFrom::Start(place.offset))
                .and_then(|_| file.read_exact(&mut payload))
                .map_err(|e| failed(path, e))?;
            visit(tile, &payload)?;
        }
        Ok(())
    }
}

fn attempt_of(path: &Path) -> Option<u32> {
    let stem = path.file_stem()?.to_str()?;
    stem.split_once(".attempt-")?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RUN: Fingerprint = [7; 32];

    fn collect(finished: &Finished) -> Vec<(u32, Vec<u8>)> {
        let mut all = Vec::new();
        finished
            .replay(|tile, payload| {
                all.push((tile, payload.to_vec()));
                Ok(())
            })
            .unwrap();
        all
    }

    proptest! {
        /// However a file is cut or one of its bytes is damaged, what is read back is a prefix of
        /// what was written.
        #[test]
        fn a_cut_or_damaged_journal_keeps_its_sound_prefix(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..8),
            cut in any::<prop::sample::Index>(),
            flip in prop::option::of(any::<u8>().prop_filter("a change", |b| *b != 0)),
        ) {
            let directory = tempfile::tempdir().unwrap();
            let mut journal = Journal::create(directory.path(), 3, 0, &RUN).unwrap();
            let mut ends = Vec::new();
            for (tile, payload) in (0u32..).zip(&payloads) {
                journal.record(tile, payload).unwrap();
                ends.push(journal.file.metadata().unwrap().len());
            }
            let path = journal.path.clone();
            journal.close().unwrap();
            let mut bytes = std::fs::read(&path).unwrap();
            let at = HEADER as usize + cut.index(bytes.len() - HEADER as usize);
            match flip {
                Some(bits) => bytes[at] ^= bits,
                None => bytes.truncate(at),
            }
            std::fs::write(&path, &bytes).unwrap();
            let sound = ends.iter().filter(|end| **end <= at as u64).count();
            let finished = Finished::scan(directory.path(), payloads.len() as u32, &RUN).unwrap();
            prop_assert_eq!(finished.missing(), (sound as u32..payloads.len() as u32).collect::<Vec<_>>());
            prop_assert_eq!(finished.next_attempt(), 1);
            let whole = Finished::scan(directory.path(), sound as u32, &RUN).unwrap();
            let expected: Vec<_> = (0u32..).zip(payloads).take(sound).collect();
            prop_assert_eq!(collect(&whole), expected);
        }
    }

    #[test]
    fn another_run_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        Journal::create(directory.path(), 0, 0, &RUN).unwrap().close().unwrap();
        let error = Finished::scan(directory.path(), 1, &[8; 32]).err().unwrap();
        assert!(error.to_string().contains("another run"), "{error}");
    }
}
