//! `bases.h5`.
//!
//! | dataset | shape, type | |
//! |---|---|---|
//! | `universe/bytes`, `universe/offsets` | u8; u64, paths + 1 | all paths and signs, sorted by components |
//! | `base/{name,family,version,origin,created}` | string tables, one string a base | |
//! | `base/path_offsets`, `base/paths` | u64, bases + 1; u32 | ids of each base's paths, ascending |
//! | `chain/kind` | u8, chains | 0 diff_ids, 1 layer digests, 2 `ADD file:` |
//! | `chain/family` | string table, one string a chain | |
//! | `chain/id_offsets`, `chain/ids` | u64, chains + 1; string table | identities, lowest layer first |
//! | `chain/name_offsets`, `chain/names` | u64, chains + 1; string table | images that are the chain |
//! | `sources` | string table | where all of it came from |

use super::{Base, Bases, Chain, ChainKind, Error, Provenance};
use crate::h5::{Reader, Writer};
use crate::rootfs::Universe;
use crate::strings::StringTable;
use roaring::RoaringBitmap;
use std::path::Path;

/// Layout version of `bases.h5`.
const VERSION: u64 = 2;
/// What the file says it is.
const KIND: &str = "bases";

impl Bases {
    /// Writes the database; equal content gives equal bytes.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let w = Writer::create(path, KIND, VERSION)?;
        w.array("universe/bytes", self.universe.bytes())?;
        w.array("universe/offsets", self.universe.offsets())?;
        let column = |of: fn(&Base) -> &String| self.bases.iter().map(of).collect::<StringTable>();
        w.strings("base/name", &column(|b| &b.name))?;
        w.strings("base/family", &column(|b| &b.family))?;
        w.strings("base/version", &column(|b| &b.version))?;
        w.strings("base/origin", &column(|b| &b.origin))?;
        w.strings("base/created", &column(|b| &b.created))?;
        w.array("base/path_offsets", &offsets(self.bases.iter().map(|b| b.paths.len())))?;
        w.array("base/paths", &self.bases.iter().flat_map(|b| &b.paths).collect::<Vec<u32>>())?;
        w.array("chain/kind", &self.chains.iter().map(|c| c.kind as u8).collect::<Vec<_>>())?;
        w.strings("chain/family", &self.chains.iter().map(|c| &c.family).collect())?;
        w.array("chain/id_offsets", &offsets(self.chains.iter().map(|c| c.ids.len() as u64)))?;
        w.strings("chain/ids", &self.chains.iter().flat_map(|c| &c.ids).collect())?;
        w.array("chain/name_offsets", &offsets(self.chains.iter().map(|c| c.names.len() as u64)))?;
        w.strings("chain/names", &self.chains.iter().flat_map(|c| &c.names).collect())?;
        w.strings("sources", &self.provenance.sources.iter().collect())?;
        w.number("paths", self.listed().len())?;
        w.number("bases", self.bases.len() as u64)?;
        w.number("chains", self.chains.len() as u64)?;
        Ok(w.finish()?)
    }

    /// Reads a database and checks that it is sound.
    ///
    /// # Errors
    /// [`Error::File`] if it is no such file; [`Error::Unsound`] if it contradicts itself.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let unsound = |reason: String| Error::Unsound { path: path.to_owned(), reason };
        let r = Reader::open(path, KIND, VERSION)?;
        let universe = Universe::from_parts(r.array("universe/bytes")?, r.array("universe/offsets")?)
            .map_err(|reason| unsound(format!("universe: {reason}")))?;
        let (name, family, version) =
            (r.strings("base/name")?, r.strings("base/family")?, r.strings("base/version")?);
        let (origin, created) = (r.strings("base/origin")?, r.strings("base/created")?);
        let count = name.len();
        if [&family, &version, &origin, &created].iter().any(|column| column.len() != count) {
            return Err(unsound("base: columns differ in length".into()));
        }
        if !name.iter().is_sorted_by(|a, b| a < b) {
            return Err(unsound("base/name: is not sorted, or has a name twice".into()));
        }
        let ids: Vec<u32> = r.array("base/paths")?;
        let path_rows = rows(r.array("base/path_offsets")?, count, ids.len())
            .ok_or_else(|| unsound("base/path_offsets: do not describe base/paths".into()))?;
        let text = |table: &StringTable, i: usize| table.get(i as u32).to_owned();
        let mut bases = Vec::with_capacity(count);
        for (i, row) in path_rows.enumerate() {
            let ids = &ids[row];
            if ids.last().is_some_and(|last| *last as usize >= universe.len()) {
                return Err(unsound(format!("base/paths: base {i} has a path that is not in the universe")));
            }
            let paths = RoaringBitmap::from_sorted_iter(ids.iter().copied())
                .map_err(|_| unsound(format!("base/paths: those of base {i} are not ascending")))?;
            bases.push(Base {
                name: text(&name, i),
                family: text(&family, i),
                version: text(&version, i),
                origin: text(&origin, i),
                created: text(&created, i),
                paths,
            });
        }
        let kinds: Vec<u8> = r.array("chain/kind")?;
        let (family, ids, names) =
            (r.strings("chain/family")?, r.strings("chain/ids")?, r.strings("chain/names")?);
        if family.len() != kinds.len() {
            return Err(unsound("chain: columns differ in length".into()));
        }
        let id_rows = rows(r.array("chain/id_offsets")?, kinds.len(), ids.len())
            .ok_or_else(|| unsound("chain/id_offsets: do not describe chain/ids".into()))?;
        let name_rows = rows(r.array("chain/name_offsets")?, kinds.len(), names.len())
            .ok_or_else(|| unsound("chain/name_offsets: do not describe chain/names".into()))?;
        let mut chains = Vec::with_capacity(kinds.len());
        for (i, (id_row, name_row)) in id_rows.zip(name_rows).enumerate() {
            let kind = ChainKind::from_u8(kinds[i])
                .ok_or_else(|| unsound(format!("chain/kind: {} of chain {i} is no kind", kinds[i])))?;
            chains.push(Chain {
                kind,
                ids: id_row.map(|k| text(&ids, k)).collect(),
                family: text(&family, i),
                names: name_row.map(|k| text(&names, k)).collect(),
            });
        }
        let sources = r.strings("sources")?.iter().map(str::to_owned).collect();
        Ok(Self { universe, bases, chains, provenance: Provenance { sources } })
    }
}

fn offsets(lengths: impl Iterator<Item = u64>) -> Vec<u64> {
    let ends = lengths.scan(0, |end, length| {
        *end += length;
        Some(*end)
    });
    std::iter::once(0).chain(ends).collect()
}

/// The rows that CSR offsets describe, if they are sound.
fn rows(
    offsets: Vec<u64>,
    count: usize,
    length: usize,
) -> Option<impl Iterator<Item = std::ops::Range<usize>>> {
    let sound = offsets.len() == count + 1
        && offsets[0] == 0
        && offsets[count] == length as u64
        && offsets.is_sorted();
    sound.then(|| (0..count).map(move |i| offsets[i] as usize..offsets[i + 1] as usize))
}
