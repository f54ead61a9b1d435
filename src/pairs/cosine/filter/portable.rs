//! The kernel in plain Rust: the definition that the others are tested against, and what runs
//! where no other does.

use super::cells::{Cells, Judge};
use super::pack::Shape;
use super::tally::{Masks, Pending, Scores, VECTOR, VECTORS, Verdict};

const MR: usize = Shape::WIDE.rows;
const NR: usize = Shape::WIDE.columns;

/// Scores of one micro-tile: panel `a` of 8 rows against panel `b` of 48 rows, in chunks of
/// `chunk` coordinates. 2 x 8 x 48 x d operations; each product and each sum is rounded.
pub fn scores(a: &[f32], b: &[f32], chunk: usize, scores: &mut Scores) {
    const WIDE: usize = 16;
    scores.0.fill(0.0);
    let chunks = a.chunks(chunk * MR).zip(b.chunks(chunk * NR));
    for (a, b) in chunks {
        for first in (0..NR).step_by(WIDE) {
            for half in [0, MR / 2] {
                let mut sums = [[0.0f32; WIDE]; MR / 2];
                for (a, b) in a.chunks_exact(MR).zip(b.chunks_exact(NR)) {
                    let b: &[f32; WIDE] = b[first..first + WIDE].try_into().expect("WIDE values");
                    for (r, sums) in sums.iter_mut().enumerate() {
                        for (sum, b) in sums.iter_mut().zip(b) {
                            *sum += a[half + r] * b;
                        }
                    }
                }
                for (r, sums) in sums.iter().enumerate() {
                    let at = (half + r) * NR + first;
                    for (score, sum) in scores.0[at..at + WIDE].iter_mut().zip(sums) {
                        *score += sum;
                    }
                }
            }
        }
    }
}

/// Gives every score of a micro-tile its cell, and says which are in doubt and which are wanted.
#[inline(always)]
pub fn judge(
    scores: &Scores,
    cells: &Cells,
    verdict: &Verdict<'_>,
    pending: &mut Pending,
    masks: &mut Masks,
) {
    let none = cells.none();
    let wide = pending.columns / VECTOR;
    for v in 0..VECTORS {
        let (row, column) = (v / wide, v % wide * VECTOR);
        let here: &[f32; VECTOR] = scores.0[v * VECTOR..][..VECTOR].try_into().expect("VECTOR values");
        let out = &mut pending.cells[v * VECTOR..][..VECTOR];
        let (mut doubt, mut wanted) = (0u16, 0u16);
        match &cells.judge {
            Judge::Grid { scale, offset, limit } => {
                for (l, (score, out)) in here.iter().zip(out.iter_mut()).enumerate() {
                    let x = score * scale + offset;
                    let nearest = x.round_ties_even();
                    let unsure = (x - nearest).abs() > *limit;
                    *out = if unsure { none } else { nearest as i32 as u16 };
                    doubt |= u16::from(unsure) << l;
                }
            }
            Judge::List { .. } => {
                for (l, (score, out)) in here.iter().zip(out.iter_mut()).enumerate() {
                    let cell = cells.cell(*score);
                    *out = cell.unwrap_or(none);
                    doubt |= u16::from(cell.is_none()) << l;
                }
            }
        }
        let from_row = verdict.from_of_row(row);
        for (l, score) in here.iter().enumerate() {
            let from = from_row.min(verdict.column_from[column + l]);
            wanted |= u16::from(*score >= from || *score <= verdict.below) << l;
        }
        if let Some(valid) = verdict.valid {
            for (l, out) in out.iter_mut().enumerate() {
                if valid[v] >> l & 1 == 0 {
                    *out = none;
                }
            }
            doubt &= valid[v];
            wanted &= valid[v];
        }
        masks.doubt[v] = doubt;
        masks.wanted[v] = wanted;
    }
}
