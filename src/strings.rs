//! String tables: many strings in one buffer, and the interner that builds them.

use hashbrown::HashTable;
use rustc_hash::FxHasher;
use std::hash::Hasher;

/// Id of a string in a [`StringTable`], or [`NONE`].
pub type StringId = u32;

/// The id that stands for "there is none".
pub const NONE: u32 = u32::MAX;

/// An immutable list of strings: one byte buffer and `len + 1` offsets into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StringTable {
    text: String,
    offsets: Vec<u64>,
}

impl Default for StringTable {
    fn default() -> Self {
        Self { text: String::new(), offsets: vec![0] }
    }
}

impl StringTable {
    /// Puts a table together from its two arrays.
    ///
    /// # Errors
    /// Says what is wrong if the offsets do not start at 0, fall, or do not end at the buffer's
    /// end, or if a string is not UTF-8.
    pub fn from_parts(bytes: Vec<u8>, offsets: Vec<u64>) -> Result<Self, String> {
        let sound = offsets.first() == Some(&0)
            && offsets.last() == Some(&(bytes.len() as u64))
            && offsets.is_sorted();
        if !sound {
            return Err("offsets do not describe the bytes".into());
        }
        let text = String::from_utf8(bytes).map_err(|e| format!("is not UTF-8 ({e})"))?;
        if let Some(o) = offsets.iter().find(|o| !text.is_char_boundary(**o as usize)) {
            return Err(format!("offset {o} cuts a character in two"));
        }
        Ok(Self { text, offsets })
    }

    /// Number of strings.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// True if there are no strings.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The string with this id. Panics if there is none.
    pub fn get(&self, id: StringId) -> &str {
        let i = id as usize;
        let range = self.offsets[i] as usize..self.offsets[i + 1] as usize;
        &self.text[range]
    }

    /// The string with this id, or `default` for [`NONE`].
    pub fn get_or<'a>(&'a self, id: StringId, default: &'a str) -> &'a str {
        if id == NONE { default } else { self.get(id) }
    }

    /// All strings in id order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).map(|i| self.get(i as StringId))
    }

    /// The concatenated strings.
    pub fn bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }

    /// Where each string starts, and the end of the last.
    pub fn offsets(&self) -> &[u64] {
        &self.offsets
    }

    /// Appends a string and returns its id.
    pub fn push(&mut self, s: &str) -> StringId {
        let id = StringId::try_from(self.len()).ok().filter(|id| *id != NONE);
        self.text.push_str(s);
        self.offsets.push(self.text.len() as u64);
        id.expect("fewer than 2^32 - 1 strings")
    }
}

impl<S: AsRef<str>> FromIterator<S> for StringTable {
    fn from_iter<I: IntoIterator<Item = S>>(strings: I) -> Self {
        let mut table = Self::default();
        for s in strings {
            table.push(s.as_ref());
        }
        table
    }
}

/// Gives equal strings equal ids, in order of first occurrence.
#[derive(Debug, Default, Clone)]
pub struct Interner {
    table: StringTable,
    /// Each id with the hash of its string, so that growing does not look at strings again.
    ids: HashTable<(u64, StringId)>,
}

fn hash(s: &str) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(s.as_bytes());
    hasher.finish()
}

impl Interner {
    /// The id of `s`, new if it was not seen before.
    pub fn intern(&mut self, s: &str) -> StringId {
        let Self { table, ids } = self;
        let h = hash(s);
        if let Some((_, id)) = ids.find(h, |(other, id)| *other == h && table.get_bytes(*id) == s.as_bytes())
        {
            return *id;
        }
        let id = table.push(s);
        ids.insert_unique(h, (h, id), |(h, _)| *h);
        id
    }

    /// As [`Interner::intern`], for a string that may well be the one with this id.
    pub fn intern_guessed(&mut self, s: &str, guess: StringId) -> StringId {
        let guessed = (guess as usize) < self.table.len() && self.table.get_bytes(guess) == s.as_bytes();
        if guessed { guess } else { self.intern(s) }
    }

    /// The id of `s` if it was seen.
    pub fn find(&self, s: &str) -> Option<StringId> {
        let found = self.ids.find(hash(s), |(_, id)| self.table.get_bytes(*id) == s.as_bytes());
        found.map(|(_, id)| *id)
    }

    /// The strings so far.
    pub fn table(&self) -> &StringTable {
        &self.table
    }

    /// The finished table.
    pub fn into_table(self) -> StringTable {
        self.table
    }
}

impl StringTable {
    fn get_bytes(&self, id: StringId) -> &[u8] {
        let i = id as usize;
        &self.text.as_bytes()[self.offsets[i] as usize..self.offsets[i + 1] as usize]
    }

    /// An interner that already knows these strings (the first id of a repeated string wins).
    pub fn into_interner(self) -> Interner {
        let mut ids = HashTable::with_capacity(self.len());
        for i in 0..self.len() as StringId {
            let h = hash(self.get(i));
            if ids.find(h, |(_, id)| self.get_bytes(*id) == self.get_bytes(i)).is_none() {
                ids.insert_unique(h, (h, i), |(h, _)| *h);
            }
        }
        Interner { table: self, ids }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn interning_is_a_bijection(strings in prop::collection::vec(".{0,12}", 0..200)) {
            let mut interner = Interner::default();
            let ids: Vec<_> = strings.iter().map(|s| interner.intern(s)).collect();
            for (s, id) in strings.iter().zip(&ids) {
                prop_assert_eq!(interner.table().get(*id), s.as_str());
                prop_assert_eq!(interner.find(s), Some(*id));
                for guess in [0, *id, id + 1, NONE] {
                    prop_assert_eq!(interner.intern_guessed(s, guess), *id);
                }
            }
            let distinct: std::collections::BTreeSet<_> = strings.iter().collect();
            prop_assert_eq!(interner.table().len(), distinct.len());
            let table = interner.into_table();
            let again = StringTable::from_parts(table.bytes().to_vec(), table.offsets().to_vec());
            prop_assert_eq!(again.as_ref(), Ok(&table));
            let known = table.clone().into_interner();
            prop_assert_eq!(known.table(), &table);
        }
    }

    #[test]
    fn unsound_parts_are_refused() {
        for (bytes, offsets) in [
            (vec![b'a'], vec![]),
            (vec![b'a'], vec![0]),
            (vec![b'a'], vec![0, 2]),
            (vec![b'a', b'b'], vec![0, 2, 1, 2]),
            ("é".into(), vec![0, 1, 2]),
            (vec![0xff], vec![0, 1]),
        ] {
            assert!(StringTable::from_parts(bytes, offsets).is_err());
        }
    }
}
