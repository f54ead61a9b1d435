//! Tokenised texts on their way from the threads and ranks to one list.

use crate::strings::{Interner, NONE, StringTable};
use bytemuck::{Pod, pod_read_unaligned};

/// Rows of ids with the strings that they point at.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Rows {
    pub strings: StringTable,
    pub offsets: Vec<u64>,
    pub ids: Vec<u32>,
}

impl Rows {
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    pub fn get(&self, row: usize) -> &[u32] {
        &self.ids[self.offsets[row] as usize..self.offsets[row + 1] as usize]
    }

    pub fn pack(&self, out: &mut Vec<u8>) {
        pack(out, self.strings.bytes());
        pack(out, self.strings.offsets());
        pack(out, &self.offsets);
        pack(out, &self.ids);
    }

    pub fn unpack(rest: &mut &[u8]) -> Option<Self> {
        let strings = StringTable::from_parts(unpack(rest)?, unpack(rest)?).ok()?;
        Some(Self { strings, offsets: unpack(rest)?, ids: unpack(rest)? })
    }
}

/// Fills [`Rows`].
#[derive(Debug)]
pub(super) struct RowsBuilder {
    pub strings: Interner,
    offsets: Vec<u64>,
    ids: Vec<u32>,
}

impl Default for RowsBuilder {
    fn default() -> Self {
        Self { strings: Interner::default(), offsets: vec![0], ids: Vec::new() }
    }
}

impl RowsBuilder {
    /// Adds a string to the row at hand.
    pub fn push(&mut self, string: &str) {
        let id = self.strings.intern(string);
        self.ids.push(id);
    }

    /// The row at hand.
    pub fn current(&self) -> &[u32] {
        &self.ids[self.offsets.last().map_or(0, |o| *o as usize)..]
    }

    /// Ends the row at hand.
    pub fn end(&mut self) {
        self.offsets.push(self.ids.len() as u64);
    }

    /// Forgets the rows, but not the strings.
    pub fn clear(&mut self) {
        self.offsets.truncate(1);
        self.ids.clear();
    }

    pub fn finish(self) -> Rows {
        Rows { strings: self.strings.into_table(), offsets: self.offsets, ids: self.ids }
    }
}

/// Joins rows of several lists in the given order of (list, row); ids by first occurrence.
pub(super) fn join(lists: &[&Rows], order: impl Iterator<Item = (usize, usize)>) -> Rows {
    let mut known: Vec<Vec<u32>> = lists.iter().map(|l| vec![NONE; l.strings.len()]).collect();
    let mut all = RowsBuilder::default();
    all.ids.reserve(lists.iter().map(|l| l.ids.len()).sum());
    for (list, row) in order {
        let (known, from) = (&mut known[list], lists[list]);
        for &id in from.get(row) {
            let new = &mut known[id as usize];
            if *new == NONE {
                *new = all.strings.intern(from.strings.get(id));
            }
            all.ids.push(*new);
        }
        all.end();
    }
    all.finish()
}

/// Appends the number of bytes and the bytes of `values`.
pub(super) fn pack<T: Pod>(out: &mut Vec<u8>, values: &[T]) {
    let bytes: &[u8] = bytemuck::cast_slice(values);
    out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Takes what [`pack`] appended off the front.
pub(super) fn unpack<T: Pod>(rest: &mut &[u8]) -> Option<Vec<T>> {
    let (length, tail) = rest.split_first_chunk::<8>()?;
    let (bytes, tail) = tail.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    *rest = tail;
    bytes
        .len()
        .is_multiple_of(size_of::<T>())
        .then(|| bytes.chunks_exact(size_of::<T>()).map(pod_read_unaligned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_travel_and_join() {
        let rows = |texts: &[&str]| {
            let mut rows = RowsBuilder::default();
            for text in texts {
                text.split(' ').filter(|t| !t.is_empty()).for_each(|t| rows.push(t));
                rows.end();
            }
            rows.finish()
        };
        let (a, b) = (rows(&["x y", "", "z"]), rows(&["y w"]));
        let mut packed = Vec::new();
        a.pack(&mut packed);
        b.pack(&mut packed);
        let mut rest = packed.as_slice();
        assert_eq!(Rows::unpack(&mut rest), Some(a.clone()));
        assert_eq!(Rows::unpack(&mut rest), Some(b.clone()));
        assert!(rest.is_empty());
        let mut cut = &packed[..packed.len() - 1];
        assert_eq!(Rows::unpack(&mut cut), Some(a.clone()));
        assert_eq!(Rows::unpack(&mut cut), None);
        let all = join(&[&a, &b], [(1, 0), (0, 0), (0, 2), (0, 1)].into_iter());
        assert_eq!(all, rows(&["y w", "x y", "z", ""]));
    }
}
