//! The vectors of a run: a view on rows of f32, the checks they have to pass, and equal rows
//! collapsed.

use crate::pairs::Error;
use rayon::prelude::*;
use rustc_hash::FxHasher;
use std::hash::Hasher;

/// Rows of a row-major matrix, all or some of them.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    values: &'a [f32],
    dims: usize,
    chosen: Option<&'a [u32]>,
}

impl<'a> Rows<'a> {
    /// All rows of a matrix with `dims` columns (at least 1).
    pub fn new(values: &'a [f32], dims: usize) -> Self {
        assert!(dims > 0 && values.len().is_multiple_of(dims), "not a whole number of rows");
        Self { values, dims, chosen: None }
    }

    /// Those rows of the matrix, in this order.
    pub fn choose(self, chosen: &'a [u32]) -> Self {
        Self { chosen: Some(chosen), ..self }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.chosen.map_or(self.values.len() / self.dims, <[u32]>::len)
    }

    /// True without rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Values in a row.
    pub fn dims(&self) -> usize {
        self.dims
    }

    /// The values of row `i`.
    #[inline]
    pub fn row(&self, i: usize) -> &'a [f32] {
        let at = self.chosen.map_or(i, |chosen| chosen[i] as usize) * self.dims;
        &self.values[at..at + self.dims]
    }
}

/// Largest deviation of a row's length from 1 that is taken as rounding.
pub const LENGTH_TOLERANCE: f64 = 1e-4;

/// Checks every row: finite, and of length 1 within [`LENGTH_TOLERANCE`] or all zeros (a document
/// without a known word; its score with every other is 0). Gives the number of zero rows.
///
/// # Errors
/// [`Error::Refused`] with the number of the first row that is neither (rows from 0).
pub fn check_unit(rows: &Rows<'_>, name: &str, remedy: &str) -> Result<u64, Error> {
    let of_row = |i: usize| -> Result<u64, (usize, String)> {
        let row = rows.row(i);
        if let Some(k) = row.iter().position(|v| !v.is_finite()) {
            return Err((i, format!("column {k} is {}; a vector consists of finite numbers", row[k])));
        }
        let length = super::exact::score(row, row).sqrt();
        match length {
            0.0 if row.iter().all(|v| *v == 0.0) => Ok(1),
            l if (l - 1.0).abs() <= LENGTH_TOLERANCE => Ok(0),
            l => Err((i, format!("has length {l:.6}, not 1; {remedy}"))),
        }
    };
    // The first row at fault, whichever thread meets it.
    let folded = (0..rows.len()).into_par_iter().map(of_row).reduce(
        || Ok(0),
        |a, b| match (a, b) {
            (Ok(a), Ok(b)) => Ok(a + b),
            (Err(a), Err(b)) => Err(if a.0 <= b.0 { a } else { b }),
            (Err(e), _) | (_, Err(e)) => Err(e),
        },
    );
    folded.map_err(|(i, reason)| Error::Refused(format!("{name}: row {i}: {reason}")))
}

/// Scales one row to length 1 in double precision, rounding once; zeros stay zeros.
///
/// # Errors
/// The column that is not finite, and its value.
pub fn normalize(row: &[f64], into: &mut Vec<f32>) -> Result<(), (usize, f64)> {
    if let Some(k) = row.iter().position(|v| !v.is_finite()) {
        return Err((k, row[k]));
    }
    // Scaled by the largest value first, so that no square overflows or vanishes.
    let largest = row.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    if largest == 0.0 {
        into.extend(row.iter().map(|_| 0.0f32));
        return Ok(());
    }
    let length = row.iter().map(|v| (v / largest) * (v / largest)).sum::<f64>().sqrt();
    into.extend(row.iter().map(|v| (v / largest / length) as f32));
    Ok(())
}

/// Equal rows taken together. Groups are numbered in order of their first row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Groups {
    /// Group of each row.
    pub group: Vec<u32>,
    /// First row of each group.
    pub representative: Vec<u32>,
}

impl Groups {
    /// Groups rows with equal values (0 and -0 are equal).
    pub fn of(rows: &Rows<'_>) -> Self {
        let hashes: Vec<u64> = (0..rows.len())
            .into_par_iter()
            .map(|i| {
                let mut hasher = FxHasher::default();
                rows.row(i).iter().for_each(|v| hasher.write_u32((v + 0.0).to_bits()));
                hasher.finish()
            })
            .collect();
        let mut found = hashbrown::HashTable::<u32>::with_capacity(rows.len());
        let (mut group, mut representative) = (Vec::with_capacity(rows.len()), Vec::new());
        for (i, hash) in hashes.iter().enumerate() {
            let same = |g: &u32| rows.row(representative[*g as usize] as usize) == rows.row(i);
            let hash_of = |g: &u32| hashes[representative[*g as usize] as usize];
            match found.entry(*hash, same, hash_of) {
                hashbrown::hash_table::Entry::Occupied(entry) => group.push(*entry.get()),
                hashbrown::hash_table::Entry::Vacant(entry) => {
                    let g = representative.len() as u32;
                    entry.insert(g);
                    group.push(g);
                    representative.push(i as u32);
                }
            }
        }
        Self { group, representative }
    }

    /// Number of groups.
    pub fn len(&self) -> usize {
        self.representative.len()
    }

    /// True without rows.
    pub fn is_empty(&self) -> bool {
        self.representative.is_empty()
    }

    /// The sum of a row weight over each group.
    pub fn sums(&self, weight: impl Fn(usize) -> u64) -> Vec<u64> {
        let mut sums = vec![0u64; self.len()];
        for (i, g) in self.group.iter().enumerate() {
            sums[*g as usize] += weight(i);
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_are_no_unit_vectors_are_refused_with_their_number() {
        for (values, reason) in [
            ([1.0, 0.0, f32::NAN, 0.0, 2.0, 0.0], "m: row 1: column 0 is NaN"),
            ([1.0, 0.0, 0.0, f32::INFINITY, 0.0, 0.0], "m: row 1: column 1 is inf"),
            ([1.0, 0.0, 0.0, 0.0, 0.6, 0.9], "m: row 2: has length 1.08"),
        ] {
            let error = check_unit(&Rows::new(&values, 2), "m", "scale it").unwrap_err().to_string();
            assert!(error.starts_with(reason), "{error}");
        }
        assert_eq!(check_unit(&Rows::new(&[1.0, 0.0, -0.0, 0.0, 0.6, 0.8], 2), "m", "").unwrap(), 1);
    }

    #[test]
    fn normalizing_survives_huge_and_tiny_numbers() {
        let mut out = Vec::new();
        for row in [[3e300, 4e300], [3e-310, 4e-310], [0.0, -0.0]] {
            normalize(&row, &mut out).unwrap();
        }
        assert_eq!(out, [0.6, 0.8, 0.6, 0.8, 0.0, 0.0]);
        assert_eq!(normalize(&[1.0, f64::NEG_INFINITY], &mut out), Err((1, f64::NEG_INFINITY)));
    }

    #[test]
    fn equal_rows_form_groups_in_order_of_first_occurrence() {
        let values = [0.0, 1.0, 1.0, 0.0, -0.0, 1.0, 1.0, 0.0, 0.6, 0.8];
        let groups = Groups::of(&Rows::new(&values, 2));
        assert_eq!(groups.group, [0, 1, 0, 1, 2]);
        assert_eq!(groups.representative, [0, 1, 4]);
        assert_eq!(groups.sums(|i| i as u64 + 1), [4, 6, 5]);
    }
}
