//! A tile's result as bytes, for the journal: little-endian numbers, each list after its length.

use super::kernel::Partial;
use super::tally::{ByteTally, Cell, Cells};
use bytemuck::Pod;

const _: () = assert!(cfg!(target_endian = "little"), "journals and results are little-endian");

fn put<T: Pod>(out: &mut Vec<u8>, values: &[T]) {
    out.extend_from_slice(&(values.len() as u64).to_le_bytes());
    out.extend_from_slice(bytemuck::cast_slice(values));
}

/// Writes a partial result.
pub fn encode(partial: &Partial) -> Vec<u8> {
    let Cells { all, full, bytes } = &partial.tally;
    let mut out = Vec::new();
    put(&mut out, all);
    put(&mut out, full);
    put(&mut out, &bytes.bins);
    put(&mut out, &[bytes.distinct_bytes, bytes.image_bytes]);
    put(&mut out, &partial.neighbours);
    put(&mut out, &partial.edges);
    out
}

struct In<'a>(&'a [u8]);

impl In<'_> {
    fn get<T: Pod>(&mut self) -> Option<Vec<T>> {
        let (length, rest) = self.0.split_first_chunk()?;
        let bytes = usize::try_from(u64::from_le_bytes(*length)).ok()?.checked_mul(size_of::<T>())?;
        let (values, rest) = rest.split_at_checked(bytes)?;
        self.0 = rest;
        Some(bytemuck::allocation::pod_collect_to_vec(values))
    }

    fn cells(&mut self, largest: u32) -> Option<Vec<Cell>> {
        let cells = self.get::<Cell>()?;
        let sound = |cell: &Cell| cell.shared <= largest && cell.union <= 2 * largest;
        cells.iter().all(sound).then_some(cells)
    }
}

/// Reads a partial result back; `largest` is the size of the largest set. `None` if the bytes are
/// not what [`encode`] writes.
pub fn decode(bytes: &[u8], largest: u32) -> Option<Partial> {
    let mut input = In(bytes);
    let (all, full) = (input.cells(largest)?, input.cells(largest)?);
    let bins = input.get()?.try_into().ok()?;
    let [distinct_bytes, image_bytes] = input.get()?.try_into().ok()?;
    let bytes = ByteTally { bins, distinct_bytes, image_bytes };
    let (neighbours, edges) = (input.get()?, input.get()?);
    input.0.is_empty().then_some(Partial { tally: Cells { all, full, bytes }, neighbours, edges })
}
