//! What a run will need, told and checked before it starts.

use super::Prepared;
use super::best::Best;
use super::results::WAYS;
use super::{block, exact, filter, moments};
use crate::pairs::{Error, Tile};
use crate::world::World;
use std::time::{Duration, Instant};

/// Rows that are scored beforehand to learn how many pairs the threshold keeps.
const SAMPLE_ROWS: usize = 64;
/// Their scores are computed with so many other rows at a time.
const COLUMNS: usize = 1 << 13;

/// An estimate of what a run needs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Needs {
    /// Pairs of distinct rows.
    pub pairs: u64,
    /// Pairs over the threshold, estimated from a sample of rows.
    pub listed: u64,
    /// Memory of one rank besides the vectors, in bytes.
    pub memory: u64,
    /// The same of rank 0, which also merges.
    pub memory_of_root: u64,
    /// The vectors, in bytes: once for each node if they are mapped.
    pub vectors: u64,
    /// Disk in the results directory, in bytes, journals included.
    pub disk: u64,
}

/// Where a run is to take place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cluster {
    /// Ranks in all.
    pub ranks: usize,
    /// Threads of each, as many cores.
    pub threads: usize,
}

impl Needs {
    /// Estimates; the sample costs a few milliseconds.
    pub fn of(prepared: &Prepared<'_>, threads: usize) -> Self {
        let n = prepared.rows.len() as u64;
        let dims = prepared.rows.dims() as u64;
        let k = prepared.options.top_k as u64;
        let listed = listed(prepared);
        let tiles = u64::from(prepared.plan.tiles());
        let edge = if tiles > 0 { prepared.plan.tile(0).columns.len() as u64 } else { 0 };
        let packed = (edge + 48 + threads as u64 * 256) * dims * 4;
        let capacity = Best::capacity(prepared.rows.len(), prepared.options.top_k) as u64;
        let lists = if k > 0 { n * (capacity * 8 + 12) } else { 0 };
        let index = n * 40 + prepared.groups.group.len() as u64 * 4;
        // What a tile finds is there three times: as lists, joined, and as bytes for the journal.
        let in_tile =
            listed.div_ceil(tiles.max(1)) * 40 + if k > 0 { 3 * 2 * edge * capacity * 8 } else { 0 };
        let of_filter = prepared.filter.memory(edge as usize) as u64;
        let tallies = if prepared.classes.is_some() { threads * filter::tally::MEMORY } else { 0 };
        let memory = packed + of_filter + lists + index + in_tile + tallies as u64;
        let moments = moments::memory(prepared.rows.len(), prepared.rows.dims(), threads, WAYS.len());
        // While it merges there are up to 2 k candidates of 8 bytes for each row, and twice that while they are
        // put in the order of the rows.
        let merged = n * k * 4 * 8 + listed * 24 + moments;
        // A neighbour is recorded when a tile finds it, and again when a better one replaces it.
        let waves = (n as f64 / edge.max(1) as f64).ln_1p() + 1.0;
        let journal = (n as f64 * k as f64 * 8.0 * waves) as u64 + listed * 12 + tiles * 4096;
        let matrix = prepared.matrix.as_ref().map_or(0, |m| m.bytes(prepared.rows.len()));
        let disk = journal + n * k * 12 + listed * 12 + n * 40 + matrix;
        Self {
            pairs: n * n.saturating_sub(1) / 2,
            listed,
            memory,
            memory_of_root: memory + merged,
            vectors: n * dims * 4,
            disk,
        }
    }

    /// Refuses what cannot fit.
    ///
    /// # Errors
    /// [`Error::DoesNotFit`].
    pub fn check(&self, memory: u64, disk: u64) -> Result<(), Error> {
        for (what, needed, available, hint) in [
            (
                "the run",
                self.memory_of_root,
                memory,
                "raise --min, lower --top-k, or allow more with --memory",
            ),
            (
                "the results directory",
                self.disk,
                disk,
                "raise --min, lower --top-k, take a smaller --matrix or fewer --rows, or choose another -o",
            ),
        ] {
            if needed > available {
                return Err(Error::DoesNotFit { what: what.into(), needed, available, hint: hint.into() });
            }
        }
        Ok(())
    }
}

impl Prepared<'_> {
    /// Expected time of all tiles on a cluster of cores like the ones this process runs on, from a
    /// calibration of about two seconds: parts of tiles are computed by all threads of this process, after
    /// the floors of all rows if neighbours are wanted (some seconds for half a million rows).
    ///
    /// The kernel's rate depends on how the scores lie (pairs in doubt are scored twice), so tiles
    /// from all over the plan are taken. And it depends on what a rank knows: while its lists of
    /// neighbours are empty, every pair may enter them. So each part is computed twice; what the first
    /// time takes longer is the price of filling its lists, which each rank pays once for each row.
    pub fn expected(&self, cluster: &Cluster) -> Duration {
        let pairs_of = |tile: &Tile| {
            // Of a tile on the diagonal the pairs i < j; its rows may be only the first of it.
            let (rows, columns) = (tile.rows.len() as f64, tile.columns.len() as f64);
            let twice = if tile.rows.start == tile.columns.start { rows * rows / 2.0 } else { 0.0 };
            rows * columns - twice
        };
        let tiles = self.plan.tiles();
        if self.rows.len() < 2 {
            return Duration::ZERO;
        }
        // Floors of neighbours, if there are any: ranks share that work.
        let begun = Instant::now();
        let mut kernel = self.kernel(&World::solo());
        let cores = (cluster.ranks * cluster.threads) as f64;
        let floors = begun.elapsed().as_secs_f64() * rayon::current_num_threads() as f64 / cores;
        let mut seconds_of = |tile: &Tile| {
            let begun = Instant::now();
            std::hint::black_box(kernel(tile));
            begun.elapsed().as_secs_f64()
        };
        let mut met = vec![false; self.rows.len()];
        let (mut warm, mut pairs, mut filling, mut filled) = (0.0, 0.0, 0.0, 0usize);
        let (mut spent, mut runs) = (0.0, 0u32);
        while runs < tiles && (spent < 2.0 || runs < 3) {
            // A step that meets all parts of the plan, whatever their number.
            let id = (f64::from(runs) * 0.618_034).fract() * f64::from(tiles);
            let tile = self.plan.tile(id as u32);
            // Small parts of large tiles do, too.
            let tile = Tile { rows: tile.rows.start..tile.rows.end.min(tile.rows.start + 2048), ..tile };
            let mut new = 0;
            for i in tile.rows.clone().chain(tile.columns.clone()) {
                new += usize::from(!std::mem::replace(&mut met[i as usize], true));
            }
            let both = [seconds_of(&tile), seconds_of(&tile)];
            // The first one also pays for memory that is touched for the first time.
            if runs > 0 || tiles == 1 {
                warm += both[1];
                pairs += pairs_of(&tile);
                filling += (both[0] - both[1]).max(0.0);
                filled += new;
            }
            spent += both[0] + both[1];
            runs += 1;
        }
        let threads = rayon::current_num_threads() as f64;
        let rate = pairs / warm / threads;
        let per_list = if filled > 0 { filling / filled as f64 * threads } else { 0.0 };
        let fill = per_list * (self.rows.len() * cluster.ranks) as f64 / cores;
        let all: f64 = (0..tiles).map(|id| pairs_of(&self.plan.tile(id))).sum();
        // The last tiles leave cores waiting: half a tile on average.
        let last = all / f64::from(tiles) / 2.0 / cluster.threads as f64;
        let whole = if cluster.ranks > 1 { all / cores + last } else { all / cores };
        Duration::from_secs_f64(floors + fill + whole / rate)
    }
}

fn listed(prepared: &Prepared<'_>) -> u64 {
    let (rows, n) = (&prepared.rows, prepared.rows.len());
    let Some(min) = prepared.options.min.filter(|_| n > 1) else { return 0 };
    let sample = SAMPLE_ROWS.min(n);
    let these: Vec<u32> = (0..sample).map(|s| (s * n / sample) as u32).collect();
    let (mut found, mut over) = (0, vec![false; sample * COLUMNS]);
    for first in (0..n).step_by(COLUMNS) {
        let columns = first as u32..(first + COLUMNS).min(n) as u32;
        over.fill(false);
        block::fill(rows, &these, columns, COLUMNS, &mut over, |score| score >= min);
        found += over.iter().filter(|over| **over).count();
    }
    // Without the rows themselves.
    found -= these.iter().map(|i| rows.row(*i as usize)).filter(|row| exact::score(row, row) >= min).count();
    (found as u64 * n as u64).div_ceil(2 * sample as u64)
}
