//! The manifest table for other tools: CSV and SQLite, with the study's columns.
//!
//! One row per (image, layer), in table order:
//!
//! | column | what |
//! |---|---|
//! | `id` | number of the row, from 1 (CSV has `id - 1` before it, without a name, as pandas writes it) |
//! | `full_uri`, `uri`, `tag` | the image, its repository, its tag |
//! | `layer_number` | from 0, the lowest layer first |
//! | `architecture`, `os` | from the config; `unknown` without one. The study has `unknown` everywhere |
//! | `digest`, `size` | of the layer; compressed bytes |
//! | `schema_version` | of the manifest |
//! | `category` | `unknown`, as in the study |
//! | `created_at` | date of the config, `YYYY-MM-DD 00:00:00`; empty without one |

use super::table::Table;
use super::{Corpus, Image};
use crate::strings::NONE;
use rusqlite::{Connection, params};
use std::io::{self, BufWriter, Write};
use std::path::Path;

const COLUMNS: [&str; 13] = [
    "",
    "id",
    "full_uri",
    "uri",
    "tag",
    "layer_number",
    "architecture",
    "digest",
    "os",
    "size",
    "schema_version",
    "category",
    "created_at",
];

const SCHEMA: &str = "CREATE TABLE manifests (
    id INTEGER PRIMARY KEY, full_uri TEXT NOT NULL, uri TEXT NOT NULL, tag TEXT NOT NULL,
    layer_number INTEGER NOT NULL, architecture TEXT, digest TEXT NOT NULL, os TEXT, size INTEGER NOT NULL,
    schema_version INTEGER, category TEXT, created_at TEXT)";

/// The rows of a manifest table with everything that the columns need.
pub struct Rows<'a> {
    corpus: &'a Corpus,
    table: &'a Table<'a>,
}

/// What all rows of an image share.
struct Head {
    full_uri: String,
    architecture: String,
    os: String,
    created_at: String,
    schema_version: u8,
}

impl<'a> Rows<'a> {
    /// `table` is one of this corpus.
    pub fn new(corpus: &'a Corpus, table: &'a Table<'a>) -> Self {
        Self { corpus, table }
    }

    fn head(&self, i: usize, image: &Image) -> Head {
        let m = image.origin as usize;
        let platform = self.corpus.config_of(m).map_or(NONE, |c| self.corpus.configs.platform[c]);
        let mut parts = self.corpus.platforms.get_or(platform, "").split(['/', ':']);
        let mut part = || parts.next().filter(|p| !p.is_empty()).unwrap_or("unknown").to_owned();
        let (os, architecture) = (part(), part());
        let date =
            self.table.created(i).and_then(|created| created.split(['T', 't', ' ']).next()).unwrap_or("");
        let created_at = if date.is_empty() { String::new() } else { format!("{date} 00:00:00") };
        let schema_version = self.corpus.manifests.schema_version[m];
        Head { full_uri: self.table.name(i), architecture, os, created_at, schema_version }
    }

    /// Writes CSV (RFC 4180, header line, LF).
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_csv(&self, to: impl Write) -> io::Result<()> {
        let mut out = csv::Writer::from_writer(BufWriter::with_capacity(1 << 20, to));
        out.write_record(COLUMNS)?;
        let mut id = 0u64;
        for (i, image) in self.table.images.iter().enumerate() {
            let head = self.head(i, image);
            for (k, row) in self.table.rows_of(i).enumerate() {
                id += 1;
                out.write_record([
                    &*(id - 1).to_string(),
                    &id.to_string(),
                    &head.full_uri,
                    self.table.repositories.get(image.repository),
                    self.table.tags.get(image.tag),
                    &k.to_string(),
                    &head.architecture,
                    self.table.digests.get(self.table.digest[row]),
                    &head.os,
                    &self.table.size[row].to_string(),
                    &head.schema_version.to_string(),
                    "unknown",
                    &head.created_at,
                ])?;
            }
        }
        out.flush()
    }

    /// Writes a new SQLite database with the table `manifests`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_sqlite(&self, path: &Path) -> rusqlite::Result<()> {
        let mut database = Connection::open(path)?;
        // The file is new and nobody reads it before it is whole: a journal protects nothing.
        database.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF")?;
        let all = database.transaction()?;
        all.execute(SCHEMA, [])?;
        let mut insert = all.prepare("INSERT INTO manifests VALUES (?,?,?,?,?,?,?,?,?,?,'unknown',?)")?;
        let mut id = 0i64;
        for (i, image) in self.table.images.iter().enumerate() {
            let head = self.head(i, image);
            for (k, row) in self.table.rows_of(i).enumerate() {
                id += 1;
                insert.execute(params![
                    id,
                    head.full_uri,
                    self.table.repositories.get(image.repository),
                    self.table.tags.get(image.tag),
                    k as i64,
                    head.architecture,
                    self.table.digests.get(self.table.digest[row]),
                    head.os,
                    // Corpus files hold no size beyond 2^63 - 1.
                    self.table.size[row] as i64,
                    head.schema_version,
                    head.created_at,
                ])?;
            }
        }
        drop(insert);
        all.commit()?;
        database.close().map_err(|(_, e)| e)
    }
}
