//! The dense matrix of scores, or some rows of it: HDF5 shards, one for each rank, under a master.
//!
//! Every rank writes the parts of the matrix that belong to its tiles into a shard of its own: for
//! the tile of row blocks I and J the scores of I with J, and those of J with I. The tile's record in
//! the journal says where they are, so a restart, on any number of ranks, keeps what is there. In
//! the end `cosine-matrix.h5` shows all shards as one matrix. An element is the score in f64, converted once
//! ([`super::block`]): the same bits for any ranks, tiles and CPU.

use super::JOURNAL;
use super::block;
use super::files::Origin;
use super::rows::Rows;
use crate::h5::{self, Element, Patch, Shard, Writer};
use crate::pairs::{Error, Plan, Tile};
use half::f16;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Kind of the master.
pub const KIND: &str = "cosine-matrix";
/// Kind of a shard.
pub const SHARD_KIND: &str = "cosine-matrix-shard";
/// Layout version of both.
pub const FORMAT_VERSION: u64 = 1;
/// Name of the master.
pub const MASTER: &str = "cosine-matrix.h5";
/// Name of the directory with the shards.
pub const SHARDS: &str = "cosine-matrix";
/// How names of shards begin.
const PREFIX: &str = "rank-";

/// What an element is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cell {
    /// 32-bit float.
    F32,
    /// 16-bit float (IEEE 754 binary16).
    F16,
    /// One byte q: the score, cut off at -1 and 1, is (q - 128) / 127 within 0.004.
    U8,
}

impl Cell {
    /// As it is called on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::U8 => "u8",
        }
    }

    /// Bytes of an element.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
            Self::U8 => 1,
        }
    }
}

/// A score in 16 bits, rounded once: by way of an f32 that keeps the last bit set where it is not exact
/// (Boldo and Melquiond 2008, round to odd). `f16::from_f64` is off by one where it falls short of a half.
pub fn half_of(score: f64) -> f16 {
    let near = score as f32;
    let odd = match f64::from(near) {
        exact if exact == score || near.to_bits() & 1 == 1 => near,
        below if below < score => near.next_up(),
        _ => near.next_down(),
    };
    f16::from_f32(odd)
}

/// A score in one byte: 127 s + 128, rounded to the nearest integer, halves away from 128.
pub fn quantized(score: f64) -> u8 {
    (score.clamp(-1.0, 1.0) * 127.0).round() as i16 as u8 ^ 128
}

/// Which part of the matrix is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matrix {
    /// What an element is.
    pub cell: Cell,
    /// Distinct vectors whose rows are wanted, ascending.
    pub rows: Vec<u32>,
}

/// Where a tile's part of the matrix is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Rank that wrote it.
    pub rank: u32,
    /// Number of its shard.
    pub attempt: u32,
    /// First row in the shard.
    pub first: u32,
}

impl Place {
    fn file(&self) -> String {
        format!("{PREFIX}{:04}.{:03}.h5", self.rank, self.attempt)
    }
}

impl Matrix {
    /// Positions in `rows` of the wanted rows in this range.
    fn wanted(&self, range: &Range<u32>) -> Range<usize> {
        let at = |row: u32| self.rows.partition_point(|r| *r < row);
        at(range.start)..at(range.end)
    }

    /// Parts of a tile: wanted rows, all columns. Blocks on the diagonal have one, others two.
    fn parts(&self, tile: &Tile) -> Vec<(Range<usize>, Range<u32>)> {
        let mut parts = vec![(self.wanted(&tile.rows), tile.columns.clone())];
        if tile.rows != tile.columns {
            parts.push((self.wanted(&tile.columns), tile.rows.clone()));
        }
        parts.retain(|(rows, _)| !rows.is_empty());
        parts
    }

    /// Bytes of the whole matrix over `n` distinct vectors.
    pub fn bytes(&self, n: usize) -> u64 {
        self.rows.len() as u64 * n as u64 * self.cell.size() as u64
    }

    /// An edge for tiles with which every block on the diagonal is a tile of the plan: the last block
    /// may not be a single row, which has no pairs.
    pub fn tile_edge(n: u32, edge: u32) -> u32 {
        let mut edge = edge.max(2);
        while edge < n && n % edge == 1 {
            edge += 1;
        }
        edge
    }

    /// Writes `cosine-matrix.h5`, and removes shards that no tile lies in. `places` are those of all tiles.
    ///
    /// | dataset | shape | type | what |
    /// |---|---|---|---|
    /// | `scores` | r x n | f32, f16 or u8 | score of each wanted row with every distinct vector (virtual) |
    /// | `rows` | r | u32 | distinct vector of each row |
    ///
    /// `vectors/group` of `cosine.h5` says which distinct vector an input row has: with it as an index
    /// of the columns (and, for the whole matrix, of the rows) the matrix is that of all input rows.
    ///
    /// # Errors
    /// [`Error::Refused`] if a shard is missing, [`Error::File`].
    pub fn write_master(
        &self,
        directory: &Path,
        plan: &Plan,
        places: &[Place],
        rows: &Rows<'_>,
        origin: &Origin,
    ) -> Result<(), Error> {
        let n = rows.len();
        let writer = Writer::create(&directory.join(MASTER), KIND, FORMAT_VERSION)?;
        writer.attribute("vectors_id", &origin.vectors_id)?;
        writer.attribute("fingerprint", &origin.fingerprint)?;
        writer.attribute("element", self.cell.name())?;
        if self.cell == Cell::U8 {
            writer.attribute("score", "(element - 128) / 127, as floats")?;
        }
        if let Some(label) = &origin.synthetic {
            writer.attribute("synthetic", label)?;
        }
        writer.array("rows", &self.rows)?;
        if n == 1 {
            // No pairs and no tiles, but a row with itself.
            return Ok(match self.cell {
                Cell::F32 => self.alone(writer, rows, |s| s as f32),
                Cell::F16 => self.alone(writer, rows, half_of),
                Cell::U8 => self.alone(writer, rows, quantized),
            }?);
        }
        let mut patches = Vec::new();
        let shards = directory.join(SHARDS);
        let mut shapes: BTreeMap<String, [usize; 2]> = BTreeMap::new();
        for (id, place) in (0..plan.tiles()).zip(places) {
            let name = place.file();
            let file = format!("{SHARDS}/{name}");
            let shape = match shapes.get(&name) {
                Some(shape) => *shape,
                None => {
                    let path = shards.join(&name);
                    if !path.exists() {
                        return Err(Error::Refused(format!(
                            "{}: is missing, with scores that the journal has as finished; remove {JOURNAL} \
                             beside it to compute them again",
                            path.display()
                        )));
                    }
                    let shard = h5::Reader::open(&path, SHARD_KIND, FORMAT_VERSION)?;
                    let shape: Result<[usize; 2], _> = shard.shape("scores")?.try_into();
                    let shape = shape.map_err(|_| Error::Refused(format!("{file}: is no shard")))?;
                    shapes.insert(name, shape);
                    shape
                }
            };
            let mut from = place.first as usize;
            for (rows, columns) in self.parts(&plan.tile(id)) {
                let columns = columns.start as usize..columns.end as usize;
                let height = rows.len();
                patches.push(Patch { file: file.clone(), shape, from, rows, columns });
                from += height;
            }
        }
        let shape = [self.rows.len(), n];
        match self.cell {
            Cell::F32 => writer.virtual_matrix::<f32>("scores", shape, "scores", &patches)?,
            Cell::F16 => writer.virtual_matrix::<f16>("scores", shape, "scores", &patches)?,
            Cell::U8 => writer.virtual_matrix::<u8>("scores", shape, "scores", &patches)?,
        }
        writer.finish()?;
        for entry in std::fs::read_dir(&shards).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if !shapes.contains_key(name.as_ref()) && name.starts_with(PREFIX) && name.ends_with(".h5") {
                // A tile that was never recorded; it only takes up space.
                let _ = std::fs::remove_file(entry.path());
            }
        }
        Ok(())
    }

    fn alone<T: Element>(
        &self,
        writer: Writer,
        rows: &Rows<'_>,
        convert: impl Fn(f64) -> T + Sync,
    ) -> h5::Result<()> {
        let mut out = vec![T::zeroed(); self.rows.len()];
        block::fill(rows, &self.rows, 0..1, 1, &mut out, convert);
        writer.matrix("scores", 1, &out)?;
        writer.finish()
    }
}

/// Fills the shard of one rank.
pub struct Shards<'a> {
    matrix: &'a Matrix,
    rows: Rows<'a>,
    plan: &'a Plan,
    directory: PathBuf,
    rank: u32,
    open: Option<Open>,
}

struct Open {
    attempt: u32,
    next: usize,
    shard: Typed,
}

enum Typed {
    F32(Shard<f32>),
    F16(Shard<f16>),
    U8(Shard<u8>),
}

impl<'a> Shards<'a> {
    /// Shards of `rank` in `directory`; a file is made when the first tile comes.
    pub fn new(matrix: &'a Matrix, rows: Rows<'a>, plan: &'a Plan, directory: &Path, rank: usize) -> Self {
        Self { matrix, rows, plan, directory: directory.join(SHARDS), rank: rank as u32, open: None }
    }

    /// Scores a tile's part of the matrix and brings it to the disk, in the shard of this attempt: no
    /// journal knows its name yet, so that one that was removed is never taken for it.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn write(&mut self, attempt: u32, tile: &Tile) -> Result<Place, Error> {
        let parts = self.matrix.parts(tile);
        if self.open.is_none() {
            self.open = Some(self.create(attempt)?);
        }
        let (rank, rows, wanted) = (self.rank, self.rows, &self.matrix.rows);
        let open = self.open.as_mut().ok_or(Error::Stopped)?;
        let place = Place { rank, attempt: open.attempt, first: open.next as u32 };
        for (range, columns) in parts {
            let these = &wanted[range];
            let at = open.next..open.next + these.len();
            open.next = at.end;
            match &mut open.shard {
                Typed::F32(shard) => fill(shard, at, &rows, these, columns, |s| s as f32)?,
                Typed::F16(shard) => fill(shard, at, &rows, these, columns, half_of)?,
                Typed::U8(shard) => fill(shard, at, &rows, these, columns, quantized)?,
            }
        }
        Ok(place)
    }

    /// A new file, with room for the parts of all tiles: what is not written takes no space.
    fn create(&self, attempt: u32) -> Result<Open, Error> {
        std::fs::create_dir_all(&self.directory)
            .map_err(|e| Error::Refused(format!("{}: {e}", self.directory.display())))?;
        let path = self.directory.join(Place { rank: self.rank, attempt, first: 0 }.file());
        let tiles = (0..self.plan.tiles()).map(|id| self.plan.tile(id));
        let (mut height, mut width) = (0, 0);
        for tile in tiles {
            height += self.matrix.parts(&tile).iter().map(|(rows, _)| rows.len()).sum::<usize>();
            width = width.max(tile.rows.len()).max(tile.columns.len());
        }
        let shape = (height, width);
        let shard = match self.matrix.cell {
            Cell::F32 => Typed::F32(Shard::create(&path, SHARD_KIND, FORMAT_VERSION, "scores", shape)?),
            Cell::F16 => Typed::F16(Shard::create(&path, SHARD_KIND, FORMAT_VERSION, "scores", shape)?),
            Cell::U8 => Typed::U8(Shard::create(&path, SHARD_KIND, FORMAT_VERSION, "scores", shape)?),
        };
        Ok(Open { attempt, next: 0, shard })
    }
}

fn fill<T: Element>(
    shard: &mut Shard<T>,
    at: Range<usize>,
    rows: &Rows<'_>,
    these: &[u32],
    columns: Range<u32>,
    convert: impl Fn(f64) -> T + Sync,
) -> Result<(), Error> {
    let width = shard.shape()[1];
    let mut piece = shard.piece(at)?;
    block::fill(rows, these, columns, width, piece.as_mut_slice(), convert);
    Ok(piece.finish()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_scores() {
        for (score, byte) in [(-1.0, 1), (-1.1, 1), (0.0, 128), (1.0, 255), (1.0001, 255), (0.5, 192)] {
            assert_eq!(quantized(score), byte, "{score}");
        }
        for step in -1000..=1000 {
            let score = f64::from(step) / 1000.0;
            let back = (f64::from(quantized(score)) - 128.0) / 127.0;
            assert!((back - score).abs() <= 0.5 / 127.0 + 1e-12, "{score} {back}");
        }
    }

    proptest::proptest! {
        #[test]
        fn half_scores_are_nearest(score in -1.001f64..1.001, low in 0u32..100, sign: bool) {
            // Any score, and such as lie just beside the middle between two.
            let middle = f64::from(f16::from_bits(0x3000 + low as u16)) + 2f64.powi(-14);
            let beside = if sign { middle.next_up() } else { middle.next_down() };
            for score in [score, middle, beside, -beside, 0.374_145_517_936_501_97] {
                let half = half_of(score);
                let off = |bits: u16| (f64::from(f16::from_bits(bits)) - score).abs();
                let bits = half.to_bits();
                for other in [bits.wrapping_sub(1), bits + 1] {
                    let nearer = off(other) < off(bits);
                    proptest::prop_assert!(!nearer && (off(other) > off(bits) || bits & 1 == 0), "{}", score);
                }
            }
        }
    }

    #[test]
    fn parts_cover_the_wanted_rows_once() {
        use crate::pairs::Shape;
        for (n, edge) in [(2u32, 2u32), (7, 2), (7, 3), (9, 4), (10, 10), (11, 1), (13, 6)] {
            let edge = Matrix::tile_edge(n, edge);
            let plan = Plan::new(n, edge, edge, Shape::Triangle);
            for rows in [(0..n).collect::<Vec<_>>(), vec![0, n - 1], vec![n / 2]] {
                let matrix = Matrix { cell: Cell::U8, rows };
                let mut seen = vec![0; matrix.rows.len() * n as usize];
                for (rows, columns) in (0..plan.tiles()).flat_map(|id| matrix.parts(&plan.tile(id))) {
                    for row in rows {
                        columns.clone().for_each(|c| seen[row * n as usize + c as usize] += 1);
                    }
                }
                assert!(seen.iter().all(|s| *s == 1), "{n} {edge}: {seen:?}");
            }
        }
    }
}
