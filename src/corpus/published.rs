//! The manifest table as CSV, in the study's form (`full_uri_subset.csv`) and as
//! `stratigraph export` writes it.

use super::merge::hex;
use super::table::Image;
use super::{Error, KNOWN_EMPTY_LAYERS};
use crate::strings::{Interner, NONE, StringTable};
use sha2::{Digest, Sha256};
use std::path::Path;

/// A manifest table that was read from CSV.
#[derive(Debug, Clone, Default)]
pub struct PublishedTable {
    pub(super) repositories: StringTable,
    pub(super) tags: StringTable,
    pub(super) digests: StringTable,
    pub(super) digest_empty: Vec<u8>,
    pub(super) dates: StringTable,
    pub(super) images: Vec<Image>,
    pub(super) offsets: Vec<u64>,
    pub(super) digest: Vec<u32>,
    pub(super) size: Vec<u64>,
    /// Sha256 of the file.
    pub id: String,
}

/// The columns that are read; others may stand between them.
const COLUMNS: [&str; 6] = ["full_uri", "uri", "tag", "digest", "size", "created_at"];

/// True if the file's name says that it is a manifest table and no corpus file.
pub fn is_published_table(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("csv"))
}

impl PublishedTable {
    /// Reads a table. Images are in the order of their first row; only the known empty layers count
    /// as empty, as a table has no diff_ids.
    ///
    /// # Errors
    /// [`Error::Source`] with the line, if a column is missing or a value unreadable.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let refuse = |reason: String| Error::Source { path: path.to_owned(), reason };
        let bytes = std::fs::read(path).map_err(|e| refuse(e.to_string()))?;
        Self::parse(&bytes).map_err(refuse)
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut reader = csv::ReaderBuilder::new().from_reader(bytes);
        let header = reader.headers().map_err(|e| e.to_string())?.clone();
        let mut columns = [0; COLUMNS.len()];
        for (place, name) in columns.iter_mut().zip(COLUMNS) {
            *place = header.iter().position(|h| h == name).ok_or_else(|| {
                format!("has no column `{name}`; a manifest table has {}", COLUMNS.join(", "))
            })?;
        }
        let [mut repositories, mut tags, mut digests, mut dates, mut names] =
            std::array::from_fn(|_| Interner::default());
        let mut images: Vec<Image> = Vec::new();
        let mut rows: Vec<(u32, u32, u64)> = Vec::new();
        let mut record = csv::StringRecord::new();
        loop {
            let more = reader.read_record(&mut record).map_err(|e| e.to_string())?;
            if !more {
                break;
            }
            let line = record.position().map_or(0, csv::Position::line);
            let [name, repository, tag, digest, size, created] = columns.map(|c| &record[c]);
            if repository.is_empty() || digest.is_empty() {
                return Err(format!("line {line}: uri or digest is empty"));
            }
            let size: u64 = size
                .parse()
                .ok()
                .filter(|size| i64::try_from(*size).is_ok())
                .ok_or_else(|| format!("line {line}: the size `{size}` is no number of bytes"))?;
            let image = names.intern(name);
            if image as usize == images.len() {
                images.push(Image {
                    repository: repositories.intern(repository),
                    tag: tags.intern(tag),
                    created: if created.is_empty() { NONE } else { dates.intern(created) },
                    origin: image,
                });
            }
            rows.push((image, digests.intern(digest), size));
        }
        if rows.is_empty() {
            return Err("holds no rows".into());
        }
        // Stable: an image's rows keep their order, also where other rows stand between them.
        rows.sort_by_key(|row| row.0);
        let mut offsets = vec![0u64; images.len() + 1];
        rows.iter().for_each(|row| offsets[row.0 as usize + 1] += 1);
        (1..offsets.len()).for_each(|i| offsets[i] += offsets[i - 1]);
        let digests = digests.into_table();
        Ok(Self {
            repositories: repositories.into_table(),
            tags: tags.into_table(),
            digest_empty: digests.iter().map(|d| u8::from(KNOWN_EMPTY_LAYERS.contains(&d))).collect(),
            digests,
            dates: dates.into_table(),
            images,
            offsets,
            digest: rows.iter().map(|row| row.1).collect(),
            size: rows.iter().map(|row| row.2).collect(),
            id: hex(&Sha256::digest(bytes)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_gather_at_their_image() {
        let text = "x,full_uri,uri,tag,digest,size,created_at\n\
                    0,a:1,a,1,d:1,5,2020-01-01\n1,b:1,b,1,d:2,6,\n2,a:1,a,1,d:2,6,2020-01-01\n";
        let read = PublishedTable::parse(text.as_bytes()).unwrap();
        let table = read.table();
        assert_eq!((table.images.len(), table.offsets.clone()), (2, vec![0, 2, 3]));
        assert_eq!(
            (table.name(0), table.created(0), table.created(1)),
            ("a:1".into(), Some("2020-01-01"), None)
        );
        assert_eq!((table.digest, table.size), (vec![0, 1, 1], vec![5, 6, 6]));
    }

    #[test]
    fn bad_tables_are_refused_with_the_line() {
        let header = "full_uri,uri,tag,digest,size,created_at\n";
        for (text, reason) in [
            ("a,b\n1,2\n", "has no column `full_uri`"),
            (header, "holds no rows"),
            (&format!("{header}a:1,a,1,d,5,x\na:1,a,1,d,-5,x\n"), "line 3: the size `-5`"),
            (&format!("{header}a:1,a,1,d,9223372036854775808,x\n"), "line 2: the size"),
            (&format!("{header}a:1,a,1,,5,x\n"), "line 2: uri or digest is empty"),
            (&format!("{header}a:1,a\n"), "line: 2"),
        ] {
            let error = PublishedTable::parse(text.as_bytes()).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }
}
