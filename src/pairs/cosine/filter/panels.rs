//! Memory for packed rows, kept from tile to tile.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

/// Words on cache lines, so that a vector of a panel never lies across two.
#[derive(Default)]
pub struct Panels(Vec<CacheLine>);

#[derive(Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct CacheLine([u32; 16]);

impl Panels {
    /// So many words; in them is what was, or zeros.
    pub fn words(&mut self, count: usize) -> &mut [u32] {
        self.0.resize(count.div_ceil(16), CacheLine::default());
        &mut bytemuck::cast_slice_mut(&mut self.0)[..count]
    }
}

/// Panels that nobody uses at the moment.
#[derive(Default)]
pub struct Pool(Mutex<Vec<Panels>>);

impl Pool {
    /// Some panels; they come back when they are dropped.
    pub fn take(&self) -> Taken<'_> {
        let panels = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Taken { panels: panels.unwrap_or_default(), pool: self }
    }
}

/// Panels of a [`Pool`].
pub struct Taken<'p> {
    panels: Panels,
    pool: &'p Pool,
}

impl Deref for Taken<'_> {
    type Target = Panels;
    fn deref(&self) -> &Panels {
        &self.panels
    }
}

impl DerefMut for Taken<'_> {
    fn deref_mut(&mut self) -> &mut Panels {
        &mut self.panels
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let panels = std::mem::take(&mut self.panels);
        self.pool.0.lock().unwrap_or_else(PoisonError::into_inner).push(panels);
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
