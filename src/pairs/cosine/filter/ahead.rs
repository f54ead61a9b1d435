//! What will be read soon, asked for between multiplications.
//!
//! Rows and panels come from the last-level cache, and some tens of cache lines asked for at once keep a
//! CPU waiting that could multiply meanwhile: a core has room for about twenty that are on their way. So they
//! are listed here, and a kernel asks for a few after every chunk of coordinates.

/// Cache lines that are remembered, at most. More than that are forgotten: asking is a hint.
const MOST: usize = 512;

/// Cache lines that are asked for at once.
const SOME: usize = 4;

/// Bytes in a cache line.
const CACHE_LINE: usize = 64;

/// Cache lines to be asked for, first come first.
pub struct Ahead {
    addresses: [*const u8; MOST],
    next: usize,
    end: usize,
}

impl Default for Ahead {
    fn default() -> Self {
        Self { addresses: [std::ptr::null(); MOST], next: 0, end: 0 }
    }
}

impl Ahead {
    /// Lists all of a row.
    #[inline]
    pub fn list<T>(&mut self, row: &[T]) {
        if self.next == self.end {
            (self.next, self.end) = (0, 0);
        }
        let first = row.as_ptr().cast::<u8>();
        let lines = size_of_val(row).div_ceil(CACHE_LINE).min(MOST - self.end);
        let free = &mut self.addresses[self.end..self.end + lines];
        free.iter_mut().enumerate().for_each(|(at, address)| *address = first.wrapping_add(CACHE_LINE * at));
        self.end += lines;
    }

    /// Asks for the next few cache lines to be brought to the second-level cache.
    #[inline(always)]
    pub fn ask(&mut self) {
        let some = self.next..self.end.min(self.next + SOME);
        self.addresses[some.clone()].iter().for_each(|address| ask(*address));
        self.next = some.end;
    }
}

/// Asks for a row to be brought to the second-level cache, all at once.
#[inline]
pub fn prefetch<T>(row: &[T]) {
    let first = row.as_ptr().cast::<u8>();
    (0..size_of_val(row)).step_by(CACHE_LINE).for_each(|at| ask(first.wrapping_add(at)));
}

#[inline(always)]
fn ask(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a hint, which reads nothing, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(address.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cache_line_is_asked_for_once() {
        let rows = vec![0u32; 16 * MOST];
        let mut ahead = Ahead::default();
        for round in 1..4 {
            rows.chunks(300).take(round).for_each(|row| ahead.list(row));
            let first = rows.as_ptr().cast::<u8>();
            let expected: Vec<usize> =
                (0..round).flat_map(|r| (0..19).map(move |l| 1200 * r + 64 * l)).collect();
            let listed = &ahead.addresses[ahead.next..ahead.end];
            let found: Vec<usize> = listed.iter().map(|a| *a as usize - first as usize).collect();
            assert_eq!(found, expected);
            (0..19 * round).step_by(SOME).for_each(|_| ahead.ask());
            assert_eq!(ahead.next, ahead.end);
        }
        // What there is no room for is forgotten.
        ahead.list(&rows);
        ahead.list(&rows);
        assert_eq!(ahead.end, MOST);
    }
}
