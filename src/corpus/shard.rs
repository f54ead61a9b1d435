//! What one worker has read: records with ids of its own tables, ready to be merged.

use super::{Configs, History, IndexEntries, Layers, Manifests, Oddity};
use crate::strings::{StringId, StringTable};
use std::ops::Range;

/// The string tables of a shard, in the order in which they are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Table {
    Tags = 0,
    Digests,
    ManifestDigests,
    MediaTypes,
    Platforms,
    Dates,
    Commands,
    Comments,
    DiffIds,
}

/// Number of [`Table`]s.
pub(super) const TABLES: usize = 9;

/// Number of oddity kinds.
pub(super) const KINDS: usize = Oddity::ALL.len();

/// Something odd: where in [`Records::text`] its tag and field stand.
#[derive(Debug, Clone, Copy, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(super) struct Note {
    pub kind: u32,
    pub file: u32,
    pub tag_start: u32,
    pub field_start: u32,
    pub end: u32,
}

/// The files of a shard, in the order in which they were read. All vectors but the offsets have
/// one element per file.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Files {
    /// Concatenated paths.
    pub paths: Vec<u8>,
    /// Where each path ends.
    pub path_end: Vec<u64>,
    /// Number of the file in its source; of two with one path, the greater counts.
    pub ordinal: Vec<u64>,
    /// Size in bytes.
    pub bytes: Vec<u64>,
    /// 1 if it could be read.
    pub read: Vec<u8>,
    /// BLAKE3 of each content, 32 bytes each (zeros where nobody asked).
    pub blake3: Vec<u8>,
    /// Where the manifests of each end.
    pub manifest_end: Vec<u64>,
    /// Where the configs of each end.
    pub config_end: Vec<u64>,
    /// [`KINDS`] counts per file.
    pub odd: Vec<u32>,
}

impl Files {
    pub fn len(&self) -> usize {
        self.read.len()
    }

    pub fn path(&self, file: usize) -> &[u8] {
        &self.paths[span(&self.path_end, file)]
    }

    pub fn manifests(&self, file: usize) -> Range<usize> {
        span(&self.manifest_end, file)
    }

    pub fn configs(&self, file: usize) -> Range<usize> {
        span(&self.config_end, file)
    }
}

fn span(ends: &[u64], i: usize) -> Range<usize> {
    let start = if i == 0 { 0 } else { ends[i - 1] };
    start as usize..ends[i] as usize
}

/// The records of a shard. The CSR offsets hold the *end* of each row's range only after the
/// leading 0, as in a [`super::Corpus`]; `repository` columns stay empty.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Records {
    pub files: Files,
    pub manifests: Manifests,
    pub layers: Layers,
    pub entries: IndexEntries,
    pub configs: Configs,
    pub history: History,
    pub config_diff_ids: Vec<StringId>,
    pub notes: Vec<Note>,
    /// Tags and fields of the notes.
    pub text: Vec<u8>,
}

impl Default for Records {
    fn default() -> Self {
        Self {
            files: Files::default(),
            manifests: Manifests { layers: vec![0], entries: vec![0], ..Manifests::default() },
            layers: Layers::default(),
            entries: IndexEntries::default(),
            configs: Configs { history: vec![0], diff_ids: vec![0], ..Configs::default() },
            history: History::default(),
            config_diff_ids: Vec::new(),
            notes: Vec::new(),
            text: Vec::new(),
        }
    }
}

/// Calls `$with!(field)` for all arrays of records; the one list for packing and unpacking.
macro_rules! each_array {
    ($records:expr, $with:ident) => {
        $with!($records.files.paths);
        $with!($records.files.path_end);
        $with!($records.files.ordinal);
        $with!($records.files.bytes);
        $with!($records.files.read);
        $with!($records.files.blake3);
        $with!($records.files.manifest_end);
        $with!($records.files.config_end);
        $with!($records.files.odd);
        $with!($records.manifests.tag);
        $with!($records.manifests.media_type);
        $with!($records.manifests.schema_version);
        $with!($records.manifests.study);
        $with!($records.manifests.has_layers);
        $with!($records.manifests.config);
        $with!($records.manifests.layers);
        $with!($records.manifests.entries);
        $with!($records.layers.digest);
        $with!($records.layers.size);
        $with!($records.layers.media_type);
        $with!($records.layers.flags);
        $with!($records.entries.digest);
        $with!($records.entries.media_type);
        $with!($records.entries.size);
        $with!($records.entries.platform);
        $with!($records.configs.tag);
        $with!($records.configs.created);
        $with!($records.configs.platform);
        $with!($records.configs.flags);
        $with!($records.configs.history);
        $with!($records.configs.diff_ids);
        $with!($records.history.created_by);
        $with!($records.history.comment);
        $with!($records.history.created);
        $with!($records.history.empty_layer);
        $with!($records.config_diff_ids);
        $with!($records.notes);
        $with!($records.text);
    };
}

/// What one worker has read.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Shard {
    pub records: Records,
    /// One per [`Table`].
    pub tables: Vec<StringTable>,
}

impl Shard {
    /// Appends the shard to `out` as it travels between ranks: each array as its length in bytes
    /// (u64) and its bytes, padded to 8.
    pub fn pack(&self, out: &mut Vec<u8>) {
        let mut put = |bytes: &[u8]| {
            out.extend_from_slice(&(bytes.len() as u64).to_ne_bytes());
            out.extend_from_slice(bytes);
            out.resize(out.len().next_multiple_of(8), 0);
        };
        macro_rules! put_array {
            ($array:expr) => {
                put(bytemuck::cast_slice(&$array))
            };
        }
        each_array!(self.records, put_array);
        for table in &self.tables {
            put(table.bytes());
            put(bytemuck::cast_slice(table.offsets()));
        }
    }

    /// Takes a packed shard from the front of `from`; `None` if it is cut short.
    pub fn unpack(from: &mut &[u8]) -> Option<Self> {
        let mut records = Records::default();
        macro_rules! take_array {
            ($array:expr) => {
                $array = copy_out(take(from)?)
            };
        }
        each_array!(records, take_array);
        let tables = (0..TABLES)
            .map(|_| {
                let bytes = take(from)?.to_vec();
                StringTable::from_parts(bytes, copy_out(take(from)?)).ok()
            })
            .collect::<Option<Vec<_>>>()?;
        Some(Self { records, tables })
    }
}

fn take<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = from.split_first_chunk::<8>()?;
    let length = usize::try_from(u64::from_ne_bytes(*length)).ok()?;
    let bytes = rest.get(..length)?;
    *from = rest.get(length.next_multiple_of(8)..)?;
    Some(bytes)
}

/// Lengths of all growing arrays, to go back to when a file turns out to be broken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    pub manifests: usize,
    pub configs: usize,
    notes: usize,
    text: usize,
}

impl Records {
    pub fn mark(&self) -> Mark {
        Mark {
            manifests: self.manifests.tag.len(),
            configs: self.configs.tag.len(),
            notes: self.notes.len(),
            text: self.text.len(),
        }
    }

    /// Forgets everything since `mark`.
    pub fn go_back(&mut self, mark: Mark) {
        self.cut_manifests(mark.manifests);
        self.cut_configs(mark.configs);
        self.notes.truncate(mark.notes);
        self.text.truncate(mark.text);
    }

    /// Keeps `n` manifests with their layers and entries.
    pub fn cut_manifests(&mut self, n: usize) {
        let m = &mut self.manifests;
        m.tag.truncate(n);
        m.media_type.truncate(n);
        m.schema_version.truncate(n);
        m.study.truncate(n);
        m.has_layers.truncate(n);
        m.config.truncate(n);
        m.layers.truncate(n + 1);
        m.entries.truncate(n + 1);
        let (layers, entries) = (m.layers[n] as usize, m.entries[n] as usize);
        self.cut_layers(layers);
        self.cut_entries(entries);
    }

    pub fn cut_layers(&mut self, n: usize) {
        self.layers.digest.truncate(n);
        self.layers.size.truncate(n);
        self.layers.media_type.truncate(n);
        self.layers.flags.truncate(n);
    }

    pub fn cut_entries(&mut self, n: usize) {
        self.entries.digest.truncate(n);
        self.entries.media_type.truncate(n);
        self.entries.size.truncate(n);
        self.entries.platform.truncate(n);
    }

    /// Keeps `n` configs with their histories and diff_ids.
    pub fn cut_configs(&mut self, n: usize) {
        let c = &mut self.configs;
        c.tag.truncate(n);
        c.created.truncate(n);
        c.platform.truncate(n);
        c.flags.truncate(n);
        c.history.truncate(n + 1);
        c.diff_ids.truncate(n + 1);
        let (history, diff_ids) = (c.history[n] as usize, c.diff_ids[n] as usize);
        self.cut_history(history);
        self.config_diff_ids.truncate(diff_ids);
    }

    pub fn cut_history(&mut self, n: usize) {
        self.history.created_by.truncate(n);
        self.history.comment.truncate(n);
        self.history.created.truncate(n);
        self.history.empty_layer.truncate(n);
    }

    /// Puts the manifests from `first` on into the order of these indices, leaving out the rest.
    pub fn reorder_manifests(&mut self, first: usize, order: &[u32]) {
        let Self { manifests: m, layers, entries, .. } = self;
        let rows: Vec<_> = order.iter().map(|i| *i as usize..*i as usize + 1).collect();
        let runs = reorder_offsets(&mut m.layers, first, order);
        regroup(&mut layers.digest, &runs);
        regroup(&mut layers.size, &runs);
        regroup(&mut layers.media_type, &runs);
        regroup(&mut layers.flags, &runs);
        let runs = reorder_offsets(&mut m.entries, first, order);
        regroup(&mut entries.digest, &runs);
        regroup(&mut entries.media_type, &runs);
        regroup(&mut entries.size, &runs);
        regroup(&mut entries.platform, &runs);
        let rows = Runs { start: first, runs: rows };
        regroup(&mut m.tag, &rows);
        regroup(&mut m.media_type, &rows);
        regroup(&mut m.schema_version, &rows);
        regroup(&mut m.study, &rows);
        regroup(&mut m.has_layers, &rows);
        regroup(&mut m.config, &rows);
    }

    /// Puts the configs from `first` on into the order of these indices, leaving out the rest.
    pub fn reorder_configs(&mut self, first: usize, order: &[u32]) {
        let Self { configs: c, history, config_diff_ids, .. } = self;
        let rows: Vec<_> = order.iter().map(|i| *i as usize..*i as usize + 1).collect();
        let runs = reorder_offsets(&mut c.history, first, order);
        regroup(&mut history.created_by, &runs);
        regroup(&mut history.comment, &runs);
        regroup(&mut history.created, &runs);
        regroup(&mut history.empty_layer, &runs);
        let runs = reorder_offsets(&mut c.diff_ids, first, order);
        regroup(config_diff_ids, &runs);
        let rows = Runs { start: first, runs: rows };
        regroup(&mut c.tag, &rows);
        regroup(&mut c.created, &rows);
        regroup(&mut c.platform, &rows);
        regroup(&mut c.flags, &rows);
    }
}

/// Which runs of a column's end, from `start` on, are kept, and in which order.
struct Runs {
    start: usize,
    runs: Vec<Range<usize>>,
}

/// Replaces the end of a column by those runs of it. Only the end is touched.
fn regroup<T: Copy>(column: &mut Vec<T>, runs: &Runs) {
    let end = column.split_off(runs.start);
    for run in &runs.runs {
        column.extend_from_slice(&end[run.start - runs.start..run.end - runs.start]);
    }
}

/// Reorders the rows of a CSR list from `first` on; returns the runs of elements to move along.
fn reorder_offsets(offsets: &mut Vec<u64>, first: usize, order: &[u32]) -> Runs {
    let start = offsets[first] as usize;
    let runs: Vec<_> =
        order.iter().map(|i| offsets[*i as usize] as usize..offsets[*i as usize + 1] as usize).collect();
    offsets.truncate(first + 1);
    let mut end = start;
    for run in &runs {
        end += run.len();
        offsets.push(end as u64);
    }
    Runs { start, runs }
}

/// The elements whose bytes these are; the bytes need not be aligned.
fn copy_out<T: bytemuck::Pod>(bytes: &[u8]) -> Vec<T> {
    let whole = bytes.len() - bytes.len() % size_of::<T>();
    let mut elements = vec![T::zeroed(); whole / size_of::<T>()];
    bytemuck::cast_slice_mut(&mut elements).copy_from_slice(&bytes[..whole]);
    elements
}
