//! Shards -> one corpus, whose ids depend on the source alone, not on who read which file.

use super::shard::{KINDS, Shard, Table};
use super::{Corpus, EMPTY_DIFF_IDS, Example, Oddities, Oddity, Provenance, is_known_empty, repository_of};
use crate::strings::{Interner, NONE, StringId, StringTable};
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::ops::Range;

/// A file's place: shard, and number in it.
type At = (usize, usize);

/// Merges shards in corpus order. Of files with one path, the last in the source counts; `source`
/// holds what was odd about the source itself.
pub(super) fn merge(shards: &[Shard], source: Oddities) -> Corpus {
    let mut repeated = Oddities::default();
    let (all, read) = corpus_order(shards, &mut repeated);
    let path = |at: At| shards[at.0].records.files.path(at.1);
    let repositories: StringTable =
        read.iter().map(|at| String::from_utf8_lossy(repository_of(path(*at)))).collect();
    let mut corpus = Corpus { repositories, ..Corpus::default() };

    let lists = Lists::of(shards, &read);
    fill_strings(&mut corpus, shards, &lists);
    fill_numbers(&mut corpus, shards, &read, &lists);
    corpus.digest_empty = empty_digests(&corpus);

    corpus.oddities = oddities(shards, &all);
    corpus.oddities.extend(&repeated);
    corpus.oddities.extend(&source);
    note_aliases(&mut corpus);
    let size = |at: &At| shards[at.0].records.files.bytes[at.1];
    corpus.provenance = Provenance {
        files: read.len() as u64,
        bytes: read.iter().map(size).sum(),
        complete: !corpus.oddities.any_loss(),
        ..Provenance::default()
    };
    corpus
}

/// All files that count, by ascending path, and those of them that could be read.
fn corpus_order(shards: &[Shard], repeated: &mut Oddities) -> (Vec<At>, Vec<At>) {
    let files = |at: &At| &shards[at.0].records.files;
    let mut all: Vec<At> = shards
        .iter()
        .enumerate()
        .flat_map(|(s, shard)| (0..shard.records.files.len()).map(move |f| (s, f)))
        .collect();
    let order = |at: &At| (files(at).path(at.1), std::cmp::Reverse(files(at).ordinal[at.1]));
    all.sort_unstable_by(|a, b| order(a).cmp(&order(b)));
    all.dedup_by(|later, kept| {
        let same = files(later).path(later.1) == files(kept).path(kept.1);
        if same {
            repeated.note(Oddity::RepeatedFile, || Example {
                kind: Oddity::RepeatedFile,
                file: String::from_utf8_lossy(files(kept).path(kept.1)).into_owned(),
                tag: String::new(),
                field: "an earlier member of the same path is not counted".into(),
            });
        }
        same
    });
    let read = all.iter().copied().filter(|at| files(at).read[at.1] == 1).collect();
    (all, read)
}

/// For each shard-local list: the pieces of it, in corpus order.
#[derive(Default)]
struct Lists {
    manifests: Vec<(usize, Range<usize>)>,
    layers: Vec<(usize, Range<usize>)>,
    entries: Vec<(usize, Range<usize>)>,
    configs: Vec<(usize, Range<usize>)>,
    history: Vec<(usize, Range<usize>)>,
    diff_ids: Vec<(usize, Range<usize>)>,
}

impl Lists {
    fn of(shards: &[Shard], read: &[At]) -> Self {
        let mut lists = Self::default();
        let sub =
            |offsets: &[u64], rows: &Range<usize>| offsets[rows.start] as usize..offsets[rows.end] as usize;
        for &(s, f) in read {
            let r = &shards[s].records;
            let (m, c) = (r.files.manifests(f), r.files.configs(f));
            lists.layers.push((s, sub(&r.manifests.layers, &m)));
            lists.entries.push((s, sub(&r.manifests.entries, &m)));
            lists.history.push((s, sub(&r.configs.history, &c)));
            lists.diff_ids.push((s, sub(&r.configs.diff_ids, &c)));
            lists.manifests.push((s, m));
            lists.configs.push((s, c));
        }
        lists
    }
}

/// A column of string ids: how to find it in a shard, and which pieces of it to take.
struct Column<'a> {
    of: fn(&Shard) -> &[StringId],
    pieces: &'a [(usize, Range<usize>)],
}

/// Gives the strings of one table their final ids, by first occurrence: file by file, and in a
/// file column by column. Returns the table and the columns.
fn renumber(shards: &[Shard], table: Table, columns: &[Column]) -> (StringTable, Vec<Vec<StringId>>) {
    let mut interner = Interner::default();
    let locals: Vec<_> = shards.iter().map(|s| &s.tables[table as usize]).collect();
    let mut final_ids: Vec<_> = locals.iter().map(|t| vec![NONE; t.len()]).collect();
    let rows = |column: &Column| column.pieces.iter().map(|(_, r)| r.len()).sum();
    let mut out: Vec<Vec<StringId>> = columns.iter().map(|c| Vec::with_capacity(rows(c))).collect();
    let files = columns.first().map_or(0, |c| c.pieces.len());
    for file in 0..files {
        for (column, out) in columns.iter().zip(&mut out) {
            let (s, range) = &column.pieces[file];
            let (ids, local) = (&mut final_ids[*s], locals[*s]);
            out.extend((column.of)(&shards[*s])[range.clone()].iter().map(|&id| {
                if id == NONE {
                    return NONE;
                }
                let known = &mut ids[id as usize];
                if *known == NONE {
                    *known = interner.intern(local.get(id));
                }
                *known
            }));
        }
    }
    (interner.into_table(), out)
}

fn fill_strings(corpus: &mut Corpus, shards: &[Shard], lists: &Lists) {
    macro_rules! column {
        ($list:ident, $($field:tt)+) => {
            Column { of: |s| &s.records.$($field)+, pieces: &lists.$list }
        };
    }
    // The largest first, so that the threads end at about the same time.
    let jobs = [
        (Table::Commands, vec![column!(history, history.created_by)]),
        (Table::DiffIds, vec![column!(diff_ids, config_diff_ids)]),
        (Table::Digests, vec![column!(layers, layers.digest)]),
        (Table::Comments, vec![column!(history, history.comment)]),
        (
            Table::MediaTypes,
            vec![
                column!(manifests, manifests.media_type),
                column!(layers, layers.media_type),
                column!(entries, entries.media_type),
            ],
        ),
        (Table::ManifestDigests, vec![column!(entries, entries.digest)]),
        (Table::Platforms, vec![column!(entries, entries.platform), column!(configs, configs.platform)]),
        (Table::Dates, vec![column!(configs, configs.created)]),
        (Table::Tags, vec![column!(manifests, manifests.tag), column!(configs, configs.tag)]),
    ];
    let done: Vec<_> = jobs
        .into_par_iter()
        .with_max_len(1)
        .map(|(table, columns)| (table, renumber(shards, table, &columns)))
        .collect();
    for (table, (strings, columns)) in done {
        let mut columns = columns.into_iter();
        let mut next = || columns.next().unwrap_or_default();
        match table {
            Table::Tags => {
                corpus.tags = strings;
                (corpus.manifests.tag, corpus.configs.tag) = (next(), next());
            }
            Table::Digests => {
                corpus.digests = strings;
                corpus.layers.digest = next();
            }
            Table::ManifestDigests => {
                corpus.manifest_digests = strings;
                corpus.entries.digest = next();
            }
            Table::MediaTypes => {
                corpus.media_types = strings;
                corpus.manifests.media_type = next();
                corpus.layers.media_type = next();
                corpus.entries.media_type = next();
            }
            Table::Platforms => {
                corpus.platforms = strings;
                (corpus.entries.platform, corpus.configs.platform) = (next(), next());
            }
            Table::Dates => {
                corpus.dates = strings;
                corpus.configs.created = next();
            }
            Table::Commands => {
                corpus.commands = strings;
                corpus.history.created_by = next();
            }
            Table::Comments => {
                corpus.comments = strings;
                corpus.history.comment = next();
            }
            Table::DiffIds => {
                corpus.diff_ids = strings;
                corpus.config_diff_ids = next();
            }
        }
    }
}

/// Copies the pieces of a numeric column one after the other.
fn join<T: Copy>(shards: &[Shard], pieces: &[(usize, Range<usize>)], of: fn(&Shard) -> &[T]) -> Vec<T> {
    let mut out = Vec::with_capacity(pieces.iter().map(|(_, r)| r.len()).sum());
    for (s, range) in pieces {
        out.extend_from_slice(&of(&shards[*s])[range.clone()]);
    }
    out
}

/// Offsets of the joined rows of a CSR list.
fn join_offsets(shards: &[Shard], pieces: &[(usize, Range<usize>)], of: fn(&Shard) -> &[u64]) -> Vec<u64> {
    let mut out = vec![0];
    let mut base = 0;
    for (s, range) in pieces {
        let offsets = &of(&shards[*s])[range.start..=range.end];
        out.extend(offsets[1..].iter().map(|o| base + o - offsets[0]));
        base += offsets[offsets.len() - 1] - offsets[0];
    }
    out
}

fn fill_numbers(corpus: &mut Corpus, shards: &[Shard], read: &[At], lists: &Lists) {
    let manifests = &mut corpus.manifests;
    manifests.schema_version = join(shards, &lists.manifests, |s| &s.records.manifests.schema_version);
    manifests.study = join(shards, &lists.manifests, |s| &s.records.manifests.study);
    manifests.has_layers = join(shards, &lists.manifests, |s| &s.records.manifests.has_layers);
    manifests.config = join(shards, &lists.manifests, |s| &s.records.manifests.config);
    manifests.layers = join_offsets(shards, &lists.manifests, |s| &s.records.manifests.layers);
    manifests.entries = join_offsets(shards, &lists.manifests, |s| &s.records.manifests.entries);
    corpus.layers.size = join(shards, &lists.layers, |s| &s.records.layers.size);
    corpus.layers.flags = join(shards, &lists.layers, |s| &s.records.layers.flags);
    corpus.entries.size = join(shards, &lists.entries, |s| &s.records.entries.size);
    let configs = &mut corpus.configs;
    configs.flags = join(shards, &lists.configs, |s| &s.records.configs.flags);
    configs.history = join_offsets(shards, &lists.configs, |s| &s.records.configs.history);
    configs.diff_ids = join_offsets(shards, &lists.configs, |s| &s.records.configs.diff_ids);
    corpus.history.created = join(shards, &lists.history, |s| &s.records.history.created);
    corpus.history.empty_layer = join(shards, &lists.history, |s| &s.records.history.empty_layer);

    let (mut manifest, mut config) = (0, 0);
    for file in 0..read.len() {
        let (m, c) = (&lists.manifests[file].1, &lists.configs[file].1);
        manifests.repository.resize(manifest + m.len(), file as u32);
        configs.repository.resize(config + c.len(), file as u32);
        for index in manifests.config[manifest..manifest + m.len()].iter_mut().filter(|i| **i != NONE) {
            *index = *index - c.start as u32 + config as u32;
        }
        manifest += m.len();
        config += c.len();
    }
}

/// The largest stored size of an empty archive, in bytes: 1,024 if it is not compressed, 10,240 as GNU tar
/// pads it.
const LARGEST_EMPTY: u64 = 10_240;

/// One per digest: 1 where it is known as an empty layer, is an empty diff_id itself (an
/// uncompressed layer), or stands where the config of its image has an empty diff_id and is as small
/// as an empty archive is: one wrong config shall not empty a layer of all images.
fn empty_digests(corpus: &Corpus) -> Vec<u8> {
    let mut empty: Vec<u8> = corpus.digests.iter().map(|d| u8::from(is_known_empty(d))).collect();
    let ids = 0..corpus.diff_ids.len() as u32;
    let empty_diff_ids: Vec<u32> =
        ids.filter(|id| EMPTY_DIFF_IDS.contains(&corpus.diff_ids.get(*id))).collect();
    if empty_diff_ids.is_empty() {
        return empty;
    }
    for m in 0..corpus.manifest_count() {
        let Some(config) = corpus.config_of(m) else { continue };
        let (layers, diff_ids) = (corpus.layers_of(m), corpus.diff_ids_of(config));
        if layers.len() == diff_ids.len() {
            for (layer, diff_id) in layers.zip(diff_ids) {
                let small = corpus.layers.size[layer] <= LARGEST_EMPTY;
                if small && empty_diff_ids.contains(&corpus.config_diff_ids[diff_id]) {
                    empty[corpus.layers.digest[layer] as usize] = 1;
                }
            }
        }
    }
    empty
}

/// The oddities of all files, with the first examples in corpus order.
fn oddities(shards: &[Shard], all: &[At]) -> Oddities {
    let mut counts = vec![0u64; KINDS];
    let mut examples = Vec::new();
    let mut wanted = [Oddities::EXAMPLES; KINDS];
    for &(s, f) in all {
        let r = &shards[s].records;
        for (sum, n) in counts.iter_mut().zip(&r.files.odd[f * KINDS..]) {
            *sum += u64::from(*n);
        }
        let first = r.notes.partition_point(|note| (note.file as usize) < f);
        for note in r.notes[first..].iter().take_while(|note| note.file as usize == f) {
            let kind = note.kind as usize;
            let Some(oddity) = Oddity::ALL.get(kind).filter(|_| wanted[kind] > 0) else { continue };
            wanted[kind] -= 1;
            let text = |a: u32, b: u32| String::from_utf8_lossy(&r.text[a as usize..b as usize]).into_owned();
            examples.push(Example {
                kind: *oddity,
                file: String::from_utf8_lossy(r.files.path(f)).into_owned(),
                tag: text(note.tag_start, note.field_start),
                field: text(note.field_start, note.end),
            });
        }
    }
    Oddities::from_parts(counts, examples).unwrap_or_default()
}

/// Notes each repository that stands in the corpus under another name, too.
fn note_aliases(corpus: &mut Corpus) {
    let mut names: HashMap<&str, u32> = HashMap::new();
    for name in corpus.repositories.iter() {
        *names.entry(plain_name(name)).or_default() += 1;
    }
    let mut aliases = Oddities::default();
    for name in corpus.repositories.iter().filter(|name| names[plain_name(name)] > 1) {
        aliases.note(Oddity::RepositoryAlias, || Example {
            kind: Oddity::RepositoryAlias,
            file: name.to_owned(),
            tag: String::new(),
            field: format!("docker takes it for {}", plain_name(name)),
        });
    }
    corpus.oddities.extend(&aliases);
}

/// A repository name without the parts that docker adds by default.
fn plain_name(name: &str) -> &str {
    let host = ["docker.io/", "index.docker.io/"].iter().find_map(|h| name.strip_prefix(h));
    let name = host.unwrap_or(name);
    name.strip_prefix("library/").unwrap_or(name)
}

/// Sha256 of a directory source: over the lines `BLAKE3  PATH` of its corpus files, by path bytes.
/// A file that cannot be read counts as 64 zeros.
pub(super) fn directory_sha256(shards: &[Shard]) -> String {
    let (all, _) = corpus_order(shards, &mut Oddities::default());
    let mut sha256 = Sha256::new();
    for (s, f) in all {
        let files = &shards[s].records.files;
        sha256.update(hex(&files.blake3[f * 32..f * 32 + 32]));
        sha256.update("  ");
        sha256.update(files.path(f));
        sha256.update("\n");
    }
    hex(&sha256.finalize())
}

/// Lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::StudyFilter;
    use crate::corpus::builder::Builder;
    use crate::stats::Stats;

    #[test]
    fn empty_diff_ids_are_of_nothing() {
        let of = |zeros: usize| format!("sha256:{}", hex(&Sha256::digest(vec![0; zeros])));
        assert_eq!(EMPTY_DIFF_IDS.map(str::to_owned), [of(1_024), of(10_240)]);
    }

    #[test]
    fn empty_layers_are_known_by_their_configs() {
        let [empty, padded] = EMPTY_DIFF_IDS;
        let layer = |digest: &str, size: u64| format!(r#"{{"digest": "sha256:{digest}", "size": {size}}}"#);
        let layers = [layer("aa", 32), layer("bb", 49), layer("cc", 40), layer("dd", 99_999)].join(", ");
        let document = format!(
            r#"{{"manifests": {{
                "some": {{"mediaType": "m", "schemaVersion": 2, "layers": [{layers}]}},
                "none": {{"mediaType": "m", "schemaVersion": 2, "layers": []}}}},
               "configs": {{
                "some": {{"rootfs": {{"diff_ids": ["{empty}", "{padded}", "sha256:ff", "{padded}"]}}}},
                "none": {{"rootfs": {{"diff_ids": []}}}}}}}}"#
        );
        let mut builder = Builder::new();
        builder.add(b"r/manifests-config-layers.json", 0, document.as_bytes(), [0; 32]);
        let corpus = merge(&[builder.finish()], Oddities::default());
        let found = corpus.digests.iter().zip(&corpus.digest_empty);
        let empty: Vec<&str> = found.filter(|(_, empty)| **empty == 1).map(|(digest, _)| digest).collect();
        assert_eq!(empty, ["sha256:aa", "sha256:bb"]);
        // A manifest with an empty list passes the study's filter and is no image of its table.
        assert!((0..2).all(|m| corpus.study_filter(m) == StudyFilter::Kept));
        let counts = Stats::of_corpus(&corpus).manifests.unwrap();
        assert_eq!((counts.manifests, counts.kept, counts.skipped_no_layers), (2, 1, 1));
    }
}
