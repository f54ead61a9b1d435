//! Memory for packed rows, kept from tile to tile.

use std::sync::{Mutex, PoisonError};

#[derive(Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct CacheLine([u32; 16]);

/// Memory that nobody uses at the moment.
#[derive(Default)]
pub struct Pool(Mutex<Vec<Vec<CacheLine>>>);

impl Pool {
    /// Some of it; it comes back when it is dropped.
    pub fn take(&self) -> Panels<'_> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Panels { lines: lines.unwrap_or_default(), pool: self }
    }
}

/// Words on cache lines, so that a vector of a panel never lies across two; of a [`Pool`].
pub struct Panels<'p> {
    lines: Vec<CacheLine>,
    pool: &'p Pool,
}

impl Panels<'_> {
    /// So many words; in them is what was, or zeros.
    pub fn words(&mut self, count: usize) -> &mut [u32] {
        self.lines.resize(count.div_ceil(16), CacheLine::default());
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..count]
    }
}

impl Drop for Panels<'_> {
    fn drop(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        self.pool.0.lock().unwrap_or_else(PoisonError::into_inner).push(lines);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_lie_on_cache_lines_and_come_back() {
        let pool = Pool::default();
        let mut first = pool.take();
        let words = first.words(1000);
        assert_eq!((words.len(), words.as_ptr() as usize % 64), (1000, 0));
        words[999] = 7;
        let second = pool.take().words(10).as_ptr();
        drop(first);
        // The last to come back is the next to go.
        assert_eq!(pool.take().words(1000)[999], 7);
        let _held = pool.take();
        assert_eq!(pool.take().words(10).as_ptr(), second);
    }
}
