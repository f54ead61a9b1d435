//! Builds a shard, file by file: rows, the damage control around a file, and what is odd in it.

use super::json;
use super::lenient::Lenient;
use super::parse::Document;
use super::shard::{Files, KINDS, Mark, Note, Records, Shard, TABLES, Table};
use super::{Oddities, Oddity, StudyFilter};
use crate::strings::{Interner, NONE, StringId};
use serde::de::DeserializeSeed;
use std::borrow::Cow;
use std::fmt;
use std::io::Write;

/// Which of a file's two objects a tag stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    Manifest = 0,
    Config = 1,
}

/// Where the rows of one of a file's two objects are, by tag.
#[derive(Debug, Default)]
pub(super) struct Slots {
    /// Tags in order of their first occurrence, with the row of the last one, if it has a row.
    rows: Vec<(StringId, Option<u32>)>,
    /// By tag id: the generation in which it was seen, and its index in `rows`.
    index: Vec<(u32, u32)>,
    /// Counts files, so that `index` need not be cleared.
    generation: u32,
    /// True if a tag came twice, so that rows have to be put in order.
    disordered: bool,
}

impl Slots {
    fn clear(&mut self) {
        self.rows.clear();
        self.generation += 1;
        self.disordered = false;
    }

    /// Notes the row of a tag; true if the tag was there before.
    fn put(&mut self, tag: StringId, row: Option<u32>) -> bool {
        let at = tag as usize;
        if self.index.len() <= at {
            self.index.resize(at + 1, (0, 0));
        }
        if self.index[at].0 == self.generation {
            self.rows[self.index[at].1 as usize].1 = row;
            self.disordered = true;
            return true;
        }
        self.index[at] = (self.generation, self.rows.len() as u32);
        self.rows.push((tag, row));
        false
    }

    pub(super) fn row(&self, tag: StringId) -> Option<u32> {
        let (generation, index) = *self.index.get(tag as usize)?;
        if generation == self.generation { self.rows[index as usize].1 } else { None }
    }

    fn order(&self) -> Vec<u32> {
        self.rows.iter().filter_map(|(_, row)| *row).collect()
    }
}

/// Builds a [`Shard`].
pub(super) struct Builder {
    tables: [Interner; TABLES],
    pub(super) records: Records,
    /// Counts of the file at hand.
    counts: [u32; KINDS],
    /// Beginning of the file at hand.
    pub(super) mark: Mark,
    pub(super) slots: [Slots; 2],
    /// The tag at hand, or [`NONE`].
    pub tag: StringId,
    /// The file's `tags`.
    pub listed_tags: Option<Vec<StringId>>,
    /// True if the manifest at hand has a `manifests` list.
    pub has_entries: bool,
    /// One per manifest of the file at hand: `has_entries`.
    pub(super) index_like: Vec<bool>,
    /// Whether a layer media type (by id) is foreign, and whether it is a signature's.
    pub(super) media_type_kinds: Vec<(bool, bool)>,
    /// Parts of the platform at hand.
    pub platform: [String; 4],
    joined: String,
    /// By table: the last string, and what came last after each string (at its id + 1) and at the
    /// beginning of a list (at 0).
    successors: [(StringId, Vec<StringId>); TABLES],
}

impl Builder {
    pub fn new() -> Self {
        let records = Records::default();
        Self {
            tables: Default::default(),
            mark: records.mark(),
            records,
            counts: [0; KINDS],
            slots: Default::default(),
            tag: NONE,
            listed_tags: None,
            has_entries: false,
            index_like: Vec::new(),
            media_type_kinds: Vec::new(),
            platform: Default::default(),
            joined: String::new(),
            successors: Default::default(),
        }
    }

    pub fn finish(self) -> Shard {
        Shard { records: self.records, tables: self.tables.into_iter().map(Interner::into_table).collect() }
    }

    /// Reads one file. `ordinal` is its number in the source, `blake3` the hash of its content (or
    /// zeros). Whatever is wrong in it, the records of other files stay as they are.
    pub fn add(&mut self, path: &[u8], ordinal: u64, content: &[u8], blake3: [u8; 32]) {
        self.begin();
        let read = self.read(content);
        if read {
            self.put_in_order();
            self.look_around(path);
        }
        self.end(path, ordinal, content.len() as u64, blake3, read);
    }

    /// Notes a file that cannot be read.
    pub fn add_unreadable(&mut self, path: &[u8], ordinal: u64, reason: &str) {
        self.begin();
        self.note(Oddity::BadFile, format_args!("{reason}"));
        self.end(path, ordinal, 0, [0; 32], false);
    }

    fn begin(&mut self) {
        self.mark = self.records.mark();
        self.restart();
    }

    /// Goes back to the beginning of the file at hand.
    fn restart(&mut self) {
        self.records.go_back(self.mark);
        self.slots.iter_mut().for_each(Slots::clear);
        self.counts = [0; KINDS];
        self.tag = NONE;
        self.listed_tags = None;
        self.has_entries = false;
        self.index_like.clear();
        self.platform.iter_mut().for_each(String::clear);
    }

    fn end(&mut self, path: &[u8], ordinal: u64, bytes: u64, blake3: [u8; 32], read: bool) {
        let Records { files, manifests, configs, .. } = &mut self.records;
        let Files { paths, path_end, .. } = files;
        paths.extend_from_slice(path);
        path_end.push(paths.len() as u64);
        files.ordinal.push(ordinal);
        files.bytes.push(bytes);
        files.read.push(u8::from(read));
        files.blake3.extend_from_slice(&blake3);
        files.manifest_end.push(manifests.tag.len() as u64);
        files.config_end.push(configs.tag.len() as u64);
        files.odd.extend_from_slice(&self.counts);
    }

    /// True if the content could be read as JSON.
    fn read(&mut self, content: &[u8]) -> bool {
        if content.is_empty() {
            self.note(Oddity::EmptyFile, format_args!("0 bytes"));
            return false;
        }
        let mut bad_utf8 = None;
        let mut text = match simdutf8::compat::from_utf8(content) {
            Ok(text) => Cow::Borrowed(text),
            Err(e) => {
                bad_utf8 = Some(format!("first at byte {}", e.valid_up_to()));
                String::from_utf8_lossy(content)
            }
        };
        // Nearly every document is plain; the others are read again from their beginning.
        if bad_utf8.is_none() {
            if json::read(without_mark(&text), Lenient(Document(self))).is_ok() {
                return true;
            }
            self.restart();
        }
        // A rejected document is mended where that is safe, and read again from its beginning.
        for _ in 0..MENDS {
            if let Some(place) = &bad_utf8 {
                self.note(Oddity::InvalidUtf8, format_args!("{place}"));
            }
            let document = without_mark(&text);
            let mut json = serde_json::Deserializer::from_str(document);
            let outcome = Lenient(Document(self)).deserialize(&mut json).and_then(|()| json.end());
            let Err(error) = outcome else { return true };
            self.restart();
            match mend(document, &error) {
                Some(mended) => {
                    if is_half_surrogate(&error) {
                        bad_utf8.get_or_insert_with(|| format!("half a surrogate pair ({error})"));
                    }
                    text = Cow::Owned(mended);
                }
                None => {
                    self.note(Oddity::BadFile, format_args!("{error}"));
                    return false;
                }
            }
        }
        self.note(Oddity::BadFile, format_args!("more than {MENDS} numbers out of range"));
        false
    }

    /// Puts rows into the order of the first occurrences of their tags, if one came twice.
    fn put_in_order(&mut self) {
        if self.slots[0].disordered {
            let order = self.slots[0].order();
            let first = self.mark.manifests;
            self.index_like = order.iter().map(|row| self.index_like[*row as usize - first]).collect();
            self.records.reorder_manifests(first, &order);
            self.renumber(Slot::Manifest, first);
        }
        if self.slots[1].disordered {
            let order = self.slots[1].order();
            self.records.reorder_configs(self.mark.configs, &order);
            self.renumber(Slot::Config, self.mark.configs);
        }
    }

    fn renumber(&mut self, slot: Slot, first: usize) {
        let rows = self.slots[slot as usize].rows.iter_mut().filter_map(|(_, row)| row.as_mut());
        rows.zip(first as u32..).for_each(|(row, now)| *row = now);
    }

    pub fn intern(&mut self, table: Table, text: &str) -> StringId {
        self.tables[table as usize].intern(text)
    }

    /// Interns what stands at this place of a list. The images of a repository are alike, so it is
    /// often what came after its predecessor the last time.
    pub fn intern_at(&mut self, table: Table, index: usize, text: &str) -> StringId {
        let (last, after) = &mut self.successors[table as usize];
        let before = if index == 0 { 0 } else { last.wrapping_add(1) as usize };
        if after.len() <= before {
            after.resize(before + 1, NONE);
        }
        *last = self.tables[table as usize].intern_guessed(text, after[before]);
        after[before] = *last;
        *last
    }

    pub fn text(&self, table: Table, id: StringId) -> &str {
        self.tables[table as usize].table().get(id)
    }

    /// Notes something odd at the tag at hand.
    pub fn note(&mut self, kind: Oddity, field: fmt::Arguments<'_>) {
        let seen = &mut self.counts[kind as usize];
        *seen += 1;
        // Positions of notes are 32-bit numbers; examples beyond that are only counted.
        if *seen as usize > Oddities::EXAMPLES || self.records.text.len() > u32::MAX as usize / 2 {
            return;
        }
        let Records { text, notes, files, .. } = &mut self.records;
        let tag_start = text.len() as u32;
        if self.tag != NONE {
            let tag = self.tables[Table::Tags as usize].table().get(self.tag);
            text.extend_from_slice(shorten(tag).as_bytes());
        }
        let field_start = text.len() as u32;
        // Writing to a vector cannot fail.
        let _ = text.write_fmt(field);
        let (kind, file, end) = (kind as u32, files.len() as u32, text.len() as u32);
        notes.push(Note { kind, file, tag_start, field_start, end });
    }

    /// Enters the row just pushed (if `kept`) under its tag.
    pub fn place(&mut self, slot: Slot, tag: StringId, kept: bool) {
        let rows = match slot {
            Slot::Manifest => self.records.manifests.tag.len(),
            Slot::Config => self.records.configs.tag.len(),
        };
        if self.slots[slot as usize].put(tag, kept.then(|| rows as u32 - 1)) {
            let object = if slot == Slot::Manifest { "manifests" } else { "configs" };
            self.note(Oddity::RepeatedKey, format_args!("{object}"));
        }
    }

    pub fn forget_manifests(&mut self) {
        self.records.cut_manifests(self.mark.manifests);
        self.index_like.clear();
        self.slots[0].clear();
    }

    pub fn forget_configs(&mut self) {
        self.records.cut_configs(self.mark.configs);
        self.slots[1].clear();
    }

    pub fn forget_layers(&mut self) {
        self.records.cut_layers(self.records.manifests.layers.last().map_or(0, |n| *n as usize));
    }

    pub fn forget_entries(&mut self) {
        self.records.cut_entries(self.records.manifests.entries.last().map_or(0, |n| *n as usize));
        self.has_entries = false;
    }

    pub fn forget_history(&mut self) {
        self.records.cut_history(self.records.configs.history.last().map_or(0, |n| *n as usize));
    }

    pub fn forget_diff_ids(&mut self) {
        let n = self.records.configs.diff_ids.last().map_or(0, |n| *n as usize);
        self.records.config_diff_ids.truncate(n);
    }

    pub fn push_layer(&mut self, digest: StringId, size: u64, media_type: StringId, flags: u8) {
        let layers = &mut self.records.layers;
        layers.digest.push(digest);
        layers.size.push(size);
        layers.media_type.push(media_type);
        layers.flags.push(flags);
    }

    pub fn push_entry(&mut self, digest: StringId, media_type: StringId, size: u64, platform: StringId) {
        let entries = &mut self.records.entries;
        entries.digest.push(digest);
        entries.media_type.push(media_type);
        entries.size.push(size);
        entries.platform.push(platform);
    }

    pub fn push_manifest(&mut self, media_type: StringId, schema_version: u8, has_layers: bool) {
        let Records { manifests, layers, entries, .. } = &mut self.records;
        manifests.tag.push(self.tag);
        manifests.media_type.push(media_type);
        manifests.schema_version.push(schema_version);
        manifests.study.push(StudyFilter::Kept as u8);
        manifests.has_layers.push(u8::from(has_layers));
        manifests.config.push(NONE);
        manifests.layers.push(layers.digest.len() as u64);
        manifests.entries.push(entries.digest.len() as u64);
        self.index_like.push(std::mem::take(&mut self.has_entries));
    }

    pub fn push_step(&mut self, created_by: StringId, comment: StringId, created: i64, empty_layer: bool) {
        let history = &mut self.records.history;
        history.created_by.push(created_by);
        history.comment.push(comment);
        history.created.push(created);
        history.empty_layer.push(u8::from(empty_layer));
    }

    pub fn push_diff_id(&mut self, id: StringId) {
        self.records.config_diff_ids.push(id);
    }

    pub fn push_config(&mut self, created: StringId, platform: StringId, flags: u8) {
        let Records { configs, history, config_diff_ids, .. } = &mut self.records;
        configs.tag.push(self.tag);
        configs.created.push(created);
        configs.platform.push(platform);
        configs.flags.push(flags);
        configs.history.push(history.created_by.len() as u64);
        configs.diff_ids.push(config_diff_ids.len() as u64);
    }

    /// Joins the parts of the platform at hand and forgets them; [`NONE`] if there are none.
    pub fn take_platform(&mut self) -> StringId {
        let [os, architecture, variant, version] = &mut self.platform;
        let mut id = NONE;
        if [&*os, architecture, variant, version].iter().any(|part| !part.is_empty()) {
            self.joined.clear();
            self.joined.push_str(os);
            self.joined.push('/');
            self.joined.push_str(architecture);
            for (mark, part) in [('/', &*variant), (':', version)] {
                if !part.is_empty() {
                    self.joined.push(mark);
                    self.joined.push_str(part);
                }
            }
            id = self.tables[Table::Platforms as usize].intern(&self.joined);
        }
        self.platform.iter_mut().for_each(String::clear);
        id
    }
}

/// A document without the byte order mark that some editors put before it.
fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// How often one document is mended at most.
const MENDS: usize = 64;

/// True if the reader may have stopped at half a surrogate pair.
fn is_half_surrogate(error: &serde_json::Error) -> bool {
    let message = error.to_string();
    message.contains("surrogate") || message.contains("end of hex escape")
}

/// Long tags are cut in examples; they are kept whole in the corpus.
fn shorten(text: &str) -> &str {
    let end = (0..=128).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
    if text.len() > 128 { &text[..end] } else { text }
}

/// A document that the JSON reader refused although other readers take it, with the place
/// mended: halves of surrogate pairs become U+FFFD, a number beyond every type becomes -1 (which
/// is no valid value anywhere). `None` if that is not what is wrong.
fn mend(document: &str, error: &serde_json::Error) -> Option<String> {
    let message = error.to_string();
    if is_half_surrogate(error) {
        return Some(mend_surrogates(document)).filter(|mended| mended != document);
    }
    if !message.starts_with("number out of range") {
        return None;
    }
    let line_start =
        document.split_inclusive('\n').take(error.line().checked_sub(1)?).map(str::len).sum::<usize>();
    let is_number = |b: &u8| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.' | b'e' | b'E');
    let mut bytes = document.as_bytes().to_vec();
    let mut at = (line_start + error.column()).min(bytes.len().checked_sub(1)?);
    while at > 0 && !is_number(&bytes[at]) {
        at -= 1;
    }
    let before = bytes[..at].iter().rev().take_while(|b| is_number(b)).count();
    let after = bytes[at..].iter().take_while(|b| is_number(b)).count();
    let number = bytes.get_mut(at - before..at + after)?;
    if number.len() < 3 {
        return None;
    }
    number.fill(b' ');
    number[..2].copy_from_slice(b"-1");
    String::from_utf8(bytes).ok()
}

fn mend_surrogates(document: &str) -> String {
    let mut mended = String::with_capacity(document.len());
    let mut rest = document;
    while let Some(at) = rest.find('\\') {
        mended.push_str(&rest[..at]);
        rest = &rest[at..];
        let unit = |text: &str| {
            let hex = text.strip_prefix("\\u")?.get(..4)?;
            u16::from_str_radix(hex, 16).ok()
        };
        let length = match (unit(rest), rest.get(6..).and_then(unit)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
            (Some(0xd800..=0xdfff), _) => {
                mended.push_str("\\ufffd");
                rest = &rest[6..];
                continue;
            }
            (Some(_), _) => 6,
            // Another escape: the mark and the character after it.
            (None, _) => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
        };
        mended.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    mended.push_str(rest);
    mended
}
