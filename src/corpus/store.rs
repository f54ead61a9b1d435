//! The corpus file, `corpus.h5`.
//!
//! Root attributes, besides those of every file (see [`crate::h5`]): `corpus_id` (text; see
//! [`Corpus::id`]), `source` and `source_sha256` (text), `files` and `source_bytes` (integers),
//! `complete` (integer, 0 or 1), and for a generated corpus `synthetic` (text, `seed N`) and
//! `synthetic_seed` (integer).
//!
//! All datasets have one dimension. `S` strings are two datasets, `NAME/bytes` (u8, UTF-8 one
//! after the other) and `NAME/offsets` (u64, where each starts; one more than strings). Offsets
//! (CSR) have one element more than rows; row `i` is `offsets[i]..offsets[i+1]`. 4294967295 in a
//! u32 id means "none".
//!
//! | dataset | type | length | what |
//! |---|---|---|---|
//! | `repositories` | S | repositories | names |
//! | `tags`, `digests`, `manifest_digests`, `media_types`, `platforms`, `dates`, `commands`, `comments`, `diff_ids` | S | distinct ones | the strings that ids point at |
//! | `digest_empty` | u8 | digests | 1: a layer without content |
//! | `manifests/repository`, `manifests/tag`, `manifests/media_type` | u32 | manifests | ids |
//! | `manifests/schema_version` | u8 | manifests | as given, 0 if not |
//! | `manifests/study` | u8 | manifests | [`StudyFilter`] |
//! | `manifests/has_layers` | u8 | manifests | 1: `layers` was given |
//! | `manifests/config` | u32 | manifests | row in `configs` |
//! | `manifests/layers`, `manifests/entries` | u64 | manifests + 1 | offsets into `layers`, `entries` |
//! | `layers/digest`, `layers/media_type` | u32 | layers | ids |
//! | `layers/size` | u64 | layers | compressed size, bytes |
//! | `layers/flags` | u8 | layers | 1 foreign, 2 size invalid |
//! | `entries/digest` (of `manifest_digests`), `entries/media_type`, `entries/platform` | u32 | index entries | ids |
//! | `entries/size` | u64 | index entries | size of the manifest, bytes |
//! | `configs/repository`, `configs/tag`, `configs/created` (of `dates`), `configs/platform` | u32 | configs | ids |
//! | `configs/flags` | u8 | configs | 1 has history, 2 has rootfs, 4 no manifest |
//! | `configs/history`, `configs/diff_ids` | u64 | configs + 1 | offsets into `history`, `config_diff_ids` |
//! | `history/created_by` (of `commands`), `history/comment` | u32 | history entries | ids |
//! | `history/created` | i64 | history entries | seconds since 1970 UTC, -2^63 if unknown |
//! | `history/empty_layer` | u8 | history entries | 1: the step made no layer |
//! | `config_diff_ids` | u32 | diff_ids of all configs | ids |
//! | `oddities/counts` | u64 | kinds | how often each [`Oddity`] was seen |
//! | `oddities/kind` | u8 | examples | [`Oddity`] |
//! | `oddities/file`, `oddities/tag`, `oddities/field` | S | examples | where |

use super::{Corpus, Error, Example, Oddities, Oddity, Provenance, StudyFilter};
use crate::h5::{self, Reader, Writer};
use crate::strings::{NONE, StringTable};
use rayon::prelude::*;
use std::path::Path;

/// Kind of a corpus file.
const KIND: &str = "corpus";
/// Layout version of a corpus file.
const FORMAT_VERSION: u64 = 2;

/// Calls `$with!(name, place)` for every number array of a corpus, in the order of the file.
macro_rules! each_array {
    ($c:expr, $with:ident) => {
        $with!("digest_empty", $c.digest_empty);
        $with!("manifests/repository", $c.manifests.repository);
        $with!("manifests/tag", $c.manifests.tag);
        $with!("manifests/media_type", $c.manifests.media_type);
        $with!("manifests/schema_version", $c.manifests.schema_version);
        $with!("manifests/study", $c.manifests.study);
        $with!("manifests/has_layers", $c.manifests.has_layers);
        $with!("manifests/config", $c.manifests.config);
        $with!("manifests/layers", $c.manifests.layers);
        $with!("manifests/entries", $c.manifests.entries);
        $with!("layers/digest", $c.layers.digest);
        $with!("layers/size", $c.layers.size);
        $with!("layers/media_type", $c.layers.media_type);
        $with!("layers/flags", $c.layers.flags);
        $with!("entries/digest", $c.entries.digest);
        $with!("entries/media_type", $c.entries.media_type);
        $with!("entries/size", $c.entries.size);
        $with!("entries/platform", $c.entries.platform);
        $with!("configs/repository", $c.configs.repository);
        $with!("configs/tag", $c.configs.tag);
        $with!("configs/created", $c.configs.created);
        $with!("configs/platform", $c.configs.platform);
        $with!("configs/flags", $c.configs.flags);
        $with!("configs/history", $c.configs.history);
        $with!("configs/diff_ids", $c.configs.diff_ids);
        $with!("history/created_by", $c.history.created_by);
        $with!("history/comment", $c.history.comment);
        $with!("history/created", $c.history.created);
        $with!("history/empty_layer", $c.history.empty_layer);
        $with!("config_diff_ids", $c.config_diff_ids);
    };
}

/// Calls `$with!(name, place)` for every string table of a corpus.
macro_rules! each_table {
    ($c:expr, $with:ident) => {
        $with!("repositories", $c.repositories);
        $with!("tags", $c.tags);
        $with!("digests", $c.digests);
        $with!("manifest_digests", $c.manifest_digests);
        $with!("media_types", $c.media_types);
        $with!("platforms", $c.platforms);
        $with!("dates", $c.dates);
        $with!("commands", $c.commands);
        $with!("comments", $c.comments);
        $with!("diff_ids", $c.diff_ids);
    };
}

impl Corpus {
    /// Identifies the content: BLAKE3 (64 hex digits) over `NAME NUL` and the BLAKE3 of each
    /// array's little-endian bytes, in the order of the file, string tables (bytes, offsets)
    /// first. Oddities and provenance do not count: the same images from a directory or an
    /// archive are the same corpus.
    pub fn id(&self) -> String {
        let mut arrays: Vec<(&str, &[u8])> = Vec::new();
        macro_rules! add_table {
            ($name:expr, $table:expr) => {
                arrays.push((concat!($name, "/bytes"), $table.bytes()));
                arrays.push((concat!($name, "/offsets"), bytemuck::cast_slice($table.offsets())));
            };
        }
        macro_rules! add_array {
            ($name:expr, $array:expr) => {
                arrays.push(($name, bytemuck::cast_slice(&$array)))
            };
        }
        each_table!(self, add_table);
        each_array!(self, add_array);
        let sums: Vec<_> = arrays.par_iter().with_max_len(1).map(|(_, bytes)| blake3::hash(bytes)).collect();
        let mut all = blake3::Hasher::new();
        for ((name, _), sum) in arrays.iter().zip(&sums) {
            all.update(name.as_bytes());
            all.update(&[0]);
            all.update(sum.as_bytes());
        }
        all.finalize().to_hex().to_string()
    }

    /// Bytes of all arrays: about the size of the file, and of the corpus in memory.
    pub fn bytes(&self) -> u64 {
        let mut bytes = 0;
        macro_rules! add_table {
            ($name:expr, $table:expr) => {
                bytes += $table.bytes().len() + size_of_val($table.offsets())
            };
        }
        macro_rules! add_array {
            ($name:expr, $array:expr) => {
                bytes += size_of_val($array.as_slice())
            };
        }
        each_table!(self, add_table);
        each_array!(self, add_array);
        bytes as u64
    }

    /// Writes the corpus file. Equal corpora give equal bytes.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let w = Writer::create(path, KIND, FORMAT_VERSION)?;
        // Hashing takes as long as writing, and HDF5 writes with one thread.
        let (id, written) = rayon::join(|| self.id(), || self.write(&w));
        written?;
        w.attribute("corpus_id", &id)?;
        Ok(w.finish()?)
    }

    fn write(&self, w: &Writer) -> Result<(), Error> {
        w.attribute("source", &self.provenance.source)?;
        w.attribute("source_sha256", &self.provenance.source_sha256)?;
        w.number("files", self.provenance.files)?;
        w.number("source_bytes", self.provenance.bytes)?;
        w.number("complete", u64::from(self.provenance.complete))?;
        if let Some(seed) = self.provenance.synthetic_seed {
            w.attribute("synthetic", &format!("seed {seed}"))?;
            w.number("synthetic_seed", seed)?;
        }
        macro_rules! write_table {
            ($name:expr, $table:expr) => {
                w.strings($name, &$table)?
            };
        }
        macro_rules! write_array {
            ($name:expr, $array:expr) => {
                w.array($name, &$array)?
            };
        }
        each_table!(self, write_table);
        each_array!(self, write_array);
        let examples = self.oddities.examples();
        let kinds: Vec<u8> = examples.iter().map(|e| e.kind as u8).collect();
        w.array("oddities/counts", self.oddities.counts())?;
        w.array("oddities/kind", &kinds)?;
        w.strings("oddities/file", &examples.iter().map(|e| &e.file).collect())?;
        w.strings("oddities/tag", &examples.iter().map(|e| &e.tag).collect())?;
        w.strings("oddities/field", &examples.iter().map(|e| &e.field).collect())?;
        Ok(())
    }

    /// Reads a corpus file and checks that it is sound.
    ///
    /// # Errors
    /// [`Error::File`] if it is no corpus file or cannot be read, [`Error::Unsound`] if it
    /// contradicts itself.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let r = Reader::open(path, KIND, FORMAT_VERSION)?;
        let mut corpus = Self::default();
        macro_rules! read_table {
            ($name:expr, $table:expr) => {
                $table = r.strings($name)?
            };
        }
        macro_rules! read_array {
            ($name:expr, $array:expr) => {
                $array = r.array($name)?
            };
        }
        each_table!(corpus, read_table);
        each_array!(corpus, read_array);
        corpus.provenance = read_provenance(&r)?;
        let refuse = |reason: String| Error::Unsound { path: path.to_owned(), reason };
        corpus.oddities =
            read_oddities(&r)?.ok_or_else(|| refuse("its oddities do not fit together".into()))?;
        corpus.check().map_err(refuse)?;
        if r.attribute("corpus_id")? != corpus.id() {
            return Err(refuse("its content is not what its corpus_id says".into()));
        }
        Ok(corpus)
    }

    /// Reads what an image table needs, and the file's [`Corpus::id`]: manifests, layers and their
    /// dates. Histories, index entries and whatever else belongs to configs stay empty.
    ///
    /// # Errors
    /// As [`Corpus::load`].
    pub fn load_images(path: &Path) -> Result<(Self, String), Error> {
        let r = Reader::open(path, KIND, FORMAT_VERSION)?;
        let mut corpus = Self {
            repositories: r.strings("repositories")?,
            tags: r.strings("tags")?,
            digests: r.strings("digests")?,
            media_types: r.strings("media_types")?,
            dates: r.strings("dates")?,
            digest_empty: r.array("digest_empty")?,
            ..Self::default()
        };
        let (m, layers) = (&mut corpus.manifests, &mut corpus.layers);
        m.repository = r.array("manifests/repository")?;
        m.tag = r.array("manifests/tag")?;
        m.media_type = r.array("manifests/media_type")?;
        m.schema_version = r.array("manifests/schema_version")?;
        m.study = r.array("manifests/study")?;
        m.has_layers = r.array("manifests/has_layers")?;
        m.config = r.array("manifests/config")?;
        m.layers = r.array("manifests/layers")?;
        layers.digest = r.array("layers/digest")?;
        layers.size = r.array("layers/size")?;
        layers.media_type = r.array("layers/media_type")?;
        layers.flags = r.array("layers/flags")?;
        corpus.configs.created = r.array("configs/created")?;
        corpus.provenance = read_provenance(&r)?;
        corpus.check_images().map_err(|reason| Error::Unsound { path: path.to_owned(), reason })?;
        Ok((corpus, r.attribute("corpus_id")?))
    }

    /// Reads what histories need, and the file's [`Corpus::id`]: repositories, tags, configs, their
    /// history entries and commands. Manifests, layers, comments and whatever else stay empty.
    ///
    /// # Errors
    /// As [`Corpus::load`].
    pub fn load_histories(path: &Path) -> Result<(Self, String), Error> {
        let r = Reader::open(path, KIND, FORMAT_VERSION)?;
        let mut corpus = Self {
            repositories: r.strings("repositories")?,
            tags: r.strings("tags")?,
            commands: r.strings("commands")?,
            ..Self::default()
        };
        let c = &mut corpus.configs;
        c.repository = r.array("configs/repository")?;
        c.tag = r.array("configs/tag")?;
        c.flags = r.array("configs/flags")?;
        c.history = r.array("configs/history")?;
        corpus.history.created_by = r.array("history/created_by")?;
        corpus.provenance = read_provenance(&r)?;
        corpus.check_histories().map_err(|reason| Error::Unsound { path: path.to_owned(), reason })?;
        Ok((corpus, r.attribute("corpus_id")?))
    }

    fn check_histories(&self) -> Result<(), String> {
        let c = &self.configs;
        let configs = c.tag.len();
        ids("configs/repository", &c.repository, configs, self.repositories.len(), false)?;
        ids("configs/tag", &c.tag, configs, self.tags.len(), false)?;
        length("configs/flags", c.flags.len(), configs)?;
        offsets("configs/history", &c.history, configs, self.history.created_by.len())?;
        let steps = self.history.created_by.len();
        ids("history/created_by", &self.history.created_by, steps, self.commands.len(), true)
    }

    /// Checks that all ids are in range, all offsets describe their lists, and all columns of a
    /// table have one length.
    ///
    /// # Errors
    /// Says which array is wrong.
    pub fn check(&self) -> Result<(), String> {
        self.check_images()?;
        self.check_configs()
    }

    fn check_images(&self) -> Result<(), String> {
        let (m, c) = (&self.manifests, &self.configs);
        let manifests = m.tag.len();
        ids("manifests/repository", &m.repository, manifests, self.repositories.len(), false)?;
        ids("manifests/tag", &m.tag, manifests, self.tags.len(), false)?;
        ids("manifests/media_type", &m.media_type, manifests, self.media_types.len(), true)?;
        ids("manifests/config", &m.config, manifests, c.created.len(), true)?;
        length("manifests/schema_version", m.schema_version.len(), manifests)?;
        values("manifests/study", &m.study, manifests, |v| StudyFilter::from_u8(v).is_some())?;
        values("manifests/has_layers", &m.has_layers, manifests, |v| v <= 1)?;
        offsets("manifests/layers", &m.layers, manifests, self.layers.digest.len())?;
        let layers = self.layers.digest.len();
        ids("layers/digest", &self.layers.digest, layers, self.digests.len(), false)?;
        ids("layers/media_type", &self.layers.media_type, layers, self.media_types.len(), true)?;
        length("layers/size", self.layers.size.len(), layers)?;
        if self.layers.size.iter().any(|size| i64::try_from(*size).is_err()) {
            return Err("layers/size holds a size beyond 2^63 - 1".into());
        }
        length("layers/flags", self.layers.flags.len(), layers)?;
        values("digest_empty", &self.digest_empty, self.digests.len(), |v| v <= 1)?;
        ids("configs/created", &c.created, c.created.len(), self.dates.len(), true)
    }

    fn check_configs(&self) -> Result<(), String> {
        let (m, c) = (&self.manifests, &self.configs);
        offsets("manifests/entries", &m.entries, m.tag.len(), self.entries.digest.len())?;
        let entries = self.entries.digest.len();
        ids("entries/digest", &self.entries.digest, entries, self.manifest_digests.len(), false)?;
        ids("entries/media_type", &self.entries.media_type, entries, self.media_types.len(), true)?;
        ids("entries/platform", &self.entries.platform, entries, self.platforms.len(), true)?;
        length("entries/size", self.entries.size.len(), entries)?;
        let configs = c.tag.len();
        self.check_histories()?;
        length("configs/created", c.created.len(), configs)?;
        ids("configs/platform", &c.platform, configs, self.platforms.len(), true)?;
        offsets("configs/diff_ids", &c.diff_ids, configs, self.config_diff_ids.len())?;
        let steps = self.history.created_by.len();
        ids("history/comment", &self.history.comment, steps, self.comments.len(), true)?;
        length("history/created", self.history.created.len(), steps)?;
        values("history/empty_layer", &self.history.empty_layer, steps, |v| v <= 1)?;
        let diff_ids = self.config_diff_ids.len();
        ids("config_diff_ids", &self.config_diff_ids, diff_ids, self.diff_ids.len(), false)
    }
}

fn length(name: &str, found: usize, wanted: usize) -> Result<(), String> {
    if found == wanted { Ok(()) } else { Err(format!("{name} has {found} elements instead of {wanted}")) }
}

fn ids(name: &str, ids: &[u32], wanted: usize, limit: usize, may_lack: bool) -> Result<(), String> {
    length(name, ids.len(), wanted)?;
    match ids.iter().position(|id| *id as usize >= limit && !(may_lack && *id == NONE)) {
        Some(row) => Err(format!("{name} row {row} points at {}, but there are {limit}", ids[row])),
        None => Ok(()),
    }
}

fn values(name: &str, values: &[u8], wanted: usize, valid: impl Fn(u8) -> bool) -> Result<(), String> {
    length(name, values.len(), wanted)?;
    match values.iter().position(|v| !valid(*v)) {
        Some(row) => Err(format!("{name} row {row} has the unknown value {}", values[row])),
        None => Ok(()),
    }
}

fn offsets(name: &str, offsets: &[u64], rows: usize, limit: usize) -> Result<(), String> {
    // A corpus without rows may have no offsets at all.
    if rows == 0 && offsets.is_empty() && limit == 0 {
        return Ok(());
    }
    length(name, offsets.len(), rows + 1)?;
    let sound = offsets[0] == 0 && offsets[rows] == limit as u64 && offsets.is_sorted();
    if sound { Ok(()) } else { Err(format!("{name} does not describe {limit} elements")) }
}

impl Provenance {
    /// Reads that of a corpus file.
    ///
    /// # Errors
    /// As [`Corpus::load`].
    pub fn load(path: &Path) -> Result<Self, Error> {
        read_provenance(&Reader::open(path, KIND, FORMAT_VERSION)?)
    }
}

fn read_provenance(r: &Reader) -> Result<Provenance, Error> {
    Ok(Provenance {
        source: r.attribute("source")?,
        source_sha256: r.attribute("source_sha256")?,
        files: r.number("files")?,
        bytes: r.number("source_bytes")?,
        complete: r.number("complete")? == 1,
        synthetic_seed: synthetic_seed(r)?,
    })
}

fn synthetic_seed(r: &Reader) -> Result<Option<u64>, Error> {
    // Only a missing label means a real corpus.
    if r.attribute("synthetic").is_err() {
        return Ok(None);
    }
    Ok(Some(r.number("synthetic_seed")?))
}

fn read_oddities(r: &Reader) -> Result<Option<Oddities>, h5::Error> {
    let kinds: Vec<u8> = r.array("oddities/kind")?;
    let columns: [StringTable; 3] =
        [r.strings("oddities/file")?, r.strings("oddities/tag")?, r.strings("oddities/field")?];
    let counts = r.array("oddities/counts")?;
    if columns.iter().any(|c| c.len() != kinds.len()) {
        return Ok(None);
    }
    let [files, tags, fields] = &columns;
    let example = |(kind, i): (&u8, u32)| {
        Some(Example {
            kind: Oddity::from_u8(*kind)?,
            file: files.get(i).to_owned(),
            tag: tags.get(i).to_owned(),
            field: fields.get(i).to_owned(),
        })
    };
    let examples: Option<Vec<_>> = kinds.iter().zip(0..).map(example).collect();
    Ok(examples.and_then(|examples| Oddities::from_parts(counts, examples)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::builder::Builder;
    use crate::corpus::merge::merge;
    use proptest::prelude::*;

    fn some(images: &[(u8, u8, u32)], seed: Option<u64>) -> Corpus {
        let mut builder = Builder::new();
        for (i, (tag, digest, size)) in images.iter().enumerate() {
            let document = format!(
                r#"{{"manifests": {{"t{tag}": {{"mediaType": "m{tag}", "schemaVersion": 2, "layers": [
                    {{"digest": "d:{digest}", "size": {size}}}]}}}}, "configs": {{"t{digest}": {{"created": "x{size}",
                    "os": "o{tag}", "rootfs": {{"diff_ids": ["f{digest}"]}},
                    "history": [{{"created_by": "c{tag}"}}, {{"comment": "é"}}]}}}}}}"#
            );
            let path = format!("r{i}/manifests-config-layers.json");
            builder.add(path.as_bytes(), i as u64, document.as_bytes(), [0; 32]);
        }
        let mut corpus = merge(&[builder.finish()], Oddities::default());
        corpus.provenance.source = "a source".into();
        corpus.provenance.synthetic_seed = seed;
        corpus
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20))]
        #[test]
        fn what_is_saved_is_loaded(
            images in prop::collection::vec(any::<(u8, u8, u32)>(), 0..8),
            seed in any::<Option<u64>>(),
        ) {
            let corpus = some(&images, seed);
            let dir = tempfile::tempdir().unwrap();
            let (one, two) = (dir.path().join("one.h5"), dir.path().join("two.h5"));
            corpus.save(&one).unwrap();
            let back = Corpus::load(&one).unwrap();
            prop_assert_eq!(&back, &corpus);
            back.save(&two).unwrap();
            prop_assert_eq!(std::fs::read(one).unwrap(), std::fs::read(two).unwrap());
        }
    }

    #[test]
    fn the_id_is_that_of_the_images() {
        let corpus = some(&[(1, 2, 3)], None);
        let mut other = corpus.clone();
        other.provenance.source = "another".into();
        other.oddities = Oddities::default();
        assert_eq!(corpus.id(), other.id());
        other.layers.size[0] += 1;
        assert_ne!(corpus.id(), other.id());
    }

    #[test]
    fn a_changed_byte_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("corpus.h5");
        some(&[(1, 2, 3)], None).save(&path).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        let at = bytes.windows(4).position(|w| w == b"d:2t" || w == b"d:2\0").unwrap();
        bytes[at + 2] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let error = Corpus::load(&path).unwrap_err();
        assert!(matches!(error, Error::Unsound { .. }), "{error}");
    }

    #[test]
    fn unsound_files_are_refused() {
        let spoil: [fn(&mut Corpus); 8] = [
            |c| c.layers.digest[0] = 99,
            |c| c.layers.size[0] = 1 << 63,
            |c| c.manifests.study[0] = 9,
            |c| c.manifests.layers[1] = 7,
            |c| c.manifests.config[0] = 5,
            |c| c.configs.history.clear(),
            |c| c.history.empty_layer.truncate(1),
            |c| c.config_diff_ids[0] = NONE,
        ];
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("corpus.h5");
        for spoil in spoil {
            let mut corpus = some(&[(1, 2, 3), (4, 5, 6)], None);
            spoil(&mut corpus);
            corpus.save(&path).unwrap();
            let error = Corpus::load(&path).unwrap_err();
            assert!(matches!(error, Error::Unsound { .. }), "{error}");
        }
    }
}
