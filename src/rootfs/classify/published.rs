//! The score as the study computed it (`container-guts` 0.0.17, `Database.similar`).
//!
//! U is the union of all bases' paths, S the image's paths in U, and a base B scores |S ∩ B| / |S|;
//! the highest wins. The denominator is the same for every base, so that the largest base wins
//! whenever an image has gained what only the largest has.

use serde::Serialize;

/// The published score of one image.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Published {
    /// Index of the winning base.
    pub base: usize,
    /// Its score, |S ∩ B| / |S|: one division of two integers, the same bits as in Python.
    pub score: f64,
    /// |S ∩ B|.
    pub shared: u32,
    /// |S|.
    pub paths: u32,
    /// All bases with that score, the winner included. In the study the first in the order of a
    /// directory listing won; here it is the first by name.
    pub ties: Vec<usize>,
}

/// The winner, from |S| and |S ∩ B| of each base; `None` where S is empty (the study divided by zero
/// there and lost the image).
pub fn published(paths: u32, shared: &[i32]) -> Option<Published> {
    let most = *shared.iter().max()?;
    if paths == 0 {
        return None;
    }
    let ties: Vec<_> = (0..shared.len()).filter(|b| shared[*b] == most).collect();
    let score = f64::from(most) / f64::from(paths);
    Some(Published { base: ties[0], score, shared: most as u32, paths, ties })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_the_first_name() {
        let p = published(7, &[3, 5, 5, 0]).unwrap();
        assert_eq!((p.base, p.score, p.ties), (1, 5.0 / 7.0, vec![1, 2]));
        assert_eq!(published(0, &[0, 0]), None);
        assert_eq!(published(3, &[]), None);
    }
}
